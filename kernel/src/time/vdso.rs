//! The vDSO: code for programs that reads the clock without a system call.

use orrery_core::errno::Errno;

use crate::mm::space::Space;

/// Maps it into a program. Returns the address of its ELF header; 0 where there is none.
///
/// # Errors
/// `ENOMEM`.
pub fn map(_space: &Space) -> Result<u64, Errno> {
    Ok(0)
}
