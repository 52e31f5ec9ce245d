//! File descriptors that mean processes (pidfd_open(2)).

use alloc::sync::Arc;

use linux_raw_sys::general::{O_NONBLOCK, O_RDWR, POLLIN, POLLRDNORM};
use orrery_core::errno::Errno;
use orrery_core::fs::fd_table::OnExec;

use super::file::{File, OpenFile};
use super::files::Files;
use super::inode::{Inode, Node};
use crate::process::{Process, current, thread_of, tree};
use crate::sched::wait::WaitQueue;

/// A process, as a file: readable once it has ended.
struct Pidfd(Arc<Process>);

impl File for Pidfd {
    fn readiness(&self) -> u32 {
        if self.0.is_zombie(&tree::lock()) { POLLIN | POLLRDNORM } else { 0 }
    }

    fn queues(&self) -> [Option<&WaitQueue>; 2] {
        [Some(&self.0.exited), None]
    }

    fn process(&self) -> Option<&Arc<Process>> {
        Some(&self.0)
    }
}

/// Opens one, with the status flags `flags`; it is closed on exec.
///
/// # Errors
/// `EMFILE`, `ENFILE`.
pub fn open(files: &Files, process: &Arc<Process>, flags: u32) -> Result<u32, Errno> {
    insert(files, file(process, flags)?)
}

/// The file of one, with the status flags `flags`.
///
/// # Errors
/// `ENFILE`.
pub fn file(process: &Arc<Process>, flags: u32) -> Result<Arc<OpenFile>, Errno> {
    let inode = Inode::nameless(Node::Nameless, 0o600)?;
    OpenFile::new(Arc::new(Pidfd(process.clone())), inode, O_RDWR | flags)
}

/// Gives a file a descriptor that is closed on exec.
///
/// # Errors
/// `EMFILE`.
pub fn insert(files: &Files, file: Arc<OpenFile>) -> Result<u32, Errno> {
    let limit = current().process.limits.lock().descriptors();
    files.insert(0, limit, file, OnExec::Close)
}

/// The process that a descriptor means.
///
/// # Errors
/// `EBADF`.
pub fn process(files: &Files, fd: i32) -> Result<Arc<Process>, Errno> {
    Ok(to_wait_for(files, fd)?.0)
}

/// [`process`], and whether a wait for it is not to sleep.
///
/// # Errors
/// `EBADF`.
pub fn to_wait_for(files: &Files, fd: i32) -> Result<(Arc<Process>, bool), Errno> {
    let file = files.get(fd)?;
    let process = file.file().process().cloned().ok_or(Errno::EBADF)?;
    Ok((process, file.flags() & O_NONBLOCK != 0))
}

/// Opens a file that `process` has open under `fd` (pidfd_getfd(2)); it is closed on exec.
///
/// # Errors
/// `EBADF` if it has none there, `ESRCH` if it is no more; `EMFILE`.
pub fn open_file_of(files: &Files, process: &Process, fd: i32) -> Result<u32, Errno> {
    let its = {
        let tree = tree::lock();
        let leader = process.family.get(&tree).leader.as_ref().map(|it| it.task());
        let thread = leader.and_then(|task| thread_of(task)).ok_or(Errno::ESRCH)?;
        thread.files.lock().clone().ok_or(Errno::EBADF)?
    };
    insert(files, its.get(fd)?)
}
