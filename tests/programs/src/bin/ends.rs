//! However a thread waits, whatever ends its process ends it: every kind of wait, in the first thread and in another,
//! met by an execve(2), an exit_group(2) and signals from the thread beside it.
//!
//! Run with `@17` as its first argument, the program only ends, with that status.

use std::ffi::CStr;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};

use programs::process::{close, ending, exit_now, id, pause_ms, pipe, read, spawn, wait, write};
use programs::{memory, say, signal, sys};

fn main() {
    if std::env::args().nth(1).is_some_and(|arg| arg == "@17") {
        exit_now(17);
    }
    programs::main(&[
        ("files", files),
        ("processes", || meet_all(PROCESSES)),
        ("memory", || meet_all(MEMORY)),
        ("time", || meet_all(TIME)),
        ("signals", || meet_all(SIGNALS)),
    ]);
}

/// A way to wait for ever, and its name.
type Wait = (&'static str, fn());

/// What ends the process of the thread that waits; by another thread of it.
const ENDS: [(&str, fn()); 4] = [
    ("execve", || {
        let args = [c"ends".as_ptr(), c"@17".as_ptr(), std::ptr::null()];
        let _ = sys!(SYS_execve, c"/proc/self/exe".as_ptr(), args.as_ptr(), args[2..].as_ptr());
    }),
    ("exit_group", || exit_now(18)),
    ("SIGKILL", || _ = signal::kill(id(), libc::SIGKILL)),
    ("SIGTERM", || _ = signal::kill(id(), libc::SIGTERM)),
];

fn meet_all(waits: &[Wait]) {
    for (name, wait) in waits {
        for who in ["first", "other"] {
            let ends = ENDS.map(|(end, act)| format!("{end}: {}", meet(*wait, who, act)));
            say!("{name}, {who} thread: {}", ends.join(", "));
        }
    }
}

/// How a process ends one thread of which waits, and another acts a little later.
fn meet(wait: fn(), who: &str, act: fn()) -> programs::process::Status {
    let act = move || {
        pause_ms(3);
        act();
    };
    ending(|| {
        if who == "first" {
            std::thread::spawn(act);
            wait();
        } else {
            std::thread::spawn(wait);
            act();
        }
        98
    })
}

fn open(name: &CStr, flags: i32) -> i32 {
    sys!(SYS_open, name.as_ptr(), flags, 0).unwrap() as i32
}

/// A full pipe's ends.
fn full_pipe() -> (i32, i32) {
    let (input, output) = pipe(libc::O_NONBLOCK);
    while write(output, &[0; 4096]).is_ok() {}
    sys!(SYS_fcntl, output, libc::F_SETFL, 0).unwrap();
    (input, output)
}

fn socket_pair() -> [i32; 2] {
    let mut fds = [0i32; 2];
    sys!(SYS_socketpair, libc::AF_UNIX, libc::SOCK_STREAM, 0, &mut fds).unwrap();
    fds
}

/// Locked by this process, in both ways.
const FILE: &CStr = c"ends-file";
/// With nobody at the other end.
const FIFO: &CStr = c"ends-fifo";
const WHOLE_FILE: libc::flock =
    libc::flock { l_type: libc::F_WRLCK as i16, l_whence: 0, l_start: 0, l_len: 0, l_pid: 0 };

const FILES: &[Wait] = &[
    ("read of a pipe", || drop(read(pipe(0).0, 1))),
    ("write to a full pipe", || _ = write(full_pipe().1, b"!")),
    ("open of a FIFO to read", || _ = open(FIFO, libc::O_RDONLY)),
    ("open of a FIFO to write", || _ = open(FIFO, libc::O_WRONLY)),
    ("recvfrom", || {
        let mut byte = [0u8; 1];
        let _ = sys!(SYS_recvfrom, socket_pair()[0], &mut byte, 1, libc::MSG_WAITALL, 0, 0);
    }),
    ("read of an eventfd", || _ = read(sys!(SYS_eventfd2, 0, 0).unwrap() as i32, 8)),
    ("poll", || _ = sys!(SYS_poll, 0, 0, -1)),
    ("ppoll", || _ = sys!(SYS_ppoll, 0, 0, 0, 0, 0)),
    ("select", || _ = sys!(SYS_select, 0, 0, 0, 0, 0)),
    ("flock", || _ = sys!(SYS_flock, open(FILE, libc::O_RDWR), libc::LOCK_EX)),
    ("F_SETLKW", || _ = sys!(SYS_fcntl, open(FILE, libc::O_RDWR), libc::F_SETLKW, &WHOLE_FILE)),
    ("F_OFD_SETLKW", || {
        let _ = sys!(SYS_fcntl, open(FILE, libc::O_RDWR), libc::F_OFD_SETLKW, &WHOLE_FILE);
    }),
];

fn files() {
    let file = sys!(SYS_open, FILE.as_ptr(), libc::O_RDWR | libc::O_CREAT, 0o644).unwrap() as i32;
    sys!(SYS_flock, file, libc::LOCK_EX).unwrap();
    sys!(SYS_fcntl, file, libc::F_SETLK, &WHOLE_FILE).unwrap();
    sys!(SYS_mknod, FIFO.as_ptr(), libc::S_IFIFO | 0o644, 0).unwrap();
    meet_all(FILES);
    close(file);
    for name in [FILE, FIFO] {
        sys!(SYS_unlink, name.as_ptr()).unwrap();
    }
}

/// Until the process that has the other end has ended, or executed; for a child. It allocates nothing: a thread of
/// the parent may have been at it.
fn read_to_the_end((input, output): (i32, i32)) -> i32 {
    let _ = sys!(SYS_close, output);
    let mut byte = [0u8; 1];
    i32::from(sys!(SYS_read, input, &mut byte, 1) != Ok(0))
}

/// A child that outlives the wait for it, but not the process.
fn child() -> i32 {
    let pipe = pipe(libc::O_CLOEXEC);
    spawn(|| read_to_the_end(pipe))
}

const PROCESSES: &[Wait] = &[
    ("wait4", || {
        wait(child());
    }),
    ("waitid", || {
        let _ = sys!(SYS_waitid, libc::P_PID, child(), 0, libc::WEXITED, 0);
    }),
    ("poll of a pidfd", || {
        let pidfd = sys!(SYS_pidfd_open, child(), 0).unwrap();
        let _ = sys!(SYS_poll, &[pidfd | (libc::POLLIN as u64) << 32], 1, -1);
    }),
    ("vfork", || {
        let pipe = pipe(libc::O_CLOEXEC);
        // Without CLONE_VM: the child has a copy of this stack.
        if sys!(SYS_clone, libc::CLONE_VFORK | libc::SIGCHLD, 0, 0, 0, 0) == Ok(0) {
            exit_now(read_to_the_end(pipe));
        }
    }),
];

static WORD: AtomicU32 = AtomicU32::new(1);
static GOES_ON: AtomicBool = AtomicBool::new(true);

const MEMORY: &[Wait] = &[
    ("futex", || _ = sys!(SYS_futex, &WORD, libc::FUTEX_WAIT | libc::FUTEX_PRIVATE_FLAG, 1, 0)),
    ("shared futex", || _ = sys!(SYS_futex, memory::shared_pages(1), libc::FUTEX_WAIT, 0, 0)),
    ("nothing, running", || {
        while GOES_ON.load(Ordering::Relaxed) {
            std::hint::spin_loop();
        }
    }),
    ("nothing, yielding", || {
        while GOES_ON.load(Ordering::Relaxed) {
            let _ = sys!(SYS_sched_yield);
        }
    }),
    ("nothing, faulting", || {
        while GOES_ON.load(Ordering::Relaxed) {
            let page = memory::pages(1);
            memory::poke(page, 1);
            memory::unmap(page, memory::PAGE);
        }
    }),
];

const LONG: libc::timespec = libc::timespec { tv_sec: 1_000, tv_nsec: 0 };

const TIME: &[Wait] = &[
    ("nanosleep", || _ = sys!(SYS_nanosleep, &LONG, 0)),
    ("clock_nanosleep", || {
        let _ = sys!(SYS_clock_nanosleep, libc::CLOCK_REALTIME, 0, &LONG, 0);
    }),
    ("futex with a timeout", || _ = sys!(SYS_futex, &WORD, libc::FUTEX_WAIT, 1, &LONG)),
    ("poll with a timeout", || _ = sys!(SYS_poll, 0, 0, 1_000_000)),
];

const NO_SIGNALS: u64 = 0;

const SIGNALS: &[Wait] = &[
    ("pause", || _ = sys!(SYS_pause)),
    ("sigsuspend", || _ = sys!(SYS_rt_sigsuspend, &NO_SIGNALS, signal::SET_BYTES)),
    ("sigtimedwait", || {
        let wanted = signal::set(&[libc::SIGUSR1]);
        let _ = sys!(SYS_rt_sigtimedwait, &wanted, 0, 0, signal::SET_BYTES);
    }),
];
