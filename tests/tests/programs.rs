//! Guest programs do in the guest what they do on the host's Linux: the same lines, the same end, nothing left.

use orrery_tests::programs::{OnLinux, is_root};
use orrery_tests::{Guest, judge, skip};
use trace_tools::events::Known;

/// Categories whose events are few. All of them, for programs that do nothing but system calls, would be gigabytes.
const FEW_EVENTS: &str = "task,process";

/// The program with these arguments: on four CPUs with run-time checks, and on one without.
fn same_with(name: &str, arguments: &[&str]) {
    let linux = OnLinux::run(name, arguments);
    for guest in [Guest::checked().smp(4), Guest::new().smp(1)] {
        let guest = guest.trace(FEW_EVENTS).environment(&["PATH=/usr/bin:/bin"]);
        let outcome = guest.program(name, arguments).run();
        linux.is_what_happened_in(&outcome);
    }
}

macro_rules! same_as_linux {
    ($($test:ident: $name:literal;)*) => { $(
        #[test]
        fn $test() {
            same_with($name, &[]);
        }
    )* };
}

same_as_linux! {
    clone_and_clone3: "clone";
    ends: "ends";
    exec: "exec";
    faults: "faults";
    files: "files";
    fork: "fork";
    futex: "futex";
    locks: "locks";
    memory: "memory";
    messages: "messages";
    pipes: "pipes";
    poll: "poll";
    processes: "processes";
    procfs: "procfs";
    signals: "signals";
    signals_family: "signals-family";
    threads: "threads";
    timers: "timers";
    torture: "torture";
    usage: "usage";
}

/// On Linux these want to be root.
fn same_as_root(test: &str, name: &str) {
    if is_root() {
        same_with(name, &[]);
    } else {
        skip(test, "root only, on the host's side");
    }
}

#[test]
fn namespaces() {
    same_as_root("namespaces", "namespaces");
}

#[test]
fn system() {
    same_as_root("system", "system");
}

#[test]
fn hello_in_rust_and_c() {
    same_with("hello", &["one", "two words", ""]);
    same_with("hello", &["--status", "42"]);
    for name in ["hello-c", "hello-c-musl"] {
        same_with(name, &["200", "b"]);
    }
}

#[test]
fn a_file_of_the_bundle_is_mapped_as_any_other() {
    const PART: &[&str] = &["shared-file"];
    let linux = OnLinux::run("memory", PART);
    let bundle = tempfile::tempdir().unwrap();
    std::fs::write(bundle.path().join("data"), [b'-'; 4 * 4096]).unwrap();
    let guest = Guest::checked().bundle(bundle.path()).environment(&["MAPPED_FILE=/data"]);
    linux.is_what_happened_in(&guest.program("memory", PART).run());
}

#[test]
fn bad_ends() {
    for kind in ["segv", "abort", "panic", "overflow", "thread", "term", "kernel", "exit", "?"] {
        same_with("crash", &[kind]);
    }
}

/// Scheduling of programs keeps the rules that all tasks keep.
#[test]
fn threads_are_scheduled_by_the_rules() {
    let guest = Guest::checked().smp(4).trace("sched,wake,task");
    let outcome =
        guest.program("threads", &["join", "condvar", "channel", "park", "barrier"]).run();
    judge::everything(outcome.exited_with(0));
}

/// What a process has set to go off every millisecond ends with it, not with its zombie 200 ms later.
#[test]
fn a_zombies_timer_is_off() {
    let guest = Guest::new().icount().trace("sched,task").program("timers", &["zombie"]);
    let outcome = guest.run();
    let is_switch = |known: &Known| matches!(known, Known::SchedSwitch { .. });
    let switches = outcome.exited_with(0).known().filter(|(_, known)| is_switch(known)).count();
    assert!(switches < 100, "{switches} switches");
}

/// Under --icount a program's run repeats to the bit, its address space included.
#[test]
fn programs_repeat() {
    let run = || {
        let guest = Guest::new().icount().program("fork", &["statuses", "memory", "tree"]);
        let outcome = guest.run();
        outcome.exited_with(0);
        outcome.recording.clone()
    };
    assert!(run() == run(), "two runs of one program differ");
}
