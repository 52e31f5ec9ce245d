//! Locks and the guards that go with them. Knows `arch`, and nothing above.
//!
//! The lock order of the whole kernel, outermost first; an image with debug assertions checks it at
//! run time ([`lockdep`]):
//!
//! 1. what only tasks take, with interrupts on: `pid namespace` → `task numbers`; `spawn requests`,
//!    `spawn order`, `spawn result`, `task body`, `channel`, `options`; `stack pool` → `page tables`; `real timer slot` → `real timer` →
//!    `alarm queue`
//! 2. `wait queue`, `futex bucket` or `timer queue`: who waits is woken under them
//! 3. `run queue`
//! 4. the heap's own lock, which is no [`SpinLock`], then `frames`: under any of the first floor
//!
//! An interrupt comes while locks of the first floor are held, so whatever a handler takes stands
//! below them, though no line of code nests the two. `console` and `console input` are taken with interrupts
//! off and hold nothing. A second `run queue` is only ever *tried* while one is held, so that order has
//! no place here.

#[cfg(debug_assertions)]
pub mod lockdep;
#[cfg(not(debug_assertions))]
#[path = "lockdep_off.rs"]
pub mod lockdep;
pub mod preempt;
pub mod spin;

pub use preempt::PreemptOff;
pub use spin::{SpinGuard, SpinHeld, SpinIrqGuard, SpinLock};
