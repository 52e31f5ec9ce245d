//! Pipes whose bytes lie in a queue of pages instead of the ring: those of another size than usual, with packets
//! (`O_DIRECT`), or with files that travel with bytes (`SCM_RIGHTS`).
//!
//! All of this is off the paths of ordinary pipes: as long as there is a queue the ring has neither bytes nor room,
//! and whoever finds that comes here. A pipe that could do without goes back to its ring when its queue is empty.

use alloc::boxed::Box;
use alloc::collections::VecDeque;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::sync::atomic::Ordering;

use linux_raw_sys::general::O_DIRECT;
use orrery_core::errno::Errno;
use orrery_core::fs::ring::Ring;

use super::{ATOMIC_BYTES, Buffer, INTERRUPTIBLE, PAGES, Pipe, PipePage};
use crate::fs::file::{OpenFile, Transfer};
use crate::fs::io::{IoFrom, IoTo};
use crate::fs::page::PAGE_BYTES;

/// The largest size of a pipe in bytes (Linux's `fs.pipe-max-size`). Nobody may have more.
pub const MAX_CAPACITY_BYTES: usize = 1 << 20;

/// Files that travel with bytes.
pub type Rights = Vec<Arc<OpenFile>>;

/// What is written.
pub enum Parcel {
    /// Bytes of a stream. Up to [`ATOMIC_BYTES`] stay in one piece.
    Bytes,
    /// Packets of up to [`ATOMIC_BYTES`].
    Packets,
    /// Bytes of a stream, and files with the first of them.
    WithRights(Rights),
}

impl Parcel {
    /// What is written by write(2).
    pub(super) fn of(transfer: &Transfer) -> Self {
        if transfer.flags & O_DIRECT != 0 { Self::Packets } else { Self::Bytes }
    }
}

/// What the bytes of a page are to those before and behind them.
enum Unit {
    /// Part of a stream.
    Bytes,
    /// A packet: a read ends behind it, and what the read has no room for is lost.
    Packet,
    /// Part of a stream, with files for whoever reads the first byte; that read ends behind the page.
    WithRights(Rights),
}

struct Slot {
    page: PipePage,
    offset: usize,
    len: usize,
    unit: Unit,
}

/// Pages in the order in which they were written.
pub(super) struct Queue {
    slots: VecDeque<Slot>,
    max_slots: usize,
    /// Whether somebody may write packets.
    takes_packets: bool,
}

impl Queue {
    fn len_bytes(&self) -> usize {
        self.slots.iter().map(|slot| slot.len).sum()
    }

    fn free_slots(&self) -> usize {
        self.max_slots.saturating_sub(self.slots.len())
    }

    /// Room in the last page for `wanted` bytes of a stream: for all of them, where they are to stay in one piece.
    fn tail_room(&self, wanted: usize) -> usize {
        let room = match self.slots.back() {
            Some(Slot { unit: Unit::Bytes, offset, len, .. }) => PAGE_BYTES - offset - len,
            _ => 0,
        };
        if wanted <= ATOMIC_BYTES && wanted > room { 0 } else { room }
    }

    fn has_room(&self, wanted: usize, parcel: &Parcel) -> bool {
        self.free_slots() > 0 || matches!(parcel, Parcel::Bytes) && self.tail_room(wanted) > 0
    }

    /// Takes as much as there is room for. What `parcel` has besides bytes goes with the first.
    fn fill(&mut self, from: &mut IoFrom<'_>, parcel: &mut Parcel) -> Result<(), Errno> {
        while from.left() > 0 && self.has_room(from.left(), parcel) {
            if matches!(parcel, Parcel::Bytes)
                && let room @ 1.. = self.tail_room(from.left())
                && let Some(slot) = self.slots.back_mut()
            {
                let end = slot.offset + slot.len;
                slot.len += from.take_whole(&mut slot.page.0.bytes_mut()[end..end + room])?;
                continue;
            }
            let page = PipePage::new()?;
            let len = from.take_whole(page.0.bytes_mut())?;
            let unit = match core::mem::replace(parcel, Parcel::Bytes) {
                Parcel::Bytes => Unit::Bytes,
                Parcel::Packets => {
                    *parcel = Parcel::Packets;
                    Unit::Packet
                }
                Parcel::WithRights(rights) => Unit::WithRights(rights),
            };
            self.slots.push_back(Slot { page, offset: 0, len, unit });
        }
        Ok(())
    }

    /// Gives as much as one read gets, and the files with it.
    fn drain(&mut self, to: &mut IoTo<'_>) -> (Option<Rights>, Result<(), Errno>) {
        let mut rights = None;
        while to.left() > 0
            && let Some(slot) = self.slots.front_mut()
        {
            let bytes = &slot.page.0.bytes()[slot.offset..slot.offset + slot.len];
            let moved = match to.put_whole(bytes) {
                Ok(moved) => moved,
                Err(why) => return (rights, Err(why)),
            };
            slot.offset += moved;
            slot.len -= moved;
            let ends = match core::mem::replace(&mut slot.unit, Unit::Bytes) {
                Unit::Bytes => false,
                Unit::Packet => {
                    slot.len = 0;
                    true
                }
                Unit::WithRights(with_it) => {
                    rights = Some(with_it);
                    true
                }
            };
            if slot.len == 0 {
                self.slots.pop_front();
            }
            if ends {
                break;
            }
        }
        (rights, Ok(()))
    }

    /// [`Self::drain`] without taking anything away.
    fn peek(&self, to: &mut IoTo<'_>) -> (Option<Rights>, Result<(), Errno>) {
        for slot in &self.slots {
            let result = to.put_whole(&slot.page.0.bytes()[slot.offset..slot.offset + slot.len]);
            if result.is_err() || to.left() == 0 || !matches!(slot.unit, Unit::Bytes) {
                let rights = match &slot.unit {
                    Unit::WithRights(rights) => Some(rights.clone()),
                    Unit::Bytes | Unit::Packet => None,
                };
                return (rights, result.map(|_| ()));
            }
        }
        (None, Ok(()))
    }
}

impl Buffer {
    /// The queue, which takes the ring's bytes over if there was none.
    fn queue(&mut self) -> Result<&mut Queue, Errno> {
        if self.queue.is_none() {
            let mut slots = VecDeque::new();
            slots.try_reserve(PAGES).map_err(|_| Errno::ENOMEM)?;
            let mut ring = self.ring;
            while ring.len() > 0 {
                let data = ring.data();
                // Copied, since the first page may have the last bytes as well.
                let from = self.pages[data.page].as_ref().expect("a page with bytes is there");
                let page = PipePage::new()?;
                page.0.bytes_mut()[..data.len]
                    .copy_from_slice(&from.0.bytes()[data.offset..data.offset + data.len]);
                slots.push_back(Slot { page, offset: 0, len: data.len, unit: Unit::Bytes });
                ring.drained(data.len);
            }
            self.ring = Ring::closed();
            self.pages.fill_with(|| None);
            let queue = Queue { slots, max_slots: PAGES, takes_packets: false };
            self.queue = Some(Box::new(queue));
        }
        Ok(self.queue.as_mut().expect("it was just made"))
    }
}

impl Pipe {
    /// Tells those who do not hold the buffer what is in its queue, and goes back to the ring if that can be.
    fn publish(&self, buffer: &mut Buffer) {
        let Some(queue) = &buffer.queue else { return };
        self.fill_bytes.store(queue.len_bytes(), Ordering::Release);
        self.free_slots.store(queue.free_slots(), Ordering::Release);
        self.max_slots.store(queue.max_slots, Ordering::Release);
        if queue.slots.is_empty() && queue.max_slots == PAGES && !queue.takes_packets {
            buffer.queue = None;
            buffer.ring = Ring::new();
            self.has_queue.store(false, Ordering::Release);
        } else {
            self.has_queue.store(true, Ordering::Release);
        }
    }

    /// Throws away what the queue has; the pipe has its first size again.
    pub(super) fn clear_queue(&self, buffer: &mut Buffer) {
        if let Some(queue) = &mut buffer.queue {
            queue.slots.clear();
            (queue.max_slots, queue.takes_packets) = (PAGES, false);
        }
        self.publish(buffer);
    }

    /// Its size in bytes.
    pub fn capacity_bytes(&self) -> usize {
        self.max_slots.load(Ordering::Acquire) * PAGE_BYTES
    }

    /// From now on a write with `O_DIRECT` is a packet.
    ///
    /// # Errors
    /// `ENOMEM`.
    pub fn take_packets(&self) -> Result<(), Errno> {
        let mut buffer = self.buffer.lock();
        buffer.queue()?.takes_packets = true;
        self.publish(&mut buffer);
        Ok(())
    }

    /// Gives it another size, rounded up to a power of two pages; returns that (`F_SETPIPE_SZ`).
    ///
    /// # Errors
    /// `EINVAL`, `EPERM` if it is too large, `EBUSY` if what is in it would not fit, `ENOMEM`.
    pub fn set_capacity(&self, wanted_bytes: u64) -> Result<u64, Errno> {
        /// More than this is no size at all.
        const NONE_BYTES: u64 = 1 << 31;
        if wanted_bytes > NONE_BYTES {
            return Err(Errno::EINVAL);
        }
        if wanted_bytes > MAX_CAPACITY_BYTES as u64 {
            return Err(Errno::EPERM);
        }
        let max_slots = (wanted_bytes as usize).div_ceil(PAGE_BYTES).max(1).next_power_of_two();
        let mut buffer = self.buffer.lock();
        let queue = buffer.queue()?;
        let result = if queue.slots.len() > max_slots {
            Err(Errno::EBUSY)
        } else {
            queue.max_slots = max_slots;
            Ok((max_slots * PAGE_BYTES) as u64)
        };
        self.publish(&mut buffer);
        drop(buffer);
        self.writable.wake_all();
        result
    }

    /// [`Pipe::read`] that gives the files as well.
    ///
    /// # Errors
    /// As [`Pipe::read`].
    pub fn receive(&self, to: &mut IoTo<'_>, transfer: &Transfer) -> Result<Option<Rights>, Errno> {
        if to.left() == 0 {
            return Ok(None);
        }
        loop {
            if let Some((rights, result)) = self.read_queue(to) {
                // Whoever has got files has got bytes.
                return result.map(|()| rights);
            }
            if let Some(result) = self.read_now(to) {
                return result.map(|()| None);
            }
            if !self.await_news(transfer)? {
                return Ok(None);
            }
        }
    }

    /// Reads what a queue has, if anything.
    pub(super) fn read_queue(
        &self,
        to: &mut IoTo<'_>,
    ) -> Option<(Option<Rights>, Result<(), Errno>)> {
        let mut buffer = self.buffer.lock();
        let queue = buffer.queue.as_mut().filter(|queue| !queue.slots.is_empty())?;
        let read = queue.drain(to);
        let is_empty = queue.slots.is_empty();
        self.publish(&mut buffer);
        drop(buffer);
        self.writable.wake_one();
        if !is_empty {
            self.readable.wake_one();
        }
        Some(read)
    }

    /// Looks at what a queue has, if anything.
    pub(super) fn peek_queue(
        buffer: &Buffer,
        to: &mut IoTo<'_>,
    ) -> Option<(Option<Rights>, Result<(), Errno>)> {
        let queue = buffer.queue.as_ref().filter(|queue| !queue.slots.is_empty())?;
        Some(queue.peek(to))
    }

    /// Writes everything through the queue, waiting for room as often as it takes.
    ///
    /// # Errors
    /// As [`Pipe::write`].
    #[cold]
    #[inline(never)]
    pub fn write_parcel(
        &self,
        from: &mut IoFrom<'_>,
        transfer: &Transfer,
        parcel: Parcel,
    ) -> Result<(), Errno> {
        let result = self.write_whole(from, transfer, parcel);
        // One wake for many: it is passed on, by those who could not use it as well.
        self.writable.wake_one();
        result
    }

    fn write_whole(
        &self,
        from: &mut IoFrom<'_>,
        transfer: &Transfer,
        mut parcel: Parcel,
    ) -> Result<(), Errno> {
        while from.left() > 0 {
            if !self.is_open() {
                return Err(Errno::EPIPE);
            }
            let wanted = from.left();
            let had_room = {
                let mut buffer = self.buffer.lock();
                let queue = buffer.queue()?;
                let had_room = queue.has_room(wanted, &parcel);
                let result = queue.fill(from, &mut parcel);
                self.publish(&mut buffer);
                drop(buffer);
                if from.left() < wanted {
                    self.readable.wake_one();
                }
                result?;
                had_room
            };
            if had_room {
                continue;
            }
            if transfer.is_nonblocking() {
                return Err(Errno::EAGAIN);
            }
            let fits = || self.free_slots.load(Ordering::Acquire) > 0 || !self.has_queue();
            self.writable
                .wait(INTERRUPTIBLE, || fits() || !self.is_open())
                .map_err(|_| Errno::RESTART_SYS)?;
        }
        Ok(())
    }
}
