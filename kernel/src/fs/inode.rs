//! Inodes: what names in directories lead to.
//!
//! An inode has attributes, a [`Node`] that says what it is, and a *place*: the directory and the name under
//! which it was last seen, from which paths are made (`getcwd`, `/proc/self/exe`). A directory keeps its
//! children alive; a child's place does not keep a stored directory alive, so there is no cycle, and a
//! file system goes with its root.
//!
//! The tree of stored directories changes under one mutex ([`super::namespace`]); looking up takes
//! only the directory's own lock, for one step.

use alloc::boxed::Box;
use alloc::sync::{Arc, Weak};
use alloc::vec::Vec;
use core::sync::atomic::{AtomicU64, Ordering};

use linux_raw_sys::general::{S_IFBLK, S_IFCHR, S_IFDIR, S_IFIFO, S_IFLNK, S_IFREG, S_IFSOCK};
use orrery_core::errno::Errno;
use orrery_core::fs::path::MAX_PATH_BYTES;

use super::content::Content;
use super::directory::Directory;
use super::fifo::Fifo;
use super::file::File;
use super::limits;
use super::time::Time;
use crate::process::current;
use crate::sync::SpinLock;

/// Bits of `st_mode` that `chmod` changes.
pub const PERMISSIONS: u32 = 0o7777;

/// Which file system an inode belongs to; its `st_dev`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum FileSystem {
    /// The root, in memory.
    Root = 1,
    /// `/proc`
    Proc = 2,
    /// `/sys`
    Sys = 3,
    /// Pipes, sockets and what else has no name.
    Nameless = 4,
}

/// What an inode is.
pub enum Node {
    /// A directory whose entries are stored.
    Directory(Directory),
    /// A regular file whose contents are stored.
    Regular(Content),
    /// A symbolic link, with its target.
    Link(Arc<[u8]>),
    /// A character device: major and minor number.
    Device(u32, u32),
    /// A block device: major and minor number. Nothing drives it.
    BlockDevice(u32, u32),
    /// The name of a socket, which nobody listens at.
    Socket,
    /// A pipe with a name.
    Fifo(Fifo),
    /// A directory whose entries are made when they are looked for.
    VirtualDirectory(Box<dyn VirtualDirectory>),
    /// A regular file whose contents are made when it is opened.
    VirtualFile(Box<dyn VirtualFile>),
    /// A symbolic link whose target is made when it is followed.
    VirtualLink(Box<dyn VirtualLink>),
    /// Of a pipe, socket or the like: it says what it is, in its attributes only.
    Nameless,
}

/// An entry of a directory, for listing.
pub struct Listed<'a> {
    /// Position of the entry after it.
    pub next: u64,
    /// Inode number.
    pub number: u64,
    /// File type, as in `st_mode`.
    pub kind: u32,
    /// The name.
    pub name: &'a [u8],
}

/// Entries made on demand.
pub trait VirtualDirectory: Send + Sync {
    /// The entry of this name; `this` is the directory itself.
    ///
    /// # Errors
    /// `ENOENT`, and what else may go wrong.
    fn lookup(&self, this: &Arc<Inode>, name: &[u8]) -> Result<Arc<Inode>, Errno>;

    /// Calls `each` for the entries from position `from` on, `.` and `..` not counted, as long as it
    /// returns true. Nothing is locked meanwhile.
    fn list(&self, from: u64, each: &mut dyn FnMut(Listed<'_>) -> bool);
}

/// A regular file made on demand.
pub trait VirtualFile: Send + Sync {
    /// Opens it.
    ///
    /// # Errors
    /// When what it is about has gone.
    fn open(&self, inode: &Arc<Inode>) -> Result<Arc<dyn File>, Errno>;
}

/// Where a virtual link leads.
pub enum Target {
    /// Along a path.
    Path(Vec<u8>),
    /// To this inode, whatever its path is.
    Inode(Arc<Inode>),
}

/// A symbolic link made on demand.
pub trait VirtualLink: Send + Sync {
    /// Where it leads.
    ///
    /// # Errors
    /// When what it is about has gone.
    fn target(&self) -> Result<Target, Errno>;

    /// What `readlink` says.
    ///
    /// # Errors
    /// As [`Self::target`].
    fn text(&self) -> Result<Vec<u8>, Errno>;
}

/// What `stat` says and `chmod`, `chown` and `utimensat` change.
#[derive(Clone, Copy, Debug)]
pub struct Attributes {
    /// Type and permissions.
    pub mode: u32,
    /// User.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Number of names.
    pub links: u32,
    /// Last read, as far as that is kept: only by `utimensat`.
    pub accessed: Time,
    /// Last change of the contents.
    pub modified: Time,
    /// Last change of the attributes.
    pub changed: Time,
}

impl Attributes {
    /// Those of something new.
    pub fn new(mode: u32) -> Self {
        let now = Time::now();
        let links = if mode & linux_raw_sys::general::S_IFMT == S_IFDIR { 2 } else { 1 };
        Self { mode, uid: 0, gid: 0, links, accessed: now, modified: now, changed: now }
    }
}

/// The directory above.
#[derive(Clone)]
pub enum Parent {
    /// None: the root, or something without a name.
    Nobody,
    /// A stored directory, which keeps this inode and not the other way round.
    Stored(Weak<Inode>),
    /// A directory made on demand, which does not keep this inode.
    Made(Arc<Inode>),
    /// The directory where it had its last name.
    Former(Arc<Inode>),
}

impl Parent {
    fn get(&self) -> Option<Arc<Inode>> {
        match self {
            Self::Nobody => None,
            Self::Stored(parent) => parent.upgrade(),
            Self::Made(parent) | Self::Former(parent) => Some(parent.clone()),
        }
    }
}

/// Where an inode was last seen.
struct Place {
    parent: Parent,
    name: Arc<[u8]>,
}

impl PartialEq for Inode {
    /// An inode is only itself.
    fn eq(&self, other: &Self) -> bool {
        core::ptr::eq(self, other)
    }
}

/// A file, directory, link or device.
pub struct Inode {
    /// Its file system.
    pub file_system: FileSystem,
    /// Its number in the file system.
    pub number: u64,
    /// What it is.
    pub node: Node,
    attributes: SpinLock<Attributes>,
    place: SpinLock<Place>,
}

/// A number that no other inode has.
pub fn new_number() -> u64 {
    /// Numbers below are those of inodes that are made on demand.
    static NEXT: AtomicU64 = AtomicU64::new(1 << 32);
    NEXT.fetch_add(1, Ordering::Relaxed)
}

impl Inode {
    /// An inode of the root file system that has no name yet.
    ///
    /// # Errors
    /// `ENOSPC` if there are too many.
    pub fn new(node: Node, permissions: u32) -> Result<Arc<Self>, Errno> {
        limits::INODES.take().map_err(|_| Errno::ENOSPC)?;
        Ok(Arc::new(Self {
            file_system: FileSystem::Root,
            number: new_number(),
            attributes: SpinLock::new(
                "inode attributes",
                Attributes::new(node.kind() | permissions & PERMISSIONS),
            ),
            node,
            place: SpinLock::new(
                "inode place",
                Place { parent: Parent::Nobody, name: Arc::default() },
            ),
        }))
    }

    /// An inode that is made on demand, or is the root of such a file system.
    ///
    /// # Errors
    /// `ENOSPC` if there are too many.
    pub fn made(
        file_system: FileSystem,
        number: u64,
        node: Node,
        permissions: u32,
        (parent, name): (Parent, &[u8]),
    ) -> Result<Arc<Self>, Errno> {
        limits::INODES.take().map_err(|_| Errno::ENOSPC)?;
        let attributes = Attributes::new(node.kind() | permissions);
        Ok(Arc::new(Self {
            file_system,
            number,
            node,
            attributes: SpinLock::new("inode attributes", attributes),
            place: SpinLock::new("inode place", Place { parent, name: Arc::from(name) }),
        }))
    }

    /// An inode without a name, of a pipe or the like; `mode` is its type and permissions.
    ///
    /// # Errors
    /// `ENFILE` if there are too many.
    pub fn nameless(node: Node, mode: u32) -> Result<Arc<Self>, Errno> {
        limits::INODES.take().map_err(|_| Errno::ENFILE)?;
        let place = Place { parent: Parent::Nobody, name: Arc::default() };
        let attributes = Attributes::new(node.kind() | mode);
        Ok(Arc::new(Self {
            file_system: FileSystem::Nameless,
            number: new_number(),
            node,
            attributes: SpinLock::new("inode attributes", attributes),
            place: SpinLock::new("inode place", place),
        }))
    }

    /// Its attributes.
    pub fn attributes(&self) -> Attributes {
        *self.attributes.lock()
    }

    /// Changes its attributes; `change` only computes.
    pub fn with_attributes<R>(&self, change: impl FnOnce(&mut Attributes) -> R) -> R {
        change(&mut self.attributes.lock())
    }

    /// Notes that the contents have changed.
    pub fn touch_modified(&self) {
        let now = Time::now();
        self.with_attributes(|it| (it.modified, it.changed) = (now, now));
    }

    /// Notes that attributes have changed.
    pub fn touch_changed(&self) {
        let now = Time::now();
        self.with_attributes(|it| it.changed = now);
    }

    /// File type, as in `st_mode`.
    pub fn kind(&self) -> u32 {
        match self.node {
            Node::Nameless => self.attributes().mode & linux_raw_sys::general::S_IFMT,
            _ => self.node.kind(),
        }
    }

    /// Whether it is a directory.
    pub fn is_directory(&self) -> bool {
        self.node.kind() == S_IFDIR
    }

    /// Contents in bytes, as `stat` says it.
    pub fn size_bytes(&self) -> u64 {
        match &self.node {
            Node::Regular(content) => content.size_bytes(),
            Node::Link(target) => target.len() as u64,
            Node::Directory(_) => 4096,
            _ => 0,
        }
    }

    /// The entry `name` of a directory; neither `.` nor `..`.
    ///
    /// # Errors
    /// `ENOTDIR`, `ENOENT`.
    pub fn lookup(self: &Arc<Self>, name: &[u8]) -> Result<Arc<Self>, Errno> {
        match &self.node {
            Node::Directory(directory) => directory.get(name).ok_or(Errno::ENOENT),
            Node::VirtualDirectory(directory) => directory.lookup(self, name),
            _ => Err(Errno::ENOTDIR),
        }
    }

    /// The directory above; the root is above itself.
    pub fn parent(self: &Arc<Self>) -> Arc<Self> {
        let parent = self.place.lock().parent.clone();
        parent.get().unwrap_or_else(|| self.clone())
    }

    /// Notes where it is.
    pub fn set_place(&self, parent: Parent, name: &Arc<[u8]>) {
        let place = Place { parent, name: name.clone() };
        // The old one goes after the lock.
        let _old = core::mem::replace(&mut *self.place.lock(), place);
    }

    /// Notes that it has lost this name, if that is the one it was last seen under.
    pub fn forget_place(&self, parent: &Arc<Self>, name: &[u8]) {
        let is_there = {
            let place = self.place.lock();
            matches!(&place.parent, Parent::Stored(it) if it.as_ptr() == Arc::as_ptr(parent))
                && *place.name == *name
        };
        if is_there {
            // One that has other names is kept by their directories, which it must not keep.
            let is_last = self.attributes().links == 0;
            let former = if is_last { Parent::Former(parent.clone()) } else { Parent::Nobody };
            let name = self.place.lock().name.clone();
            self.set_place(former, &name);
        }
    }

    /// The directory where it had its last name, which it keeps no longer.
    fn take_former(&mut self) -> Option<Arc<Self>> {
        let mut place = self.place.lock();
        match core::mem::replace(&mut place.parent, Parent::Nobody) {
            Parent::Former(parent) => Some(parent),
            other => {
                place.parent = other;
                None
            }
        }
    }

    /// What links to it in `/proc` say: its path as the running thread sees it, or what it is.
    ///
    /// # Errors
    /// As [`Self::path_from`].
    pub fn described(self: &Arc<Self>) -> Result<Vec<u8>, Errno> {
        if self.file_system != FileSystem::Nameless {
            return self.path_from(&current().fs().root());
        }
        let kind = match self.kind() {
            S_IFIFO => "pipe",
            S_IFSOCK => "socket",
            _ => "anon_inode",
        };
        Ok(alloc::format!("{kind}:[{}]", self.number).into_bytes())
    }

    /// Its path from `root`; with ` (deleted)` at its end, as Linux says it, if it was removed or is not below it.
    ///
    /// # Errors
    /// `ENAMETOOLONG`, `ENOMEM`.
    pub fn path_from(self: &Arc<Self>, root: &Arc<Self>) -> Result<Vec<u8>, Errno> {
        const DELETED: &[u8] = b" (deleted)";
        // From its end to its beginning at first.
        let mut path = Vec::new();
        let mut at = self.clone();
        let mut is_below = !matches!(self.place.lock().parent, Parent::Former(_));
        while !Arc::ptr_eq(&at, root) {
            let (parent, name) = {
                let place = at.place.lock();
                (place.parent.clone(), place.name.clone())
            };
            if path.len() + name.len() + 1 >= MAX_PATH_BYTES {
                return Err(Errno::ENAMETOOLONG);
            }
            path.try_reserve(name.len() + 1).map_err(|_| Errno::ENOMEM)?;
            path.extend(name.iter().rev());
            path.push(b'/');
            match parent.get() {
                Some(parent) => at = parent,
                None => {
                    is_below = false;
                    break;
                }
            }
        }
        path.reverse();
        // One more for the caller: a string may want its NUL.
        path.try_reserve(DELETED.len() + 1).map_err(|_| Errno::ENOMEM)?;
        if path.is_empty() {
            path.push(b'/');
        }
        if !is_below {
            path.extend_from_slice(DELETED);
        }
        Ok(path)
    }
}

impl Node {
    /// File type, as in `st_mode`.
    pub fn kind(&self) -> u32 {
        match self {
            Self::Directory(_) | Self::VirtualDirectory(_) => S_IFDIR,
            Self::Regular(_) | Self::VirtualFile(_) => S_IFREG,
            Self::Link(_) | Self::VirtualLink(_) => S_IFLNK,
            Self::Device(..) => S_IFCHR,
            Self::BlockDevice(..) => S_IFBLK,
            Self::Socket => S_IFSOCK,
            Self::Fifo(_) => S_IFIFO,
            Self::Nameless => 0,
        }
    }
}

/// `d_type` of a file type.
pub fn directory_type(kind: u32) -> u8 {
    debug_assert!(matches!(
        kind,
        S_IFDIR | S_IFREG | S_IFLNK | S_IFCHR | S_IFBLK | S_IFIFO | S_IFSOCK
    ));
    (kind >> 12) as u8
}

impl Drop for Inode {
    /// Takes what is below apart one by one, and what was above: a deep tree must not become deep recursion.
    fn drop(&mut self) {
        limits::INODES.give_back();
        let mut above = self.take_former();
        while let Some(mut inode) = above.and_then(Arc::into_inner) {
            above = inode.take_former();
        }
        let Node::Directory(directory) = &mut self.node else { return };
        let mut below = directory.take_all();
        while let Some(inode) = below.pop() {
            if let Some(mut inode) = Arc::into_inner(inode)
                && let Node::Directory(directory) = &mut inode.node
            {
                below.append(&mut directory.take_all());
            }
        }
    }
}
