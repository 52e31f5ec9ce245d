//! A signal becomes pending, and somebody looks at it.
//!
//! Everything here is done under the process tree's lock, since a signal may concern all threads of a
//! process, stop or continue it, or end it. Nothing here sleeps.

use alloc::sync::Arc;

use linux_raw_sys::general as abi;
use orrery_core::errno::Errno;
use orrery_core::signal::{
    Disposition, Effect, STOPPING, Signal, SignalInfo, SignalSet, UNBLOCKABLE,
};

use super::job;
use crate::mm::frames;
use crate::process::group::{Process, State};
use crate::process::thread::{self, Thread};
use crate::process::tree::{self, Tree};
use crate::process::wait::Status;
use crate::process::{current, exit};
use crate::sched::{self, Task};
use crate::trace::events;

/// Where a signal comes from, as the first process of a namespace sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Origin {
    /// From within its namespace: what it has no handler for it does not get.
    Inside,
    /// From the kernel, or a namespace above: SIGKILL and SIGSTOP reach it.
    Above,
}

/// To whom a signal goes.
#[derive(Clone, Copy)]
pub enum Target<'a> {
    /// To whichever thread does not block it.
    Process,
    /// To this one of the process's.
    Thread(&'a Thread, &'a Task),
}

/// Sends a signal from the kernel to a process.
pub fn send_to_process(process: &Process, info: SignalInfo) {
    let mut tree = tree::lock();
    // What the kernel sends is never refused.
    let _ = send(process, Target::Process, info, Origin::Above, &mut tree);
}

/// Sends a signal to the running thread for what it has just done, as if it had done so by `kill`: SIGPIPE for a
/// write into a pipe that nobody reads, say.
pub fn send_to_self(signal: Signal) {
    let thread = current();
    let process = &thread.process;
    let mut tree = tree::lock();
    let info = SignalInfo::user(signal, process.family.get(&tree).tgid, 0);
    let target = Target::Thread(thread, sched::current());
    let _ = send(process, target, info, Origin::Inside, &mut tree);
}

/// Sends a signal.
///
/// # Errors
/// `EAGAIN` if a real-time signal, not from `kill`, does not fit in the queue; `ESRCH` for a process that is still being
/// made.
pub fn send(
    process: &Process,
    target: Target<'_>,
    info: SignalInfo,
    origin: Origin,
    tree: &mut Tree,
) -> Result<(), Errno> {
    let signal = info.signal;
    let (pid, state) = {
        let family = process.family.get(tree);
        if !family.is_made() {
            return Err(Errno::ESRCH);
        }
        (family.pid, family.state)
    };
    events::signal_generate(pid, signal.number(), info.code);
    if state != State::Running {
        return Ok(());
    }
    if STOPPING.contains(signal) {
        discard(process, SignalSet::of(&[Signal::SIGCONT]), tree);
    } else if signal == Signal::SIGCONT {
        discard(process, STOPPING, tree);
        job::resume(process, tree);
    }
    let disposition = process.signals.action(signal).disposition(signal);
    if is_dropped(process, target, (signal, disposition), origin, tree) {
        return Ok(());
    }
    if signal == Signal::SIGKILL {
        exit::begin_group_exit_in(process, Status::signalled(abi::SIGKILL), tree);
        return Ok(());
    }
    let limit = process.limits.lock().soft(abi::RLIMIT_SIGPENDING);
    // What a program queues it must not take of the memory that is the kernel's own.
    let limit = if frames::is_scarce() { 0 } else { usize::try_from(limit).unwrap_or(usize::MAX) };
    let mut shared = process.signals.pending.lock();
    let taker = match target {
        Target::Thread(thread, task) => {
            thread.signals.pending.lock().add(info, limit)?;
            thread.signals.wants(signal).then_some(task)
        }
        Target::Process => {
            shared.add(info, limit)?;
            choose(process, signal, tree).map(|task| &**task)
        }
    };
    let Some(task) = taker else { return Ok(()) };
    thread::interrupt(task);
    drop(shared);
    let ends = disposition == Disposition::Default(Effect::Terminate)
        && thread::thread_of(task)
            .is_some_and(|thread| dies_at_once(process, thread, signal, tree));
    if ends {
        exit::begin_group_exit_in(process, Status::signalled(signal.number().into()), tree);
    }
    Ok(())
}

/// Whether a signal that ends the process does so before the thread that is to take it looks: that may be long, where
/// it waits for a `vfork` child. (Linux: `complete_signal`.)
#[cold]
fn dies_at_once(process: &Process, thread: &Thread, signal: Signal, tree: &Tree) -> bool {
    let is_taken_later = thread.signals.mask().contains(signal)
        || *thread.signals.is_stopped.get(tree)
        || process.family.get(tree).tgid == 1;
    !is_taken_later
}

/// Whether a signal need not even become pending: one that is ignored and not blocked. (Linux: `sig_ignored`.)
fn is_dropped(
    process: &Process,
    target: Target<'_>,
    (signal, disposition): (Signal, Disposition),
    origin: Origin,
    tree: &Tree,
) -> bool {
    let family = process.family.get(tree);
    let is_init = family.tgid == 1;
    if UNBLOCKABLE.contains(signal) {
        return is_init && origin == Origin::Inside;
    }
    let blocks = |thread: &Thread| thread.signals.mask().contains(signal);
    let is_blocked = match target {
        Target::Thread(thread, _) => blocks(thread),
        Target::Process => {
            family.threads.first().and_then(|task| thread::thread_of(task)).is_some_and(blocks)
        }
    };
    if is_blocked {
        return false;
    }
    match disposition {
        Disposition::Ignore | Disposition::Default(Effect::Ignore) => true,
        Disposition::Default(_) => is_init,
        Disposition::Handle(_) => false,
    }
}

/// The thread that is to look at a signal for the process: the leader, or else one that has nothing else to
/// look at, or else any that does not block it. If all do, whoever unblocks it finds it. Under the lock
/// of the process's pending signals.
fn choose<'a>(process: &'a Process, signal: Signal, tree: &'a Tree) -> Option<&'a Arc<Task>> {
    let threads = &process.family.get(tree).threads;
    let wants = |task: &&Arc<Task>| {
        thread::thread_of(task).is_some_and(|it| !it.is_doomed() && it.signals.wants(signal))
    };
    let mut others = threads.iter().filter(wants);
    let first = others.next()?;
    if !first.is_interrupted() {
        return Some(first);
    }
    others.find(|task| !task.is_interrupted()).or(Some(first))
}

/// Signals of the process that a thread was to take, and does not: others are to.
pub(super) fn retarget(process: &Process, signals: SignalSet, tree: &Tree) {
    let pending = process.signals.pending.lock();
    for signal in pending.set().intersection(signals).iter() {
        if let Some(task) = choose(process, signal, tree) {
            thread::interrupt(task);
        }
    }
}

/// Forgets pending signals of a process and of all its threads.
pub(super) fn discard(process: &Process, signals: SignalSet, tree: &Tree) {
    let mut pending = process.signals.pending.lock();
    pending.discard(signals);
    process.family.get(tree).for_each_thread(|_, thread| {
        thread.signals.pending.lock().discard(signals);
    });
}
