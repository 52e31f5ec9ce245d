//! Ending the machine.
//!
//! QEMU's `isa-debug-exit` device (`-device isa-debug-exit,iobase=0xf4,iosize=4`) ends QEMU with
//! exit code `2v + 1` when `v` is written to it. Without it the machine is reset through the
//! keyboard controller and, where even that is missing, halted.

use x86_64::instructions::port::Port;

use crate::arch::cpu;

const DEBUG_EXIT_PORT: u16 = 0xF4;
const KEYBOARD_COMMAND_PORT: u16 = 0x64;
const KEYBOARD_PULSE_RESET: u8 = 0xFE;

/// What the machine ends with, 0 to 127.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ExitStatus(u8);

impl ExitStatus {
    /// All is well.
    pub const SUCCESS: Self = Self(0);
    /// A workload failed or an assertion did.
    pub const FAILURE: Self = Self(1);
    /// The kernel panicked.
    pub const PANIC: Self = Self(101);
    /// The watchdog found a CPU that does not schedule.
    pub const WATCHDOG: Self = Self(102);

    /// The status with this number; what does not fit in seven bits becomes 127.
    pub const fn new(status: u8) -> Self {
        Self(if status > 127 { 127 } else { status })
    }

    /// Its number.
    pub const fn value(self) -> u8 {
        self.0
    }
}

/// Ends the machine, whatever else runs.
pub fn exit(status: ExitStatus) -> ! {
    // SAFETY: the port belongs to the exit device, or to nothing.
    unsafe { Port::<u32>::new(DEBUG_EXIT_PORT).write(u32::from(status.0)) };
    // SAFETY: asks the keyboard controller for a reset; nothing else is left to be done.
    unsafe { Port::<u8>::new(KEYBOARD_COMMAND_PORT).write(KEYBOARD_PULSE_RESET) };
    cpu::halt_forever()
}
