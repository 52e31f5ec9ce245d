//! Work goes where CPUs are free, and tasks stay where they may run.
//!
//! - A CPU that runs out of work *pulls*: it takes a waiting task from the CPU with the most.
//! - A CPU that keeps a task waiting *offers*: it kicks an idle CPU, or one that runs what makes way
//!   ([`Policy::IDLE`]), which then pulls.
//! - On its slice timer, a busy CPU evens out the load.
//!
//! Another CPU's queue is only ever tried, never waited for, so that two CPUs cannot wait for each
//! other; a failed try is repeated by the next timer or kick.

use core::ptr::NonNull;
use core::sync::atomic::{AtomicBool, Ordering};

use orrery_core::cpuset::CpuSet;
use orrery_core::sched::{
    Enqueue, Entity, Nice, Policy, Preempt, RunQueue, SchedInfo, Switch, placement,
};

use super::cpu::{self, CPUS, Cpu, online, view};
use super::switch::{is_running, is_saved};
use super::task::{Task, current};
use super::wake::{self, Reason};
use crate::arch::irq::IrqOff;
use crate::arch::{apic, cpu as hw, percpu, tsc, vectors};
use crate::sync::{PreemptOff, lockdep};
use crate::trace::events;

/// Looks for work elsewhere, for a CPU that has none. What it finds is on this CPU's queue and
/// picked when this returns.
#[cold]
#[inline(never)]
pub(super) fn pull(this: &Cpu, queue: &mut RunQueue, irq: &IrqOff) -> Option<NonNull<Entity>> {
    this.kicked.store(false, Ordering::SeqCst);
    let me = percpu::cpu_id() as usize;
    let mut candidates = online();
    candidates.remove(me);
    while let Some(victim) = placement::new_idle_pull(me, candidates, view) {
        candidates.remove(victim);
        if take_from(this, queue, victim as u32, irq) {
            // SAFETY: the lock is held; tasks on a queue are alive.
            return unsafe { queue.schedule(tsc::now(), Switch::Preempt) };
        }
    }
    None
}

/// Takes one task from the CPU that has most more to do than this one, if any.
#[inline(always)]
pub(super) fn even_out(this: &Cpu, irq: &IrqOff) {
    let cpus = online();
    if cpus.len() > 1 {
        even_out_among(cpus, this, irq);
    }
}

#[inline(never)]
fn even_out_among(cpus: CpuSet, this: &Cpu, irq: &IrqOff) {
    let me = percpu::cpu_id() as usize;
    if let Some(victim) = placement::periodic_balance(me, cpus, view) {
        let mut queue = this.queue.lock_with(irq);
        take_from(this, &mut queue, victim as u32, irq);
    }
}

fn take_from(this: &Cpu, queue: &mut RunQueue, victim: u32, irq: &IrqOff) -> bool {
    let me = percpu::cpu_id() as usize;
    let other = CPUS.of(victim);
    let Some(mut from) = other.queue.try_lock_with(irq) else { return false };
    let may_come = |entity: &Entity| {
        // SAFETY: entities on a queue are those of live tasks.
        let task = unsafe { Task::of_entity(NonNull::from(entity)).as_ref() };
        task.allowed().contains(me) && is_saved(task)
    };
    // SAFETY: the victim's lock is held.
    let Some(entity) = (unsafe { from.steal(tsc::now(), may_come) }) else { return false };
    other.publish(&from);
    drop(from);
    let task = Task::of_entity(entity);
    wake::admit(this, queue, task, (Enqueue::Migrated, Reason::Pull), tsc::now(), irq);
    true
}

/// Tells an idle CPU that a task waits here, if one of `cpus` is idle: those online that may run it.
#[inline]
pub(super) fn offer(this: &Cpu, cpus: CpuSet) {
    if this.has_waiting() && cpus.len() > 1 {
        offer_to_idle(cpus);
    }
}

#[inline(never)]
fn offer_to_idle(cpus: CpuSet) {
    let idle = cpus.iter().find(|&cpu| view(cpu).activity.is_idle());
    let free = match idle {
        None if SOMEBODY_MAKES_WAY.load(Ordering::Relaxed) => who_makes_way(cpus),
        found => found,
    };
    if let Some(cpu) = free {
        let target = CPUS.of(cpu as u32);
        if !target.kicked.swap(true, Ordering::SeqCst) && target.idle.kick_needs_ipi() {
            events::ipi_send(cpu as u8, 0);
            apic::send_ipi(cpu as u32, vectors::RESCHEDULE);
        }
    }
}

/// Whether any task has ever had [`Policy::IDLE`].
static SOMEBODY_MAKES_WAY: AtomicBool = AtomicBool::new(false);

/// A CPU that runs what makes way; none if this one does so itself.
#[cold]
fn who_makes_way(cpus: CpuSet) -> Option<usize> {
    if view(percpu::cpu_id() as usize).makes_way() {
        return None;
    }
    cpus.iter().find(|&cpu| view(cpu).makes_way())
}

/// Another CPU has kicked this one, in an interrupt: there is work, or something to be looked at.
#[cold]
#[inline(never)]
pub(super) fn on_kick(this: &Cpu, irq: &IrqOff) {
    if this.view().makes_way() {
        even_out(this, irq);
    }
    percpu::set_need_resched();
}

/// Why the running task is about to be scheduled away: preempted, or because it may not run
/// here any more. In the second case it is sent on its way as soon as it is saved, by
/// [`dispatch_departed`].
pub(super) fn reason_to_leave() -> Switch {
    let task = current();
    let this = cpu::this();
    let me = percpu::cpu_id() as usize;
    let is_idle_task = core::ptr::eq(task, this.idle_task.load(Ordering::Relaxed));
    let allowed = task.allowed().intersection(online());
    if is_idle_task || allowed.contains(me) || allowed.is_empty() {
        return Switch::Preempt;
    }
    if !this.departing.load(Ordering::Relaxed).is_null() {
        // Interrupts have been off since another left, which is still to be sent: this one goes after it.
        return Switch::Preempt;
    }
    this.departing.store(core::ptr::from_ref(task).cast_mut(), Ordering::Relaxed);
    // The task cannot send itself while its registers are unsaved. An interrupt to this CPU can:
    // it comes when the switch is done and interrupts are on again.
    apic::send_ipi(percpu::cpu_id(), vectors::RESCHEDULE);
    Switch::Migrate
}

/// Sends a task that has left this CPU to one where it may run. In an interrupt.
pub(super) fn dispatch_departed(this: &Cpu, irq: &IrqOff) {
    let departed = this.departing.swap(core::ptr::null_mut(), Ordering::Relaxed);
    if let Some(task) = NonNull::new(departed) {
        // SAFETY: runnable, hence alive.
        let it = unsafe { task.as_ref() };
        if core::ptr::eq(it, current()) {
            // The interrupt came before the switch; it comes again after it.
            this.departing.store(departed, Ordering::Relaxed);
            apic::send_ipi(percpu::cpu_id(), vectors::RESCHEDULE);
            return;
        }
        let allowed = it.allowed().intersection(online());
        let cpu = allowed.first().unwrap_or(percpu::cpu_id() as usize);
        wake::send(task, cpu as u32, Enqueue::Migrated, irq);
    }
}

/// Restricts a task to these CPUs. It is on none of the others when this returns, unless its CPUs have been
/// changed again; the running task may still be, where the caller keeps it from being preempted. For tasks that hold no
/// spinlock.
///
/// # Errors
/// [`NoCpu`] if none of them is online; nothing has changed then.
pub fn set_affinity(task: &Task, cpus: CpuSet) -> Result<(), NoCpu> {
    if cpus.intersection(online()).is_empty() {
        return Err(NoCpu);
    }
    task.allowed.store(cpus.bits(), Ordering::SeqCst);
    // Its CPU may pass over the kick: by a yield, or because it has just decided to run another task, after which
    // this one waits there. So it is looked at until it has gone.
    lockdep::assert_none_held();
    while expel(task) == Fate::Stays && !core::ptr::eq(task, current()) {
        hw::pause();
    }
    Ok(())
}

/// Gets a task off the CPU that it is on, if it may not be there, or has that CPU look for itself.
fn expel(task: &Task) -> Fate {
    let _guard = PreemptOff::new();
    let pointer = NonNull::from(task);
    let (fate, runs_on) = locked(task, |this, queue| {
        let cpu = task.cpu();
        if task.allowed().contains(cpu as usize) || !task.entity().is_on_queue() {
            return (Fate::IsFine, None);
        }
        if is_running(queue, pointer) {
            return (Fate::Stays, Some(cpu));
        }
        if !is_saved(task) {
            return (Fate::Stays, None);
        }
        // SAFETY: the lock is held, the task waits on this queue.
        unsafe { queue.dequeue(Task::entity_of(pointer), tsc::now()) };
        this.publish(queue);
        (Fate::IsTaken, None)
    });
    if let Some(cpu) = runs_on {
        want_resched_on(cpu);
    }
    if fate == Fate::IsTaken {
        let target = task.allowed().intersection(online()).first().unwrap_or(0);
        wake::send(pointer, target as u32, Enqueue::Migrated, &IrqOff::new());
    }
    fate
}

/// What becomes of a task whose CPU is no longer allowed.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Fate {
    /// It is not on that CPU's queue: the next enqueue looks at its mask.
    IsFine,
    /// It runs there, and leaves at the next reschedule; or it has just run there, and is taken once it is saved.
    Stays,
    /// It waited there and has been sent on its way.
    IsTaken,
}

/// No CPU of the set is online.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NoCpu;

/// Uses a task's entity under the lock of its CPU's queue.
pub(super) fn with_queue_of<R>(task: &Task, with: impl FnOnce(&Entity) -> R) -> R {
    locked(task, |_, _| with(task.entity()))
}

/// How a task has been scheduled, up to now.
pub(super) fn info_now(task: &Task) -> SchedInfo {
    locked(task, |_, queue| {
        queue.update_accounts(tsc::now());
        task.entity().info()
    })
}

/// Gives a task another policy, wherever it is.
pub fn set_policy(task: &Task, policy: Policy) {
    if policy == Policy::IDLE {
        SOMEBODY_MAKES_WAY.store(true, Ordering::Relaxed);
    }
    let _guard = PreemptOff::new();
    let cpu = locked(task, |this, queue| {
        let entity = Task::entity_of(NonNull::from(task));
        // SAFETY: the lock of its home's queue is held: the task is on that queue or, being held, on none until
        // this is done.
        let preempt = unsafe { queue.set_policy(entity, policy, tsc::now()) };
        task.note_policy(policy);
        this.publish(queue);
        (preempt == Preempt::Yes).then(|| task.cpu())
    });
    if let Some(cpu) = cpu {
        want_resched_on(cpu);
    }
}

/// Gives a task another nice value; with other policies it has no effect yet.
pub fn set_nice(task: &Task, nice: Nice) {
    match task.policy() {
        Policy::IDLE | Policy::Fifo(_) | Policy::RoundRobin(_) => task.note_nice(nice),
        Policy::Fair(_) => set_policy(task, Policy::Fair(nice)),
    }
}

/// Runs `with` under the lock of the queue that the task is on. If it is on none, it stays so meanwhile.
fn locked<R>(task: &Task, with: impl FnOnce(&Cpu, &mut RunQueue) -> R) -> R {
    let irq = IrqOff::new();
    loop {
        let cpu = task.cpu();
        let this = CPUS.of(cpu);
        let mut queue = this.queue.lock_with(&irq);
        if let Some(_held) = task.home.hold(cpu) {
            return with(this, &mut queue);
        }
    }
}

fn want_resched_on(cpu: u32) {
    if cpu == percpu::cpu_id() {
        percpu::set_need_resched();
    } else {
        CPUS.of(cpu).kicked.store(true, Ordering::SeqCst);
        apic::send_ipi(cpu, vectors::RESCHEDULE);
    }
}
