//! Which boots the suite has, and which of their metrics are wanted.

use std::{fmt, path::Path};

use serde::Deserialize;

use crate::{Error, Result, figure::Precision};

/// What a boot's clock counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Clock {
    /// Executed instructions.
    Instructions,
    /// The host's time.
    Host,
}

/// What an idle CPU does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Idle {
    /// Polls.
    Poll,
    /// Halts.
    Halt,
    /// Polls briefly, then halts.
    Auto,
}

impl Idle {
    /// The kernel's word for it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Poll => "poll",
            Self::Halt => "halt",
            Self::Auto => "auto",
        }
    }
}

/// What a boot runs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Job {
    /// A program of the bundle, by its path there or its name in `/bin`, and its arguments.
    Program(Vec<String>),
    /// What the bundle itself says.
    Bundled,
    /// A workload of the image.
    Workload(String),
}

/// A boot of the suite.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Boot {
    /// Its name, for people.
    pub name: String,
    /// What stands behind the `@` of its metrics' names.
    pub mark: Option<String>,
    /// What its clock counts.
    pub clock: Clock,
    /// Its CPUs.
    pub cpus: u32,
    /// What they do when they idle.
    pub idle: Idle,
    /// What it runs.
    pub job: Job,
    /// Regions that are wanted of it, by the beginnings of their names; all where there is none.
    pub only: Vec<String>,
    /// Regions that are not wanted of it, likewise.
    pub except: Vec<String>,
    /// Whether the job takes the suite's options (`--only`, `--idle`).
    pub is_suites_own: bool,
}

impl Boot {
    /// How far its figures can be trusted.
    pub fn precision(&self) -> Precision {
        match (self.clock, self.cpus) {
            (Clock::Host, _) => Precision::Noisy,
            (Clock::Instructions, 1) => Precision::Exact,
            (Clock::Instructions, _) => Precision::Quantised,
        }
    }

    /// The metric that a region is in this boot.
    pub fn metric(&self, region: &str) -> String {
        match &self.mark {
            Some(mark) => format!("{region}@{mark}"),
            None => region.to_owned(),
        }
    }

    /// Whether a region belongs to the suite, if this boot marks it.
    pub fn has(&self, region: &str) -> bool {
        let among = |prefixes: &[String]| prefixes.iter().any(|prefix| begins(region, prefix));
        (self.only.is_empty() || among(&self.only)) && !among(&self.except)
    }

    /// A boot that runs somebody's own program, which the bundle names, with instructions counted on one CPU.
    pub fn of_bundled(name: &str) -> Self {
        Self {
            name: name.to_owned(),
            mark: None,
            clock: Clock::Instructions,
            cpus: 1,
            idle: Idle::Poll,
            job: Job::Bundled,
            only: Vec::new(),
            except: Vec::new(),
            is_suites_own: false,
        }
    }
}

/// A choice of metrics: `PREFIX`, `PREFIX@MARK`. The prefix ends where a part of the name ends.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Choice {
    prefix: String,
    mark: Option<String>,
}

impl Choice {
    /// Reads a choice.
    pub fn new(text: &str) -> Self {
        match text.split_once('@') {
            Some((prefix, mark)) => Self { prefix: prefix.into(), mark: Some(mark.into()) },
            None => Self { prefix: text.into(), mark: None },
        }
    }

    /// The metric of this very name, and those below it.
    pub fn exactly(metric: &str) -> Self {
        let (prefix, mark) = metric.split_once('@').unwrap_or((metric, ""));
        Self { prefix: prefix.into(), mark: Some(mark.into()) }
    }

    /// The beginning of the regions' names.
    pub fn prefix(&self) -> &str {
        &self.prefix
    }

    /// Whether any metric of this boot can be meant.
    pub fn is_of(&self, boot: &Boot) -> bool {
        let mark = boot.mark.as_deref().unwrap_or("");
        let can_be = |only: &String| begins(only, &self.prefix) || begins(&self.prefix, only);
        self.mark.as_deref().is_none_or(|wanted| wanted == mark)
            && (boot.only.is_empty() || boot.only.iter().any(can_be))
    }

    /// Whether this metric is meant.
    pub fn includes_metric(&self, metric: &str) -> bool {
        let (region, mark) = metric.split_once('@').unwrap_or((metric, ""));
        self.mark.as_deref().is_none_or(|wanted| wanted == mark) && begins(region, &self.prefix)
    }

    /// Whether this region of this boot is meant.
    pub fn includes(&self, boot: &Boot, region: &str) -> bool {
        self.is_of(boot) && begins(region, &self.prefix)
    }
}

impl fmt::Display for Choice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.prefix)?;
        self.mark.iter().filter(|mark| !mark.is_empty()).try_for_each(|mark| write!(f, "@{mark}"))
    }
}

/// Whether a name is `prefix` or goes on behind it with another part.
pub fn begins(name: &str, prefix: &str) -> bool {
    name.strip_prefix(prefix).is_some_and(|rest| {
        rest.is_empty() || rest.starts_with('/') || prefix.is_empty() || prefix.ends_with('/')
    })
}

/// The file's shape.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    boot: Vec<Entry>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Entry {
    name: String,
    mark: Option<String>,
    clock: Clock,
    cpus: u32,
    idle: Idle,
    program: Option<Vec<String>>,
    workload: Option<String>,
    #[serde(default)]
    only: Vec<String>,
    #[serde(default)]
    except: Vec<String>,
}

/// Reads the suite's file.
///
/// # Errors
/// Where it cannot be read or does not describe a suite.
pub fn read(path: &Path) -> Result<Vec<Boot>> {
    let text = std::fs::read_to_string(path).map_err(Error::read(path))?;
    parse(&text).map_err(|problem| Error::Content { path: path.into(), problem })
}

fn parse(text: &str) -> std::result::Result<Vec<Boot>, String> {
    let file: File = toml::from_str(text).map_err(|error| error.to_string())?;
    let boot = |entry: Entry| {
        let name = entry.name;
        if !(1..=64).contains(&entry.cpus) {
            return Err(format!("boot `{name}`: {} CPUs; must be 1 to 64", entry.cpus));
        }
        let job = match (entry.program, entry.workload) {
            (Some(words), None) if !words.is_empty() => Job::Program(words),
            (None, Some(workload)) => Job::Workload(workload),
            _ => return Err(format!("boot `{name}`: must have a `program` or a `workload`")),
        };
        Ok(Boot {
            name,
            mark: entry.mark,
            clock: entry.clock,
            cpus: entry.cpus,
            idle: entry.idle,
            job,
            only: entry.only,
            except: entry.except,
            is_suites_own: true,
        })
    };
    file.boot.into_iter().map(boot).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn suite() -> Vec<Boot> {
        parse(include_str!("../suite.toml")).unwrap()
    }

    #[test]
    fn the_suite_can_be_read() {
        let boots = suite();
        assert!(boots.iter().any(|boot| boot.precision() == Precision::Exact));
        assert!(boots.iter().any(|boot| boot.precision() == Precision::Noisy));
        // Two boots of one mark and one job would measure a metric twice.
        for (at, boot) in boots.iter().enumerate() {
            let twin = |other: &&Boot| {
                other.mark == boot.mark && other.job == boot.job && other.idle == boot.idle
            };
            assert_eq!(boots[at + 1..].iter().find(twin), None);
        }
    }

    #[test]
    fn what_makes_no_sense_is_refused() {
        for (text, words) in [
            ("[[boot]]\nname='x'\nclock='host'\ncpus=1\nidle='poll'", "`program` or a `workload`"),
            ("[[boot]]\nname='x'\nclock='host'\ncpus=0\nidle='poll'\nworkload='y'", "1 to 64"),
            ("[[boot]]\nname='x'\nclock='sun'\ncpus=1\nidle='poll'\nworkload='y'", "sun"),
            ("[[boot]]\nname='x'\ncolour='red'", "colour"),
        ] {
            let error = parse(text).unwrap_err();
            assert!(error.contains(words), "{error}");
        }
    }

    #[test]
    fn choices_end_where_parts_end() {
        let boots = suite();
        let plain = &boots[0];
        let halt =
            &Boot { mark: Some("halt".into()), only: vec!["timer/idle".into()], ..plain.clone() };
        let fork = Choice::new("fork");
        assert!(fork.includes(plain, "fork/call/64kib") && fork.includes(plain, "fork"));
        assert!(!fork.includes(plain, "forks"));
        assert!(Choice::new("timer@halt").includes(halt, "timer/idle"));
        assert!(!Choice::new("timer@halt").is_of(plain));
        assert!(!Choice::exactly("timer/idle").is_of(halt));
        assert!(!Choice::new("null-call").is_of(halt), "the halting boot measures timers only");
        assert!(fork.includes_metric("fork/call@smp2") && !fork.includes_metric("forks"));
        assert!(!Choice::exactly("timer/idle").includes_metric("timer/idle@halt"));
        assert_eq!(Choice::new("timer@halt").to_string(), "timer@halt");
    }
}
