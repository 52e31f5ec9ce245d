//! What `execve` makes of a file and of its arguments, as pure functions of bytes.
//!
//! - [`elf`]: which segments go where
//! - [`stack`]: what the program finds on its stack

pub mod elf;
pub mod stack;
