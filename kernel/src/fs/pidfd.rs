//! File descriptors that mean processes (pidfd_open(2)).

use alloc::sync::Arc;

use linux_raw_sys::general::{O_RDWR, POLLIN, POLLRDNORM};
use orrery_core::errno::Errno;
use orrery_core::fs::fd_table::{MAX_DESCRIPTORS, OnExec};

use super::file::{File, OpenFile};
use super::files::Files;
use super::inode::{Inode, Node};
use crate::process::{Process, tree};
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

/// Opens one; it is closed on exec.
///
/// # Errors
/// `EMFILE`, `ENFILE`.
pub fn open(files: &Files, process: &Arc<Process>) -> Result<i32, Errno> {
    let inode = Inode::nameless(Node::Nameless, 0o600)?;
    let file = OpenFile::new(Arc::new(Pidfd(process.clone())), inode, O_RDWR)?;
    let fd = files.insert(0, MAX_DESCRIPTORS, file, OnExec::Close)?;
    Ok(fd.cast_signed())
}

/// The process that a descriptor means.
///
/// # Errors
/// `EBADF`.
pub fn process(files: &Files, fd: i32) -> Result<Arc<Process>, Errno> {
    files.get(fd)?.file().process().cloned().ok_or(Errno::EBADF)
}
