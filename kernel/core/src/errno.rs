//! Error numbers of system calls, as Linux/x86-64 has them (errno(3)).

use core::fmt;
use core::num::NonZeroU64;

use linux_raw_sys::errno as numbers;

/// Why a system call failed; the program sees the negative number.
///
/// As wide as a result, so that a [`SysResult`] travels in two registers.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Errno(NonZeroU64);

/// What a system call returns.
pub type SysResult = Result<u64, Errno>;

impl Errno {
    const fn new(number: u32) -> Self {
        match NonZeroU64::new(number as u64) {
            Some(number) => Self(number),
            None => panic!("0 is no error"),
        }
    }

    /// The positive number.
    pub const fn number(self) -> u16 {
        self.0.get() as u16
    }

    /// What the program finds in RAX.
    pub const fn to_return_value(self) -> u64 {
        -(self.0.get() as i64) as u64
    }
}

macro_rules! errnos {
    ($($name:ident,)*) => {
        #[allow(missing_docs)] // errno(3) says what each means
        impl Errno {
            $(pub const $name: Self = Self::new(numbers::$name);)*

            /// The name, such as `EINVAL`; `None` for numbers of the kernel's own.
            pub fn name(self) -> Option<&'static str> {
                $(if self == Self::$name {
                    return Some(stringify!($name));
                })*
                None
            }
        }
    };
}

errnos! {
    EPERM, ENOENT, ESRCH, EINTR, EIO, ENXIO, E2BIG, ENOEXEC, EBADF, ECHILD, EAGAIN, ENOMEM,
    EACCES, EFAULT, ENOTBLK, EBUSY, EEXIST, EXDEV, ENODEV, ENOTDIR, EISDIR, EINVAL, ENFILE,
    EMFILE, ENOTTY, ETXTBSY, EFBIG, ENOSPC, ESPIPE, EROFS, EMLINK, EPIPE, EDOM, ERANGE, EDEADLK,
    ENAMETOOLONG, ENOLCK, ENOSYS, ENOTEMPTY, ELOOP, ENOMSG, EIDRM, ECHRNG, EL2NSYNC, EL3HLT,
    EL3RST, ELNRNG, EUNATCH, ENOCSI, EL2HLT, EBADE, EBADR, EXFULL, ENOANO, EBADRQC, EBADSLT,
    EBFONT, ENOSTR, ENODATA, ETIME, ENOSR, ENONET, ENOPKG, EREMOTE, ENOLINK, EADV, ESRMNT,
    ECOMM, EPROTO, EMULTIHOP, EDOTDOT, EBADMSG, EOVERFLOW, ENOTUNIQ, EBADFD, EREMCHG, ELIBACC,
    ELIBBAD, ELIBSCN, ELIBMAX, ELIBEXEC, EILSEQ, ERESTART, ESTRPIPE, EUSERS, ENOTSOCK,
    EDESTADDRREQ, EMSGSIZE, EPROTOTYPE, ENOPROTOOPT, EPROTONOSUPPORT, ESOCKTNOSUPPORT,
    EOPNOTSUPP, EPFNOSUPPORT, EAFNOSUPPORT, EADDRINUSE, EADDRNOTAVAIL, ENETDOWN, ENETUNREACH,
    ENETRESET, ECONNABORTED, ECONNRESET, ENOBUFS, EISCONN, ENOTCONN, ESHUTDOWN, ETOOMANYREFS,
    ETIMEDOUT, ECONNREFUSED, EHOSTDOWN, EHOSTUNREACH, EALREADY, EINPROGRESS, ESTALE, EUCLEAN,
    ENOTNAM, ENAVAIL, EISNAM, EREMOTEIO, EDQUOT, ENOMEDIUM, EMEDIUMTYPE, ECANCELED, ENOKEY,
    EKEYEXPIRED, EKEYREVOKED, EKEYREJECTED, EOWNERDEAD, ENOTRECOVERABLE, ERFKILL, EHWPOISON,
}

/// Numbers that never reach a program: what to do with a call that a signal has interrupted
/// (Linux's `include/linux/errno.h`).
impl Errno {
    /// Restart the call unless a handler without `SA_RESTART` runs; then `EINTR`.
    pub const RESTART_SYS: Self = Self::new(512);
    /// Restart the call, after any handler.
    pub const RESTART_ALWAYS: Self = Self::new(513);
    /// Restart the call unless a handler runs; then `EINTR`.
    pub const RESTART_NO_HANDLER: Self = Self::new(514);
    /// As [`Self::RESTART_NO_HANDLER`], but restart by `restart_syscall`, with what is left to wait.
    pub const RESTART_BLOCK: Self = Self::new(516);
}

impl Errno {
    /// Whether it is one of those.
    pub const fn is_restart(self) -> bool {
        self.0.get() >= 512
    }
}

impl fmt::Debug for Errno {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.name() {
            Some(name) => f.write_str(name),
            None => write!(f, "errno {}", self.0),
        }
    }
}

impl fmt::Display for Errno {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self, f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::format;

    #[test]
    fn numbers_and_names_are_linux_s() {
        assert_eq!(Errno::EPERM.number(), 1);
        assert_eq!(Errno::ENOSYS.to_return_value(), (-38i64) as u64);
        assert_eq!(format!("{}", Errno::ENOENT), "ENOENT");
        assert_eq!(format!("{}", Errno::RESTART_SYS), "errno 512");
        assert_eq!(size_of::<SysResult>(), 16);
    }
}
