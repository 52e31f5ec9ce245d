//! How threads are scheduled: policy, nice value, CPUs.
//!
//! Linux's `SCHED_FIFO`, `SCHED_RR`, `SCHED_OTHER` and `SCHED_IDLE` are the kernel's own policies, and
//! `SCHED_BATCH` is another name of `SCHED_OTHER`. Others are `EINVAL`. Everybody is root; only the kernel's own tasks
//! are not to be changed (`EPERM`).

use alloc::sync::Arc;

use linux_raw_sys::general as abi;
use orrery_core::cpuset::CpuSet;
use orrery_core::sched::{Nice, Policy, RtPriority};

use super::{Args, Errno, SysResult};
use crate::arch::percpu;
use crate::mm::user;
use crate::process::{current, lookup, thread_of, tree};
use crate::sched::task::label;
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

/// The task that a call is about, which may be one of the kernel's.
fn target(number: u64) -> Result<Arc<Task>, Errno> {
    match number as i32 {
        ..0 => Err(Errno::EINVAL),
        0 => lookup::thread(0),
        number => current().process.namespace.find(number.cast_unsigned()).ok_or(Errno::ESRCH),
    }
}

/// How a program wants a task to be scheduled.
struct Wish {
    number: u32,
    policy: Policy,
    resets_on_fork: bool,
}

impl Wish {
    /// The policy with this number, and this priority or nice value.
    fn new(number: u32, priority: u32, nice: Nice, resets_on_fork: bool) -> Result<Self, Errno> {
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
            abi::SCHED_IDLE if priority == 0 => Policy::IDLE,
            _ => return Err(Errno::EINVAL),
        };
        Ok(Self { number, policy, resets_on_fork })
    }

    fn grant(self, task: &Task) -> Result<(), Errno> {
        lookup::of(task).map_err(|_| Errno::EPERM)?;
        balance::set_policy(task, self.policy);
        let mut labels = 0;
        if self.number == abi::SCHED_BATCH {
            labels |= label::BATCH;
        }
        if self.resets_on_fork {
            labels |= label::RESET_ON_FORK;
        }
        task.label(label::BATCH | label::RESET_ON_FORK, labels);
        trace(task);
        Ok(())
    }
}

fn trace(task: &Task) {
    let Some(thread) = thread_of(task) else { return };
    let comm = *thread.comm.lock();
    task::trace_attributes_as(task, comm.as_str());
}

fn policy_number(task: &Task) -> u32 {
    match task.policy() {
        Policy::Fifo(_) => abi::SCHED_FIFO,
        Policy::RoundRobin(_) => abi::SCHED_RR,
        Policy::IDLE => abi::SCHED_IDLE,
        Policy::Fair(_) if task.has_label(label::BATCH) => abi::SCHED_BATCH,
        Policy::Fair(_) => abi::SCHED_NORMAL,
    }
}

fn resets_on_fork(task: &Task) -> bool {
    task.has_label(label::RESET_ON_FORK)
}

fn priority(policy: Policy) -> u32 {
    policy.rt_priority().map_or(0, |priority| priority.get().into())
}

/// sched_setscheduler(2).
pub fn sched_setscheduler(args: &Args) -> SysResult {
    let number = args[1] as u32;
    if number.cast_signed() < 0 || args[2] == 0 || (args[0] as i32) < 0 {
        return Err(Errno::EINVAL);
    }
    let wanted: u32 = user::read(args[2])?;
    let task = target(args[0])?;
    let resets_on_fork = number & abi::SCHED_RESET_ON_FORK != 0;
    let number = number & !abi::SCHED_RESET_ON_FORK;
    Wish::new(number, wanted, task.nice(), resets_on_fork)?.grant(&task)?;
    Ok(0)
}

/// sched_getscheduler(2).
pub fn sched_getscheduler(args: &Args) -> SysResult {
    let task = target(args[0])?;
    let flag = if resets_on_fork(&task) { abi::SCHED_RESET_ON_FORK } else { 0 };
    Ok((policy_number(&task) | flag).into())
}

/// sched_setparam(2).
pub fn sched_setparam(args: &Args) -> SysResult {
    if args[1] == 0 || (args[0] as i32) < 0 {
        return Err(Errno::EINVAL);
    }
    let wanted: u32 = user::read(args[1])?;
    let task = target(args[0])?;
    let resets_on_fork = resets_on_fork(&task);
    Wish::new(policy_number(&task), wanted, task.nice(), resets_on_fork)?.grant(&task)?;
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

/// Bytes of the first `struct sched_attr`: size, policy, flags (two words), nice value, priority, and three times of
/// the deadline class (`SCHED_ATTR_SIZE_VER0`).
const FIRST_ATTR_BYTES: u32 = 48;
/// Bytes of the second, which has two words of utilisation besides (`SCHED_ATTR_SIZE_VER1`).
const ATTR_BYTES: u32 = 56;
/// Most that one is ever taken to have.
const MAX_ATTR_BYTES: u32 = 4096;

/// Reads a `struct sched_attr`, of whatever size its first word says.
fn read_attr(at: u64) -> Result<[u32; ATTR_BYTES as usize / 4], Errno> {
    let size = match user::read::<u32>(at)? {
        0 => FIRST_ATTR_BYTES,
        size => size,
    };
    // What is not known must be zero; a caller that asks for more is told what there is.
    let too_big = || user::write(at, &ATTR_BYTES).and(Err(Errno::E2BIG));
    if !(FIRST_ATTR_BYTES..=MAX_ATTR_BYTES).contains(&size) {
        return too_big();
    }
    for offset in ATTR_BYTES..size {
        if user::read::<u8>(at + u64::from(offset))? != 0 {
            return too_big();
        }
    }
    let mut words = [0; ATTR_BYTES as usize / 4];
    let known = (size.min(ATTR_BYTES) / 4) as usize;
    user::read_slice(&mut words[..known], at)?;
    Ok(words)
}

/// sched_setattr(2).
pub fn sched_setattr(args: &Args) -> SysResult {
    /// Of the deadline class; others may have them.
    const DEADLINE_FLAGS: u32 = abi::SCHED_FLAG_RECLAIM | abi::SCHED_FLAG_DL_OVERRUN;
    const KNOWN_FLAGS: u32 =
        abi::SCHED_FLAG_RESET_ON_FORK | abi::SCHED_FLAG_KEEP_ALL | DEADLINE_FLAGS;
    let (at, call_flags) = (args[1], args[2] as u32);
    if at == 0 || call_flags != 0 || (args[0] as i32) < 0 {
        return Err(Errno::EINVAL);
    }
    let [_, number, flags, flags_above, nice, priority, ..] = read_attr(at)?;
    if number.cast_signed() < 0 {
        return Err(Errno::EINVAL);
    }
    let task = target(args[0])?;
    let (number, resets_on_fork) = match flags & abi::SCHED_FLAG_KEEP_POLICY {
        0 => (number, flags & abi::SCHED_FLAG_RESET_ON_FORK != 0),
        _ => (policy_number(&task), resets_on_fork(&task)),
    };
    let keeps_parameters = flags & abi::SCHED_FLAG_KEEP_PARAMS != 0;
    let priority = match task.policy().rt_priority() {
        Some(priority) if keeps_parameters => priority.get().into(),
        _ => priority,
    };
    let mut wish = Wish::new(number, priority, clamp(nice.cast_signed()), resets_on_fork)?;
    if flags_above != 0 || flags & !(KNOWN_FLAGS | abi::SCHED_FLAG_UTIL_CLAMP) != 0 {
        return Err(Errno::EINVAL);
    }
    if flags & abi::SCHED_FLAG_UTIL_CLAMP != 0 {
        return Err(Errno::EOPNOTSUPP);
    }
    if keeps_parameters {
        // As on Linux, the policy with them, whatever was said of it.
        wish = Wish { number: policy_number(&task), policy: task.policy(), ..wish };
    }
    wish.grant(&task)?;
    Ok(0)
}

/// sched_getattr(2).
pub fn sched_getattr(args: &Args) -> SysResult {
    let (at, size, flags) = (args[1], args[2] as u32, args[3] as u32);
    let is_known_size = (FIRST_ATTR_BYTES..=MAX_ATTR_BYTES).contains(&size);
    if at == 0 || flags != 0 || !is_known_size {
        return Err(Errno::EINVAL);
    }
    let task = target(args[0])?;
    let policy = task.policy();
    let size = size.min(ATTR_BYTES);
    let mut words = [0u32; ATTR_BYTES as usize / 4];
    words[0] = size;
    words[1] = policy_number(&task);
    words[2] = if resets_on_fork(&task) { abi::SCHED_FLAG_RESET_ON_FORK } else { 0 };
    match policy.rt_priority() {
        Some(priority) => words[5] = priority.get().into(),
        None => words[4] = i32::from(task.nice().get()).cast_unsigned(),
    }
    user::write_slice(at, &words[..size as usize / 4])?;
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
    let len = u64::from(args[1] as u32).min(CPU_SET_BYTES) as usize;
    user::read_bytes(&mut bytes[..len], args[2])?;
    let cpus = CpuSet::from_bits(u64::from_le_bytes(bytes));
    let task = target(args[0]).map_err(|_| Errno::ESRCH)?;
    lookup::of(&task).map_err(|_| Errno::EPERM)?;
    balance::set_affinity(&task, cpus).map_err(|_| Errno::EINVAL)?;
    trace(&task);
    Ok(0)
}

/// sched_getaffinity(2): returns the size of the set.
pub fn sched_getaffinity(args: &Args) -> SysResult {
    let len = u64::from(args[1] as u32);
    if len < CPU_SET_BYTES || !len.is_multiple_of(CPU_SET_BYTES) {
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
    for task in registry::tasks() {
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
