//! Small instructions that have no better home.

use core::arch::asm;
use core::arch::x86_64::{__cpuid, __cpuid_count};

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

/// Runs a loop of two instructions `iterations` times, which touches nothing.
#[inline(always)]
pub fn spin(iterations: u32) {
    // SAFETY: counts a register down.
    unsafe {
        asm!("2: dec {0:e}", "jnz 2b", inout(reg) iterations.max(1) => _, options(nomem, nostack));
    }
}

/// Zeroes `quadwords` words of 8 bytes. `rep stosq` rather than `stosb`: faster under emulation,
/// and an eighth of the instructions that `-icount` counts.
///
/// # Safety
/// The words are writable and nobody else uses them.
pub unsafe fn zero(start: *mut u64, quadwords: usize) {
    // SAFETY: by contract; the direction flag is clear in all Rust code.
    unsafe {
        asm!("rep stosq", inout("rdi") start => _, inout("rcx") quadwords => _, in("rax") 0,
            options(nostack, preserves_flags));
    }
}

/// Copies `quadwords` words of 8 bytes.
///
/// # Safety
/// The words at `from` can be read and those at `to` written, nobody else uses the latter, and the
/// two do not overlap.
#[inline(always)]
pub unsafe fn copy(from: *const u64, to: *mut u64, quadwords: usize) {
    // SAFETY: by contract; the direction flag is clear in all Rust code.
    unsafe {
        asm!("rep movsq", inout("rsi") from => _, inout("rdi") to => _, inout("rcx") quadwords => _,
            options(nostack, preserves_flags));
    }
}

/// A number from the CPU's generator; `None` if it has none, or gives none after a few tries (SDM vol. 1, 7.3.17.1).
pub fn random() -> Option<u64> {
    const RDRAND: u32 = 1 << 30;
    const TRIES: usize = 10;
    if __cpuid(1).ecx & RDRAND == 0 {
        return None;
    }
    (0..TRIES).find_map(|_| {
        let mut number = 0;
        // SAFETY: the CPU has the instruction.
        let is_given = unsafe { core::arch::x86_64::_rdrand64_step(&mut number) } == 1;
        is_given.then_some(number)
    })
}

/// The first physical address that this CPU cannot have (CPUID leaf 8000_0008h).
pub fn physical_limit() -> u64 {
    let bits =
        if __cpuid(0x8000_0000).eax >= 0x8000_0008 { __cpuid(0x8000_0008).eax & 0xFF } else { 36 };
    1 << bits.min(52)
}

/// The local APIC id that this CPU had at reset (CPUID leaf 1; leaf 0Bh where there is one, since
/// the former has only eight bits).
pub fn initial_apic_id() -> u32 {
    if __cpuid(0).eax >= 0xB {
        let leaf = __cpuid_count(0xB, 0);
        if leaf.ebx != 0 {
            return leaf.edx;
        }
    }
    __cpuid(1).ebx >> 24
}
