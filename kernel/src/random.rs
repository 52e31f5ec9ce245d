//! Random numbers from the boot seed.

use core::sync::atomic::{AtomicU64, Ordering};

static STATE: AtomicU64 = AtomicU64::new(0);

/// The next number (SplitMix64 over the boot seed).
pub fn next_u64() -> u64 {
    const STEP: u64 = 0x9e37_79b9_7f4a_7c15;
    let before = STATE.fetch_add(STEP, Ordering::Relaxed);
    let mut z = before.wrapping_add(STEP) ^ crate::seed();
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

/// Fills bytes.
pub fn fill(bytes: &mut [u8]) {
    for chunk in bytes.chunks_mut(8) {
        let random = next_u64().to_le_bytes();
        chunk.copy_from_slice(&random[..chunk.len()]);
    }
}
