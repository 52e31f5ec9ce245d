//! One CPU's trace ring: fixed-size blocks of records, one writer, one reader, no locks.
//!
//! ```text
//!            tail               head
//!   … free │ closed │ closed │ open │ free …      block n lives in slot n mod `blocks`
//! ```
//!
//! - The **writer** is the CPU itself, interrupts off. It fills the open block and closes it when
//!   it is full, when its 32-bit offsets run out, or when asked to ([`Ring::close`]).
//! - The **reader** is whoever drains; one at a time. It sees closed blocks only.
//!
//! Closing stores `head` with release after the block's last byte; the reader loads it with
//! acquire. The reader stores `tail` with release after its last read of a block; the writer loads
//! it with acquire before it opens a block in that slot. Nothing else is shared.
//!
//! In [`Mode::Stream`] a full ring drops new records, whole, and counts them. In [`Mode::Snapshot`]
//! the oldest block is overwritten and its records are counted as dropped; the reader must then
//! wait until the writer has stopped for good.
//!
//! A record counts as written when the cursor has passed it, so a CPU that was stopped between two
//! instructions never shows half a record ([`Ring::close_stopped`]).

use core::cell::UnsafeCell;
use core::ptr::{self, NonNull};
use core::sync::atomic::{AtomicPtr, Ordering};

#[cfg(not(loom))]
use core::sync::atomic::AtomicU64;
#[cfg(loom)]
use loom::sync::atomic::AtomicU64;

/// Bytes of a block, its head included.
pub const BLOCK_LEN: usize = 4096;
/// Bytes of records a block can hold.
pub const BLOCK_CAPACITY: usize = BLOCK_LEN - size_of::<BlockHead>();
/// Bytes before the fields of a record: index and offset.
pub const RECORD_HEAD: usize = 6;

/// What a full ring does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// Drops new records.
    Stream,
    /// Overwrites the oldest block: a flight recorder.
    Snapshot,
}

/// What is known of a block beside its records.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C, align(16))]
pub struct BlockHead {
    /// Time that the records' offsets count from.
    pub base_ticks: u64,
    /// Records kept before this block, since boot; overwritten ones do not count.
    pub first_record: u64,
    /// Records dropped before this block, since boot.
    pub dropped: u64,
    /// Task that ran when the block was opened.
    pub running_pid: u32,
    /// Records in the block.
    pub records: u32,
    /// Bytes of records in the block.
    pub len_bytes: u32,
}

/// What a CPU has produced since boot.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Totals {
    /// Records it wrote or dropped.
    pub produced: u64,
    /// Records that nobody will read: dropped, or overwritten.
    pub dropped: u64,
}

/// The writer's own words.
struct Writer {
    /// First byte past the open block; null while none is open.
    end: *mut u8,
    base_ticks: u64,
    /// Records written since boot.
    written: u64,
    /// Records dropped (stream) or overwritten (snapshot) since boot.
    dropped: u64,
}

/// Constant once attached.
struct Storage {
    bytes: *mut u8,
    blocks: u64,
    mode: Mode,
}

/// One CPU's ring. Empty and dropping until [`Ring::attach`] gives it memory.
pub struct Ring {
    /// Where the next record goes; written by the writer only.
    cursor: AtomicPtr<u8>,
    writer: UnsafeCell<Writer>,
    storage: UnsafeCell<Storage>,
    /// Blocks closed since boot.
    head: AtomicU64,
    /// Blocks read since boot.
    tail: AtomicU64,
}

// SAFETY: `writer` is touched by the writing CPU only (the contract of the unsafe functions);
// blocks change hands through `head` and `tail` as the module's header says.
unsafe impl Sync for Ring {}
// SAFETY: the storage outlives the ring (`attach`), wherever the ring moves.
unsafe impl Send for Ring {}

macro_rules! const_unless_loom {
    ($(#[$doc:meta])* pub fn $name:ident() -> $ret:ty $body:block) => {
        $(#[$doc])* #[cfg(not(loom))] pub const fn $name() -> $ret $body
        $(#[$doc])* #[cfg(loom)] pub fn $name() -> $ret $body
    };
}

impl Ring {
    const_unless_loom! {
        /// A ring without memory: it drops and counts every record.
        #[allow(clippy::new_without_default)]
        pub fn new() -> Self {
            Self {
                cursor: AtomicPtr::new(ptr::null_mut()),
                writer: UnsafeCell::new(Writer {
                    end: ptr::null_mut(),
                    base_ticks: 0,
                    written: 0,
                    dropped: 0,
                }),
                storage: UnsafeCell::new(Storage {
                    bytes: ptr::null_mut(),
                    blocks: 0,
                    mode: Mode::Stream,
                }),
                head: AtomicU64::new(0),
                tail: AtomicU64::new(0),
            }
        }
    }

    /// Gives the ring its memory: `blocks` blocks of [`BLOCK_LEN`] bytes.
    ///
    /// # Safety
    /// Once, before anyone reads; the writer is the caller or has not started. `storage` is
    /// aligned to 16 bytes, used by nothing else, and outlives the ring. `blocks` is at least 2.
    pub unsafe fn attach(&self, storage: NonNull<u8>, blocks: u64, mode: Mode) {
        // SAFETY: the caller is the only one here.
        unsafe { *self.storage.get() = Storage { bytes: storage.as_ptr(), blocks, mode } };
    }

    fn storage(&self) -> &Storage {
        // SAFETY: constant once `attach` is done, which comes before all other use.
        unsafe { &*self.storage.get() }
    }

    /// Where a record of `len` bytes at time `now_ticks` goes, and its offset; `None` where it is
    /// dropped, and counted. [`Ring::commit`] follows at once. `running` names the running task,
    /// should a block be opened.
    ///
    /// # Safety
    /// The caller is the ring's CPU with interrupts off (or otherwise the only writer).
    #[inline(always)]
    pub unsafe fn reserve(
        &self,
        len: usize,
        now_ticks: u64,
        running: impl FnOnce() -> u32,
    ) -> Option<(NonNull<u8>, u32)> {
        // SAFETY: single writer (caller).
        let writer = unsafe { &*self.writer.get() };
        let cursor = self.cursor.load(Ordering::Relaxed);
        let offset = now_ticks.wrapping_sub(writer.base_ticks);
        if (writer.end as usize).wrapping_sub(cursor as usize) >= len && offset >> 32 == 0 {
            // SAFETY: a cursor with room left is inside the open block, so not null.
            return Some((unsafe { NonNull::new_unchecked(cursor) }, offset as u32));
        }
        // SAFETY: as the caller's.
        unsafe { self.reserve_in_next_block(len, now_ticks, running()) }
    }

    /// Makes the record of `len` bytes that was written at the reserved place part of the block.
    ///
    /// # Safety
    /// As [`Ring::reserve`], right after it, with the same `len`, all bytes written.
    #[inline(always)]
    pub unsafe fn commit(&self, record: NonNull<u8>, len: usize) {
        // SAFETY: `reserve` found room for `len` bytes; single writer (caller).
        unsafe {
            (*self.writer.get()).written += 1;
            self.cursor.store(record.as_ptr().add(len), Ordering::Release);
        }
    }

    #[cold]
    #[inline(never)]
    unsafe fn reserve_in_next_block(
        &self,
        len: usize,
        now_ticks: u64,
        running_pid: u32,
    ) -> Option<(NonNull<u8>, u32)> {
        // SAFETY: single writer, by the callers' contract, as for every call below.
        unsafe {
            self.close();
            if len > BLOCK_CAPACITY || !self.open(now_ticks, running_pid) {
                (*self.writer.get()).dropped += 1;
                if self.storage().mode == Mode::Snapshot {
                    // Written nowhere, overwritten at once: totals stay `produced = written`.
                    (*self.writer.get()).written += 1;
                }
                return None;
            }
            NonNull::new(self.cursor.load(Ordering::Relaxed)).map(|cursor| (cursor, 0))
        }
    }

    /// Opens the next block; false where there is none free.
    unsafe fn open(&self, now_ticks: u64, running_pid: u32) -> bool {
        // SAFETY: single writer.
        let writer = unsafe { &mut *self.writer.get() };
        let number = self.head.load(Ordering::Relaxed);
        let storage = self.storage();
        if storage.blocks == 0 {
            return false;
        }
        let block = storage.block(number);
        match storage.mode {
            Mode::Stream => {
                if number - self.tail.load(Ordering::Acquire) >= storage.blocks {
                    return false;
                }
            }
            Mode::Snapshot => {
                if number >= storage.blocks {
                    // SAFETY: the slot holds block `number - blocks`, closed by this writer.
                    writer.dropped += u64::from(unsafe { (*block.cast::<BlockHead>()).records });
                }
            }
        }
        let dropped_in_stream = if storage.mode == Mode::Stream { writer.dropped } else { 0 };
        // SAFETY: the slot is free, so it is the writer's; `attach` made it large and aligned.
        unsafe {
            block.cast::<BlockHead>().write(BlockHead {
                base_ticks: now_ticks,
                first_record: writer.written,
                dropped: dropped_in_stream,
                running_pid,
                records: 0,
                len_bytes: 0,
            });
            writer.base_ticks = now_ticks;
            writer.end = block.add(BLOCK_LEN);
            self.cursor.store(block.add(size_of::<BlockHead>()), Ordering::Relaxed);
        }
        true
    }

    /// Closes the open block, so that the reader gets it, unless it is empty or none is open.
    ///
    /// # Safety
    /// As [`Ring::reserve`].
    pub unsafe fn close(&self) {
        // SAFETY: single writer.
        let writer = unsafe { &mut *self.writer.get() };
        if writer.end.is_null() {
            return;
        }
        let number = self.head.load(Ordering::Relaxed);
        let block = self.storage().block(number);
        // SAFETY: block `number` is open, so it is the writer's.
        unsafe {
            let head = &mut *block.cast::<BlockHead>();
            head.records = (writer.written - head.first_record) as u32;
            let used = self.cursor.load(Ordering::Relaxed) as usize - block as usize;
            head.len_bytes = (used - size_of::<BlockHead>()) as u32;
            if head.records == 0 {
                return;
            }
        }
        writer.end = ptr::null_mut();
        self.cursor.store(ptr::null_mut(), Ordering::Relaxed);
        self.head.store(number + 1, Ordering::Release);
    }

    /// How long the open block has been open; `None` where none is.
    ///
    /// # Safety
    /// As [`Ring::reserve`].
    pub unsafe fn open_age_ticks(&self, now_ticks: u64) -> Option<u64> {
        // SAFETY: single writer.
        let writer = unsafe { &*self.writer.get() };
        (!writer.end.is_null()).then(|| now_ticks.saturating_sub(writer.base_ticks))
    }

    /// [`Ring::close`] on behalf of a CPU that has been stopped for good, between any two
    /// instructions: only records that were committed whole are in the block.
    ///
    /// # Safety
    /// The writer is stopped and never writes again.
    pub unsafe fn close_stopped(&self) {
        // SAFETY: nobody else is a writer now. `written` may be ahead of the cursor by one record,
        // where the CPU was stopped inside `commit`; the decoder goes by the block's length.
        unsafe { self.close() }
    }

    /// Blocks that the reader can have now.
    pub fn readable(&self) -> u64 {
        self.head.load(Ordering::Acquire) - self.tail.load(Ordering::Relaxed)
    }

    /// Blocks closed since boot.
    pub fn closed(&self) -> u64 {
        self.head.load(Ordering::Acquire)
    }

    /// Blocks read since boot.
    pub fn read_so_far(&self) -> u64 {
        self.tail.load(Ordering::Acquire)
    }

    /// Calls `with` on the oldest closed block and then frees it; `None` where there is none.
    ///
    /// # Safety
    /// One reader at a time; in [`Mode::Snapshot`] the writer has stopped.
    pub unsafe fn read<R>(&self, with: impl FnOnce(&BlockHead, &[u8]) -> R) -> Option<R> {
        let storage = self.storage();
        let head = self.head.load(Ordering::Acquire);
        let mut tail = self.tail.load(Ordering::Relaxed);
        let mut overwritten = 0;
        if storage.mode == Mode::Snapshot {
            // SAFETY: in this mode the writer has stopped (caller).
            let writer = unsafe { &*self.writer.get() };
            // Opening a block has already claimed the slot of the one `blocks` before it.
            let claimed = head + u64::from(!writer.end.is_null());
            tail = tail.max(claimed.saturating_sub(storage.blocks));
            overwritten = writer.dropped;
        }
        if tail == head {
            return None;
        }
        let block = storage.block(tail);
        // SAFETY: a closed block is the reader's until `tail` passes it.
        let result = unsafe {
            let mut info = *block.cast::<BlockHead>();
            info.first_record -= overwritten;
            info.dropped += overwritten;
            let data = core::slice::from_raw_parts(
                block.add(size_of::<BlockHead>()),
                (info.len_bytes as usize).min(BLOCK_CAPACITY),
            );
            with(&info, data)
        };
        self.tail.store(tail + 1, Ordering::Release);
        Some(result)
    }

    /// What the CPU has produced since boot.
    ///
    /// # Safety
    /// The caller is the writer, or the writer has stopped.
    pub unsafe fn totals(&self) -> Totals {
        // SAFETY: by contract.
        let writer = unsafe { &*self.writer.get() };
        match self.storage().mode {
            Mode::Stream => {
                Totals { produced: writer.written + writer.dropped, dropped: writer.dropped }
            }
            Mode::Snapshot => Totals { produced: writer.written, dropped: writer.dropped },
        }
    }
}

impl Storage {
    /// First byte of block `number`.
    fn block(&self, number: u64) -> *mut u8 {
        // Inside what `attach` was given: the slot number is below `blocks`.
        self.bytes.wrapping_add((number % self.blocks) as usize * BLOCK_LEN)
    }
}

#[cfg(test)]
mod tests;
