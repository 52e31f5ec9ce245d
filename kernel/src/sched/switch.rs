//! `schedule`: the one place where a CPU changes tasks.
//!
//! The run queue's lock is held for the decision, not over the switch. What makes that safe is
//! `on_cpu`: it is set before a task is resumed and cleared, with release, when the registers of
//! the task before it are saved, and no CPU resumes a task whose `on_cpu` it has not seen clear,
//! with acquire:
//!
//! ```text
//!   CPU that leaves `prev`                        CPU that resumes `prev`
//!
//!   lock; prev goes to sleep or to the queue      a waker reads prev.on_cpu:
//!   unlock                                           set:   hand prev to the *left* CPU's inbox
//!   switch: save prev's registers                    clear: hand prev to any CPU
//!   prev.on_cpu = false          (release)        a puller takes prev only if on_cpu is clear
//!                                                                              (acquire)
//! ```
//!
//! The left CPU itself may resume `prev` without looking: it has finished its own switch.
//!
//! Preemption is counted off exactly once at the switch, on both sides, and interrupts are off.

use alloc::sync::Arc;
use core::ptr::NonNull;
use core::sync::atomic::Ordering;

use orrery_core::sched::{Policy, RunQueue, Switch};

use super::cpu::{self, Cpu};
use super::task::{State, Task, current};
use super::{balance, epoch, timer, wake};
use crate::arch::context;
use crate::arch::irq::{self, IrqOff};
use crate::arch::{latency, percpu, tsc, user};
use crate::mm::space;
use crate::sync::{lockdep, preempt};
use crate::trace::events;
use crate::trace::record::{self, Category};

/// Lets others run first.
///
/// Inlined into its callers: a switch clobbers all registers, and a loop around it then saves
/// them once, not at each turn.
#[inline(always)]
pub fn yield_now() {
    percpu::preempt_disable();
    irq::disable();
    schedule(Switch::Yield);
    // SAFETY: a task yields with interrupts on; nothing is held.
    unsafe { irq::enable() };
    preempt::enable();
}

/// Sleeps, if the running task is still prepared to ([`State::Preparing`]): a wake since then makes
/// this return at once.
///
/// Inlined, as [`yield_now`] is.
#[inline(always)]
pub fn sleep_prepared() {
    lockdep::assert_none_held();
    debug_assert!(percpu::preempt_depth() == 0, "a task sleeps with preemption off");
    percpu::preempt_disable();
    irq::disable();
    schedule(Switch::Block);
    // SAFETY: as in `yield_now`.
    unsafe { irq::enable() };
    preempt::enable();
}

/// Leaves the CPU for ever. Preemption is counted off once.
pub fn exit_current() -> ! {
    irq::disable();
    schedule(Switch::Exit);
    unreachable!("an exited task was resumed");
}

/// Goes through the scheduler because a reschedule is wanted. Interrupts may be on or off, and
/// are as before when it returns.
pub fn preempt_current() {
    let _irq = IrqOff::new();
    latency::interrupts_return();
    while percpu::preemption_is_due() {
        percpu::preempt_disable();
        schedule(balance::reason_to_leave());
        percpu::preempt_enable_no_resched();
    }
}

/// From the idle task, whose preemption is always off: runs what there is to run.
pub(super) fn schedule_idle() {
    schedule(Switch::Preempt);
}

/// Takes what others have sent to this CPU, in an interrupt. The scheduler follows if somebody
/// should run instead of the running task.
pub(super) fn take_inbox(this: &Cpu, irq: &IrqOff) {
    if !this.inbox.is_empty() {
        wake::drain_inbox(this, &mut this.queue.lock_with(irq), irq);
    }
}

/// Ends the running task's turn.
///
/// Interrupts are off and preemption is counted off once.
#[inline(always)]
pub(super) fn schedule(why: Switch) {
    lockdep::assert_none_held();
    // SAFETY: interrupts are off, and stay so until the caller turns them on.
    let irq = unsafe { IrqOff::assume() };
    let this = cpu::this();
    let prev = current();
    // Whether or not another task follows: nobody comes here out of a read-side section. A yield
    // leaves it to the other switches, and to those who are in a hurry (`epoch::hurry`).
    if why != Switch::Yield {
        epoch::EPOCH.quiescent_at(this.seen());
    }
    let mut queue = this.queue.lock_with(&irq);
    // Before the task goes to sleep: from then on a waker may send it to this very inbox, and it
    // must not be enqueued while it is still the queue's running one.
    if !this.inbox.is_empty() {
        wake::drain_inbox(this, &mut queue, &irq);
    }
    // Known here; a moment later a waker may have changed the state again.
    let prev_state = match why {
        Switch::Yield | Switch::Preempt | Switch::Migrate => State::Runnable,
        Switch::Exit => State::Zombie,
        // Under the queue's lock, so that accounts and state change together.
        Switch::Block => match prev.state.commit_to_sleep() {
            Some(asleep) => asleep,
            None => return,
        },
    };
    percpu::clear_need_resched();
    let mut now = tsc::now();
    // SAFETY: the lock is held; tasks on a queue are kept alive by the reference that their
    // spawn leaked.
    let mut picked = unsafe { queue.schedule(now, why) };
    if why == Switch::Exit {
        prev.state.set(State::Zombie);
    }
    if why != Switch::Yield && why != Switch::Preempt {
        this.publish(&queue);
    }
    if picked.is_none() {
        picked = balance::pull(this, &mut queue, &irq);
        // A task that was pulled may have run elsewhere until a moment ago.
        now = tsc::now();
    }
    let next = match picked {
        Some(entity) => {
            let next = Task::of_entity(entity);
            // SAFETY: on the queue, hence alive.
            let policy = unsafe { next.as_ref() }.entity().policy();
            match (why, policy) {
                (_, Policy::Fifo(_)) => {}
                (Switch::Yield, _) => timer::cover_slice_after_yield(this, &queue, now, &irq),
                _ => timer::cover_slice(this, &queue, now, &irq),
            }
            next.as_ptr()
        }
        None => this.idle_task.load(Ordering::Relaxed),
    };
    drop(queue);
    if core::ptr::eq(next, prev) {
        return;
    }
    // SAFETY: the queue gave `next` to this CPU, alive.
    let next = unsafe { &*next };
    // One test for both, so that a switch between the kernel's own tasks pays for neither; and another, so that its
    // trace does not pay for programs.
    if record::any_enabled::<{ Category::Sched as u32 | record::PROGRAMS_EXIST }>() {
        let seq = next.wake_seq.load(Ordering::Relaxed);
        events::sched_switch_at(&irq, now, next.pid(), prev_state.trace_number(), seq);
        if record::any_enabled::<{ record::PROGRAMS_EXIST }>() {
            // SAFETY: this is the switch between the two.
            unsafe { switch_programs(&irq, prev, next) };
        }
    }
    this.switches.store(this.switches.load(Ordering::Relaxed) + 1, Ordering::Relaxed);
    next.on_cpu.store(true, Ordering::Relaxed);
    // SAFETY: interrupts are off; `next` runs from here on.
    unsafe { percpu::set_current(core::ptr::from_ref(next).cast_mut().cast()) };
    // SAFETY: `prev` runs here; `next` is suspended and this CPU's (module header).
    let suspended = unsafe {
        context::switch::<Task, { Task::CONTEXT_OFFSET }>(
            core::ptr::from_ref(prev).cast_mut(),
            core::ptr::from_ref(next).cast_mut(),
        )
    };
    finish(suspended);
}

/// Exchanges what programs have in the CPU besides the kernel's registers. The kernel's own tasks run in
/// whatever address space is loaded.
///
/// # Safety
/// At the switch from `prev` to `next`.
#[inline]
unsafe fn switch_programs(irq: &IrqOff, prev: &Task, next: &Task) {
    let (from, to) = (prev.program(), next.program());
    if from.is_none() && to.is_none() {
        return;
    }
    if let Some(to) = to {
        // Seen before it looks at its interruptions on its way to ring 3: who sets one looks here next
        // (`wake::kick_if_running`).
        next.on_cpu.swap(true, Ordering::SeqCst);
        // SAFETY: by contract; contexts live as long as their tasks.
        unsafe { user::switch(irq, &to.context) };
        // SAFETY: the owner of the program part keeps the address space alive while it is set.
        if let Some(space) = unsafe { to.space.load(Ordering::Acquire).as_ref() } {
            space::switch_to(irq, space);
        }
    }
    // Last, to be left for without coming back.
    // SAFETY: as above.
    unsafe { user::switch_fpu(irq, from.map(|it| &it.context), to.map(|it| &it.context)) };
}

/// First thing on the stack of a resumed task: the task that was left has its registers saved.
#[inline(always)]
fn finish(suspended: *mut Task) {
    // SAFETY: `switch` reports the task that this CPU has just left, which stays alive until its
    // `on_cpu` is clear.
    unsafe { (*suspended).on_cpu.store(false, Ordering::Release) };
}

/// Where a new task begins.
pub(super) extern "sysv64" fn begin_task(suspended: *mut (), _argument: usize) -> ! {
    finish(suspended.cast());
    // SAFETY: a new task holds nothing.
    unsafe { irq::enable() };
    preempt::enable();
    let body = current().body.lock().take();
    let code = body.map_or(0, |body| body());
    crate::task::exit(code)
}

/// Makes `task` the running one on a CPU that has run none so far: its idle task, which goes on
/// where the CPU is.
///
/// # Safety
/// Once per CPU, by that CPU, interrupts off. `task` lives for ever.
pub(super) unsafe fn adopt_idle(cpu: u32, task: NonNull<Task>) {
    // SAFETY: by contract.
    unsafe {
        task.as_ref().state.set(State::Runnable);
        task.as_ref().on_cpu.store(true, Ordering::Relaxed);
        task.as_ref().home.settle(cpu);
        percpu::set_current(task.as_ptr().cast());
    }
    super::cpu::bring_online(cpu, task.as_ptr());
}

/// Makes a task that has not run ready to: its stack, and the reference that the scheduler keeps
/// until the task is buried.
pub fn prepare(task: &Arc<Task>) {
    if let Some(stack_pointer) = task.initial_stack_pointer() {
        // SAFETY: the task has not run; its stack is its own, and nobody else has its context.
        unsafe { (*task.context.get()).prepare(stack_pointer, begin_task, 0) };
    }
    core::mem::forget(Arc::clone(task));
}

/// Whether an exited task has left its CPU for good.
pub fn is_gone(task: &Task) -> bool {
    task.state() == State::Zombie && is_saved(task)
}

/// Whether a task may be resumed by another CPU than the one it
/// ran on.
#[inline(always)]
pub(super) fn is_saved(task: &Task) -> bool {
    !task.on_cpu.load(Ordering::Acquire)
}

/// Whether anything waits for this CPU: in its inbox or its queue.
pub(super) fn work_waits(this: &Cpu) -> bool {
    !this.inbox.is_empty()
        || percpu::need_resched()
        || this.kicked.load(Ordering::SeqCst)
        || this.view().nr_running != 0
}

/// The running entity's queue, for callers that hold its lock: see `RunQueue::current`.
pub(super) fn is_running(queue: &RunQueue, task: NonNull<Task>) -> bool {
    queue.current() == Some(Task::entity_of(task))
}
