//! The heap: `talc`, fed with blocks of frames as it needs them, which it keeps.
//!
//! Meant for tasks. The lock turns interrupts off all the same, so that an interrupt handler that
//! frees something cannot deadlock. It is not a [`SpinLock`](crate::sync::SpinLock), since `talc`
//! wants a `lock_api` mutex; nothing but the frames' lock is ever taken under it.

use core::alloc::Layout;
use core::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use orrery_core::frames::FRAME_BYTES;
use talc::TalcLock;
use talc::base::Talc;
use talc::base::binning::Binning;
use talc::lock_api::{GuardNoSend, RawMutex};
use talc::source::Source;
use x86_64::PhysAddr;

use super::{address, frames};
use crate::arch::{cpu, irq};

#[global_allocator]
static HEAP: TalcLock<IrqSpin, FromFrames> = TalcLock::new(FromFrames);

/// Order of the blocks that the heap asks for where it needs no larger one: 256 KiB.
const USUAL_ORDER: u8 = 6;
/// What `talc` needs of a block besides the allocation: its own tables, the first time.
const OVERHEAD_BYTES: usize = 4096;

static CLAIMED_FRAMES: AtomicU64 = AtomicU64::new(0);

#[derive(Debug)]
struct FromFrames;

// SAFETY: the frame allocator uses no heap.
unsafe impl Source for FromFrames {
    fn acquire<B: Binning>(talc: &mut Talc<Self, B>, layout: Layout) -> Result<(), ()> {
        let wanted_bytes = layout
            .size()
            .checked_add(layout.align())
            .and_then(|bytes| bytes.checked_add(OVERHEAD_BYTES))
            .ok_or(())?;
        let wanted_frames = (wanted_bytes as u64).div_ceil(FRAME_BYTES);
        let least = wanted_frames.next_power_of_two().trailing_zeros() as u8;
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
    /// Bytes of all live allocations, as they were asked for.
    pub used_bytes: u64,
    /// Live allocations.
    pub allocations: u64,
    /// Frames that it has taken, for good.
    pub claimed_frames: u64,
}

/// Asks the heap.
pub fn stats() -> Stats {
    let heap = HEAP.lock();
    let counters = heap.counters();
    Stats {
        used_bytes: counters.allocated_bytes as u64,
        allocations: counters.allocation_count as u64,
        claimed_frames: CLAIMED_FRAMES.load(Ordering::Relaxed),
    }
}
