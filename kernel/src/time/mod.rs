//! Time, as programs ask for it.

pub mod vdso;

use linux_raw_sys::general::rusage;

use crate::arch::tsc;
use crate::mm::user;

/// getrusage(2)'s structure for something that has run for so long.
pub fn usage_of_ticks(ticks: u64) -> rusage {
    let us = tsc::to_us(ticks);
    let mut usage: rusage = user::zeroed();
    usage.ru_utime.tv_sec = (us / 1_000_000).cast_signed();
    usage.ru_utime.tv_usec = (us % 1_000_000).cast_signed();
    usage
}
