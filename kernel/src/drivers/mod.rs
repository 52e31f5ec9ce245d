//! Devices: the lines to the host and the machine's off switch.
//!
//! - [`serial`]: COM1, which every machine has
//! - [`serial_input`]: COM2, on which programs' input arrives
//! - [`virtio_console`]: the fast line, found through [`pci`] or the command line
//! - [`exit`]: ending the machine
//!
//! All polled, but for the input. A driver never schedules and knows nothing of what is sent.

pub mod exit;
pub mod pci;
pub mod serial;
pub mod serial_input;
pub mod virtio_console;
