//! What is booted and compared: `targets.toml`, read and checked.

use anyhow::{Context, Result, bail, ensure};
use machine::Memory;
use serde::{Deserialize, Serialize};
use std::{collections::BTreeMap, fmt, str::FromStr};

use super::figures::{Record, System};

/// The file, as it was when xtask was built.
const FILE: &str = include_str!("targets.toml");

/// What executes the guest's instructions, and so what a figure is.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, clap::ValueEnum,
)]
#[serde(rename_all = "lowercase")]
pub enum Mode {
    /// One thread that counts instructions; figures repeat.
    Icount,
    /// A host thread for each CPU; figures are the host's time.
    Mttcg,
}

/// All of it.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Targets {
    /// Words on each kernel's command line at every boot.
    pub kernels: Kernels,
    /// By name.
    pub boots: BTreeMap<String, Boot>,
    /// In the table's order.
    pub rows: Vec<Row>,
}

/// Words for both kernels.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Kernels {
    linux: String,
    orrery: String,
}

/// A way to boot both kernels, or one.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Boot {
    /// Who executes.
    pub mode: Mode,
    /// Number of CPUs.
    pub cpus: u32,
    /// Guest memory.
    #[serde(deserialize_with = "memory")]
    pub memory: Memory,
    linux: Option<String>,
    orrery: Option<String>,
}

/// A line of the table.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Row {
    /// What is measured.
    pub name: String,
    /// Groups of lbench that measure it.
    pub groups: Vec<String>,
    figure: Option<Formula>,
    linux: Option<Formula>,
    orrery: Option<Formula>,
    ratio: Option<f64>,
    at_most: Option<f64>,
}

/// What Orrery's figure must not exceed.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Limit {
    /// This share of Linux's figure.
    Ratio(f64),
    /// This, in the figure's own unit.
    AtMost(f64),
}

impl fmt::Display for Limit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Ratio(limit) => write!(f, "× ≤ {limit}"),
            Self::AtMost(limit) => write!(f, "≤ {limit}"),
        }
    }
}

/// A metric of one boot.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Term {
    /// Name of the boot.
    pub boot: String,
    /// Name in lbench's output.
    pub metric: String,
}

/// How a row's figure comes from metrics.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub enum Formula {
    /// As it is.
    Term(Term),
    /// The first less the second.
    Difference(Term, Term),
    /// The first over the second.
    Quotient(Term, Term),
    /// The greatest over the least.
    Spread(Vec<Term>),
}

impl Targets {
    /// Reads the file that xtask was built with.
    ///
    /// # Errors
    /// Where it is malformed.
    pub fn load() -> Result<Self> {
        Self::parse(FILE).context("xtask/src/versus/targets.toml")
    }

    fn parse(text: &str) -> Result<Self> {
        let targets: Self = toml::from_str(text)?;
        for row in &targets.rows {
            targets.check(row).with_context(|| format!("row `{}`", row.name))?;
        }
        Ok(targets)
    }

    fn check(&self, row: &Row) -> Result<()> {
        ensure!(row.ratio.is_none() || row.at_most.is_none(), "has two limits");
        ensure!(!row.groups.is_empty(), "names no groups");
        for system in System::BOTH {
            let Some(formula) = row.formula(system) else {
                bail!("has no figure for {system}");
            };
            for term in formula.terms() {
                let boot = self.boots.get(&term.boot);
                let boot = boot.with_context(|| format!("there is no boot `{}`", term.boot))?;
                ensure!(boot.words(system).is_some(), "{system} has no boot `{}`", term.boot);
                ensure!(boot.mode == self.mode(row), "its figures are of two modes");
            }
        }
        Ok(())
    }

    /// The mode of a row's figures.
    pub fn mode(&self, row: &Row) -> Mode {
        let boot = row.formula(System::Orrery).and_then(|formula| formula.terms().first().copied());
        boot.and_then(|term| self.boots.get(&term.boot)).map_or(Mode::Icount, |boot| boot.mode)
    }

    /// A kernel's whole command line for a boot, without what lbench is to do; `None` where it does not take part.
    pub fn cmdline(&self, system: System, boot: &Boot) -> Option<String> {
        let always = match system {
            System::Linux => &self.kernels.linux,
            System::Orrery => &self.kernels.orrery,
        };
        Some(format!("{always} {}", boot.words(system)?))
    }
}

impl Boot {
    fn words(&self, system: System) -> Option<&str> {
        match system {
            System::Linux => self.linux.as_deref(),
            System::Orrery => self.orrery.as_deref(),
        }
    }
}

impl Row {
    /// How one kernel's figure is made.
    pub fn formula(&self, system: System) -> Option<&Formula> {
        let own = match system {
            System::Linux => &self.linux,
            System::Orrery => &self.orrery,
        };
        own.as_ref().or(self.figure.as_ref())
    }

    /// The target, if there is one.
    pub fn limit(&self) -> Option<Limit> {
        self.ratio.map(Limit::Ratio).or(self.at_most.map(Limit::AtMost))
    }

    /// Whether `word` is part of its name or of a figure's.
    pub fn is_called(&self, word: &str) -> bool {
        let both = System::BOTH.into_iter().filter_map(|system| self.formula(system));
        self.name.contains(word)
            || both.flat_map(Formula::terms).any(|term| term.metric.contains(word))
    }
}

impl Formula {
    /// The metrics that it is made of.
    pub fn terms(&self) -> Vec<&Term> {
        match self {
            Self::Term(term) => vec![term],
            Self::Difference(first, second) | Self::Quotient(first, second) => vec![first, second],
            Self::Spread(terms) => terms.iter().collect(),
        }
    }

    /// Its value at each boot of `system` that has all of its metrics, in the order of the boots.
    pub fn samples(&self, records: &[Record], system: System) -> Vec<f64> {
        let columns: Vec<Vec<f64>> = self
            .terms()
            .into_iter()
            .map(|term| {
                let boots = records.iter().filter(|it| it.system == system && it.boot == term.boot);
                boots.filter_map(|record| record.value(&term.metric)).collect()
            })
            .collect();
        let count = columns.iter().map(Vec::len).min().unwrap_or(0);
        let row = |at: usize| columns.iter().map(|column| column[at]).collect::<Vec<_>>();
        (0..count).map(|at| self.value(&row(at))).collect()
    }

    /// The figure, from its metrics' values.
    fn value(&self, values: &[f64]) -> f64 {
        match (self, values) {
            (Self::Difference(..), [first, second]) => first - second,
            (Self::Quotient(..), [first, second]) => first / second,
            (Self::Spread(_), values) => {
                let greatest = values.iter().copied().fold(f64::NEG_INFINITY, f64::max);
                greatest / values.iter().copied().fold(f64::INFINITY, f64::min)
            }
            (_, values) => values.first().copied().unwrap_or(f64::NAN),
        }
    }

    /// The same of the 99th percentiles, where lbench gives them: of one metric alone.
    pub fn p99(&self) -> Option<Self> {
        let Self::Term(Term { boot, metric }) = self else { return None };
        let metric = format!("{}.p99", metric.strip_suffix(".p50").unwrap_or(metric));
        Some(Self::Term(Term { boot: boot.clone(), metric }))
    }

    /// Whether it is a number without a unit.
    pub fn is_pure(&self) -> bool {
        matches!(self, Self::Quotient(..) | Self::Spread(_))
    }
}

impl FromStr for Term {
    type Err = anyhow::Error;

    fn from_str(text: &str) -> Result<Self> {
        match text.split_once(':') {
            Some((boot, metric)) if !boot.is_empty() && !metric.is_empty() => {
                Ok(Self { boot: boot.into(), metric: metric.into() })
            }
            _ => bail!("figure `{text}`: must be BOOT:METRIC"),
        }
    }
}

impl FromStr for Formula {
    type Err = anyhow::Error;

    fn from_str(text: &str) -> Result<Self> {
        let words: Vec<_> = text.split_whitespace().collect();
        match words[..] {
            [term] => Ok(Self::Term(term.parse()?)),
            [first, "-", second] => Ok(Self::Difference(first.parse()?, second.parse()?)),
            [first, "/", second] => Ok(Self::Quotient(first.parse()?, second.parse()?)),
            ["spread", ref terms @ ..] if terms.len() > 1 => {
                Ok(Self::Spread(terms.iter().map(|term| term.parse()).collect::<Result<_>>()?))
            }
            _ => bail!("figure `{text}`: must be `A`, `A - B`, `A / B`, or `spread A B …`"),
        }
    }
}

impl TryFrom<String> for Formula {
    type Error = anyhow::Error;

    fn try_from(text: String) -> Result<Self> {
        text.parse()
    }
}

fn memory<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<Memory, D::Error> {
    let text = String::deserialize(deserializer)?;
    text.parse().map_err(serde::de::Error::custom)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::versus::figures::parse;

    fn record(system: System, boot: &str, text: &str) -> Record {
        Record { figures: parse(text), ..Record::empty(system, boot) }
    }

    #[test]
    fn the_file_is_well_formed() {
        let targets = Targets::load().unwrap();
        let count = |mode| targets.rows.iter().filter(|row| targets.mode(row) == mode).count();
        assert!(count(Mode::Icount) > 15 && count(Mode::Mttcg) > 5);
        let linux = targets.cmdline(System::Linux, &targets.boots["counted"]).unwrap();
        for word in ["mitigations=off", "nokaslr", "clearcpuid=erms,fsrm", "idle=halt"] {
            assert!(linux.split(' ').any(|its| its == word), "{word}: {linux}");
        }
        assert!(!linux.contains(char::is_control) && !linux.contains("  "), "{linux}");
        assert!(targets.cmdline(System::Linux, &targets.boots["traced"]).is_none());
    }

    #[test]
    fn mistakes_in_the_file_are_named() {
        let refused = |row: &str, words: &str| {
            let head = "[kernels]\nlinux = ''\norrery = ''\n[boots.a]\nmode = 'icount'\ncpus = 1\nmemory = '1G'\norrery = ''\n\
                [boots.b]\nmode = 'mttcg'\ncpus = 2\nmemory = '1G'\norrery = ''\nlinux = ''\n[[rows]]\nname = 'x'\n";
            let error = Targets::parse(&format!("{head}{row}\n")).unwrap_err();
            assert!(format!("{error:#}").contains(words), "{error:#}");
        };
        refused("groups = ['g']", "no figure for Linux");
        refused("groups = ['g']\nfigure = 'z:m'", "no boot `z`");
        refused("groups = ['g']\nfigure = 'a:m'", "Linux has no boot `a`");
        refused("groups = ['g']\nlinux = 'b:m'\norrery = 'a:m'", "two modes");
        refused("groups = []\nfigure = 'b:m'", "no groups");
        refused("groups = ['g']\nfigure = 'b:m'\nratio = 1\nat_most = 1", "two limits");
        refused("groups = ['g']\nfigure = 'b'", "BOOT:METRIC");
        refused("groups = ['g']\nfigure = 'b:m + b:n'", "must be `A`");
        refused("groups = ['g']\nfigure = 'b:m'\nlimit = 1", "limit");
    }

    #[test]
    fn formulas_are_evaluated_boot_by_boot() {
        let records = [
            record(System::Orrery, "a", "@ x 10 ticks\n@ y 4 ticks"),
            record(System::Linux, "a", "@ x 99 ticks"),
            record(System::Orrery, "b", "@ x 1 ticks"),
            record(System::Orrery, "a", "@ x 30 ticks\n@ y 10 ticks"),
        ];
        let of = |text: &str| text.parse::<Formula>().unwrap().samples(&records, System::Orrery);
        assert_eq!(of("a:x"), [10.0, 30.0]);
        assert_eq!(of("a:x / a:y"), [2.5, 3.0]);
        assert_eq!(of("a:x - b:x"), [9.0]);
        assert_eq!(of("spread a:y a:x b:x"), [10.0]);
        assert_eq!(of("a:none"), [0.0; 0]);
    }

    #[test]
    fn percentiles_have_the_metrics_name() {
        let p99 = |text: &str| text.parse::<Formula>().unwrap().p99();
        assert_eq!(p99("a:x.p50"), Some("a:x.p99".parse().unwrap()));
        assert_eq!(p99("a:fork"), Some("a:fork.p99".parse().unwrap()));
        assert_eq!(p99("a:x / a:y"), None);
    }
}
