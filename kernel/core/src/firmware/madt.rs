//! The CPUs in an ACPI MADT (ACPI 6.5, 5.2.12): a table header, then entries that begin with their
//! kind and their length.

use core::fmt;

/// Bytes before the first entry: the table's header, the local APIC's address, flags.
pub const HEADER_BYTES: usize = 44;

/// Entry kinds that stand for a CPU (ACPI 6.5, 5.2.12.2 and 5.2.12.12).
const LOCAL_APIC: u8 = 0;
const LOCAL_X2APIC: u8 = 9;
/// Flag of a CPU that is ready for use.
const ENABLED: u32 = 1;

/// An entry that is longer than what is left of the table, or shorter than its kind is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DamagedEntry {
    /// Where in the table it begins, in bytes.
    pub offset: usize,
}

impl fmt::Display for DamagedEntry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ACPI MADT: damaged entry at offset {}", self.offset)
    }
}

impl core::error::Error for DamagedEntry {}

/// The local APIC ids of the usable CPUs in `table`, header included, in the table's order. The
/// iterator ends after a damaged entry, since what follows cannot be found.
pub fn usable_cpus(table: &[u8]) -> impl Iterator<Item = Result<u32, DamagedEntry>> + '_ {
    let mut offset = HEADER_BYTES;
    core::iter::from_fn(move || {
        while offset < table.len() {
            match entry(&table[offset..]) {
                Some((len_bytes, cpu)) => {
                    offset += len_bytes;
                    if let Some(apic_id) = cpu {
                        return Some(Ok(apic_id));
                    }
                }
                None => {
                    let damaged = DamagedEntry { offset };
                    offset = table.len();
                    return Some(Err(damaged));
                }
            }
        }
        None
    })
}

/// The first entry of `rest`: its length and, if it is a usable CPU, its local APIC id.
fn entry(rest: &[u8]) -> Option<(usize, Option<u32>)> {
    let &[kind, len_bytes, ..] = rest else { return None };
    let len_bytes = usize::from(len_bytes);
    let entry = rest.get(..len_bytes).filter(|entry| entry.len() >= 2)?;
    let word = |at: usize| Some(u32::from_le_bytes(*entry.get(at..)?.first_chunk()?));
    let (apic_id, flags) = match kind {
        LOCAL_APIC => (u32::from(*entry.get(3)?), word(4)?),
        LOCAL_X2APIC => (word(4)?, word(8)?),
        _ => return Some((len_bytes, None)),
    };
    Some((len_bytes, (flags & ENABLED != 0).then_some(apic_id)))
}
