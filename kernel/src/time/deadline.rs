//! Deadlines: what programs say of time, as ticks of the time-stamp counter.

use linux_raw_sys::general::{__kernel_timespec, timeval};
use orrery_core::errno::Errno;
use orrery_core::time as core_time;

use super::{realtime_offset_nanos, to_ticks};
use crate::arch::tsc;

/// Nanoseconds of a time or a duration.
///
/// # Errors
/// `EINVAL` if it is none.
pub fn nanos(time: &__kernel_timespec) -> Result<u64, Errno> {
    core_time::from_timespec(time.tv_sec, time.tv_nsec)
}

/// The deadline that is so many nanoseconds away; `u64::MAX` for more than there are.
pub fn after(nanos: u64) -> u64 {
    tsc::now().saturating_add(to_ticks(nanos))
}

/// The deadline at a time of `CLOCK_MONOTONIC`.
pub fn monotonic(nanos: u64) -> u64 {
    to_ticks(nanos)
}

/// The deadline at a time of `CLOCK_REALTIME`; one that was before the machine's start has come.
pub fn realtime(nanos: u64) -> u64 {
    to_ticks(nanos.saturating_sub(realtime_offset_nanos()))
}

/// `struct timespec` for nanoseconds.
pub fn timespec(nanos: u64) -> __kernel_timespec {
    let (tv_sec, tv_nsec) = core_time::to_timespec(nanos);
    __kernel_timespec { tv_sec, tv_nsec }
}

/// `struct timeval` for nanoseconds.
pub fn timeval(nanos: u64) -> timeval {
    let (tv_sec, tv_usec) = core_time::to_timeval(nanos);
    timeval { tv_sec, tv_usec }
}
