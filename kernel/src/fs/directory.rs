//! Stored directories: names to inodes, and a position for each name that stays while it does.
//!
//! Positions only grow, so a listing that goes on after changes neither repeats nor skips what was there all
//! the time. The lock is taken for one operation; whatever an operation takes out it returns, to be
//! dropped without the lock.

use alloc::collections::BTreeMap;
use alloc::sync::Arc;
use alloc::vec::Vec;

use orrery_core::errno::Errno;

use super::inode::Inode;
use super::limits;
use crate::sync::SpinLock;

/// Positions of `.` and `..`, before those of all names.
pub const FIRST_POSITION: u64 = 2;

/// The entries of a directory.
pub struct Directory(SpinLock<Entries>);

struct Entries {
    by_name: BTreeMap<Arc<[u8]>, Entry>,
    by_position: BTreeMap<u64, Arc<[u8]>>,
    next_position: u64,
    /// The directory was removed: nothing can be put into it.
    is_removed: bool,
}

struct Entry {
    position: u64,
    inode: Arc<Inode>,
}

/// One entry.
pub struct Found {
    /// Its position.
    pub position: u64,
    /// Its name.
    pub name: Arc<[u8]>,
    /// What it leads to.
    pub inode: Arc<Inode>,
}

impl Directory {
    /// An empty directory.
    pub fn new() -> Self {
        let entries = Entries {
            by_name: BTreeMap::new(),
            by_position: BTreeMap::new(),
            next_position: FIRST_POSITION,
            is_removed: false,
        };
        Self(SpinLock::new("directory", entries))
    }

    /// The inode of a name.
    pub fn get(&self, name: &[u8]) -> Option<Arc<Inode>> {
        self.0.lock().by_name.get(name).map(|entry| entry.inode.clone())
    }

    /// Lets a name lead to an inode; returns the one that it led to.
    ///
    /// # Errors
    /// `ENOENT` if the directory was removed; `ENOSPC` if there are too many names.
    pub fn set(&self, name: &Arc<[u8]>, inode: Arc<Inode>) -> Result<Option<Arc<Inode>>, Errno> {
        let mut entries = self.0.lock();
        if entries.is_removed {
            return Err(Errno::ENOENT);
        }
        if let Some(entry) = entries.by_name.get_mut(name) {
            return Ok(Some(core::mem::replace(&mut entry.inode, inode)));
        }
        limits::NAMES.take().map_err(|_| Errno::ENOSPC)?;
        let position = entries.next_position;
        entries.next_position += 1;
        entries.by_name.insert(name.clone(), Entry { position, inode });
        entries.by_position.insert(position, name.clone());
        Ok(None)
    }

    /// Takes a name out.
    pub fn remove(&self, name: &[u8]) -> Option<Arc<Inode>> {
        let mut entries = self.0.lock();
        let entry = entries.by_name.remove(name)?;
        entries.by_position.remove(&entry.position);
        limits::NAMES.give_back();
        Some(entry.inode)
    }

    /// Marks it as removed, if it is empty.
    #[must_use]
    pub fn remove_if_empty(&self) -> bool {
        let mut entries = self.0.lock();
        entries.is_removed = entries.by_name.is_empty();
        entries.is_removed
    }

    /// Whether it was removed.
    pub fn is_removed(&self) -> bool {
        self.0.lock().is_removed
    }

    /// Whether it has no entries.
    pub fn is_empty(&self) -> bool {
        self.0.lock().by_name.is_empty()
    }

    /// The first entry at `position` or after it.
    pub fn at(&self, position: u64) -> Option<Found> {
        let entries = self.0.lock();
        let (&position, name) = entries.by_position.range(position..).next()?;
        let inode = entries.by_name.get(name)?.inode.clone();
        Some(Found { position, name: name.clone(), inode })
    }

    /// Takes all entries out, of a directory that nobody else has.
    pub fn take_all(&mut self) -> Vec<Arc<Inode>> {
        let by_name = core::mem::take(&mut self.0.lock().by_name);
        by_name.iter().for_each(|_| limits::NAMES.give_back());
        by_name.into_values().map(|entry| entry.inode).collect()
    }
}

impl Default for Directory {
    fn default() -> Self {
        Self::new()
    }
}
