//! Pipes (pipe(7)); named ones and sockets are made of them.
//!
//! Bytes lie in pages that come with the first write that needs them; an empty pipe keeps one. The pages
//! and positions are under a sleeping mutex, which is held while bytes are copied from and to programs.
//! What waiters and `poll` look at (`fill`, the numbers of ends) is atomic, so that they need no mutex.
//!
//! Wakes: a write into an empty pipe wakes one reader, and a reader that leaves something wakes the next. A read
//! from a pipe with less than `PIPE_BUF` of room wakes one writer, and a writer that leaves room wakes the next.
//! Nobody waits for room while `PIPE_BUF` of it is there. Pollers share each of these wakes.
//!
//! What cannot be copied to or from a program, as far as it lies in one page of the pipe, is not read or written at
//! all: bytes that were not delivered are there for the next reader.
//!
//! What ordinary pipes do not need, other sizes, packets and files that travel along, is [`queue`]'s.

pub mod queue;

use alloc::boxed::Box;
use alloc::sync::Arc;
use core::sync::atomic::{AtomicBool, AtomicU32, AtomicUsize, Ordering};

use linux_raw_sys::general::{POLLERR, POLLHUP, POLLIN, POLLOUT, POLLRDNORM, POLLWRNORM};
use orrery_core::errno::Errno;
use orrery_core::fs::ring::Ring;

use super::file::{File, Transfer};
use super::io::{IoFrom, IoTo};
use super::limits;
use super::page::{PAGE_BYTES, Page};
use crate::sched::mutex::Mutex;
use crate::sched::task::Sleep;
use crate::sched::wait::{Sharing, WaitMode, WaitQueue};
use queue::{Parcel, Queue, Rights};

/// Pages of a pipe: 64 KiB.
pub const PAGES: usize = 16;
/// Bytes that are written in one piece (`PIPE_BUF`).
pub const ATOMIC_BYTES: usize = linux_raw_sys::general::PIPE_BUF as usize;
/// What fits into a pipe, in bytes.
pub const CAPACITY_BYTES: usize = PAGES * PAGE_BYTES;

/// How readers and writers wait: until a signal, one woken at a time.
const INTERRUPTIBLE: WaitMode =
    WaitMode { sleep: Sleep::Interruptible, sharing: Sharing::Exclusive, deadline_ticks: None };

/// A page that counts against the limit of pipes' pages.
struct PipePage(Page);

impl PipePage {
    fn new() -> Result<Self, Errno> {
        limits::PIPE_PAGES.take().map_err(|_| Errno::ENOMEM)?;
        // Only what was written is ever read.
        match Page::uninitialised() {
            Some(page) => Ok(Self(page)),
            None => {
                limits::PIPE_PAGES.give_back();
                Err(Errno::ENOMEM)
            }
        }
    }
}

impl Drop for PipePage {
    fn drop(&mut self) {
        limits::PIPE_PAGES.give_back();
    }
}

struct Buffer {
    ring: Ring<PAGES>,
    pages: [Option<PipePage>; PAGES],
    /// While there is one the ring is empty, and closed.
    queue: Option<Box<Queue>>,
}

impl Buffer {
    /// Copies into the pipe, as far as there is room. There is something to copy.
    ///
    /// Most transfers are within a page: that is straight code, and the loop is elsewhere.
    #[inline(always)]
    fn fill(&mut self, from: &mut IoFrom<'_>) -> Result<(), Errno> {
        self.fill_page(from)?;
        if from.left() == 0 { Ok(()) } else { self.fill_rest(from) }
    }

    #[cold]
    #[inline(never)]
    fn fill_rest(&mut self, from: &mut IoFrom<'_>) -> Result<(), Errno> {
        while from.left() > 0 && self.ring.room().len > 0 {
            self.fill_page(from)?;
        }
        Ok(())
    }

    #[inline(always)]
    fn fill_page(&mut self, from: &mut IoFrom<'_>) -> Result<(), Errno> {
        let room = self.ring.room();
        let page = match &self.pages[room.page] {
            Some(page) => page,
            None => self.add_page(room.page)?,
        };
        let bytes = &mut page.0.bytes_mut()[room.offset..room.offset + room.len];
        let len = from.take_whole(bytes)?;
        self.ring.filled(len);
        Ok(())
    }

    #[cold]
    #[inline(never)]
    fn add_page(&mut self, at: usize) -> Result<&PipePage, Errno> {
        Ok(self.pages[at].insert(PipePage::new()?))
    }

    /// Copies out of these pages, as far as there is something; `ring` is then without it. There is something,
    /// and room to copy to.
    #[inline(always)]
    fn copy_out(
        pages: &[Option<PipePage>; PAGES],
        ring: &mut Ring<PAGES>,
        to: &mut IoTo<'_>,
    ) -> Result<(), Errno> {
        Self::copy_page(pages, ring, to)?;
        if to.left() == 0 { Ok(()) } else { Self::copy_rest(pages, ring, to) }
    }

    #[cold]
    #[inline(never)]
    fn copy_rest(
        pages: &[Option<PipePage>; PAGES],
        ring: &mut Ring<PAGES>,
        to: &mut IoTo<'_>,
    ) -> Result<(), Errno> {
        while to.left() > 0 && ring.len() > 0 {
            Self::copy_page(pages, ring, to)?;
        }
        Ok(())
    }

    #[inline(always)]
    fn copy_page(
        pages: &[Option<PipePage>; PAGES],
        ring: &mut Ring<PAGES>,
        to: &mut IoTo<'_>,
    ) -> Result<(), Errno> {
        let data = ring.data();
        let page = pages[data.page].as_ref().expect("a page with bytes is there");
        ring.drained(to.put_whole(&page.0.bytes()[data.offset..data.offset + data.len])?);
        Ok(())
    }

    /// Moves out of the pipe, as far as there is something.
    #[inline(always)]
    fn drain(&mut self, to: &mut IoTo<'_>) -> Result<(), Errno> {
        let result = Self::copy_out(&self.pages, &mut self.ring, to);
        if self.ring.len() == 0 && self.pages[1].is_some() {
            self.pages[1..].fill_with(|| None);
        }
        result
    }
}

/// What the two ends share.
pub struct Pipe {
    buffer: Mutex<Buffer>,
    /// Bytes in the buffer, for those who do not hold it.
    fill_bytes: AtomicUsize,
    readers: AtomicU32,
    writers: AtomicU32,
    /// Whether bytes go through the queue: what is in the buffer, and the next two, for those who do not hold it.
    has_queue: AtomicBool,
    /// Pages that the queue has room for.
    free_slots: AtomicUsize,
    /// Pages that there may be at a time.
    max_slots: AtomicUsize,
    /// Whoever waits for bytes, or for the last writer to go.
    readable: WaitQueue,
    /// Whoever waits for room, or for the last reader to go.
    writable: WaitQueue,
}

impl Pipe {
    /// An empty pipe without ends.
    pub fn new() -> Arc<Self> {
        Arc::new(Self {
            buffer: Mutex::new(Buffer {
                ring: Ring::new(),
                pages: [const { None }; PAGES],
                queue: None,
            }),
            fill_bytes: AtomicUsize::new(0),
            readers: AtomicU32::new(0),
            writers: AtomicU32::new(0),
            has_queue: AtomicBool::new(false),
            free_slots: AtomicUsize::new(0),
            max_slots: AtomicUsize::new(PAGES),
            readable: WaitQueue::new(),
            writable: WaitQueue::new(),
        })
    }

    /// Bytes in it.
    pub fn fill_bytes(&self) -> usize {
        self.fill_bytes.load(Ordering::Acquire)
    }

    /// Whether there is an end to read from.
    pub fn has_readers(&self) -> bool {
        self.readers.load(Ordering::Acquire) != 0
    }

    /// Whether there is an end to write to.
    pub fn has_writers(&self) -> bool {
        self.writers.load(Ordering::Acquire) != 0
    }

    /// Whether bytes still go from one end to the other. A socket that has shut down one direction finds its
    /// own end gone.
    pub fn is_open(&self) -> bool {
        self.has_readers() && self.has_writers()
    }

    /// Adds an end to read from.
    pub fn open_reader(&self) {
        self.readers.fetch_add(1, Ordering::AcqRel);
    }

    /// Adds an end to write to.
    pub fn open_writer(&self) {
        self.writers.fetch_add(1, Ordering::AcqRel);
    }

    /// Takes an end to read from away.
    pub fn close_reader(&self) {
        if self.readers.fetch_sub(1, Ordering::AcqRel) == 1 {
            self.wake_everybody();
        }
    }

    /// Takes an end to write to away.
    pub fn close_writer(&self) {
        if self.writers.fetch_sub(1, Ordering::AcqRel) == 1 {
            self.wake_everybody();
        }
    }

    fn wake_everybody(&self) {
        self.readable.wake_all();
        self.writable.wake_all();
    }

    /// Reads what is there, waiting for the first byte.
    ///
    /// # Errors
    /// `EAGAIN`, `EFAULT`; [`Errno::RESTART_SYS`] after a signal.
    #[inline(always)]
    pub fn read(&self, to: &mut IoTo<'_>, transfer: &Transfer) -> Result<(), Errno> {
        match (to.left(), self.fill_bytes()) {
            (0, _) => Ok(()),
            (_, 0) => self.read_later(to, transfer),
            _ => self.read_soon(to, transfer),
        }
    }

    #[inline(never)]
    fn read_soon(&self, to: &mut IoTo<'_>, transfer: &Transfer) -> Result<(), Errno> {
        match self.read_now(to) {
            Some(result) => result,
            None => self.read_unusual(to, transfer),
        }
    }

    /// [`Self::read`] where bytes are there, but none in the ring, or where somebody else was faster.
    #[cold]
    #[inline(never)]
    fn read_unusual(&self, to: &mut IoTo<'_>, transfer: &Transfer) -> Result<(), Errno> {
        self.receive(to, transfer).map(|_| ())
    }

    /// [`Self::read`] where nothing is there yet.
    #[inline(never)]
    fn read_later(&self, to: &mut IoTo<'_>, transfer: &Transfer) -> Result<(), Errno> {
        loop {
            if transfer.is_nonblocking() && self.is_open() {
                return Err(Errno::EAGAIN);
            }
            self.readable
                .wait_for(INTERRUPTIBLE, || self.has_news())
                .map_err(|_| Errno::RESTART_SYS)?;
            if let Some(result) = self.read_now(to) {
                return result;
            }
            if self.fill_bytes() > 0 {
                return self.read_unusual(to, transfer);
            }
            if self.has_ended() {
                return Ok(());
            }
        }
    }

    /// Reads as [`Self::receive`] does, but leaves bytes and files there.
    ///
    /// # Errors
    /// As [`Self::read`].
    pub fn peek(&self, to: &mut IoTo<'_>, transfer: &Transfer) -> Result<Option<Rights>, Errno> {
        if to.left() == 0 {
            return Ok(None);
        }
        loop {
            if let Some((rights, result)) = self.peek_now(to) {
                // The bytes are still there, and the wake for them may have come here.
                self.readable.wake_one();
                return result.map(|()| rights);
            }
            if !self.await_news(transfer)? {
                return Ok(None);
            }
        }
    }

    /// Looks at what is there, if anything is.
    fn peek_now(&self, to: &mut IoTo<'_>) -> Option<(Option<Rights>, Result<(), Errno>)> {
        let buffer = self.buffer.lock();
        let mut ring = buffer.ring;
        if ring.len() > 0 {
            return Some((None, Buffer::copy_out(&buffer.pages, &mut ring, to)));
        }
        Self::peek_queue(&buffer, to)
    }

    /// Waits until there may be something to read. False if there never will.
    fn await_news(&self, transfer: &Transfer) -> Result<bool, Errno> {
        if self.has_ended() {
            return Ok(false);
        }
        if transfer.is_nonblocking() {
            return Err(Errno::EAGAIN);
        }
        self.readable.wait(INTERRUPTIBLE, || self.has_news()).map_err(|_| Errno::RESTART_SYS)?;
        Ok(true)
    }

    /// Whether nothing is there, and nothing will come any more. The last writer may have written before it went.
    fn has_ended(&self) -> bool {
        !self.is_open() && self.fill_bytes() == 0
    }

    /// Whether bytes go through the queue.
    fn has_queue(&self) -> bool {
        self.has_queue.load(Ordering::Acquire)
    }

    /// Whether bytes are there, or none will come any more.
    #[inline(always)]
    fn has_news(&self) -> bool {
        self.fill_bytes() > 0 || !self.is_open()
    }

    /// Reads what is there, if anything is.
    #[inline(always)]
    fn read_now(&self, to: &mut IoTo<'_>) -> Option<Result<(), Errno>> {
        let mut buffer = self.buffer.lock();
        let before = buffer.ring.len();
        if before == 0 {
            return None;
        }
        let result = buffer.drain(to);
        let left = buffer.ring.len();
        self.fill_bytes.store(left, Ordering::Release);
        drop(buffer);
        if before > CAPACITY_BYTES - ATOMIC_BYTES {
            self.writable.wake_one();
        }
        if left > 0 {
            self.readable.wake_one();
        }
        Some(result)
    }

    /// Writes everything, waiting for room as often as it takes. Up to [`ATOMIC_BYTES`] go in one piece.
    ///
    /// # Errors
    /// `EPIPE`, `EAGAIN`, `EFAULT`, `ENOMEM`; [`Errno::RESTART_SYS`] after a signal. Some bytes may have been
    /// written.
    #[inline(always)]
    pub fn write(&self, from: &mut IoFrom<'_>, transfer: &Transfer) -> Result<(), Errno> {
        let wanted = from.left();
        if wanted == 0 {
            return Ok(());
        }
        let least_room = if wanted <= ATOMIC_BYTES { wanted } else { 1 };
        match self.write_now(from, least_room) {
            Some(result) => result,
            None => self.write_later(from, transfer, least_room),
        }
    }

    /// Writes as much as there is room for, if there is that much. None if more is to be written.
    #[inline(always)]
    fn write_now(&self, from: &mut IoFrom<'_>, least_room: usize) -> Option<Result<(), Errno>> {
        if !self.is_open() {
            return Some(Err(Errno::EPIPE));
        }
        let mut buffer = self.buffer.lock();
        let before = buffer.ring.len();
        if buffer.ring.room_bytes() < least_room {
            return None;
        }
        let result = buffer.fill(from);
        let after = buffer.ring.len();
        self.fill_bytes.store(after, Ordering::Release);
        drop(buffer);
        if before == 0 && after > 0 {
            self.readable.wake_one();
        }
        (from.left() == 0 || result.is_err()).then_some(result)
    }

    /// [`Self::write`] where there is not enough room yet.
    #[inline(never)]
    fn write_later(
        &self,
        from: &mut IoFrom<'_>,
        transfer: &Transfer,
        least_room: usize,
    ) -> Result<(), Errno> {
        loop {
            if self.has_queue() {
                return self.write_parcel(from, transfer, Parcel::of(transfer));
            }
            if transfer.is_nonblocking() {
                return Err(Errno::EAGAIN);
            }
            let has_room = || CAPACITY_BYTES.saturating_sub(self.fill_bytes()) >= least_room;
            self.writable
                .wait_for(INTERRUPTIBLE, || has_room() || self.has_queue() || !self.is_open())
                .map_err(|_| Errno::RESTART_SYS)?;
            if let Some(result) = self.write_now(from, least_room) {
                // One wake for many: it is passed on.
                self.writable.wake_one();
                return result;
            }
        }
    }

    /// Whoever waits for bytes.
    pub fn readable(&self) -> &WaitQueue {
        &self.readable
    }

    /// Whoever waits for room.
    pub fn writable(&self) -> &WaitQueue {
        &self.writable
    }

    /// Whether [`ATOMIC_BYTES`] can be written without waiting.
    pub fn has_room(&self) -> bool {
        if self.has_queue() {
            self.free_slots.load(Ordering::Acquire) > 0
        } else {
            CAPACITY_BYTES.saturating_sub(self.fill_bytes()) >= ATOMIC_BYTES
        }
    }

    /// Throws away what is in it.
    pub fn clear(&self) {
        let mut buffer = self.buffer.lock();
        buffer.ring = Ring::new();
        self.clear_queue(&mut buffer);
        self.fill_bytes.store(0, Ordering::Release);
    }

    fn reader_readiness(&self) -> u32 {
        let readable = if self.fill_bytes() > 0 { POLLIN | POLLRDNORM } else { 0 };
        readable | if self.has_writers() { 0 } else { POLLHUP }
    }

    fn writer_readiness(&self) -> u32 {
        let writable = if self.has_room() { POLLOUT | POLLWRNORM } else { 0 };
        writable | if self.has_readers() { 0 } else { POLLERR }
    }
}

/// An end to read from.
pub struct PipeReader(Arc<Pipe>);

impl PipeReader {
    /// Another end to read from.
    pub fn new(pipe: &Arc<Pipe>) -> Self {
        pipe.open_reader();
        Self(pipe.clone())
    }
}

impl Drop for PipeReader {
    fn drop(&mut self) {
        self.0.close_reader();
    }
}

impl File for PipeReader {
    fn read(&self, to: &mut IoTo<'_>, transfer: &mut Transfer) -> Result<(), Errno> {
        self.0.read(to, transfer)
    }

    fn readiness(&self) -> u32 {
        self.0.reader_readiness()
    }

    fn queues(&self) -> [Option<&WaitQueue>; 2] {
        [Some(&self.0.readable), None]
    }

    fn readable_bytes(&self) -> Result<u64, Errno> {
        Ok(self.0.fill_bytes() as u64)
    }
}

/// An end to write to.
pub struct PipeWriter(Arc<Pipe>);

impl PipeWriter {
    /// Another end to write to.
    pub fn new(pipe: &Arc<Pipe>) -> Self {
        pipe.open_writer();
        Self(pipe.clone())
    }
}

impl Drop for PipeWriter {
    fn drop(&mut self) {
        self.0.close_writer();
    }
}

impl File for PipeWriter {
    fn write(&self, from: &mut IoFrom<'_>, transfer: &mut Transfer) -> Result<(), Errno> {
        self.0.write(from, transfer)
    }

    fn readiness(&self) -> u32 {
        self.0.writer_readiness()
    }

    fn queues(&self) -> [Option<&WaitQueue>; 2] {
        [Some(&self.0.writable), None]
    }

    fn readable_bytes(&self) -> Result<u64, Errno> {
        Ok(self.0.fill_bytes() as u64)
    }
}
