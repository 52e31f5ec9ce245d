//! Making, replacing, ending and awaiting processes.

use alloc::vec::Vec;

use linux_raw_sys::general as abi;
use orrery_core::exec::stack::{MAX_BYTES, MAX_STRING_BYTES};

use super::{Args, Errno, SysResult, resource};
use crate::fs::{self, Executable};
use crate::mm::{frames, user};
use crate::process::clone::{self, Request};
use crate::process::usage::Usage;
use crate::process::wait::{self, Report, Status, Which};
use crate::process::{current, exit, thread_of, tree};

/// fork(2).
pub fn fork(args: &Args) -> SysResult {
    let request = Request { exit_signal: abi::SIGCHLD.into(), ..Request::default() };
    clone::clone(&request, args.frame())
}

/// vfork(2).
pub fn vfork(args: &Args) -> SysResult {
    let flags = u64::from(abi::CLONE_VFORK | abi::CLONE_VM);
    let request = Request { flags, exit_signal: abi::SIGCHLD.into(), ..Request::default() };
    clone::clone(&request, args.frame())
}

/// clone(2).
pub fn clone(args: &Args) -> SysResult {
    // Below eight bits of signal, all flags are 32 bits; clone3 has the others.
    let flags = u64::from(args[0] as u32);
    let request = Request {
        flags: flags & !u64::from(abi::CSIGNAL),
        exit_signal: flags & u64::from(abi::CSIGNAL),
        stack_pointer: args[1],
        parent_tid: args[2],
        // The two share an argument here.
        pidfd: args[2],
        child_tid: args[3],
        tls: args[4],
    };
    if request.flags & u64::from(abi::CLONE_PIDFD) != 0
        && request.flags & u64::from(abi::CLONE_PARENT_SETTID) != 0
    {
        return Err(Errno::EINVAL);
    }
    clone::clone(&request, args.frame())
}

/// clone3(2).
pub fn clone3(args: &Args) -> SysResult {
    let (at, size) = (args[0], args[1]);
    if size > 4096 {
        return Err(Errno::E2BIG);
    }
    if size < u64::from(abi::CLONE_ARGS_SIZE_VER0) {
        return Err(Errno::EINVAL);
    }
    let mut words = [0u64; 11];
    let known = (size as usize / 8).min(words.len());
    user::read_slice(&mut words[..known], at)?;
    // What this kernel does not know must be zero.
    for offset in (known as u64 * 8..size).step_by(8) {
        let len = (size - offset).min(8) as usize;
        let mut rest = [0; 8];
        user::read_bytes(&mut rest[..len], at + offset)?;
        if rest != [0; 8] {
            return Err(Errno::E2BIG);
        }
    }
    let [
        flags,
        pidfd,
        child_tid,
        parent_tid,
        exit_signal,
        stack,
        stack_bytes,
        tls,
        set_tid,
        set_tid_count,
        cgroup,
    ] = words;
    let wants_numbers = set_tid != 0 || set_tid_count != 0;
    if wants_numbers || cgroup != 0 || (stack == 0) != (stack_bytes == 0) {
        return Err(Errno::EINVAL);
    }
    if flags & u64::from(abi::CSIGNAL | abi::CLONE_DETACHED) != 0 {
        return Err(Errno::EINVAL);
    }
    // Of such a child nobody is told, or its maker's parent is.
    let has_no_signal = u64::from(abi::CLONE_THREAD | abi::CLONE_PARENT);
    if flags & has_no_signal != 0 && exit_signal != 0 || exit_signal > u64::from(abi::_NSIG) {
        return Err(Errno::EINVAL);
    }
    let stack_pointer = stack.checked_add(stack_bytes).ok_or(Errno::EINVAL)?;
    let request = Request { flags, pidfd, child_tid, parent_tid, exit_signal, stack_pointer, tls };
    clone::clone(&request, args.frame())
}

/// execve(2).
pub fn execve(args: &Args) -> SysResult {
    // What is on the stack when the new program begins is never dropped.
    let file = {
        let path = user::read_string(args[0], fs::PATH_MAX_BYTES)?;
        Executable::open(&current().fs(), &path)?
    };
    exec(file, args[1], args[2])
}

/// execveat(2).
pub fn execveat(args: &Args) -> SysResult {
    let flags = args[4] as u32;
    let thread = current();
    let file = {
        let path = user::read_string(args[1], fs::PATH_MAX_BYTES)?;
        Executable::open_at(&thread.fs(), &thread.files(), args[0] as i32, &path, flags)?
    };
    exec(file, args[2], args[3])
}

fn exec(file: Executable, arguments: u64, environment: u64) -> SysResult {
    if frames::is_scarce() {
        // There is no address space to be had, and the arguments are many small strings.
        return Err(Errno::ENOMEM);
    }
    let mut left = MAX_BYTES;
    let mut arguments = strings(arguments, &mut left)?;
    let environment = strings(environment, &mut left)?;
    if arguments.is_empty() {
        // As Linux does, so that no program finds argc 0.
        arguments.push(Vec::new());
    }
    let image = crate::process::exec::prepare(file, arguments, &environment)?;
    drop(environment);
    match crate::process::exec::become_program(image)? {}
}

/// Reads a list of strings that ends with a null pointer.
fn strings(list: u64, left: &mut usize) -> Result<Vec<Vec<u8>>, Errno> {
    let mut strings = Vec::new();
    if list == 0 {
        return Ok(strings);
    }
    loop {
        let index = strings.len() as u64;
        let at = list.checked_add(index * 8).ok_or(Errno::EFAULT)?;
        let string = user::read::<u64>(at)?;
        if string == 0 {
            return Ok(strings);
        }
        let string = user::read_string(string, MAX_STRING_BYTES)
            .map_err(|why| if why == Errno::ENAMETOOLONG { Errno::E2BIG } else { why })?;
        *left = left.checked_sub(string.len() + 1 + 8).ok_or(Errno::E2BIG)?;
        strings.try_reserve(1).map_err(|_| Errno::ENOMEM)?;
        strings.push(string);
    }
}

/// _exit(2): of the thread.
pub fn exit(args: &Args) -> SysResult {
    exit::exit_with(args[0] as i32)
}

/// exit_group(2).
pub fn exit_group(args: &Args) -> SysResult {
    exit::exit_group(Status::exited(args[0] as i32))
}

/// wait4(2).
pub fn wait4(args: &Args) -> SysResult {
    let options = args[2] as u32;
    let known = abi::WNOHANG
        | abi::WUNTRACED
        | abi::WCONTINUED
        | abi::__WNOTHREAD
        | abi::__WALL
        | abi::__WCLONE;
    if options & !known != 0 {
        return Err(Errno::EINVAL);
    }
    let which = match args[0] as i32 {
        i32::MIN => return Err(Errno::ESRCH),
        -1 => Which::All,
        0 => Which::Group(current().process.family.get(&tree::lock()).group),
        number @ 1.. => Which::Number(number as u32),
        group => Which::Group(group_of(group.unsigned_abs())?),
    };
    let request = wait::Request { which, options: options | abi::WEXITED };
    let mut usage = Usage::default();
    let Some(report) = wait::wait(&request, &mut usage)? else { return Ok(0) };
    if args[1] != 0 {
        user::write(args[1], &report.status)?;
    }
    write_usage(args[3], &usage)?;
    Ok(report.number.into())
}

/// waitid(2). Where no child is found for whatever reason, there are zeros in its place.
pub fn waitid(args: &Args) -> SysResult {
    let info = args[2];
    let mut usage = Usage::default();
    let found = find_child(args, &mut usage);
    if info != 0 {
        write_info(info, found.as_ref().ok().and_then(Option::as_ref))?;
    }
    if found?.is_some() {
        write_usage(args[4], &usage)?;
    }
    Ok(0)
}

fn find_child(args: &Args, usage: &mut Usage) -> Result<Option<Report>, Errno> {
    let (kind, id, options) = (args[0] as u32, args[1] as u32, args[3] as u32);
    let known = abi::WNOHANG
        | abi::WNOWAIT
        | abi::WEXITED
        | abi::WSTOPPED
        | abi::WCONTINUED
        | abi::__WNOTHREAD
        | abi::__WALL
        | abi::__WCLONE;
    let wanted = abi::WEXITED | abi::WSTOPPED | abi::WCONTINUED;
    if options & !known != 0 || options & wanted == 0 {
        return Err(Errno::EINVAL);
    }
    let mut must_not_sleep = false;
    let which = match kind {
        abi::P_ALL => Which::All,
        abi::P_PID if id as i32 > 0 => Which::Number(id),
        abi::P_PGID if id == 0 => Which::Group(current().process.family.get(&tree::lock()).group),
        abi::P_PGID if id as i32 > 0 => Which::Group(group_of(id)?),
        abi::P_PIDFD if id as i32 >= 0 => {
            let (process, is_nonblocking) = fs::pidfd::to_wait_for(&current().files(), id as i32)?;
            must_not_sleep = is_nonblocking && options & abi::WNOHANG == 0;
            Which::Process(process)
        }
        _ => return Err(Errno::EINVAL),
    };
    let not_sleeping = if must_not_sleep { abi::WNOHANG } else { 0 };
    let request = wait::Request { which, options: options | not_sleeping };
    match wait::wait(&request, usage)? {
        None if must_not_sleep => Err(Errno::EAGAIN),
        found => Ok(found),
    }
}

/// The root namespace's number of a process group that the caller names.
fn group_of(number: u32) -> Result<u32, Errno> {
    let namespace = &current().process.namespace;
    if namespace.level() == 0 {
        return Ok(number);
    }
    let leader = namespace.find(number).ok_or(Errno::ECHILD)?;
    Ok(leader.pid())
}

/// Writes what `siginfo_t` has of a child (sigaction(2)); zeros where there is none.
fn write_info(at: u64, report: Option<&Report>) -> Result<(), Errno> {
    let mut words = [0i32; 7];
    if let Some(report) = report {
        let (code, status) = report.child_code;
        // si_signo, si_errno, si_code, padding, si_pid, si_uid, si_status
        words = [abi::SIGCHLD as i32, 0, code as i32, 0, report.number as i32, 0, status as i32];
    }
    user::write(at, &words)
}

fn write_usage(at: u64, usage: &Usage) -> Result<(), Errno> {
    if at == 0 {
        return Ok(());
    }
    user::write(at, &resource::rusage(usage))
}

/// pidfd_open(2).
pub fn pidfd_open(args: &Args) -> SysResult {
    let (number, flags) = (args[0] as i32, args[1] as u32);
    if number <= 0 || flags & !abi::O_NONBLOCK != 0 {
        return Err(Errno::EINVAL);
    }
    let thread = current();
    let task = thread.process.namespace.find(number as u32).ok_or(Errno::ESRCH)?;
    let process = &thread_of(&task).ok_or(Errno::ESRCH)?.process;
    // Only a process has one, not a thread of it.
    if process.family.get(&tree::lock()).pid != task.pid() {
        return Err(Errno::EINVAL);
    }
    Ok(fs::pidfd::open(&thread.files(), process, flags)?.into())
}

/// pidfd_getfd(2).
pub fn pidfd_getfd(args: &Args) -> SysResult {
    if args[2] as u32 != 0 {
        return Err(Errno::EINVAL);
    }
    let files = current().files();
    let process = fs::pidfd::process(&files, args[0] as i32)?;
    Ok(fs::pidfd::open_file_of(&files, &process, args[1] as i32)?.into())
}
