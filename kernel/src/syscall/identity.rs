//! Who a process is: numbers, groups, sessions; users, of whom there is one.
//!
//! Everybody is root, with all capabilities. A call that asks for another user is refused with `EINVAL`, as for
//! a user that the system does not have.

use core::sync::atomic::Ordering;

use linux_raw_sys::general as abi;

use super::{Args, Errno, SysResult};
use crate::mm::user;
use crate::process::group::Family;
use crate::process::{current, lookup, thread_of, tree};
use crate::task::registry;

const ROOT: u32 = 0;
/// In an argument: leave this identity as it is.
const UNCHANGED: u32 = u32::MAX;

/// getpid(2).
pub fn getpid(_args: &Args) -> SysResult {
    Ok(current().process.tgid().into())
}

/// gettid(2).
pub fn gettid(_args: &Args) -> SysResult {
    Ok(current().tid().into())
}

/// getppid(2): 0 for a parent that is not seen from here.
pub fn getppid(_args: &Args) -> SysResult {
    Ok(current().process.parent_tgid().into())
}

/// getuid(2), geteuid(2), getgid(2), getegid(2).
pub fn get_id(_args: &Args) -> SysResult {
    Ok(ROOT.into())
}

fn check_id(id: u64) -> Result<(), Errno> {
    if id as u32 == ROOT { Ok(()) } else { Err(Errno::EINVAL) }
}

/// setuid(2), setgid(2).
pub fn set_id(args: &Args) -> SysResult {
    check_id(args[0])?;
    Ok(0)
}

fn check_ids<const N: usize>(args: &Args) -> SysResult {
    (0..N).filter(|&at| args[at] as u32 != UNCHANGED).try_for_each(|at| check_id(args[at]))?;
    Ok(0)
}

/// setreuid(2), setregid(2).
pub fn set_two_ids(args: &Args) -> SysResult {
    check_ids::<2>(args)
}

/// setresuid(2), setresgid(2).
pub fn set_three_ids(args: &Args) -> SysResult {
    check_ids::<3>(args)
}

/// getresuid(2), getresgid(2).
pub fn get_three_ids(args: &Args) -> SysResult {
    (0..3).try_for_each(|at| user::write(args[at], &ROOT))?;
    Ok(0)
}

/// setfsuid(2), setfsgid(2): the answer is what it was.
pub fn set_file_id(_args: &Args) -> SysResult {
    Ok(ROOT.into())
}

/// getgroups(2): there are none besides.
pub fn getgroups(args: &Args) -> SysResult {
    if (args[0] as i32) < 0 { Err(Errno::EINVAL) } else { Ok(0) }
}

/// setgroups(2): to none.
pub fn setgroups(args: &Args) -> SysResult {
    if args[0] as u32 == 0 { Ok(0) } else { Err(Errno::EINVAL) }
}

/// Words of the two halves of a set of capabilities.
const CAPABILITIES: [u32; 2] = [u32::MAX, (1 << (abi::CAP_LAST_CAP - 31)) - 1];

/// Reads the header of a capability call. The version must be the third; a caller that does not know is told.
fn capability_target(header: u64) -> Result<(), Errno> {
    let [version, number] = user::read::<[u32; 2]>(header)?;
    if version != abi::_LINUX_CAPABILITY_VERSION_3 {
        user::write(header, &abi::_LINUX_CAPABILITY_VERSION_3)?;
        return Err(Errno::EINVAL);
    }
    if number.cast_signed() < 0 {
        return Err(Errno::EINVAL);
    }
    lookup::thread(number).map(drop)
}

/// capget(2): everything but what is inherited over `execve`.
pub fn capget(args: &Args) -> SysResult {
    match capability_target(args[0]) {
        // That was the question.
        Err(Errno::EINVAL) if args[1] == 0 => return Ok(0),
        other => other?,
    }
    if args[1] != 0 {
        let words = CAPABILITIES.map(|all| [all, all, 0]);
        user::write(args[1], &words)?;
    }
    Ok(0)
}

/// capset(2): they cannot be given up.
pub fn capset(args: &Args) -> SysResult {
    capability_target(args[0])?;
    let words = user::read::<[[u32; 3]; 2]>(args[1])?;
    let keeps_all = CAPABILITIES
        .iter()
        .zip(words)
        .all(|(&all, [effective, permitted, _])| effective & all == all && permitted & all == all);
    if keeps_all { Ok(0) } else { Err(Errno::EPERM) }
}

/// getpgrp(2).
pub fn getpgrp(_args: &Args) -> SysResult {
    let group = current().process.family.get(&tree::lock()).group;
    Ok(lookup::seen_from_here(group).into())
}

/// What somebody is in, by a number of the root namespace. The kernel's own tasks are in nothing: 0.
fn membership(number: u64, choose: impl FnOnce(&Family) -> u32) -> SysResult {
    let number = number as u32;
    let process = match lookup::process(number) {
        Err(Errno::ESRCH) if current().process.namespace.find(number).is_some() => return Ok(0),
        found => found?,
    };
    let root_number = choose(process.family.get(&tree::lock()));
    Ok(lookup::seen_from_here(root_number).into())
}

/// getpgid(2).
pub fn getpgid(args: &Args) -> SysResult {
    membership(args[0], |family| family.group)
}

/// getsid(2).
pub fn getsid(args: &Args) -> SysResult {
    membership(args[0], |family| family.session)
}

/// Whether any process is in this group, and in this session if one is given.
fn group_exists(group: u32, session: Option<u32>) -> bool {
    registry::tasks().any(|task| {
        let Some(thread) = thread_of(&task) else { return false };
        let tree = tree::lock();
        let family = thread.process.family.get(&tree);
        family.group == group && session.is_none_or(|session| family.session == session)
    })
}

/// setpgid(2).
pub fn setpgid(args: &Args) -> SysResult {
    if (args[1] as i32) < 0 {
        return Err(Errno::EINVAL);
    }
    let me = &current().process;
    let target = lookup::leader(args[0] as u32, &tree::lock())?;
    let pid = target.family.get(&tree::lock()).pid;
    let group = match args[1] as u32 {
        0 => pid,
        number => lookup::in_root(number).map_err(|_| Errno::EPERM)?,
    };
    let session = me.family.get(&tree::lock()).session;
    let has_no_such_group = group != pid && !group_exists(group, Some(session));
    let mut tree = tree::lock();
    let is_me = core::ptr::eq(&raw const *target, &raw const **me);
    let is_child = me.family.get(&tree).children.contains_key(&pid);
    let family = target.family.get_mut(&mut tree);
    if !is_me {
        if !is_child {
            return Err(Errno::ESRCH);
        }
        if family.session != session {
            return Err(Errno::EPERM);
        }
        if target.execs.load(Ordering::Relaxed) != 0 {
            return Err(Errno::EACCES);
        }
    }
    if family.session == pid || has_no_such_group {
        return Err(Errno::EPERM);
    }
    family.group = group;
    Ok(0)
}

/// setsid(2).
pub fn setsid(_args: &Args) -> SysResult {
    let process = &current().process;
    let pid = process.family.get(&tree::lock()).pid;
    if group_exists(pid, None) {
        return Err(Errno::EPERM);
    }
    let mut tree = tree::lock();
    let family = process.family.get_mut(&mut tree);
    (family.group, family.session) = (pid, pid);
    let tgid = family.tgid;
    Ok(tgid.into())
}
