//! The path through a region, event by event, and two builds' paths side by side.
//!
//! Every repetition of a region is a list of steps, each from one event to the next. Repetitions that took another way
//! than most (a timer expired, a page had to be found) are set aside; of the others, each step takes what it
//! most often took.

use std::collections::HashMap;
use std::hash::Hash;

use serde::Serialize;
use similar::{Algorithm, DiffOp, capture_diff_slices};

use super::Measured;
use crate::Trace;

/// Name of what a path begins with.
pub const START: &str = "start";
/// Name of what it ends with.
pub const END: &str = "end";

/// The way to an event from the one before it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Step {
    /// The event it leads to, or [`END`].
    pub to: String,
    /// How long it took.
    pub ticks: u64,
}

/// The path that most repetitions of a region took.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Path {
    /// Its steps, from [`START`].
    pub steps: Vec<Step>,
    /// Repetitions that took it.
    pub taken: usize,
    /// All repetitions.
    pub repetitions: usize,
}

/// The path that most of these regions took through a trace of everything; `None` where there is no region.
pub fn path(trace: &Trace, regions: &[Measured]) -> Option<Path> {
    let ways: Vec<Vec<Step>> = regions.iter().map(|region| steps(trace, region)).collect();
    let names = |way: &[Step]| way.iter().map(|step| step.to.clone()).collect::<Vec<_>>();
    let usual = most_frequent(ways.iter().map(|way| names(way)))?;
    let same: Vec<_> = ways.iter().filter(|way| names(way) == usual).collect();
    let steps = usual.into_iter().enumerate().map(|(at, to)| Step {
        to,
        ticks: most_frequent(same.iter().map(|way| way[at].ticks)).unwrap_or(0),
    });
    Some(Path { steps: steps.collect(), taken: same.len(), repetitions: ways.len() })
}

/// The value that occurs most often; of several, the smallest.
pub fn most_frequent<T: Eq + Hash + Ord>(values: impl IntoIterator<Item = T>) -> Option<T> {
    let mut counts: HashMap<T, usize> = HashMap::new();
    for value in values {
        *counts.entry(value).or_default() += 1;
    }
    let most = counts.values().copied().max()?;
    counts.into_iter().filter(|&(_, count)| count == most).map(|(value, _)| value).min()
}

fn steps(trace: &Trace, region: &Measured) -> Vec<Step> {
    let events = trace.events();
    let first = events.partition_point(|event| event.time_ticks < region.start_ticks);
    let mut before = region.start_ticks;
    let mut steps = Vec::new();
    let inside = events[first..].iter().take_while(|event| event.time_ticks <= region.end_ticks);
    for event in inside.map(|event| trace.get(event)) {
        let mut to = event.name().to_owned();
        // What tells events of one name apart is part of the path, other fields are not.
        for field in ["number", "vector", "kind", "mode"] {
            if let Some(value) = event.u64(field) {
                to += &format!(" {field}={value}");
            }
        }
        steps.push(Step { to, ticks: event.time_ticks.saturating_sub(before) });
        before = event.time_ticks.max(before);
    }
    let ticks = region.end_ticks.saturating_sub(before);
    steps.push(Step { to: END.to_owned(), ticks });
    steps
}

/// One step of two builds' paths.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct SideBySide {
    /// The event that the step comes from, or [`START`].
    pub from: String,
    /// The event it leads to, or [`END`].
    pub to: String,
    /// How long it took before; `None` where it is new.
    pub base_ticks: Option<u64>,
    /// How long it takes now; `None` where it is gone.
    pub now_ticks: Option<u64>,
}

impl SideBySide {
    /// Ticks by which it grew.
    pub fn growth(&self) -> i64 {
        let ticks = |side: Option<u64>| side.unwrap_or(0).cast_signed();
        ticks(self.now_ticks) - ticks(self.base_ticks)
    }
}

/// Puts two builds' paths beside each other, step by step, where the same events line up.
pub fn side_by_side(base: &Path, now: &Path) -> Vec<SideBySide> {
    let names = |path: &Path| path.steps.iter().map(|step| step.to.clone()).collect::<Vec<_>>();
    let row = |base: Option<usize>, now: Option<usize>, paths: (&Path, &Path)| {
        let (path, at) = match (base, now) {
            (_, Some(at)) => (paths.1, at),
            (at, None) => (paths.0, at.unwrap_or(0)),
        };
        let from = at.checked_sub(1).map_or(START, |before| &path.steps[before].to);
        SideBySide {
            from: from.to_owned(),
            to: path.steps[at].to.clone(),
            base_ticks: base.map(|at| paths.0.steps[at].ticks),
            now_ticks: now.map(|at| paths.1.steps[at].ticks),
        }
    };
    let paths = (base, now);
    let mut rows = Vec::new();
    for op in capture_diff_slices(Algorithm::Myers, &names(base), &names(now)) {
        match op {
            DiffOp::Equal { old_index, new_index, len } => rows
                .extend((0..len).map(|at| row(Some(old_index + at), Some(new_index + at), paths))),
            DiffOp::Delete { old_index, old_len, .. } => {
                rows.extend((old_index..old_index + old_len).map(|at| row(Some(at), None, paths)));
            }
            DiffOp::Insert { new_index, new_len, .. } => {
                rows.extend((new_index..new_index + new_len).map(|at| row(None, Some(at), paths)));
            }
            DiffOp::Replace { old_index, old_len, new_index, new_len } => {
                rows.extend((old_index..old_index + old_len).map(|at| row(Some(at), None, paths)));
                rows.extend((new_index..new_index + new_len).map(|at| row(None, Some(at), paths)));
            }
        }
    }
    rows
}

/// The step that grew most, if one grew.
pub fn grew_most(rows: &[SideBySide]) -> Option<&SideBySide> {
    rows.iter().filter(|row| row.growth() > 0).max_by_key(|row| row.growth())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn path(steps: &[(&str, u64)]) -> Path {
        let steps = steps.iter().map(|&(to, ticks)| Step { to: to.to_owned(), ticks });
        Path { steps: steps.collect(), taken: 1, repetitions: 1 }
    }

    #[test]
    fn the_step_that_grew_is_named() {
        let base = path(&[("syscall_enter", 40), ("sched_wakeup", 300), (END, 100)]);
        let now = path(&[("syscall_enter", 40), ("sched_wakeup", 340), (END, 101)]);
        let rows = side_by_side(&base, &now);
        let worst = grew_most(&rows).unwrap();
        assert_eq!(
            (&*worst.from, &*worst.to, worst.growth()),
            ("syscall_enter", "sched_wakeup", 40)
        );
        assert_eq!(rows.len(), 3);
        assert!(grew_most(&side_by_side(&now, &base)).is_none());
    }

    #[test]
    fn a_new_event_on_the_path_is_a_step_of_its_own() {
        let base = path(&[("a", 10), (END, 5)]);
        let now = path(&[("a", 10), ("ipi_send", 50), (END, 5)]);
        let rows = side_by_side(&base, &now);
        let worst = grew_most(&rows).unwrap();
        assert_eq!((&*worst.from, &*worst.to), ("a", "ipi_send"));
        assert_eq!((worst.base_ticks, worst.now_ticks), (None, Some(50)));
    }

    #[test]
    fn ties_are_broken_downwards() {
        assert_eq!(most_frequent([5, 7, 7, 5, 9]), Some(5));
        assert_eq!(most_frequent(Vec::<u64>::new()), None);
    }

    proptest! {
        #[test]
        fn no_tick_is_lost(
            base in prop::collection::vec(("[abc]", 0u64..100), 1..12),
            now in prop::collection::vec(("[abc]", 0u64..100), 1..12),
        ) {
            let of = |steps: &[(String, u64)]| {
                path(&steps.iter().map(|(to, ticks)| (to.as_str(), *ticks)).collect::<Vec<_>>())
            };
            let rows = side_by_side(&of(&base), &of(&now));
            let total = |steps: &[(String, u64)]| steps.iter().map(|step| step.1).sum::<u64>();
            prop_assert_eq!(rows.iter().filter_map(|row| row.base_ticks).sum::<u64>(), total(&base));
            prop_assert_eq!(rows.iter().filter_map(|row| row.now_ticks).sum::<u64>(), total(&now));
        }
    }
}
