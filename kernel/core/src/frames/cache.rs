//! A CPU's magazine of single frames.
//!
//! Most allocations are of one frame. Each CPU keeps a few of them at hand, last in, first out, and
//! goes to the allocator, and to its lock, only to fetch or return half a magazine at once. The
//! owner of a cache is one CPU with preemption disabled.
//!
//! What is fetched is one block, whose frames are nothing by themselves until they are handed out, one after the
//! other. Frames that came back are marked as cached. So freeing one again is noticed. Leak checks add
//! [`FrameCache::len`] of all CPUs to [`Frames::free_frames`].

use core::ops::{DerefMut, Range};
use core::sync::atomic::{AtomicUsize, Ordering};

use arrayvec::ArrayVec;

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
    /// Those that came back.
    frames: ArrayVec<Pfn, CAPACITY>,
    /// Those of the block that was fetched last, as far as they were not handed out.
    block: Range<u64>,
    /// How many these are: a word of its own, for other CPUs to read.
    len: AtomicUsize,
}

impl<'a> FrameCache<'a> {
    /// An empty cache over the allocator that `table` belongs to.
    pub const fn new(table: FrameTable<'a>) -> Self {
        Self { table, frames: ArrayVec::new_const(), block: 0..0, len: AtomicUsize::new(0) }
    }

    /// Frames it holds, which are neither in use nor on the allocator's free lists.
    pub fn len(&self) -> usize {
        self.len.load(Ordering::Relaxed)
    }

    /// Whether it holds none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// One frame with one reference, or `None` when memory is exhausted. Calls `lock` only when the
    /// cache is empty; it may refuse.
    #[inline(always)]
    pub fn alloc<L: DerefMut<Target = Frames<'a>>>(
        &mut self,
        lock: impl FnOnce() -> Option<L>,
    ) -> Option<Pfn> {
        let mut taken = self.take();
        if taken.is_none() {
            self.refill(&mut *lock()?);
            taken = self.take();
        }
        let pfn = taken?;
        *self.len.get_mut() -= 1;
        self.table.entry(pfn).ok()?.become_used(0);
        Some(pfn)
    }

    #[inline(always)]
    fn take(&mut self) -> Option<Pfn> {
        self.frames.pop().or_else(|| self.block.next().map(Pfn))
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
        entry.references.store(0, Ordering::Relaxed);
        if self.frames.is_full() {
            self.drain(&mut lock(), BATCH);
        }
        self.frames.push(pfn);
        *self.len.get_mut() += 1;
        Ok(())
    }

    /// Returns up to `count` frames, those longest unused first. `usize::MAX` empties the cache.
    pub fn drain(&mut self, frames: &mut Frames<'a>, count: usize) {
        for pfn in self.frames.drain(..count.min(self.frames.len())) {
            frames.free_cached(pfn);
            *self.len.get_mut() -= 1;
        }
        if count == usize::MAX {
            for number in core::mem::take(&mut self.block) {
                frames.free_cached(Pfn(number));
            }
            *self.len.get_mut() = 0;
        }
    }

    /// Fills half of an empty cache: with one block if there is one that large, else with frames as they come,
    /// single ones first. Smaller blocks are left to those who need them.
    #[cold]
    #[inline(never)]
    fn refill(&mut self, frames: &mut Frames<'a>) {
        if let Some(block) = frames.alloc(BATCH.trailing_zeros() as u8) {
            self.table.at_pfn(block).become_nothing();
            self.block = block.0..block.0 + BATCH as u64;
            *self.len.get_mut() += BATCH;
            return;
        }
        while self.frames.len() < BATCH
            && let Some(pfn) = frames.alloc(0)
        {
            self.table.at_pfn(pfn).become_nothing();
            self.frames.push(pfn);
            *self.len.get_mut() += 1;
        }
    }
}
