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
mod memory;
mod path;
mod poll;
mod process;
mod resource;
mod sched;
mod signal;
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
use crate::process::{look_again, return_to_user};
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
pub extern "C" fn on_syscall(frame: &mut Frame) {
    let number = frame.error_code;
    let traced = record::is_enabled(Category::Syscall);
    if traced {
        events::syscall_enter(number as u32, frame.rdi, frame.rsi, frame.rdx);
    }
    let result = table::call(number, Args::of(frame));
    if traced {
        trace_exit(number, result);
    }
    frame.rax = match result {
        Ok(value) => value,
        Err(errno) => {
            if errno.is_restart() {
                look_again();
            }
            errno.to_return_value()
        }
    };
    irq::disable();
    return_to_user(frame);
}

#[cold]
#[inline(never)]
fn trace_exit(number: u64, result: SysResult) {
    let result = result.unwrap_or_else(Errno::to_return_value);
    events::syscall_exit(number as u32, result.cast_signed());
}

/// A call that the kernel does not have.
#[cold]
fn unknown(number: u64) -> SysResult {
    events::syscall_unknown(number as u32);
    Err(Errno::ENOSYS)
}
