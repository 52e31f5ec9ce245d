//! Under `-icount` a run repeats to the last bit of its recording, if idle CPUs poll. If they halt it
//! nearly always does: that is reported, not judged.

use std::sync::Mutex;

use orrery_tests::{Guest, MachineType, Outcome, Port, progress};

const RUNS: usize = 20;

/// Runs the guest so often, two at a time. Returns how many recordings differ from the first.
fn different(guest: &Guest, runs: usize) -> usize {
    let first = guest.clone().run();
    first.succeeded();
    let others: Mutex<Vec<Outcome>> = Mutex::new(Vec::new());
    let left = Mutex::new(1..runs);
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                while left.lock().is_ok_and(|mut left| left.next().is_some()) {
                    let outcome = guest.clone().run();
                    if let Ok(mut others) = others.lock() {
                        others.push(outcome);
                    }
                }
            });
        }
    });
    let others = others.into_inner().unwrap_or_default();
    assert_eq!(others.len(), runs - 1);
    others.iter().filter(|other| other.recording != first.recording).count()
}

fn repeats(guest: &Guest, runs: usize) {
    let different = different(guest, runs);
    assert_eq!(different, 0, "{different} of {runs} recordings differ from the first");
}

#[test]
fn one_cpu() {
    repeats(&Guest::new().icount(), RUNS);
}

#[test]
fn four_cpus() {
    repeats(&Guest::new().smp(4).icount(), RUNS);
}

#[test]
fn by_com1() {
    repeats(&Guest::new().smp(2).port(Port::Com1).icount().workload("mixed,scale=20"), 3);
}

#[test]
fn on_microvm() {
    repeats(
        &Guest::new().smp(2).board(MachineType::Microvm).icount().workload("mixed,scale=20"),
        3,
    );
}

#[test]
fn halting_is_reported() {
    for cpus in [1, 4] {
        let guest = Guest::new().smp(cpus).icount().word("idle=halt").workload("mixed,scale=20");
        let different = different(&guest, 5);
        progress(&format!("idle=halt, smp={cpus}: {different} of 5 recordings differ"));
    }
}
