//! Address spaces. The interface; spaces cannot be made yet, so that every call that needs one says
//! `ENOMEM`.

use alloc::string::String;
use alloc::sync::Arc;

use orrery_core::errno::Errno;
use orrery_core::frames::Pfn;
use x86_64::PhysAddr;

use super::OutOfMemory;
use crate::arch::irq::IrqOff;

impl From<OutOfMemory> for Errno {
    fn from(_: OutOfMemory) -> Self {
        Self::ENOMEM
    }
}

/// What a program wants of memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum Access {
    Read,
    Write,
    Execute,
}

/// Why it does not get it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// Nothing is mapped there.
    NotMapped,
    /// It is mapped for other uses.
    Protection,
    /// Its file has no such page.
    Bus,
    /// No memory is left for it.
    OutOfMemory,
}

/// What an area may be used for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs)]
pub struct Protection {
    pub read: bool,
    pub write: bool,
    pub execute: bool,
}

impl Protection {
    /// Data.
    pub const READ_WRITE: Self = Self { read: true, write: true, execute: false };
}

/// A page of a source.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SourcePage {
    /// A frame, with a reference for the caller.
    Counted(Pfn),
    /// Memory that is never given back nor written in place.
    Pinned(PhysAddr),
}

/// Why a source has no such page.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PageError {
    /// It lies beyond the end.
    BeyondEnd,
    /// No memory is left for it.
    OutOfMemory,
}

/// What an area's pages come from: a file, or memory that is shared.
pub trait PageSource: Send + Sync {
    /// Its page of this number, to be read or written.
    ///
    /// # Errors
    /// [`PageError`].
    fn page(&self, index: u64, access: Access) -> Result<SourcePage, PageError>;
    /// Its name, for `/proc/PID/maps`.
    fn name(&self) -> String;
    /// Which source it is, for futexes.
    fn identity(&self) -> u64;
}

/// What is behind an area.
#[derive(Clone)]
pub enum Backing {
    /// Zeroes, and memory of its own.
    Anonymous,
    /// A source from this offset on, copied when written.
    Private(Arc<dyn PageSource>, u64),
    /// A source from this offset on.
    Shared(Arc<dyn PageSource>, u64),
}

/// Where a mapping goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Placement {
    /// At the hint, or where there is room.
    Anywhere,
    /// At the hint; what is there goes.
    Fixed,
    /// At the hint, if nothing is there.
    FixedNoReplace,
}

/// What is to be mapped.
pub struct MapRequest {
    /// Where, a multiple of a page.
    pub hint: u64,
    /// How much, a multiple of a page.
    pub len_bytes: u64,
    /// For what.
    pub protection: Protection,
    /// How the hint is meant.
    pub placement: Placement,
    /// What is behind it.
    pub backing: Backing,
    /// Whether it is a stack, which grows.
    pub grows_down: bool,
}

/// Memory that is shared by those who map it.
pub struct SharedMemory(());

impl SharedMemory {
    /// Memory of this many bytes.
    ///
    /// # Errors
    /// `ENOMEM`.
    #[allow(clippy::new_ret_no_self)]
    pub fn new(_len_bytes: u64) -> Result<Arc<dyn PageSource>, Errno> {
        Err(Errno::ENOMEM)
    }
}

/// An address space.
pub struct Space(());

#[allow(missing_docs, clippy::missing_errors_doc)]
impl Space {
    pub fn new() -> Result<Arc<Self>, OutOfMemory> {
        Err(OutOfMemory)
    }
    pub fn fork(&self) -> Result<Arc<Self>, OutOfMemory> {
        Err(OutOfMemory)
    }
    pub fn set_limits(&self, _max_bytes: u64, _max_stack_bytes: u64) {}
    pub fn map(&self, _request: &MapRequest) -> Result<u64, Errno> {
        Err(Errno::ENOMEM)
    }
    pub fn unmap(&self, _start: u64, _len_bytes: u64) -> Result<(), Errno> {
        Err(Errno::ENOMEM)
    }
    pub fn protect(&self, _start: u64, _len_bytes: u64, _to: Protection) -> Result<(), Errno> {
        Err(Errno::ENOMEM)
    }
    pub fn discard(&self, _start: u64, _len_bytes: u64) -> Result<(), Errno> {
        Err(Errno::ENOMEM)
    }
    /// mremap(2); `to` is where it must go.
    pub fn remap(
        &self,
        _start: u64,
        _old_bytes: u64,
        _new_bytes: u64,
        _may_move: bool,
        _to: Option<u64>,
    ) -> Result<u64, Errno> {
        Err(Errno::ENOMEM)
    }
    /// Where the break begins.
    pub fn begin_break(&self, _at: u64) {}
    /// brk(2): the break after that.
    pub fn set_break(&self, _at: u64) -> u64 {
        0
    }
    /// Moves the place below which mappings go, down by so much.
    pub fn move_map_base(&self, _down_bytes: u64) {}
    pub fn fault(&self, _address: u64, _access: Access) -> Result<(), Fault> {
        Err(Fault::NotMapped)
    }
}

/// Makes this CPU use the address space.
pub fn switch_to(_irq: &IrqOff, _next: &Space) {}
