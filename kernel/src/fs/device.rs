//! Character devices: `null`, `zero`, `full`, `random`, `urandom`, `tty`, `console`.

use alloc::sync::Arc;

use orrery_core::errno::Errno;

use super::content::MAX_SIZE_BYTES;
use super::file::{File, Transfer};
use super::io::{IoFrom, IoTo};
use super::terminal::{Terminal, Tty};
use crate::console::Stream;
use crate::mm::space::{PageSource, SharedMemory};
use crate::random;

/// Devices that every root file system has: name, major and minor number (Linux, `admin-guide/devices.txt`).
pub const STANDARD: &[(&[u8], u32, u32)] = &[
    (b"null", 1, 3),
    (b"zero", 1, 5),
    (b"full", 1, 7),
    (b"random", 1, 8),
    (b"urandom", 1, 9),
    (b"tty", 5, 0),
    (b"console", 5, 1),
];

/// Opens the device of these numbers.
///
/// # Errors
/// `ENXIO` if there is none.
pub fn open(major: u32, minor: u32) -> Result<Arc<dyn File>, Errno> {
    Ok(match (major, minor) {
        (1, 3) => Arc::new(Null),
        (1, 5) => Arc::new(Zero),
        (1, 7) => Arc::new(Full),
        (1, 8 | 9) => Arc::new(Random),
        (5, 0 | 1) => Arc::new(Terminal::new(Stream::Out, Tty::Yes)),
        _ => return Err(Errno::ENXIO),
    })
}

/// Nothing to read; what is written is gone.
struct Null;

impl File for Null {
    fn read(&self, _to: &mut IoTo<'_>, _transfer: &mut Transfer) -> Result<(), Errno> {
        Ok(())
    }

    fn write(&self, from: &mut IoFrom<'_>, _transfer: &mut Transfer) -> Result<(), Errno> {
        from.discard();
        Ok(())
    }

    fn has_positions(&self) -> bool {
        true
    }

    fn has_one_position(&self) -> bool {
        true
    }
}

/// Zeroes without end.
struct Zero;

impl File for Zero {
    fn read(&self, to: &mut IoTo<'_>, _transfer: &mut Transfer) -> Result<(), Errno> {
        to.put_zeroes(to.left()).map(|_| ())
    }

    fn write(&self, from: &mut IoFrom<'_>, _transfer: &mut Transfer) -> Result<(), Errno> {
        from.discard();
        Ok(())
    }

    /// Each mapping shows zeroes of its own.
    fn mapped(&self) -> Option<Arc<dyn PageSource>> {
        Some(SharedMemory::new(MAX_SIZE_BYTES))
    }

    fn has_positions(&self) -> bool {
        true
    }

    fn has_one_position(&self) -> bool {
        true
    }
}

/// Zeroes without end, and no room.
struct Full;

impl File for Full {
    fn read(&self, to: &mut IoTo<'_>, _transfer: &mut Transfer) -> Result<(), Errno> {
        to.put_zeroes(to.left()).map(|_| ())
    }

    fn write(&self, from: &mut IoFrom<'_>, _transfer: &mut Transfer) -> Result<(), Errno> {
        if from.left() == 0 { Ok(()) } else { Err(Errno::ENOSPC) }
    }

    fn has_positions(&self) -> bool {
        true
    }

    fn has_one_position(&self) -> bool {
        true
    }
}

/// Random numbers without end. What is written changes nothing.
struct Random;

impl File for Random {
    fn read(&self, to: &mut IoTo<'_>, _transfer: &mut Transfer) -> Result<(), Errno> {
        let mut bytes = [0; 64];
        while to.left() > 0 {
            let bytes = &mut bytes[..to.left().min(64)];
            random::fill(bytes);
            to.put(bytes)?;
        }
        Ok(())
    }

    fn write(&self, from: &mut IoFrom<'_>, _transfer: &mut Transfer) -> Result<(), Errno> {
        from.discard();
        Ok(())
    }

    fn has_positions(&self) -> bool {
        true
    }

    fn has_one_position(&self) -> bool {
        true
    }
}
