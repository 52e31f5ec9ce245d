//! The interrupt flag, and the guard that keeps it clear.

use core::arch::asm;
use core::marker::PhantomData;

use super::latency;

/// RFLAGS.IF (SDM vol. 1, 3.4.3.3).
const INTERRUPT_FLAG: u64 = 1 << 9;

/// Whether this CPU takes interrupts.
#[inline(always)]
pub fn are_enabled() -> bool {
    let flags: u64;
    // SAFETY: reads RFLAGS through the stack.
    unsafe { asm!("pushfq", "pop {}", out(reg) flags, options(preserves_flags)) };
    flags & INTERRUPT_FLAG != 0
}

/// Takes no interrupts from here on.
#[inline(always)]
pub fn disable() {
    // SAFETY: only delays interrupts; memory operations may not move across.
    unsafe { asm!("cli", options(nostack)) };
}

/// Takes interrupts from here on.
///
/// # Safety
/// The caller holds nothing that a handler needs, and an IDT is loaded.
#[inline(always)]
pub unsafe fn enable() {
    // SAFETY: by contract.
    unsafe { asm!("sti", options(nostack)) };
}

/// Runs `work` with interrupts off, for a few instructions: too short a section to be [measured](latency).
#[inline(always)]
pub fn briefly_off<R>(work: impl FnOnce(&IrqOff) -> R) -> R {
    let flags: u64;
    // SAFETY: only delays interrupts; memory operations may not move across.
    unsafe { asm!("pushfq", "pop {}", "cli", out(reg) flags) };
    // SAFETY: they are off until the end of this function.
    let result = work(&unsafe { IrqOff::assume() });
    // SAFETY: the flags that were there before; `work` leaves none behind that anybody relies on.
    unsafe { asm!("push {}", "popfq", in(reg) flags) };
    result
}

/// Keeps interrupts off while it lives, and restores what was before. A value of this type, or a
/// reference to one, proves to a function that interrupts are off.
pub struct IrqOff {
    were_enabled: bool,
    _not_send: PhantomData<*mut ()>,
}

impl IrqOff {
    /// Turns interrupts off.
    #[inline(always)]
    pub fn new() -> Self {
        let were_enabled = are_enabled();
        disable();
        if were_enabled {
            latency::interrupts_are_off();
        }
        Self { were_enabled, _not_send: PhantomData }
    }

    /// [`Self::new`] where interrupts are known to be on: in a task that holds nothing.
    ///
    /// # Panics
    /// With debug assertions, if they are off.
    #[inline(always)]
    pub fn of_task() -> Self {
        debug_assert!(are_enabled(), "a task that holds nothing has interrupts on");
        disable();
        latency::interrupts_are_off();
        Self { were_enabled: true, _not_send: PhantomData }
    }

    /// A token where interrupts are off already and stay off.
    ///
    /// # Safety
    /// Interrupts are off, and nobody turns them on while the token lives.
    #[inline(always)]
    pub unsafe fn assume() -> Self {
        Self { were_enabled: false, _not_send: PhantomData }
    }
}

impl IrqOff {
    /// Whether dropping this guard turns interrupts on.
    #[inline(always)]
    pub fn restores(&self) -> bool {
        self.were_enabled
    }
}

impl Default for IrqOff {
    fn default() -> Self {
        Self::new()
    }
}

impl Drop for IrqOff {
    #[inline(always)]
    fn drop(&mut self) {
        if self.were_enabled {
            latency::interrupts_return();
            // SAFETY: they were on when this guard was made; guards nest.
            unsafe { enable() };
        }
    }
}
