//! All boots of one image, or of two images by turns.

use std::collections::BTreeMap;

use trace_tools::analyses::{self, Measured, Path};

use crate::{
    Error, Result,
    boot::{self, Recorded, Subject},
    figure::{Figure, Figures, Precision},
    suite::{Boot, Choice},
};

/// How to measure.
#[derive(Clone, Copy, Debug)]
pub struct Plan<'a> {
    /// The boots there are.
    pub suite: &'a [Boot],
    /// What is wanted; all where there is none.
    pub only: &'a [Choice],
    /// How often a noisy boot is repeated, for each subject.
    pub boots: u32,
}

impl Plan<'_> {
    /// The boots that are wanted, each as often as it is made.
    fn boots(&self) -> Vec<(&Boot, u32)> {
        let wanted = |boot: &&Boot| {
            self.only.is_empty() || self.only.iter().any(|choice| choice.is_of(boot))
        };
        let times = |boot: &Boot| if boot.precision() == Precision::Noisy { self.boots } else { 1 };
        self.suite.iter().filter(wanted).map(|boot| (boot, times(boot))).collect()
    }

    /// How many boots that is for each subject.
    pub fn boot_count(&self) -> u64 {
        self.boots().iter().map(|&(_, times)| u64::from(times)).sum()
    }

    fn wants(&self, boot: &Boot, region: &str) -> bool {
        let is_of_boot =
            boot.only.is_empty() || boot.only.iter().any(|only| crate::suite::begins(region, only));
        is_of_boot
            && (self.only.is_empty()
                || self.only.iter().any(|choice| choice.includes(boot, region)))
    }
}

/// The repetitions of each metric, boot by boot.
type Repetitions = BTreeMap<String, (Precision, Vec<Vec<Measured>>)>;

/// Measures every subject, noisy boots by turns so that all of them see the same weather on the host.
/// `progress` is told before each boot what comes. The last subject is the one that must be measured whole; a boot that
/// another cannot make, since it is of a revision that does not have the workload, say, is told to `missed`.
///
/// # Errors
/// As [`boot::run`], and where a mark cannot be read.
pub fn measure<const N: usize>(
    plan: &Plan<'_>,
    subjects: [&Subject; N],
    mut progress: impl FnMut(&str),
    mut missed: impl FnMut(&Error),
) -> Result<[Figures; N]> {
    let mut all: [Repetitions; N] = std::array::from_fn(|_| BTreeMap::new());
    for (boot, times) in plan.boots() {
        for time in 0..times {
            // Whoever came first comes last the next time: a drift of the host's favours nobody.
            let mut order: Vec<usize> = (0..N).collect();
            if time % 2 == 1 {
                order.reverse();
            }
            for at in order {
                progress(&boot.name);
                match one_boot(plan, boot, subjects[at], &mut all[at]) {
                    Err(error @ Error::Boot { .. }) if at + 1 < N => missed(&error),
                    result => result?,
                }
            }
        }
    }
    Ok(all.map(|repetitions| {
        let figure = |(metric, (precision, boots)): (String, (Precision, Vec<Vec<Measured>>))| {
            Some((metric, Figure::of(precision, &boots)?))
        };
        repetitions.into_iter().filter_map(figure).collect()
    }))
}

fn one_boot(plan: &Plan<'_>, boot: &Boot, subject: &Subject, into: &mut Repetitions) -> Result<()> {
    for (region, measured) in regions(plan, boot, subject, Recorded::Regions)?.1 {
        let metric = into.entry(boot.metric(&region)).or_insert((boot.precision(), Vec::new()));
        metric.1.push(measured);
    }
    Ok(())
}

type ByName = BTreeMap<String, Vec<Measured>>;

/// Boots, and returns the trace with the wanted regions in it.
fn regions(
    plan: &Plan<'_>,
    boot: &Boot,
    subject: &Subject,
    recorded: Recorded,
) -> Result<(trace_tools::Trace, ByName)> {
    let trace = boot::run(boot, subject, plan.only, recorded)?;
    let analyses::Regions { mut by_name, malformed } = analyses::regions(&trace);
    if let Some(problem) = malformed.first() {
        let (boot, image) = (boot.name.clone(), subject.image.clone());
        let problem = format!("a mark in its trace is no region: {problem}");
        return Err(Error::Boot { boot, image, problem });
    }
    by_name.retain(|region, _| plan.wants(boot, region));
    Ok((trace, by_name))
}

/// The path that most repetitions of a metric take, with everything traced; `None` where it is not measured or the
/// trace no longer has it.
///
/// # Errors
/// As [`boot::run`].
pub fn path(suite: &[Boot], metric: &str, subject: &Subject) -> Result<Option<Path>> {
    let only = [Choice::exactly(metric)];
    let plan = Plan { suite, only: &only, boots: 1 };
    for (boot, _) in plan.boots() {
        let (trace, mut by_name) = regions(&plan, boot, subject, Recorded::Paths)?;
        let Some((_, mut measured)) =
            by_name.extract_if(.., |region, _| boot.metric(region) == metric).next()
        else {
            continue;
        };
        // The rings may have overwritten what came first.
        if trace.accounts().dropped() > 0 {
            let first = trace.events().first().map_or(0, |event| event.time_ticks);
            measured.retain(|one| one.start_ticks >= first);
        }
        return Ok(analyses::path(&trace, &measured));
    }
    Ok(None)
}
