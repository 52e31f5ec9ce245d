//! Under `-icount` a run repeats to the last bit of its recording.

use std::sync::Mutex;

use orrery_tests::{Guest, Outcome, Port};

const RUNS: usize = 20;

/// Runs the guest so often, two at a time, and compares the recordings.
fn repeats(guest: &Guest, runs: usize) {
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
    let different = others.iter().filter(|other| other.recording != first.recording).count();
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
    let board = orrery_tests::MachineType::Microvm;
    repeats(&Guest::new().smp(2).board(board).icount().workload("mixed,scale=20"), 3);
}

/// Polling is exact, too, and slow: the instructions of every idle CPU are executed.
#[test]
fn polling() {
    for cpus in [1, 4] {
        let guest = Guest::new().smp(cpus).icount().word("idle=poll");
        repeats(&guest.workload("pipeline,items=200"), 3);
    }
}
