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
//! | [`pids`] | tasks come and go in nested PID namespaces while others look them up |
//! | [`echo`] | copies programs' input to their output |
//! | [`output`] | tasks write as programs would |
//! | [`overflow`] | floods the trace, counting what it produced |
//! | [`yield_bench`] | what a task switch costs |
//! | [`latency`] | what many of the kernel's paths cost |
//! | [`idle`] | nothing |
//! | [`exit`] | ends with the status it is given |
//! | [`panic`] | crashes in the manner it is told |
//!
//! What is random comes from `seed=`, so that runs under `--icount` repeat.

pub mod echo;
pub mod exit;
pub mod hog;
pub mod idle;
pub mod latency;
pub mod mixed;
pub mod output;
pub mod overflow;
pub mod panic;
pub mod pids;
pub mod pingpong;
pub mod pipeline;
mod stats;
pub mod storm;
pub mod timers;
pub mod yield_bench;

use alloc::format;
use alloc::sync::Arc;
use core::sync::atomic::{AtomicU64, Ordering};
use core::time::Duration;

use oorandom::Rand64;

use crate::app::{self, Failure, JoinHandle, WaitQueue};
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

/// Where tasks gather, so that they start together: making them takes a while. Whoever has the
/// gate opens it, at the latest by dropping it.
struct Gate(Arc<Passage>);

struct Passage {
    /// When what is behind the gate ends; 0 while it is closed.
    end_ticks: AtomicU64,
    waiting: WaitQueue,
}

impl Gate {
    fn new() -> Self {
        Self(Arc::new(Passage { end_ticks: AtomicU64::new(0), waiting: WaitQueue::new() }))
    }

    /// For a task to wait with.
    fn passage(&self) -> Arc<Passage> {
        self.0.clone()
    }

    /// Lets everybody through, to do something for this time.
    fn open(self, time: Duration) {
        self.0.end_ticks.store(app::now_ticks() + app::to_ticks(time), Ordering::Release);
    }
}

impl Drop for Gate {
    fn drop(&mut self) {
        // Not opened: a task could not be made, and those that were have nothing to do.
        let _ = self.0.end_ticks.compare_exchange(0, 1, Ordering::Release, Ordering::Relaxed);
        self.0.waiting.wake_all();
    }
}

impl Passage {
    /// Waits for the gate to open, and returns when to end.
    fn pass(&self) -> u64 {
        self.waiting.wait_until(|| self.end_ticks.load(Ordering::Acquire) != 0);
        self.end_ticks.load(Ordering::Acquire)
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
