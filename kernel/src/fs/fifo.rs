//! Pipes as inodes (fifo(7)): opening one end of a named one waits for the other.

use alloc::sync::Arc;
use core::sync::atomic::{AtomicU64, Ordering};

use linux_raw_sys::general::{
    O_ACCMODE, O_DIRECT, O_NONBLOCK, O_RDONLY, O_RDWR, O_WRONLY, POLLHUP,
};
use orrery_core::errno::Errno;

use super::file::{File, Transfer};
use super::io::{IoFrom, IoTo};
use super::pipe::{Pipe, PipeReader, PipeWriter};
use crate::sched::mutex::Mutex;
use crate::sched::task::Sleep;
use crate::sched::wait::{Sharing, WaitMode, WaitQueue};

/// What a named pipe's inode has.
pub struct Fifo {
    pipe: Arc<Pipe>,
    kind: Kind,
    /// Held while ends come, so that bytes of former users are thrown away once, and of two that come together one
    /// finds the other.
    coming: Mutex<()>,
    /// Times that it was opened for reading, and for writing.
    opened: [AtomicU64; 2],
    /// Whoever waits for the other end.
    waiting: WaitQueue,
}

/// Where a pipe comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// From `mkfifo`: whoever opens one end waits for the other.
    Named,
    /// From `pipe`: it is opened again only by way of `/proc/self/fd`, without waiting.
    Nameless,
}

impl Fifo {
    /// A pipe that nobody has opened.
    pub fn new(kind: Kind) -> Self {
        Self {
            pipe: Pipe::new(),
            kind,
            coming: Mutex::new(()),
            opened: [const { AtomicU64::new(0) }; 2],
            waiting: WaitQueue::new(),
        }
    }

    /// The pipe.
    pub fn pipe(&self) -> &Pipe {
        &self.pipe
    }

    /// Both ends at once, as `pipe` makes them.
    pub fn ends(&self) -> (Arc<dyn File>, Arc<dyn File>) {
        let ends = (PipeReader::new(&self.pipe), PipeWriter::new(&self.pipe));
        self.come(0);
        self.come(1);
        (Arc::new(ends.0), Arc::new(ends.1))
    }

    /// Opens it as `flags` say.
    ///
    /// # Errors
    /// `ENXIO` for writing without waiting when nobody reads; [`Errno::RESTART_SYS`] after a signal.
    pub fn open(&self, flags: u32) -> Result<Arc<dyn File>, Errno> {
        let is_named = self.kind == Kind::Named;
        let nonblocking = flags & O_NONBLOCK != 0;
        let coming = self.coming.lock();
        if is_named && !self.pipe.has_readers() && !self.pipe.has_writers() {
            self.pipe.clear();
        }
        if flags & O_DIRECT != 0 {
            self.pipe.take_packets()?;
        }
        match flags & O_ACCMODE {
            O_RDONLY => {
                let (has_writers, writers_before) = (self.pipe.has_writers(), self.times_opened(1));
                let end = PipeReader::new(&self.pipe);
                drop(coming);
                self.come(0);
                if is_named && !nonblocking && !has_writers {
                    self.wait_for(1, writers_before)?;
                }
                Ok(Arc::new(end))
            }
            O_WRONLY => {
                let (has_readers, readers_before) = (self.pipe.has_readers(), self.times_opened(0));
                if is_named && nonblocking && !has_readers {
                    return Err(Errno::ENXIO);
                }
                let end = PipeWriter::new(&self.pipe);
                drop(coming);
                self.come(1);
                if is_named && !has_readers {
                    self.wait_for(0, readers_before)?;
                }
                Ok(Arc::new(end))
            }
            O_RDWR => {
                let both = BothEnds {
                    reader: PipeReader::new(&self.pipe),
                    writer: PipeWriter::new(&self.pipe),
                };
                drop(coming);
                self.come(0);
                self.come(1);
                Ok(Arc::new(both))
            }
            _ => Err(Errno::EINVAL),
        }
    }

    fn come(&self, end: usize) {
        self.opened[end].fetch_add(1, Ordering::AcqRel);
        self.waiting.wake_all();
    }

    fn times_opened(&self, end: usize) -> u64 {
        self.opened[end].load(Ordering::Acquire)
    }

    /// Waits until an end has been opened more than `before` times. Whether it is there now says nothing: whoever
    /// was waiting for the caller may have gone on, and be gone again.
    fn wait_for(&self, end: usize, before: u64) -> Result<(), Errno> {
        const MODE: WaitMode = WaitMode {
            sleep: Sleep::Interruptible,
            sharing: Sharing::Shared,
            deadline_ticks: None,
        };
        let has_come = || self.times_opened(end) != before;
        self.waiting.wait(MODE, has_come).map_err(|_| Errno::RESTART_SYS)
    }
}

/// Opened for reading and writing.
struct BothEnds {
    reader: PipeReader,
    writer: PipeWriter,
}

impl File for BothEnds {
    fn read(&self, to: &mut IoTo<'_>, transfer: &mut Transfer) -> Result<(), Errno> {
        self.reader.read(to, transfer)
    }

    fn write(&self, from: &mut IoFrom<'_>, transfer: &mut Transfer) -> Result<(), Errno> {
        self.writer.write(from, transfer)
    }

    fn readiness(&self) -> u32 {
        (self.reader.readiness() | self.writer.readiness()) & !POLLHUP
    }

    fn queues(&self) -> [Option<&WaitQueue>; 2] {
        [self.reader.queues()[0], self.writer.queues()[0]]
    }

    fn readable_bytes(&self) -> Result<u64, Errno> {
        self.reader.readable_bytes()
    }
}
