//! What a parent learns of its children: wait4(2), waitid(2).

use alloc::sync::Arc;

use linux_raw_sys::general as abi;
use orrery_core::errno::Errno;

use super::group::{Process, State};
use super::signal::JobReport;
use super::tree::{self, Tree};
use super::usage::Usage;
use super::{current, maker, signal};
use crate::sched;
use crate::sched::task::Sleep;
use crate::sched::wait::{Sharing, WaitError, WaitMode};
use crate::trace::events;

/// How a process has ended, as the word that wait4(2) writes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Status(pub u32);

impl Status {
    /// It has exited with this code, of which eight bits count.
    pub const fn exited(code: i32) -> Self {
        Self(((code & 0xFF) as u32) << 8)
    }

    /// A signal has ended it.
    pub const fn signalled(signal: u32) -> Self {
        Self(signal & 0x7F)
    }

    /// The signal that has ended it; `None` if it has exited.
    pub const fn signal(self) -> Option<u32> {
        match self.0 & 0x7F {
            0 => None,
            signal => Some(signal),
        }
    }

    /// The code it has exited with; with a signal, 128 more than that, as shells have it.
    pub const fn code(self) -> u8 {
        match self.signal() {
            Some(signal) => (128 + signal) as u8,
            None => (self.0 >> 8) as u8,
        }
    }

    /// `si_code` and `si_status` of its SIGCHLD.
    pub const fn child_code(self) -> (u32, u32) {
        match self.signal() {
            Some(signal) => (abi::CLD_KILLED, signal),
            None => (abi::CLD_EXITED, self.0 >> 8 & 0xFF),
        }
    }
}

/// Which children are waited for.
#[derive(Clone)]
pub enum Which {
    /// Any.
    All,
    /// The one with this number, as the caller sees it.
    Number(u32),
    /// Those of this process group, by its number in the root namespace.
    Group(u32),
    /// This one.
    Process(Arc<Process>),
}

/// What is waited for, and how.
#[derive(Clone)]
pub struct Request {
    /// Which children.
    pub which: Which,
    /// `W…` options: what events count, and `WNOHANG`, `WNOWAIT`.
    pub options: u32,
}

/// What a child did.
#[derive(Clone, Copy, Debug)]
pub struct Report {
    /// The child's number, as the caller sees it.
    pub number: u32,
    /// The word that wait4(2) writes.
    pub status: u32,
    /// `si_code` and `si_status` for waitid(2).
    pub child_code: (u32, u32),
}

/// Waits for a child, and tells in `usage` what it has used, and its children. `None` if nothing has happened and the
/// caller does not want to wait.
///
/// # Errors
/// `ECHILD` if there is no such child; [`Errno::RESTART_SYS`] if a signal came first.
pub fn wait(request: &Request, usage: &mut Usage) -> Result<Option<Report>, Errno> {
    let process = &current().process;
    let mode =
        WaitMode { sleep: Sleep::Interruptible, sharing: Sharing::Shared, deadline_ticks: None };
    let mut result = look(process, request, usage);
    if request.options & abi::WNOHANG == 0 && matches!(result, Ok(None)) {
        let waited = process.children_changed.wait(mode, || {
            result = look(process, request, usage);
            !matches!(result, Ok(None))
        });
        if waited == Err(WaitError::Interrupted) {
            return Err(Errno::RESTART_SYS);
        }
    }
    result
}

fn look(
    process: &Arc<Process>,
    request: &Request,
    usage: &mut Usage,
) -> Result<Option<Report>, Errno> {
    let mut tree = tree::lock();
    let mut any = false;
    let mut found = None;
    let children = &process.family.get(&tree).children;
    if let Which::Number(number) = request.which
        && process.namespace.level() == 0
    {
        // By number in the root namespace, which is what the children are sorted by.
        let child = children.get(&number).ok_or(Errno::ECHILD)?;
        any = is_eligible(child, request, &tree);
        found = any.then(|| report(child, request, &tree)).flatten().map(|it| (child.clone(), it));
    } else {
        for child in children.values() {
            if !is_wanted(process, child, request, &tree) || !is_eligible(child, request, &tree) {
                continue;
            }
            any = true;
            if let Some(what) = report(child, request, &tree) {
                found = Some((child.clone(), what));
                break;
            }
        }
    }
    let Some((child, (status, child_code))) = found else {
        return if any { Ok(None) } else { Err(Errno::ECHILD) };
    };
    let number = child.number_in(&process.namespace, &tree);
    *usage = child.usage(&mut tree);
    if let Some(its_children) = &child.family.get(&tree).children_usage {
        *usage += **its_children;
    }
    let report = Report { number, status, child_code };
    if request.options & abi::WNOWAIT != 0 {
        return Ok(Some(report));
    }
    if child.is_zombie(&tree) {
        **process.family.get_mut(&mut tree).children_usage.get_or_insert_default() += *usage;
        let reaped = take(&child, &mut tree);
        drop(tree);
        reaped.bury();
    } else {
        signal::take_job_report(&child, &mut tree);
    }
    Ok(Some(report))
}

fn is_wanted(process: &Process, child: &Arc<Process>, request: &Request, tree: &Tree) -> bool {
    match &request.which {
        Which::All => true,
        Which::Number(number) => child.number_in(&process.namespace, tree) == *number,
        Which::Group(group) => child.family.get(tree).group == *group,
        Which::Process(wanted) => Arc::ptr_eq(wanted, child),
    }
}

/// Whether the options admit such a child: those that end without SIGCHLD are "clone children", and with
/// `__WNOTHREAD` only the calling thread's own count. Nothing but its end is to be learnt of a zombie.
fn is_eligible(child: &Process, request: &Request, tree: &Tree) -> bool {
    if child.is_zombie(tree) && request.options & abi::WEXITED == 0 {
        return false;
    }
    if request.options & abi::__WNOTHREAD != 0
        && !maker::is_of(child, current(), sched::current(), tree)
    {
        return false;
    }
    let is_clone = u32::from(child.family.get(tree).exit_signal) != abi::SIGCHLD;
    request.options & abi::__WALL != 0 || is_clone == (request.options & abi::__WCLONE != 0)
}

fn report(child: &Process, request: &Request, tree: &Tree) -> Option<(u32, (u32, u32))> {
    match child.family.get(tree).state {
        State::Zombie(status) if request.options & abi::WEXITED != 0 => {
            Some((status.0, status.child_code()))
        }
        State::Zombie(_) => None,
        _ => match signal::job_report(child, tree)? {
            JobReport::Stopped(signal) if request.options & abi::WUNTRACED != 0 => {
                Some((signal << 8 | 0x7F, (abi::CLD_STOPPED, signal)))
            }
            JobReport::Continued if request.options & abi::WCONTINUED != 0 => {
                Some((0xFFFF, (abi::CLD_CONTINUED, abi::SIGCONT)))
            }
            _ => None,
        },
    }
}

/// A zombie that nobody finds any more.
#[must_use = "a process that was taken is buried once the tree's lock is free"]
pub struct Reaped(Option<crate::task::JoinHandle>);

/// Takes a zombie out of its family.
pub fn take(zombie: &Arc<Process>, tree: &mut Tree) -> Reaped {
    debug_assert!(zombie.is_zombie(tree));
    let pid = zombie.family.get(tree).pid;
    if let Some(parent) = zombie.parent(tree) {
        parent.family.get_mut(tree).children.remove(&pid);
    }
    let family = zombie.family.get_mut(tree);
    family.parent = None;
    Reaped(family.leader.take())
}

impl Reaped {
    /// Frees the number and the leader's task. Waits until that has left its CPU.
    pub fn bury(self) {
        if let Some(leader) = self.0 {
            events::process_reap(leader.task().pid());
            leader.join();
        }
    }

    /// Lets the number and the task be freed by the work queue. Does not wait.
    pub fn abandon(self) {
        if let Some(leader) = self.0 {
            events::process_reap(leader.task().pid());
        }
    }
}
