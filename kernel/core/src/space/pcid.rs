//! Which process-context identifier an address space is loaded with on one CPU, and whether what the CPU
//! has cached under it is still right (SDM vol. 3, 4.10.1).
//!
//! A CPU keeps the translations of the last [`PCIDS`] address spaces, each under an identifier of its own, and
//! uses those of the loaded one only. Nobody tells a CPU about changes of a space that is not loaded
//! there: each change that makes cached translations wrong, a *flush*, advances the space's generation,
//! and the CPU notes, with each identifier, the generation that its translations are as new as. A load keeps them
//! only if that is the space's generation still; otherwise it flushes them.
//!
//! The order that makes it safe:
//!
//! ```text
//!   flush, under the space's lock            load, on CPU n with interrupts off
//!
//!   change the tables                        set bit n in the space's mask
//!   advance the generation                   read the generation
//!   read the mask                            note it; load, keeping if it is the noted one
//!   tell the CPUs in it, wait
//! ```
//!
//! Each step is ordered with the next by a full barrier. If the flush finds bit `n` clear, the load's bit
//! came after that, hence the load reads the new generation, and the CPU walks the new tables. If it
//! finds the bit set, CPU `n` is told, which happens after the load, and flushes the identifier that is
//! loaded by then: the space's, or another's, since it has left the space meanwhile; then the noted
//! generation is old, and the next load of the space flushes.
//!
//! Numbers of address spaces are never used twice, so one that has died need not be forgotten: its
//! identifier is some day another's, whose first load flushes it.

/// Identifiers that a CPU uses, from 1 on. 0 is for the kernel's own tables, whose window is empty. As many as
/// Linux uses: a CPU's caches hardly remember more.
pub const PCIDS: usize = 6;

/// How to load an address space.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Choice {
    /// The identifier, from 1 on.
    pub pcid: u16,
    /// Whether what is cached under it is right; otherwise it has to be flushed.
    pub keep: bool,
}

/// An identifier in use.
#[derive(Clone, Copy, Debug)]
struct Slot {
    /// Number of the address space; 0 is none's.
    space: u64,
    /// What is cached is as new as this generation of it.
    generation: u64,
}

/// What one CPU has under its identifiers, `N` of them.
#[derive(Clone, Debug)]
pub struct Pcids<const N: usize = PCIDS> {
    slots: [Slot; N],
    /// The slot that was chosen last.
    loaded: usize,
    /// The slot that the next new address space gets.
    next: usize,
}

impl<const N: usize> Pcids<N> {
    /// Nothing is cached.
    pub const fn new() -> Self {
        Self { slots: [Slot { space: 0, generation: 0 }; N], loaded: 0, next: 0 }
    }

    /// The identifier to load this address space with, which is not loaded. `space` is not 0; its `generation`
    /// was read after the CPU's bit in its mask was set.
    #[inline]
    pub fn choose(&mut self, space: u64, generation: u64) -> Choice {
        let found = self.slots.iter().position(|slot| slot.space == space);
        let at = found.unwrap_or_else(|| {
            let at = self.next;
            self.next = (at + 1) % N;
            at
        });
        let slot = &mut self.slots[at];
        let keep = found.is_some() && slot.generation == generation;
        *slot = Slot { space, generation };
        self.loaded = at;
        Choice { pcid: at as u16 + 1, keep }
    }

    /// The address space that was chosen last has been flushed here up to this generation. It has been loaded
    /// since, so that no flush before this one has passed it by.
    #[inline]
    pub fn flushed(&mut self, generation: u64) {
        self.slots[self.loaded].generation = generation;
    }
}

impl<const N: usize> Default for Pcids<N> {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn flushes(pcids: &mut Pcids, space: u64, generation: u64) -> bool {
        !pcids.choose(space, generation).keep
    }

    #[test]
    fn what_nobody_has_changed_is_kept() {
        let mut pcids = Pcids::<PCIDS>::new();
        let first: std::vec::Vec<Choice> = (1..=6).map(|space| pcids.choose(space, 9)).collect();
        for (at, choice) in first.iter().enumerate() {
            assert_eq!(*choice, Choice { pcid: at as u16 + 1, keep: false });
        }
        for (at, choice) in first.iter().enumerate().rev() {
            let again = pcids.choose(at as u64 + 1, 9);
            assert_eq!(again, Choice { pcid: choice.pcid, keep: true });
        }
    }

    #[test]
    fn a_change_elsewhere_is_found_at_the_next_load_once() {
        let mut pcids = Pcids::<PCIDS>::new();
        pcids.choose(1, 0);
        pcids.choose(2, 0);
        assert!(flushes(&mut pcids, 1, 1));
        assert!(!flushes(&mut pcids, 2, 0));
        assert!(!flushes(&mut pcids, 1, 1));
    }

    #[test]
    fn who_was_told_need_not_flush_again() {
        let mut pcids = Pcids::<PCIDS>::new();
        pcids.choose(1, 0);
        pcids.flushed(1);
        // The load saw this one's change already.
        pcids.flushed(1);
        pcids.choose(2, 0);
        assert!(!flushes(&mut pcids, 1, 1));
        assert!(!flushes(&mut pcids, 2, 0));
    }

    #[test]
    fn a_seventh_space_takes_the_oldest_identifier() {
        let mut pcids = Pcids::<PCIDS>::new();
        (1..=6).for_each(|space| assert!(flushes(&mut pcids, space, 0)));
        assert_eq!(pcids.choose(7, 0), Choice { pcid: 1, keep: false });
        assert!(!flushes(&mut pcids, 2, 0));
        assert_eq!(pcids.choose(1, 0), Choice { pcid: 2, keep: false });
    }
}
