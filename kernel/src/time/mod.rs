//! The clocks that programs know, and timers that send signals.
//!
//! Everything derives from the time-stamp counter: `CLOCK_MONOTONIC` is its count in nanoseconds, and
//! `CLOCK_REALTIME` that plus what the battery-backed clock said at boot. Neither is ever set, so an absolute time of
//! either is a time of the counter.
//!
//! - here: the clocks
//! - [`deadline`]: what programs say of time, as ticks
//! - [`real_timer`]: what setitimer(2) sets
//! - [`vdso`]: the pages that let programs read the clocks by themselves

pub mod deadline;
pub mod real_timer;
pub mod vdso;

use core::sync::atomic::{AtomicU64, Ordering};

use orrery_core::time::{NANOS_PER_SECOND, Rate};

use crate::arch::{rtc, tsc};

/// [`Rate::mult`] of the time-stamp counter.
static MULT: AtomicU64 = AtomicU64::new(0);
/// `CLOCK_REALTIME` minus `CLOCK_MONOTONIC`, in nanoseconds.
static REALTIME_OFFSET_NANOS: AtomicU64 = AtomicU64::new(0);

/// Starts the clocks. Without a battery-backed clock, the machine was started in 1970.
///
/// # Safety
/// Once, on the boot CPU, after the time-stamp counter's rate is known and before any program runs.
pub unsafe fn init() {
    let rate = Rate::new(tsc::hz());
    MULT.store(rate.mult(), Ordering::Relaxed);
    // SAFETY: boot (caller).
    let date = unsafe { rtc::unix_seconds() }.unwrap_or(0).saturating_mul(NANOS_PER_SECOND);
    let offset = date.saturating_sub(monotonic_nanos());
    REALTIME_OFFSET_NANOS.store(offset, Ordering::Relaxed);
    // SAFETY: once, before any program runs (caller).
    unsafe { vdso::init(rate, offset) };
}

fn rate() -> Rate {
    Rate::from_mult(MULT.load(Ordering::Relaxed))
}

/// Nanoseconds in so many ticks.
#[inline]
pub fn to_nanos(ticks: u64) -> u64 {
    rate().to_nanos(ticks)
}

/// The fewest ticks that are so many nanoseconds; `u64::MAX` for more than there are.
pub fn to_ticks(nanos: u64) -> u64 {
    rate().to_ticks(nanos)
}

/// Nanoseconds since the machine was started.
#[inline]
pub fn monotonic_nanos() -> u64 {
    to_nanos(tsc::now())
}

/// Nanoseconds since 1970.
#[inline]
pub fn realtime_nanos() -> u64 {
    monotonic_nanos().saturating_add(realtime_offset_nanos())
}

/// `CLOCK_REALTIME` minus `CLOCK_MONOTONIC`, in nanoseconds.
#[inline]
pub fn realtime_offset_nanos() -> u64 {
    REALTIME_OFFSET_NANOS.load(Ordering::Relaxed)
}
