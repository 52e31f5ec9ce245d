//! Wakeups: none is lost, and what many tasks leave behind is nothing.
//!
//! A wake that gets lost leaves its task asleep for ever, so a game that ends has lost none;
//! where the trace is on, it says so for each wake by itself. That tasks, frames, stacks, PIDs and
//! allocations are given back is counted by `init`, which fails the run otherwise.

use std::time::Duration;

use orrery_tests::{Guest, judge};

#[test]
fn a_million_rounds_across_cpus() {
    let guest = Guest::new().smp(4).trace("off").timeout(Duration::from_secs(600));
    let outcome = guest.workload("pingpong,rounds=1000000,cpus=different").run();
    outcome.succeeded();
    assert!(outcome.line("pingpong: ").starts_with("1000000 rounds"), "{}", outcome.story());
}

#[test]
fn every_wake_of_a_game_is_answered() {
    for (cpus, placement) in [(1, "same"), (2, "different"), (4, "different"), (4, "any")] {
        for class in ["fair", "fifo"] {
            let game = format!("pingpong,rounds=5000,cpus={placement},class={class}");
            let guest = Guest::new().smp(cpus).word("trace_buf=32768").workload(&game);
            let outcome = guest.run();
            let trace = outcome.succeeded();
            judge::everything(trace);
            // A player that is still awake when its turn comes needs no wake.
            assert!(judge::wakes(trace) > 1_000, "{}", outcome.story());
        }
    }
}

#[test]
fn halting_cpus_are_woken() {
    let guest = Guest::new().smp(4).word("idle=halt").trace("sched,wake,task");
    let outcome = guest.workload("pingpong,rounds=20000,cpus=different").run();
    judge::everything(outcome.succeeded());
}

#[test]
fn polling_cpus_are_woken() {
    let guest = Guest::new().smp(4).word("idle=poll").trace("sched,wake,task");
    let outcome = guest.workload("pingpong,rounds=1000,cpus=different").run();
    judge::everything(outcome.succeeded());
}

#[test]
fn a_storm_of_a_thousand_tasks_leaves_nothing() {
    let guest = Guest::new().smp(8).memory("512M").trace("sched,wake,task");
    let guest = guest.word("trace_buf=16384").timeout(Duration::from_secs(300));
    let outcome = guest.workload("storm,tasks=1000,steps=30").run();
    judge::everything(outcome.succeeded());
    assert!(outcome.line("storm: ").ends_with("none left"), "{}", outcome.story());
}

#[test]
fn storms_with_checks() {
    for (cpus, seed) in [(1, 1), (2, 2), (4, 3), (8, 4)] {
        let guest = Guest::checked().smp(cpus).memory("512M").word(&format!("seed={seed}"));
        let guest = guest.word("trace_buf=8192").timeout(Duration::from_secs(300));
        judge::everything(guest.workload("storm,tasks=300,steps=20").run().succeeded());
    }
}

#[test]
fn timers_wake_in_order() {
    for cpus in [1, 4] {
        let outcome = Guest::checked().smp(cpus).workload("timers,sleepers=64,rounds=8").run();
        judge::everything(outcome.succeeded());
    }
}
