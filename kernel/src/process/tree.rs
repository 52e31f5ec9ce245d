//! The lock that guards who belongs to whom: families, thread lists, the states of processes.
//!
//! It is one lock for all processes, as Linux's `tasklist_lock`, since a change mostly concerns two of
//! them. What it guards is an [`InTree`]: reached only with the guard at hand.

use core::cell::UnsafeCell;

use crate::sync::{SpinGuard, SpinLock};

/// Proof that the lock is held.
pub struct Tree {
    births: u64,
}

static TREE: SpinLock<Tree> = SpinLock::new("process tree", Tree { births: 0 });

/// The lock, held.
pub type TreeGuard = SpinGuard<'static, Tree>;

/// Waits for the lock. Preemption is off until the guard goes; nothing sleeps meanwhile.
#[track_caller]
pub fn lock() -> TreeGuard {
    TREE.lock()
}

impl Tree {
    /// How many processes programs have made.
    pub fn births(&self) -> u64 {
        self.births
    }

    /// Counts one more.
    pub fn count_birth(&mut self) {
        self.births += 1;
    }
}

/// What the lock guards.
pub struct InTree<T>(UnsafeCell<T>);

// SAFETY: the value is reached with the lock held only.
unsafe impl<T: Send> Sync for InTree<T> {}

impl<T> InTree<T> {
    /// A guarded value.
    pub const fn new(value: T) -> Self {
        Self(UnsafeCell::new(value))
    }

    /// The value.
    pub fn get<'a>(&'a self, _tree: &'a Tree) -> &'a T {
        // SAFETY: there is one `Tree`, and whoever has an exclusive reference into a guarded value
        // borrows it exclusively.
        unsafe { &*self.0.get() }
    }

    /// The value, to be changed. One at a time: the reference borrows the guard.
    #[allow(clippy::mut_from_ref)]
    pub fn get_mut<'a>(&'a self, _tree: &'a mut Tree) -> &'a mut T {
        // SAFETY: as in `get`.
        unsafe { &mut *self.0.get() }
    }
}
