//! Trace: what the kernel tells the host, as records in rings and packets on a wire.

pub mod compact;
pub mod ring;
pub mod wire;
