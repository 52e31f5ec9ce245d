//! Policies and CPUs that change under those who run.

use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::thread;

use programs::{say, sys};

use super::{Random, scaled, verdict};

/// Threads that are given a policy, a nice value and CPUs by others from their first moment on, while they come and go.
pub fn policy_storm() {
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

/// A thread that is moved about, and what it is told of that.
#[derive(Default)]
struct Moved {
    tid: AtomicU32,
    /// The CPU that it must be on, in the lowest byte, and a number of its own for each move above; 0 while it is moved.
    place: AtomicU64,
}

/// Threads that yield and sleep are moved from CPU to CPU; none is ever seen where it may not be, and none is lost.
pub fn move_storm() {
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
