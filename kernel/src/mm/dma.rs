//! Memory that devices read and write: contiguous, zeroed, and never moved.

use core::ptr::NonNull;

use orrery_core::frames::Pfn;
use x86_64::PhysAddr;

use super::{address, frames};

/// The order of the smallest block with so many pages; at least one.
fn order(pages: usize) -> Option<u8> {
    let order = pages.max(1).checked_next_power_of_two()?.trailing_zeros() as u8;
    (order <= frames::MAX_ORDER).then_some(order)
}

/// Contiguous zeroed pages: where the device finds them, and where the kernel does.
pub fn alloc(pages: usize) -> Option<(PhysAddr, NonNull<u8>)> {
    let pfn = frames::alloc_zeroed(order(pages)?)?;
    let physical = PhysAddr::new(pfn.start_address());
    NonNull::new(address::phys_to_virt(physical).as_mut_ptr()).map(|start| (physical, start))
}

/// Takes them back.
///
/// # Safety
/// From [`alloc`] with this number of pages; no device uses them any more.
pub unsafe fn free(physical: PhysAddr, pages: usize) {
    if let Some(order) = order(pages) {
        frames::free(Pfn::containing(physical.as_u64()), order);
    }
}
