//! Mounting: everything that can be mounted is where it belongs from the start.

use linux_raw_sys::general as abi;

use super::path::existing_at;
use super::{Args, Errno, SysResult};
use crate::fs::inode::FileSystem;
use crate::mm::user;

/// `AT_FDCWD`, as it comes in a register.
const HERE: u64 = abi::AT_FDCWD as u32 as u64;
/// Longest name of a file system that is read, in bytes.
const MAX_TYPE_BYTES: usize = 64;

/// mount(2): succeeds where the file system is there already, as for an `init` that mounts `/proc`.
pub fn mount(args: &Args) -> SysResult {
    let inode = existing_at(HERE, args[1], 0)?;
    if args[2] == 0 {
        return Err(Errno::EINVAL);
    }
    let kind = user::read_string(args[2], MAX_TYPE_BYTES).map_err(|why| match why {
        Errno::ENAMETOOLONG => Errno::ENODEV,
        why => why,
    })?;
    if !inode.is_directory() {
        return Err(Errno::ENOTDIR);
    }
    let is_there = match &kind[..] {
        b"proc" => inode.file_system == FileSystem::Proc,
        b"sysfs" | b"tracefs" => inode.file_system == FileSystem::Sys,
        // What is in memory is as good as any other memory.
        b"tmpfs" | b"ramfs" | b"devtmpfs" => inode.file_system == FileSystem::Root,
        _ => return Err(Errno::ENODEV),
    };
    if is_there { Ok(0) } else { Err(Errno::EINVAL) }
}

/// umount2(2): nothing can be taken away.
pub fn umount(args: &Args) -> SysResult {
    let known = abi::MNT_FORCE | abi::MNT_DETACH | abi::MNT_EXPIRE;
    if args[1] as u32 & !known != 0 {
        return Err(Errno::EINVAL);
    }
    existing_at(HERE, args[0], 0)?;
    Err(Errno::EINVAL)
}
