//! Which CPUs there are, and where device interrupts arrive: the MADT, found and validated by `acpi`, its entries walked by
//! [`orrery_core::firmware::madt`].
//!
//! Firmware may be broken. Whatever is wrong with the tables, the kernel runs on, if need be with
//! the boot CPU alone; so what `acpi` takes on trust (addresses and lengths) is checked here.

use core::fmt;
use core::ptr::NonNull;

use acpi::madt::Madt;
use acpi::sdt::SdtHeader;
use acpi::{AcpiError, AcpiHandler, AcpiTables, PhysicalMapping};
use orrery_core::firmware::madt::{self, DamagedEntry, IsaRoute, usable_cpus};
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
    /// The root pointer or the root table has an impossible length.
    RootLength,
    /// The MADT is damaged.
    Madt(DamagedEntry),
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
            Self::RootLength => f.write_str("ACPI tables: the root has an impossible length"),
            Self::Madt(entry) => write!(f, "{entry}"),
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
    let bytes = madt(rsdp)?;
    let mut cpus = Cpus::only(boot_apic_id);
    let mut boot_cpu_listed = false;
    for apic_id in usable_cpus(bytes) {
        let apic_id = apic_id.map_err(Error::Madt)?;
        boot_cpu_listed |= apic_id == boot_apic_id;
        cpus.push(apic_id);
    }
    if !boot_cpu_listed {
        return Err(Error::BootCpuMissing { apic_id: boot_apic_id });
    }
    Ok(cpus)
}

/// Where ISA interrupt `irq` arrives, if firmware says.
pub(super) fn isa_route(rsdp: Option<u64>, irq: u8) -> Option<IsaRoute> {
    madt(rsdp).ok().and_then(|table| madt::isa_route(table, irq))
}

/// The MADT's bytes, which stay mapped.
fn madt(rsdp: Option<u64>) -> Result<&'static [u8], Error> {
    let rsdp = rsdp.ok_or(Error::NoRootPointer)?;
    check_root(rsdp)?;
    // SAFETY: the loader vouches for the address; `Mapper` maps whatever is asked for.
    let tables = unsafe { AcpiTables::from_rsdp(Mapper, rsdp as usize) }.map_err(Error::Table)?;
    let madt = tables.find_table::<Madt>().map_err(Error::Table)?;
    // SAFETY: `acpi` has mapped and validated so many bytes, and `Mapper` never takes a mapping back.
    Ok(unsafe {
        core::slice::from_raw_parts(
            madt.virtual_start().as_ptr().cast::<u8>(),
            madt.region_length().min(TABLE_LIMIT_BYTES),
        )
    })
}

/// Checks the two lengths that `acpi` follows before it has seen a valid checksum, or subtracts
/// from.
fn check_root(rsdp: u64) -> Result<(), Error> {
    /// Bytes of a root pointer of revision 2 and later (ACPI 6.5, 5.2.5.3).
    const RSDP_BYTES: u64 = 36;
    const REVISION_AT: u64 = 15;
    const RSDT_AT: u64 = 16;
    const LENGTH_AT: u64 = 20;
    const XSDT_AT: u64 = 24;

    let word = |at: u64| -> u32 {
        // SAFETY: a word of memory that the loader or the root pointer names; `Mapper` maps it, or
        // shows zeroes.
        unsafe {
            Mapper.map_physical_region::<u32>(at as usize, 4).virtual_start().read_unaligned()
        }
    };
    let revision = word(rsdp + REVISION_AT - 3) >> 24;
    let root = match revision {
        0 => u64::from(word(rsdp + RSDT_AT)),
        _ if u64::from(word(rsdp + LENGTH_AT)) > RSDP_BYTES => return Err(Error::RootLength),
        _ => u64::from(word(rsdp + XSDT_AT)) | u64::from(word(rsdp + XSDT_AT + 4)) << 32,
    };
    /// Where every table has its length (ACPI 6.5, 5.2.6).
    const TABLE_LENGTH_AT: u64 = 4;
    let len_bytes = word(root.saturating_add(TABLE_LENGTH_AT)) as usize;
    let possible = size_of::<SdtHeader>()..=TABLE_LIMIT_BYTES;
    if possible.contains(&len_bytes) { Ok(()) } else { Err(Error::RootLength) }
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
