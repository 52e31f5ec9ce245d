//! The Limine door: BIOS and UEFI machines, by the Limine boot protocol (`PROTOCOL.md` of Limine).
//!
//! Limine finds the requests below in the loaded image and fills in the responses. It enters in
//! long mode at [`limine_entry`], on page tables of its own that map the image at its link address
//! and RAM at an offset.
//!
//! The base revision asked for is 3. Limine 8 knows 2 at most, boots with that and leaves the tag
//! as it is; newer releases may go on to others. What differs between them and matters here is
//! only whether the ACPI root pointer is a physical address (3) or one at the offset (all others),
//! and that shows. Other CPUs are started by the kernel itself, so Limine is not asked to.

use core::arch::naked_asm;
use core::ffi::CStr;

use limine::BaseRevision;
use limine::memory_map::EntryType;
use limine::request::{
    ExecutableAddressRequest, ExecutableFileRequest, HhdmRequest, MemoryMapRequest, ModuleRequest,
    RequestsEndMarker, RequestsStartMarker, RsdpRequest,
};

use super::{BOOT_STACK_TOP, BOOT_STACKS, BootInfo, MemoryKind, die};

/// The oldest base revision whose page tables and memory map are as described above.
const OLDEST_REVISION: u64 = 2;

#[used]
#[unsafe(link_section = ".limine_requests.0")]
static START: RequestsStartMarker = RequestsStartMarker::new();
#[used]
#[unsafe(link_section = ".limine_requests.1")]
static BASE_REVISION: BaseRevision = BaseRevision::new();
#[used]
#[unsafe(link_section = ".limine_requests.1")]
static OFFSET: HhdmRequest = HhdmRequest::new();
#[used]
#[unsafe(link_section = ".limine_requests.1")]
static MEMORY_MAP: MemoryMapRequest = MemoryMapRequest::new();
#[used]
#[unsafe(link_section = ".limine_requests.1")]
static ROOT_POINTER: RsdpRequest = RsdpRequest::new();
#[used]
#[unsafe(link_section = ".limine_requests.1")]
static IMAGE_ADDRESS: ExecutableAddressRequest = ExecutableAddressRequest::new();
#[used]
#[unsafe(link_section = ".limine_requests.1")]
static IMAGE_FILE: ExecutableFileRequest = ExecutableFileRequest::new();
#[used]
#[unsafe(link_section = ".limine_requests.1")]
static MODULES: ModuleRequest = ModuleRequest::new();
#[used]
#[unsafe(link_section = ".limine_requests.2")]
static END: RequestsEndMarker = RequestsEndMarker::new();

/// Where Limine enters; interrupts are off. Limine's stack is left for the boot stack.
///
/// # Safety
/// Limine's, once.
#[unsafe(no_mangle)]
#[unsafe(naked)]
unsafe extern "C" fn limine_entry() -> ! {
    naked_asm!(
        "mov rsp, offset {stacks} + {top}",
        "xor ebp, ebp",
        "call {main}",
        "ud2",
        stacks = sym BOOT_STACKS,
        top = const BOOT_STACK_TOP,
        main = sym limine_main,
    )
}

extern "C" fn limine_main() -> ! {
    // SAFETY: reached once, from the entry.
    unsafe { super::enter(fill) }
}

fn fill(boot: &mut BootInfo) {
    // A loader that knows the tag but not this revision leaves the second word, and tells in the
    // first with which it boots, if it is recent enough to.
    let revision = BASE_REVISION.loaded_revision();
    if revision.is_some_and(|revision| revision < OLDEST_REVISION) {
        die("Limine boots with base revision 0 or 1; use Limine 8 or newer");
    }
    let (Some(offset), Some(memory), Some(address)) =
        (OFFSET.get_response(), MEMORY_MAP.get_response(), IMAGE_ADDRESS.get_response())
    else {
        die("Limine gave no memory map, offset or image address; use Limine 8 or newer");
    };
    boot.door = "limine";
    boot.loader_offset = offset.offset();
    boot.image_base = address.physical_base();
    for entry in memory.entries() {
        let kind = match entry.entry_type {
            EntryType::USABLE => MemoryKind::Usable,
            EntryType::BOOTLOADER_RECLAIMABLE => MemoryKind::Loader,
            EntryType::ACPI_RECLAIMABLE | EntryType::ACPI_NVS => MemoryKind::Acpi,
            // The image, put in below, and modules: what is not the first of them is kept as well.
            EntryType::EXECUTABLE_AND_MODULES => MemoryKind::Bundle,
            _ => MemoryKind::Reserved,
        };
        boot.memory.add(entry.base, entry.length, kind);
    }
    boot.memory.add(boot.image_base, super::image_len_bytes(), MemoryKind::Image);
    let physical = |at: u64| at.checked_sub(offset.offset()).unwrap_or(at);
    boot.rsdp = ROOT_POINTER.get_response().map(|response| physical(response.address() as u64));
    if let Some(module) = MODULES.get_response().and_then(|response| response.modules().first()) {
        boot.set_bundle(physical(module.addr() as u64), module.size());
    }
    let line = IMAGE_FILE.get_response().map_or(c"", |response| response.file().string());
    boot.set_command_line(CStr::to_bytes(line));
}
