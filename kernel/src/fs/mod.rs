//! Files.
//!
//! Bottom up:
//! - [`io`]: where bytes come from and go to; [`page`]: frames that hold them; [`limits`], [`time`]; [`write_or_run`]
//! - [`content`], [`directory`], [`inode`]: what is stored
//! - [`lookup`], [`namespace`]: paths, and changes of the tree; [`bundle`]: the tree that a boot begins with
//! - [`file`]: what is behind a descriptor; [`pipe`], [`fifo`], [`socket`], [`event_fd`], [`pidfd`],
//!   [`device`], [`terminal`]: the kinds that are no stored files
//! - [`open`], [`executable`]: from a path to a file; [`files`]: a process's descriptors and directories
//! - [`lock`]: locks on files, which descriptors and open files give back when they go
//!
//! - [`text`], [`tree`]: files and directories that are made on demand; of them, [`proc`] and [`sys`]
//!
//! A file system has no global state: it lives as long as somebody has its root. Everybody is root: permissions are kept, but only
//! `execve` looks at them.

pub mod bundle;
pub mod content;
pub mod device;
pub mod directory;
pub mod event_fd;
pub mod executable;
pub mod fifo;
pub mod file;
pub mod files;
pub mod inode;
pub mod io;
pub mod limits;
pub mod lock;
pub mod lookup;
pub mod namespace;
pub mod open;
pub mod page;
pub mod pidfd;
pub mod pipe;
pub mod proc;
pub mod socket;
pub mod sys;
pub mod terminal;
pub mod text;
pub mod time;
pub mod tree;
pub mod write_or_run;

pub use bundle::{Instructions, first_program, instructions};
pub use executable::Executable;
pub use file::OpenFile;
pub use files::{Files, FsContext};
pub use inode::Inode;
pub use orrery_core::fs::path::MAX_PATH_BYTES as PATH_MAX_BYTES;
