//! The API for applications: crates that are linked into the image and run as kernel tasks.
//!
//! An application registers itself with [`app!`](crate::app!) and is started by
//! `workload=NAME,key=value,…` on the kernel's command line. Everything here is safe to call from
//! a task; nothing may be called from an interrupt handler or with a spinlock held, except where
//! said. `docs/applications.md` is the tutorial; the built-in [`crate::workloads`] are written against
//! this module and are its examples.
//!
//! - `register`: the list of applications, and how one is run
//! - `tasks`: spawning, joining, and what a task may do to itself and others
//! - `time`: ticks and sleeps
//! - `channel`: bounded channels between tasks
//! - `region`: stretches that are measured
//!
//! The parameters of an application are `orrery_core::args`, tested on the host.

mod channel;
mod region;
mod register;
mod tasks;
mod time;

pub use channel::{Receiver, RecvError, SendError, Sender, channel};
pub use orrery_core::args::{ArgError, Args, Expected};
pub use orrery_core::cpuset::CpuSet;
pub use orrery_core::region::RegionError;
pub use orrery_core::sched::{Nice, Policy, RtPriority, SchedInfo};
pub use region::{region, tell_region};
pub use register::{App, Failure, Outcome, all, find, run};
pub use tasks::{
    Builder, JoinHandle, cpu, cpus, online, pid, pid_namespace, policy, sched_info, set_affinity,
    set_nice, set_policy, should_stop, spawn,
};
pub use time::{
    now_ticks, sleep, sleep_or_stop, sleep_until, ticks_per_second, to_duration, to_ticks,
};

pub use crate::sched::balance::NoCpu;
pub use crate::sched::task::Sleep;
pub use crate::sched::wait::{Sharing, WaitError, WaitMode, WaitQueue};
pub use crate::sched::{Task, current, yield_now};
pub use crate::sync::SpinLock;
pub use crate::task::{Namespace as PidNamespace, SpawnError};
pub use crate::trace::MAX_MARK_BYTES;
pub use crate::trace::drain::settle;
pub use crate::{print, println, seed};

/// Puts a `mark` event with this value and text into the trace: a moment that means something to the
/// application. Costs nothing to speak of while the category `mark` is off. Text beyond
/// [`MAX_MARK_BYTES`] is cut. May be called from anywhere.
#[inline]
pub fn mark(value: u64, text: &str) {
    let end = text.floor_char_boundary(MAX_MARK_BYTES);
    crate::trace::events::mark(value, &text[..end]);
}

impl core::fmt::Display for WaitError {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str(match self {
            Self::Interrupted => "asked to stop while waiting",
            Self::TimedOut => "waited until the deadline",
        })
    }
}

impl core::fmt::Display for NoCpu {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str("none of these CPUs is online")
    }
}
