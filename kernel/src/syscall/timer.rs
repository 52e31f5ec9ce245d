//! Timers of processes: setitimer(2), alarm(2).

use linux_raw_sys::general::{self as abi, itimerval};
use orrery_core::time as core_time;

use super::{Args, Errno, SysResult};
use crate::mm::user;
use crate::process::current;
use crate::process::run_timer::{self, Clock};
use crate::time::deadline;
use crate::time::real_timer::Setting;

/// A process's interval timers.
enum Which {
    Real,
    OfRunTime(Clock),
}

impl Which {
    fn of(kind: u64) -> Result<Self, Errno> {
        match kind as u32 {
            abi::ITIMER_REAL => Ok(Self::Real),
            abi::ITIMER_VIRTUAL => Ok(Self::OfRunTime(Clock::Virtual)),
            abi::ITIMER_PROF => Ok(Self::OfRunTime(Clock::Profiling)),
            _ => Err(Errno::EINVAL),
        }
    }
}

fn write(at: u64, setting: Setting) -> Result<(), Errno> {
    let value = itimerval {
        it_interval: deadline::timeval(setting.interval_nanos),
        it_value: deadline::timeval(setting.value_nanos),
    };
    user::write(at, &value)
}

/// getitimer(2).
pub fn getitimer(args: &Args) -> SysResult {
    let process = &current().process;
    let setting = match Which::of(args[0])? {
        Which::Real => process.real_timer.get(),
        Which::OfRunTime(clock) => run_timer::get(process, clock),
    };
    write(args[1], setting)?;
    Ok(0)
}

/// setitimer(2). As on Linux, no new value is a value of zero.
pub fn setitimer(args: &Args) -> SysResult {
    let new = match args[1] {
        0 => Setting::default(),
        at => {
            let itimerval { it_interval, it_value } = user::read(at)?;
            Setting {
                value_nanos: core_time::from_timeval(it_value.tv_sec, it_value.tv_usec)?,
                interval_nanos: core_time::from_timeval(it_interval.tv_sec, it_interval.tv_usec)?,
            }
        }
    };
    let process = &current().process;
    let old = match Which::of(args[0])? {
        Which::Real => process.real_timer.set(process, new),
        Which::OfRunTime(clock) => run_timer::set(process, clock, new),
    };
    if args[2] != 0 {
        write(args[2], old)?;
    }
    Ok(0)
}

/// alarm(2): seconds, the old ones rounded; never to zero if the timer was set.
pub fn alarm(args: &Args) -> SysResult {
    let seconds = u64::from(args[0] as u32);
    let new = Setting { value_nanos: seconds * core_time::NANOS_PER_SECOND, interval_nanos: 0 };
    let process = &current().process;
    let left = process.real_timer.set(process, new).value_nanos;
    let rounded = (left + core_time::NANOS_PER_SECOND / 2) / core_time::NANOS_PER_SECOND;
    Ok(if left > 0 { rounded.max(1) } else { 0 })
}
