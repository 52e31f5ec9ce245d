//! Memory of the calling process: mmap(2) and its kin.

use alloc::sync::Arc;

use linux_raw_sys::general as abi;

use super::descriptor::usable_file;
use super::{Args, Errno, SysResult};
use crate::arch::user::WINDOW_END;
use crate::fs::content::MAX_SIZE_BYTES;
use crate::mm::space::{
    Access, AreaFlags, Backing, Fault, MapRequest, Placement, Protection, RemapRequest,
    SharedMemory, Space, Target,
};
use crate::mm::user;
use crate::process::current;

const PAGE: u64 = 4096;

fn protection(bits: u64) -> Result<Protection, Errno> {
    Protection::from_bits(bits).ok_or(Errno::EINVAL)
}

/// mmap(2) does not look at other bits.
fn known_protection(bits: u64) -> Protection {
    let has = |bit: u32| bits & u64::from(bit) != 0;
    Protection::new(has(abi::PROT_READ), has(abi::PROT_WRITE), has(abi::PROT_EXEC))
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

/// Flags of mmap(2) that there were before `MAP_SHARED_VALIDATE`, which wants to know the others refused.
const OLD_MAP_FLAGS: u32 = abi::MAP_SHARED
    | abi::MAP_PRIVATE
    | abi::MAP_FIXED
    | abi::MAP_ANONYMOUS
    | abi::MAP_GROWSDOWN
    | abi::MAP_DENYWRITE
    | abi::MAP_EXECUTABLE
    | abi::MAP_LOCKED
    | abi::MAP_NORESERVE
    | abi::MAP_POPULATE
    | abi::MAP_NONBLOCK
    | abi::MAP_STACK
    | abi::MAP_HUGETLB
    | abi::MAP_32BIT
    | abi::MAP_HUGE_MASK << abi::MAP_HUGE_SHIFT;

/// mmap(2).
pub fn mmap(args: &Args) -> SysResult {
    let flags = args[3] as u32;
    if flags & (PRESENT | abi::MAP_HUGETLB | abi::MAP_32BIT) != 0 {
        return map_specially(args);
    }
    map(args, Placement::Anywhere)
}

/// Flags of [`mmap`] for pages that are in memory from the start.
const PRESENT: u32 = abi::MAP_POPULATE | abi::MAP_LOCKED;

/// [`mmap`] with flags that are rare.
#[cold]
fn map_specially(args: &Args) -> SysResult {
    let flags = args[3] as u32;
    if flags & abi::MAP_HUGETLB != 0 {
        return Err(Errno::EINVAL);
    }
    let is_low = flags & abi::MAP_32BIT != 0;
    let start = map(args, if is_low { Placement::Low } else { Placement::Anywhere })?;
    let is_locked = flags & abi::MAP_LOCKED != 0;
    if flags & PRESENT != 0 && (is_locked || flags & abi::MAP_NONBLOCK == 0) {
        // It is mapped, whatever becomes of this.
        let _ = populate(&space(), start, pages(0, args[1])?, None);
    }
    Ok(start)
}

/// [`mmap`] to a fixed address or, where that is not asked for, a `free` one.
#[inline(always)]
fn map(args: &Args, free: Placement) -> SysResult {
    let (hint, len_bytes, flags) = (args[0], args[1], args[3] as u32);
    let offset = args[5];
    if len_bytes == 0 || !offset.is_multiple_of(PAGE) {
        return Err(bad_range(args));
    }
    let protection = known_protection(args[2]);
    let placement = if flags & abi::MAP_FIXED_NOREPLACE != 0 {
        Placement::FixedNoReplace
    } else if flags & abi::MAP_FIXED != 0 {
        Placement::Fixed
    } else {
        free
    };
    let (hint, len_bytes) = match placement {
        Placement::Anywhere | Placement::Low => (hint / PAGE * PAGE, pages(0, len_bytes)?),
        Placement::Fixed | Placement::FixedNoReplace => (hint, pages(hint, len_bytes)?),
    };
    let mut area = if flags & abi::MAP_GROWSDOWN != 0 { AreaFlags::STACK } else { AreaFlags::NONE };
    let backing = if flags & abi::MAP_ANONYMOUS == 0 {
        let (backing, more) = file_backing(args, protection)?;
        area = area.union(more);
        backing
    } else {
        match flags & abi::MAP_TYPE {
            abi::MAP_SHARED => Backing::Shared(SharedMemory::new(len_bytes), 0),
            abi::MAP_PRIVATE => Backing::Anonymous,
            _ => return Err(Errno::EINVAL),
        }
    };
    let flags = area;
    space().map(&MapRequest { hint, len_bytes, protection, placement, backing, flags })
}

/// Why nothing of this length at this offset can be mapped. A descriptor that is not open comes first.
#[cold]
fn bad_range(args: &Args) -> Errno {
    let is_aligned = args[5].is_multiple_of(PAGE);
    if is_aligned && args[3] as u32 & abi::MAP_ANONYMOUS == 0 && usable_file(args[4]).is_err() {
        return Errno::EBADF;
    }
    Errno::EINVAL
}

/// What a mapping of a file shows.
#[inline(never)]
fn file_backing(args: &Args, protection: Protection) -> Result<(Backing, AreaFlags), Errno> {
    let (flags, offset) = (args[3] as u32, args[5]);
    let file = usable_file(args[4])?;
    let shared = match flags & abi::MAP_TYPE {
        abi::MAP_PRIVATE => false,
        abi::MAP_SHARED => true,
        abi::MAP_SHARED_VALIDATE if flags & !OLD_MAP_FLAGS == 0 => true,
        abi::MAP_SHARED_VALIDATE => return Err(Errno::EOPNOTSUPP),
        _ => return Err(Errno::EINVAL),
    };
    let source = file.mappable(shared && protection.writable())?;
    offset.checked_add(args[1]).filter(|&end| end <= MAX_SIZE_BYTES).ok_or(Errno::EOVERFLOW)?;
    if !shared {
        return Ok((Backing::Private(source, offset), AreaFlags::NONE));
    }
    let area = if file.is_writable() { AreaFlags::NONE } else { AreaFlags::READ_ONLY };
    Ok((Backing::Shared(source, offset), area))
}

/// [`Space::populate`], as long as the running thread lives.
fn populate(
    space: &Space,
    start: u64,
    len_bytes: u64,
    access: Option<Access>,
) -> Result<(), Fault> {
    let thread = current();
    space.populate(start, len_bytes, access, || !thread.must_leave())
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
    let (address, old_len_bytes, new_bytes, flags) = (args[0], args[1], args[2], args[3] as u32);
    let known = abi::MREMAP_MAYMOVE | abi::MREMAP_FIXED | abi::MREMAP_DONTUNMAP;
    if flags & !known != 0 || new_bytes == 0 {
        return Err(Errno::EINVAL);
    }
    let may_move = flags & abi::MREMAP_MAYMOVE != 0;
    let keeps_old = flags & abi::MREMAP_DONTUNMAP != 0;
    let target = match (flags & abi::MREMAP_FIXED != 0, may_move) {
        (true, false) => return Err(Errno::EINVAL),
        (true, true) => Target::Fixed(args[4]),
        (false, true) => Target::MayMove,
        (false, false) => Target::InPlace,
    };
    let new_len_bytes = pages(0, new_bytes)?;
    if keeps_old && (!may_move || old_len_bytes.div_ceil(PAGE) != new_len_bytes / PAGE) {
        return Err(Errno::EINVAL);
    }
    space().remap(RemapRequest { address, old_len_bytes, new_len_bytes, target, keeps_old })
}

/// madvise(2): `MADV_DONTNEED` and `MADV_POPULATE_…` do what they say; advice that needs no action is taken.
pub fn madvise(args: &Args) -> SysResult {
    let (start, advice) = (args[0], args[2] as u32);
    let len_bytes = pages(start, args[1]).map_err(|_| Errno::EINVAL)?;
    match advice {
        abi::MADV_DONTNEED => space().discard(start, len_bytes)?,
        abi::MADV_POPULATE_READ | abi::MADV_POPULATE_WRITE => {
            let writes = advice == abi::MADV_POPULATE_WRITE;
            let access = if writes { Access::Write } else { Access::Read };
            populate(&space(), start, len_bytes, Some(access)).map_err(|why| match why {
                Fault::NotMapped | Fault::OutOfMemory => Errno::ENOMEM,
                Fault::Protection => Errno::EINVAL,
                Fault::Bus => Errno::EFAULT,
            })?;
        }
        abi::MADV_FREE => {
            let space = space();
            if space
                .areas()
                .within(start, start + len_bytes)
                .any(|it| it.backing.object().is_some())
            {
                return Err(Errno::EINVAL);
            }
            space.check_mapped(start, len_bytes)?;
        }
        abi::MADV_NORMAL
        | abi::MADV_RANDOM
        | abi::MADV_SEQUENTIAL
        | abi::MADV_WILLNEED
        | abi::MADV_HUGEPAGE
        | abi::MADV_NOHUGEPAGE
        | abi::MADV_MERGEABLE
        | abi::MADV_UNMERGEABLE
        | abi::MADV_DONTDUMP
        | abi::MADV_DODUMP
        | abi::MADV_COLD
        | abi::MADV_PAGEOUT => space().check_mapped(start, len_bytes)?,
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
    let len_bytes = pages(args[0], args[1])?;
    space().check_mapped(args[0], len_bytes)?;
    Ok(0)
}

/// mincore(2).
pub fn mincore(args: &Args) -> SysResult {
    /// Pages that are looked at in one hold of the space's lock.
    const BATCH: usize = 256;
    let (start, to) = (args[0], args[2]);
    let count = pages(start, args[1])? / PAGE;
    let space = space();
    let mut batch = [0u8; BATCH];
    let mut done = 0;
    while done < count {
        let here = &mut batch[..BATCH.min((count - done) as usize)];
        space.presence(start + done * PAGE, here)?;
        user::write_bytes(to.checked_add(done).ok_or(Errno::EFAULT)?, here)?;
        done += here.len() as u64;
    }
    Ok(0)
}

/// Whole pages around a range that need not begin one: their address and bytes.
fn around(address: u64, len_bytes: u64) -> Result<(u64, u64), Errno> {
    let start = address / PAGE * PAGE;
    let len_bytes = len_bytes.checked_add(address - start).ok_or(Errno::EINVAL)?;
    start.checked_add(len_bytes).ok_or(Errno::EINVAL)?;
    Ok((start, pages(start, len_bytes)?))
}

/// mlock(2).
pub fn mlock(args: &Args) -> SysResult {
    lock(args, IfAbsent::Fetch)
}

/// mlock2(2).
pub fn mlock2(args: &Args) -> SysResult {
    match args[2] as u32 {
        0 => lock(args, IfAbsent::Fetch),
        abi::MLOCK_ONFAULT => lock(args, IfAbsent::Leave),
        _ => Err(Errno::EINVAL),
    }
}

/// What becomes of pages that are locked and not in memory.
#[derive(Clone, Copy, PartialEq, Eq)]
enum IfAbsent {
    /// They are brought there.
    Fetch,
    /// They come when they are touched.
    Leave,
}

/// Nothing is ever paged out: what is in memory stays there.
fn lock(args: &Args, if_absent: IfAbsent) -> SysResult {
    let (start, len_bytes) = around(args[0], args[1])?;
    let space = space();
    space.check_mapped(start, len_bytes)?;
    if if_absent == IfAbsent::Fetch {
        populate(&space, start, len_bytes, None).map_err(|why| match why {
            Fault::OutOfMemory => Errno::EAGAIN,
            _ => Errno::ENOMEM,
        })?;
    }
    Ok(0)
}

/// munlock(2).
pub fn munlock(args: &Args) -> SysResult {
    let (start, len_bytes) = around(args[0], args[1])?;
    space().check_mapped(start, len_bytes)?;
    Ok(0)
}

/// mlockall(2): what is mapped now is brought into memory; what will be comes when it is touched.
pub fn mlockall(args: &Args) -> SysResult {
    let flags = args[0] as u32;
    if flags & !(abi::MCL_CURRENT | abi::MCL_FUTURE | abi::MCL_ONFAULT) != 0
        || flags & (abi::MCL_CURRENT | abi::MCL_FUTURE) == 0
    {
        return Err(Errno::EINVAL);
    }
    if flags & abi::MCL_CURRENT != 0 && flags & abi::MCL_ONFAULT == 0 {
        let space = space();
        for area in space.areas().iter() {
            // Some may not be touched; the others are there then.
            let _ = populate(&space, area.start, area.len_bytes(), None);
        }
    }
    Ok(0)
}

/// munlockall(2).
pub fn munlockall(_args: &Args) -> SysResult {
    Ok(0)
}
