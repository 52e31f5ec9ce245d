//! Locks on files, and waiting for them: record locks (fcntl(2)) of a table of descriptors or of an open file, and
//! those of flock(2), which are an open file's.
//!
//! Whoever has a lock remembers that ([`Files`], [`OpenFile`]), so that those who never had one give none back.

use alloc::sync::{Arc, Weak};
use core::sync::atomic::{AtomicU32, Ordering};

use orrery_core::errno::Errno;
use orrery_core::fs::lock::{Kind, Lock, LockTable, Range};

use super::file::OpenFile;
use super::files::Files;
use super::inode::Inode;
use super::limits;
use crate::process::{Process, current, tree};
use crate::sched::mutex::Mutex;
use crate::sched::task::Sleep;
use crate::sched::wait::{Sharing, WaitMode, WaitQueue};

/// File system and number of an inode.
type FileId = (u32, u64);

fn id(inode: &Inode) -> FileId {
    (inode.file_system as u32, inode.number)
}

/// Whose a lock is. The addresses are of what gives its locks back before it goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum OwnerId {
    Files(usize),
    OpenFile(usize),
}

/// Whose a lock is, and the process that took it.
#[derive(Clone)]
struct Owner {
    id: OwnerId,
    process: Weak<Process>,
}

impl Owner {
    /// Of a lock that the running thread takes.
    fn taking(id: OwnerId) -> Self {
        Self { id, process: Arc::downgrade(&current().process) }
    }

    /// Of a lock that is given back, by whomever.
    fn giving(id: OwnerId) -> Self {
        Self { id, process: Weak::new() }
    }
}

impl PartialEq for Owner {
    fn eq(&self, other: &Self) -> bool {
        self.id == other.id
    }
}

/// Locks of one sort: those of another do not stand in their way.
struct Locks {
    table: Mutex<LockTable<FileId, Owner>>,
    /// By file.
    changes: [Changes; CHANGES],
}

/// Who waits for locks on some files, and how often one was given back there.
struct Changes {
    count: AtomicU32,
    waiters: WaitQueue,
}

/// So that few of those are woken who wait for another file.
const CHANGES: usize = 16;

/// Record locks.
static RECORDS: Locks = Locks::new();
/// The locks of flock(2).
static WHOLE_FILES: Locks = Locks::new();

/// What a call does where a lock cannot be had.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum IfTaken {
    /// It fails.
    Fail,
    /// It waits.
    Wait,
}

/// A lock in the way of one that was asked for.
pub struct Conflict {
    /// Who else may have one.
    pub kind: Kind,
    /// Where it is.
    pub range: Range,
    /// The process that took it, as a number of the caller's namespace; none for an open file's.
    pub pid: Option<u32>,
}

/// Whose record locks a call is about.
#[derive(Clone, Copy)]
pub enum RecordOwner<'a> {
    /// The process, by its table of descriptors.
    Files(&'a Arc<Files>),
    /// The open file (`F_OFD_…`).
    OpenFile,
}

impl OwnerId {
    fn files(files: &Files) -> Self {
        Self::Files(core::ptr::from_ref(files) as usize)
    }

    fn open_file(file: &OpenFile) -> Self {
        Self::OpenFile(core::ptr::from_ref(file) as usize)
    }
}

impl RecordOwner<'_> {
    fn id(self, file: &OpenFile) -> OwnerId {
        match self {
            Self::Files(files) => OwnerId::files(files),
            Self::OpenFile => OwnerId::open_file(file),
        }
    }

    /// Notes that there is something to give back.
    fn note(self, file: &OpenFile) {
        match self {
            Self::Files(files) => files.note_locks(),
            Self::OpenFile => file.note_locks(),
        }
    }
}

/// Takes a record lock.
///
/// # Errors
/// `EAGAIN`, `ENOLCK`; if it waits, `EDEADLK` and [`Errno::RESTART_SYS`].
pub fn lock_record(
    file: &OpenFile,
    whose: RecordOwner<'_>,
    (range, kind): (Range, Kind),
    if_taken: IfTaken,
) -> Result<(), Errno> {
    whose.note(file);
    let wanted = Lock { owner: Owner::taking(whose.id(file)), kind, range };
    RECORDS.lock(file.inode(), &wanted, if_taken)
}

/// Gives record locks back.
///
/// # Errors
/// `ENOLCK` if a lock would have to be split, and there are too many.
pub fn unlock_record(file: &OpenFile, whose: RecordOwner<'_>, range: Range) -> Result<(), Errno> {
    RECORDS.unlock(file.inode(), whose.id(file), range)
}

/// What would keep a record lock from being taken.
pub fn record_in_the_way(
    file: &OpenFile,
    whose: RecordOwner<'_>,
    (range, kind): (Range, Kind),
) -> Option<Conflict> {
    let wanted = Lock { owner: Owner::taking(whose.id(file)), kind, range };
    let found = RECORDS.table.lock().conflict(id(file.inode()), &wanted).cloned()?;
    let pid =
        match found.owner.id {
            OwnerId::OpenFile(_) => None,
            OwnerId::Files(_) => Some(found.owner.process.upgrade().map_or(0, |process| {
                process.number_in(&current().process.namespace, &tree::lock())
            })),
        };
    Some(Conflict { kind: found.kind, range: found.range, pid })
}

/// Gives back what a table of descriptors has locked of a file: one of its descriptors was closed.
pub fn unlock_closed(files: &Files, file: &OpenFile) {
    RECORDS.unlock_all(file.inode(), OwnerId::files(files));
}

/// Gives back what an open file has locked: nobody has it any more.
pub fn unlock_last(file: &OpenFile) {
    RECORDS.unlock_all(file.inode(), OwnerId::open_file(file));
    unlock_whole(file);
}

/// Locks a file as a whole (flock(2)). An open file that has a lock of the other kind gives that back first.
///
/// # Errors
/// `EAGAIN`, `ENOLCK`; [`Errno::RESTART_SYS`] if it waits.
pub fn lock_whole(file: &OpenFile, kind: Kind, if_taken: IfTaken) -> Result<(), Errno> {
    file.note_locks();
    let owner = Owner::taking(OwnerId::open_file(file));
    let wanted = Lock { owner, kind, range: Range::WHOLE };
    if !WHOLE_FILES.table.lock().has(id(file.inode()), &wanted) {
        unlock_whole(file);
    }
    WHOLE_FILES.lock(file.inode(), &wanted, if_taken)
}

/// Gives the lock of flock(2) back.
pub fn unlock_whole(file: &OpenFile) {
    WHOLE_FILES.unlock_all(file.inode(), OwnerId::open_file(file));
}

impl Locks {
    const fn new() -> Self {
        Self { table: Mutex::new(LockTable::new()), changes: [const { Changes::new() }; CHANGES] }
    }

    fn changes(&self, inode: &Inode) -> &Changes {
        &self.changes[inode.number as usize % CHANGES]
    }

    fn lock(&self, inode: &Inode, wanted: &Lock<Owner>, if_taken: IfTaken) -> Result<(), Errno> {
        const MODE: WaitMode = WaitMode {
            sleep: Sleep::Interruptible,
            sharing: Sharing::Shared,
            deadline_ticks: None,
        };
        let (file, changes) = (id(inode), self.changes(inode));
        loop {
            let mut table = self.table.lock();
            match table.lock(file, wanted, limits::file_locks()) {
                Err(Errno::EAGAIN) if if_taken == IfTaken::Wait => {}
                result => {
                    drop(table);
                    // It may have become a weaker one.
                    changes.note();
                    return result;
                }
            }
            let seen = changes.count.load(Ordering::Relaxed);
            let ticket = match wanted.owner.id {
                OwnerId::Files(_) => Some(table.wait(file, wanted)?),
                // What an open file has any process may give back: nobody knows whether the wait ends.
                OwnerId::OpenFile(_) => None,
            };
            drop(table);
            let has_changed = || changes.count.load(Ordering::Acquire) != seen;
            let waited = changes.waiters.wait(MODE, has_changed);
            if let Some(ticket) = ticket {
                self.table.lock().stop_waiting(ticket);
            }
            waited.map_err(|_| Errno::RESTART_SYS)?;
        }
    }

    fn unlock(&self, inode: &Inode, owner: OwnerId, range: Range) -> Result<(), Errno> {
        let owner = Owner::giving(owner);
        self.table.lock().unlock(id(inode), &owner, range, limits::file_locks())?;
        self.changes(inode).note();
        Ok(())
    }

    fn unlock_all(&self, inode: &Inode, owner: OwnerId) {
        // It never fails: nothing is split.
        let _ = self.unlock(inode, owner, Range::WHOLE);
    }
}

impl Changes {
    const fn new() -> Self {
        Self { count: AtomicU32::new(0), waiters: WaitQueue::new() }
    }

    fn note(&self) {
        self.count.fetch_add(1, Ordering::Release);
        self.waiters.wake_all();
    }
}
