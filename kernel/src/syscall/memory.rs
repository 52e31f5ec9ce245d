//! Memory of the calling process: mmap(2) and its kin.

use alloc::sync::Arc;

use linux_raw_sys::general as abi;

use super::{Args, Errno, SysResult};
use crate::arch::user::WINDOW_END;
use crate::mm::space::{
    AreaFlags, Backing, MapRequest, Placement, Protection, RemapRequest, SharedMemory, Space,
    Target,
};
use crate::process::current;

const PAGE: u64 = 4096;

fn protection(bits: u64) -> Result<Protection, Errno> {
    Protection::from_bits(bits).ok_or(Errno::EINVAL)
}

/// Whole pages that hold `len_bytes` from `start`, which begins one, all in the window.
fn pages(start: u64, len_bytes: u64) -> Result<u64, Errno> {
    if !start.is_multiple_of(PAGE) {
        return Err(Errno::EINVAL);
    }
    let len_bytes = len_bytes.checked_next_multiple_of(PAGE).ok_or(Errno::ENOMEM)?;
    if len_bytes > WINDOW_END || start > WINDOW_END - len_bytes {
        return Err(Errno::ENOMEM);
    }
    Ok(len_bytes)
}

fn space() -> Arc<Space> {
    current().space()
}

/// mmap(2).
pub fn mmap(args: &Args) -> SysResult {
    let (hint, len_bytes, flags) = (args[0], args[1], args[3] as u32);
    let (fd, offset) = (args[4] as i32, args[5]);
    if len_bytes == 0 || !offset.is_multiple_of(PAGE) {
        return Err(Errno::EINVAL);
    }
    let protection = protection(args[2])?;
    let placement = if flags & abi::MAP_FIXED_NOREPLACE != 0 {
        Placement::FixedNoReplace
    } else if flags & abi::MAP_FIXED != 0 {
        Placement::Fixed
    } else {
        Placement::Anywhere
    };
    let hint = match placement {
        Placement::Anywhere => hint / PAGE * PAGE,
        _ => hint,
    };
    let len_bytes = match placement {
        Placement::Anywhere => pages(0, len_bytes)?,
        _ => pages(hint, len_bytes)?,
    };
    offset.checked_add(len_bytes).ok_or(Errno::EOVERFLOW)?;
    if flags & abi::MAP_HUGETLB != 0 {
        return Err(Errno::EINVAL);
    }
    let kind = flags & abi::MAP_TYPE;
    let shared = match kind {
        abi::MAP_SHARED | abi::MAP_SHARED_VALIDATE => true,
        abi::MAP_PRIVATE => false,
        _ => return Err(Errno::EINVAL),
    };
    let mut area = if flags & abi::MAP_GROWSDOWN != 0 { AreaFlags::STACK } else { AreaFlags::NONE };
    let backing = if flags & abi::MAP_ANONYMOUS != 0 {
        if shared { Backing::Shared(SharedMemory::new(len_bytes), 0) } else { Backing::Anonymous }
    } else {
        let files = current().files();
        let source = files.mappable(fd, shared && protection.writable())?;
        if shared && files.mappable(fd, true).is_err() {
            area = area.union(AreaFlags::READ_ONLY);
        }
        if shared { Backing::Shared(source, offset) } else { Backing::Private(source, offset) }
    };
    let flags = area;
    space().map(&MapRequest { hint, len_bytes, protection, placement, backing, flags })
}

/// munmap(2).
pub fn munmap(args: &Args) -> SysResult {
    let len_bytes = pages(args[0], args[1]).map_err(|_| Errno::EINVAL)?;
    if len_bytes == 0 {
        return Err(Errno::EINVAL);
    }
    space().unmap(args[0], len_bytes)?;
    Ok(0)
}

/// mprotect(2).
pub fn mprotect(args: &Args) -> SysResult {
    let len_bytes = pages(args[0], args[1])?;
    let protection = protection(args[2])?;
    if len_bytes > 0 {
        space().protect(args[0], len_bytes, protection)?;
    }
    Ok(0)
}

/// mremap(2).
pub fn mremap(args: &Args) -> SysResult {
    let (old, old_bytes, new_bytes, flags) = (args[0], args[1], args[2], args[3] as u32);
    let known = abi::MREMAP_MAYMOVE | abi::MREMAP_FIXED;
    if flags & !known != 0 || new_bytes == 0 {
        return Err(Errno::EINVAL);
    }
    let may_move = flags & abi::MREMAP_MAYMOVE != 0;
    let target = match (flags & abi::MREMAP_FIXED != 0, may_move) {
        (true, false) => return Err(Errno::EINVAL),
        (true, true) => Target::Fixed(args[4]),
        (false, true) => Target::MayMove,
        (false, false) => Target::InPlace,
    };
    let new_len_bytes = pages(0, new_bytes)?;
    space().remap(RemapRequest { address: old, old_len_bytes: old_bytes, new_len_bytes, target })
}

/// madvise(2): `MADV_DONTNEED` does what it says; advice that needs no action is taken.
pub fn madvise(args: &Args) -> SysResult {
    let len_bytes = pages(args[0], args[1]).map_err(|_| Errno::EINVAL)?;
    match args[2] as u32 {
        abi::MADV_DONTNEED => space().discard(args[0], len_bytes)?,
        abi::MADV_NORMAL
        | abi::MADV_RANDOM
        | abi::MADV_SEQUENTIAL
        | abi::MADV_WILLNEED
        | abi::MADV_FREE
        | abi::MADV_HUGEPAGE
        | abi::MADV_NOHUGEPAGE
        | abi::MADV_MERGEABLE
        | abi::MADV_UNMERGEABLE
        | abi::MADV_DONTDUMP
        | abi::MADV_DODUMP
        | abi::MADV_COLD
        | abi::MADV_PAGEOUT => {}
        _ => return Err(Errno::EINVAL),
    }
    Ok(0)
}

/// brk(2).
pub fn brk(args: &Args) -> SysResult {
    Ok(space().set_break(args[0]))
}

/// msync(2): files are in memory, so what was written is where it belongs.
pub fn msync(args: &Args) -> SysResult {
    let flags = args[2] as u32;
    let both = abi::MS_ASYNC | abi::MS_SYNC;
    if flags & !(both | abi::MS_INVALIDATE) != 0 || flags & both == both {
        return Err(Errno::EINVAL);
    }
    pages(args[0], args[1])?;
    Ok(0)
}

/// mlock(2), mlock2(2), munlock(2): nothing is ever paged out.
pub fn mlock(args: &Args) -> SysResult {
    pages(args[0] / PAGE * PAGE, args[1])?;
    Ok(0)
}

/// mlockall(2), munlockall(2): as [`mlock`].
pub fn mlockall(_args: &Args) -> SysResult {
    Ok(0)
}
