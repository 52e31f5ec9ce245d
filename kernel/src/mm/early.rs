//! Memory for what must exist before the frame allocator does: page tables and its own metadata.
//!
//! Whole frames are cut from the end of one usable range, the largest between 1 MiB and 4 GiB,
//! where every loader's page tables reach. What is left of it goes to the frame allocator later.

use x86_64::PhysAddr;
use x86_64::structures::paging::{FrameAllocator, PhysFrame, Size4KiB};

use crate::boot::{BootInfo, MemoryKind, MemoryRange};

const FRAME: u64 = 4096;
const LOWEST: u64 = 1 << 20;
const HIGHEST: u64 = 4 << 30;

/// Cuts zeroed frames off a range.
pub struct EarlyFrames {
    range: MemoryRange,
    loader_offset: u64,
}

impl EarlyFrames {
    /// Chooses the range.
    ///
    /// # Errors
    /// When there is no usable memory between 1 MiB and 4 GiB.
    pub fn new(boot: &BootInfo) -> Result<Self, &'static str> {
        let reachable = |range: &MemoryRange| MemoryRange {
            start: range.start.clamp(LOWEST, HIGHEST),
            end: range.end.clamp(LOWEST, HIGHEST),
            kind: range.kind,
        };
        let range = boot
            .memory
            .ranges()
            .iter()
            .filter(|range| range.kind == MemoryKind::Usable)
            .map(reachable)
            .max_by_key(MemoryRange::len_bytes)
            .filter(|range| range.len_bytes() > 0)
            .ok_or("the memory map has no usable memory between 1 MiB and 4 GiB")?;
        Ok(Self { range, loader_offset: boot.loader_offset })
    }

    /// Contiguous zeroed bytes, rounded up to whole frames. `None` when the range is too small.
    pub fn alloc(&mut self, len_bytes: u64) -> Option<PhysAddr> {
        let len_bytes = len_bytes.next_multiple_of(FRAME);
        let start = self.range.end.checked_sub(len_bytes).filter(|&at| at >= self.range.start)?;
        self.range.end = start;
        let at = (start + self.loader_offset) as *mut u64;
        // SAFETY: usable memory that nobody else has, mapped by the loader (`BootInfo`). Written by
        // quadwords, which under `-icount` are a single instruction each.
        unsafe { crate::arch::cpu::zero(at, len_bytes as usize / 8) };
        Some(PhysAddr::new(start))
    }

    /// The part of `range` that is free: all of it, but for what was cut off here.
    pub fn rest_of(&self, range: &MemoryRange) -> [MemoryRange; 2] {
        let cut_off = self.range.end..HIGHEST;
        let inside = range.start <= self.range.start && self.range.end <= range.end;
        if !inside {
            return [*range, MemoryRange { start: range.end, ..*range }];
        }
        // What was cut off ends where the chosen range ended: at the range's end or at 4 GiB.
        [
            MemoryRange { end: cut_off.start, ..*range },
            MemoryRange { start: cut_off.end.min(range.end), ..*range },
        ]
    }
}

// SAFETY: every frame is handed out once and is not used for anything else.
unsafe impl FrameAllocator<Size4KiB> for EarlyFrames {
    fn allocate_frame(&mut self) -> Option<PhysFrame> {
        self.alloc(FRAME).map(PhysFrame::containing_address)
    }
}
