//! Which CPU has which address space loaded, and how they are told to forget translations.
//!
//! A kernel task runs on whatever is loaded (lazy TLB). A CPU's bit in a space's mask is set before
//! the root is loaded, and cleared after another is; who changes the tables reads the mask after
//! the change, both with full barriers. So either the CPU walks the new tables, or it is told.
//!
//! A CPU that is told while it idles loads the kernel's own tables and is told no more; so does one
//! that halts.

use core::sync::atomic::{AtomicPtr, Ordering, fence};

use orrery_core::cpuset::CpuSet;
use orrery_core::space::Stale;
use x86_64::registers::control::{Cr3, Cr3Flags};
use x86_64::structures::paging::PhysFrame;
use x86_64::{PhysAddr, VirtAddr};

use super::Space;
use crate::arch::irq::IrqOff;
use crate::arch::percpu::{self, PerCpu};
use crate::arch::tlb;
use crate::sched::{self, call};
use crate::sync::PreemptOff;
use crate::trace::events;
use crate::{mm, per_cpu};

/// The space whose root is loaded; null for the kernel's own.
static LOADED: PerCpu<AtomicPtr<Space>> = per_cpu!(AtomicPtr::new(core::ptr::null_mut()));

#[inline(always)]
fn load(root: u64) {
    let frame = PhysFrame::containing_address(PhysAddr::new(root));
    // SAFETY: the upper half of all roots is the same, and the kernel uses nothing else.
    unsafe { Cr3::write(frame, Cr3Flags::empty()) };
}

/// Makes this CPU use `next`, for a task that runs in it. The space must not be freed while it has
/// such tasks.
#[inline]
pub fn switch_to(_irq: &IrqOff, next: &Space) {
    let loaded = LOADED.this();
    let before = loaded.load(Ordering::Relaxed);
    if core::ptr::eq(before, next) {
        return;
    }
    let me = 1 << percpu::cpu_id();
    next.cpus.fetch_or(me, Ordering::SeqCst);
    load(next.root.start_address());
    loaded.store(core::ptr::from_ref(next).cast_mut(), Ordering::Relaxed);
    // SAFETY: a space whose mask names this CPU is not freed before this CPU has been told, which
    // takes an interrupt.
    if let Some(before) = unsafe { before.as_ref() } {
        before.cpus.fetch_and(!me, Ordering::SeqCst);
    }
}

/// Makes this CPU use the kernel's own tables. For the idle task before it halts, and whoever has no
/// use for the space that is loaded.
pub fn unload(_irq: &IrqOff) {
    let loaded = LOADED.this();
    // SAFETY: as in `switch_to`.
    if let Some(before) = unsafe { loaded.load(Ordering::Relaxed).as_ref() } {
        load(mm::root().as_u64());
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
        // The change of the tables comes before the look at the mask.
        fence(Ordering::SeqCst);
        let mask = self.cpus.load(Ordering::SeqCst);
        let me = 1 << percpu::cpu_id();
        if mask & me != 0 {
            flush_here(pages);
        }
        if mask & !me != 0 {
            self.shoot_down(CpuSet::from_bits(mask & !me), pages);
        }
    }

    #[cold]
    #[inline(never)]
    fn shoot_down(&self, others: CpuSet, pages: Stale<'_>) {
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
            }
        });
    }

    /// Makes no CPU have it loaded, once no task runs in it any more. Interrupts are on, unless
    /// no other CPU has it.
    pub(super) fn unload_everywhere(&self) {
        let _here = PreemptOff::new();
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
