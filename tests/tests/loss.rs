//! What cannot be kept is counted, to the record: a flood of events that no ring is large enough
//! for, in both modes and on both lines.

use orrery_tests::{Guest, Outcome, Port, judge};
use trace_tools::analyses;

/// Marks that each CPU makes.
const MARKS: u64 = 100_000;

/// What each CPU's flood says that it produced is what arrived and what was dropped.
fn adds_up(guest: Guest, cpus: u32) -> Outcome {
    let workload = format!("overflow,marks={MARKS}");
    let guest = guest.smp(cpus).trace("mark").word("trace_buf=8").workload(&workload);
    let outcome = guest.run();
    let trace = outcome.ended_with(0);
    for cpu in 0..cpus as u16 {
        let told = outcome.line(&format!("produced cpu={cpu} marks="));
        assert_eq!(told.trim(), MARKS.to_string());
        let account = trace.accounts().cpus[&cpu];
        assert_eq!(account.produced, Some(MARKS), "CPU {cpu}: as the ring counted it");
        assert_eq!(account.received + account.dropped, MARKS, "CPU {cpu}: {account:?}");
        let arrived = trace.iter().filter(|event| event.cpu == cpu).count() as u64;
        assert_eq!(arrived, account.received, "CPU {cpu}: events decoded");
    }
    // What arrived arrived in order, and nothing twice.
    let mut last = vec![None; cpus as usize];
    for event in trace.iter() {
        let value = event.u64("value");
        let last = &mut last[usize::from(event.cpu)];
        assert!(value > *last, "CPU {}: {value:?} after {last:?}", event.cpu);
        *last = value;
    }
    outcome
}

#[test]
fn a_flood_in_stream_mode_adds_up() {
    for cpus in [1, 4] {
        adds_up(Guest::new(), cpus);
    }
}

#[test]
fn a_flood_in_snapshot_mode_adds_up() {
    for cpus in [1, 4] {
        let outcome = adds_up(Guest::new().snapshot(), cpus);
        assert!(outcome.trace.accounts().dropped() > 0, "no flood: {}", outcome.story());
    }
}

#[test]
fn a_flood_on_com1_adds_up() {
    let outcome = adds_up(Guest::new().port(Port::Com1), 2);
    assert!(outcome.trace.accounts().dropped() > 0, "no flood: {}", outcome.story());
}

#[test]
fn a_flood_without_compaction_adds_up() {
    adds_up(Guest::new().word("trace_compact=off"), 2);
}

#[test]
fn a_snapshot_keeps_the_newest() {
    let guest = Guest::new().trace("mark").snapshot().word("trace_buf=64");
    let outcome = guest.workload(&format!("overflow,marks={MARKS}")).run();
    let trace = outcome.ended_with(0);
    let newest = trace.iter().last().and_then(|event| event.u64("value"));
    assert_eq!(newest, Some(MARKS - 1));
    assert!(!analyses::is_lossy(trace), "a snapshot that is short of old records is no loss");
}

#[test]
fn both_lines_carry_everything() {
    for port in [Port::Com1, Port::Virtio] {
        for compact in ["trace_compact=on", "trace_compact=off"] {
            let outcome = Guest::new().smp(4).port(port).word(compact).run();
            judge::everything(outcome.succeeded());
        }
    }
}

#[test]
fn a_trace_that_is_off_is_empty() {
    let outcome = Guest::new().smp(2).trace("off").workload("mixed,scale=10").run();
    assert!(outcome.succeeded().is_empty());
}
