//! The way in: 256 stubs, two ways to save registers, and the way out.
//!
//! Every vector has a 16-byte stub that pushes its number (and a zero where the CPU pushes no error
//! code) and joins one of two paths:
//!
//! - **ordinary** vectors run on the interrupted stack, and GS is what kernel code has. An entry
//!   from ring 3 will be told by CS and do its `swapgs` there;
//! - **IST** vectors (NMI, #DF, #MC, #DB) can strike between any two instructions, so neither the
//!   stack nor GS is trusted: the CPU's head is read from the top of the interrupt stack, GS is set
//!   to it, and set back on the way out.
//!
//! Both build an [`exception::Frame`](super::exception::Frame), and below it a frame-pointer link
//! with the interrupted instruction as its return address, so that a backtrace from a handler runs
//! on through the interrupted code.

use core::arch::global_asm;

use super::exception::{self, Frame};
use super::gdt::IST_HEADER_BYTES;

/// Bytes that separate two stubs.
pub const STUB_BYTES: u64 = 16;

unsafe extern "C" {
    /// The first of 256 stubs, [`STUB_BYTES`] apart.
    pub safe fn interrupt_stubs();
}

/// What the CPU pushes (SS, RSP, RFLAGS, CS, RIP): the words of a frame above `error_code`.
const PUSHED_BY_CPU: u64 = 5 * 8;

global_asm!(
    r#"
    .section .text.entry, "ax", @progbits
    .macro save_registers
    cld
    push rax
    push rcx
    push rdx
    push rbx
    push rbp
    push rsi
    push rdi
    push r8
    push r9
    push r10
    push r11
    push r12
    push r13
    push r14
    push r15
    mov rdi, rsp
    push qword ptr [rdi + {rip}]
    push rbp
    mov rbp, rsp
    .endm

    .macro restore_registers
    add rsp, 16
    pop r15
    pop r14
    pop r13
    pop r12
    pop r11
    pop r10
    pop r9
    pop r8
    pop rdi
    pop rsi
    pop rbp
    pop rbx
    pop rdx
    pop rcx
    pop rax
    add rsp, 16
    iretq
    .endm

    .balign 16
ordinary_entry:
    save_registers
    call {ordinary}
    restore_registers

    .balign 16
ist_entry:
    save_registers
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
    .global interrupt_stubs
interrupt_stubs:
    .set vector, 0
    .rept 256
    .balign 16
    .if !(vector == 8 || (vector >= 10 && vector <= 14) || vector == 17 || vector == 21 || vector == 29 || vector == 30)
    push 0
    .endif
    push vector
    .if vector == 1 || vector == 2 || vector == 8 || vector == 18
    jmp ist_entry
    .else
    jmp ordinary_entry
    .endif
    .set vector, vector + 1
    .endr
"#,
    rip = const core::mem::offset_of!(Frame, rip),
    head = const core::mem::offset_of!(Frame, rip) as u64 + PUSHED_BY_CPU,
    gs_base = const 0xC000_0101u32, // IA32_GS_BASE
    ordinary = sym exception::on_ordinary,
    ist = sym exception::on_ist,
);

// The head's address is at the very bottom of the header, right above what the CPU pushes.
const _: () = assert!(IST_HEADER_BYTES >= 8);
