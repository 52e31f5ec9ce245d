//! A mutex whose waiters sleep.
//!
//! For what takes longer than a spinlock may be held, above all copies from and to a program's memory. It is
//! never held while waiting for an event that another task must bring about, so those who wait for it need no
//! way out. Not for interrupt handlers, and not under a spinlock.

use core::cell::UnsafeCell;
use core::ops::{Deref, DerefMut};
use core::sync::atomic::{AtomicU32, Ordering};

use super::task::Sleep;
use super::wait::{Sharing, WaitMode, WaitQueue};

const FREE: u32 = 0;
const HELD: u32 = 1;
/// Held, and somebody may sleep until it is free.
const CONTENDED: u32 = 2;

/// Mutual exclusion by sleeping.
pub struct Mutex<T> {
    word: AtomicU32,
    waiters: WaitQueue,
    value: UnsafeCell<T>,
}

// SAFETY: the mutex hands out one reference at a time.
unsafe impl<T: Send> Sync for Mutex<T> {}
// SAFETY: moving the mutex moves the value.
unsafe impl<T: Send> Send for Mutex<T> {}

impl<T> Mutex<T> {
    /// A free mutex.
    pub const fn new(value: T) -> Self {
        Self {
            word: AtomicU32::new(FREE),
            waiters: WaitQueue::new(),
            value: UnsafeCell::new(value),
        }
    }

    /// Waits for the mutex.
    #[inline]
    pub fn lock(&self) -> MutexGuard<'_, T> {
        if self.word.compare_exchange(FREE, HELD, Ordering::Acquire, Ordering::Relaxed).is_err() {
            self.lock_contended();
        }
        MutexGuard { mutex: self }
    }

    #[cold]
    fn lock_contended(&self) {
        const MODE: WaitMode = WaitMode {
            sleep: Sleep::Uninterruptible,
            sharing: Sharing::Exclusive,
            deadline_ticks: None,
        };
        // Whoever has slept does not know whether others still do: it leaves the word contended. The wait
        // has neither a deadline nor another way to fail.
        let _ = self.waiters.wait(MODE, || self.word.swap(CONTENDED, Ordering::Acquire) == FREE);
    }

    #[inline]
    fn unlock(&self) {
        if self.word.swap(FREE, Ordering::Release) == CONTENDED {
            self.waiters.wake_one();
        }
    }

    /// The value, of which the caller is the only owner.
    pub fn get_mut(&mut self) -> &mut T {
        self.value.get_mut()
    }
}

/// The mutex held.
#[must_use]
pub struct MutexGuard<'a, T> {
    mutex: &'a Mutex<T>,
}

impl<T> Drop for MutexGuard<'_, T> {
    #[inline]
    fn drop(&mut self) {
        self.mutex.unlock();
    }
}

impl<T> Deref for MutexGuard<'_, T> {
    type Target = T;
    #[inline]
    fn deref(&self) -> &T {
        // SAFETY: the guard holds the mutex.
        unsafe { &*self.mutex.value.get() }
    }
}

impl<T> DerefMut for MutexGuard<'_, T> {
    #[inline]
    fn deref_mut(&mut self) -> &mut T {
        // SAFETY: the guard holds the mutex, and is borrowed exclusively.
        unsafe { &mut *self.mutex.value.get() }
    }
}
