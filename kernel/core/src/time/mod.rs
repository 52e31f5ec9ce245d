//! Time as programs know it: nanoseconds, seconds and dates.
//!
//! - [`Rate`]: from the time-stamp counter's ticks to nanoseconds and back
//! - [`calendar`]: from the date that the CMOS clock shows to the seconds that Unix counts
//! - the functions here: `struct timespec` and `struct timeval` to nanoseconds and back

pub mod calendar;
mod rate;

pub use rate::Rate;

use crate::errno::Errno;

/// Nanoseconds in a second.
pub const NANOS_PER_SECOND: u64 = 1_000_000_000;
/// Nanoseconds in a microsecond.
pub const NANOS_PER_MICRO: u64 = 1_000;
const MICROS_PER_SECOND: i64 = 1_000_000;

/// Nanoseconds of a `struct timespec` that is a time or a duration; more than there are, for ever, is
/// `u64::MAX`.
///
/// # Errors
/// `EINVAL` if the seconds are negative, or the nanoseconds are not 0 to 999,999,999.
pub fn from_timespec(seconds: i64, nanoseconds: i64) -> Result<u64, Errno> {
    let seconds = u64::try_from(seconds).map_err(|_| Errno::EINVAL)?;
    let nanoseconds = u64::try_from(nanoseconds).map_err(|_| Errno::EINVAL)?;
    if nanoseconds >= NANOS_PER_SECOND {
        return Err(Errno::EINVAL);
    }
    Ok(seconds.saturating_mul(NANOS_PER_SECOND).saturating_add(nanoseconds))
}

/// Nanoseconds of a `struct timeval`; as [`from_timespec`].
///
/// # Errors
/// `EINVAL` if the seconds are negative, or the microseconds are not 0 to 999,999.
pub fn from_timeval(seconds: i64, microseconds: i64) -> Result<u64, Errno> {
    if !(0..MICROS_PER_SECOND).contains(&microseconds) {
        return Err(Errno::EINVAL);
    }
    from_timespec(seconds, microseconds * NANOS_PER_MICRO as i64)
}

/// Seconds and nanoseconds, as `struct timespec` has them.
pub const fn to_timespec(nanos: u64) -> (i64, i64) {
    ((nanos / NANOS_PER_SECOND) as i64, (nanos % NANOS_PER_SECOND) as i64)
}

/// Seconds and microseconds, rounded down, as `struct timeval` has them.
pub const fn to_timeval(nanos: u64) -> (i64, i64) {
    ((nanos / NANOS_PER_SECOND) as i64, (nanos % NANOS_PER_SECOND / NANOS_PER_MICRO) as i64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_proper_times_are_taken() {
        assert_eq!(from_timespec(1, 5), Ok(1_000_000_005));
        assert_eq!(from_timespec(i64::MAX, 999_999_999), Ok(u64::MAX));
        assert_eq!(from_timeval(2, 3), Ok(2_000_003_000));
        for (seconds, rest) in [(-1, 0), (0, -1), (0, 1_000_000_000), (0, i64::MIN)] {
            assert_eq!(from_timespec(seconds, rest), Err(Errno::EINVAL));
            assert_eq!(from_timeval(seconds, rest), Err(Errno::EINVAL));
        }
        assert_eq!(from_timeval(0, 1_000_000), Err(Errno::EINVAL));
        assert_eq!(from_timeval(0, i64::MAX), Err(Errno::EINVAL));
    }

    #[test]
    fn and_given_back() {
        assert_eq!(to_timespec(1_000_000_005), (1, 5));
        assert_eq!(to_timeval(2_000_003_999), (2, 3));
    }
}
