//! Calls with paths: opening, making, moving and removing files; directories.

use alloc::sync::Arc;
use alloc::vec::Vec;

use linux_raw_sys::general as abi;

use super::descriptor::{self, descriptor_limit, file, path, start};
use super::{Args, Errno, SysResult};
use crate::fs::content::Content;
use crate::fs::directory::Directory;
use crate::fs::fifo::{Fifo, Kind};
use crate::fs::inode::{Inode, Node};
use crate::fs::lookup::{self, Found, LastLink};
use crate::fs::namespace::{self, IfExists, Remove};
use crate::fs::open;
use crate::fs::write_or_run::Writing;
use crate::mm::user;
use crate::process::current;

/// `AT_FDCWD`, as it comes in a register.
const HERE: u64 = abi::AT_FDCWD as u32 as u64;

/// open(2).
pub fn open(args: &Args) -> SysResult {
    open_at(HERE, args[0], args[1] as u32, args[2] as u32)
}

/// openat(2).
pub fn openat(args: &Args) -> SysResult {
    open_at(args[0], args[1], args[2] as u32, args[3] as u32)
}

/// creat(2).
pub fn creat(args: &Args) -> SysResult {
    let flags = abi::O_CREAT | abi::O_WRONLY | abi::O_TRUNC;
    open_at(HERE, args[0], flags, args[1] as u32)
}

fn open_at(fd: u64, at: u64, flags: u32, mode: u32) -> SysResult {
    let path = path(at)?;
    let start = start(fd, &path)?;
    // Before a file is made, or cut off, for nobody.
    current().files().check_room(descriptor_limit())?;
    let file = open::open(&start, &path, flags, mode & !current().fs().umask())?;
    descriptor::install(file, flags)
}

/// The name that a path ends with.
fn name_at(fd: u64, at: u64) -> Result<Found, Errno> {
    let path = path(at)?;
    lookup::find(&start(fd, &path)?, &path, LastLink::Never)
}

/// What a path leads to, where `AT_EMPTY_PATH` may say that the descriptor is meant.
pub(super) fn existing_at(fd: u64, at: u64, flags: u32) -> Result<Arc<Inode>, Errno> {
    let path = path(at)?;
    let start = start(fd, &path)?;
    if path.is_empty() && flags & abi::AT_EMPTY_PATH != 0 {
        return Ok(start.base);
    }
    let keeps = flags & abi::AT_SYMLINK_NOFOLLOW != 0;
    lookup::existing(&start, &path, if keeps { LastLink::Keep } else { LastLink::Follow })
}

/// Makes something new.
fn make(fd: u64, at: u64, mode: u32, node: Node) -> SysResult {
    let found = name_at(fd, at)?;
    if found.inode.is_some() {
        return Err(Errno::EEXIST);
    }
    let inode = Inode::new(node, mode & !current().fs().umask())?;
    namespace::create(&found, &inode)?;
    Ok(0)
}

/// mkdir(2).
pub fn mkdir(args: &Args) -> SysResult {
    make(HERE, args[0], args[1] as u32 & 0o1777, Node::Directory(Directory::new()))
}

/// mkdirat(2).
pub fn mkdirat(args: &Args) -> SysResult {
    make(args[0], args[1], args[2] as u32 & 0o1777, Node::Directory(Directory::new()))
}

/// mknod(2).
pub fn mknod(args: &Args) -> SysResult {
    make_node(HERE, args[0], args[1] as u32, args[2])
}

/// mknodat(2).
pub fn mknodat(args: &Args) -> SysResult {
    make_node(args[0], args[1], args[2] as u32, args[3])
}

fn make_node(fd: u64, at: u64, mode: u32, device: u64) -> SysResult {
    // As Linux's `new_decode_dev`.
    let device = device as u32;
    let (major, minor) = (device >> 8 & 0xfff, device & 0xff | device >> 12 & 0xfff00);
    let node = match mode & abi::S_IFMT {
        0 | abi::S_IFREG => Node::Regular(Content::new(&[])),
        abi::S_IFIFO => Node::Fifo(Fifo::new(Kind::Named)),
        abi::S_IFCHR => Node::Device(major, minor),
        abi::S_IFBLK => Node::BlockDevice(major, minor),
        abi::S_IFSOCK => Node::Socket,
        abi::S_IFDIR => return Err(Errno::EPERM),
        _ => return Err(Errno::EINVAL),
    };
    make(fd, at, mode, node)
}

/// symlink(2).
pub fn symlink(args: &Args) -> SysResult {
    make_link(args[0], HERE, args[1])
}

/// symlinkat(2).
pub fn symlinkat(args: &Args) -> SysResult {
    make_link(args[0], args[1], args[2])
}

fn make_link(target: u64, fd: u64, at: u64) -> SysResult {
    let target = path(target)?;
    if target.is_empty() {
        return Err(Errno::ENOENT);
    }
    let found = name_at(fd, at)?;
    if found.inode.is_some() {
        return Err(Errno::EEXIST);
    }
    let inode = Inode::new(Node::Link(Arc::from(target)), 0o777)?;
    namespace::create(&found, &inode)?;
    Ok(0)
}

/// link(2).
pub fn link(args: &Args) -> SysResult {
    link_at(HERE, args[0], HERE, args[1], 0)
}

/// linkat(2).
pub fn linkat(args: &Args) -> SysResult {
    link_at(args[0], args[1], args[2], args[3], args[4] as u32)
}

fn link_at(from_fd: u64, from: u64, to_fd: u64, to: u64, flags: u32) -> SysResult {
    if flags & !(abi::AT_SYMLINK_FOLLOW | abi::AT_EMPTY_PATH) != 0 {
        return Err(Errno::EINVAL);
    }
    let follow = flags & abi::AT_SYMLINK_FOLLOW != 0;
    let keep = if follow { 0 } else { abi::AT_SYMLINK_NOFOLLOW };
    let inode = existing_at(from_fd, from, flags & abi::AT_EMPTY_PATH | keep)?;
    let found = name_at(to_fd, to)?;
    if found.inode.is_some() {
        return Err(Errno::EEXIST);
    }
    namespace::link(&inode, &found)?;
    Ok(0)
}

/// unlink(2).
pub fn unlink(args: &Args) -> SysResult {
    remove(HERE, args[0], Remove::File)
}

/// rmdir(2).
pub fn rmdir(args: &Args) -> SysResult {
    remove(HERE, args[0], Remove::Directory)
}

/// unlinkat(2).
pub fn unlinkat(args: &Args) -> SysResult {
    match args[2] as u32 {
        0 => remove(args[0], args[1], Remove::File),
        abi::AT_REMOVEDIR => remove(args[0], args[1], Remove::Directory),
        _ => Err(Errno::EINVAL),
    }
}

fn remove(fd: u64, at: u64, what: Remove) -> SysResult {
    let found = name_at(fd, at)?;
    namespace::remove(&found, what)?;
    Ok(0)
}

/// rename(2).
pub fn rename(args: &Args) -> SysResult {
    rename_at(HERE, args[0], HERE, args[1], 0)
}

/// renameat(2).
pub fn renameat(args: &Args) -> SysResult {
    rename_at(args[0], args[1], args[2], args[3], 0)
}

/// renameat2(2).
pub fn renameat2(args: &Args) -> SysResult {
    rename_at(args[0], args[1], args[2], args[3], args[4] as u32)
}

fn rename_at(from_fd: u64, from: u64, to_fd: u64, to: u64, flags: u32) -> SysResult {
    let if_exists = match flags {
        0 => IfExists::Replace,
        abi::RENAME_NOREPLACE => IfExists::Fail,
        abi::RENAME_EXCHANGE => IfExists::Exchange,
        _ => return Err(Errno::EINVAL),
    };
    let from = name_at(from_fd, from)?;
    let to = name_at(to_fd, to)?;
    namespace::rename(&from, &to, if_exists)?;
    Ok(0)
}

/// readlink(2).
pub fn readlink(args: &Args) -> SysResult {
    read_link(HERE, args[0], args[1], args[2])
}

/// readlinkat(2).
pub fn readlinkat(args: &Args) -> SysResult {
    read_link(args[0], args[1], args[2], args[3])
}

fn read_link(fd: u64, at: u64, to: u64, len: u64) -> SysResult {
    if (len as i32) <= 0 {
        return Err(Errno::EINVAL);
    }
    let path = path(at)?;
    let start = start(fd, &path)?;
    let inode =
        if path.is_empty() { start.base } else { lookup::existing(&start, &path, LastLink::Keep)? };
    let text: Vec<u8> = match &inode.node {
        Node::Link(target) => target.to_vec(),
        Node::VirtualLink(link) => link.text()?,
        _ if path.is_empty() => return Err(Errno::ENOENT),
        _ => return Err(Errno::EINVAL),
    };
    let len = text.len().min(len as usize);
    user::write_bytes(to, &text[..len])?;
    Ok(len as u64)
}

/// truncate(2).
pub fn truncate(args: &Args) -> SysResult {
    if args[1].cast_signed() < 0 {
        return Err(Errno::EINVAL);
    }
    let inode = existing_at(HERE, args[0], 0)?;
    match &inode.node {
        Node::Regular(content) => {
            let _writing = Writing::begin(&inode)?;
            content.set_size(args[1], inode.number)?;
        }
        _ if inode.is_directory() => return Err(Errno::EISDIR),
        _ => return Err(Errno::EINVAL),
    }
    inode.touch_modified();
    Ok(0)
}

/// chdir(2).
pub fn chdir(args: &Args) -> SysResult {
    let directory = directory(existing_at(HERE, args[0], 0)?)?;
    current().fs().set_working_directory(directory);
    Ok(0)
}

/// fchdir(2).
pub fn fchdir(args: &Args) -> SysResult {
    let directory = directory(file(args[0])?.inode().clone())?;
    current().fs().set_working_directory(directory);
    Ok(0)
}

/// chroot(2).
pub fn chroot(args: &Args) -> SysResult {
    let directory = directory(existing_at(HERE, args[0], 0)?)?;
    current().fs().set_root(directory);
    Ok(0)
}

fn directory(inode: Arc<Inode>) -> Result<Arc<Inode>, Errno> {
    if inode.is_directory() { Ok(inode) } else { Err(Errno::ENOTDIR) }
}

/// getcwd(2).
pub fn getcwd(args: &Args) -> SysResult {
    let start = current().fs().start();
    if matches!(&start.base.node, Node::Directory(directory) if directory.is_removed()) {
        return Err(Errno::ENOENT);
    }
    let mut path = start.base.path_from(&start.root)?;
    path.push(0);
    if path.len() as u64 > args[1] {
        return Err(Errno::ERANGE);
    }
    user::write_bytes(args[0], &path)?;
    Ok(path.len() as u64)
}

/// umask(2).
pub fn umask(args: &Args) -> SysResult {
    Ok(current().fs().set_umask(args[0] as u32).into())
}

/// getdents64(2).
pub fn getdents64(args: &Args) -> SysResult {
    /// More than this is not filled in one call.
    const MAX_BYTES: usize = 32 << 10;
    let file = descriptor::usable_file(args[0])?;
    let len = (args[2] as u32 as usize).min(MAX_BYTES);
    let mut buffer = Vec::new();
    buffer.try_reserve_exact(len).map_err(|_| Errno::ENOMEM)?;
    buffer.resize(len, 0);
    let filled = file.read_directory(&mut buffer, |filled| user::write_bytes(args[1], filled))?;
    Ok(filled as u64)
}
