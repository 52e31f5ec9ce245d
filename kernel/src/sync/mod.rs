//! Locks and the guards that go with them. Knows `arch`, and nothing above.
//!
//! The lock order of the whole kernel, outermost first; an image with debug assertions checks it at
//! run time ([`lockdep`]):
//!
//! - `wait queue` → `run queue`, and `timer queue` → `run queue`: who waits is woken under the lock
//! - `stack pool` → `page tables` → `frames`
//! - whatever is held where memory is allocated (`pid namespace`, `spawn requests`, `channel`, `stack
//!   pool`) → the heap → `frames`. The heap's own lock is no [`SpinLock`]; nothing but `frames` is
//!   taken under it, and it is taken under no lock that a handler or the scheduler wants.
//!
//! All others (`console`, `options`, `task body`, `spawn order`, `spawn result`) are taken with nothing
//! held and hold nothing. A second `run queue` is only ever *tried* while one is held, so it has no
//! place in the order.

#[cfg(debug_assertions)]
pub mod lockdep;
#[cfg(not(debug_assertions))]
#[path = "lockdep_off.rs"]
pub mod lockdep;
pub mod preempt;
pub mod spin;

pub use preempt::PreemptOff;
pub use spin::{SpinGuard, SpinHeld, SpinIrqGuard, SpinLock};
