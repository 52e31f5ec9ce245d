//! Signals: their names, and handlers that record what they were told.

use std::sync::atomic::{AtomicI32, AtomicU64, AtomicUsize, Ordering};

use crate::sys;
use crate::sys::Errno;

/// Bytes of the kernel's signal set.
pub const SET_BYTES: usize = 8;
/// Room for this many records.
const ROOM: usize = 64;

/// What a handler was told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Seen {
    /// The signal's number.
    pub signal: i32,
    /// `si_code`.
    pub code: i32,
    /// `si_pid`, `si_timerid`: the first word after the three of the header.
    pub pid: i32,
    /// `si_status` of SIGCHLD, `si_value.sival_int` of a queued signal.
    pub value: i32,
    /// `si_addr`.
    pub address: u64,
}

struct Slot {
    signal: AtomicI32,
    code: AtomicI32,
    value: AtomicI32,
    address: AtomicU64,
}

static SLOTS: [Slot; ROOM] = [const {
    Slot {
        signal: AtomicI32::new(0),
        code: AtomicI32::new(0),
        value: AtomicI32::new(0),
        address: AtomicU64::new(0),
    }
}; ROOM];
static NEXT: AtomicUsize = AtomicUsize::new(0);

/// A handler with all that SA_SIGINFO gives.
pub type Handler = extern "C" fn(i32, &libc::siginfo_t, &mut libc::ucontext_t);

/// A handler that records the signal for [`take`].
pub extern "C" fn record(signal: i32, info: &libc::siginfo_t, _: &mut libc::ucontext_t) {
    let Some(slot) = SLOTS.get(NEXT.fetch_add(1, Ordering::SeqCst)) else { return };
    // SAFETY: a siginfo_t is 128 initialised bytes; these words mean something for the signals that set them.
    let (address, value) = unsafe {
        let words = std::ptr::from_ref(info).cast::<u64>();
        (words.add(2).read(), words.add(3).cast::<i32>().read())
    };
    slot.code.store(info.si_code, Ordering::SeqCst);
    slot.value.store(value, Ordering::SeqCst);
    slot.address.store(address, Ordering::SeqCst);
    slot.signal.store(signal, Ordering::SeqCst);
}

/// What was recorded since the last time, oldest first.
pub fn take() -> Vec<Seen> {
    let count = NEXT.load(Ordering::SeqCst).min(ROOM);
    let seen = SLOTS[..count].iter().map(|slot| {
        let address = slot.address.load(Ordering::SeqCst);
        Seen {
            signal: slot.signal.load(Ordering::SeqCst),
            code: slot.code.load(Ordering::SeqCst),
            pid: address as i32,
            value: slot.value.load(Ordering::SeqCst),
            address,
        }
    });
    let seen = seen.collect();
    NEXT.store(0, Ordering::SeqCst);
    seen
}

/// How many signals were recorded since [`take`].
pub fn count() -> usize {
    NEXT.load(Ordering::SeqCst)
}

/// The names of the signals recorded since the last time.
pub fn taken_names() -> String {
    let names: Vec<String> = take().iter().map(|seen| name(seen.signal)).collect();
    if names.is_empty() { "none".into() } else { names.join(" ") }
}

/// Installs a handler with SA_SIGINFO and these flags; `blocked` are the signals masked while it runs.
///
/// # Errors
/// Those of sigaction(2).
pub fn handle(signal: i32, handler: Handler, flags: i32, blocked: &[i32]) -> Result<(), Errno> {
    action(signal, handler as *const () as usize, flags | libc::SA_SIGINFO, blocked)
}

/// Installs [`record`].
///
/// # Panics
/// Where that is refused.
pub fn recorded(signal: i32, flags: i32) {
    handle(signal, record, flags, &[]).expect("sigaction");
}

/// Gives a signal its default action, or ignores it: SIG_DFL and SIG_IGN.
///
/// # Panics
/// Where that is refused.
pub fn dispose(signal: i32, action_number: usize) {
    action(signal, action_number, 0, &[]).expect("sigaction");
}

/// sigaction(2) through the C library, which knows how a handler returns.
///
/// # Errors
/// Those of sigaction(2).
pub fn action(signal: i32, handler: usize, flags: i32, blocked: &[i32]) -> Result<(), Errno> {
    // SAFETY: all zeroes is a sigaction, and sigaction(2) only reads it. Handlers of this package are
    // functions of type `Handler`.
    let result = unsafe {
        let mut action: libc::sigaction = std::mem::zeroed();
        action.sa_sigaction = handler;
        action.sa_flags = flags;
        for &signal in blocked {
            libc::sigaddset(&mut action.sa_mask, signal);
        }
        libc::sigaction(signal, &action, std::ptr::null_mut())
    };
    if result == 0 { Ok(()) } else { Err(Errno::last()) }
}

/// The kernel's signal set with these members.
pub fn set(signals: &[i32]) -> u64 {
    signals.iter().fold(0, |set, signal| set | 1 << (signal - 1))
}

/// Changes the mask (SIG_BLOCK, SIG_UNBLOCK, SIG_SETMASK); gives the old one.
///
/// # Panics
/// Where that is refused.
pub fn mask(how: i32, set: u64) -> u64 {
    let mut old = 0u64;
    sys!(SYS_rt_sigprocmask, how, &set, &mut old, SET_BYTES).expect("rt_sigprocmask");
    old
}

/// The signals that are pending for this thread or process.
///
/// # Panics
/// Where the kernel does not say.
pub fn pending() -> u64 {
    let mut set = 0u64;
    sys!(SYS_rt_sigpending, &mut set, SET_BYTES).expect("rt_sigpending");
    set
}

/// Sends a signal to a process.
pub fn kill(pid: i32, signal: i32) -> sys::Result {
    sys!(SYS_kill, pid, signal)
}

/// Sends a signal to this thread.
pub fn raise(signal: i32) -> sys::Result {
    let tid = sys!(SYS_gettid)?;
    sys!(SYS_tgkill, crate::process::id(), tid, signal)
}

/// The members of a set, by name.
pub fn names(set: u64) -> String {
    let names: Vec<String> = (1..=64).filter(|n| set >> (n - 1) & 1 == 1).map(name).collect();
    if names.is_empty() { "none".into() } else { names.join(" ") }
}

const NAMES: [&str; 32] = [
    "0",
    "SIGHUP",
    "SIGINT",
    "SIGQUIT",
    "SIGILL",
    "SIGTRAP",
    "SIGABRT",
    "SIGBUS",
    "SIGFPE",
    "SIGKILL",
    "SIGUSR1",
    "SIGSEGV",
    "SIGUSR2",
    "SIGPIPE",
    "SIGALRM",
    "SIGTERM",
    "SIGSTKFLT",
    "SIGCHLD",
    "SIGCONT",
    "SIGSTOP",
    "SIGTSTP",
    "SIGTTIN",
    "SIGTTOU",
    "SIGURG",
    "SIGXCPU",
    "SIGXFSZ",
    "SIGVTALRM",
    "SIGPROF",
    "SIGWINCH",
    "SIGIO",
    "SIGPWR",
    "SIGSYS",
];

/// A signal's name.
pub fn name(signal: i32) -> String {
    match NAMES.get(signal as usize) {
        Some(name) => (*name).into(),
        None => format!("SIG{signal}"),
    }
}
