//! One virtual machine, from command line to exit status.
//!
//! [`Machine`] describes a virtual machine: its board, CPUs, memory, the door it boots through and the
//! kernel's command line. [`Machine::start`] turns the description into boot media and a QEMU
//! process and gives back a [`Running`], which hands out what the guest writes as it comes and, at the
//! end, how the guest ended: a [`Status`].
//!
//! The library knows nothing of what the guest says: bytes are bytes. Where to start reading:
//!
//! - `config`: the description and its parsers;
//! - `qemu`: the description as QEMU's command line, a pure function;
//! - `running`: the process, its output and its end;
//! - `bundle`: the files that a guest's programs see, as an archive for the kernel;
//! - `limine`, `media`, `firmware`: boot loader files, the ISO, and UEFI firmware;
//! - `error`: everything that can be wrong before the guest runs, and what to do about it.
//!
//! Invariant: the guest writes to serial ports that are files in a directory of this run alone, never pipes, so
//! that the host's pace cannot reach the guest. Under `-icount` that would change instruction counts.

mod bundle;
mod config;
mod error;
mod firmware;
mod limine;
mod media;
mod qemu;
mod running;

pub use bundle::{Bundle, ENVIRONMENT, INSTRUCTIONS};
pub use config::{Accel, Boot, Clock, Guest, Input, Machine, MachineType, Memory, Port};
pub use error::Error;
pub use firmware::uefi_firmware_present;
pub use limine::Limine;
pub use media::{Payload, write_iso};
pub use qemu::{CPU_MODEL, QEMU, VIRTIO_MMIO_DEVICE};
pub use running::{Finished, InputWriter, Running, Status};

/// Result of this library.
pub type Result<T> = std::result::Result<T, Error>;

/// The path of a program on `PATH`, if it is there.
pub fn find_program(name: &str) -> Option<std::path::PathBuf> {
    std::env::split_paths(&std::env::var_os("PATH")?)
        .map(|dir| dir.join(name))
        .find(|path| path.is_file())
}
