//! What the CPU can do, and which of it the kernel turns on. Every CPU makes the same choices.

use core::arch::x86_64::{__cpuid, __cpuid_count};
use core::sync::atomic::{AtomicU8, Ordering};

use x86_64::registers::control::{Cr0, Cr0Flags, Cr4, Cr4Flags, Efer, EferFlags};

/// What the kernel asks CPUID for (SDM vol. 2, CPUID).
#[derive(Clone, Copy, Debug)]
#[allow(missing_docs)]
pub struct Features {
    pub no_execute: bool,
    pub gigabyte_pages: bool,
    pub x2apic: bool,
    pub tsc_deadline: bool,
    pub global_pages: bool,
    pub rdtscp: bool,
    pub smep: bool,
    pub smap: bool,
    pub umip: bool,
    /// Another program's CPU, by its own word.
    pub hypervisor: bool,
}

/// Whether SMAP is on: 1 or 0, for the entry code.
pub(super) static HAS_SMAP: AtomicU8 = AtomicU8::new(0);

/// Asks this CPU.
pub fn detect() -> Features {
    let one = __cpuid(1);
    let (seven_ebx, seven_ecx) = if __cpuid(0).eax >= 7 {
        let seven = __cpuid_count(7, 0);
        (seven.ebx, seven.ecx)
    } else {
        (0, 0)
    };
    let has_extended = __cpuid(0x8000_0000).eax >= 0x8000_0001;
    let extended_edx = if has_extended { __cpuid(0x8000_0001).edx } else { 0 };
    let bit = |register: u32, bit: u32| register >> bit & 1 != 0;
    Features {
        no_execute: bit(extended_edx, 20),
        gigabyte_pages: bit(extended_edx, 26),
        rdtscp: bit(extended_edx, 27),
        x2apic: bit(one.ecx, 21),
        tsc_deadline: bit(one.ecx, 24),
        hypervisor: bit(one.ecx, 31),
        global_pages: bit(one.edx, 13),
        smep: bit(seven_ebx, 7),
        smap: bit(seven_ebx, 20),
        umip: bit(seven_ecx, 2),
    }
}

/// Turns on what the kernel relies on, on this CPU: write protection and no-execute always; SMEP,
/// SMAP and UMIP where they exist.
///
/// # Safety
/// Code runs from pages that are executable and not user pages.
///
/// # Errors
/// The name of what is missing that the kernel cannot do without.
pub unsafe fn enable() -> Result<(), &'static str> {
    let features = detect();
    if !features.no_execute {
        return Err("this CPU has no NX bit; with QEMU use -cpu max");
    }
    let mut cr4 = Cr4::read() | Cr4Flags::PAGE_GLOBAL;
    cr4.set(Cr4Flags::SUPERVISOR_MODE_EXECUTION_PROTECTION, features.smep);
    cr4.set(Cr4Flags::SUPERVISOR_MODE_ACCESS_PREVENTION, features.smap);
    cr4.set(Cr4Flags::USER_MODE_INSTRUCTION_PREVENTION, features.umip);
    let cr0 = (Cr0::read()
        | Cr0Flags::WRITE_PROTECT
        | Cr0Flags::NUMERIC_ERROR
        | Cr0Flags::MONITOR_COPROCESSOR)
        - Cr0Flags::EMULATE_COPROCESSOR
        - Cr0Flags::CACHE_DISABLE
        - Cr0Flags::NOT_WRITE_THROUGH;
    // SAFETY: each bit is supported, and forbids only what the kernel does not do (caller).
    unsafe {
        Efer::update(|efer| *efer |= EferFlags::NO_EXECUTE_ENABLE);
        Cr0::write(cr0);
        Cr4::write(cr4);
    }
    HAS_SMAP.store(features.smap.into(), Ordering::Relaxed);
    super::fpu::init();
    Ok(())
}

/// CPUID leaf 1's EDX, which programs find as `AT_HWCAP`.
pub fn hardware_word() -> u32 {
    __cpuid(1).edx
}
