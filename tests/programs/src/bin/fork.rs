//! Families: what a child inherits, how its end is told, trees of processes, and waiting for the right one.

use programs::process::{
    Baton, Status, close, ending, exit_now, id, pipe, read, spawn, try_wait, wait, write,
};
use programs::signal;
use programs::{check, memory, say, sys, sys::value};

fn main() {
    programs::main(&[
        ("statuses", statuses),
        ("ids", ids),
        ("memory", memory_is_copied),
        ("files", files_are_shared),
        ("masks", masks),
        ("tree", tree),
        ("order", order),
        ("any", any),
        ("nohang", nohang),
        ("errors", errors),
        ("groups", groups),
        ("grandchild", grandchild),
        ("ignored-sigchld", ignored_sigchld),
        ("usage", usage),
        ("thread-forks", thread_forks),
        ("generations", generations),
    ]);
}

fn statuses() {
    for status in [0, 1, 2, 3, 42, 126, 127, 128, 200, 255, 256, 257, -1] {
        say!("exit({status}) is {}", ending(|| exit_now(status)));
    }
    for number in [libc::SIGTERM, libc::SIGKILL, libc::SIGSEGV, libc::SIGABRT, libc::SIGUSR1, 64] {
        let status = ending(|| {
            let _ = signal::kill(id(), number);
            0
        });
        say!("{status}");
    }
    say!("abort is {}", ending(|| std::process::abort()));
}

fn ids() {
    let parent = id();
    let status = ending(|| {
        let ppid = sys!(SYS_getppid).unwrap() as i32;
        check!(ppid == parent, "my parent is {ppid}, not {parent}");
        check!(id() != parent, "the child has its parent's number");
        let tid = sys!(SYS_gettid).unwrap() as i32;
        check!(tid == id(), "thread {tid} leads process {}", id());
        let group = sys!(SYS_getpgid, 0).unwrap();
        check!(group == sys!(SYS_getpgid, parent).unwrap(), "another process group");
        check!(sys!(SYS_getsid, 0) == sys!(SYS_getsid, parent), "another session");
        0
    });
    say!("{status}");
}

static mut INITIALISED: [u64; 512] = [11; 512];

/// Data, heap, stack and anonymous memory are private on both sides.
fn memory_is_copied() {
    let data = (&raw mut INITIALISED).cast::<u8>();
    let mut stack = [1u8; 4096];
    let mut heap = vec![2u8; 100_000];
    let mapped = memory::pages(64);
    for number in 0..64 {
        memory::poke(memory::page(mapped, number), number as u8);
    }
    let baton = Baton::new();
    let child = spawn(|| {
        memory::poke(data, 99);
        stack.fill(98);
        heap.fill(97);
        for number in 0..64 {
            memory::poke(memory::page(mapped, number), 96);
        }
        baton.await_pass();
        let sum: u64 = stack.iter().chain(&heap).map(|&byte| u64::from(byte)).sum();
        say!("child {} {sum} {}", memory::peek(data), memory::peek(memory::page(mapped, 63)));
        0
    });
    for number in 0..64 {
        let page = memory::page(mapped, number);
        check!(memory::peek(page) == number as u8, "page {number} is {}", memory::peek(page));
        memory::poke(page, 55);
    }
    std::hint::black_box(&mut stack);
    baton.pass();
    say!("{}", wait(child));
    let sum: u64 = stack.iter().chain(&heap).map(|&byte| u64::from(byte)).sum();
    say!("parent {} {sum} {}", memory::peek(data), memory::peek(memory::page(mapped, 63)));
    memory::unmap(mapped, 64 * memory::PAGE);
}

/// Descriptors are copied, the files behind them with their offsets are not.
fn files_are_shared() {
    let (input, output) = pipe(0);
    let child = spawn(|| {
        let first = read(input, 3).unwrap();
        close(input);
        check!(write(output, b"child") == Ok(5), "the child's write");
        say!("child read {:?}", String::from_utf8_lossy(&first));
        0
    });
    check!(write(output, b"parent") == Ok(6), "the parent's write");
    say!("{}", wait(child));
    let rest = read(input, 100).unwrap();
    say!("left: {:?}", String::from_utf8_lossy(&rest));
    close(input);
    close(output);
}

/// Mask and handlers are inherited, pending signals are not.
fn masks() {
    signal::recorded(libc::SIGUSR1, 0);
    signal::dispose(libc::SIGUSR2, libc::SIG_IGN);
    let both = signal::set(&[libc::SIGUSR1, libc::SIGHUP]);
    let old = signal::mask(libc::SIG_SETMASK, both);
    signal::raise(libc::SIGUSR1).unwrap();
    say!("parent pending {}", signal::names(signal::pending()));
    let status = ending(|| {
        say!("child pending {}", signal::names(signal::pending()));
        say!("child masked {}", signal::names(signal::mask(libc::SIG_SETMASK, 0)));
        signal::raise(libc::SIGUSR2).unwrap();
        signal::raise(libc::SIGUSR1).unwrap();
        say!("child got {}", signal::taken_names());
        0
    });
    say!("{status}");
    signal::mask(libc::SIG_SETMASK, old);
    say!("parent got {}", signal::taken_names());
    signal::dispose(libc::SIGUSR1, libc::SIG_DFL);
    signal::dispose(libc::SIGUSR2, libc::SIG_DFL);
}

fn grow(depth: i32, width: i32) -> i32 {
    if depth == 0 {
        return 1;
    }
    let children: Vec<i32> = (0..width).map(|_| spawn(|| grow(depth - 1, width))).collect();
    children.into_iter().map(|child| libc::WEXITSTATUS(wait(child).0)).sum::<i32>() + 1
}

/// Every process counts those below it.
fn tree() {
    say!("chain of {}", grow(12, 1));
    say!("binary tree of {}", grow(5, 2));
    say!("broad tree of {}", grow(2, 6));
}

/// Children are waited for by number, in another order than they end in.
fn order() {
    let children: Vec<i32> = (0..10).map(|n| spawn(move || 10 + n)).collect();
    let statuses: Vec<String> =
        children.into_iter().rev().map(|child| wait(child).to_string()).collect();
    say!("{}", statuses.join(", "));
}

fn any() {
    let mut children: Vec<i32> = (0..10).map(|n| spawn(move || n)).collect();
    let mut sum = 0;
    while let Ok((pid, status)) = try_wait(-1, 0) {
        let known = children.iter().position(|&child| child == pid);
        check!(known.is_some(), "a child that was never born");
        children.remove(known.unwrap());
        sum += libc::WEXITSTATUS(status.0);
    }
    say!("{} left, sum {sum}", children.len());
}

fn nohang() {
    let baton = Baton::new();
    let child = spawn(|| {
        baton.await_pass();
        5
    });
    let nothing = try_wait(child, libc::WNOHANG).map(|(pid, _)| pid);
    say!("while it runs: {nothing:?}");
    baton.pass();
    say!("{}", wait(child));
    say!("after: {:?}", try_wait(child, libc::WNOHANG).map(|(pid, _)| pid));
}

fn errors() {
    let mut status = 0;
    say!("no child: {}", value(sys!(SYS_wait4, -1, &mut status, 0, 0)));
    say!("not a child: {}", value(sys!(SYS_wait4, 1 << 30, &mut status, 0, 0)));
    say!("myself: {}", value(sys!(SYS_wait4, id(), &mut status, 0, 0)));
    say!("bad options: {}", value(sys!(SYS_wait4, -1, &mut status, 0x10, 0)));
    say!("lowest number: {}", value(sys!(SYS_wait4, i32::MIN, &mut status, 0, 0)));
    let child = spawn(|| 3);
    let result = sys!(SYS_wait4, child, 8u64, 0, 0);
    say!("bad status pointer: {}, then {:?}", value(result), try_wait(child, 0).map(|_| ()));
    let child = spawn(|| 3);
    say!(
        "no status wanted: {}",
        value(sys!(SYS_wait4, child, 0, 0, 0).map(|pid| u64::from(pid as i32 == child)))
    );
}

/// wait4 by process group.
fn groups() {
    let baton = Baton::new();
    let first = spawn(|| {
        sys!(SYS_setpgid, 0, 0).unwrap();
        baton.await_pass();
        21
    });
    // Both sides set it, as shells do: whoever comes first.
    let _ = sys!(SYS_setpgid, first, first);
    let second = spawn(|| 22);
    let own = wait_group(0);
    say!("own group: {}", own.is_ok());
    check!(own.is_ok_and(|pid| pid == second), "the wrong child");
    baton.pass();
    let other = wait_group(-first);
    check!(other.is_ok_and(|pid| pid == first), "the wrong child");
    say!("group of one: {}", other.is_ok());
    say!("empty group: {:?}", wait_group(-first).err());
    say!("setpgid of a stranger: {}", value(sys!(SYS_setpgid, 1 << 30, 0)));
    say!("setpgid negative: {}", value(sys!(SYS_setpgid, 0, -1)));
}

fn wait_group(pid: i32) -> Result<i32, sys::Errno> {
    try_wait(pid, 0).map(|(pid, _)| pid)
}

/// A grandchild is nobody's to wait for but its parent's.
fn grandchild() {
    let (input, output) = pipe(0);
    let child = spawn(|| {
        let inner = spawn(|| 7);
        check!(write(output, &inner.to_le_bytes()) == Ok(4), "write");
        let status = wait(inner);
        say!("{status}");
        0
    });
    let inner = i32::from_le_bytes(read(input, 4).unwrap().try_into().unwrap());
    let error = try_wait(inner, 0).err();
    say!("{}", wait(child));
    say!("{error:?}");
    close(input);
    close(output);
}

/// With SIGCHLD ignored children leave no zombies, and a wait ends when the last is gone.
fn ignored_sigchld() {
    signal::dispose(libc::SIGCHLD, libc::SIG_IGN);
    for _ in 0..5 {
        spawn(|| 9);
    }
    say!("{:?}", try_wait(-1, 0).err());
    signal::dispose(libc::SIGCHLD, libc::SIG_DFL);
    say!("{}", ending(|| 9));
}

fn usage() {
    let mut usage = std::mem::MaybeUninit::<libc::rusage>::zeroed();
    let child = spawn(|| {
        let mut sum = 0u64;
        for n in 0..3_000_000u64 {
            sum = std::hint::black_box(sum.wrapping_add(n * n));
        }
        i32::from(sum == 1)
    });
    let mut status = 0;
    let pid = sys!(SYS_wait4, child, &mut status, 0, usage.as_mut_ptr());
    // SAFETY: all zeroes is an rusage.
    let usage = unsafe { usage.assume_init() };
    let time = usage.ru_utime.tv_sec * 1_000_000
        + usage.ru_utime.tv_usec
        + usage.ru_stime.tv_sec * 1_000_000
        + usage.ru_stime.tv_usec;
    check!(time > 0, "the child used no time");
    say!("{} {}", pid.is_ok(), Status(status));
}

/// Only the thread that forks lives on in the child.
fn thread_forks() {
    let stop = std::sync::atomic::AtomicBool::new(false);
    std::thread::scope(|scope| {
        let forker = scope.spawn(|| {
            let status = ending(|| {
                let tid = sys!(SYS_gettid).unwrap() as i32;
                check!(tid == id(), "thread {tid} is not the leader of {}", id());
                23
            });
            status.to_string()
        });
        let worker = scope.spawn(|| {
            while !stop.load(std::sync::atomic::Ordering::Relaxed) {
                std::thread::yield_now();
            }
        });
        say!("{}", forker.join().unwrap());
        stop.store(true, std::sync::atomic::Ordering::Relaxed);
        worker.join().unwrap();
    });
}

/// A long line of processes, each the child of the one before, all alive at once.
fn generations() {
    fn next(depth: i32) -> i32 {
        if depth == 0 {
            return 0;
        }
        let value = Box::new(depth);
        let status = ending(|| next(depth - 1));
        check!(*value == depth, "memory of generation {depth} changed");
        i32::from(!status.exited_with(0))
    }
    say!("{}", next(40));
}
