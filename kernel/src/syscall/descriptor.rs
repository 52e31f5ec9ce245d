//! File descriptors: closing, duplicating, `fcntl`, `ioctl`; and what the other file calls need of them.

use alloc::sync::Arc;

use linux_raw_sys::general as abi;
use linux_raw_sys::ioctl;
use orrery_core::fs::fd_table::OnExec;

use super::{Args, Errno, SysResult, lock};
use crate::fs::inode::Node;
use crate::fs::lookup::Start;
use crate::fs::pipe::Pipe;
use crate::fs::{OpenFile, PATH_MAX_BYTES};
use crate::mm::user;
use crate::process::{current, exit};

/// The open file of a descriptor.
///
/// # Errors
/// `EBADF`.
#[inline]
pub(super) fn file(fd: u64) -> Result<Arc<OpenFile>, Errno> {
    current().files.lock().as_ref().ok_or(Errno::EBADF)?.get(fd as i32)
}

/// As [`file`], without those that were opened as a path only.
///
/// # Errors
/// `EBADF`.
pub(super) fn usable_file(fd: u64) -> Result<Arc<OpenFile>, Errno> {
    file(fd)
        .and_then(|file| if file.flags() & abi::O_PATH == 0 { Ok(file) } else { Err(Errno::EBADF) })
}

/// One above the largest descriptor that the process may have.
pub(super) fn descriptor_limit() -> u32 {
    current().process.limits.lock().descriptors()
}

/// What `O_CLOEXEC` among these flags says.
pub(super) fn on_exec(flags: u32) -> OnExec {
    if flags & abi::O_CLOEXEC != 0 { OnExec::Close } else { OnExec::Keep }
}

/// Gives a file the lowest descriptor.
///
/// # Errors
/// `EMFILE`.
pub(super) fn install(file: Arc<OpenFile>, flags: u32) -> SysResult {
    let fd = current().files().insert(0, descriptor_limit(), file, on_exec(flags))?;
    Ok(fd.into())
}

/// Reads a path.
///
/// # Errors
/// `EFAULT`, `ENAMETOOLONG`.
pub(super) fn path(address: u64) -> Result<alloc::vec::Vec<u8>, Errno> {
    user::read_string(address, PATH_MAX_BYTES)
}

/// Where `path` starts that is given with a directory's descriptor.
///
/// # Errors
/// `EBADF`; `ENOTDIR` if it is no directory's.
pub(super) fn start(fd: u64, path: &[u8]) -> Result<Start, Errno> {
    let mut start = current().fs().start();
    if fd as i32 != abi::AT_FDCWD && path.first() != Some(&b'/') {
        start.base = file(fd)?.inode().clone();
        if !path.is_empty() && !start.base.is_directory() {
            return Err(Errno::ENOTDIR);
        }
    }
    Ok(start)
}

/// close(2).
pub fn close(args: &Args) -> SysResult {
    closed(current().files().close(args[0] as i32))
}

/// What becomes of a program whose descriptor may not have been closed for want of memory.
fn closed(result: Result<(), Errno>) -> SysResult {
    if result == Err(Errno::ENOMEM) {
        // Nobody expects that it stays open: it is as with a page that cannot be copied.
        exit::out_of_memory(current());
    }
    result.map(|()| 0)
}

/// Flags of close_range(2) (Linux, `uapi/linux/close_range.h`): the caller gets a table of its own first.
const CLOSE_RANGE_UNSHARE: u32 = 1 << 1;
/// They are to be closed by `execve`.
const CLOSE_RANGE_CLOEXEC: u32 = 1 << 2;

/// close_range(2).
pub fn close_range(args: &Args) -> SysResult {
    let (first, last, flags) = (args[0] as u32, args[1] as u32, args[2] as u32);
    if flags & !(CLOSE_RANGE_UNSHARE | CLOSE_RANGE_CLOEXEC) != 0 || first > last {
        return Err(Errno::EINVAL);
    }
    let thread = current();
    if flags & CLOSE_RANGE_UNSHARE != 0 {
        let own = thread.files().copy()?;
        let shared = thread.files.lock().replace(own);
        drop(shared);
    }
    if flags & CLOSE_RANGE_CLOEXEC != 0 {
        thread.files().close_range_on_exec(first, last)?;
        Ok(0)
    } else {
        closed(thread.files().close_range(first, last))
    }
}

/// dup(2).
pub fn dup(args: &Args) -> SysResult {
    install(file(args[0])?, 0)
}

/// dup2(2).
pub fn dup2(args: &Args) -> SysResult {
    if args[0] as u32 == args[1] as u32 {
        file(args[0])?;
        return Ok(args[1] & u64::from(u32::MAX));
    }
    duplicate(args[0], args[1], 0)
}

/// dup3(2).
pub fn dup3(args: &Args) -> SysResult {
    let flags = args[2] as u32;
    if flags & !abi::O_CLOEXEC != 0 || args[0] as u32 == args[1] as u32 {
        return Err(Errno::EINVAL);
    }
    duplicate(args[0], args[1], flags)
}

fn duplicate(from: u64, to: u64, flags: u32) -> SysResult {
    let (from, to) = (from as u32, to as u32);
    current().files().duplicate_to(from, to, descriptor_limit(), on_exec(flags))?;
    Ok(to.into())
}

/// fcntl(2).
pub fn fcntl(args: &Args) -> SysResult {
    let (fd, command, argument) = (args[0] as u32, args[1] as u32, args[2]);
    let file = file(args[0])?;
    if file.flags() & abi::O_PATH != 0
        && !matches!(
            command,
            abi::F_DUPFD | abi::F_DUPFD_CLOEXEC | abi::F_GETFD | abi::F_SETFD | abi::F_GETFL
        )
    {
        return Err(Errno::EBADF);
    }
    let files = current().files();
    match command {
        abi::F_DUPFD | abi::F_DUPFD_CLOEXEC => {
            let least = u32::try_from(argument).map_err(|_| Errno::EINVAL)?;
            let limit = descriptor_limit();
            if least >= limit {
                return Err(Errno::EINVAL);
            }
            let closes = command == abi::F_DUPFD_CLOEXEC;
            let on_exec = if closes { OnExec::Close } else { OnExec::Keep };
            Ok(files.insert(least, limit, file, on_exec)?.into())
        }
        abi::F_GETFD => Ok(u64::from(files.on_exec(fd)? == OnExec::Close)),
        abi::F_SETFD => {
            let closes = argument as u32 & abi::FD_CLOEXEC != 0;
            files.set_on_exec(fd, if closes { OnExec::Close } else { OnExec::Keep })?;
            Ok(0)
        }
        abi::F_GETFL => Ok(file.flags().into()),
        abi::F_SETFL => {
            if argument as u32 & abi::O_DIRECT != 0
                && let Ok(pipe) = pipe(&file)
            {
                pipe.take_packets()?;
            }
            file.set_flags(argument as u32);
            Ok(0)
        }
        abi::F_GETPIPE_SZ => Ok(pipe(&file)?.capacity_bytes() as u64),
        abi::F_SETPIPE_SZ => pipe(&file)?.set_capacity(argument),
        _ => lock::fcntl(args[0], &file, command, argument).unwrap_or(Err(Errno::EINVAL)),
    }
}

/// The pipe that a file is an end of.
fn pipe(file: &OpenFile) -> Result<&Pipe, Errno> {
    match &file.inode().node {
        Node::Fifo(fifo) => Ok(fifo.pipe()),
        _ => Err(Errno::EBADF),
    }
}

/// ioctl(2).
pub fn ioctl(args: &Args) -> SysResult {
    let (request, argument) = (args[1] as u32, args[2]);
    let file = usable_file(args[0])?;
    match request {
        ioctl::FIOCLEX => current().files().set_on_exec(args[0] as u32, OnExec::Close)?,
        ioctl::FIONCLEX => current().files().set_on_exec(args[0] as u32, OnExec::Keep)?,
        ioctl::FIONBIO => {
            let nonblocking = user::read::<i32>(argument)? != 0;
            let bit = if nonblocking { abi::O_NONBLOCK } else { 0 };
            file.set_flags(file.flags() & !abi::O_NONBLOCK | bit);
        }
        ioctl::FIONREAD => {
            let bytes = file.file().readable_bytes()?;
            // Less than nothing behind the end; 32 bits count, as on Linux.
            user::write(argument, &(bytes.wrapping_sub(file.position()) as i32))?;
        }
        _ => return file.file().control(request, argument),
    }
    Ok(0)
}
