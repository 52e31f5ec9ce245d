//! The way in: 256 stubs, SYSCALL, and the way out.
//!
//! Every vector has a 16-byte stub that pushes its number (and a zero where the CPU pushes no error
//! code) and joins one of two paths:
//!
//! - **ordinary** vectors run on the kernel stack of the task. Where CS says that they come from ring 3,
//!   GS is exchanged on the way in and on the way out;
//! - **IST** vectors (NMI, #DF, #MC, #DB) can strike between any two instructions, so neither the
//!   stack nor GS is trusted: the CPU's head is read from the top of the interrupt stack, GS is set
//!   to it, and set back on the way out. A #DB from ring 3 is an ordinary exception once its words
//!   are on the task's stack.
//!
//! SYSCALL comes with interrupts off, on the program's stack and with its GS, and builds what an interrupt
//! would. All build an [`exception::Frame`](super::exception::Frame); interrupts build below it a
//! frame-pointer link with the interrupted instruction as its return address, so that a backtrace from a
//! handler runs on through the interrupted code.
//!
//! SYSRET is used where the program's registers are as SYSCALL found them, but for the result; a handler
//! that has changed them does not return, but leaves with the whole frame
//! ([`user::leave`](super::user::leave)). Hence the registers that a C function preserves need no loading. A
//! program's RIP is below the end of the window wherever it comes from, hence canonical: SYSRET cannot
//! fault in ring 0 (SDM vol. 2, SYSRET).

use core::arch::global_asm;

use super::exception::{self, Frame};
use super::gdt::{IST_HEADER_BYTES, USER_CODE, USER_DATA};
use super::{features, percpu, syscall};

/// Bytes that separate two stubs.
pub const STUB_BYTES: u64 = 16;

unsafe extern "C" {
    /// The first of 256 stubs, [`STUB_BYTES`] apart.
    pub safe fn interrupt_stubs();
    /// Where SYSCALL goes.
    pub(super) safe fn syscall_entry();
    /// Leaves for ring 3 with the frame that the stack pointer is at; interrupts are off.
    pub(super) safe fn leave_to_ring_3();
}

/// What the CPU pushes (SS, RSP, RFLAGS, CS, RIP): the words of a frame above `error_code`.
const PUSHED_BY_CPU: u64 = 5 * 8;

global_asm!(
    r#"
    .section .text.entry, "ax", @progbits
    .macro push_registers
    push rax
    push rcx
    push rdx
    push rbp
    push rsi
    push rdi
    push r8
    push r9
    push r10
    push r11
    push rbx
    push r12
    push r13
    push r14
    push r15
    .endm

    .macro save_registers
    cld
    push_registers
    mov rdi, rsp
    push qword ptr [rdi + {rip}]
    push rbp
    mov rbp, rsp
    .endm

    .macro pop_r11_to_rcx
    pop r11
    pop r10
    pop r9
    pop r8
    pop rdi
    pop rsi
    pop rbp
    pop rdx
    pop rcx
    .endm

    .macro pop_registers
    pop r15
    pop r14
    pop r13
    pop r12
    pop rbx
    pop_r11_to_rcx
    pop rax
    .endm

    .macro restore_registers
    add rsp, 16
    pop_registers
    add rsp, 16
    iretq
    .endm

    # A program's AC flag must not open user memory to the kernel.
    .macro close_user_memory
    cmp byte ptr [rip + {has_smap}], 0
    je 7f
    clac
    7:
    .endm

    .balign 16
ordinary_entry:
    test byte ptr [rsp + 24], 3
    jnz 2f
    save_registers
    close_user_memory
    call {ordinary}
    restore_registers
2:  swapgs
from_ring_3:
    save_registers
    close_user_memory
    call {ring_3}
    add rsp, 16
    .global leave_to_ring_3
leave_to_ring_3:
    pop_registers
    add rsp, 16
    swapgs
    iretq

    # A #DB. What ring 3 causes goes on on the task's stack.
    .balign 16
debug_entry:
    test byte ptr [rsp + 24], 3
    jz ist_entry
    swapgs
    mov gs:[{scratch}], rax
    mov rax, rsp
    mov rsp, gs:[{kernel_stack}]
    push qword ptr [rax + 48]
    push qword ptr [rax + 40]
    push qword ptr [rax + 32]
    push qword ptr [rax + 24]
    push qword ptr [rax + 16]
    push qword ptr [rax + 8]
    push qword ptr [rax]
    mov rax, gs:[{scratch}]
    jmp from_ring_3

    .balign 16
ist_entry:
    save_registers
    close_user_memory
    mov ecx, {gs_base}
    rdmsr
    mov r12d, eax
    mov r13d, edx
    mov rax, [rdi + {head}]
    mov rdx, rax
    shr rdx, 32
    wrmsr
    call {ist}
    mov ecx, {gs_base}
    mov eax, r12d
    mov edx, r13d
    wrmsr
    restore_registers

    .balign 16
    .global syscall_entry
syscall_entry:
    swapgs
    mov gs:[{scratch}], rsp
    mov rsp, gs:[{kernel_stack}]
    push {user_data}
    push qword ptr gs:[{scratch}]
    push r11
    push {user_code}
    push rcx
    push rax
    push {syscall_vector}
    push_registers
    mov rdi, rsp
    xor ebp, ebp
    sti
    # Returns with interrupts off, RBX and R12 to R15 as they were, and the result in RAX.
    call qword ptr [rip + {syscall_hook}]
    add rsp, {r11}
    pop_r11_to_rcx
    mov rsp, [rsp + {user_rsp_after_rcx}]
    swapgs
    sysretq

    .balign 16
    .global interrupt_stubs
interrupt_stubs:
    .set vector, 0
    .rept 256
    .balign 16
    .if !(vector == 8 || (vector >= 10 && vector <= 14) || vector == 17 || vector == 21 || vector == 29 || vector == 30)
    push 0
    .endif
    push vector
    .if vector == 1
    jmp debug_entry
    .elseif vector == 2 || vector == 8 || vector == 18
    jmp ist_entry
    .else
    jmp ordinary_entry
    .endif
    .set vector, vector + 1
    .endr
"#,
    rip = const core::mem::offset_of!(Frame, rip),
    r11 = const core::mem::offset_of!(Frame, r11),
    user_rsp_after_rcx = const core::mem::offset_of!(Frame, rsp) - core::mem::offset_of!(Frame, rax),
    head = const core::mem::offset_of!(Frame, rip) as u64 + PUSHED_BY_CPU,
    gs_base = const 0xC000_0101u32, // IA32_GS_BASE
    scratch = const percpu::SCRATCH,
    kernel_stack = const percpu::KERNEL_STACK,
    user_data = const USER_DATA,
    user_code = const USER_CODE,
    syscall_vector = const exception::SYSCALL,
    has_smap = sym features::HAS_SMAP,
    syscall_hook = sym syscall::HANDLER,
    ordinary = sym exception::on_ordinary,
    ring_3 = sym exception::on_ring_3,
    ist = sym exception::on_ist,
);

// The head's address is at the very bottom of the header, right above what the CPU pushes.
const _: () = assert!(IST_HEADER_BYTES >= 8);
// What is popped after the frame's last word must leave the stack where the interrupt found it.
const _: () = assert!(size_of::<Frame>() == 22 * 8);
