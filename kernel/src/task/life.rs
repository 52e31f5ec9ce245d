//! Exiting, joining, stopping, reaping.
//!
//! A task that has exited is a zombie until it is buried: by [`JoinHandle::join`], which takes its exit code, or,
//! where nobody will join it, by whoever makes the next task or is the next to exit. The work queue looks for such
//! tasks as well, but only every few milliseconds: to be woken for each would cost more than all else in a
//! thread's end. Two bits in the task decide who buries it: the one that sets the second of them.

use alloc::sync::Arc;
use core::mem::ManuallyDrop;
use core::ptr::NonNull;
use core::sync::atomic::Ordering;
use core::time::Duration;

use orrery_core::inbox::Inbox;

use super::registry;
use super::work::{self, Then, Work};
use crate::arch::{cpu, percpu};
use crate::sched::task::{EXITED, HANDLE_GONE, interruption};
use crate::sched::{State, Task, current, switch, wake};
use crate::trace::events;

/// Tasks that have exited and that nobody will join.
static DEAD: Inbox<Task> = Inbox::new();
/// Buries those that no new task's maker has come to bury.
static REAP: Work = Work::new(reap_late);
/// How long the work queue leaves the dead to others.
const PATIENCE: Duration = Duration::from_millis(10);

/// Ends the running task.
pub fn exit(code: i32) -> ! {
    exit_after(code, || {})
}

/// Ends the running task; `last` is the last thing it does. Nothing preempts the task from there on, so
/// that those whom `last` wakes find it gone.
pub fn exit_after(code: i32, last: impl FnOnce()) -> ! {
    let task = current();
    // Where memory is short, many die while none can be made.
    reap();
    registry::orphan(task);
    task.exit_code.store(code, Ordering::Relaxed);
    events::task_exit(task.pid(), code);
    // From here to the switch the task must not be preempted: whoever buries it waits, spinning,
    // for it to be off its CPU.
    percpu::preempt_disable();
    last();
    let before = task.ends.fetch_or(EXITED, Ordering::AcqRel);
    if before & HANDLE_GONE != 0 {
        // SAFETY: a running task is in no inbox; `reap` keeps it until it is off its CPU.
        let _ = unsafe { DEAD.push(NonNull::from(task)) };
        work::queue(&REAP);
    } else {
        task.exited.wake_all();
    }
    switch::exit_current()
}

/// [`REAP`].
fn reap_late(_work: NonNull<Work>) -> Then {
    if reap() { Then::Again(PATIENCE) } else { Then::Done }
}

/// Buries the tasks that nobody joins, but those that are still on their way off their CPU. Says whether there
/// were any.
pub(super) fn reap() -> bool {
    let mut any = false;
    for task in DEAD.drain() {
        any = true;
        // SAFETY: the reference that the scheduler held is still there: `bury` takes it.
        let dead = unsafe { task.as_ref() };
        if switch::is_gone(dead) {
            bury(dead);
        } else {
            // SAFETY: it has just left this inbox, and is in no other.
            let _ = unsafe { DEAD.push(task) };
        }
    }
    any
}

/// Frees a zombie's number and the scheduler's reference to it.
fn bury(task: &Task) {
    while !switch::is_gone(task) {
        cpu::pause();
    }
    if task.state.change(State::Zombie, State::Dead) {
        registry::leave(task);
        // SAFETY: `switch::prepare` leaked this reference for the scheduler, which is done with
        // the task; `change` lets one caller come here.
        unsafe { Arc::decrement_strong_count(core::ptr::from_ref(task)) };
    }
}

/// The right to a task's exit code. Dropping it lets the task go on by itself.
#[must_use = "a dropped handle cannot be joined"]
pub struct JoinHandle {
    task: ManuallyDrop<Arc<Task>>,
}

impl JoinHandle {
    pub(super) fn new(task: Arc<Task>) -> Self {
        Self { task: ManuallyDrop::new(task) }
    }

    /// The handle of a task that has none yet.
    pub fn of_new(task: &Arc<Task>) -> Self {
        Self::new(task.clone())
    }

    /// Says of a task that has no handle that nobody will join it.
    pub fn detached(task: &Arc<Task>) {
        drop(Self::new(task.clone()));
    }

    /// The task.
    pub fn task(&self) -> &Arc<Task> {
        &self.task
    }

    /// Waits until the task has exited, and takes its exit code.
    pub fn join(self) -> i32 {
        let this = ManuallyDrop::new(self);
        // SAFETY: taken once; `this` is not used again and drops nothing.
        let task = unsafe { core::ptr::read(&*this.task) };
        task.exited.wait_until(|| task.ends.load(Ordering::Acquire) & EXITED != 0);
        bury(&task);
        task.exit_code.load(Ordering::Relaxed)
    }

    /// Asks the task to stop ([`Task::stop_requested`]), and joins it.
    pub fn stop(self) -> i32 {
        self.request_stop();
        self.join()
    }

    /// Asks the task to stop, and ends its interruptible sleep.
    pub fn request_stop(&self) {
        request_stop(&self.task);
    }
}

/// Asks a task to stop, and ends its interruptible sleep.
pub(super) fn request_stop(task: &Task) {
    task.interruptions.fetch_or(interruption::STOP, Ordering::SeqCst);
    wake::interrupt(task);
}

impl Drop for JoinHandle {
    fn drop(&mut self) {
        if self.task.ends.fetch_or(HANDLE_GONE, Ordering::AcqRel) & EXITED != 0 {
            bury(&self.task);
        }
        // SAFETY: dropped once, here; `join` forgets its `self`.
        unsafe { ManuallyDrop::drop(&mut self.task) };
    }
}
