//! Times of files.

use orrery_core::time::NANOS_PER_SECOND;

use crate::time;

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
        let nanos = time::realtime_nanos();
        let seconds = (nanos / NANOS_PER_SECOND).cast_signed();
        Self { seconds, nanoseconds: (nanos % NANOS_PER_SECOND) as u32 }
    }
}
