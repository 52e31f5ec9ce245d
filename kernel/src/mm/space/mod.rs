//! Address spaces: the window of a process, which a fork shares in constant time.
//!
//! The logic, page tables as a shared radix tree and areas as a persistent set, is
//! [`orrery_core::space`]'s. Here are the lock, the frames, the TLBs and the calls that programs
//! make.
//!
//! - `backing`: what areas show
//! - `map`: mmap, munmap, mprotect, mremap, brk
//! - `fault`: page faults, the growing stack, access from the kernel, futexes' keys; `present`: pages that are in memory
//! - `loaded`: which CPU has which space, TLB shootdowns; `pcids`: what CPUs keep of those they had; `kept`
//!   checks that
//! - `memory`: frames for tables and pages
//!
//! One spinlock guards a space; interrupts stay on, so that its holder can wait for other CPUs to
//! flush. What takes long, as much as a program may have mapped, is done with pauses in which others run, but nobody
//! gets the lock ([`PausingLock`]). What a program may do is said by its areas: entries are never more permissive, but may be
//! less until a fault corrects them.
//!
//! Overcommit: always. Mapping takes tables and nothing more; pages are found when they are touched,
//! and a program that touches more than there is gets [`Fault::OutOfMemory`].

mod backing;
mod fault;
mod kept;
mod loaded;
mod map;
mod memory;
mod pcids;
mod present;

use alloc::sync::Arc;
use core::sync::atomic::{AtomicU64, Ordering};

use orrery_core::errno::Errno;
use orrery_core::frames::Pfn;
use orrery_core::space::{Areas, Update, release};

use super::{OutOfMemory, frames};
use crate::arch::irq;
use crate::sched::pausing::PausingLock;
use crate::trace::events;

pub use backing::{Backing, PageError, PageSource, SharedMemory, new_identity};
pub use fault::{Fault, FutexKey, Visibility};
pub use loaded::{switch_to, unload};
pub use map::{MapRequest, Placement, RemapRequest, Target};
pub use memory::{pooled_frames, zero_ahead};
pub use orrery_core::space::{
    Access, Area, AreaFlags, PAGE_BYTES, Protection, SourcePage, WINDOW_END, WINDOW_START,
};
pub use pcids::{Pcids, init as init_pcids};

impl From<OutOfMemory> for Errno {
    fn from(_: OutOfMemory) -> Self {
        Self::ENOMEM
    }
}

/// End of the region that mmap fills from above: what is over it belongs to the stack.
pub const MMAP_TOP: u64 = 255 << 39;

/// Memory limits of a process (`getrlimit(2)`), bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// `RLIMIT_STACK`: how far the stack grows.
    pub stack_bytes: u64,
    /// `RLIMIT_AS`: how much may be mapped.
    pub total_bytes: u64,
    /// `RLIMIT_DATA`: how far brk(2) goes, and how much there may be to be written and of the program's own.
    pub data_bytes: u64,
}

impl Default for Limits {
    fn default() -> Self {
        Self { stack_bytes: 8 << 20, total_bytes: u64::MAX, data_bytes: u64::MAX }
    }
}

/// An address space.
///
/// The last owner drops it with interrupts on: other CPUs may have to be told.
pub struct Space {
    root: Pfn,
    id: u64,
    /// CPUs that have the root loaded, and may cache translations.
    cpus: AtomicU64,
    /// Advances whenever translations become stale, before anybody is told.
    generation: AtomicU64,
    /// Pages that are mapped.
    resident: AtomicU64,
    /// The most that `resident` was before it last fell.
    past_resident: AtomicU64,
    inner: PausingLock<Inner>,
}

/// What the lock guards, besides the page tables.
#[derive(Clone)]
struct Inner {
    areas: Areas<Backing>,
    recent: Recent,
    limits: Limits,
    mmap_top: u64,
    break_start: u64,
    break_end: u64,
}

/// The anonymous area of the last fault, so that the next one need not look for it.
#[derive(Clone, Copy, Default)]
struct Recent {
    start: u64,
    end: u64,
    protection: Protection,
}

impl Space {
    /// An empty one.
    ///
    /// # Errors
    /// [`OutOfMemory`].
    pub fn new() -> Result<Arc<Self>, OutOfMemory> {
        let inner = Inner {
            areas: Areas::default(),
            recent: Recent::default(),
            limits: Limits::default(),
            mmap_top: MMAP_TOP,
            break_start: 0,
            break_end: 0,
        };
        let root = memory::alloc_root().ok_or(OutOfMemory)?;
        Ok(Arc::new(Self::with(root, 0, inner)))
    }

    fn with(root: Pfn, resident: u64, inner: Inner) -> Self {
        static NEXT: AtomicU64 = AtomicU64::new(1);
        Self {
            root,
            id: NEXT.fetch_add(1, Ordering::Relaxed),
            cpus: AtomicU64::new(0),
            generation: AtomicU64::new(0),
            resident: AtomicU64::new(resident),
            past_resident: AtomicU64::new(0),
            inner: PausingLock::new("space", inner),
        }
    }

    /// A copy that shares everything until either side writes. Its cost does not depend on how much
    /// is mapped. Interrupts are on.
    ///
    /// # Errors
    /// [`OutOfMemory`].
    pub fn fork(&self) -> Result<Arc<Self>, OutOfMemory> {
        debug_assert!(irq::are_enabled());
        let child_root = memory::alloc_root().ok_or(OutOfMemory)?;
        let inner = self.inner.lock();
        let mut update = Update::<Self>::new(self, self.root);
        update.fork_to(child_root);
        // Under the lock: nobody may write by a translation from before once a page can be copied.
        update.flush();
        let child = Self::with(child_root, self.resident_pages(), inner.clone());
        drop(inner);
        update.release();
        let child = Arc::new(child);
        events::mm_fork(self.id as u32, child.id as u32);
        Ok(child)
    }

    /// A number that no other address space has had since boot.
    pub fn id(&self) -> u64 {
        self.id
    }

    /// Pages that are mapped, shared ones included.
    pub fn resident_pages(&self) -> u64 {
        self.resident.load(Ordering::Relaxed)
    }

    /// The most that [`Self::resident_pages`] has been.
    pub fn max_resident_pages(&self) -> u64 {
        self.past_resident.load(Ordering::Relaxed).max(self.resident_pages())
    }

    /// Pages in all areas.
    pub fn mapped_pages(&self) -> u64 {
        self.inner.lock().areas.bytes() / PAGE_BYTES
    }

    /// The areas, as they are now.
    pub fn areas(&self) -> Areas<Backing> {
        self.inner.lock().areas.clone()
    }

    /// Sets the limits; what is there already stays.
    pub fn set_limits(&self, limits: Limits) {
        self.inner.lock().limits = limits;
    }

    /// Moves the end of the region that mmap fills from above, [`MMAP_TOP`] at first, down.
    pub fn move_map_base(&self, down_bytes: u64) {
        let mut inner = self.inner.lock();
        inner.mmap_top = inner.mmap_top.saturating_sub(down_bytes) / PAGE_BYTES * PAGE_BYTES;
    }

    /// Frees everything but the root, when the last process that used the space has left it: no task
    /// runs in it again. Interrupts are on.
    ///
    /// What forks share merely loses a reference.
    pub fn exit_release(&self) {
        self.unload_everywhere();
        let areas = {
            let mut inner = self.inner.lock();
            inner.recent = Recent::default();
            core::mem::take(&mut inner.areas)
        };
        release::release_window(self, self.root);
        self.remove_resident(self.resident_pages());
        drop(areas);
    }
}

impl Drop for Space {
    fn drop(&mut self) {
        self.unload_everywhere();
        release::release_window(self, self.root);
        memory::free_root(self.root);
    }
}

static ZERO_PAGE: AtomicU64 = AtomicU64::new(0);

/// Physical address of the page that is always zero.
#[inline(always)]
fn zero_page() -> u64 {
    ZERO_PAGE.load(Ordering::Relaxed)
}

/// Finds the zero page a place.
///
/// # Panics
/// When memory is exhausted; meant for boot.
pub(super) fn init() {
    let page = frames::alloc_zeroed(0).expect("memory for a page of zeroes");
    ZERO_PAGE.store(page.start_address(), Ordering::Relaxed);
}
