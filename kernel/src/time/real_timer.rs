//! The interval timer of a process: setitimer(2) with `ITIMER_REAL`, alarm(2).
//!
//! # Life
//!
//! ```text
//!   Idle ──arm──▶ Queued ──the interrupt──▶ in EXPIRED ──kworker: the signal──▶ Idle, or Queued again
//!    ▲              │ cancel
//!    └──────────────┘
//! ```
//!
//! An expired timer is handed to the work queue, since sending a signal takes locks that interrupts do
//! not. Whoever is not Idle owns a reference to the timer. A timer that is set while it is on its way to
//! the work queue is not armed: the work item finds the new setting and acts on that.

use alloc::sync::{Arc, Weak};
use core::ptr::NonNull;
use core::sync::atomic::{AtomicBool, Ordering};

use linux_raw_sys::general as abi;
use orrery_core::inbox::{Inbox, Link, Linked};
use orrery_core::signal::{Signal, SignalInfo};
use orrery_core::time::NANOS_PER_MICRO;

use super::{to_nanos, to_ticks};
use crate::arch::tsc;
use crate::process::{Process, signal};
use crate::sched::alarm::{self, Alarm};
use crate::sync::SpinLock;
use crate::task::work::{self, Then, Work};

/// What a timer is set to; durations in nanoseconds, 0 is none.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Setting {
    /// Until it expires.
    pub value_nanos: u64,
    /// From then on, from one expiry to the next.
    pub interval_nanos: u64,
}

/// Shortest time from one expiry to the next, in nanoseconds. A program may ask for less; it is to keep
/// the kernel busy with no more than this.
const MIN_INTERVAL_NANOS: u64 = 20_000;

/// A process's timer, if it has ever set it.
pub struct Slot {
    timer: SpinLock<Option<Arc<RealTimer>>>,
    /// Whether there may be one; for the process's own threads.
    is_used: AtomicBool,
}

#[repr(C)]
struct RealTimer {
    alarm: Alarm,
    link: Link<RealTimer>,
    process: Weak<Process>,
    state: SpinLock<State>,
}

struct State {
    deadline_ticks: Option<u64>,
    interval_ticks: u64,
    /// Whether it is in the alarm queue, or on its way from there to the work item.
    is_out: bool,
}

// SAFETY: one link per timer, used by the one inbox only.
unsafe impl Linked for RealTimer {
    fn link(&self) -> &Link<Self> {
        &self.link
    }
}

static EXPIRED: Inbox<RealTimer> = Inbox::new();
static SEND: Work = Work::new(send);

impl Slot {
    /// A timer that is not set.
    pub const fn new() -> Self {
        Self { timer: SpinLock::new("real timer slot", None), is_used: AtomicBool::new(false) }
    }

    /// What is left of the setting.
    pub fn get(&self) -> Setting {
        let timer = self.timer.lock().clone();
        timer.map_or(Setting::default(), |timer| timer.state.lock().setting())
    }

    /// Replaces the setting, and returns what was left of the old one. The slot is `process`'s.
    pub fn set(&self, process: &Arc<Process>, new: Setting) -> Setting {
        let timer = {
            let mut slot = self.timer.lock();
            if slot.is_none() && new.value_nanos == 0 {
                return Setting::default();
            }
            self.is_used.store(true, Ordering::Relaxed);
            slot.get_or_insert_with(|| RealTimer::new(process)).clone()
        };
        let mut state = timer.state.lock();
        let old = state.setting();
        timer.take_back(&mut state);
        let is_set = new.value_nanos != 0;
        state.interval_ticks = if is_set { to_ticks(new.interval_nanos) } else { 0 };
        state.deadline_ticks = is_set.then(|| tsc::now().saturating_add(to_ticks(new.value_nanos)));
        if !state.is_out
            && let Some(deadline) = state.deadline_ticks
        {
            state.is_out = true;
            timer.clone().arm(deadline);
        }
        old
    }

    /// Forgets the setting: the process ends, with the running thread. It may be long until it is reaped.
    pub fn clear(&self) {
        if self.is_used.load(Ordering::Relaxed) {
            self.take_out();
        }
    }

    #[cold]
    fn take_out(&self) {
        let timer = self.timer.lock().take();
        if let Some(timer) = timer {
            let mut state = timer.state.lock();
            state.deadline_ticks = None;
            timer.take_back(&mut state);
        }
    }
}

impl Default for Slot {
    fn default() -> Self {
        Self::new()
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        self.clear();
    }
}

impl State {
    fn setting(&self) -> Setting {
        let left = |deadline: u64| {
            // A timer that is about to expire is still set.
            let nanos = to_nanos(deadline.saturating_sub(tsc::now()));
            nanos.max(NANOS_PER_MICRO)
        };
        Setting {
            value_nanos: self.deadline_ticks.map_or(0, left),
            interval_nanos: to_nanos(self.interval_ticks),
        }
    }
}

impl RealTimer {
    fn new(process: &Arc<Process>) -> Arc<Self> {
        let state = State { deadline_ticks: None, interval_ticks: 0, is_out: false };
        Arc::new(Self {
            alarm: Alarm::new(ring),
            link: Link::new(),
            process: Arc::downgrade(process),
            state: SpinLock::new("real timer", state),
        })
    }

    /// Puts it into the alarm queue, which keeps the reference. Under the state's lock.
    fn arm(self: Arc<Self>, deadline_ticks: u64) {
        // SAFETY: an `Arc`'s pointer is not null; it covers the whole timer.
        let alarm = unsafe { NonNull::new_unchecked(Arc::into_raw(self).cast_mut()) }.cast();
        // SAFETY: the first field (`repr(C)`) of a timer that was not out, under its lock, and alive by
        // the reference.
        unsafe { alarm::arm(alarm, deadline_ticks) };
    }

    /// Takes it out of the alarm queue if it is still there.
    fn take_back(self: &Arc<Self>, state: &mut State) {
        if !state.is_out {
            return;
        }
        let timer = Arc::as_ptr(self);
        // SAFETY: as in `arm`.
        let alarm = unsafe { NonNull::new_unchecked(timer.cast_mut()) }.cast();
        // SAFETY: alive by `self`; under the state's lock.
        if unsafe { alarm::cancel(alarm) } {
            state.is_out = false;
            // SAFETY: the reference that the alarm queue had.
            unsafe { Arc::decrement_strong_count(timer) };
        }
    }
}

/// The alarm rings, in an interrupt.
fn ring(alarm: NonNull<Alarm>) {
    // SAFETY: the first field of a timer (`repr(C)`), which is in no inbox while it is out; the alarm
    // queue's reference goes with it.
    let _ = unsafe { EXPIRED.push(alarm.cast::<RealTimer>()) };
    work::queue(&SEND);
}

/// [`SEND`]: sends the signals of the timers that have expired.
fn send(_work: NonNull<Work>) -> Then {
    for timer in EXPIRED.drain() {
        // SAFETY: from `Arc::into_raw` in `arm`; the reference has come here.
        let timer = unsafe { Arc::from_raw(timer.as_ptr().cast_const()) };
        let has_expired = {
            let mut state = timer.state.lock();
            state.is_out = false;
            let now = tsc::now();
            let has_expired = state.deadline_ticks.is_some_and(|deadline| deadline <= now);
            if has_expired {
                state.deadline_ticks = next(&state, now);
            }
            if let Some(deadline) = state.deadline_ticks {
                state.is_out = true;
                timer.clone().arm(deadline);
            }
            has_expired
        };
        if has_expired
            && let Some(process) = timer.process.upgrade()
            && let Some(alarm) = Signal::new(abi::SIGALRM.into())
        {
            signal::send_to_process(&process, SignalInfo::kernel(alarm));
        }
    }
    Then::Done
}

/// When a timer that has expired expires again. Expiries that were missed are left out.
fn next(state: &State, now: u64) -> Option<u64> {
    let (expired, interval) = (state.deadline_ticks?, state.interval_ticks);
    let missed = now.saturating_sub(expired).checked_div(interval)?;
    let next = expired.saturating_add(interval.saturating_mul(missed + 1));
    Some(next.max(now.saturating_add(to_ticks(MIN_INTERVAL_NANOS))))
}
