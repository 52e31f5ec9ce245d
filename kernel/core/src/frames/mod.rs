//! Physical memory, frame by frame.
//!
//! - [`meta`]: 16 bytes about every 4 KiB frame: its state, its reference count, and one word whose
//!   meaning depends on the state.
//! - [`buddy`]: [`Frames`], the allocator of blocks of 2ⁿ frames, under the kernel's lock.
//! - [`cache`]: [`FrameCache`], a magazine of single frames per CPU, so that the lock is rarely
//!   taken.
//!
//! The allocator lives in the metadata alone: the frames themselves are never touched, so they need
//! not be mapped. References are taken and dropped through [`FrameTable`] without any lock.
//!
//! Life of a block: `alloc` hands it out with one reference; [`FrameTable::get`] adds some,
//! [`FrameTable::put`] drops them and tells who dropped the last; that one gives it back with
//! `free`. Every step that does not fit the state is refused with a [`FrameError`] that names the
//! frame.

mod buddy;
mod cache;
mod meta;

pub use buddy::{Frames, MAX_ORDER};
pub use cache::FrameCache;
pub use meta::{FrameError, FrameMeta, FrameTable, Mismatch, Pfn, Put};

/// Bytes of a frame.
pub const FRAME_BYTES: u64 = 4096;

#[cfg(test)]
mod tests;
