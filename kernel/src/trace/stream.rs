//! Packets, and where they are sent.
//!
//! One [`Wire`] numbers and sends every packet. It belongs to whoever holds [`WIRE`]'s claim: the
//! boot CPU until the drain task runs, then the drain, at the end the flush. A claim is not a
//! spinlock, since sending takes milliseconds on COM1 and must stay preemptible; a panic takes the
//! wire by force, and the reader finds its place again after the packet that this cuts short.

use core::cell::UnsafeCell;
use core::fmt::{self, Write};
use core::sync::atomic::{AtomicBool, Ordering};

use orrery_core::trace::compact;
use orrery_core::trace::ring::{BLOCK_CAPACITY, BlockHead, Mode};
use orrery_core::trace::wire::{Encoding, HEADER_LEN, HELLO_NONCE, Header, Kind, Stream, VERSION};

use crate::arch::{smp, tsc};
use crate::boot;
use crate::drivers::serial::Com1;
use crate::drivers::virtio_console::VirtioConsole;

/// `hello` is repeated after this many packets, so that a reader can join late.
const HELLO_EVERY: u32 = 64;
const TEXT_CAPACITY: usize = 2048;

/// Where packets go. There is one, in static memory: the size of its largest form costs nothing.
#[allow(clippy::large_enum_variant)]
enum Transport {
    /// Nowhere yet. Whoever sends now (a panic at boot) gets COM1.
    Unopened,
    Com1(Com1),
    Virtio(VirtioConsole),
}

/// What `hello` says beside what is constant.
#[derive(Clone, Copy)]
pub struct Session {
    /// CRC seed of all packets but `hello`.
    pub nonce: u32,
    /// What a full ring does.
    pub mode: Mode,
    /// Whether event blocks are compacted.
    pub compact: bool,
    /// The kernel's command line.
    pub command_line: &'static str,
}

/// Numbers packets and sends them.
pub struct Wire {
    transport: Transport,
    session: Session,
    seq: u32,
    /// A packet in the making: the largest is a block that compaction could not shrink.
    packet: [u8; HEADER_LEN + compact::max_len(BLOCK_CAPACITY)],
}

impl Wire {
    const fn new() -> Self {
        Self {
            transport: Transport::Unopened,
            session: Session {
                nonce: HELLO_NONCE,
                mode: Mode::Stream,
                compact: true,
                command_line: "",
            },
            seq: 0,
            packet: [0; HEADER_LEN + compact::max_len(BLOCK_CAPACITY)],
        }
    }

    /// Begins the stream: sends the first `hello`.
    pub fn begin(&mut self, session: Session, virtio: Option<VirtioConsole>) {
        self.session = session;
        self.transport = match virtio {
            Some(console) => Transport::Virtio(console),
            None => Transport::Com1(Com1::init()),
        };
        self.hello();
    }

    /// What the stream was begun with.
    pub fn session(&self) -> Session {
        self.session
    }

    /// Sends one block of CPU `cpu`.
    pub fn events(&mut self, cpu: u32, head: &BlockHead, records: &[u8]) {
        let room = &mut self.packet[HEADER_LEN..];
        let compacted = if self.session.compact { compact::encode(records, room) } else { None };
        let (encoding, wire_len) = match compacted {
            Some(len) if len < records.len() => (Encoding::Compact, len),
            _ => {
                room[..records.len()].copy_from_slice(records);
                (Encoding::Raw, records.len())
            }
        };
        let header = Header {
            kind: Kind::Events,
            encoding,
            cpu: cpu as u16,
            seq: 0,
            wire_len: wire_len as u32,
            raw_len: records.len() as u32,
            base_ticks: head.base_ticks,
            first_record: head.first_record,
            dropped: head.dropped,
            running_pid: head.running_pid,
            records: head.records,
        };
        self.send(header);
    }

    /// Sends console bytes, in as many packets as it takes.
    pub fn console(&mut self, text: &[u8]) {
        for chunk in text.chunks(BLOCK_CAPACITY) {
            self.plain(Kind::Console, &[], chunk);
        }
    }

    /// Sends what a program wrote, at most [`BLOCK_CAPACITY`] - 1 bytes.
    pub fn output(&mut self, stream: Stream, bytes: &[u8]) {
        self.plain(Kind::Output, &[stream as u8], bytes);
    }

    /// Sends a `panic` or `end` packet whose lines `lines` writes.
    pub fn text(&mut self, kind: Kind, lines: impl FnOnce(&mut dyn Write) -> fmt::Result) {
        let mut text = TextBuffer { bytes: [0; TEXT_CAPACITY], len: 0 };
        // A line that does not fit is left out; those before it count.
        let _ = lines(&mut text);
        self.plain(kind, &[], &text.bytes[..text.len]);
    }

    /// Waits until everything has left the guest.
    pub fn flush(&mut self) {
        if let Transport::Virtio(console) = &mut self.transport {
            console.flush();
        }
    }

    fn hello(&mut self) {
        let session = self.session;
        self.text(Kind::Hello, |out| {
            writeln!(out, "version={VERSION}")?;
            write!(out, "build_id=")?;
            for byte in boot::build_id() {
                write!(out, "{byte:02x}")?;
            }
            writeln!(out, "\nnonce={}", session.nonce)?;
            writeln!(out, "tick_hz={}", tsc::hz())?;
            writeln!(out, "cpus={}", smp::count())?;
            let mode = match session.mode {
                Mode::Stream => "stream",
                Mode::Snapshot => "snapshot",
            };
            writeln!(out, "mode={mode}")?;
            writeln!(out, "cmdline={}", session.command_line)
        });
    }

    /// Sends a packet that is no block; `head` and `rest` are its payload.
    fn plain(&mut self, kind: Kind, head: &[u8], rest: &[u8]) {
        let len = head.len() + rest.len();
        let payload = &mut self.packet[HEADER_LEN..HEADER_LEN + len];
        payload[..head.len()].copy_from_slice(head);
        payload[head.len()..].copy_from_slice(rest);
        self.send(Header {
            kind,
            encoding: Encoding::Raw,
            cpu: crate::arch::percpu::cpu_id() as u16,
            seq: 0,
            wire_len: len as u32,
            raw_len: len as u32,
            base_ticks: tsc::now(),
            first_record: 0,
            dropped: 0,
            running_pid: 0,
            records: 0,
        });
    }

    /// Sends the payload that lies in the packet buffer, behind this header, numbered.
    fn send(&mut self, mut header: Header) {
        header.seq = self.seq;
        self.seq = self.seq.wrapping_add(1);
        let nonce = if header.kind == Kind::Hello { HELLO_NONCE } else { self.session.nonce };
        let end = HEADER_LEN + header.wire_len as usize;
        let head = header.encode(nonce, &self.packet[HEADER_LEN..end]);
        self.packet[..HEADER_LEN].copy_from_slice(&head);
        if let Transport::Unopened = self.transport {
            self.transport = Transport::Com1(Com1::init());
        }
        match &mut self.transport {
            Transport::Unopened => {}
            Transport::Com1(port) => port.write(&self.packet[..end]),
            Transport::Virtio(console) => console.write(&self.packet[..end]),
        }
        if self.seq.is_multiple_of(HELLO_EVERY) && header.kind != Kind::Hello {
            self.hello();
        }
    }
}

/// Whole lines in a fixed buffer.
struct TextBuffer {
    bytes: [u8; TEXT_CAPACITY],
    len: usize,
}

impl Write for TextBuffer {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        let room = self.bytes.get_mut(self.len..self.len + text.len()).ok_or(fmt::Error)?;
        room.copy_from_slice(text.as_bytes());
        self.len += text.len();
        Ok(())
    }
}

/// The wire, and who has it.
pub struct WireClaim {
    claimed: AtomicBool,
    wire: UnsafeCell<Wire>,
}

// SAFETY: `claimed` gives the wire to one at a time; `seize` is for when nothing else runs.
unsafe impl Sync for WireClaim {}

/// The kernel's one wire.
pub static WIRE: WireClaim =
    WireClaim { claimed: AtomicBool::new(false), wire: UnsafeCell::new(Wire::new()) };

impl WireClaim {
    /// Uses the wire, unless someone else does.
    pub fn try_with<R>(&self, with: impl FnOnce(&mut Wire) -> R) -> Option<R> {
        if self.claimed.swap(true, Ordering::Acquire) {
            return None;
        }
        // SAFETY: the claim is ours.
        let result = with(unsafe { &mut *self.wire.get() });
        self.claimed.store(false, Ordering::Release);
        Some(result)
    }

    /// The wire by force, for a panic.
    ///
    /// # Safety
    /// All other CPUs are stopped, and this one does not return to what it did.
    #[allow(clippy::mut_from_ref)]
    pub unsafe fn seize(&self) -> &mut Wire {
        // SAFETY: by contract nobody uses the wire any more.
        unsafe { &mut *self.wire.get() }
    }
}
