//! What metrics cost when that was last accepted: `latency/baseline.toml`.
//!
//! Instructions are the same on every machine for the same image, and the image is the same for the same sources,
//! compiler and crates; QEMU and its CPU model decide which instructions there are. So a baseline has these for its key.
//! Noisy metrics have none: their figures mean nothing in another run.

use std::{collections::BTreeMap, path::Path};

use serde::{Deserialize, Serialize};

use crate::{
    Error, Result,
    figure::{Figures, Precision},
};

/// What a baseline holds for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Key {
    /// What the compiler calls itself.
    pub compiler: String,
    /// QEMU's version.
    pub qemu: String,
    /// Hash of the CPU model's description.
    pub cpu: String,
    /// Hash of the locked versions of the crates in the image.
    pub crates: String,
}

/// Accepted figures for one key.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Baseline {
    /// What they hold for.
    pub key: Key,
    /// Exact metrics, in instructions.
    #[serde(default)]
    pub exact: BTreeMap<String, f64>,
    /// Quantised metrics, in instructions.
    #[serde(default)]
    pub quantised: BTreeMap<String, f64>,
}

/// The file: a baseline for each key.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Baselines {
    #[serde(default, rename = "baseline")]
    all: Vec<Baseline>,
}

/// What stands above the file.
const HEADER: &str = "\
# Accepted figures of the latency suite, in instructions an operation; written by `cargo xtask latency --accept`.
# Whoever changes one says in the commit why.

";

impl Baseline {
    /// The figures to accept.
    pub fn of(key: Key, figures: &Figures) -> Self {
        let of = |precision| {
            let mine = figures.iter().filter(move |(_, figure)| figure.precision == precision);
            mine.map(|(metric, figure)| (metric.clone(), figure.ticks)).collect()
        };
        Self { key, exact: of(Precision::Exact), quantised: of(Precision::Quantised) }
    }

    /// Every metric with its precision and figure.
    pub fn figures(&self) -> impl Iterator<Item = (&str, Precision, f64)> {
        let exact = self.exact.iter().map(|(metric, ticks)| (&**metric, Precision::Exact, *ticks));
        let quantised = self.quantised.iter();
        exact.chain(quantised.map(|(metric, ticks)| (&**metric, Precision::Quantised, *ticks)))
    }
}

impl Baselines {
    /// Reads the file; a file that does not exist has no baseline.
    ///
    /// # Errors
    /// Where it cannot be read or makes no sense.
    pub fn read(path: &Path) -> Result<Self> {
        let text = match std::fs::read_to_string(path) {
            Ok(text) => text,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                return Ok(Self::default());
            }
            Err(error) => return Err(Error::read(path)(error)),
        };
        toml::from_str(&text)
            .map_err(|error| Error::Content { path: path.into(), problem: error.to_string() })
    }

    /// Writes the file.
    ///
    /// # Errors
    /// Where it cannot be written.
    pub fn write(&self, path: &Path) -> Result<()> {
        let text = toml::to_string(self)
            .map_err(|error| Error::Content { path: path.into(), problem: error.to_string() })?;
        std::fs::write(path, format!("{HEADER}{text}")).map_err(Error::write(path))
    }

    /// The baseline for this key.
    pub fn find(&self, key: &Key) -> Option<&Baseline> {
        self.all.iter().find(|baseline| baseline.key == *key)
    }

    /// What differs between this key and that of the newest baseline, for those who wonder why theirs is not there.
    pub fn difference(&self, key: &Key) -> Option<String> {
        let theirs = &self.all.last()?.key;
        let pairs = [
            ("compiler", &theirs.compiler, &key.compiler),
            ("QEMU", &theirs.qemu, &key.qemu),
            ("CPU model", &theirs.cpu, &key.cpu),
            ("crates", &theirs.crates, &key.crates),
        ];
        let differing = pairs.iter().filter(|(_, theirs, mine)| theirs != mine);
        let words = differing.map(|(what, theirs, mine)| format!("{what} {theirs}, here {mine}"));
        Some(words.collect::<Vec<_>>().join("; "))
    }

    /// Accepts a baseline. Those of other compilers, QEMUs or CPU models stay; one that differs in crates only is
    /// replaced, since no checkout of this revision can have its crates.
    pub fn accept(&mut self, baseline: Baseline) {
        let of_this_revision =
            |key: &Key| Key { crates: baseline.key.crates.clone(), ..key.clone() };
        self.all.retain(|old| of_this_revision(&old.key) != baseline.key);
        self.all.push(baseline);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(compiler: &str, crates: &str) -> Key {
        Key {
            compiler: compiler.into(),
            qemu: "7.2.22".into(),
            cpu: "abc".into(),
            crates: crates.into(),
        }
    }

    fn baseline(key: Key, ticks: f64) -> Baseline {
        let exact = BTreeMap::from([("null-call".to_owned(), ticks)]);
        Baseline { key, exact, quantised: BTreeMap::from([("wake@turns".to_owned(), 9.5)]) }
    }

    #[test]
    fn a_file_round_trips() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("baseline.toml");
        assert_eq!(Baselines::read(&path).unwrap(), Baselines::default());
        let mut baselines = Baselines::default();
        baselines.accept(baseline(key("rustc 1", "x"), 91.0));
        baselines.accept(baseline(key("rustc 2", "x"), 90.5));
        baselines.write(&path).unwrap();
        assert_eq!(Baselines::read(&path).unwrap(), baselines);
        std::fs::write(&path, "[[baseline]]\nkey = 3\n").unwrap();
        assert!(Baselines::read(&path).unwrap_err().to_string().contains("baseline.toml"));
    }

    #[test]
    fn other_keys_stay_and_other_crates_go() {
        let mut baselines = Baselines::default();
        baselines.accept(baseline(key("rustc 1", "x"), 1.0));
        baselines.accept(baseline(key("rustc 2", "x"), 2.0));
        baselines.accept(baseline(key("rustc 2", "y"), 3.0));
        assert_eq!(baselines.all.len(), 2);
        assert!(baselines.find(&key("rustc 2", "x")).is_none());
        assert_eq!(baselines.find(&key("rustc 2", "y")).unwrap().exact["null-call"], 3.0);
        let words = baselines.difference(&key("rustc 3", "y")).unwrap();
        assert_eq!(words, "compiler rustc 2, here rustc 3");
    }
}
