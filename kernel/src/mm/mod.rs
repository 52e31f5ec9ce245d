//! Memory: page tables, frames, heap, stacks.
//!
//! Bottom up: [`layout`] says where things are, [`address`] how to get from one kind of address to
//! the other; `early` feeds `kernel_map`, which builds the page tables; then [`frames`] hands out
//! physical memory, [`heap`] grows from it, and [`stack`] and [`map_mmio`] map it. [`space`] is what
//! processes have, [`user`] what they put there.
//!
//! Lock order: stack pool → page tables → frames; heap → frames.

pub mod address;
pub mod dma;
mod early;
pub mod frames;
pub mod heap;
mod kernel_map;
pub mod layout;
pub mod space;
pub mod stack;
pub mod user;

use core::sync::atomic::{AtomicU64, Ordering};

use orrery_core::frames::Pfn;
use x86_64::structures::paging::{FrameAllocator, OffsetPageTable, PageTable, PhysFrame, Size4KiB};

pub use address::{PhysAddr, VirtAddr};
pub use kernel_map::{WxReport, check_write_xor_execute};

use crate::arch::trampoline;
use crate::boot::{BootInfo, die};
use crate::sync::SpinLock;

/// No memory is left for what was asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OutOfMemory;

impl core::fmt::Display for OutOfMemory {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str("out of memory; give the machine more")
    }
}

impl core::error::Error for OutOfMemory {}

/// Physical address of the kernel's root table; 0 before `init`.
static ROOT: AtomicU64 = AtomicU64::new(0);

/// Guards changes to the kernel's page tables below the root.
static TABLES: SpinLock<Tables> = SpinLock::new("page tables", Tables(None));

struct Tables(Option<OffsetPageTable<'static>>);

impl Tables {
    fn mapper(&mut self) -> &mut OffsetPageTable<'static> {
        self.0.as_mut().expect("mm::init has run")
    }
}

/// Builds and loads the kernel's page tables, and starts the frame allocator. The heap grows from
/// it on first use.
///
/// # Safety
/// Once, on the boot CPU, after `arch::init_boot_cpu`, with the loader's tables still in force.
pub unsafe fn init(boot: &BootInfo) {
    let mut early = early::EarlyFrames::new(boot).unwrap_or_else(|why| die(why));
    address::set_image_base(boot.image_base);
    let root = kernel_map::build(boot, &mut early).unwrap_or_else(|why| die(why));
    let metadata = frames::reserve_metadata(boot, &mut early).unwrap_or_else(|why| die(why));
    // SAFETY: the image, the boot stack included, is mapped as the loader mapped it.
    unsafe { kernel_map::load(root) };
    ROOT.store(root.as_u64(), Ordering::Relaxed);
    // SAFETY: the root is in the direct map, and only `TABLES` changes what is below it.
    let table = unsafe { &mut *address::phys_to_virt(root).as_mut_ptr::<PageTable>() };
    // SAFETY: all tables are in the direct map.
    let mapper = unsafe { OffsetPageTable::new(table, VirtAddr::new(layout::DIRECT_MAP)) };
    TABLES.lock_irq().0 = Some(mapper);
    reserve_low_pages(boot);
    // SAFETY: the metadata was reserved for this; all usable memory is mapped now.
    unsafe { frames::init(boot, &early, metadata) };
    space::init();
    if cfg!(debug_assertions)
        && let Err(page) = check_write_xor_execute()
    {
        panic!("the page at {page:?} is writable and executable");
    }
}

/// Physical address of the pages below 1 MiB where other CPUs start; 0 if there are none.
static LOW_PAGES: AtomicU64 = AtomicU64::new(0);

/// Keeps the highest pages below 640 KiB that are free. All free memory below 1 MiB is left out of
/// the frame allocator; page 0 is not used even so, for what the BIOS keeps there.
fn reserve_low_pages(boot: &BootInfo) {
    const LIMIT: u64 = 640 << 10;
    let len_bytes = trampoline::PAGES * 4096;
    let low = boot.memory.ranges().iter().filter(|range| frames::is_ours(range.kind));
    let pages = low
        .map(|range| (range.start.max(4096), range.end.min(LIMIT)))
        .filter(|(start, end)| start + len_bytes <= *end)
        .map(|(_, end)| end - len_bytes)
        .max();
    LOW_PAGES.store(pages.unwrap_or(0), Ordering::Relaxed);
}

/// Physical address of the pages for the [`trampoline`].
pub(crate) fn low_pages() -> Option<u64> {
    Some(LOW_PAGES.load(Ordering::Relaxed)).filter(|&pages| pages != 0)
}

/// The kernel's root page table, for CPUs that start.
pub fn root() -> PhysAddr {
    PhysAddr::new(ROOT.load(Ordering::Relaxed))
}

/// Maps device registers for good, uncached. The address has the same offset in its page.
///
/// # Panics
/// When memory or the devices' region is exhausted; meant for boot.
pub fn map_mmio(physical: u64, len_bytes: u64) -> VirtAddr {
    map_for_good(physical, len_bytes, kernel_map::DEVICE)
}

/// Maps memory that the direct map leaves out, read-only: firmware tables in reserved ranges.
///
/// # Panics
/// As [`map_mmio`].
pub fn map_firmware(physical: u64, len_bytes: u64) -> VirtAddr {
    map_for_good(physical, len_bytes, kernel_map::CONSTANTS)
}

fn map_for_good(
    physical: u64,
    len_bytes: u64,
    flags: x86_64::structures::paging::PageTableFlags,
) -> VirtAddr {
    /// Bytes of the devices' region in use.
    static USED_BYTES: AtomicU64 = AtomicU64::new(0);
    let offset = physical % 4096;
    let len_bytes = (offset + len_bytes).next_multiple_of(4096);
    let start = USED_BYTES.fetch_add(len_bytes, Ordering::Relaxed);
    assert!(start + len_bytes <= layout::ROOT_ENTRY_BYTES, "the devices' region is full");
    let mut tables = TABLES.lock_irq();
    for at in (0..len_bytes).step_by(4096) {
        let to = VirtAddr::new(layout::DEVICES + start + at);
        let from = PhysAddr::new(physical - offset + at);
        kernel_map::map_page::<Size4KiB>(tables.mapper(), to, from, flags, &mut TableFrames)
            .unwrap_or_else(|why| panic!("mapping a device at {physical:#x}: {why}"));
    }
    VirtAddr::new(layout::DEVICES + start + offset)
}

/// Whether the direct map covers all of these bytes.
pub fn is_direct_mapped(physical: u64, len_bytes: u64) -> bool {
    let Some(end) = physical.checked_add(len_bytes.max(1)) else { return false };
    end <= layout::DIRECT_MAP_BYTES
        && (physical / 4096 * 4096..end)
            .step_by(4096)
            .all(|at| is_mapped(VirtAddr::new(layout::DIRECT_MAP + at)))
}

/// Whether kernel address `address` is mapped. Reads the tables without a lock; they are never
/// freed. For a fault handler that must not fault.
pub fn is_mapped(address: VirtAddr) -> bool {
    let root = root();
    !root.is_null() && kernel_map::is_mapped(root, address)
}

/// Frames of page tables made since `init`, which are kept for ever.
static TABLE_FRAMES: AtomicU64 = AtomicU64::new(0);

/// Gives zeroed frames to the page tables.
struct TableFrames;

// SAFETY: every frame is handed out once, by the frame allocator.
unsafe impl FrameAllocator<Size4KiB> for TableFrames {
    fn allocate_frame(&mut self) -> Option<PhysFrame> {
        let pfn: Pfn = frames::alloc_zeroed(0)?;
        TABLE_FRAMES.fetch_add(1, Ordering::Relaxed);
        Some(PhysFrame::containing_address(PhysAddr::new(pfn.start_address())))
    }
}

/// Where the frames are, for leak checks: what is in none of these belongs to somebody.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Usage {
    /// Frames the allocator was given.
    pub total_frames: u64,
    /// Frames that are free, in caches or out of them.
    pub free_frames: u64,
    /// Frames the heap has claimed, which it keeps.
    pub heap_frames: u64,
    /// Frames of page tables made since boot, which are kept.
    pub table_frames: u64,
    /// Frames of stacks, in use or pooled.
    pub stack_frames: u64,
    /// Bytes of the heap in use.
    pub heap_used_bytes: u64,
}

/// Asks all of them. Exact while nothing is allocated meanwhile.
pub fn usage() -> Usage {
    let frames = frames::stats();
    let heap = heap::stats();
    Usage {
        total_frames: frames.total,
        free_frames: frames.free + frames.cached + space::pooled_frames(),
        heap_frames: heap.claimed_frames,
        table_frames: TABLE_FRAMES.load(Ordering::Relaxed),
        stack_frames: stack::stats().frames(),
        heap_used_bytes: heap.used_bytes,
    }
}
