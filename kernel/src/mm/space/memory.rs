//! Frames for page tables and pages, as [`orrery_core::space`] wants them.
//!
//! Tables that are taken down have been zeroed on the way. Each CPU keeps some at hand, and some roots, whose
//! upper half is the same in all address spaces. A CPU with nothing to do zeroes more frames ahead
//! ([`zero_ahead`]), as long as there is plenty of memory: programs find them where they would have to wait for
//! the zeroing.

use core::cell::UnsafeCell;
use core::sync::atomic::{AtomicU64, Ordering};

use orrery_core::frames::{FrameMeta, Pfn, Put};
use orrery_core::space::{Contents, Memory, Stale, Table};

use super::Space;
use crate::arch::cpu;
use crate::arch::irq::{self, IrqOff};
use crate::arch::percpu::{MAX_CPUS, PerCpu};
use crate::mm::address::phys_to_virt;
use crate::mm::layout::{self, UPPER_HALF};
use crate::mm::{self, frames};
use crate::per_cpu;

/// Frames of zeroes that a CPU keeps at hand.
const ZEROED: usize = 64;
/// How many of those are left to tables, and how many to tables of tables: a forked process wants two of them for its
/// very first write, while the zeroing of a table of pages is paid for by hundreds of faults.
const FOR_TABLES: u64 = 32;
const FOR_UPPER_TABLES: u64 = 8;
/// Roots that a CPU keeps at hand.
const ROOTS: usize = 16;
/// Of all frames this part is free while CPUs zero some ahead; with less than half of that they give them back.
const PLENTY_PART: u64 = 8;

struct Pool<const N: usize> {
    frames: UnsafeCell<[Pfn; N]>,
    len: AtomicU64,
}

// SAFETY: used only by its own CPU, with interrupts off; others read the length.
unsafe impl<const N: usize> Sync for Pool<N> {}

/// Their metadata is as [`Memory::alloc_table`] wants it, but for the reference.
static ZEROED_POOL: PerCpu<Pool<ZEROED>> = per_cpu!(Pool::new());
static ROOT_POOL: PerCpu<Pool<ROOTS>> = per_cpu!(Pool::new());

impl<const N: usize> Pool<N> {
    const fn new() -> Self {
        Self { frames: UnsafeCell::new([Pfn(0); N]), len: AtomicU64::new(0) }
    }

    #[inline(always)]
    fn len(&self) -> u64 {
        self.len.load(Ordering::Relaxed)
    }

    #[inline(always)]
    fn take(&self, _irq: &IrqOff) -> Option<Pfn> {
        let len = self.len.load(Ordering::Relaxed).checked_sub(1)?;
        self.len.store(len, Ordering::Relaxed);
        // SAFETY: this CPU's, interrupts off.
        Some(unsafe { (&*self.frames.get())[len as usize % N] })
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
    (0..MAX_CPUS as u32).map(|cpu| ZEROED_POOL.of(cpu).len() + ROOT_POOL.of(cpu).len()).sum()
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
        if let Some(root) = ROOT_POOL.this().take(&irq) {
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
    if !ROOT_POOL.this().keep(root, &irq) {
        frames::free(root, 0);
    }
}

/// A frame of zeroes from this CPU's pool, with one reference.
#[inline(always)]
fn take_zeroed() -> Option<Pfn> {
    let frame = irq::briefly_off(|irq| ZEROED_POOL.this().take(irq))?;
    frames::meta(frame).set_first_reference();
    Some(frame)
}

/// Zeroes a frame ahead, for the idle task with nothing else to do. Says whether it should be called again.
/// `is_wanted` says that the CPU has something to do: then it returns soon.
///
/// While memory is short it gives back what was zeroed.
pub fn zero_ahead(is_wanted: impl Fn() -> bool) -> bool {
    /// Words that are zeroed between two looks.
    const PART: usize = 128;
    let pool = ZEROED_POOL.this();
    if pool.len() == ZEROED as u64 {
        return false;
    }
    let (free, total) = frames::free_and_total();
    if free < total / PLENTY_PART {
        let is_short = free < total / PLENTY_PART / 2;
        let frame = if is_short { take_zeroed() } else { None };
        return frame.inspect(|&frame| frames::free(frame, 0)).is_some();
    }
    let Some(frame) = frames::alloc_for_program() else { return false };
    for part in 0..512 / PART {
        if is_wanted() {
            frames::free(frame, 0);
            return false;
        }
        // SAFETY: the frame is ours alone, and has so many words.
        unsafe { cpu::zero(words(frame).add(part * PART), PART) };
    }
    let last = frames::meta(frame).drop_reference();
    debug_assert!(last == Put::Last);
    // The pool has room: this is the only task of its CPU.
    irq::briefly_off(|irq| pool.keep(frame, irq))
}

impl Memory for Space {
    #[inline(always)]
    fn alloc_table(&self, level: u8, contents: Contents) -> Option<Pfn> {
        if contents == Contents::Any {
            return frames::alloc_for_program();
        }
        // The caller holds the space's lock, hence stays on its CPU.
        let left = if level == 1 { FOR_UPPER_TABLES } else { 0 };
        if ZEROED_POOL.this().len() > left {
            return take_zeroed();
        }
        frames::alloc_zeroed_for_program().or_else(take_zeroed)
    }

    #[inline(always)]
    fn free_table(&self, table: Pfn) {
        let irq = IrqOff::new();
        if !ZEROED_POOL.this().keep(table, &irq) {
            frames::free(table, 0);
        }
    }

    #[inline(always)]
    fn alloc_page(&self) -> Option<Pfn> {
        frames::alloc_for_program()
    }

    #[inline(always)]
    fn alloc_zeroed_page(&self) -> Option<Pfn> {
        // The caller holds the space's lock, hence stays on its CPU.
        if ZEROED_POOL.this().len() > FOR_TABLES {
            return take_zeroed();
        }
        let Some(page) = frames::alloc_for_program() else { return take_zeroed() };
        // SAFETY: the page is ours alone.
        unsafe { cpu::zero(words(page), 512) };
        Some(page)
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
    fn flush(&self, pages: Stale<'_>) {
        self.flush_tlbs(pages);
    }

    #[inline(always)]
    fn pause(&self) {
        self.inner.pause();
    }
}
