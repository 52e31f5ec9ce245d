//! The time-stamp counter: the kernel's clock and its trace's. Under `-icount shift=0` it counts
//! executed instructions.

use core::sync::atomic::{AtomicU64, Ordering};

static HZ: AtomicU64 = AtomicU64::new(0);

/// Ticks since reset.
#[inline(always)]
pub fn now() -> u64 {
    // SAFETY: RDTSC reads a counter; CR4.TSD only matters outside ring 0.
    unsafe { core::arch::x86_64::_rdtsc() }
}

/// Ticks in a second, as calibrated at boot.
pub fn hz() -> u64 {
    HZ.load(Ordering::Relaxed)
}
