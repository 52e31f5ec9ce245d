//! Directories that are made on demand from a table of entries.

use alloc::boxed::Box;
use alloc::sync::Arc;
use alloc::vec::Vec;

use linux_raw_sys::general::{S_IFDIR, S_IFLNK, S_IFREG};
use orrery_core::errno::Errno;

use super::directory::FIRST_POSITION;
use super::inode::{
    FileSystem, Inode, Listed, Node, Parent, Target, VirtualDirectory, VirtualLink,
};
use super::text::{Text, TextFile};

/// What a directory of type `S` has under a name; `S` is what the directory is about.
pub struct Entry<S: 'static> {
    /// The name.
    pub name: &'static str,
    /// What it is.
    pub kind: Kind<S>,
}

/// What an entry is.
pub enum Kind<S: 'static> {
    /// A file of text.
    Text(fn(&S, &mut Text) -> Result<(), Errno>),
    /// A link.
    Link(fn(&S) -> Result<Destination, Errno>),
    /// A directory.
    Directory(fn(&S) -> Box<dyn VirtualDirectory>),
    /// Something else that is no directory, and its permissions.
    Other(fn() -> Node, u32),
}

/// Where a link leads.
pub enum Destination {
    /// Along a path, which is also what it says.
    Path(Vec<u8>),
    /// To an inode; it says the inode's path.
    Inode(Arc<Inode>),
}

impl<S> Kind<S> {
    fn file_type(&self) -> u32 {
        match self {
            Self::Text(_) | Self::Other(..) => S_IFREG,
            Self::Link(_) => S_IFLNK,
            Self::Directory(_) => S_IFDIR,
        }
    }
}

/// A link that is made on demand.
pub struct Link<F>(pub F);

impl<F: Fn() -> Result<Destination, Errno> + Send + Sync> VirtualLink for Link<F> {
    fn target(&self) -> Result<Target, Errno> {
        Ok(match (self.0)()? {
            Destination::Path(path) => Target::Path(path),
            Destination::Inode(inode) => Target::Inode(inode),
        })
    }

    fn text(&self) -> Result<Vec<u8>, Errno> {
        match (self.0)()? {
            Destination::Path(path) => Ok(path),
            Destination::Inode(inode) => inode.described(),
        }
    }
}

/// A directory with the entries of a table.
pub struct Table<S: 'static> {
    /// What it is about.
    pub subject: S,
    /// Its entries.
    pub entries: &'static [Entry<S>],
    /// The file system it is in.
    pub file_system: FileSystem,
    /// Number of the first entry's inode; the others follow.
    pub first_number: u64,
}

impl<S: Clone + Send + Sync + 'static> Table<S> {
    /// The inode of an entry. None if there is no such name.
    pub fn find(&self, this: &Arc<Inode>, name: &[u8]) -> Option<Result<Arc<Inode>, Errno>> {
        let (index, entry) =
            self.entries.iter().enumerate().find(|(_, it)| it.name.as_bytes() == name)?;
        let subject = self.subject.clone();
        let (node, permissions) = match &entry.kind {
            &Kind::Text(write) => {
                (Node::VirtualFile(TextFile::new(move |text| write(&subject, text))), 0o444)
            }
            &Kind::Link(lead) => (Node::VirtualLink(Box::new(Link(move || lead(&subject)))), 0o777),
            Kind::Directory(make) => (Node::VirtualDirectory(make(&subject)), 0o555),
            Kind::Other(make, permissions) => (make(), *permissions),
        };
        let number = self.first_number + index as u64;
        let place = (Parent::Made(this.clone()), name);
        Some(Inode::made(self.file_system, number, node, permissions, place))
    }

    /// Calls `each` for the entries from position `from` on, as long as it returns true. False if it did
    /// not.
    pub fn list_entries(&self, from: u64, each: &mut dyn FnMut(Listed<'_>) -> bool) -> bool {
        (FIRST_POSITION..).zip(self.entries).skip_while(|&(at, _)| at < from).all(|(at, entry)| {
            each(Listed {
                next: at + 1,
                number: self.first_number + (at - FIRST_POSITION),
                kind: entry.kind.file_type(),
                name: entry.name.as_bytes(),
            })
        })
    }

    /// The position after all entries.
    pub fn end(&self) -> u64 {
        FIRST_POSITION + self.entries.len() as u64
    }
}

impl<S: Clone + Send + Sync + 'static> VirtualDirectory for Table<S> {
    fn lookup(&self, this: &Arc<Inode>, name: &[u8]) -> Result<Arc<Inode>, Errno> {
        self.find(this, name).unwrap_or(Err(Errno::ENOENT))
    }

    fn list(&self, from: u64, each: &mut dyn FnMut(Listed<'_>) -> bool) {
        self.list_entries(from, each);
    }
}
