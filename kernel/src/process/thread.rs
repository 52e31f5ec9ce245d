//! The thread: what a program's task has besides what the scheduler knows of it.

use alloc::sync::Arc;
use core::any::Any;
use core::ptr::{self, NonNull};
use core::sync::atomic::{AtomicBool, AtomicPtr, AtomicU32, AtomicU64, AtomicUsize, Ordering};

use orrery_core::sched::cpu_time::Told;

use super::group::Process;
use super::signal;
use super::tree::{self, InTree};
use crate::arch::exception::Frame;
use crate::arch::irq::IrqOff;
use crate::arch::user::UserContext;
use crate::fs::{Files, FsContext};
use crate::mm::space::{self, Space};
use crate::sched::task::{ProgramPart, interruption};
use crate::sched::wait::WaitQueue;
use crate::sched::{Task, current, wake};
use crate::sync::SpinLock;

/// Bytes of a thread's name, the NUL included (`TASK_COMM_LEN`).
pub const COMM_BYTES: usize = 16;

/// How late a thread's timers may be, in nanoseconds (`PR_SET_TIMERSLACK`). They never make use of it.
pub struct TimerSlack {
    now: AtomicU64,
    /// As the thread's maker had it.
    first: u64,
}

impl Default for TimerSlack {
    /// Linux's of the first process.
    fn default() -> Self {
        Self::new(50_000)
    }
}

impl TimerSlack {
    fn new(nanos: u64) -> Self {
        Self { now: AtomicU64::new(nanos), first: nanos }
    }

    /// That of a new thread which one with this makes.
    pub fn of_child(&self) -> Self {
        Self::new(self.get())
    }

    /// What it is now.
    pub fn get(&self) -> u64 {
        self.now.load(Ordering::Relaxed)
    }

    /// Changes it, or makes it what it was at first.
    pub fn set(&self, nanos: Option<u64>) {
        self.now.store(nanos.unwrap_or(self.first), Ordering::Relaxed);
    }
}

/// A thread's name.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Comm([u8; COMM_BYTES]);

impl Comm {
    /// The name that `bytes` begins with: up to a NUL, or as much as there is room for.
    pub fn new(bytes: &[u8]) -> Self {
        let mut name = [0; COMM_BYTES];
        let end = bytes.iter().position(|&byte| byte == 0).unwrap_or(bytes.len());
        let len = end.min(COMM_BYTES - 1);
        name[..len].copy_from_slice(&bytes[..len]);
        Self(name)
    }

    /// As a C string with zeros behind.
    pub fn bytes(&self) -> &[u8; COMM_BYTES] {
        &self.0
    }

    /// Without the zeros; what is not UTF-8 ends it.
    pub fn as_str(&self) -> &str {
        let end = self.0.iter().position(|&byte| byte == 0).unwrap_or(COMM_BYTES);
        let bytes = &self.0[..end];
        match core::str::from_utf8(bytes) {
            Ok(name) => name,
            Err(error) => core::str::from_utf8(&bytes[..error.valid_up_to()]).unwrap_or("?"),
        }
    }
}

/// Whom to tell that a `vfork` child has left its parent's address space.
#[derive(Default)]
pub struct VforkDone {
    is_done: AtomicBool,
    waiters: WaitQueue,
}

impl VforkDone {
    /// Waits until it has, or the waiting thread [must leave](Thread::must_leave).
    pub fn wait(&self) {
        self.waiters.wait_until(|| {
            self.is_done.load(Ordering::Acquire)
                // Whoever must leave is told so by an interruption.
                || current().is_interrupted() && super::current().must_leave()
        });
    }

    /// It has.
    pub fn tell(&self) {
        self.is_done.store(true, Ordering::Release);
        self.waiters.wake_all();
    }
}

/// A thread.
pub struct Thread {
    /// The process that it is of.
    pub process: Arc<Process>,
    /// Its place in the list of the process's threads. Guarded by the tree's lock.
    pub place: AtomicUsize,
    /// Its number in the process's namespace.
    pub tid: AtomicU64,
    /// Signals sent to it, its mask, its alternate stack.
    pub signals: signal::ThreadSignals,
    /// Its address space; none once it has left it.
    pub space: SpinLock<Option<Arc<Space>>>,
    /// Its open files; none once it exits.
    pub files: SpinLock<Option<Arc<Files>>>,
    /// Its root, working directory and umask; none once it exits.
    pub fs: SpinLock<Option<Arc<FsContext>>>,
    /// Where to write a zero, and wake a futex, when it exits (`CLONE_CHILD_CLEARTID`); 0 for nowhere.
    pub clear_child_tid: AtomicU64,
    /// The head of its list of robust futexes; 0 for none.
    pub robust_list: AtomicU64,
    /// Its name.
    pub comm: SpinLock<Comm>,
    /// How late its timers may be.
    pub timer_slack: TimerSlack,
    /// What has been told of its run time.
    pub told_time: InTree<Told>,
    /// How many times in a row its fork was made to begin anew; used by itself.
    pub fork_restarts: AtomicU32,
    /// Set when it must go before it returns to ring 3.
    pub is_doomed: AtomicBool,
    /// Whether it has begun to end, so that its children are another thread's.
    pub has_begun_to_end: AtomicBool,
    /// Where it writes its number when it begins (`CLONE_CHILD_SETTID`); 0 for nowhere.
    pub set_child_tid: AtomicU64,
    /// Where the parent waits that made it by `vfork`.
    pub vfork_done: SpinLock<Option<Arc<VforkDone>>>,
}

impl Thread {
    /// Whether it must go before it returns to ring 3.
    pub fn is_doomed(&self) -> bool {
        self.is_doomed.load(Ordering::SeqCst)
    }

    /// Whether it must leave whatever it waits for: to end, or as the leader to go on with a program that another
    /// thread has executed.
    pub fn must_leave(&self) -> bool {
        self.is_doomed() || self.process.handover.lock().is_some()
    }

    /// Its number in its own namespace.
    pub fn tid(&self) -> u32 {
        self.tid.load(Ordering::Relaxed) as u32
    }

    /// The address space of the running thread.
    ///
    /// # Panics
    /// Once it exits.
    pub fn space(&self) -> Arc<Space> {
        self.space.lock().clone().expect("a thread that runs has an address space")
    }

    /// [`Self::space`] without taking a reference, for paths on which that would cost too much.
    ///
    /// # Safety
    /// The caller is the thread itself and uses it only until it replaces its address space.
    ///
    /// # Panics
    /// Once it exits.
    #[inline(always)]
    pub unsafe fn space_unlocked(&self) -> &Space {
        let part = current().program().expect("a thread's task is a program's");
        // SAFETY: `replace_space` keeps what the pointer names alive, in `space`.
        unsafe { part.space.load(Ordering::Relaxed).as_ref() }
            .expect("a thread that runs has an address space")
    }

    /// The open files of the running thread, without a reference of their own.
    ///
    /// # Safety
    /// The caller is the thread itself and uses them only until it replaces them: no other ever does.
    ///
    /// # Panics
    /// Once it exits.
    #[inline(always)]
    pub unsafe fn files_unlocked(&self) -> &Arc<Files> {
        // SAFETY: the thread alone changes it, and does not now (caller); others only read.
        unsafe { &*self.files.data_ptr() }.as_ref().expect("a thread that runs has files")
    }

    /// The open files of the running thread.
    ///
    /// # Panics
    /// Once it exits.
    pub fn files(&self) -> Arc<Files> {
        self.files.lock().clone().expect("a thread that runs has files")
    }

    /// Root, working directory and umask of the running thread.
    ///
    /// # Panics
    /// Once it exits.
    pub fn fs(&self) -> Arc<FsContext> {
        self.fs.lock().clone().expect("a thread that runs has a working directory")
    }

    /// Gives the running thread, which this is, another address space, or none, and returns the old one.
    pub fn replace_space(&self, new: Option<Arc<Space>>) -> Option<Arc<Space>> {
        let mut held = self.space.lock();
        let part = current().program().expect("a thread's task is a program's");
        let irq = IrqOff::new();
        part.space.store(pointer(new.as_ref()), Ordering::Release);
        if let Some(new) = &new {
            space::switch_to(&irq, new);
        }
        drop(irq);
        if let Some(old) = &*held {
            let most = &self.process.past_resident_pages;
            most.fetch_max(old.max_resident_pages(), Ordering::Relaxed);
        }
        core::mem::replace(&mut *held, new)
    }

    /// The program's registers.
    ///
    /// # Safety
    /// The caller is the thread itself, in a system call or an exception, and has no other reference to
    /// them.
    #[allow(clippy::mut_from_ref)]
    pub unsafe fn frame(&self) -> &mut Frame {
        // SAFETY: by contract.
        unsafe { context().frame() }
    }
}

/// What ring 3 has in the CPU, of the running thread.
///
/// # Panics
/// For the kernel's own tasks.
pub fn context() -> &'static UserContext {
    &current().program().expect("a program's task").context
}

/// The running thread had a page fault that was corrected.
#[inline(always)]
pub(super) fn count_fault() {
    let faults = &current().program().expect("a program's task").faults;
    faults.store(faults.load(Ordering::Relaxed) + 1, Ordering::Relaxed);
}

fn pointer(space: Option<&Arc<Space>>) -> *mut Space {
    space.map_or(ptr::null_mut(), |space| Arc::as_ptr(space).cast_mut())
}

/// What a task needs to be the thread's, with the kernel stack that ends at `stack_top`.
///
/// # Safety
/// As [`UserContext::new`].
pub(super) unsafe fn program_part(thread: Arc<Thread>, stack_top: u64) -> ProgramPart {
    let space = AtomicPtr::new(pointer(thread.space.lock().as_ref()));
    let thread_at = NonNull::from(&*thread).cast();
    let thread: Arc<dyn Any + Send + Sync> = thread;
    // SAFETY: by contract.
    let context = unsafe { UserContext::new(stack_top) };
    ProgramPart {
        context,
        space,
        faults: AtomicU64::new(0),
        user_samples: AtomicU64::new(0),
        system_samples: AtomicU64::new(0),
        has_run_timer: AtomicBool::new(false),
        thread,
        thread_at,
    }
}

/// The thread of a task; none for the kernel's own.
#[inline(always)]
pub fn thread_of(task: &Task) -> Option<&Thread> {
    let part = task.program()?;
    // SAFETY: `program_part`, which alone makes them, puts a `Thread` there.
    Some(unsafe { part.thread_at.cast().as_ref() })
}

/// Makes a thread look at its signals, and whether it must go, before it sleeps interruptibly or returns to
/// ring 3.
pub fn interrupt(task: &Task) {
    task.interruptions.fetch_or(interruption::SIGNAL, Ordering::SeqCst);
    if !wake::interrupt(task) {
        wake::kick_if_running(task);
    }
}

/// Makes a thread that [must leave](Thread::must_leave) look at that, however it sleeps.
pub(super) fn call_away(task: &Task) {
    interrupt(task);
    // Who waits for a `vfork` child does so uninterruptibly.
    wake::wake(task);
}

/// Dooms every thread of a process but those that `spare` names. Under the tree's lock.
pub(super) fn doom(process: &Process, tree: &tree::Tree, spare: impl Fn(&Task) -> bool) {
    process.family.get(tree).for_each_thread(|task, thread| {
        if !spare(task) {
            thread.is_doomed.store(true, Ordering::SeqCst);
            call_away(task);
        }
    });
}
