//! Reading, writing, seeking.

use alloc::sync::Arc;
use alloc::vec::Vec;

use linux_raw_sys::general as abi;
use linux_raw_sys::general::iovec;
use orrery_core::signal::Signal;

use super::descriptor::usable_file;
use super::{Args, Errno, SysResult};
use crate::arch::user::WINDOW_END;
use crate::fs::OpenFile;
use crate::fs::content::MAX_SIZE_BYTES;
use crate::fs::inode::Node;
use crate::fs::io::{IoFrom, IoTo, Segment};
use crate::mm::user;
use crate::process::current;
use crate::process::signal::send_to_self;

/// Most bytes that one call moves, as on Linux.
const MAX_TRANSFER_BYTES: usize = 0x7fff_f000;
/// Segments of a vector that lie on the stack.
const FEW: usize = 8;

/// The length of a transfer from or to one piece of memory.
#[inline(always)]
pub(super) fn transfer_len(address: u64, len_bytes: u64) -> Result<usize, Errno> {
    if len_bytes > WINDOW_END || address > WINDOW_END - len_bytes {
        return Err(Errno::EFAULT);
    }
    Ok((len_bytes as usize).min(MAX_TRANSFER_BYTES))
}

/// What a writer gets when nobody reads.
#[cold]
pub(super) fn broken_pipe() {
    send_to_self(Signal::SIGPIPE);
}

/// What a write returns. Whoever writes where nobody reads gets a signal.
#[inline]
fn written(result: Result<usize, Errno>) -> SysResult {
    match result {
        Ok(bytes) => Ok(bytes as u64),
        Err(why) => {
            if why == Errno::EPIPE {
                broken_pipe();
            }
            Err(why)
        }
    }
}

/// The file of a descriptor where that is quick: `Files::get_unshared`.
#[inline(always)]
fn quick_file<'a>(fd: u64) -> Option<&'a OpenFile> {
    // SAFETY: the running thread's, which transfers and replaces nothing meanwhile. Nor does a transfer change
    // descriptors; that is true of all in this module that come here.
    unsafe { current().files_unlocked().get_unshared(fd as i32) }
}

/// The file of a descriptor, with a reference.
fn shared_file(fd: u64) -> Result<Arc<OpenFile>, Errno> {
    // SAFETY: the running thread's, used for no longer than this.
    unsafe { current().files_unlocked().get(fd as i32) }
}

/// Transfers bytes from or to the file of a descriptor.
fn on_file<R>(fd: u64, transfer: impl FnOnce(&OpenFile) -> Result<R, Errno>) -> Result<R, Errno> {
    match quick_file(fd) {
        Some(file) => transfer(file),
        None => transfer(&*shared_file(fd)?),
    }
}

/// read(2).
pub fn read(args: &Args) -> SysResult {
    match quick_file(args[0]) {
        Some(file) => read_from(file, args),
        None => read_shared(args),
    }
}

#[inline(never)]
fn read_shared(args: &Args) -> SysResult {
    read_from(&*shared_file(args[0])?, args)
}

#[inline(always)]
fn read_from(file: &OpenFile, args: &Args) -> SysResult {
    let mut to = IoTo::program(args[1], transfer_len(args[1], args[2])?);
    Ok(file.read(&mut to)? as u64)
}

/// write(2).
pub fn write(args: &Args) -> SysResult {
    match quick_file(args[0]) {
        Some(file) => write_to(file, args),
        None => write_shared(args),
    }
}

#[inline(never)]
fn write_shared(args: &Args) -> SysResult {
    write_to(&*shared_file(args[0])?, args)
}

#[inline(always)]
fn write_to(file: &OpenFile, args: &Args) -> SysResult {
    let mut from = IoFrom::program(args[1], transfer_len(args[1], args[2])?);
    written(file.write(&mut from))
}

/// pread64(2).
pub fn pread(args: &Args) -> SysResult {
    let at = offset(args[3])?;
    let file = usable_file(args[0])?;
    let mut to = IoTo::program(args[1], transfer_len(args[1], args[2])?);
    Ok(file.read_at(&mut to, at)? as u64)
}

/// pwrite64(2).
pub fn pwrite(args: &Args) -> SysResult {
    let at = offset(args[3])?;
    let file = usable_file(args[0])?;
    let mut from = IoFrom::program(args[1], transfer_len(args[1], args[2])?);
    written(file.write_at(&mut from, at))
}

fn offset(argument: u64) -> Result<u64, Errno> {
    if argument.cast_signed() < 0 { Err(Errno::EINVAL) } else { Ok(argument) }
}

/// Reads a vector of segments and calls `work` with it.
pub(super) fn with_segments<R>(
    address: u64,
    count: u64,
    work: impl FnOnce(&[Segment]) -> Result<R, Errno>,
) -> Result<R, Errno> {
    if count > abi::UIO_MAXIOV.into() {
        return Err(Errno::EINVAL);
    }
    let count = count as usize;
    let empty = Segment { address: 0, len_bytes: 0 };
    let mut few = [empty; FEW];
    let mut many = Vec::new();
    let segments = if count <= FEW {
        &mut few[..count]
    } else {
        many.try_reserve_exact(count).map_err(|_| Errno::ENOMEM)?;
        many.resize(count, empty);
        &mut many[..]
    };
    let mut left = MAX_TRANSFER_BYTES;
    for (index, segment) in segments.iter_mut().enumerate() {
        let at = address.checked_add((index * size_of::<iovec>()) as u64).ok_or(Errno::EFAULT)?;
        let [base, len] = user::read::<[u64; 2]>(at)?;
        if len.cast_signed() < 0 {
            return Err(Errno::EINVAL);
        }
        let len_bytes = transfer_len(base, len)?.min(left);
        left -= len_bytes;
        *segment = Segment { address: base, len_bytes };
    }
    work(segments)
}

/// readv(2).
pub fn readv(args: &Args) -> SysResult {
    on_file(args[0], |file| {
        with_segments(args[1], args[2], |segments| {
            Ok(file.read(&mut IoTo::program_segments(segments))? as u64)
        })
    })
}

/// writev(2).
pub fn writev(args: &Args) -> SysResult {
    on_file(args[0], |file| {
        with_segments(args[1], args[2], |segments| {
            written(file.write(&mut IoFrom::program_segments(segments)))
        })
    })
}

/// preadv(2).
pub fn preadv(args: &Args) -> SysResult {
    read_vector_at(args, offset(args[3])?)
}

/// pwritev(2).
pub fn pwritev(args: &Args) -> SysResult {
    write_vector_at(args, offset(args[3])?)
}

/// preadv2(2). No flag is known.
pub fn preadv2(args: &Args) -> SysResult {
    no_flags(args[5])?;
    if args[3] == u64::MAX { readv(args) } else { preadv(args) }
}

/// pwritev2(2). No flag is known.
pub fn pwritev2(args: &Args) -> SysResult {
    no_flags(args[5])?;
    if args[3] == u64::MAX { writev(args) } else { pwritev(args) }
}

fn no_flags(flags: u64) -> Result<(), Errno> {
    if flags == 0 { Ok(()) } else { Err(Errno::EOPNOTSUPP) }
}

fn read_vector_at(args: &Args, at: u64) -> SysResult {
    let file = usable_file(args[0])?;
    with_segments(args[1], args[2], |segments| {
        Ok(file.read_at(&mut IoTo::program_segments(segments), at)? as u64)
    })
}

fn write_vector_at(args: &Args, at: u64) -> SysResult {
    let file = usable_file(args[0])?;
    with_segments(args[1], args[2], |segments| {
        written(file.write_at(&mut IoFrom::program_segments(segments), at))
    })
}

/// lseek(2).
pub fn lseek(args: &Args) -> SysResult {
    on_file(args[0], |file| file.seek(args[1].cast_signed(), args[2] as u32))
}

/// sendfile(2).
pub fn sendfile(args: &Args) -> SysResult {
    let (to, from, offset_at) = (usable_file(args[0])?, usable_file(args[1])?, args[2]);
    let mut left = (args[3] as usize).min(MAX_TRANSFER_BYTES);
    if !to.is_writable() || !from.is_readable() {
        return Err(Errno::EBADF);
    }
    if to.flags() & abi::O_APPEND != 0 || !from.file().has_positions() || args[3].cast_signed() < 0
    {
        return Err(Errno::EINVAL);
    }
    let start = if offset_at == 0 {
        from.seek(0, abi::SEEK_CUR)?
    } else {
        offset(user::read::<u64>(offset_at)?)?
    };
    let mut chunk = Vec::new();
    chunk.try_reserve_exact(CHUNK_BYTES).map_err(|_| Errno::ENOMEM)?;
    chunk.resize(CHUNK_BYTES, 0);
    let mut at = start;
    let mut result = Ok(());
    while left > 0 {
        let chunk = &mut chunk[..left.min(CHUNK_BYTES)];
        let step = copy_chunk(&from, at, &to, chunk);
        match step {
            Ok(0) => break,
            Ok(bytes) => {
                at += bytes as u64;
                left -= bytes;
            }
            Err(why) => {
                result = Err(why);
                break;
            }
        }
    }
    if offset_at == 0 {
        from.seek(at.cast_signed(), abi::SEEK_SET)?;
    } else {
        user::write(offset_at, &at)?;
    }
    match result {
        Err(why) if at == start => written(Err(why)),
        _ => Ok(at - start),
    }
}

/// Bytes that `sendfile` has in its hands at a time.
const CHUNK_BYTES: usize = 16 << 10;

/// Copies up to a chunk; returns how much has arrived.
fn copy_chunk(
    from: &Arc<OpenFile>,
    at: u64,
    to: &Arc<OpenFile>,
    chunk: &mut [u8],
) -> Result<usize, Errno> {
    let len = from.read_at(&mut IoTo::kernel(chunk), at)?;
    to.write(&mut IoFrom::kernel(&chunk[..len]))
}

/// fsync(2), fdatasync(2), syncfs(2): there is nothing that outlives the machine.
pub fn fsync(args: &Args) -> SysResult {
    usable_file(args[0]).map(|_| 0)
}

/// sync(2): as [`fsync`].
pub fn sync(_args: &Args) -> SysResult {
    Ok(0)
}

/// fadvise64(2): advice is not needed.
pub fn fadvise(args: &Args) -> SysResult {
    let file = usable_file(args[0])?;
    if !file.file().has_positions() {
        return Err(Errno::ESPIPE);
    }
    if args[3] as u32 > abi::POSIX_FADV_NOREUSE { Err(Errno::EINVAL) } else { Ok(0) }
}

/// readahead(2): all is there already.
pub fn readahead(args: &Args) -> SysResult {
    let file = usable_file(args[0])?;
    if !file.is_readable() {
        return Err(Errno::EBADF);
    }
    if matches!(file.inode().node, Node::Regular(_)) { Ok(0) } else { Err(Errno::EINVAL) }
}

/// ftruncate(2).
pub fn ftruncate(args: &Args) -> SysResult {
    let size_bytes = offset(args[1])?;
    let file = usable_file(args[0])?;
    let Node::Regular(content) = &file.inode().node else { return Err(Errno::EINVAL) };
    if !file.is_writable() {
        return Err(Errno::EINVAL);
    }
    content.set_size(size_bytes, file.inode().number)?;
    file.inode().touch_modified();
    Ok(0)
}

/// fallocate(2): only making a file longer; memory comes when it is written.
pub fn fallocate(args: &Args) -> SysResult {
    let file = usable_file(args[0])?;
    let (mode, start, len) = (args[1] as u32, offset(args[2])?, offset(args[3])?);
    if len == 0 {
        return Err(Errno::EINVAL);
    }
    if mode & !abi::FALLOC_FL_KEEP_SIZE != 0 {
        return Err(Errno::EOPNOTSUPP);
    }
    if !file.is_writable() {
        return Err(Errno::EBADF);
    }
    let Node::Regular(content) = &file.inode().node else {
        return Err(match file.inode().kind() {
            abi::S_IFIFO => Errno::ESPIPE,
            _ => Errno::ENODEV,
        });
    };
    let end = start + len;
    if end > MAX_SIZE_BYTES {
        return Err(Errno::EFBIG);
    }
    if mode == 0 && end > content.size_bytes() {
        content.set_size(end, file.inode().number)?;
        file.inode().touch_modified();
    }
    Ok(0)
}
