//! Locks on files: record locks (fcntl(2)) and, as locks of all bytes, those of flock(2).
//!
//! A [`LockTable`] has the locks of all files. Its rules, after every change:
//! - locks of two owners overlap only where both are shared;
//! - the locks that an owner has on a file do not overlap, and those of one kind do not touch: they are one.
//!
//! Whoever waits for a lock says so, and is refused where it would wait for itself: the table follows who waits
//! for whose locks ([`LockTable::wait`]).

use alloc::collections::BTreeMap;
use alloc::vec::Vec;

use arrayvec::ArrayVec;

use crate::errno::Errno;

/// The last byte that a file can have.
const LAST_BYTE: u64 = i64::MAX as u64;
/// Owners that the search for a deadlock visits at most: it must end soon whatever programs do. Beyond, there is none.
const MAX_VISITED: usize = 64;

/// Who else may have a lock on the same bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Others that are shared (to read).
    Shared,
    /// Nobody (to write).
    Exclusive,
}

/// Bytes of a file, at least one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Range {
    first: u64,
    last: u64,
}

impl Range {
    /// All bytes that a file can have.
    pub const WHOLE: Self = Self { first: 0, last: LAST_BYTE };

    /// What `l_start` and `l_len` of a `struct flock` name, where `base` is what `l_whence` does. A length of 0
    /// reaches to the end, however far that will be; a negative one, back from the start.
    ///
    /// # Errors
    /// `EINVAL` for bytes before the file, `EOVERFLOW` for those behind the last that there can be.
    pub fn from_flock(base: u64, start: i64, len: i64) -> Result<Self, Errno> {
        let base = i64::try_from(base).map_err(|_| Errno::EOVERFLOW)?;
        let start = base.checked_add(start).ok_or(Errno::EOVERFLOW)?;
        let at = |offset: i64| u64::try_from(offset).map_err(|_| Errno::EINVAL);
        let first = at(start)?;
        match len {
            0 => Ok(Self { first, last: LAST_BYTE }),
            1.. => {
                let last = start.checked_add(len - 1).ok_or(Errno::EOVERFLOW)?;
                Ok(Self { first, last: at(last)? })
            }
            // Not below zero: the start is not, and the length is.
            _ => Ok(Self { first: at(start.saturating_add(len))?, last: at(start - 1)? }),
        }
    }

    /// `l_start`, from the start of the file.
    pub fn flock_start(self) -> i64 {
        self.first.cast_signed()
    }

    /// `l_len`.
    pub fn flock_len(self) -> i64 {
        if self.last == LAST_BYTE { 0 } else { (self.last - self.first + 1).cast_signed() }
    }

    fn overlaps(self, other: Self) -> bool {
        self.first <= other.last && other.first <= self.last
    }

    /// Whether they overlap, or one begins where the other ends.
    fn touches(self, other: Self) -> bool {
        self.first <= other.last + 1 && other.first <= self.last + 1
    }

    /// What is left of it before and after `hole`, which overlaps it.
    fn without(self, hole: Self) -> [Option<Self>; 2] {
        let before =
            (self.first < hole.first).then(|| Self { first: self.first, last: hole.first - 1 });
        let after = (self.last > hole.last).then(|| Self { first: hole.last + 1, last: self.last });
        [before, after]
    }
}

/// A lock that somebody has, or wants.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Lock<O> {
    /// Whose it is.
    pub owner: O,
    /// Who else may have one.
    pub kind: Kind,
    /// Where it is.
    pub range: Range,
}

impl<O: PartialEq> Lock<O> {
    fn conflicts(&self, other: &Self) -> bool {
        self.owner != other.owner
            && (self.kind == Kind::Exclusive || other.kind == Kind::Exclusive)
            && self.range.overlaps(other.range)
    }
}

/// Somebody who waits.
#[derive(Debug)]
struct Waiting<F, O> {
    ticket: Ticket,
    file: F,
    wanted: Lock<O>,
}

/// What [`LockTable::wait`] gives and [`LockTable::stop_waiting`] takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ticket(u64);

/// The locks on all files; `F` names a file, `O` an owner.
#[derive(Debug)]
pub struct LockTable<F, O> {
    /// Of each file that has any, in the order of their first bytes.
    files: BTreeMap<F, Vec<Lock<O>>>,
    len: usize,
    waiting: Vec<Waiting<F, O>>,
    next_ticket: u64,
}

impl<F: Copy + Ord, O: Clone + PartialEq> LockTable<F, O> {
    /// No locks.
    pub const fn new() -> Self {
        Self { files: BTreeMap::new(), len: 0, waiting: Vec::new(), next_ticket: 0 }
    }

    /// How many locks there are.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    fn locks(&self, file: F) -> &[Lock<O>] {
        self.files.get(&file).map_or(&[], Vec::as_slice)
    }

    /// The first lock that stands in the way of this one, if one does.
    pub fn conflict(&self, file: F, wanted: &Lock<O>) -> Option<&Lock<O>> {
        self.locks(file).iter().find(|lock| lock.conflicts(wanted))
    }

    /// Whether this lock is there, exactly as it is.
    pub fn has(&self, file: F, lock: &Lock<O>) -> bool {
        self.locks(file).contains(lock)
    }

    /// Gives `wanted.owner` this lock, instead of what it has on these bytes. There are at most `limit` in all.
    ///
    /// # Errors
    /// `EAGAIN` if another's is in the way, `ENOLCK` if there are too many, or too many for the memory. Nothing has
    /// changed then.
    pub fn lock(&mut self, file: F, wanted: &Lock<O>, limit: usize) -> Result<(), Errno> {
        if self.conflict(file, wanted).is_some() {
            return Err(Errno::EAGAIN);
        }
        // One for itself, and one for the second half of what it may split.
        if self.len + 2 > limit {
            return Err(Errno::ENOLCK);
        }
        self.reserve(file, 2)?;
        self.replace(file, &wanted.owner, wanted.range, Some(wanted.kind));
        Ok(())
    }

    /// Takes from an owner what it has on these bytes. There are at most `limit` in all.
    ///
    /// # Errors
    /// As [`Self::lock`] `ENOLCK`, since a hole in a lock makes one more of it; never for [`Range::WHOLE`].
    pub fn unlock(&mut self, file: F, owner: &O, range: Range, limit: usize) -> Result<(), Errno> {
        if range != Range::WHOLE {
            if self.len + 1 > limit {
                return Err(Errno::ENOLCK);
            }
            self.reserve(file, 1)?;
        }
        self.replace(file, owner, range, None);
        Ok(())
    }

    /// Makes room for so many more locks on a file, if it has any: the list may be large. That of the first few is
    /// not.
    fn reserve(&mut self, file: F, more: usize) -> Result<(), Errno> {
        match self.files.get_mut(&file) {
            Some(locks) => locks.try_reserve(more).map_err(|_| Errno::ENOLCK),
            None => Ok(()),
        }
    }

    /// Lets the owner have a lock of this kind on these bytes, or none. There is room for what that adds: its locks do
    /// not overlap, so that the range cuts one in two, or one at each end.
    fn replace(&mut self, file: F, owner: &O, range: Range, kind: Option<Kind>) {
        let locks = self.files.entry(file).or_default();
        self.len -= locks.len();
        let mut new = range;
        let mut rests = ArrayVec::<_, 2>::new();
        locks.retain(|lock| {
            let is_joined = Some(lock.kind) == kind && lock.range.touches(range);
            if lock.owner != *owner || !(is_joined || lock.range.overlaps(range)) {
                return true;
            }
            if is_joined {
                new.first = new.first.min(lock.range.first);
                new.last = new.last.max(lock.range.last);
            } else {
                let rest = lock.range.without(range).into_iter().flatten();
                rests.extend(rest.map(|range| Lock { range, ..lock.clone() }));
            }
            false
        });
        let new = kind.map(|kind| Lock { owner: owner.clone(), kind, range: new });
        for lock in rests.into_iter().chain(new) {
            let at = locks.partition_point(|it| it.range.first <= lock.range.first);
            locks.insert(at, lock);
        }
        self.len += locks.len();
        if locks.is_empty() {
            self.files.remove(&file);
        }
        if self.files.is_empty() {
            // The memory as well.
            self.files = BTreeMap::new();
        }
    }

    /// Notes that the owner of a lock that cannot be had yet waits for it.
    ///
    /// # Errors
    /// `EDEADLK` if one of those who have to give theirs away first waits for this owner, be it by way of others;
    /// `ENOLCK` if too many wait for the memory.
    pub fn wait(&mut self, file: F, wanted: &Lock<O>) -> Result<Ticket, Errno> {
        if self.would_wait_for_itself(file, wanted) {
            return Err(Errno::EDEADLK);
        }
        self.waiting.try_reserve(1).map_err(|_| Errno::ENOLCK)?;
        let ticket = Ticket(self.next_ticket);
        self.next_ticket += 1;
        self.waiting.push(Waiting { ticket, file, wanted: wanted.clone() });
        Ok(ticket)
    }

    /// It waits no longer.
    pub fn stop_waiting(&mut self, ticket: Ticket) {
        self.waiting.retain(|it| it.ticket != ticket);
        if self.waiting.is_empty() {
            self.waiting = Vec::new();
        }
    }

    fn would_wait_for_itself(&self, file: F, wanted: &Lock<O>) -> bool {
        let mut holders: Vec<&O> = Vec::new();
        let note = |holders: &mut Vec<_>, file, wanted: &Lock<O>| {
            for lock in self.locks(file).iter().filter(|lock| lock.conflicts(wanted)) {
                if !holders.contains(&&lock.owner) && holders.len() < MAX_VISITED {
                    holders.push(&lock.owner);
                }
            }
        };
        note(&mut holders, file, wanted);
        let mut visited = 0;
        while let Some(&holder) = holders.get(visited) {
            if *holder == wanted.owner {
                return true;
            }
            for waiting in self.waiting.iter().filter(|it| it.wanted.owner == *holder) {
                note(&mut holders, waiting.file, &waiting.wanted);
            }
            visited += 1;
        }
        false
    }
}

impl<F: Copy + Ord, O: Clone + PartialEq> Default for LockTable<F, O> {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::vec;

    const NO_LIMIT: usize = usize::MAX;
    const OWNERS: usize = 4;
    const FILES: usize = 2;
    /// Bytes of the model; the last stands for all that follow.
    const BYTES: usize = 12;

    #[test]
    fn a_struct_flock_names_bytes() {
        let range = |base, start, len| {
            Range::from_flock(base, start, len).map(|it| (it.flock_start(), it.flock_len()))
        };
        assert_eq!(range(0, 5, 3), Ok((5, 3)));
        assert_eq!(range(10, -5, 0), Ok((5, 0)));
        assert_eq!(range(10, 0, -4), Ok((6, 4)));
        assert_eq!(range(10, 0, -10), Ok((0, 10)));
        assert_eq!(range(10, 0, -11), Err(Errno::EINVAL));
        assert_eq!(range(10, -11, 1), Err(Errno::EINVAL));
        assert_eq!(range(0, 0, -1), Err(Errno::EINVAL));
        assert_eq!(range(0, 0, i64::MIN), Err(Errno::EINVAL));
        assert_eq!(range(1, i64::MAX, 1), Err(Errno::EOVERFLOW));
        assert_eq!(range(0, i64::MAX, 1), Ok((i64::MAX, 0)));
        assert_eq!(range(0, i64::MAX, 2), Err(Errno::EOVERFLOW));
        assert_eq!(range(0, 0, i64::MAX), Ok((0, i64::MAX)));
        assert_eq!(range(u64::MAX, 0, 1), Err(Errno::EOVERFLOW));
    }

    fn lock(owner: usize, kind: Kind, first: u64, last: u64) -> Lock<usize> {
        Lock { owner, kind, range: Range { first, last } }
    }

    #[test]
    fn there_are_as_many_as_the_limit_says() {
        let mut table = LockTable::new();
        let whole = Lock { owner: 1, kind: Kind::Shared, range: Range::WHOLE };
        assert_eq!(table.lock(0, &whole, 1), Err(Errno::ENOLCK));
        assert_eq!(table.lock(0, &whole, 3), Ok(()));
        assert_eq!(table.lock(0, &lock(1, Kind::Exclusive, 5, 6), 3), Ok(()));
        assert_eq!(table.len(), 3);
        assert_eq!(table.unlock(0, &1, Range { first: 1, last: 1 }, 3), Err(Errno::ENOLCK));
        assert_eq!(table.lock(1, &whole, 3), Err(Errno::ENOLCK));
        assert_eq!(table.unlock(0, &1, Range::WHOLE, 0), Ok(()));
        assert!(table.is_empty());
    }

    #[test]
    fn three_wait_in_a_circle() {
        let mut table = LockTable::new();
        for owner in 0..3 {
            table.lock(owner, &lock(owner, Kind::Exclusive, 0, 9), NO_LIMIT).unwrap();
        }
        let first = table.wait(1, &lock(0, Kind::Shared, 3, 3)).unwrap();
        table.wait(2, &lock(1, Kind::Shared, 3, 3)).unwrap();
        assert_eq!(table.wait(0, &lock(2, Kind::Shared, 9, 12)), Err(Errno::EDEADLK));
        // What is not in the way does no harm, and who has given up waits for nobody.
        assert!(table.wait(0, &lock(2, Kind::Shared, 10, 12)).is_ok());
        table.stop_waiting(first);
        assert!(table.wait(0, &lock(2, Kind::Shared, 9, 12)).is_ok());
    }

    #[derive(Clone, Debug)]
    enum Step {
        Lock(usize, Lock<usize>),
        Unlock(usize, usize, Range),
        Wait(usize, Lock<usize>),
        StopWaiting(usize),
    }

    fn range() -> impl Strategy<Value = Range> {
        (0..BYTES as u64, 0..BYTES as u64).prop_map(|(a, b)| {
            let last = a.max(b);
            let is_last = last == BYTES as u64 - 1;
            Range { first: a.min(b), last: if is_last { LAST_BYTE } else { last } }
        })
    }

    fn wanted() -> impl Strategy<Value = Lock<usize>> {
        (0..OWNERS, any::<bool>(), range()).prop_map(|(owner, shared, range)| Lock {
            owner,
            kind: if shared { Kind::Shared } else { Kind::Exclusive },
            range,
        })
    }

    fn step() -> impl Strategy<Value = Step> {
        prop_oneof![
            5 => (0..FILES, wanted()).prop_map(|(file, wanted)| Step::Lock(file, wanted)),
            2 => (0..FILES, 0..OWNERS, range())
                .prop_map(|(file, owner, range)| Step::Unlock(file, owner, range)),
            3 => (0..FILES, wanted()).prop_map(|(file, wanted)| Step::Wait(file, wanted)),
            1 => (0..8usize).prop_map(Step::StopWaiting),
        ]
    }

    /// What each owner has on each byte of each file, and who waits for what.
    #[derive(Default)]
    struct Model {
        bytes: [[[Option<Kind>; OWNERS]; BYTES]; FILES],
        waiting: Vec<(Ticket, usize, Lock<usize>)>,
    }

    fn bytes(range: Range) -> impl Iterator<Item = usize> {
        (0..BYTES).filter(move |&byte| range.first <= byte as u64 && byte as u64 <= range.last)
    }

    impl Model {
        fn stands_in_the_way(&self, file: usize, wanted: &Lock<usize>, owner: usize) -> bool {
            owner != wanted.owner
                && bytes(wanted.range).any(|byte| match self.bytes[file][byte][owner] {
                    None => false,
                    Some(kind) => kind == Kind::Exclusive || wanted.kind == Kind::Exclusive,
                })
        }

        fn set(&mut self, file: usize, owner: usize, range: Range, kind: Option<Kind>) {
            for byte in bytes(range) {
                self.bytes[file][byte][owner] = kind;
            }
        }

        /// Whether `to` is reached by any chain of waits from the owner of this lock: by trying all lengths.
        fn is_circle(&self, file: usize, wanted: &Lock<usize>) -> bool {
            let mut reached = [false; OWNERS];
            for (owner, is_reached) in reached.iter_mut().enumerate() {
                *is_reached = self.stands_in_the_way(file, wanted, owner);
            }
            for _ in 0..OWNERS {
                for (_, file, waiting) in &self.waiting {
                    for owner in 0..OWNERS {
                        reached[owner] |=
                            reached[waiting.owner] && self.stands_in_the_way(*file, waiting, owner);
                    }
                }
            }
            reached[wanted.owner]
        }
    }

    proptest! {
        #[test]
        fn a_table_is_a_lock_for_each_byte(steps in prop::collection::vec(step(), 1..60)) {
            let mut table = LockTable::new();
            let mut model = Model::default();
            for step in steps {
                match step {
                    Step::Lock(file, wanted) => {
                        let conflicts =
                            (0..OWNERS).any(|it| model.stands_in_the_way(file, &wanted, it));
                        let found = table.conflict(file, &wanted).cloned();
                        prop_assert_eq!(found.is_some(), conflicts);
                        if let Some(found) = found {
                            prop_assert!(model.stands_in_the_way(file, &wanted, found.owner));
                        }
                        prop_assert_eq!(table.lock(file, &wanted, NO_LIMIT).is_ok(), !conflicts);
                        if !conflicts {
                            model.set(file, wanted.owner, wanted.range, Some(wanted.kind));
                        }
                    }
                    Step::Unlock(file, owner, range) => {
                        table.unlock(file, &owner, range, NO_LIMIT).unwrap();
                        model.set(file, owner, range, None);
                    }
                    Step::Wait(file, wanted) => {
                        let is_circle = model.is_circle(file, &wanted);
                        let result = table.wait(file, &wanted);
                        prop_assert_eq!(result.is_err(), is_circle);
                        if let Ok(ticket) = result {
                            model.waiting.push((ticket, file, wanted));
                        }
                    }
                    Step::StopWaiting(index) => {
                        if index < model.waiting.len() {
                            table.stop_waiting(model.waiting.remove(index).0);
                        }
                    }
                }
                // As few locks as can be, in order, and each byte as the model has it.
                let mut len = 0;
                for (file, of_owners) in model.bytes.iter().enumerate() {
                    let locks = table.files.get(&file).cloned().unwrap_or_default();
                    prop_assert!(locks.is_sorted_by_key(|lock| lock.range.first));
                    for owner in 0..OWNERS {
                        let mut expected: Vec<Lock<usize>> = vec![];
                        for (byte, kinds) in of_owners.iter().enumerate() {
                            let Some(kind) = kinds[owner] else { continue };
                            let byte = byte as u64;
                            let last = if byte == BYTES as u64 - 1 { LAST_BYTE } else { byte };
                            match expected.last_mut() {
                                Some(it) if it.kind == kind && it.range.last + 1 == byte => {
                                    it.range.last = last;
                                }
                                _ => expected.push(lock(owner, kind, byte, last)),
                            }
                        }
                        len += expected.len();
                        let own = locks.iter().filter(|lock| lock.owner == owner).cloned();
                        prop_assert_eq!(own.collect::<Vec<_>>(), expected);
                    }
                }
                prop_assert_eq!(table.len(), len);
            }
        }
    }
}
