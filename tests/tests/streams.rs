//! What programs write reaches the host, all of it and in order, in packets of its own; and what the host sends
//! reaches them.

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

/// Every value of a byte, often, and no regular pattern.
fn bytes(len: usize) -> Vec<u8> {
    (0..len as u32).map(|n| (n.wrapping_mul(2_654_435_761) >> 13) as u8).collect()
}

#[test]
fn live_input_arrives_whole() {
    for board in [MachineType::Q35, MachineType::Microvm] {
        let sent = bytes(100_000);
        let guest =
            Guest::checked().board(board).smp(2).live_stdin(&sent).workload("echo,size=700");
        let outcome = guest.run();
        outcome.succeeded();
        assert!(outcome.stdout == sent, "{} of {} bytes", outcome.stdout.len(), sent.len());
    }
}

#[test]
fn input_may_come_with_the_bundle() {
    let sent = bytes(200_000);
    let guest = || Guest::new().stdin(&sent).workload("echo");
    for guest in [guest(), guest().icount()] {
        let outcome = guest.run();
        outcome.succeeded();
        assert!(outcome.stdout == sent, "{} of {} bytes", outcome.stdout.len(), sent.len());
    }
}

#[test]
fn without_input_there_is_its_end() {
    for guest in [Guest::new(), Guest::new().live_stdin(b"")] {
        let outcome = guest.workload("echo").run();
        outcome.succeeded();
        assert!(outcome.stdout.is_empty());
    }
}
