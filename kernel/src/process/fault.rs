//! What a program does wrong, and page faults, which are mostly not wrong.
//!
//! These are the hooks for exceptions: of ring 3, and of the kernel where it accesses a program's memory.

use linux_raw_sys::general as abi;

use super::signal::{self, Fault};
use super::{current, exit, thread, try_current};
use crate::arch::exception::Frame;
use crate::arch::{irq, percpu, uaccess};
use crate::mm::space::{Access, Fault as SpaceFault};
use crate::sched::current as current_task;
use crate::trace::events;

/// Bits of a page fault's error code (SDM vol. 3, 4.7).
const WRITE: u64 = 1 << 1;
const USER: u64 = 1 << 2;
const INSTRUCTION_FETCH: u64 = 1 << 4;

fn access(error_code: u64) -> Access {
    if error_code & INSTRUCTION_FETCH != 0 {
        Access::Execute
    } else if error_code & WRITE != 0 {
        Access::Write
    } else {
        Access::Read
    }
}

/// [`crate::arch::Hooks::user_page_fault`].
pub fn on_user_page_fault(frame: &mut Frame, address: u64) {
    // SAFETY: the kernel holds nothing when ring 3 is interrupted.
    unsafe { irq::enable() };
    events::page_fault(address, frame.rip, frame.error_code as u32);
    // An implicit access of the CPU's own, as to a descriptor, or QEMU's IRET to its stack: mapping the
    // page would not end it, and the program would fault for ever.
    let is_implicit = frame.error_code & USER == 0;
    let result =
        if is_implicit { Err(SpaceFault::NotMapped) } else { resolve(address, frame.error_code) };
    if let Err(fault) = result {
        signal_for(frame, address, fault);
    }
    irq::disable();
}

#[inline]
fn resolve(address: u64, error_code: u64) -> Result<(), SpaceFault> {
    // SAFETY: the running thread's own address space stays until it is replaced, by itself.
    let space = unsafe { current().space_unlocked() };
    space.fault(address, access(error_code)).inspect(|()| thread::count_fault())
}

#[cold]
#[inline(never)]
fn signal_for(frame: &Frame, address: u64, fault: SpaceFault) {
    let thread = current();
    let (signal, code) = match fault {
        // Beyond the window Linux reports a mapping error, too.
        SpaceFault::NotMapped => (abi::SIGSEGV, abi::SEGV_MAPERR),
        SpaceFault::Protection => (abi::SIGSEGV, abi::SEGV_ACCERR),
        SpaceFault::Bus => (abi::SIGBUS, abi::BUS_ADRERR),
        SpaceFault::OutOfMemory => {
            exit::out_of_memory(thread);
            return;
        }
    };
    signal::force(thread, Fault { signal, code: code as i32, address, frame });
}

/// [`crate::arch::Hooks::page_fault`]: the kernel faults where it accesses a program's memory. Elsewhere
/// its memory is always mapped.
pub fn on_kernel_page_fault(frame: &mut Frame, address: u64) -> bool {
    if !uaccess::is_user_access(frame) {
        return false;
    }
    if try_current().is_none() {
        return false;
    }
    debug_assert!(percpu::preempt_depth() == 0, "user memory is accessed with preemption off");
    // SAFETY: whoever accesses a program's memory has interrupts on and holds nothing.
    unsafe { irq::enable() };
    events::page_fault(address, frame.rip, frame.error_code as u32);
    if resolve(address, frame.error_code).is_err() {
        uaccess::fix_up(frame);
    }
    irq::disable();
    true
}

/// [`crate::arch::Hooks::user_exception`].
pub fn on_user_exception(frame: &mut Frame) {
    // SAFETY: as in `on_user_page_fault`.
    unsafe { irq::enable() };
    let at = frame.rip;
    // As Linux maps them (`arch/x86/kernel/traps.c`).
    let (signal, code, address) = match frame.vector {
        0 => (abi::SIGFPE, abi::FPE_INTDIV, at),
        1 => (abi::SIGTRAP, abi::TRAP_TRACE, at),
        3 => (abi::SIGTRAP, abi::SI_KERNEL, 0),
        4 => (abi::SIGSEGV, abi::SI_KERNEL, 0),
        5 => (abi::SIGSEGV, abi::SI_KERNEL, 0),
        6 => (abi::SIGILL, abi::ILL_ILLOPN, at),
        16 | 19 => (abi::SIGFPE, floating_point_code(frame), at),
        17 => (abi::SIGBUS, abi::BUS_ADRALN, 0),
        11 | 12 => (abi::SIGBUS, abi::SI_KERNEL, 0),
        _ => (abi::SIGSEGV, abi::SI_KERNEL, 0),
    };
    if frame.vector == 1 {
        // A single step is reported once.
        const TRAP_FLAG: u64 = 1 << 8;
        frame.rflags &= !TRAP_FLAG;
    }
    signal::force(current(), Fault { signal, code: code as i32, address, frame });
    irq::disable();
}

/// Which floating-point exception it was: the first that is flagged and not masked.
fn floating_point_code(frame: &Frame) -> u32 {
    let Some(part) = current_task().program() else { return abi::FPE_FLTUNK };
    let Some(area) = part.context.fpu.saved() else { return abi::FPE_FLTUNK };
    let word = |at: usize| u16::from_le_bytes([area[at], area[at + 1]]);
    /// FCW and FSW in the legacy region, and MXCSR (SDM vol. 1, table 10-2).
    const FCW: usize = 0;
    const FSW: usize = 2;
    const MXCSR: usize = 24;
    let raised =
        if frame.vector == 16 { word(FSW) & !word(FCW) } else { word(MXCSR) & !(word(MXCSR) >> 7) };
    match raised.trailing_zeros() {
        0 => abi::FPE_FLTINV,
        2 => abi::FPE_FLTDIV,
        1 | 4 => abi::FPE_FLTUND,
        3 => abi::FPE_FLTOVF,
        5 => abi::FPE_FLTRES,
        _ => abi::FPE_FLTUNK,
    }
}
