//! Page-table entries (SDM vol. 3, 4.5), and what software keeps in them.
//!
//! | bit | meaning |
//! |---|---|
//! | 0, 1, 2, 63 | present, writable, user, no-execute |
//! | 5, 6 | accessed, dirty: always set, so that the CPU never writes to a table |
//! | 9 | counted: the entry holds a reference to its frame, which is copied when it is shared and written |
//! | 10 | shared: a page of a `MAP_SHARED` object, which all sides go on writing after a fork |
//! | 11 | counted and shared: the entry holds a reference to such a page |
//!
//! Without bits 9 and 11 the frame is pinned (zero page, bundle, vDSO): never written in place, never
//! freed.
//!
//! An entry is *occupied* when it is not zero. One that is occupied but not present keeps a page
//! that must not be accessed (`PROT_NONE`).

use core::sync::atomic::AtomicU64;

use crate::frames::Pfn;

/// A page table: 512 entries, in a frame of their own.
pub type Table = [AtomicU64; 512];

/// The value of a page-table entry.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Entry(pub u64);

impl Entry {
    /// Nothing there.
    pub const EMPTY: Self = Self(0);
    /// The translation may be used.
    pub const PRESENT: u64 = 1;
    /// Writes are allowed, if they are at all levels.
    pub const WRITABLE: u64 = 1 << 1;
    /// Ring 3 may use it, if it may at all levels.
    pub const USER: u64 = 1 << 2;
    /// Accessed and dirty.
    pub const TOUCHED: u64 = 1 << 5 | 1 << 6;
    /// The entry holds a reference to a table or a private page.
    pub const COUNTED: u64 = 1 << 9;
    /// The entry holds a reference to a page of a `MAP_SHARED` object.
    pub const COUNTED_SHARED: u64 = 1 << 11;
    /// A page of a `MAP_SHARED` object.
    pub const SHARED: u64 = 1 << 10;
    /// Instructions are not fetched from there.
    pub const NO_EXECUTE: u64 = 1 << 63;
    const ADDRESS: u64 = 0x000f_ffff_ffff_f000;

    /// The entry for a table that nobody else has.
    #[inline(always)]
    pub const fn own_table(table: Pfn) -> Self {
        let flags = Self::PRESENT | Self::WRITABLE | Self::USER | Self::TOUCHED | Self::COUNTED;
        Self(table.start_address() | flags)
    }

    /// The entry for a page that nobody else has, for the program to write.
    #[inline(always)]
    pub const fn own_page(page: Pfn) -> Self {
        Self::page(page.start_address(), Self::COUNTED | Self::WRITABLE)
    }

    /// The entry for a page at this physical address with more of these bits.
    #[inline(always)]
    pub const fn page(physical: u64, bits: u64) -> Self {
        Self(physical | Self::PRESENT | Self::USER | Self::TOUCHED | bits)
    }

    /// Physical address of the page or table.
    #[inline(always)]
    pub const fn physical(self) -> u64 {
        self.0 & Self::ADDRESS
    }

    /// Frame of the page or table.
    #[inline(always)]
    pub const fn pfn(self) -> Pfn {
        Pfn::containing(self.physical())
    }

    /// Whether all of these bits are set.
    #[inline(always)]
    pub const fn has(self, bits: u64) -> bool {
        self.0 & bits == bits
    }

    /// Whether the entry holds a reference to its frame.
    #[inline(always)]
    pub const fn is_counted(self) -> bool {
        self.0 & (Self::COUNTED | Self::COUNTED_SHARED) != 0
    }

    /// With these bits set.
    #[inline(always)]
    pub const fn with(self, bits: u64) -> Self {
        Self(self.0 | bits)
    }

    /// With these bits clear.
    #[inline(always)]
    pub const fn without(self, bits: u64) -> Self {
        Self(self.0 & !bits)
    }

    /// Whether nothing is there.
    #[inline(always)]
    pub const fn is_empty(self) -> bool {
        self.0 == 0
    }
}
