//! Who writes a regular file, and who runs it: never both at the same time (`ETXTBSY`).

use alloc::sync::Arc;
use core::sync::atomic::{AtomicI32, Ordering};

use orrery_core::errno::Errno;

use super::content::Content;
use super::inode::{Inode, Node};

/// How many write a file or, as a negative number, run it.
#[derive(Default)]
pub struct WriteOrRun(AtomicI32);

impl WriteOrRun {
    /// One more of those whom `step`, 1 or -1, stands for; none where there are some of the others.
    fn join(&self, step: i32) -> Result<(), Errno> {
        let add = |count: i32| if count * step >= 0 { count.checked_add(step) } else { None };
        let joined = self.0.fetch_update(Ordering::AcqRel, Ordering::Relaxed, add);
        joined.map(drop).map_err(|_| Errno::ETXTBSY)
    }

    fn leave(&self, step: i32) {
        self.0.fetch_sub(step, Ordering::AcqRel);
    }
}

fn content(inode: &Inode) -> Option<&Content> {
    match &inode.node {
        Node::Regular(content) => Some(content),
        _ => None,
    }
}

/// While it lives, the file is not run.
pub struct Writing(Arc<Inode>);

impl Writing {
    const STEP: i32 = 1;

    /// For a regular file; others are not run anyway.
    ///
    /// # Errors
    /// `ETXTBSY` if somebody runs it.
    pub fn begin(inode: &Arc<Inode>) -> Result<Option<Self>, Errno> {
        let Some(content) = content(inode) else { return Ok(None) };
        content.write_or_run.join(Self::STEP)?;
        Ok(Some(Self(inode.clone())))
    }
}

impl Drop for Writing {
    fn drop(&mut self) {
        if let Some(content) = content(&self.0) {
            content.write_or_run.leave(Self::STEP);
        }
    }
}

/// While it lives, the file is not opened to be written.
pub struct Running(Arc<Inode>);

impl Running {
    const STEP: i32 = -1;

    /// # Errors
    /// `EACCES` if it is no regular file; `ETXTBSY` if it is open to be written.
    pub fn begin(inode: Arc<Inode>) -> Result<Self, Errno> {
        content(&inode).ok_or(Errno::EACCES)?.write_or_run.join(Self::STEP)?;
        Ok(Self(inode))
    }

    /// The file.
    pub fn inode(&self) -> &Arc<Inode> {
        &self.0
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if let Some(content) = content(&self.0) {
            content.write_or_run.leave(Self::STEP);
        }
    }
}
