//! Logic of the file system that needs no hardware.
//!
//! - [`path`]: from a path to its components, symbolic links included
//! - [`fd_table`]: file descriptors
//! - [`ring`]: where in a pipe's pages its bytes are
//! - [`dirent`]: what `getdents64` returns
//! - [`lock`]: who has locked which bytes, and who would wait for itself

pub mod dirent;
pub mod fd_table;
pub mod lock;
pub mod path;
pub mod ring;
