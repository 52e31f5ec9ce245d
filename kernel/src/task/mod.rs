//! Tasks from birth to burial.
//!
//! - [`birth`]: `kthreadd`, which makes every task but the first two
//! - [`life`]: exiting, joining, stopping, reaping
//! - [`registry`]: numbers, and the list and tree of all tasks
//! - [`work`]: the work queue and its task
//!
//! ```text
//!   create ──▶ kthreadd makes it ──▶ run ──▶ exit ──▶ zombie ──▶ joined, or reaped by whoever makes
//!                                                                 the next task, or soon by kworker
//! ```

pub mod birth;
pub mod life;
pub mod registry;
pub mod work;

pub use birth::{SpawnError, create, run};
pub use life::{JoinHandle, exit};
pub use registry::{Namespace, Nesting};

use orrery_core::sched::{Nice, Policy};

use crate::sched::{Task, cpu};
use crate::trace::events;
use crate::trace::record::{self, Category};

/// Tells the trace of the tasks that exist before any is made.
pub fn trace_idle_tasks() {
    const IDLE_CLASS: u8 = 3;
    for cpu in cpu::each() {
        events::task_dump(0, 0, 0, cpu as u8);
        events::task_attr(0, IDLE_CLASS, 0, 0, 1 << cpu, "idle");
    }
}

/// Tells the trace which tasks there are.
pub fn trace_all() {
    trace_idle_tasks();
    for task in registry::tasks() {
        let state = task.state().trace_number();
        events::task_dump(task.pid(), task.parent(), state, task.cpu() as u8);
        trace_attributes(&task, task.policy());
    }
}

/// Tells the trace what a task is.
pub fn trace_attributes(task: &Task, policy: Policy) {
    // To find where the name ends would cost more than all else here.
    if record::any_enabled::<{ Category::Task as u32 }>() {
        trace_named(task, policy, task.name());
    }
}

/// Tells the trace that a task has another name.
pub fn trace_attributes_as(task: &Task, name: &str) {
    trace_named(task, task.policy(), name);
}

fn trace_named(task: &Task, policy: Policy, name: &str) {
    let (class, priority, nice) = match policy {
        Policy::Fifo(priority) => (0, priority.get(), Nice::default()),
        Policy::RoundRobin(priority) => (1, priority.get(), Nice::default()),
        Policy::IDLE => (3, 0, Nice::MAX),
        Policy::Fair(nice) => (2, 0, nice),
    };
    events::task_attr(task.pid(), class, priority, nice.get(), task.allowed().bits(), name);
}
