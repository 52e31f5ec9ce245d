//! defmt's log lines (`defmt::info!` and its like), carried by the event `log`.
//!
//! A frame is gathered in a buffer of its CPU with interrupts off, and becomes one record when
//! defmt releases the logger. A frame longer than the buffer is left out: its event says so with an
//! empty frame.

use core::cell::UnsafeCell;

use super::events;
use crate::arch::irq::IrqOff;
use crate::arch::percpu::PerCpu;
use crate::per_cpu;

const FRAME_CAPACITY: usize = 240;

struct Frame {
    bytes: [u8; FRAME_CAPACITY],
    /// Bytes asked for; more than the capacity when the frame does not fit.
    len: usize,
    irq: Option<IrqOff>,
}

struct FrameCell(UnsafeCell<Frame>);
// SAFETY: each CPU uses its own, interrupts off from `acquire` to `release`.
unsafe impl Sync for FrameCell {}

static FRAMES: PerCpu<FrameCell> =
    per_cpu!(FrameCell(UnsafeCell::new(Frame { bytes: [0; FRAME_CAPACITY], len: 0, irq: None })));

#[defmt::global_logger]
struct Logger;

// SAFETY: `acquire` turns interrupts off until `release`, so that one log statement at a time runs
// on a CPU; each CPU has a frame of its own. Log statements do not nest (no `Format` logs).
unsafe impl defmt::Logger for Logger {
    fn acquire() {
        let irq = IrqOff::new();
        // SAFETY: interrupts are off, the CPU's frame is ours.
        let frame = unsafe { &mut *FRAMES.this().0.get() };
        frame.len = 0;
        frame.irq = Some(irq);
    }

    unsafe fn write(bytes: &[u8]) {
        // SAFETY: between `acquire` and `release` (caller).
        let frame = unsafe { &mut *FRAMES.this().0.get() };
        let end = frame.len + bytes.len();
        if let Some(room) = frame.bytes.get_mut(frame.len..end) {
            room.copy_from_slice(bytes);
        }
        frame.len = end;
    }

    unsafe fn flush() {}

    unsafe fn release() {
        // SAFETY: after `acquire` (caller); interrupts go back on only when the guard drops.
        let frame = unsafe { &mut *FRAMES.this().0.get() };
        let irq = frame.irq.take();
        events::log(frame.bytes.get(..frame.len).unwrap_or(&[]));
        drop(irq);
    }
}
