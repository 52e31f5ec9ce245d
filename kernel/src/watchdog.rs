//! Notices a CPU that does not schedule, and a boot that goes no further.
//!
//! The rules and the counts are `orrery_core::watchdog`'s. This module tells the watchdog what the CPU does:
//!
//! - It looks around at ticks that [`sched::tick`](crate::sched) gives it: on every busy CPU, and on CPUs 0 and 1
//!   always.
//! - A CPU *owes a switch* when a tick finds that a reschedule is wanted and still not done. A
//!   FIFO task may run for as long as nobody of a higher class waits: nothing is wanted then, and it
//!   is no hang. Nor is it one when a CPU keeps preemption off and nobody waits for it.
//! - A CPU that takes no interrupt is seen by another CPU only; a machine with one CPU hangs
//!   unnoticed then, and the host's time limit is what ends it.
//! - Until `init` runs, the boot owes a switch on the boot CPU. While that CPU still has its interrupts off
//!   (all of `kernel_main`), it is the other CPUs that see it stop.
//!
//! Nothing here reads the host's clock, and no verdict falls on a CPU that the host merely leaves
//! without time: a CPU accuses itself only by its own ticks, and [`SILENCE_LIMIT_TICKS`] of another
//! CPU's are some seconds. A verdict ends the machine with [`Ending::Watchdog`](crate::drivers::exit).
//!
//! Neighbours: `sched::tick` calls [`look`] and says when a CPU is busy; `panic` tells the story.

use core::sync::atomic::{AtomicBool, AtomicU64, Ordering};

#[cfg(doc)]
use orrery_core::watchdog::SILENCE_LIMIT_TICKS;
use orrery_core::watchdog::{Switch, Verdict, Watchdog};

use crate::arch::percpu;
use crate::arch::percpu::PerCpu;
use crate::panic::{self, Culprit};
use crate::per_cpu;
use crate::sched::cpu::CPUS;

static WATCHDOG: Watchdog = Watchdog::new();
static INIT_RUNS: AtomicBool = AtomicBool::new(false);

/// Each CPU's switches at its last look; its own, with interrupts off.
static SWITCHES: PerCpu<AtomicU64> = per_cpu!(AtomicU64::new(0));

/// This CPU, `cpu`, is about to look for tasks to run; from here on it is watched.
pub fn leave_idle(cpu: u32) {
    WATCHDOG.wake(cpu as usize);
}

/// This CPU, `cpu`, has nothing to run.
pub fn enter_idle(cpu: u32) {
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

/// Looks around, on this CPU, `cpu`, which is busy or not. In the timer's interrupt, at equal times.
pub fn look(cpu: u32, is_busy: bool) {
    let switches = CPUS.of(cpu).switches();
    if SWITCHES.of(cpu).swap(switches, Ordering::Relaxed) != switches {
        WATCHDOG.scheduling_point(cpu as usize);
    }
    let boot_is_stuck = cpu == 0 && !INIT_RUNS.load(Ordering::Relaxed);
    let owed = boot_is_stuck || is_busy && percpu::need_resched();
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
