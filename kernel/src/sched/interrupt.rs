//! What an interrupt does: its handler, deferred work, and preemption at its end.
//!
//! Deferred work is a set of bits per CPU: what may not be done where it is found necessary (a wake
//! under a run queue's lock, say) is raised there and done at the end of the next interrupt,
//! which [`raise`] makes come at once.

use core::sync::atomic::{AtomicU32, Ordering};

use super::{balance, call, cpu, epoch, switch, timer};
use crate::arch::exception::Origin;
use crate::arch::irq::IrqOff;
use crate::arch::percpu::PerCpu;
use crate::arch::{apic, latency, percpu, tsc, vectors};
use crate::console;
use crate::per_cpu;
use crate::task::work;
use crate::trace::{drain, events};

/// Work that waits for the end of an interrupt.
#[derive(Clone, Copy)]
#[repr(u8)]
pub enum Deferred {
    /// The trace's drain has something to do.
    WakeDrain = 2,
    /// The work queue's task has something to do.
    WakeWorker = 3,
}

static PENDING: PerCpu<AtomicU32> = per_cpu!(AtomicU32::new(0));

/// Asks for deferred work on this CPU, as soon as interrupts are on.
pub fn raise(work: Deferred) {
    let bit = 1 << work as u8;
    if PENDING.this().fetch_or(bit, Ordering::Relaxed) & bit == 0 && !percpu::in_interrupt() {
        apic::send_ipi(percpu::cpu_id(), vectors::RESCHEDULE);
    }
}

/// [`crate::arch::Hooks::interrupt`]: acknowledged, interrupts off.
pub fn on_interrupt(vector: u8, origin: Origin) {
    // SAFETY: interrupts are off in a handler, until its return.
    let irq = unsafe { IrqOff::assume() };
    percpu::enter_interrupt();
    latency::interrupts_are_off();
    events::irq_enter(vector);
    match vector {
        vectors::TIMER => timer::on_interrupt(&irq, origin),
        vectors::RESCHEDULE => {
            events::ipi_receive_at(&irq, tsc::now(), 0);
            let this = cpu::this();
            balance::dispatch_departed(this, &irq);
            switch::take_inbox(this, &irq);
            if this.kicked.swap(false, Ordering::SeqCst) {
                balance::on_kick(this, &irq);
            }
        }
        vectors::CALL_FUNCTION => {
            events::ipi_receive_at(&irq, tsc::now(), 1);
            call::on_interrupt(&irq);
        }
        vectors::INPUT => epoch::in_interrupt(console::input::on_interrupt),
        _ => {}
    }
    events::irq_exit(vector);
    let deferred = PENDING.this().swap(0, Ordering::Relaxed);
    if deferred != 0 {
        run_deferred(deferred, &irq);
    }
    latency::interrupts_return();
    percpu::exit_interrupt();
    if percpu::preemption_is_due() {
        switch::preempt_current();
    }
}

fn run_deferred(pending: u32, irq: &IrqOff) {
    if pending & 1 << Deferred::WakeDrain as u8 != 0 {
        events::softirq_enter_at(irq, tsc::now(), Deferred::WakeDrain as u8);
        drain::wake();
        events::softirq_exit_at(irq, tsc::now(), Deferred::WakeDrain as u8);
    }
    if pending & 1 << Deferred::WakeWorker as u8 != 0 {
        events::softirq_enter_at(irq, tsc::now(), Deferred::WakeWorker as u8);
        work::wake();
        events::softirq_exit_at(irq, tsc::now(), Deferred::WakeWorker as u8);
    }
}
