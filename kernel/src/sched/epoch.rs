//! Lock-free lookups: the kernel's one epoch, and who reports to it.
//!
//! A lookup runs inside [`read`], with preemption off. What was found may be used until the section
//! ends; a writer that unlinks something defers freeing it until every CPU has been *quiescent*,
//! that is, outside of all sections, at least once:
//!
//! - every pass through the scheduler but a yield is a quiescent state (three instructions there);
//! - an idle task is in one all the time, from [`enter_idle`] to [`leave_idle`];
//! - [`hurry`] asks all other CPUs for one by interrupt, for those who cannot wait for that.
//!
//! The protocol and its proof are `orrery_core::epoch`'s. What is deferred is kept by whoever
//! unlinks, see [`crate::task::registry`].

use orrery_core::epoch::{Epoch, ReadSide};

use super::{call, cpu};
use crate::arch::percpu;
use crate::sync::PreemptOff;

/// The one epoch.
pub static EPOCH: Epoch = Epoch::new();

/// A read-side section. Ends when it is dropped; its task must not sleep before.
pub struct Reading {
    section: ReadSide,
    _off: PreemptOff,
}

impl Reading {
    /// What lookups want.
    pub fn section(&self) -> &ReadSide {
        &self.section
    }
}

/// Begins a read-side section. For tasks; not for interrupt handlers, which may have interrupted an
/// idle CPU.
#[inline]
pub fn read() -> Reading {
    let off = PreemptOff::new();
    debug_assert!(!percpu::in_interrupt(), "a lock-free lookup in an interrupt handler");
    // SAFETY: preemption is off while the value lives, and quiescent states are reported by the
    // scheduler, idle tasks, and interrupts of code with preemption on, only.
    let section = unsafe { ReadSide::assume() };
    Reading { section, _off: off }
}

/// This CPU's idle task runs again: the CPU holds nothing.
pub(super) fn enter_idle() {
    EPOCH.enter_idle(percpu::cpu_id() as usize);
}

/// This CPU's idle task is about to make way.
pub(super) fn leave_idle() {
    EPOCH.leave_idle(percpu::cpu_id() as usize);
}

/// For an interrupt handler that finds tasks by what they wait on: they stay meanwhile, also where it has interrupted
/// an idle CPU.
pub(super) fn in_interrupt(handler: impl FnOnce()) {
    let cpu = percpu::cpu_id() as usize;
    let idles = EPOCH.is_idle(cpu);
    if idles {
        EPOCH.leave_idle(cpu);
    }
    handler();
    if idles {
        EPOCH.enter_idle(cpu);
    }
}

/// Has every CPU that is not idle report as soon as it can: those that run with preemption on report before this
/// returns, others when they turn it on.
///
/// The caller is in no section, and its interrupts are on.
pub fn hurry() {
    let _here = PreemptOff::new();
    EPOCH.quiescent(percpu::cpu_id() as usize);
    let mut busy = cpu::online();
    busy.remove(percpu::cpu_id() as usize);
    for cpu in cpu::online().iter().filter(|&cpu| EPOCH.is_idle(cpu)) {
        busy.remove(cpu);
    }
    call::run_on(busy, &report_interrupted);
}

/// In an interrupt, on behalf of what it interrupted.
fn report_interrupted() {
    if percpu::preempt_depth() == 0 {
        EPOCH.quiescent(percpu::cpu_id() as usize);
    } else {
        // In a section, or idle, or nearly anything else: the scheduler's next pass tells.
        percpu::set_need_resched();
    }
}
