//! Interrupt vectors. The highest have the highest priority (SDM vol. 3, 10.8.3).

/// Bytes have arrived on the line that programs read.
pub const INPUT: u8 = 0x40;
/// Local timer.
pub const TIMER: u8 = 0xF0;
/// Another CPU wants this one to reschedule.
pub const RESCHEDULE: u8 = 0xF1;
/// Another CPU wants this one to call functions.
pub const CALL_FUNCTION: u8 = 0xF2;
/// The boot CPU lets this one go on; see `smp`.
pub const START: u8 = 0xFD;
/// The local APIC reports an error.
pub const APIC_ERROR: u8 = 0xFE;
/// The local APIC took an interrupt back.
pub const SPURIOUS: u8 = 0xFF;

/// Where the 8259s' 16 lines are put, masked as they are: a spurious IRQ 7 or 15 comes even so.
pub const LEGACY_FIRST: u8 = 0x20;

/// Whether the vector is one of the 8259s'.
#[inline(always)]
pub fn is_legacy(vector: u8) -> bool {
    vector & 0xF0 == LEGACY_FIRST
}

/// Whether the vector is for this floor alone.
#[inline(always)]
pub fn is_internal(vector: u8) -> bool {
    vector >= START || is_legacy(vector)
}
