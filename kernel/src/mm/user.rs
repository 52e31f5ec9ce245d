//! A program's memory, by type.
//!
//! Every address here comes from a program and may be anything: what cannot be read or written is
//! `EFAULT`. See [`crate::arch::uaccess`] for what the caller may hold meanwhile: nothing.

use alloc::vec::Vec;
use core::mem::MaybeUninit;

use linux_raw_sys::general::{
    __kernel_timespec, clone_args, flock, iovec, itimerval, open_how, pollfd, rlimit64, rusage,
    sigaltstack, stat, statfs, statx, timeval, timezone,
};
use linux_raw_sys::system::new_utsname;
use orrery_core::errno::Errno;

use crate::arch::uaccess::{self, Fault};

impl From<Fault> for Errno {
    fn from(_: Fault) -> Self {
        Self::EFAULT
    }
}

/// Values that may be copied from and to a program as they lie in memory.
///
/// # Safety
/// Every bit pattern is a valid value. Where the type has padding, values that are written to a program
/// come from [`zeroed`], so that the padding says nothing.
pub unsafe trait Plain: Copy {}

macro_rules! plain {
    ($($type:ty),* $(,)?) => {$(
        // SAFETY: integers, and C structures of them.
        unsafe impl Plain for $type {}
    )*};
}
plain!(u8, u16, u32, u64, i8, i16, i32, i64);
plain!(
    __kernel_timespec,
    clone_args,
    flock,
    iovec,
    itimerval,
    new_utsname,
    open_how,
    pollfd,
    rlimit64,
    rusage,
    sigaltstack,
    stat,
    statfs,
    statx,
    timeval,
    timezone,
);
// SAFETY: so is an array of them.
unsafe impl<T: Plain, const N: usize> Plain for [T; N] {}

/// A value of zero bytes, padding included.
pub fn zeroed<T: Plain>() -> T {
    // SAFETY: every bit pattern is valid (`Plain`).
    unsafe { core::mem::zeroed() }
}

/// Reads a value.
///
/// # Errors
/// `EFAULT`.
#[inline]
pub fn read<T: Plain>(address: u64) -> Result<T, Errno> {
    let mut value = MaybeUninit::<T>::uninit();
    // SAFETY: the value has room for its own size, and is ours.
    unsafe { uaccess::copy_in_raw(value.as_mut_ptr().cast(), address, size_of::<T>()) }?;
    // SAFETY: all bytes were copied, and any are valid (`Plain`).
    Ok(unsafe { value.assume_init() })
}

/// Writes a value.
///
/// # Errors
/// `EFAULT`; part of it may have been written.
#[inline]
pub fn write<T: Plain>(address: u64, value: &T) -> Result<(), Errno> {
    Ok(uaccess::copy_out(address, bytes_of(core::slice::from_ref(value)))?)
}

fn bytes_of<T: Plain>(values: &[T]) -> &[u8] {
    // SAFETY: plain values are initialised, padding included (`Plain`).
    unsafe { core::slice::from_raw_parts(values.as_ptr().cast(), size_of_val(values)) }
}

/// Reads values that lie one after the other.
///
/// # Errors
/// `EFAULT`.
pub fn read_slice<T: Plain>(to: &mut [T], address: u64) -> Result<(), Errno> {
    // SAFETY: the slice has room for its own size, and any bytes are valid values (`Plain`).
    Ok(unsafe { uaccess::copy_in_raw(to.as_mut_ptr().cast(), address, size_of_val(to)) }?)
}

/// Writes values one after the other.
///
/// # Errors
/// `EFAULT`; some of it may have been written.
pub fn write_slice<T: Plain>(address: u64, from: &[T]) -> Result<(), Errno> {
    Ok(uaccess::copy_out(address, bytes_of(from))?)
}

/// Reads bytes.
///
/// # Errors
/// `EFAULT`.
#[inline]
pub fn read_bytes(to: &mut [u8], address: u64) -> Result<(), Errno> {
    Ok(uaccess::copy_in(to, address)?)
}

/// Writes bytes.
///
/// # Errors
/// `EFAULT`; some of it may have been written.
#[inline]
pub fn write_bytes(address: u64, from: &[u8]) -> Result<(), Errno> {
    Ok(uaccess::copy_out(address, from)?)
}

/// Reads a string, without the NUL that ends it.
///
/// # Errors
/// `EFAULT`; `ENAMETOOLONG` if there is no NUL in the first `max_bytes`; `ENOMEM`.
pub fn read_string(address: u64, max_bytes: usize) -> Result<Vec<u8>, Errno> {
    /// Not across the end of a page: what lies behind the NUL need not be mapped.
    const CHUNK_BYTES: usize = 64;
    let mut string = Vec::new();
    let mut at = address;
    while string.len() < max_bytes {
        let mut chunk = [0; CHUNK_BYTES];
        let len = CHUNK_BYTES - (at % CHUNK_BYTES as u64) as usize;
        let chunk = &mut chunk[..len.min(max_bytes - string.len())];
        read_bytes(chunk, at)?;
        let end = chunk.iter().position(|&byte| byte == 0);
        let part = &chunk[..end.unwrap_or(chunk.len())];
        string.try_reserve(part.len()).map_err(|_| Errno::ENOMEM)?;
        string.extend_from_slice(part);
        if end.is_some() {
            return Ok(string);
        }
        at = at.checked_add(chunk.len() as u64).ok_or(Errno::EFAULT)?;
    }
    Err(Errno::ENAMETOOLONG)
}

/// Reads an aligned word in one step.
///
/// # Errors
/// `EFAULT`.
#[inline]
pub fn load_u32(address: u64) -> Result<u32, Errno> {
    Ok(uaccess::load(address)?)
}

/// Makes an aligned word `new` if it is `expected`, in one step; returns what it was.
///
/// # Errors
/// `EFAULT`.
pub fn compare_exchange_u32(address: u64, expected: u32, new: u32) -> Result<u32, Errno> {
    Ok(uaccess::compare_exchange(address, expected, new)?)
}

/// Zeroes memory.
///
/// # Errors
/// `EFAULT`; some of it may have been zeroed.
pub fn zero(address: u64, len_bytes: usize) -> Result<(), Errno> {
    Ok(uaccess::zero(address, len_bytes)?)
}
