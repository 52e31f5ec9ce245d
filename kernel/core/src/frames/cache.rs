//! A CPU's magazine of single frames.
//!
//! Most allocations are of one frame. Each CPU keeps a few of them at hand, last in, first out, and
//! goes to the allocator, and to its lock, only to fetch or return half a magazine at once. The
//! owner of a cache is one CPU with preemption disabled.
//!
//! Frames in a cache are marked as such: freeing one again is noticed. Leak checks add
//! [`FrameCache::len`] of all CPUs to [`Frames::free_frames`].

use core::ops::DerefMut;

use super::buddy::Frames;
use super::meta::{FrameError, FrameTable, Mismatch, Pfn, State};

/// Frames a magazine holds.
const CAPACITY: usize = 64;
/// Frames that are fetched or returned at once; a power of two.
const BATCH: usize = CAPACITY / 2;
const _: () = assert!(BATCH.is_power_of_two());

/// One CPU's cache of single frames.
#[derive(Debug)]
pub struct FrameCache<'a> {
    table: FrameTable<'a>,
    frames: [Pfn; CAPACITY],
    len: usize,
}

impl<'a> FrameCache<'a> {
    /// An empty cache over the allocator that `table` belongs to.
    pub const fn new(table: FrameTable<'a>) -> Self {
        Self { table, frames: [Pfn(0); CAPACITY], len: 0 }
    }

    /// Frames it holds, which are neither in use nor on the allocator's free lists.
    pub const fn len(&self) -> usize {
        self.len
    }

    /// Whether it holds none.
    pub const fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// One frame with one reference, or `None` when memory is exhausted. Calls `lock` only when the
    /// cache is empty.
    #[inline(always)]
    pub fn alloc<L: DerefMut<Target = Frames<'a>>>(
        &mut self,
        lock: impl FnOnce() -> L,
    ) -> Option<Pfn> {
        if self.len == 0 {
            self.refill(&mut lock());
        }
        self.len = self.len.checked_sub(1)?;
        let pfn = self.frames[self.len];
        self.table.entry(pfn).ok()?.become_used(0);
        Some(pfn)
    }

    /// Takes a single frame back, from whoever dropped its last reference or holds the only one.
    /// Calls `lock` only when the cache is full.
    ///
    /// # Errors
    /// As [`Frames::free`].
    #[inline]
    pub fn free<L: DerefMut<Target = Frames<'a>>>(
        &mut self,
        pfn: Pfn,
        lock: impl FnOnce() -> L,
    ) -> Result<(), FrameError> {
        let entry = self.table.entry(pfn)?;
        let refuse = |mismatch| Err(FrameError { pfn, mismatch });
        let references = self.table.references(pfn)?;
        if entry.state() == State::Used && entry.order() != 0 {
            return refuse(Mismatch::WrongOrder(entry.order()));
        }
        if references > 1 {
            return refuse(Mismatch::Referenced(references));
        }
        if !entry.become_cached() {
            return refuse(match entry.state() {
                State::Inner => Mismatch::NotABlock,
                _ => Mismatch::DoubleFree,
            });
        }
        entry.references.store(0, core::sync::atomic::Ordering::Relaxed);
        if self.len == CAPACITY {
            self.drain(&mut lock(), BATCH);
        }
        self.frames[self.len] = pfn;
        self.len += 1;
        Ok(())
    }

    /// Returns up to `count` frames, those longest unused first. `usize::MAX` empties the cache.
    pub fn drain(&mut self, frames: &mut Frames<'a>, count: usize) {
        let count = count.min(self.len);
        for &pfn in &self.frames[..count] {
            frames.free_cached(pfn);
        }
        self.frames.copy_within(count..self.len, 0);
        self.len -= count;
    }

    /// Fills half of an empty cache: with one block if there is one that large, else with frames as
    /// they come.
    #[cold]
    #[inline(never)]
    fn refill(&mut self, frames: &mut Frames<'a>) {
        if let Some(block) = frames.alloc(BATCH.trailing_zeros() as u8) {
            for at in (0..BATCH).rev() {
                let pfn = Pfn(block.0 + at as u64);
                if let Ok(entry) = self.table.entry(pfn) {
                    entry.split_off_cached();
                    self.frames[self.len] = pfn;
                    self.len += 1;
                }
            }
        }
        while self.len < BATCH {
            let Some(pfn) = frames.alloc(0) else { break };
            self.frames[self.len] = pfn;
            self.len += 1;
            let cached = self.table.entry(pfn).is_ok_and(|entry| {
                entry.references.store(0, core::sync::atomic::Ordering::Relaxed);
                entry.become_cached()
            });
            debug_assert!(cached, "the allocator handed out a frame that is not its own");
        }
    }
}
