//! open(2): from a path and flags to an open file.

use alloc::sync::Arc;

use linux_raw_sys::general::{
    O_ACCMODE, O_CLOEXEC, O_CREAT, O_DIRECTORY, O_EXCL, O_LARGEFILE, O_NOCTTY, O_NOFOLLOW, O_PATH,
    O_RDONLY, O_TMPFILE, O_TRUNC, S_IFLNK,
};
use orrery_core::errno::Errno;

use super::content::Content;
use super::device;
use super::file::{File, OpenFile};
use super::inode::{Inode, Node};
use super::lookup::{self, Found, Last, LastLink, Start};
use super::namespace;
use super::write_or_run::Writing;

/// Flags that are about opening only.
const ONCE: u32 = O_CREAT | O_EXCL | O_NOCTTY | O_TRUNC | O_CLOEXEC;

/// Opens what `path` leads to. `permissions` are those of a file that is made, the mask taken off.
///
/// # Errors
/// Those of open(2).
pub fn open(
    start: &Start,
    path: &[u8],
    flags: u32,
    permissions: u32,
) -> Result<Arc<OpenFile>, Errno> {
    let flags = if flags & O_PATH != 0 {
        flags & (O_PATH | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC)
    } else {
        flags
    };
    if flags & O_TMPFILE == O_TMPFILE {
        return Err(Errno::EOPNOTSUPP);
    }
    if flags & (O_CREAT | O_DIRECTORY) == O_CREAT | O_DIRECTORY {
        return Err(Errno::EINVAL);
    }
    let exclusive = flags & (O_CREAT | O_EXCL) == O_CREAT | O_EXCL;
    let last_link =
        if exclusive || flags & O_NOFOLLOW != 0 { LastLink::Keep } else { LastLink::Follow };
    loop {
        let found = lookup::find(start, path, last_link)?;
        if let Some(inode) = &found.inode {
            if found.wants_directory && flags & O_CREAT != 0 {
                return Err(Errno::EISDIR);
            }
            if exclusive {
                return Err(Errno::EEXIST);
            }
            if found.wants_directory && !inode.is_directory() {
                return Err(Errno::ENOTDIR);
            }
            return open_existing(inode, flags);
        }
        if flags & O_CREAT == 0 {
            return Err(Errno::ENOENT);
        }
        match make(&found, permissions) {
            // Somebody else was faster: then it is opened.
            Err(Errno::EEXIST) if !exclusive => {}
            made => return open_inode(&made?, flags),
        }
    }
}

fn make(found: &Found, permissions: u32) -> Result<Arc<Inode>, Errno> {
    if found.wants_directory || !matches!(found.last, Last::Name(_)) {
        return Err(Errno::EISDIR);
    }
    let inode = Inode::new(Node::Regular(Content::new(&[])), permissions)?;
    namespace::create(found, &inode)?;
    Ok(inode)
}

fn open_existing(inode: &Arc<Inode>, flags: u32) -> Result<Arc<OpenFile>, Errno> {
    if flags & O_DIRECTORY != 0 && !inode.is_directory() {
        return Err(Errno::ENOTDIR);
    }
    if inode.kind() == S_IFLNK && flags & O_PATH == 0 {
        return Err(Errno::ELOOP);
    }
    let writes = flags & O_ACCMODE != O_RDONLY && flags & O_PATH == 0;
    if inode.is_directory() && (writes || flags & (O_CREAT | O_TRUNC) != 0) {
        return Err(Errno::EISDIR);
    }
    if flags & O_TRUNC != 0
        && let Node::Regular(content) = &inode.node
    {
        let _writing = Writing::begin(inode)?;
        content.set_size(0, inode.number)?;
        inode.touch_modified();
    }
    open_inode(inode, flags)
}

/// Opens an inode, whatever it is.
///
/// # Errors
/// `ENXIO` for what cannot be opened; those of the kind of file.
pub fn open_inode(inode: &Arc<Inode>, flags: u32) -> Result<Arc<OpenFile>, Errno> {
    let kept = flags & !ONCE;
    if flags & O_PATH != 0 {
        return OpenFile::new(inode.clone(), inode.clone(), kept);
    }
    let file: Arc<dyn File> = match &inode.node {
        Node::Regular(_) | Node::Directory(_) | Node::VirtualDirectory(_) => inode.clone(),
        &Node::Device(major, minor) => device::open(major, minor)?,
        Node::Fifo(fifo) => fifo.open(flags)?,
        Node::VirtualFile(file) => file.open(inode)?,
        Node::Link(_) | Node::VirtualLink(_) => return Err(Errno::ELOOP),
        Node::Nameless | Node::BlockDevice(..) | Node::Socket => return Err(Errno::ENXIO),
    };
    OpenFile::new(file, inode.clone(), kept | O_LARGEFILE)
}
