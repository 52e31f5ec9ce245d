//! A metric's repetitions, and the one number that stands for them.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use trace_tools::analyses::{Measured, most_frequent};

/// How far a figure can be trusted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Precision {
    /// Executed instructions of one CPU: the same on every machine for the same image.
    Exact,
    /// Executed instructions of CPUs that take turns: the same on every machine, but as coarse as their turns.
    Quantised,
    /// The host's time: different in every run.
    Noisy,
}

impl Precision {
    /// Its name.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Exact => "exact",
            Self::Quantised => "quantised",
            Self::Noisy => "noisy",
        }
    }
}

/// What a metric costs, in ticks per operation.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Figure {
    /// How far it can be trusted.
    pub precision: Precision,
    /// The number that stands for it: of an exact metric what most repetitions took, else the median of the boots'
    /// medians.
    pub ticks: f64,
    /// Repetitions, over all boots.
    pub repetitions: usize,
    /// Repetitions that took exactly [`Self::ticks`].
    pub agreeing: usize,
    /// The quickest repetition.
    pub min_ticks: f64,
    /// Half of the repetitions took at most this.
    pub p50_ticks: f64,
    /// 99 % of the repetitions took at most this.
    pub p99_ticks: f64,
    /// The slowest repetition.
    pub max_ticks: f64,
    /// The median of each boot, in the order of the boots.
    pub boot_medians_ticks: Vec<f64>,
}

impl Figure {
    /// The figure of a metric whose repetitions these are, boot by boot; `None` where there is none.
    pub fn of(precision: Precision, boots: &[Vec<Measured>]) -> Option<Self> {
        let per_op = |boot: &[Measured]| {
            let mut ticks: Vec<f64> = boot.iter().map(Measured::ticks_per_op).collect();
            ticks.sort_unstable_by(f64::total_cmp);
            ticks
        };
        let all = per_op(&boots.concat());
        let (&min_ticks, &max_ticks) = (all.first()?, all.last()?);
        let boot_medians_ticks: Vec<f64> = boots
            .iter()
            .filter(|boot| !boot.is_empty())
            .map(|boot| percentile(&per_op(boot), 50))
            .collect();
        let usual = most_frequent(boots.iter().flatten().map(|one| (one.ticks(), one.ops)));
        let ticks = match (precision, usual) {
            (Precision::Exact, Some((ticks, ops))) => ticks as f64 / ops.max(1) as f64,
            _ => median(&boot_medians_ticks),
        };
        Some(Self {
            precision,
            ticks,
            repetitions: all.len(),
            agreeing: all.iter().filter(|&&one| one == ticks).count(),
            min_ticks,
            p50_ticks: percentile(&all, 50),
            p99_ticks: percentile(&all, 99),
            max_ticks,
            boot_medians_ticks,
        })
    }
}

/// Figures by the names of their metrics: the region's name, and behind an `@` the boot's mark if it has one.
pub type Figures = BTreeMap<String, Figure>;

/// The number of this rank among sorted numbers, by nearest rank; 0 where there is none.
fn percentile(sorted: &[f64], percent: usize) -> f64 {
    let rank = (sorted.len() * percent).div_ceil(100).max(1);
    sorted.get(rank - 1).copied().unwrap_or(0.0)
}

/// The median of these numbers; 0 where there is none.
pub fn median(numbers: &[f64]) -> f64 {
    let mut sorted = numbers.to_vec();
    sorted.sort_unstable_by(f64::total_cmp);
    let low = percentile(&sorted, 50);
    let is_even = sorted.len().is_multiple_of(2);
    sorted.get(sorted.len() / 2).map_or(low, |high| if is_even { (low + high) / 2.0 } else { low })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn boot(ticks: &[u64]) -> Vec<Measured> {
        let one =
            |&ticks| Measured { start_ticks: 10, end_ticks: 10 + ticks, ops: 2, cpu: 0, pid: 1 };
        ticks.iter().map(one).collect()
    }

    #[test]
    fn an_exact_figure_is_what_most_took() {
        let figure = Figure::of(Precision::Exact, &[boot(&[90, 80, 80, 5_000, 80, 82])]).unwrap();
        assert_eq!((figure.ticks, figure.agreeing, figure.repetitions), (40.0, 3, 6));
        assert_eq!((figure.min_ticks, figure.max_ticks), (40.0, 2_500.0));
    }

    #[test]
    fn a_noisy_figure_is_the_median_of_medians() {
        let boots = [boot(&[10, 20, 30]), boot(&[40, 40, 900]), boot(&[60]), vec![]];
        let figure = Figure::of(Precision::Noisy, &boots).unwrap();
        assert_eq!(figure.boot_medians_ticks, [10.0, 20.0, 30.0]);
        assert_eq!(figure.ticks, 20.0);
        assert!(Figure::of(Precision::Noisy, &[vec![]]).is_none());
    }

    #[test]
    fn medians_of_even_counts_lie_between() {
        assert_eq!(median(&[4.0, 1.0, 3.0, 2.0]), 2.5);
        assert_eq!(median(&[3.0, 1.0, 2.0]), 2.0);
        assert_eq!(median(&[]), 0.0);
    }
}
