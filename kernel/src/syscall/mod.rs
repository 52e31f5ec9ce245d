//! System calls: from a program's registers to a function, and back.
//!
//! `table` says which number is which function; the other modules decode arguments, area by area, and
//! leave the work to the floors below. A function gets the caller's arguments and returns a value or an
//! [`Errno`]; whose call it is says [`crate::process::current`].

mod barrier;
mod channel;
mod descriptor;
mod futex;
mod identity;
mod io;
mod lock;
mod memory;
mod mount;
mod path;
mod poll;
mod process;
mod resource;
mod sched;
mod signal;
mod socket;
mod stat;
mod system;
// The numbers have the names that Linux gives them.
#[allow(non_upper_case_globals)]
mod table;
mod time;
mod timer;

pub use orrery_core::errno::{Errno, SysResult};

use core::ops::Index;

use crate::arch::exception::Frame;
use crate::arch::irq;
use crate::process::leave_interrupted_call;
use crate::trace::events;
use crate::trace::record::{self, Category};

/// The arguments of a call: a view of the caller's registers.
#[repr(transparent)]
pub struct Args(Frame);

impl Args {
    /// All registers of the caller.
    pub fn frame(&self) -> &Frame {
        &self.0
    }

    fn of(frame: &Frame) -> &Self {
        // SAFETY: the same type (`repr(transparent)`).
        unsafe { &*core::ptr::from_ref(frame).cast() }
    }
}

impl Index<usize> for Args {
    type Output = u64;

    #[inline(always)]
    fn index(&self, index: usize) -> &u64 {
        let frame = &self.0;
        match index {
            0 => &frame.rdi,
            1 => &frame.rsi,
            2 => &frame.rdx,
            3 => &frame.r10,
            4 => &frame.r8,
            5 => &frame.r9,
            _ => panic!("a system call has six arguments"),
        }
    }
}

/// Handles a call: [`crate::arch::syscall::Handler`].
pub extern "C" fn on_syscall(frame: &mut Frame) -> u64 {
    let result = if record::any_enabled::<{ Category::Syscall as u32 }>() {
        call_traced(frame)
    } else {
        call(frame)
    };
    irq::disable();
    if crate::sched::current().is_interrupted_relaxed() {
        leave_interrupted_call(result);
    }
    debug_assert!(
        (frame.rip, frame.rflags) == (frame.rcx, frame.r11),
        "registers that SYSRET would lose were changed behind its back"
    );
    result
}

/// What RAX is after the call. A call that a signal is to restart has an error number of its own
/// kind, and [`leave_interrupted_call`] finds the signal.
#[inline(always)]
fn call(frame: &Frame) -> u64 {
    match table::handler(frame.error_code)(Args::of(frame)) {
        Ok(value) => value,
        Err(errno) => errno.to_return_value(),
    }
}

#[cold]
#[inline(never)]
fn call_traced(frame: &Frame) -> u64 {
    let number = frame.error_code as u32;
    events::syscall_enter(number, frame.rdi, frame.rsi, frame.rdx);
    let result = call(frame);
    events::syscall_exit(number, result.cast_signed());
    result
}

/// A call that the kernel does not have.
#[cold]
fn unknown(args: &Args) -> SysResult {
    events::syscall_unknown(args.frame().error_code as u32);
    Err(Errno::ENOSYS)
}
