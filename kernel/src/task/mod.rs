//! Tasks from birth to burial.
//!
//! - [`birth`]: `kthreadd`, which makes every task but the first two
//! - [`life`]: exiting, joining, stopping, reaping
//! - [`registry`]: numbers, and the list and tree of all tasks
//! - [`work`]: the work queue and its task
//!
//! ```text
//!   create ──▶ kthreadd makes it ──▶ run ──▶ exit ──▶ zombie ──▶ joined, or reaped by kworker
//! ```

pub mod birth;
pub mod life;
pub mod registry;
pub mod work;

pub use birth::{SpawnError, create, run};
pub use life::{JoinHandle, exit};
pub use registry::{Namespace, Nesting};

use orrery_core::sched::{Nice, Policy};

use crate::sched::Task;
use crate::trace::events;

/// Tells the trace what a task is.
pub fn trace_attributes(task: &Task, policy: Policy) {
    let (class, priority, nice) = match policy {
        Policy::Fifo(priority) => (0, priority.get(), Nice::default()),
        Policy::RoundRobin(priority) => (1, priority.get(), Nice::default()),
        Policy::Fair(nice) => (2, 0, nice),
    };
    events::task_attr(task.pid(), class, priority, nice.get(), task.allowed().bits(), task.name());
}
