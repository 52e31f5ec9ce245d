//! System calls by number, without a C library between program and kernel, and errors by name.

use std::arch::asm;
use std::fmt;

/// Why a system call failed.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Errno(pub i32);

/// What a system call returned.
pub type Result = std::result::Result<u64, Errno>;

impl Errno {
    /// That of the C library's last call.
    pub fn last() -> Self {
        Self(std::io::Error::last_os_error().raw_os_error().unwrap_or(0))
    }
}

macro_rules! errno_names {
    ($($name:ident)*) => {
        fn errno_name(number: i32) -> Option<&'static str> {
            match number {
                $(libc::$name => Some(stringify!($name)),)*
                _ => None,
            }
        }
    };
}

errno_names! {
    EPERM ENOENT ESRCH EINTR EIO ENXIO E2BIG ENOEXEC EBADF ECHILD EAGAIN ENOMEM EACCES EFAULT ENOTBLK EBUSY
    EEXIST EXDEV ENODEV ENOTDIR EISDIR EINVAL ENFILE EMFILE ENOTTY ETXTBSY EFBIG ENOSPC ESPIPE EROFS EMLINK
    EPIPE EDOM ERANGE EDEADLK ENAMETOOLONG ENOLCK ENOSYS ENOTEMPTY ELOOP EOVERFLOW ENOTSOCK EMSGSIZE
    EOPNOTSUPP EAFNOSUPPORT EISCONN ENOPROTOOPT ENOTCONN ETIMEDOUT EALREADY EINPROGRESS EPROTONOSUPPORT ECONNRESET
}

impl fmt::Display for Errno {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match errno_name(self.0) {
            Some(name) => f.write_str(name),
            None => write!(f, "errno {}", self.0),
        }
    }
}

impl fmt::Debug for Errno {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// `ok` or the error's name: for results whose value depends on the machine.
pub fn outcome(result: Result) -> String {
    match result {
        Ok(_) => "ok".into(),
        Err(error) => error.to_string(),
    }
}

/// The value or the error's name.
pub fn value(result: Result) -> String {
    match result {
        Ok(value) => value.cast_signed().to_string(),
        Err(error) => error.to_string(),
    }
}

/// Something that a system call takes: a number, or a pointer.
pub trait Arg {
    /// As it is put into a register.
    fn register(self) -> u64;
}

macro_rules! number_args {
    ($($kind:ty)*) => { $(impl Arg for $kind {
        fn register(self) -> u64 { self as u64 }
    })* };
}

number_args! { i32 u32 i64 u64 usize }

impl<T: ?Sized> Arg for *const T {
    fn register(self) -> u64 {
        self.cast::<u8>() as u64
    }
}

impl<T: ?Sized> Arg for *mut T {
    fn register(self) -> u64 {
        self.cast::<u8>() as u64
    }
}

impl<T: ?Sized> Arg for &T {
    fn register(self) -> u64 {
        std::ptr::from_ref(self).register()
    }
}

impl<T: ?Sized> Arg for &mut T {
    fn register(self) -> u64 {
        std::ptr::from_mut(self).register()
    }
}

/// One system call, with the registers as the kernel left them in RAX.
///
/// # Safety
/// The call must not write to memory that Rust believes unchanged, unmap what is in use, or return
/// twice into one address space.
pub unsafe fn raw(number: u64, args: [u64; 6]) -> u64 {
    let result;
    // SAFETY: the caller vouches for the call; the kernel changes no register but RAX, RCX and R11.
    unsafe {
        asm!(
            "syscall",
            inlateout("rax") number => result,
            in("rdi") args[0],
            in("rsi") args[1],
            in("rdx") args[2],
            in("r10") args[3],
            in("r8") args[4],
            in("r9") args[5],
            lateout("rcx") _,
            lateout("r11") _,
            options(nostack),
        );
    }
    result
}

/// One system call with its result told apart from its error.
///
/// # Safety
/// As [`raw`].
pub unsafe fn call(number: i64, given: &[u64]) -> Result {
    let mut args = [0; 6];
    args[..given.len()].copy_from_slice(given);
    // SAFETY: the caller's promise.
    let result = unsafe { raw(number.cast_unsigned(), args) }.cast_signed();
    if (-4095..0).contains(&result) {
        Err(Errno(-result as i32))
    } else {
        Ok(result.cast_unsigned())
    }
}

/// `sys!(SYS_kill, pid, libc::SIGTERM)`: one system call, as [`sys::Result`](Result).
///
/// The macro takes the promise of [`raw`] for the programs of this package: they pass pointers to
/// memory of their own that lives on, or something that the kernel must refuse.
#[macro_export]
macro_rules! sys {
    ($name:ident $(, $arg:expr)* $(,)?) => {{
        // A `match`, so that what an argument points at lives until the call is over.
        match [$($crate::sys::Arg::register($arg)),*] {
            // SAFETY: see the macro's documentation.
            args => unsafe { $crate::sys::call(libc::$name, &args) },
        }
    }};
}
