//! Clocks, and sleeping until they show a time.

use linux_raw_sys::general::{self as abi, __kernel_timespec, timeval, timezone};

use super::{Args, Errno, SysResult};
use crate::mm::user;
use crate::process::signal::{self, Restart};
use crate::process::{current, lookup, tree};
use crate::sched;
use crate::sched::task::Sleep;
use crate::sched::wait::{self, WaitError};
use crate::time::{self, deadline};

/// A clock that clock_gettime(2) can read.
enum Clock {
    Monotonic,
    Realtime,
    /// Of the process that the thread with this number is of.
    Process(u32),
    /// Of the thread with this number.
    Thread(u32),
}

impl Clock {
    /// The clock with this number. Negative ones have the number of a process or thread in them
    /// (clock_getcpuclockid(3); Linux's `CPUCLOCK_` macros).
    fn of(id: u64) -> Result<Self, Errno> {
        const PER_THREAD: i32 = 4;
        const KIND: i32 = 3;
        /// A file's clock.
        const OF_FILE: i32 = 3;
        let id = id as i32;
        if id < 0 {
            let number = (!(id >> 3)).cast_unsigned();
            return match id & (PER_THREAD | KIND) {
                kind if kind & KIND == OF_FILE => Err(Errno::EINVAL),
                kind if kind & PER_THREAD != 0 => Ok(Self::Thread(number)),
                _ => Ok(Self::Process(number)),
            };
        }
        Ok(match id.cast_unsigned() {
            abi::CLOCK_MONOTONIC
            | abi::CLOCK_MONOTONIC_RAW
            | abi::CLOCK_MONOTONIC_COARSE
            | abi::CLOCK_BOOTTIME => Self::Monotonic,
            // No leap seconds are known, so that atomic time is the same.
            abi::CLOCK_REALTIME | abi::CLOCK_REALTIME_COARSE | abi::CLOCK_TAI => Self::Realtime,
            abi::CLOCK_PROCESS_CPUTIME_ID => Self::Process(0),
            abi::CLOCK_THREAD_CPUTIME_ID => Self::Thread(0),
            _ => return Err(Errno::EINVAL),
        })
    }

    /// What it shows, in nanoseconds.
    fn read(&self) -> Result<u64, Errno> {
        match *self {
            Self::Monotonic => Ok(time::monotonic_nanos()),
            Self::Realtime => Ok(time::realtime_nanos()),
            Self::Process(number) => {
                let ticks = match lookup::process(number) {
                    Ok(process) => process.run_ticks(&tree::lock()),
                    // One of the kernel's own tasks, perhaps.
                    Err(_) => lookup::task(number).map_err(|_| Errno::EINVAL)?.run_ticks(),
                };
                Ok(time::to_nanos(ticks))
            }
            Self::Thread(0) => Ok(time::to_nanos(sched::current().run_ticks())),
            Self::Thread(number) => {
                let task = lookup::thread(number).map_err(|_| Errno::EINVAL)?;
                // As on Linux, only one's own threads.
                let process = &lookup::of(&task)?.process;
                if !core::ptr::eq(&raw const **process, &raw const *current().process) {
                    return Err(Errno::EINVAL);
                }
                Ok(time::to_nanos(task.run_ticks()))
            }
        }
    }
}

/// clock_gettime(2).
pub fn clock_gettime(args: &Args) -> SysResult {
    let nanos = Clock::of(args[0])?.read()?;
    user::write(args[1], &deadline::timespec(nanos))?;
    Ok(0)
}

/// clock_getres(2).
pub fn clock_getres(args: &Args) -> SysResult {
    // A clock of somebody who does not exist has no resolution either.
    Clock::of(args[0])?.read()?;
    if args[1] != 0 {
        user::write(args[1], &deadline::timespec(1))?;
    }
    Ok(0)
}

/// clock_settime(2): no clock can be set.
pub fn clock_settime(args: &Args) -> SysResult {
    let clock = Clock::of(args[0])?;
    deadline::nanos(&user::read::<__kernel_timespec>(args[1])?)?;
    match clock {
        Clock::Realtime => Err(Errno::EPERM),
        Clock::Monotonic | Clock::Process(_) | Clock::Thread(_) => Err(Errno::EINVAL),
    }
}

/// gettimeofday(2).
pub fn gettimeofday(args: &Args) -> SysResult {
    if args[0] != 0 {
        user::write::<timeval>(args[0], &deadline::timeval(time::realtime_nanos()))?;
    }
    if args[1] != 0 {
        user::write(args[1], &user::zeroed::<timezone>())?;
    }
    Ok(0)
}

/// time(2).
pub fn time(args: &Args) -> SysResult {
    let seconds = deadline::timespec(time::realtime_nanos()).tv_sec;
    if args[0] != 0 {
        user::write(args[0], &seconds)?;
    }
    Ok(seconds.cast_unsigned())
}

/// nanosleep(2).
pub fn nanosleep(args: &Args) -> SysResult {
    let nanos = deadline::nanos(&user::read(args[0])?)?;
    sleep(deadline::after(nanos), Remaining::To(args[1]))
}

/// clock_nanosleep(2). On the clocks that Linux sleeps on; those of run time are not among them here.
pub fn clock_nanosleep(args: &Args) -> SysResult {
    let id = args[0] as u32;
    let clock = Clock::of(args[0])?;
    let has_timers = matches!(
        id,
        abi::CLOCK_MONOTONIC | abi::CLOCK_BOOTTIME | abi::CLOCK_REALTIME | abi::CLOCK_TAI
    );
    if !has_timers {
        return Err(Errno::EOPNOTSUPP);
    }
    let nanos = deadline::nanos(&user::read(args[2])?)?;
    if args[1] as u32 & abi::TIMER_ABSTIME == 0 {
        return sleep(deadline::after(nanos), Remaining::To(args[3]));
    }
    let deadline_ticks = match clock {
        Clock::Realtime => deadline::realtime(nanos),
        _ => deadline::monotonic(nanos),
    };
    sleep(deadline_ticks, Remaining::NotTold)
}

/// Where the time goes that was left when a signal ended a sleep.
#[derive(Clone, Copy)]
enum Remaining {
    /// Nowhere: the deadline is absolute, and the sleep is begun anew with it.
    NotTold,
    /// To this address, if it is not 0.
    To(u64),
}

fn sleep(deadline_ticks: u64, remaining: Remaining) -> SysResult {
    match wait::sleep_until_woken(Sleep::Interruptible, Some(deadline_ticks), || false) {
        Ok(()) | Err(WaitError::TimedOut) => Ok(0),
        Err(WaitError::Interrupted) => match remaining {
            Remaining::NotTold => Err(Errno::RESTART_NO_HANDLER),
            Remaining::To(at) => {
                if at != 0 {
                    let left =
                        time::to_nanos(deadline_ticks).saturating_sub(time::monotonic_nanos());
                    user::write(at, &deadline::timespec(left))?;
                }
                let data = [deadline_ticks, at, 0, 0];
                Err(signal::restart_later(Restart { resume: sleep_on, data }))
            }
        },
    }
}

/// Goes on with a sleep that was interrupted, until the same time.
fn sleep_on(&[deadline_ticks, remaining, ..]: &[u64; 4]) -> SysResult {
    sleep(deadline_ticks, Remaining::To(remaining))
}
