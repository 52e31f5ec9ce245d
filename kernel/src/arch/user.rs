//! Ring 3: what a program's task has there, and the ways to it.
//!
//! A program's task enters the kernel at the top of its kernel stack, where its registers lie as a
//! [`Frame`] while it is in the kernel. Above them the stack has room for its floating-point registers.
//!
//! The bases of FS and GS are changed by system calls only: CR4.FSGSBASE stays clear, so the
//! instructions that would change them are illegal in ring 3.

use core::arch::asm;
use core::cell::Cell;
use core::ptr::{self, NonNull};

use x86_64::VirtAddr;
use x86_64::registers::model_specific::{FsBase, KernelGsBase};
use x86_64::registers::rflags::RFlags;

use super::exception::Frame;
use super::gdt::{self, USER_CODE, USER_DATA};
use super::irq::IrqOff;
use super::percpu::{self, PerCpu};
use super::{entry, fpu};
use crate::per_cpu;

/// First address above the window. The page below the non-canonical addresses is left out: a SYSCALL
/// there would return to an address that SYSRET cannot take.
pub const WINDOW_END: u64 = 0x7fff_ffff_f000;

/// Flags that a program may set for itself.
const USER_FLAGS: RFlags = RFlags::CARRY_FLAG
    .union(RFlags::PARITY_FLAG)
    .union(RFlags::AUXILIARY_CARRY_FLAG)
    .union(RFlags::ZERO_FLAG)
    .union(RFlags::SIGN_FLAG)
    .union(RFlags::TRAP_FLAG)
    .union(RFlags::DIRECTION_FLAG)
    .union(RFlags::OVERFLOW_FLAG)
    .union(RFlags::RESUME_FLAG)
    .union(RFlags::ALIGNMENT_CHECK)
    .union(RFlags::ID);
/// The bit that is always set (SDM vol. 1, 3.4.3).
const ALWAYS_SET: u64 = 1 << 1;

/// Bytes at the top of a program's kernel stack for its floating-point registers: a multiple of 64.
const RESERVED_BYTES: u64 = size_of::<fpu::Area>() as u64;
const _: () = assert!(RESERVED_BYTES.is_multiple_of(64));

/// What a switch must exchange for a program's task besides its kernel stack and its address space.
pub struct UserContext {
    /// The stack pointer with which it enters the kernel.
    kernel_stack: u64,
    fs_base: Cell<u64>,
    gs_base: Cell<u64>,
    /// Its floating-point registers.
    pub fpu: fpu::State,
}

// SAFETY: the cells are used by the CPU that runs or switches the task, and by the task's maker before it
// runs; the switch orders the two.
unsafe impl Sync for UserContext {}
// SAFETY: as above; the area that it points to moves with the stack, which the task owns.
unsafe impl Send for UserContext {}

/// What a CPU has loaded.
struct Loaded {
    context: Cell<*const UserContext>,
    fs_base: Cell<u64>,
    gs_base: Cell<u64>,
}
// SAFETY: used by its own CPU only, with interrupts off.
unsafe impl Sync for Loaded {}

static LOADED: PerCpu<Loaded> = per_cpu!(Loaded {
    context: Cell::new(ptr::null()),
    fs_base: Cell::new(0),
    gs_base: Cell::new(0)
});

impl UserContext {
    /// The context of a task with the kernel stack that ends at `stack_top`.
    ///
    /// # Safety
    /// The stack is mapped, aligned to 64, the task's own, and stays for as long as the context.
    pub unsafe fn new(stack_top: u64) -> Self {
        let kernel_stack = stack_top - RESERVED_BYTES;
        // SAFETY: not null; what is above `kernel_stack` is used by nothing else.
        let fpu = unsafe { fpu::State::new(NonNull::new_unchecked(kernel_stack as *mut _)) };
        Self { kernel_stack, fs_base: Cell::new(0), gs_base: Cell::new(0), fpu }
    }

    /// The stack pointer with which the task enters the kernel, and begins.
    pub fn kernel_stack(&self) -> u64 {
        self.kernel_stack
    }

    /// The program's registers, while its task is in the kernel on its behalf.
    ///
    /// # Safety
    /// The caller is that task, or its maker before it runs, and has no other reference to them.
    #[allow(clippy::mut_from_ref)]
    pub unsafe fn frame(&self) -> &mut Frame {
        // SAFETY: the entry code puts them there.
        unsafe { &mut *(self.kernel_stack as *mut Frame).sub(1) }
    }

    /// Base of FS: thread-local storage.
    pub fn fs_base(&self) -> u64 {
        self.fs_base.get()
    }

    /// Base of GS.
    pub fn gs_base(&self) -> u64 {
        self.gs_base.get()
    }

    /// Gives a task that has not run, or the running one, other bases, each below [`WINDOW_END`].
    ///
    /// # Panics
    /// With debug assertions, if one is not.
    pub fn set_bases(&self, fs_base: u64, gs_base: u64) {
        debug_assert!(fs_base < WINDOW_END && gs_base < WINDOW_END);
        let irq = IrqOff::new();
        self.fs_base.set(fs_base);
        self.gs_base.set(gs_base);
        if ptr::eq(LOADED.this().context.get(), self) {
            self.load_bases(LOADED.this(), &irq);
        }
    }

    #[inline(always)]
    fn load_bases(&self, loaded: &Loaded, _irq: &IrqOff) {
        if loaded.fs_base.replace(self.fs_base.get()) != self.fs_base.get() {
            FsBase::write(VirtAddr::new_truncate(self.fs_base.get()));
        }
        if loaded.gs_base.replace(self.gs_base.get()) != self.gs_base.get() {
            // In the kernel the program's base waits there for `swapgs`.
            KernelGsBase::write(VirtAddr::new_truncate(self.gs_base.get()));
        }
    }
}

/// Makes `next` the context that the CPU has, but for the floating-point registers: [`switch_fpu`] follows.
///
/// # Safety
/// By the scheduler, at a switch to its task; it stays alive while that runs.
#[inline(always)]
pub unsafe fn switch(irq: &IrqOff, next: &UserContext) {
    // Asked for once.
    let cpu = percpu::cpu_id();
    let loaded = LOADED.of(cpu);
    loaded.context.set(next);
    percpu::set_kernel_stack(irq, next.kernel_stack);
    gdt::set_kernel_stack(cpu, irq, next.kernel_stack);
    next.load_bases(loaded, irq);
}

/// Exchanges the floating-point registers of two tasks, each `None` where it is not a program's.
///
/// # Safety
/// As [`switch`], which has been called with `next`.
#[inline(always)]
pub unsafe fn switch_fpu(irq: &IrqOff, previous: Option<&UserContext>, next: Option<&UserContext>) {
    fpu::switch(irq, previous.map(|it| &it.fpu), next.map(|it| &it.fpu));
}

/// The floating-point state of the program that this CPU runs.
///
/// # Safety
/// Interrupts are off, and the running task is that of a program.
pub(super) unsafe fn loaded_fpu<'a>() -> &'a fpu::State {
    // SAFETY: `switch` has set it to the running task's, which is alive.
    unsafe { &(*LOADED.this().context.get()).fpu }
}

/// Registers for the beginning of a program.
pub fn initial_frame(entry: u64, stack_pointer: u64) -> Frame {
    Frame {
        r15: 0,
        r14: 0,
        r13: 0,
        r12: 0,
        r11: 0,
        r10: 0,
        r9: 0,
        r8: 0,
        rdi: 0,
        rsi: 0,
        rbp: 0,
        rbx: 0,
        rdx: 0,
        rcx: 0,
        rax: 0,
        vector: super::exception::SYSCALL,
        error_code: 0,
        rip: entry,
        cs: USER_CODE.into(),
        rflags: (RFlags::INTERRUPT_FLAG.bits()) | ALWAYS_SET,
        rsp: stack_pointer,
        ss: USER_DATA.into(),
    }
}

impl Frame {
    /// Makes registers that a program has chosen ones that may go to ring 3: its segments and interrupt flag
    /// are not its choice.
    ///
    /// # Errors
    /// If RIP is outside of the window.
    pub fn sanitise(&mut self) -> Result<(), OutsideWindow> {
        self.cs = USER_CODE.into();
        self.ss = USER_DATA.into();
        self.rflags = self.rflags & USER_FLAGS.bits() | RFlags::INTERRUPT_FLAG.bits() | ALWAYS_SET;
        if self.rip < WINDOW_END { Ok(()) } else { Err(OutsideWindow) }
    }
}

/// An address that no program can have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OutsideWindow;

/// Goes to ring 3 with the registers in the context's frame.
///
/// # Safety
/// The running task is the context's; the frame is from [`initial_frame`] or has been
/// [sanitised](Frame::sanitise); interrupts are off.
pub unsafe fn leave(context: &UserContext) -> ! {
    // SAFETY: the frame is complete (caller); nothing below it on this stack is used any more.
    unsafe {
        asm!("mov rsp, {frame}", "jmp {leave}",
            frame = in(reg) ptr::from_ref(context.frame()),
            leave = sym entry::leave_to_ring_3,
            options(noreturn));
    }
}
