//! Checks PCIDs where the machine has none, with `pcid=model` in checked images.
//!
//! The kernel chooses identifiers as if the CPUs had them, and these forget everything at each load. In
//! their stead a [`Witness`] remembers some translations of each space that is left. When a load
//! would have kept them, they must still be right: else a change of the tables has advanced no generation.

use core::cell::UnsafeCell;
use core::sync::atomic::{AtomicBool, Ordering, fence};

use orrery_core::space::pcid::{Choice, PCIDS};
use orrery_core::space::witness::Witness;

use super::Space;
use crate::arch::irq::IrqOff;
use crate::arch::percpu::PerCpu;
use crate::per_cpu;

/// Translations that are remembered for each identifier.
const REMEMBERED: usize = 24;

static IS_MODELLED: AtomicBool = AtomicBool::new(false);

#[inline(always)]
pub(super) fn is_modelled() -> bool {
    cfg!(debug_assertions) && IS_MODELLED.load(Ordering::Relaxed)
}

/// Checks from here on.
pub(super) fn model() {
    IS_MODELLED.store(true, Ordering::Relaxed);
}

/// What a CPU would keep.
struct Kept {
    /// Index of the space that was loaded last.
    loaded: usize,
    witnesses: [Witness<REMEMBERED>; PCIDS],
}

struct KeptCell(UnsafeCell<Kept>);

// SAFETY: used only by its own CPU, with interrupts off.
unsafe impl Sync for KeptCell {}

static KEPT: PerCpu<KeptCell> = per_cpu!(KeptCell(UnsafeCell::new(Kept {
    loaded: 0,
    witnesses: [const { Witness::new() }; PCIDS],
})));

/// Remembers some of a space that is loaded and about to be left.
pub(super) fn look(_irq: &IrqOff, space: &Space) {
    // SAFETY: this CPU's, interrupts off.
    let kept = unsafe { &mut *KEPT.this().0.get() };
    kept.witnesses[kept.loaded].look(space, space.root);
}

/// Checks what would have been kept of a space that has been loaded at this generation.
///
/// # Panics
/// When it is not right.
pub(super) fn check(_irq: &IrqOff, space: &Space, generation: u64, choice: Choice) {
    // SAFETY: this CPU's, interrupts off.
    let kept = unsafe { &mut *KEPT.this().0.get() };
    kept.loaded = usize::from(choice.pcid) - 1;
    let witness = &kept.witnesses[kept.loaded];
    let stale_page = || witness.stale_page(space, space.root).filter(|_| choice.keep);
    let Some(page) = stale_page() else { return };
    // Whoever is changing the tables may have to advance the generation yet, and does before letting go of the lock;
    // then nothing can be said.
    if !space.inner.is_locked() {
        fence(Ordering::SeqCst);
        let now = space.generation.load(Ordering::SeqCst);
        assert!(now != generation, "a stale translation of {page:#x} would be kept");
    }
}
