//! Those who wait in one bucket.
//!
//! An intrusive list: a [`Waiter`] lies on the stack of whoever waits, so that waiting never allocates.
//! The list is ordered by priority, then by arrival; a bucket's lock, which is the caller's, guards it and
//! the cells of the waiters in it.

use core::cell::Cell;
use core::ptr::{self, NonNull};

use super::Key;

/// Somebody who waits.
#[derive(Debug)]
pub struct Waiter<T> {
    key: Cell<Key>,
    bitset: u32,
    priority: u8,
    is_queued: Cell<bool>,
    next: Cell<*const Waiter<T>>,
    prev: Cell<*const Waiter<T>>,
    /// What the caller needs to know of it.
    pub payload: T,
}

impl<T> Waiter<T> {
    /// Somebody who will wait for `key` and be woken by wakes that have a bit of `bitset` in common; a
    /// higher priority is woken first.
    pub const fn new(key: Key, bitset: u32, priority: u8, payload: T) -> Self {
        Self {
            key: Cell::new(key),
            bitset,
            priority,
            is_queued: Cell::new(false),
            next: Cell::new(ptr::null()),
            prev: Cell::new(ptr::null()),
            payload,
        }
    }

    /// What it waits for. Under the lock of its queue.
    pub fn key(&self) -> Key {
        self.key.get()
    }

    /// Lets it wait for something else, once it is taken out of its queue.
    pub fn set_key(&self, key: Key) {
        debug_assert!(!self.is_queued.get());
        self.key.set(key);
    }

    /// Whether it is in a queue. Under the lock of that.
    pub fn is_queued(&self) -> bool {
        self.is_queued.get()
    }
}

/// Waiters in the order in which they are woken.
#[derive(Debug)]
pub struct Queue<T> {
    first: *const Waiter<T>,
    last: *const Waiter<T>,
}

// SAFETY: a queue touches its waiters under the lock that is around it only; the contract of `insert`
// makes them stay usable from wherever that is taken.
unsafe impl<T: Sync> Send for Queue<T> {}

impl<T> Queue<T> {
    /// A queue of nobody.
    pub const fn new() -> Self {
        Self { first: ptr::null(), last: ptr::null() }
    }

    /// Whether nobody waits.
    pub const fn is_empty(&self) -> bool {
        self.first.is_null()
    }

    /// Puts a waiter behind those of its priority.
    ///
    /// # Safety
    /// It is in no queue. Until it is taken out it stays alive, where it is, and its cells are touched by
    /// this queue only.
    pub unsafe fn insert(&mut self, waiter: NonNull<Waiter<T>>) {
        // SAFETY: alive (caller).
        let this = unsafe { waiter.as_ref() };
        debug_assert!(!this.is_queued.get());
        let mut prev = self.last;
        // SAFETY: queued waiters are alive by the contract of this function.
        while let Some(before) = unsafe { prev.as_ref() }
            && before.priority < this.priority
        {
            prev = before.prev.get();
        }
        // SAFETY: as above.
        let next = unsafe { prev.as_ref() }.map_or(self.first, |prev| prev.next.get());
        this.is_queued.set(true);
        this.prev.set(prev);
        this.next.set(next);
        let waiter = waiter.as_ptr().cast_const();
        self.link(prev, waiter);
        self.link(waiter, next);
    }

    /// Takes a waiter out.
    ///
    /// # Safety
    /// It is in this queue.
    pub unsafe fn remove(&mut self, waiter: NonNull<Waiter<T>>) {
        // SAFETY: alive by the contract of `insert`.
        let this = unsafe { waiter.as_ref() };
        debug_assert!(this.is_queued.get());
        this.is_queued.set(false);
        self.link(this.prev.get(), this.next.get());
    }

    /// Takes out up to `limit` waiters of a key that have a bit of `bitset`, in order, and gives each to
    /// `take`. Returns how many there were.
    ///
    /// `take` must not use this queue. The waiter is its to keep.
    pub fn take_matching(
        &mut self,
        key: Key,
        bitset: u32,
        limit: u32,
        mut take: impl FnMut(NonNull<Waiter<T>>),
    ) -> u32 {
        let mut taken = 0;
        let mut at = self.first;
        // SAFETY: queued waiters are alive by the contract of `insert`.
        while let Some(waiter) = unsafe { at.as_ref() }
            && taken < limit
        {
            let next = waiter.next.get();
            if waiter.key.get() == key && waiter.bitset & bitset != 0 {
                waiter.is_queued.set(false);
                self.link(waiter.prev.get(), next);
                taken += 1;
                // SAFETY: not null; from the pointer that was inserted.
                take(unsafe { NonNull::new_unchecked(at.cast_mut()) });
            }
            at = next;
        }
        taken
    }

    /// Takes out the first waiter.
    pub fn pop(&mut self) -> Option<NonNull<Waiter<T>>> {
        let first = NonNull::new(self.first.cast_mut())?;
        // SAFETY: it is in this queue.
        unsafe { self.remove(first) };
        Some(first)
    }

    /// Lets `prev` (or the queue's beginning) be followed by `next` (or its end).
    fn link(&mut self, prev: *const Waiter<T>, next: *const Waiter<T>) {
        // SAFETY: queued waiters, and one that is being inserted, are alive by the contract of `insert`.
        unsafe {
            match prev.as_ref() {
                Some(prev) => prev.next.set(next),
                None => self.first = next,
            }
            match next.as_ref() {
                Some(next) => next.prev.set(prev),
                None => self.last = prev,
            }
        }
    }
}

impl<T> Default for Queue<T> {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::futex::ANY;
    use proptest::prelude::*;
    use std::vec::Vec;

    const WAITERS: usize = 10;

    fn key(number: u64) -> Key {
        Key { object: 1, offset: number * 4 }
    }

    #[derive(Clone, Copy, Debug)]
    enum Step {
        Wait(usize),
        Leave(usize),
        Wake { key: u64, bitset: u32, limit: u32 },
        Requeue { from: u64, to: u64, limit: u32 },
    }

    fn step() -> impl Strategy<Value = Step> {
        prop_oneof![
            4 => (0..WAITERS).prop_map(Step::Wait),
            1 => (0..WAITERS).prop_map(Step::Leave),
            2 => (0..3u64, 1..4u32, 0..4u32)
                .prop_map(|(key, bitset, limit)| Step::Wake { key, bitset, limit }),
            1 => (0..3u64, 0..3u64, 0..4u32)
                .prop_map(|(from, to, limit)| Step::Requeue { from, to, limit }),
        ]
    }

    proptest! {
        #![proptest_config(ProptestConfig {
            cases: if cfg!(miri) { 3 } else { 256 },
            failure_persistence: None,
            ..ProptestConfig::default()
        })]

        #[test]
        fn wakes_by_priority_then_arrival(
            kinds in proptest::collection::vec((0..3u64, 1..4u32, 0..3u8), WAITERS),
            steps in proptest::collection::vec(step(), 0..if cfg!(miri) { 40 } else { 120 }),
        ) {
            let waiters: Vec<Waiter<usize>> = kinds.iter().enumerate().map(|(index, &kind)| {
                Waiter::new(key(kind.0), kind.1, kind.2, index)
            }).collect();
            let mut queue = Queue::new();
            // (key, waiter) in order of arrival.
            let mut model: Vec<(u64, usize)> = Vec::new();
            let in_order = |model: &[(u64, usize)], key: u64, bitset: u32, limit: u32| {
                let mut hits: Vec<usize> = model
                    .iter()
                    .filter(|entry| entry.0 == key && kinds[entry.1].1 & bitset != 0)
                    .map(|entry| entry.1)
                    .collect();
                hits.sort_by_key(|&index| core::cmp::Reverse(kinds[index].2));
                hits.truncate(limit as usize);
                hits
            };
            for step in steps {
                match step {
                    Step::Wait(index) if !waiters[index].is_queued() => {
                        waiters[index].set_key(key(kinds[index].0));
                        // SAFETY: in no queue; `waiters` outlives the queue.
                        unsafe { queue.insert(NonNull::from(&waiters[index])) };
                        model.push((kinds[index].0, index));
                    }
                    Step::Leave(index) if waiters[index].is_queued() => {
                        // SAFETY: there is only this queue.
                        unsafe { queue.remove(NonNull::from(&waiters[index])) };
                        model.retain(|entry| entry.1 != index);
                    }
                    Step::Wait(_) | Step::Leave(_) => {}
                    Step::Wake { key: of, bitset, limit } => {
                        let expected = in_order(&model, of, bitset, limit);
                        let mut woken = Vec::new();
                        let count = queue.take_matching(key(of), bitset, limit, |waiter| {
                            // SAFETY: alive.
                            woken.push(unsafe { waiter.as_ref() }.payload);
                        });
                        prop_assert_eq!(count as usize, woken.len());
                        prop_assert_eq!(&woken, &expected);
                        model.retain(|entry| !expected.contains(&entry.1));
                    }
                    Step::Requeue { from, to, limit } => {
                        let expected = in_order(&model, from, ANY, limit);
                        let mut moved = Queue::new();
                        queue.take_matching(key(from), ANY, limit, |waiter| {
                            // SAFETY: taken out of `queue` just now, and alive.
                            unsafe {
                                waiter.as_ref().set_key(key(to));
                                moved.insert(waiter);
                            }
                        });
                        while let Some(waiter) = moved.pop() {
                            // SAFETY: taken out of `moved` just now, and alive.
                            unsafe { queue.insert(waiter) };
                        }
                        model.retain(|entry| !expected.contains(&entry.1));
                        model.extend(expected.into_iter().map(|index| (to, index)));
                    }
                }
                prop_assert_eq!(queue.is_empty(), model.is_empty());
            }
        }
    }
}
