//! What regular files contain: pages of memory, or bytes of the bundle where nothing was written yet.
//!
//! Writers and `truncate` come one at a time (`changes`, a sleeping mutex); readers and page faults only
//! take the lock of the pages, for the time of finding one. A page that is being copied from or to is kept by
//! a reference of its own. Holes read as zeroes and have no page until they are written or mapped.

use alloc::collections::BTreeMap;
use alloc::sync::Arc;
use core::sync::atomic::{AtomicBool, Ordering};

use linux_raw_sys::general::{RLIMIT_FSIZE, SEEK_HOLE};
use orrery_core::errno::Errno;
use orrery_core::signal::Signal;

use super::io::{IoFrom, IoTo};
use super::limits;
use super::page::{PAGE_BYTES, Page};
use super::write_or_run::WriteOrRun;
use crate::mm::VirtAddr;
use crate::mm::address::virt_to_phys;
use crate::mm::space::{Access, PageError, SourcePage};
use crate::process::thread::thread_of;
use crate::process::{signal, try_current};
use crate::sched::mutex::Mutex;
use crate::sync::SpinLock;
use crate::task::registry;

/// Largest offset after the last byte of a file.
pub const MAX_SIZE_BYTES: u64 = i64::MAX as u64;

/// The contents of a regular file.
pub struct Content {
    pages: SpinLock<Pages>,
    changes: Mutex<()>,
    /// Whether programs may have mapped it.
    was_mapped: AtomicBool,
    /// Who writes or runs it.
    pub write_or_run: WriteOrRun,
}

struct Pages {
    size_bytes: u64,
    /// What the file begins with where `own` has no page; no longer than `size_bytes`.
    bundle: &'static [u8],
    own: BTreeMap<u64, FilePage>,
}

/// A page that counts against the limit of files' pages.
struct FilePage(Page);

impl FilePage {
    fn zeroed() -> Result<Self, Errno> {
        limits::FILE_PAGES.take().map_err(|_| Errno::ENOSPC)?;
        match Page::zeroed() {
            Some(page) => Ok(Self(page)),
            None => {
                limits::FILE_PAGES.give_back();
                Err(Errno::ENOSPC)
            }
        }
    }
}

impl Drop for FilePage {
    fn drop(&mut self) {
        limits::FILE_PAGES.give_back();
    }
}

/// Where bytes of a file are found.
enum Source {
    Page(Page),
    Bundle(&'static [u8]),
    Hole,
}

/// How long the running program may make a file (`RLIMIT_FSIZE`).
fn size_limit() -> u64 {
    try_current().map_or(u64::MAX, |thread| thread.process.limits.lock().soft(RLIMIT_FSIZE))
}

/// The running program would make a file longer than that: it gets SIGXFSZ, and this error.
fn exceed_limit() -> Errno {
    signal::send_to_self(Signal::SIGXFSZ);
    Errno::EFBIG
}

/// Unmaps what an object, of this identity, no longer has, in all programs. A child that is being made meanwhile may
/// keep what its parent had.
fn cut_mappings_off(identity: u64, from_bytes: u64) {
    // The threads of a process come one after the other, mostly.
    let mut last = None;
    for task in registry::tasks() {
        let space = thread_of(&task).and_then(|thread| thread.space.lock().clone());
        if let Some(space) = &space
            && last.as_ref().is_none_or(|last| !Arc::ptr_eq(last, space))
        {
            space.cut_off(identity, from_bytes);
            last = Some(space.clone());
        }
    }
}

fn page_of(at: u64) -> u64 {
    at / PAGE_BYTES as u64
}

fn offset_in_page(at: u64) -> usize {
    (at % PAGE_BYTES as u64) as usize
}

impl Pages {
    /// The bundle's bytes from `at` on.
    fn bundle_from(&self, at: u64) -> &'static [u8] {
        usize::try_from(at).ok().and_then(|at| self.bundle.get(at..)).unwrap_or(&[])
    }

    /// Pages that have the bundle's bytes, or had them.
    fn bundle_pages(&self) -> u64 {
        self.bundle.len().div_ceil(PAGE_BYTES) as u64
    }

    /// The first page at `index` or after it that has bytes.
    fn first_data(&self, index: u64) -> Option<u64> {
        if index < self.bundle_pages() {
            return Some(index);
        }
        self.own.range(index..).next().map(|(&index, _)| index)
    }
}

impl Content {
    /// A file with these contents, which are not copied until they are written.
    pub fn new(bundle: &'static [u8]) -> Self {
        let pages = Pages { size_bytes: bundle.len() as u64, bundle, own: BTreeMap::new() };
        Self {
            pages: SpinLock::new("file pages", pages),
            changes: Mutex::new(()),
            was_mapped: AtomicBool::new(false),
            write_or_run: WriteOrRun::default(),
        }
    }

    /// Notes that programs may map it from now on.
    pub(super) fn note_mapped(&self) {
        self.was_mapped.store(true, Ordering::Relaxed);
    }

    /// Lets a file that has nothing have these contents.
    pub fn borrow(&self, bundle: &'static [u8]) {
        let mut pages = self.pages.lock();
        debug_assert!(pages.own.is_empty());
        (pages.size_bytes, pages.bundle) = (bundle.len() as u64, bundle);
    }

    /// The page of this number, for a mapping: a page of the bundle as it lies there, where it is whole and is not to
    /// be written, or one of the file's own.
    ///
    /// # Errors
    /// [`PageError`].
    pub fn page(&self, index: u64, access: Access) -> Result<SourcePage, PageError> {
        let start = index.checked_mul(PAGE_BYTES as u64).ok_or(PageError::BeyondEnd)?;
        {
            let pages = self.pages.lock();
            if start >= pages.size_bytes {
                return Err(PageError::BeyondEnd);
            }
            let bundle = pages.bundle_from(start);
            if access != Access::Write
                && bundle.len() >= PAGE_BYTES
                && bundle.as_ptr().addr().is_multiple_of(PAGE_BYTES)
                && !pages.own.contains_key(&index)
            {
                let at = VirtAddr::from_ptr(bundle.as_ptr());
                return Ok(SourcePage::Pinned(virt_to_phys(at).as_u64()));
            }
        }
        let page = self.own_page(index).map_err(|_| PageError::OutOfMemory)?;
        Ok(SourcePage::Counted(page.into_pfn()))
    }

    /// Whether the page of this number has bytes: the bundle's, or its own.
    pub fn has_page(&self, index: u64) -> bool {
        let pages = self.pages.lock();
        let start = index.saturating_mul(PAGE_BYTES as u64);
        pages.own.contains_key(&index) || !pages.bundle_from(start).is_empty()
    }

    /// Its size in bytes.
    pub fn size_bytes(&self) -> u64 {
        self.pages.lock().size_bytes
    }

    /// Pages of memory that it has of its own.
    pub fn own_pages(&self) -> u64 {
        self.pages.lock().own.len() as u64
    }

    /// Pages that are no holes.
    pub fn stored_pages(&self) -> u64 {
        let pages = self.pages.lock();
        let of_bundle = pages.bundle_pages();
        // Few files of the bundle are written; of all others nothing is counted here.
        let in_place = pages.own.range(..of_bundle).count();
        of_bundle + (pages.own.len() - in_place) as u64
    }

    /// Reads from offset `at` on.
    ///
    /// # Errors
    /// `EFAULT`.
    pub fn read(&self, to: &mut IoTo<'_>, at: u64) -> Result<(), Errno> {
        let mut at = at;
        while to.left() > 0 {
            let in_page = PAGE_BYTES - offset_in_page(at);
            let (source, len) = {
                let pages = self.pages.lock();
                let left = pages.size_bytes.saturating_sub(at);
                if left == 0 {
                    return Ok(());
                }
                let len = usize::try_from(left).unwrap_or(usize::MAX);
                let bundle = pages.bundle_from(at);
                if let Some(page) = pages.own.get(&page_of(at)) {
                    (Source::Page(page.0.share()), len.min(in_page))
                } else if bundle.is_empty() {
                    (Source::Hole, len.min(in_page))
                } else if pages.own.is_empty() {
                    (Source::Bundle(bundle), len.min(bundle.len()))
                } else {
                    (Source::Bundle(bundle), len.min(bundle.len()).min(in_page))
                }
            };
            let len = len.min(to.left());
            at += match source {
                Source::Page(page) => to.put(&page.bytes()[offset_in_page(at)..][..len])?,
                Source::Bundle(bytes) => to.put(&bytes[..len])?,
                Source::Hole => to.put_zeroes(len)?,
            } as u64;
        }
        Ok(())
    }

    /// Writes at offset `at`, or at the end; returns where the first byte went.
    ///
    /// # Errors
    /// `EFAULT`, `ENOSPC`; `EFBIG` beyond [`MAX_SIZE_BYTES`] and the program's own limit. What was written before
    /// stays.
    pub fn write(&self, from: &mut IoFrom<'_>, at: Option<u64>) -> (u64, Result<(), Errno>) {
        let _changes = self.changes.lock();
        let start = at.unwrap_or_else(|| self.size_bytes());
        let limit = size_limit();
        if start >= limit {
            return (start, Err(exceed_limit()));
        }
        (start, self.write_locked(from, start, limit.min(MAX_SIZE_BYTES)))
    }

    fn write_locked(&self, from: &mut IoFrom<'_>, start: u64, max_bytes: u64) -> Result<(), Errno> {
        let mut at = start;
        while from.left() > 0 {
            let room = max_bytes.saturating_sub(at).min((PAGE_BYTES - offset_in_page(at)) as u64);
            if room == 0 {
                return Err(Errno::EFBIG);
            }
            let page = self.own_page(page_of(at))?;
            let before = from.done();
            let bytes = &mut page.bytes_mut()[offset_in_page(at)..][..room as usize];
            let result = from.take(bytes);
            at += (from.done() - before) as u64;
            if from.done() > before {
                let mut pages = self.pages.lock();
                pages.size_bytes = pages.size_bytes.max(at);
            }
            result?;
        }
        Ok(())
    }

    /// The file's own page of this number, made if it has none.
    fn own_page(&self, index: u64) -> Result<Page, Errno> {
        if let Some(page) = self.pages.lock().own.get(&index) {
            return Ok(page.0.share());
        }
        let new = FilePage::zeroed()?;
        let mut spare = None;
        let mut pages = self.pages.lock();
        let bundle = pages.bundle_from(index * PAGE_BYTES as u64);
        let page = match pages.own.get(&index) {
            // Somebody else was faster, by a page fault.
            Some(page) => {
                let page = page.0.share();
                spare = Some(new);
                page
            }
            None => {
                let len = bundle.len().min(PAGE_BYTES);
                new.0.bytes_mut()[..len].copy_from_slice(&bundle[..len]);
                let page = new.0.share();
                pages.own.insert(index, new);
                page
            }
        };
        drop(pages);
        drop(spare);
        Ok(page)
    }

    /// Cuts the file off, or makes it longer by a hole. `identity` is that of its mappings, which lose what is cut off.
    ///
    /// # Errors
    /// `EFBIG` beyond [`MAX_SIZE_BYTES`] and the program's own limit.
    pub fn set_size(&self, size_bytes: u64, identity: u64) -> Result<(), Errno> {
        if size_bytes > MAX_SIZE_BYTES {
            return Err(Errno::EFBIG);
        }
        let _changes = self.changes.lock();
        if size_bytes > self.size_bytes() && size_bytes > size_limit() {
            return Err(exceed_limit());
        }
        let mut is_shorter = false;
        let cut_off = {
            let mut pages = self.pages.lock();
            let mut cut_off = BTreeMap::new();
            if size_bytes < pages.size_bytes {
                is_shorter = true;
                cut_off = pages.own.split_off(&size_bytes.div_ceil(PAGE_BYTES as u64));
                if let Ok(size) = usize::try_from(size_bytes)
                    && size < pages.bundle.len()
                {
                    pages.bundle = &pages.bundle[..size];
                }
                if let Some(page) = pages.own.get(&page_of(size_bytes)) {
                    page.0.bytes_mut()[offset_in_page(size_bytes)..].fill(0);
                }
            }
            pages.size_bytes = size_bytes;
            cut_off
        };
        drop(cut_off);
        if is_shorter && self.was_mapped.load(Ordering::Relaxed) {
            cut_mappings_off(identity, size_bytes.next_multiple_of(PAGE_BYTES as u64));
        }
        Ok(())
    }

    /// Where the first data, or the first hole, at or after `at` begins. The end counts as a hole.
    ///
    /// # Errors
    /// `ENXIO` if `at` is not before the end, or no data is.
    pub fn find(&self, at: u64, whence: u32) -> Result<u64, Errno> {
        let size_bytes = self.size_bytes();
        if at >= size_bytes {
            return Err(Errno::ENXIO);
        }
        let (first, end) = (page_of(at), size_bytes.div_ceil(PAGE_BYTES as u64));
        let page = if whence == SEEK_HOLE {
            // The lock is taken for each page: there may be many.
            (first..end).find(|&index| !self.has_page(index)).unwrap_or(end)
        } else {
            self.pages.lock().first_data(first).filter(|&index| index < end).ok_or(Errno::ENXIO)?
        };
        Ok((page * PAGE_BYTES as u64).clamp(at, size_bytes))
    }
}
