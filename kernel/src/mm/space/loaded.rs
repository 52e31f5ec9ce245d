//! Which CPU has which address space loaded, and how they are told to forget translations.
//!
//! A kernel task runs on whatever is loaded (lazy TLB). A CPU's bit in a space's mask is set before
//! the root is loaded, and cleared after another is; who changes the tables reads the mask after
//! the change, both with full barriers. So either the CPU walks the new tables, or it is told.
//!
//! A CPU that is told while it idles loads the kernel's own tables and is told no more; so does one
//! that halts.
//!
//! A CPU with PCIDs keeps translations of spaces that it has not loaded. It is not told about them: each
//! flush advances the space's generation, which the next load looks at ([`pcids`], and
//! [`orrery_core::space::pcid`] for why that is enough).

use core::sync::atomic::{AtomicPtr, Ordering};

use orrery_core::cpuset::CpuSet;
use orrery_core::space::Stale;
use x86_64::VirtAddr;

use super::{Space, kept, pcids};
use crate::arch::irq::IrqOff;
use crate::arch::percpu::{self, PerCpu};
use crate::arch::tlb;
use crate::sched::{self, call};
use crate::sync::PreemptOff;
use crate::trace::events;
use crate::{mm, per_cpu};

/// The space whose root is loaded; null for the kernel's own.
static LOADED: PerCpu<AtomicPtr<Space>> = per_cpu!(AtomicPtr::new(core::ptr::null_mut()));

/// Makes this CPU use `next`, for a task that runs in it. The space must not be freed while it has
/// such tasks.
#[inline]
pub fn switch_to(irq: &IrqOff, next: &Space) {
    let loaded = LOADED.this();
    let before = loaded.load(Ordering::Relaxed);
    if core::ptr::eq(before, next) {
        return;
    }
    // SAFETY: a space whose mask names this CPU is not freed before this CPU has been told, which
    // takes an interrupt.
    let before = unsafe { before.as_ref() };
    let me = 1 << percpu::cpu_id();
    next.cpus.fetch_or(me, Ordering::SeqCst);
    if pcids::are_used() {
        pcids::load(irq, before, next);
    } else {
        // SAFETY: the upper half of all roots is the kernel's.
        unsafe { tlb::load(next.root.start_address()) };
    }
    loaded.store(core::ptr::from_ref(next).cast_mut(), Ordering::Relaxed);
    if let Some(before) = before {
        before.cpus.fetch_and(!me, Ordering::SeqCst);
    }
}

/// Makes this CPU use the kernel's own tables. For the idle task before it halts, and whoever has no
/// use for the space that is loaded.
pub fn unload(irq: &IrqOff) {
    let loaded = LOADED.this();
    // SAFETY: as in `switch_to`.
    if let Some(before) = unsafe { loaded.load(Ordering::Relaxed).as_ref() } {
        if kept::is_modelled() {
            kept::look(irq, before);
        }
        // SAFETY: the kernel's own.
        unsafe { tlb::load(mm::root().as_u64()) };
        loaded.store(core::ptr::null_mut(), Ordering::Relaxed);
        before.cpus.fetch_and(!(1 << percpu::cpu_id()), Ordering::SeqCst);
    }
}

impl Space {
    /// Whether this CPU has it loaded. Meaningful while preemption is off.
    fn is_loaded_here(&self) -> bool {
        core::ptr::eq(LOADED.this().load(Ordering::Relaxed), self)
    }

    /// Makes all CPUs that may cache the space forget these translations.
    #[inline]
    pub(super) fn flush_tlbs(&self, pages: Stale<'_>) {
        let _here = PreemptOff::new();
        // The change of the tables comes before the look at the mask: a full barrier.
        self.generation.fetch_add(1, Ordering::SeqCst);
        let mask = self.cpus.load(Ordering::SeqCst);
        let me = 1 << percpu::cpu_id();
        if mask == me && !pcids::are_used() {
            flush_here(pages);
        } else {
            self.flush_on(mask & me != 0, CpuSet::from_bits(mask & !me), pages);
        }
    }

    /// Not only here, or with PCIDs.
    #[cold]
    #[inline(never)]
    fn flush_on(&self, here: bool, others: CpuSet, pages: Stale<'_>) {
        if here {
            flush_here(pages);
            pcids::flushed(self);
        }
        if others.is_empty() {
            return;
        }
        let count = match pages {
            Stale::Pages(pages) => pages.len() as u32,
            Stale::All => u32::MAX,
        };
        events::tlb_shootdown(others.bits(), count);
        call::run_on(others, &|| {
            if !self.is_loaded_here() {
                return;
            }
            if sched::is_idle() {
                unload(&IrqOff::new());
            } else {
                flush_here(pages);
                pcids::flushed(self);
            }
        });
    }

    /// Makes no CPU have it loaded, once no task runs in it any more. Interrupts are on, unless
    /// no other CPU has it.
    pub(super) fn unload_everywhere(&self) {
        let _here = PreemptOff::new();
        // What is kept of it leads to memory that is about to be freed.
        self.generation.fetch_add(1, Ordering::SeqCst);
        if self.is_loaded_here() {
            unload(&IrqOff::new());
        }
        let others = CpuSet::from_bits(self.cpus.load(Ordering::SeqCst));
        if !others.is_empty() {
            events::tlb_shootdown(others.bits(), u32::MAX);
            call::run_on(others, &|| {
                if self.is_loaded_here() {
                    unload(&IrqOff::new());
                }
            });
        }
        debug_assert!(self.cpus.load(Ordering::SeqCst) == 0, "a freed address space is loaded");
    }
}

#[inline(always)]
fn flush_here(pages: Stale<'_>) {
    match pages {
        Stale::Pages(pages) => {
            for &page in pages {
                tlb::flush_page(VirtAddr::new_truncate(page));
            }
        }
        Stale::All => tlb::flush_window(),
    }
}
