//! The end of threads and processes.

use alloc::collections::BTreeMap;
use alloc::sync::Arc;
use core::sync::atomic::Ordering;

use linux_raw_sys::general as abi;

use super::group::{Process, State};
use super::thread::{self, Thread};
use super::tree::{self, Tree};
use super::usage::Counts;
use super::wait::{self, Reaped, Status};
use super::{current, exec, futex, maker, signal};
use crate::println;
use crate::sched::{self, Task};
use crate::task::{self, registry};
use crate::trace::events;

/// Ends all threads of the running thread's process, the running one with them.
pub fn exit_group(status: Status) -> ! {
    begin_group_exit(&current().process, status);
    exit_thread()
}

/// Dooms all threads of a process: each goes before it returns to ring 3. The first status counts.
pub fn begin_group_exit(process: &Process, status: Status) {
    begin_group_exit_in(process, status, &mut tree::lock());
}

/// [`begin_group_exit`] for a caller that has the tree's lock. A process that is still being made has no threads to doom,
/// and goes on.
pub fn begin_group_exit_in(process: &Process, status: Status, tree: &mut Tree) {
    let family = process.family.get_mut(tree);
    if family.state == State::Running && family.is_made() {
        family.state = State::Exiting(status);
        thread::doom(process, tree, |_| false);
        process.threads_changed.wake_all();
    }
}

/// Ends the running thread's process because there is no memory for it.
pub fn out_of_memory(thread: &Thread) {
    let (pid, comm) = (sched::current().pid(), *thread.comm.lock());
    println!("orrery: out of memory: killed pid {pid} `{}`", comm.as_str());
    events::oom_kill(pid);
    begin_group_exit(&thread.process, Status::signalled(abi::SIGKILL));
}

/// `exit(2)`: ends the running thread. Where nothing else ends the process, the last code is its status.
pub fn exit_with(code: i32) -> ! {
    let process = &current().process;
    process.family.get_mut(&mut tree::lock()).last_status = Status::exited(code);
    exit_thread()
}

/// Ends the running thread. Its process becomes a zombie with the last one.
pub fn exit_thread() -> ! {
    let thread = current();
    let task = sched::current();
    futex::on_thread_exit(thread);
    leave_shared_state(thread);
    signal::on_thread_exit(thread);
    maker::on_thread_exit(thread, task);
    if is_leader(thread, task) {
        wait_until_alone(&thread.process);
        // Another thread may have called `execve`: this one goes on with it.
        exec::adopt_handover();
        if thread.tid() == 1 {
            end_namespace(&thread.process, task);
        }
        // The file may be written again before anybody hears of the end.
        let program = thread.process.program.lock().take();
        drop(program);
    }
    let process = thread.process.clone();
    let mut ends = leave_group(&process, thread, task);
    if let Some(ends) = &mut ends {
        process.real_timer.clear();
        ends.tell_orphans();
    }
    let code = ends.as_ref().map_or(0, |ends| i32::from(ends.status.code()));
    // The reference goes before the task: what follows never returns.
    drop(process);
    task::life::exit_after(code, move || {
        if let Some(ends) = ends {
            ends.tell();
        }
    })
}

/// Gives up address space, files and the like.
fn leave_shared_state(thread: &Thread) {
    if let Some(done) = thread.vfork_done.lock().take() {
        // First out of the parent's address space, then let it go on.
        drop(thread.replace_space(None));
        done.tell();
    }
    drop(thread.replace_space(None));
    let (files, fs) = (thread.files.lock().take(), thread.fs.lock().take());
    drop((files, fs));
}

/// Whether a thread, whose task this is, is the first of its process.
pub(super) fn is_leader(thread: &Thread, task: &Task) -> bool {
    let tree = tree::lock();
    let family = thread.process.family.get(&tree);
    family.leader.as_ref().is_some_and(|leader| core::ptr::eq(&**leader.task(), task))
}

/// Waits until the running thread is the only one of its process.
pub(super) fn wait_until_alone(process: &Process) {
    process.threads_changed.wait_until(|| process.family.get(&tree::lock()).threads.len() <= 1);
}

/// The running thread, the last of the first process of a PID namespace, ends all other processes there, and waits until
/// they have gone: nobody hears of its own end before (pid_namespaces(7)).
#[cold]
fn end_namespace(process: &Arc<Process>, task: &Task) {
    registry::end_namespace(&process.namespace, task);
    for (_, other) in process.namespace.tasks_from(0) {
        if let Some(thread) = thread::thread_of(&other)
            && !Arc::ptr_eq(&thread.process, process)
        {
            begin_group_exit(&thread.process, Status::signalled(abi::SIGKILL));
        }
    }
    let next_zombie = |tree: &Tree, from: u32| {
        let mut children = process.family.get(tree).children.range(from..);
        let zombie = children.find(|(_, child)| child.is_zombie(tree));
        zombie.map(|(&pid, child)| (pid, child.clone()))
    };
    loop {
        // Orphans become its children, so that all of them are at last.
        let mut found = None;
        process.children_changed.wait_until(|| {
            let tree = tree::lock();
            found = next_zombie(&tree, 0);
            found.is_some() || process.family.get(&tree).children.is_empty()
        });
        if found.is_none() {
            return;
        }
        while let Some((pid, zombie)) = found {
            let reaped = wait::take(&zombie, &mut tree::lock());
            reaped.bury();
            found = next_zombie(&tree::lock(), pid + 1);
        }
    }
}

/// What is still to do when a process has become a zombie.
struct Ends {
    status: Status,
    process: Arc<Process>,
    parent: Option<Arc<Process>>,
    /// Its children, who have another parent now; none, if they are zombies that nobody wants. However many they are,
    /// they are in the tree that they were in.
    orphans: BTreeMap<u32, Arc<Process>>,
    /// Itself, if nobody will ask for it.
    reaped: Option<Reaped>,
}

/// Takes the running thread out of its process. The last one makes that a zombie.
fn leave_group(process: &Arc<Process>, thread: &Thread, task: &Task) -> Option<Ends> {
    let mut tree = tree::lock();
    let family = process.family.get_mut(&mut tree);
    family.past_counts += Counts::of(task);
    if family.threads.len() > 1 {
        let gone = family.remove_thread(thread);
        let is_one_left = family.threads.len() == 1;
        drop(tree);
        drop(gone);
        if is_one_left {
            process.threads_changed.wake_all();
        }
        return None;
    }
    let status = match family.state {
        State::Exiting(status) | State::Zombie(status) => status,
        State::Running => family.last_status,
    };
    let gone = core::mem::take(&mut family.threads);
    family.state = State::Zombie(status);
    let pid = family.pid;
    let parent = process.parent(&tree);
    let orphans = give_children_away(process, &mut tree);
    // A parent that ignores its children, but for "clone children", or none at all: nobody will ask.
    let nobody_asks = match &parent {
        Some(parent) => {
            let end_signal = process.end_signal(parent, &tree);
            u32::from(end_signal) == abi::SIGCHLD && signal::ignores_children(parent)
        }
        None => true,
    };
    let reaped = nobody_asks.then(|| wait::take(process, &mut tree));
    drop(tree);
    drop(gone);
    events::process_exit(pid, status.0);
    Some(Ends { status, process: process.clone(), parent, orphans, reaped })
}

/// Gives the children of a process that ends to the nearest that takes them: a subreaper above it, or the
/// first process of its namespace. Children that are zombies and that the heir does not care for are
/// nobody's. Returns all of them.
fn give_children_away(process: &Arc<Process>, tree: &mut Tree) -> BTreeMap<u32, Arc<Process>> {
    let children = core::mem::take(&mut process.family.get_mut(tree).children);
    if children.is_empty() {
        return children;
    }
    let heir = heir(process, tree);
    let wants_zombies = heir.as_ref().is_some_and(|heir| !signal::ignores_children(heir));
    for (&pid, child) in &children {
        let heir = heir.as_ref().filter(|_| wants_zombies || !child.is_zombie(tree));
        child.family.get_mut(tree).parent = heir.map(Arc::downgrade);
        if let Some(heir) = heir {
            // What made it a "clone child" was between it and its maker.
            let family = child.family.get_mut(tree);
            family.exit_signal = abi::SIGCHLD as u8;
            family.execs_of_maker = heir.execs.load(Ordering::Relaxed);
            family.maker = maker::ANY;
            if family.parent_death_signal != 0 {
                maker::watch(heir);
            }
            heir.family.get_mut(tree).children.insert(pid, child.clone());
        }
        child.note_numbers(tree);
    }
    children
}

/// The nearest subreaper above, or the first process of the namespace. None means the kernel's own `init`,
/// which wants no zombies.
fn heir(process: &Arc<Process>, tree: &Tree) -> Option<Arc<Process>> {
    let mut at = process.parent(tree)?;
    loop {
        let family = at.family.get(tree);
        let is_first = family.tgid == 1 && at.namespace == process.namespace;
        let takes_orphans = match family.state {
            State::Running => family.is_subreaper || is_first,
            // It waits for them (`end_namespace`).
            State::Exiting(_) => is_first,
            State::Zombie(_) => false,
        };
        if takes_orphans {
            return Some(at);
        }
        at = at.parent(tree)?;
    }
}

impl Ends {
    /// Tells heirs and orphans. There may be many: it is done while the task can still be preempted. Whoever has taken
    /// the zombie by now waits for the task, and finds them told.
    fn tell_orphans(&mut self) {
        if self.orphans.is_empty() {
            return;
        }
        let orphans = core::mem::take(&mut self.orphans);
        // Before any ends of what follows: it tells of that itself.
        for child in orphans.values() {
            let (heir, reaped) = {
                let mut tree = tree::lock();
                if !child.is_zombie(&tree) {
                    continue;
                }
                let heir = child.parent(&tree);
                let reaped = heir.is_none().then(|| wait::take(child, &mut tree));
                (heir, reaped)
            };
            if let Some(heir) = heir {
                signal::tell_parent(child, &heir);
            }
            if let Some(reaped) = reaped {
                reaped.abandon();
            }
        }
        signal::on_parent_death(orphans.values(), &self.process, self.parent.as_deref());
    }

    /// Tells the parent. The task is not preempted any more.
    fn tell(self) {
        if let Some(parent) = &self.parent {
            signal::tell_parent(&self.process, parent);
        }
        self.process.exited.wake_all();
        if let Some(reaped) = self.reaped {
            reaped.abandon();
        }
    }
}
