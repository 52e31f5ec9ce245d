//! Which CPU's run queue a task is on, or was on last: its *home*.
//!
//! Who has the lock of the home's queue finds the task there, or on no queue. In the second case another CPU may be about
//! to put it on its own queue, under that one's lock; so the task is *held* as well, which keeps it off all
//! queues:
//!
//! ```text
//!   whoever wants its entity               the CPU that enqueues it
//!   lock the home's queue                  lock the CPU's own queue
//!   held += 1           (SeqCst)           home = this CPU     (SeqCst)
//!   is it still the home? (SeqCst)         wait until held == 0
//!   yes: use the entity                    enqueue it
//!   held -= 1
//! ```
//!
//! One of the two sees the other: a home that is still the same changes later, and then the enqueuing CPU finds the
//! task held. It waits with its queue locked, for somebody who has another queue's lock and waits for nothing.

use crate::shim::{AtomicU8, AtomicU32, Ordering, const_unless_loom, seqcst_fence_for_loom};

/// A task's home.
#[derive(Debug)]
pub struct Home {
    cpu: AtomicU32,
    held: AtomicU8,
}

/// The task is held, until this goes.
#[must_use = "the task is free again at once"]
pub struct Held<'a>(&'a Home);

impl Home {
    const_unless_loom! {
        /// A home.
        pub fn new(cpu: u32) -> Self {
            Self { cpu: AtomicU32::new(cpu), held: AtomicU8::new(0) }
        }
    }

    /// The CPU.
    #[inline(always)]
    pub fn cpu(&self) -> u32 {
        self.cpu.load(Ordering::Relaxed)
    }

    /// A home for a task that nobody else knows yet.
    pub fn settle(&self, cpu: u32) {
        self.cpu.store(cpu, Ordering::Relaxed);
    }

    /// Makes CPU `cpu`, which is about to enqueue the task and has its queue locked, the home. Returns the one before;
    /// nobody holds the task any more.
    #[inline(always)]
    pub fn move_to(&self, cpu: u32) -> u32 {
        let from = self.cpu.swap(cpu, Ordering::SeqCst);
        seqcst_fence_for_loom();
        if self.held.load(Ordering::SeqCst) != 0 {
            self.wait_until_free();
        }
        from
    }

    #[cold]
    #[inline(never)]
    fn wait_until_free(&self) {
        while self.held.load(Ordering::Acquire) != 0 {
            #[cfg(not(loom))]
            core::hint::spin_loop();
            #[cfg(loom)]
            loom::thread::yield_now();
        }
    }

    /// Holds the task, for whoever has the lock of CPU `cpu`'s queue, if that is the home.
    pub fn hold(&self, cpu: u32) -> Option<Held<'_>> {
        self.held.fetch_add(1, Ordering::SeqCst);
        let held = Held(self);
        seqcst_fence_for_loom();
        (self.cpu.load(Ordering::SeqCst) == cpu).then_some(held)
    }
}

impl Drop for Held<'_> {
    fn drop(&mut self) {
        self.0.held.fetch_sub(1, Ordering::Release);
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    #[test]
    fn only_at_home_is_a_task_held() {
        let home = Home::new(3);
        assert!(home.hold(2).is_none());
        drop(home.hold(3).unwrap());
        assert_eq!(home.move_to(5), 3);
        assert_eq!(home.cpu(), 5);
        assert!(home.hold(3).is_none());
        let (one, two) = (home.hold(5), home.hold(5));
        assert!(one.is_some() && two.is_some());
    }
}

/// An entity that is used by whoever holds the task, and by CPUs that enqueue and dequeue it, each under the lock of its
/// own queue: `loom`'s cell reports two users at a time.
#[cfg(all(test, loom))]
mod loom_tests {
    use super::*;
    use crate::shim::loom_model;
    use alloc::vec::Vec;
    use loom::cell::UnsafeCell;
    use loom::sync::{Arc, Mutex};
    use loom::thread;

    struct Model {
        home: Home,
        queues: [Mutex<()>; 2],
        entity: UnsafeCell<u32>,
    }

    impl Model {
        fn use_entity(&self) {
            // SAFETY: loom panics if somebody else uses it at the time.
            self.entity.with_mut(|entity| unsafe { *entity += 1 });
        }

        fn enqueue(&self, cpu: usize) {
            let _queue = self.queues[cpu].lock().unwrap();
            self.home.move_to(cpu as u32);
            self.use_entity();
        }

        fn change(&self) {
            loop {
                let cpu = self.home.cpu();
                let _queue = self.queues[cpu as usize].lock().unwrap();
                if let Some(_held) = self.home.hold(cpu) {
                    return self.use_entity();
                }
            }
        }
    }

    fn model(changers: usize) {
        loom_model(move || {
            let model = Arc::new(Model {
                home: Home::new(0),
                queues: [Mutex::new(()), Mutex::new(())],
                entity: UnsafeCell::new(0),
            });
            let threads: Vec<_> = (0..changers)
                .map(|_| {
                    let model = model.clone();
                    thread::spawn(move || model.change())
                })
                .collect();
            model.enqueue(1);
            threads.into_iter().for_each(|thread| thread.join().unwrap());
            // SAFETY: nobody else is left.
            assert_eq!(model.entity.with(|entity| unsafe { *entity }), 1 + changers as u32);
        });
    }

    #[test]
    fn loom_who_enqueues_waits_for_who_holds() {
        model(1);
    }

    #[test]
    fn loom_two_may_want_it_at_once() {
        model(2);
    }
}
