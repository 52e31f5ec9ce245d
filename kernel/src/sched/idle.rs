//! What a CPU does with nothing to do: it polls for a while, then it halts.
//!
//! While it polls, a waker need not interrupt it, which makes a wakeup some hundred times cheaper
//! under an emulator; while it halts, it costs the host nothing. The order of the last look and the
//! halt is `orrery_core::idle`'s, and model-checked there.

use core::sync::atomic::{AtomicU8, Ordering};

use orrery_core::idle::{Halt, Idle};

use super::cpu::{self as sched_cpu, Cpu};
use super::epoch;
use super::switch::{self, work_waits};
use super::tick;
use crate::arch::irq::IrqOff;
use crate::arch::{cpu, irq, percpu, smp, tsc};
use crate::mm::space;
use crate::trace::{drain, events};

/// How long a CPU polls before it halts, in microseconds.
const POLL_US: u64 = 50;

/// How CPUs idle.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Mode {
    /// Polls briefly, then halts.
    Auto = 0,
    /// Never halts.
    Poll = 1,
    /// Halts at once.
    Halt = 2,
}

static MODE: AtomicU8 = AtomicU8::new(Mode::Auto as u8);

/// Sets how CPUs idle from now on.
pub fn set_mode(mode: Mode) {
    MODE.store(mode as u8, Ordering::Relaxed);
}

/// How CPUs idle.
pub fn mode() -> Mode {
    match MODE.load(Ordering::Relaxed) {
        0 => Mode::Auto,
        1 => Mode::Poll,
        _ => Mode::Halt,
    }
}

/// What CPU `cpu` does at this moment.
pub fn state_of(cpu: usize) -> Idle {
    sched_cpu::CPUS.of(cpu as u32).idle.get()
}

fn poll_ticks() -> u64 {
    match mode() {
        Mode::Auto => tsc::from_us(POLL_US),
        Mode::Poll => u64::MAX,
        Mode::Halt => 0,
    }
}

/// The idle task's body, on every CPU.
pub fn run() -> ! {
    {
        // A CPU that finds nothing to do at all still has a first look around.
        let off = IrqOff::new();
        tick::leave_idle(&off);
        tick::enter_idle(&off);
    }
    // SAFETY: the idle task holds nothing.
    unsafe { irq::enable() };
    loop {
        let this = sched_cpu::this();
        while !work_waits(this) && space::zero_ahead(|| work_waits(this)) {}
        poll(this);
        if !work_waits(this) {
            halt(this);
        }
        // Preemption has been off all along; the scheduler is entered as from `yield_now`.
        irq::disable();
        // SAFETY: interrupts are off at both ends of the switches in between.
        let off = unsafe { IrqOff::assume() };
        epoch::leave_idle();
        tick::leave_idle(&off);
        switch::schedule_idle();
        tick::enter_idle(&off);
        epoch::enter_idle();
        // SAFETY: the idle task holds nothing.
        unsafe { irq::enable() };
    }
}

/// Looks for work until there is some, or for [`POLL_US`].
fn poll(this: &Cpu) {
    let limit = poll_ticks();
    if limit == 0 || work_waits(this) {
        return;
    }
    this.idle.start_polling();
    events::idle_enter(0);
    let since = tsc::now();
    while !work_waits(this) && tsc::now() - since < limit {
        cpu::pause();
    }
    this.idle.resume();
    events::idle_exit(0);
}

/// Halts until an interrupt comes, unless there is work after all.
fn halt(this: &Cpu) {
    irq::disable();
    // SAFETY: interrupts are off until the halt itself.
    let off = unsafe { IrqOff::assume() };
    events::idle_enter_at(&off, tsc::now(), 1);
    drain::before_halt(&off);
    // Nobody need interrupt a halted CPU for the sake of translations that it has no use for.
    if smp::count() > 1 {
        space::unload(&off);
    }
    if this.idle.halt_unless(|| work_waits(this)) == Halt::Now {
        // SAFETY: the idle task holds nothing.
        unsafe { cpu::enable_and_halt() };
    } else {
        // SAFETY: as above.
        unsafe { irq::enable() };
    }
    this.idle.resume();
    events::idle_exit(1);
    debug_assert!(percpu::preempt_depth() == 1);
}
