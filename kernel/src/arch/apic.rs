//! The local APIC: timer, inter-processor interrupts, end of interrupt.
//!
//! `x2apic` sets it up in whichever mode the CPU has. What runs often (acknowledging, arming the
//! timer, sending) writes the registers directly: a store in xAPIC mode, one WRMSR in x2APIC mode
//! (SDM vol. 3, table 10-6; an xAPIC register at offset `o` is MSR `800h + o/16`).
//!
//! # The timer
//!
//! One shot. With TSC-deadline mode a deadline is written as it is. Otherwise the deadline becomes
//! a count of the APIC's own clock, by a multiplication calibrated at boot, rounded up. The count
//! has 32 bits, so that far deadlines expire early, after [`max_interval_ticks`]: whoever handles
//! the interrupt looks at the clock and arms again.

use core::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering, compiler_fence, fence};

use x2apic::lapic::{LocalApic, LocalApicBuilder, TimerDivide, TimerMode, xapic_base};
use x86_64::registers::model_specific::Msr;

use super::irq::IrqOff;
use super::percpu::MAX_CPUS;
use super::{cpu, exception, features, tsc, vectors};
use crate::mm;

const REG_EOI: u32 = 0xB0;
const REG_ICR_LOW: u32 = 0x300;
const REG_ICR_HIGH: u32 = 0x310;
const REG_LVT_LINT0: u32 = 0x350;
const REG_LVT_LINT1: u32 = 0x360;
const REG_TIMER_COUNT: u32 = 0x380;
const REG_TIMER_CURRENT: u32 = 0x390;
const X2APIC_MSR_BASE: u32 = 0x800;
const IA32_TSC_DEADLINE: u32 = 0x6E0;

const LVT_MASKED: u32 = 1 << 16;
const ICR_PENDING: u32 = 1 << 12;
const ICR_NMI: u32 = 0b100 << 8;
const ICR_INIT: u32 = 0b101 << 8;
const ICR_STARTUP: u32 = 0b110 << 8;
const ICR_ASSERT: u32 = 1 << 14;
const ICR_ALL_BUT_SELF: u32 = 0b11 << 18;

/// How the registers are reached: [`NOT_YET`], [`X2APIC`], or their virtual address.
static REGISTERS: AtomicU64 = AtomicU64::new(NOT_YET);
const NOT_YET: u64 = 0;
const X2APIC: u64 = 1;
/// The timer takes deadlines of the time-stamp counter.
static DEADLINE_MODE: AtomicBool = AtomicBool::new(false);
/// APIC timer cycles in a tick, times 2³².
static CYCLES_PER_TICK: AtomicU64 = AtomicU64::new(0);
/// APIC id of each CPU.
static APIC_IDS: [AtomicU32; MAX_CPUS] = [const { AtomicU32::new(0) }; MAX_CPUS];

/// Length of the timer's calibration.
const CALIBRATION_US: u64 = 2000;

#[inline(always)]
fn write(register: u32, value: u32) {
    let base = REGISTERS.load(Ordering::Relaxed);
    if base > X2APIC {
        // SAFETY: `init_boot_cpu` has mapped the registers here; the page is the APIC's alone.
        unsafe { ((base + u64::from(register)) as *mut u32).write_volatile(value) };
    } else {
        // SAFETY: the register exists in x2APIC mode.
        unsafe { Msr::new(X2APIC_MSR_BASE + (register >> 4)).write(u64::from(value)) };
    }
}

#[inline(always)]
fn read(register: u32) -> u32 {
    let base = REGISTERS.load(Ordering::Relaxed);
    if base > X2APIC {
        // SAFETY: as in `write`.
        unsafe { ((base + u64::from(register)) as *const u32).read_volatile() }
    } else {
        // SAFETY: as in `write`.
        unsafe { Msr::new(X2APIC_MSR_BASE + (register >> 4)).read() as u32 }
    }
}

/// Maps the registers and sets up the boot CPU's APIC and, with the time-stamp counter calibrated,
/// its timer.
///
/// # Safety
/// Once, by the boot CPU, with interrupts off, after `mm::init`.
pub(super) unsafe fn init_boot_cpu(apic_id: u32) {
    let features = features::detect();
    let registers = if features.x2apic {
        X2APIC
    } else {
        // SAFETY: reads IA32_APIC_BASE.
        let physical = unsafe { xapic_base() };
        mm::map_mmio(physical, 4096).as_u64()
    };
    REGISTERS.store(registers, Ordering::Relaxed);
    DEADLINE_MODE.store(features.tsc_deadline, Ordering::Relaxed);
    // SAFETY: by contract.
    unsafe { init_this_cpu(0, apic_id) };
    if !features.tsc_deadline {
        calibrate_timer();
    }
}

/// Sets up the APIC of the CPU that asks.
///
/// # Safety
/// After [`init_boot_cpu`] has mapped the registers; interrupts are off.
pub(super) unsafe fn init_this_cpu(cpu: u32, apic_id: u32) {
    APIC_IDS[cpu as usize].store(apic_id, Ordering::Relaxed);
    let mode = match DEADLINE_MODE.load(Ordering::Relaxed) {
        true => TimerMode::TscDeadline,
        false => TimerMode::OneShot,
    };
    let built = LocalApicBuilder::new()
        .timer_vector(usize::from(vectors::TIMER))
        .error_vector(usize::from(vectors::APIC_ERROR))
        .spurious_vector(usize::from(vectors::SPURIOUS))
        .timer_mode(mode)
        .timer_divide(TimerDivide::Div1)
        .timer_initial(0)
        .set_xapic_base(REGISTERS.load(Ordering::Relaxed))
        .build();
    let mut apic: LocalApic = match built {
        Ok(apic) => apic,
        Err(why) => panic!("local APIC: {why}"),
    };
    // SAFETY: the registers are mapped, and the IDT has all vectors named above.
    unsafe { apic.enable() };
    // `enable` leaves the pins that the 8259s and NMI buttons are wired to open, at vector 0.
    write(REG_LVT_LINT0, LVT_MASKED);
    write(REG_LVT_LINT1, LVT_MASKED);
    // SDM vol. 3, 10.5.4.1: the mode must be in force before the first deadline is written.
    fence(Ordering::SeqCst);
}

fn calibrate_timer() {
    write(REG_TIMER_COUNT, u32::MAX);
    let start = tsc::now();
    tsc::delay_us(CALIBRATION_US);
    let cycles = u32::MAX - read(REG_TIMER_CURRENT);
    let ticks = tsc::now() - start;
    write(REG_TIMER_COUNT, 0);
    let cycles_per_tick = (u128::from(cycles) << 32) / u128::from(ticks);
    // At least 1: a timer that stands still must not lead to a division by zero.
    CYCLES_PER_TICK.store((cycles_per_tick as u64).max(1), Ordering::Relaxed);
}

/// Whether the CPUs' APICs are in x2APIC mode.
pub fn is_x2apic() -> bool {
    REGISTERS.load(Ordering::Relaxed) == X2APIC
}

/// Whether the timer takes deadlines of the time-stamp counter as they are.
pub fn has_deadline_timer() -> bool {
    DEADLINE_MODE.load(Ordering::Relaxed)
}

/// The farthest deadline that is met exactly, in ticks from now. Later ones expire about then.
pub fn max_interval_ticks() -> u64 {
    if has_deadline_timer() {
        return u64::MAX;
    }
    ((u128::from(u32::MAX) << 32) / u128::from(CYCLES_PER_TICK.load(Ordering::Relaxed).max(1)))
        as u64
}

/// Makes the timer of this CPU interrupt, once, at `deadline_ticks` of the time-stamp counter: at
/// once if that is past, early if it is farther than [`max_interval_ticks`]. Replaces the deadline
/// before.
#[inline]
pub fn arm_timer(deadline_ticks: u64) {
    if DEADLINE_MODE.load(Ordering::Relaxed) {
        // 0 would disarm it.
        // SAFETY: the MSR exists (CPUID) and the timer is in this mode.
        return unsafe { Msr::new(IA32_TSC_DEADLINE).write(deadline_ticks.max(1)) };
    }
    let interval_ticks = deadline_ticks.saturating_sub(tsc::now());
    let factor = CYCLES_PER_TICK.load(Ordering::Relaxed);
    let cycles = (u128::from(interval_ticks) * u128::from(factor)) >> 32;
    write(REG_TIMER_COUNT, cycles.saturating_add(1).min(u128::from(u32::MAX)) as u32);
}

/// Takes the timer's deadline back. An interrupt that is already on its way still comes.
#[inline]
pub fn disarm_timer() {
    if DEADLINE_MODE.load(Ordering::Relaxed) {
        // SAFETY: as in `arm_timer`.
        return unsafe { Msr::new(IA32_TSC_DEADLINE).write(0) };
    }
    write(REG_TIMER_COUNT, 0);
}

/// Acknowledges the interrupt in service.
#[inline(always)]
pub(super) fn end_of_interrupt() {
    write(REG_EOI, 0);
}

/// Interrupts CPU `cpu` at `vector` (see [`vectors`]). All that this CPU wrote before is visible to
/// the handler.
#[inline]
pub fn send_ipi(cpu: u32, vector: u8) {
    let apic_id = APIC_IDS[cpu as usize % MAX_CPUS].load(Ordering::Relaxed);
    send(apic_id, u32::from(vector) | ICR_ASSERT);
}

/// Stops all other CPUs: each takes an NMI and calls [`Hooks::stop`](super::Hooks), whatever it is
/// doing. Does nothing before the APIC is set up: there are no others then.
pub fn send_nmi_to_others() {
    if REGISTERS.load(Ordering::Relaxed) == NOT_YET {
        return;
    }
    exception::request_stop();
    send(0, ICR_NMI | ICR_ASSERT | ICR_ALL_BUT_SELF);
}

/// Resets a CPU; it then waits for [`send_startup`].
pub(super) fn send_init(apic_id: u32) {
    send(apic_id, ICR_INIT | ICR_ASSERT);
}

/// Starts a CPU that waits, in real mode at the page with number `page`.
pub(super) fn send_startup(apic_id: u32, page: u8) {
    send(apic_id, ICR_STARTUP | ICR_ASSERT | u32::from(page));
}

#[inline]
fn send(apic_id: u32, command: u32) {
    if is_x2apic() {
        // WRMSR to the ICR is not ordered after earlier stores (SDM vol. 3, 10.12.3).
        // SAFETY: fences, and the ICR in x2APIC mode.
        unsafe {
            core::arch::x86_64::_mm_mfence();
            core::arch::x86_64::_mm_lfence();
            Msr::new(X2APIC_MSR_BASE + (REG_ICR_LOW >> 4))
                .write(u64::from(apic_id) << 32 | u64::from(command));
        }
        return;
    }
    // The store to the ICR is uncached and thus the last; the compiler must leave it so.
    compiler_fence(Ordering::SeqCst);
    // A handler that sends between the two writes would redirect this one.
    let _irq = IrqOff::new();
    while read(REG_ICR_LOW) & ICR_PENDING != 0 {
        cpu::pause();
    }
    write(REG_ICR_HIGH, apic_id << 24);
    write(REG_ICR_LOW, command);
}
