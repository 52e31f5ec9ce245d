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
//! 4. [`trace`], [`console`]: events, packets, text; [`options`], [`random`]: the command line, and numbers
//! 5. [`sched`]: tasks, run queues, the switch, wakeups, timers, wait queues
//! 6. [`task`]: birth, numbers, death
//! 7. [`fs`], [`process`], [`time`]: files, and what makes a task one of a program's
//! 8. [`syscall`]: from a program's registers to a function
//! 9. [`panic`], [`power`], [`watchdog`]: how it ends
//! 10. [`app`], [`workloads`], [`init`]: what it is all for
//!
//! Some know each other across floors:
//! - [`arch`] maps its devices and takes stacks from [`mm`], and before there is anything else it ends by
//!   [`boot`] and [`drivers`];
//! - [`mm::space`](mm) records events and has other CPUs flush, through [`sched`];
//! - events are recorded by the scheduler, while the trace's drain is a task, readers and writers of the console
//!   sleep, and the command line sets how [`sched`] idles;
//! - [`sched`] ends in [`task`] what returns, starts its work queue at interrupt exit, and tells the [`watchdog`].
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
