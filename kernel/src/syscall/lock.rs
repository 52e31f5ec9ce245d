//! Locks on files: the commands of fcntl(2) for record locks, and flock(2).

use alloc::sync::Arc;

use linux_raw_sys::general as abi;
use linux_raw_sys::general::flock as Flock;
use orrery_core::fs::lock::{Kind, Range};

use super::descriptor::{self, usable_file};
use super::{Args, Errno, SysResult};
use crate::fs::OpenFile;
use crate::fs::lock::{self, IfTaken, RecordOwner};
use crate::mm::user;
use crate::process::current;

/// What a type of lock asks for; none is asked for to give locks back.
fn kind(lock_type: i16) -> Result<Option<Kind>, Errno> {
    match u32::try_from(lock_type) {
        Ok(abi::F_RDLCK) => Ok(Some(Kind::Shared)),
        Ok(abi::F_WRLCK) => Ok(Some(Kind::Exclusive)),
        Ok(abi::F_UNLCK) => Ok(None),
        _ => Err(Errno::EINVAL),
    }
}

fn lock_type(kind: Kind) -> i16 {
    match kind {
        Kind::Shared => abi::F_RDLCK as i16,
        Kind::Exclusive => abi::F_WRLCK as i16,
    }
}

fn range(file: &OpenFile, asked: &Flock) -> Result<Range, Errno> {
    let base = match u32::try_from(asked.l_whence) {
        Ok(abi::SEEK_SET) => 0,
        Ok(abi::SEEK_CUR) => file.position(),
        Ok(abi::SEEK_END) => file.inode().size_bytes(),
        _ => return Err(Errno::EINVAL),
    };
    Range::from_flock(base, asked.l_start, asked.l_len)
}

/// The commands of fcntl(2) about record locks; none if it is another.
pub(super) fn fcntl(fd: u64, file: &Arc<OpenFile>, command: u32, at: u64) -> Option<SysResult> {
    let files = current().files();
    let whose = match command {
        abi::F_GETLK | abi::F_SETLK | abi::F_SETLKW => RecordOwner::Files(&files),
        abi::F_OFD_GETLK | abi::F_OFD_SETLK | abi::F_OFD_SETLKW => RecordOwner::OpenFile,
        _ => return None,
    };
    Some(match command {
        abi::F_GETLK | abi::F_OFD_GETLK => get(file, whose, at),
        abi::F_SETLK | abi::F_OFD_SETLK => set(fd, file, whose, at, IfTaken::Fail),
        _ => set(fd, file, whose, at, IfTaken::Wait),
    })
}

/// Reads what a program asks for.
fn asked(whose: RecordOwner<'_>, at: u64) -> Result<Flock, Errno> {
    let asked: Flock = user::read(at)?;
    match whose {
        // The field is for later.
        RecordOwner::OpenFile if asked.l_pid != 0 => Err(Errno::EINVAL),
        _ => Ok(asked),
    }
}

fn get(file: &OpenFile, whose: RecordOwner<'_>, at: u64) -> SysResult {
    let asked = asked(whose, at)?;
    let kind = kind(asked.l_type)?.ok_or(Errno::EINVAL)?;
    let range = range(file, &asked)?;
    let mut answer: Flock = user::zeroed();
    (answer.l_whence, answer.l_pid) = (asked.l_whence, asked.l_pid);
    (answer.l_start, answer.l_len) = (asked.l_start, asked.l_len);
    match lock::record_in_the_way(file, whose, (range, kind)) {
        None => answer.l_type = abi::F_UNLCK as i16,
        Some(found) => {
            answer.l_type = lock_type(found.kind);
            answer.l_whence = abi::SEEK_SET as i16;
            answer.l_start = found.range.flock_start();
            answer.l_len = found.range.flock_len();
            answer.l_pid = found.pid.map_or(-1, u32::cast_signed);
        }
    }
    user::write(at, &answer)?;
    Ok(0)
}

fn set(
    fd: u64,
    file: &Arc<OpenFile>,
    whose: RecordOwner<'_>,
    at: u64,
    if_taken: IfTaken,
) -> SysResult {
    let flock = asked(whose, at)?;
    let range = range(file, &flock)?;
    let Some(kind) = kind(flock.l_type)? else {
        lock::unlock_record(file, whose, range)?;
        return Ok(0);
    };
    let is_open_for_it = match kind {
        Kind::Shared => file.is_readable(),
        Kind::Exclusive => file.is_writable(),
    };
    if !is_open_for_it {
        return Err(Errno::EBADF);
    }
    lock::lock_record(file, whose, (range, kind), if_taken)?;
    // Another thread may have closed the descriptor before the lock was there, and found nothing to give back.
    let is_open = descriptor::file(fd).is_ok_and(|now| Arc::ptr_eq(&now, file));
    if !is_open {
        lock::unlock_record(file, whose, range)?;
        return Err(Errno::EBADF);
    }
    Ok(0)
}

/// flock(2).
pub fn flock(args: &Args) -> SysResult {
    let operation = args[1] as u32;
    let kind = match operation & !abi::LOCK_NB {
        abi::LOCK_SH => Some(Kind::Shared),
        abi::LOCK_EX => Some(Kind::Exclusive),
        abi::LOCK_UN => None,
        _ => return Err(Errno::EINVAL),
    };
    let file = usable_file(args[0])?;
    let Some(kind) = kind else {
        lock::unlock_whole(&file);
        return Ok(0);
    };
    if !file.is_readable() && !file.is_writable() {
        return Err(Errno::EBADF);
    }
    let may_wait = operation & abi::LOCK_NB == 0;
    lock::lock_whole(&file, kind, if may_wait { IfTaken::Wait } else { IfTaken::Fail })?;
    Ok(0)
}
