//! Timers: how late a sleep ends.
//!
//! The deadline is a time of the monotonic clock; the sample begins at the reading of the time-stamp counter that
//! belongs to it. Which one that is follows from the clock, read with the counter after the sleep, and from the
//! counter's rate, which only has to be right for the short time between the two.
//!
//! Each sleep is as long as the others from where it begins, so that an idle CPU that polls is found at the same
//! instruction.

use std::time::Duration;

use programs::check;

use crate::raw::{call, ticks};
use crate::sibling::Hog;
use crate::suite::{Sample, Suite};

const SLEEP: Duration = Duration::from_millis(1);
const SECOND: u64 = 1_000_000_000;

pub fn measure(suite: &Suite) {
    let name = format!("timer/idle/{}", suite.long_idle);
    if suite.wants(&name) {
        lateness(suite, &name);
    }
    if suite.wants("timer/loaded") {
        let _hog = Hog::on(suite.here);
        lateness(suite, "timer/loaded");
    }
}

/// A moment on both clocks.
struct Moment {
    ticks: u64,
    nanoseconds: u64,
}

impl Moment {
    fn now() -> Self {
        let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
        let before = ticks();
        // The C library's, which asks the kernel only where it must.
        // SAFETY: the time is written, and nothing else.
        let read = unsafe { libc::clock_gettime(libc::CLOCK_MONOTONIC, &raw mut time) };
        let after = ticks();
        check!(read == 0, "there is no monotonic clock");
        let nanoseconds = time.tv_sec as u64 * SECOND + time.tv_nsec as u64;
        Self { ticks: before.midpoint(after), nanoseconds }
    }
}

fn lateness(suite: &Suite, name: &str) {
    let begin = Moment::now();
    for round in 0..suite.rounds() {
        let deadline = Moment::now().nanoseconds + SLEEP.as_nanos() as u64;
        let time = libc::timespec {
            tv_sec: (deadline / SECOND) as i64,
            tv_nsec: (deadline % SECOND) as i64,
        };
        let (clock, flags) = (libc::CLOCK_MONOTONIC as u64, libc::TIMER_ABSTIME as u64);
        call(libc::SYS_clock_nanosleep, [clock, flags, &raw const time as u64, 0]);
        let end = ticks();
        let now = Moment::now();
        let late = u128::from(now.nanoseconds - deadline);
        let passed = u128::from(now.nanoseconds - begin.nanoseconds);
        let late_ticks = late * u128::from(now.ticks - begin.ticks) / passed;
        let start = (now.ticks - late_ticks as u64).min(end);
        suite.tell(round, &Sample { name, start, end, ops: 1 });
    }
}
