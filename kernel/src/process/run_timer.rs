//! Timers that count the run time of a process: setitimer(2) with `ITIMER_VIRTUAL` and `ITIMER_PROF`, and
//! `RLIMIT_CPU`.
//!
//! Nothing counts them down. Where a process has one, a [tick](crate::sched::tick) makes the thread that it finds
//! look at what the process has used, on its way to ring 3. So they expire late by up to a tick.

use alloc::sync::Arc;
use core::sync::atomic::Ordering;

use linux_raw_sys::general as abi;
use orrery_core::sched::cpu_time::CpuTime;
use orrery_core::signal::{Signal, SignalInfo};
use orrery_core::time::{NANOS_PER_MICRO, NANOS_PER_SECOND};

use super::group::{Family, Process};
use super::limits::{INFINITY, Limit};
use super::thread::Thread;
use super::{signal, tree};
use crate::sched::task::ProgramPart;
use crate::sched::{self, Task};
use crate::time::real_timer::Setting;
use crate::time::{to_nanos, to_ticks};

/// What a timer counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Clock {
    /// Time in ring 3 (`ITIMER_VIRTUAL`).
    Virtual,
    /// All run time (`ITIMER_PROF`).
    Profiling,
}

impl Clock {
    const ALL: [Self; 2] = [Self::Virtual, Self::Profiling];

    fn read_ticks(self, time: CpuTime) -> u64 {
        match self {
            Self::Virtual => time.user_ticks,
            Self::Profiling => time.total_ticks(),
        }
    }

    const fn signal(self) -> u32 {
        match self {
            Self::Virtual => abi::SIGVTALRM,
            Self::Profiling => abi::SIGPROF,
        }
    }
}

#[derive(Clone, Copy, Debug, Default)]
struct Timer {
    /// What its clock shows when it expires.
    expiry_ticks: Option<u64>,
    interval_ticks: u64,
}

impl Timer {
    fn setting(&self, now_ticks: u64) -> Setting {
        let left = |expiry: u64| {
            // A timer that is about to expire is still set.
            to_nanos(expiry.saturating_sub(now_ticks)).max(NANOS_PER_MICRO)
        };
        Setting {
            value_nanos: self.expiry_ticks.map_or(0, left),
            interval_nanos: to_nanos(self.interval_ticks),
        }
    }

    /// True if it has expired; with an interval it will again.
    fn expire(&mut self, now_ticks: u64) -> bool {
        let Some(expiry) = self.expiry_ticks.filter(|&expiry| expiry <= now_ticks) else {
            return false;
        };
        let interval = self.interval_ticks;
        self.expiry_ticks = (interval != 0).then(|| expiry.saturating_add(interval));
        true
    }
}

/// A process's.
#[derive(Clone, Copy, Debug, Default)]
pub struct RunTimers([Timer; Clock::ALL.len()]);

impl RunTimers {
    fn of(&mut self, clock: Clock) -> &mut Timer {
        &mut self.0[clock as usize]
    }

    fn are_set(&self) -> bool {
        self.0.iter().any(|timer| timer.expiry_ticks.is_some())
    }
}

impl Family {
    /// From now on its threads look at the run time. They may do so in vain, but never fail to.
    fn watch_run_time(&mut self) {
        self.is_run_time_watched = true;
        for task in &self.threads {
            watch(task);
        }
    }
}

/// Makes a thread, whose task this is, look at its process's run time.
pub(super) fn watch(task: &Task) {
    if let Some(program) = task.program() {
        program.has_run_timer.store(true, Ordering::Relaxed);
    }
}

/// What is left of a timer's setting.
pub fn get(process: &Process, clock: Clock) -> Setting {
    let mut tree = tree::lock();
    let now = clock.read_ticks(process.cpu_time(&mut tree));
    let timers = process.family.get_mut(&mut tree).run_timers.as_mut();
    timers.map_or(Setting::default(), |timers| timers.of(clock).setting(now))
}

/// Replaces a timer's setting, and returns what was left of the old one.
pub fn set(process: &Process, clock: Clock, new: Setting) -> Setting {
    let mut tree = tree::lock();
    let now = clock.read_ticks(process.cpu_time(&mut tree));
    let family = process.family.get_mut(&mut tree);
    let expires = (new.value_nanos != 0).then(|| now.saturating_add(to_ticks(new.value_nanos)));
    let timer = Timer { expiry_ticks: expires, interval_ticks: to_ticks(new.interval_nanos) };
    let old = core::mem::replace(family.run_timers.get_or_insert_default().of(clock), timer);
    if expires.is_some() {
        family.watch_run_time();
    }
    old.setting(now)
}

/// Has `change` replace the `RLIMIT_CPU` of a process, which is watched from then on.
///
/// A child that is made at the same time is watched as well, if it has the new limit.
pub fn change_limit<R>(process: &Process, change: impl FnOnce() -> R) -> R {
    // Over the change: a look between the two would find no limit to watch.
    let mut tree = tree::lock();
    let result = change();
    process.family.get_mut(&mut tree).watch_run_time();
    result
}

/// The running thread, which this is, looks whether a timer of its process has expired, if a tick may have asked it to.
#[inline]
pub(super) fn look(thread: &Thread) {
    if let Some(program) = sched::current().program()
        && program.has_run_timer.load(Ordering::Relaxed)
    {
        look_at_all(thread, program);
    }
}

#[cold]
fn look_at_all(thread: &Thread, program: &ProgramPart) {
    let process = &thread.process;
    let mut expired = [None; Clock::ALL.len()];
    let (time, limit) = {
        let mut tree = tree::lock();
        // Under the lock, under which limits are replaced.
        let limit = process.limits.lock().get(abi::RLIMIT_CPU).filter(|it| it.soft != INFINITY);
        let time = process.cpu_time(&mut tree);
        let family = process.family.get_mut(&mut tree);
        for (clock, expired) in Clock::ALL.into_iter().zip(&mut expired) {
            let timer = family.run_timers.as_mut().map(|timers| timers.of(clock));
            if timer.is_some_and(|timer| timer.expire(clock.read_ticks(time))) {
                *expired = Some(clock.signal());
            }
        }
        let are_set = family.run_timers.as_ref().is_some_and(|timers| timers.are_set());
        family.is_run_time_watched = are_set || limit.is_some();
        program.has_run_timer.store(family.is_run_time_watched, Ordering::Relaxed);
        (time, limit)
    };
    let seconds = to_nanos(time.total_ticks()) / NANOS_PER_SECOND;
    let by_limit = limit.and_then(|limit| {
        if seconds >= limit.hard {
            return Some(abi::SIGKILL);
        }
        (seconds >= limit.soft).then(|| {
            // Once more a second later, as on Linux.
            let next = Limit { soft: limit.soft.saturating_add(1), ..limit };
            let mut limits = process.limits.lock();
            if limits.get(abi::RLIMIT_CPU) == Some(limit) {
                Arc::make_mut(&mut limits).set(abi::RLIMIT_CPU, next);
            }
            abi::SIGXCPU
        })
    });
    for number in expired.into_iter().chain([by_limit]).flatten() {
        if let Some(signal) = Signal::new(number.into()) {
            signal::send_to_process(process, SignalInfo::kernel(signal));
        }
    }
}
