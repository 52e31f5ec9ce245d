//! Forks, execs and threads: bombs, trees, storms, races.

use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::thread;

use programs::memory::{PAGE, page, pages, peek, poke, unmap};
use programs::process::{
    ending, exit_now, id, pause_ms, spawn, try_spawn, try_wait, wait, wait_until,
};
use programs::signal::{self, kill};
use programs::sys::Errno;
use programs::{check, say, sys};

use super::{Random, counter, reap, scaled, verdict};

pub fn fork_exit() {
    let rounds = scaled(1_000);
    let well = (0..rounds).filter(|_| ending(|| 0).exited_with(0)).count();
    verdict("all of them", well as u32 == rounds);
}

/// Forks until the limit says no; everybody is killed; then there is room again.
pub fn fork_bomb() {
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

pub fn fork_tree() {
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
pub fn threads_fork() {
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

/// Processes that fork and exec are killed at any moment.
pub fn kill_forkers() {
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

/// A group whose members come and go as fast as they can gets one SIGKILL: nobody escapes, born before or after.
pub fn kill_family() {
    sys!(SYS_prctl, libc::PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0).unwrap();
    // Nobody waits for the members, here or where they were made.
    signal::dispose(libc::SIGCHLD, libc::SIG_IGN);
    let (living, born) = (counter(), counter());
    let mut random = Random(7);
    let mut escaped = 0;
    for _ in 0..scaled(8) {
        living.store(1, Ordering::Relaxed);
        born.store(0, Ordering::Relaxed);
        let first = spawn(|| {
            let _ = sys!(SYS_setpgid, 0, 0);
            come_and_go(living, born)
        });
        let _ = sys!(SYS_setpgid, first, first);
        let enough = 200 + random.below(400) as u32;
        wait_until(|| born.load(Ordering::Relaxed) > enough);
        kill(-first, libc::SIGKILL).unwrap();
        escaped += usize::from(!all_end());
        let _ = kill(-first, libc::SIGKILL);
        while try_wait(-1, libc::__WALL).is_ok() {}
    }
    say!("{escaped} families have survivors");
    check!(escaped == 0, "a group was not killed as a whole");
    signal::dispose(libc::SIGCHLD, libc::SIG_DFL);
    sys!(SYS_prctl, libc::PR_SET_CHILD_SUBREAPER, 0, 0, 0, 0).unwrap();
}

/// Makes children, which do the same, as long as few are living; ends otherwise, unless it is the first.
fn come_and_go(living: &AtomicU32, born: &AtomicU32) -> ! {
    const MOST: u32 = 120;
    let first = id();
    loop {
        if living.fetch_add(1, Ordering::Relaxed) < MOST {
            match sys!(SYS_fork) {
                Ok(_) => _ = born.fetch_add(1, Ordering::Relaxed),
                Err(_) => _ = living.fetch_sub(1, Ordering::Relaxed),
            }
        } else {
            living.fetch_sub(1, Ordering::Relaxed);
            if sys!(SYS_getpid) != Ok(first as u64) {
                living.fetch_sub(1, Ordering::Relaxed);
                exit_now(0);
            }
            let _ = sys!(SYS_sched_yield);
        }
    }
}

/// Whether all children, orphans among them, have ended before ten seconds have passed in which none did.
fn all_end() -> bool {
    for _ in 0..10_000 {
        loop {
            match try_wait(-1, libc::__WALL | libc::WNOHANG) {
                Ok((0, _)) => break,
                Ok(_) => {}
                Err(_) => return true,
            }
        }
        pause_ms(1);
    }
    false
}

fn execute(environment: &[*const libc::c_char]) -> Errno {
    let args = [c"x".as_ptr(), c"@quick".as_ptr(), std::ptr::null()];
    sys!(SYS_execve, c"/proc/self/exe".as_ptr(), args.as_ptr(), environment.as_ptr())
        .expect_err("back from exec")
}

pub fn exec_storm() {
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
pub fn exec_races() {
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

pub fn thread_storm() {
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
