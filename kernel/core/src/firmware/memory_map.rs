//! The physical memory map: sorted, page-aligned, without overlaps.
//!
//! Firmware may list ranges in any order, unaligned and overlapping. Ranges are put in one by one,
//! and where two overlap the less usable kind wins, so that nothing reserved is ever handed out.

/// Most ranges that are kept. UEFI machines report about a hundred.
const CAPACITY: usize = 256;
const PAGE: u64 = 4096;
/// No x86-64 CPU has physical addresses from here on (SDM vol. 3, 4.1.4).
const ADDRESS_LIMIT: u64 = 1 << 52;

/// What a range of memory is, most usable first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum MemoryKind {
    /// Free from the start.
    Usable,
    /// The loader's structures. Free once the doors have copied what they need; doors and early
    /// boot still stand on them (page tables), so they are given to nobody until then.
    Loader,
    /// The boot bundle.
    Bundle,
    /// ACPI tables, firmware data in RAM.
    Acpi,
    /// The kernel image.
    Image,
    /// Everything else: not RAM, or not ours.
    Reserved,
}

impl MemoryKind {
    /// Whether it is RAM that the direct map covers.
    pub fn is_direct_mapped(self) -> bool {
        !matches!(self, Self::Image | Self::Reserved)
    }
}

/// A range of physical memory, in bytes; both ends are multiples of a page.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MemoryRange {
    /// First byte.
    pub start: u64,
    /// First byte after it.
    pub end: u64,
    /// What it is.
    pub kind: MemoryKind,
}

impl MemoryRange {
    /// Its length in bytes.
    pub fn len_bytes(&self) -> u64 {
        self.end - self.start
    }
}

/// The map. See the module's description.
pub struct MemoryMap {
    ranges: [MemoryRange; CAPACITY],
    len: usize,
    dropped: usize,
}

impl MemoryMap {
    /// No memory at all.
    pub const fn new() -> Self {
        let none = MemoryRange { start: 0, end: 0, kind: MemoryKind::Reserved };
        Self { ranges: [none; CAPACITY], len: 0, dropped: 0 }
    }

    /// The ranges, sorted by address.
    pub fn ranges(&self) -> &[MemoryRange] {
        &self.ranges[..self.len]
    }

    /// Ranges that found no room; memory in them is not used.
    pub fn dropped(&self) -> usize {
        self.dropped
    }

    /// Puts a range of bytes in; what lies beyond any physical address is ignored. Usable ranges shrink to whole pages, others grow to them. Where it
    /// overlaps what is there, the less usable kind stays.
    pub fn add(&mut self, start: u64, len_bytes: u64, kind: MemoryKind) {
        let end = start.saturating_add(len_bytes).min(ADDRESS_LIMIT);
        let (mut start, end) = match kind {
            MemoryKind::Usable => {
                (start.min(ADDRESS_LIMIT).next_multiple_of(PAGE), end / PAGE * PAGE)
            }
            _ => (start / PAGE * PAGE, end.next_multiple_of(PAGE)),
        };
        // Piece by piece: up to where an existing range begins, then that overlap, and so on.
        let mut at = 0;
        while start < end {
            while at < self.len && self.ranges[at].end <= start {
                at += 1;
            }
            let other = (at < self.len).then(|| self.ranges[at]);
            match other {
                Some(other) if other.start <= start => {
                    let upto = end.min(other.end);
                    if kind > other.kind {
                        self.replace(at, MemoryRange { start, end: upto, kind });
                    }
                    start = upto;
                }
                _ => {
                    let upto = other.map_or(end, |other| end.min(other.start));
                    self.insert(at, MemoryRange { start, end: upto, kind });
                    start = upto;
                }
            }
        }
        self.merge();
    }

    /// Makes `part`, which lies inside range `at`, a range of its own.
    fn replace(&mut self, at: usize, part: MemoryRange) {
        let whole = self.ranges[at];
        let before = MemoryRange { end: part.start, ..whole };
        let after = MemoryRange { start: part.end, ..whole };
        self.ranges[at] = part;
        if after.start < after.end {
            self.insert(at + 1, after);
        }
        if before.start < before.end {
            self.insert(at, before);
        }
    }

    fn insert(&mut self, at: usize, range: MemoryRange) {
        if self.len == CAPACITY {
            self.dropped += 1;
            return;
        }
        self.ranges.copy_within(at..self.len, at + 1);
        self.ranges[at] = range;
        self.len += 1;
    }

    /// Joins neighbours of one kind.
    fn merge(&mut self) {
        let mut kept = 0;
        for at in 0..self.len {
            let range = self.ranges[at];
            if kept > 0 {
                let last = &mut self.ranges[kept - 1];
                if last.end == range.start && last.kind == range.kind {
                    last.end = range.end;
                    continue;
                }
            }
            self.ranges[kept] = range;
            kept += 1;
        }
        self.len = kept;
    }
}

impl Default for MemoryMap {
    fn default() -> Self {
        Self::new()
    }
}
