//! Calls that want much of the kernel's memory at once, while little is left: they fail, or need it not, and the
//! kernel goes on.
//!
//! For a guest of little memory: most of it is taken.

use std::fs::File;
use std::os::fd::AsRawFd;

use programs::memory::{PAGE, PRIVATE, map, page, pages, poke, unmap};
use programs::process::{Status, close, ending, id, pause_ms, pipe, read, spawn, wait};
use programs::sys::{Errno, outcome};
use programs::{check, say, status, sys};

/// Left free while a case makes its call: more than the kernel keeps for itself, and not enough for the call.
const LEFT_KIB: u64 = 2_500;

fn main() {
    if std::env::args().nth(1).is_some_and(|arg| arg == "@ends") {
        std::process::exit(7);
    }
    // In this order: what the kernel's heap has had, it keeps, and what comes next finds it there.
    programs::main(&[("exec", exec_much), ("unmap", unmap_many), ("small", take_small_things)]);
}

fn free_kib() -> u64 {
    let mut info = [0u64; 14];
    sys!(SYS_sysinfo, &mut info).expect("sysinfo");
    info[5] / 1024
}

/// Takes memory until little is left.
fn leave_little() {
    while free_kib() > LEFT_KIB {
        let base = pages(16);
        (0..16).for_each(|number| poke(page(base, number), 1));
    }
}

/// As many arguments as a program may have.
fn exec_much() {
    let long = vec![b'x'; 120 << 10];
    let long = std::ffi::CString::new(long).unwrap();
    let mut arguments = vec![c"scarce".as_ptr(), c"@ends".as_ptr()];
    arguments.extend([long.as_ptr(); 16]);
    arguments.push(std::ptr::null());
    let execute = || {
        let environment = [std::ptr::null::<libc::c_char>()];
        sys!(SYS_execve, c"/proc/self/exe".as_ptr(), arguments.as_ptr(), environment.as_ptr())
    };
    let with_little = ending(|| {
        leave_little();
        let me = id();
        let result = execute();
        check!(result == Err(Errno(libc::ENOMEM)), "{}", outcome(result));
        check!(me == id(), "another process");
        status()
    });
    check!(with_little.exited_with(0), "{with_little}");
    let with_enough = ending(|| {
        say!("with enough: {}", outcome(execute()));
        1
    });
    check!(with_enough.exited_with(7), "{with_enough}");
    say!("with little: {with_little}, with enough: {with_enough}");
}

/// Files' areas, each of a page and none like its neighbours, that are unmapped at once.
fn unmap_many() {
    const AREAS: usize = 24_000;
    let file = File::open("/proc/self/exe").unwrap();
    let result = ending(|| {
        let base = map(AREAS * PAGE, libc::PROT_NONE, PRIVATE).unwrap();
        for number in 0..AREAS {
            let flags = libc::MAP_PRIVATE | libc::MAP_FIXED;
            let (at, fd) = (page(base, number), file.as_raw_fd());
            sys!(SYS_mmap, at, PAGE, libc::PROT_READ, flags, fd, 0).expect("mmap of a file");
        }
        leave_little();
        unmap(base, AREAS * PAGE);
        status()
    });
    check!(result.exited_with(0), "{result}");
    say!("unmapped: {result}");
}

/// Processes that each take as much as they can of what is small, one thing after the other.
const TAKERS: i32 = 200;
/// A little more than the kernel keeps for itself.
const NOTHING_LEFT_KIB: u64 = 1_100;

/// Many small things, when nothing is left but what the kernel keeps for itself.
fn take_small_things() {
    let (input, output) = pipe(0);
    let takers: Vec<i32> = (0..TAKERS)
        .map(|number| {
            spawn(|| {
                close(output);
                let _ = read(input, 1);
                match number % 3 {
                    0 => queue_signals(),
                    1 => while sys!(SYS_eventfd2, 0, 0).is_ok() {},
                    _ => while sys!(SYS_dup, input).is_ok() {},
                }
                // What needs memory of the kernel's own.
                let _ = sys!(SYS_open, c"/none".as_ptr(), libc::O_RDWR | libc::O_CREAT, 0o600);
                let ignore = [libc::SIG_IGN as u64, 0x0400_0000, 0, 0];
                let _ = sys!(SYS_rt_sigaction, libc::SIGUSR1, &ignore, 0, 8);
                pause_ms(100);
                0
            })
        })
        .collect();
    let filler = spawn(|| {
        while free_kib() > NOTHING_LEFT_KIB {
            poke(pages(1), 1);
        }
        close(output);
        pause_ms(2_000);
        0
    });
    close(output);
    let ends: Vec<_> = takers.into_iter().map(wait).collect();
    // A page of its own may be what was not to be had.
    let as_expected = |end: &&Status| end.exited_with(0) || end.0 == libc::SIGKILL;
    let well = ends.iter().filter(as_expected).count();
    say!("{well} of {TAKERS} takers end as they should");
    wait(filler);
}

/// Queues signals for the process itself, that it blocks.
fn queue_signals() {
    let signal = libc::SIGRTMIN() + 1;
    let all = u64::MAX;
    sys!(SYS_rt_sigprocmask, libc::SIG_BLOCK, &all, 0, 8).unwrap();
    let mut info = [0i32; 32];
    (info[0], info[2]) = (signal, libc::SI_QUEUE);
    while sys!(SYS_rt_sigqueueinfo, id(), signal, &info).is_ok() {}
}
