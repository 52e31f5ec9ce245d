//! The task, as the scheduler and everything above see it.
//!
//! # States
//!
//! ```text
//!               prepare               the CPU switches away
//!   Runnable ──────────▶ Preparing(s) ──────────────────────▶ Sleeping(s)
//!      ▲  ▲                   │ wake: nothing to do                │ wake: enqueue
//!      │  └───────────────────┘                                    │
//!      └───────────────────────────────────────────────────────────┘
//!   Runnable ─▶ Zombie (exited, waits to be joined) ─▶ Dead (reaped)
//! ```
//!
//! `s` is the kind of sleep. A task that prepares to sleep is still on its CPU: it looks at its
//! condition once more and then calls the scheduler. A wake that comes in between just makes it
//! runnable again; only the wake that takes a task out of `Sleeping` enqueues it, and there is
//! exactly one, since each step is a compare-and-exchange on the one state word.

use core::cell::UnsafeCell;
use core::mem::offset_of;
use core::ptr::NonNull;
use core::sync::atomic::{
    AtomicBool, AtomicI8, AtomicI32, AtomicPtr, AtomicU8, AtomicU32, AtomicU64, Ordering,
};

use alloc::boxed::Box;
use alloc::string::String;
use alloc::sync::Arc;
use core::any::Any;

use orrery_core::cpuset::CpuSet;
use orrery_core::epoch::Callback;
use orrery_core::inbox::{Link, Linked};
use orrery_core::pid::OwnedPid;
use orrery_core::sched::home::Home;
use orrery_core::sched::{Entity, Nice, Policy, RtPriority, SchedInfo};
use orrery_core::timer_queue::Timer;

use super::wait::WaitQueue;
use crate::arch::context::Context;
use crate::arch::exception::Frame;
use crate::arch::percpu;
use crate::arch::user::UserContext;
use crate::mm::space::Space;
use crate::mm::stack::KernelStack;
use crate::sync::SpinLock;

/// How a task sleeps.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sleep {
    /// Until woken, or asked to stop.
    Interruptible,
    /// Until woken.
    Uninterruptible,
}

/// What a task is doing. The word that holds it is [`StateWord`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// Runs, or waits for a CPU.
    Runnable,
    /// Still runs, and will sleep unless it is woken first.
    Preparing(Sleep),
    /// Off its CPU until woken.
    Sleeping(Sleep),
    /// Has exited; its exit code waits for whoever joins it.
    Zombie,
    /// Reaped: its number is free again.
    Dead,
}

impl State {
    const ALL: [Self; 7] = [
        Self::Runnable,
        Self::Preparing(Sleep::Interruptible),
        Self::Preparing(Sleep::Uninterruptible),
        Self::Sleeping(Sleep::Interruptible),
        Self::Sleeping(Sleep::Uninterruptible),
        Self::Zombie,
        Self::Dead,
    ];

    const fn number(self) -> u8 {
        match self {
            Self::Runnable => 0,
            Self::Preparing(Sleep::Interruptible) => 1,
            Self::Preparing(Sleep::Uninterruptible) => 2,
            Self::Sleeping(Sleep::Interruptible) => 3,
            Self::Sleeping(Sleep::Uninterruptible) => 4,
            Self::Zombie => 5,
            Self::Dead => 6,
        }
    }

    /// The number that trace events carry: 0 runnable, 1 interruptible, 2 uninterruptible, 5 zombie, 6 dead.
    pub const fn trace_number(self) -> u8 {
        match self {
            Self::Runnable => 0,
            Self::Preparing(Sleep::Interruptible) | Self::Sleeping(Sleep::Interruptible) => 1,
            Self::Preparing(Sleep::Uninterruptible) | Self::Sleeping(Sleep::Uninterruptible) => 2,
            Self::Zombie => 5,
            Self::Dead => 6,
        }
    }
}

/// A [`State`] that CPUs change without a lock.
pub struct StateWord(AtomicU8);

impl StateWord {
    /// The state now.
    #[inline(always)]
    pub fn get(&self) -> State {
        // Only numbers of states are ever stored.
        State::ALL[(self.0.load(Ordering::Acquire) as usize).min(6)]
    }

    /// Whether it is [`State::Runnable`]; cheaper than [`Self::get`].
    #[inline(always)]
    pub fn is_runnable(&self) -> bool {
        self.0.load(Ordering::Relaxed) == State::Runnable.number()
    }

    /// Changes the state. Sequentially consistent: what a sleeper reads after preparing, and what
    /// a waker wrote before waking, are ordered by it.
    #[inline(always)]
    pub fn set(&self, state: State) {
        self.0.swap(state.number(), Ordering::SeqCst);
    }

    /// From prepared to asleep, in the way that was prepared. None if a wake came in between.
    #[inline(always)]
    pub(super) fn commit_to_sleep(&self) -> Option<State> {
        let kind = match self.0.load(Ordering::Relaxed) {
            1 => Sleep::Interruptible,
            2 => Sleep::Uninterruptible,
            _ => return None,
        };
        self.change(State::Preparing(kind), State::Sleeping(kind)).then_some(State::Sleeping(kind))
    }

    /// Changes the state if it is `from`.
    #[inline(always)]
    pub fn change(&self, from: State, to: State) -> bool {
        self.0
            .compare_exchange(from.number(), to.number(), Ordering::SeqCst, Ordering::SeqCst)
            .is_ok()
    }
}

/// Bit of a task's ends: it has exited.
pub(crate) const EXITED: u8 = 1;
/// Bit of a task's ends: nobody will join it.
pub(crate) const HANDLE_GONE: u8 = 2;

/// Bits of [`Task::interruptions`].
pub mod interruption {
    /// The task was asked to stop.
    pub const STOP: u32 = 1 << 0;
    /// A program's task has a signal to look at, or something else to do before it goes to ring 3.
    pub const SIGNAL: u32 = 1 << 1;
}

/// Bits of how a task is scheduled.
pub mod label {
    /// A real-time task takes turns.
    pub(in crate::sched) const ROUND_ROBIN: u8 = 1 << 0;
    /// Its policy is the one of the least share.
    pub(in crate::sched) const IDLE: u8 = 1 << 1;
    /// A program has called it a batch task, which is one of the fair class like any other.
    pub const BATCH: u8 = 1 << 2;
    /// What it makes is scheduled like any other, not with its own privileges (`SCHED_RESET_ON_FORK`).
    pub const RESET_ON_FORK: u8 = 1 << 3;
}

/// What a program's task has, for the switch and for the floor of processes.
pub struct ProgramPart {
    /// What ring 3 has in the CPU.
    pub context: UserContext,
    /// The address space it runs in, which the owner of `thread` keeps alive; null once it has left it.
    pub space: AtomicPtr<Space>,
    /// Page faults that were corrected; counted by itself.
    pub faults: AtomicU64,
    /// Ticks that found it in ring 3, and in the kernel; counted by the CPU that runs it.
    pub user_samples: AtomicU64,
    /// See `user_samples`.
    pub system_samples: AtomicU64,
    /// Whether a tick makes it look at timers that count its process's run time.
    pub has_run_timer: AtomicBool,
    /// The thread that the process floor knows.
    pub thread: Arc<dyn Any + Send + Sync>,
    /// Where that is, so that it need not be worked out.
    pub thread_at: NonNull<()>,
}

/// What a task runs: a boxed closure, taken once.
pub type Body = Box<dyn FnOnce() -> i32 + Send>;

/// One thread of execution. Lives behind an `Arc`; the scheduler's queues hold one of its
/// references from the first enqueue until the task is reaped.
#[repr(C)]
pub struct Task {
    /// The number in the root namespace: 0 for idle tasks. First, for the trace's sake.
    pid: AtomicU32,
    /// Successful wakes so far, modulo 256.
    pub(super) wake_seq: AtomicU8,
    pub(crate) state: StateWord,
    /// Set from before it is resumed until its registers are saved.
    pub(super) on_cpu: AtomicBool,
    /// The CPU it runs on or ran on last.
    pub(super) home: Home,

    // Guarded by the lock of its run queue; while it is on none, by whoever holds it at home (`Home::hold`), and by the
    // CPU that enqueues it, which waits for those.
    pub(super) entity: UnsafeCell<Entity>,
    // The running CPU's at a switch.
    pub(super) context: UnsafeCell<Context>,

    pub(super) inbox_link: Link<Task>,
    /// Why it is in an inbox, see `wake::arrival`.
    pub(super) arrival: AtomicU8,
    /// 0 in the fair class, the real-time priority plus one above it: the policy, to be read without the
    /// lock of its queue.
    wake_priority: AtomicU8,
    /// Its nice value whenever that is its policy's.
    nice: AtomicI8,
    /// Bits of [`label`].
    labels: AtomicU8,
    /// CPUs it may run on, a bit each. The entity's own mask is not used: this one is read
    /// without its queue's lock.
    pub(super) allowed: AtomicU64,
    /// For sleeps with a timeout. Guarded by the timer queue of CPU `timer_cpu`.
    pub(super) timer: Timer,
    pub(super) timer_cpu: AtomicU32,

    // Set when the task is made.
    name: TaskName,
    stack: Option<KernelStack>,
    pub(crate) body: SpinLock<Option<Body>>,

    /// What a program's task has besides; the kernel's own have none.
    program: Option<ProgramPart>,
    /// Why the task should not sleep interruptibly, nor go to ring 3 before it has looked: see
    /// [`interruption`].
    pub(crate) interruptions: AtomicU32,

    // The life of the task, see `task`.
    pub(crate) exit_code: AtomicI32,
    pub(crate) exited: WaitQueue,
    /// [`EXITED`] and [`HANDLE_GONE`].
    pub(crate) ends: AtomicU8,
    /// PID of the task that asked for it, or of the one that inherited it.
    parent: AtomicU32,

    // The registry's, see `task::registry`.
    /// Its numbers, from birth to burial.
    pub(crate) numbers: SpinLock<Option<OwnedPid<Task>>>,
    /// Tasks whose parent it is. Changed under the registry's lock.
    pub(crate) children: AtomicU32,
    /// For the time between its burial and the end of the last lookup that may have found it.
    pub(crate) grace: UnsafeCell<Callback>,
}

// SAFETY: every field is atomic, locked, constant, or guarded as its comment says.
unsafe impl Sync for Task {}
// SAFETY: as above; nothing in it belongs to a CPU while it is not running.
unsafe impl Send for Task {}

// SAFETY: one link per task, used by inboxes only.
unsafe impl Linked for Task {
    fn link(&self) -> &Link<Self> {
        &self.inbox_link
    }
}

/// The name of a task, for people and reports.
pub enum TaskName {
    /// Of any length.
    Long(String),
    /// As programs have it, zeros behind: copied without an allocation.
    Short([u8; 16]),
}

impl TaskName {
    /// The text; what is not UTF-8 ends it.
    pub fn as_str(&self) -> &str {
        let bytes = match self {
            Self::Long(name) => return name,
            Self::Short(bytes) => bytes.split(|&byte| byte == 0).next().unwrap_or(bytes),
        };
        match core::str::from_utf8(bytes) {
            Ok(name) => name,
            Err(error) => core::str::from_utf8(&bytes[..error.valid_up_to()]).unwrap_or("?"),
        }
    }
}

impl From<String> for TaskName {
    fn from(name: String) -> Self {
        Self::Long(name)
    }
}

/// What a new task is to be.
pub struct TaskSpec {
    /// For people and reports.
    pub name: TaskName,
    /// How it is scheduled.
    pub policy: Policy,
    /// Where it may run.
    pub allowed: CpuSet,
    /// PID of the task that asked for it.
    pub parent: u32,
}

impl Task {
    /// A task that has not run. Its PID is set by [`Self::set_pid`] before anyone sees it.
    pub fn new(spec: TaskSpec, stack: Option<KernelStack>, body: Option<Body>) -> Self {
        Self::with_program(spec, stack, body, None)
    }

    /// [`Self::new`] for a program's task. The context is that of `stack`.
    pub fn with_program(
        spec: TaskSpec,
        stack: Option<KernelStack>,
        body: Option<Body>,
        program: Option<ProgramPart>,
    ) -> Self {
        Self {
            pid: AtomicU32::new(0),
            wake_seq: AtomicU8::new(0),
            state: StateWord(AtomicU8::new(State::Sleeping(Sleep::Uninterruptible).number())),
            on_cpu: AtomicBool::new(false),
            home: Home::new(0),
            entity: UnsafeCell::new(Entity::new(spec.policy, spec.allowed)),
            context: UnsafeCell::new(Context::new()),
            inbox_link: Link::new(),
            arrival: AtomicU8::new(0),
            wake_priority: AtomicU8::new(wake_priority(spec.policy)),
            labels: AtomicU8::new(labels(spec.policy)),
            nice: AtomicI8::new(match spec.policy {
                Policy::Fair(nice) => nice.get(),
                Policy::Fifo(_) | Policy::RoundRobin(_) => 0,
            }),
            allowed: AtomicU64::new(spec.allowed.bits()),
            timer: Timer::new(),
            timer_cpu: AtomicU32::new(0),
            name: spec.name,
            stack,
            body: SpinLock::new("task body", body),
            program,
            interruptions: AtomicU32::new(0),
            exit_code: AtomicI32::new(0),
            exited: WaitQueue::new(),
            ends: AtomicU8::new(0),
            parent: AtomicU32::new(spec.parent),
            numbers: SpinLock::new("task numbers", None),
            children: AtomicU32::new(0),
            grace: UnsafeCell::new(Callback::new()),
        }
    }

    /// Its number in the root namespace.
    #[inline(always)]
    pub fn pid(&self) -> u32 {
        self.pid.load(Ordering::Relaxed)
    }

    /// Gives it its number.
    pub(crate) fn set_pid(&self, pid: u32) {
        self.pid.store(pid, Ordering::Relaxed);
    }

    /// Its name.
    pub fn name(&self) -> &str {
        self.name.as_str()
    }

    /// PID of the task that asked for it.
    pub fn parent(&self) -> u32 {
        self.parent.load(Ordering::Relaxed)
    }

    /// Gives it another parent.
    pub(crate) fn set_parent(&self, parent: u32) {
        self.parent.store(parent, Ordering::Relaxed);
    }

    /// Whether it was asked to stop.
    pub fn stop_requested(&self) -> bool {
        self.interruptions.load(Ordering::SeqCst) & interruption::STOP != 0
    }

    /// Whether it has exited and nobody will join it: it merely waits to be buried.
    pub fn is_dead(&self) -> bool {
        self.ends.load(Ordering::Relaxed) == EXITED | HANDLE_GONE
    }

    /// Whether anything should end an interruptible sleep.
    #[inline(always)]
    pub fn is_interrupted(&self) -> bool {
        self.interruptions.load(Ordering::SeqCst) != 0
    }

    /// [`Self::is_interrupted`], for a task that asks for itself with interrupts off: whoever sets a bit
    /// interrupts it afterwards.
    #[inline(always)]
    pub fn is_interrupted_relaxed(&self) -> bool {
        self.interruptions.load(Ordering::Relaxed) != 0
    }

    /// What a program's task has besides.
    #[inline(always)]
    pub fn program(&self) -> Option<&ProgramPart> {
        self.program.as_ref()
    }

    /// The stack pointer that it begins with.
    pub(super) fn initial_stack_pointer(&self) -> Option<u64> {
        match &self.program {
            // Below the place of the program's registers.
            Some(program) => Some(program.context.kernel_stack() - size_of::<Frame>() as u64),
            None => self.stack.as_ref().map(|stack| stack.top().as_u64()),
        }
    }

    /// How it has been scheduled so far.
    pub fn sched_info(&self) -> SchedInfo {
        super::balance::with_queue_of(self, |entity| entity.info())
    }

    /// [`Self::sched_info`], with the time that it has run up to now.
    pub fn sched_info_now(&self) -> SchedInfo {
        super::balance::info_now(self)
    }

    /// Time that it has run, up to now.
    pub fn run_ticks(&self) -> u64 {
        self.sched_info_now().run_ticks
    }

    /// How it is scheduled.
    pub fn policy(&self) -> Policy {
        super::balance::with_queue_of(self, Entity::policy)
    }

    /// How urgent it is among those that wait for the same: 0 in the fair class, more in the real-time
    /// class.
    #[inline]
    pub fn wake_priority(&self) -> u8 {
        self.wake_priority.load(Ordering::Relaxed)
    }

    /// [`Self::policy`] without the lock of its queue: a moment later, or while it is changed, it may be another.
    pub fn policy_relaxed(&self) -> Policy {
        let labels = self.labels.load(Ordering::Relaxed);
        match self.wake_priority().checked_sub(1).and_then(RtPriority::new) {
            Some(priority) if labels & label::ROUND_ROBIN != 0 => Policy::RoundRobin(priority),
            Some(priority) => Policy::Fifo(priority),
            None if labels & label::IDLE != 0 => Policy::IDLE,
            None => Policy::Fair(self.nice()),
        }
    }

    /// It has another policy.
    pub(super) fn note_policy(&self, policy: Policy) {
        self.wake_priority.store(wake_priority(policy), Ordering::Relaxed);
        self.label(label::ROUND_ROBIN | label::IDLE, labels(policy));
        if let Policy::Fair(nice) = policy
            && policy != Policy::IDLE
        {
            self.note_nice(nice);
        }
    }

    /// It has another nice value, or will have when it is scheduled by that again.
    pub(super) fn note_nice(&self, nice: Nice) {
        self.nice.store(nice.get(), Ordering::Relaxed);
    }

    /// Whether it has this [`label`].
    pub fn has_label(&self, label: u8) -> bool {
        self.labels.load(Ordering::Relaxed) & label != 0
    }

    /// Takes these labels from it and gives it those.
    pub fn label(&self, taken: u8, given: u8) {
        let change = |labels: u8| Some(labels & !taken | given);
        let _ = self.labels.fetch_update(Ordering::Relaxed, Ordering::Relaxed, change);
    }

    /// Makes it, which has not run, what a program's new thread is beside its policy: what its maker is.
    pub fn inherit(&self, maker: &Self) {
        self.nice.store(maker.nice.load(Ordering::Relaxed), Ordering::Relaxed);
        self.labels.store(maker.labels.load(Ordering::Relaxed), Ordering::Relaxed);
    }

    /// Its nice value; with another policy the one that it would have.
    pub fn nice(&self) -> Nice {
        Nice::new(self.nice.load(Ordering::Relaxed)).unwrap_or_default()
    }

    /// What it is doing.
    pub fn state(&self) -> State {
        self.state.get()
    }

    /// CPU it runs on or ran on last.
    pub fn cpu(&self) -> u32 {
        self.home.cpu()
    }

    /// CPUs it may run on.
    #[inline(always)]
    pub fn allowed(&self) -> CpuSet {
        CpuSet::from_bits(self.allowed.load(Ordering::SeqCst))
    }

    /// Its stack; idle tasks of the boot have none of their own.
    pub fn stack(&self) -> Option<&KernelStack> {
        self.stack.as_ref()
    }

    /// The scheduler's part. Its cells are guarded by the run queue's lock.
    #[inline(always)]
    pub(super) fn entity(&self) -> &Entity {
        // SAFETY: an entity is all cells; exclusive references to it are never made.
        unsafe { &*self.entity.get() }
    }

    /// The task that an entity is embedded in.
    #[inline(always)]
    pub(super) fn of_entity(entity: NonNull<Entity>) -> NonNull<Task> {
        // SAFETY: the scheduler is only ever given entities of tasks, by pointers to whole tasks.
        unsafe { entity.byte_sub(offset_of!(Task, entity)).cast() }
    }

    /// The entity, as the run queue wants it: derived from the whole task.
    #[inline(always)]
    pub(super) fn entity_of(task: NonNull<Task>) -> NonNull<Entity> {
        // SAFETY: inside the task.
        unsafe { task.byte_add(offset_of!(Task, entity)).cast() }
    }

    /// Where the context is, for the switch.
    pub(super) const CONTEXT_OFFSET: usize = offset_of!(Task, context);

    /// The task whose sleep timer this is.
    pub(super) fn of_timer(timer: NonNull<Timer>) -> NonNull<Task> {
        // SAFETY: timer queues are only given timers of tasks, by pointers to whole tasks.
        unsafe { timer.byte_sub(offset_of!(Task, timer)).cast() }
    }

    /// The sleep timer, derived from the whole task.
    pub(super) fn timer_of(task: NonNull<Task>) -> NonNull<Timer> {
        // SAFETY: inside the task.
        unsafe { task.byte_add(offset_of!(Task, timer)).cast() }
    }
}

fn labels(policy: Policy) -> u8 {
    match policy {
        Policy::RoundRobin(_) => label::ROUND_ROBIN,
        Policy::IDLE => label::IDLE,
        Policy::Fifo(_) | Policy::Fair(_) => 0,
    }
}

fn wake_priority(policy: Policy) -> u8 {
    policy.rt_priority().map_or(0, |priority| priority.get() + 1)
}

/// The running task.
///
/// # Panics
/// In a debug build, before the scheduler runs.
#[inline(always)]
pub fn current() -> &'static Task {
    let task = percpu::current().cast::<Task>();
    debug_assert!(!task.is_null(), "no task runs yet");
    // SAFETY: set by the scheduler to a task that stays alive while it runs; callers keep the
    // reference only as long as they run.
    unsafe { &*task }
}
