//! Flushing this CPU's translations. Telling other CPUs to is for the floors above.

use x86_64::VirtAddr;
use x86_64::registers::control::{Cr4, Cr4Flags};

/// Forgets the translation of one page, global or not.
#[inline]
pub fn flush_page(address: VirtAddr) {
    x86_64::instructions::tlb::flush(address);
}

/// Forgets all translations that are not global: those of the window.
#[inline]
pub fn flush_window() {
    x86_64::instructions::tlb::flush_all();
}

/// Forgets all translations, global ones included: changing CR4.PGE does that (SDM vol. 3, 4.10.4.1).
pub fn flush_all() {
    let _irq = super::irq::IrqOff::new();
    let cr4 = Cr4::read();
    // SAFETY: without PGE global pages are merely not kept; it is back at once.
    unsafe {
        Cr4::write(cr4 - Cr4Flags::PAGE_GLOBAL);
        Cr4::write(cr4);
    }
}
