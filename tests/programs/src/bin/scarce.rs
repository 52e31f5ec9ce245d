//! Calls that want much of the kernel's memory at once, while little is left: they fail, or need it not, and the
//! kernel goes on.
//!
//! For a guest of little memory: most of it is taken.

use std::fs::File;
use std::os::fd::AsRawFd;

use programs::memory::{PAGE, PRIVATE, map, page, pages, poke, unmap};
use programs::process::{ending, id};
use programs::sys::{Errno, outcome};
use programs::{check, say, status, sys};

/// Left free while a case makes its call: more than the kernel keeps for itself, and not enough for the call.
const LEFT_KIB: u64 = 2_500;

fn main() {
    if std::env::args().nth(1).is_some_and(|arg| arg == "@ends") {
        std::process::exit(7);
    }
    // In this order: what the kernel's heap has had, it keeps, and what comes next finds it there.
    programs::main(&[("exec", exec_much), ("unmap", unmap_many)]);
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
