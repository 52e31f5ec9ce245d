//! Waiting for files: poll(2), select(2) and their kin.
//!
//! The files are kept while they are waited for, so a descriptor that is closed meanwhile is waited for
//! still, as on Linux.

use alloc::sync::Arc;
use alloc::vec::Vec;
use core::cell::Cell;

use linux_raw_sys::general as abi;
use linux_raw_sys::general::{__kernel_timespec, pollfd};
use orrery_core::signal::SignalSet;

use super::descriptor::descriptor_limit;
use super::{Args, Errno, SysResult};
use crate::arch::tsc;
use crate::fs::OpenFile;
use crate::mm::{frames, user};
use crate::process::signal::mask::with_mask;
use crate::process::signal::{Restart, restart_later};
use crate::sched::task::Sleep;
use crate::sched::wait::{WaitError, WaitSet};
use crate::time;

/// Events that are told whether or not they are asked for.
const ALWAYS: u32 = abi::POLLERR | abi::POLLHUP | abi::POLLNVAL;

/// One descriptor that is looked at.
struct Watched {
    /// `None` if it is not open, or is to be ignored.
    file: Option<Arc<OpenFile>>,
    wanted: u32,
    /// Said when there is no file.
    without: u32,
    found: Cell<u32>,
}

impl Watched {
    fn new(fd: i32, wanted: u32) -> Self {
        if fd < 0 {
            return Self { file: None, wanted, without: 0, found: Cell::new(0) };
        }
        let file = super::descriptor::usable_file(u64::from(fd.cast_unsigned())).ok();
        Self { file, wanted, without: abi::POLLNVAL, found: Cell::new(0) }
    }

    /// Looks whether something wanted has happened.
    fn look(&self) -> bool {
        let found = match &self.file {
            Some(file) => file.file().readiness() & (self.wanted | ALWAYS),
            None => self.without,
        };
        self.found.set(found);
        found != 0
    }
}

/// Files that can be waited for where memory is short.
const FEW: usize = 8;

/// Waits until one of the files has something, and returns how many have.
fn wait_for(watched: &[Watched], deadline: Deadline) -> SysResult {
    let look = || watched.iter().map(Watched::look).filter(|&found| found).count();
    let count = look();
    if count > 0 || deadline == Deadline::Now {
        return Ok(count as u64);
    }
    if watched.len() > FEW && frames::is_scarce() {
        return Err(Errno::ENOMEM);
    }
    let files = || watched.iter().filter_map(|it| it.file.as_ref());
    let queues = || files().flat_map(|file| file.file().queues()).flatten();
    let mut set = WaitSet::with_capacity(queues().count()).ok_or(Errno::ENOMEM)?;
    queues().for_each(|queue| set.add(queue));
    let mut count = 0;
    let waited = set.wait(Sleep::Interruptible, deadline.ticks(), || {
        count = look();
        count > 0
    });
    match waited {
        Err(WaitError::Interrupted) => Err(Errno::RESTART_NO_HANDLER),
        Ok(()) | Err(WaitError::TimedOut) => Ok(count as u64),
    }
}

/// When a wait ends.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Deadline {
    Now,
    /// In ticks.
    At(u64),
    Never,
}

impl Deadline {
    fn ticks(self) -> Option<u64> {
        match self {
            Self::At(ticks) => Some(ticks),
            Self::Now | Self::Never => None,
        }
    }

    fn to_word(self) -> u64 {
        match self {
            Self::Now => 0,
            Self::At(ticks) => ticks,
            Self::Never => u64::MAX,
        }
    }

    fn from_word(word: u64) -> Self {
        match word {
            0 => Self::Now,
            u64::MAX => Self::Never,
            ticks => Self::At(ticks),
        }
    }

    /// In so many nanoseconds.
    fn after(nanos: u64) -> Self {
        if nanos == 0 { Self::Now } else { Self::from_word(time::deadline::after(nanos)) }
    }

    /// After a `struct timespec` of the program's.
    fn after_timespec(at: u64) -> Result<Self, Errno> {
        if at == 0 {
            return Ok(Self::Never);
        }
        Ok(Self::after(time::deadline::nanos(&user::read(at)?)?))
    }

    /// After a `struct timeval` of the program's.
    fn after_timeval(at: u64) -> Result<Self, Errno> {
        if at == 0 {
            return Ok(Self::Never);
        }
        let [seconds, us] = user::read::<[i64; 2]>(at)?;
        // Linux takes more than a second of microseconds here.
        let tv_sec = seconds.saturating_add(us / 1_000_000);
        let tv_nsec = us % 1_000_000 * 1000;
        Ok(Self::after(time::deadline::nanos(&__kernel_timespec { tv_sec, tv_nsec })?))
    }
}

/// The number of descriptors, of which 32 bits count.
fn count(argument: u64) -> u64 {
    (argument as u32).into()
}

/// poll(2).
pub fn poll(args: &Args) -> SysResult {
    let deadline = match args[2] as i32 {
        ..0 => Deadline::Never,
        ms => Deadline::after(u64::from(ms.cast_unsigned()) * 1_000_000),
    };
    poll_again(&[args[0], count(args[1]), deadline.to_word(), 0])
}

/// Goes on with a poll that was interrupted: addresses, count and deadline stay.
fn poll_again(data: &[u64; 4]) -> SysResult {
    let &[at, count, deadline, _] = data;
    match poll_until(at, count, Deadline::from_word(deadline)) {
        Err(Errno::RESTART_NO_HANDLER) => {
            Err(restart_later(Restart { resume: poll_again, data: *data }))
        }
        result => result,
    }
}

/// ppoll(2).
pub fn ppoll(args: &Args) -> SysResult {
    let deadline = Deadline::after_timespec(args[2])?;
    let mask = mask(args[3], args[4])?;
    let result = with_mask(mask, || poll_until(args[0], count(args[1]), deadline));
    // The address may be wrong by now; the answer counts, as on Linux.
    let _ = write_rest(args[2], deadline, 1);
    result
}

fn poll_until(at: u64, count: u64, deadline: Deadline) -> SysResult {
    if count > descriptor_limit().into() {
        return Err(Errno::EINVAL);
    }
    let mut watched = Vec::new();
    watched.try_reserve_exact(count as usize).map_err(|_| Errno::ENOMEM)?;
    let entry = |index: usize| at + (index * size_of::<pollfd>()) as u64;
    at.checked_add(count * size_of::<pollfd>() as u64).ok_or(Errno::EFAULT)?;
    for index in 0..count as usize {
        let asked: pollfd = user::read(entry(index))?;
        watched.push(Watched::new(asked.fd, u32::from(asked.events.cast_unsigned())));
    }
    let found = wait_for(&watched, deadline)?;
    for (index, watched) in watched.iter().enumerate() {
        let returned = entry(index) + core::mem::offset_of!(pollfd, revents) as u64;
        user::write(returned, &(watched.found.get() as u16))?;
    }
    Ok(found)
}

/// The signal mask that a program gives for the time of a call; none is given at address 0.
fn mask(at: u64, len_bytes: u64) -> Result<Option<SignalSet>, Errno> {
    if at == 0 {
        return Ok(None);
    }
    if len_bytes != size_of::<u64>() as u64 {
        return Err(Errno::EINVAL);
    }
    Ok(Some(SignalSet::from_bits(user::read(at)?)))
}

/// The three sets of select(2): what each asks of poll, and what of poll's answers it shows.
const SETS: [(u32, u32); 3] = [
    (
        abi::POLLIN | abi::POLLRDNORM,
        abi::POLLIN | abi::POLLRDNORM | abi::POLLRDBAND | abi::POLLHUP | abi::POLLERR,
    ),
    (
        abi::POLLOUT | abi::POLLWRNORM,
        abi::POLLOUT | abi::POLLWRNORM | abi::POLLWRBAND | abi::POLLERR,
    ),
    (abi::POLLPRI, abi::POLLPRI),
];

/// Descriptors in a word of a set.
const WORD: usize = 64;

/// select(2).
pub fn select(args: &Args) -> SysResult {
    let deadline = Deadline::after_timeval(args[4])?;
    let result = select_until(args, deadline);
    let _ = write_rest(args[4], deadline, 1000);
    result
}

/// pselect6(2).
pub fn pselect6(args: &Args) -> SysResult {
    let deadline = Deadline::after_timespec(args[4])?;
    let [mask_at, mask_bytes] = if args[5] == 0 { [0, 0] } else { user::read(args[5])? };
    let mask = mask(mask_at, mask_bytes)?;
    let result = with_mask(mask, || select_until(args, deadline));
    let _ = write_rest(args[4], deadline, 1);
    result
}

/// Tells the program how much of its time is left, as Linux does; so a call that is made again after a signal waits
/// no longer in all. The second word of the time is in units of `unit_nanos`.
fn write_rest(at: u64, deadline: Deadline, unit_nanos: u64) -> Result<(), Errno> {
    let Deadline::At(ticks) = deadline else { return Ok(()) };
    let rest = time::deadline::timespec(time::to_nanos(ticks.saturating_sub(tsc::now())));
    user::write(at, &[rest.tv_sec, rest.tv_nsec / unit_nanos.cast_signed()])
}

fn select_until(args: &Args, deadline: Deadline) -> SysResult {
    let count = usize::try_from(args[0] as i32).map_err(|_| Errno::EINVAL)?;
    let count = count.min(descriptor_limit() as usize);
    let words = count.div_ceil(WORD);
    let addresses = [args[1], args[2], args[3]];
    let mut sets = [const { Vec::new() }; 3];
    for (set, &at) in sets.iter_mut().zip(&addresses) {
        set.try_reserve_exact(words).map_err(|_| Errno::ENOMEM)?;
        set.resize(words, 0u64);
        if at != 0 {
            user::read_slice(set, at)?;
        }
        if let Some(last) = set.last_mut() {
            *last &= u64::MAX >> (words * WORD - count);
        }
    }
    let has = |set: &[u64], fd: usize| set[fd / WORD] >> (fd % WORD) & 1 != 0;
    let mut fds = Vec::new();
    let mut watched = Vec::new();
    for fd in 0..count {
        let asks = sets.iter().zip(SETS).filter(|(set, _)| has(set, fd));
        let wanted = asks.fold(0, |wanted, (_, (asked, _))| wanted | asked);
        if wanted == 0 {
            continue;
        }
        let one = Watched::new(fd as i32, wanted);
        if one.file.is_none() {
            return Err(Errno::EBADF);
        }
        watched.try_reserve(1).map_err(|_| Errno::ENOMEM)?;
        fds.try_reserve(1).map_err(|_| Errno::ENOMEM)?;
        watched.push(one);
        fds.push(fd);
    }
    wait_for(&watched, deadline)?;
    let mut found = 0;
    for ((set, (_, shows)), at) in sets.iter_mut().zip(SETS).zip(addresses) {
        for (&fd, watched) in fds.iter().zip(&watched) {
            if !has(set, fd) {
                continue;
            }
            if watched.found.get() & shows != 0 {
                found += 1;
            } else {
                set[fd / WORD] &= !(1 << (fd % WORD));
            }
        }
        if at != 0 {
            user::write_slice(at, set)?;
        }
    }
    Ok(found)
}
