//! What is blocked, for good or for the time of a call; and waiting for signals.

use core::sync::atomic::Ordering;

use orrery_core::errno::Errno;
use orrery_core::signal::{SignalInfo, SignalSet};

use super::{deliver, send};
use crate::process::thread::Thread;
use crate::process::{current, look_again, tree};
use crate::sched::task::Sleep;
use crate::sched::wait::{Sharing, WaitError, WaitMode, WaitQueue};

/// Replaces the running thread's mask. Signals that it was to take and now blocks are others' to take.
pub fn set(thread: &Thread, mask: SignalSet) {
    let mask = mask.as_mask();
    let signals = &thread.signals;
    if signals.mask() == mask {
        return;
    }
    let left = {
        let shared = thread.process.signals.pending.lock();
        let before = SignalSet::from_bits(signals.mask.swap(mask.bits(), Ordering::Relaxed));
        let pending = shared.set().union(signals.pending.lock().set());
        if !pending.difference(mask).is_empty() {
            look_again();
        }
        shared.set().intersection(mask).difference(before)
    };
    leave_to_others(thread, left);
}

fn leave_to_others(thread: &Thread, left: SignalSet) {
    if !left.is_empty() {
        send::retarget(&thread.process, left, &tree::lock());
    }
}

/// Makes a call with another mask, in one step with its sleep (pselect(2), ppoll(2)). If the call is
/// interrupted, the mask stays until a handler has begun or there turned out to be none.
///
/// # Errors
/// Those of the call.
pub fn with_mask<T>(
    mask: Option<SignalSet>,
    call: impl FnOnce() -> Result<T, Errno>,
) -> Result<T, Errno> {
    let Some(mask) = mask else { return call() };
    let thread = current();
    let before = thread.signals.mask();
    set(thread, mask);
    let result = call();
    let is_interrupted =
        matches!(&result, Err(error) if error.is_restart() || *error == Errno::EINTR);
    if is_interrupted {
        thread.signals.own.lock().saved_mask = Some(before);
        look_again();
    } else {
        set(thread, before);
    }
    result
}

/// Sleeps until a signal comes for which the running thread has a handler. Returns the error to return with.
pub fn pause() -> Errno {
    let mode =
        WaitMode { sleep: Sleep::Interruptible, sharing: Sharing::Shared, deadline_ticks: None };
    while WaitQueue::new().wait(mode, || false).is_ok() || !deliver::is_due(current()) {}
    Errno::RESTART_NO_HANDLER
}

/// [`pause`] with another mask, in one step.
pub fn suspend(mask: SignalSet) -> Errno {
    match with_mask(Some(mask), || Err::<core::convert::Infallible, _>(pause())) {
        Err(error) => error,
    }
}

/// Signals that are pending and blocked.
pub fn pending() -> SignalSet {
    let thread = current();
    let shared = thread.process.signals.pending.lock().set();
    let own = thread.signals.pending.lock().set();
    shared.union(own).intersection(thread.signals.mask())
}

/// Takes a pending signal that is in `wanted`, blocked or not; waits for one until `deadline_ticks`.
///
/// # Errors
/// `EAGAIN` at the deadline; `EINTR` if another signal came.
pub fn wait_for(wanted: SignalSet, deadline_ticks: Option<u64>) -> Result<SignalInfo, Errno> {
    let thread = current();
    let wanted = wanted.as_mask();
    let mode = WaitMode { sleep: Sleep::Interruptible, sharing: Sharing::Shared, deadline_ticks };
    loop {
        if let Some(info) = take(thread, wanted, Then::WaitForMore) {
            return Ok(info);
        }
        let waited = WaitQueue::new().wait(mode, || false);
        // Whatever has come since goes first.
        if let Some(info) = take(thread, wanted, Then::Done) {
            return Ok(info);
        }
        if waited == Err(WaitError::TimedOut) {
            return Err(Errno::EAGAIN);
        }
        if deliver::is_due(thread) {
            return Err(Errno::EINTR);
        }
    }
}

/// Whether the thread goes on waiting where there is no signal.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Then {
    WaitForMore,
    Done,
}

/// Takes a pending signal; if there is none, makes it known, or unknown, that the thread waits for one.
fn take(thread: &Thread, wanted: SignalSet, then: Then) -> Option<SignalInfo> {
    let signals = &thread.signals;
    let (info, left) = {
        let mut shared = thread.process.signals.pending.lock();
        let own = signals.pending.lock().take(wanted);
        let info = own.or_else(|| shared.take(wanted));
        let waits = info.is_none() && then == Then::WaitForMore;
        let now = if waits { wanted } else { SignalSet::EMPTY };
        let before = SignalSet::from_bits(signals.waits_for.swap(now.bits(), Ordering::Relaxed));
        let left = shared.set().intersection(before).difference(now);
        (info, left.intersection(signals.mask()))
    };
    leave_to_others(thread, left);
    info
}
