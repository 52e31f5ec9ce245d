//! What files are, and changes of that.

use linux_raw_sys::general as abi;

use super::descriptor::{file, usable_file};
use super::path::existing_at;
use super::{Args, Errno, SysResult};
use crate::fs::inode::{FileSystem, Inode, Node, PERMISSIONS};
use crate::fs::limits;
use crate::fs::page::PAGE_BYTES;
use crate::fs::time::Time;
use crate::mm::user;

/// `AT_FDCWD`, as it comes in a register.
const HERE: u64 = abi::AT_FDCWD as u32 as u64;
/// Bytes in the units of `st_blocks`.
const BLOCK_BYTES: u64 = 512;

fn blocks(inode: &Inode) -> u64 {
    let pages = match &inode.node {
        Node::Regular(content) => content.stored_pages(),
        _ => inode.size_bytes().div_ceil(PAGE_BYTES as u64),
    };
    pages * (PAGE_BYTES as u64 / BLOCK_BYTES)
}

/// A device number as `stat` has it (Linux, `new_encode_dev`).
fn device_number(major: u32, minor: u32) -> u64 {
    u64::from(minor & 0xff | major << 8 | (minor & !0xff) << 12)
}

fn device(inode: &Inode) -> (u32, u32) {
    match inode.node {
        Node::Device(major, minor) | Node::BlockDevice(major, minor) => (major, minor),
        _ => (0, 0),
    }
}

fn write_stat(inode: &Inode, to: u64) -> SysResult {
    let attributes = inode.attributes();
    let (major, minor) = device(inode);
    let mut stat: abi::stat = user::zeroed();
    stat.st_dev = device_number(0, inode.file_system as u32);
    stat.st_ino = inode.number;
    stat.st_nlink = attributes.links.into();
    stat.st_mode = attributes.mode;
    (stat.st_uid, stat.st_gid) = (attributes.uid, attributes.gid);
    stat.st_rdev = device_number(major, minor);
    stat.st_size = inode.size_bytes().cast_signed();
    stat.st_blksize = PAGE_BYTES as i64;
    stat.st_blocks = blocks(inode).cast_signed();
    let (accessed, modified, changed) =
        (attributes.accessed, attributes.modified, attributes.changed);
    stat.st_atime = accessed.seconds.cast_unsigned();
    stat.st_atime_nsec = accessed.nanoseconds.into();
    stat.st_mtime = modified.seconds.cast_unsigned();
    stat.st_mtime_nsec = modified.nanoseconds.into();
    stat.st_ctime = changed.seconds.cast_unsigned();
    stat.st_ctime_nsec = changed.nanoseconds.into();
    user::write(to, &stat)?;
    Ok(0)
}

/// stat(2).
pub fn stat(args: &Args) -> SysResult {
    write_stat(&*existing_at(HERE, args[0], 0)?, args[1])
}

/// lstat(2).
pub fn lstat(args: &Args) -> SysResult {
    write_stat(&*existing_at(HERE, args[0], abi::AT_SYMLINK_NOFOLLOW)?, args[1])
}

/// fstat(2).
pub fn fstat(args: &Args) -> SysResult {
    write_stat(file(args[0])?.inode(), args[1])
}

/// newfstatat(2).
pub fn newfstatat(args: &Args) -> SysResult {
    let flags = args[3] as u32;
    let known = abi::AT_SYMLINK_NOFOLLOW | abi::AT_NO_AUTOMOUNT | abi::AT_EMPTY_PATH;
    if flags & !known != 0 {
        return Err(Errno::EINVAL);
    }
    write_stat(&*existing_at(args[0], args[1], flags)?, args[2])
}

fn statx_time(time: Time) -> abi::statx_timestamp {
    abi::statx_timestamp { tv_sec: time.seconds, tv_nsec: time.nanoseconds, __reserved: 0 }
}

/// statx(2).
pub fn statx(args: &Args) -> SysResult {
    let (flags, mask) = (args[2] as u32, args[3] as u32);
    let known = abi::AT_SYMLINK_NOFOLLOW
        | abi::AT_NO_AUTOMOUNT
        | abi::AT_EMPTY_PATH
        | abi::AT_STATX_SYNC_TYPE;
    if flags & !known != 0
        || flags & abi::AT_STATX_SYNC_TYPE == abi::AT_STATX_SYNC_TYPE
        || mask & abi::STATX__RESERVED != 0
    {
        return Err(Errno::EINVAL);
    }
    let inode = existing_at(args[0], args[1], flags)?;
    let attributes = inode.attributes();
    let (major, minor) = device(&inode);
    let mut statx: abi::statx = user::zeroed();
    statx.stx_mask = abi::STATX_BASIC_STATS;
    statx.stx_blksize = PAGE_BYTES as u32;
    statx.stx_nlink = attributes.links;
    (statx.stx_uid, statx.stx_gid) = (attributes.uid, attributes.gid);
    statx.stx_mode = attributes.mode as u16;
    statx.stx_ino = inode.number;
    statx.stx_size = inode.size_bytes();
    statx.stx_blocks = blocks(&inode);
    statx.stx_atime = statx_time(attributes.accessed);
    statx.stx_mtime = statx_time(attributes.modified);
    statx.stx_ctime = statx_time(attributes.changed);
    (statx.stx_rdev_major, statx.stx_rdev_minor) = (major, minor);
    (statx.stx_dev_major, statx.stx_dev_minor) = (0, inode.file_system as u32);
    user::write(args[4], &statx)?;
    Ok(0)
}

fn write_statfs(inode: &Inode, to: u64) -> SysResult {
    /// Magic numbers of file systems (Linux, `uapi/linux/magic.h`).
    const TMPFS: i64 = 0x0102_1994;
    const PROC: i64 = 0x9fa0;
    const SYS: i64 = 0x6265_6572;
    const PIPEFS: i64 = 0x5049_5045;
    let mut statfs: abi::statfs = user::zeroed();
    let is_root = inode.file_system == FileSystem::Root;
    statfs.f_type = match inode.file_system {
        FileSystem::Root => TMPFS,
        FileSystem::Proc => PROC,
        FileSystem::Sys => SYS,
        FileSystem::Nameless => PIPEFS,
    };
    if is_root {
        let (pages, inodes) = (&limits::FILE_PAGES, &limits::INODES);
        statfs.f_blocks = pages.limit().cast_signed();
        statfs.f_bfree = pages.limit().saturating_sub(pages.used()).cast_signed();
        statfs.f_bavail = statfs.f_bfree;
        statfs.f_files = inodes.limit().cast_signed();
        statfs.f_ffree = inodes.limit().saturating_sub(inodes.used()).cast_signed();
    }
    statfs.f_bsize = PAGE_BYTES as i64;
    statfs.f_frsize = PAGE_BYTES as i64;
    statfs.f_namelen = abi::NAME_MAX.into();
    user::write(to, &statfs)?;
    Ok(0)
}

/// statfs(2).
pub fn statfs(args: &Args) -> SysResult {
    write_statfs(&*existing_at(HERE, args[0], 0)?, args[1])
}

/// fstatfs(2).
pub fn fstatfs(args: &Args) -> SysResult {
    write_statfs(file(args[0])?.inode(), args[1])
}

/// access(2).
pub fn access(args: &Args) -> SysResult {
    check_access(HERE, args[0], args[1] as u32, 0)
}

/// faccessat(2).
pub fn faccessat(args: &Args) -> SysResult {
    check_access(args[0], args[1], args[2] as u32, 0)
}

/// faccessat2(2).
pub fn faccessat2(args: &Args) -> SysResult {
    let flags = args[3] as u32;
    if flags & !(abi::AT_EACCESS | abi::AT_SYMLINK_NOFOLLOW | abi::AT_EMPTY_PATH) != 0 {
        return Err(Errno::EINVAL);
    }
    check_access(args[0], args[1], args[2] as u32, flags)
}

/// Root may do everything but execute what nobody may.
fn check_access(fd: u64, path: u64, wanted: u32, flags: u32) -> SysResult {
    if wanted & !(abi::R_OK | abi::W_OK | abi::X_OK) != 0 {
        return Err(Errno::EINVAL);
    }
    let inode = existing_at(fd, path, flags)?;
    let nobody_may = inode.attributes().mode & 0o111 == 0;
    if wanted & abi::X_OK != 0 && nobody_may && !inode.is_directory() {
        return Err(Errno::EACCES);
    }
    Ok(0)
}

fn change_mode(inode: &Inode, mode: u32) -> SysResult {
    if matches!(inode.node, Node::Link(_) | Node::VirtualLink(_)) {
        return Err(Errno::EOPNOTSUPP);
    }
    inode.with_attributes(|it| it.mode = it.mode & !PERMISSIONS | mode & PERMISSIONS);
    inode.touch_changed();
    Ok(0)
}

/// chmod(2).
pub fn chmod(args: &Args) -> SysResult {
    change_mode(&*existing_at(HERE, args[0], 0)?, args[1] as u32)
}

/// fchmod(2).
pub fn fchmod(args: &Args) -> SysResult {
    change_mode(usable_file(args[0])?.inode(), args[1] as u32)
}

/// fchmodat(2), which knows no flags.
pub fn fchmodat(args: &Args) -> SysResult {
    change_mode(&*existing_at(args[0], args[1], 0)?, args[2] as u32)
}

/// fchmodat2(2).
pub fn fchmodat2(args: &Args) -> SysResult {
    let flags = args[3] as u32;
    if flags & !(abi::AT_SYMLINK_NOFOLLOW | abi::AT_EMPTY_PATH) != 0 {
        return Err(Errno::EINVAL);
    }
    change_mode(&*existing_at(args[0], args[1], flags)?, args[2] as u32)
}

fn change_owner(inode: &Inode, uid: u32, gid: u32) -> SysResult {
    const KEEP: u32 = u32::MAX;
    inode.with_attributes(|it| {
        if uid != KEEP {
            it.uid = uid;
        }
        if gid != KEEP {
            it.gid = gid;
        }
        // Whoever gets a program gets no other rights with it.
        if it.mode & abi::S_IFMT == abi::S_IFREG {
            it.mode &= !(abi::S_ISUID | abi::S_ISGID);
        }
    });
    inode.touch_changed();
    Ok(0)
}

/// chown(2).
pub fn chown(args: &Args) -> SysResult {
    change_owner(&*existing_at(HERE, args[0], 0)?, args[1] as u32, args[2] as u32)
}

/// lchown(2).
pub fn lchown(args: &Args) -> SysResult {
    let inode = existing_at(HERE, args[0], abi::AT_SYMLINK_NOFOLLOW)?;
    change_owner(&inode, args[1] as u32, args[2] as u32)
}

/// fchown(2).
pub fn fchown(args: &Args) -> SysResult {
    change_owner(usable_file(args[0])?.inode(), args[1] as u32, args[2] as u32)
}

/// fchownat(2).
pub fn fchownat(args: &Args) -> SysResult {
    let flags = args[4] as u32;
    if flags & !(abi::AT_SYMLINK_NOFOLLOW | abi::AT_EMPTY_PATH) != 0 {
        return Err(Errno::EINVAL);
    }
    let inode = existing_at(args[0], args[1], flags)?;
    change_owner(&inode, args[2] as u32, args[3] as u32)
}

/// What becomes of a time: `UTIME_NOW` and `UTIME_OMIT` are nanoseconds that no time has.
fn new_time([seconds, nanoseconds]: [i64; 2]) -> Result<Option<Time>, Errno> {
    match u32::try_from(nanoseconds) {
        Ok(abi::UTIME_NOW) => Ok(Some(Time::now())),
        Ok(abi::UTIME_OMIT) => Ok(None),
        Ok(nanoseconds @ 0..1_000_000_000) => Ok(Some(Time { seconds, nanoseconds })),
        _ => Err(Errno::EINVAL),
    }
}

fn set_times(inode: &Inode, accessed: Option<Time>, modified: Option<Time>) -> SysResult {
    inode.with_attributes(|it| {
        it.accessed = accessed.unwrap_or(it.accessed);
        it.modified = modified.unwrap_or(it.modified);
    });
    inode.touch_changed();
    Ok(0)
}

/// utimensat(2).
pub fn utimensat(args: &Args) -> SysResult {
    let flags = args[3] as u32;
    if flags & !(abi::AT_SYMLINK_NOFOLLOW | abi::AT_EMPTY_PATH) != 0 {
        return Err(Errno::EINVAL);
    }
    let (accessed, modified) = if args[2] == 0 {
        (Some(Time::now()), Some(Time::now()))
    } else {
        let [a, b, c, d] = user::read::<[i64; 4]>(args[2])?;
        (new_time([a, b])?, new_time([c, d])?)
    };
    if accessed.is_none() && modified.is_none() {
        // Not even the path is looked at.
        return Ok(0);
    }
    if args[1] == 0 && args[0] as u32 != abi::AT_FDCWD as u32 {
        if flags != 0 {
            return Err(Errno::EINVAL);
        }
        return set_times(usable_file(args[0])?.inode(), accessed, modified);
    }
    set_times(&*existing_at(args[0], args[1], flags)?, accessed, modified)
}

/// utimes(2).
pub fn utimes(args: &Args) -> SysResult {
    set_times_of_path(HERE, args[0], args[1])
}

/// futimesat(2).
pub fn futimesat(args: &Args) -> SysResult {
    set_times_of_path(args[0], args[1], args[2])
}

/// Times in seconds and microseconds.
fn set_times_of_path(fd: u64, path: u64, times: u64) -> SysResult {
    let (accessed, modified) = if times == 0 {
        (Time::now(), Time::now())
    } else {
        let [a, b, c, d] = user::read::<[i64; 4]>(times)?;
        let time = |seconds, us: i64| match u32::try_from(us) {
            Ok(us @ 0..1_000_000) => Ok(Time { seconds, nanoseconds: us * 1000 }),
            _ => Err(Errno::EINVAL),
        };
        (time(a, b)?, time(c, d)?)
    };
    set_times(&*existing_at(fd, path, 0)?, Some(accessed), Some(modified))
}

/// utime(2): times in seconds.
pub fn utime(args: &Args) -> SysResult {
    let (accessed, modified) = if args[1] == 0 {
        (Time::now(), Time::now())
    } else {
        let [accessed, modified] = user::read::<[i64; 2]>(args[1])?;
        let time = |seconds| Time { seconds, nanoseconds: 0 };
        (time(accessed), time(modified))
    };
    set_times(&*existing_at(HERE, args[0], 0)?, Some(accessed), Some(modified))
}
