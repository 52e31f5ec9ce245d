//! Much of everything at once: fork bombs and trees, threads that fork, signals into forks and execs, concurrent
//! writers to copied memory, exec storms.
//!
//! `torture [CASE…]` runs cases at a size that takes seconds; TORTURE_SCALE=N multiplies it. Every case checks its
//! own results, so that the program tells more than that it came to its end.

use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::thread;

use programs::memory::{PAGE, page, pages, peek, poke, shared_pages, unmap};
use programs::process::{Status, ending, exit_now, id, pause_ms, spawn, try_spawn, try_wait, wait};
use programs::signal::{self, kill};
use programs::sys::Errno;
use programs::{check, say, sys};

fn main() {
    if std::env::args().nth(1).is_some_and(|arg| arg == "@quick") {
        std::process::exit(7);
    }
    programs::main(&[
        ("fork-exit", fork_exit),
        ("fork-bomb", fork_bomb),
        ("fork-tree", fork_tree),
        ("threads-fork", threads_fork),
        ("signal-storm", signal_storm),
        ("kill-forkers", kill_forkers),
        ("copy-storm", copy_storm),
        ("shared-storm", shared_storm),
        ("exec-storm", exec_storm),
        ("exec-races", exec_races),
        ("map-storm", map_storm),
        ("stop-storm", stop_storm),
        ("thread-storm", thread_storm),
        ("pipe-storm", pipe_storm),
        ("policy-storm", policy_storm),
        ("area-storm", area_storm),
        ("move-storm", move_storm),
    ]);
}

fn scaled(count: u32) -> u32 {
    let scale = std::env::var("TORTURE_SCALE").ok().and_then(|text| text.parse().ok()).unwrap_or(1);
    count * scale
}

/// A generator of numbers that look random (xorshift).
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    fn below(&mut self, limit: u64) -> u64 {
        self.next() % limit
    }
}

/// Memory that processes count in.
fn counter() -> &'static AtomicU32 {
    // SAFETY: a page of its own that is never unmapped.
    unsafe { AtomicU32::from_ptr(shared_pages(1).cast()) }
}

/// Waits for this many children; how many ended well.
fn reap(count: usize) -> usize {
    (0..count)
        .filter(|_| try_wait(-1, libc::__WALL).is_ok_and(|(_, status)| status.exited_with(0)))
        .count()
}

/// What a case has found out.
fn verdict(what: &str, holds: bool) {
    check!(holds, "not {what}");
    say!("{what}: {holds}");
}

fn fork_exit() {
    let rounds = scaled(1_000);
    let well = (0..rounds).filter(|_| ending(|| 0).exited_with(0)).count();
    verdict("all of them", well as u32 == rounds);
}

/// Forks until the limit says no; everybody is killed; then there is room again.
fn fork_bomb() {
    for _ in 0..scaled(2) {
        let status = ending(|| {
            sys!(SYS_setpgid, 0, 0).unwrap();
            // The bomb's own limit, for hosts and users that have none.
            let most = 300;
            let born = counter();
            let mut refused = None;
            for _ in 0..most {
                match try_spawn(|| {
                    born.fetch_add(1, Ordering::Relaxed);
                    // Each of them tries a little more.
                    for _ in 0..3 {
                        let _ = try_spawn(|| {
                            loop {
                                pause_ms(1_000_000);
                            }
                        });
                    }
                    loop {
                        pause_ms(1_000_000);
                    }
                }) {
                    Ok(_) => {}
                    Err(error) => {
                        refused = Some(error);
                        break;
                    }
                }
            }
            check!(
                refused.is_none_or(|error| matches!(error, Errno(libc::EAGAIN | libc::ENOMEM))),
                "{refused:?}"
            );
            let _ = kill(0, libc::SIGKILL);
            0
        });
        say!("{status}");
    }
    let status = ending(|| 5);
    say!("and again: {status}");
}

fn fork_tree() {
    fn grow(depth: u32, leaves: &AtomicU32) -> i32 {
        if depth == 0 {
            leaves.fetch_add(1, Ordering::Relaxed);
            return 0;
        }
        let children: Vec<i32> = (0..3).map(|_| spawn(|| grow(depth - 1, leaves))).collect();
        i32::from(!children.into_iter().all(|child| wait(child).exited_with(0)))
    }
    for _ in 0..scaled(2) {
        let leaves = counter();
        say!("{} {}", ending(|| grow(5, leaves)), leaves.load(Ordering::Relaxed));
    }
}

/// Threads that fork while others allocate and write.
fn threads_fork() {
    let rounds = scaled(60);
    let stop = AtomicU32::new(0);
    let well = AtomicU32::new(0);
    thread::scope(|scope| {
        for seed in 1..3u64 {
            let stop = &stop;
            scope.spawn(move || {
                let mut random = Random(seed);
                while stop.load(Ordering::Relaxed) == 0 {
                    let count = 1 + random.below(20) as usize;
                    let base = pages(count);
                    for number in 0..count {
                        poke(page(base, number), number as u8);
                    }
                    for number in 0..count {
                        check!(peek(page(base, number)) == number as u8, "page {number}");
                    }
                    unmap(base, count * PAGE);
                }
            });
        }
        let forkers: Vec<_> = (0..3u8)
            .map(|me| {
                let well = &well;
                scope.spawn(move || {
                    let base = pages(16);
                    for round in 0..rounds {
                        let mark = (round as u8).wrapping_mul(3).wrapping_add(me);
                        poke(page(base, 3), mark);
                        let status = ending(|| {
                            let same = peek(page(base, 3)) == mark;
                            poke(page(base, 3), 0xee);
                            i32::from(!same)
                        });
                        let kept = peek(page(base, 3)) == mark;
                        well.fetch_add(u32::from(kept && status.exited_with(0)), Ordering::Relaxed);
                    }
                    unmap(base, 16 * PAGE);
                })
            })
            .collect();
        forkers.into_iter().for_each(|thread| thread.join().unwrap());
        stop.store(1, Ordering::Relaxed);
    });
    verdict("all of them", well.load(Ordering::Relaxed) == 3 * rounds);
}

static HANDLED: AtomicU64 = AtomicU64::new(0);

extern "C" fn count_signal(_: i32, _: &libc::siginfo_t, _: &mut libc::ucontext_t) {
    HANDLED.fetch_add(1, Ordering::Relaxed);
}

/// Signals rain on a process that forks, waits, maps and computes.
fn signal_storm() {
    for number in [libc::SIGUSR1, libc::SIGUSR2, 40] {
        signal::handle(number, count_signal, libc::SA_RESTART, &[]).unwrap();
    }
    let me = id();
    let stormers: Vec<i32> = (0..3)
        .map(|n| {
            spawn(move || {
                let mut random = Random(7 + n);
                loop {
                    let number = [libc::SIGUSR1, libc::SIGUSR2, 40][random.below(3) as usize];
                    let _ = kill(me, number);
                    // Real-time signals queue: sent faster than they are handled, they would leave the
                    // receiver no time for anything else.
                    let pause = [0u64, 200_000 + random.below(200_000)];
                    let _ = sys!(SYS_nanosleep, pause.as_ptr(), 0);
                }
            })
        })
        .collect();
    let rounds = scaled(300);
    let mut well = 0;
    for round in 0..rounds {
        let base = pages(4);
        poke(base, round as u8);
        let status = ending(|| {
            let mut sum = 0u64;
            for n in 0..1_000 {
                sum = std::hint::black_box(sum + n);
            }
            i32::from(sum != 499_500 || peek(base) != round as u8)
        });
        well += u32::from(status.exited_with(0));
        unmap(base, 4 * PAGE);
    }
    for child in stormers {
        let _ = kill(child, libc::SIGKILL);
        wait(child);
    }
    for number in [libc::SIGUSR1, libc::SIGUSR2, 40] {
        signal::dispose(number, libc::SIG_DFL);
    }
    verdict("all of them", well == rounds);
    verdict("some handled", HANDLED.load(Ordering::Relaxed) > 0);
}

/// Processes that fork and exec are killed at any moment.
fn kill_forkers() {
    let mut random = Random(42);
    let mut killed = 0;
    let rounds = scaled(60);
    for _ in 0..rounds {
        let child = spawn(|| {
            let _ = sys!(SYS_setpgid, 0, 0);
            loop {
                let inner = try_spawn(|| {
                    let _ = try_spawn(|| 0);
                    let args = [c"x".as_ptr(), c"@quick".as_ptr(), std::ptr::null()];
                    let _ = sys!(
                        SYS_execve,
                        c"/proc/self/exe".as_ptr(),
                        args.as_ptr(),
                        args[2..].as_ptr()
                    );
                    8
                });
                if let Ok(inner) = inner {
                    wait(inner);
                }
            }
        });
        let _ = sys!(SYS_setpgid, child, child);
        for _ in 0..random.below(30) {
            let _ = sys!(SYS_sched_yield);
        }
        if random.below(2) == 0 {
            pause_ms(random.below(8) as i64);
        }
        let _ = kill(-child, libc::SIGKILL);
        killed += u32::from(libc::WIFSIGNALED(wait(child).0));
    }
    verdict("all of them", killed == rounds);
}

/// Four processes write to memory that they share copy-on-write, over and over, and compare with a model.
fn copy_storm() {
    const PAGES: usize = 700;
    let base = pages(PAGES);
    let mut random = Random(3);
    for round in 0..scaled(4) as u64 {
        let mut model = vec![0u8; PAGES];
        for (number, byte) in model.iter_mut().enumerate() {
            *byte = random.next() as u8;
            poke(page(base, number), *byte);
        }
        let children: Vec<i32> = (0..4)
            .map(|me| {
                let mut model = model.clone();
                spawn(move || write_and_compare(base, &mut model, 100 * round + me + 1))
            })
            .collect();
        let bad = write_and_compare(base, &mut model, 1_000 + round);
        check!(bad == 0, "the parent's memory changed");
        for child in children {
            let status = wait(child);
            check!(status.exited_with(0), "{status}");
        }
        let sum = (0..PAGES).filter(|&number| peek(page(base, number)) != model[number]).count();
        check!(sum == 0, "{sum} pages changed in the parent");
    }
    say!("consistent");
    unmap(base, PAGES * PAGE);
}

fn write_and_compare(base: *mut u8, model: &mut [u8], seed: u64) -> i32 {
    let mut random = Random(seed);
    for _ in 0..4_000 {
        let number = random.below(model.len() as u64) as usize;
        if random.below(3) == 0 {
            model[number] = random.next() as u8;
            poke(page(base, number), model[number]);
        } else if peek(page(base, number)) != model[number] {
            return 1;
        }
        if random.below(1_500) == 0 {
            let copy = model.to_vec();
            let status =
                ending(|| i32::from((0..copy.len()).any(|n| peek(page(base, n)) != copy[n])));
            if !status.exited_with(0) {
                return 2;
            }
        }
    }
    i32::from((0..model.len()).any(|number| peek(page(base, number)) != model[number]))
}

/// Threads write to one address space while it is forked: a snapshot is taken, torn or not, and stays as it is.
fn shared_storm() {
    const PAGES: usize = 64;
    let base = pages(PAGES);
    let stop = AtomicU32::new(0);
    thread::scope(|scope| {
        for me in 0..3usize {
            let (stop, base) = (&stop, base as usize);
            scope.spawn(move || {
                let base = base as *mut u8;
                let mut value = 0u8;
                while stop.load(Ordering::Relaxed) == 0 {
                    value = value.wrapping_add(1);
                    for number in (me..PAGES).step_by(3) {
                        // First and second half of the page get the same value, in this order.
                        poke(page(base, number), value);
                        poke(page(base, number).wrapping_add(PAGE / 2), value);
                    }
                }
            });
        }
        for _ in 0..scaled(60) {
            let status = ending(|| {
                let before: Vec<(u8, u8)> =
                    (0..PAGES).map(|number| both_halves(base, number)).collect();
                // The second is at most one step behind the first.
                let torn =
                    before.iter().filter(|(first, second)| first.wrapping_sub(*second) > 1).count();
                let _ = sys!(SYS_sched_yield);
                let moved = (0..PAGES)
                    .filter(|&number| both_halves(base, number) != before[number])
                    .count();
                i32::from(torn > 0) + 2 * i32::from(moved > 0)
            });
            check!(status.exited_with(0), "{status} (1 torn, 2 changed after the fork)");
        }
        stop.store(1, Ordering::Relaxed);
    });
    say!("snapshots hold");
    unmap(base, PAGES * PAGE);
}

fn both_halves(base: *mut u8, number: usize) -> (u8, u8) {
    (peek(page(base, number)), peek(page(base, number).wrapping_add(PAGE / 2)))
}

fn execute(environment: &[*const libc::c_char]) -> Errno {
    let args = [c"x".as_ptr(), c"@quick".as_ptr(), std::ptr::null()];
    sys!(SYS_execve, c"/proc/self/exe".as_ptr(), args.as_ptr(), environment.as_ptr())
        .expect_err("back from exec")
}

fn exec_storm() {
    let rounds = scaled(40);
    let children: Vec<i32> = (0..4)
        .map(|_| {
            spawn(|| {
                let well = (0..rounds).filter(|_| {
                    let status = ending(|| {
                        execute(&[std::ptr::null()]);
                        9
                    });
                    status.exited_with(7)
                });
                i32::from(well.count() as u32 != rounds)
            })
        })
        .collect();
    verdict("all of them", reap(children.len()) == 4);
}

/// Threads of one process execute at the same time: one of them wins.
fn exec_races() {
    for _ in 0..scaled(15) {
        let status = ending(|| {
            for _ in 0..4 {
                thread::spawn(|| execute(&[std::ptr::null()]));
            }
            loop {
                thread::park();
            }
        });
        check!(status.exited_with(7), "{status}");
    }
    // Against the end of the process.
    for round in 0..scaled(15) {
        let status = ending(|| {
            thread::spawn(|| execute(&[std::ptr::null()]));
            for _ in 0..round % 5 {
                thread::yield_now();
            }
            exit_now(6)
        });
        check!(status.exited_with(7) || status.exited_with(6), "{status}");
    }
    // Against threads that are made meanwhile.
    for round in 0..scaled(15) {
        let status = ending(|| {
            for _ in 0..3 {
                thread::spawn(|| {
                    for _ in 0..100 {
                        let idle = || {
                            loop {
                                thread::park();
                            }
                        };
                        let _ = thread::Builder::new().stack_size(16 << 10).spawn(idle);
                    }
                });
            }
            for _ in 0..round * 3 {
                thread::yield_now();
            }
            execute(&[std::ptr::null()]);
            9
        });
        check!(status.exited_with(7), "{status}");
    }
    say!("one winner each");
}

/// Threads map, protect, move and unmap side by side.
fn map_storm() {
    thread::scope(|scope| {
        for seed in 1..=4u64 {
            scope.spawn(move || {
                let mut random = Random(seed * 77);
                for _ in 0..scaled(40) {
                    let count = 1 + random.below(40) as usize;
                    let base = pages(count);
                    for number in 0..count {
                        poke(page(base, number), seed as u8);
                    }
                    let half = count / 2;
                    let read = libc::PROT_READ;
                    check!(sys!(SYS_mprotect, base, half.max(1) * PAGE, read).is_ok(), "mprotect");
                    let moved = sys!(
                        SYS_mremap,
                        page(base, half),
                        (count - half) * PAGE,
                        (count + 5) * PAGE,
                        1,
                        0
                    );
                    let moved = moved.unwrap() as *mut u8;
                    for number in 0..count - half {
                        check!(peek(page(moved, number)) == seed as u8, "a moved page");
                    }
                    for number in 0..half {
                        check!(peek(page(base, number)) == seed as u8, "a page that stayed");
                    }
                    unmap(moved, (count + 5) * PAGE);
                    if half > 0 {
                        unmap(base, half * PAGE);
                    }
                }
            });
        }
    });
    say!("all gone");
}

fn stop_storm() {
    let progress = counter();
    let children: Vec<i32> = (0..3)
        .map(|_| {
            spawn(|| {
                for _ in 0..200 {
                    progress.fetch_add(1, Ordering::Relaxed);
                    let status = ending(|| 0);
                    check!(status.exited_with(0), "{status}");
                }
                0
            })
        })
        .collect();
    let mut random = Random(9);
    for _ in 0..scaled(200) {
        let child = children[random.below(3) as usize];
        let _ = kill(child, if random.below(2) == 0 { libc::SIGSTOP } else { libc::SIGCONT });
    }
    for &child in &children {
        let _ = kill(child, libc::SIGCONT);
    }
    let well = children.into_iter().filter(|&child| wait(child).exited_with(0)).count();
    say!("{well} {}", progress.load(Ordering::Relaxed));
}

fn thread_storm() {
    let total = AtomicU64::new(0);
    for _ in 0..scaled(10) {
        thread::scope(|scope| {
            for n in 0..40u64 {
                let total = &total;
                scope.spawn(move || {
                    let inner = thread::spawn(move || n * 2);
                    total.fetch_add(inner.join().unwrap(), Ordering::Relaxed);
                });
            }
        });
    }
    verdict("all of them", total.load(Ordering::Relaxed) == 1_560 * u64::from(scaled(10)));
}

/// Many writers, many readers, one pipe: every byte arrives once.
fn pipe_storm() {
    use programs::process::{close, pipe, read, write};
    let (input, output) = pipe(0);
    let sum = counter();
    let readers: Vec<i32> = (0..4)
        .map(|_| {
            spawn(|| {
                close(output);
                loop {
                    let bytes = read(input, 333).unwrap();
                    if bytes.is_empty() {
                        return 0;
                    }
                    sum.fetch_add(
                        bytes.iter().map(|&byte| u32::from(byte)).sum(),
                        Ordering::Relaxed,
                    );
                }
            })
        })
        .collect();
    let writers: Vec<i32> = (1..=4u8)
        .map(|me| {
            spawn(move || {
                close(input);
                for n in 0..scaled(300) as usize {
                    let block = vec![me; 1 + n * 37 % 3_000];
                    let mut rest = &block[..];
                    while !rest.is_empty() {
                        rest = &rest[write(output, rest).unwrap() as usize..];
                    }
                }
                0
            })
        })
        .collect();
    close(input);
    close(output);
    let all: Vec<Status> = writers.into_iter().chain(readers).map(wait).collect();
    check!(all.iter().all(|status| status.exited_with(0)), "a child failed");
    let bytes: u32 = (0..scaled(300)).map(|n| 1 + n * 37 % 3_000).sum();
    verdict("all of them", sum.load(Ordering::Relaxed) == bytes * 10);
}

/// Threads that are given a policy, a nice value and CPUs by others from their first moment on, while they come and go.
fn policy_storm() {
    let ran = AtomicU32::new(0);
    thread::scope(|scope| {
        for seed in 1..5 {
            let ran = &ran;
            scope.spawn(move || {
                let mut random = Random(seed);
                for _ in 0..scaled(300) {
                    let tid = AtomicU32::new(0);
                    thread::scope(|inner| {
                        inner.spawn(|| {
                            tid.store(sys!(SYS_gettid).unwrap() as u32, Ordering::SeqCst);
                            for _ in 0..3 {
                                let moment = libc::timespec { tv_sec: 0, tv_nsec: 10_000 };
                                sys!(SYS_nanosleep, &moment, 0).unwrap();
                            }
                            ran.fetch_add(1, Ordering::Relaxed);
                        });
                        for _ in 0..8 {
                            // The newest of all threads, mostly, which may not have begun.
                            match tid.load(Ordering::SeqCst) {
                                0 => change_scheduling(newest(), &mut random),
                                tid => change_scheduling(tid, &mut random),
                            }
                        }
                    });
                }
            });
        }
    });
    verdict("all of them", ran.load(Ordering::Relaxed) == 4 * scaled(300));
}

/// Number of the thread of this process that was made last.
fn newest() -> u32 {
    let names = std::fs::read_dir("/proc/self/task").unwrap();
    let number = |entry: std::io::Result<std::fs::DirEntry>| {
        entry.ok()?.file_name().to_str()?.parse::<u32>().ok()
    };
    names.filter_map(number).max().unwrap_or(0)
}

/// Gives a thread another policy, nice value or CPU. Whether it may, and whether it is still there, is not the point.
fn change_scheduling(tid: u32, random: &mut Random) {
    let _ = match random.below(5) {
        0 => sys!(SYS_sched_setscheduler, tid, libc::SCHED_FIFO, &1),
        1 => sys!(SYS_sched_setscheduler, tid, libc::SCHED_RR, &2),
        2 => sys!(SYS_sched_setscheduler, tid, libc::SCHED_OTHER, &0),
        3 => sys!(SYS_setpriority, libc::PRIO_PROCESS, tid, random.below(20)),
        _ => sys!(SYS_sched_setaffinity, tid, 8, &(1u64 << random.below(4) | 1)),
    };
}

/// Bytes of memory that the machine has, and that are free.
fn memory_of_machine() -> (u64, u64) {
    // SAFETY: all zeroes is a sysinfo.
    let mut info: libc::sysinfo = unsafe { std::mem::zeroed() };
    sys!(SYS_sysinfo, &mut info).unwrap();
    let unit = u64::from(info.mem_unit);
    (info.totalram * unit, info.freeram * unit)
}

/// A process that takes nearly all memory of a small machine, and keeps it until it is killed.
fn hog_of_small_machine() -> i32 {
    const SMALL: u64 = 256 << 20;
    let hog = spawn(|| {
        let (total, free) = memory_of_machine();
        if total <= SMALL {
            let left = total / 32;
            for number in 0.. {
                let count = (free.saturating_sub(left) / PAGE as u64) as usize;
                if number == count || memory_of_machine().1 <= left {
                    break;
                }
                poke(pages(1), 1);
            }
        }
        pause_ms(1_000_000);
        0
    });
    pause_ms(if memory_of_machine().0 <= SMALL { 300 } else { 1 });
    hog
}

/// Processes with thousands of areas, all of which are read from `/proc` while memory is short.
fn area_storm() {
    const AREAS: usize = 20_000;
    let (ready, go) = (counter(), counter());
    let children: Vec<i32> = (0..3)
        .map(|_| {
            spawn(|| {
                let base = pages(AREAS);
                for number in (0..AREAS).step_by(2) {
                    let at = page(base, number);
                    sys!(SYS_mprotect, at, PAGE, libc::PROT_READ).unwrap();
                }
                ready.fetch_add(1, Ordering::Relaxed);
                while go.load(Ordering::Relaxed) == 0 {
                    pause_ms(1);
                }
                match lines_of(c"/proc/self/maps") {
                    Ok(lines) => check!(lines >= AREAS, "{lines} areas"),
                    // For which there is no memory.
                    Err(why) => check!(why.0 == libc::ENOMEM, "{why}"),
                }
                0
            })
        })
        .collect();
    while ready.load(Ordering::Relaxed) < 3 {
        pause_ms(1);
    }
    let hog = hog_of_small_machine();
    go.store(1, Ordering::Relaxed);
    let well = children.into_iter().filter(|&child| wait(child).exited_with(0)).count();
    kill(hog, libc::SIGKILL).unwrap();
    wait(hog);
    verdict("all told", well == 3);
}

/// How many lines a file has.
fn lines_of(path: &std::ffi::CStr) -> Result<usize, Errno> {
    use programs::process::{close, read};
    let fd = sys!(SYS_open, path.as_ptr(), libc::O_RDONLY)? as i32;
    let mut lines = 0;
    loop {
        let bytes = read(fd, 8_192).inspect_err(|_| close(fd))?;
        if bytes.is_empty() {
            close(fd);
            return Ok(lines);
        }
        lines += bytes.iter().filter(|&&byte| byte == b'\n').count();
    }
}

/// A thread that is moved about, and what it is told of that.
#[derive(Default)]
struct Moved {
    tid: AtomicU32,
    /// The CPU that it must be on, in the lowest byte, and a number of its own for each move above; 0 while it is moved.
    place: AtomicU64,
}

/// Threads that yield and sleep are moved from CPU to CPU; none is ever seen where it may not be, and none is lost.
fn move_storm() {
    let mut allowed = 0u64;
    sys!(SYS_sched_getaffinity, 0, 8, &mut allowed).unwrap();
    let cpus: Vec<u64> = (0..64).filter(|cpu| allowed >> cpu & 1 != 0).collect();
    let threads: Vec<Moved> = (0..12).map(|_| Moved::default()).collect();
    let stop = AtomicU32::new(0);
    let astray = AtomicU32::new(0);
    thread::scope(|scope| {
        for (kind, moved) in threads.iter().enumerate() {
            let (stop, astray) = (&stop, &astray);
            scope.spawn(move || {
                moved.tid.store(sys!(SYS_gettid).unwrap() as u32, Ordering::SeqCst);
                while stop.load(Ordering::Relaxed) == 0 {
                    let place = moved.place.load(Ordering::SeqCst);
                    let mut cpu = 0u32;
                    sys!(SYS_getcpu, &mut cpu, 0, 0).unwrap();
                    let is_still = place != 0 && moved.place.load(Ordering::SeqCst) == place;
                    if is_still && u64::from(cpu) != place & 0xff {
                        astray.fetch_add(1, Ordering::Relaxed);
                    }
                    if kind % 3 == 0 {
                        thread::sleep(std::time::Duration::from_micros(20));
                    } else {
                        thread::yield_now();
                    }
                }
            });
        }
        let movers: Vec<_> = threads
            .chunks(6)
            .zip(1u64..)
            .map(|(mine, seed)| {
                let cpus = &cpus;
                scope.spawn(move || {
                    let mut random = Random(seed);
                    for round in 1..=u64::from(scaled(2_000)) {
                        for moved in mine {
                            let cpu = cpus[random.below(cpus.len() as u64) as usize];
                            let tid = moved.tid.load(Ordering::SeqCst);
                            if tid != 0 {
                                moved.place.store(0, Ordering::SeqCst);
                                sys!(SYS_sched_setaffinity, tid, 8, &(1u64 << cpu)).unwrap();
                                moved.place.store(round << 8 | cpu, Ordering::SeqCst);
                            }
                        }
                    }
                })
            })
            .collect();
        movers.into_iter().for_each(|mover| mover.join().unwrap());
        stop.store(1, Ordering::Relaxed);
    });
    say!("astray: {}", astray.load(Ordering::Relaxed));
}
