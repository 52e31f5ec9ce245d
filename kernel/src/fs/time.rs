//! Times of files.

use crate::arch::tsc;

/// A time since 1970.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Time {
    /// Seconds.
    pub seconds: i64,
    /// And nanoseconds, below 1,000,000,000.
    pub nanoseconds: u32,
}

impl Time {
    /// The time now.
    pub fn now() -> Self {
        let us = tsc::to_us(tsc::now());
        Self { seconds: (us / 1_000_000) as i64, nanoseconds: (us % 1_000_000) as u32 * 1000 }
    }
}
