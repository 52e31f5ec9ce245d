//! Much of everything at once: fork bombs and trees, threads that fork, signals into forks and execs, concurrent
//! writers to copied memory, exec storms. By what is tortured: [`processes`], [`memory`], [`signals`], [`scheduling`],
//! [`pipes`].
//!
//! `torture [CASE…]` runs cases at a size that takes seconds; TORTURE_SCALE=N multiplies it. Every case checks its
//! own results, so that the program tells more than that it came to its end.

mod memory;
mod pipes;
mod processes;
mod scheduling;
mod signals;

use std::sync::atomic::AtomicU32;

use programs::memory::shared_pages;
use programs::process::try_wait;
use programs::{check, say};

fn main() {
    if std::env::args().nth(1).is_some_and(|arg| arg == "@quick") {
        std::process::exit(7);
    }
    programs::main(&[
        ("fork-exit", processes::fork_exit),
        ("fork-bomb", processes::fork_bomb),
        ("fork-tree", processes::fork_tree),
        ("threads-fork", processes::threads_fork),
        ("signal-storm", signals::signal_storm),
        ("kill-forkers", processes::kill_forkers),
        ("kill-family", processes::kill_family),
        ("copy-storm", memory::copy_storm),
        ("shared-storm", memory::shared_storm),
        ("exec-storm", processes::exec_storm),
        ("exec-races", processes::exec_races),
        ("map-storm", memory::map_storm),
        ("stop-storm", signals::stop_storm),
        ("thread-storm", processes::thread_storm),
        ("pipe-storm", pipes::pipe_storm),
        ("policy-storm", scheduling::policy_storm),
        ("area-storm", memory::area_storm),
        ("move-storm", scheduling::move_storm),
        ("long-changes", memory::long_changes),
    ]);
}

fn scaled(count: u32) -> u32 {
    let scale = std::env::var("TORTURE_SCALE").ok().and_then(|text| text.parse().ok()).unwrap_or(1);
    count * scale
}

/// A generator of numbers that look random (xorshift).
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    fn below(&mut self, limit: u64) -> u64 {
        self.next() % limit
    }
}

/// Memory that processes count in.
fn counter() -> &'static AtomicU32 {
    // SAFETY: a page of its own that is never unmapped.
    unsafe { AtomicU32::from_ptr(shared_pages(1).cast()) }
}

/// Waits for this many children; how many ended well.
fn reap(count: usize) -> usize {
    (0..count)
        .filter(|_| try_wait(-1, libc::__WALL).is_ok_and(|(_, status)| status.exited_with(0)))
        .count()
}

/// What a case has found out.
fn verdict(what: &str, holds: bool) {
    check!(holds, "not {what}");
    say!("{what}: {holds}");
}
