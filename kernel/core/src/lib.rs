//! Orrery's logic that needs no hardware.
//!
//! Everything here is `no_std`, knows neither registers nor interrupts, and is tested on the host
//! with unit tests, property tests, loom and Miri. The kernel supplies time, CPU numbers and locks.
//!
//! Floors, bottom up; a module imports only from those above it in this list:
//! - [`cpuset`]: sets of CPUs; [`tree`]: an intrusive ordered tree
//! - [`timer_queue`]: timers in the order in which they expire
//! - [`sched`]: which task a CPU runs next, and which CPU a task runs on
//! - [`trace`]: rings, packets and the wire format
#![no_std]

#[cfg(test)]
extern crate std;

pub mod cpuset;
pub mod sched;
pub mod timer_queue;
pub mod trace;
pub mod tree;
