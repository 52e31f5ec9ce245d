//! File descriptors that mean processes (pidfd_open(2)).

use alloc::sync::Arc;

use orrery_core::errno::Errno;

use super::Files;
use crate::process::Process;

/// Opens one; it is closed on exec.
///
/// # Errors
/// `EMFILE`.
pub fn open(_files: &Files, _process: &Arc<Process>) -> Result<i32, Errno> {
    Err(Errno::EMFILE)
}

/// The process that a descriptor means.
///
/// # Errors
/// `EBADF`.
pub fn process(_files: &Files, _fd: i32) -> Result<Arc<Process>, Errno> {
    Err(Errno::EBADF)
}
