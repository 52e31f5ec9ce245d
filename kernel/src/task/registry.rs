//! Every task by its number.

use alloc::collections::BTreeMap;
use alloc::sync::Arc;
use alloc::vec::Vec;

use crate::sched::Task;
use crate::sync::SpinLock;

/// Most tasks at a time, `init` and `kthreadd` included.
pub const PID_LIMIT: u32 = 32_768;

struct Registry {
    tasks: BTreeMap<u32, Arc<Task>>,
    next: u32,
}

static REGISTRY: SpinLock<Registry> =
    SpinLock::new("pid namespace", Registry { tasks: BTreeMap::new(), next: 1 });

/// No number is free.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PidsExhausted;

/// Gives a new task its number and enters it.
///
/// # Errors
/// [`PidsExhausted`] at [`PID_LIMIT`].
pub fn enter(task: &Arc<Task>) -> Result<u32, PidsExhausted> {
    let mut registry = REGISTRY.lock();
    if registry.tasks.len() >= PID_LIMIT as usize {
        return Err(PidsExhausted);
    }
    let mut pid = registry.next;
    while registry.tasks.contains_key(&pid) {
        pid = if pid + 1 < PID_LIMIT { pid + 1 } else { 300 };
    }
    registry.next = if pid + 1 < PID_LIMIT { pid + 1 } else { 300 };
    task.set_pid(pid);
    registry.tasks.insert(pid, task.clone());
    Ok(pid)
}

/// Frees a reaped task's number.
pub fn leave(pid: u32) {
    let task = REGISTRY.lock().tasks.remove(&pid);
    drop(task);
}

/// The task with this number.
pub fn find(pid: u32) -> Option<Arc<Task>> {
    REGISTRY.lock().tasks.get(&pid).cloned()
}

/// Tasks that exist, zombies included, idle tasks not.
pub fn count() -> usize {
    REGISTRY.lock().tasks.len()
}

/// Every task, lowest number first, as of one moment.
pub fn snapshot() -> Vec<Arc<Task>> {
    REGISTRY.lock().tasks.values().cloned().collect()
}

/// The tasks whose parent is `pid`, as of one moment.
pub fn children(pid: u32) -> Vec<Arc<Task>> {
    REGISTRY.lock().tasks.values().filter(|task| task.parent() == pid).cloned().collect()
}
