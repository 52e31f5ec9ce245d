//! Files whose contents are made when they are read from their beginning.

use alloc::boxed::Box;
use alloc::string::String;
use alloc::sync::Arc;
use alloc::vec::Vec;

use orrery_core::errno::Errno;

use super::file::{File, Transfer};
use super::inode::{Inode, VirtualFile};
use super::io::{IoFrom, IoTo};
use crate::sched::mutex::Mutex;

/// What makes the contents. Appends to the string.
pub type Write = dyn Fn(&mut String) -> Result<(), Errno> + Send + Sync;

/// A file of text.
pub struct Text(Arc<Write>);

impl Text {
    /// A file with these contents.
    pub fn new(
        write: impl Fn(&mut String) -> Result<(), Errno> + Send + Sync + 'static,
    ) -> Box<Self> {
        Box::new(Self(Arc::new(write)))
    }
}

impl VirtualFile for Text {
    fn open(&self, _inode: &Arc<Inode>) -> Result<Arc<dyn File>, Errno> {
        Ok(Arc::new(OpenText { write: self.0.clone(), made: Mutex::new(Vec::new()) }))
    }
}

/// A file of text, opened. What a read at the beginning has made stays until the next such read, so that
/// whoever reads in pieces reads one text.
struct OpenText {
    write: Arc<Write>,
    made: Mutex<Vec<u8>>,
}

impl File for OpenText {
    fn read(&self, to: &mut IoTo<'_>, transfer: &mut Transfer) -> Result<(), Errno> {
        let mut made = self.made.lock();
        if transfer.at == 0 {
            let mut text = String::new();
            (self.write)(&mut text)?;
            *made = text.into_bytes();
        }
        let rest = usize::try_from(transfer.at).ok().and_then(|at| made.get(at..));
        to.put(rest.unwrap_or(&[])).map(|_| ())
    }

    fn write(&self, _from: &mut IoFrom<'_>, _transfer: &mut Transfer) -> Result<(), Errno> {
        Err(Errno::EACCES)
    }

    fn has_positions(&self) -> bool {
        true
    }
}
