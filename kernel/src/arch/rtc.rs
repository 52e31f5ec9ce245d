//! The battery-backed clock in the CMOS memory (Motorola MC146818), read once at boot.

use orrery_core::time::calendar::CmosDate;
use x86_64::instructions::port::Port;

use super::{cpu, tsc};

const INDEX: u16 = 0x70;
const DATA: u16 = 0x71;

const SECONDS: u8 = 0x00;
const MINUTES: u8 = 0x02;
const HOURS: u8 = 0x04;
const DAY: u8 = 0x07;
const MONTH: u8 = 0x08;
const YEAR: u8 = 0x09;
const STATUS_A: u8 = 0x0A;
const STATUS_B: u8 = 0x0B;

/// In status register A: the date is about to change.
const UPDATE_IN_PROGRESS: u8 = 1 << 7;
/// What is read where there is no such clock.
const NOTHING_THERE: u8 = 0xFF;
/// An update takes 2 ms at the most; an emulator may lose its CPU for longer.
const PATIENCE_US: u64 = 20_000;

/// Seconds since 1970 by this clock; none if there is none, or if it shows no date.
///
/// # Safety
/// Boot: nobody else uses the CMOS memory.
pub unsafe fn unix_seconds() -> Option<u64> {
    let read = |register: u8| {
        // SAFETY: the clock's own ports (caller). NMIs, whose mask is bit 7 of the index, stay on.
        unsafe {
            Port::<u8>::new(INDEX).write(register);
            Port::<u8>::new(DATA).read()
        }
    };
    let status_b = read(STATUS_B);
    if read(STATUS_A) == NOTHING_THERE && status_b == NOTHING_THERE {
        return None;
    }
    let end = tsc::now() + tsc::from_us(PATIENCE_US);
    let date = || CmosDate {
        seconds: read(SECONDS),
        minutes: read(MINUTES),
        hours: read(HOURS),
        day: read(DAY),
        month: read(MONTH),
        year: read(YEAR),
        status_b,
    };
    // An update that begins right after the first look would spoil one reading, not two equal ones.
    loop {
        if read(STATUS_A) & UPDATE_IN_PROGRESS == 0 {
            let first = date();
            if read(STATUS_A) & UPDATE_IN_PROGRESS == 0 && date() == first {
                return first.unix_seconds();
            }
        }
        if tsc::now() >= end {
            return None;
        }
        cpu::pause();
    }
}
