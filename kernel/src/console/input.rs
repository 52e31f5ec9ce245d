//! What programs read from the console: from the bundle, from a line, or nothing.
//!
//! - The bundle's entry `.orrery/stdin` is the whole input, for runs that must repeat.
//! - With `stdin=com2` on the command line, it is what arrives on COM2 in frames
//!   ([`orrery_core::input`]), as it comes.
//! - Otherwise the input ends at once.
//!
//! The line's interrupt moves bytes from the device into a buffer, as long as there is room; a reader that
//! has made room starts it again.

use orrery_core::cpio;
use orrery_core::errno::Errno;
use orrery_core::input::InputBuffer;

use crate::arch::{io_apic, vectors};
use crate::boot::{self, BootInfo};
use crate::drivers::serial_input::{Com2, IRQ, Interrupts};
use crate::sched::task::Sleep;
use crate::sched::wait::{Sharing, WaitMode, WaitQueue};
use crate::sync::SpinLock;
use crate::{options, println};

/// The bundle's entry with the whole input.
const ENTRY: &[u8] = b".orrery/stdin";
const BUFFER_BYTES: usize = 4096;

/// There is one, in static memory: the size of its largest form costs nothing.
#[allow(clippy::large_enum_variant)]
enum Source {
    /// What is left of bytes that were there from the start.
    Bytes(&'static [u8]),
    Line(Line),
}

struct Line {
    buffer: InputBuffer<BUFFER_BYTES>,
    device: Com2,
    /// Whether the device was left alone because the buffer was full.
    held_up: bool,
}

impl Line {
    /// Moves what has arrived into the buffer. True if a reader can go on.
    fn receive(&mut self) -> bool {
        while self.buffer.has_room() {
            let Some(byte) = self.device.receive() else {
                if core::mem::take(&mut self.held_up) {
                    self.device.set_interrupts(Interrupts::On);
                }
                return self.buffer.is_readable();
            };
            self.buffer.push(byte);
        }
        self.held_up = true;
        self.device.set_interrupts(Interrupts::Off);
        true
    }
}

/// The console as programs read it.
pub struct ConsoleInput {
    source: SpinLock<Source>,
    readable: WaitQueue,
}

/// Whether a read waits for input.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Blocking {
    /// Until there is some, or a signal.
    Wait,
    /// Not at all (`O_NONBLOCK`).
    Never,
}

static INPUT: ConsoleInput = ConsoleInput {
    source: SpinLock::new("console input", Source::Bytes(&[])),
    readable: WaitQueue::new(),
};

/// The console's input.
pub fn input() -> &'static ConsoleInput {
    &INPUT
}

impl ConsoleInput {
    /// Reads what there is, up to the buffer's length, into kernel memory; 0 is the end of the input. For
    /// tasks, with nothing held.
    ///
    /// # Errors
    /// `EAGAIN` where it would have to wait and must not, `EINTR` where a signal ended the wait.
    pub fn read(&self, to: &mut [u8], blocking: Blocking) -> Result<usize, Errno> {
        if to.is_empty() {
            return Ok(0);
        }
        let mode = WaitMode {
            sleep: Sleep::Interruptible,
            sharing: Sharing::Shared,
            deadline_ticks: None,
        };
        loop {
            if let Some(count) = self.take(to) {
                return Ok(count);
            }
            if blocking == Blocking::Never {
                return Err(Errno::EAGAIN);
            }
            self.readable.wait(mode, || self.is_readable()).map_err(|_| Errno::EINTR)?;
        }
    }

    fn take(&self, to: &mut [u8]) -> Option<usize> {
        match &mut *self.source.lock_irq() {
            Source::Bytes(bytes) => {
                let (now, later) = bytes.split_at(to.len().min(bytes.len()));
                to[..now.len()].copy_from_slice(now);
                *bytes = later;
                Some(now.len())
            }
            Source::Line(line) => {
                let count = line.buffer.read(to);
                if line.held_up {
                    line.receive();
                }
                count
            }
        }
    }

    /// Whether a read would not wait.
    pub fn is_readable(&self) -> bool {
        match &*self.source.lock_irq() {
            Source::Bytes(_) => true,
            Source::Line(line) => line.buffer.is_readable(),
        }
    }

    /// Bytes that can be read now (`FIONREAD`).
    pub fn available(&self) -> usize {
        match &*self.source.lock_irq() {
            Source::Bytes(bytes) => bytes.len(),
            Source::Line(line) => line.buffer.len(),
        }
    }

    /// Who waits for [`Self::is_readable`] to change; for `poll`.
    pub fn wait_queue(&self) -> &WaitQueue {
        &self.readable
    }
}

/// Finds out where the input comes from. At boot, on the boot CPU.
pub fn init(boot: &BootInfo) {
    let source = if let Some(bytes) = boot::bundle().and_then(|bundle| given(bundle.bytes)) {
        Source::Bytes(bytes)
    } else if options::get().stdin_from_com2 {
        let Some(device) = Com2::init() else {
            return println!("orrery: there is no COM2; programs have no input");
        };
        if io_apic::route_isa(boot.rsdp, IRQ, vectors::INPUT).is_err() {
            return println!("orrery: COM2 has no interrupt; programs have no input");
        }
        Source::Line(Line { buffer: InputBuffer::new(), device, held_up: false })
    } else {
        return;
    };
    let mut input = INPUT.source.lock_irq();
    *input = source;
    if let Source::Line(line) = &mut *input {
        line.device.set_interrupts(Interrupts::On);
        line.receive();
    }
}

/// The whole input, if the bundle has it.
fn given(bundle: &'static [u8]) -> Option<&'static [u8]> {
    let entries = cpio::entries(bundle).map_while(Result::ok);
    entries.filter(|entry| entry.name == ENTRY).map(|entry| entry.data).last()
}

/// The line's interrupt.
pub fn on_interrupt() {
    let readable = match &mut *INPUT.source.lock_irq() {
        Source::Line(line) => line.receive(),
        Source::Bytes(_) => false,
    };
    if readable {
        INPUT.readable.wake_all();
    }
}
