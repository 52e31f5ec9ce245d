//! What leaves for the person who watches: the kernel's own text (`print!` and `println!`) here, and
//! what programs write in `output`; and what they read, in [`mod@input`].
//!
//! Text waits in a buffer that the trace's drain empties into console packets. Whoever finds the
//! buffer full empties it on the spot if the wire is free; else the text is cut and counted.

pub mod input;
mod output;

use core::fmt::{self, Write};

use crate::sync::SpinLock;
use crate::trace::stream::{WIRE, Wire};

pub use input::{Blocking, ConsoleInput, input};
pub use orrery_core::trace::wire::Stream;
pub use output::program_output;

const CAPACITY: usize = 32 * 1024;

struct Buffer {
    bytes: [u8; CAPACITY],
    len: usize,
    cut_bytes: usize,
}

static BUFFER: SpinLock<Buffer> =
    SpinLock::new("console", Buffer { bytes: [0; CAPACITY], len: 0, cut_bytes: 0 });

impl Write for Buffer {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        let fits = text.len().min(CAPACITY - self.len);
        self.bytes[self.len..self.len + fits].copy_from_slice(&text.as_bytes()[..fits]);
        self.len += fits;
        self.cut_bytes += text.len() - fits;
        Ok(())
    }
}

/// Writes formatted text; [`crate::println`] calls it.
pub fn print(arguments: fmt::Arguments<'_>) {
    let nearly_full = {
        let mut buffer = BUFFER.lock_irq();
        // `write_str` above never fails.
        let _ = buffer.write_fmt(arguments);
        buffer.len > CAPACITY / 2
    };
    if nearly_full && !crate::arch::percpu::in_interrupt() {
        flush();
    }
}

/// Whether text waits.
pub fn is_pending() -> bool {
    BUFFER.lock_irq().len != 0
}

/// Sends what has been written so far, unless someone else is sending.
pub fn flush() {
    WIRE.try_with(send_all);
}

/// Sends what has been written so far, by programs and by the kernel.
pub fn send_all(wire: &mut Wire) {
    let output = output::send_all(wire);
    let text = send_text(wire);
    if output || text {
        wire.flush();
    }
}

/// Sends the kernel's text. True if there was any.
fn send_text(wire: &mut Wire) -> bool {
    let mut any = false;
    let mut chunk = [0; 1024];
    loop {
        let (len, cut_bytes) = {
            let mut buffer = BUFFER.lock_irq();
            let len = buffer.len.min(chunk.len());
            chunk[..len].copy_from_slice(&buffer.bytes[..len]);
            let end = buffer.len;
            buffer.bytes.copy_within(len..end, 0);
            buffer.len -= len;
            (len, if buffer.len == 0 { core::mem::take(&mut buffer.cut_bytes) } else { 0 })
        };
        any |= len > 0;
        wire.console(&chunk[..len]);
        if cut_bytes > 0 {
            print(format_args!("\n[console: {cut_bytes} bytes cut]\n"));
        } else if len < chunk.len() {
            return any;
        }
    }
}

/// [`send_all`] for a panic: takes what is there, whoever holds the lock.
///
/// # Safety
/// All other CPUs are stopped.
pub unsafe fn send_after_stop(wire: &mut Wire) {
    // SAFETY: by contract.
    unsafe { output::send_after_stop(wire) };
    // SAFETY: nobody else runs.
    let buffer = unsafe { &mut *BUFFER.get_after_stop() };
    wire.console(&buffer.bytes[..buffer.len.min(CAPACITY)]);
    buffer.len = 0;
}

/// Prints to the console that the host shows.
#[macro_export]
macro_rules! print {
    ($($arg:tt)*) => { $crate::console::print(format_args!($($arg)*)) };
}

/// Prints a line to the console that the host shows.
#[macro_export]
macro_rules! println {
    () => { $crate::print!("\n") };
    ($($arg:tt)*) => { $crate::console::print(format_args!("{}\n", format_args!($($arg)*))) };
}
