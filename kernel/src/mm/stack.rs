//! Task stacks: [`STACK_BYTES`] of memory above pages that are never mapped.
//!
//! The stacks' region is divided into slots of twice a stack's size; the lower half of each slot is
//! the guard, the upper half the stack. A stack that is dropped stays mapped, in a pool, so that
//! the next task's costs little; [`reclaim`] gives the pool's memory back.

use alloc::vec::Vec;

use orrery_core::frames::Pfn;
use x86_64::structures::paging::{Mapper, Page, Size4KiB};

use super::{OutOfMemory, PhysAddr, TABLES, TableFrames, VirtAddr, frames, kernel_map, layout};
use crate::arch::stacks::BOOT_STACKS;
pub use crate::arch::stacks::STACK_BYTES;
use crate::sync::SpinLock;

const PAGE_BYTES: usize = 4096;
const STACK_PAGES: usize = STACK_BYTES / PAGE_BYTES;
const SLOT_BYTES: u64 = 2 * STACK_BYTES as u64;
const SLOTS: u32 = (layout::ROOT_ENTRY_BYTES / SLOT_BYTES) as u32;
/// Stacks that `reclaim` unmaps between two flushes.
const RECLAIM_BATCH: usize = 32;

/// A stack of its own.
#[derive(Debug)]
pub struct KernelStack {
    slot: u32,
}

/// Slots that no stack has.
struct Pool {
    /// The first of the pooled stacks, which are mapped: each holds the next one's slot plus one
    /// in its lowest word.
    pooled: Option<u32>,
    pooled_count: u32,
    /// Slots that were unmapped again.
    unmapped: Vec<u32>,
    /// The first slot that was never used.
    fresh: u32,
}

static POOL: SpinLock<Pool> = SpinLock::new(
    "stack pool",
    Pool { pooled: None, pooled_count: 0, unmapped: Vec::new(), fresh: 0 },
);

fn stack_start(slot: u32) -> u64 {
    layout::STACKS + u64::from(slot) * SLOT_BYTES + STACK_BYTES as u64
}

impl Pool {
    fn push(&mut self, slot: u32) {
        let next = self.pooled.map_or(0, |slot| slot + 1);
        // SAFETY: a mapped stack that nobody uses.
        unsafe { (stack_start(slot) as *mut u32).write(next) };
        self.pooled = Some(slot);
        self.pooled_count += 1;
    }

    fn pop(&mut self) -> Option<u32> {
        let slot = self.pooled?;
        // SAFETY: as in `push`, which wrote the word.
        let next = unsafe { (stack_start(slot) as *const u32).read() };
        self.pooled = next.checked_sub(1);
        self.pooled_count -= 1;
        Some(slot)
    }

    fn unmapped_slot(&mut self) -> Option<u32> {
        if let Some(slot) = self.unmapped.pop() {
            return Some(slot);
        }
        let slot = self.fresh;
        self.fresh = slot.checked_add(1).filter(|&next| next <= SLOTS)?;
        Some(slot)
    }
}

impl KernelStack {
    /// A stack from the pool, or a new one. Its contents are unspecified.
    ///
    /// # Errors
    /// When there is no memory for it.
    pub fn new() -> Result<Self, OutOfMemory> {
        let mut pool = POOL.lock_irq();
        if let Some(slot) = pool.pop() {
            return Ok(Self { slot });
        }
        let slot = pool.unmapped_slot().ok_or(OutOfMemory)?;
        drop(pool);
        if map(slot).is_err() {
            // Nothing was mapped. Where even this finds no memory, the slot's address is lost.
            let mut pool = POOL.lock_irq();
            if pool.unmapped.try_reserve(1).is_ok() {
                pool.unmapped.push(slot);
            }
            return Err(OutOfMemory);
        }
        Ok(Self { slot })
    }

    /// The first address above the stack; a multiple of a page.
    pub fn top(&self) -> VirtAddr {
        VirtAddr::new(stack_start(self.slot) + STACK_BYTES as u64)
    }

    /// Whether `address` is in the stack.
    pub fn contains(&self, address: u64) -> bool {
        (stack_start(self.slot)..self.top().as_u64()).contains(&address)
    }
}

impl Drop for KernelStack {
    fn drop(&mut self) {
        POOL.lock_irq().push(self.slot);
    }
}

/// Maps all pages of a slot's stack, or none.
fn map(slot: u32) -> Result<(), OutOfMemory> {
    let mut pfns = [None; STACK_PAGES];
    for at in 0..STACK_PAGES {
        pfns[at] = frames::alloc(0);
        if pfns[at].is_none() {
            pfns.into_iter().flatten().for_each(|pfn| frames::free(pfn, 0));
            return Err(OutOfMemory);
        }
    }
    let mut tables = TABLES.lock_irq();
    for (page, pfn) in pfns.iter().flatten().enumerate() {
        let to = VirtAddr::new(stack_start(slot) + (page * PAGE_BYTES) as u64);
        let from = PhysAddr::new(pfn.start_address());
        let mapped = kernel_map::map_page::<Size4KiB>(
            tables.mapper(),
            to,
            from,
            kernel_map::DATA,
            &mut TableFrames,
        );
        if mapped.is_err() {
            // A slot lies within one page table, so only the first page can lack a table.
            debug_assert_eq!(page, 0);
            drop(tables);
            pfns.into_iter().flatten().for_each(|pfn| frames::free(pfn, 0));
            return Err(OutOfMemory);
        }
    }
    Ok(())
}

/// Unmaps the pooled stacks and frees their memory. `flush_all` must flush the translation caches
/// of all CPUs, global entries included, and return when that is done; it is called without locks.
/// Returns how many stacks there were.
pub fn reclaim(flush_all: fn()) -> usize {
    let mut reclaimed = 0;
    loop {
        let mut pfns = [Pfn(0); RECLAIM_BATCH * STACK_PAGES];
        let mut slots = [0; RECLAIM_BATCH];
        let mut count = 0;
        while count < RECLAIM_BATCH {
            let Some(slot) = POOL.lock_irq().pop() else { break };
            let pages = &mut pfns[count * STACK_PAGES..][..STACK_PAGES];
            unmap(slot, pages);
            slots[count] = slot;
            count += 1;
        }
        if count == 0 {
            return reclaimed;
        }
        flush_all();
        pfns[..count * STACK_PAGES].iter().for_each(|&pfn| frames::free(pfn, 0));
        let mut pool = POOL.lock_irq();
        if pool.unmapped.try_reserve(count).is_ok() {
            pool.unmapped.extend_from_slice(&slots[..count]);
        }
        reclaimed += count;
    }
}

fn unmap(slot: u32, pfns: &mut [Pfn]) {
    let mut tables = TABLES.lock_irq();
    for (page, pfn) in pfns.iter_mut().enumerate() {
        let at = VirtAddr::new(stack_start(slot) + (page * PAGE_BYTES) as u64);
        let page = Page::<Size4KiB>::containing_address(at);
        let (frame, flush) = tables.mapper().unmap(page).expect("a pooled stack is mapped");
        // `reclaim` flushes all CPUs before the frame is used again.
        flush.ignore();
        *pfn = Pfn::containing(frame.start_address().as_u64());
    }
}

/// Whether `address` is in the guard of a stack, a task's or the boot CPU's: whoever faults there
/// has overflowed the stack above.
pub fn overflow_at(address: u64) -> bool {
    let in_region = address.checked_sub(layout::STACKS).filter(|&at| at < layout::ROOT_ENTRY_BYTES);
    in_region.is_some_and(|at| at % SLOT_BYTES < STACK_BYTES as u64)
        || BOOT_STACKS.overflow_at(address)
}

/// Whether `address` is in a stack that is mapped.
pub fn is_on_a_stack(address: u64) -> bool {
    if BOOT_STACKS.contains(address) {
        return true;
    }
    let in_region = address.checked_sub(layout::STACKS).filter(|&at| at < layout::ROOT_ENTRY_BYTES);
    in_region.is_some_and(|at| at % SLOT_BYTES >= STACK_BYTES as u64)
        && super::is_mapped(VirtAddr::new(address))
}

/// Counts of stacks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stats {
    /// Stacks in use.
    pub used: u64,
    /// Stacks that wait, mapped, to be used again.
    pub pooled: u64,
}

impl Stats {
    /// Frames of all of them.
    pub fn frames(&self) -> u64 {
        (self.used + self.pooled) * STACK_PAGES as u64
    }
}

/// Counts stacks.
pub fn stats() -> Stats {
    let pool = POOL.lock_irq();
    let mapped = u64::from(pool.fresh) - pool.unmapped.len() as u64;
    let pooled = u64::from(pool.pooled_count);
    Stats { used: mapped - pooled, pooled }
}
