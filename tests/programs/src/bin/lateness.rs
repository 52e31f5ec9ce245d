//! How late a real-time thread runs while another process keeps the kernel busy with something large.
//!
//! `lateness [CASE…]` prints `CASE NANOSECONDS` for each case: the most by which a thread of `SCHED_FIFO` missed its
//! time, a millisecond after the last, until the other process had ended. Under `--icount` a nanosecond is an
//! instruction, and the figures repeat. On Linux it wants to be root, for the policy.

use std::ffi::CStr;

use programs::memory::{PAGE, PRIVATE, RW, map, map_at, page, pages, poke, shared_pages, unmap};
use programs::process::{Status, close, ending, exit_now, pause_ms, spawn, try_wait};
use programs::{say, signal, sys};

/// A case's name and what the other process does.
type Case = (&'static str, fn());

const CASES: [Case; 18] = [
    ("exit", || _ = touched(PAGES)),
    ("munmap", || unmap(touched(PAGES), PAGES * PAGE)),
    ("madvise-dontneed", || {
        sys!(SYS_madvise, touched(PAGES), PAGES * PAGE, libc::MADV_DONTNEED).unwrap();
    }),
    ("munmap-areas", || unmap(many_areas(), 2 * AREAS * PAGE)),
    ("mprotect-areas", || protect(many_areas(), 2 * AREAS, libc::PROT_NONE)),
    ("exit-areas", || _ = many_areas()),
    ("mprotect", || protect(touched(PAGES), PAGES, libc::PROT_READ)),
    ("mprotect-shared-tables", || {
        let base = touched(PAGES);
        ending(|| {
            protect(base, PAGES, libc::PROT_READ);
            0
        });
    }),
    ("mremap", || move_to(touched(PAGES), reserved(PAGES))),
    ("mremap-by-pages", || move_to(touched(PAGES), page(reserved(PAGES + 1), 1))),
    ("munmap-shared", || {
        let base = shared_pages(PAGES);
        touch(base, PAGES);
        unmap(base, PAGES * PAGE);
    }),
    ("truncate", || {
        let fd = file(c"lateness-file");
        sys!(SYS_fallocate, fd, 0, 0, PAGES * PAGE).unwrap();
        sys!(SYS_ftruncate, fd, 0).unwrap();
    }),
    ("truncate-mapped", || {
        let fd = file(c"lateness-file");
        sys!(SYS_ftruncate, fd, PAGES * PAGE).unwrap();
        let base = sys!(SYS_mmap, 0, PAGES * PAGE, RW, libc::MAP_SHARED, fd, 0).unwrap();
        touch(base as *mut u8, PAGES);
        sys!(SYS_ftruncate, fd, PAGE).unwrap();
    }),
    ("write-and-read", || {
        let (fd, base) = (file(c"lateness-file"), touched(PAGES / 4));
        sys!(SYS_write, fd, base, PAGES / 4 * PAGE).unwrap();
        sys!(SYS_lseek, fd, 0, libc::SEEK_SET).unwrap();
        sys!(SYS_read, fd, base, PAGES / 4 * PAGE).unwrap();
    }),
    ("descriptors", || {
        let fd = file(c"lateness-file");
        while sys!(SYS_dup, fd).is_ok() {}
        ending(|| 0);
        sys!(SYS_close_range, 3, u32::MAX, 0).unwrap();
    }),
    ("directory", || {
        sys!(SYS_mkdir, c"lateness-directory".as_ptr(), 0o755).unwrap();
        sys!(SYS_chdir, c"lateness-directory".as_ptr()).unwrap();
        let name = |number: u32| std::ffi::CString::new(number.to_string()).unwrap();
        (0..FILES).for_each(|number| close(file(&name(number))));
        let listed = std::fs::read_dir(".").unwrap().count();
        assert_eq!(listed, FILES as usize);
        (0..FILES).for_each(|number| _ = sys!(SYS_unlink, name(number).as_ptr()));
        sys!(SYS_rmdir, c"../lateness-directory".as_ptr()).unwrap();
    }),
    ("children", || {
        (0..CHILDREN).for_each(|_| _ = spawn(|| 0));
        while try_wait(-1, 0).is_ok() {}
    }),
    ("kill-group", || {
        sys!(SYS_setpgid, 0, 0).unwrap();
        for _ in 0..MEMBERS {
            spawn(|| {
                loop {
                    pause_ms(1_000_000);
                }
            });
        }
        signal::dispose(libc::SIGTERM, libc::SIG_IGN);
        signal::kill(0, libc::SIGTERM).unwrap();
        while try_wait(-1, 0).is_ok() {}
    }),
];

/// Pages that are changed at once: 128 MiB.
const PAGES: usize = 32_768;
/// Areas that are changed at once, about as many as Linux allows a program.
const AREAS: usize = 30_000;
const FILES: u32 = 3_000;
const CHILDREN: u32 = 2_000;
const MEMBERS: u32 = 1_000;

const STEP_NANOS: i64 = 1_000_000;
const PRIORITY: i32 = 50;

fn main() {
    let chosen: Vec<String> = std::env::args().skip(1).collect();
    let is_chosen = |name: &str| chosen.is_empty() || chosen.iter().any(|it| it == name);
    if let Some(unknown) = chosen.iter().find(|name| CASES.iter().all(|case| case.0 != **name)) {
        eprintln!("no case `{unknown}`; there are: {}", CASES.map(|case| case.0).join(" "));
        exit_now(2);
    }
    for (name, act) in CASES.iter().filter(|case| is_chosen(case.0)) {
        let (worst_nanos, status) = lateness(*act);
        let _ = sys!(SYS_unlink, c"lateness-file".as_ptr());
        if !status.exited_with(0) {
            eprintln!("`{name}` failed: {status}");
            exit_now(1);
        }
        say!("{name} {worst_nanos}");
    }
}

/// The most by which this thread is late, sleeping in steps, until a child that does this has ended.
fn lateness(act: fn()) -> (i64, Status) {
    let child = spawn(|| {
        act();
        0
    });
    if let Err(why) = sys!(SYS_sched_setscheduler, 0, libc::SCHED_FIFO, &PRIORITY) {
        eprintln!("no real-time policy: {why}");
        exit_now(1);
    }
    let mut worst_nanos = 0;
    let mut wanted = now_nanos();
    let status = loop {
        wanted = (wanted + STEP_NANOS).max(now_nanos());
        let time =
            libc::timespec { tv_sec: wanted / 1_000_000_000, tv_nsec: wanted % 1_000_000_000 };
        sys!(SYS_clock_nanosleep, libc::CLOCK_MONOTONIC, libc::TIMER_ABSTIME, &time, 0).unwrap();
        worst_nanos = worst_nanos.max(now_nanos() - wanted);
        match try_wait(child, libc::WNOHANG) {
            Ok((0, _)) => {}
            result => break result.expect("wait4").1,
        }
    };
    sys!(SYS_sched_setscheduler, 0, libc::SCHED_OTHER, &0).unwrap();
    (worst_nanos, status)
}

fn now_nanos() -> i64 {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    sys!(SYS_clock_gettime, libc::CLOCK_MONOTONIC, &mut time).unwrap();
    time.tv_sec * 1_000_000_000 + time.tv_nsec
}

fn touch(base: *mut u8, count: usize) {
    (0..count).for_each(|number| poke(page(base, number), 1));
}

fn touched(count: usize) -> *mut u8 {
    let base = pages(count);
    touch(base, count);
    base
}

/// Room for so many pages, as aligned as large mappings are.
fn reserved(count: usize) -> *mut u8 {
    map(count * PAGE, libc::PROT_NONE, PRIVATE).unwrap()
}

fn protect(base: *mut u8, count: usize, protection: i32) {
    sys!(SYS_mprotect, base, count * PAGE, protection).unwrap();
}

/// Every other page of twice as many can only be read.
fn many_areas() -> *mut u8 {
    let base = touched(2 * AREAS);
    let read_only = libc::PROT_READ;
    for number in (0..2 * AREAS).step_by(2) {
        map_at(page(base, number) as usize, PAGE, read_only, PRIVATE | libc::MAP_FIXED).unwrap();
    }
    base
}

fn move_to(base: *mut u8, to: *mut u8) {
    let (len, flags) = (PAGES * PAGE, libc::MREMAP_MAYMOVE | libc::MREMAP_FIXED);
    sys!(SYS_mremap, base, len, len, flags, to).unwrap();
}

fn file(name: &CStr) -> i32 {
    let flags = libc::O_RDWR | libc::O_CREAT | libc::O_TRUNC;
    sys!(SYS_open, name.as_ptr(), flags, 0o644).unwrap() as i32
}
