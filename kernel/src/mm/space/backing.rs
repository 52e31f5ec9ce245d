//! What areas show: nothing yet, a file, or memory that several programs share.

use alloc::collections::BTreeMap;
use alloc::string::String;
use alloc::sync::Arc;
use core::sync::atomic::{AtomicU64, Ordering};

use orrery_core::frames::{Pfn, Put};
use orrery_core::space::{Access, SourcePage, area};

use crate::mm::frames;
use crate::sync::SpinLock;

/// Why there is no page.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PageError {
    /// The object ends before it (`SIGBUS`).
    BeyondEnd,
    /// No memory is left for it.
    OutOfMemory,
}

/// Something that has pages: a file, or an anonymous shared object.
///
/// Called with an address space's lock held: an implementation may take spinlocks of its own, but
/// neither sleep nor touch the memory of a program.
pub trait PageSource: Send + Sync {
    /// The page at `index` (its offset divided by 4096). Bytes past the object's end read as zero. A
    /// `Counted` page comes with a reference for the mapping. `access` is `Write` if the mapping is
    /// shared, and it must be `Counted` then; all mappings of the page must get the same frame from
    /// then on.
    ///
    /// # Errors
    /// See [`PageError`].
    fn page(&self, index: u64, access: Access) -> Result<SourcePage, PageError>;

    /// Whether the page at `index` is in memory. Most objects lie there from the start.
    fn is_present(&self, _index: u64) -> bool {
        true
    }

    /// The name that `/proc/PID/maps` shows.
    fn name(&self) -> String;

    /// A number that no other object has, for futexes in it.
    fn identity(&self) -> u64;
}

/// A number that no other object has.
pub fn new_identity() -> u64 {
    static NEXT: AtomicU64 = AtomicU64::new(1);
    NEXT.fetch_add(1, Ordering::Relaxed)
}

/// What an area shows. Offsets are in bytes, and multiples of a page.
#[derive(Clone)]
pub enum Backing {
    /// Zeroes at first, then what the program writes.
    Anonymous,
    /// An object; what the program writes is its own (`MAP_PRIVATE`).
    Private(Arc<dyn PageSource>, u64),
    /// An object, changes included (`MAP_SHARED`).
    Shared(Arc<dyn PageSource>, u64),
}

impl Backing {
    /// The object and the offset where the area begins in it.
    pub fn object(&self) -> Option<(&Arc<dyn PageSource>, u64)> {
        match self {
            Self::Anonymous => None,
            Self::Private(object, offset) | Self::Shared(object, offset) => Some((object, *offset)),
        }
    }
}

impl area::Backing for Backing {
    fn advance(&self, bytes: u64) -> Self {
        match self {
            Self::Anonymous => Self::Anonymous,
            Self::Private(object, offset) => Self::Private(Arc::clone(object), offset + bytes),
            Self::Shared(object, offset) => Self::Shared(Arc::clone(object), offset + bytes),
        }
    }

    fn is_continued_by(&self, next: &Self, bytes: u64) -> bool {
        match (self, next) {
            (Self::Anonymous, Self::Anonymous) => true,
            (Self::Private(object, offset), Self::Private(other, next))
            | (Self::Shared(object, offset), Self::Shared(other, next)) => {
                Arc::ptr_eq(object, other) && offset + bytes == *next
            }
            _ => false,
        }
    }
}

/// Memory that exists as long as somebody maps it: `MAP_SHARED | MAP_ANONYMOUS`.
pub struct SharedMemory {
    identity: u64,
    len_pages: u64,
    pages: SpinLock<BTreeMap<u64, Pfn>>,
}

impl SharedMemory {
    /// `len_bytes` of zeroes, of which pages are made when they are first touched.
    pub fn new(len_bytes: u64) -> Arc<Self> {
        Arc::new(Self {
            identity: new_identity(),
            len_pages: len_bytes.div_ceil(4096),
            pages: SpinLock::new("shared memory", BTreeMap::new()),
        })
    }
}

impl PageSource for SharedMemory {
    fn page(&self, index: u64, _access: Access) -> Result<SourcePage, PageError> {
        if index >= self.len_pages {
            return Err(PageError::BeyondEnd);
        }
        let mut pages = self.pages.lock();
        let page = match pages.get(&index) {
            Some(&page) => page,
            None => {
                let page = frames::alloc_zeroed_for_program().ok_or(PageError::OutOfMemory)?;
                pages.insert(index, page);
                page
            }
        };
        frames::meta(page).add_reference();
        Ok(SourcePage::Counted(page))
    }

    fn is_present(&self, index: u64) -> bool {
        self.pages.lock().contains_key(&index)
    }

    fn name(&self) -> String {
        "/dev/zero (deleted)".into()
    }

    fn identity(&self) -> u64 {
        self.identity
    }
}

impl Drop for SharedMemory {
    fn drop(&mut self) {
        for &page in self.pages.get_mut().values() {
            if frames::meta(page).drop_reference() == Put::Last {
                frames::free(page, 0);
            }
        }
    }
}
