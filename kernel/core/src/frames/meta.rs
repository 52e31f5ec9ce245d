//! What is known about each frame, and its reference count.
//!
//! # The 16 bytes
//!
//! | offset | size | field | meaning |
//! |---|---|---|---|
//! | 0 | 4 | references | of the block that begins here; 0 unless in use |
//! | 4 | 1 | state | [`State`] |
//! | 5 | 1 | order | log₂ of the frames of the block that begins here |
//! | 6 | 2 | count | for the owner of a frame in use, such as the occupied entries of a page table |
//! | 8 | 8 | word | free: links of its free list; in use: the owner's, such as which entries of a page table are present |
//!
//! All-zero bytes are a valid entry: a frame that the allocator was never given. Entries are
//! atomics throughout, so that a table can be shared; the fields of free blocks are written under
//! the allocator's lock only, and with relaxed accesses, which cost what plain ones do.

use core::fmt;
use core::sync::atomic::{AtomicU8, AtomicU16, AtomicU32, AtomicU64, Ordering};

use super::FRAME_BYTES;

/// A physical frame number: the physical address divided by [`FRAME_BYTES`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Pfn(pub u64);

impl Pfn {
    /// The frame that contains physical address `address_bytes`.
    pub const fn containing(address_bytes: u64) -> Self {
        Self(address_bytes / FRAME_BYTES)
    }

    /// Physical address of the frame's first byte.
    pub const fn start_address(self) -> u64 {
        self.0 * FRAME_BYTES
    }
}

/// What a frame is, to the allocator.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(super) enum State {
    /// No block begins here: inside a block, or memory that the allocator does not own.
    Inner = 0,
    /// A free block begins here.
    Free = 1,
    /// A block that was handed out begins here.
    Used = 2,
    /// A single frame that waits in a CPU's cache.
    Cached = 3,
}

/// What is known about one frame. See the module's table.
#[derive(Debug, Default)]
#[repr(C)]
pub struct FrameMeta {
    pub(super) references: AtomicU32,
    state: AtomicU8,
    order: AtomicU8,
    count: AtomicU16,
    word: AtomicU64,
}

const _: () = assert!(size_of::<FrameMeta>() == 16);

impl FrameMeta {
    /// A frame that the allocator does not own; the same as all-zero bytes.
    pub const fn new() -> Self {
        Self {
            references: AtomicU32::new(0),
            state: AtomicU8::new(State::Inner as u8),
            order: AtomicU8::new(0),
            count: AtomicU16::new(0),
            word: AtomicU64::new(0),
        }
    }

    /// The small counter of whoever uses the frame; 0 when the frame is handed out.
    pub fn owner_count(&self) -> &AtomicU16 {
        &self.count
    }

    /// The word of whoever uses the frame; 0 when the frame is handed out.
    pub fn owner_word(&self) -> &AtomicU64 {
        &self.word
    }

    /// Gives a frame its first reference, whose last one was dropped and that was not freed.
    #[inline(always)]
    pub fn set_first_reference(&self) {
        debug_assert!(self.references.load(Ordering::Relaxed) == 0);
        self.references.store(1, Ordering::Relaxed);
    }

    /// Adds a reference, on behalf of someone who holds one. For those who know the frame to be
    /// in use; [`FrameTable::get`] looks first.
    #[inline(always)]
    pub fn add_reference(&self) {
        let before = self.references.fetch_add(1, Ordering::Relaxed);
        debug_assert!(before > 0 && before < 1 << 31, "a reference to a frame that has {before}");
    }

    /// Drops a reference that the caller holds.
    ///
    /// # Panics
    /// When there was none: memory is corrupt already.
    #[inline(always)]
    pub fn drop_reference(&self) -> Put {
        // Release: what this holder did happens before the last holder's acquire.
        let before = self.references.fetch_sub(1, Ordering::Release);
        if before > 1 {
            return Put::Shared;
        }
        assert!(before == 1, "a reference was dropped that nobody held");
        self.references.load(Ordering::Acquire);
        Put::Last
    }

    /// References; 1 means that the caller, who holds one, is alone, and that all others are done
    /// with the frame (acquire).
    #[inline(always)]
    pub fn references(&self) -> u32 {
        self.references.load(Ordering::Acquire)
    }

    pub(super) fn state(&self) -> State {
        match self.state.load(Ordering::Relaxed) {
            0 => State::Inner,
            1 => State::Free,
            2 => State::Used,
            _ => State::Cached,
        }
    }

    pub(super) fn order(&self) -> u8 {
        self.order.load(Ordering::Relaxed)
    }

    pub(super) fn become_free(&self, order: u8) {
        self.references.store(0, Ordering::Relaxed);
        self.order.store(order, Ordering::Relaxed);
        self.state.store(State::Free as u8, Ordering::Relaxed);
    }

    pub(super) fn become_inner(&self) {
        self.state.store(State::Inner as u8, Ordering::Relaxed);
    }

    pub(super) fn become_used(&self, order: u8) {
        self.count.store(0, Ordering::Relaxed);
        self.word.store(0, Ordering::Relaxed);
        self.order.store(order, Ordering::Relaxed);
        self.references.store(1, Ordering::Relaxed);
        self.state.store(State::Used as u8, Ordering::Relaxed);
    }

    /// Used to cached, refused when another CPU was faster: a double free on two CPUs at once is
    /// noticed as well.
    pub(super) fn become_cached(&self) -> bool {
        self.state
            .compare_exchange(
                State::Used as u8,
                State::Cached as u8,
                Ordering::Relaxed,
                Ordering::Relaxed,
            )
            .is_ok()
    }

    /// Makes the first frame of a block that was handed out one that begins none, as the block's others.
    pub(super) fn become_nothing(&self) {
        self.references.store(0, Ordering::Relaxed);
        self.become_inner();
    }

    /// The neighbours in the free list, as indices.
    pub(super) fn links(&self) -> (u32, u32) {
        let word = self.word.load(Ordering::Relaxed);
        (word as u32, (word >> 32) as u32)
    }

    pub(super) fn set_links(&self, previous: u32, next: u32) {
        self.word.store(u64::from(previous) | u64::from(next) << 32, Ordering::Relaxed);
    }
}

/// A request that does not fit the frame's state. It changes nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FrameError {
    /// The frame it was about.
    pub pfn: Pfn,
    /// What was wrong.
    pub mismatch: Mismatch,
}

/// How a request and a frame's state disagree.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mismatch {
    /// The frame, or the end of the block, lies outside the table.
    OutsideTable,
    /// The order is larger than [`MAX_ORDER`](super::MAX_ORDER), or the frame number is not a
    /// multiple of the block's size.
    BadOrder(u8),
    /// No block begins here: never allocated, or the middle of one.
    NotABlock,
    /// The block is free already.
    DoubleFree,
    /// The block was allocated with this order, not the one given.
    WrongOrder(u8),
    /// The block has this many references, so its memory is in use.
    Referenced(u32),
    /// The range overlaps memory the allocator has already.
    Overlap,
}

impl fmt::Display for FrameError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "frame {:#x}: ", self.pfn.0)?;
        match self.mismatch {
            Mismatch::OutsideTable => f.write_str("outside the frame table"),
            Mismatch::BadOrder(order) => write!(f, "no block of order {order} can begin here"),
            Mismatch::NotABlock => f.write_str("no allocated block begins here"),
            Mismatch::DoubleFree => f.write_str("freed twice"),
            Mismatch::WrongOrder(order) => write!(f, "was allocated with order {order}"),
            Mismatch::Referenced(count) => write!(f, "freed with {count} references left"),
            Mismatch::Overlap => f.write_str("given to the allocator twice"),
        }
    }
}

impl core::error::Error for FrameError {}

/// What dropping a reference left behind.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use = "whoever drops the last reference frees the frame"]
pub enum Put {
    /// Others still hold references.
    Shared,
    /// That was the last: the caller owns the block now and frees it. All that other holders did
    /// with it happened before.
    Last,
}

/// The metadata of all frames, shared by everyone; a pair of words, to be copied freely.
#[derive(Clone, Copy, Debug)]
pub struct FrameTable<'a> {
    meta: &'a [FrameMeta],
    base: u64,
}

impl<'a> FrameTable<'a> {
    /// That of no frames.
    pub const EMPTY: Self = Self { meta: &[], base: 0 };

    pub(super) fn new(meta: &'a [FrameMeta], base_pfn: Pfn) -> Self {
        Self { meta, base: base_pfn.0 }
    }

    /// Frames the table describes, owned by the allocator or not.
    pub fn len(&self) -> usize {
        self.meta.len()
    }

    /// Whether the table describes no frame at all.
    pub fn is_empty(&self) -> bool {
        self.meta.is_empty()
    }

    /// The entry of a frame.
    ///
    /// # Errors
    /// [`Mismatch::OutsideTable`].
    pub fn entry(&self, pfn: Pfn) -> Result<&'a FrameMeta, FrameError> {
        self.index(pfn).map(|index| &self.meta[index as usize])
    }

    /// Adds a reference to the block that begins at `pfn`, on behalf of someone who holds one: the
    /// block cannot be freed meanwhile, so no ordering is needed.
    ///
    /// # Errors
    /// [`Mismatch::OutsideTable`]; [`Mismatch::NotABlock`] when nobody holds a reference.
    ///
    /// # Panics
    /// At 2³¹ references: nothing that still works takes so many.
    #[inline]
    pub fn get(&self, pfn: Pfn) -> Result<(), FrameError> {
        let before = self.entry(pfn)?.references.fetch_add(1, Ordering::Relaxed);
        if before == 0 {
            self.entry(pfn)?.references.fetch_sub(1, Ordering::Relaxed);
            return Err(FrameError { pfn, mismatch: Mismatch::NotABlock });
        }
        assert!(before < 1 << 31, "frame {:#x} has {before} references: a leak", pfn.0);
        Ok(())
    }

    /// Drops a reference.
    ///
    /// # Errors
    /// [`Mismatch::OutsideTable`]; [`Mismatch::NotABlock`] when there is no reference to drop.
    #[inline]
    pub fn put(&self, pfn: Pfn) -> Result<Put, FrameError> {
        let references = &self.entry(pfn)?.references;
        // Release: what this holder did happens before the last holder's acquire.
        match references.fetch_sub(1, Ordering::Release) {
            0 => {
                references.fetch_add(1, Ordering::Relaxed);
                Err(FrameError { pfn, mismatch: Mismatch::NotABlock })
            }
            1 => {
                references.load(Ordering::Acquire);
                Ok(Put::Last)
            }
            _ => Ok(Put::Shared),
        }
    }

    /// References to the block that begins at `pfn`; 1 means that the caller, who holds one, is
    /// alone, and that all others are done with it (acquire).
    ///
    /// # Errors
    /// [`Mismatch::OutsideTable`].
    #[inline]
    pub fn references(&self, pfn: Pfn) -> Result<u32, FrameError> {
        Ok(self.entry(pfn)?.references.load(Ordering::Acquire))
    }

    pub(super) fn index(&self, pfn: Pfn) -> Result<u32, FrameError> {
        let outside = FrameError { pfn, mismatch: Mismatch::OutsideTable };
        let index = pfn.0.checked_sub(self.base).ok_or(outside)?;
        if index >= self.meta.len() as u64 {
            return Err(outside);
        }
        Ok(index as u32)
    }

    pub(super) fn pfn(&self, index: u32) -> Pfn {
        Pfn(self.base + u64::from(index))
    }

    /// The entry of a frame that the allocator has handed out.
    pub(super) fn at_pfn(&self, pfn: Pfn) -> &'a FrameMeta {
        &self.meta[(pfn.0 - self.base) as usize]
    }

    pub(super) fn at(&self, index: u32) -> &'a FrameMeta {
        &self.meta[index as usize]
    }
}
