//! Physical memory for everyone: [`orrery_core::frames`] under a lock, behind per-CPU caches.
//!
//! May be called with interrupts on or off, but not from an NMI. Single frames come from the CPU's
//! cache; the lock is taken only when that is empty or full, and for larger blocks.

use core::cell::UnsafeCell;
use core::ops::{Deref, DerefMut};
use core::sync::atomic::{AtomicPtr, AtomicU64, Ordering};

use orrery_core::frames::{FRAME_BYTES, FrameCache, FrameMeta, FrameTable, Frames, Pfn};
use x86_64::PhysAddr;

use super::address::phys_to_virt;
use super::early::EarlyFrames;
use crate::arch::cpu;
use crate::arch::irq;
use crate::arch::percpu::{MAX_CPUS, PerCpu};
use crate::boot::{BootInfo, MemoryKind};
use crate::per_cpu;
use crate::sync::{SpinIrqGuard, SpinLock};

pub use orrery_core::frames::MAX_ORDER;

static FRAMES: SpinLock<Option<Frames<'static>>> = SpinLock::new("frames", None);

/// A CPU's cache.
struct Cache(UnsafeCell<FrameCache<'static>>);

// SAFETY: used only by its own CPU, with interrupts off (`with_cache`); lengths of others are only read where
// nobody allocates.
unsafe impl Sync for Cache {}

static CACHES: PerCpu<Cache> = per_cpu!(Cache(UnsafeCell::new(FrameCache::new(FrameTable::EMPTY))));

/// The allocator, locked.
struct Locked(SpinIrqGuard<'static, Option<Frames<'static>>>);

fn lock() -> Locked {
    Locked(FRAMES.lock_irq())
}

/// Frames on the free lists when the lock was last held.
static FREE: AtomicU64 = AtomicU64::new(0);
/// How many of them are kept from programs.
static RESERVE: AtomicU64 = AtomicU64::new(0);

impl Drop for Locked {
    fn drop(&mut self) {
        FREE.store(self.free_frames(), Ordering::Relaxed);
    }
}

const NOT_YET: &str = "frames are handed out after mm::init";

impl Deref for Locked {
    type Target = Frames<'static>;
    fn deref(&self) -> &Frames<'static> {
        self.0.as_ref().expect(NOT_YET)
    }
}

impl DerefMut for Locked {
    fn deref_mut(&mut self) -> &mut Frames<'static> {
        self.0.as_mut().expect(NOT_YET)
    }
}

/// Memory for the metadata of all frames up to the end of RAM.
pub(super) struct Metadata {
    at: PhysAddr,
    frames: u64,
}

/// Reserves it.
///
/// # Errors
/// When there is too little memory.
pub(super) fn reserve_metadata(
    boot: &BootInfo,
    early: &mut EarlyFrames,
) -> Result<Metadata, &'static str> {
    // The bundle's frames have metadata too, though they are never handed out: programs map them.
    let wanted = |kind| is_ours(kind) || kind == MemoryKind::Bundle;
    let usable = boot.memory.ranges().iter().filter(|range| wanted(range.kind));
    let frames = usable.map(|range| range.end / FRAME_BYTES).max().unwrap_or(0);
    let len_bytes = frames * size_of::<FrameMeta>() as u64;
    let at = early
        .alloc(len_bytes)
        .ok_or("too little memory below 4 GiB for the frame table; give the machine more")?;
    Ok(Metadata { at, frames })
}

/// Whether the allocator gets memory of this kind.
pub(super) fn is_ours(kind: MemoryKind) -> bool {
    matches!(kind, MemoryKind::Usable | MemoryKind::Loader)
}

/// Starts the allocator with all memory that nobody has, above 1 MiB: what is below is too little
/// to care for, and other CPUs start there.
///
/// # Safety
/// Once, with the kernel's page tables loaded: nothing of the loader is used any more.
pub(super) unsafe fn init(boot: &BootInfo, early: &EarlyFrames, metadata: Metadata) {
    let start = phys_to_virt(metadata.at).as_mut_ptr::<FrameMeta>();
    // SAFETY: zeroed memory of that size, which is what an unowned frame's metadata looks like.
    let meta = unsafe { core::slice::from_raw_parts_mut(start, metadata.frames as usize) };
    META.store(start, Ordering::Relaxed);
    META_LEN.store(metadata.frames, Ordering::Relaxed);
    let mut frames = Frames::new(meta, Pfn(0));
    for range in boot.memory.ranges().iter().filter(|range| is_ours(range.kind)) {
        for part in early.rest_of(range) {
            let (from, to) = (part.start.max(1 << 20), part.end);
            if from < to
                && let Err(why) =
                    frames.add_free_range(Pfn::containing(from), Pfn(to / FRAME_BYTES))
            {
                panic!("memory map: {why}");
            }
        }
    }
    let table = frames.table();
    FREE.store(frames.free_frames(), Ordering::Relaxed);
    RESERVE.store(frames.total_frames() / RESERVE_PART, Ordering::Relaxed);
    *FRAMES.lock_irq() = Some(frames);
    for cpu in 0..MAX_CPUS as u32 {
        // SAFETY: no other CPU runs yet.
        unsafe { *CACHES.of(cpu).0.get() = FrameCache::new(table) };
    }
}

/// Works with this CPU's cache.
#[inline(always)]
fn with_cache<R>(work: impl FnOnce(&mut FrameCache<'static>) -> R) -> R {
    irq::briefly_off(|_irq| {
        // SAFETY: interrupts are off, so this CPU is in here once, and no other uses its cache.
        work(unsafe { &mut *CACHES.this().0.get() })
    })
}

/// A block of 2^`order` frames with one reference, aligned to its size; `None` when there is none
/// left. Its contents are unspecified.
pub fn alloc(order: u8) -> Option<Pfn> {
    if order == 0 { with_cache(|cache| cache.alloc(|| Some(lock()))) } else { lock().alloc(order) }
}

/// One in so many frames is kept from programs, for what the kernel cannot do without.
const RESERVE_PART: u64 = 64;

/// A single frame for a program, if more are free than the kernel may need: a program that runs out
/// of memory must not take the kernel's with it. Its contents are unspecified.
#[inline(always)]
pub fn alloc_for_program() -> Option<Pfn> {
    with_cache(|cache| cache.alloc(lock_unless_scarce))
}

#[cold]
fn lock_unless_scarce() -> Option<Locked> {
    if is_scarce() { None } else { Some(lock()) }
}

/// Whether programs get no more memory.
pub fn is_scarce() -> bool {
    is_scarce_without(0)
}

/// Whether programs would get no more memory if so many frames fewer were free.
pub fn is_scarce_without(frames: u64) -> bool {
    FREE.load(Ordering::Relaxed) <= RESERVE.load(Ordering::Relaxed) + frames
}

/// As [`alloc_for_program`], zeroed.
pub fn alloc_zeroed_for_program() -> Option<Pfn> {
    alloc_for_program().inspect(|&pfn| zero(pfn, 0))
}

/// As [`alloc`], zeroed.
pub fn alloc_zeroed(order: u8) -> Option<Pfn> {
    alloc(order).inspect(|&pfn| zero(pfn, order))
}

fn zero(pfn: Pfn, order: u8) {
    let start = phys_to_virt(PhysAddr::new(pfn.start_address())).as_mut_ptr::<u64>();
    // SAFETY: the block is ours alone and in the direct map.
    unsafe { cpu::zero(start, (FRAME_BYTES as usize / 8) << order) };
}

/// Takes a block of 2^`order` frames back.
///
/// # Panics
/// If no such block was handed out, or it still has other references: memory that is freed wrongly
/// is corrupt already.
pub fn free(pfn: Pfn, order: u8) {
    let freed = if order == 0 {
        with_cache(|cache| cache.free(pfn, lock))
    } else {
        lock().free(pfn, order)
    };
    if let Err(why) = freed {
        panic!("{why}");
    }
}

/// Address of the metadata of frame 0.
static META: AtomicPtr<FrameMeta> = AtomicPtr::new(core::ptr::null_mut());
/// Frames that have metadata.
static META_LEN: AtomicU64 = AtomicU64::new(0);

/// The metadata of a frame that was handed out.
#[inline(always)]
pub fn meta(pfn: Pfn) -> &'static FrameMeta {
    metas()(pfn.start_address())
}

/// [`meta`], for many frames in a row, by the physical addresses of their starts.
#[inline(always)]
pub fn metas() -> impl Fn(u64) -> &'static FrameMeta {
    /// Bytes of memory for each byte of metadata.
    const RATIO: u64 = FRAME_BYTES / size_of::<FrameMeta>() as u64;
    let start = META.load(Ordering::Relaxed);
    move |physical| {
        debug_assert!(physical / FRAME_BYTES < META_LEN.load(Ordering::Relaxed));
        // SAFETY: frames that are handed out have metadata, which lives for ever.
        unsafe { &*start.byte_add((physical / RATIO) as usize) }
    }
}

/// The metadata of all frames, for references.
pub fn table() -> FrameTable<'static> {
    lock().table()
}

/// Frames on the free lists, and frames altogether.
pub fn free_and_total() -> (u64, u64) {
    let frames = lock();
    (frames.free_frames(), frames.total_frames())
}

/// Counts of frames.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stats {
    /// Frames the allocator was given.
    pub total: u64,
    /// Frames on its free lists.
    pub free: u64,
    /// Free frames in the CPUs' caches.
    pub cached: u64,
}

/// Counts frames. Exact while nobody allocates.
pub fn stats() -> Stats {
    let frames = lock();
    Stats {
        total: frames.total_frames(),
        free: frames.free_frames(),
        // SAFETY: words that only the cache's CPU writes; exact while it does not.
        cached: (0..MAX_CPUS as u32)
            .map(|cpu| unsafe { (*CACHES.of(cpu).0.get()).len() } as u64)
            .sum(),
    }
}
