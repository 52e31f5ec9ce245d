//! What is behind a file descriptor: the [`File`] that does the work, and the [`OpenFile`] that all
//! duplicates of a descriptor share (the "open file description": flags and position).

use alloc::sync::Arc;
use core::ptr::NonNull;
use core::sync::atomic::{AtomicBool, AtomicU32, Ordering};

use linux_raw_sys::general::{
    O_ACCMODE, O_APPEND, O_DIRECT, O_NOATIME, O_NONBLOCK, O_PATH, O_WRONLY, POLLIN, POLLOUT,
    POLLRDNORM, POLLWRNORM, S_IFDIR, S_IFREG, SEEK_CUR, SEEK_DATA, SEEK_END, SEEK_HOLE, SEEK_SET,
};
use orrery_core::errno::{Errno, SysResult};
use orrery_core::fs::dirent::{Dirent, DirentWriter};

use super::content::MAX_SIZE_BYTES;
use super::directory::FIRST_POSITION;
use super::executable::page_source;
use super::inode::{Inode, Listed, Node, directory_type};
use super::io::{IoFrom, IoTo};
use super::limits;
use super::lock;
use super::socket::SocketEnd;
use super::write_or_run::Writing;
use crate::mm::space::PageSource;
use crate::process::Process;
use crate::sched::mutex::Mutex;
use crate::sched::wait::WaitQueue;

/// Flags that `F_SETFL` changes.
pub const CHANGEABLE_FLAGS: u32 = O_APPEND | O_NONBLOCK | O_DIRECT | O_NOATIME;

/// How one transfer is done.
#[derive(Clone, Copy, Debug)]
pub struct Transfer {
    /// Offset of the first byte, where the file has positions. A write that appends says here where it
    /// wrote.
    pub at: u64,
    /// The open file's flags (`O_NONBLOCK`, `O_APPEND`).
    pub flags: u32,
}

impl Transfer {
    /// Whether it must not wait.
    #[inline]
    pub fn is_nonblocking(&self) -> bool {
        self.flags & O_NONBLOCK != 0
    }
}

/// A file that is always ready.
pub const ALWAYS_READY: u32 = POLLIN | POLLOUT | POLLRDNORM | POLLWRNORM;

/// What an open file can do. A method that a kind of file does not have fails as Linux's does.
pub trait File: Send + Sync {
    /// Reads into `to`; nothing put is the end of the file.
    ///
    /// # Errors
    /// What read(2) says, after any number of bytes.
    fn read(&self, _to: &mut IoTo<'_>, _transfer: &mut Transfer) -> Result<(), Errno> {
        Err(Errno::EINVAL)
    }

    /// Writes from `from`.
    ///
    /// # Errors
    /// What write(2) says, after any number of bytes.
    fn write(&self, _from: &mut IoFrom<'_>, _transfer: &mut Transfer) -> Result<(), Errno> {
        Err(Errno::EINVAL)
    }

    /// Whether reads and writes have positions.
    fn has_positions(&self) -> bool {
        false
    }

    /// Whether it is the same at every position, so that seeking always leads to 0 (Linux: `null_lseek`).
    fn has_one_position(&self) -> bool {
        false
    }

    /// What poll(2) would say. Does not sleep.
    fn readiness(&self) -> u32 {
        ALWAYS_READY
    }

    /// The queues that are woken when [`Self::readiness`] changes.
    fn queues(&self) -> [Option<&WaitQueue>; 2] {
        [None, None]
    }

    /// ioctl(2), where it is the file's own.
    ///
    /// # Errors
    /// `ENOTTY` for requests that it does not know.
    fn control(&self, _request: u32, _argument: u64) -> SysResult {
        Err(Errno::ENOTTY)
    }

    /// Bytes that a read would give now, from the start where there are positions (`FIONREAD`).
    ///
    /// # Errors
    /// `ENOTTY`.
    fn readable_bytes(&self) -> Result<u64, Errno> {
        Err(Errno::ENOTTY)
    }

    /// What a mapping of it shows, where that is not the contents of its inode.
    fn mapped(&self) -> Option<Arc<dyn PageSource>> {
        None
    }

    /// The process that it means (pidfd).
    fn process(&self) -> Option<&Arc<Process>> {
        None
    }

    /// The socket that it is.
    fn socket(&self) -> Option<&SocketEnd> {
        None
    }
}

/// Regular files and directories need nothing but their inode.
impl File for Inode {
    fn read(&self, to: &mut IoTo<'_>, transfer: &mut Transfer) -> Result<(), Errno> {
        match &self.node {
            Node::Regular(content) => content.read(to, transfer.at),
            _ => Err(Errno::EISDIR),
        }
    }

    fn write(&self, from: &mut IoFrom<'_>, transfer: &mut Transfer) -> Result<(), Errno> {
        let Node::Regular(content) = &self.node else { return Err(Errno::EISDIR) };
        if from.left() == 0 {
            return Ok(());
        }
        let at = (transfer.flags & O_APPEND == 0).then_some(transfer.at);
        let (start, result) = content.write(from, at);
        transfer.at = start;
        self.touch_modified();
        result
    }

    fn has_positions(&self) -> bool {
        true
    }

    fn readable_bytes(&self) -> Result<u64, Errno> {
        if self.kind() == S_IFREG { Ok(self.size_bytes()) } else { Err(Errno::ENOTTY) }
    }
}

/// An open file.
pub struct OpenFile {
    /// Keeps what `file_at` points to.
    _file: Arc<dyn File>,
    /// The file itself: an `Arc` of something that is not known works out where that is each time.
    file_at: NonNull<dyn File>,
    inode: Arc<Inode>,
    /// While it can be written, nobody runs it.
    _writing: Option<Writing>,
    has_positions: bool,
    /// Access mode and status flags, as `F_GETFL` gives them.
    flags: AtomicU32,
    position: Mutex<u64>,
    /// Whether it has ever locked something.
    has_locks: AtomicBool,
}

// SAFETY: `file_at` is what `_file` keeps, which is of all threads.
unsafe impl Send for OpenFile {}
// SAFETY: as above.
unsafe impl Sync for OpenFile {}

impl OpenFile {
    /// Opens a file; `flags` are access mode and status flags.
    ///
    /// # Errors
    /// `ENFILE` if there are too many; `ETXTBSY` if it is to be written and somebody runs it.
    pub fn new(file: Arc<dyn File>, inode: Arc<Inode>, flags: u32) -> Result<Arc<Self>, Errno> {
        let writing = if allows_writing(flags) { Writing::begin(&inode)? } else { None };
        limits::OPEN_FILES.take().map_err(|_| Errno::ENFILE)?;
        let has_positions = file.has_positions();
        let flags = AtomicU32::new(flags);
        let file_at = NonNull::from(&*file);
        Ok(Arc::new(Self {
            _file: file,
            file_at,
            inode,
            _writing: writing,
            has_positions,
            flags,
            position: Mutex::new(0),
            has_locks: AtomicBool::new(false),
        }))
    }

    /// What does the work.
    #[inline(always)]
    pub fn file(&self) -> &dyn File {
        // SAFETY: `_file` keeps it.
        unsafe { self.file_at.as_ref() }
    }

    /// What was opened.
    pub fn inode(&self) -> &Arc<Inode> {
        &self.inode
    }

    /// Access mode and status flags.
    #[inline]
    pub fn flags(&self) -> u32 {
        self.flags.load(Ordering::Relaxed)
    }

    /// Sets the flags that can be changed; the others stay.
    pub fn set_flags(&self, flags: u32) {
        let new = |old| Some(old & !CHANGEABLE_FLAGS | flags & CHANGEABLE_FLAGS);
        // It never fails: the closure always returns something.
        let _ = self.flags.fetch_update(Ordering::Relaxed, Ordering::Relaxed, new);
    }

    /// Notes that it locks something, which it gives back when it goes.
    pub(super) fn note_locks(&self) {
        self.has_locks.store(true, Ordering::Relaxed);
    }

    /// Whether it can be read.
    #[inline]
    pub fn is_readable(&self) -> bool {
        allows_reading(self.flags())
    }

    /// Whether it can be written.
    #[inline]
    pub fn is_writable(&self) -> bool {
        allows_writing(self.flags())
    }

    /// What `mmap` of it maps; `to_write` if shared and written.
    ///
    /// # Errors
    /// `EACCES`, `ENODEV`.
    pub fn mappable(&self, to_write: bool) -> Result<Arc<dyn PageSource>, Errno> {
        if !self.is_readable() || (to_write && !self.is_writable()) {
            return Err(Errno::EACCES);
        }
        match self.file().mapped() {
            Some(mapped) => Ok(mapped),
            None => page_source(&self.inode),
        }
    }

    /// Reads at the position, and moves it. Returns the bytes read, 0 at the end.
    ///
    /// # Errors
    /// `EBADF` if it is not open for reading, and what the file says if nothing was read.
    #[inline(always)]
    pub fn read(&self, to: &mut IoTo<'_>) -> Result<usize, Errno> {
        let flags = self.flags();
        if !allows_reading(flags) {
            return Err(Errno::EBADF);
        }
        let mut transfer = Transfer { at: 0, flags };
        let result = if self.has_positions {
            let mut position = self.position.lock();
            transfer.at = *position;
            let result = self.file().read(to, &mut transfer);
            *position += to.done() as u64;
            result
        } else {
            self.file().read(to, &mut transfer)
        };
        done_or(to.done(), result)
    }

    /// Writes at the position, and moves it. Returns the bytes written.
    ///
    /// # Errors
    /// `EBADF` if it is not open for writing, and what the file says if nothing was written.
    #[inline(always)]
    pub fn write(&self, from: &mut IoFrom<'_>) -> Result<usize, Errno> {
        let flags = self.flags();
        if !allows_writing(flags) {
            return Err(Errno::EBADF);
        }
        let mut transfer = Transfer { at: 0, flags };
        let result = if self.has_positions {
            let mut position = self.position.lock();
            transfer.at = *position;
            let result = self.file().write(from, &mut transfer);
            if from.done() > 0 {
                *position = transfer.at + from.done() as u64;
            }
            result
        } else {
            self.file().write(from, &mut transfer)
        };
        done_or(from.done(), result)
    }

    /// Reads at an offset, wherever the position is.
    ///
    /// # Errors
    /// As [`Self::read`]; `ESPIPE` if the file has no positions, `EINVAL` if `at` is too large.
    pub fn read_at(&self, to: &mut IoTo<'_>, at: u64) -> Result<usize, Errno> {
        self.check_offset(at, self.is_readable())?;
        let result = self.file().read(to, &mut Transfer { at, flags: self.flags() });
        done_or(to.done(), result)
    }

    /// Writes at an offset, wherever the position is; a file opened with `O_APPEND` is appended to even so, as
    /// on Linux.
    ///
    /// # Errors
    /// As [`Self::write`]; `ESPIPE` if the file has no positions, `EINVAL` if `at` is too large.
    pub fn write_at(&self, from: &mut IoFrom<'_>, at: u64) -> Result<usize, Errno> {
        self.check_offset(at, self.is_writable())?;
        let result = self.file().write(from, &mut Transfer { at, flags: self.flags() });
        done_or(from.done(), result)
    }

    fn check_offset(&self, at: u64, is_open_for_it: bool) -> Result<(), Errno> {
        if at > MAX_SIZE_BYTES {
            return Err(Errno::EINVAL);
        }
        if !self.has_positions {
            return Err(Errno::ESPIPE);
        }
        if is_open_for_it { Ok(()) } else { Err(Errno::EBADF) }
    }

    /// Where the next read or write begins; 0 for a file without positions.
    pub fn position(&self) -> u64 {
        *self.position.lock()
    }

    /// lseek(2).
    ///
    /// # Errors
    /// `EBADF`, `ESPIPE`, `EINVAL`, `ENXIO`.
    pub fn seek(&self, offset: i64, whence: u32) -> Result<u64, Errno> {
        if self.flags() & O_PATH != 0 {
            return Err(Errno::EBADF);
        }
        if !self.has_positions {
            return Err(Errno::ESPIPE);
        }
        let mut position = self.position.lock();
        if self.file().has_one_position() {
            *position = 0;
            return Ok(0);
        }
        let base = match whence {
            SEEK_SET => 0,
            SEEK_CUR => *position,
            SEEK_END if !self.inode.is_directory() => self.inode.size_bytes(),
            SEEK_DATA | SEEK_HOLE => {
                let Node::Regular(content) = &self.inode.node else { return Err(Errno::EINVAL) };
                let at = u64::try_from(offset).map_err(|_| Errno::ENXIO)?;
                *position = content.find(at, whence)?;
                return Ok(*position);
            }
            _ => return Err(Errno::EINVAL),
        };
        let base = i64::try_from(base).map_err(|_| Errno::EINVAL)?;
        let new = base.checked_add(offset).ok_or(Errno::EINVAL)?;
        *position = u64::try_from(new).map_err(|_| Errno::EINVAL)?;
        Ok(*position)
    }

    /// Fills `buffer` with directory entries (getdents64(2)) and, once they are delivered, moves the position past
    /// them. Returns the bytes filled, 0 at the end.
    ///
    /// # Errors
    /// `ENOTDIR`; `EINVAL` if there is an entry but no room for it; `ENOENT` in a directory that was removed; those of
    /// `deliver`.
    pub fn read_directory(
        &self,
        buffer: &mut [u8],
        deliver: impl FnOnce(&[u8]) -> Result<(), Errno>,
    ) -> Result<usize, Errno> {
        if !self.inode.is_directory() {
            return Err(Errno::ENOTDIR);
        }
        if matches!(&self.inode.node, Node::Directory(directory) if directory.is_removed()) {
            return Err(Errno::ENOENT);
        }
        let mut position = self.position.lock();
        let mut next = *position;
        let mut writer = DirentWriter::new(buffer);
        let mut is_full = false;
        self.list(next, &mut |entry| {
            is_full = !writer.push(&Dirent {
                inode: entry.number,
                next: entry.next,
                kind: directory_type(entry.kind),
                name: entry.name,
            });
            if !is_full {
                next = entry.next;
            }
            !is_full
        });
        let written = writer.written();
        if written.is_empty() && is_full {
            return Err(Errno::EINVAL);
        }
        deliver(written)?;
        *position = next;
        Ok(written.len())
    }

    /// Calls `each` for the entries from position `from` on, as long as it returns true.
    fn list(&self, from: u64, each: &mut dyn FnMut(Listed<'_>) -> bool) {
        let parent = self.inode.parent();
        for (position, name, number) in
            [(0, &b"."[..], self.inode.number), (1, b"..", parent.number)]
        {
            if position >= from && !each(Listed { next: position + 1, number, kind: S_IFDIR, name })
            {
                return;
            }
        }
        let mut at = from.max(FIRST_POSITION);
        match &self.inode.node {
            Node::Directory(directory) => {
                while let Some(found) = directory.at(at) {
                    at = found.position + 1;
                    let (number, kind) = (found.inode.number, found.inode.kind());
                    if !each(Listed { next: at, number, kind, name: &found.name }) {
                        return;
                    }
                }
            }
            Node::VirtualDirectory(directory) => directory.list(at, each),
            _ => {}
        }
    }
}

/// Access mode 3 allows neither, as on Linux.
#[inline(always)]
fn allows_reading(flags: u32) -> bool {
    flags & (O_WRONLY | O_PATH) == 0
}

#[inline(always)]
fn allows_writing(flags: u32) -> bool {
    // One added, an access mode has a bit for reading and one for writing.
    ((flags & O_ACCMODE) + 1) & 2 != 0 && flags & O_PATH == 0
}

impl Drop for OpenFile {
    fn drop(&mut self) {
        if *self.has_locks.get_mut() {
            lock::unlock_last(self);
        }
        limits::OPEN_FILES.give_back();
    }
}

/// What a transfer returns: what was done, or why nothing was.
#[inline(always)]
fn done_or(done: usize, result: Result<(), Errno>) -> Result<usize, Errno> {
    match result {
        Ok(()) => Ok(done),
        Err(why) => failed(done, why),
    }
}

#[cold]
fn failed(done: usize, why: Errno) -> Result<usize, Errno> {
    if done == 0 { Err(why) } else { Ok(done) }
}
