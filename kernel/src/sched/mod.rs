//! The scheduler: run queues, the switch, wakeups, idle, timers, balancing.
//!
//! The policy (who runs next, on which CPU) is `orrery_core::sched`, pure logic. This floor gives
//! it what it has not: locks, time, interrupts, the context switch, and the trace.
//!
//! - [`task`]: the task and its states
//! - [`cpu`]: what each CPU has: queue, inbox, idle state
//! - [`switch`]: `schedule`, the one place where a CPU changes tasks
//! - [`wake`]: from asleep to runnable, here or on another CPU
//! - [`idle`]: what a CPU does with nothing to do
//! - [`balance`]: pulling, kicking, affinity
//! - [`epoch`]: when what lock-free lookups may still see can be freed
//! - [`timer`]: the CPU's timer: sleeps and slices; [`tick`]: what a busy CPU does regularly
//! - [`alarm`]: functions called at a time
//! - [`wait`]: wait queues; [`mutex`]: a lock whose waiters sleep; [`pausing`]: one whose
//!   waiters spin, unless its holder lets others run
//! - [`call`]: functions run on other CPUs, and stopping them
//! - [`interrupt`]: what an interrupt does, deferred work, preemption at its end
//!
//! Reading order: `task`, `cpu`, `switch`, `wake`. Nothing here knows PIDs, processes or
//! applications.

pub mod alarm;
pub mod balance;
pub mod call;
pub mod cpu;
pub mod epoch;
pub mod idle;
pub mod interrupt;
pub mod mutex;
pub mod pausing;
pub mod switch;
pub mod task;
pub mod tick;
pub mod timer;
pub mod wait;
pub mod wake;

pub use switch::{sleep_prepared, yield_now};
pub use task::{State, Task, current};

use alloc::boxed::Box;
use alloc::format;
use core::ptr::NonNull;
use core::sync::atomic::Ordering;

use orrery_core::cpuset::CpuSet;
use orrery_core::sched::{Nice, Policy};

use crate::arch::percpu;

/// Whether this CPU's idle task runs. Meaningful while preemption is off.
pub fn is_idle() -> bool {
    core::ptr::eq(cpu::this().idle_task.load(Ordering::Relaxed), current())
}

/// Makes the boot CPU schedule. What runs on it now becomes its idle task.
pub fn init_boot_cpu() {
    // SAFETY: once, by the boot CPU, with interrupts off; nothing is scheduled yet.
    unsafe { become_idle_task(0) };
}

/// Where the other CPUs begin: each is its own idle task.
pub fn run_secondary(cpu: u32) -> ! {
    // SAFETY: once per CPU, by that CPU, with interrupts off.
    unsafe { become_idle_task(cpu) };
    idle::run()
}

/// # Safety
/// As [`switch::adopt_idle`].
unsafe fn become_idle_task(cpu: u32) {
    let spec = task::TaskSpec {
        name: format!("idle/{cpu}").into(),
        policy: Policy::Fair(Nice::MAX),
        allowed: CpuSet::single(cpu as usize),
        parent: 0,
    };
    let task = Box::leak(Box::new(Task::new(spec, None, None)));
    debug_assert_eq!(percpu::cpu_id(), cpu);
    // SAFETY: by contract; the task is never freed.
    unsafe { switch::adopt_idle(cpu, NonNull::from(task)) };
}
