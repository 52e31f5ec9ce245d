//! Percentiles of what the workloads measured.

use alloc::vec::Vec;
use core::fmt;

use crate::app;

/// Times in ticks, printed as percentiles in microseconds.
pub struct Samples(Vec<u64>);

impl Samples {
    /// Sorts them.
    pub fn new(mut ticks: Vec<u64>) -> Self {
        ticks.sort_unstable();
        Self(ticks)
    }

    /// The value that `percent` of the samples do not exceed (nearest rank); 0 without samples.
    pub fn percentile(&self, percent: usize) -> u64 {
        let rank = (self.0.len() * percent).div_ceil(100).max(1);
        self.0.get(rank - 1).copied().unwrap_or(0)
    }
}

impl fmt::Display for Samples {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let us = |percent| {
            let nanos = app::to_duration(self.percentile(percent)).as_nanos();
            (nanos / 1000, nanos % 1000 / 100)
        };
        let (p50, p99, max) = (us(50), us(99), us(100));
        let count = self.0.len();
        write!(
            f,
            "p50={}.{} p99={}.{} max={}.{} us of {count}",
            p50.0, p50.1, p99.0, p99.1, max.0, max.1
        )
    }
}
