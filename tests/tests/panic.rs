//! A crash is a product: the right status, a story, a backtrace with names, and a trace that is
//! whole to the end.

use orrery_tests::{Guest, Image, Outcome, Port, Status};
use trace_tools::symbols::Symboliser;
use trace_tools::transport::Panic;

const PANIC: u8 = 101;
const WATCHDOG: u8 = 102;

fn crash(guest: Guest, kind: &str, status: u8) -> Outcome {
    let outcome = guest.workload(&format!("panic,kind={kind}")).run();
    outcome.crashed(status);
    outcome
}

fn story(outcome: &Outcome) -> &Panic {
    &outcome.trace.panics()[0]
}

/// The functions and files of the backtrace, innermost first.
fn backtrace(panic: &Panic, image: Image) -> Vec<(String, String)> {
    let elf = std::fs::read(image.path()).unwrap();
    let symbols = Symboliser::from_elf(&elf).unwrap();
    let places = panic.frames.iter().flat_map(|&frame| symbols.call_places(frame));
    places
        .map(|place| (place.function.unwrap_or_default(), place.file.unwrap_or_default()))
        .collect()
}

#[track_caller]
fn names(outcome: &Outcome, image: Image, function: &str, file: &str) {
    let trace = backtrace(story(outcome), image);
    let named = trace.iter().any(|(name, path)| name.contains(function) && path.ends_with(file));
    assert!(named, "no {function} in {file}: {trace:#?}");
}

#[test]
fn a_failed_assertion_tells_its_story() {
    for port in [Port::Virtio, Port::Com1] {
        for cpus in [1, 4] {
            let outcome = crash(Guest::new().smp(cpus).port(port), "assert", PANIC);
            let panic = story(&outcome);
            assert!(panic.message.contains("9 planets"), "{panic:#?}");
            let location = panic.location.as_deref().unwrap_or_default();
            assert!(location.contains("workloads/panic.rs:"), "{panic:#?}");
            assert_eq!(panic.task.as_deref(), Some("panic"));
            names(&outcome, Image::Fast, "panic", "workloads/panic.rs");
        }
    }
}

#[test]
fn a_page_fault_names_the_address() {
    let outcome = crash(Guest::new().smp(2), "page-fault", PANIC);
    let panic = story(&outcome);
    assert!(panic.message.contains("0x1000"), "{panic:#?}");
    assert!(panic.registers.iter().any(|register| register.starts_with("rip=")), "{panic:#?}");
    names(&outcome, Image::Fast, "panic", "workloads/panic.rs");
}

#[test]
fn a_stack_overflow_is_called_by_its_name() {
    let outcome = crash(Guest::new().smp(2), "stack-overflow", PANIC);
    assert!(story(&outcome).message.contains("stack overflow"), "{}", outcome.story());
    names(&outcome, Image::Fast, "deeper", "workloads/panic.rs");
}

#[test]
fn locks_in_the_wrong_order_are_both_named() {
    let outcome = crash(Guest::checked(), "lock-order", PANIC);
    let message = &story(&outcome).message;
    for name in ["panic workload, first", "panic workload, second", "workloads/panic.rs"] {
        assert!(message.contains(name), "{name}: {message}");
    }
}

#[test]
fn a_lock_taken_twice_is_noticed() {
    let outcome = crash(Guest::checked(), "deadlock", PANIC);
    assert!(story(&outcome).message.contains("panic workload, first"), "{}", outcome.story());
}

#[test]
fn a_cpu_that_does_not_schedule_is_noticed() {
    for kind in ["hang", "hang-irq", "hang-call"] {
        let outcome = crash(Guest::new().smp(2), kind, WATCHDOG);
        assert_eq!(story(&outcome).task.as_deref(), Some("panic"), "{}", outcome.story());
        names(&outcome, Image::Fast, "panic", "workloads/panic.rs");
    }
}

#[test]
fn a_crash_does_not_look_like_anything_else() {
    for status in [PANIC, WATCHDOG] {
        let outcome = Guest::new().workload(&format!("exit,status={status}")).run();
        assert_eq!(outcome.status, Status::Guest(status));
        assert!(outcome.trace.panics().is_empty());
    }
}
