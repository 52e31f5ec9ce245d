//! `AF_UNIX` stream sockets, as `socketpair` makes them: two pipes, one for each direction.

use alloc::sync::{Arc, Weak};
use core::sync::atomic::{AtomicBool, AtomicU8, Ordering};

use linux_raw_sys::general::{
    POLLERR, POLLHUP, POLLIN, POLLOUT, POLLRDHUP, POLLRDNORM, POLLWRBAND, POLLWRNORM,
};
use orrery_core::errno::Errno;

use super::file::{File, Transfer};
use super::io::{IoFrom, IoTo};
use super::pipe::Pipe;
use super::pipe::queue::{Parcel, Rights};
use crate::process::{Process, current, tree};
use crate::sched::wait::WaitQueue;
use crate::task::Namespace;

/// A direction, as a bit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Direction {
    /// What comes from the other end.
    Receive = 1,
    /// What goes to the other end.
    Send = 2,
}

/// One of two connected sockets.
pub struct SocketEnd {
    receive: Arc<Pipe>,
    send: Arc<Pipe>,
    /// Directions that are shut down.
    shut: AtomicU8,
    /// Which ends are to be told that the other was closed with bytes that nobody had read; shared by both.
    resets: Arc<[AtomicBool; 2]>,
    /// Which end this is.
    index: usize,
    maker: Maker,
}

/// The process that made a pair, whatever has become of it.
#[derive(Clone)]
struct Maker {
    process: Weak<Process>,
    /// Its number in its own namespace.
    tgid: u32,
}

/// Two sockets, each the other's peer.
pub fn pair() -> [SocketEnd; 2] {
    let [there, back] = [Pipe::new(), Pipe::new()];
    let process = &current().process;
    let maker = Maker { process: Arc::downgrade(process), tgid: process.tgid() };
    let resets = Arc::new([const { AtomicBool::new(false) }; 2]);
    let end = |index, receive: &Arc<Pipe>, send: &Arc<Pipe>| {
        receive.open_reader();
        send.open_writer();
        SocketEnd {
            receive: receive.clone(),
            send: send.clone(),
            shut: AtomicU8::new(0),
            resets: resets.clone(),
            index,
            maker: maker.clone(),
        }
    };
    [end(0, &there, &back), end(1, &back, &there)]
}

impl SocketEnd {
    /// The number of the process that made the pair, as seen from `namespace`; 0 if it is not.
    pub fn maker_in(&self, namespace: &Namespace) -> u32 {
        let Some(process) = self.maker.process.upgrade() else { return self.maker.tgid };
        if process.namespace == *namespace {
            self.maker.tgid
        } else {
            process.number_in(namespace, &tree::lock())
        }
    }

    /// Reads what has come, and takes the files that came with it.
    ///
    /// # Errors
    /// As [`Pipe::receive`].
    pub fn receive(&self, to: &mut IoTo<'_>, transfer: &Transfer) -> Result<Option<Rights>, Errno> {
        self.reading(to, |to| self.receive.receive(to, transfer))
    }

    /// Sends bytes, and files with the first of them.
    ///
    /// # Errors
    /// As [`Pipe::write`].
    pub fn send_with_rights(
        &self,
        from: &mut IoFrom<'_>,
        transfer: &Transfer,
        rights: Rights,
    ) -> Result<(), Errno> {
        self.writing(|| self.send.write_parcel(from, transfer, Parcel::WithRights(rights)))
    }

    /// Looks at what has come.
    ///
    /// # Errors
    /// As [`Pipe::peek`].
    pub fn peek(&self, to: &mut IoTo<'_>, transfer: &Transfer) -> Result<Option<Rights>, Errno> {
        self.reading(to, |to| self.receive.peek(to, transfer))
    }

    /// Whether the other end was closed with bytes that nobody had read. It is told once.
    pub fn take_reset(&self) -> bool {
        self.resets[self.index].swap(false, Ordering::AcqRel)
    }

    /// Reads; the end of the other side's bytes may turn out to be an error.
    fn reading<T>(
        &self,
        to: &mut IoTo<'_>,
        read: impl FnOnce(&mut IoTo<'_>) -> Result<T, Errno>,
    ) -> Result<T, Errno> {
        let (done, left) = (to.done(), to.left());
        let result = read(to);
        if result.is_ok() && left > 0 && to.done() == done && self.take_reset() {
            return Err(Errno::ECONNRESET);
        }
        result
    }

    /// Writes. Whoever waits for room is told of an error that comes then, and gets no signal.
    fn writing(&self, write: impl FnOnce() -> Result<(), Errno>) -> Result<(), Errno> {
        let was_open = self.send.is_open();
        let result = write();
        if result == Err(Errno::EPIPE) && was_open && self.take_reset() {
            return Err(Errno::ECONNRESET);
        }
        result
    }

    /// Ends one direction (shutdown(2)).
    pub fn shut_down(&self, direction: Direction) {
        let bit = direction as u8;
        if self.shut.fetch_or(bit, Ordering::AcqRel) & bit == 0 {
            match direction {
                Direction::Receive => self.receive.close_reader(),
                Direction::Send => self.send.close_writer(),
            }
        }
    }
}

impl Drop for SocketEnd {
    fn drop(&mut self) {
        if self.receive.fill_bytes() > 0 {
            self.resets[1 - self.index].store(true, Ordering::Release);
        }
        self.shut_down(Direction::Receive);
        self.shut_down(Direction::Send);
    }
}

impl File for SocketEnd {
    fn read(&self, to: &mut IoTo<'_>, transfer: &mut Transfer) -> Result<(), Errno> {
        self.reading(to, |to| self.receive.read(to, transfer))
    }

    fn write(&self, from: &mut IoFrom<'_>, transfer: &mut Transfer) -> Result<(), Errno> {
        self.writing(|| self.send.write(from, transfer))
    }

    fn readiness(&self) -> u32 {
        let is_receiving = self.receive.has_writers() && self.receive.has_readers();
        let is_sending = self.send.has_readers() && self.send.has_writers();
        let mut ready = 0;
        if self.receive.fill_bytes() > 0 || !is_receiving {
            ready |= POLLIN | POLLRDNORM;
        }
        if !is_receiving {
            ready |= POLLRDHUP;
        }
        if self.send.has_room() || !is_sending {
            ready |= POLLOUT | POLLWRNORM | POLLWRBAND;
        }
        if !is_receiving && !is_sending {
            ready |= POLLHUP;
        }
        if self.resets[self.index].load(Ordering::Acquire) {
            ready |= POLLERR;
        }
        ready
    }

    fn queues(&self) -> [Option<&WaitQueue>; 2] {
        [Some(self.receive.readable()), Some(self.send.writable())]
    }

    fn readable_bytes(&self) -> Result<u64, Errno> {
        Ok(self.receive.fill_bytes() as u64)
    }

    fn socket(&self) -> Option<&SocketEnd> {
        Some(self)
    }
}
