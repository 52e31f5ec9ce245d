//! The two 8259s, silenced. They may be programmed to deliver at the CPU's own exception vectors
//! (the power-on state), so they are moved away first, and then masked for good.

use x86_64::instructions::port::Port;

use super::vectors::LEGACY_FIRST;

/// Moves both controllers to [`LEGACY_FIRST`] and masks all lines (Intel 8259A data sheet,
/// initialisation command words).
///
/// # Safety
/// Nobody waits for an interrupt of theirs.
pub unsafe fn silence() {
    // SAFETY: the controllers' own registers (caller).
    let write = |port: u16, value: u8| unsafe { Port::<u8>::new(port).write(value) };
    for (command, first_vector, cascade) in [(0x20, LEGACY_FIRST, 4), (0xA0, LEGACY_FIRST + 8, 2)] {
        let data = command + 1;
        write(command, 0x11); // ICW1: edge triggered, cascade, ICW4 follows
        write(data, first_vector); // ICW2
        write(data, cascade); // ICW3
        write(data, 0x01); // ICW4: 8086 mode
        write(data, 0xFF); // mask
    }
}
