//! COM2, a 16550 (NS16550A data sheet), as the line on which input arrives: received only, by interrupt.
//!
//! Flow control is the device's: what is not taken out of its FIFO stays with the host.

use x86_64::instructions::port::Port;

const BASE: u16 = 0x2F8;
const DATA: u16 = BASE;
const INTERRUPT_ENABLE: u16 = BASE + 1;
const INTERRUPT_IDENTITY: u16 = BASE + 2;
const FIFO_CONTROL: u16 = BASE + 2;
const LINE_CONTROL: u16 = BASE + 3;
const MODEM_CONTROL: u16 = BASE + 4;
const LINE_STATUS: u16 = BASE + 5;

/// The ISA interrupt that the port has.
pub const IRQ: u8 = 3;

/// Interrupt when bytes have been received.
const RECEIVED: u8 = 1;
const DATA_READY: u8 = 1;
/// What a port reads as that no device answers.
const ABSENT: u8 = 0xFF;

/// The second serial port. There is one value, made by [`Com2::init`].
pub struct Com2(());

impl Com2 {
    /// Sets 115200 baud, 8 data bits, no parity, one stop bit; FIFOs on, with an interrupt from 8 bytes on, or after
    /// some time. Interrupts are off until [`Self::set_interrupts`]. `None` where there is no such device. For the boot,
    /// once.
    pub fn init() -> Option<Self> {
        let port = Self(());
        if port.read(LINE_STATUS) == ABSENT {
            return None;
        }
        port.write(INTERRUPT_ENABLE, 0);
        port.write(LINE_CONTROL, 0x80); // divisor latch
        port.write(DATA, 1); // 115200 baud
        port.write(INTERRUPT_ENABLE, 0);
        port.write(LINE_CONTROL, 0x03); // 8N1
        port.write(FIFO_CONTROL, 0x87); // enabled, cleared, interrupt at 8 bytes
        port.write(MODEM_CONTROL, 0x0B); // DTR, RTS, OUT2: interrupts leave the chip
        Some(port)
    }

    /// Takes a byte that has arrived.
    pub fn receive(&mut self) -> Option<u8> {
        (self.read(LINE_STATUS) & DATA_READY != 0).then(|| self.read(DATA))
    }

    /// Whether received bytes interrupt. Turned on while bytes are there, they do so at once.
    pub fn set_interrupts(&mut self, interrupts: Interrupts) {
        self.write(
            INTERRUPT_ENABLE,
            match interrupts {
                Interrupts::On => RECEIVED,
                Interrupts::Off => 0,
            },
        );
        // Reading it takes a pending "transmitter empty" back, which would keep the edge from coming.
        self.read(INTERRUPT_IDENTITY);
    }

    fn read(&self, port: u16) -> u8 {
        // SAFETY: a register of COM2, which only this driver touches.
        unsafe { Port::<u8>::new(port).read() }
    }

    fn write(&self, port: u16, value: u8) {
        // SAFETY: as above.
        unsafe { Port::<u8>::new(port).write(value) };
    }
}

/// Whether a device interrupts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Interrupts {
    /// It does.
    On,
    /// It does not.
    Off,
}
