//! Tasks as applications see them: making them, waiting for them, steering them.

use alloc::boxed::Box;
use alloc::string::String;
use alloc::sync::Arc;

use super::{CpuSet, Nice, NoCpu, Outcome, Policy, RtPriority, SchedInfo, SpawnError};
use crate::arch::{percpu, smp};
use crate::sched::{Task, balance, current};
use crate::task::{self, Namespace, Nesting, trace_attributes};

/// Makes a task that runs `body` with everything at its default: fair class, nice 0, any CPU.
///
/// # Errors
/// [`SpawnError`] when there is no memory or number for it.
pub fn spawn<R: Outcome>(
    name: impl Into<String>,
    body: impl FnOnce() -> R + Send + 'static,
) -> Result<JoinHandle, SpawnError> {
    Builder::new(name).spawn(body)
}

/// What a new task is to be like.
///
/// ```ignore
/// let task = Builder::new("pilot").fifo(50).cpus(CpuSet::single(1)).spawn(|| steer())?;
/// ```
#[must_use = "a builder does nothing before `spawn`"]
pub struct Builder {
    name: String,
    policy: Policy,
    cpus: CpuSet,
    nesting: Nesting,
}

impl Builder {
    /// A task of this name, fair class, nice 0, any CPU.
    pub fn new(name: impl Into<String>) -> Self {
        Self {
            name: name.into(),
            policy: Policy::default(),
            cpus: CpuSet::ALL,
            nesting: Nesting::Inherit,
        }
    }

    /// In this class, with its parameter.
    pub fn policy(mut self, policy: Policy) -> Self {
        self.policy = policy;
        self
    }

    /// In the real-time class, first in first out; priority 0 to 99 (the highest; more counts as
    /// 99).
    pub fn fifo(self, priority: u8) -> Self {
        self.policy(Policy::Fifo(RtPriority::new(priority).unwrap_or(RtPriority::MAX)))
    }

    /// In the real-time class, taking turns with its equals; priority as in [`Self::fifo`].
    pub fn round_robin(self, priority: u8) -> Self {
        self.policy(Policy::RoundRobin(RtPriority::new(priority).unwrap_or(RtPriority::MAX)))
    }

    /// In the fair class, with this nice value, -20 (the greediest) to 19; others count as the nearest.
    pub fn nice(self, nice: i8) -> Self {
        self.policy(Policy::Fair(clamp(nice)))
    }

    /// Only on these CPUs.
    pub fn cpus(mut self, cpus: CpuSet) -> Self {
        self.cpus = cpus;
        self
    }

    /// As the first task, number 1, of a new PID namespace below the caller's: tasks that it and its
    /// children make are in there, too. When it exits, the others in the namespace are asked to
    /// stop, and no task can be made there any more.
    pub fn new_pid_namespace(mut self) -> Self {
        self.nesting = Nesting::New;
        self
    }

    /// Makes the task and lets it run. What `body` returns becomes the exit code that
    /// [`JoinHandle::join`] gives.
    ///
    /// # Errors
    /// [`SpawnError`] when there is no memory or number for it, or none of its CPUs is online.
    pub fn spawn<R: Outcome>(
        self,
        body: impl FnOnce() -> R + Send + 'static,
    ) -> Result<JoinHandle, SpawnError> {
        let body = Box::new(move || body().exit_code());
        let handle = task::create(self.name, self.policy, self.cpus, self.nesting, body)?;
        task::run(&handle);
        Ok(JoinHandle(handle))
    }
}

fn clamp(nice: i8) -> Nice {
    Nice::new(nice.clamp(Nice::MIN.get(), Nice::MAX.get())).unwrap_or_default()
}

/// A task that was spawned, to be joined. A task whose handle is dropped goes on by itself.
///
/// Every task must have ended when its application's `main` returns: what is left then makes the run
/// fail.
#[must_use = "a dropped handle cannot be joined"]
pub struct JoinHandle(task::JoinHandle);

impl JoinHandle {
    /// Waits until the task has ended, and gives its exit code.
    pub fn join(self) -> i32 {
        self.0.join()
    }

    /// Asks the task to stop ([`should_stop`]), and joins it.
    pub fn stop(self) -> i32 {
        self.0.stop()
    }

    /// Asks the task to stop. Its interruptible waits and [`super::sleep_or_stop`] end.
    pub fn request_stop(&self) {
        self.0.request_stop();
    }

    /// Its number.
    pub fn pid(&self) -> u32 {
        self.0.task().pid()
    }

    /// How it has been scheduled so far.
    pub fn sched_info(&self) -> SchedInfo {
        self.0.task().sched_info()
    }

    /// How it is scheduled.
    pub fn policy(&self) -> Policy {
        self.0.task().policy()
    }

    /// Schedules it differently from now on.
    pub fn set_policy(&self, policy: Policy) {
        set_policy_of(self.0.task(), policy);
    }

    /// Makes it a task of the fair class with this nice value, clamped as in [`Builder::nice`].
    pub fn set_nice(&self, nice: i8) {
        self.set_policy(Policy::Fair(clamp(nice)));
    }

    /// Lets it run on these CPUs only; it leaves any other at once.
    ///
    /// # Errors
    /// [`NoCpu`] if none of them is online; nothing changes then.
    pub fn set_affinity(&self, cpus: CpuSet) -> Result<(), NoCpu> {
        set_affinity_of(self.0.task(), cpus)
    }

    /// The task itself, which may be looked at after it has ended.
    pub fn task(&self) -> Arc<Task> {
        Arc::clone(self.0.task())
    }
}

fn set_policy_of(task: &Task, policy: Policy) {
    balance::set_policy(task, policy);
    trace_attributes(task, policy);
}

fn set_affinity_of(task: &Task, cpus: CpuSet) -> Result<(), NoCpu> {
    balance::set_affinity(task, cpus)?;
    trace_attributes(task, task.policy());
    Ok(())
}

/// Schedules the calling task differently from now on.
pub fn set_policy(policy: Policy) {
    set_policy_of(current(), policy);
}

/// Makes the calling task one of the fair class with this nice value, clamped as in
/// [`Builder::nice`].
pub fn set_nice(nice: i8) {
    set_policy(Policy::Fair(clamp(nice)));
}

/// Lets the calling task run on these CPUs only; it is on one of them when this returns.
///
/// # Errors
/// [`NoCpu`] if none of them is online; nothing changes then.
pub fn set_affinity(cpus: CpuSet) -> Result<(), NoCpu> {
    set_affinity_of(current(), cpus)
}

/// Whether the calling task was asked to stop.
pub fn should_stop() -> bool {
    current().stop_requested()
}

/// The calling task's number.
pub fn pid() -> u32 {
    current().pid()
}

/// The calling task's PID namespace; `current().pid_in` gives its number there.
pub fn pid_namespace() -> Namespace {
    current().namespace().unwrap_or_else(|| Namespace::root().clone())
}

/// How the calling task is scheduled.
pub fn policy() -> Policy {
    current().policy()
}

/// How the calling task has been scheduled so far.
pub fn sched_info() -> SchedInfo {
    current().sched_info()
}

/// The CPU that the calling task runs on. It may be moved at any time, unless it is pinned.
pub fn cpu() -> usize {
    percpu::cpu_id() as usize
}

/// How many CPUs there are; their numbers are below this.
pub fn cpus() -> usize {
    smp::count() as usize
}

/// The CPUs there are, as a set.
pub fn online() -> CpuSet {
    CpuSet::first_n(cpus())
}
