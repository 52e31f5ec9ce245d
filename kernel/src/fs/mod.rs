//! Files. The interface; there are none yet.

pub mod pidfd;

use alloc::sync::Arc;
use alloc::vec::Vec;

use orrery_core::errno::Errno;

use crate::mm::space::PageSource;

/// Most bytes of a path, the NUL included.
pub const PATH_MAX_BYTES: usize = 4096;

/// The open files of a thread.
pub struct Files(());

/// Root, working directory, umask of a thread.
pub struct FsContext(());

/// A file that is to be executed.
pub struct Executable(Vec<u8>);

/// What the bundle asks of the kernel.
pub struct Instructions {
    /// The first program's arguments; the first of them is its path.
    pub arguments: Option<Vec<Vec<u8>>>,
    /// Its environment.
    pub environment: Option<Vec<Vec<u8>>>,
}

/// What the bundle asks of the kernel.
pub fn instructions() -> Instructions {
    Instructions { arguments: None, environment: None }
}

/// What the first program has: the console as its standard streams, and the root directory.
///
/// # Errors
/// `ENOMEM`.
pub fn first_program() -> Result<(Arc<Files>, Arc<FsContext>), Errno> {
    Err(Errno::ENOSYS)
}

#[allow(missing_docs, clippy::missing_errors_doc)]
impl Files {
    /// Those of `fork`'s child.
    pub fn copy(self: &Arc<Self>) -> Result<Arc<Self>, Errno> {
        Ok(self.clone())
    }
    /// Those of the next program: without the ones that are to be closed, and shared with nobody.
    pub fn close_on_exec(self: Arc<Self>) -> Arc<Self> {
        self
    }
    pub fn close(&self, _fd: i32) -> Result<(), Errno> {
        Err(Errno::EBADF)
    }
    /// What `mmap` of a descriptor maps; `to_write` if shared and written.
    pub fn mappable(&self, _fd: i32, _to_write: bool) -> Result<Arc<dyn PageSource>, Errno> {
        Err(Errno::EBADF)
    }
}

#[allow(missing_docs)]
impl FsContext {
    /// That of `fork`'s child.
    pub fn copy(self: &Arc<Self>) -> Arc<Self> {
        self.clone()
    }
}

#[allow(missing_docs, clippy::missing_errors_doc)]
impl Executable {
    /// The file, if it is one that may be executed: else `EACCES`.
    pub fn open(_fs: &FsContext, _path: &[u8]) -> Result<Self, Errno> {
        Err(Errno::ENOENT)
    }
    /// execveat(2).
    pub fn open_at(
        _fs: &FsContext,
        _files: &Files,
        _fd: i32,
        _path: &[u8],
        _flags: u32,
    ) -> Result<Self, Errno> {
        Err(Errno::ENOENT)
    }
    /// Its absolute path.
    pub fn path(&self) -> &[u8] {
        &self.0
    }
    pub fn len_bytes(&self) -> u64 {
        0
    }
    /// Reads from an offset; returns how many bytes there were.
    pub fn read_at(&self, _offset: u64, _to: &mut [u8]) -> Result<usize, Errno> {
        Err(Errno::EIO)
    }
    /// What its mappings are made of.
    pub fn page_source(&self) -> Arc<dyn PageSource> {
        unreachable!("no file can be opened")
    }
}
