//! How much the file system takes of the machine's memory: counters with limits.

use core::sync::atomic::{AtomicU64, Ordering};

use crate::mm::frames;

/// Something counted.
pub struct Counter {
    used: AtomicU64,
    /// The limit is the number of the machine's frames divided by this.
    frames_per_item: u64,
}

/// There is no more.
#[derive(Clone, Copy, Debug)]
pub struct LimitReached;

/// Inodes, those without names included.
pub static INODES: Counter = Counter::new(4);
/// Names in directories.
pub static NAMES: Counter = Counter::new(2);
/// Open file descriptions.
pub static OPEN_FILES: Counter = Counter::new(2);
/// Pages of files. The limit is half of the memory, as for Linux's tmpfs.
pub static FILE_PAGES: Counter = Counter::new(2);
/// Pages of text that is read, as of `/proc`.
pub static TEXT_PAGES: Counter = Counter::new(16);
/// Pages of pipes.
pub static PIPE_PAGES: Counter = Counter::new(4);

impl Counter {
    const fn new(frames_per_item: u64) -> Self {
        Self { used: AtomicU64::new(0), frames_per_item }
    }

    /// Counts one more. Where programs get no more memory, there is none: what it takes of the heap, little as it is,
    /// would be the kernel's own.
    ///
    /// # Errors
    /// [`LimitReached`].
    pub fn take(&self) -> Result<(), LimitReached> {
        if frames::is_scarce() {
            return Err(LimitReached);
        }
        if self.used.fetch_add(1, Ordering::Relaxed) >= self.limit() {
            self.give_back();
            return Err(LimitReached);
        }
        Ok(())
    }

    /// Counts one less.
    pub fn give_back(&self) {
        self.used.fetch_sub(1, Ordering::Relaxed);
    }

    /// In use.
    pub fn used(&self) -> u64 {
        self.used.load(Ordering::Relaxed)
    }

    /// How many there may be.
    pub fn limit(&self) -> u64 {
        TOTAL_FRAMES.load(Ordering::Relaxed) / self.frames_per_item
    }
}

/// How many locks on files there may be, in all tables of one sort.
pub fn file_locks() -> usize {
    const FRAMES_PER_LOCK: u64 = 8;
    (TOTAL_FRAMES.load(Ordering::Relaxed) / FRAMES_PER_LOCK) as usize
}

static TOTAL_FRAMES: AtomicU64 = AtomicU64::new(0);

/// Asks how much memory there is. Once, before anything is counted.
pub fn init() {
    TOTAL_FRAMES.store(frames::stats().total, Ordering::Relaxed);
}
