//! The I/O APIC, as far as it takes to let one ISA device interrupt the boot CPU (Intel 82093AA data sheet).
//!
//! Firmware's MADT says where the registers are and which input a device is wired to. All inputs are masked after a
//! reset and stay so, but for those that [`route_isa`] opens.

use core::ptr::NonNull;

use super::{acpi, percpu};
use crate::mm;

/// Offsets of the two registers through which the others are reached, and their size, in bytes.
const SELECT: usize = 0x00;
const WINDOW: usize = 0x10;
const REGISTERS_BYTES: u64 = 0x20;

/// Index of the version register, whose bits 16 to 23 are the number of the last input.
const VERSION: u32 = 0x01;
/// Index of the first input's low word; its high word is the next.
const FIRST_INPUT: u32 = 0x10;
const ACTIVE_LOW: u32 = 1 << 13;
const LEVEL_TRIGGERED: u32 = 1 << 15;

/// MPS INTI flags (ACPI 6.5, table 5.26), two bits each: 3 differs from what ISA has.
const POLARITY_LOW: u16 = 3;
const TRIGGER_LEVEL: u16 = 3 << 2;

/// Why an interrupt cannot be had.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NoRoute;

/// Lets ISA interrupt `irq` interrupt this CPU at `vector`. `rsdp` is the ACPI root pointer.
///
/// # Errors
/// [`NoRoute`] where firmware names no I/O APIC for it.
///
/// # Panics
/// As [`mm::map_mmio`]; meant for boot, on the boot CPU, before others do the same.
pub fn route_isa(rsdp: Option<u64>, irq: u8, vector: u8) -> Result<(), NoRoute> {
    let route = acpi::isa_route(rsdp, irq).ok_or(NoRoute)?;
    let registers = mm::map_mmio(u64::from(route.io_apic), REGISTERS_BYTES);
    let registers = IoApic(NonNull::new(registers.as_mut_ptr()).ok_or(NoRoute)?);
    let last = registers.read(VERSION) >> 16 & 0xFF;
    if route.input > last {
        return Err(NoRoute);
    }
    let mut low = u32::from(vector);
    if route.flags & POLARITY_LOW == POLARITY_LOW {
        low |= ACTIVE_LOW;
    }
    if route.flags & TRIGGER_LEVEL == TRIGGER_LEVEL {
        low |= LEVEL_TRIGGERED;
    }
    let index = FIRST_INPUT + 2 * route.input;
    // The destination first: the low word opens the input.
    registers.write(index + 1, percpu::apic_id() << 24);
    registers.write(index, low);
    Ok(())
}

/// An I/O APIC's registers, mapped.
struct IoApic(NonNull<u8>);

impl IoApic {
    fn at(&self, offset: usize) -> *mut u32 {
        // SAFETY: within the registers, which are mapped for good (`route_isa`).
        unsafe { self.0.as_ptr().add(offset).cast() }
    }

    fn read(&self, index: u32) -> u32 {
        // SAFETY: the registers are there, and one CPU uses them at a time (`route_isa`).
        unsafe {
            self.at(SELECT).write_volatile(index);
            self.at(WINDOW).read_volatile()
        }
    }

    fn write(&self, index: u32, value: u32) {
        // SAFETY: as in `read`.
        unsafe {
            self.at(SELECT).write_volatile(index);
            self.at(WINDOW).write_volatile(value);
        }
    }
}
