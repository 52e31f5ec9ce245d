//! Access to a program's memory from the kernel.
//!
//! All of it goes through the few routines here. A page fault in one of them is first resolved as the
//! program's own would be; where that fails, the routine ends and says so ([`fix_up`]). With SMAP the
//! AC flag is set for just those instructions, so that any other access of the kernel to a program's memory
//! is a bug that is noticed.
//!
//! Whoever calls this holds no spinlock and has interrupts on: resolving the fault takes locks of its
//! own.

use core::arch::global_asm;

use super::exception::Frame;
use super::features;
use super::user::WINDOW_END;

/// Part of the memory is not there, or not to be used so.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fault;

unsafe extern "sysv64" {
    /// Copies `len` bytes; returns how many were not copied. One of the two is a program's.
    fn user_copy(to: *mut u8, from: *const u8, len: usize) -> usize;
    /// Zeroes `len` bytes of a program; returns how many were not.
    fn user_zero(to: *mut u8, _unused: usize, len: usize) -> usize;
    /// Reads a program's word. Returns 0 if that was done.
    fn user_load(at: *const u32, to: *mut u32) -> u32;
    /// Compares and exchanges a program's word. Returns 0 if that was done, and the old value.
    fn user_compare_exchange(at: *mut u32, expected: u32, new: u32, old: *mut u32) -> u32;
    static user_access_start: u8;
    static user_access_end: u8;
}

global_asm!(
    r#"
    .section .text.uaccess, "ax", @progbits
    .macro open_user_memory
    cmp byte ptr [rip + {has_smap}], 0
    je 7f
    stac
    7:
    .endm
    .macro close_user_memory_again
    cmp byte ptr [rip + {has_smap}], 0
    je 7f
    clac
    7:
    .endm

    .global user_access_start
user_access_start:
    # The routines keep these registers for the fix-up: RCX is what is left to do, R8 the
    # bytes that a unit of RCX stands for (as a shift), RDX the bytes that come after it.
    .global user_copy
user_copy:
    open_user_memory
    mov rcx, rdx
    and edx, 7
    shr rcx, 3
    mov r8d, 3
    .global user_copy_words
user_copy_words:
    rep movsq
    mov ecx, edx
    xor r8d, r8d
    xor edx, edx
8:
    rep movsb
    xor eax, eax
    close_user_memory_again
    ret

    .global user_zero
user_zero:
    open_user_memory
    xor eax, eax
    mov rcx, rdx
    and edx, 7
    shr rcx, 3
    mov r8d, 3
    rep stosq
    mov ecx, edx
    xor r8d, r8d
    xor edx, edx
    rep stosb
    close_user_memory_again
    ret

    .global user_load
user_load:
    open_user_memory
    xor edx, edx
    xor r8d, r8d
    mov ecx, 1
    mov eax, [rdi]
    close_user_memory_again
    mov [rsi], eax
    xor eax, eax
    ret

    .global user_compare_exchange
user_compare_exchange:
    mov r9, rcx
    open_user_memory
    mov eax, esi
    mov esi, edx
    xor edx, edx
    xor r8d, r8d
    mov ecx, 1
    lock cmpxchg [rdi], esi
    close_user_memory_again
    mov [r9], eax
    xor eax, eax
    ret
    .global user_access_end
user_access_end:

    # Where a copy goes on after a fault at a word: byte by byte, since the first of the word's may be there.
    .global user_copy_rest
user_copy_rest:
    lea rcx, [rdx + rcx * 8]
    xor r8d, r8d
    xor edx, edx
    jmp 8b

    # Where a routine goes on after any other: returns what is left.
    .global user_access_failed
user_access_failed:
    mov rax, rcx
    mov rcx, r8
    shl rax, cl
    add rax, rdx
    close_user_memory_again
    ret
"#,
    has_smap = sym features::HAS_SMAP,
);

unsafe extern "C" {
    static user_access_failed: u8;
    static user_copy_words: u8;
    static user_copy_rest: u8;
}

/// Whether these bytes are in the window.
#[inline(always)]
fn is_in_window(start: u64, len_bytes: usize) -> bool {
    WINDOW_END.checked_sub(len_bytes as u64).is_some_and(|last| start <= last)
}

/// Whether the kernel was interrupted in an access to a program's memory.
#[inline]
pub fn is_user_access(frame: &Frame) -> bool {
    let (start, end) = (&raw const user_access_start as u64, &raw const user_access_end as u64);
    (start..end).contains(&frame.rip)
}

/// Makes an access that has faulted for good, where [`is_user_access`] holds, fail; a copy once it has come to the
/// very byte.
pub fn fix_up(frame: &mut Frame) {
    debug_assert!(is_user_access(frame));
    let is_at_word = frame.rip == &raw const user_copy_words as u64;
    let on = if is_at_word { &raw const user_copy_rest } else { &raw const user_access_failed };
    frame.rip = on as u64;
}

/// Copies a program's memory.
///
/// # Errors
/// [`Fault`] if not all of it can be read; then the contents of `to` are unspecified.
#[inline]
pub fn copy_in(to: &mut [u8], from: u64) -> Result<(), Fault> {
    if !is_in_window(from, to.len()) {
        return Err(Fault);
    }
    // SAFETY: `to` is ours to write; a fault on the other side ends the routine.
    let left = unsafe { user_copy(to.as_mut_ptr(), from as *const u8, to.len()) };
    if left == 0 { Ok(()) } else { Err(Fault) }
}

/// As [`copy_in`], into memory that need not hold valid values.
///
/// # Safety
/// `to` has room for `len_bytes` that nobody else uses.
///
/// # Errors
/// As [`copy_in`].
#[inline]
pub unsafe fn copy_in_raw(to: *mut u8, from: u64, len_bytes: usize) -> Result<(), Fault> {
    if !is_in_window(from, len_bytes) {
        return Err(Fault);
    }
    // SAFETY: by contract; a fault on the other side ends the routine.
    let left = unsafe { user_copy(to, from as *const u8, len_bytes) };
    if left == 0 { Ok(()) } else { Err(Fault) }
}

/// Copies to a program's memory. Returns how many bytes were copied before a fault.
#[inline]
pub fn copy_out_partly(to: u64, from: &[u8]) -> usize {
    if !is_in_window(to, from.len()) {
        return 0;
    }
    // SAFETY: the range is the program's; a fault there ends the routine.
    from.len() - unsafe { user_copy(to as *mut u8, from.as_ptr(), from.len()) }
}

/// Copies to a program's memory.
///
/// # Errors
/// [`Fault`] if not all of it can be written; some may have been.
#[inline]
pub fn copy_out(to: u64, from: &[u8]) -> Result<(), Fault> {
    if copy_out_partly(to, from) == from.len() && is_in_window(to, from.len()) {
        Ok(())
    } else {
        Err(Fault)
    }
}

/// Copies from a program's memory. Returns how many bytes were copied before a fault.
#[inline]
pub fn copy_in_partly(to: &mut [u8], from: u64) -> usize {
    if !is_in_window(from, to.len()) {
        return 0;
    }
    // SAFETY: as in `copy_in`.
    to.len() - unsafe { user_copy(to.as_mut_ptr(), from as *const u8, to.len()) }
}

/// Zeroes a program's memory.
///
/// # Errors
/// [`Fault`] if not all of it can be written; some may have been.
pub fn zero(to: u64, len_bytes: usize) -> Result<(), Fault> {
    // SAFETY: the range is the program's; a fault there ends the routine.
    if is_in_window(to, len_bytes) && unsafe { user_zero(to as *mut u8, 0, len_bytes) } == 0 {
        Ok(())
    } else {
        Err(Fault)
    }
}

/// Makes a program's word `new` if it is `expected`, in one step, and returns what it was.
///
/// # Errors
/// [`Fault`] if it cannot be read and written; [`Fault`] too if it is not aligned.
pub fn compare_exchange(at: u64, expected: u32, new: u32) -> Result<u32, Fault> {
    if !is_in_window(at, 4) || !at.is_multiple_of(4) {
        return Err(Fault);
    }
    let mut old = 0;
    // SAFETY: the word is the program's; a fault there ends the routine.
    let failed = unsafe { user_compare_exchange(at as *mut u32, expected, new, &raw mut old) };
    if failed == 0 { Ok(old) } else { Err(Fault) }
}

/// Reads a program's aligned word in one step.
///
/// # Errors
/// [`Fault`] if it cannot be read, or is not aligned.
#[inline]
pub fn load(at: u64) -> Result<u32, Fault> {
    if !is_in_window(at, 4) || !at.is_multiple_of(4) {
        return Err(Fault);
    }
    let mut word = 0;
    // SAFETY: the word is the program's; a fault there ends the routine.
    let failed = unsafe { user_load(at as *const u32, &raw mut word) };
    if failed == 0 { Ok(word) } else { Err(Fault) }
}
