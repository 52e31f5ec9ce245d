//! Page tables as a persistent radix tree.
//!
//! # Invariants
//! - A table's or page's references are the entries that lead to it, plus whoever else holds some.
//!   A root belongs to one address space.
//! - Who finds one reference to a table, on a path of tables that are its own, owns the table: nobody else
//!   can reach it. A table that is not owned is immutable, but for writable bits that are cleared.
//! - The writable bit of an entry that leads to a table says that the table is owned, if that with
//!   the entry is. It is cleared when the table is shared, and set again when it is found alone.
//! - A frame that an address space no longer leads to keeps its reference until all CPUs that may
//!   cache the address space are flushed ([`Update::flush`]). Until then nobody else finds it
//!   alone, hence nobody writes where a stale translation still reads.
//!
//! The count is the only lock between address spaces. Two that copy the same shared table at once
//! store the same values to it; the last to drop it takes it down. Within one address space, the
//! caller's lock is held for the life of an [`Update`].
//!
//! A flush of any page is taken to flush the paging-structure caches too, as `INVLPG` does (SDM vol.
//! 3, 4.10.4.1). Translations of pages below a copied table stay right: they are read-only, and both
//! tables lead to the same pages, each with a reference.

use core::hint::black_box;
use core::sync::atomic::AtomicU64;
use core::sync::atomic::Ordering::{Relaxed, Release};

use arrayvec::ArrayVec;

use super::area::Protection;
use super::entry::{Entry, Table};
use super::release::Retired;
use super::{PAGE_BYTES, ROOT_LEVEL, entry_index};
use crate::frames::{FrameMeta, Pfn, Put};

/// No frame is left for a table or a page. The tables are valid, and map what they mapped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OutOfMemory;

/// Frames, and the TLBs that may cache one address space.
pub trait Memory {
    /// A frame for a table of this level, with one reference; its metadata's word and count are zero.
    fn alloc_table(&self, level: u8, contents: Contents) -> Option<Pfn>;
    /// Takes a table back, all of whose entries are zero.
    fn free_table(&self, table: Pfn);
    /// A frame for a page, with one reference; its contents are unspecified.
    fn alloc_page(&self) -> Option<Pfn>;
    /// A frame of zeroes for a page, with one reference.
    fn alloc_zeroed_page(&self) -> Option<Pfn>;
    /// Takes a page back.
    fn free_page(&self, page: Pfn);
    /// The entries of a table.
    fn table(&self, table: Pfn) -> &Table;
    /// What is known about a frame that an entry counts.
    fn meta(&self, frame: Pfn) -> &FrameMeta;
    /// [`meta`](Self::meta), for many frames in a row, by the physical addresses of their starts.
    fn metas<'m>(&'m self) -> impl Fn(u64) -> &'m FrameMeta;
    /// Physical address of the page that is always zero, which is pinned.
    fn zero_page(&self) -> u64;
    /// Copies the page at a physical address to a page of our own.
    fn copy_page(&self, from: u64, to: Pfn);
    /// Makes all CPUs that may cache the address space forget these translations, and all
    /// paging structures. Returns when they have.
    fn flush(&self, pages: Stale<'_>);
    /// Called between the steps of a long change: other tasks may run meanwhile, but nobody else gets the lock that the
    /// change is made under.
    fn pause(&self);
}

/// What a frame for a table has in it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Contents {
    /// Zeroes.
    Zeroed,
    /// Anything: all of it will be written.
    Any,
}

/// What to flush.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stale<'a> {
    /// The translations of the pages at these addresses.
    Pages(&'a [u64]),
    /// All translations of the window.
    All,
}

/// What a program does to an address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum Access {
    Read,
    Write,
    Execute,
}

/// Where the contents of a page that is not there yet come from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Content {
    /// Zeroes, the program's own.
    Zero,
    /// A page whose changes are the program's own.
    Private(SourcePage),
    /// A page whose changes all see.
    Shared(SourcePage),
}

/// A page of a file or of shared memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SourcePage {
    /// A frame, with a reference for the mapping.
    Counted(Pfn),
    /// Physical address of a page that lives for ever and is never written.
    Pinned(u64),
}

/// What a program may do with a page, as its area says.
pub type Permission = Protection;

/// A change of one address space's tables, under its lock; then, without it, the end of what the
/// change has made superfluous.
///
/// `N` retired frames are kept until the flush; when there are more, a flush comes in between. Up to
/// `N` translations are flushed one by one; when there are more, all are.
pub struct Update<'m, M: Memory + ?Sized, const N: usize = 4> {
    pub(super) memory: &'m M,
    pub(super) root: Pfn,
    pub(super) retired: Retired<N>,
    stale_pages: ArrayVec<u64, N>,
    is_all_stale: bool,
}

impl<'m, M: Memory + ?Sized, const N: usize> Update<'m, M, N> {
    /// Begins a change below `root`. The caller holds the address space's lock until
    /// [`flush`](Self::flush).
    #[inline(always)]
    pub fn new(memory: &'m M, root: Pfn) -> Self {
        let stale_pages = ArrayVec::new();
        Self { memory, root, retired: Retired::new(), stale_pages, is_all_stale: false }
    }

    /// Ends the change: flushes what is stale. After the lock, [`release`](Self::release).
    #[inline(always)]
    pub fn flush(&mut self) {
        if self.is_all_stale {
            self.memory.flush(Stale::All);
        } else if !self.stale_pages.is_empty() {
            self.memory.flush(Stale::Pages(&self.stale_pages));
        }
        self.stale_pages.clear();
        self.is_all_stale = false;
    }

    /// Releases the frames that the address space no longer leads to, after the flush. For those who
    /// hold no lock, since it may take long.
    #[inline(always)]
    pub fn release(&mut self) {
        self.retired.release(self.memory);
    }

    /// The translation of the page at `address`, and the paging structures, are stale.
    #[inline(always)]
    pub(super) fn stale(&mut self, address: u64) {
        if self.stale_pages.last() != Some(&address) {
            self.is_all_stale |= self.stale_pages.try_push(address).is_err();
        }
    }

    /// Everything is stale.
    #[inline(always)]
    pub(super) fn all_stale(&mut self) {
        self.is_all_stale = true;
    }

    /// Keeps a reference until the flush. No entry holds it any more, and what is stale has been
    /// said: a flush that comes first, to make room, is this one's too. `level` 0 is a page.
    #[inline(always)]
    pub(super) fn retire(&mut self, frame: Pfn, level: u8) {
        if self.retired.is_full() {
            self.make_room();
        }
        self.retired.push(frame, level);
    }

    #[cold]
    fn make_room(&mut self) {
        self.flush();
        self.retired.drop_references(self.memory);
    }

    /// Shares all that is mapped with an address space whose window is empty.
    ///
    /// Takes the same time whatever is mapped: at most one step for each 512 GiB. The flush must end
    /// before the lock is released.
    pub fn fork_to(&mut self, child_root: Pfn) {
        copy_table(self.memory, self.root, child_root);
        self.all_stale();
    }

    /// The table that holds the page at `address`, owned, with all above it. Makes those that are
    /// missing, and copies those that are shared.
    ///
    /// # Errors
    /// [`OutOfMemory`]; the tables that were made are kept.
    #[inline(always)]
    pub(super) fn own_path(&mut self, address: u64) -> Result<Pfn, OutOfMemory> {
        self.own_table(1, address)
    }

    /// The table of this level on the way to `address`, as [`own_path`](Self::own_path).
    #[inline(always)]
    pub(super) fn own_table(&mut self, wanted: u8, address: u64) -> Result<Pfn, OutOfMemory> {
        let mut table = self.root;
        let mut level = ROOT_LEVEL;
        while level > wanted {
            let slot = &self.memory.table(table)[entry_index(level, address)];
            let entry = Entry(slot.load(Relaxed));
            if !entry.has(Entry::WRITABLE) {
                return self.own_rest(table, level, wanted, address);
            }
            table = entry.pfn();
            level -= 1;
        }
        Ok(table)
    }

    /// [`own_table`](Self::own_table) from an owned table of this level on.
    #[inline(never)]
    fn own_rest(
        &mut self,
        mut table: Pfn,
        mut level: u8,
        wanted: u8,
        address: u64,
    ) -> Result<Pfn, OutOfMemory> {
        while level > wanted {
            table = self.own_child(table, level, address)?;
            level -= 1;
        }
        Ok(table)
    }

    /// The table below an owned one, owned.
    #[inline(always)]
    pub(super) fn own_child(
        &mut self,
        table: Pfn,
        level: u8,
        address: u64,
    ) -> Result<Pfn, OutOfMemory> {
        let index = entry_index(level, address);
        let entry = Entry(self.memory.table(table)[index].load(Relaxed));
        if entry.has(Entry::WRITABLE) {
            return Ok(entry.pfn());
        }
        self.own_child_slow(table, level, address, entry)
    }

    fn own_child_slow(
        &mut self,
        table: Pfn,
        level: u8,
        address: u64,
        entry: Entry,
    ) -> Result<Pfn, OutOfMemory> {
        let memory = self.memory;
        let index = entry_index(level, address);
        let slot = &memory.table(table)[index];
        if entry.is_empty() {
            let child = memory.alloc_table(level - 1, Contents::Zeroed).ok_or(OutOfMemory)?;
            self.occupy(table, index, Entry::own_table(child));
            return Ok(child);
        }
        let shared = entry.pfn();
        if memory.meta(shared).references() == 1 {
            slot.store(entry.with(Entry::WRITABLE).0, Relaxed);
            return Ok(shared);
        }
        let is_full = memory.meta(shared).owner_word().load(Relaxed) == u64::MAX;
        let contents = if is_full { Contents::Any } else { Contents::Zeroed };
        let copy = memory.alloc_table(level - 1, contents).ok_or(OutOfMemory)?;
        copy_table(memory, shared, copy);
        slot.store(Entry::own_table(copy).0, Release);
        self.stale(address);
        self.retire(shared, level - 1);
        Ok(copy)
    }

    /// Stores to an entry that was empty, of an owned table.
    #[inline(always)]
    pub(super) fn occupy(&mut self, table: Pfn, index: usize, entry: Entry) {
        let meta = self.memory.meta(table);
        let (groups, count) = (meta.owner_word(), meta.owner_count());
        groups.store(groups.load(Relaxed) | 1 << (index / 8), Relaxed);
        count.store(count.load(Relaxed) + 1, Relaxed);
        self.memory.table(table)[index].store(entry.0, Release);
    }

    /// Empties an entry of an owned table. Its bit stays: it says that there may be something.
    #[inline(always)]
    pub(super) fn vacate(&mut self, table: Pfn, index: usize) {
        let count = self.memory.meta(table).owner_count();
        count.store(count.load(Relaxed) - 1, Relaxed);
        self.memory.table(table)[index].store(0, Relaxed);
    }

    /// Makes `access` to the page at `address` possible, which its area permits. `content` is
    /// asked when there is no page yet; `Write` says that the page will be written through a shared
    /// mapping. Says whether the page is new.
    ///
    /// # Errors
    /// [`OutOfMemory`], or what `content` says.
    #[inline(always)]
    pub fn fault<E: From<OutOfMemory>>(
        &mut self,
        address: u64,
        access: Access,
        permission: Permission,
        content: impl FnOnce() -> Result<Content, E>,
    ) -> Result<bool, E> {
        // Another thread may have been faster; then a shared table need not be copied.
        if access != Access::Write && accessible(self.memory, self.root, address, access).is_some()
        {
            return Ok(false);
        }
        let address = address & !(PAGE_BYTES - 1);
        let table = self.own_path(address)?;
        let index = entry_index(1, address);
        let slot = &self.memory.table(table)[index];
        let old = Entry(slot.load(Relaxed));
        let no_execute = if permission.executable() { 0 } else { Entry::NO_EXECUTE };
        if old.is_empty() {
            let entry = self.new_page(access, permission, content()?)?.with(no_execute);
            self.occupy(table, index, entry);
            return Ok(true);
        }
        let mut new = old.with(Entry::PRESENT);
        if permission.executable() {
            new = new.without(Entry::NO_EXECUTE);
        }
        if access == Access::Write && !old.has(Entry::WRITABLE) {
            if !old.is_counted() {
                new = if old.has(Entry::SHARED) {
                    self.new_page(access, permission, content()?)?.with(no_execute)
                } else {
                    self.copy_of(old.physical())?.with(no_execute)
                };
                self.stale(address);
            } else if old.has(Entry::SHARED) || self.memory.meta(old.pfn()).references() == 1 {
                new = new.with(Entry::WRITABLE);
            } else {
                new = self.copy_of(old.physical())?.with(no_execute);
                self.stale(address);
                self.retire(old.pfn(), 0);
            }
        }
        slot.store(new.0, Release);
        Ok(false)
    }

    /// The entry for a page that was not there.
    #[inline(always)]
    fn new_page(
        &mut self,
        access: Access,
        permission: Permission,
        content: Content,
    ) -> Result<Entry, OutOfMemory> {
        let memory = self.memory;
        match content {
            Content::Zero if access == Access::Write => self.zeroed(),
            Content::Zero => Ok(Entry::page(memory.zero_page(), 0)),
            Content::Private(SourcePage::Counted(page)) if access == Access::Write => {
                let copy = self.copy_of(page.start_address());
                // No entry has led to it: nothing caches it.
                if memory.meta(page).drop_reference() == Put::Last {
                    memory.free_page(page);
                }
                copy
            }
            Content::Private(SourcePage::Pinned(page)) if access == Access::Write => {
                self.copy_of(page)
            }
            Content::Private(SourcePage::Counted(page)) => {
                Ok(Entry::page(page.start_address(), Entry::COUNTED))
            }
            Content::Private(SourcePage::Pinned(page)) => Ok(Entry::page(page, 0)),
            Content::Shared(SourcePage::Counted(page)) => {
                let writable = if permission.writable() { Entry::WRITABLE } else { 0 };
                let bits = Entry::SHARED | Entry::COUNTED_SHARED | writable;
                Ok(Entry::page(page.start_address(), bits))
            }
            Content::Shared(SourcePage::Pinned(page)) => Ok(Entry::page(page, Entry::SHARED)),
        }
    }

    /// The entry for a writable copy of the page at this physical address.
    #[inline(always)]
    fn copy_of(&mut self, physical: u64) -> Result<Entry, OutOfMemory> {
        if physical == self.memory.zero_page() {
            return self.zeroed();
        }
        let page = self.memory.alloc_page().ok_or(OutOfMemory)?;
        self.memory.copy_page(physical, page);
        Ok(Entry::own_page(page))
    }

    /// The entry for a writable page of zeroes.
    #[inline(always)]
    fn zeroed(&mut self) -> Result<Entry, OutOfMemory> {
        self.memory.alloc_zeroed_page().map(Entry::own_page).ok_or(OutOfMemory)
    }
}

/// The entry that maps the page at `address`, or an empty one.
#[inline]
pub fn translate<M: Memory + ?Sized>(memory: &M, root: Pfn, address: u64) -> Entry {
    let mut table = root;
    let mut level = ROOT_LEVEL;
    loop {
        let entry = Entry(memory.table(table)[entry_index(level, address)].load(Relaxed));
        if level == 1 || entry.is_empty() {
            return entry;
        }
        table = entry.pfn();
        level -= 1;
    }
}

/// Physical address of the page at `address`, if it may be accessed so as it is.
pub fn accessible<M: Memory + ?Sized>(
    memory: &M,
    root: Pfn,
    address: u64,
    access: Access,
) -> Option<u64> {
    let mut table = root;
    let mut level = ROOT_LEVEL;
    loop {
        let entry = Entry(memory.table(table)[entry_index(level, address)].load(Relaxed));
        let is_allowed = match access {
            Access::Read => true,
            Access::Write => entry.has(Entry::WRITABLE),
            Access::Execute => !entry.has(Entry::NO_EXECUTE),
        };
        if !entry.has(Entry::PRESENT) || !is_allowed {
            return None;
        }
        if level == 1 {
            return Some(entry.physical());
        }
        table = entry.pfn();
        level -= 1;
    }
}

/// Copies a table to one that is empty, or, where any of each eight entries may be occupied, has
/// anything in it: both lead to the same frames then,
/// and neither may be written through, except for pages of `MAP_SHARED` objects.
///
/// Plain stores will do: a table that is not owned changes in no other way, and the CPU has no bits
/// to set.
fn copy_table<M: Memory + ?Sized>(memory: &M, from: Pfn, to: Pfn) {
    let (from_meta, to_meta) = (memory.meta(from), memory.meta(to));
    let (source, target) = (memory.table(from), memory.table(to));
    let mut groups = from_meta.owner_word().load(Relaxed);
    to_meta.owner_word().store(groups, Relaxed);
    to_meta.owner_count().store(from_meta.owner_count().load(Relaxed), Relaxed);
    let meta_of = memory.metas();
    let (sources, targets) = (source.as_chunks::<8>().0, target.as_chunks::<8>().0);
    // The compiler must not see that the bit has no part in the frame's number: it would work that out from the
    // entry as it was, and copy a register in each of 512 turns to have both.
    let all_but_writable = black_box(!Entry::WRITABLE);
    let copy_group = |from, to| copy_group(&meta_of, all_but_writable, from, to);
    if groups == u64::MAX {
        // Most of the entries that are ever copied are in full tables: to look for the next group would be a
        // twelfth of the cost.
        sources.iter().zip(targets).for_each(|(from, to)| copy_group(from, to));
        return;
    }
    while groups != 0 {
        let group = groups.trailing_zeros() as usize;
        groups &= groups - 1;
        copy_group(&sources[group], &targets[group]);
    }
}

#[inline(always)]
fn copy_group<'m>(
    meta_of: &impl Fn(u64) -> &'m FrameMeta,
    all_but_writable: u64,
    sources: &[AtomicU64; 8],
    targets: &[AtomicU64; 8],
) {
    for (source, target) in sources.iter().zip(targets) {
        let entry = Entry(source.load(Relaxed));
        if entry.has(Entry::COUNTED) {
            let read_only = Entry(entry.0 & all_but_writable);
            source.store(read_only.0, Relaxed);
            target.store(read_only.0, Relaxed);
            // The page is not lost meanwhile: nobody finds `target` yet, and `source` has a reference, which it
            // keeps as long as we hold `source`.
            meta_of(read_only.physical()).add_reference();
        } else {
            if entry.is_counted() {
                meta_of(entry.physical()).add_reference();
            }
            target.store(entry.0, Relaxed);
        }
    }
}
