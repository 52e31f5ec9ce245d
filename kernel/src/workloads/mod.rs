//! The built-in workloads: small applications that exercise the scheduler, check themselves, and
//! serve as examples of [`crate::app`]. `workload=NAME,key=value,…` starts one.
//!
//! | name | what it does |
//! |---|---|
//! | [`mixed`] | a bit of everything; the default |
//! | [`pingpong`] | two tasks take turns |
//! | [`pipeline`] | values pass through a chain of channels |
//! | [`storm`] | many tasks sleep, wake, yield and spawn at random |
//! | [`timers`] | many sleepers wake at random times, in order |
//! | [`hog`] | CPU hogs against sleepers; or against each other, `mode=share` |
//! | [`overflow`] | floods the trace, counting what it produced |
//! | [`yield_bench`] | what a task switch costs |
//! | [`idle`] | nothing |
//! | [`exit`] | ends with the status it is given |
//! | [`panic`] | crashes in the manner it is told |
//!
//! What is random comes from `seed=`, so that runs under `--icount` repeat.

pub mod exit;
pub mod hog;
pub mod idle;
pub mod mixed;
pub mod overflow;
pub mod panic;
pub mod pingpong;
pub mod pipeline;
mod stats;
pub mod storm;
pub mod timers;
pub mod yield_bench;

use alloc::format;

use oorandom::Rand64;

use crate::app::{self, Failure, JoinHandle};
use crate::arch::cpu;

/// A task's own random numbers: the same for the same `seed=` and the same `stream`.
fn random(stream: u64) -> Rand64 {
    Rand64::new(u128::from(app::seed()) << 64 | u128::from(stream))
}

/// Keeps the CPU busy until this time. Pauses now and then, as every loop that waits should: an
/// emulator that runs all CPUs in one thread goes on to the next one there.
fn burn_until(deadline_ticks: u64) {
    while app::now_ticks() < deadline_ticks {
        cpu::spin(100);
        cpu::pause();
    }
}

/// Joins them all.
///
/// # Errors
/// If one did not end with 0. All of them have been joined then, too.
fn join_all(tasks: impl IntoIterator<Item = JoinHandle>) -> Result<(), Failure> {
    let mut result = Ok(());
    for task in tasks {
        let pid = task.pid();
        let code = task.join();
        if code != 0 {
            result = Err(format!("task {pid} ended with {code}").into());
        }
    }
    result
}
