//! Calls and switches: the null call, and two that take turns on one CPU.

use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};

use programs::{check, memory, process, sys};

use crate::raw::{Scope, call, call_repeatedly, futex_wait, futex_wake};
use crate::suite::Suite;

/// Calls in a sample of one call, of which the partner makes as many.
const CALLS: u32 = 32;
/// Round trips in a sample.
const TRIPS: u32 = 16;

/// Who the partner is.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Thread,
    Process,
}

pub fn measure(suite: &Suite) {
    suite.measure("null-call", CALLS, call_repeatedly::<{ libc::SYS_getppid }, CALLS>);
    for (kind, [yields, pipe, futex]) in [
        (Kind::Thread, ["switch/yield/thread", "switch/pipe/thread", "switch/futex/thread"]),
        (Kind::Process, ["switch/yield/process", "switch/pipe/process", "switch/futex/process"]),
    ] {
        if suite.wants(yields) {
            by_yield(suite, yields, kind);
        }
        if suite.wants(pipe) {
            by_pipe(suite, pipe, kind);
        }
        if suite.wants(futex) {
            by_futex(suite, futex, kind);
        }
    }
}

/// Runs `work` while a partner runs `other`.
fn beside(kind: Kind, other: impl Fn() + Send, work: impl FnOnce()) {
    match kind {
        Kind::Thread => std::thread::scope(|scope| {
            scope.spawn(other);
            work();
        }),
        Kind::Process => {
            let partner = process::spawn(|| {
                other();
                0
            });
            work();
            let status = process::wait(partner);
            check!(status.exited_with(0), "the partner: {status}");
        }
    }
}

/// What the two share, in a page that a fork leaves shared. All zero at first.
struct Table {
    /// The partner is there.
    ready: AtomicBool,
    over: AtomicBool,
    /// Each one's futex: 1 says that it is its turn.
    turns: [Turn; 2],
}

/// On a cache line of its own.
#[repr(align(64))]
struct Turn(AtomicU32);

impl Table {
    fn new() -> &'static Self {
        // SAFETY: a page of zeroes, which are a table, and which is never unmapped.
        unsafe { &*memory::shared_pages(1).cast() }
    }
}

/// A round is one yield of each: two switches.
fn by_yield(suite: &Suite, name: &str, kind: Kind) {
    let table = Table::new();
    let partner = || {
        table.ready.store(true, Ordering::Relaxed);
        while !table.over.load(Ordering::Relaxed) {
            call_repeatedly::<{ libc::SYS_sched_yield }, 1>();
        }
    };
    beside(kind, partner, || {
        while !table.ready.load(Ordering::Relaxed) {
            let _ = sys!(SYS_sched_yield);
        }
        suite.measure(name, 2 * CALLS, call_repeatedly::<{ libc::SYS_sched_yield }, CALLS>);
        table.over.store(true, Ordering::Relaxed);
    });
}

/// A byte goes there and another comes back.
fn by_pipe(suite: &Suite, name: &str, kind: Kind) {
    const OVER: u8 = 1;
    let ((there, to_partner), (back, to_me)) = (process::pipe(0), process::pipe(0));
    let partner = || {
        let mut byte = 0;
        while byte != OVER {
            read_byte(there, &mut byte);
            write_byte(to_me, &byte);
        }
    };
    let trip = |mut byte: u8| {
        write_byte(to_partner, &byte);
        read_byte(back, &mut byte);
    };
    beside(kind, partner, || {
        suite.measure(name, 2 * TRIPS, || (0..TRIPS).for_each(|_| trip(0)));
        trip(OVER);
    });
    [there, to_partner, back, to_me].into_iter().for_each(process::close);
}

#[inline(always)]
pub fn read_byte(fd: i32, byte: &mut u8) {
    call(libc::SYS_read, [fd as u64, std::ptr::from_mut(byte) as u64, 1]);
}

#[inline(always)]
pub fn write_byte(fd: i32, byte: &u8) {
    call(libc::SYS_write, [fd as u64, std::ptr::from_ref(byte) as u64, 1]);
}

/// Each wakes the other and waits to be woken.
fn by_futex(suite: &Suite, name: &str, kind: Kind) {
    const OVER: u32 = 2;
    let table = Table::new();
    let [mine, theirs] = &table.turns;
    let scope = if kind == Kind::Thread { Scope::Private } else { Scope::Shared };
    let partner = || {
        while take_turn(&theirs.0, scope) != OVER {
            give_turn(&mine.0, 1, scope);
        }
        give_turn(&mine.0, 1, scope);
    };
    let trip = |word| {
        give_turn(&theirs.0, word, scope);
        take_turn(&mine.0, scope);
    };
    beside(kind, partner, || {
        suite.measure(name, 2 * TRIPS, || (0..TRIPS).for_each(|_| trip(1)));
        trip(OVER);
    });
}

#[inline(always)]
fn give_turn(turn: &AtomicU32, word: u32, scope: Scope) {
    turn.store(word, Ordering::Release);
    futex_wake(turn, scope);
}

#[inline(always)]
fn take_turn(turn: &AtomicU32, scope: Scope) -> u32 {
    loop {
        let word = turn.load(Ordering::Acquire);
        if word != 0 {
            turn.store(0, Ordering::Relaxed);
            return word;
        }
        futex_wait(turn, 0, scope);
    }
}
