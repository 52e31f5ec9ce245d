//! Signals from one program to another: kill(2) and its kin.
//!
//! All programs are root's: what a program can see it may send signals to, but for the kernel's own tasks.

use alloc::sync::Arc;

use orrery_core::errno::Errno;
use orrery_core::signal::{Signal, SignalInfo, info};

use super::send::{self, Origin, Target};
use crate::process::group::Process;
use crate::process::thread::{self, Thread};
use crate::process::tree::{self, Tree};
use crate::process::{current, thread_of};
use crate::sched::Task;
use crate::sched::mutex::Mutex;

/// To whom a program sends a signal. Numbers are those of its own namespace.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Receiver {
    /// The process of the task with this number.
    Process(u32),
    /// Each process of the group with this number.
    Group(u32),
    /// Each process of the sender's own group.
    OwnGroup,
    /// Each process but the first of the namespace and the sender's own.
    Everybody,
}

/// `kill(2)`: sends a signal, or only looks whether it could be sent.
///
/// # Errors
/// `ESRCH` if there is nobody; `EPERM` for tasks of the kernel.
pub fn kill(receiver: Receiver, signal: Option<Signal>) -> Result<(), Errno> {
    let namespace = &current().process.namespace;
    match receiver {
        Receiver::Process(number) => {
            let task = namespace.find(number).ok_or(Errno::ESRCH)?;
            let process = process_of(&task)?;
            let mut tree = tree::lock();
            send_from_user(process, signal, &mut tree)
        }
        Receiver::Group(number) => {
            // Groups are known by their number in the root namespace.
            let group = match namespace.level() {
                0 => number,
                _ => namespace.find(number).ok_or(Errno::ESRCH)?.pid(),
            };
            send_to_each(signal, |_, process, tree| process.family.get(tree).group == group)
        }
        Receiver::OwnGroup => {
            let group = current().process.family.get(&tree::lock()).group;
            send_to_each(signal, |_, process, tree| process.family.get(tree).group == group)
        }
        Receiver::Everybody => send_to_each(signal, |number, process, _| {
            number != 1 && !core::ptr::eq(process, &*current().process)
        }),
    }
}

fn process_of(task: &Task) -> Result<&Process, Errno> {
    thread_of(task).map(|thread| &*thread.process).ok_or(Errno::EPERM)
}

/// Number of the last signal to many. One at a time is sent, so that each process need remember one.
static LAST_BROADCAST: Mutex<u64> = Mutex::new(0);

/// Rounds in which the tree's lock is given up between processes.
const PATIENT_ROUNDS: u32 = 2;

/// Sends a signal to every process in the sender's namespace that is wanted, and to none twice.
///
/// None escapes by being made meanwhile. A child whose maker has had the signal need not get it, nor
/// would it be made before the maker has looked at it; one whose maker had not had it yet is met in this
/// round, or in the next, which there is where any was made. A family that grows faster than it is signalled is met
/// under one hold of the lock in the end.
fn send_to_each(
    signal: Option<Signal>,
    is_wanted: impl Fn(u32, &Process, &Tree) -> bool,
) -> Result<(), Errno> {
    let mut last = LAST_BROADCAST.lock();
    *last += 1;
    let mut broadcast = Broadcast { number: *last, signal, sent: 0, result: Err(Errno::ESRCH) };
    for _ in 0..PATIENT_ROUNDS {
        let (births, sent) = (tree::lock().births(), broadcast.sent);
        for (number, task) in current().process.namespace.tasks_from(0) {
            broadcast.reach(number, &task, &is_wanted, &mut tree::lock());
        }
        if broadcast.sent == sent || tree::lock().births() == births {
            return broadcast.result;
        }
    }
    let mut tree = tree::lock();
    for (number, task) in current().process.namespace.tasks_from(0) {
        broadcast.reach(number, &task, &is_wanted, &mut tree);
    }
    broadcast.result
}

/// A signal to many.
struct Broadcast {
    number: u64,
    signal: Option<Signal>,
    /// To how many it has been sent.
    sent: u64,
    /// What the first of them said.
    result: Result<(), Errno>,
}

impl Broadcast {
    /// Sends it to the process that this task leads, if that is wanted and has not had it.
    fn reach(
        &mut self,
        number: u32,
        task: &Task,
        is_wanted: &impl Fn(u32, &Process, &Tree) -> bool,
        tree: &mut Tree,
    ) {
        let Some(thread) = thread_of(task) else { return };
        let process = &*thread.process;
        let family = process.family.get(tree);
        let is_due = family.pid == task.pid() && family.last_broadcast != self.number;
        if !is_due || !is_wanted(number, process, tree) {
            return;
        }
        process.family.get_mut(tree).last_broadcast = self.number;
        let sent = send_from_user(process, self.signal, tree);
        if self.result.is_err() {
            self.result = sent;
        }
        self.sent += 1;
    }
}

fn send_from_user(process: &Process, signal: Option<Signal>, tree: &mut Tree) -> Result<(), Errno> {
    let Some(signal) = signal else { return Ok(()) };
    let info = SignalInfo::user(signal, sender_number(process, tree), 0);
    send::send(process, Target::Process, info, origin(process), tree)
}

/// The sender's number, as the receiver sees it.
fn sender_number(receiver: &Process, tree: &Tree) -> u32 {
    current().process.number_in(&receiver.namespace, tree)
}

/// A sender outside of the receiver's namespace is above it, since it sees the receiver.
fn origin(receiver: &Process) -> Origin {
    if receiver.namespace == current().process.namespace { Origin::Inside } else { Origin::Above }
}

/// `tkill(2)`, `tgkill(2)`: sends a signal to the thread with this number, of the process with this number
/// if one is given.
///
/// # Errors
/// `ESRCH` if there is no such thread; `EPERM` for tasks of the kernel; `EAGAIN` for a full queue.
pub fn kill_thread(tgid: Option<u32>, tid: u32, signal: Option<Signal>) -> Result<(), Errno> {
    with_thread(tgid, tid, |thread, task, tree| {
        let Some(signal) = signal else { return Ok(()) };
        let process = &*thread.process;
        let info = SignalInfo::thread(signal, sender_number(process, tree), 0);
        send::send(process, Target::Thread(thread, task), info, origin(process), tree)
    })
}

/// `rt_tgsigqueueinfo(2)`: as [`kill_thread`], with what the sender wants it to come with.
///
/// # Errors
/// As [`kill_thread`]; `EPERM` if `info` says that the kernel, or `kill`, sends it, to another than the sender
/// itself.
pub fn queue_to_thread(tgid: u32, tid: u32, info: Result<SignalInfo, i32>) -> Result<(), Errno> {
    check_code(tid, &info)?;
    with_thread(Some(tgid), tid, |thread, task, tree| {
        let Ok(info) = info else { return Ok(()) };
        let process = &*thread.process;
        send::send(process, Target::Thread(thread, task), info, origin(process), tree)
    })
}

/// `rt_sigqueueinfo(2)`: as [`kill`] to one process, with what the sender wants it to come with.
/// `info` is the signal and what comes with it, or just the code, for no signal.
///
/// # Errors
/// As [`queue_to_thread`].
pub fn queue_to_process(number: u32, info: Result<SignalInfo, i32>) -> Result<(), Errno> {
    check_code(number, &info)?;
    let task = current().process.namespace.find(number).ok_or(Errno::ESRCH)?;
    queue(process_of(&task)?, info)
}

/// `pidfd_send_signal(2)`: to a process, wherever it is.
///
/// # Errors
/// `ESRCH` if it is no more, `EINVAL` if the sender does not see it; as [`queue_to_process`].
pub fn send_by_handle(
    process: &Arc<Process>,
    signal: Option<Signal>,
    info: Option<Result<SignalInfo, i32>>,
) -> Result<(), Errno> {
    let number = {
        let mut tree = tree::lock();
        let has_ended = process.family.get(&tree).leader.is_none();
        let number = process.number_in(&current().process.namespace, &tree);
        if has_ended {
            return Err(Errno::ESRCH);
        }
        if number == 0 {
            return Err(Errno::EINVAL);
        }
        if info.is_none() {
            return send_from_user(process, signal, &mut tree);
        }
        number
    };
    let Some(info) = info else { return Ok(()) };
    check_code(number, &info)?;
    queue(process, info)
}

fn queue(process: &Process, info: Result<SignalInfo, i32>) -> Result<(), Errno> {
    let Ok(info) = info else { return Ok(()) };
    let mut tree = tree::lock();
    send::send(process, Target::Process, info, origin(process), &mut tree)
}

/// Nobody but the kernel sends what the kernel sends, except a thread to itself.
fn check_code(number: u32, info: &Result<SignalInfo, i32>) -> Result<(), Errno> {
    let code = match info {
        Ok(info) => info.code,
        Err(code) => *code,
    };
    let is_own = number == current().tid();
    if (code >= 0 || code == info::code::TKILL) && !is_own {
        return Err(Errno::EPERM);
    }
    Ok(())
}

fn with_thread<T>(
    tgid: Option<u32>,
    tid: u32,
    act: impl FnOnce(&Thread, &Task, &mut Tree) -> Result<T, Errno>,
) -> Result<T, Errno> {
    let namespace = &current().process.namespace;
    let task = namespace.find(tid).ok_or(Errno::ESRCH)?;
    let thread = thread::thread_of(&task).ok_or(Errno::EPERM)?;
    let mut tree = tree::lock();
    if tgid.is_some_and(|tgid| thread.process.number_in(namespace, &tree) != tgid) {
        return Err(Errno::ESRCH);
    }
    act(thread, &task, &mut tree)
}
