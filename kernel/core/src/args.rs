//! The parameters of an application: `key=value` pairs, separated by commas, typed by whoever asks.
//!
//! A part without `=` belongs to the value before it, so that a value may be a list: in
//! `tasks=4,cpus=0-1,3` the value of `cpus` is `0-1,3`. Every complaint names the parameter, what was
//! written and what is allowed. The kernel's `app` hands an [`Args`] to each application.

extern crate alloc;

use alloc::string::String;
use alloc::vec::Vec;
use core::cell::RefCell;
use core::fmt;
use core::ops::RangeInclusive;
use core::time::Duration;

/// The parameters that an application was given.
#[derive(Debug)]
pub struct Args<'a> {
    text: &'a str,
    /// What was asked for so far.
    known: RefCell<Vec<&'static str>>,
}

/// What is wrong with the parameters.
#[derive(Clone, PartialEq, Eq)]
pub enum ArgError<'a> {
    /// The text does not begin with `key=`.
    NoKey(&'a str),
    /// A parameter is given twice.
    Twice(&'a str),
    /// A value is not one of those allowed.
    Bad {
        /// The parameter.
        key: &'static str,
        /// What was given.
        value: &'a str,
        /// What is allowed.
        expected: Expected,
    },
    /// Parameters that the application never asked for; the first of them.
    Unknown {
        /// The parameter.
        key: &'a str,
        /// Those that it asked for, with commas.
        known: String,
    },
}

/// What a parameter's value may be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Expected {
    /// A whole number between these two, which are allowed too.
    Number(u64, u64),
    /// A length of time.
    Duration,
    /// A number of bytes.
    Size,
    /// One of these words, which have commas between them.
    Word(String),
    /// As this text says.
    Other(&'static str),
}

impl<'a> Args<'a> {
    /// Reads the pairs.
    ///
    /// # Errors
    /// [`ArgError::NoKey`] and [`ArgError::Twice`].
    pub fn new(text: &'a str) -> Result<Self, ArgError<'a>> {
        for (index, (key, _)) in pairs(text).enumerate() {
            if key.is_empty() {
                return Err(ArgError::NoKey(text));
            }
            if pairs(text).take(index).any(|(other, _)| other == key) {
                return Err(ArgError::Twice(key));
            }
        }
        Ok(Self { text, known: RefCell::default() })
    }

    /// The value as it was written, if the parameter was given.
    pub fn text(&self, key: &'static str) -> Option<&'a str> {
        let mut known = self.known.borrow_mut();
        if !known.contains(&key) {
            known.push(key);
        }
        pairs(self.text).find(|(it, _)| *it == key).map(|(_, value)| value)
    }

    /// The value, read by `read`; `default` if the parameter was not given.
    ///
    /// # Errors
    /// [`ArgError::Bad`] where `read` gives nothing.
    pub fn parse<T>(
        &self,
        key: &'static str,
        default: T,
        expected: Expected,
        read: impl FnOnce(&'a str) -> Option<T>,
    ) -> Result<T, ArgError<'a>> {
        match self.text(key) {
            None => Ok(default),
            Some(value) => read(value).ok_or(ArgError::Bad { key, value, expected }),
        }
    }

    /// A whole number.
    ///
    /// # Errors
    /// [`ArgError::Bad`] where it is none.
    pub fn u64(&self, key: &'static str, default: u64) -> Result<u64, ArgError<'a>> {
        self.u64_in(key, default, 0..=u64::MAX)
    }

    /// A whole number in this range.
    ///
    /// # Errors
    /// [`ArgError::Bad`] where it is none, or out of range.
    pub fn u64_in(
        &self,
        key: &'static str,
        default: u64,
        range: RangeInclusive<u64>,
    ) -> Result<u64, ArgError<'a>> {
        let expected = Expected::Number(*range.start(), *range.end());
        self.parse(key, default, expected, |value| number(value).filter(|it| range.contains(it)))
    }

    /// A length of time, such as `10ms`: a whole number and `ns`, `us`, `ms` or `s`.
    ///
    /// # Errors
    /// [`ArgError::Bad`] where it is none.
    pub fn duration(&self, key: &'static str, default: Duration) -> Result<Duration, ArgError<'a>> {
        self.parse(key, default, Expected::Duration, duration)
    }

    /// A number of bytes, such as `4096` or `4K`: a whole number and nothing, `K`, `M` or `G` (powers of 1024).
    ///
    /// # Errors
    /// [`ArgError::Bad`] where it is none.
    pub fn size_bytes(&self, key: &'static str, default: u64) -> Result<u64, ArgError<'a>> {
        self.parse(key, default, Expected::Size, |value| {
            let (digits, unit) = split_unit(value);
            let scale = match unit {
                "" => 1,
                "K" => 1 << 10,
                "M" => 1 << 20,
                "G" => 1 << 30,
                _ => return None,
            };
            number(digits)?.checked_mul(scale)
        })
    }

    /// One of several words; the first is the default.
    ///
    /// # Errors
    /// [`ArgError::Bad`] where it is none of them.
    ///
    /// # Panics
    /// With no words to choose from.
    pub fn choice<T: Copy>(
        &self,
        key: &'static str,
        words: &[(&'static str, T)],
    ) -> Result<T, ArgError<'a>> {
        let names: Vec<_> = words.iter().map(|(word, _)| *word).collect();
        self.parse(key, words[0].1, Expected::Word(names.join(", ")), |value| {
            words.iter().find(|(word, _)| *word == value).map(|&(_, meaning)| meaning)
        })
    }

    /// Says that all parameters have been asked for.
    ///
    /// # Errors
    /// [`ArgError::Unknown`] if others were given.
    pub fn finish(&self) -> Result<(), ArgError<'a>> {
        let known = self.known.borrow();
        match pairs(self.text).find(|(key, _)| !known.contains(key)) {
            None => Ok(()),
            Some((key, _)) => Err(ArgError::Unknown { key, known: known.join(", ") }),
        }
    }
}

/// The pairs of a text; a key is empty only where the text does not begin with one, or where
/// nothing is before a `=`.
fn pairs(text: &str) -> impl Iterator<Item = (&str, &str)> {
    let mut rest = text;
    core::iter::from_fn(move || {
        if rest.is_empty() {
            return None;
        }
        let mut end = 0;
        // Up to the next comma with a pair behind it.
        let pair = loop {
            end += rest[end..].find(',').unwrap_or(rest.len() - end);
            let behind = rest.get(end + 1..).unwrap_or("");
            let part = behind.split(',').next().unwrap_or("");
            if part.contains('=') || behind.is_empty() {
                let pair = &rest[..end];
                rest = behind;
                break pair;
            }
            end += 1;
        };
        Some(pair.split_once('=').unwrap_or(("", pair)))
    })
}

fn number(text: &str) -> Option<u64> {
    // `parse` allows a plus sign.
    text.bytes().all(|byte| byte.is_ascii_digit()).then(|| text.parse().ok())?
}

fn split_unit(text: &str) -> (&str, &str) {
    text.split_at(text.find(|it: char| !it.is_ascii_digit()).unwrap_or(text.len()))
}

fn duration(text: &str) -> Option<Duration> {
    let (digits, unit) = split_unit(text);
    let count = number(digits)?;
    Some(match unit {
        "ns" => Duration::from_nanos(count),
        "us" => Duration::from_micros(count),
        "ms" => Duration::from_millis(count),
        "s" => Duration::from_secs(count),
        _ => return None,
    })
}

impl fmt::Display for ArgError<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoKey(text) => write!(f, "`{text}` must be written key=value,key=value"),
            Self::Twice(key) => write!(f, "parameter `{key}` is given twice"),
            Self::Bad { key, value, expected } => {
                write!(f, "parameter `{key}={value}`: the value must be {expected}")
            }
            Self::Unknown { key, known } => {
                write!(f, "parameter `{key}` is not known; ")?;
                if known.is_empty() {
                    return f.write_str("there are none");
                }
                write!(f, "there are: {known}")
            }
        }
    }
}

impl fmt::Debug for ArgError<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl core::error::Error for ArgError<'_> {}

impl fmt::Display for Expected {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Number(first, u64::MAX) => write!(f, "a whole number from {first} up"),
            Self::Number(first, last) => write!(f, "a whole number from {first} to {last}"),
            Self::Duration => write!(f, "a length of time, such as 10ms, with ns, us, ms or s"),
            Self::Size => write!(f, "a number of bytes, such as 64K, with K, M, G or nothing"),
            Self::Word(words) => write!(f, "one of {words}"),
            Self::Other(text) => f.write_str(text),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::string::ToString;

    #[test]
    fn values_are_typed() {
        let args = Args::new("rounds=7,for=10ms,size=4K,class=fifo,cpus=0-1,3,last=x").unwrap();
        assert_eq!(args.u64("rounds", 1), Ok(7));
        assert_eq!(args.u64("absent", 5), Ok(5));
        assert_eq!(args.duration("for", Duration::ZERO), Ok(Duration::from_millis(10)));
        assert_eq!(args.size_bytes("size", 0), Ok(4096));
        assert_eq!(args.choice("class", &[("fair", 0), ("fifo", 1)]), Ok(1));
        assert_eq!(args.choice("other", &[("fair", 0), ("fifo", 1)]), Ok(0));
        assert_eq!(args.text("cpus"), Some("0-1,3"));
        assert_eq!(args.text("last"), Some("x"));
        assert_eq!(args.finish(), Ok(()));
        assert_eq!(Args::new("").unwrap().finish(), Ok(()));
    }

    #[test]
    fn complaints_name_what_is_wrong_and_what_is_right() {
        let complaint = |text, read: fn(&Args<'_>) -> Result<(), String>| {
            let args = Args::new(text).map_err(|error| error.to_string());
            args.and_then(|args| {
                read(&args)?;
                args.finish().map_err(|error| error.to_string())
            })
            .unwrap_err()
        };
        fn rounds(args: &Args<'_>) -> Result<(), String> {
            args.u64_in("rounds", 1, 1..=9).map(drop).map_err(|error| error.to_string())
        }
        fn class(args: &Args<'_>) -> Result<(), String> {
            let words = [("fair", ()), ("fifo", ())];
            args.choice("class", &words).map_err(|error| error.to_string())
        }
        fn time(args: &Args<'_>) -> Result<(), String> {
            let time = args.duration("for", Duration::ZERO);
            time.map(drop).map_err(|error| error.to_string())
        }
        for value in ["x", "", "-1", "+1", "0", "10", "99999999999999999999"] {
            let text = std::format!("rounds={value}");
            assert_eq!(
                Args::new(&text).unwrap().u64_in("rounds", 1, 1..=9).unwrap_err().to_string(),
                std::format!(
                    "parameter `rounds={value}`: the value must be a whole number from 1 to 9"
                )
            );
        }
        assert_eq!(
            complaint("class=best", class),
            "parameter `class=best`: the value must be one of fair, fifo"
        );
        assert!(complaint("for=10", time).contains("such as 10ms"));
        assert!(complaint("for=ms", time).contains("such as 10ms"));
        assert_eq!(
            complaint("round=1", rounds),
            "parameter `round` is not known; there are: rounds"
        );
        assert_eq!(complaint("x=1", |_| Ok(())), "parameter `x` is not known; there are none");
        assert_eq!(complaint("rounds=1,rounds=2", rounds), "parameter `rounds` is given twice");
        assert!(complaint("rounds", rounds).contains("key=value"));
        assert!(complaint("=3", rounds).contains("key=value"));
        assert!(complaint(",rounds=3", rounds).contains("key=value"));
    }

    proptest! {
        #![proptest_config(ProptestConfig {
            cases: if cfg!(miri) { 4 } else { 256 },
            failure_persistence: None,
            ..ProptestConfig::default()
        })]

        #[test]
        fn no_text_panics(text in "[a-c=,0-9]{0,24}|\\PC{0,24}") {
            if let Ok(args) = Args::new(&text) {
                let _ = args.u64("a", 0);
                let _ = args.duration("b", Duration::ZERO);
                let _ = args.size_bytes("c", 0);
                let _ = args.finish().map_err(|error| error.to_string());
            }
        }

        #[test]
        fn pairs_come_back(values in prop::collection::vec("[a-z0-9]{1,4}(,[a-z0-9]{1,4}){0,2}", 0..8)) {
            let text = values
                .iter()
                .enumerate()
                .map(|(index, value)| std::format!("k{index}={value}"))
                .collect::<Vec<_>>()
                .join(",");
            let found: Vec<_> = pairs(&text).map(|(_, value)| value).collect();
            prop_assert_eq!(found, values);
        }
    }
}
