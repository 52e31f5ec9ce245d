//! The machine's names, as uname(2) says them; there are no namespaces of them.

use core::ffi::c_char;

use crate::sync::SpinLock;

/// Bytes of a name in `struct utsname`, the NUL included.
pub const NAME_BYTES: usize = 65;
/// A name, with zeros behind.
pub type Name = [c_char; NAME_BYTES];

/// Those that can be changed.
#[derive(Clone, Copy)]
pub struct Names {
    /// Of the host.
    pub host: Name,
    /// Of its NIS domain.
    pub domain: Name,
}

static NAMES: SpinLock<Names> =
    SpinLock::new("names", Names { host: name(b"orrery"), domain: name(b"(none)") });

/// A text as a name, cut where it is too long.
pub const fn name(text: &[u8]) -> Name {
    let mut name = [0; NAME_BYTES];
    let mut at = 0;
    while at < text.len() && at < NAME_BYTES - 1 {
        name[at] = text[at].cast_signed();
        at += 1;
    }
    name
}

/// The bytes of a name, without the zeros.
pub fn bytes(name: &Name) -> impl Iterator<Item = u8> {
    name.iter().map(|byte| byte.cast_unsigned()).take_while(|&byte| byte != 0)
}

/// The names now.
pub fn get() -> Names {
    *NAMES.lock()
}

/// Changes them.
pub fn change(change: impl FnOnce(&mut Names)) {
    change(&mut NAMES.lock());
}
