//! The buddy allocator: blocks of 2ⁿ frames, naturally aligned.
//!
//! Invariants, while the lock is not held
//! - A free block of order *n* begins at a frame number that is a multiple of 2ⁿ, is on free list
//!   *n* exactly once, and its buddy is not a free block of the same order: they would be one.
//! - Only a block's first frame says `Free` or `Used`; all others say `Inner`.
//! - Bit *n* of `nonempty` is set exactly when free list *n* has a block.
//!
//! Free lists are doubly linked by index through the metadata word, so that coalescing removes a
//! buddy from the middle of its list in constant time. They are last-in, first-out, for the sake of
//! the caches.

use super::meta::{FrameError, FrameMeta, FrameTable, Mismatch, Pfn, State};

/// Largest block: 2¹² frames, 16 MiB.
pub const MAX_ORDER: u8 = 12;
const ORDERS: usize = MAX_ORDER as usize + 1;
const NIL: u32 = u32::MAX;

/// The allocator. The kernel keeps it under one lock; what is lock-free is in [`FrameTable`].
#[derive(Debug)]
pub struct Frames<'a> {
    table: FrameTable<'a>,
    heads: [u32; ORDERS],
    nonempty: u32,
    total_frames: u64,
    free_frames: u64,
}

impl<'a> Frames<'a> {
    /// An allocator for the frames from `base_pfn` on, one for each entry of `meta`, that owns none
    /// of them yet. The entries are those of [`FrameMeta::new`], or all-zero bytes.
    ///
    /// # Panics
    /// If `meta` has 2³² - 1 entries or more (16 TiB of memory).
    pub fn new(meta: &'a mut [FrameMeta], base_pfn: Pfn) -> Self {
        assert!((meta.len() as u64) < u64::from(NIL), "more frames than 32-bit links can number");
        Self {
            table: FrameTable::new(meta, base_pfn),
            heads: [NIL; ORDERS],
            nonempty: 0,
            total_frames: 0,
            free_frames: 0,
        }
    }

    /// The table behind it, for references and for frame caches.
    pub fn table(&self) -> FrameTable<'a> {
        self.table
    }

    /// Frames ever added.
    pub fn total_frames(&self) -> u64 {
        self.total_frames
    }

    /// Frames on the free lists. Those that wait in a [`FrameCache`](super::FrameCache) are not
    /// among them.
    pub fn free_frames(&self) -> u64 {
        self.free_frames
    }

    /// Adds the frames `start..end`, for example one usable entry of the boot memory map. Takes
    /// time in proportion to the number of largest blocks in it, not to its frames.
    ///
    /// # Errors
    /// [`Mismatch::OutsideTable`]; [`Mismatch::Overlap`] for a range whose blocks lie in memory
    /// that was added before, as far as that shows without reading every entry (builds with debug
    /// assertions read every entry). Blocks before the offending one stay added.
    pub fn add_free_range(&mut self, start: Pfn, end: Pfn) -> Result<(), FrameError> {
        let mut pfn = start.0;
        while pfn < end.0 {
            let by_alignment = pfn.trailing_zeros().min(u32::from(MAX_ORDER));
            let by_length = (end.0 - pfn).ilog2();
            let order = by_alignment.min(by_length) as u8;
            let frames = 1 << order;
            let index = self.table.index(Pfn(pfn))?;
            self.table.index(Pfn(pfn + frames - 1))?;
            if self.overlaps(Pfn(pfn), order) {
                return Err(FrameError { pfn: Pfn(pfn), mismatch: Mismatch::Overlap });
            }
            self.total_frames += frames;
            self.insert_coalescing(index, order);
            pfn += frames;
        }
        Ok(())
    }

    /// A block of 2^`order` frames with one reference, or `None` when no free block is large
    /// enough or `order` is above [`MAX_ORDER`]. The frame number is a multiple of 2^`order`.
    pub fn alloc(&mut self, order: u8) -> Option<Pfn> {
        if order > MAX_ORDER {
            return None;
        }
        let fitting = self.nonempty >> order << order;
        if fitting == 0 {
            return None;
        }
        let mut at_order = fitting.trailing_zeros() as u8;
        let index = self.heads[usize::from(at_order)];
        self.unlink(index, at_order);
        while at_order > order {
            at_order -= 1;
            self.link(index + (1 << at_order), at_order);
        }
        self.table.at(index).become_used(order);
        self.free_frames -= 1 << order;
        Some(self.table.pfn(index))
    }

    /// Takes a block back, from whoever dropped its last reference or holds the only one.
    ///
    /// # Errors
    /// A [`FrameError`] when no such block is allocated or it is still shared. Nothing changes
    /// then.
    pub fn free(&mut self, pfn: Pfn, order: u8) -> Result<(), FrameError> {
        let refuse = |mismatch| Err(FrameError { pfn, mismatch });
        let index = self.table.index(pfn)?;
        let entry = self.table.at(index);
        match entry.state() {
            State::Inner => return refuse(Mismatch::NotABlock),
            State::Free | State::Cached => return refuse(Mismatch::DoubleFree),
            State::Used => {}
        }
        if entry.order() != order {
            return refuse(Mismatch::WrongOrder(entry.order()));
        }
        let references = self.table.references(pfn)?;
        if references > 1 {
            return refuse(Mismatch::Referenced(references));
        }
        self.insert_coalescing(index, order);
        Ok(())
    }

    /// Frees a frame that a cache holds.
    pub(super) fn free_cached(&mut self, pfn: Pfn) {
        let index = self.table.index(pfn).expect("a cache holds frames of the table");
        debug_assert!(matches!(self.table.at(index).state(), State::Cached | State::Inner));
        self.insert_coalescing(index, 0);
    }

    /// Makes the block free and merges it with its buddy as long as that is free too.
    fn insert_coalescing(&mut self, mut index: u32, mut order: u8) {
        self.free_frames += 1 << order;
        self.table.at(index).become_inner();
        while order < MAX_ORDER {
            let buddy = Pfn(self.table.pfn(index).0 ^ (1 << order));
            let Ok(buddy) = self.table.index(buddy) else { break };
            let entry = self.table.at(buddy);
            if entry.state() != State::Free || entry.order() != order {
                break;
            }
            self.unlink(buddy, order);
            index = index.min(buddy);
            order += 1;
        }
        self.link(index, order);
    }

    /// Puts a block at the front of its free list.
    fn link(&mut self, index: u32, order: u8) {
        let head = &mut self.heads[usize::from(order)];
        let next = *head;
        *head = index;
        self.nonempty |= 1 << order;
        let entry = self.table.at(index);
        entry.become_free(order);
        entry.set_links(NIL, next);
        if next != NIL {
            let (_, after) = self.table.at(next).links();
            self.table.at(next).set_links(index, after);
        }
    }

    /// Takes a free block off its list; it is nothing afterwards.
    fn unlink(&mut self, index: u32, order: u8) {
        let entry = self.table.at(index);
        debug_assert_eq!((entry.state(), entry.order()), (State::Free, order));
        let (previous, next) = entry.links();
        if next != NIL {
            let (_, after) = self.table.at(next).links();
            self.table.at(next).set_links(previous, after);
        }
        if previous != NIL {
            let (before, _) = self.table.at(previous).links();
            self.table.at(previous).set_links(before, next);
        } else {
            self.heads[usize::from(order)] = next;
            if next == NIL {
                self.nonempty &= !(1 << order);
            }
        }
        entry.become_inner();
    }

    /// Whether a block here would lie in a known block, or (debug builds) contain one.
    fn overlaps(&self, pfn: Pfn, order: u8) -> bool {
        let inside = (0..=MAX_ORDER).any(|outer| {
            let Ok(entry) = self.table.entry(Pfn(pfn.0 >> outer << outer)) else { return false };
            entry.state() != State::Inner && entry.order() >= outer
        });
        let contains = cfg!(debug_assertions)
            && (pfn.0..pfn.0 + (1 << order)).any(|inner| {
                self.table.entry(Pfn(inner)).is_ok_and(|entry| entry.state() != State::Inner)
            });
        inside || contains
    }

    /// Blocks on each free list, for tests and statistics.
    pub fn free_blocks(&self) -> [u32; ORDERS] {
        core::array::from_fn(|order| {
            let mut blocks = 0;
            let mut index = self.heads[order];
            while index != NIL {
                blocks += 1;
                index = self.table.at(index).links().1;
            }
            blocks
        })
    }
}
