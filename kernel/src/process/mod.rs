//! Processes and threads: what makes a task one of a program's.
//!
//! - [`thread`], [`group`]: the thread, and the process that it is of
//! - [`tree`]: the lock that guards who belongs to whom
//! - [`clone`]: `fork` and its kin; [`exec`]: another program; [`exit`]: the end; [`wait`]: what a parent
//!   learns of it; [`maker`]: which of a parent's threads it is of
//! - [`first`]: the program that everything begins with
//! - [`fault`]: what a program does wrong, and page faults, which are mostly not wrong
//! - [`mod@signal`], [`futex`], [`limits`]: signals, futexes, and what a process may use
//! - [`attribute`]: bits that a process has besides; [`usage`]: what it has used, [`run_timer`]: timers that count it
//! - [`names`]: the machine's names
//! - [`lookup`]: threads and processes by number
//!
//! System calls are decoded by the floor above, [`crate::syscall`].

pub mod attribute;
pub mod clone;
pub mod exec;
pub mod exit;
pub mod fault;
pub mod first;
pub mod futex;
pub mod group;
pub mod limits;
pub mod lookup;
pub mod maker;
pub mod names;
pub mod run_timer;
pub mod signal;
pub mod thread;
pub mod tree;
pub mod usage;
pub mod wait;

pub use group::Process;
pub use thread::{Thread, thread_of};

use crate::arch::exception::Frame;
use crate::arch::irq;
use crate::sched;
use crate::sched::task::interruption;
use core::sync::atomic::Ordering;

/// The running thread.
///
/// # Panics
/// For the kernel's own tasks.
#[inline(always)]
pub fn current() -> &'static Thread {
    try_current().expect("a program's task")
}

/// The running thread; none where one of the kernel's own tasks runs.
#[inline(always)]
pub fn try_current() -> Option<&'static Thread> {
    thread_of(sched::current())
}

/// Makes the running thread look at its interruptions before it returns to ring 3.
pub fn look_again() {
    sched::current().interruptions.fetch_or(interruption::SIGNAL, Ordering::SeqCst);
}

/// [`crate::arch::Hooks::return_to_user`]: what a thread does before it goes to ring 3. Interrupts are
/// off, and are when it returns.
#[inline(always)]
pub fn return_to_user(frame: &mut Frame) {
    if sched::current().is_interrupted_relaxed() {
        heed_interruptions(frame);
    }
}

#[cold]
#[inline(never)]
fn heed_interruptions(frame: &mut Frame) {
    let task = sched::current();
    while task.is_interrupted_relaxed() {
        // SAFETY: nothing is held on the way out.
        unsafe { irq::enable() };
        let thread = current();
        // The first process of its namespace has ended.
        if task.interruptions.load(Ordering::SeqCst) & interruption::STOP != 0 {
            exit::exit_group(wait::Status::signalled(linux_raw_sys::general::SIGKILL));
        }
        task.interruptions.fetch_and(!interruption::SIGNAL, Ordering::SeqCst);
        if thread.is_doomed() {
            exit::exit_thread();
        }
        exec::adopt_handover();
        run_timer::look(thread);
        signal::deliver(thread, frame);
        signal::forget_call(frame);
        irq::disable();
    }
}

/// Ends the running thread's system call, whose result this is, with what its interruptions want. Interrupts
/// are off.
#[cold]
#[inline(never)]
pub fn leave_interrupted_call(result: u64) -> ! {
    // SAFETY: this task's own frame; the call's handler uses it no more.
    unsafe { current().frame() }.rax = result;
    clone::enter()
}
