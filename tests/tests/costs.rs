//! What the paths that programs take cost, and how long they keep others waiting, in instructions: under `-icount`
//! a figure is exact, and the same on every machine.
//!
//! The programs `costs` and `lateness` measure, with the trace off, on one CPU. The limits are below.

use std::collections::BTreeMap;
use std::time::Duration;

use orrery_tests::{Guest, Outcome, progress};

/// What a metric may cost.
struct Limit {
    metric: &'static str,
    instructions: u64,
}

const fn at_most(metric: &'static str, instructions: u64) -> Limit {
    Limit { metric, instructions }
}

/// Whatever a process has in memory, its fork costs the same.
const FORK_CALLS: [&str; 4] =
    ["fork-call/64KiB", "fork-call/1024KiB", "fork-call/65536KiB", "fork-call/1048576KiB"];

/// However many threads a process has, the end of each costs about the same; some of many are buried meanwhile, which
/// is as much as a fifth more, depending on when the kernel's worker gets the CPU.
const THREAD_KILLS: [&str; 2] = ["thread-kill/100", "thread-kill/3000"];

const LIMITS: [Limit; 13] = [
    at_most("null-call", 95),
    at_most(FORK_CALLS[0], 4_300),
    at_most(FORK_CALLS[1], 4_300),
    at_most(FORK_CALLS[2], 4_300),
    at_most(FORK_CALLS[3], 4_300),
    at_most("fork-exit-wait/64KiB", 13_000),
    at_most("first-write-of-all", 7_000),
    at_most("first-write-in-table", 6_100),
    at_most("first-write-in-table-max", 7_000),
    at_most("cow-copy", 985),
    at_most("cow-reuse", 312),
    at_most("demand-zero", 884),
    at_most(THREAD_KILLS[1], 5_000),
];

fn figures(outcome: &Outcome) -> BTreeMap<String, u64> {
    let text = String::from_utf8_lossy(&outcome.stdout);
    let figure = |line: &str| {
        let (metric, figure) = line.split_once(' ')?;
        Some((metric.to_owned(), figure.parse().ok()?))
    };
    text.lines().map(|line| figure(line).unwrap_or_else(|| panic!("no figure: {line:?}"))).collect()
}

/// What is over its limit, in words.
fn misses(figures: &BTreeMap<String, u64>) -> Vec<String> {
    let figure = |metric: &str| match figures.get(metric) {
        Some(&figure) => figure,
        None => panic!("{metric} is not among {figures:?}"),
    };
    let mut misses = Vec::new();
    for &Limit { metric, instructions } in &LIMITS {
        let is = figure(metric);
        if is > instructions {
            misses.push(format!("{metric}: {is} instructions, limit {instructions}"));
        }
    }
    let forks = FORK_CALLS.map(figure);
    let (least, most) = (forks.iter().min(), forks.iter().max());
    let (least, most) = (least.copied().unwrap_or(0), most.copied().unwrap_or(0));
    if most * 100 > least * 102 {
        misses.push(format!("fork calls {forks:?}: {most} / {least} is over 1.02"));
    }
    let (few, many) = (figure(THREAD_KILLS[0]), figure(THREAD_KILLS[1]));
    if many * 10 > few * 15 {
        misses.push(format!("{}: {many} instructions, limit 1.5 times {few}", THREAD_KILLS[1]));
    }
    let (small, large) = (figure("fork-exit-wait/64KiB"), figure("fork-exit-wait/65536KiB"));
    if large * 10 > small * 11 {
        misses.push(format!(
            "fork-exit-wait/65536KiB: {large} instructions, limit 1.1 times {small}"
        ));
    }
    misses
}

#[test]
fn are_within_limits() {
    let guest = Guest::new().icount().trace("off").word("aslr=off").memory("1536M");
    let guest = guest.timeout(Duration::from_secs(300)).program("costs-musl", &["1024"]);
    let outcome = guest.run();
    outcome.exited_with(0);
    let figures = figures(&outcome);
    for (metric, figure) in &figures {
        progress(&format!("{metric}: {figure} instructions"));
    }
    let misses = misses(&figures);
    assert!(misses.is_empty(), "too slow:\n{}", misses.join("\n"));
}

/// The most by which a real-time thread may be late, whatever the kernel does for another process.
const LATENESS_LIMIT: u64 = 25_000;

#[test]
fn nothing_large_keeps_a_real_time_thread_waiting() {
    let guest = Guest::new().icount().trace("off").word("aslr=off").memory("512M");
    let outcome = guest.timeout(Duration::from_secs(300)).program("lateness", &[]).run();
    outcome.exited_with(0);
    let figures = figures(&outcome);
    for (case, figure) in &figures {
        progress(&format!("{case}: {figure} instructions late"));
    }
    let late: Vec<_> = figures.iter().filter(|&(_, &late)| late > LATENESS_LIMIT).collect();
    assert!(late.is_empty(), "later than {LATENESS_LIMIT} instructions: {late:?}");
    assert!(!figures.is_empty(), "the program measured nothing");
}
