//! futex(2) and the calls about a thread's end that go with it.

use core::sync::atomic::Ordering;

use linux_raw_sys::general::{__kernel_timespec, FUTEX_PRIVATE_FLAG, FUTEX_WAIT, FUTEX_WAKE};
use orrery_core::futex::{ANY, Clock, Command, Operation, Scope, WordOperation};

use super::{Args, Errno, SysResult};
use crate::mm::user;
use crate::process::futex::{self, NotWoken, Requeue, Wait};
use crate::process::signal::{self, Restart};
use crate::process::{current, lookup};
use crate::time::{self, deadline};

/// futex(2).
pub fn futex(args: &Args) -> SysResult {
    let op = args[1] as u32;
    match op & !FUTEX_PRIVATE_FLAG {
        FUTEX_WAKE => wake_any(args, Scope::of(op)),
        FUTEX_WAIT if args[3] == 0 => wait_any(args, Scope::of(op)),
        _ => seldom(args, op),
    }
}

/// [`wait`] without its options, for the path that counts.
#[inline(never)]
fn wait_any(args: &Args, scope: Scope) -> SysResult {
    let (address, expected) = (args[0], args[2] as u32);
    wait_here(Wait { address, expected, scope, bitset: ANY, deadline_ticks: None })
}

/// [`wake`] without its options, for the path that counts.
#[inline(never)]
fn wake_any(args: &Args, scope: Scope) -> SysResult {
    Ok(futex::wake(args[0], scope, at_least_one(args[2] as u32), ANY)?.into())
}

/// What programs do not do all the time.
#[cold]
#[inline(never)]
fn seldom(args: &Args, op: u32) -> SysResult {
    let Operation { command, scope, clock } = Operation::decode(op)?;
    let (address, value, value_3) = (args[0], args[2] as u32, args[5] as u32);
    match command {
        Command::Wake => wake(address, scope, value, ANY),
        Command::WakeBitset => wake(address, scope, value, value_3),
        Command::Wait => {
            let deadline_ticks = match args[3] {
                0 => None,
                at => Some(deadline::after(read_timeout(at)?)),
            };
            wait(Wait { address, expected: value, scope, bitset: ANY, deadline_ticks })
        }
        Command::WaitBitset => {
            let deadline_ticks = match args[3] {
                0 => None,
                at => Some(absolute(read_timeout(at)?, clock)),
            };
            wait(Wait { address, expected: value, scope, bitset: value_3, deadline_ticks })
        }
        Command::Requeue => requeue(args, scope, None),
        Command::CmpRequeue => requeue(args, scope, Some(value_3)),
        Command::WakeOp => {
            let operation = WordOperation::decode(value_3)?;
            let first = (address, at_least_one(value));
            let second = (args[4], at_least_one(args[3] as u32));
            Ok(futex::wake_after(operation, scope, first, second)?.into())
        }
    }
}

fn read_timeout(at: u64) -> Result<u64, Errno> {
    deadline::nanos(&user::read::<__kernel_timespec>(at)?)
}

fn absolute(nanos: u64, clock: Clock) -> u64 {
    match clock {
        Clock::Monotonic => time::to_ticks(nanos),
        Clock::Realtime => deadline::realtime(nanos),
    }
}

/// As Linux, which looks at the number only after it has woken somebody: nothing and less than that mean
/// one.
fn at_least_one(limit: u32) -> u32 {
    limit.cast_signed().max(1).cast_unsigned()
}

#[inline(never)]
fn wake(address: u64, scope: Scope, limit: u32, bitset: u32) -> SysResult {
    if bitset == 0 {
        return Err(Errno::EINVAL);
    }
    Ok(futex::wake(address, scope, at_least_one(limit), bitset)?.into())
}

#[inline(never)]
fn wait(request: Wait) -> SysResult {
    wait_here(request)
}

#[inline(always)]
fn wait_here(request: Wait) -> SysResult {
    if request.bitset == 0 {
        return Err(Errno::EINVAL);
    }
    match futex::wait(&request) {
        Ok(()) => Ok(0),
        Err(NotWoken::Changed) => Err(Errno::EAGAIN),
        Err(NotWoken::TimedOut) => Err(Errno::ETIMEDOUT),
        Err(NotWoken::Refused(why)) => Err(why),
        // A relative timeout begins once: it goes on with what is left.
        Err(NotWoken::Interrupted) => Err(match request.deadline_ticks {
            None => Errno::RESTART_SYS,
            Some(deadline) => {
                let word = u64::from(request.expected) | u64::from(request.bitset) << 32;
                let scope = u64::from(request.scope == Scope::Shared);
                let data = [request.address, word, scope, deadline];
                signal::restart_later(Restart { resume: wait_on, data })
            }
        }),
    }
}

/// Goes on with a wait that was interrupted, until the same time.
fn wait_on(&[address, word, scope, deadline]: &[u64; 4]) -> SysResult {
    wait(Wait {
        address,
        expected: word as u32,
        scope: if scope == 0 { Scope::Private } else { Scope::Shared },
        bitset: (word >> 32) as u32,
        deadline_ticks: Some(deadline),
    })
}

fn requeue(args: &Args, scope: Scope, expected: Option<u32>) -> SysResult {
    let limit = |limit: u64| u32::try_from(limit as i32).map_err(|_| Errno::EINVAL);
    let request = Requeue {
        from: args[0],
        to: args[4],
        scope,
        wake_limit: limit(args[2])?,
        move_limit: limit(args[3])?,
        expected,
    };
    Ok(futex::requeue(&request)?.into())
}

/// Bytes of `struct robust_list_head`.
const ROBUST_HEAD_BYTES: u64 = 24;

/// set_robust_list(2).
pub fn set_robust_list(args: &Args) -> SysResult {
    if args[1] != ROBUST_HEAD_BYTES {
        return Err(Errno::EINVAL);
    }
    current().robust_list.store(args[0], Ordering::Relaxed);
    Ok(0)
}

/// get_robust_list(2).
pub fn get_robust_list(args: &Args) -> SysResult {
    let task = lookup::thread(args[0] as u32)?;
    let head = lookup::of(&task)?.robust_list.load(Ordering::Relaxed);
    user::write(args[2], &ROBUST_HEAD_BYTES)?;
    user::write(args[1], &head)?;
    Ok(0)
}

/// set_tid_address(2).
pub fn set_tid_address(args: &Args) -> SysResult {
    let thread = current();
    thread.clear_child_tid.store(args[0], Ordering::Relaxed);
    Ok(thread.tid().into())
}
