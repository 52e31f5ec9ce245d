//! Physical and virtual addresses, and the way between them.

use core::sync::atomic::{AtomicU64, Ordering};

pub use x86_64::{PhysAddr, VirtAddr};

use super::layout::{DIRECT_MAP, DIRECT_MAP_BYTES};
use crate::boot;

/// Physical address of the image minus its virtual address (wrapping).
static IMAGE_OFFSET: AtomicU64 = AtomicU64::new(0);

/// Virtual address of the image's first byte.
pub(super) fn image_start() -> u64 {
    boot::image_start()
}

pub(super) fn set_image_base(physical: u64) {
    IMAGE_OFFSET.store(physical.wrapping_sub(image_start()), Ordering::Relaxed);
}

/// Where the direct map has this physical address. The address must be RAM: device registers are
/// mapped by [`map_mmio`](super::map_mmio), and the image is only at its own address.
///
/// # Panics
/// With debug assertions, beyond the direct map.
#[inline(always)]
pub fn phys_to_virt(address: PhysAddr) -> VirtAddr {
    debug_assert!(address.as_u64() < DIRECT_MAP_BYTES);
    // SAFETY: the direct map ends below the image, in the upper half: all its addresses are canonical.
    unsafe { VirtAddr::new_unsafe(DIRECT_MAP + address.as_u64()) }
}

/// The physical address behind an address of the direct map (the heap is there) or of the image
/// (statics are there).
///
/// # Panics
/// For any other address, such as one on a task's stack: what is contiguous there need not be
/// contiguous in memory.
#[inline]
pub fn virt_to_phys(address: VirtAddr) -> PhysAddr {
    let at = address.as_u64();
    if let Some(physical) = at.checked_sub(DIRECT_MAP).filter(|&at| at < DIRECT_MAP_BYTES) {
        return PhysAddr::new(physical);
    }
    let in_image = at.checked_sub(image_start()).is_some_and(|at| at < boot::image_len_bytes());
    assert!(in_image, "{at:#x} is neither in the direct map nor in the image");
    PhysAddr::new(at.wrapping_add(IMAGE_OFFSET.load(Ordering::Relaxed)))
}
