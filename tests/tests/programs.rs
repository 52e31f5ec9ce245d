//! Programs do in the guest what they do on Linux: the same file is run on both, and standard output and status
//! are compared. What must hold besides is in the kernel's own account: it fails a run that leaves anything
//! behind.

use std::os::unix::process::CommandExt;
use std::process::{Command, Stdio};
use std::time::Duration;

use orrery_tests::{Guest, Outcome, program_path};

/// What both find in the environment.
const ENVIRONMENT: [&str; 3] = ["HOME=/", "PATH=/bin:/sbin:/usr/bin:/usr/sbin", "TERM=dumb"];

/// The checked image on `cpus` CPUs, about to run a program of this repository.
fn guest(cpus: u32, program: &str, arguments: &[&str]) -> Guest {
    let guest = Guest::checked().smp(cpus).memory("1G").trace("task,process,signal,mark");
    guest.timeout(Duration::from_secs(240)).environment(&ENVIRONMENT).program(program, arguments)
}

/// Runs a program here and in the guest.
fn is_the_same(cpus: u32, program: &str, arguments: &[&str]) {
    let mut host = Command::new(program_path(program));
    host.args(arguments)
        .env_clear()
        .envs(ENVIRONMENT.iter().filter_map(|word| word.split_once('=')))
        .current_dir("/")
        .stdin(Stdio::null())
        .stderr(Stdio::null());
    // SAFETY: the closure does nothing. That there is one keeps glibc from `posix_spawn`, which lets programs
    // begin with two real-time signals ignored.
    unsafe { host.pre_exec(|| Ok(())) };
    let host = host.output().unwrap_or_else(|why| panic!("{program} does not run here: {why}"));
    let outcome = guest(cpus, program, arguments).run();
    let (there, here) = (text(&outcome.stdout), text(&host.stdout));
    if let Some(line) = first_difference(&there, &here) {
        panic!("{program}: line {line}; in the guest:\n{there}\non Linux:\n{here}");
    }
    let status = host.status.code().unwrap_or_else(|| panic!("{program} crashed on Linux"));
    outcome.exited_with(status as u8);
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

fn first_difference(one: &str, other: &str) -> Option<usize> {
    let mut pairs = one.lines().zip(other.lines());
    let least = one.lines().count().min(other.lines().count());
    let lengths_differ = one.lines().count() != other.lines().count();
    pairs.position(|(one, other)| one != other).or(lengths_differ.then_some(least)).map(|at| at + 1)
}

macro_rules! same_as_linux {
    ($($test:ident: $program:literal on $cpus:literal;)*) => {$(
        #[test]
        fn $test() {
            is_the_same($cpus, $program, &[]);
        }
    )*};
}

same_as_linux! {
    hello: "hello" on 2;
    hello_of_c_with_glibc: "hello-c" on 1;
    hello_of_c_with_musl: "hello-c-musl" on 2;
    threads: "threads" on 4;
    fork: "fork" on 2;
    exec: "exec" on 2;
    pipes: "pipes" on 2;
    signals: "signals" on 1;
    signals_in_families: "signals-family" on 1;
    faults: "faults" on 2;
    memory: "memory" on 4;
    futexes: "futex" on 2;
    clone: "clone" on 2;
    processes: "processes" on 2;
    pid_namespaces: "namespaces" on 1;
    polling: "poll" on 2;
    procfs: "procfs" on 2;
    system: "system" on 1;
    timers: "timers" on 2;
    files: "files" on 2;
    attacks: "attack" on 2;
}

/// A run whose program checks itself.
fn goes_well(outcome: &Outcome) {
    outcome.exited_with(0);
    assert!(!text(&outcome.stdout).contains("CHECK FAILED"), "{}", outcome.story());
}

#[test]
fn torture() {
    goes_well(&guest(4, "torture", &[]).run());
}

#[test]
fn random_calls_leave_the_kernel_whole() {
    for seed in ["1", "2", "3"] {
        let outcome = guest(4, "syscall-fuzz", &[seed, "200000"]).trace("off").run();
        goes_well(&outcome);
        assert!(text(&outcome.stdout).contains("all made"), "{}", outcome.story());
    }
}

#[test]
fn a_crash_is_told_with_address_and_registers() {
    let outcome = guest(1, "faults", &["segv"]).run();
    let console = &outcome.console;
    assert!(console.contains("crashed: SIGSEGV (11)"), "{console}");
    assert!(console.contains("address 0x") && console.contains("rip "), "{console}");
}

#[test]
fn busybox_runs_a_shell() {
    let script =
        "for i in 1 2 3; do echo $i | tr 123 abc; done; ls /bin | wc -l; (exit 3) || echo $?";
    let busybox = std::fs::read("/usr/bin/busybox")
        .or_else(|_| std::fs::read("/bin/busybox"))
        .unwrap_or_else(|why| panic!("Debian's busybox-static is wanted: {why}"));
    let guest = Guest::checked().smp(2).file("/bin/busybox", 0o755, busybox);
    let guest = guest.file("/bin/other", 0o644, Vec::new());
    let outcome = guest.program("/bin/busybox", &["sh", "-c", script]).run();
    outcome.exited_with(0);
    assert_eq!(text(&outcome.stdout), "a\nb\nc\n2\n3\n", "{}", outcome.story());
}

#[test]
fn lbench_runs_to_its_end() {
    for (program, cpus) in [("lbench-musl", 1), ("lbench", 2)] {
        let guest = Guest::new().smp(cpus).memory("1G").trace("off");
        let guest = guest.timeout(Duration::from_secs(300)).environment(&["lbench_scale=5"]);
        let outcome = guest.program(program, &[]).run();
        outcome.exited_with(0);
        let stdout = text(&outcome.stdout);
        let groups: Vec<_> = stdout.lines().filter(|line| line.starts_with("# group ")).collect();
        assert!(groups.len() >= 8, "{stdout}");
        assert!(groups.iter().all(|line| line.contains(" status 0 ")), "{groups:#?}");
        assert!(stdout.contains("# lbench done"), "{stdout}");
    }
}
