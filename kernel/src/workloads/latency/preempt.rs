//! What stands between a task that should run and its CPU: other tasks, interrupts off, preemption off; and what it
//! takes to make another CPU do something.

use alloc::sync::Arc;
use alloc::vec::Vec;
use core::sync::atomic::{AtomicBool, Ordering};
use core::time::Duration;

use super::wake::{Sleeper, when_woken};
use super::{HERE, Hog, Suite, THERE, become_fifo, burn_unless, spin_until};
use crate::app::{self, Builder, CpuSet, Failure, Policy};
use crate::arch::irq::IrqOff;
use crate::sched::call;
use crate::sync::PreemptOff;
use crate::workloads::{Gate, join_all};

/// Tasks of the fair class that wait for the CPU.
const HOGS: usize = 4;
/// How far ahead the timer is set, and how long it expires after the section's beginning and before its end.
const AHEAD: Duration = Duration::from_micros(100);
const INSIDE: Duration = Duration::from_micros(10);

pub fn measure(suite: Suite) -> Result<(), Failure> {
    if suite.wants_with_two_cpus("ipi/round-trip") {
        let hog = Hog::on(THERE)?;
        let there = CpuSet::single(THERE);
        let measured = suite.measure("ipi/round-trip", 1, || call::run_on(there, &|| ()));
        hog.stop();
        measured?;
    }
    under_load(suite, "preempt/under-load")?;
    at_end_of_section(suite, "preempt/irq-off", IrqOff::new)?;
    at_end_of_section(suite, "preempt/preempt-off", PreemptOff::new)
}

/// One of several fair tasks wakes a real-time task on their CPU.
fn under_load(suite: Suite, name: &'static str) -> Result<(), Failure> {
    if !suite.wants(name) {
        return Ok(());
    }
    let sleeper = Sleeper::start(suite, name, HERE, when_woken)?;
    let gate = Gate::new();
    let stop = Arc::new(AtomicBool::new(false));
    let mut hogs = Vec::new();
    for _ in 0..HOGS {
        let (passage, stop) = (gate.passage(), stop.clone());
        hogs.push(Builder::new("hog").cpus(CpuSet::single(HERE)).spawn(move || {
            passage.pass();
            burn_unless(&stop);
        })?);
    }
    // They can be woken now, and run when this one is no real-time task any more.
    gate.open(Duration::ZERO);
    app::set_policy(Policy::default());
    while sleeper.has_rounds_left() {
        sleeper.wake(app::now_ticks());
        sleeper.wait_for_end_of_round();
    }
    become_fifo();
    stop.store(true, Ordering::Relaxed);
    join_all(hogs)?;
    sleeper.finish()
}

/// A timer expires for a task while another keeps it from running by a guard: from the end of that section to the
/// task.
fn at_end_of_section<G>(
    suite: Suite,
    name: &'static str,
    section: fn() -> G,
) -> Result<(), Failure> {
    if !suite.wants(name) {
        return Ok(());
    }
    let sleeper = Sleeper::start(suite, name, HERE, |word_ticks| {
        let deadline_ticks = word_ticks.load(Ordering::Relaxed);
        app::sleep_until(deadline_ticks);
        let end_ticks = app::now_ticks();
        // Where there is no other word, the section has begun too late: somebody stopped the whole CPU.
        let section_end_ticks = word_ticks.load(Ordering::Relaxed);
        (section_end_ticks != deadline_ticks).then_some((section_end_ticks, end_ticks))
    })?;
    let (ahead, inside) = (app::to_ticks(AHEAD), app::to_ticks(INSIDE));
    while sleeper.has_rounds_left() {
        let deadline_ticks = app::now_ticks() + ahead;
        sleeper.wake(deadline_ticks);
        spin_until(deadline_ticks - inside);
        let guard = section();
        spin_until(deadline_ticks + inside);
        sleeper.correct(deadline_ticks, app::now_ticks());
        drop(guard);
        sleeper.wait_for_end_of_round();
    }
    sleeper.finish()
}
