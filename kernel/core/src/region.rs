//! Measured regions: a stretch of a program or an application whose cost is to be known.
//!
//! A region is told after it has ended, by one line, which is the text of a `mark` event; nothing is
//! recorded inside of it for its sake:
//!
//! ```text
//!   region NAME START END OPS          region switch/yield/process 81004513 81037153 64
//! ```
//!
//! START and END are readings of the time-stamp counter, the clock of the trace, so that the events
//! between them belong to the region. They may come from different CPUs. The region holds OPS
//! operations, each of which costs (END - START) / OPS.
//!
//! Neighbours: the kernel's `app` writes such lines, and so do programs; the host reads them.

use core::fmt;
use core::str::FromStr;

/// Longest name, in bytes.
pub const MAX_NAME_BYTES: usize = 64;
/// Longest line, in bytes: the word, a name, two numbers of 64 bits and one of 32.
pub const MAX_LINE_BYTES: usize = KEYWORD.len() + MAX_NAME_BYTES + 20 + 20 + 10 + 4;

const KEYWORD: &str = "region";

/// A region that has ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Region<'a> {
    name: &'a str,
    start_ticks: u64,
    end_ticks: u64,
    ops: u32,
}

/// Why something is no region.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RegionError<'a> {
    /// The line has too few words or too many.
    NotFourWords(&'a str),
    /// The name has no bytes or too many, begins with something else than a letter or digit, or has something
    /// else than those and `. _ / -` in it; capital letters are not letters here.
    BadName(&'a str),
    /// A word that should be a number is none, or too large.
    BadNumber {
        /// What it should be.
        what: &'static str,
        /// The word.
        word: &'a str,
    },
    /// The end comes before the start.
    Backwards {
        /// Start, in ticks.
        start_ticks: u64,
        /// End, in ticks.
        end_ticks: u64,
    },
    /// It holds no operation.
    NoOperation,
}

impl<'a> Region<'a> {
    /// A region of this name, between two readings of the time-stamp counter, that holds so many
    /// operations.
    ///
    /// # Errors
    /// [`RegionError::BadName`], [`RegionError::Backwards`], [`RegionError::NoOperation`].
    pub fn new(
        name: &'a str,
        start_ticks: u64,
        end_ticks: u64,
        ops: u32,
    ) -> Result<Self, RegionError<'a>> {
        check_name(name)?;
        if end_ticks < start_ticks {
            return Err(RegionError::Backwards { start_ticks, end_ticks });
        }
        if ops == 0 {
            return Err(RegionError::NoOperation);
        }
        Ok(Self { name, start_ticks, end_ticks, ops })
    }

    /// Reads the text of a mark. `None` where it is about something else: its first word is not
    /// `region`.
    pub fn parse(text: &'a str) -> Option<Result<Self, RegionError<'a>>> {
        let mut words = text.split(' ');
        if words.next() != Some(KEYWORD) {
            return None;
        }
        let fields = (words.next(), words.next(), words.next(), words.next(), words.next());
        Some(match fields {
            (Some(name), Some(start), Some(end), Some(ops), None) => {
                Self::read(name, start, end, ops)
            }
            _ => Err(RegionError::NotFourWords(text)),
        })
    }

    fn read(
        name: &'a str,
        start: &'a str,
        end: &'a str,
        ops: &'a str,
    ) -> Result<Self, RegionError<'a>> {
        Self::new(name, number("START", start)?, number("END", end)?, number("OPS", ops)?)
    }

    /// What it is called: parts with slashes between them, from the general to the special.
    pub fn name(&self) -> &'a str {
        self.name
    }

    /// Reading of the time-stamp counter at its start.
    pub fn start_ticks(&self) -> u64 {
        self.start_ticks
    }

    /// The same at its end.
    pub fn end_ticks(&self) -> u64 {
        self.end_ticks
    }

    /// Ticks from its start to its end.
    pub fn ticks(&self) -> u64 {
        self.end_ticks - self.start_ticks
    }

    /// Operations in it; at least one.
    pub fn ops(&self) -> u32 {
        self.ops
    }
}

/// Says whether a region may have this name.
///
/// # Errors
/// [`RegionError::BadName`].
pub fn check_name(name: &str) -> Result<(), RegionError<'_>> {
    let is_alphanumeric = |byte: u8| matches!(byte, b'a'..=b'z' | b'0'..=b'9');
    let is_allowed = |byte| is_alphanumeric(byte) || b"._/-".contains(&byte);
    let begins_well = name.bytes().next().is_some_and(is_alphanumeric);
    if begins_well && name.len() <= MAX_NAME_BYTES && name.bytes().all(is_allowed) {
        Ok(())
    } else {
        Err(RegionError::BadName(name))
    }
}

fn number<'a, T: FromStr>(what: &'static str, word: &'a str) -> Result<T, RegionError<'a>> {
    // `parse` allows a plus sign.
    let has_digits_only = word.bytes().all(|byte| byte.is_ascii_digit());
    let number = if has_digits_only { word.parse().ok() } else { None };
    number.ok_or(RegionError::BadNumber { what, word })
}

/// The line that tells it.
impl fmt::Display for Region<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { name, start_ticks, end_ticks, ops } = self;
        write!(f, "{KEYWORD} {name} {start_ticks} {end_ticks} {ops}")
    }
}

impl fmt::Display for RegionError<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Self::NotFourWords(line) => {
                write!(f, "`{line}` is not of the form `{KEYWORD} NAME START END OPS`")
            }
            Self::BadName(name) => write!(
                f,
                "a region cannot be called `{name}`: a name has 1 to {MAX_NAME_BYTES} of a-z, 0-9, \
                 `.`, `_`, `/` and `-`, the first of them a letter or a digit"
            ),
            Self::BadNumber { what, word } => {
                let bits = if what == "OPS" { 32 } else { 64 };
                write!(f, "{what} of a region is a decimal number of {bits} bits, not `{word}`")
            }
            Self::Backwards { start_ticks, end_ticks } => {
                write!(f, "a region ends at {end_ticks}, before it starts at {start_ticks}")
            }
            Self::NoOperation => f.write_str("a region holds no operation; OPS is 1 at least"),
        }
    }
}

impl core::error::Error for RegionError<'_> {}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::string::{String, ToString};

    const NAME: &str = "[a-z0-9][a-z0-9._/-]{0,63}";

    #[test]
    fn a_line_is_read_as_it_is_written() {
        let region = Region::new("switch/yield/process", 100, 740, 64).unwrap();
        assert_eq!(region.to_string(), "region switch/yield/process 100 740 64");
        assert_eq!(Region::parse(&region.to_string()), Some(Ok(region)));
        assert_eq!((region.ticks(), region.ops()), (640, 64));
    }

    #[test]
    fn other_marks_are_no_regions() {
        for text in ["", "greeted", "regions a 1 2 1", " region a 1 2 1", "Region a 1 2 1"] {
            assert_eq!(Region::parse(text), None, "{text:?}");
        }
    }

    #[test]
    fn what_is_wrong_is_named() {
        let complaint = |line| match Region::parse(line) {
            Some(Err(why)) => why.to_string(),
            other => panic!("{line:?}: {other:?}"),
        };
        for line in ["region", "region a 1 2", "region a 1 2 3 4", "region  a 1 2 3"] {
            assert!(complaint(line).contains("NAME START END OPS"), "{line:?}");
        }
        assert!(complaint("region Null-Call 1 2 1").contains("called `Null-Call`"));
        assert!(complaint("region /a 1 2 1").contains("called `/a`"));
        assert!(complaint("region a x 2 1").contains("START of a region"));
        assert!(complaint("region a 1 +2 1").contains("not `+2`"));
        assert!(complaint("region a 1 18446744073709551616 1").contains("64 bits"));
        assert!(complaint("region a 1 2 4294967296").contains("32 bits"));
        assert!(complaint("region a 2 1 1").contains("before it starts"));
        assert!(complaint("region a 1 2 0").contains("no operation"));
    }

    #[test]
    fn the_longest_line_is_as_long_as_is_said() {
        let name = "a".repeat(MAX_NAME_BYTES);
        let line = Region::new(&name, u64::MAX, u64::MAX, u32::MAX).unwrap().to_string();
        assert_eq!(line.len(), MAX_LINE_BYTES);
        let too_long = "a".repeat(MAX_NAME_BYTES + 1);
        assert_eq!(check_name(&too_long), Err(RegionError::BadName(&too_long)));
    }

    proptest! {
        #[test]
        fn every_region_comes_back(
            name in NAME, start_ticks: u64, ticks: u64, ops in 1u32..,
        ) {
            let end_ticks = start_ticks.saturating_add(ticks);
            let region = Region::new(&name, start_ticks, end_ticks, ops).unwrap();
            let line = region.to_string();
            prop_assert_eq!(Region::parse(&line), Some(Ok(region)));
        }

        #[test]
        fn no_text_is_read_as_another_line(text in "region [a-z/ 0-9+-]{0,40}") {
            if let Some(Ok(region)) = Region::parse(&text) {
                // Leading zeroes are all that may differ.
                let plain = |line: &str| -> String {
                    let words: std::vec::Vec<_> = line.split(' ').collect();
                    let number = |word: &str| word.parse::<u64>().unwrap().to_string();
                    let [_, name, start, end, ops] = words[..] else { panic!("{line:?}") };
                    std::format!("{name} {} {} {}", number(start), number(end), number(ops))
                };
                prop_assert_eq!(plain(&text), plain(&region.to_string()));
            }
        }

        #[test]
        fn any_text_is_read_or_refused(text in "\\PC{0,80}") {
            let _ = Region::parse(&text);
        }
    }
}
