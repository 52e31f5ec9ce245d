//! `syscall-fuzz SEED COUNT`: COUNT system calls with numbers and arguments that look random, made by child processes
//! that are born again when they die.
//!
//! Every number but those that would end the machine is tried. Arguments are hostile (kernel addresses, huge lengths,
//! negative descriptors) or half valid (pointers into a page of the child's own, open descriptors, small numbers, flags),
//! so that calls get past their first checks. Children are their own process groups and aim signals at themselves
//! only: what they break is their own. This process keeps the count in shared memory, kills a child that hangs, and
//! prints the total.
//!
//! The run repeats as far as the kernel's answers do: each child draws from its own seed. It is for the guest; on
//! another kernel it may harm what runs beside it.

use std::array;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use programs::memory::{PAGE, PRIVATE, RW, SHARED, map, map_at, pages};
use programs::process::{exit_now, pause_ms, try_spawn, try_wait};
use programs::signal::kill;
use programs::{check, process, say, signal, sys};

/// Numbers up to this are tried; a few beyond, too.
const NUMBERS: u64 = 470;
/// Calls of one child before it ends by itself.
const CALLS_PER_CHILD: u64 = 2_000;
/// A child that makes no call for this long is killed: it sleeps, or is stopped.
const PATIENCE: Duration = Duration::from_millis(60);
/// Children at the same time. Most of them sleep in a call of theirs, until they are killed for it.
const CHILDREN: usize = 32;
/// Calls between two signs of life.
const REPORT_CALLS: u64 = 1_000_000;

/// A generator of numbers that look random (splitmix64).
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ z >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ z >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ z >> 31
    }

    fn below(&mut self, limit: u64) -> u64 {
        self.next() % limit
    }

    fn pick(&mut self, from: &[u64]) -> u64 {
        from[self.below(from.len() as u64) as usize]
    }
}

/// What the children share with this process.
struct Shared {
    total: &'static AtomicU64,
    /// Calls begun by the child in this place.
    progress: [&'static AtomicU64; CHILDREN],
}

fn word(base: *mut u8, number: usize) -> &'static AtomicU64 {
    // SAFETY: a mapping of this program's that is never unmapped here; children that unmap it harm only themselves.
    unsafe { AtomicU64::from_ptr(base.cast::<u64>().wrapping_add(number * 8)) }
}

fn main() {
    let args: Vec<u64> = std::env::args().skip(1).filter_map(|text| text.parse().ok()).collect();
    let &[seed, count] = &args[..] else {
        eprintln!("usage: syscall-fuzz SEED COUNT");
        std::process::exit(2);
    };
    // Children that lose their parent are this process's, and end with it.
    let _ = sys!(SYS_prctl, libc::PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0);
    signal::dispose(libc::SIGPIPE, libc::SIG_DFL);
    // Far from everything, so that what the kernel writes beyond a child's buffers does not change the count.
    let flags = SHARED | libc::MAP_FIXED_NOREPLACE;
    let base = map_at(0x1234_5678_9000, PAGE, RW, flags).expect("mmap");
    let shared =
        Shared { total: word(base, 0), progress: array::from_fn(|number| word(base, number + 1)) };
    let mut generation = 0;
    // In each place a child's number, how far it was when it was last looked at, and when that was.
    let mut places: [Option<(i32, u64, Instant)>; CHILDREN] = [None; CHILDREN];
    let mut refused = 0;
    let begin = Instant::now();
    let mut reports = 0;
    while shared.total.load(Ordering::Relaxed) < count {
        for (number, place) in places.iter_mut().enumerate() {
            match place {
                None => {
                    generation += 1;
                    let child_seed = seed.wrapping_mul(1_000_003).wrapping_add(generation);
                    match try_spawn(|| {
                        fuzz(child_seed, count, shared.total, shared.progress[number])
                    }) {
                        Ok(child) => *place = Some((child, 0, Instant::now())),
                        Err(_) => refused += 1,
                    }
                }
                Some((child, seen, since)) => {
                    let now = shared.progress[number].load(Ordering::Relaxed);
                    if now != *seen {
                        (*seen, *since) = (now, Instant::now());
                    } else if since.elapsed() > PATIENCE {
                        let _ = kill(*child, libc::SIGKILL);
                    }
                }
            }
        }
        // Children, and what they left behind.
        while let Ok((pid, _)) = try_wait(-1, libc::WNOHANG | libc::__WALL) {
            if pid == 0 {
                break;
            }
            if let Some(place) =
                places.iter_mut().find(|place| place.is_some_and(|(child, ..)| child == pid))
            {
                *place = None;
            }
        }
        let made = shared.total.load(Ordering::Relaxed);
        if made / REPORT_CALLS > reports {
            reports = made / REPORT_CALLS;
            let per_second = made * 1_000 / (begin.elapsed().as_millis() as u64).max(1);
            eprintln!("{made} calls by {generation} children, {per_second} a second");
        }
        pause_ms(1);
    }
    for (child, ..) in places.into_iter().flatten() {
        let _ = kill(child, libc::SIGKILL);
    }
    reap_all();
    eprintln!("{generation} children, {refused} forks refused");
    let total = shared.total.load(Ordering::Relaxed);
    let by_place: u64 = shared.progress.iter().map(|place| place.load(Ordering::Relaxed)).sum();
    // A child that was killed between the two may have counted in one only.
    let difference = total.abs_diff(by_place);
    check!(total >= count && difference <= generation, "{total} calls, {by_place} by place");
    say!("{count} calls with seed {seed}: all made");
    std::process::exit(programs::status());
}

/// Kills and reaps every descendant; those in other groups or stopped as well, when they become children of this
/// process.
fn reap_all() {
    let end = Instant::now() + Duration::from_secs(20);
    loop {
        match try_wait(-1, libc::WNOHANG | libc::__WALL) {
            Ok((0, _)) => {
                for child in children() {
                    let _ = kill(child, libc::SIGKILL);
                }
                pause_ms(2);
                check!(Instant::now() < end, "children that cannot be killed");
                if Instant::now() >= end {
                    return;
                }
            }
            Ok(_) => {}
            Err(_) => return,
        }
    }
}

/// The numbers of this process's children, from /proc.
fn children() -> Vec<i32> {
    let own = process::id().to_string();
    let entries = std::fs::read_dir("/proc").into_iter().flatten().flatten();
    let numbers = entries.filter_map(|entry| entry.file_name().to_str()?.parse::<i32>().ok());
    numbers
        .filter(|pid| {
            let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
            let rest = stat.rsplit_once(')').map_or("", |(_, rest)| rest);
            rest.split_whitespace().nth(1) == Some(&own)
        })
        .collect()
}

/// A child's life: its calls, until it has made enough of them or one of them ends it.
fn fuzz(seed: u64, count: u64, total: &AtomicU64, progress: &AtomicU64) -> i32 {
    let mut random = Random(seed);
    let _ = sys!(SYS_setpgid, 0, 0);
    let _ = sys!(SYS_prctl, libc::PR_SET_PDEATHSIG, libc::SIGKILL);
    let scratch = pages(4) as u64;
    let read_only = map(PAGE, libc::PROT_READ, PRIVATE).unwrap_or(std::ptr::null_mut()) as u64;
    let mut ends = [0i32; 2];
    let _ = sys!(SYS_pipe2, &mut ends, libc::O_NONBLOCK);
    let _ = sys!(SYS_open, c"/tmp/fuzz".as_ptr(), libc::O_RDWR | libc::O_CREAT, 0o600);
    let _ =
        sys!(SYS_socketpair, libc::AF_UNIX, libc::SOCK_STREAM | libc::SOCK_NONBLOCK, 0, &mut ends);
    let _ = sys!(SYS_eventfd2, 0, libc::EFD_NONBLOCK);
    // Half valid strings and structures.
    for (number, byte) in b"/tmp/fuzz\0..\0/proc/self/stat\0/dev/zero\0".iter().enumerate() {
        programs::memory::poke((scratch as *mut u8).wrapping_add(number), *byte);
    }
    let own = process::id() as u64;
    for _ in 0..CALLS_PER_CHILD {
        let number = choose_number(&mut random);
        let mut args = [0u64; 6];
        for arg in &mut args {
            *arg = argument(&mut random, scratch, read_only, own);
        }
        if !harmless(number, &mut args, own) {
            continue;
        }
        if total.fetch_add(1, Ordering::Relaxed) >= count {
            break;
        }
        progress.fetch_add(1, Ordering::Relaxed);
        // SAFETY: none is claimed: whatever this child's memory becomes, it is this child's.
        let result = unsafe { sys::raw(number, args) };
        if result == 0 && is_fork(number) && process::id() as u64 != own {
            // A second life would count twice.
            exit_now(0);
        }
    }
    0
}

fn choose_number(random: &mut Random) -> u64 {
    match random.below(40) {
        0 => random.next(),
        1 => random.below(2_000),
        _ => random.below(NUMBERS),
    }
}

fn is_fork(number: u64) -> bool {
    [libc::SYS_fork, libc::SYS_vfork, libc::SYS_clone, libc::SYS_clone3]
        .contains(&number.cast_signed())
}

fn argument(random: &mut Random, scratch: u64, read_only: u64, own: u64) -> u64 {
    const ODD: [u64; 18] = [
        0,
        1,
        2,
        u64::MAX,
        u64::MAX - 1,
        i64::MAX as u64,
        1 << 63,
        u32::MAX as u64,
        i32::MAX as u64,
        1 << 31,
        0xffff_8000_0000_0000,
        0xffff_ffff_8020_0000,
        0x8000_0000_0000,
        0x7fff_ffff_f000,
        0x7fff_ffff_efff,
        0x1000,
        0xfff,
        8,
    ];
    match random.below(14) {
        0 | 1 => random.pick(&ODD),
        2 => random.next(),
        3 | 4 => random.below(12),
        5 => random.below(5_000),
        6 => 1 << random.below(64),
        7 => 1 << random.below(64) | 1 << random.below(64) | 1 << random.below(32),
        8 | 9 => scratch + random.below(4 * PAGE as u64),
        10 => scratch + random.below(4 * PAGE as u64) / 8 * 8,
        // The end of the scratch pages: structures that begin inside and end outside.
        11 => scratch + 4 * PAGE as u64 - random.below(64),
        12 => read_only + random.below(64),
        _ => own,
    }
}

/// Takes out what would not test the kernel but end the test: power-off, signals to others, endless output on the
/// console, a shared address space with this child's stack.
fn harmless(number: u64, args: &mut [u64; 6], own: u64) -> bool {
    match number.cast_signed() {
        libc::SYS_reboot | libc::SYS_kexec_load | libc::SYS_kexec_file_load => false,
        // They end the child, which is no news: now and then is enough.
        libc::SYS_exit | libc::SYS_exit_group | libc::SYS_rt_sigreturn => args[5] & 31 == 0,
        // 0 and -1 mean everybody.
        libc::SYS_kill | libc::SYS_tkill | libc::SYS_rt_sigqueueinfo => {
            let pid = args[0] as i32;
            pid as u64 == own || !(-100_000..100_000).contains(&pid)
        }
        libc::SYS_tgkill | libc::SYS_rt_tgsigqueueinfo => {
            args[0] as i32 as u64 == own || args[0] as i32 <= 0
        }
        libc::SYS_pidfd_open | libc::SYS_pidfd_send_signal => args[0] == own,
        libc::SYS_setpriority | libc::SYS_sched_setscheduler | libc::SYS_sched_setparam => {
            // A real-time child that spins would leave nobody else a CPU.
            args[0] = own;
            args[1] = 0;
            number.cast_signed() == libc::SYS_setpriority
        }
        libc::SYS_sched_setattr => false,
        // A vfork or a thread would return into this stack.
        libc::SYS_vfork => false,
        libc::SYS_clone => {
            args[0] &= !((libc::CLONE_VM | libc::CLONE_VFORK) as u64);
            args[1] = 0;
            true
        }
        libc::SYS_clone3 => args[1] < 64 || args[0] < 0x1_0000 || args[0] >> 47 != 0,
        // The program's lines go there.
        libc::SYS_write | libc::SYS_writev | libc::SYS_pwrite64 | libc::SYS_sendfile => args[0] > 2,
        // Limits that would end the family rather than this child.
        libc::SYS_prlimit64 => {
            // Of the argument the kernel looks at so many bits.
            let pid = u64::from(args[0] as u32);
            pid == own || pid > 100_000
        }
        // On a host: its mounts, modules, clocks, names.
        libc::SYS_mount
        | libc::SYS_umount2
        | libc::SYS_pivot_root
        | libc::SYS_chroot
        | libc::SYS_swapon => on_guest(),
        libc::SYS_settimeofday
        | libc::SYS_clock_settime
        | libc::SYS_sethostname
        | libc::SYS_init_module => on_guest(),
        libc::SYS_unlink
        | libc::SYS_rename
        | libc::SYS_rmdir
        | libc::SYS_truncate
        | libc::SYS_unlinkat => on_guest(),
        _ => true,
    }
}

/// Whether this is the guest's kernel.
fn on_guest() -> bool {
    let mut names = [[0u8; 65]; 6];
    sys!(SYS_uname, &mut names).is_ok() && names[2].windows(6).any(|part| part == b"orrery")
}
