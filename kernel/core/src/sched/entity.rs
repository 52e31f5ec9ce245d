//! What the scheduler knows of one task.
//!
//! An [`Entity`] is embedded in the task; the queues are made of the links in it, so that no
//! scheduling operation allocates or fails. Fields are grouped by the class that uses them, and are
//! cells: see the module above for who may touch them when. Whoever gets an entity back from a run
//! queue finds the task it is embedded in by its place there (`core::mem::offset_of`), so the
//! pointer that goes in must be derived from one to the whole task.
//!
//! Virtual times are 64-bit numbers that may wrap; only their differences mean anything.

use super::policy::Policy;
use crate::cpuset::CpuSet;
use crate::tree::{self, Aggregate, Links, Node};
use core::cell::Cell;

/// How a task was scheduled so far. Linux's `sched_info` and a little more; times in ticks, exact.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SchedInfo {
    /// Times it was given a CPU.
    pub pcount: u64,
    /// Time it spent waiting in a run queue.
    pub run_delay_ticks: u64,
    /// When it was last given a CPU.
    pub last_arrival_ticks: u64,
    /// When it last began to wait in a run queue; 0 when it is not waiting.
    pub last_queued_ticks: u64,
    /// Time it ran, up to its queue's last look at the clock.
    pub run_ticks: u64,
    /// Times it gave up its CPU by itself: blocked, exited or yielded to somebody. (Linux counts a
    /// yield as involuntary.)
    pub voluntary_switches: u64,
    /// Times somebody else was given its CPU.
    pub involuntary_switches: u64,
    /// Times it came to another CPU than it was on before.
    pub migrations: u64,
}

/// Whether an entity is on a run queue.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum OnQueue {
    /// Not runnable, or on its way between queues.
    No,
    /// Queued or running.
    Yes,
}

/// One task, as the scheduler sees it. See the module above.
#[derive(Debug)]
pub struct Entity {
    // Every class.
    pub(super) policy: Cell<Policy>,
    pub(super) on_queue: Cell<OnQueue>,
    allowed: Cell<CpuSet>,
    /// The CPU it was last enqueued on; none before the first time.
    pub(super) cpu: Cell<Option<u32>>,

    // Real-time class: the ring of its level, and the value of `run_ticks` at which its quantum
    // ends.
    pub(super) ring_next: Cell<tree::Link<Entity>>,
    pub(super) ring_prev: Cell<tree::Link<Entity>>,
    pub(super) quantum_end_run_ticks: Cell<u64>,

    // Fair class, see `fair.rs`. Weight and rate go with the nice value.
    pub(super) links: Links<Entity>,
    pub(super) weight: Cell<u64>,
    pub(super) virtual_rate: Cell<u64>,
    /// Virtual length of a slice.
    pub(super) slice_virtual: Cell<u64>,
    /// Virtual time the entity has received.
    pub(super) vruntime: Cell<u64>,
    /// Virtual time by which it should have received its current slice.
    pub(super) deadline: Cell<u64>,
    /// Lowest `vruntime` of its subtree.
    pub(super) min_vruntime: Cell<u64>,
    /// While off a queue: virtual time it is still owed; negative if it received too much.
    pub(super) lag: Cell<i64>,
    /// When it last went to sleep.
    pub(super) slept_at_ticks: Cell<u64>,
    /// While on its way between queues: what is left of its slice, in virtual time; else 0.
    pub(super) slice_left_virtual: Cell<u64>,

    // Accounting.
    pub(super) pcount: Cell<u64>,
    pub(super) run_delay_ticks: Cell<u64>,
    pub(super) last_arrival_ticks: Cell<u64>,
    pub(super) last_queued_ticks: Cell<u64>,
    pub(super) run_ticks: Cell<u64>,
    pub(super) voluntary_switches: Cell<u64>,
    pub(super) involuntary_switches: Cell<u64>,
    migrations: Cell<u64>,
}

impl Entity {
    /// An entity that is on no queue.
    pub const fn new(policy: Policy, allowed: CpuSet) -> Self {
        let (weight, virtual_rate) = share(policy);
        Self {
            policy: Cell::new(policy),
            on_queue: Cell::new(OnQueue::No),
            allowed: Cell::new(allowed),
            cpu: Cell::new(None),
            ring_next: Cell::new(None),
            ring_prev: Cell::new(None),
            quantum_end_run_ticks: Cell::new(0),
            links: Links::new(),
            weight: Cell::new(weight),
            virtual_rate: Cell::new(virtual_rate),
            slice_virtual: Cell::new(0),
            vruntime: Cell::new(0),
            deadline: Cell::new(0),
            min_vruntime: Cell::new(0),
            lag: Cell::new(0),
            slept_at_ticks: Cell::new(0),
            slice_left_virtual: Cell::new(0),
            pcount: Cell::new(0),
            run_delay_ticks: Cell::new(0),
            last_arrival_ticks: Cell::new(0),
            last_queued_ticks: Cell::new(0),
            run_ticks: Cell::new(0),
            voluntary_switches: Cell::new(0),
            involuntary_switches: Cell::new(0),
            migrations: Cell::new(0),
        }
    }

    /// Its policy. [`super::RunQueue::set_policy`] changes it.
    #[inline]
    pub fn policy(&self) -> Policy {
        self.policy.get()
    }

    /// CPUs it may run on. Advice to [`super::placement`]; a run queue takes whoever it is given.
    #[inline]
    pub fn allowed(&self) -> CpuSet {
        self.allowed.get()
    }

    /// Says on which CPUs it may run. If that leaves out the one it is on, the caller moves it.
    pub fn set_allowed(&self, allowed: CpuSet) {
        self.allowed.set(allowed);
    }

    /// Whether it is runnable: queued or running.
    #[inline]
    pub fn is_on_queue(&self) -> bool {
        self.on_queue.get() == OnQueue::Yes
    }

    /// The CPU whose queue it is on, or was on last; none before it first was on one.
    pub fn cpu(&self) -> Option<u32> {
        self.cpu.get()
    }

    /// Its load: the nice weight; real-time tasks weigh as much as the greediest fair one.
    pub fn weight(&self) -> u64 {
        self.weight.get()
    }

    /// A copy of its accounts.
    pub fn info(&self) -> SchedInfo {
        SchedInfo {
            pcount: self.pcount.get(),
            run_delay_ticks: self.run_delay_ticks.get(),
            last_arrival_ticks: self.last_arrival_ticks.get(),
            last_queued_ticks: self.last_queued_ticks.get(),
            run_ticks: self.run_ticks.get(),
            voluntary_switches: self.voluntary_switches.get(),
            involuntary_switches: self.involuntary_switches.get(),
            migrations: self.migrations.get(),
        }
    }

    /// Gives an entity that is in no class's queue another policy. What it is owed, or owes, in
    /// real time stays what it is.
    pub(super) fn assign_policy(&self, policy: Policy) {
        let (weight, virtual_rate) = share(policy);
        let old = self.weight.get() as i128;
        // Both are at most twice a slice, whose virtual length grows by 1/weight: no overflow.
        let rescale = |virtual_time: i128| virtual_time * old / weight as i128;
        self.lag.set(rescale(self.lag.get() as i128) as i64);
        self.slice_left_virtual.set(rescale(self.slice_left_virtual.get() as i128) as u64);
        self.weight.set(weight);
        self.virtual_rate.set(virtual_rate);
        self.policy.set(policy);
    }

    /// It ran for this long.
    #[inline]
    pub(super) fn ran(&self, ticks: u64) {
        self.run_ticks.set(self.run_ticks.get().wrapping_add(ticks));
    }

    /// Whether its round-robin quantum is used up.
    pub(super) fn quantum_is_over(&self) -> bool {
        self.run_ticks.get() >= self.quantum_end_run_ticks.get()
    }

    /// It was put on the queue of a CPU.
    #[inline]
    pub(super) fn joined(&self, cpu: u32, now_ticks: u64) {
        self.on_queue.set(OnQueue::Yes);
        self.last_queued_ticks.set(now_ticks);
        if self.cpu.get() != Some(cpu) && self.cpu.replace(Some(cpu)).is_some() {
            bump(&self.migrations);
        }
    }

    /// It waits no more: it was taken off its queue, or is given the CPU. `now_ticks` is of the
    /// queue that set `last_queued_ticks`, whose time never goes back.
    #[inline]
    pub(super) fn stopped_waiting(&self, now_ticks: u64) {
        let waited = now_ticks.wrapping_sub(self.last_queued_ticks.replace(0));
        self.run_delay_ticks.set(self.run_delay_ticks.get().wrapping_add(waited));
    }

    /// It was given the CPU.
    #[inline]
    pub(super) fn arrived(&self, now_ticks: u64) {
        self.stopped_waiting(now_ticks);
        self.last_arrival_ticks.set(now_ticks);
        bump(&self.pcount);
    }
}

/// Adds one to a counter that cannot reach its end.
#[inline]
pub(super) fn bump(counter: &Cell<u64>) {
    counter.set(counter.get().wrapping_add(1));
}

/// Weight and virtual rate of a policy.
const fn share(policy: Policy) -> (u64, u64) {
    (policy.weight(), policy.effective_nice().virtual_rate())
}

/// Whether virtual time `a` is before `b`. They are less than half the range apart.
#[inline]
pub(super) const fn before(a: u64, b: u64) -> bool {
    (a.wrapping_sub(b) as i64) < 0
}

// SAFETY: `links` returns one field, which nothing else uses; the fair class changes `deadline`
// only while the entity is not in its tree.
unsafe impl Node for Entity {
    #[inline]
    fn links(&self) -> &Links<Self> {
        &self.links
    }

    #[inline]
    fn precedes(&self, other: &Self) -> bool {
        before(self.deadline.get(), other.deadline.get())
    }

    #[inline]
    fn refresh(&self, left: Option<&Self>, right: Option<&Self>) -> Aggregate {
        let mut min = self.vruntime.get();
        for child in [left, right].into_iter().flatten() {
            let below = child.min_vruntime.get();
            if before(below, min) {
                min = below;
            }
        }
        if self.min_vruntime.replace(min) == min { Aggregate::Same } else { Aggregate::Changed }
    }
}
