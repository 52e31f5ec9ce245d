//! What programs write reaches the host, all of it and in order, in packets of its own.

use orrery_tests::{Guest, MachineType, Port};

/// `tasks` writers, whose lines must each count up by `step`.
fn every_line_is_there(bytes: &[u8], tasks: usize, step: u64, lines: u64) {
    let mut next = vec![0; tasks];
    for line in String::from_utf8_lossy(bytes).lines() {
        let (task, number) = line.split_once(' ').expect("two numbers");
        let task: usize = task.parse().expect("a writer's number");
        assert_eq!(number, next[task].to_string(), "writer {task}");
        next[task] += step;
    }
    let last = lines.next_multiple_of(step);
    assert!(next.iter().all(|&next| next == last), "{next:?} rather than {last}");
}

#[test]
fn nothing_is_lost_on_any_port() {
    for (board, port, lines) in [
        (MachineType::Q35, Port::Virtio, 20_000),
        (MachineType::Microvm, Port::Virtio, 20_000),
        (MachineType::Q35, Port::Com1, 2_000),
    ] {
        let guest = Guest::checked().board(board).port(port).smp(2).trace("-sched,-wake,-irq");
        let outcome = guest.workload(&format!("output,tasks=3,lines={lines}")).run();
        outcome.succeeded();
        every_line_is_there(&outcome.stdout, 3, 1, lines);
        every_line_is_there(&outcome.stderr, 3, 2, lines);
        assert!(!outcome.console.contains("0 1\n"), "{}", outcome.console);
    }
}
