//! Measured regions: what a stretch of an application costs, told to the host by one mark.

use core::fmt::{self, Write};

use orrery_core::region::{MAX_LINE_BYTES, Region, RegionError};

use super::{MAX_MARK_BYTES, now_ticks};
use crate::trace::events;

const _: () = assert!(MAX_LINE_BYTES <= MAX_MARK_BYTES);

/// Runs `work`, and tells the host how long that took: `name` is what is measured, such as `queue/push`, and
/// `ops` how many operations of it `work` does. The region is told when it has ended, so that telling is no
/// part of it.
///
/// # Errors
/// A [`RegionError`] where the name is none, or `ops` is 0; `work` is not run then.
#[inline]
pub fn region<R>(name: &str, ops: u32, work: impl FnOnce() -> R) -> Result<R, RegionError<'_>> {
    Region::new(name, 0, 0, ops)?;
    let start_ticks = now_ticks();
    let result = work();
    let end_ticks = now_ticks();
    tell_region(name, start_ticks, end_ticks, ops)?;
    Ok(result)
}

/// Tells the host of a region between two readings of [`now_ticks`], which may come from different tasks and
/// CPUs.
///
/// # Errors
/// A [`RegionError`] where the name is none, `ops` is 0, or the end comes before the start.
pub fn tell_region(
    name: &str,
    start_ticks: u64,
    end_ticks: u64,
    ops: u32,
) -> Result<(), RegionError<'_>> {
    let region = Region::new(name, start_ticks, end_ticks, ops)?;
    let mut line = Line { bytes: [0; MAX_LINE_BYTES], len: 0 };
    // Every region fits.
    let _ = write!(line, "{region}");
    events::mark(0, line.text());
    Ok(())
}

/// Text of at most a region's length.
struct Line {
    bytes: [u8; MAX_LINE_BYTES],
    len: usize,
}

impl Line {
    fn text(&self) -> &str {
        core::str::from_utf8(&self.bytes[..self.len]).unwrap_or("")
    }
}

impl Write for Line {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        let end = self.len + text.len();
        let room = self.bytes.get_mut(self.len..end).ok_or(fmt::Error)?;
        room.copy_from_slice(text.as_bytes());
        self.len = end;
        Ok(())
    }
}
