//! Address spaces: which areas a program has, and page tables that forks share.
//!
//! - [`area`]: [`Areas`], a program's areas (Linux's VMAs) as a persistent ordered set on
//!   [`tree`]: a clone costs one reference, a change copies a path.
//! - [`entry`]: page-table entries, and what software keeps in them.
//! - [`tables`]: page tables as a shared, reference-counted radix tree: fork, the descent that
//!   unshares, faults. [`range`] unmaps, protects and moves; [`release`] takes tables down.
//! - [`pcid`]: under which identifier a CPU caches a space, and whether what it has is right. [`witness`]
//!   stands in for a TLB that keeps what is cached, where the machine has none.
//!
//! The kernel supplies memory and TLB flushes through [`Memory`]. The same code runs on the host
//! against a memory management unit that caches whatever it is allowed to.

pub mod area;
pub mod entry;
pub mod pcid;
pub mod range;
pub mod release;
pub mod tables;
pub mod tree;
pub mod witness;

#[cfg(test)]
mod area_tests;
#[cfg(test)]
mod model;
#[cfg(test)]
mod model_tests;

pub use area::{Area, AreaFlags, Areas, MAX_AREAS, Protection};
pub use entry::{Entry, Table};
pub use tables::{
    Access, Content, Contents, Memory, OutOfMemory, Permission, SourcePage, Stale, Update,
};

/// Bytes of a page.
pub const PAGE_BYTES: u64 = crate::frames::FRAME_BYTES;
/// First address of the window: what is below stays unmapped, so that null pointers fault.
pub const WINDOW_START: u64 = 0x1_0000;
/// End of the window. The last page of the lower half is left out, as on Linux: a `syscall`
/// instruction at its end would return to a non-canonical address.
pub const WINDOW_END: u64 = 0x7fff_ffff_f000;
/// Root entries of the window.
pub const WINDOW_ENTRIES: usize = 256;

/// Level of the root table; a table of level 1 holds pages.
pub const ROOT_LEVEL: u8 = 4;

/// log₂ of the bytes that an entry of a table of this level maps.
#[inline(always)]
pub const fn entry_shift(level: u8) -> u32 {
    12 + 9 * (level as u32 - 1)
}

/// Index of the entry of a table of this level that maps `address`.
#[inline(always)]
pub const fn entry_index(level: u8, address: u64) -> usize {
    (address >> entry_shift(level)) as usize & 511
}
