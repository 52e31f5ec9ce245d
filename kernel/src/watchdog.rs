//! Notices a CPU that does not schedule, and a boot that goes no further.
//!
//! The rules and the counts are `orrery_core::watchdog`'s. This module gives every CPU a watch timer
//! and tells the watchdog what the CPU does:
//!
//! - A busy CPU's timer expires at least once in [`PERIOD_US`]. A CPU that went idle lets the timer
//!   it has run out and then has none, except that CPUs 0 and 1 keep theirs: so of the CPUs that
//!   are up, one at least looks after each of them, even when all others idle.
//! - A CPU *owes a switch* when a tick finds that a reschedule is wanted and still not done. A
//!   FIFO task may run for as long as nobody of a higher class waits: nothing is wanted then, and it
//!   is no hang. Nor is it one when a CPU keeps preemption off and nobody waits for it.
//! - A CPU that takes no interrupt is seen by another CPU only; a machine with one CPU hangs
//!   unnoticed then, and the host's time limit is what ends it.
//! - Until `init` runs, the boot owes a switch on the boot CPU. While that CPU still has its interrupts off
//!   (all of `kernel_main`), it is the other CPUs that see it stop.
//!
//! Nothing here reads the host's clock, and no verdict falls on a CPU that the host merely leaves
//! without time: a CPU accuses itself only by its own ticks, and [`LIMIT_TICKS`] of another CPU's
//! are some seconds. A verdict ends the machine with [`Ending::Watchdog`](crate::drivers::exit).
//!
//! Neighbours: `sched::timer` calls [`on_timer`] and obeys [`due_ticks`]; `sched::idle` says when a
//! CPU is busy; `panic` tells the story.

use core::sync::atomic::{AtomicBool, AtomicU64, Ordering};

#[cfg(doc)]
use orrery_core::watchdog::LIMIT_TICKS;
use orrery_core::watchdog::{Switch, Verdict, Watchdog};

use crate::arch::irq::IrqOff;
use crate::arch::percpu::PerCpu;
use crate::arch::{percpu, tsc};
use crate::panic::{self, Culprit};
use crate::per_cpu;
use crate::sched::cpu::CPUS;
use crate::sched::timer;

/// Longest time between two ticks of a busy CPU, in microseconds.
const PERIOD_US: u64 = 250_000;

/// CPUs below this number keep their watch timer while they idle.
const WATCHMEN: u32 = 2;

static WATCHDOG: Watchdog = Watchdog::new();
static INIT_RUNS: AtomicBool = AtomicBool::new(false);

/// What one CPU remembers; its own, with interrupts off.
struct Watch {
    /// When the next tick is due; 0: this CPU has not been watched yet.
    due_ticks: AtomicU64,
    /// The CPU's switches at its last tick.
    switches: AtomicU64,
    busy: AtomicBool,
}

static WATCHES: PerCpu<Watch> = per_cpu!(Watch {
    due_ticks: AtomicU64::new(0),
    switches: AtomicU64::new(0),
    busy: AtomicBool::new(false),
});

/// The CPU is about to look for tasks to run; from here on it is watched.
pub fn leave_idle(irq: &IrqOff) {
    let cpu = percpu::cpu_id();
    let watch = WATCHES.of(cpu);
    watch.busy.store(true, Ordering::Relaxed);
    WATCHDOG.wake(cpu as usize);
    let now = tsc::now();
    if watch.due_ticks.load(Ordering::Relaxed) <= now {
        watch.due_ticks.store(now + tsc::from_us(PERIOD_US), Ordering::Relaxed);
    }
    timer::cover(watch.due_ticks.load(Ordering::Relaxed), now, irq);
}

/// The CPU has nothing to run.
pub fn enter_idle(_irq: &IrqOff) {
    let cpu = percpu::cpu_id();
    WATCHES.of(cpu).busy.store(false, Ordering::Relaxed);
    WATCHDOG.idle(cpu as usize);
}

/// The boot CPU has come one step further; from the first step on it is watched.
pub fn boot_goes_on() {
    WATCHDOG.wake(0);
}

/// `init` runs: the boot is finished.
pub fn boot_is_finished() {
    INIT_RUNS.store(true, Ordering::Relaxed);
}

/// This CPU's timer has expired, for whatever reason.
pub fn on_timer(now_ticks: u64) {
    let cpu = percpu::cpu_id();
    let watch = WATCHES.of(cpu);
    let due_ticks = watch.due_ticks.load(Ordering::Relaxed);
    if due_ticks == 0 || now_ticks < due_ticks {
        return;
    }
    watch.due_ticks.store(now_ticks + tsc::from_us(PERIOD_US), Ordering::Relaxed);
    let switches = CPUS.of(cpu).switches();
    if watch.switches.swap(switches, Ordering::Relaxed) != switches {
        WATCHDOG.scheduling_point(cpu as usize);
    }
    let boot_is_stuck = cpu == 0 && !INIT_RUNS.load(Ordering::Relaxed);
    let busy = watch.busy.load(Ordering::Relaxed);
    let owed = boot_is_stuck || busy && percpu::need_resched();
    match WATCHDOG.tick(cpu as usize, if owed { Switch::Owed } else { Switch::NotOwed }) {
        Verdict::Alive => {}
        Verdict::NotScheduling { points, .. } if boot_is_stuck => panic::on_stall(
            Culprit::ThisCpu,
            format_args!("the boot hangs: `init` does not run, {points} scheduling points so far"),
        ),
        Verdict::NotScheduling { cpu, .. } => panic::on_stall(
            Culprit::ThisCpu,
            format_args!(
                "CPU {cpu} does not schedule: tasks wait, and preemption stays off ({} times)",
                percpu::preempt_depth()
            ),
        ),
        Verdict::Silent { cpu, seen_by, .. } => panic::on_stall(
            Culprit::OtherCpu(cpu as u32),
            format_args!("CPU {cpu} takes no interrupts any more, as CPU {seen_by} sees it"),
        ),
    }
}

/// When this CPU's timer must expire at the latest for the watch's sake, if at all.
pub fn due_ticks() -> Option<u64> {
    let cpu = percpu::cpu_id();
    let watch = WATCHES.of(cpu);
    let wanted = watch.busy.load(Ordering::Relaxed) || cpu < WATCHMEN;
    wanted.then(|| watch.due_ticks.load(Ordering::Relaxed)).filter(|&due| due != 0)
}
