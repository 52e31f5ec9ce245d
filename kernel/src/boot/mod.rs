//! Two doors, one hall: [`pvh`] and [`limine`] each fill the one [`BootInfo`] and call
//! `kernel_main`; nothing after that knows which of them it was.
//!
//! A door copies everything out of the loader's own structures (memory map, command line), so that
//! their memory is plain free memory afterwards. Door code runs on the loader's page tables, on the
//! boot stack, with interrupts off, and can report errors only as raw text on COM1 ([`die`]).

pub mod limine;
pub mod pvh;

use core::cell::UnsafeCell;
use core::sync::atomic::{AtomicU64, Ordering};

pub use orrery_core::firmware::memory_map::{MemoryKind, MemoryMap, MemoryRange};

use x86_64::PhysAddr;

use crate::arch::stacks::BOOT_STACKS;
use crate::arch::tsc;
use crate::drivers::exit::{self, Ending};
use crate::drivers::serial::Com1;
use crate::mm::address;

/// Longest command line, in bytes; more is cut off and [`BootInfo::command_line_cut`] says so.
const COMMAND_LINE_BYTES: usize = 4096;

/// What the loader told.
pub struct BootInfo {
    /// The door, for messages: `pvh` or `limine`.
    pub door: &'static str,
    /// The time at which the door was entered, in ticks of the time-stamp counter.
    pub entered_ticks: u64,
    /// Physical memory, as the loader describes it, with the image and the bundle carved out.
    pub memory: MemoryMap,
    /// Physical address of the ACPI root pointer.
    pub rsdp: Option<u64>,
    /// Physical address range of the boot bundle (first module), bytes.
    pub bundle: Option<core::ops::Range<u64>>,
    /// Physical address of the first byte of the image.
    pub image_base: u64,
    /// Where the loader's page tables map physical address 0: all usable memory below 4 GiB is
    /// mapped from there, until `mm::init` has made the kernel's own tables.
    pub loader_offset: u64,
    /// Whether the command line was longer than the kernel keeps.
    pub command_line_cut: bool,
    command_line: [u8; COMMAND_LINE_BYTES],
    command_line_len: usize,
}

impl BootInfo {
    const EMPTY: Self = Self {
        door: "",
        entered_ticks: 0,
        memory: MemoryMap::new(),
        rsdp: None,
        bundle: None,
        image_base: 0,
        loader_offset: 0,
        command_line_cut: false,
        command_line: [0; COMMAND_LINE_BYTES],
        command_line_len: 0,
    };

    /// The kernel command line.
    pub fn command_line(&self) -> &str {
        let bytes = &self.command_line[..self.command_line_len];
        match core::str::from_utf8(bytes) {
            Ok(line) => line,
            Err(error) => core::str::from_utf8(&bytes[..error.valid_up_to()]).unwrap_or(""),
        }
    }

    /// Notes the bundle, if it is where it can be used: at the start of a page, in RAM that nobody else
    /// has. Its memory is taken out of what is free, up to whole pages.
    fn set_bundle(&mut self, start: u64, len_bytes: u64) {
        self.memory.add(start, len_bytes, MemoryKind::Bundle);
        let end = start.saturating_add(len_bytes);
        let kept = self.memory.ranges().iter().filter(|range| range.kind == MemoryKind::Bundle);
        let kept_bytes: u64 =
            kept.map(|range| range.end.min(end).saturating_sub(range.start.max(start))).sum();
        if len_bytes > 0 && start.is_multiple_of(4096) && kept_bytes == len_bytes {
            self.bundle = Some(start..end);
        }
    }

    fn set_command_line(&mut self, line: &[u8]) {
        let len = line.len().min(COMMAND_LINE_BYTES);
        self.command_line_cut = line.len() > len || core::str::from_utf8(&line[..len]).is_err();
        self.command_line[..len].copy_from_slice(&line[..len]);
        self.command_line_len = len;
    }
}

/// The kernel command line.
pub fn command_line() -> &'static str {
    // SAFETY: written by the door only, long before; nobody has an exclusive reference any more.
    unsafe { &*BOOT_INFO.0.get() }.command_line()
}

/// Says that the first task runs.
pub fn finish() {
    FINISHED_TICKS.store(tsc::now(), Ordering::Relaxed);
}

/// When the boot began, at the loader's door, and when the first task ran: readings of the time-stamp counter.
pub fn times_ticks() -> (u64, u64) {
    // SAFETY: as above.
    let entered_ticks = unsafe { &*BOOT_INFO.0.get() }.entered_ticks;
    (entered_ticks, FINISHED_TICKS.load(Ordering::Relaxed))
}

/// The bundle: a cpio archive, in memory that is never handed out.
#[derive(Clone, Copy, Debug)]
pub struct Bundle {
    /// Its bytes, from the start of a page on.
    pub bytes: &'static [u8],
    /// Physical address of the first, a multiple of a page. All pages follow each other there, too.
    pub physical: PhysAddr,
}

/// The bundle that the loader brought or, where it brought none, the one that is embedded in the image; if
/// there is one. For use after `mm::init`.
pub fn bundle() -> Option<Bundle> {
    // SAFETY: written by the door only, long before; nobody has an exclusive reference any more.
    let boot = unsafe { &*BOOT_INFO.0.get() };
    let range = boot.bundle.clone().or_else(|| embedded_bundle(boot.image_base))?;
    let physical = PhysAddr::new(range.start);
    let start = address::phys_to_virt(physical).as_ptr::<u8>();
    let len_bytes = (range.end - range.start) as usize;
    // SAFETY: the range is whole in the memory map as `Bundle` (`set_bundle`), or a part of the image that
    // `mm::init` maps; so it is in the direct map, and the frame allocator never has it.
    Some(Bundle { bytes: unsafe { core::slice::from_raw_parts(start, len_bytes) }, physical })
}

/// Physical address range, in bytes, of the bundle in the constants of an image that is loaded at `image_base`;
/// if there is one. It begins at a page. The direct map has its pages too, read-only.
#[cfg(feature = "bundle")]
pub(crate) fn embedded_bundle(image_base: u64) -> Option<core::ops::Range<u64>> {
    #[repr(C, align(4096))]
    struct Pages<T: ?Sized>(T);
    static EMBEDDED: &Pages<[u8]> = &Pages(*include_bytes!(env!("ORRERY_BUNDLE")));
    let start = EMBEDDED.0.as_ptr() as u64 - image_start() + image_base;
    Some(start..start + EMBEDDED.0.len() as u64)
}

/// No bundle is embedded.
#[cfg(not(feature = "bundle"))]
pub(crate) fn embedded_bundle(_image_base: u64) -> Option<core::ops::Range<u64>> {
    None
}

struct TheBootInfo(UnsafeCell<BootInfo>);
// SAFETY: written by the one door, before there is a second CPU; read-only from `enter` on.
unsafe impl Sync for TheBootInfo {}
static FINISHED_TICKS: AtomicU64 = AtomicU64::new(0);
static BOOT_INFO: TheBootInfo = TheBootInfo(UnsafeCell::new(BootInfo::EMPTY));

/// Fills the boot information and goes through the hall.
///
/// # Safety
/// Called once, by the door that the loader came through, on the boot CPU.
unsafe fn enter(fill: impl FnOnce(&mut BootInfo)) -> ! {
    let entered_ticks = tsc::now();
    // SAFETY: nobody else has a reference yet (caller).
    let boot = unsafe { &mut *BOOT_INFO.0.get() };
    boot.entered_ticks = entered_ticks;
    fill(boot);
    // SAFETY: the exclusive reference is gone, and none is made again; the image defines
    // `kernel_main` with this signature.
    unsafe { kernel_main(&*BOOT_INFO.0.get()) }
}

unsafe extern "Rust" {
    /// The boot story, defined by the image's `main.rs`.
    fn kernel_main(boot: &'static BootInfo) -> !;
}

/// Address of the first byte above the boot stack.
const BOOT_STACK_TOP: usize = core::mem::offset_of!(crate::arch::stacks::BootStacks, boot)
    + crate::arch::stacks::GuardedStack::TOP;

/// Ends a boot that cannot go on: `reason` says what is wrong and what to do.
pub(crate) fn die(reason: &str) -> ! {
    let com1 = Com1::init();
    com1.write(b"orrery: cannot boot: ");
    com1.write(reason.as_bytes());
    com1.write(b"\r\n");
    exit::exit(Ending::Panic)
}

unsafe extern "C" {
    static __image_start: u8;
    static __text_start: u8;
    static __data_start: u8;
    static __image_end: u8;
    static __build_id_start: u8;
    static __build_id_end: u8;
}

/// Virtual address of the image's first byte.
pub fn image_start() -> u64 {
    &raw const __image_start as u64
}

/// Bytes of the image in memory.
pub fn image_len_bytes() -> u64 {
    &raw const __image_end as u64 - image_start()
}

/// Virtual addresses where the image's constants, its code and its data begin, and where it ends:
/// all of them multiples of a page.
pub fn segments() -> [u64; 4] {
    [
        image_start(),
        &raw const __text_start as u64,
        &raw const __data_start as u64,
        &raw const __image_end as u64,
    ]
}

/// The GNU build id that the linker put into the image, by which a trace and its schema find each
/// other; empty if there is none.
pub fn build_id() -> &'static [u8] {
    /// `n_namesz`, `n_descsz`, `n_type` and the name `GNU\0` (gABI, "Note Section").
    const NOTE_HEADER_BYTES: usize = 16;
    let start = &raw const __build_id_start;
    let len = &raw const __build_id_end as usize - start as usize;
    // SAFETY: the two symbols delimit a read-only part of the image (`link.ld`).
    let note = unsafe { core::slice::from_raw_parts(start, len) };
    note.get(NOTE_HEADER_BYTES..).unwrap_or(&[])
}
