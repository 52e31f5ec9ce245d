//! The fair class of one CPU: earliest eligible virtual deadline first (EEVDF).
//!
//! From Stoica and Abdel-Wahab, "Earliest Eligible Virtual Deadline First" (1995), as Linux has it
//! since 6.6 (kernel/sched/fair.c); names follow Linux.
//!
//! - An entity's *vruntime* `v` grows by 1024/weight for every tick it runs.
//! - The queue's virtual time `V` is the mean of all runnable entities' vruntimes, each weighted.
//! - An entity's *lag* `V - v` is what it is owed. It is *eligible* if it is owed something or
//!   nothing. Weighted, all lags add up to zero; so some entity is always eligible.
//! - An entity asks for one slice at a time. It should have received it by its virtual *deadline*,
//!   a slice's virtual length after the vruntime at which it asked. Of the eligible, the one with
//!   the earliest deadline runs.
//!
//! Lag is kept while an entity is off the queue (asleep, on its way to another CPU, or between two
//! nice values), limited to two slices either way. An entity that comes back is placed so that its
//! lag is, once it has moved `V` by joining, what it was when it left. Only a sleeper's debt
//! shrinks: by what `V` gains while the others run that long, as if it had waited until it was
//! eligible and only then gone to sleep. (Linux keeps the sleeper queued until then, "delayed
//! dequeue".) Otherwise a task that ran a little more than its share before it slept would, when
//! woken, wait behind every hog.
//!
//! When an entity that has received more than its share exits, `V` falls, as the mean of those who are left. A newcomer
//! starts where `V` had come to before, so that what the dead have used counts: with a stream of
//! newcomers that run and exit, each at the `V` of the moment, `V` would never pass those who owe
//! something, and they would starve. (Linux starts every newcomer at the `V` of the moment.)
//!
//! A comparison of `V` with a vruntime needs no division: with `key = v - origin`, `V >= v` means
//! `Σ weight·key >= key · Σ weight`. The sum includes the running entity, so that switching between
//! entities changes nothing in it. It equals `load · (V - origin)`, and the origin is moved along, so
//! 64 bits hold it, and any `key · load`, while a queue's load is below 2^30 (12,000 entities of
//! nice -20 on one CPU) and nobody overruns its slice by minutes while others wait. Arithmetic wraps:
//! beyond that a pick can be wrong, and the sum is exact again as soon as it fits again.
//!
//! The running entity is not in the tree.

use super::entity::{Entity, before};
use crate::tree::{Link, Tree};
use core::ptr::NonNull;

/// How far a vruntime may be from the origin before the origin is moved.
const MAX_KEY: u64 = if cfg!(test) { 1 << 24 } else { 1 << 30 };

#[derive(Debug)]
pub(super) struct FairQueue {
    /// Runnable entities by deadline, without the running one.
    tree: Tree<Entity>,
    /// Σ weight over all runnable entities.
    load: u64,
    /// Σ weight · (vruntime - origin) over all runnable entities.
    weighted_keys: i64,
    /// Where keys count from. When nobody is runnable it is the queue's virtual time.
    origin: u64,
    /// The latest `V` at which an entity with a debt exited while others were runnable. Nobody new starts before it.
    past_virtual_time: u64,
    slice_ticks: u64,
}

/// How an entity comes to the queue.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Arrival {
    /// It is new: it starts with half a slice, as in Linux, and no lag, or the debt that the dead have left.
    New,
    /// It slept for so long: it has its lag, less what it owed and has paid by sleeping, and asks
    /// for a slice.
    Woken { slept_ticks: u64 },
    /// It was on the way: it has its lag and what was left of its slice.
    Moved,
}

/// How an entity leaves the queue.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Departure {
    /// To sleep: its lag is kept.
    Sleeps,
    /// To come back here or elsewhere: its lag and the rest of its slice are kept.
    Moves,
    /// For good.
    Exits,
}

/// Real ticks as virtual time at a rate.
#[inline]
const fn to_virtual(ticks: u64, rate: u64) -> u64 {
    ((ticks as u128 * rate as u128) >> 32) as u64
}

impl FairQueue {
    pub const fn new(slice_ticks: u64) -> Self {
        // As in Linux the virtual clock starts shortly before it wraps, so that code which cannot
        // stand that fails early.
        let origin = (1u64 << 20).wrapping_neg();
        let past_virtual_time = origin;
        Self {
            tree: Tree::new(),
            load: 0,
            weighted_keys: 0,
            origin,
            past_virtual_time,
            slice_ticks,
        }
    }

    /// Σ weight over all runnable entities.
    pub const fn load(&self) -> u64 {
        self.load
    }

    /// Whether anybody but the running entity is runnable.
    #[inline]
    pub const fn has_waiting(&self) -> bool {
        !self.tree.is_empty()
    }

    /// Entities that wait, by deadline.
    pub fn iter(&self) -> impl Iterator<Item = NonNull<Entity>> {
        self.tree.iter()
    }

    #[inline]
    const fn key(&self, vruntime: u64) -> i64 {
        vruntime.wrapping_sub(self.origin) as i64
    }

    /// Whether an entity with this vruntime has received no more than its share.
    #[inline]
    const fn is_eligible(&self, vruntime: u64) -> bool {
        self.weighted_keys >= self.key(vruntime).wrapping_mul(self.load as i64)
    }

    /// The queue's virtual time `V`, rounded down.
    pub const fn virtual_time(&self) -> u64 {
        if self.load == 0 {
            return self.origin;
        }
        let mean = self.weighted_keys.div_euclid(self.load as i64);
        self.origin.wrapping_add(mean as u64)
    }

    /// Moves an entity's vruntime, for the running entity or one outside the tree.
    #[inline]
    fn advance(&mut self, entity: &Entity, by: u64) {
        let vruntime = entity.vruntime.get().wrapping_add(by);
        entity.vruntime.set(vruntime);
        self.add_weighted(entity.weight.get(), by);
        if self.key(vruntime) as u64 > MAX_KEY {
            self.move_origin(vruntime);
        }
    }

    #[cold]
    fn move_origin(&mut self, to: u64) {
        self.add_weighted(self.load, (self.key(to) as u64).wrapping_neg());
        self.origin = to;
    }

    /// Adds `weight · key` to the sum.
    #[inline]
    fn add_weighted(&mut self, weight: u64, key: u64) {
        self.weighted_keys = self.weighted_keys.wrapping_add(weight.wrapping_mul(key) as i64);
    }

    /// The running entity ran for this long.
    #[inline]
    pub fn charge(&mut self, running: &Entity, ticks: u64) {
        self.advance(running, to_virtual(ticks, running.virtual_rate.get()));
    }

    /// Whether the running entity has received its slice.
    #[inline]
    pub fn slice_is_over(&self, running: &Entity) -> bool {
        !before(running.vruntime.get(), running.deadline.get())
    }

    /// Ticks until the running entity will have received its slice; 0 if it has.
    #[inline]
    pub fn slice_left_ticks(&self, running: &Entity) -> u64 {
        let left = running.deadline.get().wrapping_sub(running.vruntime.get()) as i64;
        if left <= 0 {
            return 0;
        }
        // left / (1024 / weight), rounded up; at most two slices, so it fits.
        (left as u64).wrapping_mul(running.weight.get()).wrapping_add(1023) >> 10
    }

    /// Lets the running entity ask for its next slice if it has received one.
    #[inline]
    pub fn renew_slice(&mut self, running: &Entity) {
        if self.slice_is_over(running) {
            running.deadline.set(running.vruntime.get().wrapping_add(running.slice_virtual.get()));
        }
    }

    /// The running entity gives up the rest of its slice. If it was eligible, it pays for it as if
    /// it had run: it loses what it was owed, and the others come first. (Linux since 6.18. Moving
    /// the deadline alone, as before, lets it run away from `V` without bound.)
    #[inline]
    pub fn forfeit_slice(&mut self, running: &Entity) {
        self.renew_slice(running);
        if self.is_eligible(running.vruntime.get()) {
            let deadline = running.deadline.get();
            self.advance(running, deadline.wrapping_sub(running.vruntime.get()));
            running.deadline.set(deadline.wrapping_add(running.slice_virtual.get()));
        }
    }

    /// Of those that wait, the eligible one with the earliest deadline.
    #[inline]
    fn first_eligible(&self) -> Link<Entity> {
        let first = self.tree.first()?;
        // SAFETY: entities in the tree are alive.
        if self.is_eligible(unsafe { first.as_ref() }.vruntime.get()) {
            return Some(first);
        }
        self.search_eligible()
    }

    /// Descends to the leftmost eligible entity: left where that subtree has any, else the node
    /// itself, else right.
    fn search_eligible(&self) -> Link<Entity> {
        let mut at = self.tree.root();
        while let Some(node) = at {
            // SAFETY: entities in the tree are alive.
            let entity = unsafe { node.as_ref() };
            let (left, right) = self.tree.children(entity);
            // SAFETY: as above.
            let lowest = left.map(|left| unsafe { left.as_ref() }.min_vruntime.get());
            if lowest.is_some_and(|lowest| self.is_eligible(lowest)) {
                at = left;
            } else if self.is_eligible(entity.vruntime.get()) {
                return Some(node);
            } else {
                at = right;
            }
        }
        None
    }

    /// Takes out who should run if the running entity does not: when nobody is eligible without it,
    /// whoever has the earliest deadline.
    #[inline]
    pub fn take_waiting(&mut self) -> Link<Entity> {
        if let Some(only) = self.tree.pop_only() {
            return Some(only);
        }
        let next = self.first_eligible().or(self.tree.first())?;
        // SAFETY: it was found in the tree.
        unsafe { self.tree.remove(next) };
        Some(next)
    }

    /// Who should run, the running entity included.
    #[inline]
    pub fn pick(&self, running: NonNull<Entity>) -> NonNull<Entity> {
        let Some(best) = self.first_eligible() else { return running };
        // SAFETY: runnable entities are alive.
        let (this, other) = unsafe { (running.as_ref(), best.as_ref()) };
        if before(this.deadline.get(), other.deadline.get())
            && self.is_eligible(this.vruntime.get())
        {
            running
        } else {
            best
        }
    }

    /// Takes out who should run instead of the running entity; none if nobody should.
    #[inline]
    pub fn take_better(&mut self, running: NonNull<Entity>) -> Link<Entity> {
        let best = self.pick(running);
        if best == running {
            return None;
        }
        // SAFETY: whoever is picked and does not run is in the tree.
        unsafe { self.tree.remove(best) };
        Some(best)
    }

    /// Takes an entity that waits out of the tree, to leave.
    ///
    /// # Safety
    /// It is in the tree.
    #[inline]
    pub unsafe fn take(&mut self, entity: NonNull<Entity>) {
        // SAFETY: the caller's contract.
        unsafe { self.tree.remove(entity) }
    }

    /// Puts an entity that ran or has just joined into the tree, to wait.
    ///
    /// # Safety
    /// It has joined and is not in the tree, and stays alive, where it is, until it has left.
    #[inline]
    pub unsafe fn put(&mut self, entity: NonNull<Entity>) {
        // SAFETY: the caller's contract.
        unsafe { self.tree.insert(entity) }
    }

    /// Makes an entity one of the runnable; it is not in the tree yet.
    pub fn join(&mut self, entity: &Entity, arrival: Arrival) {
        let slice = to_virtual(self.slice_ticks, entity.virtual_rate.get());
        entity.slice_virtual.set(slice);
        let weight = entity.weight.get();
        let virtual_time = self.virtual_time();
        let lag = match arrival {
            Arrival::New => (virtual_time.wrapping_sub(self.past_virtual_time) as i64).min(0),
            Arrival::Moved => entity.lag.get(),
            Arrival::Woken { slept_ticks } => self.lag_after_sleep(entity.lag.get(), slept_ticks),
        };
        let lag = self.limit_lag(entity, lag);
        // Joining moves V towards the newcomer, by weight / (load + weight) of the distance. That
        // much more distance leaves the lag that is wanted: lag * (load + weight) / load. The
        // product is at most 1024 times two slices.
        let distance = match self.load {
            0 => 0,
            load => lag.wrapping_add(lag.wrapping_mul(weight as i64) / load as i64),
        };
        let vruntime = virtual_time.wrapping_sub(distance as u64);
        let request = match arrival {
            Arrival::New => slice / 2,
            Arrival::Woken { .. } => slice,
            Arrival::Moved => match entity.slice_left_virtual.get() {
                0 => slice,
                left => left.min(slice),
            },
        };
        entity.slice_left_virtual.set(0);
        entity.vruntime.set(vruntime);
        entity.deadline.set(vruntime.wrapping_add(request));
        self.load += weight;
        self.add_weighted(weight, self.key(vruntime) as u64);
    }

    /// Makes an entity one that is not runnable; it is not in the tree.
    pub fn leave(&mut self, entity: &Entity, departure: Departure) {
        let vruntime = entity.vruntime.get();
        if departure != Departure::Exits {
            let lag = self.virtual_time().wrapping_sub(vruntime) as i64;
            entity.lag.set(self.limit_lag(entity, lag));
        } else if self.has_waiting() && !self.is_eligible(vruntime) {
            let virtual_time = self.virtual_time();
            if before(self.past_virtual_time, virtual_time) {
                self.past_virtual_time = virtual_time;
            }
        }
        if departure == Departure::Moves && !self.slice_is_over(entity) {
            entity.slice_left_virtual.set(entity.deadline.get().wrapping_sub(vruntime));
        }
        let weight = entity.weight.get();
        self.add_weighted(weight, (self.key(vruntime) as u64).wrapping_neg());
        self.load -= weight;
        if self.load == 0 {
            self.origin = vruntime;
            // Nobody is left who could be owed anything.
            self.past_virtual_time = vruntime;
        }
    }

    /// What is left of a debt after a sleep during which the others ran.
    fn lag_after_sleep(&self, lag: i64, slept_ticks: u64) -> i64 {
        if lag >= 0 || self.load == 0 {
            return lag;
        }
        let gained = slept_ticks.saturating_mul(1024) / self.load;
        lag.saturating_add_unsigned(gained).min(0)
    }

    /// At most two slices of this entity, either way.
    fn limit_lag(&self, entity: &Entity, lag: i64) -> i64 {
        let limit = 2 * entity.slice_virtual.get() as i64;
        lag.clamp(-limit, limit)
    }
}

#[cfg(test)]
impl FairQueue {
    /// Panics unless the sums are those of the runnable entities, and all lags add up to zero.
    pub fn check<'a>(&self, runnable: impl Iterator<Item = &'a Entity>) {
        let (mut load, mut weighted_keys, mut weighted_lags) = (0, 0i128, 0);
        for entity in runnable {
            let weight = entity.weight.get();
            load += weight;
            weighted_keys += weight as i128 * i128::from(self.key(entity.vruntime.get()));
            let lag = self.virtual_time().wrapping_sub(entity.vruntime.get()) as i64;
            weighted_lags += weight as i128 * lag as i128;
        }
        assert_eq!(self.load, load);
        assert_eq!(i128::from(self.weighted_keys), weighted_keys);
        // V is rounded down by less than 1.
        assert!(weighted_lags <= 0 && -weighted_lags <= i128::from(load), "{weighted_lags}");
    }
}
