//! Signals between parents and children.

use orrery_core::signal::action::{Flags, Handler};
use orrery_core::signal::info::code;
use orrery_core::signal::{Detail, Signal, SignalInfo};

use super::job::JobReport;
use super::send::{self, Origin, Target};
use crate::arch::tsc;
use crate::process::group::{Process, State};
use crate::process::tree::{self, Tree};

/// Units of `si_utime` and `si_stime` in a second (`USER_HZ`).
const TIMES_PER_SECOND: u128 = 100;

/// Whether a process's children leave no zombies: it ignores SIGCHLD, or says so with `SA_NOCLDWAIT`.
pub fn ignores_children(parent: &Process) -> bool {
    let action = parent.signals.action(Signal::SIGCHLD);
    action.handler == Handler::Ignore || action.flags.contains(Flags::NO_CHILD_WAIT)
}

/// Tells a parent that a child has become a zombie: by the signal that the child was made with, and in wait(2).
pub fn tell_parent(child: &Process, parent: &Process) {
    let mut tree = tree::lock();
    let exit_signal = child.family.get(&tree).exit_signal;
    if let State::Zombie(status) = child.family.get(&tree).state
        && let Some(signal) = Signal::new(exit_signal.into())
        && !(signal == Signal::SIGCHLD && is_ignored_outright(parent))
    {
        let (code, status) = status.child_code();
        let info = about(child, parent, signal, code as i32, status as i32, &tree);
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
    tree: &Tree,
) -> SignalInfo {
    let ticks = u128::from(child.runtime_ticks(tree));
    let user_time = ticks * TIMES_PER_SECOND / u128::from(tsc::hz().max(1));
    let detail = Detail::Child {
        pid: child.number_in(&parent.namespace, tree),
        uid: 0,
        status,
        // What is spent in ring 3 and what in ring 0 is not told apart.
        user_time: i64::try_from(user_time).unwrap_or(i64::MAX),
        system_time: 0,
    };
    SignalInfo { signal, errno: 0, code, detail }
}

/// The parent of `child` has ended: the child may have asked for a signal (`PR_SET_PDEATHSIG`).
pub fn on_parent_death(child: &Process) {
    let mut tree = tree::lock();
    let wanted = child.family.get(&tree).parent_death_signal;
    if let Some(signal) = Signal::new(wanted.into()) {
        let info = SignalInfo::user(signal, 0, 0);
        let _ = send::send(child, Target::Process, info, Origin::Above, &mut tree);
    }
}

/// Whether nobody of the process's own session, outside of its group, has a child in the group: then nobody would
/// make it go on, and terminal stop signals do not stop it (POSIX, "orphaned process group").
///
/// Of the group's members only this one's line of ancestors is looked at: a shell's jobs are made by the
/// shell, one and all. Who has no parent was started from outside, as if by a shell.
pub(super) fn is_orphaned_group(process: &Process, tree: &Tree) -> bool {
    let (group, session) = {
        let family = process.family.get(tree);
        (family.group, family.session)
    };
    let mut at = process.parent(tree);
    while let Some(parent) = at {
        let family = parent.family.get(tree);
        if family.session != session {
            return true;
        }
        if family.group != group {
            return false;
        }
        at = parent.parent(tree);
    }
    false
}
