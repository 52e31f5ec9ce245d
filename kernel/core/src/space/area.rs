//! A program's areas: which addresses mean what (Linux's VMAs).
//!
//! Areas are whole pages, do not overlap, and neighbours that are alike are one. The set's clone is
//! O(1), as a fork wants it.

use super::tree::{Total, Tree};

/// Areas that a program may have (Linux's `vm.max_map_count`).
pub const MAX_AREAS: usize = 65_530;

/// What a program may do with an area. The bits are those of mmap(2)'s `prot`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Protection(u8);

impl Protection {
    /// `PROT_NONE`
    pub const NONE: Self = Self(0);
    /// `PROT_READ`
    pub const READ: Self = Self(1);
    /// `PROT_WRITE`
    pub const WRITE: Self = Self(2);
    /// `PROT_READ | PROT_WRITE`
    pub const READ_WRITE: Self = Self(3);
    /// `PROT_EXEC`
    pub const EXECUTE: Self = Self(4);
    /// `PROT_READ | PROT_EXEC`
    pub const READ_EXECUTE: Self = Self(5);

    /// What is allowed, one by one.
    pub const fn new(read: bool, write: bool, execute: bool) -> Self {
        Self(read as u8 | (write as u8) << 1 | (execute as u8) << 2)
    }

    /// From `prot`; `None` if there are other bits.
    pub const fn from_bits(bits: u64) -> Option<Self> {
        if bits <= 7 { Some(Self(bits as u8)) } else { None }
    }

    /// mmap(2)'s `prot`.
    pub const fn bits(self) -> u8 {
        self.0
    }

    /// What either allows.
    #[must_use]
    pub const fn union(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    /// Whether `other` allows nothing beyond this.
    pub const fn contains(self, other: Self) -> bool {
        self.0 & other.0 == other.0
    }

    /// Whether the area can be read. On x86-64 what can be written or executed can be read.
    pub const fn readable(self) -> bool {
        self.0 != 0
    }

    /// Whether the area can be written.
    pub const fn writable(self) -> bool {
        self.0 & 2 != 0
    }

    /// Whether instructions can be fetched from it.
    pub const fn executable(self) -> bool {
        self.0 & 4 != 0
    }
}

/// What else there is to an area.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct AreaFlags(u8);

impl AreaFlags {
    /// Nothing.
    pub const NONE: Self = Self(0);
    /// The stack: grows down on a fault below it.
    pub const STACK: Self = Self(1);
    /// The heap: brk(2) moves its end.
    pub const HEAP: Self = Self(2);
    /// An object that was not opened for writing, and shared: it cannot be made writable.
    pub const READ_ONLY: Self = Self(4);

    /// What either has.
    #[must_use]
    pub const fn union(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    /// Whether all of these are set.
    pub const fn contains(self, other: Self) -> bool {
        self.0 & other.0 == other.0
    }
}

/// What an area shows; clones of one are parts of one.
pub trait Backing: Clone {
    /// The same, from `bytes` on.
    #[must_use]
    fn advance(&self, bytes: u64) -> Self;
    /// Whether `next` goes on where this ends after `bytes`.
    fn is_continued_by(&self, next: &Self, bytes: u64) -> bool;
}

/// A range of addresses that mean one thing.
#[derive(Clone, Debug)]
pub struct Area<B> {
    /// First address.
    pub start: u64,
    /// Address after the last.
    pub end: u64,
    /// What the program may do.
    pub protection: Protection,
    /// What else there is to it.
    pub flags: AreaFlags,
    /// What is there.
    pub backing: B,
}

impl<B: Backing> Area<B> {
    /// Bytes.
    pub fn len_bytes(&self) -> u64 {
        self.end - self.start
    }

    /// Whether `address` is in it.
    #[inline(always)]
    pub fn contains(&self, address: u64) -> bool {
        self.start <= address && address < self.end
    }

    /// The part of it in `start..end`, which overlap.
    fn part(&self, start: u64, end: u64) -> Self {
        let start = start.max(self.start);
        let backing = self.backing.advance(start - self.start);
        Self { start, end: end.min(self.end), backing, ..self.clone() }
    }

    /// An area at `start..end` that shows what this would there, if it reached so far; `start` is
    /// not before this one's.
    #[must_use]
    pub fn shifted(&self, start: u64, end: u64) -> Self {
        let backing = self.backing.advance(start - self.start);
        Self { start, end, backing, ..self.clone() }
    }

    fn joins(&self, next: &Self) -> bool {
        self.end == next.start
            && self.protection == next.protection
            && self.flags == next.flags
            && self.backing.is_continued_by(&next.backing, self.len_bytes())
    }
}

/// There would be more than [`MAX_AREAS`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TooManyAreas;

/// A program's areas.
#[derive(Clone)]
pub struct Areas<B> {
    tree: Tree<B>,
    total: Total,
}

impl<B: Backing> Default for Areas<B> {
    fn default() -> Self {
        Self { tree: Tree::default(), total: Total::default() }
    }
}

impl<B: Backing> Areas<B> {
    /// How many there are.
    pub fn len(&self) -> usize {
        self.total.areas
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Bytes in all of them.
    pub fn bytes(&self) -> u64 {
        self.total.bytes
    }

    /// Bytes of `start..end` that are in areas. Logarithmic in the number of areas.
    pub fn bytes_within(&self, start: u64, end: u64) -> u64 {
        self.tree.bytes_within(start, end)
    }

    /// The area that contains `address`.
    #[inline]
    pub fn find(&self, address: u64) -> Option<&Area<B>> {
        self.first_above(address).filter(|area| area.start <= address)
    }

    /// The first area that ends above `address`.
    #[inline]
    pub fn first_above(&self, address: u64) -> Option<&Area<B>> {
        self.tree.first_above(address)
    }

    /// The last area that starts below `address`.
    pub fn last_below(&self, address: u64) -> Option<&Area<B>> {
        self.tree.last_below(address)
    }

    /// All, in order.
    pub fn iter(&self) -> impl Iterator<Item = &Area<B>> {
        self.within(0, u64::MAX)
    }

    /// Those that overlap `start..end`, in order.
    pub fn within(&self, start: u64, end: u64) -> impl Iterator<Item = &Area<B>> {
        let mut at = start;
        core::iter::from_fn(move || {
            let area = (at < end).then(|| self.first_above(at))??;
            if area.start >= end {
                return None;
            }
            at = area.end;
            Some(area)
        })
    }

    /// Whether nothing is in `start..end`.
    pub fn is_free(&self, start: u64, end: u64) -> bool {
        self.within(start, end).next().is_none()
    }

    /// Whether there is no gap in `start..end`.
    pub fn covers(&self, start: u64, end: u64) -> bool {
        start >= end || self.bytes_within(start, end) == end - start
    }

    /// Start of the highest gap of `len_bytes` in `low..high`.
    pub fn highest_gap(&self, len_bytes: u64, low: u64, high: u64) -> Option<u64> {
        self.tree.highest_gap(len_bytes, low, high)
    }

    /// Inserts an area where nothing is, and joins it with neighbours that are alike.
    ///
    /// # Errors
    /// [`TooManyAreas`]; nothing changes then.
    pub fn insert(&mut self, mut area: Area<B>) -> Result<(), TooManyAreas> {
        debug_assert!(area.start < area.end && self.is_free(area.start, area.end));
        let before = self.last_below(area.start).filter(|it| it.joins(&area)).cloned();
        let after = self.first_above(area.end).filter(|it| area.joins(it)).map(|it| it.start);
        if self.len() >= MAX_AREAS && before.is_none() && after.is_none() {
            return Err(TooManyAreas);
        }
        if let Some(before) = before {
            self.take(before.start);
            area = Area { end: area.end, ..before };
        }
        if let Some(after) = after.and_then(|start| self.take(start)) {
            area.end = after.end;
        }
        self.put(area);
        Ok(())
    }

    fn put(&mut self, area: Area<B>) {
        self.total.areas += 1;
        self.total.bytes += area.len_bytes();
        self.tree.insert(area);
    }

    fn take(&mut self, start: u64) -> Option<Area<B>> {
        let area = self.tree.remove(start)?;
        self.total.areas -= 1;
        self.total.bytes -= area.len_bytes();
        Some(area)
    }

    /// Takes all areas, or parts of them, out of `start..end`. Logarithmic in the number of areas, but that what
    /// nobody else has of them is dropped.
    ///
    /// # Errors
    /// [`TooManyAreas`], when that would make two of one; nothing changes then.
    pub fn remove(&mut self, start: u64, end: u64) -> Result<(), TooManyAreas> {
        let Some(first) = self.first_above(start).filter(|it| it.start < end) else {
            return Ok(());
        };
        let (first, first_end) = (first.start, first.end);
        if self.len() >= MAX_AREAS && first < start && first_end > end {
            return Err(TooManyAreas);
        }
        if first < start || first_end >= end {
            self.cut_out(first, start, end);
        }
        if first_end >= end {
            return Ok(());
        }
        if let Some(last) = self.last_below(end).filter(|it| it.end > end).map(|it| it.start) {
            self.cut_out(last, start, end);
        }
        self.tree.remove_within(start, end);
        self.total = self.tree.total();
        Ok(())
    }

    /// Takes `start..end` out of the area that starts at `first`.
    fn cut_out(&mut self, first: u64, start: u64, end: u64) {
        let Some(area) = self.take(first) else { return };
        if area.start < start {
            self.put(area.part(area.start, start));
        }
        if area.end > end {
            self.put(area.part(end, area.end));
        }
    }

    /// Gives what is in `start..end` another protection. Calls `pause` between areas: there may be many, each of which
    /// takes its time.
    ///
    /// # Errors
    /// [`TooManyAreas`]; nothing changes then.
    pub fn protect(
        &mut self,
        start: u64,
        end: u64,
        protection: Protection,
        pause: impl Fn(),
    ) -> Result<(), TooManyAreas> {
        if self.len() + 2 > MAX_AREAS {
            return Err(TooManyAreas);
        }
        let mut at = start;
        while at < end
            && let Some(area) = self.first_above(at).filter(|area| area.start < end)
        {
            let part = Area { protection, ..area.part(start, end) };
            at = part.end;
            if part.protection != area.protection {
                self.remove(part.start, part.end)?;
                self.insert(part)?;
            }
            pause();
        }
        Ok(())
    }
}
