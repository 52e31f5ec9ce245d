//! Numbers, and the list and tree of all tasks.
//!
//! Each task has a number in its PID namespace and in all above, up to the root. A number finds its
//! task without a lock, and the list can be walked while tasks come and go: what is found is a
//! counted reference, taken inside a read-side section of [`crate::sched::epoch`].
//!
//! ```text
//!   reserve ──▶ numbers are taken, nobody finds them ──▶ publish ──▶ … ──▶ leave ──▶ grace ──▶ freed
//!                       └── dropped: given back
//! ```
//!
//! The registry holds a reference to every task until the grace period after [`leave`] is over; that
//! is what makes a lookup's reference count safe to raise. The work item [`RECLAIM`] sees to the
//! end of that period, [`barrier`] waits for it.
//!
//! Changes are made under one lock, "pid namespace". The algorithms are `orrery_core::pid`'s.

use alloc::boxed::Box;
use alloc::sync::Arc;
use core::mem::offset_of;
use core::ptr::{self, NonNull};
use core::sync::atomic::{AtomicBool, AtomicPtr, Ordering};
use core::time::Duration;

use orrery_core::epoch::{Callback, Deferred};
use orrery_core::idr::Writer;
use orrery_core::inbox::Inbox;
use orrery_core::pid::{NamespaceRef, OwnedPid, Pid, PidError};

use super::life;
use super::work::{self, Then, Work};
use crate::sched::epoch::{self, EPOCH, Reading};
use crate::sched::{self, Task};
use crate::sync::{SpinGuard, SpinLock};

/// What changes need.
struct Changes {
    writer: Writer,
    deferred: Deferred,
}

static CHANGES: SpinLock<Changes> = SpinLock::new(
    "pid namespace",
    Changes {
        // SAFETY: the only writer; all namespaces are changed with it.
        writer: unsafe { Writer::new() },
        deferred: Deferred::new(),
    },
);

static ROOT: AtomicPtr<Namespace> = AtomicPtr::new(ptr::null_mut());

/// Tasks that no lookup can find any more, on their way out of the lock under which that turned out.
static RIPE: Inbox<Task> = Inbox::new();

/// Frees what was removed, when its time has come.
static RECLAIM: Work = Work::new(reclaim);
/// Whether something was left to [`RECLAIM`] since it ran.
static LEFT: AtomicBool = AtomicBool::new(false);
/// How long lookups may take before CPUs are interrupted for their sake.
const GRACE: Duration = Duration::from_millis(10);

/// A PID namespace: its tasks have numbers of their own in it, beginning with 1.
#[derive(Clone)]
pub struct Namespace(NamespaceRef<Task>);

/// In which namespace a new task gets its numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Nesting {
    /// In that of the task which makes it.
    Inherit,
    /// In a new one below that. When this first task of it exits, the others are asked to stop.
    New,
}

/// Makes the root namespace, whose numbers stay below `limit`. Once, before any task.
///
/// # Panics
/// Without memory, or if the limit is none.
pub fn init(limit: u32) {
    let root = NamespaceRef::new_root(&mut CHANGES.lock().writer, limit)
        .unwrap_or_else(|why| panic!("the root PID namespace cannot be made: {why}"));
    ROOT.store(Box::leak(Box::new(Namespace(root))), Ordering::Release);
}

/// Takes the largest number of the root namespace once. Its tree has its final height then, and holds no
/// more memory later than now when as many tasks exist.
pub fn warm_up() {
    let mut changes = CHANGES.lock();
    let Changes { writer, deferred } = &mut *changes;
    let root = &Namespace::root().0;
    if let Ok(numbers) = OwnedPid::reserve(writer, deferred, root, &[root.pid_max() - 1]) {
        numbers.free(writer, deferred);
    }
    settle(changes);
}

impl Namespace {
    /// The one that all others are below.
    ///
    /// # Panics
    /// Before [`init`].
    pub fn root() -> &'static Self {
        // SAFETY: null, or leaked by `init`.
        unsafe { ROOT.load(Ordering::Acquire).as_ref() }.expect("registry::init has run")
    }

    /// How deep it is: 0 for the root.
    pub fn level(&self) -> u32 {
        self.0.level()
    }

    /// Numbers in use, those of namespaces below included.
    pub fn live(&self) -> u32 {
        self.0.live()
    }

    /// Whether its first task has exited, so that it takes no more.
    pub fn is_ending(&self) -> bool {
        self.0.is_dying()
    }

    /// Keeps numbers below `limit` from now on; tasks that have larger ones keep them.
    ///
    /// # Errors
    /// [`PidError::InvalidLimit`] outside of 2 to 4,194,304.
    pub fn set_limit(&self, limit: u32) -> Result<(), PidError> {
        self.0.set_pid_max(&mut CHANGES.lock().writer, limit)
    }

    /// The task with this number here, zombies that may be joined included. Takes no lock.
    pub fn find(&self, number: u32) -> Option<Arc<Task>> {
        let reading = epoch::read();
        task_of(self.0.lookup(number, reading.section())?, &reading).filter(|it| !it.is_dead())
    }

    /// Every task in it or below whose number here is at least `from`, with that number, lowest first. Tasks may
    /// come and go meanwhile: those that are there all the time are met. Between two of them the caller may sleep.
    pub fn tasks_from(&self, from: u32) -> impl Iterator<Item = (u32, Arc<Task>)> {
        let mut from = from;
        core::iter::from_fn(move || {
            loop {
                let (number, task) = self.next(from)?;
                from = number + 1;
                if let Some(task) = task {
                    return Some((number, task));
                }
            }
        })
    }

    fn next(&self, from: u32) -> Option<(u32, Option<Arc<Task>>)> {
        let reading = epoch::read();
        let (number, pid) = self.0.next(from, reading.section())?;
        Some((number, task_of(pid, &reading)))
    }
}

impl PartialEq for Namespace {
    fn eq(&self, other: &Self) -> bool {
        self.0.is(&other.0)
    }
}

impl Eq for Namespace {}

/// A reference to the task that a PID belongs to, which was found in this section.
fn task_of(pid: &Pid<Task>, _reading: &Reading) -> Option<Arc<Task>> {
    let task = pid.subject()?.as_ptr();
    // SAFETY: from `Arc::into_raw`. The registry's own reference, which that was, is given up after
    // the section at the earliest.
    unsafe {
        Arc::increment_strong_count(task);
        Some(Arc::from_raw(task))
    }
}

impl Task {
    /// The namespace it has its innermost number in. None for idle tasks and those that are buried.
    pub fn namespace(&self) -> Option<Namespace> {
        self.numbers.lock().as_ref().map(|numbers| Namespace(numbers.namespace().clone()))
    }

    /// Its number as seen from `namespace`; none if it is not seen there, or buried.
    pub fn pid_in(&self, namespace: &Namespace) -> Option<u32> {
        self.numbers.lock().as_ref()?.number_in(&namespace.0)
    }
}

/// Numbers that are taken and not found yet. Dropped, they are given back.
pub struct Reserved(Option<OwnedPid<Task>>);

/// Takes numbers for a task that is about to be made by one in namespace `of`.
///
/// # Errors
/// A [`PidError`]; then nothing has changed.
pub fn reserve(nesting: Nesting, of: &Namespace) -> Result<Reserved, PidError> {
    let mut changes = CHANGES.lock();
    let Changes { writer, deferred } = &mut *changes;
    let namespace = match nesting {
        Nesting::Inherit => of.0.clone(),
        Nesting::New => of.0.new_child(writer)?,
    };
    let numbers = OwnedPid::reserve(writer, deferred, &namespace, &[]);
    settle(changes);
    numbers.map(|numbers| Reserved(Some(numbers)))
}

impl Reserved {
    fn numbers(&self) -> &OwnedPid<Task> {
        self.0.as_ref().expect("numbers that are not published")
    }

    /// The number in the root namespace.
    pub fn number(&self) -> u32 {
        self.numbers().number()
    }

    /// The namespace of the innermost number.
    pub(super) fn namespace(&self) -> Namespace {
        Namespace(self.numbers().namespace().clone())
    }

    /// Gives the numbers to `task` and lets everybody find it.
    ///
    /// # Errors
    /// [`PidError::Dying`] if the namespace has ended since; the numbers are given back.
    pub(super) fn publish(mut self, task: &Arc<Task>) -> Result<(), PidError> {
        let mut changes = CHANGES.lock();
        let mut numbers = task.numbers.lock();
        let Some(mine) = self.0.take() else { return Ok(()) };
        task.set_pid(mine.number());
        let mine = numbers.insert(mine);
        let subject = Arc::into_raw(task.clone());
        // SAFETY: an `Arc`'s pointer is not null.
        let subject = unsafe { NonNull::new_unchecked(subject.cast_mut()) };
        if let Err(why) = mine.publish(&mut changes.writer, subject) {
            self.0 = numbers.take();
            // SAFETY: nobody has seen it.
            drop(unsafe { Arc::from_raw(subject.as_ptr()) });
            return Err(why);
        }
        let namespace = mine.namespace();
        if mine.number_in(namespace) == Some(1) {
            namespace.set_reaper(&mut changes.writer, Some(subject));
        }
        count_child(task.parent(), 1);
        Ok(())
    }
}

impl Drop for Reserved {
    fn drop(&mut self) {
        if let Some(numbers) = self.0.take() {
            let mut changes = CHANGES.lock();
            let Changes { writer, deferred } = &mut *changes;
            numbers.free(writer, deferred);
            settle(changes);
        }
    }
}

/// Corrects the number of `parent`'s children. Under the registry's lock.
fn count_child(parent: u32, change: i32) {
    let count = |task: &Task| task.children.fetch_add(change.cast_unsigned(), Ordering::Relaxed);
    // Mostly it is a child of the running task, which makes or buries it.
    let me = sched::current();
    if me.pid() == parent {
        count(me);
    } else if let Some(parent) = Namespace::root().find(parent) {
        count(&parent);
    }
}

/// Frees a reaped task's numbers, at once, and the registry's reference to it, later.
pub(super) fn leave(task: &Task) {
    let mut changes = CHANGES.lock();
    let Some(numbers) = task.numbers.lock().take() else { return };
    count_child(task.parent(), -1);
    let subject = numbers.subject();
    let Changes { writer, deferred } = &mut *changes;
    numbers.free(writer, deferred);
    if let Some(subject) = subject {
        // SAFETY: the callback lies in the task, whose pointer covers all of it. The task was just
        // unlinked, once; the registry's reference keeps it until `ripen`.
        unsafe { deferred.defer(subject.byte_add(offset_of!(Task, grace)).cast(), ripen) };
    }
    settle(changes);
}

/// # Safety
/// `callback` is that of a task that [`leave`] has unlinked, and its grace period is over.
unsafe fn ripen(callback: NonNull<Callback>) {
    // SAFETY: inside a task (contract).
    let task = unsafe { callback.byte_sub(offset_of!(Task, grace)) }.cast::<Task>();
    // SAFETY: a dead task is in no inbox; the registry's reference keeps it.
    let _ = unsafe { RIPE.push(task) };
}

/// After a change: frees what can be freed, and has the rest freed later.
fn settle(changes: SpinGuard<'_, Changes>) {
    if poll(changes) > 0 {
        LEFT.store(true, Ordering::Relaxed);
        work::queue(&RECLAIM);
    }
}

/// Frees what can be freed, and says how much is left.
fn poll(mut changes: SpinGuard<'_, Changes>) -> usize {
    changes.deferred.poll(&EPOCH);
    let left = changes.deferred.pending();
    drop(changes);
    for task in RIPE.drain() {
        // SAFETY: the reference that `publish` made, given up once; no lookup finds the task.
        drop(unsafe { Arc::from_raw(task.as_ptr().cast_const()) });
    }
    left
}

/// [`RECLAIM`]. CPUs that change tasks or idle need not be asked; one that has done neither for a
/// whole [`GRACE`] is. It comes back until nothing was left to it for as long: while tasks come and go, the next
/// change frees what the one before has left, and the worker need not be woken for each.
fn reclaim(_work: NonNull<Work>) -> Then {
    static LATE: AtomicBool = AtomicBool::new(false);
    let is_late = LATE.load(Ordering::Relaxed);
    if is_late {
        epoch::hurry();
    }
    let was_left = LEFT.swap(false, Ordering::Relaxed);
    let left = poll(CHANGES.lock());
    LATE.store(left > 0, Ordering::Relaxed);
    if was_left || left > 0 { Then::Again(GRACE) } else { Then::Done }
}

/// Waits until all that was removed is freed, and what the root namespace keeps for numbers to come. For a quiet
/// moment: it has no end while tasks keep dying. The caller may be preempted.
pub fn barrier() {
    let mut changes = CHANGES.lock();
    let Changes { writer, deferred } = &mut *changes;
    Namespace::root().0.trim(writer, deferred);
    drop(changes);
    while life::reap() || poll(CHANGES.lock()) > 0 {
        epoch::hurry();
        sched::yield_now();
    }
}

/// What the exit of `task` means for others: its children get another parent, and if it was the
/// first of its namespace, that ends.
pub(super) fn orphan(task: &Task) {
    let Some(namespace) = task.namespace() else { return };
    end_namespace(&namespace, task);
    if task.children.load(Ordering::Relaxed) == 0 {
        return;
    }
    // None is added meanwhile: the task makes none, and inherits none, see `heir`.
    for child in tasks() {
        if child.parent() == task.pid() {
            let _changes = CHANGES.lock();
            if child.numbers.lock().is_some() {
                let heir = heir(&namespace, task);
                child.set_parent(heir);
                count_child(heir, 1);
                count_child(task.pid(), -1);
            }
        }
    }
}

/// If `task` is the first of the namespace, which it has not ended yet: the namespace takes no more tasks, and those that
/// it has are asked to stop.
pub fn end_namespace(namespace: &Namespace, task: &Task) {
    if !end(namespace, task) {
        return;
    }
    for (_, other) in namespace.tasks_from(0) {
        if !ptr::eq(&*other, task) {
            life::request_stop(&other);
        }
    }
}

/// If `task` is the first of the namespace: it takes no more tasks, and nobody inherits in it.
fn end(namespace: &Namespace, task: &Task) -> bool {
    let mut changes = CHANGES.lock();
    let is_first = namespace.0.reaper().is_some_and(|first| ptr::eq(first.as_ptr(), task));
    if is_first {
        namespace.0.begin_dying(&mut changes.writer);
        namespace.0.set_reaper(&mut changes.writer, None);
    }
    is_first
}

/// Number of the task that inherits `task`'s children: the first of the nearest namespace that still
/// has one. Under the registry's lock, so that it does not exit at the same time.
fn heir(namespace: &Namespace, task: &Task) -> u32 {
    let mut at = Some(&namespace.0);
    while let Some(namespace) = at {
        match namespace.reaper() {
            Some(first) if !ptr::eq(first.as_ptr(), task) => {
                // SAFETY: cleared, under the lock, before that task exits.
                return unsafe { first.as_ref() }.pid();
            }
            _ => at = namespace.parent(),
        }
    }
    0
}

/// The task with this number in the root namespace.
pub fn find(pid: u32) -> Option<Arc<Task>> {
    Namespace::root().find(pid)
}

/// Tasks that exist, zombies and those in the making included, idle tasks not.
pub fn count() -> usize {
    Namespace::root().live() as usize
}

/// Every task, lowest number first; see [`Namespace::tasks_from`] for those that come and go.
pub fn tasks() -> impl Iterator<Item = Arc<Task>> {
    Namespace::root().tasks_from(0).map(|(_, task)| task)
}
