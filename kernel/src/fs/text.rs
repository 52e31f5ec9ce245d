//! Files whose contents are made when they are read from their beginning.

use alloc::boxed::Box;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::fmt;

use orrery_core::errno::Errno;

use super::file::{File, Transfer};
use super::inode::{Inode, VirtualFile};
use super::io::{IoFrom, IoTo};
use super::limits;
use super::page::{PAGE_BYTES, Page};
use crate::sched::mutex::Mutex;

/// Text that is being made, in pages: the areas of a process alone may take megabytes.
///
/// What there is no memory for is left out, and [`finish`](Self::finish) tells.
#[derive(Default)]
pub struct Text {
    pages: Vec<TextPage>,
    len_bytes: usize,
    is_cut: bool,
}

/// A page that counts against the limit of such pages.
struct TextPage(Page);

impl TextPage {
    fn new() -> Option<Self> {
        limits::TEXT_PAGES.take().ok()?;
        // Only what was written is ever read.
        let page = Page::uninitialised();
        if page.is_none() {
            limits::TEXT_PAGES.give_back();
        }
        page.map(Self)
    }
}

impl Drop for TextPage {
    fn drop(&mut self) {
        limits::TEXT_PAGES.give_back();
    }
}

impl Text {
    /// Bytes so far.
    pub fn len_bytes(&self) -> usize {
        self.len_bytes
    }

    /// Appends bytes, of whatever encoding.
    pub fn push_bytes(&mut self, mut bytes: &[u8]) {
        while !bytes.is_empty() && !self.is_cut {
            let (page, offset) = (self.len_bytes / PAGE_BYTES, self.len_bytes % PAGE_BYTES);
            let Some(TextPage(page)) = self.pages.get(page) else {
                self.add_page();
                continue;
            };
            let now = bytes.len().min(PAGE_BYTES - offset);
            page.bytes_mut()[offset..offset + now].copy_from_slice(&bytes[..now]);
            self.len_bytes += now;
            bytes = &bytes[now..];
        }
    }

    fn add_page(&mut self) {
        let page = self.pages.try_reserve(1).ok().and_then(|()| TextPage::new());
        self.is_cut = page.is_none();
        self.pages.extend(page);
    }

    /// The end.
    ///
    /// # Errors
    /// `ENOMEM` if something was left out.
    fn finish(self) -> Result<Self, Errno> {
        if self.is_cut { Err(Errno::ENOMEM) } else { Ok(self) }
    }

    /// Puts what there is from byte `at` on, as far as it fits.
    fn put(&self, to: &mut IoTo<'_>, mut at: usize) -> Result<(), Errno> {
        while at < self.len_bytes && to.left() > 0 {
            let offset = at % PAGE_BYTES;
            let len = (PAGE_BYTES - offset).min(self.len_bytes - at);
            let put = to.put(&self.pages[at / PAGE_BYTES].0.bytes()[offset..offset + len])?;
            at += put;
        }
        Ok(())
    }
}

impl fmt::Write for Text {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        self.push_bytes(text.as_bytes());
        // What is cut is told at the end.
        Ok(())
    }
}

/// What makes the contents. Appends to the text.
pub type Write = dyn Fn(&mut Text) -> Result<(), Errno> + Send + Sync;

/// A file of text.
pub struct TextFile(Arc<Write>);

impl TextFile {
    /// A file with these contents.
    pub fn new(
        write: impl Fn(&mut Text) -> Result<(), Errno> + Send + Sync + 'static,
    ) -> Box<Self> {
        Box::new(Self(Arc::new(write)))
    }
}

impl VirtualFile for TextFile {
    fn open(&self, _inode: &Arc<Inode>) -> Result<Arc<dyn File>, Errno> {
        Ok(Arc::new(OpenText { write: self.0.clone(), made: Mutex::new(None) }))
    }
}

/// A file of text, opened. What the first read, or one at the beginning, has made stays until the next read at the
/// beginning, so that whoever reads in pieces reads one text.
struct OpenText {
    write: Arc<Write>,
    made: Mutex<Option<Text>>,
}

impl File for OpenText {
    fn read(&self, to: &mut IoTo<'_>, transfer: &mut Transfer) -> Result<(), Errno> {
        let mut made = self.made.lock();
        if transfer.at == 0 {
            // First without the old one, so that both are never there.
            *made = None;
        }
        let text = match &mut *made {
            Some(text) => text,
            none => {
                let mut text = Text::default();
                (self.write)(&mut text)?;
                none.insert(text.finish()?)
            }
        };
        usize::try_from(transfer.at).map_or(Ok(()), |at| text.put(to, at))
    }

    fn write(&self, _from: &mut IoFrom<'_>, _transfer: &mut Transfer) -> Result<(), Errno> {
        Err(Errno::EACCES)
    }

    fn has_positions(&self) -> bool {
        true
    }
}
