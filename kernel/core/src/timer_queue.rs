//! Timers in the order in which they expire.
//!
//! One queue per CPU, under that CPU's lock. A [`Timer`] is embedded in what waits for it, so that
//! arming one never allocates and so cannot fail; whoever gets an expired timer finds what it
//! belongs to by its place in that structure (`core::mem::offset_of`). The first deadline, which
//! the hardware is programmed with, is there in constant time.
//!
//! Neighbours: [`crate::tree`] below; the kernel's clock and sleep code above.

use crate::tree::{Links, Node, Tree};
use core::cell::Cell;
use core::ptr::NonNull;

/// Whether a timer is in a queue.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TimerState {
    /// In no queue: new, expired or cancelled.
    Idle,
    /// In a queue, and will expire.
    Armed,
}

/// Something that happens at a time.
#[derive(Debug)]
pub struct Timer {
    links: Links<Timer>,
    deadline_ticks: Cell<u64>,
    state: Cell<TimerState>,
}

impl Timer {
    /// A timer that is not armed.
    pub const fn new() -> Self {
        Self {
            links: Links::new(),
            deadline_ticks: Cell::new(0),
            state: Cell::new(TimerState::Idle),
        }
    }

    /// When it expires or expired, in ticks of the kernel's clock; 0 if it was never armed.
    pub fn deadline_ticks(&self) -> u64 {
        self.deadline_ticks.get()
    }

    /// Whether it is in a queue.
    pub fn state(&self) -> TimerState {
        self.state.get()
    }
}

impl Default for Timer {
    fn default() -> Self {
        Self::new()
    }
}

// SAFETY: `links` returns one field, which nothing else uses; a deadline only changes in
// `TimerQueue::arm`, while the timer is in no queue.
unsafe impl Node for Timer {
    #[inline]
    fn links(&self) -> &Links<Self> {
        &self.links
    }

    #[inline]
    fn precedes(&self, other: &Self) -> bool {
        self.deadline_ticks.get() < other.deadline_ticks.get()
    }
}

/// The armed timers of one CPU.
#[derive(Debug, Default)]
pub struct TimerQueue {
    tree: Tree<Timer>,
}

// SAFETY: a queue only touches its timers through `&mut self` or their own unsafe functions,
// wherever it is; the contract of `arm` makes them stay usable.
unsafe impl Send for TimerQueue {}

impl TimerQueue {
    /// An empty queue.
    pub const fn new() -> Self {
        Self { tree: Tree::new() }
    }

    /// Lets a timer expire at a time, after those with the same deadline. A timer that is armed
    /// already is moved.
    ///
    /// # Safety
    /// The timer is in no *other* queue. Until it expires or is cancelled it stays alive, where it
    /// is, and nobody has a `&mut` to it.
    pub unsafe fn arm(&mut self, timer: NonNull<Timer>, deadline_ticks: u64) {
        // SAFETY: the contracts of this function.
        unsafe {
            self.cancel(timer);
            let this = timer.as_ref();
            this.deadline_ticks.set(deadline_ticks);
            this.state.set(TimerState::Armed);
            self.tree.insert(timer);
        }
    }

    /// Takes a timer out. Returns the state it was in: `Idle` if it had expired or was never armed.
    ///
    /// # Safety
    /// The timer is alive and is in no other queue.
    pub unsafe fn cancel(&mut self, timer: NonNull<Timer>) -> TimerState {
        // SAFETY: the caller's contract.
        let was = unsafe { timer.as_ref() }.state.replace(TimerState::Idle);
        if was == TimerState::Armed {
            // SAFETY: an armed timer is in some queue, and by the contract in no other one.
            unsafe { self.tree.remove(timer) };
        }
        was
    }

    /// Takes out the first timer whose deadline is `now_ticks` or earlier.
    #[inline]
    pub fn pop_expired(&mut self, now_ticks: u64) -> Option<NonNull<Timer>> {
        let timer = self.tree.first()?;
        // SAFETY: timers in the queue are alive by the contract of `arm`.
        let this = unsafe { timer.as_ref() };
        if this.deadline_ticks.get() > now_ticks {
            return None;
        }
        this.state.set(TimerState::Idle);
        // SAFETY: it is the tree's own first node.
        unsafe { self.tree.remove(timer) };
        Some(timer)
    }

    /// The earliest deadline.
    #[inline]
    pub fn next_deadline_ticks(&self) -> Option<u64> {
        // SAFETY: timers in the queue are alive by the contract of `arm`.
        self.tree.first().map(|timer| unsafe { timer.as_ref() }.deadline_ticks.get())
    }

    /// Whether no timer is armed.
    pub const fn is_empty(&self) -> bool {
        self.tree.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::vec::Vec;

    const MAX_STEPS: usize = if cfg!(miri) { 40 } else { 200 };

    proptest! {
        #![proptest_config(ProptestConfig {
            cases: if cfg!(miri) { 3 } else { 256 },
            failure_persistence: None,
            ..ProptestConfig::default()
        })]

        #[test]
        fn behaves_like_a_sorted_list(
            steps in proptest::collection::vec((0usize..12, 0u64..50, 0u8..4), 0..MAX_STEPS)
        ) {
            let timers: Vec<Timer> = (0..12).map(|_| Timer::new()).collect();
            let mut queue = TimerQueue::new();
            // (deadline, timer), sorted by deadline, stable.
            let mut model: Vec<(u64, usize)> = Vec::new();
            for (index, ticks, action) in steps {
                let timer = NonNull::from(&timers[index]);
                let was_armed = model.iter().any(|entry| entry.1 == index);
                match action {
                    0 => {
                        // SAFETY: `timers` outlives the queue and there is only this queue.
                        let was = unsafe { queue.cancel(timer) };
                        prop_assert_eq!(was == TimerState::Armed, was_armed);
                        model.retain(|entry| entry.1 != index);
                    }
                    1 => {
                        let mut expired = Vec::new();
                        while let Some(timer) = queue.pop_expired(ticks) {
                            expired.push(timer);
                        }
                        let due = model.partition_point(|entry| entry.0 <= ticks);
                        let due = model.drain(..due);
                        let expected: Vec<_> =
                            due.map(|entry| NonNull::from(&timers[entry.1])).collect();
                        prop_assert_eq!(expired, expected);
                    }
                    _ => {
                        // SAFETY: as above.
                        unsafe { queue.arm(timer, ticks) };
                        model.retain(|entry| entry.1 != index);
                        let at = model.partition_point(|entry| entry.0 <= ticks);
                        model.insert(at, (ticks, index));
                        prop_assert_eq!(timers[index].deadline_ticks(), ticks);
                    }
                }
                prop_assert_eq!(queue.next_deadline_ticks(), model.first().map(|entry| entry.0));
                prop_assert_eq!(queue.is_empty(), model.is_empty());
                let armed = timers.iter().filter(|timer| timer.state() == TimerState::Armed);
                prop_assert_eq!(armed.count(), model.len());
            }
        }
    }
}
