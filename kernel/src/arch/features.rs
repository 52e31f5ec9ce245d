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
    pub pcid: bool,
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
        pcid: bit(one.ecx, 17),
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

/// What the CPU says it is (SDM vol. 2, CPUID leaves 0, 1 and 8000_0002h to 8000_0004h).
pub struct Identity {
    vendor: [u8; 12],
    brand: [u8; 48],
    /// Family, the extended one included.
    pub family: u32,
    /// Model, the extended one included.
    pub model: u32,
    /// Stepping.
    pub stepping: u32,
    /// Registers that hold feature bits, in the order of [`FLAGS`].
    words: [u32; 5],
}

/// Asks this CPU.
pub fn identity() -> Identity {
    let zero = __cpuid(0);
    let mut vendor = [0; 12];
    for (bytes, word) in vendor.chunks_exact_mut(4).zip([zero.ebx, zero.edx, zero.ecx]) {
        bytes.copy_from_slice(&word.to_le_bytes());
    }
    let mut brand = [0; 48];
    if __cpuid(0x8000_0000).eax >= 0x8000_0004 {
        let leaves = (0x8000_0002..=0x8000_0004).map(__cpuid);
        let words = leaves.flat_map(|leaf| [leaf.eax, leaf.ebx, leaf.ecx, leaf.edx]);
        for (bytes, word) in brand.chunks_exact_mut(4).zip(words) {
            bytes.copy_from_slice(&word.to_le_bytes());
        }
    }
    let one = __cpuid(1);
    let (base_family, base_model) = (one.eax >> 8 & 0xf, one.eax >> 4 & 0xf);
    let family =
        if base_family == 0xf { base_family + (one.eax >> 20 & 0xff) } else { base_family };
    let has_long_model = base_family == 0xf || base_family == 6;
    let model = if has_long_model { base_model | (one.eax >> 16 & 0xf) << 4 } else { base_model };
    let seven = if zero.eax >= 7 { __cpuid_count(7, 0).ebx } else { 0 };
    let extended = __cpuid(0x8000_0001);
    let words = [one.edx, one.ecx, seven, extended.edx, extended.ecx];
    Identity { vendor, brand, family, model, stepping: one.eax & 0xf, words }
}

impl Identity {
    /// Who made it.
    pub fn vendor(&self) -> &str {
        core::str::from_utf8(&self.vendor).unwrap_or("?")
    }

    /// What its maker calls it.
    pub fn brand(&self) -> &str {
        let end = self.brand.iter().position(|&byte| byte == 0).unwrap_or(self.brand.len());
        core::str::from_utf8(&self.brand[..end]).unwrap_or("?").trim()
    }

    /// The names of what it can do, each after a space.
    pub fn flags(&self) -> impl core::fmt::Display + '_ {
        core::fmt::from_fn(|f| {
            for (word, names) in self.words.iter().zip(FLAGS) {
                for (bit, name) in names {
                    if word >> bit & 1 != 0 {
                        write!(f, " {name}")?;
                    }
                }
            }
            Ok(())
        })
    }
}

/// Names of feature bits, as Linux has them: of leaf 1's EDX and ECX, leaf 7's EBX, leaf 8000_0001h's EDX
/// and ECX.
const FLAGS: [&[(u32, &str)]; 5] = [
    &[
        (0, "fpu"),
        (3, "pse"),
        (4, "tsc"),
        (5, "msr"),
        (6, "pae"),
        (8, "cx8"),
        (9, "apic"),
        (11, "sep"),
        (13, "pge"),
        (15, "cmov"),
        (19, "clflush"),
        (23, "mmx"),
        (24, "fxsr"),
        (25, "sse"),
        (26, "sse2"),
    ],
    &[
        (0, "pni"),
        (1, "pclmulqdq"),
        (9, "ssse3"),
        (12, "fma"),
        (13, "cx16"),
        (17, "pcid"),
        (19, "sse4_1"),
        (20, "sse4_2"),
        (21, "x2apic"),
        (22, "movbe"),
        (23, "popcnt"),
        (24, "tsc_deadline_timer"),
        (25, "aes"),
        (26, "xsave"),
        (28, "avx"),
        (29, "f16c"),
        (30, "rdrand"),
        (31, "hypervisor"),
    ],
    &[
        (0, "fsgsbase"),
        (3, "bmi1"),
        (5, "avx2"),
        (7, "smep"),
        (8, "bmi2"),
        (9, "erms"),
        (10, "invpcid"),
        (16, "avx512f"),
        (18, "rdseed"),
        (19, "adx"),
        (20, "smap"),
        (29, "sha_ni"),
    ],
    &[(11, "syscall"), (20, "nx"), (26, "pdpe1gb"), (27, "rdtscp"), (29, "lm")],
    &[(0, "lahf_lm"), (5, "abm"), (6, "sse4a")],
];
