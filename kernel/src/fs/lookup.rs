//! From paths to inodes (path_resolution(7)).

use alloc::sync::Arc;

use linux_raw_sys::general::{S_IFDIR, S_IFLNK};
use orrery_core::errno::Errno;
use orrery_core::fs::path::{Component, MAX_PATH_BYTES, Walk};

use super::inode::{Inode, Node, Target};

/// Where a walk starts and what it cannot leave.
#[derive(Clone)]
pub struct Start {
    /// Root directory of the process.
    pub root: Arc<Inode>,
    /// Directory that relative paths start at.
    pub base: Arc<Inode>,
}

/// What to do when the last component is a symbolic link.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LastLink {
    /// Go where it leads.
    Follow,
    /// It is what is meant, but where slashes after it say that it leads to a directory.
    Keep,
    /// It is what is meant in any case: its name is to be made, moved or removed.
    Never,
}

/// What a path leads to.
pub struct Found {
    /// Directory of the last component.
    pub directory: Arc<Inode>,
    /// The last component.
    pub last: Last,
    /// What is there.
    pub inode: Option<Arc<Inode>>,
    /// The path says that it is a directory, by slashes at its end.
    pub wants_directory: bool,
}

impl Found {
    /// A name in a directory, whatever it leads to.
    pub fn new(directory: &Arc<Inode>, name: &[u8]) -> Self {
        let (directory, last) = (directory.clone(), Last::Name(Arc::from(name)));
        Self { directory, last, inode: None, wants_directory: false }
    }
}

/// The last component of a path.
pub enum Last {
    /// A name, which may be made, moved or removed.
    Name(Arc<[u8]>),
    /// `.`, or no component at all.
    Current,
    /// `..`
    Parent,
    /// None: a link led there directly.
    Nameless,
}

/// What a path leads to, which must exist.
///
/// # Errors
/// `ENOENT`, `ENOTDIR`, `ELOOP`, `ENAMETOOLONG`.
pub fn existing(start: &Start, path: &[u8], last_link: LastLink) -> Result<Arc<Inode>, Errno> {
    let found = find(start, path, last_link)?;
    let inode = found.inode.ok_or(Errno::ENOENT)?;
    if found.wants_directory && !inode.is_directory() {
        return Err(Errno::ENOTDIR);
    }
    Ok(inode)
}

/// What a path leads to, which may be a name that does not exist in a directory that does.
///
/// # Errors
/// As [`existing`].
pub fn find(start: &Start, path: &[u8], last_link: LastLink) -> Result<Found, Errno> {
    if path.is_empty() {
        return Err(Errno::ENOENT);
    }
    if path.len() >= MAX_PATH_BYTES {
        return Err(Errno::ENAMETOOLONG);
    }
    let mut walk = Walk::new(path);
    let mut at = if Walk::is_absolute(path) { &start.root } else { &start.base }.clone();
    loop {
        let (next, name) = match walk.step()? {
            None | Some(Component::Current) => {
                if !at.is_directory() {
                    return Err(Errno::ENOTDIR);
                }
                (at.clone(), Last::Current)
            }
            Some(Component::Parent) => {
                if !at.is_directory() {
                    return Err(Errno::ENOTDIR);
                }
                let is_root = Arc::ptr_eq(&at, &start.root);
                (if is_root { at.clone() } else { at.parent() }, Last::Parent)
            }
            Some(Component::Name(name)) => {
                let found = at.lookup(name);
                let name = Arc::<[u8]>::from(name);
                match found {
                    Ok(next) => (next, Last::Name(name)),
                    Err(Errno::ENOENT) if walk.is_at_end() => {
                        return Ok(Found {
                            directory: at,
                            last: Last::Name(name),
                            inode: None,
                            wants_directory: walk.wants_directory(),
                        });
                    }
                    Err(why) => return Err(why),
                }
            }
        };
        let is_last = walk.is_at_end();
        let wants_directory = is_last && walk.wants_directory();
        let is_link = next.node.kind() == S_IFLNK;
        let is_followed = !is_last
            || match last_link {
                LastLink::Follow => true,
                LastLink::Keep => wants_directory,
                LastLink::Never => false,
            };
        if is_link && is_followed {
            match target_of(&next)? {
                Target::Path(target) => {
                    if Walk::is_absolute(&target) {
                        at = start.root.clone();
                    }
                    walk.follow(Arc::from(target))?;
                    continue;
                }
                Target::Inode(inode) => {
                    walk.count_link()?;
                    if is_last {
                        let (directory, inode) = (at, Some(inode));
                        return Ok(Found {
                            directory,
                            last: Last::Nameless,
                            inode,
                            wants_directory,
                        });
                    }
                    at = inode;
                    continue;
                }
            }
        }
        if is_last {
            return Ok(Found { directory: at, last: name, inode: Some(next), wants_directory });
        }
        if next.node.kind() != S_IFDIR {
            return Err(Errno::ENOTDIR);
        }
        at = next;
    }
}

/// Where a symbolic link leads.
fn target_of(link: &Inode) -> Result<Target, Errno> {
    match &link.node {
        Node::Link(target) => Ok(Target::Path(target.to_vec())),
        Node::VirtualLink(link) => link.target(),
        _ => Err(Errno::EINVAL),
    }
}
