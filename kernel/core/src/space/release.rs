//! Giving back what an address space no longer leads to.
//!
//! A subtree that others share merely loses a reference; one that was ours alone is walked. That
//! happens outside the lock, with preemption on.

use core::sync::atomic::Ordering::Relaxed;

use arrayvec::ArrayVec;

use super::entry::Entry;
use super::tables::Memory;
use super::{ROOT_LEVEL, WINDOW_ENTRIES};
use crate::frames::{Pfn, Put};

/// Frames that wait for their references to be dropped: no entry of the address space leads to
/// them any more.
#[must_use = "the frames leak otherwise"]
pub struct Retired<const N: usize> {
    /// Frame number times 8, plus the level (0 is a page).
    frames: ArrayVec<u64, N>,
    /// First of the tables whose last reference is ours; linked by the words of their metadata.
    /// The level is kept likewise.
    doomed: u64,
}

impl<const N: usize> Retired<N> {
    #[inline(always)]
    pub(super) fn new() -> Self {
        Self { frames: ArrayVec::new(), doomed: 0 }
    }

    #[inline(always)]
    pub(super) fn is_full(&self) -> bool {
        self.frames.is_full()
    }

    #[inline(always)]
    pub(super) fn push(&mut self, frame: Pfn, level: u8) {
        let pushed = self.frames.try_push(frame.0 << 3 | u64::from(level));
        debug_assert!(pushed.is_ok(), "the caller makes room");
    }

    /// After a flush in the middle of a change: makes room without a long walk.
    pub(super) fn drop_references<M: Memory + ?Sized>(&mut self, memory: &M) {
        for packed in self.frames.drain(..) {
            let (frame, level) = (Pfn(packed >> 3), packed & 7);
            let meta = memory.meta(frame);
            if meta.drop_reference() == Put::Last {
                if level == 0 {
                    memory.free_page(frame);
                } else {
                    meta.owner_word().store(self.doomed, Relaxed);
                    self.doomed = packed;
                }
            }
        }
    }

    /// Drops the references.
    #[inline(always)]
    pub(super) fn release<M: Memory + ?Sized>(&mut self, memory: &M) {
        for &packed in &self.frames {
            drop_one(memory, Pfn(packed >> 3), (packed & 7) as u8);
        }
        if self.doomed != 0 {
            self.release_doomed(memory);
        }
    }

    #[cold]
    fn release_doomed<M: Memory + ?Sized>(&mut self, memory: &M) {
        let mut next = self.doomed;
        while next != 0 {
            let table = Pfn(next >> 3);
            let level = (next & 7) as u8;
            next = memory.meta(table).owner_word().load(Relaxed);
            take_down(memory, table, level, u64::MAX);
        }
    }
}

/// Drops a reference to a page (level 0) or table that no CPU caches on its account.
#[inline(always)]
fn drop_one<M: Memory + ?Sized>(memory: &M, frame: Pfn, level: u8) {
    let meta = memory.meta(frame);
    if meta.drop_reference() == Put::Shared {
        return;
    }
    if level == 0 {
        memory.free_page(frame);
    } else {
        take_down(memory, frame, level, meta.owner_word().load(Relaxed));
    }
}

/// Frees a table that nobody refers to, and drops what it refers to. `groups` has a bit for each
/// eight entries of which any is occupied.
fn take_down<M: Memory + ?Sized>(memory: &M, table: Pfn, level: u8, groups: u64) {
    empty(memory, table, level, groups);
    memory.free_table(table);
}

/// Empties a table; zeroing what it walks anyhow, it leaves one that can be used again.
fn empty<M: Memory + ?Sized>(memory: &M, table: Pfn, level: u8, mut groups: u64) {
    let entries = memory.table(table);
    while groups != 0 {
        let first = groups.trailing_zeros() as usize * 8;
        groups &= groups - 1;
        for slot in &entries[first..first + 8] {
            let entry = Entry(slot.load(Relaxed));
            if entry.is_empty() {
                continue;
            }
            slot.store(0, Relaxed);
            if entry.is_counted() {
                drop_one(memory, entry.pfn(), level - 1);
            }
        }
    }
    let meta = memory.meta(table);
    meta.owner_word().store(0, Relaxed);
    meta.owner_count().store(0, Relaxed);
}

/// Empties the window of an address space that no CPU has loaded or will load. Its root stays.
pub fn release_window<M: Memory + ?Sized>(memory: &M, root: Pfn) {
    const WINDOW_GROUPS: u64 = (1 << (WINDOW_ENTRIES / 8)) - 1;
    let groups = memory.meta(root).owner_word().load(Relaxed);
    debug_assert!(groups & !WINDOW_GROUPS == 0);
    empty(memory, root, ROOT_LEVEL, groups & WINDOW_GROUPS);
}
