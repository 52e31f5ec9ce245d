//! The system as a whole: its name, its memory, its end.

use core::sync::atomic::Ordering;

use linux_raw_sys::general as abi;
use linux_raw_sys::prctl as abi_prctl;
use linux_raw_sys::system::{new_utsname, sysinfo as SysInfo};

use super::io::transfer_len;
use super::{Args, Errno, SysResult};
use crate::arch::user::WINDOW_END;
use crate::fs::io::IoTo;
use crate::fs::proc;
use crate::mm::{frames, user};
use crate::process::names::{self, NAME_BYTES, Name, Names, name};
use crate::process::thread::{COMM_BYTES, Comm, context};
use crate::process::{attribute, current, first, maker, tree};
use crate::task::registry;
use crate::{random, sched, task, time};

/// uname(2). The release is that of the Linux whose calls these are.
pub fn uname(args: &Args) -> SysResult {
    let Names { host, domain } = names::get();
    let names = new_utsname {
        sysname: name(b"Linux"),
        nodename: host,
        release: name(proc::RELEASE.as_bytes()),
        version: name(proc::VERSION.as_bytes()),
        machine: name(b"x86_64"),
        domainname: domain,
    };
    user::write(args[0], &names)?;
    Ok(0)
}

fn read_name(args: &Args) -> Result<Name, Errno> {
    let len = usize::try_from(args[1] as i32).map_err(|_| Errno::EINVAL)?;
    let mut bytes = [0; NAME_BYTES - 1];
    let bytes = bytes.get_mut(..len).ok_or(Errno::EINVAL)?;
    user::read_bytes(bytes, args[0])?;
    Ok(name(bytes))
}

/// sethostname(2).
pub fn sethostname(args: &Args) -> SysResult {
    let name = read_name(args)?;
    names::change(|names| names.host = name);
    Ok(0)
}

/// setdomainname(2).
pub fn setdomainname(args: &Args) -> SysResult {
    let name = read_name(args)?;
    names::change(|names| names.domain = name);
    Ok(0)
}

/// sysinfo(2). Load averages are not kept.
pub fn sysinfo(args: &Args) -> SysResult {
    const PAGE: u64 = 4096;
    let memory = frames::stats();
    // SAFETY: a structure of integers; its flexible end has no bytes.
    let mut info: SysInfo = unsafe { core::mem::zeroed() };
    info.uptime = (time::monotonic_nanos() / 1_000_000_000).cast_signed();
    info.totalram = memory.total * PAGE;
    info.freeram = (memory.free + memory.cached) * PAGE;
    info.procs = u16::try_from(registry::count()).unwrap_or(u16::MAX);
    info.mem_unit = 1;
    // SAFETY: all its bytes are initialised (zeroed above), and are read as bytes only here.
    let bytes = unsafe {
        core::slice::from_raw_parts((&raw const info).cast::<u8>(), size_of::<SysInfo>())
    };
    user::write_bytes(args[0], bytes)?;
    Ok(0)
}

/// getrandom(2). The generator is always ready.
pub fn getrandom(args: &Args) -> SysResult {
    const CHUNK_BYTES: usize = 256;
    /// Most that one call gives, as on Linux.
    const MAX_BYTES: u64 = i32::MAX as u64 & !4095;
    let flags = args[2] as u32;
    let both = abi::GRND_RANDOM | abi::GRND_INSECURE;
    if flags & !(both | abi::GRND_NONBLOCK) != 0 || flags & both == both {
        return Err(Errno::EINVAL);
    }
    let mut to = IoTo::program(args[0], transfer_len(args[0], args[1].min(MAX_BYTES))?);
    while to.left() > 0 {
        let mut chunk = [0; CHUNK_BYTES];
        let chunk = &mut chunk[..to.left().min(CHUNK_BYTES)];
        random::fill(chunk);
        match to.put(chunk) {
            Err(why) if to.done() == 0 => return Err(why),
            Err(_) => break,
            Ok(_) if sched::current().is_interrupted() => break,
            Ok(_) => {}
        }
    }
    Ok(to.done() as u64)
}

/// personality(2): Linux's, which is the only one, perhaps without random addresses.
pub fn personality(args: &Args) -> SysResult {
    const QUERY: u32 = u32::MAX;
    const LINUX: u32 = 0;
    /// `ADDR_NO_RANDOMIZE`
    const FIXED_ADDRESSES: u32 = 0x0004_0000;
    let attributes = &current().process.attributes;
    let old = match args[0] as u32 {
        QUERY => attributes.load(Ordering::Relaxed),
        LINUX => attributes.fetch_and(!attribute::FIXED_ADDRESSES, Ordering::Relaxed),
        FIXED_ADDRESSES => attributes.fetch_or(attribute::FIXED_ADDRESSES, Ordering::Relaxed),
        _ => return Err(Errno::EINVAL),
    };
    let is_fixed = old & attribute::FIXED_ADDRESSES != 0;
    Ok(if is_fixed { FIXED_ADDRESSES } else { LINUX }.into())
}

/// `arch/x86/include/uapi/asm/prctl.h`
mod arch_prctl_codes {
    pub const SET_GS: u32 = 0x1001;
    pub const SET_FS: u32 = 0x1002;
    pub const GET_FS: u32 = 0x1003;
    pub const GET_GS: u32 = 0x1004;
    pub const GET_CPUID: u32 = 0x1011;
    pub const SET_CPUID: u32 = 0x1012;
}

/// arch_prctl(2): the bases of FS and GS; that CPUID cannot be made to fault. What it says of other hardware is
/// `EINVAL`, as where there is none.
pub fn arch_prctl(args: &Args) -> SysResult {
    let context = context();
    let check = |base: u64| if base < WINDOW_END { Ok(base) } else { Err(Errno::EPERM) };
    match args[0] as u32 {
        arch_prctl_codes::SET_FS => context.set_bases(check(args[1])?, context.gs_base()),
        arch_prctl_codes::SET_GS => context.set_bases(context.fs_base(), check(args[1])?),
        arch_prctl_codes::GET_FS => user::write(args[1], &context.fs_base())?,
        arch_prctl_codes::GET_GS => user::write(args[1], &context.gs_base())?,
        arch_prctl_codes::GET_CPUID => return Ok(1),
        arch_prctl_codes::SET_CPUID => return Err(Errno::ENODEV),
        _ => return Err(Errno::EINVAL),
    }
    Ok(0)
}

/// All arguments but the first.
fn rest(args: &Args) -> [u64; 4] {
    [args[1], args[2], args[3], args[4]]
}

/// prctl(2). Options that the kernel does not have are `EINVAL`.
pub fn prctl(args: &Args) -> SysResult {
    let thread = current();
    let process = &thread.process;
    let value = args[1];
    let has = |bit: u32| u64::from(process.attributes.load(Ordering::Relaxed) & bit != 0);
    let set = |bit: u32, on: bool| {
        if on {
            process.attributes.fetch_or(bit, Ordering::Relaxed);
        } else {
            process.attributes.fetch_and(!bit, Ordering::Relaxed);
        }
    };
    match args[0] as u32 {
        abi_prctl::PR_SET_NAME => {
            let mut name = [0; COMM_BYTES];
            // The name need not fill the array, nor what follows it be mapped.
            for (at, byte) in name.iter_mut().enumerate().take(COMM_BYTES - 1) {
                *byte = user::read(value.wrapping_add(at as u64))?;
                if *byte == 0 {
                    break;
                }
            }
            let comm = Comm::new(&name);
            *thread.comm.lock() = comm;
            task::trace_attributes_as(sched::current(), comm.as_str());
        }
        abi_prctl::PR_GET_NAME => {
            let comm = *thread.comm.lock();
            user::write_bytes(value, comm.bytes())?;
        }
        abi_prctl::PR_SET_PDEATHSIG => {
            let signal = u8::try_from(value).map_err(|_| Errno::EINVAL)?;
            if u32::from(signal) > abi::_NSIG {
                return Err(Errno::EINVAL);
            }
            let mut tree = tree::lock();
            process.family.get_mut(&mut tree).parent_death_signal = signal;
            if signal != 0
                && let Some(parent) = process.parent(&tree)
            {
                maker::watch(&parent);
            }
        }
        abi_prctl::PR_GET_PDEATHSIG => {
            let signal = process.family.get(&tree::lock()).parent_death_signal;
            user::write(value, &u32::from(signal))?;
        }
        abi_prctl::PR_SET_CHILD_SUBREAPER => {
            process.family.get_mut(&mut tree::lock()).is_subreaper = value != 0;
        }
        abi_prctl::PR_GET_CHILD_SUBREAPER => {
            let is_subreaper = process.family.get(&tree::lock()).is_subreaper;
            user::write(value, &u32::from(is_subreaper))?;
        }
        abi_prctl::PR_GET_DUMPABLE => return Ok(has(attribute::DUMPABLE)),
        abi_prctl::PR_SET_DUMPABLE if value <= 1 => set(attribute::DUMPABLE, value == 1),
        abi_prctl::PR_GET_KEEPCAPS => return Ok(has(attribute::KEEP_CAPABILITIES)),
        abi_prctl::PR_SET_KEEPCAPS if value <= 1 => {
            set(attribute::KEEP_CAPABILITIES, value == 1);
        }
        abi_prctl::PR_GET_NO_NEW_PRIVS if rest(args) == [0; 4] => {
            return Ok(has(attribute::NO_NEW_PRIVILEGES));
        }
        abi_prctl::PR_SET_NO_NEW_PRIVS if rest(args) == [1, 0, 0, 0] => {
            set(attribute::NO_NEW_PRIVILEGES, true);
        }
        abi_prctl::PR_CAPBSET_READ if value <= u64::from(abi::CAP_LAST_CAP) => return Ok(1),
        abi_prctl::PR_GET_SECCOMP => return Ok(0),
        abi_prctl::PR_SET_TIMERSLACK => {
            thread.timer_slack.set((value != 0).then_some(value));
        }
        abi_prctl::PR_GET_TIMERSLACK => return Ok(thread.timer_slack.get()),
        abi_prctl::PR_GET_TIMING => return Ok(abi_prctl::PR_TIMING_STATISTICAL.into()),
        abi_prctl::PR_SET_TIMING if value == u64::from(abi_prctl::PR_TIMING_STATISTICAL) => {}
        _ => return Err(Errno::EINVAL),
    }
    Ok(0)
}

/// reboot(2): every way to end the machine ends it; there is nothing to restart into.
pub fn reboot(args: &Args) -> SysResult {
    let has_magic = args[0] as u32 == abi::LINUX_REBOOT_MAGIC1
        && [
            abi::LINUX_REBOOT_MAGIC2,
            abi::LINUX_REBOOT_MAGIC2A,
            abi::LINUX_REBOOT_MAGIC2B,
            abi::LINUX_REBOOT_MAGIC2C,
        ]
        .contains(&(args[1] as u32));
    if !has_magic {
        return Err(Errno::EINVAL);
    }
    match args[2] as u32 {
        abi::LINUX_REBOOT_CMD_CAD_ON | abi::LINUX_REBOOT_CMD_CAD_OFF => Ok(0),
        abi::LINUX_REBOOT_CMD_RESTART
        | abi::LINUX_REBOOT_CMD_RESTART2
        | abi::LINUX_REBOOT_CMD_HALT
        | abi::LINUX_REBOOT_CMD_POWER_OFF => first::end_all(),
        _ => Err(Errno::EINVAL),
    }
}

/// syslog(2): the kernel's messages leave by the console, so its buffer is always empty.
pub fn syslog(args: &Args) -> SysResult {
    match args[0] as i32 {
        0..=10 => Ok(0),
        _ => Err(Errno::EINVAL),
    }
}
