//! The time-stamp counter and system calls, inline: what is measured is the kernel, and as little else as can be.

use std::arch::asm;
use std::sync::atomic::AtomicU32;

/// The time-stamp counter. Nothing is moved across the reading.
#[inline(always)]
pub fn ticks() -> u64 {
    let (low, high): (u64, u64);
    // SAFETY: RDTSC reads a counter.
    unsafe { asm!("rdtsc", out("rax") low, out("rdx") high, options(nostack)) };
    high << 32 | low
}

/// One system call of at most six arguments, which must be something that the kernel may do to this program:
/// pointers are to memory that lives.
#[inline(always)]
pub fn call<const COUNT: usize>(number: i64, arguments: [u64; COUNT]) -> i64 {
    let argument = |nth| arguments.get(nth).copied().unwrap_or(0);
    let result;
    // SAFETY: see above; the kernel changes no register but RAX, RCX and R11.
    unsafe {
        asm!(
            "syscall",
            inlateout("rax") number => result,
            in("rdi") argument(0),
            in("rsi") argument(1),
            in("rdx") argument(2),
            in("r10") argument(3),
            in("r8") argument(4),
            in("r9") argument(5),
            lateout("rcx") _,
            lateout("r11") _,
            options(nostack),
        );
    }
    result
}

/// A system call without arguments, so many times in a row, with nothing around each but the loading of its
/// number.
#[inline(always)]
pub fn call_repeatedly<const NUMBER: i64, const TIMES: u32>() {
    // SAFETY: for calls that only return a number or give the CPU away; registers as in `call`.
    unsafe {
        asm!(
            ".rept {times}",
            "mov eax, {number}",
            "syscall",
            ".endr",
            times = const TIMES,
            number = const NUMBER,
            out("rax") _,
            out("rcx") _,
            out("r11") _,
            options(nostack),
        );
    }
}

/// A child that exits at once, and when it was made.
pub struct Forked {
    /// The child's number, or a negative error.
    pub child: i64,
    /// The time before the call.
    pub start: u64,
    /// The time after it, before the caller has written to any memory: the first write would cost a page fault.
    pub end: u64,
}

/// `SYS_fork` or `SYS_vfork` of a child that exits at once.
#[inline(always)]
pub fn fork_that_exits(number: i64) -> Forked {
    let (child, start, high, low);
    // SAFETY: the child uses neither the stack nor other memory; the parent finds everything as it was.
    unsafe {
        asm!(
            "rdtsc",
            "shl rdx, 32",
            "lea r8, [rax + rdx]",
            "mov rax, rdi",
            "syscall",
            "test rax, rax",
            "jnz 2f",
            "xor edi, edi",
            "mov eax, {exit_group}",
            "syscall",
            "ud2",
            "2:",
            "mov rdi, rax",
            "rdtsc",
            exit_group = const libc::SYS_exit_group,
            inlateout("rdi") number => child,
            out("r8") start,
            out("rax") low,
            out("rdx") high,
            out("rcx") _,
            out("r11") _,
            options(nostack),
        );
    }
    let (low, high): (u64, u64) = (low, high);
    Forked { child, start, end: high << 32 | low }
}

/// A child by `vfork` that executes this program. The child's number, or a negative error.
///
/// # Safety
/// `path` is a C string, and `arguments` and `environment` are arrays of such that end with null.
#[inline(always)]
pub unsafe fn vfork_that_executes(
    path: *const u8,
    arguments: *const *const u8,
    environment: *const *const u8,
) -> i64 {
    let child;
    // SAFETY: as in `fork_that_exits`; the pointers are the caller's promise.
    unsafe {
        asm!(
            "syscall",
            "test rax, rax",
            "jnz 2f",
            "mov eax, {execve}",
            "syscall",
            "mov edi, 127",
            "mov eax, {exit_group}",
            "syscall",
            "ud2",
            "2:",
            execve = const libc::SYS_execve,
            exit_group = const libc::SYS_exit_group,
            inlateout("rax") libc::SYS_vfork => child,
            inlateout("rdi") path => _,
            in("rsi") arguments,
            in("rdx") environment,
            lateout("rcx") _,
            lateout("r11") _,
            options(nostack),
        );
    }
    child
}

/// A thread that exits at once; `tid` is its number until the kernel has done with it, then 0. A negative
/// error where there can be none.
#[inline(always)]
pub fn thread_that_exits(tid: &AtomicU32) -> i64 {
    const FLAGS: i32 = libc::CLONE_VM
        | libc::CLONE_FS
        | libc::CLONE_FILES
        | libc::CLONE_SIGHAND
        | libc::CLONE_THREAD
        | libc::CLONE_SYSVSEM
        | libc::CLONE_PARENT_SETTID
        | libc::CLONE_CHILD_CLEARTID;
    let thread;
    // SAFETY: the thread uses no memory, so it may have this one's stack; registers as in `call`.
    unsafe {
        asm!(
            "mov rsi, rsp",
            "syscall",
            "test rax, rax",
            "jnz 2f",
            "xor edi, edi",
            "mov eax, {exit}",
            "syscall",
            "ud2",
            "2:",
            exit = const libc::SYS_exit,
            inlateout("rax") libc::SYS_clone => thread,
            inlateout("rdi") i64::from(FLAGS) => _,
            lateout("rsi") _,
            in("rdx") tid.as_ptr(),
            in("r10") tid.as_ptr(),
            lateout("rcx") _,
            lateout("r11") _,
            options(nostack),
        );
    }
    thread
}

/// Whose futex a word is.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Scope {
    /// Threads of one process share it.
    Private = libc::FUTEX_PRIVATE_FLAG as isize,
    /// Processes may share it.
    Shared = 0,
}

/// Waits while a futex has this value.
#[inline(always)]
pub fn futex_wait(word: &AtomicU32, value: u32, scope: Scope) {
    let operation = libc::FUTEX_WAIT as u64 | scope as u64;
    call(libc::SYS_futex, [word.as_ptr() as u64, operation, u64::from(value), 0]);
}

/// Wakes one of those who wait for a futex.
#[inline(always)]
pub fn futex_wake(word: &AtomicU32, scope: Scope) {
    let operation = libc::FUTEX_WAKE as u64 | scope as u64;
    call(libc::SYS_futex, [word.as_ptr() as u64, operation, 1, 0]);
}

/// Writes one byte to each of so many pages.
#[inline(always)]
pub fn write_pages(first: *mut u8, pages: usize) {
    // SAFETY: the program's own mappings, which nothing else looks into.
    unsafe {
        asm!(
            "2:",
            "mov byte ptr [{at}], 1",
            "add {at}, 4096",
            "dec {left}",
            "jnz 2b",
            at = inout(reg) first => _,
            left = inout(reg) pages => _,
            options(nostack),
        );
    }
}

/// Reads one byte of each of so many pages.
#[inline(always)]
pub fn read_pages(first: *const u8, pages: usize) {
    // SAFETY: as in `write_pages`.
    unsafe {
        asm!(
            "2:",
            "mov {byte}, byte ptr [{at}]",
            "add {at}, 4096",
            "dec {left}",
            "jnz 2b",
            byte = out(reg_byte) _,
            at = inout(reg) first => _,
            left = inout(reg) pages => _,
            options(nostack, readonly),
        );
    }
}
