//! Segments and the task-state segment, one set per CPU.
//!
//! Long mode needs little of them: a code segment, a data segment, and the TSS, whose interrupt
//! stack table (SDM vol. 3, 6.14.5) gives the four exceptions of [`Ist`] a good stack, whatever
//! the stack pointer was when they struck.

use core::cell::UnsafeCell;

use x86_64::VirtAddr;
use x86_64::instructions::segmentation::{CS, DS, ES, SS, Segment};
use x86_64::instructions::tables::load_tss;
use x86_64::structures::gdt::{Descriptor, GlobalDescriptorTable, SegmentSelector};
use x86_64::structures::tss::TaskStateSegment;

use super::irq::IrqOff;
use super::percpu::{self, MAX_CPUS};
use super::stacks::IST_STACKS;

/// Selector of the kernel's code segment.
pub const KERNEL_CODE: u16 = 0x08;
/// Selector of the kernel's data segment. SYSCALL wants it to follow the code segment.
pub const KERNEL_DATA: u16 = 0x10;
/// Selector of ring 3's data segment, with its privilege level. SYSRET wants the code segment to follow.
pub const USER_DATA: u16 = 0x18 | 3;
/// Selector of ring 3's 64-bit code segment, with its privilege level.
pub const USER_CODE: u16 = 0x20 | 3;

/// Which interrupt stack an exception has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Ist {
    /// #DF: most often a stack overflow.
    DoubleFault = 0,
    /// NMI: between any two instructions, a stack switch included.
    Nmi = 1,
    /// #MC: likewise.
    MachineCheck = 2,
    /// #DB: data breakpoints strike anywhere.
    Debug = 3,
}

/// Bytes at the top of each interrupt stack that hold the address of the CPU's head, for the entry
/// code; 16, so that the stack stays aligned.
pub const IST_HEADER_BYTES: u64 = 16;

struct Tables {
    gdt: GlobalDescriptorTable,
    tss: TaskStateSegment,
}

struct AllTables(UnsafeCell<[Tables; MAX_CPUS]>);
// SAFETY: each CPU writes its own entry, once, before it uses it.
unsafe impl Sync for AllTables {}

static TABLES: AllTables = AllTables(UnsafeCell::new(
    [const { Tables { gdt: GlobalDescriptorTable::new(), tss: TaskStateSegment::new() } };
        MAX_CPUS],
));

/// Loads segments and TSS of CPU `cpu`, with these tops of its interrupt stacks, in the order of
/// [`Ist`]. GS base is unspecified afterwards.
///
/// # Safety
/// Once per CPU, by that CPU; `cpu < MAX_CPUS`; the stacks are mapped, this CPU's alone, and stay.
pub unsafe fn load(cpu: u32, ist_tops: [u64; IST_STACKS]) {
    // SAFETY: this CPU's own entry, `cpu` in range, used by no one before (caller).
    let Tables { gdt, tss } = unsafe { &mut (*TABLES.0.get())[cpu as usize] };
    for (slot, top) in ist_tops.into_iter().enumerate() {
        let stack = top - IST_HEADER_BYTES;
        // SAFETY: the top of a mapped stack that nothing uses yet (caller).
        unsafe { (stack as *mut u64).write(percpu::head_address(cpu)) };
        tss.interrupt_stack_table[slot] = VirtAddr::new(stack);
    }
    let code = gdt.append(Descriptor::kernel_code_segment());
    let data = gdt.append(Descriptor::kernel_data_segment());
    let user_data = gdt.append(Descriptor::user_data_segment());
    let user_code = gdt.append(Descriptor::user_code_segment());
    let tss = gdt.append(Descriptor::tss_segment(tss));
    debug_assert_eq!((code.0, data.0), (KERNEL_CODE, KERNEL_DATA));
    debug_assert_eq!((user_data.0, user_code.0), (USER_DATA, USER_CODE));
    gdt.load();
    // SAFETY: the selectors are those of the table just loaded.
    unsafe {
        CS::set_reg(code);
        SS::set_reg(data);
        DS::set_reg(SegmentSelector::NULL);
        ES::set_reg(SegmentSelector::NULL);
        load_tss(tss);
    }
}

/// Sets the stack on which this CPU, number `cpu`, takes interrupts and exceptions from ring 3.
#[inline(always)]
pub fn set_kernel_stack(cpu: u32, _irq: &IrqOff, top: u64) {
    // SAFETY: this CPU's own entry, which nobody else changes, with interrupts off; the CPU itself reads
    // the word when it leaves ring 3. The field is packed, so it is written through a raw pointer.
    unsafe {
        let tables = &raw mut (*TABLES.0.get())[cpu as usize % MAX_CPUS];
        let table = &raw mut (*tables).tss.privilege_stack_table;
        table.cast::<u64>().write_unaligned(top);
    }
}
