//! Signals, stops and continues into whatever goes on.

use std::sync::atomic::{AtomicU64, Ordering};

use programs::memory::{PAGE, pages, peek, poke, unmap};
use programs::process::{ending, id, spawn, wait};
use programs::signal::{self, kill};
use programs::{check, say, sys};

use super::{Random, counter, scaled, verdict};

static HANDLED: AtomicU64 = AtomicU64::new(0);

extern "C" fn count_signal(_: i32, _: &libc::siginfo_t, _: &mut libc::ucontext_t) {
    HANDLED.fetch_add(1, Ordering::Relaxed);
}

/// Signals rain on a process that forks, waits, maps and computes.
pub fn signal_storm() {
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

pub fn stop_storm() {
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
