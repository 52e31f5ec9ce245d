//! Processes stop and go on.
//!
//! A stop signal asks all threads of a process to stop; each does on its way to ring 3. When the last
//! has, the process has stopped, and its parent is told. SIGCONT lets them go on whether or not it is blocked or
//! handled; whatever ends the process does, too.
//!
//! All of it is guarded by the process tree's lock, but for the one question that a thread asks on its way
//! to ring 3 and while it is stopped.

use core::sync::atomic::{AtomicBool, Ordering};

use orrery_core::signal::{Signal, SignalInfo};

use super::family;
use crate::process::group::{Process, State as Life};
use crate::process::thread::{self, Thread};
use crate::process::tree::{self, InTree, Tree};
use crate::sched::task::{Sleep, interruption};
use crate::sched::wait::{Sharing, WaitMode, WaitQueue};
use crate::sched::{self, Task};
use crate::trace::events;

/// What job control has done to a process that its parent was not told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum JobReport {
    /// Stopped by this signal.
    Stopped(u32),
    /// Goes on.
    Continued,
}

/// Where a process is between running and stopped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Running,
    /// Its threads are asked to stop, by this signal.
    Stopping(Signal),
    /// All have.
    Stopped,
}

struct Job {
    state: State,
    report: Option<JobReport>,
}

/// Job control of one process.
pub(super) struct Control {
    job: InTree<Job>,
    /// Whether the state is another than `Running`.
    is_asked: AtomicBool,
    resumed: WaitQueue,
}

impl Control {
    pub(super) const fn new() -> Self {
        Self {
            job: InTree::new(Job { state: State::Running, report: None }),
            is_asked: AtomicBool::new(false),
            resumed: WaitQueue::new(),
        }
    }

    /// Whether the threads are to stop.
    #[inline]
    pub(super) fn is_asked(&self) -> bool {
        self.is_asked.load(Ordering::SeqCst)
    }
}

/// Asks all threads of the process to stop, for a signal that was taken under the same hold of the lock.
pub(super) fn stop(process: &Process, signal: Signal, tree: &mut Tree) {
    if process.family.get(tree).state != Life::Running {
        return;
    }
    let control = &process.signals.job;
    let job = control.job.get_mut(tree);
    if job.state != State::Running {
        return;
    }
    job.state = State::Stopping(signal);
    control.is_asked.store(true, Ordering::SeqCst);
    process.family.get(tree).for_each_thread(|task, _| thread::interrupt(task));
}

/// Lets a process go on.
pub(super) fn resume(process: &Process, tree: &mut Tree) {
    let control = &process.signals.job;
    let job = control.job.get_mut(tree);
    let before = core::mem::replace(&mut job.state, State::Running);
    if before == State::Running {
        return;
    }
    let was_stopped = before == State::Stopped;
    job.report = was_stopped.then_some(JobReport::Continued);
    control.is_asked.store(false, Ordering::SeqCst);
    control.resumed.wake_all();
    if was_stopped {
        events::job_continue(process.family.get(tree).pid);
        family::tell_parent_of_job(process, JobReport::Continued, tree);
    }
}

/// The running thread stops, as it was asked to, until the process goes on or ends.
pub(super) fn stop_here(thread: &Thread) {
    let process = &thread.process;
    let control = &process.signals.job;
    {
        let mut tree = tree::lock();
        if !control.is_asked() {
            return;
        }
        *thread.signals.is_stopped.get_mut(&mut tree) = true;
        settle(process, &mut tree);
    }
    let task = sched::current();
    let mode =
        WaitMode { sleep: Sleep::Interruptible, sharing: Sharing::Shared, deadline_ticks: None };
    let goes_on = || !control.is_asked() || thread.must_leave() || task.stop_requested();
    while control.resumed.wait(mode, goes_on).is_err() && !goes_on() {
        // A signal that is for later: whoever goes on looks at all there are.
        task.interruptions.fetch_and(!interruption::SIGNAL, Ordering::SeqCst);
    }
    *thread.signals.is_stopped.get_mut(&mut tree::lock()) = false;
    task.interruptions.fetch_or(interruption::SIGNAL, Ordering::SeqCst);
}

/// If all threads have stopped, the process has.
fn settle(process: &Process, tree: &mut Tree) {
    if process.family.get(tree).state != Life::Running {
        return;
    }
    let mut all = true;
    process.family.get(tree).for_each_thread(|_, thread| {
        let is_gone = thread.signals.is_gone.load(Ordering::Relaxed) || thread.is_doomed();
        all &= is_gone || *thread.signals.is_stopped.get(tree);
    });
    let job = process.signals.job.job.get_mut(tree);
    let State::Stopping(signal) = job.state else { return };
    if !all {
        return;
    }
    job.state = State::Stopped;
    let report = JobReport::Stopped(signal.number().into());
    job.report = Some(report);
    events::job_stop(process.family.get(tree).pid, signal.number());
    family::tell_parent_of_job(process, report, tree);
}

/// A thread has gone, whose stop nobody need wait for.
pub(super) fn on_thread_gone(process: &Process, tree: &mut Tree) {
    let any_left = process
        .family
        .get(tree)
        .threads
        .iter()
        .filter_map(|task| thread::thread_of(task))
        .any(|thread| !thread.signals.is_gone.load(Ordering::Relaxed));
    if any_left {
        settle(process, tree);
    }
}

/// A thread has come into a process: if that is to stop, the thread is, too. Under the tree's lock.
pub fn on_new_thread(process: &Process, task: &Task) {
    if process.signals.job.is_asked() {
        thread::interrupt(task);
    }
}

/// Whether a process has stopped.
pub fn is_stopped(process: &Process, tree: &Tree) -> bool {
    process.signals.job.job.get(tree).state == State::Stopped
}

/// What the parent of a process has not been told by a wait.
pub fn job_report(child: &Process, tree: &Tree) -> Option<JobReport> {
    child.signals.job.job.get(tree).report
}

/// It was told.
pub fn take_job_report(child: &Process, tree: &mut Tree) {
    child.signals.job.job.get_mut(tree).report = None;
}

/// Takes a stop signal that the running thread has found pending, unless something has forgotten it
/// meanwhile, and stops the process.
pub(super) fn take_stop(thread: &Thread, signal: Signal) -> Option<SignalInfo> {
    let process = &thread.process;
    let mut tree = tree::lock();
    let info = {
        let mut shared = process.signals.pending.lock();
        let only = orrery_core::signal::SignalSet::of(&[signal]);
        let own = thread.signals.pending.lock().take(only);
        own.or_else(|| shared.take(only))?
    };
    let is_init = process.family.get(&tree).tgid == 1;
    let is_meant =
        signal == Signal::SIGSTOP || !is_init && !super::family::is_orphaned_group(process, &tree);
    if is_meant {
        stop(process, signal, &mut tree);
    }
    Some(info)
}
