//! Small instructions that have no better home.

use core::arch::asm;

/// Tells the CPU (and the emulator's round robin) that this loop waits for another CPU.
#[inline(always)]
pub fn pause() {
    core::hint::spin_loop();
}

/// Turns interrupts on and halts until one has come, with no gap between the two: `sti` takes effect after the next instruction
/// (SDM vol. 2, STI). Interrupts are on when it returns.
///
/// # Safety
/// As [`super::irq::enable`].
#[inline(always)]
pub unsafe fn enable_and_halt() {
    // SAFETY: by contract.
    unsafe { asm!("sti", "hlt", options(nostack)) };
}

/// Halts for good, interrupts off.
pub fn halt_forever() -> ! {
    loop {
        // SAFETY: nothing runs on this CPU any more.
        unsafe { asm!("cli", "hlt", options(nomem, nostack)) };
    }
}
