//! File descriptors: small numbers to open files.
//!
//! A table is persistent: a clone shares everything and costs one reference per 64 descriptors that were
//! ever in use, and a change afterwards copies the one chunk that it touches. So `fork` copies a table in a
//! few instructions.
//!
//! Invariants: bit `i` of a chunk's `open` is set exactly if its slot `i` has a file or is reserved; bits of
//! `close_on_exec` are set for such slots only. Whatever is taken out is returned, so that the caller can drop
//! it where that may take long.

use alloc::sync::Arc;
use alloc::vec::Vec;

use crate::errno::Errno;

/// Descriptors per chunk.
const CHUNK: usize = 64;
/// Descriptors that a table can have: what a limit may allow at most (Linux's `fs.nr_open`).
pub const MAX_DESCRIPTORS: u32 = 4096;

/// What happens to a descriptor at `execve`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OnExec {
    /// It stays open.
    Keep,
    /// It is closed (`FD_CLOEXEC`).
    Close,
}

#[derive(Clone, Debug)]
struct Chunk<T> {
    open: u64,
    close_on_exec: u64,
    files: [Option<T>; CHUNK],
}

impl<T> Chunk<T> {
    fn new() -> Self {
        Self { open: 0, close_on_exec: 0, files: [const { None }; CHUNK] }
    }

    fn set(&mut self, slot: usize, file: T, on_exec: OnExec) -> Option<T> {
        let bit = 1 << slot;
        self.open |= bit;
        self.mark(slot, on_exec);
        self.files[slot].replace(file)
    }

    fn mark(&mut self, slot: usize, on_exec: OnExec) {
        match on_exec {
            OnExec::Keep => self.close_on_exec &= !(1 << slot),
            OnExec::Close => self.close_on_exec |= 1 << slot,
        }
    }

    fn clear(&mut self, slot: usize) -> Option<T> {
        self.open &= !(1 << slot);
        self.close_on_exec &= !(1 << slot);
        self.files[slot].take()
    }
}

/// A table of descriptors.
#[derive(Clone, Debug)]
pub struct FdTable<T> {
    chunks: Vec<Arc<Chunk<T>>>,
}

impl<T> Default for FdTable<T> {
    fn default() -> Self {
        Self { chunks: Vec::new() }
    }
}

fn place(fd: u32) -> (usize, usize) {
    (fd as usize / CHUNK, fd as usize % CHUNK)
}

impl<T: Clone> FdTable<T> {
    /// A table without descriptors.
    pub fn new() -> Self {
        Self::default()
    }

    /// The file of a descriptor.
    #[inline]
    pub fn get(&self, fd: u32) -> Option<&T> {
        let (chunk, slot) = place(fd);
        self.chunks.get(chunk)?.files[slot].as_ref()
    }

    /// What `execve` does with a descriptor; `None` if it is not open.
    pub fn on_exec(&self, fd: u32) -> Option<OnExec> {
        self.get(fd)?;
        let (chunk, slot) = place(fd);
        let closes = self.chunks[chunk].close_on_exec & 1 << slot != 0;
        Some(if closes { OnExec::Close } else { OnExec::Keep })
    }

    /// Says what `execve` shall do with a descriptor.
    ///
    /// # Errors
    /// `EBADF`.
    pub fn set_on_exec(&mut self, fd: u32, on_exec: OnExec) -> Result<(), Errno> {
        let before = self.on_exec(fd).ok_or(Errno::EBADF)?;
        if before != on_exec {
            let (chunk, slot) = place(fd);
            Arc::make_mut(&mut self.chunks[chunk]).mark(slot, on_exec);
        }
        Ok(())
    }

    /// Whether a descriptor can be changed without more memory: what has it is there, and not shared with another table.
    pub fn is_own(&self, fd: u32) -> bool {
        let (chunk, _) = place(fd);
        self.chunks.get(chunk).is_some_and(|chunk| Arc::strong_count(chunk) == 1)
    }

    /// Puts a file at the lowest free descriptor that is at least `least` and less than `limit`.
    ///
    /// # Errors
    /// `EMFILE` if there is none. The file is dropped.
    pub fn insert(
        &mut self,
        least: u32,
        limit: u32,
        file: T,
        on_exec: OnExec,
    ) -> Result<u32, Errno> {
        let fd = self.lowest_free(least).filter(|&fd| fd < limit.min(MAX_DESCRIPTORS));
        let fd = fd.ok_or(Errno::EMFILE)?;
        self.set(fd, file, on_exec);
        Ok(fd)
    }

    /// Whether one more file could be put at a descriptor less than `limit`.
    ///
    /// # Errors
    /// `EMFILE` if not.
    pub fn check_room(&self, limit: u32) -> Result<(), Errno> {
        let free = self.lowest_free(0).filter(|&fd| fd < limit.min(MAX_DESCRIPTORS));
        free.map(drop).ok_or(Errno::EMFILE)
    }

    /// Puts two files at the two lowest free descriptors.
    ///
    /// # Errors
    /// `EMFILE`; then the table is as it was.
    pub fn insert_pair(
        &mut self,
        limit: u32,
        files: [T; 2],
        on_exec: OnExec,
    ) -> Result<[u32; 2], Errno> {
        let [first, second] = files;
        let limit = limit.min(MAX_DESCRIPTORS);
        let a = self.lowest_free(0).filter(|&fd| fd < limit).ok_or(Errno::EMFILE)?;
        let b = self.lowest_free(a + 1).filter(|&fd| fd < limit).ok_or(Errno::EMFILE)?;
        self.set(a, first, on_exec);
        self.set(b, second, on_exec);
        Ok([a, b])
    }

    /// Puts a file at this very descriptor; returns what was there.
    ///
    /// # Errors
    /// `EBADF` if there can be no such descriptor.
    pub fn replace(
        &mut self,
        fd: u32,
        limit: u32,
        file: T,
        on_exec: OnExec,
    ) -> Result<Option<T>, Errno> {
        if fd >= limit.min(MAX_DESCRIPTORS) {
            return Err(Errno::EBADF);
        }
        Ok(self.set(fd, file, on_exec))
    }

    /// Takes a file out.
    ///
    /// # Errors
    /// `EBADF`.
    pub fn remove(&mut self, fd: u32) -> Result<T, Errno> {
        self.get(fd).ok_or(Errno::EBADF)?;
        let (chunk, slot) = place(fd);
        Arc::make_mut(&mut self.chunks[chunk]).clear(slot).ok_or(Errno::EBADF)
    }

    /// Takes out some descriptor that `execve` closes.
    pub fn remove_for_exec(&mut self) -> Option<T> {
        let chunk = self.chunks.iter_mut().find(|chunk| chunk.close_on_exec != 0)?;
        let slot = chunk.close_on_exec.trailing_zeros() as usize;
        Arc::make_mut(chunk).clear(slot)
    }

    /// The first open descriptor that is at least `least`, and so on.
    pub fn iter_from(&self, least: u32) -> impl Iterator<Item = u32> + '_ {
        let (first, slot) = place(least);
        let chunks = self.chunks.iter().enumerate().skip(first);
        chunks.flat_map(move |(index, chunk)| {
            let mask = if index == first { u64::MAX << slot } else { u64::MAX };
            let mut open = chunk.open & mask;
            core::iter::from_fn(move || {
                let slot = (open != 0).then(|| open.trailing_zeros())?;
                open &= open - 1;
                Some((index * CHUNK) as u32 + slot)
            })
        })
    }

    /// Number of open descriptors.
    pub fn len(&self) -> u32 {
        self.chunks.iter().map(|chunk| chunk.open.count_ones()).sum()
    }

    /// Whether no descriptor is open.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The lowest free descriptor that is at least `least`; may be beyond what a table can have.
    pub fn lowest_free(&self, least: u32) -> Option<u32> {
        let (first, slot) = place(least);
        for (index, chunk) in self.chunks.iter().enumerate().skip(first) {
            let below = if index == first { (1 << slot) - 1 } else { 0 };
            let taken = chunk.open | below;
            if taken != u64::MAX {
                return Some((index * CHUNK) as u32 + taken.trailing_ones());
            }
        }
        Some(least.max((self.chunks.len() * CHUNK) as u32))
    }

    fn set(&mut self, fd: u32, file: T, on_exec: OnExec) -> Option<T> {
        let (chunk, slot) = place(fd);
        while self.chunks.len() <= chunk {
            self.chunks.push(Arc::new(Chunk::new()));
        }
        Arc::make_mut(&mut self.chunks[chunk]).set(slot, file, on_exec)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeMap;

    #[test]
    fn the_lowest_free_descriptor_is_taken() {
        let mut table = FdTable::new();
        for expected in 0..130 {
            assert_eq!(table.insert(0, 1024, expected, OnExec::Keep), Ok(expected));
        }
        assert_eq!(table.remove(65), Ok(65));
        assert_eq!(table.remove(65), Err(Errno::EBADF));
        assert_eq!(table.insert(66, 1024, 7, OnExec::Keep), Ok(130));
        assert_eq!(table.insert(3, 1024, 7, OnExec::Keep), Ok(65));
        assert_eq!(table.insert(0, 131, 7, OnExec::Keep), Err(Errno::EMFILE));
        assert_eq!((table.check_room(131), table.check_room(132)), (Err(Errno::EMFILE), Ok(())));
        assert_eq!(table.insert_pair(132, [1, 2], OnExec::Keep), Err(Errno::EMFILE));
        assert_eq!(table.len(), 131);
        assert_eq!(table.replace(5000, u32::MAX, 1, OnExec::Keep), Err(Errno::EBADF));
        assert_eq!(table.insert(u32::MAX, u32::MAX, 1, OnExec::Keep), Err(Errno::EMFILE));
        assert_eq!(table.insert_pair(133, [1, 2], OnExec::Keep), Ok([131, 132]));
    }

    #[test]
    fn a_clone_shares_until_it_changes() {
        let mut parent = FdTable::new();
        let file = Arc::new(());
        for _ in 0..100 {
            parent.insert(0, 1024, file.clone(), OnExec::Keep).unwrap();
        }
        let before = Arc::strong_count(&file);
        let mut child = parent.clone();
        assert_eq!(Arc::strong_count(&file), before);
        child.remove(70).unwrap();
        assert_eq!(Arc::strong_count(&file), before + 35);
        assert!(parent.get(70).is_some() && child.get(70).is_none());
    }

    #[derive(Clone, Debug)]
    enum Step {
        Insert(u32, bool),
        Replace(u32),
        Remove(u32),
        Mark(u32, bool),
        Exec,
        Fork,
    }

    fn step() -> impl Strategy<Value = Step> {
        prop_oneof![
            4 => (0..200u32, any::<bool>()).prop_map(|(fd, close)| Step::Insert(fd, close)),
            2 => (0..200u32).prop_map(Step::Replace),
            3 => (0..200u32).prop_map(Step::Remove),
            1 => (0..200u32, any::<bool>()).prop_map(|(fd, close)| Step::Mark(fd, close)),
            1 => Just(Step::Exec),
            1 => Just(Step::Fork),
        ]
    }

    proptest! {
        #[test]
        fn a_table_is_a_map(steps in prop::collection::vec(step(), 1..200)) {
            const LIMIT: u32 = 180;
            let kind = |close| if close { OnExec::Close } else { OnExec::Keep };
            let mut table = FdTable::new();
            let mut model = BTreeMap::new();
            let mut parents = Vec::new();
            for (number, step) in steps.into_iter().enumerate() {
                match step {
                    Step::Insert(least, close) => {
                        let free = (least..LIMIT).find(|fd| !model.contains_key(fd));
                        let fd = table.insert(least, LIMIT, number, kind(close));
                        prop_assert_eq!(fd.ok(), free);
                        free.map(|fd| model.insert(fd, (number, close)));
                    }
                    Step::Replace(fd) => {
                        let old = table.replace(fd, LIMIT, number, OnExec::Keep);
                        prop_assert_eq!(old.is_ok(), fd < LIMIT);
                        if let Ok(old) = old {
                            prop_assert_eq!(old, model.insert(fd, (number, false)).map(|it| it.0));
                        }
                    }
                    Step::Remove(fd) => {
                        prop_assert_eq!(table.remove(fd).ok(), model.remove(&fd).map(|it| it.0));
                    }
                    Step::Mark(fd, close) => {
                        let marked = table.set_on_exec(fd, kind(close)).is_ok();
                        prop_assert_eq!(marked, model.contains_key(&fd));
                        model.entry(fd).and_modify(|it| it.1 = close);
                    }
                    Step::Exec => {
                        while table.remove_for_exec().is_some() {}
                        model.retain(|_, it| !it.1);
                    }
                    Step::Fork => parents.push((table.clone(), model.clone())),
                }
                let open: Vec<_> = table.iter_from(0).collect();
                prop_assert_eq!(open, model.keys().copied().collect::<Vec<_>>());
                prop_assert_eq!(table.len() as usize, model.len());
            }
            for (table, model) in parents {
                for fd in 0..256 {
                    prop_assert_eq!(table.get(fd).copied(), model.get(&fd).map(|it| it.0));
                }
            }
        }
    }
}
