//! Time: clocks, sleeps, interval timers. Order and restarts are shown, durations are not.

use std::time::Instant;

use programs::process::{ending, id, pause_ms, spawn, wait, wait_until};
use programs::signal::{self, kill};
use programs::sys::value;
use programs::{check, say, sys};

type Time = libc::timespec;

fn main() {
    programs::main(&[
        ("clocks", clocks),
        ("monotonic", monotonic),
        ("resolution", resolution),
        ("cpu-clocks", cpu_clocks),
        ("sleeps", sleeps),
        ("order", order),
        ("absolute", absolute),
        ("interrupted", interrupted),
        ("restarted", restarted),
        ("alarm", alarm),
        ("interval", interval),
        ("inherited", inherited),
        ("zombie", zombie),
        ("errors", errors),
        ("vdso", vdso),
    ]);
}

fn now(clock: i32) -> u64 {
    let mut time = Time { tv_sec: 0, tv_nsec: 0 };
    sys!(SYS_clock_gettime, clock, &mut time).unwrap();
    check!((0..1_000_000_000).contains(&time.tv_nsec), "{} ns", time.tv_nsec);
    time.tv_sec as u64 * 1_000_000_000 + time.tv_nsec as u64
}

fn clocks() {
    for (name, clock) in [
        ("REALTIME", libc::CLOCK_REALTIME),
        ("MONOTONIC", libc::CLOCK_MONOTONIC),
        ("PROCESS_CPUTIME_ID", libc::CLOCK_PROCESS_CPUTIME_ID),
        ("THREAD_CPUTIME_ID", libc::CLOCK_THREAD_CPUTIME_ID),
        ("MONOTONIC_RAW", libc::CLOCK_MONOTONIC_RAW),
        ("REALTIME_COARSE", libc::CLOCK_REALTIME_COARSE),
        ("MONOTONIC_COARSE", libc::CLOCK_MONOTONIC_COARSE),
        ("BOOTTIME", libc::CLOCK_BOOTTIME),
        ("10", 10),
        ("99", 99),
        ("-1", -1),
    ] {
        let mut time = Time { tv_sec: -1, tv_nsec: -1 };
        say!("{name}: {}", value(sys!(SYS_clock_gettime, clock, &mut time)));
    }
    say!("nowhere: {}", value(sys!(SYS_clock_gettime, 1, 16u64)));
    // Coarse clocks are behind the fine ones, by a tick at most.
    let (coarse, fine) = (now(libc::CLOCK_MONOTONIC_COARSE), now(libc::CLOCK_MONOTONIC));
    check!(coarse <= fine, "the coarse clock is ahead by {} ns", coarse - fine);
    let mut pair = [0i64; 2];
    say!("gettimeofday: {}", value(sys!(SYS_gettimeofday, &mut pair, 0)));
    let real = now(libc::CLOCK_REALTIME) / 1_000_000_000;
    check!(real.abs_diff(pair[0] as u64) <= 1, "{real} and {}", pair[0]);
    let seconds = sys!(SYS_time, 0).unwrap();
    check!(seconds.abs_diff(real) <= 1, "{real} and {seconds}");
    // Any machine's clock stands later than this program was written, even a made-up one.
    check!(real > 1_600_000_000, "the year is {}", 1970 + real / 31_556_952);
}

/// Never backwards, on no CPU and from none to another.
fn monotonic() {
    let threads: Vec<_> = (0..4)
        .map(|_| {
            std::thread::spawn(|| {
                let mut last = Instant::now();
                let mut last_raw = now(libc::CLOCK_MONOTONIC);
                for round in 0..20_000 {
                    let next = Instant::now();
                    check!(next >= last, "backwards");
                    last = next;
                    if round % 16 == 0 {
                        let raw = now(libc::CLOCK_MONOTONIC);
                        check!(raw >= last_raw, "backwards by {} ns", last_raw - raw);
                        last_raw = raw;
                        std::thread::yield_now();
                    }
                }
            })
        })
        .collect();
    threads.into_iter().for_each(|thread| thread.join().unwrap());
    say!("monotonic");
}

fn resolution() {
    let mut time = Time { tv_sec: -1, tv_nsec: -1 };
    let result = sys!(SYS_clock_getres, libc::CLOCK_MONOTONIC, &mut time);
    say!("{} {} s, fine: {}", value(result), time.tv_sec, time.tv_nsec <= 1_000_000);
    say!("no pointer: {}", value(sys!(SYS_clock_getres, libc::CLOCK_MONOTONIC, 0)));
    say!("unknown: {}", value(sys!(SYS_clock_getres, 99, &mut time)));
    say!("set monotonic: {}", value(sys!(SYS_clock_settime, libc::CLOCK_MONOTONIC, &time)));
}

/// CPU clocks go while the process computes, and stand while it sleeps.
fn cpu_clocks() {
    // CPUCLOCK_SCHED of PID 1, which runs wherever there is a kernel, and of a number that nobody has.
    let clock_of = |pid: i32| !pid << 3 | 2;
    for pid in [1, 1 << 22] {
        let mut time = Time { tv_sec: -1, tv_nsec: -1 };
        say!("of {pid}: {}", value(sys!(SYS_clock_gettime, clock_of(pid), &mut time)));
    }
    let before = (now(libc::CLOCK_PROCESS_CPUTIME_ID), now(libc::CLOCK_THREAD_CPUTIME_ID));
    let mut sum = 0u64;
    for n in 0..2_000_000u64 {
        sum = std::hint::black_box(sum ^ n);
    }
    // The other way round, so that the one is measured within the other.
    let thread = now(libc::CLOCK_THREAD_CPUTIME_ID);
    let after = (now(libc::CLOCK_PROCESS_CPUTIME_ID), thread);
    say!("process: {}, thread: {}", after.0 > before.0, after.1 > before.1);
    check!(after.0 - before.0 >= after.1 - before.1, "the thread used more than its process");
    let worker = std::thread::spawn(|| {
        let start = now(libc::CLOCK_THREAD_CPUTIME_ID);
        let mut sum = 0u64;
        while now(libc::CLOCK_THREAD_CPUTIME_ID) - start < 3_000_000 {
            sum = std::hint::black_box(sum + 1);
        }
    });
    let process = now(libc::CLOCK_PROCESS_CPUTIME_ID);
    worker.join().unwrap();
    let spent = now(libc::CLOCK_PROCESS_CPUTIME_ID) - process;
    check!(spent > 0, "another thread's time does not count");
    let start = Instant::now();
    let before = now(libc::CLOCK_THREAD_CPUTIME_ID);
    pause_ms(50);
    let used = now(libc::CLOCK_THREAD_CPUTIME_ID) - before;
    check!(u128::from(used) < start.elapsed().as_nanos(), "sleeping used {used} ns");
}

fn sleeps() {
    for nanoseconds in [0, 1, 1_000, 1_000_000, 5_000_000] {
        let start = Instant::now();
        let time = Time { tv_sec: 0, tv_nsec: nanoseconds };
        let result = sys!(SYS_nanosleep, &time, 0);
        let enough = start.elapsed().as_nanos() >= nanoseconds as u128;
        say!("{nanoseconds} ns: {}, enough: {enough}", value(result));
    }
    for clock in [libc::CLOCK_MONOTONIC, libc::CLOCK_REALTIME, libc::CLOCK_BOOTTIME] {
        let time = Time { tv_sec: 0, tv_nsec: 2_000_000 };
        let start = now(clock);
        let result = sys!(SYS_clock_nanosleep, clock, 0, &time, 0);
        say!("clock {clock}: {}, enough: {}", value(result), now(clock) - start >= 2_000_000);
    }
}

/// Sleepers with times in another order than they went to sleep in: each wakes, and none before its time.
fn order() {
    let start = now(libc::CLOCK_MONOTONIC) + 10_000_000;
    let on_time = std::thread::scope(|scope| {
        let sleepers = [4u64, 1, 3, 0, 2].map(|number| {
            scope.spawn(move || {
                let at = start + number * 5_000_000;
                let time = Time {
                    tv_sec: (at / 1_000_000_000) as i64,
                    tv_nsec: (at % 1_000_000_000) as i64,
                };
                let monotonic = libc::CLOCK_MONOTONIC;
                let result = sys!(SYS_clock_nanosleep, monotonic, libc::TIMER_ABSTIME, &time, 0);
                result == Ok(0) && now(monotonic) >= at
            })
        });
        sleepers.map(|sleeper| sleeper.join().unwrap())
    });
    say!("{on_time:?}");
}

fn absolute() {
    let past = Time { tv_sec: 0, tv_nsec: 1 };
    for clock in [libc::CLOCK_MONOTONIC, libc::CLOCK_REALTIME] {
        let result = sys!(SYS_clock_nanosleep, clock, libc::TIMER_ABSTIME, &past, 0);
        say!("in the past: {}", value(result));
        let at = now(clock) + 3_000_000;
        let time =
            Time { tv_sec: (at / 1_000_000_000) as i64, tv_nsec: (at % 1_000_000_000) as i64 };
        let result = sys!(SYS_clock_nanosleep, clock, libc::TIMER_ABSTIME, &time, 0);
        say!("soon: {}, not early: {}", value(result), now(clock) >= at);
    }
}

fn pester(number: i32) -> i32 {
    let parent = id();
    spawn(move || {
        loop {
            pause_ms(10);
            let _ = kill(parent, number);
        }
    })
}

fn silence(child: i32) {
    kill(child, libc::SIGKILL).unwrap();
    wait(child);
    signal::take();
}

/// A sleep that a handler interrupts tells what is left; an absolute one does not.
fn interrupted() {
    signal::recorded(libc::SIGUSR1, libc::SA_RESTART);
    let child = pester(libc::SIGUSR1);
    let long = Time { tv_sec: 500, tv_nsec: 0 };
    let mut left = Time { tv_sec: 7, tv_nsec: 7 };
    let result = sys!(SYS_clock_nanosleep, libc::CLOCK_MONOTONIC, 0, &long, &mut left);
    say!("relative: {} left: {}", value(result), (400..=500).contains(&left.tv_sec));
    let mut left = Time { tv_sec: 7, tv_nsec: 7 };
    let far = Time { tv_sec: 1 << 40, tv_nsec: 0 };
    let result =
        sys!(SYS_clock_nanosleep, libc::CLOCK_MONOTONIC, libc::TIMER_ABSTIME, &far, &mut left);
    say!("absolute: {} untouched: {}", value(result), left.tv_sec == 7);
    let result = sys!(SYS_nanosleep, &long, 16u64);
    say!("left to nowhere: {}", value(result));
    silence(child);
    signal::dispose(libc::SIGUSR1, libc::SIG_DFL);
}

/// Stopped and continued without a handler, sleeps and waits go on by themselves.
fn restarted() {
    let child = spawn(|| {
        let start = Instant::now();
        let result = sys!(SYS_nanosleep, &Time { tv_sec: 0, tv_nsec: 60_000_000 }, 0);
        check!(start.elapsed().as_millis() >= 60, "woke early");
        say!("nanosleep: {}", value(result));
        let start = Instant::now();
        let mut none = [0u8; 0];
        let result = sys!(SYS_poll, none.as_mut_ptr(), 0, 60);
        check!(start.elapsed().as_millis() >= 60, "woke early");
        say!("poll: {}", value(result));
        0
    });
    for _ in 0..6 {
        pause_ms(8);
        let _ = kill(child, libc::SIGSTOP);
        pause_ms(2);
        let _ = kill(child, libc::SIGCONT);
    }
    say!("{}", wait(child));
}

fn alarm() {
    let status = ending(|| {
        say!("none before: {}", value(sys!(SYS_alarm, 100)));
        let left = sys!(SYS_alarm, 1).unwrap();
        say!("seconds left: {}", (99..=100).contains(&left));
        pause_ms(1_000_000);
        0
    });
    say!("{status}");
    signal::recorded(libc::SIGALRM, 0);
    sys!(SYS_alarm, 1).unwrap();
    say!("cancelled: {}", value(sys!(SYS_alarm, 0)));
    say!("again: {}", value(sys!(SYS_alarm, 0)));
    check!(signal::count() == 0, "a cancelled alarm rang");
    signal::dispose(libc::SIGALRM, libc::SIG_DFL);
}

/// `[interval seconds, microseconds, value seconds, microseconds]`
type Interval = [i64; 4];

fn interval() {
    signal::recorded(libc::SIGALRM, libc::SA_RESTART);
    let every: Interval = [0, 5_000, 0, 3_000];
    let mut old: Interval = [9; 4];
    say!("{} before {old:?}", value(sys!(SYS_setitimer, libc::ITIMER_REAL, &every, &mut old)));
    wait_until(|| signal::count() >= 5);
    let mut current: Interval = [9; 4];
    sys!(SYS_getitimer, libc::ITIMER_REAL, &mut current).unwrap();
    say!("interval {:?}", &current[..2]);
    check!(current[2] == 0 && current[3] <= 5_000, "{current:?}");
    let off: Interval = [0; 4];
    sys!(SYS_setitimer, libc::ITIMER_REAL, &off, &mut old).unwrap();
    sys!(SYS_getitimer, libc::ITIMER_REAL, &mut current).unwrap();
    say!("off {current:?}");
    let seen = signal::take();
    say!("code {}", seen[0].code);
    // Once only.
    let once: Interval = [0, 0, 0, 2_000];
    sys!(SYS_setitimer, libc::ITIMER_REAL, &once, 0).unwrap();
    wait_until(|| signal::count() == 1);
    pause_ms(10);
    say!("{} time", signal::take().len());
    // An interval without a value is none.
    sys!(SYS_setitimer, libc::ITIMER_REAL, &[5i64, 0, 0, 0], 0).unwrap();
    sys!(SYS_getitimer, libc::ITIMER_REAL, &mut current).unwrap();
    say!("not set {current:?}");
    let bad: Interval = [0, 0, 0, 1_000_000];
    say!("microseconds: {}", value(sys!(SYS_setitimer, libc::ITIMER_REAL, &bad, 0)));
    say!("negative: {}", value(sys!(SYS_setitimer, libc::ITIMER_REAL, &[0i64, 0, -1, 0], 0)));
    say!("unknown: {}", value(sys!(SYS_setitimer, 5, &once, 0)));
    say!("nowhere: {}", value(sys!(SYS_setitimer, libc::ITIMER_REAL, 16u64, 0)));
    signal::dispose(libc::SIGALRM, libc::SIG_DFL);
}

/// Interval timers are not inherited by fork, but kept by exec; this shows the first.
fn inherited() {
    let long: Interval = [0, 0, 100, 0];
    sys!(SYS_setitimer, libc::ITIMER_REAL, &long, 0).unwrap();
    let status = ending(|| {
        let mut current: Interval = [9; 4];
        sys!(SYS_getitimer, libc::ITIMER_REAL, &mut current).unwrap();
        say!("the child's: {current:?}");
        0
    });
    say!("{status}, the parent's still runs: {}", sys!(SYS_alarm, 0) != Ok(0));
}

/// The timer of a process that has ended, and is not waited for yet: nobody hears of it.
fn zombie() {
    let child = spawn(|| {
        let every = [0i64, 1_000, 0, 1_000];
        signal::dispose(libc::SIGALRM, libc::SIG_IGN);
        sys!(SYS_setitimer, libc::ITIMER_REAL, &every, 0).unwrap();
        0
    });
    pause_ms(200);
    say!("{}", wait(child));
}

fn errors() {
    let sleep = |seconds: i64, nanoseconds: i64| {
        value(sys!(SYS_nanosleep, &Time { tv_sec: seconds, tv_nsec: nanoseconds }, 0))
    };
    say!("too many ns: {}", sleep(0, 1_000_000_000));
    say!("negative ns: {}", sleep(0, -1));
    say!("negative: {}", sleep(-1, 0));
    say!("nowhere: {}", value(sys!(SYS_nanosleep, 16u64, 0)));
    let time = Time { tv_sec: 0, tv_nsec: 0 };
    say!("unknown clock: {}", value(sys!(SYS_clock_nanosleep, 99, 0, &time, 0)));
    say!(
        "thread clock: {}",
        value(sys!(SYS_clock_nanosleep, libc::CLOCK_THREAD_CPUTIME_ID, 0, &time, 0))
    );
}

/// The C library's clock, which does not enter the kernel, and the kernel's agree.
fn vdso() {
    // SAFETY: looks at the auxiliary vector only.
    let base = unsafe { libc::getauxval(libc::AT_SYSINFO_EHDR) };
    say!("there is one: {}", base != 0);
    for clock in [
        libc::CLOCK_MONOTONIC,
        libc::CLOCK_REALTIME,
        libc::CLOCK_BOOTTIME,
        libc::CLOCK_MONOTONIC_COARSE,
    ] {
        for _ in 0..200 {
            let before = now(clock);
            let mut time = Time { tv_sec: 0, tv_nsec: 0 };
            // SAFETY: writes to `time`.
            let result = unsafe { libc::clock_gettime(clock, &mut time) };
            let after = now(clock);
            let between = time.tv_sec as u64 * 1_000_000_000 + time.tv_nsec as u64;
            check!(
                result == 0 && before <= between && between <= after,
                "clock {clock}: {before} {between} {after}"
            );
        }
    }
    let mut cpu = u32::MAX;
    sys!(SYS_getcpu, &mut cpu, 0, 0).unwrap();
    // SAFETY: asks for a number.
    let quick = unsafe { libc::sched_getcpu() };
    // Another CPU in between is fine, one that does not exist is not.
    say!("CPUs: {} {}", cpu < 256, (0..256).contains(&quick));
}
