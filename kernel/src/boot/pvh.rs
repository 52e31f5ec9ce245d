//! The PVH door: `qemu -kernel`, Firecracker, cloud-hypervisor.
//!
//! The loader reads the entry point from an ELF note, loads the segments at their physical
//! addresses, and jumps in 32-bit protected mode without paging, EBX holding the address of an
//! `hvm_start_info` (Xen, `docs/misc/pvh.pandoc` and `public/arch-x86/hvm/start_info.h`). The stub
//! maps the first 4 GiB twice, at 0 and (first 2 GiB) at the image's link offset, switches to long
//! mode, and calls [`pvh_main`]. The tables are replaced by `mm::init`.

use core::arch::global_asm;

use super::{BOOT_STACK_TOP, BOOT_STACKS, BootInfo, MemoryKind};

/// The stub addresses symbols as `symbol - LINK_OFFSET`, since Limine refuses to load anything
/// linked in the lower half (and `link.ld` says the same number).
const LINK_OFFSET: u64 = 0xffff_ffff_8000_0000;

/// Note type `XEN_ELFNOTE_PHYS32_ENTRY` (Xen, `public/elfnote.h`).
const PHYS32_ENTRY: u32 = 18;

global_asm!(
    r#"
    .section .note.pvh, "a", @note
    .balign 4
    .long 4, 8, {note_type}
    .asciz "Xen"
    .quad pvh_entry - {offset}

    .section .bss.pvh, "aw", @nobits
    .balign 4096
pvh_pml4:      .skip 4096
pvh_pdpt_low:  .skip 4096
pvh_pdpt_high: .skip 4096
pvh_pd:        .skip 4 * 4096

    .section .rodata.pvh, "a", @progbits
    .balign 8
pvh_gdt:
    .quad 0
    .quad 0x00af9b000000ffff    // 0x08: 64-bit code
    .quad 0x00cf93000000ffff    // 0x10: data
pvh_gdt_pointer:
    .word pvh_gdt_pointer - pvh_gdt - 1
    .long pvh_gdt - {offset}

    .section .text.pvh, "ax", @progbits
    .code32
    .global pvh_entry
pvh_entry:
    cld
    mov edi, ebx                               // kept for pvh_main

    mov esi, offset pvh_pd - {offset}          // 4 GiB in pages of 2 MiB, writable
    mov eax, 0x83
    mov ecx, 2048
2:  mov [esi], eax
    mov dword ptr [esi + 4], 0
    add eax, 0x200000
    add esi, 8
    dec ecx
    jnz 2b

    mov esi, offset pvh_pdpt_low - {offset}
    mov eax, offset pvh_pd - {offset} + 3
    mov ecx, 4
3:  mov [esi], eax
    add eax, 4096
    add esi, 8
    dec ecx
    jnz 3b

    mov esi, offset pvh_pdpt_high - {offset}
    mov eax, offset pvh_pd - {offset} + 3
    mov [esi + 510 * 8], eax
    add eax, 4096
    mov [esi + 511 * 8], eax

    mov esi, offset pvh_pml4 - {offset}
    mov eax, offset pvh_pdpt_low - {offset} + 3
    mov [esi], eax
    mov eax, offset pvh_pdpt_high - {offset} + 3
    mov [esi + 511 * 8], eax
    mov cr3, esi

    mov eax, cr4
    or eax, 1 << 5                             // PAE
    mov cr4, eax
    mov ecx, 0xc0000080                        // EFER
    rdmsr
    or eax, 1 << 8                             // LME
    wrmsr
    mov eax, cr0
    or eax, 0x80000001                         // PG, PE
    mov cr0, eax

    lgdt [pvh_gdt_pointer - {offset}]
    mov eax, offset pvh_long_mode - {offset}
    mov esp, offset {stacks} - {offset} + {stack_top}
    push 0x08
    push eax
    retf

    .code64
pvh_long_mode:
    mov ax, 0x10
    mov ds, ax
    mov es, ax
    mov ss, ax
    xor eax, eax
    mov fs, ax
    mov gs, ax
    mov edi, edi
    mov rsp, offset {stacks} + {stack_top}
    xor ebp, ebp
    mov rax, offset {main}
    call rax
    ud2
"#,
    note_type = const PHYS32_ENTRY,
    offset = const LINK_OFFSET,
    stacks = sym BOOT_STACKS,
    stack_top = const BOOT_STACK_TOP,
    main = sym pvh_main,
);

/// `struct hvm_start_info`, version 1.
#[repr(C)]
struct StartInfo {
    magic: u32,
    version: u32,
    flags: u32,
    modules: u32,
    modules_at: u64,
    command_line_at: u64,
    rsdp: u64,
    memory_map_at: u64,
    memory_map_entries: u32,
    _reserved: u32,
}

/// `struct hvm_modlist_entry`.
#[repr(C)]
struct Module {
    at: u64,
    len_bytes: u64,
    command_line_at: u64,
    _reserved: u64,
}

/// `struct hvm_memmap_table_entry`.
#[repr(C)]
struct MemoryMapEntry {
    at: u64,
    len_bytes: u64,
    kind: u32,
    _reserved: u32,
}

const MAGIC: u32 = 0x336e_c578;

/// Continues in Rust, on the boot stack, with all memory below 4 GiB mapped at its own address.
extern "C" fn pvh_main(start_info_at: u64) -> ! {
    // SAFETY: the stub passes what the loader put in EBX, and has mapped it.
    let info = unsafe { &*(start_info_at as *const StartInfo) };
    if info.magic != MAGIC {
        super::die("the loader passed no hvm_start_info: start the image by PVH or Limine");
    }
    if info.version < 1 || info.memory_map_entries == 0 {
        super::die("hvm_start_info has no memory map: this loader is too old");
    }
    // SAFETY: reached once, from the stub.
    unsafe { super::enter(|boot| fill(boot, info)) }
}

fn fill(boot: &mut BootInfo, info: &StartInfo) {
    boot.door = "pvh";
    boot.image_base = super::image_start() - LINK_OFFSET;
    boot.rsdp = (info.rsdp != 0).then_some(info.rsdp);
    // SAFETY: the loader vouches for address and count; the stub has mapped it.
    let entries: &[MemoryMapEntry] =
        unsafe { slice_at(info.memory_map_at, info.memory_map_entries as usize) };
    for entry in entries {
        // E820 types (ACPI 6.5, table 15.4).
        let kind = match entry.kind {
            1 => MemoryKind::Usable,
            3 | 4 => MemoryKind::Acpi,
            _ => MemoryKind::Reserved,
        };
        boot.memory.add(entry.at, entry.len_bytes, kind);
    }
    boot.memory.add(boot.image_base, super::image_len_bytes(), MemoryKind::Image);
    // SAFETY: as above.
    let modules: &[Module] = unsafe { slice_at(info.modules_at, info.modules as usize) };
    if let Some(module) = modules.first() {
        boot.set_bundle(module.at, module.len_bytes);
    }
    if info.command_line_at != 0 {
        // SAFETY: a NUL-terminated string, by the loader's contract.
        let line = unsafe { core::ffi::CStr::from_ptr(info.command_line_at as *const _) };
        boot.set_command_line(line.to_bytes());
    }
}

/// # Safety
/// `at` is the address of `len` values of `T`, or `len` is 0.
unsafe fn slice_at<'a, T>(at: u64, len: usize) -> &'a [T] {
    if len == 0 {
        return &[];
    }
    // SAFETY: by contract.
    unsafe { core::slice::from_raw_parts(at as *const T, len) }
}
