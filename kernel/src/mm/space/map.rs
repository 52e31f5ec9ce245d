//! What mmap, munmap, mprotect, madvise, mremap and brk do.
//!
//! Each changes areas and page tables under one hold of the lock, all or nothing. What areas showed
//! is let go after it, since that may free a file.

use alloc::vec::Vec;

use orrery_core::errno::Errno;
use orrery_core::space::range::Withdraw;
use orrery_core::space::{
    Area, AreaFlags, Areas, MAX_AREAS, OutOfMemory, PAGE_BYTES, Protection, Update, WINDOW_END,
    WINDOW_START,
};

use super::backing::Backing;
use super::{Inner, Recent, Space};
use crate::sched::pausing::PausingGuard;

/// Frames that a change of a range keeps until it flushes.
const BATCH: usize = 32;

/// How an address is chosen (mmap(2)).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Placement {
    /// At the hint if that is free, else anywhere.
    Anywhere,
    /// So, but where addresses have 31 bits (`MAP_32BIT`).
    Low,
    /// At the hint, in place of what is there (`MAP_FIXED`).
    Fixed,
    /// At the hint, if nothing is there (`MAP_FIXED_NOREPLACE`).
    FixedNoReplace,
}

/// A wish for an area.
pub struct MapRequest {
    /// Where, or 0.
    pub hint: u64,
    /// Bytes; rounded up to whole pages.
    pub len_bytes: u64,
    /// What the program may do.
    pub protection: Protection,
    /// How the address is chosen.
    pub placement: Placement,
    /// What is there; offsets are multiples of a page.
    pub backing: Backing,
    /// What else there is to it.
    pub flags: AreaFlags,
}

/// Where mremap(2) may go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Target {
    /// Stay (no flag).
    InPlace,
    /// Anywhere, if there is no room (`MREMAP_MAYMOVE`).
    MayMove,
    /// There (`MREMAP_FIXED`).
    Fixed(u64),
}

/// What mremap(2) is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RemapRequest {
    /// Where the area is.
    pub address: u64,
    /// Its bytes; 0 for another mapping of what is shared there.
    pub old_len_bytes: u64,
    /// The bytes it is to have.
    pub new_len_bytes: u64,
    /// Where it may go.
    pub target: Target,
    /// Whether the area stays as well, without its pages (`MREMAP_DONTUNMAP`). The lengths are the same then.
    pub keeps_old: bool,
}

/// Where [`Placement::Low`] is: above what programs that are not moved have, as on Linux.
const LOW_START: u64 = 1 << 30;
const LOW_END: u64 = 1 << 31;

/// Rounds a length up to pages; `None` if that is more than the window.
fn whole_pages(len_bytes: u64) -> Option<u64> {
    let len = len_bytes.checked_next_multiple_of(PAGE_BYTES)?;
    (len <= WINDOW_END).then_some(len)
}

/// The end of a range of whole pages in the window.
pub(super) fn range_end(start: u64, len_bytes: u64) -> Option<u64> {
    let end = start.checked_add(whole_pages(len_bytes)?)?;
    (start.is_multiple_of(PAGE_BYTES) && end <= WINDOW_END).then_some(end)
}

fn no_memory<E>(_: E) -> Errno {
    Errno::ENOMEM
}

/// What a change leaves to be let go after the lock.
struct Leftovers<'s> {
    update: Update<'s, Space, BATCH>,
    areas: Vec<Removed>,
}

/// What keeps the objects that removed areas showed.
enum Removed {
    /// One of few.
    One { _area: Area<Backing> },
    /// All areas as they were before: a list of many would be a large block of memory.
    Many { _before: Areas<Backing> },
}

/// Areas that are few.
const FEW: usize = 128;

impl Leftovers<'_> {
    fn release(mut self) {
        self.update.release();
        drop(self.areas);
    }
}

impl Space {
    /// Maps an area. Its address.
    ///
    /// # Errors
    /// `EINVAL` for a length of 0 or an unaligned fixed address; `EPERM` below [`WINDOW_START`];
    /// `EEXIST` ([`Placement::FixedNoReplace`]); `ENOMEM` when there is no room, no memory for
    /// tables, too many areas, or too much for the limit.
    pub fn map(&self, request: &MapRequest) -> Result<u64, Errno> {
        if request.len_bytes == 0 {
            return Err(Errno::EINVAL);
        }
        let len = whole_pages(request.len_bytes).ok_or(Errno::ENOMEM)?;
        let mut inner = self.inner.lock();
        let start = inner.place(request.hint, len, request.placement)?;
        let end = start + len;
        inner.check_room(start, end)?;
        let MapRequest { protection, flags, .. } = *request;
        inner.check_data(start, end, || is_data(protection, flags, &request.backing))?;
        let leftovers = self.clear(&mut inner, start, end)?;
        let backing = request.backing.clone();
        let inserted = inner.areas.insert(Area { start, end, protection, flags, backing });
        drop(inner);
        leftovers.release();
        inserted.map_err(no_memory)?;
        Ok(start)
    }

    /// Unmaps whatever is in the range.
    ///
    /// # Errors
    /// `EINVAL` for an unaligned address, a length of 0 or a range beyond the window; `ENOMEM`.
    pub fn unmap(&self, start: u64, len_bytes: u64) -> Result<(), Errno> {
        let end = range_end(start, len_bytes).filter(|&end| end > start).ok_or(Errno::EINVAL)?;
        let mut inner = self.inner.lock();
        inner.check_split(start, end)?;
        let leftovers = self.clear(&mut inner, start, end)?;
        drop(inner);
        leftovers.release();
        Ok(())
    }

    /// Takes everything out of `start..end`. [`Inner::check_count`] or [`Inner::check_split`] has been asked.
    fn clear(&self, inner: &mut Inner, start: u64, end: u64) -> Result<Leftovers<'_>, Errno> {
        inner.recent = Recent::default();
        let Some(areas) = kept_alive(&inner.areas, start, end) else {
            return Ok(Leftovers { update: Update::new(self, self.root), areas: Vec::new() });
        };
        let update = self.unmap_pages(start, end)?;
        let removed = inner.areas.remove(start, end);
        debug_assert!(removed.is_ok(), "there is room for a split");
        Ok(Leftovers { update, areas })
    }

    fn unmap_pages(&self, start: u64, end: u64) -> Result<Update<'_, Self, BATCH>, Errno> {
        let mut update = Update::<Self, BATCH>::new(self, self.root);
        let pages = update.unmap(start, end);
        update.flush();
        self.remove_resident(pages.unwrap_or(0));
        match pages {
            Ok(_) => Ok(update),
            Err(OutOfMemory) => {
                // Shared tables on the way, which have been copied: little to walk.
                update.release();
                Err(Errno::ENOMEM)
            }
        }
    }

    /// Changes what the program may do in a range.
    ///
    /// # Errors
    /// `EINVAL` for an unaligned address or a range beyond the window; `ENOMEM` if part of it is
    /// not mapped, or would be too much for the limit; `EACCES` if an object does not permit it. What is before that
    /// part has changed.
    pub fn protect(&self, start: u64, len_bytes: u64, wanted: Protection) -> Result<(), Errno> {
        let end = range_end(start, len_bytes).ok_or(Errno::EINVAL)?;
        let mut inner = self.inner.lock();
        inner.check_count()?;
        let (end, verdict) = inner.can_protect(start, end, wanted, || self.inner.pause());
        inner.recent = Recent::default();
        let withdraw = Withdraw::for_protection(wanted);
        let mut update = Update::<Self, BATCH>::new(self, self.root);
        let result = withdraw.map_or(Ok(()), |withdraw| update.protect(start, end, withdraw));
        update.flush();
        let result = result.map_err(no_memory).and_then(|()| {
            inner.areas.protect(start, end, wanted, || self.inner.pause()).map_err(no_memory)
        });
        drop(inner);
        update.release();
        result.and(verdict)
    }

    /// Forgets what the program has written in a range: it finds zeroes, or the file, again
    /// (`MADV_DONTNEED`).
    ///
    /// # Errors
    /// `EINVAL` as [`unmap`](Self::unmap); `ENOMEM` if part of it is not mapped.
    pub fn discard(&self, start: u64, len_bytes: u64) -> Result<(), Errno> {
        let end = range_end(start, len_bytes).ok_or(Errno::EINVAL)?;
        let inner = self.inner.lock();
        let is_covered = inner.areas.covers(start, end);
        let mut update = self.unmap_pages(start, end)?;
        drop(inner);
        update.release();
        if is_covered { Ok(()) } else { Err(Errno::ENOMEM) }
    }

    /// Unmaps the pages of an object, of this [identity](super::PageSource::identity), from offset `from_bytes` on, and
    /// what the program has written there of its own: the object ends before them now. The areas stay.
    pub fn cut_off(&self, identity: u64, from_bytes: u64) {
        let mut at = 0;
        loop {
            let inner = self.inner.lock();
            let cut_off = inner.areas.within(at, WINDOW_END).find_map(|area| {
                self.inner.pause();
                let (object, offset) = area.backing.object()?;
                let start = area.start + from_bytes.saturating_sub(offset);
                (object.identity() == identity && start < area.end).then_some((start, area.end))
            });
            let Some((start, end)) = cut_off else { return };
            // Without memory for it they stay.
            let unmapped = self.unmap_pages(start, end);
            drop(inner);
            if let Ok(mut update) = unmapped {
                update.release();
            }
            at = end;
        }
    }

    /// Sets where the heap begins, for a new program.
    pub fn begin_break(&self, start: u64) {
        let mut inner = self.inner.lock();
        (inner.break_start, inner.break_end) = (start, start);
    }

    /// Moves the end of the heap, if there is room (brk(2)). The end, moved or not.
    pub fn set_break(&self, wanted: u64) -> u64 {
        let mut inner = self.inner.lock();
        let Inner { break_start, break_end, limits, .. } = *inner;
        let pages = |end: u64| end.checked_next_multiple_of(PAGE_BYTES).unwrap_or(u64::MAX);
        if wanted < break_start || wanted - break_start > limits.data_bytes {
            return break_end;
        }
        let (old, new) = (pages(break_end), pages(wanted));
        if new > old {
            // A page stays free above, as on Linux.
            let has_room = new < WINDOW_END && inner.areas.is_free(old, new + PAGE_BYTES);
            if !has_room || inner.check_room(old, new).is_err() {
                return break_end;
            }
            let area = Area {
                start: old,
                end: new,
                protection: Protection::READ_WRITE,
                flags: AreaFlags::HEAP,
                backing: Backing::Anonymous,
            };
            inner.recent = Recent::default();
            let fits = inner.check_data(area.start, area.end, || true).is_ok();
            if !fits || inner.areas.insert(area).is_err() {
                return break_end;
            }
        }
        let mut leftovers = None;
        if new < old {
            if inner.check_count().is_err() {
                return break_end;
            }
            match self.clear(&mut inner, new, old) {
                Ok(some) => leftovers = Some(some),
                Err(_) => return break_end,
            }
        }
        inner.break_end = wanted;
        drop(inner);
        if let Some(leftovers) = leftovers {
            leftovers.release();
        }
        wanted
    }

    /// Makes an area larger or smaller, and moves it if it must and may (mremap(2)). Its address.
    ///
    /// # Errors
    /// `EINVAL` for unaligned addresses, a new length of 0, an old one of 0 where nothing is shared, or overlapping
    /// ranges; `EFAULT` if the range is not in one area; `ENOMEM`.
    pub fn remap(&self, request: RemapRequest) -> Result<u64, Errno> {
        let RemapRequest { address: start, old_len_bytes, new_len_bytes, target, keeps_old } =
            request;
        let end = range_end(start, old_len_bytes).ok_or(Errno::EINVAL)?;
        let new_len = whole_pages(new_len_bytes).ok_or(Errno::EINVAL)?;
        if new_len == 0 {
            return Err(Errno::EINVAL);
        }
        let old_len = end - start;
        let mut inner = self.inner.lock();
        let area = inner.areas.find(start).ok_or(Errno::EFAULT)?.clone();
        let is_cut = !matches!(target, Target::Fixed(_)) && new_len <= old_len && !keeps_old;
        if end > area.end && !is_cut {
            return Err(Errno::EFAULT);
        }
        let is_copied = old_len == 0;
        if is_copied && !matches!(area.backing, Backing::Shared(..)) {
            return Err(Errno::EINVAL);
        }
        if let Target::Fixed(to) = target {
            let to_end = range_end(to, new_len).ok_or(Errno::EINVAL)?;
            if to < WINDOW_START || (to < end && start < to_end) {
                return Err(Errno::EINVAL);
            }
        } else if is_cut {
            inner.check_count()?;
            let leftovers = self.clear(&mut inner, start + new_len, end);
            drop(inner);
            leftovers?.release();
            return Ok(start);
        } else if !keeps_old {
            let grown = start + new_len;
            let is_last = area.end == end && grown <= WINDOW_END;
            if is_last && inner.areas.is_free(end, grown) {
                inner.check_room(end, grown)?;
                let more = area.shifted(end, grown);
                inner.check_data(more.start, more.end, || is_area_of_data(&area))?;
                inner.recent = Recent::default();
                inner.areas.insert(more).map_err(no_memory)?;
                return Ok(start);
            }
            if target == Target::InPlace {
                return Err(Errno::ENOMEM);
            }
        }
        let to = match target {
            Target::Fixed(to) => to,
            _ => inner.place(0, new_len, Placement::Anywhere)?,
        };
        self.relocate(inner, &area, (start, old_len), (to, new_len), keeps_old)
    }

    /// Moves the part `from` (address, bytes) of an area, with its pages, to `to`. If it `keeps_old`, only the pages go.
    fn relocate(
        &self,
        mut inner: PausingGuard<'_, Inner>,
        area: &Area<Backing>,
        from: (u64, u64),
        to: (u64, u64),
        keeps_old: bool,
    ) -> Result<u64, Errno> {
        let ((start, old_len), (to, new_len)) = (from, to);
        if inner.areas.len() + 4 > MAX_AREAS {
            return Err(Errno::ENOMEM);
        }
        let kept = old_len.min(new_len);
        let more = if keeps_old { new_len } else { new_len - kept };
        inner.check_room(to, to + more)?;
        inner.check_data(to, to + more, || is_area_of_data(area))?;
        let cut_off = self.clear(&mut inner, start + kept, start + old_len)?;
        let moved = self.clear(&mut inner, to, to + new_len).map(|replaced| {
            let mut update = Update::<Self, BATCH>::new(self, self.root);
            let moved = if kept == 0 { Ok(()) } else { update.move_pages(start, to, kept) };
            update.flush();
            if moved.is_ok() {
                let mut new = area.shifted(start, start + new_len);
                (new.start, new.end) = (to, to + new_len);
                // There is room, and nothing else can go wrong.
                let removed = if keeps_old || kept == 0 {
                    Ok(())
                } else {
                    inner.areas.remove(start, start + kept)
                };
                let inserted = inner.areas.insert(new);
                debug_assert!(removed.is_ok() && inserted.is_ok());
            }
            (moved, update, replaced)
        });
        drop(inner);
        cut_off.release();
        let (moved, mut update, replaced) = moved?;
        update.release();
        replaced.release();
        moved.map(|()| to).map_err(no_memory)
    }
}

impl Inner {
    /// Where an area of whole pages goes.
    fn place(&self, hint: u64, len: u64, placement: Placement) -> Result<u64, Errno> {
        let end = hint.checked_add(len).filter(|&end| end <= WINDOW_END);
        if let Placement::Anywhere | Placement::Low = placement {
            let is_low = placement == Placement::Low;
            let hint = hint / PAGE_BYTES * PAGE_BYTES;
            let end = end.filter(|&end| !is_low || end <= LOW_END);
            if hint >= WINDOW_START && end.is_some() && self.areas.is_free(hint, hint + len) {
                return Ok(hint);
            }
            let gap = if is_low {
                self.areas.highest_gap(len, LOW_START, LOW_END)
            } else {
                self.find_gap(len)
            };
            return gap.ok_or(Errno::ENOMEM);
        }
        if !hint.is_multiple_of(PAGE_BYTES) {
            return Err(Errno::EINVAL);
        }
        let end = end.ok_or(Errno::ENOMEM)?;
        if hint < WINDOW_START {
            return Err(Errno::EPERM);
        }
        if placement == Placement::FixedNoReplace && !self.areas.is_free(hint, end) {
            return Err(Errno::EEXIST);
        }
        Ok(hint)
    }

    /// Room for `len` bytes. A large area gets page tables of its own where it can: one that it shared with
    /// its small neighbours would be copied, all entries of it, when a fork's child writes to those.
    fn find_gap(&self, len: u64) -> Option<u64> {
        /// Bytes that a page table of the last level maps, and one above it.
        const TABLE_BYTES: u64 = 512 * PAGE_BYTES;
        const GIB_BYTES: u64 = 512 * TABLE_BYTES;
        let highest = |len| self.areas.highest_gap(len, WINDOW_START, self.mmap_top);
        let span = [GIB_BYTES, TABLE_BYTES].into_iter().find(|&span| len >= span);
        let aligned = span.and_then(|span| {
            let at = highest(len.checked_add(span - PAGE_BYTES)?)?;
            Some(at.next_multiple_of(span))
        });
        aligned.or_else(|| highest(len))
    }

    /// Whether another area may be in `start..end`, in place of what is there.
    fn check_room(&self, start: u64, end: u64) -> Result<(), Errno> {
        // In the middle of another it makes two more.
        if self.check_count().is_err()
            && (self.areas.len() >= MAX_AREAS || !self.areas.is_free(start, end))
        {
            return Err(Errno::ENOMEM);
        }
        if self.limits.total_bytes == u64::MAX {
            return Ok(());
        }
        let others = self.areas.bytes() - self.areas.bytes_within(start, end);
        if others + (end - start) > self.limits.total_bytes { Err(Errno::ENOMEM) } else { Ok(()) }
    }

    /// The limit of data, if there is one. As on Linux, one of 0 is of the heap only.
    #[inline(always)]
    fn data_limit(&self) -> Option<u64> {
        Some(self.limits.data_bytes).filter(|&limit| limit != u64::MAX && limit != 0)
    }

    /// Bytes of data in `start..end`.
    fn data_bytes(&self, start: u64, end: u64) -> u64 {
        let data = self.areas.within(start, end).filter(|&area| is_area_of_data(area));
        data.map(|area| area.end.min(end) - area.start.max(start)).sum()
    }

    /// Whether there may be an area, which `is_data` or not, in place of what is in `start..end`, by the limit of data.
    #[inline(always)]
    fn check_data(
        &self,
        start: u64,
        end: u64,
        is_data: impl FnOnce() -> bool,
    ) -> Result<(), Errno> {
        match self.data_limit() {
            Some(limit) if is_data() => self.check_data_against(limit, start, end),
            _ => Ok(()),
        }
    }

    #[cold]
    fn check_data_against(&self, limit: u64, start: u64, end: u64) -> Result<(), Errno> {
        let others = self.data_bytes(0, WINDOW_END) - self.data_bytes(start, end);
        if others + (end - start) > limit { Err(Errno::ENOMEM) } else { Ok(()) }
    }

    /// Up to where the areas from `start` to `end` may get this protection, and why no further.
    /// Calls `pause` between areas.
    fn can_protect(
        &self,
        start: u64,
        end: u64,
        wanted: Protection,
        pause: impl Fn(),
    ) -> (u64, Result<(), Errno>) {
        // Counted once: there may be many areas.
        let mut room =
            self.data_limit().map(|limit| limit.saturating_sub(self.data_bytes(0, WINDOW_END)));
        let mut at = start;
        while at < end {
            let Some(area) = self.areas.find(at) else { return (at, Err(Errno::ENOMEM)) };
            if wanted.writable() && area.flags.contains(AreaFlags::READ_ONLY) {
                return (at, Err(Errno::EACCES));
            }
            let becomes_data = !is_area_of_data(area) && is_data(wanted, area.flags, &area.backing);
            if let Some(room) = &mut room
                && becomes_data
            {
                let Some(left) = room.checked_sub(area.end.min(end) - at) else {
                    return (at, Err(Errno::ENOMEM));
                };
                *room = left;
            }
            at = area.end;
            pause();
        }
        (end, Ok(()))
    }

    /// Whether there may be a hole in `start..end`: one in the middle of an area makes two of it.
    fn check_split(&self, start: u64, end: u64) -> Result<(), Errno> {
        let is_inside = |area: &Area<Backing>| area.start < start && area.end > end;
        let is_full = self.areas.len() >= MAX_AREAS;
        if is_full && self.areas.find(start).is_some_and(is_inside) {
            return Err(Errno::ENOMEM);
        }
        Ok(())
    }

    /// Whether an area may be split in three.
    fn check_count(&self) -> Result<(), Errno> {
        if self.areas.len() + 2 > MAX_AREAS { Err(Errno::ENOMEM) } else { Ok(()) }
    }
}

/// What keeps the objects that the areas in `start..end` show; `None` if nothing is there.
fn kept_alive(areas: &Areas<Backing>, start: u64, end: u64) -> Option<Vec<Removed>> {
    let mut kept = Vec::new();
    let mut within = areas.within(start, end).peekable();
    within.peek()?;
    for area in within.by_ref().take(FEW).filter(|area| area.backing.object().is_some()) {
        kept.push(Removed::One { _area: area.clone() });
    }
    if within.next().is_some() {
        kept = alloc::vec![Removed::Many { _before: areas.clone() }];
    }
    Some(kept)
}

/// Whether it counts against the limit of data: what a program may write and shares with nobody, but its stack.
fn is_data(protection: Protection, flags: AreaFlags, backing: &Backing) -> bool {
    protection.writable()
        && !flags.contains(AreaFlags::STACK)
        && !matches!(backing, Backing::Shared(..))
}

fn is_area_of_data(area: &Area<Backing>) -> bool {
    is_data(area.protection, area.flags, &area.backing)
}
