//! Changes of many pages at once: unmap, protect, move.
//!
//! Each is all or nothing: what can fail for want of memory, making the tables on the way our own,
//! comes first.

use core::sync::atomic::Ordering::Relaxed;

use super::area::Protection;
use super::entry::Entry;
use super::tables::{Memory, OutOfMemory, Update};
use super::{PAGE_BYTES, ROOT_LEVEL, entry_index, entry_shift};
use crate::frames::Pfn;

/// What pages may no longer be used for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Withdraw {
    /// Writing.
    Write,
    /// Execution.
    Execute,
    /// Writing and execution.
    WriteExecute,
    /// Everything; the pages stay.
    All,
}

impl Withdraw {
    /// What an area of this protection must not have; `None` if it may have all.
    pub fn for_protection(protection: Protection) -> Option<Self> {
        match (protection.readable(), protection.writable(), protection.executable()) {
            (false, ..) => Some(Self::All),
            (_, false, false) => Some(Self::WriteExecute),
            (_, false, true) => Some(Self::Write),
            (_, true, false) => Some(Self::Execute),
            (_, true, true) => None,
        }
    }

    fn apply(self, entry: Entry) -> Entry {
        match self {
            _ if entry.is_empty() => entry,
            Self::Write => entry.without(Entry::WRITABLE),
            Self::Execute => entry.with(Entry::NO_EXECUTE),
            Self::WriteExecute => entry.without(Entry::WRITABLE).with(Entry::NO_EXECUTE),
            Self::All => entry.without(Entry::WRITABLE | Entry::PRESENT).with(Entry::NO_EXECUTE),
        }
    }
}

/// The part of `start..end` that an entry of a table of this level maps from `at` on.
fn part_end(level: u8, at: u64, end: u64) -> u64 {
    let span = 1 << entry_shift(level);
    (at / span * span + span).min(end)
}

/// Whether `start..end` is all that an entry of a table of this level maps.
fn is_whole(level: u8, start: u64, end: u64) -> bool {
    end - start == 1 << entry_shift(level)
}

/// Whether any of the eight entries around `index` may be occupied.
fn may_be_occupied<M: Memory + ?Sized>(memory: &M, table: Pfn, index: usize) -> bool {
    memory.meta(table).owner_word().load(Relaxed) >> (index / 8) & 1 != 0
}

impl<M: Memory + ?Sized, const N: usize> Update<'_, M, N> {
    /// Unmaps `start..end`, whole pages of the window. Number of pages that were mapped there.
    ///
    /// Whole subtrees are cut off, and merely lose a reference.
    ///
    /// # Errors
    /// [`OutOfMemory`] when a shared table had to be copied; everything is still mapped then.
    pub fn unmap(&mut self, start: u64, end: u64) -> Result<u64, OutOfMemory> {
        if start >= end {
            return Ok(0);
        }
        self.own_edge(start, start, end)?;
        self.own_edge(end - PAGE_BYTES, start, end)?;
        Ok(self.unmap_below(self.root, ROOT_LEVEL, start, end))
    }

    /// Makes the tables on the way to `address` our own, as far as they map more than `start..end`.
    fn own_edge(&mut self, address: u64, start: u64, end: u64) -> Result<(), OutOfMemory> {
        let mut table = self.root;
        let mut level = ROOT_LEVEL;
        while level > 1 {
            let first = address >> entry_shift(level) << entry_shift(level);
            let is_cut_off = first >= start && first + (1 << entry_shift(level)) <= end;
            let entry = self.entry(table, level, address);
            if is_cut_off || entry.is_empty() {
                return Ok(());
            }
            table = self.own_child(table, level, address)?;
            level -= 1;
        }
        Ok(())
    }

    fn entry(&self, table: Pfn, level: u8, address: u64) -> Entry {
        Entry(self.memory.table(table)[entry_index(level, address)].load(Relaxed))
    }

    fn unmap_below(&mut self, table: Pfn, level: u8, start: u64, end: u64) -> u64 {
        let mut pages = 0;
        let mut at = start;
        while at < end {
            let next = part_end(level, at, end);
            let index = entry_index(level, at);
            if !may_be_occupied(self.memory, table, index) {
                at = part_end(level, at | 7 << entry_shift(level), end);
                continue;
            }
            let entry = self.entry(table, level, at);
            if entry.is_empty() {
                // Nothing to do for this one.
            } else if is_whole(level, at, next) {
                self.vacate(table, index);
                if level == 1 {
                    pages += 1;
                    self.stale(at);
                } else {
                    pages += count_pages(self.memory, entry.pfn(), level - 1);
                    self.all_stale();
                }
                if entry.is_counted() {
                    self.retire(entry.pfn(), level - 1);
                }
            } else {
                // Our own: `own_edge` has been here.
                pages += self.unmap_below(entry.pfn(), level - 1, at, next);
            }
            at = next;
            if index % 8 == 7 || at == end {
                self.forget_if_empty(table, index);
            }
        }
        pages
    }

    /// Clears the bit of the eight entries around `index` of an owned table if none is occupied, so that
    /// nobody looks at them.
    fn forget_if_empty(&self, table: Pfn, index: usize) {
        let group = index / 8;
        let entries = &self.memory.table(table)[group * 8..][..8];
        if entries.iter().all(|slot| Entry(slot.load(Relaxed)).is_empty()) {
            let groups = self.memory.meta(table).owner_word();
            groups.store(groups.load(Relaxed) & !(1 << group), Relaxed);
        }
    }

    /// Withdraws a permission from the pages that are mapped in `start..end`. Granting one takes
    /// no change: the next fault finds the area's new permission.
    ///
    /// # Errors
    /// [`OutOfMemory`] when a shared table had to be copied; nothing is withdrawn then.
    pub fn protect(&mut self, start: u64, end: u64, withdraw: Withdraw) -> Result<(), OutOfMemory> {
        let affected = |entry| withdraw.apply(entry) != entry;
        self.own_tables(self.root, ROOT_LEVEL, start, end, &affected)?;
        self.change_below(self.root, ROOT_LEVEL, start, end, withdraw);
        Ok(())
    }

    /// Makes our own all tables on the way to pages in `start..end` of which any is `affected`.
    fn own_tables(
        &mut self,
        table: Pfn,
        level: u8,
        start: u64,
        end: u64,
        affected: &impl Fn(Entry) -> bool,
    ) -> Result<(), OutOfMemory> {
        if level == 1 {
            return Ok(());
        }
        let mut at = start;
        while at < end {
            let next = part_end(level, at, end);
            let entry = self.entry(table, level, at);
            if !entry.is_empty()
                && any_page(self.memory, entry.pfn(), level - 1, at, next, affected)
            {
                let child = self.own_child(table, level, at)?;
                self.own_tables(child, level - 1, at, next, affected)?;
            }
            at = next;
        }
        Ok(())
    }

    fn change_below(&mut self, table: Pfn, level: u8, start: u64, end: u64, withdraw: Withdraw) {
        let mut at = start;
        while at < end {
            let next = part_end(level, at, end);
            let entry = self.entry(table, level, at);
            if level == 1 {
                let new = withdraw.apply(entry);
                if new != entry {
                    self.memory.table(table)[entry_index(1, at)].store(new.0, Relaxed);
                    if entry.has(Entry::PRESENT) {
                        self.stale(at);
                    }
                }
            } else if entry.has(Entry::WRITABLE) {
                // A table that is not our own has no affected page.
                self.change_below(entry.pfn(), level - 1, at, next, withdraw);
            }
            at = next;
        }
    }

    /// Moves the pages of `from..from + len_bytes` to `to`, where nothing is mapped; the ranges do
    /// not overlap.
    ///
    /// # Errors
    /// [`OutOfMemory`]; nothing has moved then.
    pub fn move_pages(&mut self, from: u64, to: u64, len_bytes: u64) -> Result<(), OutOfMemory> {
        self.own_tables(self.root, ROOT_LEVEL, from, from + len_bytes, &|entry| !entry.is_empty())?;
        let mut at = from;
        while at < from + len_bytes {
            at = match self.own_leaf(at) {
                Leaf::Occupied(..) => {
                    self.own_path(at - from + to)?;
                    at + PAGE_BYTES
                }
                Leaf::NoneBefore(next) => next,
            };
        }
        let mut at = from;
        while at < from + len_bytes {
            at = match self.own_leaf(at) {
                Leaf::Occupied(source, entry) => {
                    let target = self.own_path(at - from + to)?;
                    self.vacate(source, entry_index(1, at));
                    self.stale(at);
                    self.occupy(target, entry_index(1, at - from + to), entry);
                    at + PAGE_BYTES
                }
                Leaf::NoneBefore(next) => next,
            };
        }
        Ok(())
    }

    /// What there is at `address`, in tables that are our own.
    fn own_leaf(&self, address: u64) -> Leaf {
        let mut table = self.root;
        for level in (1..=ROOT_LEVEL).rev() {
            let entry = self.entry(table, level, address);
            if level == 1 && !entry.is_empty() {
                return Leaf::Occupied(table, entry);
            }
            if level == 1 || !entry.has(Entry::WRITABLE) {
                return Leaf::NoneBefore(part_end(level, address, u64::MAX));
            }
            table = entry.pfn();
        }
        unreachable!("the walk ends at level 1")
    }
}

/// What a walk to a page found.
enum Leaf {
    /// The table of level 1, and the page's entry.
    Occupied(Pfn, Entry),
    /// Nothing of our own up to this address.
    NoneBefore(u64),
}

/// Whether any occupied page entry of `start..end`, below a table of this level, is `affected`.
fn any_page<M: Memory + ?Sized>(
    memory: &M,
    table: Pfn,
    level: u8,
    start: u64,
    end: u64,
    affected: &impl Fn(Entry) -> bool,
) -> bool {
    let mut at = start;
    while at < end {
        let next = part_end(level, at, end);
        let index = entry_index(level, at);
        let entry = Entry(memory.table(table)[index].load(Relaxed));
        let found = !entry.is_empty()
            && if level == 1 {
                affected(entry)
            } else {
                any_page(memory, entry.pfn(), level - 1, at, next, affected)
            };
        if found {
            return true;
        }
        at = next;
    }
    false
}

/// Pages below a table of this level.
pub fn count_pages<M: Memory + ?Sized>(memory: &M, table: Pfn, level: u8) -> u64 {
    if level == 1 {
        return u64::from(memory.meta(table).owner_count().load(Relaxed));
    }
    let entries = memory.table(table).iter().map(|slot| Entry(slot.load(Relaxed)));
    entries
        .filter(|entry| !entry.is_empty())
        .map(|entry| count_pages(memory, entry.pfn(), level - 1))
        .sum()
}
