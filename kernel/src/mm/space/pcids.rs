//! PCIDs: a CPU keeps what it has cached of the last few spaces ([`orrery_core::space::pcid`]).

use core::cell::UnsafeCell;
use core::sync::atomic::{AtomicBool, Ordering};

use orrery_core::space::pcid;

use super::{Space, kept};
use crate::arch::irq::IrqOff;
use crate::arch::percpu::PerCpu;
use crate::arch::tlb;
use crate::per_cpu;

/// What the command line wants of PCIDs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pcids {
    /// To be used if the CPU has them.
    Auto,
    /// Not to be used.
    Off,
    /// To be used as if the CPU had them, and checked; in checked images only.
    Model,
}

static ARE_USED: AtomicBool = AtomicBool::new(false);

/// Whether spaces are loaded by [`load`].
#[inline(always)]
pub(super) fn are_used() -> bool {
    ARE_USED.load(Ordering::Relaxed)
}

/// Decides. For the boot CPU, before the others are started.
pub fn init(wanted: Pcids) {
    let are_used = match wanted {
        Pcids::Auto => tlb::enable_pcids(),
        Pcids::Off => false,
        Pcids::Model => {
            kept::model();
            true
        }
    };
    ARE_USED.store(are_used, Ordering::Relaxed);
}

struct Chosen(UnsafeCell<pcid::Pcids>);

// SAFETY: used only by its own CPU, with interrupts off.
unsafe impl Sync for Chosen {}

static CHOSEN: PerCpu<Chosen> = per_cpu!(Chosen(UnsafeCell::new(pcid::Pcids::new())));

/// Loads a space whose mask has this CPU's bit, in place of another or the kernel's own tables.
///
/// `cold`, so that the way without PCIDs is the straight one.
#[cold]
#[inline(never)]
pub(super) fn load(irq: &IrqOff, before: Option<&Space>, next: &Space) {
    // After the bit was set, which was a full barrier.
    let generation = next.generation.load(Ordering::SeqCst);
    // SAFETY: this CPU's, interrupts off.
    let choice = unsafe { &mut *CHOSEN.this().0.get() }.choose(next.id, generation);
    let root = next.root.start_address();
    // SAFETY: the upper half of all roots is the kernel's. What is kept is right, or about to be flushed by an
    // interrupt (`orrery_core::space::pcid`).
    unsafe {
        if kept::is_modelled() {
            before.into_iter().for_each(|before| kept::look(irq, before));
            tlb::load(root);
            kept::check(irq, next, generation, choice);
        } else {
            tlb::load_with_pcid(root, choice.pcid, choice.keep);
        }
    }
}

/// This CPU, which has the space loaded, has flushed what its generation now stands for. The flush's caller
/// holds the space's lock. Noted without PCIDs too, on ways where it does not matter.
pub(super) fn flushed(space: &Space) {
    let _irq = IrqOff::new();
    // SAFETY: this CPU's, interrupts off.
    unsafe { &mut *CHOSEN.this().0.get() }.flushed(space.generation.load(Ordering::SeqCst));
}
