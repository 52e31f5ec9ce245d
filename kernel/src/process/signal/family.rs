//! Signals between parents and children.

use alloc::collections::BTreeSet;
use alloc::sync::Arc;

use orrery_core::signal::action::{Flags, Handler};
use orrery_core::signal::info::code;
use orrery_core::signal::{Detail, Signal, SignalInfo};

use super::job::{self, JobReport};
use super::send::{self, Origin, Target};
use crate::process::group::{Process, State};
use crate::process::tree::{self, Tree};
use crate::process::{first, thread_of};
use crate::task::registry;
use crate::time::to_nanos;

/// Nanoseconds in a unit of `si_utime` and `si_stime` (1 / `USER_HZ`).
const NANOS_PER_UNIT: u64 = 10_000_000;

/// Whether a process's children leave no zombies: it ignores SIGCHLD, or says so with `SA_NOCLDWAIT`.
pub fn ignores_children(parent: &Process) -> bool {
    let action = parent.signals.action(Signal::SIGCHLD);
    action.handler == Handler::Ignore || action.flags.contains(Flags::NO_CHILD_WAIT)
}

/// Tells a parent that a child has become a zombie: by the signal that the child was made with, and in wait(2).
pub fn tell_parent(child: &Process, parent: &Process) {
    let mut tree = tree::lock();
    let end_signal = child.end_signal(parent, &tree);
    if let State::Zombie(status) = child.family.get(&tree).state
        && let Some(signal) = Signal::new(end_signal.into())
        && !(signal == Signal::SIGCHLD && is_ignored_outright(parent))
    {
        let (code, status) = status.child_code();
        let info = about(child, parent, signal, code as i32, status as i32, &mut tree);
        // A parent that misses it still finds the child by waiting.
        let _ = send::send(parent, Target::Process, info, Origin::Above, &mut tree);
    }
    drop(tree);
    parent.children_changed.wake_all();
}

/// Tells the parent that job control has done something to a child.
pub(super) fn tell_parent_of_job(child: &Process, report: JobReport, tree: &mut Tree) {
    let Some(parent) = child.parent(tree) else { return };
    let action = parent.signals.action(Signal::SIGCHLD);
    if action.handler != Handler::Ignore && !action.flags.contains(Flags::NO_CHILD_STOP) {
        let (code, status) = match report {
            JobReport::Stopped(signal) => (code::CHILD_STOPPED, signal as i32),
            JobReport::Continued => (code::CHILD_CONTINUED, Signal::SIGCONT.number().into()),
        };
        let info = about(child, &parent, Signal::SIGCHLD, code, status, tree);
        let _ = send::send(&parent, Target::Process, info, Origin::Above, tree);
    }
    parent.children_changed.wake_all();
}

fn is_ignored_outright(parent: &Process) -> bool {
    parent.signals.action(Signal::SIGCHLD).handler == Handler::Ignore
}

fn about(
    child: &Process,
    parent: &Process,
    signal: Signal,
    code: i32,
    status: i32,
    tree: &mut Tree,
) -> SignalInfo {
    let time = child.cpu_time(tree);
    let in_units = |ticks: u64| (to_nanos(ticks) / NANOS_PER_UNIT).cast_signed();
    let detail = Detail::Child {
        pid: child.number_in(&parent.namespace, tree),
        uid: 0,
        status,
        user_time: in_units(time.user_ticks),
        system_time: in_units(time.system_ticks),
    };
    SignalInfo { signal, errno: 0, code, detail }
}

/// The thread of `parent` that a child was of has ended: sends the signal for that, if the child wants one.
pub fn tell_of_parent_death(child: &Process, parent: &Process, tree: &mut Tree) {
    let wanted = child.family.get(tree).parent_death_signal;
    if let Some(signal) = Signal::new(wanted.into()) {
        let info = SignalInfo::user(signal, parent.number_in(&child.namespace, tree), 0);
        let _ = send::send(child, Target::Process, info, Origin::Above, tree);
    }
}

/// `parent`, a child of `grandparent`'s, has ended, and these children have another one: each may have asked for a signal
/// (`PR_SET_PDEATHSIG`). If one has stopped, and nobody is left who would make it go on, its group gets SIGHUP and goes
/// on (POSIX, "_exit"). However many groups there are, all processes are looked at once for them.
pub fn on_parent_death<'a>(
    children: impl Iterator<Item = &'a Arc<Process>>,
    parent: &Process,
    grandparent: Option<&Process>,
) {
    let mut orphaned = BTreeSet::new();
    for child in children {
        let mut tree = tree::lock();
        tell_of_parent_death(child, parent, &mut tree);
        if job::is_stopped(child, &tree)
            && has_cared_for_group(child, parent, grandparent, &tree)
            && is_orphaned_group(child, &tree)
        {
            orphaned.insert(child.family.get(&tree).group);
        }
    }
    if !orphaned.is_empty() {
        hang_up(&orphaned);
    }
}

/// Whether the group of `child` was no orphaned one by `parent`: by that itself, from outside of the group, or as a
/// member whose own parent is.
fn has_cared_for_group(
    child: &Process,
    parent: &Process,
    grandparent: Option<&Process>,
    tree: &Tree,
) -> bool {
    let (group, session) = {
        let family = child.family.get(tree);
        (family.group, family.session)
    };
    [Some(parent), grandparent].into_iter().flatten().any(|above| {
        let family = above.family.get(tree);
        family.group != group && family.session == session
    })
}

/// Sends SIGHUP to all processes of these groups, and lets them go on.
fn hang_up(groups: &BTreeSet<u32>) {
    for task in registry::tasks() {
        let Some(thread) = thread_of(&task) else { continue };
        let mut tree = tree::lock();
        let family = thread.process.family.get(&tree);
        if family.pid == task.pid() && groups.contains(&family.group) {
            for signal in [Signal::SIGHUP, Signal::SIGCONT] {
                let info = SignalInfo::kernel(signal);
                let _ =
                    send::send(&thread.process, Target::Process, info, Origin::Above, &mut tree);
            }
        }
    }
}

/// Whether nobody of the process's own session, outside of its group, has a child in the group: then nobody would
/// make it go on, and terminal stop signals do not stop it (POSIX, "orphaned process group").
///
/// Of the group's members only this one's line of ancestors is looked at: a shell's jobs are made by the
/// shell, one and all. The first process was started from outside, as if by a shell.
pub(super) fn is_orphaned_group(process: &Process, tree: &Tree) -> bool {
    let (group, session) = {
        let family = process.family.get(tree);
        (family.group, family.session)
    };
    let mut is_first = first::is_first(process);
    let mut at = process.parent(tree);
    while let Some(parent) = at {
        let family = parent.family.get(tree);
        if family.session != session {
            return true;
        }
        if family.group != group {
            return false;
        }
        is_first = first::is_first(&parent);
        at = parent.parent(tree);
    }
    !is_first
}
