//! The kernel.
//!
//! # Floors
//!
//! Bottom up; a module imports only from those before it in this list (calls upwards go through
//! hooks that `main.rs` installs):
//!
//! 1. [`arch`]: all that knows x86-64
//! 2. [`sync`]: spinlocks, preemption off
//! 3. [`boot`], [`mm`], [`drivers`]: what the loader told, memory, devices
//! 4. [`trace`], [`console`]: events, packets, text
//! 5. [`sched`]: tasks, run queues, the switch, wakeups, timers, wait queues
//! 6. [`task`]: birth, numbers, death
//! 7. [`fs`], [`process`], [`time`]: files, and what makes a task one of a program's
//! 8. [`syscall`]: from a program's registers to a function
//! 9. [`panic`], [`power`], [`watchdog`]: how it ends
//! 10. [`app`], [`workloads`], [`init`]: what it is all for
//!
//! Where floors 4 and 5 meet they know each other: events are recorded by the scheduler, and the
//! trace's drain is a task.
//!
//! Logic that needs no hardware is in the crate `orrery_core`. The boot story is `main.rs`; start
//! reading there.
#![no_std]

extern crate alloc;

pub mod app;
pub mod arch;
pub mod boot;
pub mod console;
pub mod drivers;
pub mod fs;
pub mod init;
pub mod mm;
pub mod options;
pub mod panic;
pub mod power;
pub mod process;
pub mod random;
pub mod sched;
pub mod sync;
pub mod syscall;
pub mod task;
pub mod time;
pub mod trace;
pub mod watchdog;
pub mod workloads;

pub use options::seed;
