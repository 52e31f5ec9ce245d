//! Wait queues: tasks that sleep until a condition holds.
//!
//! A waiter puts itself on the queue, *prepares* to sleep, looks at its condition once more and then
//! sleeps; a waker changes what the condition reads and then wakes. Both orders are safe:
//!
//! ```text
//!   waiter                                waker
//!   on the queue, which is occupied       make the condition true
//!   state = Preparing      (SeqCst)       fence; is the queue occupied?
//!   condition()?  no                      lock the queue, take the waiter off it
//!   sleep_prepared()                      state: Preparing → Runnable: it will not sleep
//!                                                Sleeping  → Runnable: enqueue it
//! ```
//!
//! Waiters lie on their tasks' stacks, those of a [`WaitSet`] on the heap. A waiter is taken off the
//! queue, under its lock, by whoever wakes it or by itself when it goes on, so none is left when its
//! memory goes. A waiter that finds itself woken goes on without the lock.

use alloc::vec::Vec;
use core::cell::Cell;
use core::ptr::{self, NonNull};
use core::sync::atomic::{AtomicBool, Ordering, fence};

use super::task::{Sleep, State, Task, current};
use super::{switch, timer, wake};
use crate::arch::tsc;
use crate::sync::SpinLock;

/// Why a wait ended without its condition.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WaitError {
    /// The task was asked to stop, or has a signal.
    Interrupted,
    /// The deadline came.
    TimedOut,
}

/// How a task waits.
#[derive(Clone, Copy, Debug)]
pub struct WaitMode {
    /// Whether a request to stop, or a signal, ends the wait.
    pub sleep: Sleep,
    /// Whether [`WaitQueue::wake_one`] stops after waking this waiter.
    pub sharing: Sharing,
    /// When to give up.
    pub deadline_ticks: Option<u64>,
}

/// Who else a wake that reaches a waiter reaches.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sharing {
    /// Everybody is woken with it.
    Shared,
    /// One at a time, in the order in which they came.
    Exclusive,
}

impl WaitMode {
    /// Waits for as long as it takes, woken with all others.
    pub const PLAIN: Self =
        Self { sleep: Sleep::Uninterruptible, sharing: Sharing::Shared, deadline_ticks: None };
}

struct Waiter {
    task: NonNull<Task>,
    sharing: Sharing,
    /// Set by the waiter, under the queue's lock. Whoever takes it off clears it, and touches the waiter no more.
    queued: AtomicBool,
    next: Cell<*const Waiter>,
    prev: Cell<*const Waiter>,
}

impl Waiter {
    /// The running task's.
    fn new(sharing: Sharing) -> Self {
        Self {
            task: NonNull::from(current()),
            sharing,
            queued: AtomicBool::new(false),
            next: Cell::new(ptr::null()),
            prev: Cell::new(ptr::null()),
        }
    }
}

/// The queue's two ends. Shared waiters stand before exclusive ones.
struct Waiters {
    first: *const Waiter,
    last: *const Waiter,
}

// SAFETY: waiters are only reached under the queue's lock, and leave it before they go.
unsafe impl Send for Waiters {}

/// Tasks that wait for something.
pub struct WaitQueue {
    waiters: SpinLock<Waiters>,
    /// Whether there are any, for wakers that find none. Written under the lock.
    is_occupied: AtomicBool,
}

impl WaitQueue {
    /// A queue that nobody waits on.
    pub const fn new() -> Self {
        let waiters = Waiters { first: ptr::null(), last: ptr::null() };
        Self { waiters: SpinLock::new("wait queue", waiters), is_occupied: AtomicBool::new(false) }
    }

    /// Sleeps until `condition` holds. It is called with nothing held, several times.
    pub fn wait_until(&self, condition: impl FnMut() -> bool) {
        // Neither interruptible nor limited: it cannot fail.
        let _ = self.wait(WaitMode::PLAIN, condition);
    }

    /// Sleeps until `condition` holds, or until `mode` ends the wait.
    ///
    /// # Errors
    /// [`WaitError`] if the wait ended while the condition did not hold.
    pub fn wait(
        &self,
        mode: WaitMode,
        mut condition: impl FnMut() -> bool,
    ) -> Result<(), WaitError> {
        if condition() { Ok(()) } else { self.wait_for(mode, condition) }
    }

    /// [`Self::wait`] for a condition that has just been seen not to hold.
    ///
    /// # Errors
    /// As [`Self::wait`].
    pub fn wait_for(
        &self,
        mode: WaitMode,
        mut condition: impl FnMut() -> bool,
    ) -> Result<(), WaitError> {
        let task = current();
        let waiter = Waiter::new(mode.sharing);
        if let Some(deadline) = mode.deadline_ticks {
            timer::arm(deadline);
        }
        let result = loop {
            self.prepare(&waiter, mode.sleep);
            if condition() {
                break Ok(());
            }
            if let Some(error) = end_of_wait(task, mode.sleep, mode.deadline_ticks) {
                break Err(error);
            }
            switch::sleep_prepared();
            // Mostly it holds, and there is no need to prepare again.
            if condition() {
                break Ok(());
            }
        };
        task.state.set(State::Runnable);
        let was_woken = self.leave(&waiter);
        if mode.deadline_ticks.is_some() {
            timer::disarm();
        }
        if was_woken && result.is_err() && mode.sharing == Sharing::Exclusive {
            // The wake was meant for one that can use it.
            self.wake_one();
        }
        result
    }

    #[inline(always)]
    fn prepare(&self, waiter: &Waiter, sleep: Sleep) {
        let mut waiters = self.waiters.lock_irq_of_task();
        waiters.insert(waiter);
        self.is_occupied.store(true, Ordering::Relaxed);
        current().state.set(State::Preparing(sleep));
    }

    /// Puts a waiter on the queue. A fence has to follow.
    fn enter(&self, waiter: &Waiter) {
        let mut waiters = self.waiters.lock_irq();
        waiters.insert(waiter);
        self.is_occupied.store(true, Ordering::Relaxed);
    }

    /// Takes a waiter off the queue. True if it was woken, so that it was off already.
    #[inline]
    fn leave(&self, waiter: &Waiter) -> bool {
        // After a wake there is nothing to do, and nobody to wait for.
        !waiter.queued.load(Ordering::Acquire) || self.take_off(waiter)
    }

    #[inline(never)]
    fn take_off(&self, waiter: &Waiter) -> bool {
        let mut waiters = self.waiters.lock_irq();
        let was_woken = !waiter.queued.load(Ordering::Relaxed);
        waiters.remove(waiter);
        self.is_occupied.store(!waiters.first.is_null(), Ordering::Relaxed);
        was_woken
    }

    /// Wakes all shared waiters, and the first exclusive one. True if there was anyone.
    pub fn wake_one(&self) -> bool {
        self.wake(1)
    }

    /// Wakes everybody. True if there was anyone.
    pub fn wake_all(&self) -> bool {
        self.wake(usize::MAX)
    }

    #[inline]
    fn wake(&self, exclusive: usize) -> bool {
        // Between what makes the condition true and this look. A waiter has the fence of its change of state
        // between its place in the queue and its last look at the condition: one of the two sees the other.
        fence(Ordering::SeqCst);
        self.is_occupied.load(Ordering::Relaxed) && self.wake_queued(exclusive)
    }

    fn wake_queued(&self, mut exclusive: usize) -> bool {
        let mut waiters = self.waiters.lock_irq();
        let mut any = false;
        // SAFETY: a queued waiter's frame lives until it is off the queue, which it is not without the lock
        // that is held here.
        while let Some(waiter) = unsafe { waiters.first.as_ref() } {
            if waiter.sharing == Sharing::Exclusive {
                if exclusive == 0 {
                    break;
                }
                exclusive -= 1;
            }
            let task = waiter.task;
            waiters.unlink(waiter);
            any = true;
            // SAFETY: the task may go on from here and end, but it is freed only after this CPU has gone through
            // the scheduler (`epoch`), and preemption is off. Interrupt handlers either wake tasks that never end,
            // or are in `epoch::in_interrupt`.
            wake::wake_with(unsafe { task.as_ref() }, waiters.irq());
        }
        self.is_occupied.store(!waiters.first.is_null(), Ordering::Relaxed);
        any
    }

    /// Whether somebody may wait, for those who have had a barrier after what waiters look at changed.
    #[inline(always)]
    pub fn may_be_occupied(&self) -> bool {
        self.is_occupied.load(Ordering::Relaxed)
    }

    /// Whether somebody waits.
    pub fn has_waiters(&self) -> bool {
        !self.waiters.lock_irq().first.is_null()
    }
}

impl Default for WaitQueue {
    fn default() -> Self {
        Self::new()
    }
}

/// Places on several queues, for a task that waits for whichever wakes it first.
///
/// Its room is allocated before the first place is taken, so that places do not move while they are queued. However often
/// a queue was added, the task has one place there: who wakes a queue takes all places off it in one go, and there
/// are no more than tasks.
pub struct WaitSet<'q> {
    places: Vec<(&'q WaitQueue, Waiter)>,
}

impl<'q> WaitSet<'q> {
    /// Room for so many queues; `None` without the memory for it.
    pub fn with_capacity(queues: usize) -> Option<Self> {
        let mut places = Vec::new();
        places.try_reserve_exact(queues).ok()?;
        Some(Self { places })
    }

    /// Adds a queue to wait on.
    ///
    /// # Panics
    /// If there is no room for it.
    pub fn add(&mut self, queue: &'q WaitQueue) {
        assert!(self.places.len() < self.places.capacity(), "a wait set has no room left");
        self.places.push((queue, Waiter::new(Sharing::Shared)));
    }

    /// Sleeps until `condition` holds, which is looked at whenever one of the queues is woken, or until the
    /// wait ends otherwise. The condition is called with nothing held.
    ///
    /// # Errors
    /// [`WaitError`] if the wait ended while the condition did not hold.
    pub fn wait(
        &mut self,
        sleep: Sleep,
        deadline_ticks: Option<u64>,
        mut condition: impl FnMut() -> bool,
    ) -> Result<(), WaitError> {
        let task = current();
        self.places.sort_unstable_by_key(|&(queue, _)| ptr::from_ref(queue));
        self.places.dedup_by_key(|&mut (queue, _)| ptr::from_ref(queue));
        if let Some(deadline) = deadline_ticks {
            timer::arm(deadline);
        }
        let result = loop {
            // First the state, then the places: whoever finds one finds a task that it can wake, and a wake
            // that comes before all are taken is not forgotten.
            task.state.set(State::Preparing(sleep));
            for (queue, waiter) in &self.places {
                queue.enter(waiter);
            }
            fence(Ordering::SeqCst);
            if condition() {
                break Ok(());
            }
            if let Some(error) = end_of_wait(task, sleep, deadline_ticks) {
                break Err(error);
            }
            switch::sleep_prepared();
        };
        task.state.set(State::Runnable);
        for (queue, waiter) in &self.places {
            queue.leave(waiter);
        }
        if deadline_ticks.is_some() {
            timer::disarm();
        }
        result
    }
}

/// Why a wait whose condition does not hold ends now, if it does.
fn end_of_wait(task: &Task, sleep: Sleep, deadline_ticks: Option<u64>) -> Option<WaitError> {
    if sleep == Sleep::Interruptible && task.is_interrupted() {
        return Some(WaitError::Interrupted);
    }
    deadline_ticks.is_some_and(|deadline| tsc::now() >= deadline).then_some(WaitError::TimedOut)
}

impl Waiters {
    /// Puts a waiter on the queue unless it is there: shared ones first, exclusive ones last.
    #[inline(always)]
    fn insert(&mut self, waiter: &Waiter) {
        if waiter.queued.load(Ordering::Relaxed) {
            return;
        }
        waiter.queued.store(true, Ordering::Relaxed);
        let (prev, next) = match waiter.sharing {
            Sharing::Shared => (ptr::null(), self.first),
            Sharing::Exclusive => (self.last, ptr::null()),
        };
        waiter.prev.set(prev);
        waiter.next.set(next);
        self.link(prev, next, waiter, waiter);
    }

    fn remove(&mut self, waiter: &Waiter) {
        if waiter.queued.load(Ordering::Relaxed) {
            self.unlink(waiter);
        }
    }

    /// Takes a waiter off that is on the queue.
    #[inline(always)]
    fn unlink(&mut self, waiter: &Waiter) {
        let (prev, next) = (waiter.prev.get(), waiter.next.get());
        self.link(prev, next, next, prev);
        waiter.queued.store(false, Ordering::Release);
    }

    /// Lets `prev` (or the queue's start) lead to `after_prev`, and `next` (or its end) back to
    /// `before_next`.
    fn link(
        &mut self,
        prev: *const Waiter,
        next: *const Waiter,
        after_prev: *const Waiter,
        before_next: *const Waiter,
    ) {
        // SAFETY: neighbours are queued, so their frames are alive, under the lock.
        unsafe {
            match prev.as_ref() {
                Some(prev) => prev.next.set(after_prev),
                None => self.first = after_prev,
            }
            match next.as_ref() {
                Some(next) => next.prev.set(before_next),
                None => self.last = before_next,
            }
        }
    }
}

/// Sleeps until `is_woken`, for those who wait in queues of their own: whoever wakes makes that true first.
///
/// # Errors
/// [`WaitError`] if the wait ended before.
#[inline(always)]
pub fn sleep_until_woken(
    sleep: Sleep,
    deadline_ticks: Option<u64>,
    mut is_woken: impl FnMut() -> bool,
) -> Result<(), WaitError> {
    let task = current();
    if let Some(deadline) = deadline_ticks {
        timer::arm(deadline);
    }
    let result = loop {
        task.state.set(State::Preparing(sleep));
        if is_woken() {
            break Ok(());
        }
        if sleep == Sleep::Interruptible && task.is_interrupted() {
            break Err(WaitError::Interrupted);
        }
        if deadline_ticks.is_some_and(|deadline| tsc::now() >= deadline) {
            break Err(WaitError::TimedOut);
        }
        switch::sleep_prepared();
    };
    task.state.set(State::Runnable);
    if deadline_ticks.is_some() {
        timer::disarm();
    }
    result
}

/// Sleeps until `deadline_ticks`.
pub fn sleep_until(deadline_ticks: u64) {
    let task = current();
    timer::arm(deadline_ticks);
    loop {
        task.state.set(State::Preparing(Sleep::Uninterruptible));
        if tsc::now() >= deadline_ticks {
            break;
        }
        switch::sleep_prepared();
    }
    task.state.set(State::Runnable);
    timer::disarm();
}
