//! Signals that have been sent and not yet taken.
//!
//! A standard signal is pending once, however often it was sent. Real-time signals queue up in the order
//! in which they were sent. What comes with them takes memory, which is limited (`RLIMIT_SIGPENDING`)
//! and may run out: then a standard signal is pending all the same, with [`SignalInfo::lost`].
//!
//! Invariant: every signal in the queue is in the set, and a standard one is in the queue once.

use alloc::collections::VecDeque;

use super::info::code;
use super::{Signal, SignalInfo, SignalSet};
use crate::errno::Errno;

/// Pending signals of a thread, or of a process.
#[derive(Debug, Default)]
pub struct Pending {
    set: SignalSet,
    queue: VecDeque<SignalInfo>,
}

impl Pending {
    /// None.
    pub const fn new() -> Self {
        Self { set: SignalSet::EMPTY, queue: VecDeque::new() }
    }

    /// Which are pending.
    #[inline]
    pub const fn set(&self) -> SignalSet {
        self.set
    }

    /// How many infos are kept.
    pub fn queued(&self) -> usize {
        self.queue.len()
    }

    /// Adds one. A standard signal that is pending already stays as it is. No more than `limit` infos are kept,
    /// but for those of standard signals from the kernel or `kill`.
    ///
    /// # Errors
    /// `EAGAIN` if it is a real-time signal, not from `kill`, for which there is no room. All others
    /// become pending, if need be without what comes with them.
    pub fn add(&mut self, info: SignalInfo, limit: usize) -> Result<(), Errno> {
        let signal = info.signal;
        if !signal.is_real_time() && self.set.contains(signal) {
            return Ok(());
        }
        let is_limited = signal.is_real_time() || info.code < code::USER;
        let fits = self.queue.len() < limit || !is_limited;
        if fits && self.queue.try_reserve(1).is_ok() {
            self.queue.push_back(info);
        } else if signal.is_real_time() && info.code != code::USER {
            return Err(Errno::EAGAIN);
        }
        self.set = self.set.with(signal);
        Ok(())
    }

    /// Takes the next one that is in `wanted`.
    pub fn take(&mut self, wanted: SignalSet) -> Option<SignalInfo> {
        let signal = self.set.intersection(wanted).next()?;
        Some(self.take_one(signal))
    }

    fn take_one(&mut self, signal: Signal) -> SignalInfo {
        let is_it = |info: &SignalInfo| info.signal == signal;
        let Some(first) = self.queue.iter().position(is_it) else {
            self.set = self.set.without(signal);
            return SignalInfo::lost(signal);
        };
        let info = self.queue.remove(first);
        if !signal.is_real_time() || !self.queue.range(first..).any(is_it) {
            self.set = self.set.without(signal);
        }
        info.unwrap_or(SignalInfo::lost(signal))
    }

    /// Forgets all that are in `which`.
    pub fn discard(&mut self, which: SignalSet) {
        if self.set.intersection(which).is_empty() {
            return;
        }
        self.set = self.set.difference(which);
        self.queue.retain(|info| !which.contains(info.signal));
    }

    /// Forgets all, and gives the memory back.
    pub fn clear(&mut self) {
        *self = Self::new();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::signal::{Detail, STOPPING};
    use proptest::prelude::*;
    use std::vec::Vec;

    fn queued(signal: Signal, value: u64) -> SignalInfo {
        let detail = Detail::Queue { pid: 1, uid: 0, value };
        SignalInfo { signal, errno: 0, code: code::QUEUE, detail }
    }

    #[test]
    fn a_full_queue_loses_no_standard_signal() {
        let mut pending = Pending::new();
        let real_time = Signal::new(40).unwrap();
        assert_eq!(pending.add(queued(real_time, 1), 1), Ok(()));
        assert_eq!(pending.add(queued(real_time, 2), 1), Err(Errno::EAGAIN));
        assert_eq!(pending.add(SignalInfo::user(Signal::SIGHUP, 5, 6), 1), Ok(()));
        assert_eq!(pending.add(queued(Signal::SIGTERM, 3), 1), Ok(()));
        assert_eq!(pending.add(SignalInfo::user(real_time, 5, 6), 1), Ok(()));
        assert_eq!(pending.add(SignalInfo::kernel(Signal::SIGCHLD), 1), Ok(()));
        let all = SignalSet::from_bits(u64::MAX);
        assert_eq!(pending.take(all), Some(SignalInfo::user(Signal::SIGHUP, 5, 6)));
        assert_eq!(pending.take(all), Some(SignalInfo::lost(Signal::SIGTERM)));
        assert_eq!(pending.take(all), Some(SignalInfo::kernel(Signal::SIGCHLD)));
        assert_eq!(pending.take(all), Some(queued(real_time, 1)));
        assert_eq!(pending.take(all), None);
        assert_eq!(pending.set(), SignalSet::EMPTY);
    }

    #[test]
    fn a_continue_forgets_stops() {
        let mut pending = Pending::new();
        for signal in STOPPING.iter().chain([Signal::SIGUSR1]) {
            pending.add(SignalInfo::user(signal, 1, 0), 64).unwrap();
        }
        pending.discard(STOPPING);
        assert_eq!(pending.set(), SignalSet::of(&[Signal::SIGUSR1]));
        assert_eq!(pending.queued(), 1);
        pending.clear();
        assert_eq!(pending.take(SignalSet::from_bits(u64::MAX)), None);
    }

    #[derive(Clone, Debug)]
    enum Step {
        Add(u64),
        Take(u64),
        Discard(u64),
    }

    fn steps() -> impl Strategy<Value = Vec<Step>> {
        let number = prop_oneof![Just(10u64), Just(11), Just(17), Just(32), Just(33), Just(64)];
        let step = prop_oneof![
            4 => number.prop_map(Step::Add),
            3 => any::<u64>().prop_map(Step::Take),
            1 => any::<u64>().prop_map(Step::Discard),
        ];
        proptest::collection::vec(step, 0..200)
    }

    proptest! {
        /// Against a plain list of what was sent.
        #[test]
        fn queues_keep_order_and_lose_nothing(steps in steps()) {
            const LIMIT: usize = 20;
            let mut pending = Pending::new();
            let mut model: Vec<SignalInfo> = Vec::new();
            for (value, step) in steps.into_iter().enumerate() {
                match step {
                    Step::Add(number) => {
                        let signal = Signal::new(number).unwrap();
                        let info = queued(signal, value as u64);
                        let is_there = model.iter().any(|it| it.signal == signal);
                        let result = pending.add(info, LIMIT);
                        if signal.is_real_time() {
                            let kept = model.iter().filter(|it| **it != SignalInfo::lost(it.signal));
                            let fits = kept.count() < LIMIT;
                            prop_assert_eq!(result.is_ok(), fits);
                            if fits {
                                model.push(info);
                            }
                        } else {
                            prop_assert!(result.is_ok());
                            let kept = pending.queued() > model.iter()
                                .filter(|it| **it != SignalInfo::lost(it.signal)).count();
                            if !is_there {
                                model.push(if kept { info } else { SignalInfo::lost(signal) });
                            }
                        }
                    }
                    Step::Take(bits) => {
                        let wanted = SignalSet::from_bits(bits);
                        let set = model.iter().fold(SignalSet::EMPTY, |set, it| set.with(it.signal));
                        let expected = set.intersection(wanted).next().map(|signal| {
                            let at = model.iter().position(|it| it.signal == signal).unwrap();
                            model.remove(at)
                        });
                        prop_assert_eq!(pending.take(wanted), expected);
                    }
                    Step::Discard(bits) => {
                        let which = SignalSet::from_bits(bits);
                        pending.discard(which);
                        model.retain(|it| !which.contains(it.signal));
                    }
                }
                let set = model.iter().fold(SignalSet::EMPTY, |set, it| set.with(it.signal));
                prop_assert_eq!(pending.set(), set);
                prop_assert!(pending.queued() <= LIMIT);
            }
        }
    }
}
