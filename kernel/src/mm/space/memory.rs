//! Frames for page tables and pages, as [`orrery_core::space`] wants them.
//!
//! Tables that are taken down have been zeroed on the way; each CPU keeps some at hand, and some
//! roots, whose upper half is the same in all address spaces.

use core::cell::UnsafeCell;
use core::sync::atomic::{AtomicU64, Ordering};

use orrery_core::frames::{FrameMeta, Pfn};
use orrery_core::space::{Contents, Memory, Stale, Table};

use super::Space;
use crate::arch::cpu;
use crate::arch::irq::IrqOff;
use crate::arch::percpu::{MAX_CPUS, PerCpu};
use crate::mm::address::phys_to_virt;
use crate::mm::layout::{self, UPPER_HALF};
use crate::mm::{self, frames};
use crate::per_cpu;

/// Tables, and roots, that a CPU keeps at hand.
const POOLED: usize = 16;

struct Pool {
    frames: UnsafeCell<[Pfn; POOLED]>,
    len: AtomicU64,
}

// SAFETY: used only by its own CPU, with interrupts off; others read the length.
unsafe impl Sync for Pool {}

static TABLES: PerCpu<Pool> =
    per_cpu!(Pool { frames: UnsafeCell::new([Pfn(0); POOLED]), len: AtomicU64::new(0) });
static ROOTS: PerCpu<Pool> =
    per_cpu!(Pool { frames: UnsafeCell::new([Pfn(0); POOLED]), len: AtomicU64::new(0) });

impl Pool {
    #[inline(always)]
    fn take(&self, _irq: &IrqOff) -> Option<Pfn> {
        let len = self.len.load(Ordering::Relaxed).checked_sub(1)?;
        self.len.store(len, Ordering::Relaxed);
        // SAFETY: this CPU's, interrupts off.
        Some(unsafe { (&*self.frames.get())[len as usize % POOLED] })
    }

    #[inline(always)]
    fn keep(&self, frame: Pfn, _irq: &IrqOff) -> bool {
        let len = self.len.load(Ordering::Relaxed);
        // SAFETY: this CPU's, interrupts off.
        let Some(free) = (unsafe { (&mut *self.frames.get()).get_mut(len as usize) }) else {
            return false;
        };
        *free = frame;
        self.len.store(len + 1, Ordering::Relaxed);
        true
    }
}

/// Frames in the pools. They count as free.
pub fn pooled_frames() -> u64 {
    (0..MAX_CPUS as u32)
        .flat_map(|cpu| [TABLES.of(cpu), ROOTS.of(cpu)])
        .map(|pool| pool.len.load(Ordering::Relaxed))
        .sum()
}

#[inline(always)]
fn words(frame: Pfn) -> *mut u64 {
    at(frame.start_address())
}

/// Where the direct map has this address of RAM; without the checks of a general address, since this
/// is on the way of each page fault.
#[inline(always)]
fn at(physical: u64) -> *mut u64 {
    debug_assert!(physical < layout::DIRECT_MAP_BYTES);
    (layout::DIRECT_MAP + physical) as *mut u64
}

/// A root whose window is empty.
pub(super) fn alloc_root() -> Option<Pfn> {
    {
        let irq = IrqOff::new();
        if let Some(root) = ROOTS.this().take(&irq) {
            return Some(root);
        }
    }
    let root = frames::alloc_for_program()?;
    let kernel = phys_to_virt(mm::root()).as_ptr::<u64>();
    // SAFETY: the frame is ours alone; the kernel's root is not changed any more.
    unsafe {
        cpu::zero(words(root), UPPER_HALF);
        cpu::copy(kernel.add(UPPER_HALF), words(root).add(UPPER_HALF), 512 - UPPER_HALF);
    }
    Some(root)
}

/// Takes back a root whose window is empty and that no CPU has loaded.
pub(super) fn free_root(root: Pfn) {
    let irq = IrqOff::new();
    if !ROOTS.this().keep(root, &irq) {
        frames::free(root, 0);
    }
}

impl Memory for Space {
    #[inline(always)]
    fn alloc_table(&self, contents: Contents) -> Option<Pfn> {
        if contents == Contents::Any {
            return frames::alloc_for_program();
        }
        {
            let irq = IrqOff::new();
            if let Some(table) = TABLES.this().take(&irq) {
                frames::meta(table).set_first_reference();
                return Some(table);
            }
        }
        frames::alloc_zeroed_for_program()
    }

    #[inline(always)]
    fn free_table(&self, table: Pfn) {
        let irq = IrqOff::new();
        if !TABLES.this().keep(table, &irq) {
            frames::free(table, 0);
        }
    }

    #[inline(always)]
    fn alloc_page(&self) -> Option<Pfn> {
        frames::alloc_for_program()
    }

    #[inline(always)]
    fn free_page(&self, page: Pfn) {
        frames::free(page, 0);
    }

    #[inline(always)]
    fn table(&self, table: Pfn) -> &Table {
        // SAFETY: entries and roots lead to tables, which are in the direct map; a table that
        // is reached while a reference to it is held is not freed, and its words are atomics.
        unsafe { &*words(table).cast::<Table>() }
    }

    #[inline(always)]
    fn meta(&self, frame: Pfn) -> &FrameMeta {
        frames::meta(frame)
    }

    #[inline(always)]
    fn metas<'m>(&'m self) -> impl Fn(u64) -> &'m FrameMeta {
        let meta_of = frames::metas();
        move |physical| meta_of(physical)
    }

    #[inline(always)]
    fn zero_page(&self) -> u64 {
        super::zero_page()
    }

    #[inline(always)]
    fn copy_page(&self, from: u64, to: Pfn) {
        let from = at(from);
        // SAFETY: `to` is ours alone; `from` is a page that is mapped, hence in the direct map. If
        // another CPU writes to it meanwhile, through a shared mapping of its own, the copy is of
        // either moment, as for any racing program.
        unsafe { cpu::copy(from, words(to), 512) };
    }

    #[inline(always)]
    fn clear_page(&self, page: Pfn) {
        // SAFETY: the page is ours alone.
        unsafe { cpu::zero(words(page), 512) };
    }

    #[inline(always)]
    fn flush(&self, pages: Stale<'_>) {
        self.flush_tlbs(pages);
    }
}
