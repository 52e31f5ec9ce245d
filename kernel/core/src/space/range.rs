//! Changes of many pages at once: unmap, protect, move.
//!
//! Each is all or nothing: what can fail for want of memory, making the tables on the way our own,
//! comes first. What is walked page by page is walked with [pauses](Memory::pause), after each table or earlier.

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

/// Bytes between pauses where pages are moved one by one.
const PAUSE_BYTES: u64 = 64 * PAGE_BYTES;

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
                self.memory.pause();
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
            self.memory.pause();
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
                self.memory.pause();
            }
            at = next;
        }
    }

    /// Moves the pages of `from..from + len_bytes` to `to`, where nothing is mapped; the ranges do
    /// not overlap.
    ///
    /// Where both places are so aligned, whole subtrees are moved, as one entry each.
    ///
    /// # Errors
    /// [`OutOfMemory`]; nothing has moved then.
    pub fn move_pages(&mut self, from: u64, to: u64, len_bytes: u64) -> Result<(), OutOfMemory> {
        self.each_subtree(from, to, len_bytes, |this, level, from, to| {
            this.own_table(level, from)?;
            this.own_table(level, to).map(drop)
        })?;
        self.each_subtree(from, to, len_bytes, |this, level, from, to| {
            let (source, target) = (this.own_table(level, from)?, this.own_table(level, to)?);
            this.move_entry(level, (source, from), (target, to));
            Ok(())
        })
    }

    /// Calls `act` with the level of the table, and both addresses, of each entry that is occupied in
    /// `from..from + len_bytes` and can move to `to` as a whole: as large ones as there are.
    fn each_subtree(
        &mut self,
        from: u64,
        to: u64,
        len_bytes: u64,
        mut act: impl FnMut(&mut Self, u8, u64, u64) -> Result<(), OutOfMemory>,
    ) -> Result<(), OutOfMemory> {
        let end = from + len_bytes;
        let mut at = from;
        while at < end {
            let target = at - from + to;
            let fits = |level: &u8| {
                let span = 1 << entry_shift(*level);
                (at | target).is_multiple_of(span) && end - at >= span
            };
            let level = (2..=ROOT_LEVEL).rev().find(fits).unwrap_or(1);
            at = match self.occupied(level, at) {
                Ok(next) => {
                    act(self, level, at, target)?;
                    next
                }
                Err(next) => next,
            };
            if level > 1 || at.is_multiple_of(PAUSE_BYTES) {
                self.memory.pause();
            }
        }
        Ok(())
    }

    /// Where the entry of a table of this level ends that leads on to `address`, if it is occupied; as an error, the
    /// address up to which there is nothing.
    fn occupied(&self, wanted: u8, address: u64) -> Result<u64, u64> {
        let mut table = self.root;
        let mut level = ROOT_LEVEL;
        loop {
            let entry = self.entry(table, level, address);
            let end = part_end(level, address, u64::MAX);
            if entry.is_empty() {
                return Err(end);
            }
            if level == wanted {
                return Ok(end);
            }
            table = entry.pfn();
            level -= 1;
        }
    }

    /// Moves an entry, and all that it leads to, from one owned table of this level to another, where it replaces
    /// tables that map nothing.
    fn move_entry(&mut self, level: u8, from: (Pfn, u64), to: (Pfn, u64)) {
        let ((source, address), (target, target_address)) = (from, to);
        let index = entry_index(level, address);
        let target_index = entry_index(level, target_address);
        let moved = self.entry(source, level, address);
        let replaced = self.entry(target, level, target_address);
        if !replaced.is_empty() {
            self.vacate(target, target_index);
            self.all_stale();
            self.retire(replaced.pfn(), level - 1);
        }
        self.vacate(source, index);
        if level == 1 {
            self.stale(address);
        } else {
            self.all_stale();
        }
        self.occupy(target, target_index, moved);
    }
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
        if level > 1 {
            memory.pause();
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
