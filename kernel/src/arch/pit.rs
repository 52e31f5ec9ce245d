//! The interval timer (Intel 8254), used once: its channel 2, which interrupts nobody, measures the
//! time-stamp counter.
//!
//! Only the count is read, not the channel's output: QEMU's microvm has the timer, but not port
//! 61h, where the output shows.

use x86_64::instructions::port::Port;

use super::{cpu, tsc};

/// Rate of the timer's input.
const INPUT_HZ: u64 = 1_193_182;
/// What the timer counts down from, wrapping around. An emulator may lose its CPU for up to 50 ms
/// without harm.
const START: u16 = u16::MAX;
/// Counts between which is measured: soon after the start, and 4 ms later.
const FIRST: u16 = START - 100;
const LAST: u16 = FIRST - 4773;
/// Counts before the end from which on the count is watched closely: 50 µs.
const CLOSE: u16 = 60;
/// Polls after which a timer that does not count is given up.
const PATIENCE_POLLS: u32 = 100_000;

const CHANNEL_2: u16 = 0x42;
const COMMAND: u16 = 0x43;
/// Channel 2's gate (bit 0) and the speaker (bit 1).
const CONTROL: u16 = 0x61;

/// The rate of the time-stamp counter, in Hz; `None` without a working timer.
///
/// The count is looked at seldom until the end is close, since under `-icount` each access costs
/// far more real time than the loop between two of them.
///
/// # Safety
/// Nobody else uses channel 2 or the speaker.
pub unsafe fn measure_tsc_hz() -> Option<u64> {
    // SAFETY: the timer's and the speaker's own ports (caller).
    let write = |port: u16, value: u8| unsafe { Port::<u8>::new(port).write(value) };
    // SAFETY: as above.
    let read = |port: u16| unsafe { Port::<u8>::new(port).read() };
    // Returns when the count is `upto` or less: the count then, and the time.
    let wait = |upto: u16, pause_iterations: u32| {
        for _ in 0..PATIENCE_POLLS {
            write(COMMAND, 0b1000_0000); // latch channel 2
            let now = tsc::now();
            let count = u16::from_le_bytes([read(CHANNEL_2), read(CHANNEL_2)]);
            if count <= upto {
                return Some((count, now));
            }
            cpu::spin(pause_iterations);
        }
        None
    };

    write(CONTROL, read(CONTROL) & !0b10 | 0b01);
    write(COMMAND, 0b1011_0000); // channel 2, low byte then high, mode 0: down to zero, once
    let [low, high] = START.to_le_bytes();
    write(CHANNEL_2, low);
    write(CHANNEL_2, high);
    let (first, from) = wait(FIRST, 1)?;
    wait(LAST + CLOSE, 400)?;
    let (last, to) = wait(LAST, 1)?;
    let cycles = first.checked_sub(last).filter(|&cycles| cycles >= (FIRST - LAST) / 2)?;
    Some((to - from) * INPUT_HZ / u64::from(cycles))
}
