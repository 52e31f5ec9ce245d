//! A spinlock that stays locked while its holder lets others run.
//!
//! For data whose changes are mostly short, so that those who wait had better spin, and sometimes long, so that
//! preemption must not stay off to their end: the holder of a [`PausingLock`] calls [`pause`](PausingLock::pause)
//! between the steps of a long one. Who wants the lock meanwhile sleeps until it is let go, since on one
//! CPU it would otherwise keep the holder from running.
//!
//! Not for interrupt handlers, and not under a spinlock.

use core::ops::{Deref, DerefMut};

use super::wait::WaitQueue;
use crate::arch::{latency, percpu};
use crate::sync::{SpinGuard, SpinLock};

/// Mutual exclusion by spinning, or by sleeping while the holder pauses.
pub struct PausingLock<T> {
    spin: SpinLock<T>,
}

/// Those who sleep until a lock is let go, whichever: they are few, and look again when they are woken.
static SLEEPERS: WaitQueue = WaitQueue::new();

impl<T> PausingLock<T> {
    /// A free lock. `name` is its class, as of any spinlock.
    pub const fn new(name: &'static str, value: T) -> Self {
        Self { spin: SpinLock::new(name, value) }
    }

    /// Waits for the lock; preemption is off until the guard goes, but for pauses. For tasks that hold nothing and
    /// have interrupts on: whoever waits may be preempted.
    #[inline(always)]
    #[track_caller]
    pub fn lock(&self) -> PausingGuard<'_, T> {
        PausingGuard { guard: self.spin.lock_patiently(|| self.sleep()) }
    }

    #[cold]
    fn sleep(&self) {
        SLEEPERS.wait_until(|| !self.spin.is_kept());
    }

    /// Lets others run who have a better claim to this CPU. The lock stays locked: they find what it guards, in
    /// whatever state the holder has left it, as little as before.
    ///
    /// # Panics
    /// If there is somebody to run, and the caller does not hold the lock.
    #[inline(always)]
    pub fn pause(&self) {
        if percpu::need_resched() {
            self.spin.keep_over_preemption();
        }
        latency::preemption_could_return();
    }

    /// Whether anybody holds it. It may change right afterwards.
    pub fn is_locked(&self) -> bool {
        self.spin.is_locked()
    }
}

/// The lock held; preemption is off.
#[must_use]
pub struct PausingGuard<'a, T> {
    guard: SpinGuard<'a, T>,
}

impl<T> Drop for PausingGuard<'_, T> {
    #[inline(always)]
    fn drop(&mut self) {
        // Before the lock is free: afterwards this task may be preempted, and they would sleep on. No fence is wanted
        // before the look. Who sleeps has seen the lock kept once it had its place in the queue (`WaitQueue` has a
        // SeqCst store between the two); that is before the holder took it back, by a SeqCst swap, in the order of
        // all such accesses; and this look comes after that.
        if SLEEPERS.may_be_occupied() {
            SLEEPERS.wake_all();
        }
    }
}

impl<T> Deref for PausingGuard<'_, T> {
    type Target = T;
    #[inline(always)]
    fn deref(&self) -> &T {
        &self.guard
    }
}

impl<T> DerefMut for PausingGuard<'_, T> {
    #[inline(always)]
    fn deref_mut(&mut self) -> &mut T {
        &mut self.guard
    }
}
