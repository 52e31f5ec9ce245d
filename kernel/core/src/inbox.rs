//! The wake inbox: how other CPUs hand a woken task to the CPU that shall run it.
//!
//! Any CPU pushes, one CPU drains; no lock is taken on either side. A push is one compare-and-
//! exchange, a drain one exchange and a walk. Tasks come out in the order in which they were
//! pushed. The list runs through a [`Link`] inside the item itself, so nothing is allocated and a
//! push cannot fail.
//!
//! Invariants
//! - An item is in at most one inbox at a time. The kernel keeps this by pushing only from the
//!   *successful* wake, which there is one of per sleep.
//! - The drainer owns every item it was handed; whoever pushed must not touch it any more.
//!
//! The list is a stack (newest first) that the drain reverses. There is no ABA problem, because
//! nobody ever pops a single item: the drain takes all of it at once.
//!
//! Whether the target CPU needs an interrupt after a push is for [`crate::idle`] to say; the two
//! are model-checked together there.

use core::marker::PhantomData;
use core::ptr::{self, NonNull};

use crate::shim::{AtomicPtr, Ordering, const_unless_loom};

/// The list pointer that an item of an [`Inbox`] carries.
#[derive(Debug)]
pub struct Link<T> {
    next: AtomicPtr<T>,
}

impl<T> Link<T> {
    const_unless_loom! {
        /// A link that is in no inbox.
        pub fn new() -> Self {
            Self { next: AtomicPtr::new(ptr::null_mut()) }
        }
    }
}

impl<T> Default for Link<T> {
    fn default() -> Self {
        Self::new()
    }
}

/// Something that can wait in an [`Inbox`].
///
/// # Safety
/// `link` returns the same link at every call, and one that is used for nothing else.
pub unsafe trait Linked: Sized {
    /// The item's own link.
    fn link(&self) -> &Link<Self>;
}

/// What a push found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use = "the first push into an empty inbox has to tell the inbox's CPU"]
pub enum Pushed {
    /// The inbox was empty: this push is the one that must make its CPU look.
    First,
    /// Another item was there, whose push already did, or is about to.
    Behind,
}

/// A lock-free queue with many producers and one consumer.
#[derive(Debug)]
pub struct Inbox<T> {
    newest: AtomicPtr<T>,
}

impl<T> Inbox<T> {
    const_unless_loom! {
        /// An empty inbox.
        pub fn new() -> Self {
            Self { newest: AtomicPtr::new(ptr::null_mut()) }
        }
    }

    /// Whether nothing waits. Totally ordered with pushes and with [`crate::idle::IdleState`].
    #[inline]
    pub fn is_empty(&self) -> bool {
        self.newest.load(Ordering::SeqCst).is_null()
    }
}

impl<T> Default for Inbox<T> {
    fn default() -> Self {
        Self::new()
    }
}

impl<T: Linked> Inbox<T> {
    /// Hands `item` to the consumer. All that was written to it before is visible to the drain.
    ///
    /// # Safety
    /// `item` points to a live `T` that is in no inbox, and stays alive until the drain that
    /// yields it.
    #[inline]
    pub unsafe fn push(&self, item: NonNull<T>) -> Pushed {
        // SAFETY: the caller keeps the item alive until it is drained, which cannot happen before
        // the exchange below succeeds.
        let link = unsafe { item.as_ref() }.link();
        let mut newest = self.newest.load(Ordering::Relaxed);
        loop {
            link.next.store(newest, Ordering::Relaxed);
            // Release publishes the item; SeqCst orders it before the pusher's look at the
            // target's idle state.
            match self.newest.compare_exchange_weak(
                newest,
                item.as_ptr(),
                Ordering::SeqCst,
                Ordering::Relaxed,
            ) {
                Ok(old) if old.is_null() => return Pushed::First,
                Ok(_) => return Pushed::Behind,
                Err(seen) => newest = seen,
            }
        }
    }

    /// Takes everything that waits, oldest first. For the inbox's own CPU.
    ///
    /// Costs one load when the inbox is empty.
    #[inline]
    pub fn drain(&self) -> Drain<T> {
        if self.newest.load(Ordering::Relaxed).is_null() {
            return Drain { next: None, items: PhantomData };
        }
        let mut rest = NonNull::new(self.newest.swap(ptr::null_mut(), Ordering::Acquire));
        let mut reversed: Option<NonNull<T>> = None;
        while let Some(item) = rest {
            // SAFETY: items stay alive until a drain yields them (contract of `push`), and the
            // exchange above made this drain the only owner of the whole list.
            let link = unsafe { item.as_ref() }.link();
            rest = NonNull::new(link.next.load(Ordering::Relaxed));
            link.next.store(as_raw(reversed), Ordering::Relaxed);
            reversed = Some(item);
        }
        Drain { next: reversed, items: PhantomData }
    }
}

fn as_raw<T>(item: Option<NonNull<T>>) -> *mut T {
    item.map_or(ptr::null_mut(), NonNull::as_ptr)
}

/// The items of one [`Inbox::drain`], oldest first. They are out of the inbox already: dropping
/// this before its end loses the rest, so the loop over it must not leave early.
#[derive(Debug)]
#[must_use = "the items have left the inbox and are lost if nobody takes them"]
pub struct Drain<T> {
    next: Option<NonNull<T>>,
    items: PhantomData<NonNull<T>>,
}

impl<T: Linked> Iterator for Drain<T> {
    type Item = NonNull<T>;

    #[inline]
    fn next(&mut self) -> Option<NonNull<T>> {
        let item = self.next?;
        // The link is read before the item is handed out: its new owner may push it elsewhere.
        // SAFETY: not yet yielded, so still alive and ours (contract of `push`).
        self.next = NonNull::new(unsafe { item.as_ref() }.link().next.load(Ordering::Relaxed));
        Some(item)
    }
}

impl<T> Drop for Drain<T> {
    fn drop(&mut self) {
        debug_assert!(self.next.is_none(), "a drain was dropped with woken tasks still in it");
    }
}

// No `unsafe impl Send/Sync`: `AtomicPtr` is both already. What may cross CPUs is decided by the
// contract of `push`.

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;
    use std::boxed::Box;
    use std::sync::atomic::{AtomicUsize, Ordering as StdOrdering};
    use std::vec::Vec;

    struct Item {
        value: usize,
        link: Link<Item>,
    }

    // SAFETY: one link per item, used by the inbox only.
    unsafe impl Linked for Item {
        fn link(&self) -> &Link<Item> {
            &self.link
        }
    }

    fn push(inbox: &Inbox<Item>, value: usize) -> Pushed {
        let item = NonNull::from(Box::leak(Box::new(Item { value, link: Link::new() })));
        // SAFETY: freshly leaked, so alive and in no inbox; `take` frees it after the drain.
        unsafe { inbox.push(item) }
    }

    fn take(item: NonNull<Item>) -> usize {
        // SAFETY: a drain yielded it, so it is ours; `push` made it from a box.
        unsafe { Box::from_raw(item.as_ptr()) }.value
    }

    #[test]
    fn comes_out_in_order_and_says_which_push_was_first() {
        let inbox = Inbox::new();
        assert!(inbox.is_empty());
        assert_eq!(push(&inbox, 1), Pushed::First);
        assert_eq!(push(&inbox, 2), Pushed::Behind);
        assert_eq!(push(&inbox, 3), Pushed::Behind);
        assert!(!inbox.is_empty());
        assert_eq!(inbox.drain().map(take).collect::<Vec<_>>(), [1, 2, 3]);
        assert!(inbox.is_empty());
        assert_eq!(inbox.drain().count(), 0);
        assert_eq!(push(&inbox, 4), Pushed::First);
        assert_eq!(inbox.drain().map(take).collect::<Vec<_>>(), [4]);
    }

    #[test]
    fn an_item_may_be_pushed_again_as_soon_as_it_is_yielded() {
        let (from, to) = (Inbox::new(), Inbox::new());
        for value in 0..4 {
            let _ = push(&from, value);
        }
        for item in from.drain() {
            // SAFETY: yielded by the drain, so in no inbox; freed after the second drain.
            let _ = unsafe { to.push(item) };
        }
        assert_eq!(to.drain().map(take).collect::<Vec<_>>(), [0, 1, 2, 3]);
    }

    #[test]
    fn many_producers_lose_nothing_and_each_keeps_its_order() {
        const PRODUCERS: usize = 4;
        const EACH: usize = if cfg!(miri) { 40 } else { 10_000 };
        let inbox = Inbox::new();
        let firsts = AtomicUsize::new(0);
        let mut last_of = [None; PRODUCERS];
        let mut batches = 0;
        let mut seen = 0;
        std::thread::scope(|scope| {
            for producer in 0..PRODUCERS {
                let (inbox, firsts) = (&inbox, &firsts);
                scope.spawn(move || {
                    for n in 0..EACH {
                        if push(inbox, producer * EACH + n) == Pushed::First {
                            firsts.fetch_add(1, StdOrdering::Relaxed);
                        }
                    }
                });
            }
            while seen < PRODUCERS * EACH {
                let before = seen;
                for value in inbox.drain().map(take) {
                    let (producer, n) = (value / EACH, value % EACH);
                    assert!(last_of[producer] < Some(n), "producer {producer} overtook itself");
                    last_of[producer] = Some(n);
                    seen += 1;
                }
                if seen > before {
                    batches += 1;
                } else {
                    std::thread::yield_now();
                }
            }
        });
        assert_eq!(firsts.into_inner(), batches, "one first push per batch that was drained");
        assert!(inbox.is_empty());
    }
}
