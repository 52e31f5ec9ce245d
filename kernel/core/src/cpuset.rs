//! Sets of CPUs: affinity masks, the CPUs online, candidates of a placement decision.
//!
//! One `u64`, so a set is copied like a number and tested with one instruction; the kernel runs on
//! at most [`MAX_CPUS`] CPUs. A CPU number that is out of range is in no set, and putting it in one
//! changes nothing. The text form is Linux's cpulist: `0-3,5`.

use core::fmt;
use core::ops::{BitAnd, BitOr, Not};
use core::str::FromStr;

/// CPUs the kernel can drive; valid CPU numbers are `0..MAX_CPUS`.
pub const MAX_CPUS: usize = 64;

/// A set of CPU numbers.
#[derive(Clone, Copy, Default, PartialEq, Eq, Hash)]
pub struct CpuSet(u64);

impl CpuSet {
    /// No CPU.
    pub const EMPTY: Self = Self(0);
    /// Every CPU there can be.
    pub const ALL: Self = Self(u64::MAX);

    /// The set whose bit `n` says whether CPU `n` is in it.
    pub const fn from_bits(bits: u64) -> Self {
        Self(bits)
    }

    /// Bit `n` says whether CPU `n` is in the set.
    pub const fn bits(self) -> u64 {
        self.0
    }

    /// Only this CPU; empty if there is no such CPU.
    pub const fn single(cpu: usize) -> Self {
        if cpu < MAX_CPUS { Self(1 << cpu) } else { Self::EMPTY }
    }

    /// CPUs `0..count`; all of them from 64 up.
    pub const fn first_n(count: usize) -> Self {
        if count < MAX_CPUS { Self((1 << count) - 1) } else { Self::ALL }
    }

    /// Whether the CPU is in the set.
    #[inline]
    pub const fn contains(self, cpu: usize) -> bool {
        cpu < MAX_CPUS && self.0 >> cpu & 1 != 0
    }

    /// Puts the CPU in.
    pub const fn insert(&mut self, cpu: usize) {
        self.0 |= Self::single(cpu).0;
    }

    /// Takes the CPU out.
    pub const fn remove(&mut self, cpu: usize) {
        self.0 &= !Self::single(cpu).0;
    }

    /// How many CPUs are in the set.
    pub const fn len(self) -> usize {
        self.0.count_ones() as usize
    }

    /// Whether no CPU is in the set.
    pub const fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// The lowest CPU number in the set.
    pub const fn first(self) -> Option<usize> {
        if self.0 == 0 { None } else { Some(self.0.trailing_zeros() as usize) }
    }

    /// The highest CPU number in the set.
    pub const fn last(self) -> Option<usize> {
        if self.0 == 0 { None } else { Some(63 - self.0.leading_zeros() as usize) }
    }

    /// CPUs in both sets.
    pub const fn intersection(self, other: Self) -> Self {
        Self(self.0 & other.0)
    }

    /// CPUs in either set.
    pub const fn union(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    /// CPUs in this set that are not in the other.
    pub const fn difference(self, other: Self) -> Self {
        Self(self.0 & !other.0)
    }

    /// Whether all of this set's CPUs are in the other.
    pub const fn is_subset(self, other: Self) -> bool {
        self.0 & !other.0 == 0
    }

    /// CPUs in ascending order.
    pub const fn iter(self) -> Iter {
        Iter { left: self.0, start: 0 }
    }

    /// CPUs in ascending order from `start` on, then those below it, so that searches by different
    /// CPUs do not all find the same one first. `start` counts modulo 64.
    pub const fn iter_from(self, start: usize) -> Iter {
        let start = (start % MAX_CPUS) as u32;
        Iter { left: self.0.rotate_right(start), start }
    }
}

impl BitAnd for CpuSet {
    type Output = Self;
    fn bitand(self, other: Self) -> Self {
        self.intersection(other)
    }
}

impl BitOr for CpuSet {
    type Output = Self;
    fn bitor(self, other: Self) -> Self {
        self.union(other)
    }
}

impl Not for CpuSet {
    type Output = Self;
    fn not(self) -> Self {
        Self(!self.0)
    }
}

impl IntoIterator for CpuSet {
    type Item = usize;
    type IntoIter = Iter;
    fn into_iter(self) -> Iter {
        self.iter()
    }
}

impl FromIterator<usize> for CpuSet {
    fn from_iter<I: IntoIterator<Item = usize>>(cpus: I) -> Self {
        let mut set = Self::EMPTY;
        cpus.into_iter().for_each(|cpu| set.insert(cpu));
        set
    }
}

/// The CPUs of a set; see [`CpuSet::iter`].
#[derive(Clone, Debug)]
pub struct Iter {
    /// The set rotated right by `start`.
    left: u64,
    start: u32,
}

impl Iterator for Iter {
    type Item = usize;

    fn next(&mut self) -> Option<usize> {
        if self.left == 0 {
            return None;
        }
        let offset = self.left.trailing_zeros();
        self.left &= self.left - 1;
        Some((offset + self.start) as usize % MAX_CPUS)
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        let len = self.left.count_ones() as usize;
        (len, Some(len))
    }
}

impl ExactSizeIterator for Iter {}

impl fmt::Display for CpuSet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut left = self.0;
        let mut separator = "";
        while left != 0 {
            let first = left.trailing_zeros();
            let len = (left >> first).trailing_ones();
            let last = first + len - 1;
            write!(f, "{separator}{first}")?;
            if len > 1 {
                write!(f, "-{last}")?;
            }
            separator = ",";
            // Carries out of the run of ones; two steps since a shift by 64 is not defined.
            left = left >> last >> 1 << last << 1;
        }
        Ok(())
    }
}

impl fmt::Debug for CpuSet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "CpuSet({self})")
    }
}

/// Why a text is not a list of CPUs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ParseError {
    /// An element is neither a number nor `first-last`.
    Syntax,
    /// A CPU number is 64 or more.
    Range,
    /// A range's last CPU is below its first.
    Backwards,
}

impl fmt::Display for ParseError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Syntax => "not a list of CPUs: write numbers and ranges, as in 0-3,5",
            Self::Range => "CPU number out of range: they go from 0 to 63",
            Self::Backwards => "range of CPUs is backwards: write the lower number first",
        })
    }
}

impl core::error::Error for ParseError {}

impl FromStr for CpuSet {
    type Err = ParseError;

    /// Reads a list like `0-3,5`; the empty text is the empty set.
    fn from_str(text: &str) -> Result<Self, ParseError> {
        let mut set = Self::EMPTY;
        if text.is_empty() {
            return Ok(set);
        }
        for element in text.split(',') {
            let (first, last) = element.split_once('-').unwrap_or((element, element));
            let (first, last) = (parse_cpu(first)?, parse_cpu(last)?);
            if last < first {
                return Err(ParseError::Backwards);
            }
            set = set | Self::first_n(last + 1).difference(Self::first_n(first));
        }
        Ok(set)
    }
}

fn parse_cpu(text: &str) -> Result<usize, ParseError> {
    if text.is_empty() || !text.bytes().all(|byte| byte.is_ascii_digit()) {
        return Err(ParseError::Syntax);
    }
    // All digits: only a number too large for the type can fail here.
    let cpu = text.parse().map_err(|_| ParseError::Range)?;
    if cpu < MAX_CPUS { Ok(cpu) } else { Err(ParseError::Range) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::string::{String, ToString};
    use std::vec::Vec;

    #[test]
    fn text_form() {
        let set: CpuSet = "0-3,5".parse().unwrap();
        assert_eq!(set.bits(), 0b10_1111);
        assert_eq!(set.to_string(), "0-3,5");
        assert_eq!(CpuSet::ALL.to_string(), "0-63");
        assert_eq!(CpuSet::EMPTY.to_string(), "");
        assert_eq!("7".parse(), Ok(CpuSet::single(7)));
    }

    #[test]
    fn bad_text_names_the_fault() {
        for (text, error) in [
            ("a", ParseError::Syntax),
            ("1,", ParseError::Syntax),
            ("-1", ParseError::Syntax),
            ("1-2-3", ParseError::Syntax),
            ("+1", ParseError::Syntax),
            ("64", ParseError::Range),
            ("99999999999999999999999", ParseError::Range),
            ("3-1", ParseError::Backwards),
        ] {
            assert_eq!(text.parse::<CpuSet>(), Err(error), "{text:?}");
        }
    }

    #[test]
    fn numbers_out_of_range_are_in_no_set() {
        let mut set = CpuSet::single(64);
        set.insert(1000);
        assert_eq!(set, CpuSet::EMPTY);
        assert!(!CpuSet::ALL.contains(64));
    }

    proptest! {
        #![proptest_config(ProptestConfig {
            cases: if cfg!(miri) { 4 } else { 256 },
            failure_persistence: None,
            ..ProptestConfig::default()
        })]

        #[test]
        fn text_round_trips(bits: u64) {
            let set = CpuSet::from_bits(bits);
            prop_assert_eq!(set.to_string().parse(), Ok(set));
        }

        #[test]
        fn any_text_is_read_or_refused(text: String) {
            let _ = text.parse::<CpuSet>();
        }

        #[test]
        fn iteration_starts_where_asked(bits: u64, start in 0usize..64) {
            let set = CpuSet::from_bits(bits);
            let expected: Vec<_> =
                (0..64).map(|n| (n + start) % 64).filter(|cpu| set.contains(*cpu)).collect();
            prop_assert_eq!(set.iter_from(start).collect::<Vec<_>>(), expected);
            prop_assert_eq!(set.iter().collect::<CpuSet>(), set);
            prop_assert_eq!(set.iter().len(), set.len());
            prop_assert_eq!(set.iter().next(), set.first());
            prop_assert_eq!(set.iter().last(), set.last());
        }
    }
}
