//! What programs write to their standard output and error, on its way to the host.
//!
//! Nothing is lost and nothing is reordered: bytes wait in one queue, of which the trace's drain makes
//! packets of their own kind; a writer that finds no room in the queue sleeps until the drain has made
//! some. The drain is woken at once, so that output shows promptly.

use orrery_core::trace::wire::Stream;

use crate::sched::wait::WaitQueue;
use crate::sync::SpinLock;
use crate::trace::drain;
use crate::trace::stream::Wire;

const CAPACITY: usize = 32 * 1024;
/// Bytes before each run: its stream's number and its length.
const RUN_HEAD: usize = 3;
/// Longest run, which is one packet's; senders have it on their stack, in a panic too.
const RUN_MAX: usize = 1024;

/// A write of so many bytes is not mixed with others', as on a pipe (`PIPE_BUF`).
pub const WHOLE_BYTES: usize = 4096;

/// Runs of bytes of one stream each, back to back.
struct Queue {
    bytes: [u8; CAPACITY],
    len: usize,
    /// Where the newest run begins; meaningful while the queue is not empty.
    last: usize,
}

static QUEUE: SpinLock<Queue> =
    SpinLock::new("console", Queue { bytes: [0; CAPACITY], len: 0, last: 0 });
/// Writers that wait for room.
static ROOM: WaitQueue = WaitQueue::new();

impl Queue {
    /// Stream and length of the run at `at`.
    fn run(&self, at: usize) -> (Stream, usize) {
        let len = usize::from(u16::from_le_bytes([self.bytes[at + 1], self.bytes[at + 2]]));
        let len = len.min(RUN_MAX);
        (Stream::from_u8(self.bytes[at]).unwrap_or(Stream::Out), len)
    }

    fn set_run(&mut self, at: usize, stream: Stream, len: usize) {
        self.bytes[at] = stream as u8;
        self.bytes[at + 1..at + RUN_HEAD].copy_from_slice(&(len as u16).to_le_bytes());
    }

    /// Whether [`Self::append`] has room for so many bytes.
    fn has_room(&self, len: usize) -> bool {
        self.len + len + (len / RUN_MAX + 2) * RUN_HEAD <= CAPACITY
    }

    /// Appends bytes for which there is room.
    fn append(&mut self, stream: Stream, mut bytes: &[u8]) {
        while !bytes.is_empty() {
            let open = (self.len > 0)
                .then(|| self.run(self.last))
                .filter(|&(its, len)| its == stream && len < RUN_MAX);
            let len = open.map_or(0, |(_, len)| len);
            if open.is_none() {
                self.last = self.len;
                self.len += RUN_HEAD;
            }
            let (now, later) = bytes.split_at(bytes.len().min(RUN_MAX - len));
            self.bytes[self.len..self.len + now.len()].copy_from_slice(now);
            self.len += now.len();
            self.set_run(self.last, stream, len + now.len());
            bytes = later;
        }
    }

    /// Takes the oldest run out into `buffer`; `None` when there is none.
    fn take(&mut self, buffer: &mut [u8; RUN_MAX]) -> Option<(Stream, usize)> {
        if self.len < RUN_HEAD {
            return None;
        }
        let (stream, len) = self.run(0);
        // Whoever is stopped by a panic may have left a run half written.
        let len = len.min(self.len - RUN_HEAD);
        let end = RUN_HEAD + len;
        buffer[..len].copy_from_slice(&self.bytes[RUN_HEAD..end]);
        self.bytes.copy_within(end..self.len, 0);
        self.len -= end;
        self.last = self.last.saturating_sub(end);
        Some((stream, len))
    }
}

/// Queues bytes that a program wrote, all of them, and sleeps for room where it must. Up to [`WHOLE_BYTES`] stay
/// together. For tasks, with nothing held. `bytes` is kernel memory.
pub fn program_output(stream: Stream, bytes: &[u8]) {
    for part in bytes.chunks(WHOLE_BYTES) {
        loop {
            let mut queue = QUEUE.lock_irq();
            if queue.has_room(part.len()) {
                queue.append(stream, part);
                break;
            }
            drop(queue);
            drain::wake();
            ROOM.wait_until(|| QUEUE.lock_irq().has_room(part.len()));
        }
        drain::wake();
    }
}

/// Sends what waits, and lets writers go on. True if there was anything.
pub(super) fn send_all(wire: &mut Wire) -> bool {
    let mut buffer = [0; RUN_MAX];
    let mut any = false;
    loop {
        // Apart, so that the lock is not held while the packet is sent.
        let run = QUEUE.lock_irq().take(&mut buffer);
        let Some((stream, len)) = run else { break };
        wire.output(stream, &buffer[..len]);
        any = true;
    }
    if any {
        ROOM.wake_all();
    }
    any
}

/// [`send_all`] for a panic.
///
/// # Safety
/// All other CPUs are stopped.
pub(super) unsafe fn send_after_stop(wire: &mut Wire) {
    // SAFETY: nobody else runs.
    let queue = unsafe { &mut *QUEUE.get_after_stop() };
    let mut buffer = [0; RUN_MAX];
    while let Some((stream, len)) = queue.take(&mut buffer) {
        wire.output(stream, &buffer[..len]);
    }
}
