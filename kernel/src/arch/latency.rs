//! How long preemption or interrupts stay off, where the trace wants to know.
//!
//! A *section* runs from the outermost disable to its enable, on one CPU. A CPU that goes through
//! the scheduler ends its section there: what follows is another task's. Interrupt handlers are
//! sections too. The scheduler's own passes (a yield, going to sleep, idling) are not, nor is a halt,
//! which takes interrupts; nor is preemption off in a section that has interrupts off anyway.
//!
//! While nobody wants to know, a guard costs one comparison here and one branch that is never
//! taken. The start of a section is kept per CPU, and is 0 outside of one, so that an end without a
//! beginning (measuring was switched on in between) reports nothing.

use core::arch::asm;
use core::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use super::branch::any_bit_set;
use super::percpu::PerCpu;
use super::{hooks, percpu, tsc};
use crate::per_cpu;

/// What was off.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Section {
    /// Preemption, in a task.
    Preemption,
    /// Interrupts.
    Interrupts,
}

static WANTED: AtomicBool = AtomicBool::new(false);
static THRESHOLD_TICKS: AtomicU64 = AtomicU64::new(u64::MAX);

/// When the CPU's sections began, or 0.
struct Began {
    preemption: AtomicU64,
    interrupts: AtomicU64,
}

static BEGAN: PerCpu<Began> =
    per_cpu!(Began { preemption: AtomicU64::new(0), interrupts: AtomicU64::new(0) });

/// Reports sections longer than `threshold_ticks` to [`Hooks::long_section`](super::Hooks) from
/// here on; with `None`, measures nothing.
pub fn report_longer_than(threshold_ticks: Option<u64>) {
    THRESHOLD_TICKS.store(threshold_ticks.unwrap_or(u64::MAX), Ordering::Relaxed);
    WANTED.store(threshold_ticks.is_some(), Ordering::Relaxed);
}

#[inline(always)]
fn is_wanted() -> bool {
    any_bit_set!(u8 WANTED, 1)
}

/// Interrupts have just been turned off, having been on.
#[inline(always)]
pub fn interrupts_are_off() {
    if is_wanted() {
        begin(&BEGAN.this().interrupts);
    }
}

/// Interrupts are about to be turned on, or the CPU is about to go through the scheduler.
#[inline(always)]
pub fn interrupts_return() {
    if is_wanted() {
        end(&BEGAN.this().interrupts, Section::Interrupts, here());
    }
}

/// Preemption has just been counted off, perhaps not for the first time.
#[inline(always)]
pub fn preemption_is_off() {
    if is_wanted() {
        begin_preemption();
    }
}

/// Preemption is about to be counted on, perhaps not for the last time.
#[inline(always)]
pub fn preemption_returns() {
    if is_wanted() {
        end_preemption(here());
    }
}

/// Preemption is off, and would be on for a moment if anybody wanted to run: one section ends, another begins.
#[inline(always)]
pub fn preemption_could_return() {
    if is_wanted() {
        begin_anew(here());
    }
}

#[cold]
#[inline(never)]
fn begin_anew(site: u64) {
    end_preemption(site);
    begin_preemption();
}

#[cold]
#[inline(never)]
fn begin_preemption() {
    if is_outermost() {
        begin(&BEGAN.this().preemption);
    }
}

#[cold]
#[inline(never)]
fn end_preemption(site: u64) {
    if is_outermost() {
        end(&BEGAN.this().preemption, Section::Preemption, site);
    }
}

fn is_outermost() -> bool {
    percpu::preempt_depth() == 1 && !percpu::in_interrupt()
}

#[cold]
#[inline(never)]
fn begin(began: &AtomicU64) {
    began.store(tsc::now(), Ordering::Relaxed);
}

#[cold]
#[inline(never)]
fn end(began: &AtomicU64, section: Section, site: u64) {
    let began_ticks = began.swap(0, Ordering::Relaxed);
    if began_ticks != 0 {
        let ticks = tsc::now() - began_ticks;
        if ticks > THRESHOLD_TICKS.load(Ordering::Relaxed) {
            (hooks().long_section)(section, ticks, site);
        }
    }
}

/// An address in the function that this is inlined into.
#[inline(always)]
fn here() -> u64 {
    let address: u64;
    // SAFETY: reads the instruction pointer.
    unsafe {
        asm!("lea {}, [rip]", out(reg) address, options(nomem, nostack, preserves_flags));
    }
    address
}
