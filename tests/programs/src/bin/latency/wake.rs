//! Wake-ups: from the waker's last look at the clock to the first of the thread that was woken.
//!
//! The thread that sleeps is of a higher priority than the waker, so that it runs at once on the same CPU, and
//! instead of a hog on another.

use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use programs::{process, sys};

use crate::raw::{Scope, futex_wait, futex_wake, ticks};
use crate::sibling::{Hog, Watch, thread_id};
use crate::suite::{Sample, Suite, become_fifo, pin};
use crate::switch::{read_byte, write_byte};

/// Priority of the thread that sleeps.
const PRIORITY: i32 = 20;
/// After this time an idle CPU idles as it does for long.
const LONG: Duration = Duration::from_millis(1);

/// A thread that is woken again and again.
pub struct Sleeper<'a> {
    pub suite: &'a Suite,
    pub name: &'a str,
    /// Where it sleeps.
    pub cpu: usize,
}

/// What the two tell each other.
#[derive(Default)]
struct Rounds {
    /// Rounds that the sleeper has begun: it is about to sleep.
    begun: AtomicU32,
    /// Rounds that it has told.
    told: AtomicU32,
    /// When the waker last began to wake it.
    start: AtomicU64,
}

impl Sleeper<'_> {
    /// Measures. `sleep` returns the time at which it was woken; `wake`, which is given the sleeper's number,
    /// wakes it after `settle`.
    pub fn measure(&self, sleep: impl Fn() -> u64 + Send, settle: impl Fn(), wake: impl Fn(u64)) {
        let rounds = Rounds::default();
        let (number, numbers) = mpsc::sync_channel(1);
        std::thread::scope(|scope| {
            scope.spawn(|| {
                pin(self.cpu);
                become_fifo(PRIORITY);
                let _ = number.send(thread_id());
                self.sleep_and_tell(&rounds, sleep);
            });
            let Ok(tid) = numbers.recv() else { return };
            let watch = Watch::new(tid);
            for round in 1..=self.suite.rounds() {
                wait_for(&rounds.begun, round);
                watch.wait_for_sleep();
                settle();
                rounds.start.store(ticks(), Ordering::Relaxed);
                wake(tid);
                wait_for(&rounds.told, round);
            }
        });
    }

    fn sleep_and_tell(&self, rounds: &Rounds, sleep: impl Fn() -> u64) {
        for round in 0..self.suite.rounds() {
            rounds.begun.store(round + 1, Ordering::Release);
            let end = sleep();
            let start = rounds.start.load(Ordering::Relaxed);
            self.suite.tell(round, &Sample { name: self.name, start, end, ops: 1 });
            rounds.told.store(round + 1, Ordering::Release);
        }
    }
}

/// Waits without sleeping: where the sleeper is on this CPU, it has run by now if there is a real-time class.
fn wait_for(count: &AtomicU32, round: u32) {
    while count.load(Ordering::Acquire) < round {
        let _ = sys!(SYS_sched_yield);
    }
}

pub fn measure(suite: &Suite) {
    let polling_or_halted = suite.long_idle;
    for (means, by) in [("futex", by_futex as fn(&Sleeper<'_>, &dyn Fn())), ("pipe", by_pipe)] {
        let name = format!("wake/{means}/same-cpu");
        if suite.wants(&name) {
            by(&Sleeper { suite, name: &name, cpu: suite.here }, &|| ());
        }
        let name = format!("wake/{means}/other-cpu/{polling_or_halted}");
        if let Some(cpu) = suite.there(&name) {
            by(&Sleeper { suite, name: &name, cpu }, &|| spin_for(LONG));
        }
        let name = format!("wake/{means}/other-cpu/busy");
        if let Some(cpu) = suite.there(&name) {
            let _hog = Hog::on(cpu);
            by(&Sleeper { suite, name: &name, cpu }, &|| ());
        }
    }
}

fn spin_for(time: Duration) {
    let since = Instant::now();
    while since.elapsed() < time {
        std::hint::spin_loop();
    }
}

fn by_futex(sleeper: &Sleeper<'_>, settle: &dyn Fn()) {
    let word = AtomicU32::new(0);
    let sleep = || {
        while word.load(Ordering::Acquire) == 0 {
            futex_wait(&word, 0, Scope::Private);
        }
        let woken = ticks();
        word.store(0, Ordering::Relaxed);
        woken
    };
    sleeper.measure(sleep, settle, |_| {
        word.store(1, Ordering::Release);
        futex_wake(&word, Scope::Private);
    });
}

fn by_pipe(sleeper: &Sleeper<'_>, settle: &dyn Fn()) {
    let (from, to) = process::pipe(0);
    let sleep = || {
        read_byte(from, &mut 0);
        ticks()
    };
    sleeper.measure(sleep, settle, |_| write_byte(to, &0));
    [from, to].into_iter().for_each(process::close);
}
