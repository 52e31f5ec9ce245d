//! Processes and threads that are made, execute, end and are waited for.

use std::ffi::CString;
use std::os::unix::ffi::OsStrExt;
use std::ptr;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

use programs::memory::{self, PAGE};
use programs::{check, process};

use crate::NOTHING;
use crate::raw::{self, Forked, Scope, call, ticks};
use crate::suite::{Sample, Suite};

/// What is measured with so many KiB touched.
const SIZES: [(usize, &str, &str); 3] = [
    (64, "fork/call/64kib", "fork/whole/64kib"),
    (1 << 10, "fork/call/1mib", "fork/whole/1mib"),
    (64 << 10, "fork/call/64mib", "fork/whole/64mib"),
];

/// Forks that are made before anything is measured: process numbers have as many digits, and as many levels of
/// their tree, from then on.
const FORKS: u32 = 128;

/// Fills the kernel's pools.
pub fn warm_up() {
    for _ in 0..FORKS {
        wait(raw::fork_that_exits(libc::SYS_fork).child, ptr::null_mut());
    }
}

pub fn measure(suite: &Suite) {
    for (kib, call, whole) in SIZES {
        if suite.wants(call) || suite.wants(whole) {
            fork(suite, kib << 10, [call, whole]);
        }
    }
    suite.measure("vfork", 1, || {
        wait(raw::fork_that_exits(libc::SYS_vfork).child, ptr::null_mut());
    });
    suite.measure("clone-thread", 1, || {
        let tid = AtomicU32::new(0);
        raw::thread_that_exits(&tid);
        loop {
            match tid.load(Ordering::Acquire) {
                0 => break,
                // The kernel wakes whoever waits, in whatever process.
                number => raw::futex_wait(&tid, number, Scope::Shared),
            }
        }
    });
    if suite.wants("exec") {
        execute(suite);
    }
    if suite.wants("exit-wait") {
        exit_and_wait(suite);
    }
    suite.measure_between("wait-zombie", 1, zombie, |child| wait(child, ptr::null_mut()));
}

#[inline(always)]
fn wait(child: i64, status: *mut i32) {
    call(libc::SYS_wait4, [child as u64, status as u64, 0, 0]);
}

/// Forks with this memory touched: the call alone, and all until the child has been waited for.
fn fork(suite: &Suite, len: usize, [call, whole]: [&str; 2]) {
    let touched = memory::pages(len / PAGE);
    raw::write_pages(touched, len / PAGE);
    for round in 0..suite.rounds() {
        let Forked { child, start, end: forked } = raw::fork_that_exits(libc::SYS_fork);
        wait(child, ptr::null_mut());
        let end = ticks();
        check!(child > 0, "fork: {child}");
        suite.tell(round, &Sample { name: call, start, end: forked, ops: 1 });
        suite.tell(round, &Sample { name: whole, start, end, ops: 1 });
    }
    memory::unmap(touched, len);
}

/// This program, executed by a child until it has ended.
fn execute(suite: &Suite) {
    let path = std::env::current_exe().unwrap_or_default();
    let words = [path.as_os_str().as_bytes(), NOTHING.as_bytes()];
    let [path, argument] = words.map(|word| CString::new(word).unwrap_or_default());
    let arguments = [path.as_ptr().cast(), argument.as_ptr().cast(), ptr::null()];
    let environment = [ptr::null()];
    let mut failed = 0;
    suite.measure("exec", 1, || {
        let mut status = 0;
        // SAFETY: as it must be.
        let child = unsafe {
            let path = path.as_ptr().cast();
            raw::vfork_that_executes(path, arguments.as_ptr(), environment.as_ptr())
        };
        wait(child, &raw mut status);
        failed |= status;
    });
    check!(failed == 0, "the program that was executed ended with status {failed:#x}");
}

/// From a child's last look at the clock to its parent's return from the wait, where it was before.
fn exit_and_wait(suite: &Suite) {
    // SAFETY: a page of zeroes that is never unmapped.
    let told: &AtomicU64 = unsafe { &*memory::shared_pages(1).cast() };
    for round in 0..suite.rounds() {
        let child = call(libc::SYS_fork, []);
        if child == 0 {
            // The pages that are written have been written: what they cost is part of the fork.
            told.store(0, Ordering::Relaxed);
            told.store(ticks(), Ordering::Relaxed);
            process::exit_now(0);
        }
        wait(child, ptr::null_mut());
        let end = ticks();
        let start = told.load(Ordering::Relaxed);
        suite.tell(round, &Sample { name: "exit-wait", start, end, ops: 1 });
    }
}

/// A child that has ended and has not been waited for.
fn zombie() -> i64 {
    let child = raw::fork_that_exits(libc::SYS_fork).child;
    let options = libc::WEXITED | libc::WNOWAIT;
    call(libc::SYS_waitid, [libc::P_PID.into(), child as u64, 0, options as u64]);
    child
}
