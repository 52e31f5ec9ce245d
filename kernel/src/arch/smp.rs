//! The other CPUs.

use core::sync::atomic::{AtomicU32, Ordering};

/// CPUs that run, the boot CPU included; their numbers are below this.
static COUNT: AtomicU32 = AtomicU32::new(1);

/// CPUs that run, the boot CPU included; their numbers are below this. It does not change once the
/// others have been started.
#[inline]
pub fn count() -> u32 {
    COUNT.load(Ordering::Acquire)
}
