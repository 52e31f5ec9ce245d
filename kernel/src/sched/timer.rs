//! The CPU's timer: whoever sleeps until a time, and the end of the running task's slice.
//!
//! The hardware timer is one-shot. It is set to the earliest of the first sleeper's deadline, the
//! end of the slice, the first alarm and, on a busy CPU, the next [tick](super::tick); an idle CPU takes none. It is only
//! ever moved to an *earlier* time: a slice that ends later than the timer expires is looked at
//! again when it does, which is cheaper than setting the timer at each switch.
//!
//! Lock order: a CPU's timer queue before any run queue, since expiry wakes.

use core::ptr::NonNull;
use core::sync::atomic::{AtomicU64, Ordering};

use orrery_core::sched::{Preempt, RunQueue};
use orrery_core::timer_queue::{TimerQueue, TimerState};

use super::cpu::{self, Cpu};
use super::task::{Task, current};
use super::wake;
use super::{alarm, balance, tick};
use crate::arch::exception::Origin;
use crate::arch::irq::IrqOff;
use crate::arch::percpu::PerCpu;
use crate::arch::{apic, percpu, tsc};
use crate::per_cpu;
use crate::sync::SpinLock;
use crate::trace::events;

/// What the timer is set to when it is not.
pub(super) const NEVER: u64 = u64::MAX;

struct CpuTimer {
    /// Tasks that sleep until a time, on the CPU where they went to sleep.
    sleepers: SpinLock<TimerQueue>,
    /// Expiries so far.
    expiries: AtomicU64,
}

static TIMERS: PerCpu<CpuTimer> = per_cpu!(CpuTimer {
    sleepers: SpinLock::new("timer queue", TimerQueue::new()),
    expiries: AtomicU64::new(0),
});

/// Timer interrupts that CPU `cpu` has had.
pub fn expiries(cpu: u32) -> u64 {
    TIMERS.of(cpu).expiries.load(Ordering::Relaxed)
}

/// Wakes the running task at `deadline_ticks`, wherever it sleeps then, unless [`disarm`] comes
/// first.
pub(super) fn arm(deadline_ticks: u64) {
    let irq = IrqOff::new();
    let task = current();
    let timers = TIMERS.this();
    task.timer_cpu.store(percpu::cpu_id(), Ordering::Relaxed);
    // SAFETY: a task's timer is armed by itself and disarmed before it goes on, so it is in no
    // other queue; tasks stay where they are.
    unsafe {
        timers.sleepers.lock_with(&irq).arm(Task::timer_of(NonNull::from(task)), deadline_ticks)
    };
    arm_hardware(cpu::this(), deadline_ticks, tsc::now(), &irq);
}

/// Undoes [`arm`]. True if the deadline had not come.
pub(super) fn disarm() -> bool {
    let irq = IrqOff::new();
    let task = current();
    let timers = TIMERS.of(task.timer_cpu.load(Ordering::Relaxed));
    // SAFETY: `arm` put it into this queue or, if it has expired, it is in none.
    let was =
        unsafe { timers.sleepers.lock_with(&irq).cancel(Task::timer_of(NonNull::from(task))) };
    was == TimerState::Armed
}

/// Makes sure that the timer expires no later than the running task's slice ends.
#[inline(always)]
pub(super) fn cover_slice(this: &Cpu, queue: &RunQueue, now: u64, irq: &IrqOff) {
    if let Some(at) = queue.next_event()
        && at < this.slice_armed_ticks.load(Ordering::Relaxed)
    {
        this.slice_armed_ticks.store(at, Ordering::Relaxed);
        arm_hardware(this, at.max(now + 1), now, irq);
    }
}

/// As [`cover_slice`], but content with a timer that is set for the end of any slice: it expires
/// within one, and everything is looked at again then. Out of line, since a yield to a FIFO task,
/// which has no slice, should not load what this needs.
#[inline(never)]
pub(super) fn cover_slice_after_yield(this: &Cpu, queue: &RunQueue, now: u64, irq: &IrqOff) {
    if this.slice_armed_ticks.load(Ordering::Relaxed) == NEVER {
        cover_slice(this, queue, now, irq);
    }
}

/// Makes sure that the timer expires no later than at `deadline_ticks`.
pub fn cover(deadline_ticks: u64, now: u64, irq: &IrqOff) {
    arm_hardware(cpu::this(), deadline_ticks, now, irq);
}

#[inline(always)]
fn arm_hardware(this: &Cpu, deadline_ticks: u64, now: u64, irq: &IrqOff) {
    if deadline_ticks < this.timer_armed_ticks.load(Ordering::Relaxed) {
        set_hardware(this, deadline_ticks, now, irq);
    }
}

#[inline(never)]
fn set_hardware(this: &Cpu, deadline_ticks: u64, now: u64, irq: &IrqOff) {
    this.timer_armed_ticks.store(deadline_ticks, Ordering::Relaxed);
    events::timer_arm_at(irq, now, deadline_ticks);
    apic::arm_timer(deadline_ticks);
}

/// The timer interrupt.
pub(super) fn on_interrupt(irq: &IrqOff, origin: Origin) {
    let timers = TIMERS.this();
    let this = cpu::this();
    timers.expiries.store(timers.expiries.load(Ordering::Relaxed) + 1, Ordering::Relaxed);
    this.timer_armed_ticks.store(NEVER, Ordering::Relaxed);
    this.slice_armed_ticks.store(NEVER, Ordering::Relaxed);
    let now = tsc::now();
    // Before anything here wants a reschedule: one that is wanted now has been so for a while.
    tick::on_timer(now, origin);
    let next_sleeper = {
        let mut sleepers = timers.sleepers.lock_with(irq);
        while let Some(timer) = sleepers.pop_expired(now) {
            // SAFETY: a task whose timer is queued is alive: it disarms the timer, under this
            // lock, before it goes on.
            let task = unsafe { Task::of_timer(timer).as_ref() };
            let late = now - task.timer.deadline_ticks();
            events::timer_expire(late.min(u64::from(u32::MAX)) as u32, task.pid());
            wake::wake_with(task, irq);
        }
        sleepers.next_deadline_ticks()
    };
    let next_slice = {
        let mut queue = this.queue.lock_with(irq);
        if queue.tick(now) == Preempt::Yes {
            if !percpu::need_resched() {
                events::need_resched_at(irq, tsc::now(), 0);
            }
            percpu::set_need_resched();
            None
        } else {
            queue.next_event()
        }
    };
    if this.has_waiting() {
        balance::offer(this, cpu::online());
    }
    balance::even_out(this, irq);
    this.slice_armed_ticks.store(next_slice.unwrap_or(NEVER), Ordering::Relaxed);
    let next_alarm = alarm::on_timer(now, irq);
    let sooner = |at: u64, other: Option<u64>| at.min(other.unwrap_or(NEVER));
    let next = sooner(sooner(sooner(NEVER, next_sleeper), next_slice), next_alarm);
    arm_hardware(this, sooner(next, tick::due_ticks()), tsc::now(), irq);
}
