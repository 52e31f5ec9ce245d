//! Base and now, metric by metric, with a verdict for each.

use std::collections::BTreeMap;

use serde::Serialize;
use trace_tools::analyses::{Path, SideBySide, grew_most, side_by_side};

use crate::{
    baseline::Baseline,
    figure::{Figure, Figures, Precision, median},
    limits::Limits,
    rank::mann_whitney,
};

/// What became of a metric.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Verdict {
    /// It costs what it cost.
    Same,
    /// It costs less, beyond its allowance.
    Faster,
    /// It costs more, beyond its allowance: a regression.
    Slower,
    /// It costs more than a limit that holds whatever it cost before: a regression.
    OverLimit,
    /// Nothing measures it any more: a regression, since nobody would notice another.
    Gone,
    /// It was not measured before.
    New,
    /// It is noisy, and there is nothing of the same run to compare it with.
    Unjudged,
}

impl Verdict {
    /// Whether it makes the gate fail.
    pub fn is_regression(self) -> bool {
        matches!(self, Self::Slower | Self::OverLimit | Self::Gone)
    }

    /// For people.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Same => "same",
            Self::Faster => "faster",
            Self::Slower => "SLOWER",
            Self::OverLimit => "OVER LIMIT",
            Self::Gone => "GONE",
            Self::New => "new",
            Self::Unjudged => "not judged",
        }
    }
}

/// One metric.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Row {
    /// Its name.
    pub metric: String,
    /// How far its figures can be trusted.
    pub precision: Precision,
    /// What it cost before, in ticks an operation.
    pub base_ticks: Option<f64>,
    /// What it costs now.
    pub now_ticks: Option<f64>,
    /// The most that it may cost.
    pub limit_ticks: Option<f64>,
    /// Of a noisy metric: the probability that base and now differ as much by chance.
    pub p: Option<f64>,
    /// What became of it.
    pub verdict: Verdict,
    /// All that is known of it now.
    pub figure: Option<Figure>,
    /// Why, where the verdict does not say it: a limit between two metrics.
    pub note: Option<String>,
    /// Where a regression's path grew, if it was looked at.
    pub breakdown: Option<Breakdown>,
}

impl Row {
    /// By how much it grew, as a fraction of what it cost.
    pub fn growth(&self) -> Option<f64> {
        let (base, now) = (self.base_ticks?, self.now_ticks?);
        (base > 0.0).then(|| now / base - 1.0)
    }
}

/// Two builds' paths through a region, side by side, with everything traced.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Breakdown {
    /// Its steps.
    pub steps: Vec<SideBySide>,
    /// The step that grew most.
    pub grew_most: Option<SideBySide>,
}

impl Breakdown {
    /// The breakdown of two builds' paths.
    pub fn of(base: &Path, now: &Path) -> Self {
        let steps = side_by_side(base, now);
        let grew_most = grew_most(&steps).cloned();
        Self { steps, grew_most }
    }
}

/// What figures are compared with.
#[derive(Clone, Copy, Debug)]
pub enum Base<'a> {
    /// Accepted figures; noisy metrics have none.
    Accepted(&'a Baseline),
    /// Another build's figures of the same run.
    Measured(&'a Figures),
    /// Nothing: only limits that hold in any case are looked at.
    Nothing,
}

/// A comparison.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Comparison {
    /// Its rows, by name.
    pub rows: Vec<Row>,
}

impl Comparison {
    /// Compares all metrics that are measured now, or were before.
    pub fn of(base: Base<'_>, now: &Figures, limits: &Limits) -> Self {
        let before = befores(base);
        let mut rows: Vec<Row> = now
            .iter()
            .map(|(metric, figure)| judge(metric, before.get(&**metric), figure, base, limits))
            .collect();
        for (metric, before) in before.iter().filter(|(metric, _)| !now.contains_key(**metric)) {
            // Between two builds, metrics come and go with the workloads they hold.
            let verdict = if matches!(base, Base::Accepted(_)) { Verdict::Gone } else { continue };
            rows.push(Row {
                metric: (*metric).to_owned(),
                precision: before.precision,
                base_ticks: Some(before.ticks),
                now_ticks: None,
                limit_ticks: None,
                p: None,
                verdict,
                figure: None,
                note: None,
                breakdown: None,
            });
        }
        relate(&mut rows, now, limits);
        rows.sort_by(|one, other| one.metric.cmp(&other.metric));
        Self { rows }
    }

    /// The regressions, the worst first.
    pub fn regressions(&self) -> Vec<&Row> {
        let mut worst: Vec<&Row> =
            self.rows.iter().filter(|row| row.verdict.is_regression()).collect();
        let growth = |row: &Row| row.growth().unwrap_or(f64::INFINITY);
        worst.sort_by(|one, other| growth(other).total_cmp(&growth(one)));
        worst
    }

    /// How many metrics have this verdict.
    pub fn count(&self, verdict: Verdict) -> usize {
        self.rows.iter().filter(|row| row.verdict == verdict).count()
    }
}

/// A metric's figure before.
struct Before<'a> {
    precision: Precision,
    ticks: f64,
    boot_medians_ticks: &'a [f64],
}

fn befores(base: Base<'_>) -> BTreeMap<&str, Before<'_>> {
    match base {
        Base::Nothing => BTreeMap::new(),
        Base::Accepted(baseline) => baseline
            .figures()
            .map(|(metric, precision, ticks)| {
                (metric, Before { precision, ticks, boot_medians_ticks: &[] })
            })
            .collect(),
        Base::Measured(figures) => figures
            .iter()
            .map(|(metric, figure)| {
                let Figure { precision, ticks, ref boot_medians_ticks, .. } = *figure;
                (&**metric, Before { precision, ticks, boot_medians_ticks })
            })
            .collect(),
    }
}

fn judge(
    metric: &str,
    before: Option<&Before<'_>>,
    figure: &Figure,
    base: Base<'_>,
    limits: &Limits,
) -> Row {
    let allowance = limits.allowance(metric, figure.precision);
    let now = figure.ticks;
    let relative = before.map(|before| allowance.most(before.ticks));
    let p = before
        .filter(|_| figure.precision == Precision::Noisy)
        .map(|before| mann_whitney(before.boot_medians_ticks, &figure.boot_medians_ticks))
        .map(|test| test.p_two_sided);
    let is_sure = match figure.precision {
        Precision::Noisy => p.is_some_and(|p| p < allowance.significance),
        Precision::Exact | Precision::Quantised => true,
    };
    let at_most = limits.at_most(metric);
    let verdict = match before {
        _ if at_most.is_some_and(|most| now > most) => Verdict::OverLimit,
        None if figure.precision == Precision::Noisy && !matches!(base, Base::Measured(_)) => {
            Verdict::Unjudged
        }
        None => Verdict::New,
        Some(before) if is_sure && now > allowance.most(before.ticks) => Verdict::Slower,
        Some(before) if is_sure && now < allowance.least(before.ticks) => Verdict::Faster,
        Some(_) => Verdict::Same,
    };
    Row {
        metric: metric.to_owned(),
        precision: figure.precision,
        base_ticks: before.map(|before| before.ticks),
        now_ticks: Some(now),
        limit_ticks: [relative, at_most].into_iter().flatten().reduce(f64::min),
        p,
        verdict,
        figure: Some(figure.clone()),
        note: None,
        breakdown: None,
    }
}

/// Looks at the limits between metrics of this run. Of noisy ones the boots must bear it out: their ratios, boot by
/// boot, lie above the factor in the median, and a rank test says that the two differ.
fn relate(rows: &mut [Row], now: &Figures, limits: &Limits) {
    for relation in &limits.relations {
        let (Some(one), Some(of)) = (now.get(&relation.metric), now.get(&relation.of)) else {
            continue;
        };
        let scaled: Vec<f64> =
            of.boot_medians_ticks.iter().map(|ticks| ticks * relation.factor).collect();
        let is_over = match one.precision {
            Precision::Exact | Precision::Quantised => one.ticks > of.ticks * relation.factor,
            Precision::Noisy => {
                let test = mann_whitney(&scaled, &one.boot_medians_ticks);
                let significance = limits.allowance(&relation.metric, one.precision).significance;
                median(&one.boot_medians_ticks) > median(&scaled) && test.p_two_sided < significance
            }
        };
        if let Some(row) = rows.iter_mut().find(|row| is_over && row.metric == relation.metric) {
            row.verdict = Verdict::OverLimit;
            row.note = Some(format!("more than {} times {}", relation.factor, relation.of));
            row.limit_ticks = Some(of.ticks * relation.factor);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::baseline::Key;

    const LIMITS: &str = "
        [default]
        exact = { ticks = 2, percent = 1 }
        quantised = { ticks = 0, percent = 10 }
        noisy = { ticks = 0, percent = 20, significance = 0.001 }
        [metric.capped]
        at_most = 50
        [metric.loose]
        percent = 50
        [[relation]]
        metric = 'large'
        of = 'small'
        factor = 1.1
    ";

    fn figure(precision: Precision, ticks: f64, boots: &[f64]) -> Figure {
        Figure {
            precision,
            ticks,
            repetitions: 15,
            agreeing: 15,
            min_ticks: ticks,
            p50_ticks: ticks,
            p99_ticks: ticks,
            max_ticks: ticks,
            boot_medians_ticks: boots.to_vec(),
        }
    }

    fn exact(all: &[(&str, f64)]) -> Figures {
        let one = |&(metric, ticks): &(&str, f64)| {
            (metric.to_owned(), figure(Precision::Exact, ticks, &[ticks]))
        };
        all.iter().map(one).collect()
    }

    fn noisy(boots: &[f64]) -> Figures {
        let figure = figure(Precision::Noisy, median(boots), boots);
        Figures::from([("wake".to_owned(), figure)])
    }

    fn verdicts(base: Base<'_>, now: &Figures) -> Vec<(String, Verdict)> {
        let comparison = Comparison::of(base, now, &Limits::parse(LIMITS).unwrap());
        comparison.rows.into_iter().map(|row| (row.metric, row.verdict)).collect()
    }

    fn accepted(figures: &Figures) -> Baseline {
        let key = || "x".to_owned();
        Baseline::of(Key { compiler: key(), qemu: key(), cpu: key(), crates: key() }, figures)
    }

    #[test]
    fn an_exact_metric_may_grow_by_its_allowance() {
        let base = exact(&[("a", 100.0), ("b", 100.0), ("c", 100.0), ("loose", 100.0)]);
        let now = exact(&[("a", 103.0), ("b", 103.5), ("c", 96.0), ("loose", 150.0)]);
        let expected = [
            ("a".into(), Verdict::Same),
            ("b".into(), Verdict::Slower),
            ("c".into(), Verdict::Faster),
            ("loose".into(), Verdict::Same),
        ];
        assert_eq!(verdicts(Base::Measured(&base), &now), expected);
        assert_eq!(verdicts(Base::Accepted(&accepted(&base)), &now), expected);
    }

    #[test]
    fn limits_hold_whatever_the_base_says() {
        let now = exact(&[("capped", 51.0), ("large", 112.0), ("small", 100.0)]);
        let expected = [
            ("capped".into(), Verdict::OverLimit),
            ("large".into(), Verdict::OverLimit),
            ("small".into(), Verdict::Same),
        ];
        assert_eq!(verdicts(Base::Measured(&now), &now), expected);
        assert_eq!(verdicts(Base::Nothing, &now)[0].1, Verdict::OverLimit);
        assert_eq!(verdicts(Base::Nothing, &now)[2].1, Verdict::New);
    }

    #[test]
    fn a_metric_that_nothing_measures_is_missed() {
        let base = exact(&[("a", 100.0)]);
        let baseline = accepted(&base);
        assert_eq!(
            verdicts(Base::Accepted(&baseline), &exact(&[("b", 1.0)])),
            [("a".into(), Verdict::Gone), ("b".into(), Verdict::New)]
        );
    }

    #[test]
    fn noise_is_no_regression() {
        let base: Vec<f64> = (0..8).map(|at| 100.0 + f64::from(at)).collect();
        let slower: Vec<f64> = base.iter().map(|ticks| ticks * 1.5).collect();
        let mut outliers = base.clone();
        outliers[0] = 900.0;
        outliers[1] = 900.0;
        let one = |boots: &[f64]| verdicts(Base::Measured(&noisy(&base)), &noisy(boots))[0].1;
        assert_eq!(one(&slower), Verdict::Slower);
        assert_eq!(one(&outliers), Verdict::Same);
        // Too few boots to be sure of anything.
        assert_eq!(one(&slower[..2]), Verdict::Same);
        let unjudged = verdicts(Base::Accepted(&accepted(&noisy(&base))), &noisy(&slower));
        assert_eq!(unjudged, [("wake".into(), Verdict::Unjudged)]);
    }

    #[test]
    fn the_worst_regression_comes_first() {
        let base = exact(&[("a", 100.0), ("b", 100.0), ("c", 100.0)]);
        let now = exact(&[("a", 110.0), ("b", 200.0), ("c", 100.0)]);
        let limits = Limits::parse(LIMITS).unwrap();
        let comparison = Comparison::of(Base::Measured(&base), &now, &limits);
        let worst: Vec<_> = comparison.regressions().iter().map(|row| &*row.metric).collect();
        assert_eq!(worst, ["b", "a"]);
        assert_eq!(comparison.count(Verdict::Same), 1);
    }
}
