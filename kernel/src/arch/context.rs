//! The context switch: from one kernel stack to another.
//!
//! A suspended task is its stack pointer. On its stack lie the address to go on at, RBX and RBP;
//! all other registers are declared clobbered, so the compiler saves just those that are live.
//! The switch is inlined into the one place that uses it: a call that the compiler turned into a
//! tail call would resume in the wrong frame.
//!
//! Kernel code uses no vector registers (soft-float target), so there is no FPU state to save.

use core::arch::{asm, naked_asm};

/// A suspended task's stack pointer.
#[repr(C)]
pub struct Context {
    stack_pointer: u64,
}

/// What a new task begins with: `previous` is what [`switch`] would have returned.
pub type Entry = extern "sysv64" fn(previous: *mut (), argument: usize) -> !;

impl Context {
    /// A context that nobody has suspended yet.
    pub const fn new() -> Self {
        Self { stack_pointer: 0 }
    }

    /// Prepares a context that begins with `entry(previous, argument)` on the stack that ends at
    /// `stack_top`.
    ///
    /// # Safety
    /// The stack is mapped, writable, aligned to 16 and used by nobody else.
    pub unsafe fn prepare(&mut self, stack_top: u64, entry: Entry, argument: usize) {
        // SAFETY: by contract the words below the top are ours.
        unsafe {
            let words = (stack_top as *mut u64).sub(5);
            words.write(begin as *const () as u64);
            words.add(1).write(argument as u64);
            words.add(2).write(entry as *const () as u64);
            // `begin` calls with the stack aligned to 16 (System V ABI 3.2.2): it has taken three
            // words by then, and these two remain.
            words.add(3).write(0);
            words.add(4).write(0);
        }
        self.stack_pointer = stack_top - 40;
    }
}

impl Default for Context {
    fn default() -> Self {
        Self::new()
    }
}

/// First instructions of a new task, on the stack that [`Context::prepare`] made. RDI is who
/// was suspended, as for every resumed task. The zero RBP ends backtraces.
#[unsafe(naked)]
extern "sysv64" fn begin() -> ! {
    naked_asm!("pop rsi", "pop rax", "xor ebp, ebp", "call rax", "ud2")
}

/// Suspends the running task and resumes `next`, whose contexts lie `OFFSET` bytes into what the
/// pointers point to. Returns when somebody resumes `previous`, and tells who was suspended for that.
///
/// # Safety
/// Interrupts are off. `previous` is the running task's; `next` was suspended by this
/// function or prepared, by a CPU whose stores are visible here (`on_cpu` was acquired), and no other
/// CPU resumes it.
#[inline(always)]
pub unsafe fn switch<T, const OFFSET: usize>(previous: *mut T, next: *mut T) -> *mut T {
    let suspended: *mut T;
    // SAFETY: by contract; all registers but RBX and RBP, which are pushed, are operands or
    // clobbered.
    unsafe {
        asm!(
            "pushq %rbp",
            "pushq %rbx",
            // The image is linked in the top 2 GiB, so its addresses are sign-extended 32 bits.
            "pushq $2f",
            "movq %rsp, {offset}(%rdi)",
            "movq {offset}(%rsi), %rsp",
            "ret",
            "2:",
            "popq %rbx",
            "popq %rbp",
            inout("rdi") previous => suspended,
            inout("rsi") next => _,
            offset = const OFFSET,
            out("rax") _, out("rcx") _, out("rdx") _,
            out("r8") _, out("r9") _, out("r10") _, out("r11") _,
            out("r12") _, out("r13") _, out("r14") _, out("r15") _,
            // Only this syntax can push the address of a numbered label.
            options(att_syntax),
        );
    }
    suspended
}
