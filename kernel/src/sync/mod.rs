//! Locks and the guards that go with them. Knows `arch`, and nothing above.
//!
//! The lock order of the whole kernel, outermost first; a debug build checks it at run time:
//! `pid namespace` → `wait queue` → `timer queue` → `run queue` → `frames` → `console`.

pub mod preempt;
pub mod spin;

pub use preempt::PreemptOff;
pub use spin::{SpinGuard, SpinHeld, SpinIrqGuard, SpinLock};
