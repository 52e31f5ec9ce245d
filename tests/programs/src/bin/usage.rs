//! What processes use: run time in ring 3 and in the kernel, memory, faults, switches; timers and limits that count it.
//! Only what must hold on any machine is shown.

use std::time::{Duration, Instant};

use programs::process::{ending, pause_ms, spawn, try_wait, wait};
use programs::signal::{self, recorded};
use programs::sys::value;
use programs::{check, memory, say, sys};

fn main() {
    programs::main(&[
        ("in-ring-3", in_ring_3),
        ("in-the-kernel", in_the_kernel),
        ("never-back", never_back),
        ("of-children", of_children),
        ("of-threads", of_threads),
        ("memory", resident_memory),
        ("faults", faults),
        ("switches", switches),
        ("in-proc", in_proc),
        ("virtual", virtual_timer),
        ("profiling", profiling_timer),
        ("interval", interval),
        ("inherited", inherited),
        ("soft-limit", soft_limit),
        ("hard-limit", hard_limit),
    ]);
}

/// Microseconds in ring 3 and in the kernel.
#[derive(Clone, Copy, Debug)]
struct Time {
    user: i64,
    system: i64,
}

fn rusage(who: i32) -> libc::rusage {
    // SAFETY: all zeroes is an rusage.
    let mut usage: libc::rusage = unsafe { std::mem::zeroed() };
    sys!(SYS_getrusage, who, &mut usage).unwrap();
    usage
}

fn time_of(usage: &libc::rusage) -> Time {
    let micros = |time: libc::timeval| time.tv_sec * 1_000_000 + time.tv_usec;
    Time { user: micros(usage.ru_utime), system: micros(usage.ru_stime) }
}

fn time(who: i32) -> Time {
    time_of(&rusage(who))
}

fn used(who: i32, work: impl FnOnce()) -> Time {
    let before = time(who);
    work();
    let after = time(who);
    Time { user: after.user - before.user, system: after.system - before.system }
}

/// Run time of this thread.
fn ran() -> Duration {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    sys!(SYS_clock_gettime, libc::CLOCK_THREAD_CPUTIME_ID, &mut time).unwrap();
    Duration::new(time.tv_sec as u64, time.tv_nsec as u32)
}

/// Computes until this thread has run for so long.
fn compute(milliseconds: u64) {
    let end = ran() + Duration::from_millis(milliseconds);
    let mut sum = 0u64;
    while ran() < end {
        for n in 0..100_000u64 {
            sum = std::hint::black_box(sum ^ n);
        }
    }
}

/// Is in the kernel most of the time, until this thread has run for so long.
fn call(milliseconds: u64) {
    let zero = std::fs::File::open("/dev/zero").unwrap();
    let mut bytes = vec![0u8; 1 << 20];
    let end = ran() + Duration::from_millis(milliseconds);
    while ran() < end {
        std::io::Read::read_exact(&mut &zero, &mut bytes).unwrap();
    }
}

fn in_ring_3() {
    let spent = used(libc::RUSAGE_SELF, || compute(300));
    check!(spent.user + spent.system >= 290_000, "{spent:?}");
    say!("mostly there: {}", spent.user > 2 * spent.system);
}

fn in_the_kernel() {
    let spent = used(libc::RUSAGE_SELF, || call(300));
    check!(spent.user + spent.system >= 290_000, "{spent:?}");
    say!("mostly there: {}", spent.system > 2 * spent.user);
    let thread = time(libc::RUSAGE_THREAD);
    check!(thread.system > 0, "{thread:?}");
    let mut times = [0i64; 4];
    sys!(SYS_times, &mut times).unwrap();
    // Hundredths of a second.
    check!(times[1] >= 10, "{times:?}");
}

/// Neither part goes back, however the work changes.
fn never_back() {
    let mut last = time(libc::RUSAGE_SELF);
    for round in 0..60 {
        if round % 2 == 0 {
            compute(3)
        } else {
            call(3)
        }
        let now = time(libc::RUSAGE_SELF);
        check!(now.user >= last.user && now.system >= last.system, "{last:?}, then {now:?}");
        last = now;
    }
    say!("never");
}

/// Children count when they were waited for, with theirs.
fn of_children() {
    let child = || {
        wait(spawn(|| {
            call(60);
            0
        }));
        compute(60);
        0
    };
    let nobody = used(libc::RUSAGE_CHILDREN, || compute(5));
    say!("before: {} {}", nobody.user, nobody.system);
    let spent = used(libc::RUSAGE_CHILDREN, || {
        wait(spawn(child));
    });
    check!(spent.user + spent.system >= 115_000, "{spent:?}");
    // SAFETY: all zeroes is an rusage.
    let mut usage: libc::rusage = unsafe { std::mem::zeroed() };
    let pid = spawn(child);
    let mut status = 0;
    say!("waited for: {}", sys!(SYS_wait4, pid, &mut status, 0, &mut usage) == Ok(pid as u64));
    let told = time_of(&usage);
    check!(told.user + told.system >= 115_000, "{told:?}");
    let mut times = [0i64; 4];
    sys!(SYS_times, &mut times).unwrap();
    check!(times[2] + times[3] >= 20, "{times:?}");
}

/// Threads count while they run and when they have gone; a thread's own usage is its own.
fn of_threads() {
    let spent = used(libc::RUSAGE_SELF, || {
        let threads: Vec<_> = (0..3)
            .map(|_| {
                std::thread::spawn(|| {
                    let own = used(libc::RUSAGE_THREAD, || compute(40));
                    check!(own.user + own.system >= 38_000, "{own:?}");
                })
            })
            .collect();
        threads.into_iter().for_each(|thread| thread.join().unwrap());
    });
    check!(spent.user + spent.system >= 115_000, "{spent:?}");
    let own = used(libc::RUSAGE_THREAD, || std::thread::spawn(|| compute(40)).join().unwrap());
    say!("not the other's: {}", own.user + own.system < 40_000);
}

/// The most memory that there was is remembered.
fn resident_memory() {
    const PAGES: usize = 4096;
    let before = rusage(libc::RUSAGE_SELF).ru_maxrss;
    let base = memory::pages(PAGES);
    for number in 0..PAGES {
        memory::poke(memory::page(base, number), 1);
    }
    memory::unmap(base, PAGES * 4096);
    let most = rusage(libc::RUSAGE_SELF).ru_maxrss;
    // Linux counts in batches for each thread.
    check!(most - before >= 12 << 10, "{before} KiB, then {most}");
    wait(spawn(|| {
        let base = memory::pages(2 * PAGES);
        for number in 0..2 * PAGES {
            memory::poke(memory::page(base, number), 1);
        }
        0
    }));
    let children = rusage(libc::RUSAGE_CHILDREN).ru_maxrss;
    check!(children >= 24 << 10, "{children} KiB");
    say!("remembered");
}

fn faults() {
    const PAGES: usize = 100;
    let before = rusage(libc::RUSAGE_SELF);
    let base = memory::pages(PAGES);
    for number in 0..PAGES {
        memory::poke(memory::page(base, number), 1);
    }
    let after = rusage(libc::RUSAGE_SELF);
    let (minor, major) = (after.ru_minflt - before.ru_minflt, after.ru_majflt - before.ru_majflt);
    check!(minor >= PAGES as i64, "{minor} faults");
    say!("major: {major}");
    memory::unmap(base, PAGES * 4096);
    let children = rusage(libc::RUSAGE_CHILDREN).ru_minflt;
    wait(spawn(|| 0));
    check!(rusage(libc::RUSAGE_CHILDREN).ru_minflt > children, "a child without faults");
}

fn switches() {
    let before = rusage(libc::RUSAGE_SELF).ru_nvcsw;
    for _ in 0..10 {
        pause_ms(1);
    }
    std::thread::spawn(|| {
        for _ in 0..10 {
            pause_ms(1);
        }
    })
    .join()
    .unwrap();
    let after = rusage(libc::RUSAGE_SELF).ru_nvcsw;
    say!("one for each sleep: {}", after - before >= 20);
}

/// Fields 14 to 17 of `/proc/self/stat`, in hundredths of a second.
fn in_proc() {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap();
    let fields: Vec<&str> = stat[stat.rfind(')').unwrap()..].split_whitespace().collect();
    let field = |number: usize| fields[number - 2].parse::<i64>().unwrap();
    check!(field(10) > 0, "no faults: {stat}");
    for (number, name) in [(14, "utime"), (15, "stime"), (16, "cutime"), (17, "cstime")] {
        say!("{name}: {}", field(number) > 0);
    }
}

/// `[interval seconds, microseconds, value seconds, microseconds]`
type Interval = [i64; 4];

const OFF: Interval = [0; 4];

fn get(which: i32) -> Interval {
    let mut current = [9; 4];
    sys!(SYS_getitimer, which, &mut current).unwrap();
    current
}

/// Works, a millisecond at a time, until a signal was taken. Returns what was used.
fn until_signal(who: i32, mut work: impl FnMut()) -> Time {
    used(who, || {
        let start = Instant::now();
        while signal::count() == 0 {
            work();
            if start.elapsed() > Duration::from_secs(60) {
                say!("no signal came");
                programs::failed();
                return;
            }
        }
    })
}

/// `ITIMER_VIRTUAL` counts what this process does in ring 3, and nothing else.
fn virtual_timer() {
    recorded(libc::SIGVTALRM, libc::SA_RESTART);
    let mut old: Interval = [9; 4];
    let once: Interval = [0, 0, 0, 60_000];
    say!("{} before {old:?}", value(sys!(SYS_setitimer, libc::ITIMER_VIRTUAL, &once, &mut old)));
    pause_ms(100);
    wait(spawn(|| {
        compute(80);
        0
    }));
    check!(signal::count() == 0, "asleep, it expired");
    // A Linux that counts in ticks adds one.
    let left = get(libc::ITIMER_VIRTUAL);
    check!(left[2] == 0 && (1..=70_000).contains(&left[3]), "{left:?}");
    let spent = until_signal(libc::RUSAGE_SELF, || compute(1));
    check!(spent.user >= 30_000, "{spent:?}");
    say!("{}, then {:?}", signal::taken_names(), get(libc::ITIMER_VIRTUAL));
    signal::dispose(libc::SIGVTALRM, libc::SIG_DFL);
}

/// `ITIMER_PROF` counts the kernel's time as well.
fn profiling_timer() {
    recorded(libc::SIGPROF, libc::SA_RESTART);
    let once: Interval = [0, 0, 0, 60_000];
    say!("{}", value(sys!(SYS_setitimer, libc::ITIMER_PROF, &once, 0)));
    pause_ms(100);
    check!(signal::count() == 0, "asleep, it expired");
    let spent = until_signal(libc::RUSAGE_SELF, || call(1));
    check!(spent.user + spent.system >= 30_000, "{spent:?}");
    say!("{}, then {:?}", signal::taken_names(), get(libc::ITIMER_PROF));
    // All threads count.
    sys!(SYS_setitimer, libc::ITIMER_PROF, &once, 0).unwrap();
    std::thread::spawn(|| compute(100)).join().unwrap();
    until_signal(libc::RUSAGE_SELF, || compute(1));
    say!("of a thread: {}", signal::taken_names());
    signal::dispose(libc::SIGPROF, libc::SIG_DFL);
    say!(
        "default: {}",
        ending(|| {
            sys!(SYS_setitimer, libc::ITIMER_PROF, &once, 0).unwrap();
            compute(10_000);
            0
        })
    );
}

fn interval() {
    recorded(libc::SIGPROF, libc::SA_RESTART);
    let every: Interval = [0, 20_000, 0, 20_000];
    sys!(SYS_setitimer, libc::ITIMER_PROF, &every, 0).unwrap();
    let mut seen = 0;
    let spent = used(libc::RUSAGE_SELF, || {
        while seen < 5 {
            compute(1);
            seen += signal::take().len();
        }
    });
    check!(spent.user + spent.system >= 60_000, "{spent:?}");
    say!("interval {:?}", &get(libc::ITIMER_PROF)[..2]);
    let mut old: Interval = [9; 4];
    sys!(SYS_setitimer, libc::ITIMER_PROF, &OFF, &mut old).unwrap();
    say!("was {:?}, is {:?}", &old[..2], get(libc::ITIMER_PROF));
    signal::take();
    compute(60);
    say!("off: {}", signal::count());
    let bad: Interval = [0, 0, 0, 1_000_000];
    say!("microseconds: {}", value(sys!(SYS_setitimer, libc::ITIMER_PROF, &bad, 0)));
    say!("nowhere: {}", value(sys!(SYS_setitimer, libc::ITIMER_VIRTUAL, 16u64, 0)));
    say!("to nowhere: {}", value(sys!(SYS_getitimer, libc::ITIMER_VIRTUAL, 16u64)));
    signal::dispose(libc::SIGPROF, libc::SIG_DFL);
}

/// By fork they are not.
fn inherited() {
    let long: Interval = [0, 0, 100, 0];
    sys!(SYS_setitimer, libc::ITIMER_PROF, &long, 0).unwrap();
    let status = ending(|| {
        say!("the child's: {:?}", get(libc::ITIMER_PROF));
        0
    });
    say!("{status}, the parent's still counts: {}", get(libc::ITIMER_PROF)[2] > 90);
    sys!(SYS_setitimer, libc::ITIMER_PROF, &OFF, 0).unwrap();
}

fn limit(soft: u64, hard: u64) {
    sys!(SYS_setrlimit, libc::RLIMIT_CPU, &[soft, hard]).unwrap();
}

/// SIGXCPU at the soft limit, and again each second. Limits are inherited.
fn soft_limit() {
    let status = ending(|| {
        recorded(libc::SIGXCPU, libc::SA_RESTART);
        limit(1, 60);
        let grandchild = ending(|| {
            until_signal(libc::RUSAGE_SELF, || compute(10));
            say!("{}", signal::taken_names());
            signal::dispose(libc::SIGXCPU, libc::SIG_DFL);
            compute(10_000);
            0
        });
        say!("{grandchild}");
        0
    });
    say!("{status}");
}

/// SIGKILL at the hard one.
fn hard_limit() {
    let child = spawn(|| {
        signal::dispose(libc::SIGXCPU, libc::SIG_IGN);
        limit(0, 1);
        compute(10_000);
        0
    });
    say!("{}", try_wait(child, 0).unwrap().1);
    let at_once = ending(|| {
        limit(0, 0);
        compute(10_000);
        0
    });
    say!("without any time: {at_once}");
}
