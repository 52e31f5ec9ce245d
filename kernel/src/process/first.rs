//! The first program: where it comes from, and what its end means.
//!
//! It is the ancestor of all others, and when it ends they are killed. Its parent is nobody, so the kernel's own
//! `init` awaits and buries it; orphans are `init`'s as well.

use alloc::boxed::Box;
use alloc::string::String;
use alloc::sync::{Arc, Weak};
use alloc::vec::Vec;
use core::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, AtomicUsize, Ordering};
use core::time::Duration;

use linux_raw_sys::general as abi;
use orrery_core::cpuset::CpuSet;
use orrery_core::errno::Errno;
use orrery_core::sched::Policy;
use orrery_core::sched::cpu_time::Told;

use super::group::{Process, State};
use super::limits::Limits;
use super::thread::{Comm, Thread, TimerSlack, program_part, thread_of};
use super::tree::{self, InTree};
use super::wait::{self, Status};
use super::{current, exec, exit, signal};
use crate::arch::tsc;
use crate::fs::{self, Executable};
use crate::mm::space::Space;
use crate::sched::task::{TaskName, TaskSpec};
use crate::sched::{self, Task, tick, wait as sleep, wake};
use crate::sync::SpinLock;
use crate::task::{JoinHandle, Namespace, Nesting, birth, registry};
use crate::trace::record;
use crate::{options, println};

/// What to run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Command {
    /// The path in the bundle.
    pub path: Vec<u8>,
    /// What it finds as `argv`.
    pub arguments: Vec<Vec<u8>>,
    /// What it finds as `environ`.
    pub environment: Vec<Vec<u8>>,
}

/// Where programs are looked for by default, and what else they may expect.
const ENVIRONMENT: [&[u8]; 3] = [b"PATH=/usr/sbin:/usr/bin:/sbin:/bin", b"HOME=/", b"TERM=linux"];

impl Command {
    /// The command that the bundle names, else the one of the kernel's command line; `None` if neither
    /// does.
    pub fn find() -> Option<Self> {
        let fs::Instructions { arguments, environment } = fs::instructions();
        let environment =
            environment.unwrap_or_else(|| ENVIRONMENT.iter().map(|word| word.to_vec()).collect());
        if let Some(arguments) = arguments.filter(|words| !words.is_empty()) {
            return Some(Self { path: arguments[0].clone(), arguments, environment });
        }
        let options = options::get();
        let path = options.init?.as_bytes().to_vec();
        let words = options.init_arguments.split_ascii_whitespace();
        let arguments =
            [path.clone()].into_iter().chain(words.map(|word| word.as_bytes().to_vec())).collect();
        Some(Self { path, arguments, environment })
    }
}

/// What a first program that cannot be started ends with, as a shell's command does.
const NOT_FOUND: i32 = 127;
const NOT_EXECUTABLE: i32 = 126;

/// Runs the command as the first program, until it and all its descendants have gone.
///
/// # Errors
/// If there is no memory for it.
pub fn run(command: Command) -> Result<Status, Errno> {
    record::programs_exist();
    tick::start_sampling();
    let process = start(command)?;
    *FIRST.lock() = Some(Arc::downgrade(&process));
    process.exited.wait_until(|| process.is_zombie(&tree::lock()));
    let status = match process.family.get(&tree::lock()).state {
        State::Zombie(status) | State::Exiting(status) => status,
        State::Running => unreachable!("it is a zombie"),
    };
    let reaped = wait::take(&process, &mut tree::lock());
    reaped.bury();
    *FIRST.lock() = None;
    drop(process);
    kill_the_rest();
    Ok(status)
}

/// The first process.
static FIRST: SpinLock<Option<Weak<Process>>> = SpinLock::new("first process", None);

/// Whether a process is the first.
pub fn is_first(process: &Process) -> bool {
    FIRST.lock().as_ref().is_some_and(|first| core::ptr::eq(first.as_ptr(), process))
}

/// Ends the first program as if it had exited successfully, and so all others, the caller among them.
pub fn end_all() -> ! {
    let first = FIRST.lock().as_ref().and_then(Weak::upgrade);
    if let Some(first) = first {
        exit::begin_group_exit(&first, Status::exited(0));
    }
    exit::exit_group(Status::exited(0))
}

fn start(command: Command) -> Result<Arc<Process>, Errno> {
    let (files, fs) = fs::first_program()?;
    let space = Space::new()?;
    let spec = TaskSpec {
        name: TaskName::Short(*b"program\0\0\0\0\0\0\0\0\0"),
        policy: Policy::default(),
        allowed: CpuSet::ALL,
        parent: sched::current().pid(),
    };
    let body = Box::new(begin);
    *COMMAND.lock() = Some(command);
    let namespace = Namespace::root();
    let task =
        birth::make_with(spec, Nesting::Inherit, namespace, body, |stack_top, namespace| {
            let signals = signal::ProcessSignals::new();
            let process = Process::new(namespace.clone(), signals, Arc::new(Limits::default()));
            let thread = Thread {
                process: Arc::new(process),
                place: AtomicUsize::new(0),
                tid: AtomicU64::new(0),
                signals: signal::ThreadSignals::new(),
                space: SpinLock::new("thread's address space", Some(space)),
                files: SpinLock::new("thread's files", Some(files)),
                fs: SpinLock::new("thread's directory", Some(fs)),
                clear_child_tid: AtomicU64::new(0),
                robust_list: AtomicU64::new(0),
                comm: SpinLock::new("thread's name", Comm::new(b"program")),
                timer_slack: TimerSlack::default(),
                told_time: InTree::new(Told::default()),
                fork_restarts: AtomicU32::new(0),
                is_doomed: AtomicBool::new(false),
                has_begun_to_end: AtomicBool::new(false),
                set_child_tid: AtomicU64::new(0),
                vfork_done: SpinLock::new("vfork", None),
            };
            // SAFETY: the stack is the task's, and stays as long.
            Some(unsafe { program_part(Arc::new(thread), stack_top) })
        })?;
    let process = join_nobody(&task);
    wake::wake_new(&task);
    Ok(process)
}

fn join_nobody(task: &Arc<Task>) -> Arc<Process> {
    let thread = thread_of(task).expect("the task of a thread");
    let pid = task.pid();
    thread.tid.store(pid.into(), Ordering::Relaxed);
    let mut tree = tree::lock();
    let family = thread.process.family.get_mut(&mut tree);
    (family.pid, family.tgid) = (pid, pid);
    (family.group, family.session) = (pid, pid);
    family.exit_signal = abi::SIGCHLD as u8;
    family.add_thread(task);
    family.leader = Some(JoinHandle::of_new(task));
    thread.process.note_numbers(&tree);
    thread.process.clone()
}

/// What the first program's task is to run. Here rather than in its body, which never returns and would
/// keep it.
static COMMAND: SpinLock<Option<Command>> = SpinLock::new("first command", None);

/// The first program's task begins.
fn begin() -> i32 {
    let image = prepare();
    let why = match image {
        Ok(image) => match exec::become_program(image) {
            Ok(never) => match never {},
            Err(why) => why,
        },
        Err(why) => why,
    };
    let code = if why == Errno::ENOENT { NOT_FOUND } else { NOT_EXECUTABLE };
    exit::exit_group(Status::exited(code))
}

fn prepare() -> Result<exec::Image, Errno> {
    let command = COMMAND.lock().take();
    let Command { path, arguments, environment } = command.ok_or(Errno::ENOENT)?;
    Executable::open(&current().fs(), &path)
        .and_then(|file| exec::prepare(file, arguments, &environment))
        .inspect_err(|why| {
            println!("orrery: {}: cannot be run: {why}", String::from_utf8_lossy(&path));
        })
}

/// Kills the programs that the first has left, and waits until they have gone.
fn kill_the_rest() {
    const PAUSE: Duration = Duration::from_micros(200);
    loop {
        let mut is_any_left = false;
        for task in registry::tasks() {
            if let Some(thread) = thread_of(&task) {
                is_any_left = true;
                exit::begin_group_exit(&thread.process, Status::signalled(abi::SIGKILL));
            }
        }
        if !is_any_left {
            return;
        }
        registry::barrier();
        sleep::sleep_until(tsc::now() + tsc::from_us(PAUSE.as_micros() as u64));
    }
}
