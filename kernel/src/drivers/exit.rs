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

/// Largest status that the exit device can pass on.
const PORT_STATUS_MAX: u8 = 127;

/// What ended a run, and with which status.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ending {
    /// A workload ended with this status; 0 is success.
    Workload(u8),
    /// The first program exited with this status.
    Program(u8),
    /// A signal of this number, 1 to 64, killed the first program.
    Signal(u8),
    /// The kernel panicked.
    Panic,
    /// The watchdog found a CPU that does not schedule.
    Watchdog,
}

impl Ending {
    /// The exit status that the host shows: a program's own, 128 and the number for a signal, as
    /// shells have it, 101 for a panic, 102 for the watchdog.
    pub const fn status(self) -> u8 {
        match self {
            Self::Workload(status) | Self::Program(status) => status,
            Self::Signal(number) => 128 + (number & 0x7F),
            Self::Panic => 101,
            Self::Watchdog => 102,
        }
    }

    /// Its word in the `end` packet, by which a program's status 101 differs from a panic.
    pub const fn cause(self) -> &'static str {
        match self {
            Self::Workload(_) => "workload",
            Self::Program(_) => "program",
            Self::Signal(_) => "signal",
            Self::Panic => "panic",
            Self::Watchdog => "watchdog",
        }
    }
}

/// Ends the machine, whatever else runs. A status above 127 reaches the host in the `end` packet only; the
/// device is told 127.
pub fn exit(ending: Ending) -> ! {
    // SAFETY: the port belongs to the exit device, or to nothing.
    unsafe {
        Port::<u32>::new(DEBUG_EXIT_PORT).write(u32::from(ending.status().min(PORT_STATUS_MAX)))
    };
    // SAFETY: asks the keyboard controller for a reset; nothing else is left to be done.
    unsafe { Port::<u8>::new(KEYBOARD_COMMAND_PORT).write(KEYBOARD_PULSE_RESET) };
    cpu::halt_forever()
}
