//! SYSCALL: the instruction's registers, and who handles the call.

use core::sync::atomic::{AtomicPtr, Ordering};

use x86_64::registers::model_specific::{Efer, EferFlags, LStar, Msr, SFMask};
use x86_64::registers::rflags::RFlags;

use super::entry;
use super::exception::Frame;
use super::gdt::{KERNEL_CODE, USER_DATA};

/// IA32_STAR (SDM vol. 4, table 2-2).
const STAR: u32 = 0xC000_0081;

/// What handles a system call: called with interrupts on, returns with them off, and with what RAX is to
/// be. The frame has the program's registers, and the call's number in `error_code`; a handler that has
/// changed it does not return, but [leaves](super::user::leave).
pub type Handler = extern "C" fn(&mut Frame) -> u64;

/// The handler. The entry code calls through this word.
pub(super) static HANDLER: AtomicPtr<()> = AtomicPtr::new(before_boot as Handler as *mut ());

extern "C" fn before_boot(_frame: &mut Frame) -> u64 {
    unreachable!("no program runs before there is a handler for its calls");
}

/// Installs the handler of all CPUs. Before any program runs.
pub fn set_handler(handler: Handler) {
    HANDLER.store(handler as *mut (), Ordering::Release);
}

/// Makes this CPU take SYSCALL.
///
/// # Safety
/// Once per CPU, with its GDT and head in place.
pub unsafe fn init() {
    // SYSRET adds 16 to this for CS and 8 for SS (SDM vol. 2, SYSRET).
    let star = u64::from(USER_DATA - 8) << 48 | u64::from(KERNEL_CODE) << 32;
    // SAFETY: the selectors are those of the GDT; the entry code is made for this; the flags that are
    // cleared are those that a program must not bring into the kernel.
    unsafe {
        Msr::new(STAR).write(star);
        LStar::write(x86_64::VirtAddr::new(entry::syscall_entry as *const () as u64));
        SFMask::write(
            RFlags::TRAP_FLAG
                | RFlags::INTERRUPT_FLAG
                | RFlags::DIRECTION_FLAG
                | RFlags::NESTED_TASK
                | RFlags::IOPL_LOW
                | RFlags::IOPL_HIGH
                | RFlags::ALIGNMENT_CHECK,
        );
        Efer::update(|efer| *efer |= EferFlags::SYSTEM_CALL_EXTENSIONS);
    }
}
