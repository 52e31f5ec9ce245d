//! What processes may use and have used: limits, run times.

use alloc::sync::Arc;

use linux_raw_sys::general::{self as abi, rlimit64, rusage};
use orrery_core::fs::fd_table::MAX_DESCRIPTORS;

use super::{Args, Errno, SysResult};
use crate::mm::space::Space;
use crate::mm::user;
use crate::process::limits::{KINDS, Limit};
use crate::process::tree::Tree;
use crate::process::usage::Usage;
use crate::process::{Process, current, lookup, run_timer, tree};
use crate::sched;
use crate::time::{self, deadline};

/// prlimit64(2).
pub fn prlimit64(args: &Args) -> SysResult {
    let kind = kind(args[1])?;
    let new = match args[2] {
        0 => None,
        at => Some(check(kind, user::read::<rlimit64>(at)?)?),
    };
    let process = lookup::process(args[0] as u32)?;
    let old = exchange(&process, kind, new);
    if args[3] != 0 {
        user::write(args[3], &rlimit64 { rlim_cur: old.soft, rlim_max: old.hard })?;
    }
    Ok(0)
}

/// getrlimit(2).
pub fn getrlimit(args: &Args) -> SysResult {
    let old = exchange(&current().process, kind(args[0])?, None);
    user::write(args[1], &rlimit64 { rlim_cur: old.soft, rlim_max: old.hard })?;
    Ok(0)
}

/// setrlimit(2).
pub fn setrlimit(args: &Args) -> SysResult {
    let kind = kind(args[0])?;
    let new = check(kind, user::read::<rlimit64>(args[1])?)?;
    exchange(&current().process, kind, Some(new));
    Ok(0)
}

fn kind(argument: u64) -> Result<u32, Errno> {
    let kind = argument as u32;
    if (kind as usize) < KINDS { Ok(kind) } else { Err(Errno::EINVAL) }
}

fn check(kind: u32, new: rlimit64) -> Result<Limit, Errno> {
    if new.rlim_cur > new.rlim_max {
        return Err(Errno::EINVAL);
    }
    if kind == abi::RLIMIT_NOFILE && new.rlim_max > MAX_DESCRIPTORS.into() {
        return Err(Errno::EPERM);
    }
    Ok(Limit { soft: new.rlim_cur, hard: new.rlim_max })
}

/// Replaces a limit, and returns what it was. Root may raise it, and everybody is root.
fn exchange(process: &Process, kind: u32, new: Option<Limit>) -> Limit {
    let change = || {
        let mut limits = process.limits.lock();
        let old = limits.get(kind).expect("the kind was checked");
        if let Some(new) = new {
            Arc::make_mut(&mut limits).set(kind, new);
        }
        (old, **limits)
    };
    let (old, limits) = if new.is_some() && kind == abi::RLIMIT_CPU {
        run_timer::change_limit(process, change)
    } else {
        change()
    };
    if new.is_some() {
        // Memory's are enforced by the address space. One that a process shares with its parent (`vfork`) has the
        // parent's.
        let (own, of_parent, _parent) = {
            let tree = tree::lock();
            let parent = process.parent(&tree);
            let of_parent = parent.as_ref().and_then(|parent| space_of(parent, &tree));
            // What may be the last reference goes after the lock.
            (space_of(process, &tree), of_parent, parent)
        };
        let is_parents = own.as_ref().map(Arc::as_ptr) == of_parent.as_ref().map(Arc::as_ptr);
        if let Some(own) = own.filter(|_| !is_parents) {
            own.set_limits(limits.of_memory());
        }
    }
    old
}

/// The address space that all threads of a process have.
fn space_of(process: &Process, tree: &Tree) -> Option<Arc<Space>> {
    let mut space = None;
    process.family.get(tree).for_each_thread(|_, thread| {
        space = space.take().or_else(|| thread.space.lock().clone());
    });
    space
}

/// getrusage(2).
pub fn getrusage(args: &Args) -> SysResult {
    let process = &current().process;
    let usage = match args[0] as i32 {
        SELF => process.usage(&mut tree::lock()),
        CHILDREN => process.children_usage(&tree::lock()),
        THREAD => current().usage(sched::current()),
        _ => return Err(Errno::EINVAL),
    };
    user::write(args[1], &rusage(&usage))?;
    Ok(0)
}

const SELF: i32 = abi::RUSAGE_SELF.cast_signed();
const CHILDREN: i32 = abi::RUSAGE_CHILDREN;
const THREAD: i32 = abi::RUSAGE_THREAD.cast_signed();

/// getrusage(2)'s structure. Nothing is read from a disk: no fault is a major one.
pub fn rusage(usage: &Usage) -> rusage {
    const KIB_PER_PAGE: u64 = 4;
    let mut told: rusage = user::zeroed();
    let user = deadline::timeval(time::to_nanos(usage.time.user_ticks));
    let system = deadline::timeval(time::to_nanos(usage.time.system_ticks));
    (told.ru_utime.tv_sec, told.ru_utime.tv_usec) = (user.tv_sec, user.tv_usec);
    (told.ru_stime.tv_sec, told.ru_stime.tv_usec) = (system.tv_sec, system.tv_usec);
    told.ru_maxrss = (usage.max_resident_pages * KIB_PER_PAGE).cast_signed();
    told.ru_minflt = usage.faults.cast_signed();
    told.ru_nvcsw = usage.voluntary_switches.cast_signed();
    told.ru_nivcsw = usage.involuntary_switches.cast_signed();
    told
}

/// times(2): in hundredths of a second.
pub fn times(args: &Args) -> SysResult {
    const NANOS_PER_CLOCK_TICK: u64 = 10_000_000;
    let clock_ticks = |ticks: u64| time::to_nanos(ticks) / NANOS_PER_CLOCK_TICK;
    if args[0] != 0 {
        let process = &current().process;
        let (mine, children) = {
            let mut tree = tree::lock();
            (process.cpu_time(&mut tree), process.children_usage(&tree).time)
        };
        let told = [mine.user_ticks, mine.system_ticks, children.user_ticks, children.system_ticks];
        user::write(args[0], &told.map(clock_ticks))?;
    }
    Ok(time::monotonic_nanos() / NANOS_PER_CLOCK_TICK)
}
