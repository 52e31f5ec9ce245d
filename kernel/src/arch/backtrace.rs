//! Backtraces by frame pointers (the image is built with them).
//!
//! Never faults: a frame pointer is followed only if it is aligned and on a mapped kernel stack.
//! Whatever the stacks hold, a backtrace ends after [`MAX_FRAMES`] addresses. Frame pointers need
//! not grow, since the step from an interrupt stack to the interrupted one may lead down.

use core::arch::asm;

use super::exception::Frame;
use crate::mm::stack;

/// Most addresses a backtrace has.
pub const MAX_FRAMES: usize = 64;

/// Return addresses, innermost first.
#[derive(Clone)]
pub struct Backtrace {
    /// An address that comes before those of the frames.
    first: Option<u64>,
    frame_pointer: u64,
    left: usize,
}

/// Who called the caller, and so on.
#[inline(always)]
pub fn from_here() -> Backtrace {
    let frame_pointer: u64;
    // SAFETY: reads a register.
    unsafe {
        asm!("mov {}, rbp", out(reg) frame_pointer, options(nomem, nostack, preserves_flags))
    };
    Backtrace { first: None, frame_pointer, left: MAX_FRAMES }
}

/// The interrupted instruction, who called its function, and so on.
pub fn from_frame(frame: &Frame) -> Backtrace {
    Backtrace { first: Some(frame.rip), frame_pointer: frame.rbp, left: MAX_FRAMES }
}

impl Iterator for Backtrace {
    type Item = u64;

    fn next(&mut self) -> Option<u64> {
        self.left = self.left.checked_sub(1)?;
        if let Some(first) = self.first.take() {
            return Some(first);
        }
        let at = self.frame_pointer;
        let readable = at.is_multiple_of(8)
            && stack::is_on_a_stack(at)
            && at.checked_add(8).is_some_and(stack::is_on_a_stack);
        if !readable {
            return None;
        }
        // SAFETY: two words on a mapped stack. Another CPU may write them; any value will do.
        let (caller, address) = unsafe {
            ((at as *const u64).read_volatile(), (at as *const u64).add(1).read_volatile())
        };
        self.frame_pointer = caller;
        (address != 0).then_some(address)
    }
}
