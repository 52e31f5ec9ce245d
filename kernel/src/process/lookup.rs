//! Threads and processes by number, as system calls name them.
//!
//! Numbers are those of the caller's PID namespace; 0 is the caller itself. The kernel's own tasks are not
//! found, but by [`task`].

use alloc::sync::Arc;

use orrery_core::errno::Errno;

use super::current;
use super::group::Process;
use super::thread::{Thread, thread_of};
use super::tree::Tree;
use crate::sched::{self, Task};
use crate::task::{Namespace, registry};

/// The task of a thread, or one of the kernel's own.
///
/// # Errors
/// `ESRCH` if there is none with this number.
pub fn task(number: u32) -> Result<Arc<Task>, Errno> {
    let task = if number == 0 {
        registry::find(sched::current().pid())
    } else {
        current().process.namespace.find(number)
    };
    task.ok_or(Errno::ESRCH)
}

/// The task of a thread.
///
/// # Errors
/// `ESRCH` if there is none with this number.
pub fn thread(number: u32) -> Result<Arc<Task>, Errno> {
    let task = task(number)?;
    if thread_of(&task).is_some() { Ok(task) } else { Err(Errno::ESRCH) }
}

/// The thread of a task that was found.
///
/// # Errors
/// `ESRCH` for one of the kernel's own.
pub fn of(task: &Task) -> Result<&Thread, Errno> {
    thread_of(task).ok_or(Errno::ESRCH)
}

/// The process that a thread is of, found by the number of any of its threads.
///
/// # Errors
/// As [`thread`].
pub fn process(number: u32) -> Result<Arc<Process>, Errno> {
    if number == 0 {
        return Ok(current().process.clone());
    }
    let task = thread(number)?;
    Ok(of(&task)?.process.clone())
}

/// The process whose own number this is.
///
/// # Errors
/// `ESRCH` if there is none; `EINVAL` if it is the number of another thread.
pub fn leader(number: u32, tree: &Tree) -> Result<Arc<Process>, Errno> {
    if number == 0 {
        return Ok(current().process.clone());
    }
    let task = thread(number)?;
    let process = &of(&task)?.process;
    let is_leader = process.family.get(tree).pid == task.pid();
    if is_leader { Ok(process.clone()) } else { Err(Errno::EINVAL) }
}

/// What a number of the root namespace is in the caller's; 0 for what is not seen there.
pub fn seen_from_here(root_number: u32) -> u32 {
    let namespace = &current().process.namespace;
    if namespace.level() == 0 {
        return root_number;
    }
    registry::find(root_number).and_then(|task| task.pid_in(namespace)).unwrap_or(0)
}

/// What a number of the caller's namespace is in the root's.
///
/// # Errors
/// `ESRCH` if nothing has it.
pub fn in_root(number: u32) -> Result<u32, Errno> {
    let namespace: &Namespace = &current().process.namespace;
    if namespace.level() == 0 {
        return Ok(number);
    }
    namespace.find(number).map(|task| task.pid()).ok_or(Errno::ESRCH)
}
