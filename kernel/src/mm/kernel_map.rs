//! The kernel's own page tables.
//!
//! Built once at boot, then loaded for good. Nothing is both writable and executable: the image is
//! mapped by its three segments, and everything else is data. The image's memory is not in the
//! direct map, so that there is no second, writable way to its code; only a bundle among its constants is,
//! read-only.

use x86_64::registers::control::{Cr3, Cr3Flags};
use x86_64::structures::paging::mapper::MapToError;
use x86_64::structures::paging::{
    FrameAllocator, Mapper, OffsetPageTable, Page, PageSize, PageTable, PageTableFlags, PhysFrame,
    Size1GiB, Size2MiB, Size4KiB,
};
use x86_64::{PhysAddr, VirtAddr};

use super::early::EarlyFrames;
use super::layout::{DIRECT_MAP, DIRECT_MAP_BYTES, UPPER_HALF};
use crate::arch::features;
use crate::arch::stacks::BOOT_STACKS;
use crate::boot::{self, BootInfo, MemoryRange};

/// Kernel data: present in every address space, hence global; written and never executed.
pub(super) const DATA: PageTableFlags = PageTableFlags::PRESENT
    .union(PageTableFlags::WRITABLE)
    .union(PageTableFlags::NO_EXECUTE)
    .union(PageTableFlags::GLOBAL);
const CODE: PageTableFlags = PageTableFlags::PRESENT.union(PageTableFlags::GLOBAL);
pub(super) const CONSTANTS: PageTableFlags = CODE.union(PageTableFlags::NO_EXECUTE);
/// Device registers: never cached.
pub(super) const DEVICE: PageTableFlags =
    DATA.union(PageTableFlags::NO_CACHE).union(PageTableFlags::WRITE_THROUGH);

/// What went wrong while mapping, in words that `mm::init` can print.
const NO_FRAMES: &str = "too little memory for the kernel's page tables; give the machine more";

/// Builds the tables. Physical address of the root.
///
/// # Errors
/// When memory runs out or the memory map contradicts itself.
pub(super) fn build(boot: &BootInfo, frames: &mut EarlyFrames) -> Result<PhysAddr, &'static str> {
    let root = frames.alloc(4096).ok_or(NO_FRAMES)?;
    // SAFETY: a zeroed frame of our own, mapped by the loader.
    let table = unsafe { &mut *((root.as_u64() + boot.loader_offset) as *mut PageTable) };
    for entry in UPPER_HALF..512 {
        let below = frames.alloc(4096).ok_or(NO_FRAMES)?;
        table[entry].set_addr(below, PageTableFlags::PRESENT | PageTableFlags::WRITABLE);
    }
    // SAFETY: `table` and all below it are reached through the loader's mapping at this offset.
    let mut mapper = unsafe { OffsetPageTable::new(table, VirtAddr::new(boot.loader_offset)) };
    map_image(&mut mapper, boot, frames)?;
    // The first MiB has the firmware's tables and the page that other CPUs start on.
    let low = MemoryRange { start: 0, end: 1 << 20, kind: boot::MemoryKind::Acpi };
    map_direct(&mut mapper, &low, frames)?;
    for range in boot.memory.ranges().iter().filter(|range| range.kind.is_direct_mapped()) {
        let above = MemoryRange { start: range.start.max(low.end), ..*range };
        map_direct(&mut mapper, &above, frames)?;
    }
    // A bundle in the image is handed to programs page by page, like one that a loader brought.
    if let Some(bundle) = boot::embedded_bundle(boot.image_base) {
        for at in bundle.step_by(4096) {
            let to = VirtAddr::new(DIRECT_MAP + at);
            map_page::<Size4KiB>(&mut mapper, to, PhysAddr::new(at), CONSTANTS, frames)?;
        }
    }
    Ok(root)
}

fn map_image(
    mapper: &mut OffsetPageTable<'_>,
    boot: &BootInfo,
    frames: &mut EarlyFrames,
) -> Result<(), &'static str> {
    let [start, text, data, end] = boot::segments();
    for (from, to, flags) in [(start, text, CONSTANTS), (text, data, CODE), (data, end, DATA)] {
        for at in (from..to).step_by(4096) {
            if BOOT_STACKS.overflow_at(at) {
                continue;
            }
            let physical = PhysAddr::new(boot.image_base + (at - start));
            map_page::<Size4KiB>(mapper, VirtAddr::new(at), physical, flags, frames)?;
        }
    }
    Ok(())
}

/// Maps a range in the direct map, in the largest pages that fit.
fn map_direct(
    mapper: &mut OffsetPageTable<'_>,
    range: &MemoryRange,
    frames: &mut EarlyFrames,
) -> Result<(), &'static str> {
    if range.end > DIRECT_MAP_BYTES {
        return Err("the machine has memory beyond 64 TiB, where the direct map ends");
    }
    let gigabyte_pages = features::detect().gigabyte_pages;
    let mut at = range.start;
    while at < range.end {
        let fits = |size: u64| at.is_multiple_of(size) && at + size <= range.end;
        let (to, from) = (VirtAddr::new(DIRECT_MAP + at), PhysAddr::new(at));
        if gigabyte_pages && fits(Size1GiB::SIZE) {
            map_page::<Size1GiB>(mapper, to, from, DATA, frames)?;
            at += Size1GiB::SIZE;
        } else if fits(Size2MiB::SIZE) {
            map_page::<Size2MiB>(mapper, to, from, DATA, frames)?;
            at += Size2MiB::SIZE;
        } else {
            map_page::<Size4KiB>(mapper, to, from, DATA, frames)?;
            at += Size4KiB::SIZE;
        }
    }
    Ok(())
}

/// Maps one page that was not mapped before; no flush is needed.
pub(super) fn map_page<'t, S: PageSize + core::fmt::Debug>(
    mapper: &mut OffsetPageTable<'t>,
    to: VirtAddr,
    from: PhysAddr,
    flags: PageTableFlags,
    frames: &mut impl FrameAllocator<Size4KiB>,
) -> Result<(), &'static str>
where
    OffsetPageTable<'t>: Mapper<S>,
{
    let page = Page::<S>::containing_address(to);
    let frame = PhysFrame::<S>::containing_address(from);
    let parents = PageTableFlags::PRESENT | PageTableFlags::WRITABLE;
    // SAFETY: the callers choose addresses that nothing else is at.
    match unsafe { mapper.map_to_with_table_flags(page, frame, flags, parents, frames) } {
        Ok(flush) => {
            flush.ignore();
            Ok(())
        }
        Err(MapToError::FrameAllocationFailed) => Err(NO_FRAMES),
        Err(MapToError::PageAlreadyMapped(_) | MapToError::ParentEntryHugePage) => {
            Err("the memory map lists the same memory twice")
        }
    }
}

/// Makes this CPU use the kernel's tables.
///
/// # Safety
/// `root` is from [`build`]; the code, the stack and the data in use are mapped there alike.
pub(super) unsafe fn load(root: PhysAddr) {
    // SAFETY: by contract.
    unsafe { Cr3::write(PhysFrame::containing_address(root), Cr3Flags::empty()) };
}

/// What [`check_write_xor_execute`] saw.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct WxReport {
    /// Mapped pages of any size that can be executed.
    pub executable: u64,
    /// Mapped pages of any size that can be written.
    pub writable: u64,
    /// Mapped pages of any size, these included.
    pub pages: u64,
}

/// Walks the kernel's page tables.
///
/// # Errors
/// The first page that is both writable and executable.
pub fn check_write_xor_execute() -> Result<WxReport, VirtAddr> {
    let mut report = WxReport::default();
    walk(super::root(), 4, 0, &mut report).map(|()| report)
}

fn walk(table: PhysAddr, level: u32, base: u64, report: &mut WxReport) -> Result<(), VirtAddr> {
    for index in 0..512 {
        let entry = entry_at(table, index);
        let flags = PageTableFlags::from_bits_truncate(entry);
        if !flags.contains(PageTableFlags::PRESENT) {
            continue;
        }
        let address = base | (index as u64) << (12 + 9 * (level - 1));
        if level > 1 && !flags.contains(PageTableFlags::HUGE_PAGE) {
            walk(PhysAddr::new(entry & ADDRESS_BITS), level - 1, address, report)?;
            continue;
        }
        let writable = flags.contains(PageTableFlags::WRITABLE);
        let executable = !flags.contains(PageTableFlags::NO_EXECUTE);
        if writable && executable {
            return Err(VirtAddr::new_truncate(address));
        }
        report.pages += 1;
        report.writable += u64::from(writable);
        report.executable += u64::from(executable);
    }
    Ok(())
}

/// The bits of an entry that are an address (SDM vol. 3, table 4-20).
const ADDRESS_BITS: u64 = 0x000f_ffff_ffff_f000;

fn entry_at(table: PhysAddr, index: usize) -> u64 {
    let at = super::address::phys_to_virt(table).as_ptr::<u64>();
    // SAFETY: tables are in the direct map and never freed; entries change by single stores.
    unsafe { at.add(index).read_volatile() }
}

/// Whether `address` is mapped below this root.
pub(super) fn is_mapped(root: PhysAddr, address: VirtAddr) -> bool {
    let mut table = root;
    for level in (1..=4u32).rev() {
        let index = (address.as_u64() >> (12 + 9 * (level - 1)) & 511) as usize;
        let entry = entry_at(table, index);
        let flags = PageTableFlags::from_bits_truncate(entry);
        if !flags.contains(PageTableFlags::PRESENT) {
            return false;
        }
        if level > 1 && flags.contains(PageTableFlags::HUGE_PAGE) {
            return true;
        }
        table = PhysAddr::new(entry & ADDRESS_BITS);
    }
    true
}
