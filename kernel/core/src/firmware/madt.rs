//! The CPUs and the I/O APICs in an ACPI MADT (ACPI 6.5, 5.2.12): a table header, then entries that begin with their
//! kind and their length.

use core::fmt;

/// Bytes before the first entry: the table's header, the local APIC's address, flags.
pub const HEADER_BYTES: usize = 44;

/// Entry kinds that stand for a CPU (ACPI 6.5, 5.2.12.2 and 5.2.12.12).
const LOCAL_APIC: u8 = 0;
const LOCAL_X2APIC: u8 = 9;
/// Kinds of the entries for I/O APICs and for ISA interrupts that are not wired to the input of their own
/// number (ACPI 6.5, 5.2.12.3 and 5.2.12.5).
const IO_APIC: u8 = 1;
const SOURCE_OVERRIDE: u8 = 2;
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
    entries(table, |entry| {
        let (apic_id, flags) = match entry[0] {
            LOCAL_APIC => (u32::from(*entry.get(3)?), word(entry, 4)?),
            LOCAL_X2APIC => (word(entry, 4)?, word(entry, 8)?),
            _ => return Some(None),
        };
        Some((flags & ENABLED != 0).then_some(apic_id))
    })
}

/// Which input of which I/O APIC an ISA interrupt arrives at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct IsaRoute {
    /// Physical address of the I/O APIC's registers.
    pub io_apic: u32,
    /// Number of the input, from 0.
    pub input: u32,
    /// Polarity and trigger mode: MPS INTI flags (ACPI 6.5, table 5.26); 0 is as ISA has it.
    pub flags: u16,
}

/// Where ISA interrupt `irq` arrives, if the table says.
pub fn isa_route(table: &[u8], irq: u8) -> Option<IsaRoute> {
    let mut overrides = entries(table, |entry| match entry[0] {
        SOURCE_OVERRIDE if *entry.get(3)? == irq => {
            let flags = u16::from_le_bytes(*entry.get(8..)?.first_chunk()?);
            Some(Some((word(entry, 4)?, flags)))
        }
        _ => Some(None),
    });
    let (global, flags) = overrides.find_map(Result::ok).unwrap_or((u32::from(irq), 0));
    let io_apics = entries(table, |entry| match entry[0] {
        IO_APIC => Some(Some((word(entry, 4)?, word(entry, 8)?))),
        _ => Some(None),
    });
    // Each serves the interrupts from its base up to the next one's.
    let serves = io_apics.filter_map(Result::ok).filter(|(_, base)| *base <= global);
    let (io_apic, base) = serves.max_by_key(|(_, base)| *base)?;
    Some(IsaRoute { io_apic, input: global - base, flags })
}

/// What `read` makes of the table's entries, without those of which it makes nothing. Where it finds an entry too short it
/// returns `None`, and the iterator ends.
fn entries<'a, T>(
    table: &'a [u8],
    read: impl Fn(&'a [u8]) -> Option<Option<T>> + 'a,
) -> impl Iterator<Item = Result<T, DamagedEntry>> + 'a {
    let mut offset = HEADER_BYTES;
    core::iter::from_fn(move || {
        while offset < table.len() {
            let rest = &table[offset..];
            let len_bytes = rest.get(1).map_or(0, |&len_bytes| usize::from(len_bytes));
            let entry = rest.get(..len_bytes).filter(|entry| entry.len() >= 2);
            match entry.and_then(&read) {
                Some(found) => {
                    offset += len_bytes;
                    if let Some(found) = found {
                        return Some(Ok(found));
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

fn word(entry: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_le_bytes(*entry.get(at..)?.first_chunk()?))
}
