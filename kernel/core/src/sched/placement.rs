//! Which CPU a task runs on: at wakeup, and when queues have become unequal.
//!
//! Pure functions of a view of each CPU, which the caller reads without locks; the view may be out
//! of date by the time the caller acts on it. So the answers are good guesses: the caller
//! checks what matters (affinity, that there is still something to pull) under the lock.
//!
//! Searches start beside the asking CPU, so that CPUs which ask at the same time find different
//! ones.

use super::policy::{Nice, Policy, RtPriority};
use crate::cpuset::CpuSet;

/// What a CPU that might be given work does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Activity {
    /// It idles and polls: it sees work at once, without an interrupt.
    Polling,
    /// It idles, halted: an interrupt wakes it.
    Halted,
    /// It runs a fair task.
    Fair,
    /// It runs a real-time task.
    RealTime(RtPriority),
}

impl Activity {
    /// Whether it has nothing to run.
    pub const fn is_idle(self) -> bool {
        matches!(self, Self::Polling | Self::Halted)
    }
}

/// One CPU, as another sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CpuView {
    /// What it does.
    pub activity: Activity,
    /// Its runnable tasks, the running one included, see [`super::RunQueue::nr_running`].
    pub nr_running: u32,
    /// The sum of their weights, see [`super::RunQueue::load`].
    pub load: u64,
}

impl CpuView {
    /// Whether it runs tasks of [`Policy::IDLE`] only, which make way for any other.
    pub const fn makes_way(&self) -> bool {
        matches!(self.activity, Activity::Fair) && all_make_way(self.load, self.nr_running)
    }

    /// Tasks that wait and could be pulled. An idle CPU with runnable tasks is about to run one.
    fn nr_queued(&self) -> u32 {
        self.nr_running.saturating_sub(1)
    }
}

/// Whether the tasks of a queue are all of [`Policy::IDLE`], by the sum of their weights and their number: nobody
/// else weighs so little.
pub const fn all_make_way(load: u64, nr_running: u32) -> bool {
    load <= nr_running as u64 * Nice::IDLE.weight() as u64
}

/// The CPU for a task that becomes runnable. `prev` is the CPU it was on, or its creator's; `entity` tells its policy
/// and its weight ([`Policy::weight`]), where there is a choice; `allowed` are the CPUs online that its affinity
/// admits.
///
/// An idle CPU is best: `prev`, whose cache it knows, else a polling one, else a halted one.
/// Without one, a real-time task goes where the least important task runs, if it is less important
/// than it; any other goes to the least loaded CPU, if that one would still be less loaded than
/// `prev` with it, or if all there make way for it.
///
/// Returns `prev` if no CPU is allowed: there is no right answer, and the caller sees that it is
/// not in the set.
#[inline(always)]
pub fn select_cpu(
    prev: usize,
    allowed: CpuSet,
    entity: impl FnOnce() -> (Policy, u64),
    view: impl Fn(usize) -> CpuView,
) -> usize {
    // Nothing to choose.
    if allowed.len() == 1
        && let Some(only) = allowed.first()
    {
        return only;
    }
    select_among(prev, allowed, entity, view)
}

#[inline(never)]
fn select_among(
    prev: usize,
    allowed: CpuSet,
    entity: impl FnOnce() -> (Policy, u64),
    view: impl Fn(usize) -> CpuView,
) -> usize {
    if allowed.contains(prev) && view(prev).activity.is_idle() {
        return prev;
    }
    let candidates = || allowed.iter_from(prev).map(|cpu| (cpu, view(cpu)));
    let idle = candidates().filter(|(_, cpu)| cpu.activity.is_idle() && cpu.nr_running == 0);
    if let Some((cpu, _)) = idle.min_by_key(|(_, cpu)| cpu.activity) {
        return cpu;
    }
    let (policy, weight) = entity();
    if let Some(priority) = policy.rt_priority() {
        let below = candidates().filter(|(_, cpu)| cpu.activity < Activity::RealTime(priority));
        if let Some((cpu, _)) = below.min_by_key(|(_, cpu)| (cpu.activity, cpu.nr_running)) {
            return cpu;
        }
    }
    let Some((least, least_view)) = candidates().min_by_key(|(_, cpu)| cpu.load) else {
        return prev;
    };
    let prev_view = view(prev);
    let is_light = prev_view.load <= least_view.load.saturating_add(weight);
    let is_free = least_view.makes_way() && policy != Policy::IDLE && !prev_view.makes_way();
    if allowed.contains(prev) && is_light && !is_free { prev } else { least }
}

/// The CPU from which `cpu`, which has become idle, should pull a task: of `candidates`, the one
/// with the most waiting, the most loaded among equals. If nothing there may come over, the caller
/// asks again without it.
pub fn new_idle_pull(
    cpu: usize,
    candidates: CpuSet,
    view: impl Fn(usize) -> CpuView,
) -> Option<usize> {
    busiest(cpu, candidates, view).map(|(victim, _)| victim)
}

/// The CPU from which `cpu` should pull a task to even out the load, if any: the busiest, if it has
/// at least two tasks more and its load is heavier by a quarter.
pub fn periodic_balance(
    cpu: usize,
    candidates: CpuSet,
    view: impl Fn(usize) -> CpuView,
) -> Option<usize> {
    let own = view(cpu);
    let (victim, busiest) = busiest(cpu, candidates, view)?;
    let heavier = busiest.load > own.load.saturating_add(own.load / 4);
    // Those that make way do not count beside those that do not.
    let own_running = if own.makes_way() && !busiest.makes_way() { 0 } else { own.nr_running };
    let more = busiest.nr_running >= own_running.saturating_add(2);
    (more && heavier).then_some(victim)
}

/// Of the candidates with somebody waiting, the one with the most.
fn busiest(
    cpu: usize,
    candidates: CpuSet,
    view: impl Fn(usize) -> CpuView,
) -> Option<(usize, CpuView)> {
    candidates
        .iter_from(cpu)
        .filter(|other| *other != cpu)
        .map(|other| (other, view(other)))
        .filter(|(_, other)| other.nr_queued() > 0)
        // `max_by_key` takes the last of equals: backwards, so that the nearest wins.
        .reduce(|best, other| {
            let key = |cpu: &CpuView| (cpu.nr_queued(), cpu.load);
            if key(&other.1) > key(&best.1) { other } else { best }
        })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::vec::Vec;

    fn cpu(activity: Activity, nr_running: u32) -> CpuView {
        CpuView { activity, nr_running, load: u64::from(nr_running) * 1024 }
    }

    fn real_time(priority: u8) -> Activity {
        Activity::RealTime(RtPriority::new(priority).unwrap())
    }

    const FAIR: Policy = Policy::Fair(Nice::MIN);

    #[test]
    fn idle_cpus_first() {
        let cpus = [
            cpu(Activity::Fair, 1),
            cpu(Activity::Halted, 0),
            cpu(Activity::Polling, 0),
            cpu(Activity::Halted, 0),
        ];
        let select = |prev, allowed| select_cpu(prev, allowed, || (FAIR, 1024), |n| cpus[n]);
        let all = CpuSet::first_n(4);
        assert_eq!(select(3, all), 3, "the previous one if it is idle");
        assert_eq!(select(0, all), 2, "else one that polls");
        assert_eq!(select(0, "0-1,3".parse().unwrap()), 1, "else one that is halted");
        assert_eq!(select(2, CpuSet::single(0)), 0, "never one that is not allowed");
    }

    #[test]
    fn an_idle_cpu_that_has_been_given_work_is_left_to_it() {
        let cpus = [cpu(Activity::Fair, 1), cpu(Activity::Polling, 1), cpu(Activity::Halted, 0)];
        assert_eq!(select_cpu(0, CpuSet::first_n(3), || (FAIR, 1024), |n| cpus[n]), 2);
    }

    #[test]
    fn real_time_goes_where_it_runs() {
        let cpus = [cpu(real_time(9), 1), cpu(real_time(3), 1), cpu(Activity::Fair, 4)];
        let select = |policy| select_cpu(0, CpuSet::first_n(3), || (policy, 88761), |n| cpus[n]);
        let fifo = |priority| Policy::Fifo(RtPriority::new(priority).unwrap());
        assert_eq!(select(fifo(5)), 2);
        let cpus = &cpus[..2];
        let select = |policy| select_cpu(0, CpuSet::first_n(2), || (policy, 88761), |n| cpus[n]);
        assert_eq!(select(fifo(5)), 1);
        assert_eq!(select(fifo(3)), 0, "nothing gained: it stays");
    }

    #[test]
    fn fair_tasks_stay_unless_it_is_much_worse() {
        let cpus = [cpu(Activity::Fair, 2), cpu(Activity::Fair, 1), cpu(Activity::Fair, 4)];
        let select = |prev| select_cpu(prev, CpuSet::first_n(3), || (FAIR, 1024), |n| cpus[n]);
        assert_eq!(select(0), 0);
        assert_eq!(select(2), 1);
    }

    #[test]
    fn who_makes_way_is_next_to_idle() {
        let fair = cpu(Activity::Fair, 1);
        let making_way = CpuView { load: 3, ..fair };
        let select = |cpus: &[CpuView], prev, policy| {
            select_cpu(prev, CpuSet::first_n(cpus.len()), || (policy, 1024), |n| cpus[n])
        };
        assert_eq!(select(&[fair, making_way], 0, FAIR), 1);
        assert_eq!(select(&[making_way, making_way], 1, FAIR), 1, "it stays if it can");
        assert_eq!(select(&[fair, making_way, cpu(Activity::Halted, 0)], 0, FAIR), 2);
        assert_eq!(select(&[fair, making_way], 0, Policy::IDLE), 0, "nobody makes way for it");
    }

    #[test]
    fn a_weight_says_who_makes_way() {
        assert!(all_make_way(3, 1) && all_make_way(15, 5));
        let lightest = u64::from(Nice::MAX.weight());
        assert!(!all_make_way(lightest, 1) && !all_make_way(lightest + 3 * 2, 3));
    }

    #[test]
    fn those_who_make_way_do_not_keep_others_away() {
        let view = |activity, nr_running, load| CpuView { activity, nr_running, load };
        let (hogs, leftover) = (view(Activity::Fair, 2, 2048), view(Activity::Fair, 1, 3));
        let pull = |cpus: [CpuView; 2]| periodic_balance(1, CpuSet::first_n(2), |n| cpus[n]);
        assert_eq!(pull([hogs, leftover]), Some(0));
        assert_eq!(pull([hogs, view(Activity::Fair, 1, 1024)]), None);
        assert_eq!(pull([view(Activity::Fair, 2, 6), leftover]), None, "back and forth");
    }

    #[test]
    fn pulls_from_the_busiest() {
        let cpus = [
            cpu(Activity::Polling, 0),
            cpu(Activity::Fair, 1),
            cpu(Activity::Fair, 3),
            cpu(Activity::Fair, 3),
        ];
        let all = CpuSet::first_n(4);
        assert_eq!(new_idle_pull(0, all, |n| cpus[n]), Some(2));
        assert_eq!(new_idle_pull(0, "0-1,3".parse().unwrap(), |n| cpus[n]), Some(3));
        assert_eq!(new_idle_pull(0, CpuSet::first_n(2), |n| cpus[n]), None, "one task is not two");
        assert_eq!(periodic_balance(1, all, |n| cpus[n]), Some(2));
        assert_eq!(periodic_balance(2, all, |n| cpus[n]), None);
    }

    fn any_view() -> impl Strategy<Value = CpuView> {
        let activity = prop_oneof![
            Just(Activity::Polling),
            Just(Activity::Halted),
            Just(Activity::Fair),
            (0u8..100).prop_map(real_time),
        ];
        (activity, 0u32..5, 0u64..1 << 40).prop_map(|(activity, nr_running, load)| CpuView {
            activity,
            nr_running: if activity.is_idle() { nr_running / 4 } else { nr_running + 1 },
            load,
        })
    }

    proptest! {
        #![proptest_config(ProptestConfig {
            cases: if cfg!(miri) { 4 } else { 512 },
            failure_persistence: None,
            ..ProptestConfig::default()
        })]

        #[test]
        fn answers_are_allowed_and_waste_no_idle_cpu(
            views in proptest::collection::vec(any_view(), 64),
            bits: u64,
            prev in 0usize..64,
            weight in 15u64..88761,
            rt in proptest::option::of(0u8..100),
        ) {
            let allowed = CpuSet::from_bits(bits | 1);
            let policy = match rt {
                Some(priority) => Policy::Fifo(RtPriority::new(priority).unwrap()),
                None => FAIR,
            };
            let cpu = select_cpu(prev, allowed, || (policy, weight), |n| views[n]);
            prop_assert!(allowed.contains(cpu));
            let idle = |n: &usize| views[*n].activity.is_idle() && views[*n].nr_running == 0;
            if allowed.iter().any(|n| idle(&n)) {
                prop_assert!(views[cpu].activity.is_idle());
            }
            let waiting: Vec<_> =
                allowed.iter().filter(|n| *n != prev && views[*n].nr_running > 1).collect();
            let victim = new_idle_pull(prev, allowed, |n| views[n]);
            prop_assert_eq!(victim.is_some(), !waiting.is_empty());
            prop_assert!(victim.is_none_or(|victim| waiting.contains(&victim)));
            if let Some(victim) = periodic_balance(prev, allowed, |n| views[n]) {
                prop_assert!(views[victim].load > views[prev].load);
            }
        }
    }
}
