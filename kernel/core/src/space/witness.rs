//! What a CPU that keeps translations may have cached: some of those that a walk finds, and whether the
//! tables still allow their use. It stands in for the TLB where the machine has no PCIDs.

use core::sync::atomic::Ordering::Relaxed;

use super::entry::Entry;
use super::tables::Memory;
use super::{PAGE_BYTES, ROOT_LEVEL, WINDOW_END, entry_index, entry_shift};
use crate::frames::Pfn;

/// Up to `N` translations of one address space, as they were at one moment.
#[derive(Clone, Copy, Debug)]
pub struct Witness<const N: usize> {
    /// Pages, and what their entries say; writable only if the tables above are.
    seen: [(u64, Entry); N],
    len: usize,
    /// Where to look next.
    from: u64,
}

impl<const N: usize> Witness<N> {
    /// Has seen nothing.
    pub const fn new() -> Self {
        Self { seen: [(0, Entry::EMPTY); N], len: 0, from: 0 }
    }

    /// Sees the translations that follow those seen last time, instead of those. For a CPU that has the space
    /// loaded and answers no interrupt, as the tables may change under the walk.
    pub fn look<M: Memory + ?Sized>(&mut self, memory: &M, root: Pfn) {
        self.len = 0;
        self.walk(memory, root, ROOT_LEVEL, self.from, Entry::WRITABLE);
        // From the start again, once there is less to see than there is room for.
        self.from =
            self.seen.get(N - 1).filter(|_| self.len == N).map_or(0, |it| it.0 + PAGE_BYTES);
    }

    fn walk<M: Memory + ?Sized>(
        &mut self,
        memory: &M,
        table: Pfn,
        level: u8,
        from: u64,
        writable: u64,
    ) {
        let span = 1 << entry_shift(level);
        let mut at = from;
        loop {
            let entry = Entry(memory.table(table)[entry_index(level, at)].load(Relaxed));
            let allowed = entry.0 & writable;
            if !entry.has(Entry::PRESENT) {
                // Nothing that could be cached.
            } else if level > 1 {
                self.walk(memory, entry.pfn(), level - 1, at, allowed);
            } else if let Some(free) = self.seen.get_mut(self.len) {
                *free = (at, entry.without(Entry::WRITABLE).with(allowed));
                self.len += 1;
            }
            at = (at / span + 1) * span;
            if self.len == N || at >= WINDOW_END || entry_index(level, at) == 0 {
                return;
            }
        }
    }

    /// A page whose translation of then must not be used any more: it leads elsewhere now, or allows less.
    pub fn stale_page<M: Memory + ?Sized>(&self, memory: &M, root: Pfn) -> Option<u64> {
        let is_stale = |&(page, then): &(u64, Entry)| {
            let now = effective(memory, root, page);
            !now.has(Entry::PRESENT)
                || now.physical() != then.physical()
                || then.has(Entry::WRITABLE) && !now.has(Entry::WRITABLE)
                || !then.has(Entry::NO_EXECUTE) && now.has(Entry::NO_EXECUTE)
        };
        self.seen[..self.len].iter().find(|&seen| is_stale(seen)).map(|&(page, _)| page)
    }
}

impl<const N: usize> Default for Witness<N> {
    fn default() -> Self {
        Self::new()
    }
}

/// The entry of a page, writable only if the tables above are.
fn effective<M: Memory + ?Sized>(memory: &M, root: Pfn, page: u64) -> Entry {
    let mut table = root;
    let mut writable = Entry::WRITABLE;
    for level in (1..=ROOT_LEVEL).rev() {
        let entry = Entry(memory.table(table)[entry_index(level, page)].load(Relaxed));
        writable &= entry.0;
        if level == 1 || !entry.has(Entry::PRESENT) {
            return entry.without(Entry::WRITABLE).with(writable);
        }
        table = entry.pfn();
    }
    Entry::EMPTY
}

#[cfg(test)]
mod tests {
    use super::super::Protection;
    use super::super::model::{Machine, Omit, View};
    use super::super::range::Withdraw;
    use super::super::release::release_window;
    use super::super::tables::{Access, Content, OutOfMemory, Update};
    use super::*;

    const FIRST: u64 = 16 << 20;
    const FAR: u64 = 3 << 30;

    fn change(view: &View<'_>, how: impl FnOnce(&mut Update<'_, View<'_>>)) {
        let mut update = Update::<_>::new(view, view.space.root);
        how(&mut update);
        update.flush();
        update.release();
    }

    fn fault(view: &View<'_>, page: u64, access: Access) {
        change(view, |update| {
            let content = || Ok::<_, OutOfMemory>(Content::Zero);
            update.fault(page, access, Protection::READ_WRITE, content).unwrap();
        });
    }

    /// Three pages, two of them written; then what `how` does to them and to a fork's child.
    fn stale_after(how: impl FnOnce(&View<'_>, &View<'_>)) -> Option<u64> {
        let machine = Machine::new(std::vec![], 1, false, Omit::Nothing);
        let nobody = || {};
        let views = [(); 2].map(|()| {
            let space = machine.space(machine.alloc(0).unwrap());
            View { machine: &machine, space, meanwhile: &nobody }
        });
        let [view, child] = &views;
        fault(view, FIRST, Access::Write);
        fault(view, FIRST + PAGE_BYTES, Access::Read);
        fault(view, FAR, Access::Write);
        let mut witness = Witness::<8>::new();
        witness.look(view, view.space.root);
        assert_eq!(witness.len, 3);
        how(view, child);
        let stale = witness.stale_page(view, view.space.root);
        views.iter().for_each(|view| release_window(view, view.space.root));
        stale
    }

    #[test]
    fn what_is_added_makes_nothing_stale() {
        let stale = stale_after(|view, _| {
            fault(view, FIRST + 2 * PAGE_BYTES, Access::Write);
            fault(view, FAR + 2 * PAGE_BYTES, Access::Read);
        });
        assert_eq!(stale, None);
    }

    #[test]
    fn another_page_is_stale() {
        let write = |view: &View<'_>, _: &View<'_>| {
            fault(view, FIRST + PAGE_BYTES, Access::Write);
        };
        assert_eq!(stale_after(write), Some(FIRST + PAGE_BYTES));
    }

    #[test]
    fn no_page_is_stale() {
        let stale = stale_after(|view, _| {
            change(view, |update| {
                update.unmap(FAR, FAR + PAGE_BYTES).unwrap();
            });
        });
        assert_eq!(stale, Some(FAR));
    }

    #[test]
    fn less_permission_is_stale_wherever_it_is_withdrawn() {
        let stale = stale_after(|view, _| {
            change(view, |update| update.protect(FAR, FAR + PAGE_BYTES, Withdraw::Write).unwrap());
        });
        assert_eq!(stale, Some(FAR));
        // At the root.
        let fork = |view: &View<'_>, child: &View<'_>| {
            change(view, |update| update.fork_to(child.space.root));
        };
        assert_eq!(stale_after(fork), Some(FIRST));
    }

    #[test]
    fn it_looks_elsewhere_each_time() {
        let machine = Machine::new(std::vec![], 1, false, Omit::Nothing);
        let space = machine.space(machine.alloc(0).unwrap());
        let view = View { machine: &machine, space, meanwhile: &|| {} };
        for page in [FIRST, FAR, 100 << 39] {
            fault(&view, page, Access::Write);
        }
        let mut witness = Witness::<2>::new();
        let mut pages = || {
            witness.look(&view, space.root);
            witness.seen[..witness.len].iter().map(|it| it.0).collect::<std::vec::Vec<_>>()
        };
        assert_eq!(pages(), [FIRST, FAR]);
        assert_eq!(pages(), [100 << 39]);
        assert_eq!(pages(), [FIRST, FAR]);
    }
}
