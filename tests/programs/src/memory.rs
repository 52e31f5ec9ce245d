//! Mappings of a program's own, and looks at memory that may not be there.

use std::arch::asm;

use crate::sys::Errno;
use crate::{process, sys};

/// Bytes of a page.
pub const PAGE: usize = 4096;

/// Readable and writable.
pub const RW: i32 = libc::PROT_READ | libc::PROT_WRITE;
/// Private anonymous memory.
pub const PRIVATE: i32 = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS;
/// Shared anonymous memory.
pub const SHARED: i32 = libc::MAP_SHARED | libc::MAP_ANONYMOUS;

/// Maps memory anywhere.
///
/// # Errors
/// Those of mmap(2).
pub fn map(len: usize, protection: i32, flags: i32) -> Result<*mut u8, Errno> {
    map_at(0, len, protection, flags)
}

/// Maps memory, here if the flags say so.
///
/// # Errors
/// Those of mmap(2).
pub fn map_at(address: usize, len: usize, protection: i32, flags: i32) -> Result<*mut u8, Errno> {
    Ok(sys!(SYS_mmap, address, len, protection, flags, -1, 0)? as *mut u8)
}

/// Pages that are readable, writable, private and zero.
///
/// # Panics
/// Where there are none.
pub fn pages(count: usize) -> *mut u8 {
    map(count * PAGE, RW, PRIVATE).expect("mmap")
}

/// Pages that stay shared with children.
///
/// # Panics
/// Where there are none.
pub fn shared_pages(count: usize) -> *mut u8 {
    map(count * PAGE, RW, SHARED).expect("mmap")
}

/// Takes a mapping away.
///
/// # Panics
/// Where that is refused.
pub fn unmap(address: *mut u8, len: usize) {
    sys!(SYS_munmap, address, len).expect("munmap");
}

/// Reads a byte, whatever happens.
pub fn peek(address: *const u8) -> u8 {
    let byte;
    // SAFETY: where nothing is mapped the program gets its signal, which is what the caller wants to see.
    unsafe { asm!("mov {}, [{}]", out(reg_byte) byte, in(reg) address, options(nostack)) };
    byte
}

/// Writes a byte, whatever happens.
pub fn poke(address: *mut u8, byte: u8) {
    // SAFETY: as in `peek`; the programs poke only into memory that they mapped for it.
    unsafe { asm!("mov [{}], {}", in(reg) address, in(reg_byte) byte, options(nostack)) };
}

/// The page of this number in a mapping.
pub fn page(base: *mut u8, number: usize) -> *mut u8 {
    base.wrapping_add(number * PAGE)
}

/// Whether this byte can be read: the kernel is asked to, which ends in an error instead of a signal.
///
/// # Panics
/// Where there is no pipe to copy it to.
pub fn readable(address: *const u8) -> bool {
    let (input, output) = process::pipe(0);
    let result = sys!(SYS_write, output, address, 1);
    process::close(input);
    process::close(output);
    result != Err(Errno(libc::EFAULT))
}

/// A checksum of bytes (FNV-1a).
pub fn checksum(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, |hash, &byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
    })
}
