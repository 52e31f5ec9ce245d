//! Programs that mean harm, by themselves or by accident: the kernel goes on, says what happened, and nothing is left.

use std::time::Duration;

use orrery_tests::programs::{OnLinux, left_nothing};
use orrery_tests::{Guest, Outcome};

const FEW_EVENTS: &str = "task";

fn guest() -> Guest {
    Guest::checked().smp(4).trace(FEW_EVENTS).timeout(Duration::from_secs(600))
}

/// The program's own checks hold.
fn ends_well(guest: Guest, name: &str, arguments: &[&str]) -> Outcome {
    let outcome = guest.program(name, arguments).run();
    outcome.exited_with(0);
    left_nothing(&outcome);
    outcome
}

#[test]
fn attacks_end_as_on_linux() {
    let linux = OnLinux::run("attack", &[]);
    for cpus in [1, 4] {
        let outcome = guest().smp(cpus).program("attack", &[]).run();
        linux.is_what_happened_in(&outcome);
    }
}

#[test]
fn a_crash_is_told_and_others_go_on() {
    let outcome = guest().program("faults", &["segv", "stack"]).run();
    outcome.exited_with(0);
    let console = &outcome.console;
    let first = console.lines().find(|line| line.contains("crashed")).expect("no crash is told");
    for word in ["`faults`", "SIGSEGV (11)", "code 1", "rip 0x"] {
        assert!(first.contains(word), "{word} is not in {first:?}");
    }
    assert!(console.contains("address 0x1234"), "{console}");
    for register in ["rax", "rsp", "r15", "rflags"] {
        assert!(console.contains(register), "{register} is not in {console}");
    }
}

#[test]
fn a_first_program_that_crashes_is_the_runs_end() {
    for (kind, signal) in [("segv", 11), ("abort", 6), ("term", 15)] {
        let outcome = guest().program("crash", &[kind]).run();
        outcome.killed_by(signal);
        left_nothing(&outcome);
    }
}

#[test]
fn what_is_no_program_is_refused() {
    let hello = std::fs::read(orrery_tests::program_path("hello")).unwrap();
    let changed = |at: usize, bytes: &[u8]| {
        let mut copy = hello.clone();
        copy[at..at + bytes.len()].copy_from_slice(bytes);
        copy
    };
    let files = [
        ("text", b"just text\n".to_vec(), "not an ELF"),
        ("empty", Vec::new(), "not an ELF"),
        ("truncated", hello[..40].to_vec(), "truncated"),
        ("half", hello[..hello.len() / 4].to_vec(), ""),
        ("arm", changed(18, &[183]), "machine"),
        ("object", changed(16, &[1]), "not an executable"),
        ("headers", changed(32, &[0xff; 7]), ""),
    ];
    for (name, data, words) in files {
        let path = format!("/bin/{name}");
        let outcome = guest().smp(1).file(&path, 0o755, data).program(&path, &[]).run();
        assert_eq!(outcome.exit_status(), Some(126), "{name}: {}", outcome.story());
        assert!(outcome.console.contains(words), "{name}: {}", outcome.story());
        left_nothing(&outcome);
    }
    let outcome =
        guest().smp(1).bundle(tempfile::tempdir().unwrap().path()).program("/bin/none", &[]).run();
    assert_eq!(outcome.exit_status(), Some(127), "{}", outcome.story());
}

#[test]
fn random_calls() {
    for (cpus, seed) in [(4, "1"), (1, "2")] {
        ends_well(guest().smp(cpus), "syscall-fuzz", &[seed, "100000"]);
    }
}

#[test]
#[ignore = "ten million calls take minutes; `cargo test … -- --ignored` runs it"]
fn ten_million_random_calls() {
    let guest =
        Guest::new().smp(4).memory("1G").trace(FEW_EVENTS).timeout(Duration::from_secs(7_200));
    ends_well(guest, "syscall-fuzz", &["3", "10000000"]);
}

#[test]
fn forks_under_memory_pressure() {
    ends_well(guest().memory("96M"), "fork-pressure", &["3000"]);
}

#[test]
#[ignore = "a hundred thousand forks take minutes; `cargo test … -- --ignored` runs it"]
fn a_hundred_thousand_forks_under_memory_pressure() {
    let guest =
        Guest::new().smp(4).memory("96M").trace(FEW_EVENTS).timeout(Duration::from_secs(3_600));
    ends_well(guest, "fork-pressure", &[]);
}

#[test]
fn torture_with_few_and_many_cpus() {
    for cpus in [2, 8] {
        ends_well(guest().smp(cpus), "torture", &[]);
    }
}

/// CPUs that kept what they had cached of spaces they have left would use nothing that is stale.
#[test]
fn torture_with_modelled_pcids() {
    let storms = ["threads-fork", "copy-storm", "shared-storm"];
    ends_well(guest().word("pcid=model"), "torture", &storms);
}

/// Where memory is short, programs die and the kernel does not.
/// Where numbers are few a child soon has a lower one than its parent, and is behind whoever goes through them.
#[test]
fn a_group_is_killed_whatever_numbers_its_members_have() {
    for cpus in [2, 4] {
        let guest = guest().smp(cpus).word("pid_limit=300").environment(&["TORTURE_SCALE=5"]);
        ends_well(guest, "torture", &["kill-family"]);
    }
}

#[test]
fn torture_with_little_memory() {
    let outcome = guest()
        .memory("64M")
        .program("torture", &["fork-bomb", "copy-storm", "exec-storm", "area-storm"])
        .run();
    left_nothing(&outcome);
    assert!(outcome.trace.panics().is_empty(), "{}", outcome.story());
}

/// What programs choose the size of is refused where there is no memory for it.
#[test]
fn much_of_little_memory() {
    ends_well(guest().memory("64M"), "scarce", &[]);
}
