//! What a process does about its signals: sigaction(2).

use linux_raw_sys::general as abi;

use super::{COUNT, Signal, SignalSet, UNBLOCKABLE};
use crate::errno::Errno;

/// What a signal does where no handler runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Effect {
    /// The process ends.
    Terminate,
    /// The process ends, and would dump core.
    Core,
    /// Nothing.
    Ignore,
    /// The process stops.
    Stop,
    /// The process goes on if it was stopped.
    Continue,
}

/// Who deals with a signal: `sa_handler`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Handler {
    /// `SIG_DFL`.
    Default,
    /// `SIG_IGN`.
    Ignore,
    /// A function at this address, which may be any number but 0 and 1.
    Function(u64),
}

/// `sa_flags`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Flags(u32);

impl Flags {
    /// No SIGCHLD when children stop or go on.
    pub const NO_CHILD_STOP: Self = Self(abi::SA_NOCLDSTOP);
    /// Children do not become zombies.
    pub const NO_CHILD_WAIT: Self = Self(abi::SA_NOCLDWAIT);
    /// The handler gets the [`SignalInfo`](super::SignalInfo).
    pub const INFO: Self = Self(abi::SA_SIGINFO);
    /// `sa_restorer` is valid. On x86-64 it must be.
    pub const RESTORER: Self = Self(abi::SA_RESTORER);
    /// The handler runs on the alternate stack.
    pub const ON_STACK: Self = Self(abi::SA_ONSTACK);
    /// Calls that the handler interrupts go on.
    pub const RESTART: Self = Self(abi::SA_RESTART);
    /// The signal is not blocked while its handler runs.
    pub const NO_DEFER: Self = Self(abi::SA_NODEFER);
    /// The handler runs once.
    pub const RESET_HANDLER: Self = Self(abi::SA_RESETHAND);

    /// Those that are kept, so that a program that asks back sees what is supported.
    const KNOWN: u32 = Self::NO_CHILD_STOP.0
        | Self::NO_CHILD_WAIT.0
        | Self::INFO.0
        | Self::RESTORER.0
        | Self::ON_STACK.0
        | Self::RESTART.0
        | Self::NO_DEFER.0
        | Self::RESET_HANDLER.0
        | abi::SA_EXPOSE_TAGBITS; // there are no tags: nothing to do

    /// Whether all of `other` are set.
    #[inline]
    pub const fn contains(self, other: Self) -> bool {
        self.0 & other.0 == other.0
    }
}

/// What a process does about one signal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Action {
    /// Who deals with it.
    pub handler: Handler,
    /// How.
    pub flags: Flags,
    /// Where the handler returns to.
    pub restorer: u64,
    /// What is blocked besides while the handler runs.
    pub mask: SignalSet,
}

/// Words of the ABI's structure: handler, flags, restorer, mask.
pub type RawAction = [u64; 4];
const _: () = assert!(size_of::<RawAction>() == size_of::<abi::kernel_sigaction>());

impl Action {
    /// `SIG_DFL`.
    pub const DEFAULT: Self =
        Self { handler: Handler::Default, flags: Flags(0), restorer: 0, mask: SignalSet::EMPTY };

    /// From the ABI's structure. Unknown flags are dropped, as sigaction(2) says.
    pub const fn decode([handler, flags, restorer, mask]: RawAction) -> Self {
        let handler = match handler {
            0 => Handler::Default,
            1 => Handler::Ignore,
            address => Handler::Function(address),
        };
        let flags = Flags(flags as u32 & Flags::KNOWN);
        Self { handler, flags, restorer, mask: SignalSet::from_bits(mask).as_mask() }
    }

    /// As the ABI's structure.
    pub const fn encode(&self) -> RawAction {
        let handler = match self.handler {
            Handler::Default => 0,
            Handler::Ignore => 1,
            Handler::Function(address) => address,
        };
        [handler, self.flags.0 as u64, self.restorer, self.mask.bits()]
    }

    /// What becomes of a signal, whose action this is, once it is not blocked.
    pub const fn disposition(&self, signal: Signal) -> Disposition {
        match self.handler {
            Handler::Function(address) => Disposition::Handle(address),
            Handler::Ignore => Disposition::Ignore,
            Handler::Default => Disposition::Default(signal.default_effect()),
        }
    }
}

/// What becomes of a signal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Disposition {
    /// This handler runs, with the address.
    Handle(u64),
    /// No handler: this happens.
    Default(Effect),
    /// The process said to ignore it.
    Ignore,
}

/// What a process does about all signals.
#[derive(Clone, Debug)]
pub struct Actions([Action; COUNT]);

impl Actions {
    /// All defaults.
    pub const fn new() -> Self {
        Self([Action::DEFAULT; COUNT])
    }

    /// What is done about one.
    #[inline]
    pub const fn get(&self, signal: Signal) -> &Action {
        &self.0[signal.index()]
    }

    /// Replaces what is done about one, and returns what was.
    ///
    /// # Errors
    /// `EINVAL` for SIGKILL and SIGSTOP.
    pub fn set(&mut self, signal: Signal, action: Action) -> Result<Action, Errno> {
        if UNBLOCKABLE.contains(signal) {
            return Err(Errno::EINVAL);
        }
        Ok(core::mem::replace(&mut self.0[signal.index()], action))
    }

    /// Whether nothing would happen: there is no need to send it to one that does not block it.
    pub const fn is_ignored(&self, signal: Signal) -> bool {
        matches!(
            self.get(signal).disposition(signal),
            Disposition::Ignore | Disposition::Default(Effect::Ignore)
        )
    }

    /// After execve(2) there are no handlers; what is ignored stays ignored.
    pub fn reset_for_exec(&mut self) {
        for action in &mut self.0 {
            let handler = match action.handler {
                Handler::Ignore => Handler::Ignore,
                _ => Handler::Default,
            };
            *action = Action { handler, ..Action::DEFAULT };
        }
    }

    /// Whether [`Self::reset_for_exec`] would change anything.
    pub fn is_reset(&self) -> bool {
        self.0.iter().all(|action| {
            !matches!(action.handler, Handler::Function(_))
                && *action == Action { handler: action.handler, ..Action::DEFAULT }
        })
    }
}

impl Default for Actions {
    fn default() -> Self {
        Self::new()
    }
}

/// What becomes of a call that a signal has interrupted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Interrupted {
    /// It fails with `EINTR`.
    Fails,
    /// It is made again.
    Restarts,
    /// `restart_syscall` is made in its place.
    Resumes,
}

/// What becomes of a call that ended with `error`, when a handler with these flags runs, or none;
/// `None` if the call was not interrupted.
pub fn interrupted(error: Errno, handler: Option<Flags>) -> Option<Interrupted> {
    match (error, handler) {
        (Errno::RESTART_SYS, Some(flags)) if !flags.contains(Flags::RESTART) => {
            Some(Interrupted::Fails)
        }
        (Errno::RESTART_SYS | Errno::RESTART_ALWAYS, _) | (Errno::RESTART_NO_HANDLER, None) => {
            Some(Interrupted::Restarts)
        }
        (Errno::RESTART_BLOCK, None) => Some(Interrupted::Resumes),
        (Errno::RESTART_NO_HANDLER | Errno::RESTART_BLOCK, Some(_)) => Some(Interrupted::Fails),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_abi_s_structure_comes_back() {
        assert_eq!(core::mem::offset_of!(abi::kernel_sigaction, sa_mask), 24);
        let raw = [0x40_1000, u64::from(abi::SA_SIGINFO | abi::SA_RESTORER), 0x40_2000, 0b111];
        let action = Action::decode(raw);
        assert_eq!(action.handler, Handler::Function(0x40_1000));
        assert!(action.flags.contains(Flags::INFO));
        assert!(!action.flags.contains(Flags::RESTART));
        assert_eq!(action.encode(), raw);
        let odd = Action::decode([1, u64::MAX, 0, u64::MAX]).encode();
        assert_eq!(odd[1] & u64::from(abi::SA_UNSUPPORTED), 0);
        assert_eq!(odd[1] >> 32, 0);
        assert_eq!(odd[3], !(1 << 8 | 1 << 18), "SIGKILL and SIGSTOP are not masked");
    }

    #[test]
    fn exec_keeps_only_what_is_ignored() {
        let mut actions = Actions::new();
        assert!(actions.is_reset());
        let handler = Action::decode([0x1000, 4, 0x2000, 1]);
        assert_eq!(actions.set(Signal::SIGUSR1, handler), Ok(Action::DEFAULT));
        actions.set(Signal::SIGINT, Action::decode([1, 0, 0, 0])).unwrap();
        assert_eq!(actions.set(Signal::SIGKILL, handler), Err(Errno::EINVAL));
        assert_eq!(actions.set(Signal::SIGSTOP, handler), Err(Errno::EINVAL));
        let found = actions.get(Signal::SIGUSR1).disposition(Signal::SIGUSR1);
        assert_eq!(found, Disposition::Handle(0x1000));
        assert!(!actions.is_reset());
        actions.reset_for_exec();
        assert!(actions.is_reset());
        assert_eq!(*actions.get(Signal::SIGUSR1), Action::DEFAULT);
        assert!(actions.is_ignored(Signal::SIGINT));
        assert!(actions.is_ignored(Signal::SIGCHLD) && !actions.is_ignored(Signal::SIGCONT));
    }

    #[test]
    fn interrupted_calls_restart_as_on_linux() {
        use Interrupted::{Fails, Restarts, Resumes};
        let plain = Some(Flags(0));
        let restart = Some(Flags::RESTART);
        for (error, none, without, with) in [
            (Errno::RESTART_SYS, Restarts, Fails, Restarts),
            (Errno::RESTART_ALWAYS, Restarts, Restarts, Restarts),
            (Errno::RESTART_NO_HANDLER, Restarts, Fails, Fails),
            (Errno::RESTART_BLOCK, Resumes, Fails, Fails),
        ] {
            assert_eq!(interrupted(error, None), Some(none));
            assert_eq!(interrupted(error, plain), Some(without));
            assert_eq!(interrupted(error, restart), Some(with));
        }
        assert_eq!(interrupted(Errno::EINTR, restart), None);
    }
}
