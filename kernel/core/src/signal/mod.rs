//! Signals: numbers, sets, actions, queues, and the frame that a handler finds on its stack.
//!
//! Bottom up: [`Signal`] and [`SignalSet`] (here); [`info`]: what comes with a signal; [`action`]: what
//! a process does about it; [`pending`]: signals that wait; [`stack`]: alternate stacks; [`frame`]:
//! the x86-64 signal frame.
//!
//! All of it is as signal(7) and the pages it names say, and Linux where they are silent. The kernel adds
//! what needs tasks: whose signals these are, and who runs the handlers.

pub mod action;
pub mod frame;
pub mod info;
pub mod pending;
pub mod stack;

use core::fmt;
use core::num::NonZeroU8;

use linux_raw_sys::general as abi;

pub use action::{Action, Actions, Disposition, Effect, Handler};
pub use info::{Detail, SignalInfo};
pub use pending::Pending;

/// Signals are numbered from 1 to this.
pub const COUNT: usize = abi::_NSIG as usize;

/// The number of a signal: 1 to 64.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Signal(NonZeroU8);

macro_rules! signals {
    ($($name:ident,)*) => {
        #[allow(missing_docs)] // signal(7) says what each means
        impl Signal {
            $(pub const $name: Self = Self::constant(abi::$name);)*

            /// Its name, such as `SIGSEGV`; real-time signals have none of their own.
            pub const fn name(self) -> &'static str {
                match self.number() as u32 {
                    $(abi::$name => stringify!($name),)*
                    _ => "real-time signal",
                }
            }
        }
    };
}

signals! {
    SIGHUP, SIGINT, SIGQUIT, SIGILL, SIGTRAP, SIGABRT, SIGBUS, SIGFPE, SIGKILL, SIGUSR1, SIGSEGV,
    SIGUSR2, SIGPIPE, SIGALRM, SIGTERM, SIGSTKFLT, SIGCHLD, SIGCONT, SIGSTOP, SIGTSTP, SIGTTIN,
    SIGTTOU, SIGURG, SIGXCPU, SIGXFSZ, SIGVTALRM, SIGPROF, SIGWINCH, SIGIO, SIGPWR, SIGSYS,
}

impl Signal {
    const fn constant(number: u32) -> Self {
        match Self::new(number as u64) {
            Some(signal) => signal,
            None => panic!("not the number of a signal"),
        }
    }

    /// The signal of this number; `None` unless it is 1 to 64.
    pub const fn new(number: u64) -> Option<Self> {
        match NonZeroU8::new(number as u8) {
            Some(byte) if number <= COUNT as u64 => Some(Self(byte)),
            _ => None,
        }
    }

    /// Its number.
    #[inline]
    pub const fn number(self) -> u8 {
        self.0.get()
    }

    /// Its place in tables of all signals.
    #[inline]
    pub const fn index(self) -> usize {
        self.0.get() as usize - 1
    }

    /// Whether several of them queue up.
    pub const fn is_real_time(self) -> bool {
        self.number() as u32 >= abi::SIGRTMIN
    }

    /// What happens to a process that does not say otherwise (signal(7), "Standard signals").
    pub const fn default_effect(self) -> Effect {
        if STOPPING.contains(self) {
            return Effect::Stop;
        }
        if CORE.contains(self) {
            return Effect::Core;
        }
        match self {
            Self::SIGCONT => Effect::Continue,
            Self::SIGCHLD | Self::SIGURG | Self::SIGWINCH => Effect::Ignore,
            _ => Effect::Terminate,
        }
    }
}

impl fmt::Debug for Signal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({})", self.name(), self.number())
    }
}

/// A set of signals, a bit each, as the ABI has it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SignalSet(u64);

/// Signals that nothing can block, ignore or handle.
pub const UNBLOCKABLE: SignalSet = SignalSet::of(&[Signal::SIGKILL, Signal::SIGSTOP]);
/// Signals that stop a process unless it says otherwise.
pub const STOPPING: SignalSet =
    SignalSet::of(&[Signal::SIGSTOP, Signal::SIGTSTP, Signal::SIGTTIN, Signal::SIGTTOU]);
/// Signals that an instruction of the program causes.
pub const SYNCHRONOUS: SignalSet = SignalSet::of(&[
    Signal::SIGSEGV,
    Signal::SIGBUS,
    Signal::SIGILL,
    Signal::SIGTRAP,
    Signal::SIGFPE,
    Signal::SIGSYS,
]);
/// Signals whose default is to terminate with a core dump.
const CORE: SignalSet = SYNCHRONOUS.union(SignalSet::of(&[
    Signal::SIGQUIT,
    Signal::SIGABRT,
    Signal::SIGXCPU,
    Signal::SIGXFSZ,
]));

impl SignalSet {
    /// No signal.
    pub const EMPTY: Self = Self(0);

    /// The set with these bits; bit 0 is signal 1.
    #[inline]
    pub const fn from_bits(bits: u64) -> Self {
        Self(bits)
    }

    /// A bit for each signal in it.
    #[inline]
    pub const fn bits(self) -> u64 {
        self.0
    }

    /// The set of these signals.
    pub const fn of(signals: &[Signal]) -> Self {
        let mut set = Self::EMPTY;
        let mut at = 0;
        while at < signals.len() {
            set = set.with(signals[at]);
            at += 1;
        }
        set
    }

    /// Whether there is none in it.
    #[inline]
    pub const fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// Whether the signal is in it.
    #[inline]
    pub const fn contains(self, signal: Signal) -> bool {
        self.0 >> signal.index() & 1 != 0
    }

    /// The set with the signal.
    #[inline]
    pub const fn with(self, signal: Signal) -> Self {
        Self(self.0 | 1 << signal.index())
    }

    /// The set without the signal.
    #[inline]
    pub const fn without(self, signal: Signal) -> Self {
        Self(self.0 & !(1 << signal.index()))
    }

    /// Signals in either.
    #[inline]
    pub const fn union(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    /// Signals in both.
    #[inline]
    pub const fn intersection(self, other: Self) -> Self {
        Self(self.0 & other.0)
    }

    /// Signals in this but not in the other.
    #[inline]
    pub const fn difference(self, other: Self) -> Self {
        Self(self.0 & !other.0)
    }

    /// The set as a mask: without those that cannot be blocked.
    pub const fn as_mask(self) -> Self {
        self.difference(UNBLOCKABLE)
    }

    /// The one to deliver first: what an instruction caused before all else, then the lowest number.
    pub const fn next(self) -> Option<Signal> {
        let synchronous = self.intersection(SYNCHRONOUS);
        let from = if synchronous.is_empty() { self } else { synchronous };
        Signal::new(from.0.trailing_zeros() as u64 + 1)
    }

    /// Its signals, lowest number first.
    pub fn iter(self) -> impl Iterator<Item = Signal> {
        let mut left = self.0;
        core::iter::from_fn(move || {
            let signal = Signal::new(u64::from(left.trailing_zeros()) + 1)?;
            left &= left - 1;
            Some(signal)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::vec::Vec;

    #[test]
    fn numbers_are_1_to_64() {
        assert_eq!(Signal::new(0), None);
        assert_eq!(Signal::new(65), None);
        assert_eq!(Signal::new(256 + 9), None);
        assert_eq!(Signal::new(1 << 32 | 9), None);
        assert_eq!(Signal::new(9), Some(Signal::SIGKILL));
        assert_eq!(Signal::new(64).map(Signal::index), Some(63));
        assert!(Signal::new(32).is_some_and(Signal::is_real_time));
        assert!(!Signal::SIGSYS.is_real_time());
        assert_eq!(std::format!("{:?}", Signal::SIGSEGV), "SIGSEGV (11)");
    }

    #[test]
    fn default_effects_are_those_of_signal_7() {
        let with = |effect| {
            (1..=64)
                .filter_map(Signal::new)
                .filter(|signal| signal.default_effect() == effect)
                .map(Signal::number)
                .collect::<Vec<_>>()
        };
        assert_eq!(with(Effect::Core), [3, 4, 5, 6, 7, 8, 11, 24, 25, 31]);
        assert_eq!(with(Effect::Stop), [19, 20, 21, 22]);
        assert_eq!(with(Effect::Continue), [18]);
        assert_eq!(with(Effect::Ignore), [17, 23, 28]);
        assert_eq!(with(Effect::Terminate).len(), 64 - 10 - 4 - 1 - 3);
    }

    #[test]
    fn synchronous_signals_come_first() {
        let set = SignalSet::of(&[Signal::SIGHUP, Signal::SIGSEGV, Signal::SIGUSR1]);
        assert_eq!(set.next(), Some(Signal::SIGSEGV));
        assert_eq!(set.without(Signal::SIGSEGV).next(), Some(Signal::SIGHUP));
        assert_eq!(SignalSet::from_bits(1 << 63).next(), Signal::new(64));
        assert_eq!(SignalSet::EMPTY.next(), None);
        assert_eq!(set.iter().map(Signal::number).collect::<Vec<_>>(), [1, 10, 11]);
        assert_eq!(SignalSet::from_bits(u64::MAX).iter().count(), 64);
        assert_eq!(SignalSet::from_bits(u64::MAX).as_mask().bits(), !(1 << 8 | 1 << 18));
    }
}
