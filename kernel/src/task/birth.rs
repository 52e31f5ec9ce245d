//! `kthreadd`, which makes every task but `init` and itself.
//!
//! Making a task takes memory and a stack and may have to wait for both; asking `kthreadd` for it
//! keeps that out of whatever the asking task holds, and gives every task a clean origin.

use alloc::collections::VecDeque;
use alloc::string::String;
use alloc::sync::Arc;

use orrery_core::cpuset::CpuSet;
use orrery_core::pid::PidError;
use orrery_core::sched::Policy;

use super::life::{self, JoinHandle};
use super::registry::{self, Namespace, Nesting};
use crate::mm::stack::KernelStack;
use crate::sched::task::{Body, ProgramPart, Sleep, TaskSpec};
use crate::sched::wait::{Sharing, WaitMode, WaitQueue};
use crate::sched::{Task, current, switch, wake};
use crate::sync::SpinLock;
use crate::trace::events;

/// Why a task could not be made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SpawnError {
    /// No memory for it or its stack.
    OutOfMemory,
    /// As many tasks as there may be, in its PID namespace or one above.
    PidsExhausted,
    /// The first task of its PID namespace, or of one above, has exited.
    NamespaceEnded,
    /// A PID namespace deeper than they may be.
    NamespaceTooDeep,
    /// None of the CPUs it may run on is online.
    NoCpu,
}

impl core::fmt::Display for SpawnError {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str(match self {
            Self::OutOfMemory => "no memory for another task",
            Self::PidsExhausted => "no PID is free",
            Self::NamespaceEnded => "the first task of its PID namespace has exited",
            Self::NamespaceTooDeep => "PID namespaces are nested too deep",
            Self::NoCpu => "none of the CPUs it may run on is online",
        })
    }
}

impl From<PidError> for SpawnError {
    fn from(why: PidError) -> Self {
        match why {
            PidError::LimitReached { .. } => Self::PidsExhausted,
            PidError::Dying { .. } => Self::NamespaceEnded,
            PidError::TooDeep => Self::NamespaceTooDeep,
            PidError::OutOfMemory => Self::OutOfMemory,
            // None is chosen, and limits are checked where they are set.
            PidError::Taken { .. }
            | PidError::InvalidNumber { .. }
            | PidError::TooManyNumbers
            | PidError::InvalidLimit(_) => unreachable!("{why}"),
        }
    }
}

/// What is asked of `kthreadd`.
struct Request {
    order: SpinLock<Option<Order>>,
    result: SpinLock<Option<Result<Arc<Task>, SpawnError>>>,
    done: WaitQueue,
}

struct Order {
    spec: TaskSpec,
    nesting: Nesting,
    /// That of the task which asks.
    namespace: Namespace,
    body: Body,
}

static REQUESTS: SpinLock<VecDeque<Arc<Request>>> =
    SpinLock::new("spawn requests", VecDeque::new());
static WORK: WaitQueue = WaitQueue::new();

/// Makes a task that does not run before [`run`].
///
/// # Errors
/// [`SpawnError`]; nothing is left behind.
pub fn create(
    name: String,
    policy: Policy,
    allowed: CpuSet,
    nesting: Nesting,
    body: Body,
) -> Result<JoinHandle, SpawnError> {
    if allowed.intersection(crate::sched::cpu::online()).is_empty() {
        return Err(SpawnError::NoCpu);
    }
    let spec = TaskSpec { name: name.into(), policy, allowed, parent: current().pid() };
    let namespace = current().namespace().unwrap_or_else(|| Namespace::root().clone());
    let request = Arc::new(Request {
        order: SpinLock::new("spawn order", Some(Order { spec, nesting, namespace, body })),
        result: SpinLock::new("spawn result", None),
        done: WaitQueue::new(),
    });
    REQUESTS.lock().push_back(request.clone());
    WORK.wake_all();
    request.done.wait_until(|| request.result.lock().is_some());
    let result = request.result.lock().take();
    result.unwrap_or(Err(SpawnError::OutOfMemory)).map(JoinHandle::new)
}

/// Lets a created task run.
pub fn run(handle: &JoinHandle) {
    wake::wake_new(handle.task());
}

/// `kthreadd`'s body.
pub fn kthreadd() -> i32 {
    let mode =
        WaitMode { sleep: Sleep::Interruptible, sharing: Sharing::Shared, deadline_ticks: None };
    loop {
        let waited = WORK.wait(mode, || !REQUESTS.lock().is_empty());
        loop {
            let Some(request) = REQUESTS.lock().pop_front() else { break };
            let order = request.order.lock().take();
            let result = order.map(|it| make(it.spec, it.nesting, &it.namespace, it.body));
            *request.result.lock() = Some(result.unwrap_or(Err(SpawnError::OutOfMemory)));
            request.done.wake_all();
        }
        if waited.is_err() {
            return 0;
        }
    }
}

/// Makes a task, on the caller's own account.
///
/// # Errors
/// [`SpawnError`]; nothing is left behind.
pub fn make(
    spec: TaskSpec,
    nesting: Nesting,
    namespace: &Namespace,
    body: Body,
) -> Result<Arc<Task>, SpawnError> {
    make_with(spec, nesting, namespace, body, |_, _| None)
}

/// [`make`] for a program's task: `program` makes what it has besides, given the top of its stack and
/// the namespace that it has its number in.
///
/// # Errors
/// As [`make`].
pub fn make_with(
    spec: TaskSpec,
    nesting: Nesting,
    namespace: &Namespace,
    body: Body,
    program: impl FnOnce(u64, &Namespace) -> Option<ProgramPart>,
) -> Result<Arc<Task>, SpawnError> {
    let policy = spec.policy;
    let parent = spec.parent;
    life::reap();
    let numbers = registry::reserve(nesting, namespace)?;
    let stack = KernelStack::new().map_err(|_| SpawnError::OutOfMemory)?;
    let program = program(stack.top().as_u64(), &numbers.namespace());
    let task = Arc::new(Task::with_program(spec, Some(stack), Some(body), program));
    numbers.publish(&task)?;
    switch::prepare(&task);
    events::task_new(task.pid(), parent);
    super::trace_attributes(&task, policy);
    Ok(task)
}
