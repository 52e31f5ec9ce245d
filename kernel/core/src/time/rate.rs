//! The rate of a counter, as a multiplication.

use super::NANOS_PER_SECOND;

/// How fast a counter counts. Programs read the clock by the same formula, see `crate::vdso`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rate {
    /// Nanoseconds in a tick, as a fixed-point number with [`Rate::SHIFT`] fractional bits.
    mult: u64,
}

impl Rate {
    /// Fractional bits of [`Self::mult`]. With as many, the slowest counter's multiplier still fits, and an hour is
    /// wrong by less than a nanosecond.
    pub const SHIFT: u32 = 56;

    /// The slowest counter there is, in ticks per second: a tick is less than 2⁸ ns.
    pub const MIN_HZ: u64 = NANOS_PER_SECOND / (1 << (64 - Self::SHIFT)) + 1;

    /// The rate of a counter with `hz` ticks per second; slower ones than [`Self::MIN_HZ`] count as that.
    pub const fn new(hz: u64) -> Self {
        let hz = if hz < Self::MIN_HZ { Self::MIN_HZ } else { hz };
        Self { mult: (((NANOS_PER_SECOND as u128) << Self::SHIFT) / hz as u128) as u64 }
    }

    /// The rate with this [`Self::mult`].
    pub const fn from_mult(mult: u64) -> Self {
        Self { mult }
    }

    /// What to multiply ticks with, before shifting right by [`Self::SHIFT`].
    pub const fn mult(self) -> u64 {
        self.mult
    }

    /// Nanoseconds in so many ticks, rounded down; the result wraps after 584 years.
    #[inline]
    pub const fn to_nanos(self, ticks: u64) -> u64 {
        ((ticks as u128 * self.mult as u128) >> Self::SHIFT) as u64
    }

    /// The fewest ticks that are so many nanoseconds, or `u64::MAX`.
    pub fn to_ticks(self, nanos: u64) -> u64 {
        let ticks = (u128::from(nanos) << Self::SHIFT).div_ceil(u128::from(self.mult));
        u64::try_from(ticks).unwrap_or(u64::MAX)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn an_instruction_a_nanosecond_is_exact() {
        let rate = Rate::new(NANOS_PER_SECOND);
        for ticks in [0, 1, 12_345_678_901, u64::MAX] {
            assert_eq!(rate.to_nanos(ticks), ticks);
            assert_eq!(rate.to_ticks(ticks), ticks);
        }
    }

    #[test]
    fn the_extremes_fit() {
        assert_eq!(Rate::new(0), Rate::new(Rate::MIN_HZ));
        let slow = Rate::new(Rate::MIN_HZ);
        assert_eq!(slow.to_nanos(1), 255);
        assert_eq!(Rate::new(20_000_000_000).to_ticks(u64::MAX), u64::MAX);
    }

    proptest! {
        #![proptest_config(ProptestConfig {
            cases: if cfg!(miri) { 16 } else { 512 },
            failure_persistence: None,
            ..ProptestConfig::default()
        })]

        #[test]
        fn nanoseconds_are_right_and_never_early(
            hz in 50_000_000..20_000_000_000u64,
            nanos in 0..1u64 << 56,
        ) {
            let rate = Rate::new(hz);
            let ticks = rate.to_ticks(nanos);
            prop_assert!(rate.to_nanos(ticks) >= nanos);
            prop_assert!(ticks == 0 || rate.to_nanos(ticks - 1) < nanos);
            let exact = u128::from(ticks) * u128::from(NANOS_PER_SECOND) / u128::from(hz);
            // One for rounding, and the multiplier's own error.
            let error = exact.abs_diff(u128::from(rate.to_nanos(ticks)));
            prop_assert!(error <= 1 + (u128::from(ticks) >> Rate::SHIFT), "{error}");
        }
    }
}
