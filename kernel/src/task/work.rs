//! The work queue: things to be done soon by a task, asked for where they may not be done.
//!
//! Anybody may [`queue`] a [`Work`] item, interrupt handlers and code with preemption off included:
//! nothing is allocated, no lock is taken. An item that is queued twice before it runs runs once;
//! what it works on lies in a static, or around the item itself. One task, `kworker`, does all the
//! work in the order in which it came, and may sleep over it; items that want to run again later
//! wait with it.
//!
//! Its users: [`super::life`] reaps tasks that nobody joins, [`super::registry`] frees what lookups
//! no longer see.

use alloc::vec::Vec;
use core::ptr::NonNull;
use core::sync::atomic::{AtomicBool, Ordering};
use core::time::Duration;

use orrery_core::inbox::{Inbox, Link, Linked};

use crate::arch::{percpu, tsc};
use crate::sched::interrupt::{self, Deferred};
use crate::sched::task::Sleep;
use crate::sched::wait::{Sharing, WaitError, WaitMode, WaitQueue};
use crate::trace::events;

/// What becomes of a work item that has run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Then {
    /// It runs again when it is queued again.
    Done,
    /// It runs again after this time; until then it counts as queued.
    Again(Duration),
}

/// One thing to be done.
#[repr(C)]
pub struct Work {
    link: Link<Work>,
    queued: AtomicBool,
    function: fn(NonNull<Work>) -> Then,
}

// SAFETY: one link per item, used by the one inbox only.
unsafe impl Linked for Work {
    fn link(&self) -> &Link<Self> {
        &self.link
    }
}

impl Work {
    /// An item that calls `function` with itself.
    pub const fn new(function: fn(NonNull<Work>) -> Then) -> Self {
        Self { link: Link::new(), queued: AtomicBool::new(false), function }
    }
}

static WAITING: Inbox<Work> = Inbox::new();
static WORKER: WaitQueue = WaitQueue::new();

/// Has `work` done soon. False if it is queued already; then it will see all that was written before
/// this call. May be called from anywhere.
pub fn queue(work: &'static Work) -> bool {
    if work.queued.swap(true, Ordering::AcqRel) {
        return false;
    }
    // SAFETY: lives for ever; `queued` was clear, so it is in no inbox.
    unsafe { push(NonNull::from(work)) };
    true
}

/// # Safety
/// The item is in no inbox, and lives until it has run.
unsafe fn push(work: NonNull<Work>) {
    // SAFETY: by contract.
    let _ = unsafe { WAITING.push(work) };
    if percpu::in_interrupt() || percpu::preempt_depth() != 0 {
        // Perhaps under a lock that a wake takes.
        interrupt::raise(Deferred::WakeWorker);
    } else {
        wake();
    }
}

/// Wakes the worker.
pub fn wake() {
    WORKER.wake_all();
}

/// Waits until all that was queued before has been done. What runs [`Then::Again`] need not have.
/// For tasks other than the worker.
pub fn flush() {
    static FLUSHED: WaitQueue = WaitQueue::new();
    #[repr(C)]
    struct Marker {
        work: Work,
        is_reached: AtomicBool,
    }
    fn reach(work: NonNull<Work>) -> Then {
        // SAFETY: `flush` pushes whole markers, and waits for this store. After it the marker may be
        // gone, and is not used.
        unsafe { work.cast::<Marker>().as_ref() }.is_reached.store(true, Ordering::Release);
        FLUSHED.wake_all();
        Then::Done
    }
    let marker = Marker { work: Work::new(reach), is_reached: AtomicBool::new(false) };
    // SAFETY: new, and on this stack until the worker has reached it; the pointer covers all of it.
    unsafe { push(NonNull::from(&marker).cast()) };
    FLUSHED.wait_until(|| marker.is_reached.load(Ordering::Acquire));
}

/// The worker's body. Ends when it is asked to stop and nothing is queued.
pub fn run() -> i32 {
    let mut later: Vec<Later> = Vec::with_capacity(4);
    loop {
        let mode = WaitMode {
            sleep: Sleep::Interruptible,
            sharing: Sharing::Shared,
            deadline_ticks: later.iter().map(|item| item.due_ticks).min(),
        };
        if WORKER.wait(mode, || !WAITING.is_empty()) == Err(WaitError::Interrupted) {
            return 0;
        }
        for work in WAITING.drain() {
            perform(work, &mut later);
        }
        let now = tsc::now();
        while let Some(due) = later.iter().position(|item| item.due_ticks <= now) {
            let item = later.swap_remove(due);
            perform(item.work, &mut later);
        }
    }
}

/// An item that runs again.
struct Later {
    due_ticks: u64,
    work: NonNull<Work>,
}

fn perform(work: NonNull<Work>, later: &mut Vec<Later>) {
    // SAFETY: queued items live until they have run.
    let item = unsafe { work.as_ref() };
    let function = item.function;
    // From here on it may be queued again. Reads what every `queue` so far has written.
    item.queued.swap(false, Ordering::AcqRel);
    events::work_start(function as usize as u64);
    let then = function(work);
    events::work_end(function as usize as u64);
    if let Then::Again(pause) = then {
        // SAFETY: an item that wants to run again still exists.
        let item = unsafe { work.as_ref() };
        if !item.queued.swap(true, Ordering::AcqRel) {
            let pause_us = pause.as_micros().try_into().unwrap_or(u64::MAX);
            later.push(Later { due_ticks: tsc::now() + tsc::from_us(pause_us), work });
        }
    }
}
