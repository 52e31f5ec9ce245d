//! What the scheduler decides: who runs, where, how soon, and how much.
//!
//! Latencies and shares are measured in instructions (`-icount`), which repeat; the rules of
//! [`judge`] are checked in real time, on CPUs that really race.

use std::collections::HashMap;

use orrery_tests::{Guest, judge};
use trace_tools::Trace;
use trace_tools::events::Known;
use trace_tools::model::Model;

/// Instructions from the expiry of a timer to the switch to the real-time task that waited for it.
const PREEMPTION_LIMIT: u64 = 2_000;
/// Linux's weights of the nice values 0 and 5.
const WEIGHTS: [f64; 2] = [1024.0, 335.0];

/// From each expiry on behalf of the task with this name to its switch-in: (from the deadline, from
/// the interrupt).
fn latencies(trace: &Trace, prefix: &str) -> Vec<(u64, u64)> {
    let mut ours = HashMap::new();
    let mut entered: HashMap<u16, u64> = HashMap::new();
    let mut found = Vec::new();
    for (event, known) in trace.known() {
        match known {
            Known::TaskAttr { pid, name, .. } if name.to_text().starts_with(prefix) => {
                ours.insert(pid, None);
            }
            Known::IrqEnter { .. } => {
                entered.insert(event.cpu, event.time_ticks);
            }
            Known::TimerExpire { late, pid } => {
                if let Some(expiry) = ours.get_mut(&pid) {
                    let interrupt = entered.get(&event.cpu).copied().unwrap_or(event.time_ticks);
                    *expiry = Some((event.time_ticks - u64::from(late), interrupt));
                }
            }
            Known::SchedSwitch { next, .. } => {
                if let Some((deadline, interrupt)) = ours.get_mut(&next).and_then(Option::take) {
                    let now = event.time_ticks;
                    found.push((now - deadline, now - interrupt));
                }
            }
            _ => {}
        }
    }
    found
}

#[test]
fn a_hog_is_preempted_within_two_thousand_instructions() {
    let outcome = Guest::new().icount().workload("hog,for=200ms,rt=1,fair=0").run();
    let trace = outcome.succeeded();
    judge::everything(trace);
    let latencies = latencies(trace, "rt-");
    assert!(latencies.len() >= 20, "{} wakes", latencies.len());
    let worst = latencies.iter().map(|(deadline, _)| *deadline).max();
    assert!(worst <= Some(PREEMPTION_LIMIT), "{worst:?} instructions; {latencies:?}");
}

#[test]
fn a_hog_on_each_of_four_cpus_is_preempted_within_two_thousand_instructions() {
    let outcome = Guest::new().smp(4).icount().workload("hog,for=200ms,rt=1,fair=0").run();
    let trace = outcome.succeeded();
    judge::everything(trace);
    let latencies = latencies(trace, "rt-");
    assert!(latencies.len() >= 20, "{} wakes", latencies.len());
    let worst = latencies.iter().map(|(_, interrupt)| *interrupt).max();
    assert!(worst <= Some(PREEMPTION_LIMIT), "{worst:?} instructions; {latencies:?}");
}

#[test]
fn shares_follow_the_weights() {
    for cpus in [1, 4] {
        let guest = Guest::new().smp(cpus).icount().workload("hog,mode=share,nice=0,5,slices=450");
        let outcome = guest.run();
        let trace = outcome.succeeded();
        judge::everything(trace);
        let model = Model::replay(trace);
        let hogs: Vec<_> = ["hog-0", "hog-1"]
            .iter()
            .filter_map(|name| model.tasks.iter().find(|task| task.name.as_deref() == Some(*name)))
            .collect();
        let [first, second] = hogs[..] else { panic!("{}", outcome.story()) };
        assert!(first.switches >= 100 && second.switches >= 100, "{first:?} {second:?}");
        let ratio = first.runtime_ticks as f64 / second.runtime_ticks as f64;
        let due = WEIGHTS[0] / WEIGHTS[1];
        assert!((ratio / due - 1.0).abs() <= 0.02, "{ratio} instead of {due}");
    }
}

#[test]
fn the_rules_hold_for_every_workload() {
    for cpus in [1, 2, 4, 8] {
        for workload in ["hog,for=300ms", "pipeline,items=2000", "storm,tasks=100,steps=20"] {
            let guest = Guest::new().smp(cpus).word("trace_buf=8192").workload(workload);
            let outcome = guest.run();
            let trace = outcome.succeeded();
            judge::everything(trace);
            assert!(judge::affinity(trace) > 100, "{}", outcome.story());
        }
    }
}

#[test]
fn no_cpu_idles_beside_work() {
    for workload in ["storm,tasks=60,steps=20", "hog,for=100ms"] {
        let outcome = Guest::new().smp(4).icount().workload(workload).run();
        let trace = outcome.succeeded();
        let longest = judge::longest_idle_beside_work(trace);
        let hz = trace.hello().map_or(1, |hello| hello.tick_hz);
        assert!(longest <= hz / 1000, "{workload}: {longest} ticks of {hz} a second");
    }
}
