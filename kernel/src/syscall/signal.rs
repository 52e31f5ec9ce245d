//! Signals.

use linux_raw_sys::general as abi;
use orrery_core::signal::action::RawAction;
use orrery_core::signal::info::INFO_BYTES;
use orrery_core::signal::stack::RawStack;
use orrery_core::signal::{Action, Signal, SignalInfo, SignalSet};

use super::{Args, Errno, SysResult};
use crate::arch::tsc;
use crate::fs;
use crate::mm::user;
use crate::process::current;
use crate::process::signal::kill::{self, Receiver};
use crate::process::signal::{self, mask};

/// Bytes of a set; no other size is taken.
const SET_BYTES: u64 = size_of::<SignalSet>() as u64;

fn check_size(size_bytes: u64) -> Result<(), Errno> {
    if size_bytes == SET_BYTES { Ok(()) } else { Err(Errno::EINVAL) }
}

fn read_set(at: u64) -> Result<SignalSet, Errno> {
    user::read(at).map(SignalSet::from_bits)
}

/// A signal, or none for 0. The number is an `int`.
fn signal_or_none(number: u64) -> Result<Option<Signal>, Errno> {
    match number as u32 {
        0 => Ok(None),
        number => Signal::new(number.into()).map(Some).ok_or(Errno::EINVAL),
    }
}

/// rt_sigaction(2).
pub fn rt_sigaction(args: &Args) -> SysResult {
    let (new_at, old_at) = (args[1], args[2]);
    check_size(args[3])?;
    let new = if new_at == 0 { None } else { Some(user::read::<RawAction>(new_at)?) };
    let signal = signal_or_none(args[0])?.ok_or(Errno::EINVAL)?;
    let old = match new {
        Some(new) => signal::set_action(signal, Action::decode(new))?,
        None => current().process.signals.action(signal),
    };
    if old_at != 0 {
        user::write(old_at, &old.encode())?;
    }
    Ok(0)
}

/// rt_sigprocmask(2).
pub fn rt_sigprocmask(args: &Args) -> SysResult {
    let (how, new_at, old_at) = (args[0] as u32, args[1], args[2]);
    check_size(args[3])?;
    let thread = current();
    let old = thread.signals.mask();
    if new_at != 0 {
        let set = read_set(new_at)?;
        let new = match how {
            abi::SIG_BLOCK => old.union(set),
            abi::SIG_UNBLOCK => old.difference(set),
            abi::SIG_SETMASK => set,
            _ => return Err(Errno::EINVAL),
        };
        mask::set(thread, new);
    }
    if old_at != 0 {
        user::write(old_at, &old.bits())?;
    }
    Ok(0)
}

/// rt_sigpending(2).
pub fn rt_sigpending(args: &Args) -> SysResult {
    let (at, size_bytes) = (args[0], args[1]);
    let bytes = mask::pending().bits().to_le_bytes();
    let bytes = usize::try_from(size_bytes).ok().and_then(|size_bytes| bytes.get(..size_bytes));
    user::write_bytes(at, bytes.ok_or(Errno::EINVAL)?)?;
    Ok(0)
}

/// rt_sigsuspend(2).
pub fn rt_sigsuspend(args: &Args) -> SysResult {
    check_size(args[1])?;
    Err(mask::suspend(read_set(args[0])?))
}

/// pause(2).
pub fn pause(_args: &Args) -> SysResult {
    Err(mask::pause())
}

/// rt_sigtimedwait(2).
pub fn rt_sigtimedwait(args: &Args) -> SysResult {
    let (info_at, timeout_at) = (args[1], args[2]);
    check_size(args[3])?;
    let wanted = read_set(args[0])?;
    let deadline_ticks = match timeout_at {
        0 => None,
        at => Some(deadline(user::read(at)?)?),
    };
    let info = mask::wait_for(wanted, deadline_ticks)?;
    if info_at != 0 {
        user::write_bytes(info_at, &info.encode())?;
    }
    Ok(info.signal.number().into())
}

fn deadline(timeout: abi::__kernel_timespec) -> Result<u64, Errno> {
    let nanos = orrery_core::time::from_timespec(timeout.tv_sec, timeout.tv_nsec)?;
    let ticks = u128::from(nanos) * u128::from(tsc::hz()) / 1_000_000_000;
    Ok(tsc::now().saturating_add(u64::try_from(ticks).unwrap_or(u64::MAX)))
}

/// rt_sigreturn(2).
pub fn rt_sigreturn(_args: &Args) -> SysResult {
    signal::return_from_handler();
    Ok(0)
}

/// sigaltstack(2).
pub fn sigaltstack(args: &Args) -> SysResult {
    let (new_at, old_at) = (args[0], args[1]);
    let stack_pointer = args.frame().rsp;
    let new = if new_at == 0 { None } else { Some(user::read::<RawStack>(new_at)?) };
    let old = signal::alternate_stack(|stack| {
        let old = stack.encode(stack_pointer);
        if let Some(new) = new {
            *stack = stack.replaced(new, stack_pointer)?;
        }
        Ok::<_, Errno>(old)
    })?;
    if old_at != 0 {
        user::write(old_at, &old)?;
    }
    Ok(0)
}

/// kill(2).
pub fn kill(args: &Args) -> SysResult {
    let receiver = match args[0] as i32 {
        0 => Receiver::OwnGroup,
        -1 => Receiver::Everybody,
        number @ 1.. => Receiver::Process(number as u32),
        group => Receiver::Group(group.checked_neg().ok_or(Errno::ESRCH)? as u32),
    };
    match signal_or_none(args[1]) {
        Ok(signal) => kill::kill(receiver, signal)?,
        // Who is not there comes before what is wrong.
        Err(why) => kill::kill(receiver, None).and(Err(why))?,
    }
    Ok(0)
}

/// tkill(2).
pub fn tkill(args: &Args) -> SysResult {
    let tid = positive(args[0])?;
    let signal = thread_signal(None, tid, args[1])?;
    kill::kill_thread(None, tid, signal).map(|()| 0)
}

/// tgkill(2).
pub fn tgkill(args: &Args) -> SysResult {
    let (tgid, tid) = (positive(args[0])?, positive(args[1])?);
    let signal = thread_signal(Some(tgid), tid, args[2])?;
    kill::kill_thread(Some(tgid), tid, signal).map(|()| 0)
}

fn positive(number: u64) -> Result<u32, Errno> {
    u32::try_from(number as i32).ok().filter(|&number| number > 0).ok_or(Errno::EINVAL)
}

/// The signal; where there is no such signal, whether the thread exists comes first.
fn thread_signal(tgid: Option<u32>, tid: u32, number: u64) -> Result<Option<Signal>, Errno> {
    signal_or_none(number).or_else(|why| kill::kill_thread(tgid, tid, None).and(Err(why)))
}

/// What comes with a signal, or just the code where there is no signal.
fn read_info(signal: Option<Signal>, at: u64) -> Result<Result<SignalInfo, i32>, Errno> {
    let bytes: [u8; INFO_BYTES] = user::read(at)?;
    // Whatever the signal: the code is read from the same place.
    let info = SignalInfo::decode(signal.unwrap_or(Signal::SIGKILL), &bytes);
    Ok(if signal.is_some() { Ok(info) } else { Err(info.code) })
}

/// rt_sigqueueinfo(2).
pub fn rt_sigqueueinfo(args: &Args) -> SysResult {
    let info = read_info(signal_or_none(args[1])?, args[2])?;
    // A process group has no number here: who is not positive is nobody.
    let number = positive(args[0]).map_err(|_| Errno::ESRCH)?;
    kill::queue_to_process(number, info).map(|()| 0)
}

/// rt_tgsigqueueinfo(2).
pub fn rt_tgsigqueueinfo(args: &Args) -> SysResult {
    let (tgid, tid) = (positive(args[0])?, positive(args[1])?);
    let info = read_info(signal_or_none(args[2])?, args[3])?;
    kill::queue_to_thread(tgid, tid, info).map(|()| 0)
}

/// pidfd_send_signal(2).
pub fn pidfd_send_signal(args: &Args) -> SysResult {
    let (fd, info_at, flags) = (args[0] as i32, args[2], args[3] as u32);
    if flags != 0 {
        return Err(Errno::EINVAL);
    }
    let process = fs::pidfd::process(&current().files(), fd)?;
    let signal = signal_or_none(args[1])?;
    let info = match info_at {
        0 => None,
        at => {
            // Unlike the other calls' this signal has no number of its own choice.
            if user::read::<u32>(at)? != args[1] as u32 {
                return Err(Errno::EINVAL);
            }
            Some(read_info(signal, at)?)
        }
    };
    kill::send_by_handle(&process, signal, info).map(|()| 0)
}

/// restart_syscall(2).
pub fn restart_syscall(_args: &Args) -> SysResult {
    signal::resume_call()
}
