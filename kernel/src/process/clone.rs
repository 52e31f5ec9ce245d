//! `fork` and its kin: a new thread, or a new process, made of the running one.
//!
//! What is shared and what is copied is decided flag by flag (clone(2)). A copied address space costs the
//! same whatever it holds ([`Space::fork`]).

use alloc::boxed::Box;
use alloc::sync::Arc;
use core::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, AtomicUsize, Ordering};

use linux_raw_sys::general as abi;
use orrery_core::errno::Errno;
use orrery_core::sched::cpu_time::Told;
use orrery_core::sched::{Nice, Policy};

use super::group::Process;
use super::limits::INFINITY;
use super::signal::{Inheritance, SpaceUse};
use super::thread::{self, Thread, VforkDone, program_part};
use super::tree::{self, InTree};
use super::{attribute, current, signal};
use crate::arch::exception::Frame;
use crate::arch::irq;
use crate::arch::user::{self, WINDOW_END};
use crate::fs::{Files, FsContext, OpenFile, pidfd};
use crate::mm::frames;
use crate::mm::space::Space;
use crate::sched::task::{ProgramPart, TaskName, TaskSpec, label};
use crate::sched::{self, Task, balance, wake};
use crate::sync::SpinLock;
use crate::task::{JoinHandle, Namespace, Nesting, SpawnError, birth};
use crate::trace::events;

/// What clone3(2) is given, and the others in its terms.
#[derive(Clone, Copy, Debug, Default)]
pub struct Request {
    /// `CLONE_` flags.
    pub flags: u64,
    /// Where to put a pidfd.
    pub pidfd: u64,
    /// Where the child finds its number.
    pub child_tid: u64,
    /// Where the parent finds the child's number.
    pub parent_tid: u64,
    /// The signal that tells of the child's end; 0 for none.
    pub exit_signal: u64,
    /// The child's stack pointer; 0 for the parent's.
    pub stack_pointer: u64,
    /// The child's thread-local storage.
    pub tls: u64,
}

const fn flag(bit: u32) -> u64 {
    bit as u64
}

const VM: u64 = flag(abi::CLONE_VM);
const THREAD: u64 = flag(abi::CLONE_THREAD);
const SIGHAND: u64 = flag(abi::CLONE_SIGHAND);
const NEWPID: u64 = flag(abi::CLONE_NEWPID);
const VFORK: u64 = flag(abi::CLONE_VFORK);
const PIDFD: u64 = flag(abi::CLONE_PIDFD);
const PARENT: u64 = flag(abi::CLONE_PARENT);
const CLEAR_SIGHAND: u64 = abi::CLONE_CLEAR_SIGHAND;
const FS: u64 = flag(abi::CLONE_FS);
const FILES: u64 = flag(abi::CLONE_FILES);
const SETTLS: u64 = flag(abi::CLONE_SETTLS);
const PARENT_SETTID: u64 = flag(abi::CLONE_PARENT_SETTID);
const CHILD_SETTID: u64 = flag(abi::CLONE_CHILD_SETTID);
const CHILD_CLEARTID: u64 = flag(abi::CLONE_CHILD_CLEARTID);
/// Accepted, and without a meaning here: semaphore undo lists, I/O contexts, and what clone(2) ignores.
const WITHOUT_MEANING: u64 =
    flag(abi::CLONE_SYSVSEM) | flag(abi::CLONE_IO) | flag(abi::CLONE_DETACHED);
const SUPPORTED: u64 = VM
    | THREAD
    | SIGHAND
    | NEWPID
    | VFORK
    | PIDFD
    | PARENT
    | CLEAR_SIGHAND
    | FS
    | FILES
    | SETTLS
    | PARENT_SETTID
    | CHILD_SETTID
    | CHILD_CLEARTID
    | WITHOUT_MEANING;

impl Request {
    fn has(&self, flags: u64) -> bool {
        self.flags & flags == flags
    }

    /// What clone(2) lists under EINVAL.
    fn check(&self) -> Result<(), Errno> {
        let contradicts = self.flags & !SUPPORTED != 0
            || self.has(SIGHAND) && !self.has(VM)
            || self.has(THREAD) && !self.has(SIGHAND)
            || self.has(THREAD) && self.flags & (NEWPID | PIDFD) != 0
            || self.has(PARENT) && self.has(NEWPID)
            || self.has(SIGHAND) && self.has(CLEAR_SIGHAND)
            || self.has(PIDFD) && self.has(flag(abi::CLONE_DETACHED))
            || self.stack_pointer > WINDOW_END;
        if contradicts {
            return Err(Errno::EINVAL);
        }
        if self.has(SETTLS) && self.tls >= WINDOW_END {
            return Err(Errno::EPERM);
        }
        // The first of a namespace cannot make siblings: they would be outside of it.
        if self.has(PARENT) && current().process.family.get(&tree::lock()).tgid == 1 {
            return Err(Errno::EINVAL);
        }
        Ok(())
    }
}

impl From<SpawnError> for Errno {
    fn from(why: SpawnError) -> Self {
        match why {
            SpawnError::OutOfMemory | SpawnError::NamespaceEnded => Self::ENOMEM,
            SpawnError::PidsExhausted | SpawnError::NoCpu => Self::EAGAIN,
            SpawnError::NamespaceTooDeep => Self::ENOSPC,
        }
    }
}

/// Makes a thread or a process that goes on where the running thread is, with these registers but
/// for RAX, which is 0. Returns its number.
///
/// # Errors
/// `EINVAL` for flags that contradict each other or that the kernel does not have; `EAGAIN` for a limit;
/// `ENOMEM`; `EFAULT`, `EMFILE` where no pidfd can be given.
pub fn clone(request: &Request, frame: &Frame) -> Result<u64, Errno> {
    request.check()?;
    // A task takes of the kernel's own memory, for its stack and all that is known of it.
    if frames::is_scarce() {
        return Err(Errno::ENOMEM);
    }
    let parent = current();
    if !request.has(THREAD) {
        if must_restart(parent) {
            return Err(Errno::RESTART_ALWAYS);
        }
        check_process_limit(parent)?;
    } else {
        parent.process.family.get_mut(&mut tree::lock()).reserve_thread()?;
    }
    let space = parent.space();
    let space = if request.has(VM) { space } else { space.fork()? };
    let vfork = request.has(VFORK).then(|| Arc::new(VforkDone::default()));
    let task = match make_task(request, parent, frame, space, vfork.clone()) {
        Ok(task) => task,
        Err(why) => {
            give_up(request, parent);
            return Err(why);
        }
    };
    let thread = thread::thread_of(&task).expect("the task of a thread");
    let number = number_in(&parent.process.namespace, &task);
    let pidfd = match request.has(PIDFD) {
        true => give_pidfd(parent, &thread.process, request.pidfd).map(Some),
        false => Ok(None),
    };
    let wanted = if pidfd.is_ok() { Kinship::Child } else { Kinship::None };
    if join_family(request, parent, &task, wanted) == Kinship::None {
        wake::wake_new(&task);
        if let Some((fd, file)) = pidfd? {
            parent.files().withdraw(fd, &file);
        }
        return Err(Errno::RESTART_ALWAYS);
    }
    if request.has(PARENT_SETTID) {
        // As on Linux, a bad address is the caller's own loss.
        let _ = crate::mm::user::write(request.parent_tid, &number);
    }
    if vfork.is_none() {
        events::process_fork(task.pid(), request.flags as u32);
    }
    wake::wake_new(&task);
    drop(task);
    if let Some(vfork) = vfork {
        vfork.wait();
    }
    Ok(number.into())
}

/// No task could be made.
#[cold]
fn give_up(request: &Request, parent: &Thread) {
    if request.has(THREAD) {
        parent.process.family.get_mut(&mut tree::lock()).give_thread_back();
    }
}

/// How many times in a row a signal may make a fork begin anew.
const MAX_RESTARTS: u32 = 8;

/// Whether the caller has a signal to look at before it may have another child, which a signal to both would
/// miss. Where signals come faster than they are handled, the fork is made after a few attempts all
/// the same; not if the caller is to end.
fn must_restart(parent: &Thread) -> bool {
    if !sched::current().is_interrupted() {
        parent.fork_restarts.store(0, Ordering::Relaxed);
        return false;
    }
    let restarts = parent.fork_restarts.load(Ordering::Relaxed);
    parent.fork_restarts.store(restarts.saturating_add(1), Ordering::Relaxed);
    restarts < MAX_RESTARTS || parent.is_doomed()
}

/// A new task's number as seen from `namespace`; 0 if it is not seen there.
fn number_in(namespace: &Namespace, task: &Task) -> u32 {
    // In the root namespace that takes no lock.
    if namespace.level() == 0 { task.pid() } else { task.pid_in(namespace).unwrap_or(0) }
}

/// `RLIMIT_NPROC` holds for root as well: there is no other user.
fn check_process_limit(parent: &Thread) -> Result<(), Errno> {
    let limit = parent.process.limits.lock().soft(abi::RLIMIT_NPROC);
    let is_reached = limit != INFINITY && crate::task::registry::count() as u64 >= limit;
    if is_reached { Err(Errno::EAGAIN) } else { Ok(()) }
}

fn give_pidfd(
    parent: &Thread,
    process: &Arc<Process>,
    at: u64,
) -> Result<(u32, Arc<OpenFile>), Errno> {
    let (files, file) = (parent.files(), pidfd::file(process, 0)?);
    let fd = pidfd::insert(&files, file.clone())?;
    match crate::mm::user::write(at, &fd) {
        Ok(()) => Ok((fd, file)),
        Err(why) => {
            files.withdraw(fd, &file);
            Err(why)
        }
    }
}

fn make_task(
    request: &Request,
    parent: &Thread,
    frame: &Frame,
    space: Arc<Space>,
    vfork_done: Option<Arc<VforkDone>>,
) -> Result<Arc<Task>, Errno> {
    let me = sched::current();
    let comm = *parent.comm.lock();
    let spec = TaskSpec {
        name: TaskName::Short(*comm.bytes()),
        policy: me.policy_relaxed(),
        allowed: me.allowed(),
        parent: me.pid(),
    };
    let nesting = if request.has(NEWPID) { Nesting::New } else { Nesting::Inherit };
    let body = Box::new(begin);
    let files = share_files(request, parent)?;
    let fs = share_fs(request, parent);
    let task = birth::make_with(
        spec,
        nesting,
        &parent.process.namespace,
        body,
        |stack_top, namespace| {
            let process = if request.has(THREAD) {
                parent.process.clone()
            } else {
                let signals =
                    signal::ProcessSignals::for_child(&parent.process, handlers_for(request));
                let limits = parent.process.limits.lock().clone();
                let process = Arc::new(Process::new(namespace.clone(), signals, limits));
                let attributes = parent.process.attributes.load(Ordering::Relaxed);
                process.attributes.store(attributes & attribute::INHERITED, Ordering::Relaxed);
                let program = parent.process.program.lock().clone();
                *process.program.lock() = program;
                process
            };
            let thread = Arc::new(Thread {
                process,
                place: AtomicUsize::new(0),
                tid: AtomicU64::new(0),
                signals: signal::ThreadSignals::for_child(parent, space_use(request)),
                space: SpinLock::new("thread's address space", Some(space)),
                files: SpinLock::new("thread's files", Some(files)),
                fs: SpinLock::new("thread's directory", Some(fs)),
                clear_child_tid: AtomicU64::new(clear_child_tid(request)),
                robust_list: AtomicU64::new(0),
                comm: SpinLock::new("thread's name", comm),
                timer_slack: parent.timer_slack.of_child(),
                told_time: InTree::new(Told::default()),
                fork_restarts: AtomicU32::new(0),
                is_doomed: AtomicBool::new(false),
                has_begun_to_end: AtomicBool::new(false),
                vfork_done: SpinLock::new("vfork", vfork_done),
                set_child_tid: AtomicU64::new(if request.has(CHILD_SETTID) {
                    request.child_tid
                } else {
                    0
                }),
            });
            // SAFETY: the stack is the task's, and stays as long.
            let part = unsafe { program_part(thread, stack_top) };
            fill_context(&part, request, frame);
            Some(part)
        },
    )?;
    task.inherit(me);
    if me.has_label(label::RESET_ON_FORK) {
        reset_privileges(&task, me.policy());
    }
    if let Some(thread) = thread::thread_of(&task) {
        let tid = number_in(&thread.process.namespace, &task);
        thread.tid.store(tid.into(), Ordering::Relaxed);
    }
    Ok(task)
}

/// What a new task does not have of its maker, whose policy is `policy`, where that has asked for it: real time,
/// and a nice value below 0.
#[cold]
fn reset_privileges(task: &Task, policy: Policy) {
    task.label(label::RESET_ON_FORK, 0);
    if policy.rt_priority().is_some() {
        balance::set_policy(task, Policy::default());
    } else if task.nice() < Nice::default() {
        balance::set_nice(task, Nice::default());
    }
}

fn handlers_for(request: &Request) -> Inheritance {
    if request.has(SIGHAND) {
        Inheritance::Shared
    } else if request.has(CLEAR_SIGHAND) {
        Inheritance::Cleared
    } else {
        Inheritance::Copied
    }
}

fn space_use(request: &Request) -> SpaceUse {
    let is_shared = request.has(VM) && !request.has(VFORK);
    if is_shared { SpaceUse::AtTheSameTime } else { SpaceUse::OneAtATime }
}

fn clear_child_tid(request: &Request) -> u64 {
    if request.has(CHILD_CLEARTID) { request.child_tid } else { 0 }
}

fn share_files(request: &Request, parent: &Thread) -> Result<Arc<Files>, Errno> {
    let files = parent.files();
    if request.has(FILES) { Ok(files) } else { files.copy() }
}

fn share_fs(request: &Request, parent: &Thread) -> Arc<FsContext> {
    let fs = parent.fs();
    if request.has(FS) { fs } else { fs.copy() }
}

/// Registers of the child: the parent's, with what the request says.
fn fill_context(part: &ProgramPart, request: &Request, frame: &Frame) {
    let mine = thread::context();
    let fs_base = if request.has(SETTLS) { request.tls } else { mine.fs_base() };
    part.context.set_bases(fs_base, mine.gs_base());
    part.context.fpu.copy_from(&mine.fpu);
    // SAFETY: the child does not run yet, and nobody else knows its frame.
    let child = unsafe { part.context.frame() };
    *child = *frame;
    child.rax = 0;
    if request.stack_pointer != 0 {
        child.rsp = request.stack_pointer;
    }
}

/// Whether a new process has a parent. One that has none goes before it has begun, and nobody hears of it.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Kinship {
    Child,
    None,
}

/// Makes a new thread known to its process, and a new process to its parent. Returns whether it was.
///
/// A process is not made while its maker has a signal to look at: what is sent to all processes of a group, under
/// the same lock, reaches those that it must reach before or after, and misses no child between.
fn join_family(
    request: &Request,
    parent: &Thread,
    task: &Arc<Task>,
    mut kinship: Kinship,
) -> Kinship {
    let thread = thread::thread_of(task).expect("the task of a thread");
    let process = &thread.process;
    let mut tree = tree::lock();
    if request.has(THREAD) {
        let family = process.family.get_mut(&mut tree);
        family.add_reserved_thread(task);
        // Whoever has doomed the others by now, at the end of the process or for an `execve`, has not seen this one.
        // The leader is spared where another thread's program goes on in it.
        let is_ending = parent.is_doomed() || process.handover.lock().is_some();
        if is_ending {
            thread.is_doomed.store(true, Ordering::SeqCst);
        }
        signal::on_new_thread(process, task);
        drop(tree);
        JoinHandle::detached(task);
    } else {
        tree.count_birth();
        let (group, session, is_run_time_watched, last_broadcast) = {
            let family = parent.process.family.get(&tree);
            (family.group, family.session, family.is_run_time_watched, family.last_broadcast)
        };
        // A sibling's end is told to the common parent, which did not choose the request's signal.
        let (exit_signal, execs_of_maker, maker) = if request.has(PARENT) {
            let family = parent.process.family.get(&tree);
            (family.exit_signal, family.execs_of_maker, family.maker)
        } else {
            let execs = parent.process.execs.load(Ordering::Relaxed);
            (request.exit_signal as u8, execs, sched::current().pid())
        };
        let real_parent = if request.has(PARENT) {
            parent.process.parent(&tree)
        } else {
            Some(parent.process.clone())
        };
        if must_restart(parent) {
            kinship = Kinship::None;
        }
        let family = process.family.get_mut(&mut tree);
        family.pid = task.pid();
        family.tgid = thread.tid();
        (family.exit_signal, family.execs_of_maker) = (exit_signal, execs_of_maker);
        (family.maker, family.last_broadcast) = (maker, last_broadcast);
        // It may have its maker's limit.
        family.is_run_time_watched = is_run_time_watched;
        family.add_thread(task);
        family.leader = Some(JoinHandle::of_new(task));
        if kinship == Kinship::None {
            thread.is_doomed.store(true, Ordering::SeqCst);
        } else {
            (family.group, family.session) = (group, session);
            if let Some(real_parent) = real_parent {
                family.parent = Some(Arc::downgrade(&real_parent));
                real_parent.family.get_mut(&mut tree).children.insert(task.pid(), process.clone());
            }
        }
        process.note_numbers(&tree);
    }
    if thread.is_doomed() {
        thread::interrupt(task);
    }
    kinship
}

/// Where a new thread begins, on its own kernel stack and in its own address space.
fn begin() -> i32 {
    let thread = current();
    let at = thread.set_child_tid.load(Ordering::Relaxed);
    if at != 0 {
        // A bad address is the program's own loss, as on Linux.
        let _ = crate::mm::user::write(at, &thread.tid());
    }
    enter()
}

/// Goes to ring 3 with the registers in the running thread's frame.
pub(super) fn enter() -> ! {
    let context = thread::context();
    irq::disable();
    // SAFETY: this task's own frame, to which it has no other reference.
    super::return_to_user(unsafe { context.frame() });
    // SAFETY: the task is the context's; frames are made by `initial_frame`, or copied from a program that
    // is in the kernel; interrupts are off.
    unsafe { user::leave(context) }
}
