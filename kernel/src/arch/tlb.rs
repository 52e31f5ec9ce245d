//! Loading page tables, and flushing this CPU's translations. Telling other CPUs to is for the floors above.
//!
//! With PCIDs, what a CPU caches has the identifier under which the tables were loaded, is used under
//! that one only, and outlives the load of other tables. Global translations, which all the kernel's
//! are, belong to no identifier. Entries of the upper half's tables above them are cached for each
//! identifier, but never change, nor are those tables freed.

use core::arch::asm;
use core::sync::atomic::{AtomicBool, Ordering};

use x86_64::VirtAddr;
use x86_64::registers::control::{Cr4, Cr4Flags};

use super::features;

/// Whether tables are loaded with PCIDs.
static HAS_PCIDS: AtomicBool = AtomicBool::new(false);

/// Whether tables are loaded with PCIDs.
pub fn has_pcids() -> bool {
    HAS_PCIDS.load(Ordering::Relaxed)
}

/// Turns PCIDs on if this CPU has them, here and on the CPUs that are started after this. Whether it has.
///
/// For the boot CPU, which has the kernel's own tables loaded.
pub fn enable_pcids() -> bool {
    HAS_PCIDS.store(features::detect().pcid, Ordering::Relaxed);
    init_this_cpu();
    has_pcids()
}

/// Does as the boot CPU has decided.
pub(super) fn init_this_cpu() {
    if has_pcids() {
        // SAFETY: the CPU has it, as it must in long mode, and tables have been loaded without an
        // identifier so far, hence CR3 has none in it (SDM vol. 3, 4.10.1).
        unsafe { Cr4::write(Cr4::read() | Cr4Flags::PCID) };
    }
}

/// Loads page tables by the physical address of their root, and forgets all translations that are not
/// global; with PCIDs, those under number 0, which this is.
///
/// # Safety
/// The upper half of the root is the kernel's.
#[inline(always)]
pub unsafe fn load(root: u64) {
    // SAFETY: by contract; the kernel uses nothing but the upper half.
    unsafe { asm!("mov cr3, {0}", in(reg) root, options(nostack, preserves_flags)) };
}

/// Loads page tables with a PCID below 4096, and forgets the translations under it, or keeps them.
///
/// # Safety
/// As [`load`]; PCIDs are on.
#[inline]
pub unsafe fn load_with_pcid(root: u64, pcid: u16, keep: bool) {
    // SAFETY: by contract.
    unsafe { load(root | u64::from(pcid) | u64::from(keep) << 63) };
}

/// Forgets the translation of one page of the window, under the PCID that is loaded, and all cached entries of
/// tables above pages.
#[inline]
pub fn flush_page(address: VirtAddr) {
    x86_64::instructions::tlb::flush(address);
}

/// Forgets all translations of the window, under the PCID that is loaded.
#[inline]
pub fn flush_window() {
    // SAFETY: what is loaded already, with the PCID that it has; the bit that keeps translations reads as 0.
    unsafe { asm!("mov {0}, cr3", "mov cr3, {0}", out(reg) _, options(nostack, preserves_flags)) };
}

/// Forgets all translations, global ones included, under all PCIDs: changing CR4.PGE does that (SDM vol. 3, 4.10.4.1),
/// on CPUs without INVPCID too.
pub fn flush_all() {
    let _irq = super::irq::IrqOff::new();
    let cr4 = Cr4::read();
    // SAFETY: without PGE global pages are merely not kept; it is back at once.
    unsafe {
        Cr4::write(cr4 - Cr4Flags::PAGE_GLOBAL);
        Cr4::write(cr4);
    }
}
