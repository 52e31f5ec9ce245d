//! Bounded channels: values that go from any number of tasks to any number of tasks.
//!
//! A queue under a spinlock, and a wait queue for each side. Waits are exclusive: one value or one
//! free place wakes one task.
//!
//! A waiter whose condition came true while it was being woken has taken two chances and uses only one, and
//! the wake that it swallowed may have been meant for a second one. Hence whoever has waited and been
//! served wakes the next of its own side, if there is still something for it.

use alloc::collections::VecDeque;
use alloc::sync::Arc;
use core::fmt;
use core::time::Duration;

use super::{Sharing, Sleep, WaitError, WaitMode, WaitQueue, now_ticks, to_ticks};
use crate::sync::SpinLock;

struct Shared<T> {
    state: SpinLock<State<T>>,
    not_empty: WaitQueue,
    not_full: WaitQueue,
}

struct State<T> {
    values: VecDeque<T>,
    capacity: usize,
    senders: usize,
    receivers: usize,
}

/// The sending side of a channel. Clones send into the same channel.
pub struct Sender<T>(Arc<Shared<T>>);

/// The receiving side of a channel. Clones receive from the same channel; each value goes to one
/// of them.
pub struct Receiver<T>(Arc<Shared<T>>);

/// Why a value was not sent; here it is again.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum SendError<T> {
    /// There is no receiver any more.
    Closed(T),
    /// The channel is full ([`Sender::try_send`]).
    Full(T),
    /// The task was asked to stop while it waited.
    Stopped(T),
}

/// Why nothing was received.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RecvError {
    /// The channel is empty and there is no sender any more.
    Closed,
    /// The channel is empty ([`Receiver::try_recv`]).
    Empty,
    /// Nothing came in time ([`Receiver::recv_timeout`]).
    TimedOut,
    /// The task was asked to stop while it waited.
    Stopped,
}

/// Makes a channel that holds at most `capacity` values (at least one).
pub fn channel<T: Send>(capacity: usize) -> (Sender<T>, Receiver<T>) {
    let capacity = capacity.max(1);
    // Room for all of them now: nothing is allocated under the spinlock later.
    let values = VecDeque::with_capacity(capacity);
    let shared = Arc::new(Shared {
        state: SpinLock::new("channel", State { values, capacity, senders: 1, receivers: 1 }),
        not_empty: WaitQueue::new(),
        not_full: WaitQueue::new(),
    });
    (Sender(shared.clone()), Receiver(shared))
}

fn wait_mode(deadline_ticks: Option<u64>) -> WaitMode {
    WaitMode { sleep: Sleep::Interruptible, sharing: Sharing::Exclusive, deadline_ticks }
}

impl<T> Sender<T> {
    /// Sends a value, waiting for room. A request to stop the task ends the wait.
    ///
    /// # Errors
    /// [`SendError::Closed`] and [`SendError::Stopped`].
    pub fn send(&self, value: T) -> Result<(), SendError<T>> {
        let mut result = match self.try_send(value) {
            Err(SendError::Full(value)) => Err(SendError::Full(value)),
            done => return done,
        };
        let waited = self.0.not_full.wait(wait_mode(None), || {
            let Err(SendError::Full(value)) = core::mem::replace(&mut result, Ok(())) else {
                return true;
            };
            result = self.try_send(value);
            !matches!(result, Err(SendError::Full(_)))
        });
        self.0.pass_on_room();
        match (waited, result) {
            (Err(_), Err(SendError::Full(value))) => Err(SendError::Stopped(value)),
            (_, result) => result,
        }
    }

    /// Sends a value if there is room.
    ///
    /// # Errors
    /// [`SendError::Closed`] and [`SendError::Full`].
    pub fn try_send(&self, value: T) -> Result<(), SendError<T>> {
        {
            let mut state = self.0.state.lock();
            if state.receivers == 0 {
                drop(state);
                return Err(SendError::Closed(value));
            }
            if state.values.len() == state.capacity {
                drop(state);
                return Err(SendError::Full(value));
            }
            state.values.push_back(value);
        }
        self.0.not_empty.wake_one();
        Ok(())
    }
}

impl<T> Receiver<T> {
    /// Receives the oldest value, waiting for one. A request to stop the task ends the wait.
    ///
    /// # Errors
    /// [`RecvError::Closed`] and [`RecvError::Stopped`].
    pub fn recv(&self) -> Result<T, RecvError> {
        self.recv_until(None)
    }

    /// As [`Self::recv`], waiting no longer than this.
    ///
    /// # Errors
    /// [`RecvError::Closed`], [`RecvError::Stopped`] and [`RecvError::TimedOut`].
    pub fn recv_timeout(&self, timeout: Duration) -> Result<T, RecvError> {
        self.recv_until(Some(now_ticks().saturating_add(to_ticks(timeout))))
    }

    fn recv_until(&self, deadline_ticks: Option<u64>) -> Result<T, RecvError> {
        let mut result = self.try_recv();
        if !matches!(result, Err(RecvError::Empty)) {
            return result;
        }
        let waited = self.0.not_empty.wait(wait_mode(deadline_ticks), || {
            result = self.try_recv();
            !matches!(result, Err(RecvError::Empty))
        });
        self.0.pass_on_values();
        match (waited, result) {
            (Err(WaitError::TimedOut), Err(RecvError::Empty)) => Err(RecvError::TimedOut),
            (Err(WaitError::Interrupted), Err(RecvError::Empty)) => Err(RecvError::Stopped),
            (_, result) => result,
        }
    }

    /// Receives the oldest value if there is one.
    ///
    /// # Errors
    /// [`RecvError::Closed`] and [`RecvError::Empty`].
    pub fn try_recv(&self) -> Result<T, RecvError> {
        let value = {
            let mut state = self.0.state.lock();
            match state.values.pop_front() {
                Some(value) => value,
                None if state.senders == 0 => return Err(RecvError::Closed),
                None => return Err(RecvError::Empty),
            }
        };
        self.0.not_full.wake_one();
        Ok(value)
    }

    /// Every value until the channel is closed or the task is asked to stop.
    pub fn iter(&self) -> impl Iterator<Item = T> {
        core::iter::from_fn(|| self.recv().ok())
    }
}

impl<T> Shared<T> {
    /// After a wait for room, see the module's header.
    fn pass_on_room(&self) {
        let has_room = {
            let state = self.state.lock();
            state.values.len() < state.capacity
        };
        if has_room {
            self.not_full.wake_one();
        }
    }

    /// After a wait for a value, see the module's header.
    fn pass_on_values(&self) {
        let has_values = !self.state.lock().values.is_empty();
        if has_values {
            self.not_empty.wake_one();
        }
    }
}

impl<T> Clone for Sender<T> {
    fn clone(&self) -> Self {
        self.0.state.lock().senders += 1;
        Self(self.0.clone())
    }
}

impl<T> Clone for Receiver<T> {
    fn clone(&self) -> Self {
        self.0.state.lock().receivers += 1;
        Self(self.0.clone())
    }
}

impl<T> Drop for Sender<T> {
    fn drop(&mut self) {
        let senders = {
            let mut state = self.0.state.lock();
            state.senders -= 1;
            state.senders
        };
        if senders == 0 {
            self.0.not_empty.wake_all();
        }
    }
}

impl<T> Drop for Receiver<T> {
    fn drop(&mut self) {
        let unreceived = {
            let mut state = self.0.state.lock();
            state.receivers -= 1;
            if state.receivers > 0 {
                return;
            }
            core::mem::take(&mut state.values)
        };
        self.0.not_full.wake_all();
        // What nobody will receive is dropped without the lock.
        drop(unreceived);
    }
}

impl<T> fmt::Display for SendError<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Closed(_) => "nobody receives from the channel any more",
            Self::Full(_) => "the channel is full",
            Self::Stopped(_) => "asked to stop while waiting for room in the channel",
        })
    }
}

impl<T> fmt::Debug for SendError<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl fmt::Display for RecvError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Closed => "nobody sends into the channel any more",
            Self::Empty => "the channel is empty",
            Self::TimedOut => "nothing came through the channel in time",
            Self::Stopped => "asked to stop while waiting for the channel",
        })
    }
}

impl<T> core::error::Error for SendError<T> {}
impl core::error::Error for RecvError {}
