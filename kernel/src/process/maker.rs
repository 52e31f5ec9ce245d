//! Which thread of its parent a child is of: the one that made it; once that has ended, another one.
//!
//! It matters to `__WNOTHREAD` (wait(2)) and to `PR_SET_PDEATHSIG` (prctl(2)): "the parent" whose death counts is
//! that thread. What the end of the whole process does is [`signal::on_parent_death`]'s.

use alloc::sync::Arc;
use core::sync::atomic::Ordering;

use super::group::Process;
use super::thread::{Thread, thread_of};
use super::tree::{self, Tree};
use super::{exit, signal};
use crate::sched::Task;
use crate::task::registry;

/// The thread that a child is of which is given to a process rather than made by it: any.
pub const ANY: u32 = 0;

/// Whether a child of its process is this thread's, whose task it is.
pub fn is_of(child: &Process, thread: &Thread, task: &Task, tree: &Tree) -> bool {
    let maker = child.family.get(tree).maker;
    maker == task.pid()
        || is_first(&thread.process, task, tree) && !is_there(&thread.process, maker)
}

/// Whether the thread is the first of those that have not begun to end.
fn is_first(process: &Process, task: &Task, tree: &Tree) -> bool {
    let threads = &process.family.get(tree).threads;
    let first = threads.iter().find(|it| !thread_of(it).is_some_and(has_begun_to_end));
    first.is_some_and(|first| core::ptr::eq(Arc::as_ptr(first), task))
}

/// Whether a thread of the process has this number and has not begun to end.
fn is_there(process: &Process, pid: u32) -> bool {
    let task = if pid == ANY { None } else { registry::find(pid) };
    task.as_deref()
        .and_then(thread_of)
        .is_some_and(|thread| core::ptr::eq(&*thread.process, process) && !has_begun_to_end(thread))
}

fn has_begun_to_end(thread: &Thread) -> bool {
    thread.has_begun_to_end.load(Ordering::Relaxed)
}

/// A child of this process wants to be told of its maker's end.
pub fn watch(parent: &Process) {
    parent.has_death_watchers.store(true, Ordering::Relaxed);
}

/// The running thread ends: its children that have asked for a signal get it, unless it is the last and the end of the
/// process will tell them.
pub fn on_thread_exit(thread: &Thread, task: &Task) {
    let process = &thread.process;
    if process.has_death_watchers.load(Ordering::Relaxed) {
        tell_children(thread, task);
    }
    thread.has_begun_to_end.store(true, Ordering::Relaxed);
}

#[cold]
fn tell_children(thread: &Thread, task: &Task) {
    let process = &thread.process;
    let goes_on = process.handover.lock().is_some() && exit::is_leader(thread, task);
    if goes_on || has_begun_to_end(thread) {
        return;
    }
    let is_other = |it: &Arc<Task>| {
        !core::ptr::eq(Arc::as_ptr(it), task) && !thread_of(it).is_some_and(has_begun_to_end)
    };
    let mut from = 0;
    loop {
        let mut tree = tree::lock();
        let family = process.family.get(&tree);
        if !family.threads.iter().any(is_other) {
            return;
        }
        // One by one: there may be many, and each is some work.
        let Some((&pid, child)) = family.children.range(from..).next() else { return };
        from = pid + 1;
        if is_of(child, thread, task, &tree) {
            let child = child.clone();
            signal::tell_of_parent_death(&child, process, &mut tree);
        }
    }
}

/// The running thread, whose task this is, becomes another program in the place of the leader, which ends as far as
/// its children can tell, while its task goes on.
pub fn take_the_leader_s_place(thread: &Thread, task: &Task, leader: &Task, tree: &mut Tree) {
    let process = &thread.process;
    if !process.has_death_watchers.load(Ordering::Relaxed) {
        return;
    }
    let leader_ends = thread_of(leader).is_some_and(|leader| !has_begun_to_end(leader));
    let mut from = 0;
    while let Some((&pid, child)) = process.family.get(tree).children.range(from..).next() {
        from = pid + 1;
        let child = child.clone();
        let maker = child.family.get(tree).maker;
        if maker == leader.pid() && leader_ends {
            signal::tell_of_parent_death(&child, process, tree);
        } else if maker == task.pid() {
            child.family.get_mut(tree).maker = leader.pid();
        }
    }
    // Its task ends, but it does not.
    thread.has_begun_to_end.store(true, Ordering::Relaxed);
}

/// The running thread, a leader that was about to end, goes on with another thread's program.
pub fn go_on(thread: &Thread) {
    thread.has_begun_to_end.store(false, Ordering::Relaxed);
}
