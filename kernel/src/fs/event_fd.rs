//! Event counters (eventfd(2)).

use core::sync::atomic::{AtomicU64, Ordering};

use linux_raw_sys::general::{POLLIN, POLLOUT};
use orrery_core::errno::Errno;

use super::file::{File, Transfer};
use super::io::{IoFrom, IoTo};
use crate::sched::task::Sleep;
use crate::sched::wait::{Sharing, WaitMode, WaitQueue};

/// What a read takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Take {
    /// Everything.
    All,
    /// 1 (`EFD_SEMAPHORE`).
    One,
}

/// A counter that one waits for.
pub struct EventFd {
    count: AtomicU64,
    take: Take,
    readable: WaitQueue,
    writable: WaitQueue,
}

/// The largest value of a counter.
const MAX: u64 = u64::MAX - 1;

const INTERRUPTIBLE: WaitMode =
    WaitMode { sleep: Sleep::Interruptible, sharing: Sharing::Exclusive, deadline_ticks: None };

impl EventFd {
    /// A counter that begins with `count`.
    pub fn new(count: u32, take: Take) -> Self {
        Self {
            count: AtomicU64::new(count.into()),
            take,
            readable: WaitQueue::new(),
            writable: WaitQueue::new(),
        }
    }

    /// Takes from the counter, if there is something.
    fn try_take(&self) -> Option<u64> {
        let taken = |count: u64| match self.take {
            Take::All => count,
            Take::One => count.min(1),
        };
        let change = |count| (count > 0).then(|| count - taken(count));
        let before = self.count.fetch_update(Ordering::AcqRel, Ordering::Acquire, change).ok()?;
        self.writable.wake_all();
        Some(taken(before))
    }

    /// Adds to the counter, if it stays in its range.
    fn try_add(&self, value: u64) -> bool {
        let change = |count: u64| count.checked_add(value).filter(|&sum| sum <= MAX);
        let added = self.count.fetch_update(Ordering::AcqRel, Ordering::Acquire, change).is_ok();
        if added {
            self.readable.wake_all();
        }
        added
    }
}

/// Tries, and waits between tries.
fn wait_for(
    queue: &WaitQueue,
    transfer: &Transfer,
    mut attempt: impl FnMut() -> bool,
    is_worth_it: impl Fn() -> bool,
) -> Result<(), Errno> {
    while !attempt() {
        if transfer.is_nonblocking() {
            return Err(Errno::EAGAIN);
        }
        queue.wait(INTERRUPTIBLE, &is_worth_it).map_err(|_| Errno::RESTART_SYS)?;
    }
    Ok(())
}

impl File for EventFd {
    fn read(&self, to: &mut IoTo<'_>, transfer: &mut Transfer) -> Result<(), Errno> {
        if to.left() < size_of::<u64>() {
            return Err(Errno::EINVAL);
        }
        let mut value = None;
        wait_for(
            &self.readable,
            transfer,
            || {
                value = self.try_take();
                value.is_some()
            },
            || self.count.load(Ordering::Acquire) > 0,
        )?;
        to.put(&value.unwrap_or(0).to_ne_bytes()).map(|_| ())
    }

    fn write(&self, from: &mut IoFrom<'_>, transfer: &mut Transfer) -> Result<(), Errno> {
        let mut bytes = [0; size_of::<u64>()];
        if from.left() < bytes.len() {
            return Err(Errno::EINVAL);
        }
        from.take(&mut bytes)?;
        let value = u64::from_ne_bytes(bytes);
        if value > MAX {
            from.forget_done();
            return Err(Errno::EINVAL);
        }
        let has_room = || self.count.load(Ordering::Acquire) <= MAX - value;
        let added = wait_for(&self.writable, transfer, || self.try_add(value), has_room);
        if added.is_err() {
            from.forget_done();
        }
        added
    }

    fn readiness(&self) -> u32 {
        let count = self.count.load(Ordering::Acquire);
        let readable = if count > 0 { POLLIN } else { 0 };
        readable | if count < MAX { POLLOUT } else { 0 }
    }

    fn queues(&self) -> [Option<&WaitQueue>; 2] {
        [Some(&self.readable), Some(&self.writable)]
    }
}
