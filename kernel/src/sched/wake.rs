//! From asleep to runnable.
//!
//! Exactly one waker takes a task out of `Sleeping`, by compare-and-exchange; it alone decides where
//! the task goes. If that is its own CPU it enqueues the task; else it pushes the task into the
//! other CPU's inbox and interrupts that CPU, unless it polls. No lock of another CPU is taken.
//!
//! A task whose registers are still being saved (`on_cpu`) goes to the inbox of the CPU that saves
//! them: it will not look there before it is done.

use core::ptr::NonNull;
use core::sync::atomic::Ordering;

use orrery_core::sched::{Enqueue, Preempt, RunQueue, placement};

use super::cpu::{self, CPUS, Cpu, online, view};
use super::switch::is_saved;
use super::task::{Sleep, State, Task};
use crate::arch::irq::IrqOff;
use crate::arch::{apic, percpu, tsc, vectors};
use crate::sync::preempt;
use crate::trace::events;

/// What a task goes through to its new CPU for; kept in the task while it is in an inbox.
pub(super) mod arrival {
    use super::Enqueue;

    pub const fn to_u8(kind: Enqueue) -> u8 {
        match kind {
            Enqueue::New => 0,
            Enqueue::Wakeup => 1,
            Enqueue::Migrated => 2,
        }
    }

    pub const fn from_u8(number: u8) -> Enqueue {
        match number {
            0 => Enqueue::New,
            1 => Enqueue::Wakeup,
            _ => Enqueue::Migrated,
        }
    }
}

/// Why a task comes to another CPU than it was on, as `sched_migrate` says it.
#[derive(Clone, Copy)]
#[repr(u8)]
pub(super) enum Reason {
    Wake = 0,
    Pull = 1,
}

/// Wakes a task, however it sleeps. False if it was not asleep.
pub fn wake(task: &Task) -> bool {
    with_irq_off(|irq| wake_with(task, irq))
}

/// [`wake`] where preemption is off as well: whoever allows it again goes through the scheduler, should the
/// task run instead.
#[inline(always)]
pub fn wake_with(task: &Task, irq: &IrqOff) -> bool {
    wake_from(task, Sleep::Interruptible, irq) || wake_from(task, Sleep::Uninterruptible, irq)
}

/// Wakes a task that sleeps interruptibly. False if it was not asleep in that way.
pub fn interrupt(task: &Task) -> bool {
    with_irq_off(|irq| wake_from(task, Sleep::Interruptible, irq))
}

fn with_irq_off<R>(work: impl FnOnce(&IrqOff) -> R) -> R {
    percpu::preempt_disable();
    let result = work(&IrqOff::new());
    preempt::enable();
    result
}

/// Makes a task that runs on another CPU go through the kernel soon. The caller has set what it is to find there, with
/// sequential consistency: a program that does not run yet finds it when it does.
pub fn kick_if_running(task: &Task) {
    percpu::preempt_disable();
    let cpu = task.cpu();
    if task.on_cpu.load(Ordering::SeqCst) && cpu != percpu::cpu_id() {
        events::ipi_send(cpu as u8, 0);
        apic::send_ipi(cpu, vectors::RESCHEDULE);
    }
    preempt::enable();
}

/// Makes a task that has never run runnable.
pub fn wake_new(task: &Task) {
    if task.state.change(State::Sleeping(Sleep::Uninterruptible), State::Runnable) {
        with_irq_off(|irq| place(task, Enqueue::New, irq));
    }
}

#[inline(always)]
fn wake_from(task: &Task, kind: Sleep, irq: &IrqOff) -> bool {
    if task.state.change(State::Sleeping(kind), State::Runnable) {
        place_woken(task, irq);
        return true;
    }
    wake_preparing(task, kind, irq)
}

#[inline(never)]
fn wake_preparing(task: &Task, kind: Sleep, irq: &IrqOff) -> bool {
    // Still on its CPU: it will find itself runnable and go on. Or it went to sleep just now.
    task.state.change(State::Preparing(kind), State::Runnable)
        || (task.state.change(State::Sleeping(kind), State::Runnable) && {
            place_woken(task, irq);
            true
        })
}

/// Finds a CPU for a task that has just become runnable, and gets it there.
#[inline(never)]
fn place_woken(task: &Task, irq: &IrqOff) {
    place(task, Enqueue::Wakeup, irq);
}

#[inline(always)]
fn place(task: &Task, why: Enqueue, irq: &IrqOff) {
    let seq = task.wake_seq.load(Ordering::Relaxed).wrapping_add(1);
    task.wake_seq.store(seq, Ordering::Relaxed);
    let is_saved = is_saved(task);
    let cpu = if is_saved { choose(task) } else { task.cpu() };
    events::sched_wakeup(task.pid(), cpu as u8, seq);
    // The most usual case, and the hottest: all of it in one function.
    if is_saved && cpu == percpu::cpu_id() {
        let this = cpu::this();
        let mut queue = this.queue.lock_with(irq);
        let now = tsc::now();
        admit_here(this, &mut queue, NonNull::from(task), (why, Reason::Wake), now, irq);
    } else {
        send(NonNull::from(task), cpu, why, irq);
    }
}

#[inline(always)]
fn choose(task: &Task) -> u32 {
    let allowed = task.allowed().intersection(online());
    // Not from its entity, which somebody who holds the task (`Home::hold`) may be changing.
    let entity = || {
        let policy = task.policy_relaxed();
        (policy, policy.weight())
    };
    placement::select_cpu(task.cpu() as usize, allowed, entity, view) as u32
}

/// Gets a runnable task, which is on no queue, onto CPU `cpu`.
pub(super) fn send(task: NonNull<Task>, cpu: u32, why: Enqueue, irq: &IrqOff) {
    let target = CPUS.of(cpu);
    if cpu == percpu::cpu_id() {
        // SAFETY: tasks live until they are reaped, which a runnable one is not.
        if is_saved(unsafe { task.as_ref() }) {
            let mut queue = target.queue.lock_with(irq);
            admit(target, &mut queue, task, (why, Reason::Wake), tsc::now(), irq);
            return;
        }
    }
    // SAFETY: as above.
    unsafe { task.as_ref() }.arrival.store(arrival::to_u8(why), Ordering::Relaxed);
    // SAFETY: runnable, on no queue and in no inbox: this CPU is the only one that places it.
    let pushed = unsafe { target.inbox.push(task) };
    if target.idle.wake_needs_ipi(pushed) {
        events::ipi_send(cpu as u8, 0);
        apic::send_ipi(cpu, vectors::RESCHEDULE);
    }
}

/// Takes what others have sent to this CPU into its queue.
#[cold]
#[inline(never)]
pub(super) fn drain_inbox(this: &Cpu, queue: &mut RunQueue, irq: &IrqOff) {
    let mut count = 0;
    for task in this.inbox.drain() {
        count += 1;
        // SAFETY: a task in an inbox is runnable, hence alive.
        let why = arrival::from_u8(unsafe { task.as_ref() }.arrival.load(Ordering::Relaxed));
        admit(this, queue, task, (why, Reason::Wake), tsc::now(), irq);
    }
    events::inbox_drain_at(irq, tsc::now(), count);
    if queue.should_make_way() {
        percpu::set_need_resched();
    }
}

/// Puts a runnable task on this CPU's queue; or sends it on, if it may not run here any more.
///
/// The order against `balance::set_affinity`: here the task's CPU is stored, then its mask read;
/// there the mask is stored, then the CPU read and its queue locked. One of the two sees the other.
pub(super) fn admit(
    this: &Cpu,
    queue: &mut RunQueue,
    task: NonNull<Task>,
    why: (Enqueue, Reason),
    now: u64,
    irq: &IrqOff,
) {
    admit_here(this, queue, task, why, now, irq);
}

#[inline(always)]
fn admit_here(
    this: &Cpu,
    queue: &mut RunQueue,
    task: NonNull<Task>,
    (why, reason): (Enqueue, Reason),
    now: u64,
    irq: &IrqOff,
) {
    let cpu = percpu::cpu_id();
    // SAFETY: runnable, hence alive.
    let it = unsafe { task.as_ref() };
    let from = it.home.move_to(cpu);
    let allowed = it.allowed().intersection(online());
    if !allowed.contains(cpu as usize)
        && let Some(other) = allowed.first()
    {
        send(task, other as u32, why, irq);
        return;
    }
    let seq = it.wake_seq.load(Ordering::Relaxed);
    if from != cpu && why != Enqueue::New {
        events::sched_migrate_at(irq, now, it.pid(), from as u8, cpu as u8, seq, reason as u8);
    }
    // SAFETY: the lock is held (`queue`), the task is on no queue and stays alive while it is on
    // this one.
    let preempt = unsafe { queue.enqueue(Task::entity_of(task), now, why) };
    this.publish(queue);
    events::sched_enqueue_at(irq, now, it.pid(), queue.nr_queued() as u16, seq);
    if preempt == Preempt::Yes {
        if !percpu::need_resched() {
            events::need_resched_at(irq, now, it.pid());
        }
        percpu::set_need_resched();
    } else {
        super::timer::cover_slice(this, queue, now, irq);
        super::balance::offer(this, allowed);
    }
}
