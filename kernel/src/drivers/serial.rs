//! COM1, a 16550 (NS16550A data sheet), polled: no interrupt, no buffer of ours.
//!
//! Whoever writes makes sure that nobody else does; the driver itself has no state but the port.

use x86_64::instructions::port::Port;

use crate::arch::cpu;

const BASE: u16 = 0x3F8;
const DATA: u16 = BASE;
const INTERRUPT_ENABLE: u16 = BASE + 1;
const FIFO_CONTROL: u16 = BASE + 2;
const LINE_CONTROL: u16 = BASE + 3;
const MODEM_CONTROL: u16 = BASE + 4;
const LINE_STATUS: u16 = BASE + 5;

/// Line status: the transmit FIFO is empty, [`FIFO_BYTES`] fit.
const TRANSMITTER_EMPTY: u8 = 1 << 5;
/// What a port reads as that no device answers.
const ABSENT: u8 = 0xFF;
const FIFO_BYTES: usize = 16;
/// Polls of the line status after which a line that moves nothing is given up: seconds.
const PATIENCE_POLLS: u32 = 50_000_000;

/// The first serial port.
#[derive(Clone, Copy)]
pub struct Com1 {
    present: bool,
}

impl Com1 {
    /// Sets 115200 baud, 8 data bits, no parity, one stop bit, FIFOs on, interrupts off. May be
    /// repeated.
    pub fn init() -> Self {
        let write = |port: u16, value: u8| {
            // SAFETY: registers of COM1, which only this driver touches.
            unsafe { Port::<u8>::new(port).write(value) };
        };
        write(INTERRUPT_ENABLE, 0);
        write(LINE_CONTROL, 0x80); // divisor latch
        write(DATA, 1); // 115200 baud
        write(INTERRUPT_ENABLE, 0);
        write(LINE_CONTROL, 0x03); // 8N1
        write(FIFO_CONTROL, 0x07); // enabled, cleared
        write(MODEM_CONTROL, 0x03); // DTR, RTS
        Self { present: line_status() != ABSENT }
    }

    /// Whether there is such a device.
    pub fn is_present(&self) -> bool {
        self.present
    }

    /// Sends all bytes, waiting for the line as often as it takes. Without a device they are lost,
    /// as they are on a line that has moved nothing for seconds.
    #[inline]
    pub fn write(&self, bytes: &[u8]) {
        if !self.present {
            return;
        }
        for burst in bytes.chunks(FIFO_BYTES) {
            if !wait_until_empty() {
                return;
            }
            for &byte in burst {
                // SAFETY: the data register of COM1; there is room in the FIFO.
                unsafe { Port::<u8>::new(DATA).write(byte) };
            }
        }
    }
}

fn line_status() -> u8 {
    // SAFETY: reading the line status has no effect but to clear error bits that nobody wants.
    unsafe { Port::<u8>::new(LINE_STATUS).read() }
}

fn wait_until_empty() -> bool {
    for _ in 0..PATIENCE_POLLS {
        if line_status() & TRANSMITTER_EMPTY != 0 {
            return true;
        }
        cpu::pause();
    }
    false
}
