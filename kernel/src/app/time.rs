//! Time for applications: ticks of the kernel's clock, and sleeping.
//!
//! A tick is one count of the time-stamp counter, the unit of every time in the trace; under
//! `--icount` it is one instruction.

use core::time::Duration;

use super::{Sharing, Sleep, WaitError, WaitMode, WaitQueue};
use crate::arch::tsc;
use crate::sched::wait;

const NANOS_PER_SECOND: u128 = 1_000_000_000;

/// Ticks since the machine was reset.
#[inline]
pub fn now_ticks() -> u64 {
    tsc::now()
}

/// Ticks in a second.
#[inline]
pub fn ticks_per_second() -> u64 {
    tsc::hz()
}

/// Ticks in this time; `u64::MAX` where they are more than that.
pub fn to_ticks(time: Duration) -> u64 {
    let ticks = time.as_nanos() * u128::from(tsc::hz()) / NANOS_PER_SECOND;
    u64::try_from(ticks).unwrap_or(u64::MAX)
}

/// The time that so many ticks take.
pub fn to_duration(ticks: u64) -> Duration {
    let nanos = u128::from(ticks) * NANOS_PER_SECOND / u128::from(tsc::hz().max(1));
    Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX))
}

/// Sleeps for at least this time. Not ended by a request to stop: see [`sleep_or_stop`].
pub fn sleep(time: Duration) {
    sleep_until(tsc::now().saturating_add(to_ticks(time)));
}

/// Sleeps until [`now_ticks`] has reached `deadline_ticks`.
pub fn sleep_until(deadline_ticks: u64) {
    wait::sleep_until(deadline_ticks);
}

/// Sleeps for at least this time, unless the task is asked to stop.
///
/// # Errors
/// [`WaitError::Interrupted`] when the task is asked to stop, or was before.
pub fn sleep_or_stop(time: Duration) -> Result<(), WaitError> {
    let mode = WaitMode {
        sleep: Sleep::Interruptible,
        sharing: Sharing::Shared,
        deadline_ticks: Some(tsc::now().saturating_add(to_ticks(time))),
    };
    match WaitQueue::new().wait(mode, || false) {
        Ok(()) | Err(WaitError::TimedOut) => Ok(()),
        Err(WaitError::Interrupted) => Err(WaitError::Interrupted),
    }
}
