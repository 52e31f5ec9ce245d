//! Scheduling policy: which task a CPU runs next, and which CPU a task runs on.
//!
//! Pure logic. The kernel embeds an [`Entity`] in every task, keeps one [`RunQueue`] per CPU under
//! that CPU's lock, calls it with interrupts off, and supplies time, CPU numbers and the context
//! switch. Times are ticks of the kernel's clock, as `u64`.
//!
//! # The life of an entity
//!
//! ```text
//!            enqueue                      schedule picks it
//!   off ───────────────────▶ queued ◀──────────────────────────▶ running
//!    ▲    dequeue, steal       │       schedule(Yield, Preempt)      │
//!    └─────────────────────────┴─────────────────────────────────────┘
//!                                       schedule(Block, Migrate, Exit)
//! ```
//!
//! A queued or running entity is *runnable*. All of an entity's fields are cells that belong to
//! whoever holds the lock of its queue or, while it is off, to whoever may enqueue it.
//!
//! # Classes, in order
//!
//! 1. Real time (`rt.rs`): 100 levels; the highest level that has someone runs. First in, first
//!    out, or taking turns every quantum.
//! 2. Fair (`fair.rs`): earliest eligible virtual deadline first (EEVDF); [`Policy::IDLE`] with the least weight.
//! 3. Idle: nobody is runnable, [`RunQueue::schedule`] returns none.
//!
//! Start with [`RunQueue`]; [`placement`] chooses between CPUs, [`home`] keeps a task's entity to one of them.

pub mod cpu_time;
mod entity;
mod fair;
pub mod home;
pub mod placement;
mod policy;
mod rt;
mod run_queue;

pub use entity::{Entity, SchedInfo};
pub use policy::{Nice, Policy, RtPriority};
pub use run_queue::{Config, Enqueue, Preempt, RunQueue, Switch};

#[cfg(test)]
mod tests;
