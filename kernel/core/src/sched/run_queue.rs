//! The run queue of one CPU.
//!
//! [`RunQueue::schedule`] is the one hot call: it charges the running entity, puts it where it
//! belongs, and says who runs next, with all accounts kept on the way. Everything else prepares for
//! it.
//!
//! The caller's clock may go back by a little (it is read on different CPUs): the queue never lets
//! its own time go back, so that every tick is charged exactly once.
//!
//! Neighbours: `rt.rs` and `fair.rs` below; the kernel's scheduler, which owns lock and switch,
//! above.

use super::entity::{Entity, OnQueue, bump};
use super::fair::{Arrival, Departure, FairQueue};
use super::policy::{Policy, RtPriority};
use super::rt::{Place, RtQueue};
use crate::tree::Link;
use core::ptr::NonNull;

/// Lengths of time that rule scheduling, in ticks. Both at least 1; 0 is taken as 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Config {
    /// What a fair entity asks for at a time (Linux: `base_slice_ns`; 3 ms is customary).
    pub slice_ticks: u64,
    /// How long a round-robin entity runs before its equals have their turn (Linux: 100 ms).
    pub rr_quantum_ticks: u64,
}

/// Why a CPU schedules: what becomes of the running entity.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Switch {
    /// It lets others go first. Real time: it becomes the last of its level. Fair: it gives up the
    /// rest of its slice, and runs on only if nobody else can.
    Yield,
    /// Somebody may be better: it runs on unless somebody is. Real time: it stays the first of its
    /// level, unless its quantum is over.
    Preempt,
    /// It sleeps, until it is enqueued with [`Enqueue::Wakeup`].
    Block,
    /// It leaves for another CPU, where the caller enqueues it with [`Enqueue::Migrated`].
    Migrate,
    /// It is gone for good.
    Exit,
}

/// Why an entity is enqueued.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Enqueue {
    /// It never ran.
    New,
    /// It slept.
    Wakeup,
    /// It comes from another queue, or back to this one, without having slept.
    Migrated,
}

/// Whether the CPU should call [`RunQueue::schedule`] soon.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub enum Preempt {
    /// Somebody should run instead of the running entity or the idle task.
    Yes,
    /// All is as it should be.
    No,
}

impl From<bool> for Preempt {
    fn from(yes: bool) -> Self {
        if yes { Self::Yes } else { Self::No }
    }
}

/// The entities that are runnable on one CPU, and which of them runs.
#[derive(Debug)]
pub struct RunQueue {
    current: Link<Entity>,
    /// The queue's last look at the clock; up to here everything is charged.
    clock_ticks: u64,
    fair: FairQueue,
    rt: RtQueue,
    nr_running: u32,
    cpu: u32,
    idle_ticks: u64,
    rr_quantum_ticks: u64,
}

// SAFETY: a queue only touches its entities through its own methods, wherever it is; the contract
// of `enqueue` makes them stay usable, and the kernel's lock makes it one CPU at a time.
unsafe impl Send for RunQueue {}

impl RunQueue {
    /// The empty queue of a CPU whose time starts at `now_ticks`.
    pub const fn new(cpu: u32, config: Config, now_ticks: u64) -> Self {
        const fn at_least_1(ticks: u64) -> u64 {
            if ticks == 0 { 1 } else { ticks }
        }
        Self {
            current: None,
            clock_ticks: now_ticks,
            fair: FairQueue::new(at_least_1(config.slice_ticks)),
            rt: RtQueue::new(),
            nr_running: 0,
            cpu,
            idle_ticks: 0,
            rr_quantum_ticks: at_least_1(config.rr_quantum_ticks),
        }
    }

    /// The running entity; none while the CPU is idle.
    #[inline]
    pub const fn current(&self) -> Option<NonNull<Entity>> {
        self.current
    }

    /// Runnable entities, the running one included.
    #[inline]
    pub const fn nr_running(&self) -> u32 {
        self.nr_running
    }

    /// Runnable entities that wait.
    #[inline]
    pub const fn nr_queued(&self) -> u32 {
        self.nr_running - self.current.is_some() as u32
    }

    /// Sum of the weights of all runnable entities; a real-time one weighs as much as one of nice
    /// -20.
    pub const fn load(&self) -> u64 {
        self.fair.load() + self.rt.len() as u64 * super::Nice::MIN.weight() as u64
    }

    /// Whether an entity of [`Policy::IDLE`] runs while one of another policy waits: it makes way.
    pub fn should_make_way(&self) -> bool {
        // SAFETY: runnable entities are alive by the contract of `enqueue`.
        let policy = self.current.map(|current| unsafe { current.as_ref() }.policy());
        policy == Some(Policy::IDLE)
            && !super::placement::all_make_way(self.load(), self.nr_running)
    }

    /// Highest real-time priority among the runnable, the running one included.
    pub fn highest_rt_priority(&self) -> Option<RtPriority> {
        self.rt.highest()
    }

    /// Time without a running entity, up to the queue's last look at the clock.
    pub const fn idle_ticks(&self) -> u64 {
        self.idle_ticks
    }

    /// Time without a running entity up to `now_ticks`: as [`Self::idle_ticks`], and since then if none runs.
    pub const fn idle_ticks_until(&self, now_ticks: u64) -> u64 {
        let since =
            if self.current.is_none() { now_ticks.saturating_sub(self.clock_ticks) } else { 0 };
        self.idle_ticks.wrapping_add(since)
    }

    /// Entities that wait: real-time ones by priority and turn, then fair ones by deadline.
    pub fn queued(&self) -> impl Iterator<Item = NonNull<Entity>> {
        let current = self.current;
        self.rt.iter().filter(move |entity| Some(*entity) != current).chain(self.fair.iter())
    }

    /// Moves the queue's time to `now_ticks`. Returns it and how far it moved.
    #[inline]
    fn advance_clock(&mut self, now_ticks: u64) -> (u64, u64) {
        let now = now_ticks.max(self.clock_ticks);
        let ticks = now - self.clock_ticks;
        self.clock_ticks = now;
        (now, ticks)
    }

    /// Brings the accounts of the running entity up to date.
    pub fn update_accounts(&mut self, now_ticks: u64) {
        self.charge(now_ticks);
    }

    /// Brings the accounts up to date and returns the queue's time.
    #[inline]
    fn charge(&mut self, now_ticks: u64) -> u64 {
        let (now, ticks) = self.advance_clock(now_ticks);
        match self.current {
            None => self.idle_ticks = self.idle_ticks.wrapping_add(ticks),
            Some(current) => {
                // SAFETY: runnable entities are alive by the contract of `enqueue`.
                let current = unsafe { current.as_ref() };
                current.ran(ticks);
                if current.policy.get().rt_priority().is_none() {
                    self.fair.charge(current, ticks);
                }
            }
        }
        now
    }

    /// Ends the running entity's turn and returns whose turn is next, none for the idle task. The
    /// caller switches to it if it is not the same.
    ///
    /// Fastest where `why` is a constant: going to sleep is inlined.
    ///
    /// # Safety
    /// The queue's lock is held. The contract of [`enqueue`](Self::enqueue) still holds for every
    /// entity on the queue. After `Block`, `Migrate` and `Exit` the entity is the caller's again.
    #[inline(always)]
    pub unsafe fn schedule(&mut self, now_ticks: u64, why: Switch) -> Option<NonNull<Entity>> {
        match why {
            Switch::Yield => self.yield_current(now_ticks),
            Switch::Preempt => self.preempt_current(now_ticks),
            Switch::Block => self.leave_current(now_ticks, Switch::Block),
            Switch::Migrate | Switch::Exit => self.leave_for_good(now_ticks, why),
        }
    }

    #[inline(always)]
    fn leave_current(&mut self, now_ticks: u64, why: Switch) -> Link<Entity> {
        let now = self.charge(now_ticks);
        if let Some(current) = self.current {
            self.retire(current, why);
        }
        let next = self.take_next();
        self.switch_to(next, now)
    }

    /// [`Self::leave_current`] where it is no matter of instructions.
    #[inline(never)]
    fn leave_for_good(&mut self, now_ticks: u64, why: Switch) -> Link<Entity> {
        self.leave_current(now_ticks, why)
    }

    #[inline]
    fn yield_current(&mut self, now_ticks: u64) -> Link<Entity> {
        let (now, ticks) = self.advance_clock(now_ticks);
        let Some(prev) = self.current else { return self.leave_idle(now, ticks) };
        // SAFETY: runnable entities are alive by the contract of `enqueue`.
        let entity = unsafe { prev.as_ref() };
        entity.ran(ticks);
        match entity.policy.get() {
            Policy::Fifo(level) | Policy::RoundRobin(level) => {
                // SAFETY: the running entity is in the ring of its level.
                let next = unsafe { self.rt.rotate(prev, level) };
                if next != prev {
                    bump(&entity.voluntary_switches);
                    entity.last_queued_ticks.set(now);
                    self.switch_to(Some(next), now);
                }
                Some(next)
            }
            Policy::Fair(_) => self.yield_fair(prev, now, ticks),
        }
    }

    /// The rest of `yield_current`; out of line to keep the real-time path free of what it needs.
    #[inline(never)]
    fn yield_fair(&mut self, prev: NonNull<Entity>, now: u64, ticks: u64) -> Link<Entity> {
        // SAFETY: runnable entities are alive by the contract of `enqueue`.
        let entity = unsafe { prev.as_ref() };
        self.fair.charge(entity, ticks);
        self.fair.forfeit_slice(entity);
        let Some(next) = self.take_next() else { return Some(prev) };
        // SAFETY: it ran until now, so it is not in the tree, and it stays runnable.
        unsafe { self.fair.put(prev) };
        bump(&entity.voluntary_switches);
        entity.last_queued_ticks.set(now);
        self.switch_to(Some(next), now)
    }

    #[inline(always)]
    fn preempt_current(&mut self, now_ticks: u64) -> Link<Entity> {
        let (now, ticks) = self.advance_clock(now_ticks);
        match self.current {
            None => self.leave_idle(now, ticks),
            Some(prev) => self.preempt_running(prev, now, ticks),
        }
    }

    #[inline(never)]
    fn preempt_running(&mut self, prev: NonNull<Entity>, now: u64, ticks: u64) -> Link<Entity> {
        // SAFETY: runnable entities are alive by the contract of `enqueue`.
        let entity = unsafe { prev.as_ref() };
        entity.ran(ticks);
        let next = match entity.policy.get() {
            Policy::Fifo(_) => self.rt.first(),
            Policy::RoundRobin(_) if !entity.quantum_is_over() => self.rt.first(),
            Policy::RoundRobin(level) => {
                self.start_quantum(entity);
                // SAFETY: as in `yield_current`.
                Some(unsafe { self.rt.rotate(prev, level) })
            }
            Policy::Fair(_) => {
                self.fair.charge(entity, ticks);
                self.fair.renew_slice(entity);
                let next = self.rt.first().or_else(|| self.fair.take_better(prev));
                if next.is_none() {
                    return Some(prev);
                }
                // SAFETY: it ran until now, so it is not in the tree, and it stays runnable.
                unsafe { self.fair.put(prev) };
                next
            }
        };
        if next == Some(prev) {
            return next;
        }
        bump(&entity.involuntary_switches);
        entity.last_queued_ticks.set(now);
        self.switch_to(next, now)
    }

    fn leave_idle(&mut self, now: u64, idle_ticks: u64) -> Link<Entity> {
        self.idle_ticks = self.idle_ticks.wrapping_add(idle_ticks);
        let next = self.take_next();
        self.switch_to(next, now)
    }

    /// Gives the CPU to an entity that is not in the fair tree any more.
    #[inline]
    fn switch_to(&mut self, next: Link<Entity>, now: u64) -> Link<Entity> {
        self.current = next;
        if let Some(next) = next {
            // SAFETY: runnable entities are alive by the contract of `enqueue`.
            unsafe { next.as_ref() }.arrived(now);
        }
        next
    }

    /// Who is next if the running entity is not, out of the fair tree already.
    #[inline]
    fn take_next(&mut self) -> Link<Entity> {
        match self.rt.first() {
            None => self.fair.take_waiting(),
            first => first,
        }
    }

    /// Takes the running entity off the queue.
    #[inline(always)]
    fn retire(&mut self, entity: NonNull<Entity>, why: Switch) {
        let departure = match why {
            Switch::Block => Departure::Sleeps,
            Switch::Exit => Departure::Exits,
            Switch::Yield | Switch::Preempt | Switch::Migrate => Departure::Moves,
        };
        // SAFETY: it runs, so it is on the queue.
        unsafe { self.detach(entity, departure) };
        // SAFETY: runnable entities are alive by the contract of `enqueue`.
        let entity = unsafe { entity.as_ref() };
        entity.on_queue.set(OnQueue::No);
        entity.slept_at_ticks.set(self.clock_ticks);
        bump(match why {
            Switch::Block | Switch::Exit | Switch::Yield => &entity.voluntary_switches,
            Switch::Migrate | Switch::Preempt => &entity.involuntary_switches,
        });
        self.nr_running -= 1;
    }

    /// Adds an entity. The answer says whether somebody, usually this one, should run instead of
    /// the running entity.
    ///
    /// # Safety
    /// The queue's lock is held. The entity is on no queue. Until it is off this one it stays
    /// alive, where it is, and nobody has a `&mut` to it or uses its cells without the lock.
    #[inline(always)]
    pub unsafe fn enqueue(
        &mut self,
        entity: NonNull<Entity>,
        now_ticks: u64,
        why: Enqueue,
    ) -> Preempt {
        let now = self.charge(now_ticks);
        // SAFETY: the caller's contract.
        unsafe {
            let this = entity.as_ref();
            this.joined(self.cpu, now);
            self.attach(entity, false, || match why {
                Enqueue::New => Arrival::New,
                Enqueue::Wakeup => {
                    Arrival::Woken { slept_ticks: now.saturating_sub(this.slept_at_ticks.get()) }
                }
                Enqueue::Migrated => Arrival::Moved,
            });
        }
        self.nr_running += 1;
        // A new task waits its turn: its maker mostly has more to do, and may be about to wait for it.
        // SAFETY: alive by the contract.
        let is_fair = matches!(unsafe { entity.as_ref() }.policy(), Policy::Fair(_));
        if why == Enqueue::New && is_fair && self.current.is_some() {
            return Preempt::No;
        }
        self.compare_current()
    }

    /// Takes off an entity that waits, with its lag and the rest of its slice, to be enqueued with
    /// [`Enqueue::Migrated`].
    ///
    /// # Safety
    /// The queue's lock is held, and the entity is on this queue and is not the running one.
    pub unsafe fn dequeue(&mut self, entity: NonNull<Entity>, now_ticks: u64) {
        let now = self.charge(now_ticks);
        // SAFETY: the caller's contract.
        unsafe {
            self.detach(entity, Departure::Moves);
            let entity = entity.as_ref();
            entity.on_queue.set(OnQueue::No);
            entity.stopped_waiting(now);
        }
        self.nr_running -= 1;
    }

    /// Takes off, as [`dequeue`](Self::dequeue) does, the first entity that waits and that `accept`
    /// accepts: real-time ones by priority, then fair ones by deadline.
    ///
    /// # Safety
    /// The queue's lock is held.
    pub unsafe fn steal(
        &mut self,
        now_ticks: u64,
        mut accept: impl FnMut(&Entity) -> bool,
    ) -> Option<NonNull<Entity>> {
        // SAFETY: queued entities are alive by the contract of `enqueue`.
        let entity = self.queued().find(|entity| accept(unsafe { entity.as_ref() }))?;
        // SAFETY: it was found among those that wait.
        unsafe { self.dequeue(entity, now_ticks) };
        Some(entity)
    }

    /// Changes an entity's policy, wherever it is: running, waiting, or on no queue. What a fair
    /// entity is owed is kept over a change of its nice value, as real time. The running entity
    /// stays first among the equals of its new level, one that waits becomes the last.
    ///
    /// # Safety
    /// The queue's lock is held. The entity is on this queue, or it is alive and on none and the
    /// caller may enqueue it.
    pub unsafe fn set_policy(
        &mut self,
        entity: NonNull<Entity>,
        policy: Policy,
        now_ticks: u64,
    ) -> Preempt {
        self.charge(now_ticks);
        // SAFETY: the caller's contract.
        let this = unsafe { entity.as_ref() };
        if !this.is_on_queue() {
            this.assign_policy(policy);
            return Preempt::No;
        }
        // SAFETY: it is on a queue, which by the contract is this one; it comes back at once.
        unsafe {
            self.detach(entity, Departure::Moves);
            this.assign_policy(policy);
            self.attach(entity, self.current == Some(entity), || Arrival::Moved);
        }
        self.compare_current()
    }

    /// Puts an entity into its class: the running one at the head of its level or beside the tree.
    ///
    /// # Safety
    /// It is in no class, and fulfils the contract of `enqueue`.
    #[inline(always)]
    unsafe fn attach(
        &mut self,
        entity: NonNull<Entity>,
        runs: bool,
        arrival: impl FnOnce() -> Arrival,
    ) {
        // SAFETY: the caller's contract.
        unsafe {
            let this = entity.as_ref();
            match this.policy.get() {
                Policy::Fair(_) => {
                    self.fair.join(this, arrival());
                    if !runs {
                        self.fair.put(entity);
                    }
                }
                Policy::Fifo(level) | Policy::RoundRobin(level) => {
                    if matches!(this.policy.get(), Policy::RoundRobin(_)) && this.quantum_is_over()
                    {
                        self.start_quantum(this);
                    }
                    self.rt.insert(entity, level, if runs { Place::Head } else { Place::Tail });
                }
            }
        }
    }

    /// Takes an entity out of its class.
    ///
    /// # Safety
    /// It is on this queue.
    #[inline(always)]
    unsafe fn detach(&mut self, entity: NonNull<Entity>, departure: Departure) {
        // SAFETY: the caller's contract; all runnable fair entities but the running one are in the
        // tree.
        unsafe {
            let this = entity.as_ref();
            match this.policy.get() {
                Policy::Fair(_) => {
                    if self.current != Some(entity) {
                        self.fair.take(entity);
                    }
                    self.fair.leave(this, departure);
                }
                Policy::Fifo(level) | Policy::RoundRobin(level) => self.rt.remove(entity, level),
            }
        }
    }

    #[cold]
    fn start_quantum(&self, entity: &Entity) {
        let end = entity.run_ticks.get().saturating_add(self.rr_quantum_ticks);
        entity.quantum_end_run_ticks.set(end);
    }

    /// Whether somebody should run instead of the running entity, or of the idle task.
    fn compare_current(&self) -> Preempt {
        let Some(current) = self.current else { return Preempt::from(self.nr_running > 0) };
        let better = match self.rt.first() {
            // The running entity is the head of its level: if it is not the first, somebody is
            // above it.
            Some(first) => first != current,
            // SAFETY: runnable entities are alive by the contract of `enqueue`.
            None if self.fair.slice_is_over(unsafe { current.as_ref() }) => self.fair.has_waiting(),
            None => self.fair.pick(current) != current,
        };
        Preempt::from(better)
    }

    /// When to call [`tick`](Self::tick): when the running entity's quantum or slice will be over.
    /// None if nobody competes with it. Valid until the queue is changed.
    #[inline]
    pub fn next_event(&self) -> Option<u64> {
        // SAFETY: runnable entities are alive by the contract of `enqueue`.
        let current = unsafe { self.current?.as_ref() };
        let left = match current.policy.get() {
            Policy::Fifo(_) => return None,
            Policy::RoundRobin(_) => {
                if current.ring_next.get() == self.current {
                    return None;
                }
                current.quantum_end_run_ticks.get().saturating_sub(current.run_ticks.get())
            }
            Policy::Fair(_) => {
                if !self.fair.has_waiting() {
                    return None;
                }
                self.fair.slice_left_ticks(current)
            }
        };
        Some(self.clock_ticks.saturating_add(left))
    }

    /// Brings the accounts up to date, and says whether the running entity's quantum or slice is
    /// over and somebody waits for it.
    pub fn tick(&mut self, now_ticks: u64) -> Preempt {
        self.charge(now_ticks);
        let over = self.next_event().is_some_and(|at| at <= self.clock_ticks);
        Preempt::from(over)
    }
}

#[cfg(test)]
impl RunQueue {
    /// The fair class's virtual time.
    pub(super) const fn virtual_time(&self) -> u64 {
        self.fair.virtual_time()
    }

    /// Panics unless the fair class's sums are those of its runnable entities.
    pub(super) fn check_fair<'a>(&self, runnable: impl Iterator<Item = &'a Entity>) {
        self.fair.check(runnable);
    }
}
