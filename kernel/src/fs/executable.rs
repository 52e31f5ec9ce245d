//! Files as address spaces and `execve` want them.

use alloc::string::String;
use alloc::sync::Arc;
use alloc::vec::Vec;

use linux_raw_sys::general::{AT_EMPTY_PATH, AT_FDCWD, AT_SYMLINK_NOFOLLOW, S_IFLNK};
use orrery_core::errno::Errno;

use super::content::Content;
use super::files::{Files, FsContext};
use super::inode::{Inode, Node};
use super::io::IoTo;
use super::lookup::{self, LastLink, Start};
use super::write_or_run::Running;
use crate::mm::space::{Access, PageError, PageSource, SourcePage};

/// A regular file as the source of mapped pages.
struct Mapping(Arc<Inode>);

impl PageSource for Mapping {
    fn page(&self, index: u64, access: Access) -> Result<SourcePage, PageError> {
        match &self.0.node {
            Node::Regular(content) => content.page(index, access),
            _ => Err(PageError::BeyondEnd),
        }
    }

    fn is_present(&self, index: u64) -> bool {
        matches!(&self.0.node, Node::Regular(content) if content.has_page(index))
    }

    fn name(&self) -> String {
        String::from_utf8_lossy(&self.0.described().unwrap_or_default()).into_owned()
    }

    fn identity(&self) -> u64 {
        self.0.number
    }
}

/// A regular file, to be mapped.
///
/// # Errors
/// `ENODEV` if it is something else.
pub fn page_source(inode: &Arc<Inode>) -> Result<Arc<dyn PageSource>, Errno> {
    match inode.node {
        Node::Regular(ref content) => {
            content.note_mapped();
            Ok(Arc::new(Mapping(inode.clone())))
        }
        _ => Err(Errno::ENODEV),
    }
}

/// A file that is to be executed.
pub struct Executable {
    file: Running,
    path: Vec<u8>,
}

impl Executable {
    /// Looks a path up.
    ///
    /// # Errors
    /// Those of the path; `EACCES` if it is not a regular file that somebody may execute; `ETXTBSY` if it is open to be
    /// written.
    pub fn open(fs: &FsContext, path: &[u8]) -> Result<Self, Errno> {
        Self::open_from(&fs.start(), path, LastLink::Follow)
    }

    /// execveat(2).
    ///
    /// # Errors
    /// As [`Self::open`]; `EBADF`; `EINVAL` for flags that are not known; `ELOOP` for a symbolic link that
    /// is not to be followed.
    pub fn open_at(
        fs: &FsContext,
        files: &Files,
        fd: i32,
        path: &[u8],
        flags: u32,
    ) -> Result<Self, Errno> {
        if flags & !(AT_EMPTY_PATH | AT_SYMLINK_NOFOLLOW) != 0 {
            return Err(Errno::EINVAL);
        }
        let mut start = fs.start();
        let is_relative = path.first() != Some(&b'/');
        if fd != AT_FDCWD && is_relative {
            start.base = files.get(fd)?.inode().clone();
        }
        if path.is_empty() && flags & AT_EMPTY_PATH != 0 {
            let path = alloc::format!("/dev/fd/{fd}").into_bytes();
            return Self::of_inode(start.base, path);
        }
        let keeps = flags & AT_SYMLINK_NOFOLLOW != 0;
        Self::open_from(&start, path, if keeps { LastLink::Keep } else { LastLink::Follow })
    }

    fn open_from(start: &Start, path: &[u8], last_link: LastLink) -> Result<Self, Errno> {
        let inode = lookup::existing(start, path, last_link)?;
        if inode.kind() == S_IFLNK {
            return Err(Errno::ELOOP);
        }
        Self::of_inode(inode, path.to_vec())
    }

    fn of_inode(inode: Arc<Inode>, path: Vec<u8>) -> Result<Self, Errno> {
        let somebody_may = inode.attributes().mode & 0o111 != 0;
        if !somebody_may {
            return Err(Errno::EACCES);
        }
        Ok(Self { file: Running::begin(inode)?, path })
    }

    /// The path that it was looked up by.
    pub fn path(&self) -> &[u8] {
        &self.path
    }

    /// The file alone.
    pub fn into_file(self) -> Running {
        self.file
    }

    fn content(&self) -> Option<&Content> {
        match &self.file.inode().node {
            Node::Regular(content) => Some(content),
            _ => None,
        }
    }

    /// Its size in bytes.
    pub fn len_bytes(&self) -> u64 {
        self.content().map_or(0, Content::size_bytes)
    }

    /// Reads from an offset; returns how many bytes there were.
    ///
    /// # Errors
    /// None that a file in memory has.
    pub fn read_at(&self, offset: u64, to: &mut [u8]) -> Result<usize, Errno> {
        let mut to = IoTo::kernel(to);
        if let Some(content) = self.content() {
            content.read(&mut to, offset)?;
        }
        Ok(to.done())
    }

    /// What its mappings are made of.
    pub fn page_source(&self) -> Arc<dyn PageSource> {
        Arc::new(Mapping(self.file.inode().clone()))
    }
}
