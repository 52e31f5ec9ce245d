//! The heap: `talc`, fed with blocks of frames as it needs them, which it keeps; and before it, for small
//! allocations, a magazine per CPU.
//!
//! Most allocations are small and short-lived: what makes up a task or an open file. Each CPU keeps
//! freed ones at hand, sorted by [size class](CLASS_BYTES), and goes to `talc`, and to its lock, only when it
//! has none or too many. A magazine is used by its own CPU, with interrupts off.
//!
//! What is small is there for certain, as far as the frames that are kept from programs go: most of the kernel cannot
//! go on without. A [large](LARGE_BYTES) allocation may fail, by rule: its size is mostly a program's choice, there
//! may be no block of that size, and it leaves those frames alone.
//!
//! Meant for tasks. The lock turns interrupts off all the same, so that an interrupt handler that
//! frees something cannot deadlock. It is not a [`SpinLock`](crate::sync::SpinLock), since `talc`
//! wants a `lock_api` mutex; nothing but the frames' lock is ever taken under it.

use core::alloc::{GlobalAlloc, Layout};
use core::cell::UnsafeCell;
use core::ptr;
use core::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use orrery_core::frames::FRAME_BYTES;
use talc::TalcLock;
use talc::base::Talc;
use talc::base::binning::Binning;
use talc::lock_api::{GuardNoSend, RawMutex};
use talc::source::Source;
use x86_64::PhysAddr;

use super::{address, frames};
use crate::arch::irq::IrqOff;
use crate::arch::percpu::{MAX_CPUS, PerCpu};
use crate::arch::{cpu, irq};
use crate::per_cpu;

#[global_allocator]
static HEAP: Heap = Heap;

static TALC: TalcLock<IrqSpin, FromFrames> = TalcLock::new(FromFrames);

/// Sizes of what magazines hold, in bytes; each a multiple of [`CLASS_ALIGN`].
const CLASS_BYTES: [usize; CLASSES] =
    [16, 32, 48, 64, 96, 128, 192, 256, 384, 512, 768, 1024, 1536, 2048];
const CLASSES: usize = 14;
/// Alignment of what magazines hold.
const CLASS_ALIGN: usize = 16;
const LARGEST_CLASS_BYTES: usize = CLASS_BYTES[CLASSES - 1];
/// Allocations that a magazine holds of a class at most; half of them go back to `talc` then.
const MAGAZINE: u32 = 64;

/// The class of each size, by its number of [`CLASS_ALIGN`]s, rounded up.
static CLASS_OF: [u8; LARGEST_CLASS_BYTES / CLASS_ALIGN + 1] = {
    let mut table = [0; LARGEST_CLASS_BYTES / CLASS_ALIGN + 1];
    let mut units = 0;
    while units < table.len() {
        let mut class = 0;
        while CLASS_BYTES[class] < units * CLASS_ALIGN {
            class += 1;
        }
        table[units] = class as u8;
        units += 1;
    }
    table
};

/// A freed allocation.
struct Freed {
    next: *mut Freed,
}

/// What one CPU has at hand of one class.
struct Shelf {
    first: *mut Freed,
    count: u32,
}

struct Magazine(UnsafeCell<[Shelf; CLASSES]>);

// SAFETY: used by its own CPU only, with interrupts off; counts of others are only read where nobody
// allocates.
unsafe impl Sync for Magazine {}

static MAGAZINES: PerCpu<Magazine> = per_cpu!(Magazine(UnsafeCell::new(
    [const { Shelf { first: ptr::null_mut(), count: 0 } }; CLASSES]
)));

/// The allocator: magazines, then `talc`.
struct Heap;

#[inline(always)]
fn class_of(layout: &Layout) -> Option<usize> {
    let is_small = layout.size() <= LARGEST_CLASS_BYTES && layout.align() <= CLASS_ALIGN;
    is_small.then(|| CLASS_OF[layout.size().div_ceil(CLASS_ALIGN)].into())
}

const fn class_layout(class: usize) -> Layout {
    match Layout::from_size_align(CLASS_BYTES[class], CLASS_ALIGN) {
        Ok(layout) => layout,
        Err(_) => panic!("the classes' sizes are small"),
    }
}

/// # Safety
/// The caller's interrupts are off, and it makes one reference at a time.
#[inline(always)]
#[allow(clippy::mut_from_ref)]
unsafe fn shelf(_irq: &IrqOff, class: usize) -> &mut Shelf {
    // SAFETY: this CPU's own (module header).
    unsafe { &mut (*MAGAZINES.this().0.get())[class] }
}

// SAFETY: a magazine gives out what `talc` gave for the class's layout, which holds every layout of the
// class, and each to one caller at a time.
unsafe impl GlobalAlloc for Heap {
    #[inline]
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        let Some(class) = class_of(&layout) else {
            // SAFETY: by contract.
            return unsafe { TALC.alloc(layout) };
        };
        irq::briefly_off(|irq| {
            // SAFETY: one reference, interrupts off; what is on a shelf is free memory of its class.
            unsafe {
                let shelf = shelf(irq, class);
                if let Some(freed) = shelf.first.as_ref() {
                    shelf.first = freed.next;
                    shelf.count -= 1;
                    return ptr::from_ref(freed).cast_mut().cast();
                }
                refill(class)
            }
        })
    }

    #[inline]
    unsafe fn dealloc(&self, at: *mut u8, layout: Layout) {
        let Some(class) = class_of(&layout) else {
            // SAFETY: by contract.
            return unsafe { TALC.dealloc(at, layout) };
        };
        irq::briefly_off(|irq| {
            // SAFETY: one reference, interrupts off; the memory is free now, and has room for a link.
            unsafe {
                let shelf = shelf(irq, class);
                let freed = at.cast::<Freed>();
                freed.write(Freed { next: shelf.first });
                shelf.first = freed;
                shelf.count += 1;
                if shelf.count > MAGAZINE {
                    give_back(shelf, class);
                }
            }
        })
    }

    unsafe fn realloc(&self, at: *mut u8, layout: Layout, new_bytes: usize) -> *mut u8 {
        // SAFETY: by contract `new_bytes` is no more than a layout's size may be.
        let new = unsafe { Layout::from_size_align_unchecked(new_bytes, layout.align()) };
        match (class_of(&layout), class_of(&new)) {
            (Some(old), Some(new)) if old == new => at,
            // SAFETY: both are `talc`'s.
            (None, None) => unsafe { TALC.realloc(at, layout, new_bytes) },
            // SAFETY: by contract; the two allocations are distinct.
            _ => unsafe {
                let to = self.alloc(new);
                if !to.is_null() {
                    ptr::copy_nonoverlapping(at, to, layout.size().min(new_bytes));
                    self.dealloc(at, layout);
                }
                to
            },
        }
    }
}

/// An allocation of a class that the shelf has none of; null if there is no memory.
///
/// # Safety
/// As [`GlobalAlloc::alloc`].
#[cold]
#[inline(never)]
unsafe fn refill(class: usize) -> *mut u8 {
    // SAFETY: by contract.
    unsafe { TALC.alloc(class_layout(class)) }
}

/// Gives half of what is on a full shelf back to `talc`.
///
/// # Safety
/// The shelf is that of this class, of this CPU, and interrupts are off.
#[cold]
#[inline(never)]
unsafe fn give_back(shelf: &mut Shelf, class: usize) {
    while shelf.count > MAGAZINE / 2 {
        let freed = shelf.first;
        // SAFETY: `count` allocations are on the shelf, each from `TALC` with the class's layout.
        unsafe {
            shelf.first = (*freed).next;
            TALC.dealloc(freed.cast(), class_layout(class));
        }
        shelf.count -= 1;
    }
}

/// Order of the blocks that the heap asks for where it needs no larger one: 256 KiB.
const USUAL_ORDER: u8 = 6;
/// What `talc` needs of the first block besides the allocation, for its own tables, and of others.
const TABLES_BYTES: usize = 4096;
const OVERHEAD_BYTES: usize = 64;

/// Allocations of more bytes may fail: whoever makes them says so (`try_reserve`), and can do without.
const LARGE_BYTES: usize = 16 << 10;

static CLAIMED_FRAMES: AtomicU64 = AtomicU64::new(0);

#[derive(Debug)]
struct FromFrames;

// SAFETY: the frame allocator uses no heap.
unsafe impl Source for FromFrames {
    fn acquire<B: Binning>(talc: &mut Talc<Self, B>, layout: Layout) -> Result<(), ()> {
        let is_first = CLAIMED_FRAMES.load(Ordering::Relaxed) == 0;
        let overhead_bytes = if is_first { TABLES_BYTES } else { OVERHEAD_BYTES };
        let wanted_bytes = layout
            .size()
            .checked_add(layout.align())
            .and_then(|bytes| bytes.checked_add(overhead_bytes))
            .ok_or(())?;
        let wanted_frames = (wanted_bytes as u64).div_ceil(FRAME_BYTES);
        let least = wanted_frames.next_power_of_two().trailing_zeros() as u8;
        if layout.size() > LARGE_BYTES && frames::is_scarce_without(1 << least) {
            return Err(());
        }
        // The usual block first; where memory is short or in pieces, what is just enough.
        let (block, order) = [least.max(USUAL_ORDER), least]
            .into_iter()
            .find_map(|order| Some((frames::alloc(order)?, order)))
            .ok_or(())?;
        let start = address::phys_to_virt(PhysAddr::new(block.start_address()));
        let len_bytes = (FRAME_BYTES as usize) << order;
        // SAFETY: the block is the heap's from here on.
        let claimed = unsafe { talc.claim(start.as_mut_ptr(), len_bytes) };
        if claimed.is_none() {
            frames::free(block, order);
            return Err(());
        }
        CLAIMED_FRAMES.fetch_add(1 << order, Ordering::Relaxed);
        Ok(())
    }
}

/// A spinlock that turns interrupts off.
struct IrqSpin {
    locked: AtomicBool,
    /// Whether unlocking turns interrupts on; the holder's.
    restore: AtomicBool,
}

impl IrqSpin {
    fn try_acquire(&self) -> bool {
        self.locked.compare_exchange(false, true, Ordering::Acquire, Ordering::Relaxed).is_ok()
    }
}

// SAFETY: `locked` changes from false to true for one CPU at a time, and that one's interrupt
// handlers cannot come in between.
unsafe impl RawMutex for IrqSpin {
    #[allow(clippy::declare_interior_mutable_const)]
    const INIT: Self = Self { locked: AtomicBool::new(false), restore: AtomicBool::new(false) };

    type GuardMarker = GuardNoSend;

    fn lock(&self) {
        let restore = irq::are_enabled();
        irq::disable();
        while !self.try_acquire() {
            while self.locked.load(Ordering::Relaxed) {
                cpu::pause();
            }
        }
        self.restore.store(restore, Ordering::Relaxed);
    }

    fn try_lock(&self) -> bool {
        let restore = irq::are_enabled();
        irq::disable();
        let acquired = self.try_acquire();
        if acquired {
            self.restore.store(restore, Ordering::Relaxed);
        } else if restore {
            // SAFETY: they were on before.
            unsafe { irq::enable() };
        }
        acquired
    }

    unsafe fn unlock(&self) {
        let restore = self.restore.load(Ordering::Relaxed);
        self.locked.store(false, Ordering::Release);
        if restore {
            // SAFETY: they were on when the lock was taken; nothing else changed that meanwhile.
            unsafe { irq::enable() };
        }
    }
}

/// What the heap has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stats {
    /// Bytes of all live allocations, rounded up to their classes.
    pub used_bytes: u64,
    /// Live allocations.
    pub allocations: u64,
    /// Frames that it has taken, for good.
    pub claimed_frames: u64,
}

/// Asks the heap. Exact while nobody allocates.
pub fn stats() -> Stats {
    let (mut cached, mut cached_bytes) = (0, 0);
    for cpu in 0..MAX_CPUS as u32 {
        for (class, bytes) in CLASS_BYTES.iter().enumerate() {
            // SAFETY: a word that only its own CPU writes; the value is exact while it does not.
            let count = unsafe { (*MAGAZINES.of(cpu).0.get().cast::<Shelf>().add(class)).count };
            cached += u64::from(count);
            cached_bytes += u64::from(count) * *bytes as u64;
        }
    }
    let heap = TALC.lock();
    let counters = heap.counters();
    Stats {
        used_bytes: counters.allocated_bytes as u64 - cached_bytes,
        allocations: counters.allocation_count as u64 - cached,
        claimed_frames: CLAIMED_FRAMES.load(Ordering::Relaxed),
    }
}
