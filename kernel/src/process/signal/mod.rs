//! Signals: who gets them, and what they do.
//!
//! - this file: what a process and a thread have for their signals; what is inherited
//! - [`send`]: a signal becomes pending, and somebody looks at it
//! - [`deliver`]: on the way to ring 3 a thread takes its signals; faults of its own making
//! - [`frame`]: a handler begins and ends
//! - [`job`]: processes stop and go on
//! - [`kill`]: signals from one program to another
//! - [`mask`]: what is blocked, for good or for the time of a call; waiting for signals
//! - [`family`]: signals between parents and children
//!
//! Numbers, sets, queues and layouts are `orrery_core::signal`'s.
//!
//! # Locks
//!
//! In this order: the [process tree](super::tree); the process's pending signals; the thread's
//! pending signals; handlers; the thread's own state. Under the second a thread changes its mask, and a
//! sender looks for a thread that does not block the signal: so one of the two sees the other.
//!
//! Nobody but a sender sets [`interruption::SIGNAL`](crate::sched::task::interruption) in another
//! thread: a thread without that bit has no signal to take, and pays nothing for there being signals.

pub mod deliver;
pub mod family;
mod frame;
pub mod job;
pub mod kill;
pub mod mask;
pub mod send;

use alloc::sync::Arc;
use core::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use orrery_core::errno::{Errno, SysResult};
use orrery_core::signal::stack::AltStack;
use orrery_core::signal::{Action, Actions, Pending, Signal, SignalInfo, SignalSet, UNBLOCKABLE};

use super::group::Process;
use super::thread::Thread;
use super::tree::InTree;
use crate::arch::exception::Frame;
use crate::mm::frames;
use crate::sync::SpinLock;

pub use deliver::{Fault, deliver, force};
pub use family::{ignores_children, on_parent_death, tell_of_parent_death, tell_parent};
pub use job::{JobReport, is_stopped, job_report, on_new_thread, take_job_report};
pub use send::{Origin, send_to_process, send_to_self};

/// What a process does about its signals: shared with `CLONE_SIGHAND`. The table is copied when it is
/// changed, not when a child inherits it.
struct Handlers {
    actions: SpinLock<Arc<Actions>>,
}

impl Handlers {
    fn new(actions: Arc<Actions>) -> Arc<Self> {
        Arc::new(Self { actions: SpinLock::new("signal actions", actions) })
    }
}

/// How a child gets its parent's handlers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Inheritance {
    /// The two have the same (`CLONE_SIGHAND`).
    Shared,
    /// It has a copy.
    Copied,
    /// It has no handlers; what is ignored stays ignored (`CLONE_CLEAR_SIGHAND`).
    Cleared,
}

/// Signals of a process.
pub struct ProcessSignals {
    /// Sent to the process: any thread may take them.
    pending: SpinLock<Pending>,
    handlers: SpinLock<Arc<Handlers>>,
    job: job::Control,
}

impl ProcessSignals {
    /// Those of a first process.
    pub fn new() -> Self {
        Self::with(Handlers::new(Arc::new(Actions::new())))
    }

    fn with(handlers: Arc<Handlers>) -> Self {
        Self {
            pending: SpinLock::new("process signals", Pending::new()),
            handlers: SpinLock::new("signal handlers", handlers),
            job: job::Control::new(),
        }
    }

    /// Those of a child: none is pending.
    pub fn for_child(parent: &Process, inheritance: Inheritance) -> Self {
        let theirs = parent.signals.handlers.lock().clone();
        if inheritance == Inheritance::Shared {
            return Self::with(theirs);
        }
        let mut actions = theirs.actions.lock().clone();
        if inheritance == Inheritance::Cleared && !actions.is_reset() {
            Arc::make_mut(&mut actions).reset_for_exec();
        }
        Self::with(Handlers::new(actions))
    }

    /// What is done about a signal.
    pub fn action(&self, signal: Signal) -> Action {
        *self.handlers.lock().actions.lock().get(signal)
    }

    /// Replaces what is done about a signal, and returns what was.
    ///
    /// # Errors
    /// `EINVAL` for those that cannot be handled; `ENOMEM` for the first change where memory is short.
    fn set_action(&self, signal: Signal, action: Action) -> Result<Action, Errno> {
        let handlers = self.handlers.lock();
        let mut actions = handlers.actions.lock();
        let is_settable = !UNBLOCKABLE.contains(signal);
        if is_settable && *actions.get(signal) == action {
            return Ok(action);
        }
        if Arc::get_mut(&mut actions).is_none() && frames::is_scarce() {
            return Err(Errno::ENOMEM);
        }
        Arc::make_mut(&mut actions).set(signal, action)
    }

    fn ignores(&self, signal: Signal) -> bool {
        self.handlers.lock().actions.lock().is_ignored(signal)
    }
}

impl Default for ProcessSignals {
    fn default() -> Self {
        Self::new()
    }
}

/// Where a call goes on that ended with [`Errno::RESTART_BLOCK`], if no handler runs.
#[derive(Clone, Copy)]
pub struct Restart {
    /// Called in place of the call, with `data`.
    pub resume: fn(&[u64; 4]) -> SysResult,
    /// What is left to do.
    pub data: [u64; 4],
}

/// What happened last to a thread in ring 3, as `sigcontext` reports it.
#[derive(Clone, Copy, Default)]
struct LastException {
    vector: u64,
    error_code: u64,
    /// Of the last page fault.
    address: u64,
}

/// What only the thread itself looks at.
#[derive(Default)]
struct Own {
    stack: AltStack,
    /// The mask to go back to when the signal is taken, or when there was none.
    saved_mask: Option<SignalSet>,
    /// A fault of its own that it must take before all else.
    forced: Option<SignalInfo>,
    last_exception: LastException,
    restart: Option<Restart>,
    /// It has called rt_sigreturn.
    returns: bool,
}

/// Signals of a thread.
pub struct ThreadSignals {
    /// Blocked signals. Changed by the thread itself, under the lock of the process's pending signals.
    mask: AtomicU64,
    /// Blocked signals that it waits for all the same (rt_sigtimedwait(2)). As `mask`.
    waits_for: AtomicU64,
    /// Sent to the thread.
    pending: SpinLock<Pending>,
    /// It exits, and takes no more signals. As `mask`.
    is_gone: AtomicBool,
    /// It has stopped with its process.
    is_stopped: InTree<bool>,
    own: SpinLock<Own>,
}

impl ThreadSignals {
    /// Those of a first thread.
    pub fn new() -> Self {
        Self::with(SignalSet::EMPTY, AltStack::None)
    }

    fn with(mask: SignalSet, stack: AltStack) -> Self {
        Self {
            mask: AtomicU64::new(mask.bits()),
            waits_for: AtomicU64::new(0),
            pending: SpinLock::new("thread signals", Pending::new()),
            is_gone: AtomicBool::new(false),
            is_stopped: InTree::new(false),
            own: SpinLock::new("thread's own signal state", Own { stack, ..Own::default() }),
        }
    }

    /// Those of a child, or of another thread, that the running thread `parent` makes: its mask, and its
    /// alternate stack unless the two run in one address space, not one after the other.
    pub fn for_child(parent: &Thread, space: SpaceUse) -> Self {
        let stack = match space {
            SpaceUse::OneAtATime => parent.signals.own.lock().stack,
            SpaceUse::AtTheSameTime => AltStack::None,
        };
        Self::with(parent.signals.mask(), stack)
    }

    /// What is blocked.
    pub fn mask(&self) -> SignalSet {
        SignalSet::from_bits(self.mask.load(Ordering::Relaxed))
    }

    fn waits_for(&self) -> SignalSet {
        SignalSet::from_bits(self.waits_for.load(Ordering::Relaxed))
    }

    /// Whether it would look at the signal now. Under the lock of the process's pending signals.
    fn wants(&self, signal: Signal) -> bool {
        let blocks = self.mask().contains(signal) && !self.waits_for().contains(signal);
        !blocks && !self.is_gone.load(Ordering::Relaxed)
    }
}

impl Default for ThreadSignals {
    fn default() -> Self {
        Self::new()
    }
}

/// Whether parent and child have an address space at the same time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SpaceUse {
    /// Each its own, or the parent waits (vfork(2)).
    OneAtATime,
    /// Both run in one.
    AtTheSameTime,
}

/// For a call that the running thread goes on with, when nothing but a stop interrupts it: what to do then.
/// Returns the error that the call ends with now.
pub fn restart_later(restart: Restart) -> Errno {
    super::current().signals.own.lock().restart = Some(restart);
    Errno::RESTART_BLOCK
}

/// restart_syscall(2): goes on with such a call.
///
/// # Errors
/// Those of the call; `EINTR` if there is none.
pub fn resume_call() -> SysResult {
    let restart = super::current().signals.own.lock().restart.take().ok_or(Errno::EINTR)?;
    (restart.resume)(&restart.data)
}

/// The running thread's alternate stack, and what it is replaced with.
pub fn alternate_stack<T>(change: impl FnOnce(&mut AltStack) -> T) -> T {
    change(&mut super::current().signals.own.lock().stack)
}

/// Replaces what the running thread's process does about a signal, and returns what was. What is pending and
/// ignored from now on is forgotten (POSIX, "Signal Actions").
///
/// # Errors
/// `EINVAL` for those that cannot be handled; `ENOMEM` for the first change where memory is short.
pub fn set_action(signal: Signal, action: Action) -> Result<Action, Errno> {
    let process = &super::current().process;
    let old = process.signals.set_action(signal, action)?;
    if process.signals.ignores(signal) {
        let tree = super::tree::lock();
        send::discard(process, SignalSet::of(&[signal]), &tree);
    }
    Ok(old)
}

/// rt_sigreturn(2): on its way to ring 3 the running thread takes the registers from the frame on its stack.
pub fn return_from_handler() {
    super::current().signals.own.lock().returns = true;
    super::look_again();
}

/// The running thread exits: others must take what it was to take.
pub fn on_thread_exit(thread: &Thread) {
    let process = &thread.process;
    let left = {
        let pending = process.signals.pending.lock();
        thread.signals.is_gone.store(true, Ordering::Relaxed);
        thread.signals.pending.lock().clear();
        pending.set()
    };
    if left.is_empty() && !process.signals.job.is_asked() {
        return;
    }
    let mut tree = super::tree::lock();
    send::retarget(process, left, &tree);
    job::on_thread_gone(process, &mut tree);
}

/// The running process begins another program: it has no handlers and no alternate stack, and one thread.
pub fn on_exec(thread: &Thread) {
    let signals = &thread.process.signals;
    let mut handlers = signals.handlers.lock();
    let mut actions = handlers.actions.lock().clone();
    if !actions.is_reset() {
        Arc::make_mut(&mut actions).reset_for_exec();
    }
    // Its own, even if it shared them.
    *handlers = Handlers::new(actions);
    drop(handlers);
    let mut own = thread.signals.own.lock();
    own.stack = AltStack::None;
    own.restart = None;
}

/// What a thread's `execve` takes along into the leader's task.
pub struct Carried {
    mask: SignalSet,
    pending: Pending,
}

/// What of the running thread's signals goes on in the leader.
pub fn carry(thread: &Thread) -> Carried {
    let pending = core::mem::take(&mut *thread.signals.pending.lock());
    Carried { mask: thread.signals.mask(), pending }
}

/// The running thread, the leader, goes on for the one that had this.
pub fn adopt(thread: &Thread, carried: Carried) {
    {
        let _pending = thread.process.signals.pending.lock();
        *thread.signals.pending.lock() = carried.pending;
        thread.signals.is_gone.store(false, Ordering::Relaxed);
        thread.signals.mask.store(carried.mask.bits(), Ordering::Relaxed);
    }
    // Whatever it was in the midst of: a handler's end, a fault, a call with a mask of its own.
    *thread.signals.own.lock() = Own::default();
    super::look_again();
}

/// What `/proc/PID/status` says of a thread's signals.
#[derive(Clone, Copy, Debug)]
pub struct Summary {
    /// Pending for the thread.
    pub pending: SignalSet,
    /// Pending for the process.
    pub shared: SignalSet,
    /// Blocked by the thread.
    pub blocked: SignalSet,
    /// Ignored by the process.
    pub ignored: SignalSet,
    /// Handled by the process.
    pub handled: SignalSet,
}

/// What is to be said of a thread's signals.
pub fn summary(thread: &Thread) -> Summary {
    let signals = &thread.process.signals;
    let actions = signals.handlers.lock().actions.lock().clone();
    let with = |wanted: fn(&orrery_core::signal::Handler) -> bool| {
        let all = SignalSet::from_bits(u64::MAX).iter();
        all.filter(|&signal| wanted(&actions.get(signal).handler))
            .fold(SignalSet::EMPTY, SignalSet::with)
    };
    use orrery_core::signal::Handler;
    Summary {
        shared: signals.pending.lock().set(),
        pending: thread.signals.pending.lock().set(),
        blocked: thread.signals.mask(),
        ignored: with(|handler| matches!(handler, Handler::Ignore)),
        handled: with(|handler| matches!(handler, Handler::Function(_))),
    }
}

/// Where the interrupted program was, for a frame that is no system call's any more.
fn is_syscall(frame: &Frame) -> bool {
    frame.vector == crate::arch::exception::SYSCALL
}

/// Lets nothing restart the call that the frame was of.
pub(super) fn forget_call(frame: &mut Frame) {
    /// No vector, and no call either.
    const NONE: u64 = u64::MAX;
    frame.vector = NONE;
}
