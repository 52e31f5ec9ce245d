//! Which CPUs there are: the MADT, found and validated by `acpi`.
//!
//! Its entries are walked here, with bounds, since firmware may be broken: whatever is wrong with
//! the tables, the kernel runs on, if need be with the boot CPU alone.

use core::fmt;
use core::ptr::NonNull;

use acpi::madt::Madt;
use acpi::{AcpiError, AcpiHandler, AcpiTables, PhysicalMapping};
use x86_64::PhysAddr;

use super::percpu::MAX_CPUS;
use crate::mm;

/// Tables larger than this are taken for damaged.
const TABLE_LIMIT_BYTES: usize = 1 << 20;

/// The CPUs that firmware lists, by local APIC id, in its order.
#[derive(Clone, Debug)]
pub struct Cpus {
    apic_ids: [u32; MAX_CPUS],
    len: usize,
    /// Usable CPUs beyond those that fit.
    pub beyond: usize,
}

impl Cpus {
    /// Only this one.
    pub fn only(apic_id: u32) -> Self {
        let mut cpus = Self { apic_ids: [0; MAX_CPUS], len: 0, beyond: 0 };
        cpus.push(apic_id);
        cpus
    }

    /// Their local APIC ids; the boot CPU's is the first.
    pub fn apic_ids(&self) -> &[u32] {
        &self.apic_ids[..self.len]
    }

    fn push(&mut self, apic_id: u32) {
        if self.apic_ids().contains(&apic_id) {
            return;
        }
        match self.apic_ids.get_mut(self.len) {
            Some(slot) => {
                *slot = apic_id;
                self.len += 1;
            }
            None => self.beyond += 1,
        }
    }
}

/// Why firmware's list cannot be used.
#[derive(Debug)]
pub enum Error {
    /// The loader passed no root pointer.
    NoRootPointer,
    /// A table is missing or damaged.
    Table(AcpiError),
    /// An entry of the MADT is longer than what is left, or shorter than its kind.
    MadtEntry {
        /// Its offset in the table, bytes.
        offset: usize,
    },
    /// The boot CPU is not in the list.
    BootCpuMissing {
        /// Its local APIC id.
        apic_id: u32,
    },
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoRootPointer => {
                f.write_str("the loader passed no ACPI root pointer (with QEMU's microvm: acpi=on)")
            }
            Self::Table(why) => write!(f, "ACPI tables: {why:?}"),
            Self::MadtEntry { offset } => write!(f, "ACPI MADT: damaged entry at offset {offset}"),
            Self::BootCpuMissing { apic_id } => {
                write!(f, "ACPI MADT: does not list the boot CPU, APIC id {apic_id}")
            }
        }
    }
}

/// Reads the list; the boot CPU, whose APIC id is given, comes first.
///
/// # Errors
/// [`Error`], in which case nothing is known but the boot CPU.
pub(super) fn cpus(rsdp: Option<u64>, boot_apic_id: u32) -> Result<Cpus, Error> {
    let rsdp = rsdp.ok_or(Error::NoRootPointer)?;
    // SAFETY: the loader vouches for the address; `Mapper` maps whatever is asked for.
    let tables = unsafe { AcpiTables::from_rsdp(Mapper, rsdp as usize) }.map_err(Error::Table)?;
    let madt = tables.find_table::<Madt>().map_err(Error::Table)?;
    // SAFETY: `acpi` has mapped and validated so many bytes.
    let bytes = unsafe {
        core::slice::from_raw_parts(
            madt.virtual_start().as_ptr().cast::<u8>(),
            madt.region_length().min(TABLE_LIMIT_BYTES),
        )
    };
    let mut cpus = Cpus::only(boot_apic_id);
    let mut boot_cpu_listed = false;
    let mut offset = size_of::<Madt>();
    while offset < bytes.len() {
        let rest = &bytes[offset..];
        let entry = match rest {
            [_, len, ..] if *len >= 2 => rest.get(..usize::from(*len)),
            _ => None,
        };
        let entry = entry.ok_or(Error::MadtEntry { offset })?;
        if let Some(apic_id) = usable_cpu(entry).ok_or(Error::MadtEntry { offset })? {
            boot_cpu_listed |= apic_id == boot_apic_id;
            cpus.push(apic_id);
        }
        offset += entry.len();
    }
    if !boot_cpu_listed {
        return Err(Error::BootCpuMissing { apic_id: boot_apic_id });
    }
    Ok(cpus)
}

/// The local APIC id in a MADT entry (ACPI 6.5, 5.2.12.2 and 5.2.12.12), if it is a usable CPU.
/// `None` for an entry that is too short.
fn usable_cpu(entry: &[u8]) -> Option<Option<u32>> {
    let word = |at: usize| Some(u32::from_le_bytes(*entry.get(at..)?.first_chunk()?));
    let (apic_id, flags) = match entry[0] {
        0 => (u32::from(*entry.get(3)?), word(4)?),
        9 => (word(4)?, word(8)?),
        _ => return Some(None),
    };
    let enabled = flags & 1 != 0;
    Some(enabled.then_some(apic_id))
}

/// Lets `acpi` read physical memory. Firmware's memory that is not in the direct map is mapped for
/// good: a few tables, once.
#[derive(Clone, Copy)]
struct Mapper;

/// What is shown in place of tables that cannot be where they are said to be: its signature is no
/// table's, so that `acpi` reports it as damaged.
#[repr(align(4096))]
struct NoTable([u8; 4096]);
static NO_TABLE: NoTable = NoTable([0; 4096]);

impl AcpiHandler for Mapper {
    unsafe fn map_physical_region<T>(
        &self,
        at: usize,
        len_bytes: usize,
    ) -> PhysicalMapping<Self, T> {
        let physical = at as u64;
        let sane = len_bytes <= TABLE_LIMIT_BYTES
            && physical
                .checked_add(len_bytes as u64)
                .is_some_and(|end| end <= super::cpu::physical_limit());
        let start = if !sane {
            NO_TABLE.0.as_ptr() as u64
        } else if mm::is_direct_mapped(physical, len_bytes as u64) {
            mm::address::phys_to_virt(PhysAddr::new(physical)).as_u64()
        } else {
            mm::map_firmware(physical, len_bytes as u64).as_u64()
        };
        let start = NonNull::new(start as *mut T).expect("kernel addresses are not null");
        // SAFETY: mapped for good, for that length; or a whole page in place of a damaged table,
        // of which no more than the header is read.
        unsafe { PhysicalMapping::new(at, start, len_bytes, len_bytes, *self) }
    }

    fn unmap_physical_region<T>(_region: &PhysicalMapping<Self, T>) {}
}
