//! A busy CPU's tick: the timer expires at least once in a period, whatever else it is set for.
//!
//! At a tick
//! - what runs is sampled: whether a program was in ring 3 or in the kernel. That divides its run time, which is
//!   exact, into user and system time ([`orrery_core::sched::cpu_time`]);
//! - the [`watchdog`] looks around, once in [`WATCH_US`].
//!
//! The period is [`SAMPLE_US`], or [`WATCH_US`] as long as there have been no programs. A CPU that went idle lets the
//! tick it is set for come, and then has none, except that CPUs 0 and 1 keep the watchdog's: so of the
//! CPUs that are up, one at least looks after each of them, even when all others idle.

use core::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use orrery_core::sched::cpu_time::Samples;

use super::task::{Task, current, interruption};
use super::timer;
use crate::arch::exception::Origin;
use crate::arch::irq::IrqOff;
use crate::arch::percpu::PerCpu;
use crate::arch::{percpu, tsc};
use crate::per_cpu;
use crate::trace::record;
use crate::watchdog;

/// Longest time between two samples of a busy CPU, in microseconds: the unit of times(2), as Linux's ticks with
/// `CONFIG_HZ_100`.
const SAMPLE_US: u64 = 10_000;
/// Time between two of the watchdog's looks, in microseconds.
const WATCH_US: u64 = 250_000;

/// CPUs below this number keep the watchdog's tick while they idle.
const WATCHMEN: u32 = 2;

/// One CPU's ticks; its own, with interrupts off.
struct Tick {
    /// When the next one is due; 0: this CPU has not been busy yet.
    due_ticks: AtomicU64,
    /// When the watchdog's next look is due.
    watch_due_ticks: AtomicU64,
    is_busy: AtomicBool,
    user_samples: AtomicU64,
    system_samples: AtomicU64,
}

static TICKS: PerCpu<Tick> = per_cpu!(Tick {
    due_ticks: AtomicU64::new(0),
    watch_due_ticks: AtomicU64::new(0),
    is_busy: AtomicBool::new(false),
    user_samples: AtomicU64::new(0),
    system_samples: AtomicU64::new(0),
});

fn period_ticks() -> u64 {
    let has_programs = record::any_enabled::<{ record::PROGRAMS_EXIST }>();
    tsc::from_us(if has_programs { SAMPLE_US } else { WATCH_US })
}

/// The CPU is about to look for tasks to run; from here on it ticks.
pub(super) fn leave_idle(irq: &IrqOff) {
    let cpu = percpu::cpu_id();
    let tick = TICKS.of(cpu);
    tick.is_busy.store(true, Ordering::Relaxed);
    watchdog::leave_idle(cpu);
    let now = tsc::now();
    if tick.due_ticks.load(Ordering::Relaxed) <= now {
        tick.due_ticks.store(now + period_ticks(), Ordering::Relaxed);
    }
    timer::cover(tick.due_ticks.load(Ordering::Relaxed), now, irq);
}

/// The CPU has nothing to run.
pub(super) fn enter_idle(_irq: &IrqOff) {
    let cpu = percpu::cpu_id();
    TICKS.of(cpu).is_busy.store(false, Ordering::Relaxed);
    watchdog::enter_idle(cpu);
}

/// Programs exist from now on: this CPU samples what it runs. The others do when they have been idle next, or after
/// a tick of the watchdog's.
pub fn start_sampling() {
    let irq = IrqOff::new();
    let now = tsc::now();
    let due_ticks = now + tsc::from_us(SAMPLE_US);
    TICKS.this().due_ticks.store(due_ticks, Ordering::Relaxed);
    timer::cover(due_ticks, now, &irq);
}

/// This CPU's timer has expired, for whatever reason.
#[inline]
pub(super) fn on_timer(now_ticks: u64, origin: Origin) {
    let tick = TICKS.this();
    // 0 while it has not been busy.
    let due_ticks = tick.due_ticks.load(Ordering::Relaxed);
    if due_ticks != 0 && now_ticks >= due_ticks {
        on_tick(tick, now_ticks, origin);
    }
}

#[cold]
fn on_tick(tick: &Tick, now_ticks: u64, origin: Origin) {
    tick.due_ticks.store(now_ticks + period_ticks(), Ordering::Relaxed);
    if !super::is_idle() {
        sample(tick, current(), origin);
    }
    if now_ticks >= tick.watch_due_ticks.load(Ordering::Relaxed) {
        tick.watch_due_ticks.store(now_ticks + tsc::from_us(WATCH_US), Ordering::Relaxed);
        watchdog::look(percpu::cpu_id(), tick.is_busy.load(Ordering::Relaxed));
    }
}

/// Counts where the running task was found.
fn sample(tick: &Tick, task: &Task, origin: Origin) {
    add_one(match origin {
        Origin::Program => &tick.user_samples,
        Origin::Kernel => &tick.system_samples,
    });
    let Some(program) = task.program() else { return };
    add_one(match origin {
        Origin::Program => &program.user_samples,
        Origin::Kernel => &program.system_samples,
    });
    if program.has_run_timer.load(Ordering::Relaxed) {
        task.interruptions.fetch_or(interruption::SIGNAL, Ordering::SeqCst);
    }
}

/// For counters that only one CPU writes at a time.
fn add_one(counter: &AtomicU64) {
    counter.store(counter.load(Ordering::Relaxed) + 1, Ordering::Relaxed);
}

/// When this CPU's timer must expire at the latest for the tick's sake, if at all.
#[inline]
pub(super) fn due_ticks() -> Option<u64> {
    let cpu = percpu::cpu_id();
    let tick = TICKS.of(cpu);
    // Who is about to leave idleness would set the timer a moment later.
    let due = if tick.is_busy.load(Ordering::Relaxed) || percpu::need_resched() {
        &tick.due_ticks
    } else if cpu < WATCHMEN {
        &tick.watch_due_ticks
    } else {
        return None;
    };
    Some(due.load(Ordering::Relaxed)).filter(|&due| due != 0)
}

/// How often CPU `cpu` was found in a program, and how often in the kernel.
pub fn samples(cpu: u32) -> Samples {
    let tick = TICKS.of(cpu);
    Samples {
        user: tick.user_samples.load(Ordering::Relaxed),
        system: tick.system_samples.load(Ordering::Relaxed),
    }
}
