//! A frame of physical memory that holds a page of a file or pipe.

use core::ptr::NonNull;

use orrery_core::frames::{FRAME_BYTES, Pfn, Put};

use crate::mm::address::phys_to_virt;
use crate::mm::{PhysAddr, frames};

/// Bytes of a page.
pub const PAGE_BYTES: usize = FRAME_BYTES as usize;

/// One reference to a frame. The memory may be mapped by programs at the same time.
pub struct Page(Pfn);

impl Page {
    /// A page of zeroes; `None` if no memory is left.
    pub fn zeroed() -> Option<Self> {
        frames::alloc_zeroed_for_program().map(Self)
    }

    /// A page with any contents, for a place where only what was written is read.
    pub fn uninitialised() -> Option<Self> {
        frames::alloc_for_program().map(Self)
    }

    /// Another reference to the same frame.
    pub fn share(&self) -> Self {
        frames::meta(self.0).add_reference();
        Self(self.0)
    }

    /// Gives up this handle, but not its reference: that is the caller's now.
    pub fn into_pfn(self) -> Pfn {
        let pfn = self.0;
        core::mem::forget(self);
        pfn
    }

    #[inline]
    fn start(&self) -> NonNull<u8> {
        // SAFETY: a frame that exists has an address that can be; the direct map is not at address 0.
        unsafe {
            let start = phys_to_virt(PhysAddr::new_unsafe(self.0.start_address()));
            NonNull::new_unchecked(start.as_mut_ptr())
        }
    }

    /// Its bytes. Programs that have mapped the page may change them while they are read; whoever uses this
    /// only copies them.
    #[inline]
    pub fn bytes(&self) -> &[u8] {
        // SAFETY: the frame is in the direct map and ours by the reference; see above for who writes.
        unsafe { core::slice::from_raw_parts(self.start().as_ptr(), PAGE_BYTES) }
    }

    /// Its bytes, to be written. Whoever has the page otherwise may do the same; both only copy.
    #[inline]
    #[allow(clippy::mut_from_ref)] // the memory is as shared as a file is
    pub fn bytes_mut(&self) -> &mut [u8] {
        // SAFETY: as `bytes`.
        unsafe { core::slice::from_raw_parts_mut(self.start().as_ptr(), PAGE_BYTES) }
    }
}

impl Drop for Page {
    fn drop(&mut self) {
        if frames::meta(self.0).drop_reference() == Put::Last {
            frames::free(self.0, 0);
        }
    }
}
