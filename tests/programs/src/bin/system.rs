//! Limits, scheduling, identity and what else a C library asks of the kernel.

use std::sync::atomic::{AtomicU64, Ordering};

use programs::memory::{self, PAGE};
use programs::process::{
    Baton, close, ending, id, pipe, spawn, try_spawn, wait, wait_until, write,
};
use programs::sys::{outcome, value};
use programs::{check, say, signal, sys};

fn main() {
    // What `personality` runs.
    if std::env::args().nth(1).as_deref() == Some("where") {
        place();
        return;
    }
    programs::main(&[
        ("limits", limits),
        ("limit-errors", limit_errors),
        ("descriptor-limit", descriptor_limit),
        ("policies", policies),
        ("policy-errors", policy_errors),
        ("attributes", attributes),
        ("reset-on-fork", reset_on_fork),
        ("leftovers", leftovers),
        ("affinity", affinity),
        ("nice", nice),
        ("yield", yield_all),
        ("random", random),
        ("names", names),
        ("machine", machine),
        ("usage", usage),
        ("identity", identity),
        ("prctl", prctl),
        ("arch", arch),
        ("personality", personality),
        ("file-size", file_size),
        ("membarrier", membarrier),
        ("unknown", unknown),
        ("affine-threads", affine_threads),
    ]);
}

fn limit(resource: u32) -> [u64; 2] {
    let mut limit = [0u64; 2];
    sys!(SYS_prlimit64, 0, resource, 0, &mut limit).unwrap();
    limit
}

fn limits() {
    let status = ending(|| {
        for (name, resource) in [
            ("NOFILE", libc::RLIMIT_NOFILE),
            ("STACK", libc::RLIMIT_STACK),
            ("NPROC", libc::RLIMIT_NPROC),
            ("AS", libc::RLIMIT_AS),
        ] {
            let before = limit(resource as u32);
            check!(before[0] <= before[1], "{name}: {before:?}");
            let new = [before[0].min(200 << 20), before[1].min(400 << 20)];
            let mut old = [0u64; 2];
            let result = sys!(SYS_prlimit64, 0, resource, &new, &mut old);
            say!("{name}: {} {} {}", value(result), old == before, limit(resource as u32) == new);
        }
        // Inherited.
        let inherited = [limit(libc::RLIMIT_STACK as u32), limit(libc::RLIMIT_AS as u32)];
        let status = ending(|| {
            i32::from(
                inherited != [limit(libc::RLIMIT_STACK as u32), limit(libc::RLIMIT_AS as u32)],
            )
        });
        say!("{status}");
        let mut pair = [0u64; 2];
        say!(
            "getrlimit: {} {}",
            value(sys!(SYS_getrlimit, libc::RLIMIT_AS, &mut pair)),
            pair == inherited[1]
        );
        0
    });
    say!("{status}");
}

fn limit_errors() {
    let pair = [10u64, 5];
    say!("soft above hard: {}", value(sys!(SYS_prlimit64, 0, libc::RLIMIT_NOFILE, &pair, 0)));
    say!("unknown: {}", value(sys!(SYS_prlimit64, 0, 99, 0, 0)));
    say!("nobody: {}", value(sys!(SYS_prlimit64, 1 << 30, libc::RLIMIT_AS, 0, 0)));
    say!("nowhere: {}", value(sys!(SYS_prlimit64, 0, libc::RLIMIT_AS, 0, 16u64)));
    say!("from nowhere: {}", value(sys!(SYS_prlimit64, 0, libc::RLIMIT_AS, 16u64, 0)));
}

fn descriptor_limit() {
    let status = ending(|| {
        sys!(SYS_prlimit64, 0, libc::RLIMIT_NOFILE, &[20u64, 20], 0).unwrap();
        let open = || sys!(SYS_open, c"/dev/null".as_ptr(), libc::O_RDONLY, 0);
        let mut last = 0;
        let error = loop {
            match open() {
                Ok(fd) => last = fd,
                Err(error) => break error,
            }
        };
        say!("{error} after {last}");
        say!("dup2 beyond: {}", value(sys!(SYS_dup2, 0, 20)));
        say!("dup beyond: {}", value(sys!(SYS_fcntl, 0, libc::F_DUPFD, 20)));
        say!("dup: {}", value(sys!(SYS_dup, 0)));
        close(7);
        say!("the gap: {}", value(open()));
        0
    });
    say!("{status}");
}

fn schedule(policy: i32, priority: i32) -> String {
    value(sys!(SYS_sched_setscheduler, 0, policy, &priority))
}

fn policies() {
    let status = ending(|| {
        for (name, policy, priority) in [
            ("FIFO", libc::SCHED_FIFO, 10),
            ("RR", libc::SCHED_RR, 99),
            ("OTHER", libc::SCHED_OTHER, 0),
            ("BATCH", libc::SCHED_BATCH, 0),
            ("IDLE", libc::SCHED_IDLE, 0),
        ] {
            let set = schedule(policy, priority);
            let mut now = -1i32;
            let got = sys!(SYS_sched_getparam, 0, &mut now);
            say!(
                "{name}: {set}, is {} {} {now}",
                value(sys!(SYS_sched_getscheduler, 0)),
                value(got)
            );
        }
        for policy in 0..7 {
            let (lowest, highest) = (
                sys!(SYS_sched_get_priority_min, policy),
                sys!(SYS_sched_get_priority_max, policy),
            );
            say!("{policy}: {} to {}", value(lowest), value(highest));
        }
        schedule(libc::SCHED_RR, 5);
        let mut time = [9i64; 2];
        let result = sys!(SYS_sched_rr_get_interval, 0, &mut time);
        say!("interval: {} positive: {}", value(result), time[0] == 0 && time[1] > 0);
        let status = ending(|| sys!(SYS_sched_getscheduler, 0).unwrap() as i32);
        say!("inherited: {status}");
        0
    });
    say!("{status}");
}

fn policy_errors() {
    say!("FIFO 0: {}", schedule(libc::SCHED_FIFO, 0));
    say!("FIFO 100: {}", schedule(libc::SCHED_FIFO, 100));
    say!("OTHER 1: {}", schedule(libc::SCHED_OTHER, 1));
    say!("IDLE 1: {}", schedule(libc::SCHED_IDLE, 1));
    say!("unknown: {}", schedule(77, 0));
    say!("nobody: {}", value(sys!(SYS_sched_getscheduler, 1 << 30)));
    say!("negative: {}", value(sys!(SYS_sched_getscheduler, -1)));
    say!("nowhere: {}", value(sys!(SYS_sched_setparam, 0, 16u64)));
    say!("null: {}", value(sys!(SYS_sched_setscheduler, 0, 0, 0)));
}

/// `struct sched_attr` as sched_getattr(2) gives it to a caller that knows so many bytes: policy, flags, nice value,
/// priority; and the size that was written.
fn attribute_words(size: u32) -> String {
    let mut words = [77u32; 16];
    match sys!(SYS_sched_getattr, 0, &mut words, size, 0) {
        Ok(_) => {
            let rest = words[(words[0] / 4) as usize..].iter().all(|&word| word == 77);
            format!("{:?} size {} {rest}", &words[1..6], words[0])
        }
        Err(error) => error.to_string(),
    }
}

fn set_attributes(size: u32, policy: i32, flags: u64, nice: i32, priority: u32) -> String {
    let words = [size, policy.cast_unsigned(), flags as u32, 0, nice.cast_unsigned(), priority];
    let mut all = [0u32; 16];
    all[..6].copy_from_slice(&words);
    value(sys!(SYS_sched_setattr, 0, &all, 0))
}

fn attributes() {
    const KEEP_POLICY: u64 = 8;
    const KEEP_PARAMETERS: u64 = 16;
    let status = ending(|| {
        for size in [0, 47, 48, 56, 4097] {
            say!("size {size}: {}", attribute_words(size));
        }
        for (policy, flags, nice, priority) in [
            (libc::SCHED_OTHER, 0, 5, 0),
            (libc::SCHED_BATCH, 0, 100, 0),
            (libc::SCHED_FIFO, 0, -5, 7),
            (libc::SCHED_RR, KEEP_POLICY, 0, 8),
            (libc::SCHED_RR, KEEP_PARAMETERS, 0, 0),
            (libc::SCHED_IDLE, 0, 3, 0),
            (libc::SCHED_OTHER, KEEP_PARAMETERS, 4, 0),
            (libc::SCHED_OTHER, KEEP_POLICY | KEEP_PARAMETERS, 4, 9),
            (libc::SCHED_OTHER, 1, 0, 0),
            (libc::SCHED_OTHER, 0, 0, 1),
            (libc::SCHED_OTHER, 1 << 20, 0, 0),
            (-1, 0, 0, 0),
            (4, 0, 0, 0),
        ] {
            let set = set_attributes(48, policy, flags, nice, priority);
            say!("{policy} {flags} {nice} {priority}: {set}, is {}", attribute_words(48));
        }
        for size in [0, 1, 56, 64] {
            say!("size {size}: {}", set_attributes(size, 0, 0, 0, 0));
        }
        let mut too_much = [0u32; 16];
        (too_much[0], too_much[15]) = (64, 1);
        say!("too much: {} {}", value(sys!(SYS_sched_setattr, 0, &too_much, 0)), too_much[0]);
        0
    });
    say!("{status}");
}

/// What a child has of its maker's scheduling, and what not, where the maker has said so.
fn reset_on_fork() {
    const RESET: i32 = 0x4000_0000;
    for (policy, priority, nice) in [
        (libc::SCHED_FIFO, 3, 0),
        (libc::SCHED_RR | RESET, 3, 7),
        (libc::SCHED_OTHER | RESET, 0, -4),
        (libc::SCHED_BATCH | RESET, 0, 4),
        (libc::SCHED_IDLE | RESET, 0, -4),
        (libc::SCHED_FIFO, 3, 7),
    ] {
        let status = ending(|| {
            sys!(SYS_setpriority, 0, 0, nice).unwrap();
            let set = schedule(policy, priority);
            say!("{set}, is {}", value(sys!(SYS_sched_getscheduler, 0)));
            let status = ending(|| {
                let nice = value(sys!(SYS_getpriority, 0, 0));
                say!("child: {} {nice}", value(sys!(SYS_sched_getscheduler, 0)));
                schedule(libc::SCHED_OTHER, 0);
                say!("then {}", value(sys!(SYS_getpriority, 0, 0)));
                0
            });
            say!("{status}");
            0
        });
        say!("{status}");
    }
}

/// Of one CPU, SCHED_IDLE gets what others leave: next to nothing, and all.
fn leftovers() {
    let shared = memory::shared_pages(1).cast::<AtomicU64>();
    // SAFETY: zeroes at first, in a page that lives as long as the case.
    let (counts, stop) = unsafe { ([&*shared, &*shared.add(1)], &*shared.add(2)) };
    let mut set = [0u64; 16];
    sys!(SYS_sched_getaffinity, 0, 128, &mut set).unwrap();
    let mut only = [0u64; 16];
    only[0] = set[0] & set[0].wrapping_neg();
    let children = [libc::SCHED_IDLE, libc::SCHED_OTHER].map(|policy| {
        spawn(|| {
            sys!(SYS_sched_setaffinity, 0, 128, &only).unwrap();
            schedule(policy, 0);
            let count = counts[usize::from(policy == libc::SCHED_OTHER)];
            while stop.load(Ordering::Relaxed) == 0 {
                count.fetch_add(1, Ordering::Relaxed);
            }
            0
        })
    });
    let [idle, other] = counts.map(|count| move || count.load(Ordering::Relaxed));
    wait_until(|| idle() > 0 && other() > 0);
    let before = (idle(), other());
    // Longer than a slice of either.
    wait_until(|| other() > before.1 + 50_000_000);
    let (idle_ran, other_ran) = (idle() - before.0, other() - before.1);
    say!("next to nothing: {}", idle_ran < other_ran / 8);
    sys!(SYS_kill, children[1], libc::SIGKILL).unwrap();
    say!("{}", wait(children[1]));
    let before = idle();
    wait_until(|| idle() > before + 100_000);
    stop.store(1, Ordering::Relaxed);
    say!("and all: {}", wait(children[0]));
    memory::unmap(shared.cast(), PAGE);
}

fn affinity() {
    let mut set = [0u64; 16];
    let bytes = sys!(SYS_sched_getaffinity, 0, 128, &mut set).unwrap();
    say!("{} {}", bytes % 8, set.iter().any(|&word| word != 0));
    let status = ending(|| {
        let mut only = [0u64; 16];
        only[0] = set[0] & set[0].wrapping_neg();
        say!("{}", value(sys!(SYS_sched_setaffinity, 0, 128, &only)));
        let mut now = [0u64; 16];
        sys!(SYS_sched_getaffinity, 0, 128, &mut now).unwrap();
        say!("{}", now == only);
        let mut cpu = u32::MAX;
        sys!(SYS_getcpu, &mut cpu, 0, 0).unwrap();
        check!(1 << cpu == only[0], "on CPU {cpu}");
        let status = ending(|| {
            let mut now = [0u64; 16];
            sys!(SYS_sched_getaffinity, 0, 128, &mut now).unwrap();
            i32::from(now != only)
        });
        say!("inherited: {status}");
        say!("none: {}", value(sys!(SYS_sched_setaffinity, 0, 128, &[0u64; 16])));
        0
    });
    say!("{status}");
    say!("short: {}", value(sys!(SYS_sched_getaffinity, 0, 7, &mut set)));
    say!("nowhere: {}", value(sys!(SYS_sched_setaffinity, 0, 8, 16u64)));
    say!("nobody: {}", value(sys!(SYS_sched_getaffinity, 1 << 30, 128, &mut set)));
}

/// Threads that are moved from CPU to CPU keep their heads.
fn affine_threads() {
    let mut set = [0u64; 16];
    sys!(SYS_sched_getaffinity, 0, 128, &mut set).unwrap();
    let cpus: Vec<u32> = (0..64).filter(|cpu| set[0] >> cpu & 1 == 1).collect();
    let threads: Vec<_> = (0..4usize)
        .map(|me| {
            let cpus = cpus.clone();
            std::thread::spawn(move || {
                for round in 0..60 {
                    let cpu = cpus[(me + round) % cpus.len()];
                    let mut only = [0u64; 16];
                    only[0] = 1 << cpu;
                    sys!(SYS_sched_setaffinity, 0, 128, &only).unwrap();
                    let mut now = u32::MAX;
                    sys!(SYS_getcpu, &mut now, 0, 0).unwrap();
                    check!(now == cpu, "on CPU {now} instead of {cpu}");
                }
            })
        })
        .collect();
    threads.into_iter().for_each(|thread| thread.join().unwrap());
    say!("moved");
}

fn nice() {
    let status = ending(|| {
        // The call itself gives 20 - nice.
        say!("{}", value(sys!(SYS_getpriority, libc::PRIO_PROCESS, 0)));
        say!(
            "{} {}",
            value(sys!(SYS_setpriority, libc::PRIO_PROCESS, 0, 5)),
            value(sys!(SYS_getpriority, 0, 0))
        );
        say!(
            "{} {}",
            value(sys!(SYS_setpriority, libc::PRIO_PROCESS, 0, 100)),
            value(sys!(SYS_getpriority, 0, 0))
        );
        let status = ending(|| sys!(SYS_getpriority, 0, 0).unwrap() as i32);
        say!("inherited: {status}");
        say!("group: {}", value(sys!(SYS_getpriority, libc::PRIO_PGRP, 0)));
        say!("unknown: {}", value(sys!(SYS_getpriority, 9, 0)));
        say!("nobody: {}", value(sys!(SYS_setpriority, 0, 1 << 30, 0)));
        0
    });
    say!("{status}");
}

fn yield_all() {
    let children: Vec<i32> = (0..4)
        .map(|_| spawn(|| i32::from((0..2_000).any(|_| sys!(SYS_sched_yield) != Ok(0)))))
        .collect();
    for child in children {
        say!("{}", wait(child));
    }
}

fn random() {
    let mut blocks = [[0u8; 64]; 4];
    for block in &mut blocks {
        say!("{}", value(sys!(SYS_getrandom, block, 64, 0)));
    }
    let differ = (0..4).all(|n| (0..n).all(|m| blocks[n] != blocks[m]));
    let ones: u32 = blocks.concat().iter().map(|byte| byte.count_ones()).sum();
    say!("all different: {differ}, balanced: {}", (800..1_250).contains(&ones));
    let mut large = vec![0u8; 100_000];
    say!("{}", value(sys!(SYS_getrandom, large.as_mut_ptr(), large.len(), libc::GRND_NONBLOCK)));
    say!("nothing: {}", value(sys!(SYS_getrandom, 0, 0, 0)));
    say!("flags: {}", value(sys!(SYS_getrandom, large.as_mut_ptr(), 1, 0x80)));
    say!("nowhere: {}", value(sys!(SYS_getrandom, 16u64, 8, 0)));
    let pages = memory::shared_pages(2);
    memory::unmap(pages.wrapping_add(PAGE), PAGE);
    say!("as far as can be: {}", value(sys!(SYS_getrandom, pages.wrapping_add(PAGE - 96), 200, 0)));
    memory::unmap(pages, PAGE);
    // Two processes do not get the same.
    let shared = memory::shared_pages(1);
    let child = spawn(|| {
        sys!(SYS_getrandom, shared, 32, 0).unwrap();
        0
    });
    wait(child);
    let mut own = [0u8; 32];
    sys!(SYS_getrandom, &mut own, 32, 0).unwrap();
    say!(
        "differ: {}",
        own.iter().enumerate().any(|(n, &byte)| memory::peek(shared.wrapping_add(n)) != byte)
    );
    memory::unmap(shared, PAGE);
}

fn names() {
    let mut fields = [[0u8; 65]; 6];
    say!("{}", value(sys!(SYS_uname, &mut fields)));
    let text = |n: usize| String::from_utf8_lossy(&fields[n]).trim_end_matches('\0').to_owned();
    say!("{} {}", text(0), text(4));
    check!(
        text(2).split('.').next().is_some_and(|major| major.parse::<u32>().is_ok()),
        "release {}",
        text(2)
    );
    say!("nowhere: {}", value(sys!(SYS_uname, 16u64)));
}

fn machine() {
    let mut info = std::mem::MaybeUninit::<libc::sysinfo>::zeroed();
    say!("{}", value(sys!(SYS_sysinfo, info.as_mut_ptr())));
    // SAFETY: all zeroes is a sysinfo.
    let info = unsafe { info.assume_init() };
    let unit = u64::from(info.mem_unit.max(1));
    check!(info.totalram * unit > 16 << 20, "{} bytes of memory", info.totalram * unit);
    check!(info.freeram <= info.totalram, "{} free of {}", info.freeram, info.totalram);
    check!(info.procs >= 1, "{} processes", info.procs);
    say!("nowhere: {}", value(sys!(SYS_sysinfo, 16u64)));
    say!("{}", std::thread::available_parallelism().is_ok());
}

fn usage() {
    let mut usage = [0i64; 18];
    for who in [libc::RUSAGE_SELF, libc::RUSAGE_CHILDREN, libc::RUSAGE_THREAD, 9] {
        say!("{who}: {}", value(sys!(SYS_getrusage, who, &mut usage)));
    }
    sys!(SYS_getrusage, libc::RUSAGE_SELF, &mut usage).unwrap();
    check!(usage[4] > 0, "no memory used");
    let mut times = [0i64; 4];
    check!(sys!(SYS_times, &mut times).is_ok(), "times");
    say!("no pointer: {}", outcome(sys!(SYS_times, 0)));
    say!("nowhere: {}", value(sys!(SYS_times, 16u64)));
    // Children's time counts when they are reaped.
    let burn = || {
        let start = std::time::Instant::now();
        while start.elapsed().as_millis() < 30 {
            std::hint::spin_loop();
        }
        0
    };
    wait(spawn(burn));
    sys!(SYS_getrusage, libc::RUSAGE_CHILDREN, &mut usage).unwrap();
    let microseconds = (usage[0] + usage[2]) * 1_000_000 + usage[1] + usage[3];
    check!(microseconds > 0, "children used no time");
}

fn identity() {
    for (name, result) in [
        ("uid", sys!(SYS_getuid)),
        ("euid", sys!(SYS_geteuid)),
        ("gid", sys!(SYS_getgid)),
        ("egid", sys!(SYS_getegid)),
    ] {
        check!(result.is_ok(), "{name}: {result:?}");
    }
    let uid = sys!(SYS_getuid).unwrap();
    let (mut real, mut effective, mut saved) = (9u32, 9u32, 9u32);
    say!("{}", value(sys!(SYS_getresuid, &mut real, &mut effective, &mut saved)));
    say!("{}", [real, effective, saved].iter().all(|&id| u64::from(id) == uid));
    say!("groups: {}", outcome(sys!(SYS_getgroups, 0, 0)));
    say!("to itself: {}", value(sys!(SYS_setuid, uid)));
    check!(sys!(SYS_getpid) == Ok(id() as u64), "getpid");
    check!(sys!(SYS_gettid) == sys!(SYS_getpid), "gettid");
}

fn prctl() {
    let call = |option: i32, argument: u64| value(sys!(SYS_prctl, option, argument, 0, 0, 0));
    let status = ending(|| {
        let name = *b"a name that is too long\0";
        say!("{}", call(libc::PR_SET_NAME, name.as_ptr() as u64));
        let mut seen = [b'?'; 16];
        say!(
            "{} {:?}",
            call(libc::PR_GET_NAME, seen.as_mut_ptr() as u64),
            String::from_utf8_lossy(&seen)
        );
        let status = ending(|| {
            let mut inherited = [0u8; 16];
            sys!(SYS_prctl, libc::PR_GET_NAME, &mut inherited).unwrap();
            i32::from(inherited != seen)
        });
        say!("inherited: {status}");
        say!("nowhere: {}", call(libc::PR_SET_NAME, 16));
        say!("unknown: {}", call(9_999, 0));
        say!("dumpable: {}", call(libc::PR_GET_DUMPABLE, 0));
        say!("timing: {} {}", call(libc::PR_GET_TIMING, 0), call(libc::PR_SET_TIMING, 0));
        say!("timing by time-stamps: {}", call(libc::PR_SET_TIMING, 1));
        let slack = || call(libc::PR_GET_TIMERSLACK, 0);
        say!("slack: {} {} {}", slack(), call(libc::PR_SET_TIMERSLACK, 70_000), slack());
        let status = ending(|| {
            say!("inherited: {} {}", slack(), call(libc::PR_SET_TIMERSLACK, 1));
            say!("and back: {} {} {}", slack(), call(libc::PR_SET_TIMERSLACK, 0), slack());
            0
        });
        say!("{status} {} {}", call(libc::PR_SET_TIMERSLACK, u64::MAX), slack());
        say!("no new privileges: {}", call(libc::PR_GET_NO_NEW_PRIVS, 0));
        say!("{} {}", call(libc::PR_SET_NO_NEW_PRIVS, 1), call(libc::PR_GET_NO_NEW_PRIVS, 0));
        0
    });
    say!("{status}");
}

/// A personality is inherited, and one of them has programs where they always are.
fn personality() {
    const FIXED: u32 = 0x0004_0000;
    let call = |personality: u32| value(sys!(SYS_personality, personality));
    let status = ending(|| {
        say!("{} {} {}", call(u32::MAX), call(FIXED), call(u32::MAX));
        let status = ending(|| {
            say!("inherited: {}", call(u32::MAX));
            let name = std::env::current_exe().unwrap();
            let name = std::ffi::CString::new(name.into_os_string().into_encoded_bytes()).unwrap();
            let arguments = [name.as_ptr(), c"where".as_ptr(), std::ptr::null()];
            sys!(SYS_execve, name.as_ptr(), &arguments, &[0u64]).unwrap();
            1
        });
        say!("{status} {} {}", call(0), call(u32::MAX));
        0
    });
    say!("{status}");
}

/// For [`personality`]: the end of the stack.
fn place() {
    let stack = std::fs::read_to_string("/proc/self/maps").unwrap();
    let stack = stack.lines().find(|line| line.ends_with("[stack]")).unwrap();
    let end = u64::from_str_radix(stack.split([' ', '-']).nth(1).unwrap(), 16).unwrap();
    say!("{}, not moved: {}", value(sys!(SYS_personality, u32::MAX)), end > 0x7fff_fff0_0000);
}

/// RLIMIT_FSIZE: as much as there is room for, then SIGXFSZ and an error.
fn file_size() {
    let status = ending(|| {
        let name = c"limited".as_ptr();
        let flags = libc::O_RDWR | libc::O_CREAT | libc::O_TRUNC;
        let fd = sys!(SYS_open, name, flags, 0o600).unwrap() as i32;
        write(fd, &[1; 50]).unwrap();
        signal::recorded(libc::SIGXFSZ, 0);
        sys!(SYS_prlimit64, 0, libc::RLIMIT_FSIZE, &[30u64, 100], 0).unwrap();
        let said = |result: sys::Result| format!("{} {}", value(result), signal::taken_names());
        say!("beyond: {}", said(write(fd, &[2; 10])));
        say!("nothing beyond: {}", said(write(fd, &[])));
        say!("below: {}", said(sys!(SYS_pwrite64, fd, &[3u8; 20], 20, 5)));
        say!("across: {}", said(sys!(SYS_pwrite64, fd, &[3u8; 20], 20, 20)));
        say!("at: {}", said(sys!(SYS_pwrite64, fd, &[3u8; 20], 20, 30)));
        say!("shorter: {}", said(sys!(SYS_ftruncate, fd, 40)));
        say!("longer: {}", said(sys!(SYS_ftruncate, fd, 60)));
        say!("longer by its path: {}", said(sys!(SYS_truncate, name, 60)));
        say!("longer by fallocate: {}", said(sys!(SYS_fallocate, fd, 0, 0, 60)));
        say!("a pipe has none: {}", said(write(pipe(0).1, &[4; 100])));
        signal::dispose(libc::SIGXFSZ, libc::SIG_DFL);
        let _ = write(fd, b"x");
        0
    });
    say!("{status}");
    sys!(SYS_unlink, c"limited".as_ptr()).unwrap();
}

fn arch() {
    let (set_gs, get_gs) = (0x1001, 0x1004);
    let status = ending(|| {
        say!("{}", value(sys!(SYS_arch_prctl, set_gs, 0x1234_5000u64)));
        let mut base = 0u64;
        say!("{} {base:#x}", value(sys!(SYS_arch_prctl, get_gs, &mut base)));
        sys!(SYS_sched_yield).unwrap();
        programs::process::pause_ms(1);
        say!("{} {base:#x}", value(sys!(SYS_arch_prctl, get_gs, &mut base)));
        let status = ending(|| {
            let mut inherited = 0u64;
            sys!(SYS_arch_prctl, get_gs, &mut inherited).unwrap();
            i32::from(inherited != base)
        });
        say!("inherited: {status}");
        say!("kernel: {}", value(sys!(SYS_arch_prctl, set_gs, 0xffff_8000_0000_0000u64)));
        say!("unknown: {}", value(sys!(SYS_arch_prctl, 0x9999, 0)));
        say!("nowhere: {}", value(sys!(SYS_arch_prctl, get_gs, 16u64)));
        say!("CPUID allowed: {}", value(sys!(SYS_arch_prctl, 0x1011, 0)));
        0
    });
    say!("{status}");
}

fn membarrier() {
    let call = |command: i32| sys!(SYS_membarrier, command, 0, 0);
    let query = call(0).unwrap();
    say!("private expedited: {}", query >> 3 & 3 == 3);
    let status = ending(|| {
        say!("not registered: {}", value(call(8)));
        say!("{} {}", value(call(16)), value(call(8)));
        say!("global: {}", value(call(1)));
        say!("unknown: {}", value(call(1 << 20)));
        say!("flags: {}", value(sys!(SYS_membarrier, 0, 9, 0)));
        0
    });
    say!("{status}");
}

/// Numbers that no call has.
fn unknown() {
    for number in [400i64, 600, 1_000, 100_000, i64::MAX, -1, 0x4000_0001] {
        // SAFETY: there is no such call.
        let result = unsafe { sys::call(number, &[0; 6]) };
        say!("{number}: {}", value(result));
    }
    let baton = Baton::new();
    baton.pass();
    baton.await_pass();
    let (input, output) = pipe(0);
    close(input);
    close(output);
    check!(try_spawn(|| 0).map(wait).is_ok_and(|status| status.exited_with(0)), "no child");
    say!("pending {}", signal::names(signal::pending()));
}
