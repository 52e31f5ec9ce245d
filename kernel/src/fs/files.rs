//! A process's file descriptors, and what paths mean to it.
//!
//! Both are shared by threads and, with `CLONE_FILES` and `CLONE_FS`, by processes; `fork` copies
//! them. The lock is a spinlock for the time of one look or change. What a change takes out is dropped after
//! it: closing a file may wake others.

use alloc::sync::Arc;
use core::sync::atomic::{AtomicBool, Ordering, fence};

use linux_raw_sys::general::O_PATH;
use orrery_core::errno::Errno;
use orrery_core::fs::fd_table::{FdTable, OnExec};

use super::file::OpenFile;
use super::inode::Inode;
use super::lock;
use super::lookup::Start;
use crate::mm::frames;
use crate::sync::SpinLock;

/// File descriptors.
pub struct Files {
    table: SpinLock<FdTable<Arc<OpenFile>>>,
    /// Whether record locks have ever been taken through it.
    has_locks: AtomicBool,
}

impl Files {
    /// No descriptors.
    pub fn new() -> Arc<Self> {
        Self::from_table(FdTable::new())
    }

    fn from_table(table: FdTable<Arc<OpenFile>>) -> Arc<Self> {
        Arc::new(Self {
            table: SpinLock::new("file descriptors", table),
            has_locks: AtomicBool::new(false),
        })
    }

    /// Descriptors of its own for the same open files: those of `fork`'s child.
    ///
    /// # Errors
    /// None so far; memory is not checked.
    pub fn copy(&self) -> Result<Arc<Self>, Errno> {
        let table = self.table.lock().clone();
        Ok(Self::from_table(table))
    }

    /// Those of the next program: without the ones that `execve` closes, and shared with nobody.
    pub fn close_on_exec(self: Arc<Self>) -> Arc<Self> {
        let own = if Arc::strong_count(&self) == 1 {
            self
        } else {
            let table = self.table.lock().clone();
            Self::from_table(table)
        };
        loop {
            let closed = own.table.lock().remove_for_exec();
            match closed {
                Some(file) => own.on_close(&file),
                None => return own,
            }
        }
    }

    /// The file of a descriptor.
    ///
    /// # Errors
    /// `EBADF`.
    #[inline]
    pub fn get(&self, fd: i32) -> Result<Arc<OpenFile>, Errno> {
        // Negative ones are far beyond the end.
        self.table.lock().get(fd.cast_unsigned()).cloned().ok_or(Errno::EBADF)
    }

    /// The file of a descriptor where nobody else has the table: then it takes no lock and no reference. None where
    /// somebody has, or the descriptor is not open: [`Self::get`] knows.
    ///
    /// # Safety
    /// The table is the running thread's, which changes neither it nor which one that is while it has the file.
    #[inline(always)]
    pub unsafe fn get_unshared<'a>(self: &Arc<Self>, fd: i32) -> Option<&'a OpenFile> {
        if Arc::strong_count(self) > 1 {
            return None;
        }
        // Whoever had it as well may have changed it before letting go.
        fence(Ordering::Acquire);
        // SAFETY: whoever changes the table has it as a thread's; the one thread that has it is running, and does
        // not (caller). Others may come to read.
        let table = unsafe { &*self.table.data_ptr() };
        Some(&**table.get(fd.cast_unsigned())?)
    }

    /// Puts a file at the lowest free descriptor, at least `least` and less than `limit`.
    ///
    /// # Errors
    /// `EMFILE`, `ENOMEM`.
    pub fn insert(
        &self,
        least: u32,
        limit: u32,
        file: Arc<OpenFile>,
        on_exec: OnExec,
    ) -> Result<u32, Errno> {
        // Kept until the lock is gone, should there be no descriptor.
        let file_after = file.clone();
        let inserted = {
            let mut table = self.table.lock();
            check_memory(&table, || table.lowest_free(least))
                .and_then(|()| table.insert(least, limit, file, on_exec))
        };
        drop(file_after);
        inserted
    }

    /// Whether there is a descriptor for one more file.
    ///
    /// # Errors
    /// `EMFILE` if not.
    pub fn check_room(&self, limit: u32) -> Result<(), Errno> {
        self.table.lock().check_room(limit)
    }

    /// Puts two files at the lowest free descriptors.
    ///
    /// # Errors
    /// `EMFILE`, `ENOMEM`.
    pub fn insert_pair(
        &self,
        limit: u32,
        files: &[Arc<OpenFile>; 2],
        on_exec: OnExec,
    ) -> Result<[u32; 2], Errno> {
        let mut table = self.table.lock();
        let first = || table.lowest_free(0);
        check_memory(&table, first)?;
        check_memory(&table, || table.lowest_free(first()? + 1))?;
        table.insert_pair(limit, files.clone(), on_exec)
    }

    /// Lets `to` be what `from` is (dup2(2)).
    ///
    /// # Errors
    /// `EBADF`, `ENOMEM`.
    pub fn duplicate_to(
        &self,
        from: u32,
        to: u32,
        limit: u32,
        on_exec: OnExec,
    ) -> Result<(), Errno> {
        let closed = {
            let mut table = self.table.lock();
            let file = table.get(from).cloned().ok_or(Errno::EBADF)?;
            check_memory(&table, || Some(to))?;
            table.replace(to, limit, file, on_exec)?
        };
        if let Some(file) = closed {
            self.on_close(&file);
        }
        Ok(())
    }

    /// Closes a descriptor.
    ///
    /// # Errors
    /// `EBADF`; `ENOMEM` if what has it is still shared with another table, and memory is short.
    pub fn close(&self, fd: i32) -> Result<(), Errno> {
        let closed = {
            let mut table = self.table.lock();
            let fd = fd.cast_unsigned();
            check_memory(&table, || table.get(fd).map(|_| fd))?;
            table.remove(fd)?
        };
        self.on_close(&closed);
        Ok(())
    }

    /// Takes back a descriptor that was given to this file, and that the program has not been told of. Another thread
    /// may have closed it, and may have something else there by now.
    pub fn withdraw(&self, fd: u32, file: &Arc<OpenFile>) {
        let closed = {
            let mut table = self.table.lock();
            let is_there = table.get(fd).is_some_and(|it| Arc::ptr_eq(it, file));
            if is_there { table.remove(fd).ok() } else { None }
        };
        if let Some(file) = closed {
            self.on_close(&file);
        }
    }

    /// Closes the descriptors from `first` to `last`.
    ///
    /// # Errors
    /// `ENOMEM` as [`Self::close`]; some are closed then.
    pub fn close_range(&self, first: u32, last: u32) -> Result<(), Errno> {
        loop {
            let closed = {
                let mut table = self.table.lock();
                let next = table.iter_from(first).next().filter(|&fd| fd <= last);
                let Some(fd) = next else { return Ok(()) };
                check_memory(&table, || next)?;
                table.remove(fd)?
            };
            self.on_close(&closed);
        }
    }

    /// Notes that record locks are taken through it. They go with the first descriptor of the file that is closed.
    pub(super) fn note_locks(&self) {
        self.has_locks.store(true, Ordering::Relaxed);
    }

    /// Does what is to be done when a descriptor of this file was closed.
    fn on_close(&self, file: &OpenFile) {
        if self.has_locks.load(Ordering::Relaxed) && file.flags() & O_PATH == 0 {
            lock::unlock_closed(self, file);
        }
    }

    /// What `execve` does with a descriptor.
    ///
    /// # Errors
    /// `EBADF`.
    pub fn on_exec(&self, fd: u32) -> Result<OnExec, Errno> {
        self.table.lock().on_exec(fd).ok_or(Errno::EBADF)
    }

    /// Says what `execve` shall do with a descriptor.
    ///
    /// # Errors
    /// `EBADF`.
    pub fn set_on_exec(&self, fd: u32, on_exec: OnExec) -> Result<(), Errno> {
        let mut table = self.table.lock();
        check_memory(&table, || table.get(fd).map(|_| fd))?;
        table.set_on_exec(fd, on_exec)
    }

    /// Says that `execve` shall close the descriptors from `first` to `last`.
    ///
    /// # Errors
    /// `ENOMEM` as [`Self::close`]; some are marked then.
    pub fn close_range_on_exec(&self, first: u32, last: u32) -> Result<(), Errno> {
        let mut next = first;
        while let Some(fd) = self.next_open(next).filter(|&fd| fd <= last) {
            match self.set_on_exec(fd, OnExec::Close) {
                // Another thread may have closed it meanwhile.
                Ok(()) | Err(Errno::EBADF) => next = fd + 1,
                Err(why) => return Err(why),
            }
        }
        Ok(())
    }

    /// The first open descriptor that is at least `least`.
    pub fn next_open(&self, least: u32) -> Option<u32> {
        self.table.lock().iter_from(least).next()
    }

    /// How many descriptors are open.
    pub fn count(&self) -> u32 {
        self.table.lock().len()
    }
}

/// Whether a descriptor, if any, can be used in a table: where memory is short, only if that takes none.
fn check_memory(
    table: &FdTable<Arc<OpenFile>>,
    fd: impl FnOnce() -> Option<u32>,
) -> Result<(), Errno> {
    let is_refused = frames::is_scarce() && fd().is_some_and(|fd| !table.is_own(fd));
    if is_refused { Err(Errno::ENOMEM) } else { Ok(()) }
}

impl Drop for Files {
    fn drop(&mut self) {
        if !*self.has_locks.get_mut() {
            return;
        }
        // Nothing is taken out: what is shared with another table would be copied for that.
        let mut next = 0;
        loop {
            let file = {
                let table = self.table.lock();
                let Some(fd) = table.iter_from(next).next() else { return };
                next = fd + 1;
                table.get(fd).cloned()
            };
            if let Some(file) = file {
                self.on_close(&file);
            }
        }
    }
}

/// Root directory, working directory and file mode mask.
pub struct FsContext(SpinLock<Context>);

#[derive(Clone)]
struct Context {
    root: Arc<Inode>,
    working: Arc<Inode>,
    umask: u32,
}

impl FsContext {
    /// That of a first process: everything at `root`, mask 022.
    pub fn new(root: Arc<Inode>) -> Arc<Self> {
        let working = root.clone();
        Self::from_context(Context { root, working, umask: 0o022 })
    }

    fn from_context(context: Context) -> Arc<Self> {
        Arc::new(Self(SpinLock::new("fs context", context)))
    }

    /// A copy of its own.
    pub fn copy(&self) -> Arc<Self> {
        let context = self.0.lock().clone();
        Self::from_context(context)
    }

    /// Root directory.
    pub fn root(&self) -> Arc<Inode> {
        self.0.lock().root.clone()
    }

    /// Working directory.
    pub fn working_directory(&self) -> Arc<Inode> {
        self.0.lock().working.clone()
    }

    /// Where paths start that are relative to the working directory.
    pub fn start(&self) -> Start {
        let context = self.0.lock();
        Start { root: context.root.clone(), base: context.working.clone() }
    }

    /// Changes the working directory.
    pub fn set_working_directory(&self, directory: Arc<Inode>) {
        let _old = core::mem::replace(&mut self.0.lock().working, directory);
    }

    /// Changes the root directory.
    pub fn set_root(&self, directory: Arc<Inode>) {
        let _old = core::mem::replace(&mut self.0.lock().root, directory);
    }

    /// Permissions that new files do not get.
    pub fn umask(&self) -> u32 {
        self.0.lock().umask
    }

    /// Sets the mask; returns the old one.
    pub fn set_umask(&self, umask: u32) -> u32 {
        core::mem::replace(&mut self.0.lock().umask, umask & 0o777)
    }
}
