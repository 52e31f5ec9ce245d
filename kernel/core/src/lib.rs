//! Orrery's logic that needs no hardware.
//!
//! Everything here is `no_std`, knows neither registers nor interrupts, and is tested on the host
//! with unit tests, property tests, loom and Miri. The kernel supplies time, CPU numbers and locks.
//!
//! Floors, bottom up; a module imports only from those above it in this list:
//! - [`args`]: parameters of applications; [`errno`]: error numbers of system calls
//! - [`region`]: stretches of programs that are measured
//! - [`cpio`]: archives; [`fs`]: paths, file descriptors, pipes
//! - [`exec`]: what `execve` makes of a file and its arguments
//! - [`firmware`]: what firmware and boot loaders tell: memory, CPUs
//! - [`cpuset`]: sets of CPUs; [`tree`]: an intrusive ordered tree
//! - [`timer_queue`]: timers in the order in which they expire
//! - [`sched`]: which task a CPU runs next, and which CPU a task runs on
//! - [`frames`]: physical memory: the buddy allocator, per-CPU caches, reference counts
//! - [`space`]: address spaces: areas, and page tables that forks share
//! - [`epoch`]: when memory that is read without a lock may be freed
//! - [`idr`]: ids to pointers, looked up without a lock
//! - [`pid`]: PIDs and PID namespaces
//! - [`futex`]: who waits for which word; [`time`]: nanoseconds and dates;
//!   [`vdso`]: the code that tells programs the time
//! - [`input`]: what is typed on the host, on its way to a program
//! - [`inbox`], [`idle`]: how a CPU hands a woken task to another, and when it must interrupt it
//! - [`lockdep`]: whether locks are taken in one order; [`watchdog`]: whether CPUs still schedule
//! - [`signal`]: numbers, sets, queues and frames of signals
//! - [`trace`]: rings, packets and the wire format
#![no_std]

extern crate alloc;

#[cfg(test)]
extern crate std;

pub mod args;
pub mod cpio;
pub mod cpuset;
pub mod epoch;
pub mod errno;
pub mod exec;
pub mod firmware;
pub mod frames;
pub mod fs;
pub mod futex;
pub mod idle;
pub mod idr;
pub mod inbox;
pub mod input;
pub mod lockdep;
pub mod pid;
pub mod region;
pub mod sched;
pub(crate) mod shim;
pub mod signal;
pub mod space;
pub mod time;
pub mod timer_queue;
pub mod trace;
pub mod tree;
pub mod vdso;
pub mod watchdog;
