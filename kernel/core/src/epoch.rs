//! When may memory be freed that others read without a lock?
//!
//! Lock-free lookups (PIDs, the task list) follow pointers that a writer may take away at any
//! moment. A removed object is therefore *deferred*: it is freed once every CPU has passed a
//! *quiescent state*, a moment at which it holds no such pointer. Quiescent states come for nothing:
//! a lookup runs with preemption disabled ([`ReadSide`]), so every context switch is one, and an
//! idle CPU is in one all the time. (Elsewhere: RCU, quiescent-state-based reclamation.)
//!
//! # The order, drawn
//!
//! `now` is a number that a reclaimer raises; each CPU repeats, at every quiescent state, what it
//! last read there.
//!
//! ```text
//!      reclaimer                                  reader's CPU
//!
//!  R1  unlink the object                      Q0  last read of an object of the old section
//!  R2  target = ++now          release        Q1  seen = now        acquire load, release store
//!  R3  all seen >= target?     acquire        Q2  reads of the next section
//!  R4  free the object
//! ```
//!
//! If R3 finds `seen >= target`, then Q1 read a `now` of R2 or later. Hence R1 happens before Q2
//! (release R2, acquire Q1): later sections cannot find the object. And Q0 happens before R4
//! (release Q1, acquire R3): earlier sections are done with it. No fence is needed, and a quiescent
//! state costs two `mov`.
//!
//! An idle CPU does not pass Q1; it says [`IDLE`] instead and is not waited for. Coming back, it has
//! to be seen as a reader before it reads anything, which takes a full fence on both sides
//! (R2.5 in [`Deferred::poll`], and the exchange in [`Epoch::leave_idle`]): if the reclaimer still
//! reads `IDLE`, the reader finds the object unlinked.
//!
//! An interrupt handler on an idle CPU that looks things up brackets that with `leave_idle` and
//! `enter_idle`.
//!
//! Neighbours: [`crate::idr`], [`crate::pid`]; the kernel's context switch and idle loop.

use core::marker::PhantomData;
use core::ptr::{self, NonNull};

use crate::cpuset::MAX_CPUS;
use crate::shim::{AtomicU64, AtomicUsize, Ordering, fence, seqcst_fence_for_loom};

/// What an idle CPU, or one that is not up yet, has "seen": it holds up nobody.
const IDLE: u64 = u64::MAX;

/// CPUs that are tracked. Loom looks at every atomic in every order; a few are enough there.
const CPUS: usize = if cfg!(loom) { 3 } else { MAX_CPUS };

/// One CPU's word, on a cache line of its own, since it is written at every context switch.
#[derive(Debug)]
#[repr(align(64))]
pub struct Seen(AtomicU64);

/// The clock of quiescent states. The kernel has one.
#[derive(Debug)]
pub struct Epoch {
    now: AtomicU64,
    /// One more than the highest number of a CPU that has ever left idle: only those are looked at.
    cpus: AtomicUsize,
    seen: [Seen; CPUS],
}

impl Epoch {
    /// An epoch in which all CPUs count as idle, until they call [`leave_idle`](Self::leave_idle)
    /// for the first time.
    #[cfg(not(loom))]
    pub const fn new() -> Self {
        Self {
            now: AtomicU64::new(0),
            cpus: AtomicUsize::new(0),
            seen: [const { Seen(AtomicU64::new(IDLE)) }; CPUS],
        }
    }

    /// An epoch in which all CPUs count as idle.
    #[cfg(loom)]
    pub fn new() -> Self {
        Self {
            now: AtomicU64::new(0),
            cpus: AtomicUsize::new(0),
            seen: core::array::from_fn(|_| Seen(AtomicU64::new(IDLE))),
        }
    }

    /// `cpu` is between two read-side sections: call it at every context switch, on that CPU.
    ///
    /// # Panics
    /// If `cpu` is [`MAX_CPUS`] or more; so do the others.
    #[inline]
    pub fn quiescent(&self, cpu: usize) {
        self.quiescent_at(&self.seen[cpu]);
    }

    /// [`quiescent`](Self::quiescent) for a CPU that keeps its [`word`](Self::word) at hand.
    #[inline(always)]
    pub fn quiescent_at(&self, word: &Seen) {
        let now = self.now.load(Ordering::Acquire);
        word.0.store(now, Ordering::Release);
    }

    /// What [`quiescent_at`](Self::quiescent_at) wants of `cpu`.
    pub const fn word(&self, cpu: usize) -> &Seen {
        &self.seen[cpu]
    }

    /// `cpu` goes idle: it holds no pointer and will not look anything up until
    /// [`leave_idle`](Self::leave_idle). Also for a CPU that goes offline.
    #[inline]
    pub fn enter_idle(&self, cpu: usize) {
        self.seen[cpu].0.store(IDLE, Ordering::Release);
    }

    /// `cpu` is idle no longer; afterwards it may look things up.
    #[inline]
    pub fn leave_idle(&self, cpu: usize) {
        if self.cpus.load(Ordering::Relaxed) <= cpu {
            // Before the exchange: a reclaimer that comes after that looks at this CPU.
            self.cpus.fetch_max(cpu + 1, Ordering::SeqCst);
        }
        let now = self.now.load(Ordering::Acquire);
        self.seen[cpu].0.swap(now, Ordering::SeqCst);
        seqcst_fence_for_loom();
    }

    /// Whether `cpu` counts as idle. It may change its mind at any time.
    pub fn is_idle(&self, cpu: usize) -> bool {
        self.seen[cpu].0.load(Ordering::Relaxed) == IDLE
    }

    /// Whether every CPU has been quiescent since `now` became `target`.
    fn has_passed(&self, target: u64) -> bool {
        let cpus = self.cpus.load(Ordering::SeqCst);
        self.seen.iter().take(cpus).all(|seen| seen.0.load(Ordering::SeqCst) >= target)
    }
}

impl Default for Epoch {
    fn default() -> Self {
        Self::new()
    }
}

/// Proof that the current CPU is inside a read-side section. What a lookup finds lives as long.
#[derive(Debug)]
pub struct ReadSide {
    /// Stays on its CPU.
    not_send: PhantomData<*const ()>,
}

impl ReadSide {
    /// Asserts that this is a read-side section.
    ///
    /// # Safety
    /// While the value lives, the current CPU passes no quiescent state and is not idle: in the
    /// kernel, preemption stays disabled and the caller does not block.
    #[inline]
    pub const unsafe fn assume() -> Self {
        Self { not_send: PhantomData }
    }
}

/// The hook inside an object that will be deferred.
#[derive(Debug)]
#[repr(C)]
pub struct Callback {
    next: *mut Callback,
    run: Option<unsafe fn(NonNull<Callback>)>,
}

impl Callback {
    /// A hook that is on no list.
    pub const fn new() -> Self {
        Self { next: ptr::null_mut(), run: None }
    }
}

impl Default for Callback {
    fn default() -> Self {
        Self::new()
    }
}

/// Callbacks in the order in which they came.
#[derive(Debug)]
struct List {
    head: *mut Callback,
    tail: *mut Callback,
    len: usize,
}

impl List {
    const fn new() -> Self {
        Self { head: ptr::null_mut(), tail: ptr::null_mut(), len: 0 }
    }
}

/// The objects that one CPU has unlinked and not yet freed. Used by that CPU with preemption
/// disabled, or under a lock.
///
/// They are freed in batches: one batch waits for its target while the next one gathers.
#[derive(Debug)]
pub struct Deferred {
    gathering: List,
    waiting: List,
    target: u64,
}

// SAFETY: the raw pointers lead to objects that belong to this list alone since `defer` (its
// contract), and whose callbacks may run on any CPU (also its contract).
unsafe impl Send for Deferred {}

impl Deferred {
    /// An empty list.
    pub const fn new() -> Self {
        Self { gathering: List::new(), waiting: List::new(), target: 0 }
    }

    /// Objects not yet freed.
    pub const fn pending(&self) -> usize {
        self.gathering.len + self.waiting.len
    }

    /// Calls `run(object)` once no CPU can hold a pointer to it that it got by a lookup.
    ///
    /// # Safety
    /// - `object` is the [`Callback`] in an object that was unlinked, so that no lookup that begins
    ///   now can find it, and that nobody else defers or frees.
    /// - `run` may be called with it on any CPU, later, and it stays valid until then. The pointer
    ///   keeps its provenance: derive it from the whole object where `run` frees the whole object.
    pub unsafe fn defer(&mut self, object: NonNull<Callback>, run: unsafe fn(NonNull<Callback>)) {
        // SAFETY: the object is valid and nobody else uses its callback (contract).
        unsafe { object.write(Callback { next: ptr::null_mut(), run: Some(run) }) };
        let list = &mut self.gathering;
        if list.tail.is_null() {
            list.head = object.as_ptr();
        } else {
            // SAFETY: objects on the list stay valid until they are run (contract).
            unsafe { (*list.tail).next = object.as_ptr() };
        }
        list.tail = object.as_ptr();
        list.len += 1;
    }

    /// Runs the callbacks whose time has come, and returns how many. Call it now and then on the
    /// list's CPU, for example from deferred work; it never waits. Callbacks must not use this
    /// list.
    pub fn poll(&mut self, epoch: &Epoch) -> usize {
        let mut ran = self.run_if_ripe(epoch);
        if self.waiting.len == 0 && self.gathering.len > 0 {
            self.waiting = core::mem::replace(&mut self.gathering, List::new());
            self.target = epoch.now.fetch_add(1, Ordering::AcqRel) + 1;
            ran += self.run_if_ripe(epoch);
        }
        ran
    }

    fn run_if_ripe(&mut self, epoch: &Epoch) -> usize {
        if self.waiting.len == 0 {
            return 0;
        }
        // R2.5: pairs with the exchange in `leave_idle`, as the module's header explains.
        fence(Ordering::SeqCst);
        if !epoch.has_passed(self.target) {
            return 0;
        }
        let ripe = core::mem::replace(&mut self.waiting, List::new());
        let mut next = ripe.head;
        while let Some(object) = NonNull::new(next) {
            // SAFETY: on the list, hence valid; read before `run`, which may free it.
            let callback = unsafe { object.read() };
            next = callback.next;
            if let Some(run) = callback.run {
                // SAFETY: every CPU has passed a quiescent state since the object was unlinked:
                // the condition under which `defer`'s caller allowed the call.
                unsafe { run(object) };
            }
        }
        ripe.len
    }
}

impl Default for Deferred {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;
    use std::boxed::Box;
    use std::sync::atomic::{AtomicUsize, Ordering as StdOrdering};

    #[repr(C)]
    struct Object<'a> {
        callback: Callback,
        freed: &'a AtomicUsize,
    }

    unsafe fn free(callback: NonNull<Callback>) {
        // SAFETY: `defer` below passes boxes of `Object` only.
        let object = unsafe { Box::from_raw(callback.cast::<Object<'_>>().as_ptr()) };
        object.freed.fetch_add(1, StdOrdering::Relaxed);
    }

    fn defer(list: &mut Deferred, freed: &AtomicUsize) {
        let object = Box::into_raw(Box::new(Object { callback: Callback::new(), freed }));
        // SAFETY: never linked anywhere; `free` undoes the box.
        unsafe { list.defer(NonNull::new(object).unwrap().cast(), free) };
    }

    #[test]
    fn an_object_waits_for_every_running_cpu_and_for_no_idle_one() {
        let (epoch, freed) = (Epoch::new(), AtomicUsize::new(0));
        let mut list = Deferred::new();
        epoch.leave_idle(0);
        epoch.leave_idle(1);
        defer(&mut list, &freed);
        assert_eq!(list.poll(&epoch), 0);
        epoch.quiescent(0);
        assert_eq!(list.poll(&epoch), 0, "CPU 1 may still read it");
        epoch.quiescent(1);
        assert_eq!(list.poll(&epoch), 1);
        assert_eq!((freed.load(StdOrdering::Relaxed), list.pending()), (1, 0));

        defer(&mut list, &freed);
        epoch.quiescent(0);
        assert_eq!(list.poll(&epoch), 0, "that was before the grace period began");
        epoch.enter_idle(1);
        assert!(epoch.is_idle(1) && !epoch.is_idle(0));
        epoch.quiescent_at(epoch.word(0));
        assert_eq!(list.poll(&epoch), 1);
        epoch.leave_idle(1);
        defer(&mut list, &freed);
        assert_eq!(list.poll(&epoch), 0);
        epoch.enter_idle(0);
        epoch.enter_idle(1);
        assert_eq!(list.poll(&epoch), 1);
    }

    #[test]
    fn later_objects_gather_while_a_batch_waits() {
        let (epoch, freed) = (Epoch::new(), AtomicUsize::new(0));
        let mut list = Deferred::new();
        epoch.leave_idle(0);
        defer(&mut list, &freed);
        list.poll(&epoch);
        epoch.quiescent(0);
        defer(&mut list, &freed);
        defer(&mut list, &freed);
        assert_eq!(list.poll(&epoch), 1);
        assert_eq!(list.pending(), 2);
        epoch.quiescent(0);
        assert_eq!(list.poll(&epoch), 2);
        assert_eq!(freed.load(StdOrdering::Relaxed), 3);
    }
}

/// A reader that looks up a pointer, against a writer that removes and frees it. The object is a
/// loom cell: reading it while, or unordered with, its reclamation is reported.
#[cfg(all(test, loom))]
mod loom_tests {
    use super::*;
    use crate::shim::{AtomicPtr, loom_model};
    use loom::cell::UnsafeCell;
    use loom::sync::Arc;
    use std::boxed::Box;

    #[repr(C)]
    struct Object {
        callback: Callback,
        value: UnsafeCell<u32>,
    }

    unsafe fn reclaim(callback: NonNull<Callback>) {
        // SAFETY: `remove` passes boxes of `Object` only.
        let object = unsafe { Box::from_raw(callback.cast::<Object>().as_ptr()) };
        // SAFETY: exclusive, as loom checks.
        object.value.with_mut(|value| unsafe { *value = 0 });
    }

    struct World {
        epoch: Epoch,
        slot: AtomicPtr<Object>,
    }

    fn world() -> Arc<World> {
        let object = Object { callback: Callback::new(), value: UnsafeCell::new(7) };
        let slot = AtomicPtr::new(Box::into_raw(Box::new(object)));
        Arc::new(World { epoch: Epoch::new(), slot })
    }

    fn look(world: &World) {
        if let Some(object) = NonNull::new(world.slot.load(Ordering::Acquire)) {
            // SAFETY: what is under test.
            let value = unsafe { object.as_ref() }.value.with(|value| unsafe { *value });
            assert_eq!(value, 7);
        }
    }

    fn remove(world: &World, list: &mut Deferred) {
        let object = world.slot.load(Ordering::Relaxed);
        world.slot.store(ptr::null_mut(), Ordering::Release);
        // SAFETY: just unlinked, by the only writer.
        unsafe { list.defer(NonNull::new(object).unwrap().cast(), reclaim) };
    }

    #[test]
    fn loom_epoch_waits_for_a_running_reader() {
        loom_model(|| {
            let world = world();
            world.epoch.leave_idle(1);
            let reader = {
                let world = world.clone();
                loom::thread::spawn(move || {
                    look(&world);
                    world.epoch.quiescent(1);
                    look(&world);
                    world.epoch.quiescent(1);
                })
            };
            let mut list = Deferred::new();
            remove(&world, &mut list);
            list.poll(&world.epoch);
            list.poll(&world.epoch);
            reader.join().unwrap();
            world.epoch.quiescent(1);
            list.poll(&world.epoch);
            assert_eq!(list.pending(), 0);
        });
    }

    #[test]
    fn loom_epoch_sees_a_reader_that_comes_out_of_idle() {
        loom_model(|| {
            let world = world();
            let reader = {
                let world = world.clone();
                loom::thread::spawn(move || {
                    world.epoch.leave_idle(1);
                    look(&world);
                    world.epoch.enter_idle(1);
                })
            };
            let mut list = Deferred::new();
            remove(&world, &mut list);
            list.poll(&world.epoch);
            list.poll(&world.epoch);
            reader.join().unwrap();
            list.poll(&world.epoch);
            assert_eq!(list.pending(), 0);
        });
    }
}
