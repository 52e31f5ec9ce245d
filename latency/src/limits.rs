//! What metrics may cost.

use std::{collections::BTreeMap, path::Path};

use serde::Deserialize;

use crate::{Error, Result, figure::Precision};

/// By how much a metric may exceed what it is compared with.
#[derive(Clone, Copy, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Allowance {
    /// By so many ticks,
    pub ticks: f64,
    /// and so many percent more.
    pub percent: f64,
    /// A noisy metric's difference counts where the probability of error is below this.
    #[serde(default)]
    pub significance: f64,
}

impl Allowance {
    /// The most that something may cost which cost `base_ticks`.
    pub fn most(&self, base_ticks: f64) -> f64 {
        base_ticks + self.ticks + base_ticks * self.percent / 100.0
    }

    /// The least that it costs where it has not become cheaper.
    pub fn least(&self, base_ticks: f64) -> f64 {
        base_ticks - self.ticks - base_ticks * self.percent / 100.0
    }
}

/// What differs from the default for one metric.
#[derive(Clone, Copy, Debug, Default, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Own {
    ticks: Option<f64>,
    percent: Option<f64>,
    at_most: Option<f64>,
}

/// One metric's limit in terms of another's figure in the same run.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Relation {
    /// The metric that is limited.
    pub metric: String,
    /// The metric that limits it.
    pub of: String,
    /// How many times as much it may cost.
    pub factor: f64,
}

/// The limits' file.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Limits {
    default: Defaults,
    #[serde(default)]
    metric: BTreeMap<String, Own>,
    /// Limits between metrics.
    #[serde(default, rename = "relation")]
    pub relations: Vec<Relation>,
}

#[derive(Clone, Copy, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
struct Defaults {
    exact: Allowance,
    quantised: Allowance,
    noisy: Allowance,
}

impl Limits {
    /// Reads the file.
    ///
    /// # Errors
    /// Where it cannot be read or makes no sense.
    pub fn read(path: &Path) -> Result<Self> {
        let text = std::fs::read_to_string(path).map_err(Error::read(path))?;
        Self::parse(&text).map_err(|problem| Error::Content { path: path.into(), problem })
    }

    /// Reads the file's text.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn parse(text: &str) -> std::result::Result<Self, String> {
        let limits: Self = toml::from_str(text).map_err(|error| error.to_string())?;
        let Defaults { exact, quantised, noisy } = limits.default;
        let own = limits.metric.values().flat_map(|own| [own.ticks, own.percent, own.at_most]);
        let numbers = [exact, quantised, noisy].into_iter().flat_map(|it| [it.ticks, it.percent]);
        let numbers =
            numbers.chain(own.flatten()).chain(limits.relations.iter().map(|it| it.factor));
        if let Some(bad) = numbers.into_iter().find(|number| !number.is_finite() || *number < 0.0) {
            return Err(format!("{bad} is no limit: must be a number that is not negative"));
        }
        if !(noisy.significance > 0.0 && noisy.significance < 1.0) {
            return Err("default.noisy: `significance` must lie between 0 and 1".into());
        }
        Ok(limits)
    }

    /// By how much this metric may exceed its base.
    pub fn allowance(&self, metric: &str, precision: Precision) -> Allowance {
        let default = match precision {
            Precision::Exact => self.default.exact,
            Precision::Quantised => self.default.quantised,
            Precision::Noisy => self.default.noisy,
        };
        let own = self.metric.get(metric).copied().unwrap_or_default();
        Allowance {
            ticks: own.ticks.unwrap_or(default.ticks),
            percent: own.percent.unwrap_or(default.percent),
            significance: default.significance,
        }
    }

    /// What this metric may cost at most, whatever its base.
    pub fn at_most(&self, metric: &str) -> Option<f64> {
        self.metric.get(metric)?.at_most
    }

    /// The metrics that have limits of their own, whether or not anything measures them.
    pub fn named(&self) -> impl Iterator<Item = &str> {
        let relations = self.relations.iter().flat_map(|it| [&*it.metric, &*it.of]);
        self.metric.keys().map(String::as_str).chain(relations)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_file_can_be_read() {
        let limits = Limits::parse(include_str!("../limits.toml")).unwrap();
        let exact = limits.allowance("null-call", Precision::Exact);
        assert_eq!((exact.most(100.0), exact.least(100.0)), (103.0, 97.0));
        assert!(limits.named().count() > 0);
    }

    #[test]
    fn what_makes_no_sense_is_refused() {
        let good = "[default]\nexact={ticks=2,percent=1}\nquantised={ticks=0,percent=1}\n\
                    noisy={ticks=0,percent=9,significance=0.01}\n";
        Limits::parse(good).unwrap();
        for (bad, words) in [
            (good.replace("ticks=2", "ticks=-2"), "-2 is no limit"),
            (good.replace("=0.01", "=1.5"), "between 0 and 1"),
            (good.replace("percent=9", "per_cent=9"), "per_cent"),
            (format!("{good}[metric.\"x\"]\nmost=3\n"), "most"),
        ] {
            let error = Limits::parse(&bad).unwrap_err();
            assert!(error.contains(words), "{error}");
        }
    }
}
