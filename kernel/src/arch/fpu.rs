//! The floating-point and vector registers of programs.
//!
//! The kernel uses none of them, so they belong to whichever program ran last, and are saved and
//! loaded only when needed. CR0.TS is set when a program is switched to: the first use then raises #NM,
//! where its registers are loaded, if they are not still there. A program that uses them in slice after
//! slice is spared the exception: they are loaded at the switch, for a while. At a switch away they are
//! saved if the program could have changed them.
//!
//! The states kept are x87, SSE and AVX, in the standard format of XSAVE (SDM vol. 1, 13.4); FXSAVE
//! where the CPU has no XSAVE.

use core::arch::asm;
use core::arch::x86_64::{__cpuid, __cpuid_count};
use core::cell::Cell;
use core::ptr::{self, NonNull};
use core::sync::atomic::{AtomicU64, Ordering};

use x86_64::registers::control::{Cr0, Cr0Flags, Cr4, Cr4Flags};
use x86_64::registers::xcontrol::{XCr0, XCr0Flags};

use super::irq::IrqOff;
use super::percpu::{self, PerCpu};
use crate::per_cpu;

/// Bytes of the legacy region, which is all that FXSAVE writes (SDM vol. 1, 13.4.1).
pub const LEGACY_BYTES: usize = 512;
/// Bytes of the header that follows it (SDM vol. 1, 13.4.2).
const HEADER_BYTES: usize = 64;
/// Bytes of an area: legacy region, header, AVX state (CPUID leaf 0Dh gives the offset 576).
pub const AREA_BYTES: usize = LEGACY_BYTES + HEADER_BYTES + 256;

/// Where the legacy region has FCW, the x87's control word.
pub const FCW_AT: usize = 0;
/// Where it has MXCSR, the control and status of SSE.
pub const MXCSR_AT: usize = 24;
/// FCW of a new program.
pub const INITIAL_FCW: u16 = 0x37F;
/// MXCSR of a new program.
pub const INITIAL_MXCSR: u32 = 0x1F80;
/// MXCSR's bits that may be set (SDM vol. 1, 10.2.3).
const MXCSR_MASK: u32 = 0xFFFF;

/// State components in use, as XCR0 has them; 0 where there is no XSAVE.
static COMPONENTS: AtomicU64 = AtomicU64::new(0);

/// Registers in memory.
#[repr(C, align(64))]
pub struct Area(pub [u8; AREA_BYTES]);

/// A program's registers: in memory, in a CPU, or both.
pub struct State {
    area: NonNull<Area>,
    /// Whether they differ from the initial ones.
    is_used: Cell<bool>,
    /// The CPU that has them, if its owner is this state.
    cpu: Cell<u32>,
    /// Slices in a row in which #NM was raised.
    streak: Cell<u8>,
    /// Slices for which they are loaded at the switch.
    eager_slices: Cell<u8>,
}

/// Slices in a row with #NM after which the exception is spared, and for how many slices.
const STREAK: u8 = 2;
const EAGER_SLICES: u8 = 32;
const NO_CPU: u32 = u32::MAX;

struct Cpu {
    /// Whose registers were loaded last.
    owner: Cell<*const State>,
    /// Whether CR0.TS is clear: the owner may be changing them.
    is_open: Cell<bool>,
}
// SAFETY: used by its own CPU only, with interrupts off.
unsafe impl Sync for Cpu {}

static CPUS: PerCpu<Cpu> =
    per_cpu!(Cpu { owner: Cell::new(ptr::null()), is_open: Cell::new(false) });

/// Makes this CPU ready for [`State`]s. All CPUs choose alike.
pub(super) fn init() {
    // SAFETY: the bits are supported (SSE2 is part of x86-64); nothing uses the registers yet.
    unsafe {
        Cr4::update(|cr4| *cr4 |= Cr4Flags::OSFXSR | Cr4Flags::OSXMMEXCPT_ENABLE);
        if __cpuid(1).ecx >> 26 & 1 != 0 {
            Cr4::update(|cr4| *cr4 |= Cr4Flags::OSXSAVE);
            let supported = XCr0Flags::from_bits_truncate(u64::from(__cpuid_count(0xD, 0).eax));
            let wanted = XCr0Flags::X87 | XCr0Flags::SSE | XCr0Flags::AVX;
            let components = supported & wanted;
            XCr0::write(components);
            COMPONENTS.store(components.bits(), Ordering::Relaxed);
        }
        Cr0::update(|cr0| *cr0 |= Cr0Flags::TASK_SWITCHED);
    }
}

/// The state components in use, as XCR0 has them; 0 where only FXSAVE's are.
pub fn components() -> u64 {
    COMPONENTS.load(Ordering::Relaxed)
}

/// Bytes of an area that mean something.
pub fn used_bytes() -> usize {
    match components() {
        0 => LEGACY_BYTES,
        3 => LEGACY_BYTES + HEADER_BYTES,
        _ => AREA_BYTES,
    }
}

fn open(cpu: &Cpu) {
    // SAFETY: allows the registers to be used; `Cpu::is_open` says so.
    unsafe { asm!("clts", options(nomem, nostack, preserves_flags)) };
    cpu.is_open.set(true);
}

fn close(cpu: &Cpu) {
    if cpu.is_open.replace(false) {
        // SAFETY: makes the next use raise #NM.
        unsafe { Cr0::update(|cr0| *cr0 |= Cr0Flags::TASK_SWITCHED) };
    }
}

/// # Safety
/// TS is clear, and `area` is valid and nobody else's.
unsafe fn save(area: *mut Area) {
    let mask = components();
    // SAFETY: by contract; the area is large enough for all components.
    unsafe {
        if mask == 0 {
            asm!("fxsave64 [{}]", in(reg) area, options(nostack, preserves_flags));
        } else {
            asm!("xsave64 [{}]", in(reg) area, in("eax") mask as u32, in("edx") 0,
                options(nostack, preserves_flags));
        }
    }
}

/// # Safety
/// TS is clear; `area` holds what [`save`] wrote, or is as [`initialise`] or [`State::load`] leave it.
unsafe fn restore(area: *const Area) {
    let mask = components();
    // SAFETY: by contract the area raises no exception.
    unsafe {
        if mask == 0 {
            asm!("fxrstor64 [{}]", in(reg) area, options(nostack, preserves_flags, readonly));
        } else {
            asm!("xrstor64 [{}]", in(reg) area, in("eax") mask as u32, in("edx") 0,
                options(nostack, preserves_flags, readonly));
        }
    }
}

fn initialise(area: &mut Area) {
    area.0[..LEGACY_BYTES + HEADER_BYTES].fill(0);
    area.0[FCW_AT..FCW_AT + 2].copy_from_slice(&INITIAL_FCW.to_le_bytes());
    area.0[MXCSR_AT..MXCSR_AT + 4].copy_from_slice(&INITIAL_MXCSR.to_le_bytes());
}

/// The program of one state is switched away from, that of the other is switched to; the kernel's own tasks have
/// none.
#[inline(always)]
pub(super) fn switch(_irq: &IrqOff, previous: Option<&State>, next: Option<&State>) {
    let cpu = CPUS.this();
    if cpu.is_open.get() || next.is_some_and(|next| next.eager_slices.get() > 0) {
        return switch_registers(cpu, previous, next);
    }
    if let Some(previous) = previous {
        previous.streak.set(0);
    }
}

/// Where one of the two uses its registers. Out of line: a switch between programs that do not pays for no
/// stack frame.
#[inline(never)]
fn switch_registers(cpu: &Cpu, previous: Option<&State>, next: Option<&State>) {
    if let Some(previous) = previous {
        if cpu.is_open.get() {
            // SAFETY: TS is clear, and the registers are this state's: it has run until now.
            unsafe { save(previous.area.as_ptr()) };
            close(cpu);
        } else {
            previous.streak.set(0);
        }
    }
    if let Some(next) = next {
        let eager = next.eager_slices.get();
        if eager > 0 {
            next.eager_slices.set(eager - 1);
            next.load_registers(cpu);
        }
    }
}

/// Zeroes what [`save`] leaves as it is: the header, where XRSTOR wants zeroes, and reserved bytes, which programs
/// see in signal frames.
fn clear_reserved(area: &mut Area) {
    /// The x87's registers, ten bytes of each sixteen, and what follows the last of SSE (SDM vol. 1, table 10-2).
    const X87_AT: usize = 32;
    const AFTER_SSE: usize = 416;
    for register in 0..8 {
        area.0[X87_AT + 16 * register + 8..][..8].fill(0);
    }
    area.0[AFTER_SSE..LEGACY_BYTES + HEADER_BYTES].fill(0);
}

impl State {
    /// Initial registers, to be kept in `area`.
    ///
    /// # Safety
    /// The area is nobody else's while the state lives.
    pub unsafe fn new(area: NonNull<Area>) -> Self {
        Self {
            area,
            is_used: Cell::new(false),
            cpu: Cell::new(NO_CPU),
            streak: Cell::new(0),
            eager_slices: Cell::new(0),
        }
    }

    /// Makes the CPU's registers this state's, to be used.
    fn load_registers(&self, cpu: &Cpu) {
        open(cpu);
        if self.is_loaded(cpu) {
            return;
        }
        if !self.is_used.replace(true) {
            // SAFETY: the area is this state's (`new`), whose registers are in no CPU.
            initialise(unsafe { &mut *self.area.as_ptr() });
        }
        // SAFETY: TS is clear; the area is valid.
        unsafe { restore(self.area.as_ptr()) };
        cpu.owner.set(self);
        self.cpu.set(percpu::cpu_id());
    }

    /// Whether this CPU has this state's registers.
    fn is_loaded(&self, cpu: &Cpu) -> bool {
        ptr::eq(cpu.owner.get(), self) && self.cpu.get() == percpu::cpu_id()
    }

    /// Brings the area up to date with the registers of the running program, whose state this is, and
    /// gives it; `None` if they are the initial ones.
    pub fn saved(&self) -> Option<&[u8; AREA_BYTES]> {
        let _irq = IrqOff::new();
        if CPUS.this().is_open.get() {
            // SAFETY: TS is clear, and the registers are those of the running program.
            unsafe { save(self.area.as_ptr()) };
        }
        if !self.is_used.get() {
            return None;
        }
        // SAFETY: only the program's own task changes the area, and it is here.
        Some(unsafe { &self.area.as_ref().0 })
    }

    /// Gives the running program, whose state this is, the initial registers.
    pub fn reset(&self) {
        let _irq = IrqOff::new();
        close(CPUS.this());
        self.is_used.set(false);
        self.cpu.set(NO_CPU);
    }

    /// Makes this state, whose program has not run yet, a copy of `parent`, that of the running program.
    pub fn copy_from(&self, parent: &Self) {
        let _irq = IrqOff::new();
        let cpu = CPUS.this();
        if parent.is_loaded(cpu) {
            let was_open = cpu.is_open.get();
            if !was_open {
                open(cpu);
            }
            // SAFETY: TS is clear, and the registers are the parent's; this state's area is nobody else's, and its
            // program does not run.
            unsafe {
                clear_reserved(&mut *self.area.as_ptr());
                save(self.area.as_ptr());
            }
            if !was_open {
                close(cpu);
            }
        } else if parent.is_used.get() {
            // SAFETY: as above; nobody changes the parent's area, whose program is in the kernel.
            unsafe { self.area.copy_from_nonoverlapping(parent.area, 1) };
        } else {
            return;
        }
        self.is_used.set(true);
    }

    /// Gives the running program, whose state this is, the registers that `change` writes into the
    /// area, which has the present ones. What the CPU would refuse is refused here; then, and if `change`
    /// fails, the registers are the initial ones.
    ///
    /// # Errors
    /// Those of `change`; [`BadState`].
    pub fn load<E: From<BadState>>(
        &self,
        change: impl FnOnce(&mut [u8; AREA_BYTES]) -> Result<(), E>,
    ) -> Result<(), E> {
        let is_used = self.saved().is_some();
        // From here on the area alone counts: nothing saves over it while TS is set, and no switch loads from it
        // what is half written. `change` may sleep.
        let eager_slices = self.eager_slices.replace(0);
        self.reset();
        // SAFETY: the area is this state's, whose registers are in no CPU.
        let area = unsafe { &mut *self.area.as_ptr() };
        if !is_used {
            initialise(area);
        }
        let changed = change(&mut area.0).and_then(|()| Ok(check(&area.0)?));
        self.is_used.set(changed.is_ok());
        self.eager_slices.set(eager_slices);
        changed
    }
}

/// Registers that the CPU would refuse to load.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BadState;

/// What XRSTOR checks (SDM vol. 1, 13.8.1), and FXRSTOR.
fn check(area: &[u8; AREA_BYTES]) -> Result<(), BadState> {
    let quadword = |at: usize| {
        let mut bytes = [0; 8];
        bytes.copy_from_slice(&area[at..at + 8]);
        u64::from_le_bytes(bytes)
    };
    let mxcsr = quadword(MXCSR_AT) as u32;
    let header = LEGACY_BYTES;
    let is_header_fine = components() == 0
        || quadword(header) & !components() == 0
            && area[header + 8..header + HEADER_BYTES].iter().all(|&byte| byte == 0);
    if mxcsr & !MXCSR_MASK == 0 && is_header_fine { Ok(()) } else { Err(BadState) }
}

/// #NM of the running program.
///
/// # Safety
/// Interrupts are off, and the running task is that of a program, to whose context the CPU was switched.
pub(super) unsafe fn on_first_use() {
    // SAFETY: by contract there is one.
    let state = unsafe { super::user::loaded_fpu() };
    state.load_registers(CPUS.this());
    state.streak.set(state.streak.get().saturating_add(1));
    if state.streak.get() >= STREAK {
        state.eager_slices.set(EAGER_SLICES);
        state.streak.set(0);
    }
}
