//! How threads are scheduled: policy, nice value, CPUs.
//!
//! Linux's `SCHED_FIFO`, `SCHED_RR` and `SCHED_OTHER` are the kernel's own policies, and `SCHED_BATCH` is
//! another name of the last. Others, and flags, are `EINVAL`. Everybody is root, so that nothing is `EPERM`.

use alloc::sync::Arc;

use linux_raw_sys::general as abi;
use orrery_core::cpuset::CpuSet;
use orrery_core::sched::{Nice, Policy, RtPriority};

use super::{Args, Errno, SysResult};
use crate::arch::percpu;
use crate::mm::user;
use crate::process::{current, lookup, thread_of, tree};
use crate::sched::{self, Task, balance, cpu};
use crate::task::{self, registry};
use crate::time::deadline;

/// Bytes of a CPU set as programs see it.
const CPU_SET_BYTES: u64 = 8;

/// sched_yield(2).
pub fn sched_yield(_args: &Args) -> SysResult {
    sched::yield_now();
    Ok(0)
}

/// getcpu(2). There is one node.
pub fn getcpu(args: &Args) -> SysResult {
    let cpu = percpu::cpu_id();
    for (at, value) in [(args[0], cpu), (args[1], 0)] {
        if at != 0 {
            user::write(at, &value)?;
        }
    }
    Ok(0)
}

/// The task of the thread that a call is about.
fn target(number: u64) -> Result<Arc<Task>, Errno> {
    if (number as i32) < 0 {
        return Err(Errno::EINVAL);
    }
    lookup::thread(number as u32)
}

fn set_policy(task: &Task, (number, policy): (u32, Policy)) {
    balance::set_policy(task, policy);
    task.set_batch(number == abi::SCHED_BATCH);
    trace(task);
}

fn trace(task: &Task) {
    let Some(thread) = thread_of(task) else { return };
    let comm = *thread.comm.lock();
    task::trace_attributes_as(task, comm.as_str());
}

/// The policy with this number, and the number. The nice value is that which the thread has in the fair class.
fn policy(number: u32, priority: u32, nice: Nice) -> Result<(u32, Policy), Errno> {
    let real_time = || {
        u8::try_from(priority)
            .ok()
            .filter(|&priority| priority > 0)
            .and_then(RtPriority::new)
            .ok_or(Errno::EINVAL)
    };
    let policy = match number {
        abi::SCHED_FIFO => Policy::Fifo(real_time()?),
        abi::SCHED_RR => Policy::RoundRobin(real_time()?),
        abi::SCHED_NORMAL | abi::SCHED_BATCH if priority == 0 => Policy::Fair(nice),
        _ => return Err(Errno::EINVAL),
    };
    Ok((number, policy))
}

fn policy_number(task: &Task) -> u32 {
    match task.policy() {
        Policy::Fifo(_) => abi::SCHED_FIFO,
        Policy::RoundRobin(_) => abi::SCHED_RR,
        Policy::Fair(_) if task.is_batch() => abi::SCHED_BATCH,
        Policy::Fair(_) => abi::SCHED_NORMAL,
    }
}

fn priority(policy: Policy) -> u32 {
    policy.rt_priority().map_or(0, |priority| priority.get().into())
}

/// sched_setscheduler(2).
pub fn sched_setscheduler(args: &Args) -> SysResult {
    if args[2] == 0 {
        return Err(Errno::EINVAL);
    }
    let wanted: u32 = user::read(args[2])?;
    let task = target(args[0])?;
    set_policy(&task, policy(args[1] as u32, wanted, task.nice())?);
    Ok(0)
}

/// sched_getscheduler(2).
pub fn sched_getscheduler(args: &Args) -> SysResult {
    Ok(policy_number(&*target(args[0])?).into())
}

/// sched_setparam(2).
pub fn sched_setparam(args: &Args) -> SysResult {
    if args[1] == 0 {
        return Err(Errno::EINVAL);
    }
    let wanted: u32 = user::read(args[1])?;
    let task = target(args[0])?;
    set_policy(&task, policy(policy_number(&task), wanted, task.nice())?);
    Ok(0)
}

/// sched_getparam(2).
pub fn sched_getparam(args: &Args) -> SysResult {
    if args[1] == 0 {
        return Err(Errno::EINVAL);
    }
    user::write(args[1], &priority(target(args[0])?.policy()))?;
    Ok(0)
}

/// Bytes of the first `struct sched_attr`: size, policy, flags, nice value, priority, and three times of
/// the deadline class (`SCHED_ATTR_SIZE_VER0`).
const ATTR_BYTES: u32 = 48;

/// sched_setattr(2).
pub fn sched_setattr(args: &Args) -> SysResult {
    let (at, flags) = (args[1], args[2]);
    if at == 0 || flags as u32 != 0 {
        return Err(Errno::EINVAL);
    }
    let size = match user::read::<u32>(at)? {
        0 => ATTR_BYTES,
        size => size,
    };
    // What is not known must be zero; a caller that asks for more is told what there is.
    let rest = size.checked_sub(ATTR_BYTES).filter(|_| size <= 4096);
    let Some(rest) = rest else {
        user::write(at, &ATTR_BYTES)?;
        return Err(Errno::E2BIG);
    };
    let mut offset = 0;
    while offset < rest {
        let byte: u8 = user::read(at + u64::from(ATTR_BYTES + offset))?;
        if byte != 0 {
            user::write(at, &ATTR_BYTES)?;
            return Err(Errno::E2BIG);
        }
        offset += 1;
    }
    let words: [u32; 6] = user::read(at)?;
    let [_, number, flags, flags_above, nice, priority] = words;
    if flags != 0 || flags_above != 0 {
        return Err(Errno::EINVAL);
    }
    let task = target(args[0])?;
    set_policy(&task, policy(number, priority, clamp(nice.cast_signed()))?);
    Ok(0)
}

/// sched_getattr(2).
pub fn sched_getattr(args: &Args) -> SysResult {
    let (at, size, flags) = (args[1], args[2] as u32, args[3] as u32);
    if at == 0 || flags != 0 || !(ATTR_BYTES..=4096).contains(&size) {
        return Err(Errno::EINVAL);
    }
    let task = target(args[0])?;
    let policy = task.policy();
    let nice = match policy {
        Policy::Fair(nice) => i32::from(nice.get()),
        _ => 0,
    };
    let mut words = [0u32; ATTR_BYTES as usize / 4];
    words[0] = ATTR_BYTES;
    words[1] = policy_number(&task);
    words[4] = nice.cast_unsigned();
    words[5] = priority(policy);
    user::write(at, &words)?;
    Ok(0)
}

/// sched_get_priority_max(2).
pub fn sched_get_priority_max(args: &Args) -> SysResult {
    match args[0] as u32 {
        abi::SCHED_FIFO | abi::SCHED_RR => Ok(RtPriority::MAX.get().into()),
        number => no_priority(number),
    }
}

/// sched_get_priority_min(2).
pub fn sched_get_priority_min(args: &Args) -> SysResult {
    match args[0] as u32 {
        abi::SCHED_FIFO | abi::SCHED_RR => Ok(1),
        number => no_priority(number),
    }
}

fn no_priority(number: u32) -> SysResult {
    match number {
        abi::SCHED_NORMAL | abi::SCHED_BATCH | abi::SCHED_IDLE | abi::SCHED_DEADLINE => Ok(0),
        _ => Err(Errno::EINVAL),
    }
}

/// sched_rr_get_interval(2): a fair thread's is its slice, and a FIFO thread has none.
pub fn sched_rr_get_interval(args: &Args) -> SysResult {
    const NANOS_PER_MICRO: u64 = 1_000;
    let slice_us = match target(args[0])?.policy() {
        Policy::Fifo(_) => 0,
        Policy::RoundRobin(_) => cpu::RR_QUANTUM_US,
        Policy::Fair(_) => cpu::SLICE_US,
    };
    user::write(args[1], &deadline::timespec(slice_us * NANOS_PER_MICRO))?;
    Ok(0)
}

/// sched_setaffinity(2).
pub fn sched_setaffinity(args: &Args) -> SysResult {
    let mut bytes = [0; CPU_SET_BYTES as usize];
    let len = args[1].min(CPU_SET_BYTES) as usize;
    user::read_bytes(&mut bytes[..len], args[2])?;
    let cpus = CpuSet::from_bits(u64::from_le_bytes(bytes));
    let task = target(args[0]).map_err(|_| Errno::ESRCH)?;
    balance::set_affinity(&task, cpus).map_err(|_| Errno::EINVAL)?;
    trace(&task);
    Ok(0)
}

/// sched_getaffinity(2): returns the size of the set.
pub fn sched_getaffinity(args: &Args) -> SysResult {
    if args[1] < CPU_SET_BYTES || !args[1].is_multiple_of(CPU_SET_BYTES) {
        return Err(Errno::EINVAL);
    }
    let task = target(args[0]).map_err(|_| Errno::ESRCH)?;
    let cpus = task.allowed().intersection(cpu::online());
    user::write(args[2], &cpus.bits())?;
    Ok(CPU_SET_BYTES)
}

fn clamp(nice: i32) -> Nice {
    let nice = nice.clamp(Nice::MIN.get().into(), Nice::MAX.get().into());
    Nice::new(nice as i8).unwrap_or_default()
}

/// Calls `each` with the threads that getpriority(2) and setpriority(2) name.
fn for_each_named(which: u32, who: u32, mut each: impl FnMut(&Task)) -> Result<(), Errno> {
    let group = match which {
        abi::PRIO_PROCESS => {
            each(&*lookup::thread(who)?);
            return Ok(());
        }
        abi::PRIO_PGRP if who == 0 => Some(current().process.family.get(&tree::lock()).group),
        abi::PRIO_PGRP => Some(lookup::in_root(who)?),
        abi::PRIO_USER if who == 0 => None,
        abi::PRIO_USER => return Err(Errno::ESRCH),
        _ => return Err(Errno::EINVAL),
    };
    let mut is_any = false;
    for task in registry::snapshot() {
        let Some(thread) = thread_of(&task) else { continue };
        let its_group = thread.process.family.get(&tree::lock()).group;
        if group.is_none_or(|group| group == its_group) {
            each(&task);
            is_any = true;
        }
    }
    if is_any { Ok(()) } else { Err(Errno::ESRCH) }
}

/// setpriority(2).
pub fn setpriority(args: &Args) -> SysResult {
    let nice = clamp(args[2] as i32);
    for_each_named(args[0] as u32, args[1] as u32, |task| {
        balance::set_nice(task, nice);
        trace(task);
    })?;
    Ok(0)
}

/// getpriority(2): 20 minus the lowest nice value, since negative numbers are errors.
pub fn getpriority(args: &Args) -> SysResult {
    let mut lowest = Nice::MAX;
    for_each_named(args[0] as u32, args[1] as u32, |task| lowest = lowest.min(task.nice()))?;
    Ok((20 - i64::from(lowest.get())).cast_unsigned())
}
