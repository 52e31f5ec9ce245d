//! Devices: the lines to the host and the machine's off switch.
//!
//! - [`serial`]: COM1, which every machine has
//! - [`virtio_console`]: the fast line, found through [`pci`] or the command line
//! - [`exit`]: ending the machine
//!
//! All polled. A driver never schedules and knows nothing of what is sent.

pub mod exit;
pub mod pci;
pub mod serial;
pub mod virtio_console;
