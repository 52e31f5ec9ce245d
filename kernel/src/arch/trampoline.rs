//! Where other CPUs begin: a page below 1 MiB.
//!
//! A start-up IPI makes a CPU run in real mode at the start of a page (SDM vol. 3, 9.4.4). The code
//! here is copied there. It goes to long mode in one step, on page tables of its own that map that
//! page at its physical address and share the kernel's upper half; up there it changes to the
//! kernel's tables and calls [`start`](super::smp::start_here).
//!
//! All tables are below 1 MiB, since CR3 has only 32 bits in real mode. The five pages stay
//! reserved, and are taken out of service between uses by clearing the root.

use core::arch::global_asm;
use core::ptr::NonNull;

use x86_64::PhysAddr;
use x86_64::structures::paging::{PageTable, PageTableFlags};

use super::smp;
use crate::mm::{self, address};

/// Pages in use: code, and a page table of each level.
pub const PAGES: u64 = 5;
const PAGE_BYTES: u64 = 4096;

/// What the code reads, filled in for each CPU. The first fields depend on where the page is.
#[repr(C)]
struct Parameters {
    gdt_limit: u16,
    gdt_base: [u16; 2],
    long_mode_offset: [u16; 2],
    long_mode_selector: u16,
    trampoline_root: u32,
    kernel_root: u64,
    stack_top: u64,
    cpu: u64,
}

/// Where in the page the parameters are; the code is shorter.
const PARAMETERS_AT: usize = 512;

global_asm!(
    r#"
    .section .rodata.trampoline, "a", @progbits
    .code16
    .global ap_trampoline, ap_long_mode, ap_gdt, ap_trampoline_end
ap_trampoline:
    cli
    cld
    movw %cs, %ax
    movw %ax, %ds
    lgdtl {parameters} + {gdt}
    movl $0x20, %eax                // PAE
    movl %eax, %cr4
    movl {parameters} + {trampoline_root}, %eax
    movl %eax, %cr3
    movl $0xc0000080, %ecx          // EFER
    rdmsr
    orl $0x900, %eax                // LME, NXE
    wrmsr
    movl $0x80010033, %eax          // PG, WP, NE, ET, MP, PE
    movl %eax, %cr0
    ljmpl *({parameters} + {long_mode})

    .code64
ap_long_mode:
    movw $0x10, %ax
    movw %ax, %ss
    xorl %eax, %eax
    movw %ax, %ds
    movw %ax, %es
    movw %ax, %fs
    movw %ax, %gs
    leaq ap_trampoline(%rip), %rax
    movq {parameters} + {kernel_root}(%rax), %rcx
    movq {parameters} + {stack_top}(%rax), %rsp
    movq {parameters} + {cpu}(%rax), %rdi
    movq $ap_upper_half, %rax
    jmpq *%rax

    .balign 8
ap_gdt:
    .quad 0
    .quad 0x00af9b000000ffff        // 0x08: 64-bit code
    .quad 0x00cf93000000ffff        // 0x10: data
ap_trampoline_end:

    .section .text.trampoline, "ax", @progbits
ap_upper_half:
    movq %rcx, %cr3
    xorl %ebp, %ebp
    call {start}
    ud2
"#,
    parameters = const PARAMETERS_AT,
    gdt = const core::mem::offset_of!(Parameters, gdt_limit),
    long_mode = const core::mem::offset_of!(Parameters, long_mode_offset),
    trampoline_root = const core::mem::offset_of!(Parameters, trampoline_root),
    kernel_root = const core::mem::offset_of!(Parameters, kernel_root),
    stack_top = const core::mem::offset_of!(Parameters, stack_top),
    cpu = const core::mem::offset_of!(Parameters, cpu),
    start = sym smp::start_here,
    options(att_syntax)
);

unsafe extern "C" {
    static ap_trampoline: u8;
    static ap_long_mode: u8;
    static ap_gdt: u8;
    static ap_trampoline_end: u8;
}

/// The trampoline in place.
pub struct Trampoline {
    /// Physical address of its first page.
    base: u64,
}

impl Trampoline {
    /// Puts it in place. `None` when there is no memory below 1 MiB for it.
    pub fn install() -> Option<Self> {
        let this = Self { base: mm::low_pages()? };
        let start = &raw const ap_trampoline;
        let len_bytes = &raw const ap_trampoline_end as usize - start as usize;
        assert!(len_bytes <= PARAMETERS_AT);
        // SAFETY: the pages are reserved for this and in the direct map.
        unsafe {
            let pages = this.page(0).cast::<u8>().as_ptr();
            pages.write_bytes(0, (PAGES * PAGE_BYTES) as usize);
            pages.copy_from_nonoverlapping(start, len_bytes);
        }
        this.build_tables();
        Some(this)
    }

    /// The number that a start-up IPI gives.
    pub fn page_number(&self) -> u8 {
        (self.base / PAGE_BYTES) as u8
    }

    /// Makes the next CPU to start number `cpu`, on this stack.
    pub fn prepare(&self, cpu: u32, stack_top: u64) {
        let offset = |symbol: *const u8| symbol as u64 - &raw const ap_trampoline as u64;
        let words = |address: u64| [address as u16, (address >> 16) as u16];
        let parameters = Parameters {
            gdt_limit: 3 * 8 - 1,
            gdt_base: words(self.base + offset(&raw const ap_gdt)),
            long_mode_offset: words(self.base + offset(&raw const ap_long_mode)),
            long_mode_selector: 0x08,
            trampoline_root: (self.base + PAGE_BYTES) as u32,
            kernel_root: mm::root().as_u64(),
            stack_top,
            cpu: u64::from(cpu),
        };
        // SAFETY: within the reserved page; no CPU is starting.
        unsafe {
            let at = self.page(0).cast::<u8>().as_ptr().add(PARAMETERS_AT);
            at.cast::<Parameters>().write_volatile(parameters);
        }
    }

    fn page(&self, index: u64) -> NonNull<PageTable> {
        let at = address::phys_to_virt(PhysAddr::new(self.base + index * PAGE_BYTES));
        NonNull::new(at.as_mut_ptr()).expect("kernel addresses are not null")
    }

    /// Maps the first page, executable and read-only, and what the kernel's root has above.
    fn build_tables(&self) {
        let kernel = address::phys_to_virt(mm::root()).as_ptr::<PageTable>();
        for level in 1..=4u64 {
            // SAFETY: the reserved, zeroed pages; `kernel` is the root that is in force.
            let (table, kernel) = unsafe { (self.page(level).as_mut(), &*kernel) };
            let below = PhysAddr::new(self.base + (level + 1) % PAGES * PAGE_BYTES);
            let index = if level == 4 { (self.base / PAGE_BYTES) as usize } else { 0 };
            let flags = PageTableFlags::PRESENT
                | if level == 4 { PageTableFlags::empty() } else { PageTableFlags::WRITABLE };
            table[index].set_addr(below, flags);
            if level == 1 {
                for entry in mm::layout::UPPER_HALF..512 {
                    table[entry] = kernel[entry].clone();
                }
            }
        }
    }
}

impl Drop for Trampoline {
    fn drop(&mut self) {
        // SAFETY: the reserved pages; no CPU is starting.
        unsafe { self.page(1).as_mut().zero() };
    }
}
