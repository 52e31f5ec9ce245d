//! Locks on files: record locks of processes and of open files, flock(2); who waits for whom, and what gives them back.

use std::ffi::CStr;

use programs::process::{close, pause_ms, pipe, read, spawn, wait, write};
use programs::sys::{Errno, value};
use programs::{check, say, signal, sys};

/// Argument of a process that only reads its input.
const STAY: &CStr = c"@stay";

fn main() {
    if std::env::args().nth(1).as_deref() == STAY.to_str().ok() {
        let _ = read(0, 1);
        return;
    }
    programs::main(&[
        ("record", record),
        ("ranges", ranges),
        ("whence", whence),
        ("split", split),
        ("conversion", conversion),
        ("waiting", waiting),
        ("deadlock", deadlock),
        ("circle", circle),
        ("interrupted", interrupted),
        ("closing", closing),
        ("exec", exec),
        ("fork", fork),
        ("threads", threads),
        ("open-files", open_files),
        ("flock", flock),
        ("flock-waiting", flock_waiting),
        ("kinds", kinds),
        ("errors", errors),
        ("many", many),
    ]);
}

const RW: i32 = libc::O_RDWR | libc::O_CREAT;
const READ: i16 = libc::F_RDLCK as i16;
const WRITE: i16 = libc::F_WRLCK as i16;
const NONE: i16 = libc::F_UNLCK as i16;

fn open(name: &CStr, flags: i32) -> i32 {
    sys!(SYS_open, name.as_ptr(), flags, 0o644).expect("open") as i32
}

fn region(kind: i16, start: i64, len: i64) -> libc::flock {
    libc::flock { l_type: kind, l_whence: 0, l_start: start, l_len: len, l_pid: 0 }
}

fn fcntl(fd: i32, command: i32, kind: i16, start: i64, len: i64) -> Result<u64, Errno> {
    let region = region(kind, start, len);
    sys!(SYS_fcntl, fd, command, &region)
}

fn set(fd: i32, kind: i16, start: i64, len: i64) -> Result<u64, Errno> {
    fcntl(fd, libc::F_SETLK, kind, start, len)
}

/// What would be in the way of a lock for this process, as `F_GETLK` or `F_OFD_GETLK` says it.
fn in_the_way(fd: i32, command: i32, kind: i16, start: i64, len: i64) -> String {
    let mut found = region(kind, start, len);
    if let Err(error) = sys!(SYS_fcntl, fd, command, &mut found) {
        return error.to_string();
    }
    let kind = match found.l_type {
        READ => "shared",
        WRITE => "exclusive",
        NONE => return "nothing".into(),
        _ => "?",
    };
    let whose = match found.l_pid {
        -1 => "an open file's",
        pid if pid == programs::process::id() => "my own",
        pid if pid == parent() => "the parent's",
        _ => "another's",
    };
    let (whence, start, len) = (found.l_whence, found.l_start, found.l_len);
    format!("{kind} {whence}:{start}+{len}, {whose}")
}

fn parent() -> i32 {
    sys!(SYS_getppid).unwrap() as i32
}

/// All that others have locked of the first bytes, found by asking for each byte in a child.
fn map(name: &CStr) {
    let child = spawn(|| {
        let fd = open(name, libc::O_RDWR);
        let letter = |byte| {
            let free = |kind| in_the_way(fd, libc::F_GETLK, kind, byte, 1) == "nothing";
            match (free(READ), free(WRITE)) {
                (true, true) => '.',
                (true, false) => 'r',
                _ => 'W',
            }
        };
        say!("{}", (0..24).map(letter).collect::<String>());
        0
    });
    let status = wait(child);
    check!(status.exited_with(0), "{status}");
}

/// Runs the body in a child, to its end.
fn in_child(body: impl FnOnce()) {
    let child = spawn(|| {
        body();
        0
    });
    let status = wait(child);
    check!(status.exited_with(0), "{status}");
}

fn record() {
    let fd = open(c"f", RW);
    say!("{}", value(set(fd, WRITE, 10, 10)));
    say!("own: {}", in_the_way(fd, libc::F_GETLK, WRITE, 0, 0));
    in_child(|| {
        say!("child: {}", in_the_way(fd, libc::F_GETLK, READ, 0, 0));
        say!("before: {}", in_the_way(fd, libc::F_GETLK, READ, 0, 10));
        say!("behind: {}", in_the_way(fd, libc::F_GETLK, READ, 20, 0));
        say!("{} {}", value(set(fd, READ, 19, 1)), value(set(fd, READ, 20, 1)));
        say!("to unlock what is another's: {}", value(set(fd, NONE, 0, 0)));
        say!("child: {}", in_the_way(fd, libc::F_GETLK, READ, 0, 0));
    });
    say!("shared: {}", value(set(fd, READ, 10, 10)));
    in_child(|| {
        say!("{} {}", value(set(fd, READ, 0, 0)), value(set(fd, WRITE, 0, 0)));
        say!("{}", in_the_way(fd, libc::F_GETLK, WRITE, 0, 0));
    });
    say!("{}", value(set(fd, NONE, 0, 0)));
    in_child(|| say!("{}", value(set(fd, WRITE, 0, 0))));
    close(fd);
}

fn ranges() {
    let fd = open(c"f", RW);
    let max = i64::MAX;
    let cases = [
        (0, max),
        (1, max),
        (max, 0),
        (max, 1),
        (max, 2),
        (5, -5),
        (5, -6),
        (-1, 1),
        (0, -1),
        (10, -3),
        (0, i64::MIN),
        (i64::MIN, 0),
    ];
    for (start, len) in cases {
        say!("{start} {len}: {}", value(set(fd, WRITE, start, len)));
        in_child(|| {
            let far = in_the_way(fd, libc::F_GETLK, READ, max, 1);
            say!("{}; far out: {far}", in_the_way(fd, libc::F_GETLK, READ, 0, 0));
        });
        set(fd, NONE, 0, 0).unwrap();
    }
    close(fd);
}

fn whence() {
    let fd = open(c"f", RW | libc::O_TRUNC);
    write(fd, &[0; 100]).unwrap();
    sys!(SYS_lseek, fd, 40, libc::SEEK_SET).unwrap();
    for (whence, start, len) in
        [(1, -5, 5), (1, 0, -10), (2, -10, 0), (2, 0, 10), (3, 0, 1), (1, -41, 1)]
    {
        let mut lock = region(WRITE, start, len);
        lock.l_whence = whence;
        say!("{whence}: {start}+{len}: {}", value(sys!(SYS_fcntl, fd, libc::F_SETLK, &lock)));
        in_child(|| say!("{}", in_the_way(fd, libc::F_GETLK, READ, 0, 0)));
        set(fd, NONE, 0, 0).unwrap();
    }
    close(fd);
}

/// Locks of one process are cut, joined and replaced.
fn split() {
    let fd = open(c"f", RW);
    let steps = [
        (WRITE, 4, 12),
        (READ, 8, 4),
        (NONE, 9, 1),
        (READ, 9, 1),
        (WRITE, 8, 4),
        (NONE, 0, 5),
        (READ, 2, 2),
        (READ, 4, 1),
        (WRITE, 20, 0),
        (NONE, 22, 0),
        (READ, 0, 0),
        (NONE, 3, 3),
        (WRITE, 2, 5),
    ];
    for (kind, start, len) in steps {
        set(fd, kind, start, len).unwrap();
        map(c"f");
    }
    close(fd);
    map(c"f");
}

fn conversion() {
    let fd = open(c"f", RW);
    set(fd, READ, 0, 10).unwrap();
    let (ready, tell) = pipe(0);
    let (go, let_go) = pipe(0);
    let child = spawn(|| {
        set(fd, READ, 5, 1).unwrap();
        write(tell, b"x").unwrap();
        read(go, 1).unwrap();
        0
    });
    read(ready, 1).unwrap();
    // All or nothing: what was there stays.
    say!("to exclusive: {}", value(set(fd, WRITE, 0, 10)));
    map(c"f");
    write(let_go, b"x").unwrap();
    say!("{}", wait(child));
    say!("to exclusive: {}", value(set(fd, WRITE, 0, 10)));
    for fd in [fd, ready, tell, go, let_go] {
        close(fd);
    }
}

fn waiting() {
    let fd = open(c"f", RW);
    let (ready, tell) = pipe(0);
    set(fd, WRITE, 0, 10).unwrap();
    let children: Vec<i32> = (0..4)
        .map(|index| {
            spawn(move || {
                write(tell, b"x").unwrap();
                let kind = if index % 2 == 0 { READ } else { WRITE };
                check!(fcntl(fd, libc::F_SETLKW, kind, index, 3).is_ok(), "waited in vain");
                pause_ms(5);
                0
            })
        })
        .collect();
    for _ in &children {
        read(ready, 1).unwrap();
    }
    pause_ms(20);
    // Waking some is not enough: they look again, and the last byte is the last one's.
    set(fd, NONE, 0, 5).unwrap();
    pause_ms(5);
    set(fd, READ, 5, 5).unwrap();
    pause_ms(5);
    set(fd, NONE, 0, 0).unwrap();
    for child in children {
        say!("{}", wait(child));
    }
    for fd in [fd, ready, tell] {
        close(fd);
    }
}

/// Two that want each other's.
fn deadlock() {
    let fd = open(c"f", RW);
    let (ready, tell) = pipe(0);
    set(fd, WRITE, 0, 1).unwrap();
    let child = spawn(|| {
        set(fd, WRITE, 1, 1).unwrap();
        write(tell, b"x").unwrap();
        say!("child: {}", value(fcntl(fd, libc::F_SETLKW, WRITE, 0, 1)));
        0
    });
    read(ready, 1).unwrap();
    pause_ms(30);
    say!("parent: {}", value(fcntl(fd, libc::F_SETLKW, READ, 1, 1)));
    set(fd, NONE, 0, 0).unwrap();
    say!("{}", wait(child));
    for fd in [fd, ready, tell] {
        close(fd);
    }
}

/// Four that want the next one's, on two files.
fn circle() {
    let fds = [open(c"f", RW), open(c"g", RW)];
    let (ready, tell) = pipe(0);
    let place = |index: usize| (fds[index % 2], (index % 4) as i64);
    let take = |index: usize, command| {
        let (fd, start) = place(index);
        fcntl(fd, command, WRITE, start, 1)
    };
    take(0, libc::F_SETLK).unwrap();
    let children: Vec<i32> = (1..4)
        .map(|index| {
            spawn(move || {
                take(index, libc::F_SETLK).unwrap();
                write(tell, b"x").unwrap();
                pause_ms(30);
                check!(take(index + 1, libc::F_SETLKW).is_ok(), "waited in vain");
                0
            })
        })
        .collect();
    for _ in &children {
        read(ready, 1).unwrap();
    }
    pause_ms(90);
    say!("closing the circle: {}", value(take(1, libc::F_SETLKW)));
    set(fds[0], NONE, 0, 0).unwrap();
    for child in children {
        say!("{}", wait(child));
    }
    for fd in [fds[0], fds[1], ready, tell] {
        close(fd);
    }
}

/// Has SIGALRM come, again and again: one may come before the wait.
fn alarm_soon() {
    let time = libc::timeval { tv_sec: 0, tv_usec: 20_000 };
    let timer = libc::itimerval { it_interval: time, it_value: time };
    sys!(SYS_setitimer, libc::ITIMER_REAL, &timer, 0).unwrap();
}

fn interrupted() {
    let fd = open(c"f", RW);
    set(fd, WRITE, 0, 0).unwrap();
    let child = spawn(|| {
        signal::recorded(libc::SIGALRM, 0);
        alarm_soon();
        let result = fcntl(fd, libc::F_SETLKW, READ, 0, 1);
        say!("{} {}", value(result), signal::count() > 0);
        let other = open(c"f", libc::O_RDWR);
        let outer = open(c"f", libc::O_RDWR);
        sys!(SYS_flock, outer, libc::LOCK_EX).unwrap();
        say!("flock: {}", value(sys!(SYS_flock, other, libc::LOCK_SH)));
        0
    });
    say!("{}", wait(child));
    close(fd);
}

/// The first descriptor of a file that is closed gives all of the process's locks on it back.
fn closing() {
    let name = c"f";
    let first = open(name, RW);
    let fresh = || {
        let second = open(name, libc::O_RDONLY);
        set(first, WRITE, 0, 4).unwrap();
        map(name);
        second
    };
    say!("close");
    close(fresh());
    map(name);
    say!("dup2 over it");
    let second = fresh();
    sys!(SYS_dup2, 1, second).unwrap();
    map(name);
    close(second);
    say!("close_range");
    let second = fresh();
    sys!(SYS_close_range, second, second, 0).unwrap();
    map(name);
    say!("what was opened as a path only");
    let second = fresh();
    close(open(name, libc::O_PATH));
    map(name);
    close(second);
    say!("another file");
    let other = open(c"g", RW);
    let second = fresh();
    close(other);
    map(name);
    close(second);
    say!("a duplicate of it");
    let second = fresh();
    let copy = sys!(SYS_dup, first).unwrap() as i32;
    close(copy);
    map(name);
    close(second);
    say!("the end of a process");
    let (ready, tell) = pipe(0);
    let child = spawn(|| {
        set(first, WRITE, 0, 4).unwrap();
        write(tell, b"x").unwrap();
        signal::kill(programs::process::id(), libc::SIGKILL).unwrap();
        0
    });
    read(ready, 1).unwrap();
    say!("{}", wait(child));
    map(name);
    for fd in [first, ready, tell] {
        close(fd);
    }
}

/// `execve` keeps locks, but for those on what it closes.
fn exec() {
    let fd = open(c"f", RW);
    let (ready, tell) = pipe(0);
    for closes in [false, true] {
        let child = spawn(|| {
            set(fd, WRITE, 0, 4).unwrap();
            if closes {
                sys!(SYS_fcntl, fd, libc::F_SETFD, libc::FD_CLOEXEC).unwrap();
            }
            sys!(SYS_dup2, ready, 0).unwrap();
            let arguments = [c"locks".as_ptr(), STAY.as_ptr(), std::ptr::null()];
            let _ = sys!(SYS_execve, c"/proc/self/exe".as_ptr(), arguments.as_ptr(), 0);
            9
        });
        pause_ms(100);
        map(c"f");
        signal::kill(child, libc::SIGKILL).unwrap();
        say!("{}", wait(child));
        map(c"f");
    }
    for fd in [fd, ready, tell] {
        close(fd);
    }
}

/// A child has none of its parent's locks, and gives none of them back.
fn fork() {
    let fd = open(c"f", RW);
    set(fd, WRITE, 0, 4).unwrap();
    in_child(|| {
        say!("{}", in_the_way(fd, libc::F_GETLK, WRITE, 0, 0));
        close(fd);
    });
    map(c"f");
    close(fd);
}

/// Threads share their process's locks.
fn threads() {
    let fd = open(c"f", RW);
    set(fd, WRITE, 0, 4).unwrap();
    let joined = std::thread::spawn(move || value(set(fd, READ, 2, 4))).join();
    say!("{}", joined.unwrap());
    map(c"f");
    close(fd);
}

fn open_files() {
    let (first, second) = (open(c"f", RW), open(c"f", RW));
    let ofd = |fd, kind, start, len| value(fcntl(fd, libc::F_OFD_SETLK, kind, start, len));
    say!("{} {}", ofd(first, WRITE, 0, 4), ofd(second, WRITE, 2, 4));
    say!("{}", in_the_way(second, libc::F_OFD_GETLK, READ, 0, 0));
    say!("by the process: {}", in_the_way(second, libc::F_GETLK, READ, 0, 0));
    say!("by the process: {}", value(set(first, WRITE, 0, 1)));
    say!("{} {}", ofd(second, READ, 4, 0), ofd(first, READ, 4, 1));
    map(c"f");
    let third = sys!(SYS_dup, first).unwrap() as i32;
    close(first);
    map(c"f");
    in_child(|| say!("the child has it, too: {}", ofd(third, NONE, 0, 1)));
    map(c"f");
    close(third);
    map(c"f");
    let child = spawn(|| {
        close(second);
        let own = open(c"f", RW);
        say!("waited: {}", value(fcntl(own, libc::F_OFD_SETLKW, WRITE, 0, 0)));
        0
    });
    pause_ms(20);
    close(second);
    say!("{}", wait(child));
    let fd = open(c"f", RW);
    let mut wrong = region(WRITE, 0, 1);
    wrong.l_pid = 1;
    say!("with a number: {}", value(sys!(SYS_fcntl, fd, libc::F_OFD_SETLK, &wrong)));
    close(fd);
}

fn flock() {
    let (first, second) = (open(c"f", RW), open(c"f", libc::O_RDONLY));
    let try_lock = |fd, operation| value(sys!(SYS_flock, fd, operation | libc::LOCK_NB));
    say!("{} {}", try_lock(first, libc::LOCK_SH), try_lock(second, libc::LOCK_SH));
    say!("{} {}", try_lock(second, libc::LOCK_EX), try_lock(first, libc::LOCK_EX));
    // Both have lost what they had.
    say!("{} {}", try_lock(second, libc::LOCK_EX), try_lock(first, libc::LOCK_SH));
    say!("no record lock: {}", value(set(first, WRITE, 0, 0)));
    let copy = sys!(SYS_dup, second).unwrap() as i32;
    close(second);
    say!("a copy keeps it: {}", try_lock(first, libc::LOCK_SH));
    in_child(|| say!("a child unlocks: {}", try_lock(copy, libc::LOCK_UN)));
    say!("{} {}", try_lock(first, libc::LOCK_SH), try_lock(copy, libc::LOCK_EX));
    close(first);
    say!("{}", try_lock(copy, libc::LOCK_EX));
    say!("{} {}", try_lock(copy, libc::LOCK_UN), try_lock(copy, libc::LOCK_UN));
    close(copy);
}

fn flock_waiting() {
    let (ready, tell) = pipe(0);
    let fd = open(c"f", RW);
    sys!(SYS_flock, fd, libc::LOCK_EX).unwrap();
    let children: Vec<i32> = (0..3)
        .map(|index| {
            spawn(move || {
                let own = open(c"f", libc::O_RDONLY);
                write(tell, b"x").unwrap();
                let operation = if index == 0 { libc::LOCK_EX } else { libc::LOCK_SH };
                check!(sys!(SYS_flock, own, operation).is_ok(), "waited in vain");
                0
            })
        })
        .collect();
    for _ in &children {
        read(ready, 1).unwrap();
    }
    pause_ms(20);
    say!("{}", value(sys!(SYS_flock, fd, libc::LOCK_UN)));
    for child in children {
        say!("{}", wait(child));
    }
    for fd in [fd, ready, tell] {
        close(fd);
    }
}

/// What must be open for which lock.
fn kinds() {
    close(open(c"f", RW));
    let (reader, writer) = (open(c"f", libc::O_RDONLY), open(c"f", libc::O_WRONLY));
    let path = open(c"f", libc::O_PATH);
    for fd in [reader, writer, path] {
        let (shared, exclusive) = (set(fd, READ, 0, 1), set(fd, WRITE, 0, 1));
        say!("{} {} {}", value(shared), value(exclusive), value(set(fd, NONE, 0, 0)));
        say!("{}", value(sys!(SYS_flock, fd, libc::LOCK_EX | libc::LOCK_NB)));
        let _ = sys!(SYS_flock, fd, libc::LOCK_UN);
    }
    let (input, output) = pipe(0);
    say!(
        "a pipe: {} {}",
        value(set(input, READ, 0, 1)),
        value(sys!(SYS_flock, output, libc::LOCK_EX))
    );
    let directory = open(c".", libc::O_RDONLY);
    say!(
        "a directory: {} {}",
        value(set(directory, READ, 0, 0)),
        value(sys!(SYS_flock, directory, 2))
    );
    for fd in [reader, writer, path, input, output, directory] {
        close(fd);
    }
}

fn errors() {
    let fd = open(c"f", RW);
    for command in [libc::F_GETLK, libc::F_SETLK, libc::F_SETLKW, libc::F_OFD_SETLK] {
        say!("nowhere: {}", value(sys!(SYS_fcntl, fd, command, 16u64)));
        say!("closed: {}", value(fcntl(1_000, command, READ, 0, 0)));
        say!("kind: {}", value(fcntl(fd, command, 7, 0, 0)));
    }
    say!("ask for none: {}", in_the_way(fd, libc::F_GETLK, NONE, 0, 0));
    say!("flock: {}", value(sys!(SYS_flock, 1_000, libc::LOCK_EX)));
    for operation in [0, libc::LOCK_NB, 3, libc::LOCK_SH | libc::LOCK_UN, 1 << 20] {
        say!("flock {operation}: {}", value(sys!(SYS_flock, fd, operation)));
    }
    close(fd);
}

/// Every second byte, and all at once.
fn many() {
    let fd = open(c"f", RW);
    for byte in 0..500 {
        set(fd, WRITE, 2 * byte, 1).unwrap();
    }
    in_child(|| say!("{}", in_the_way(fd, libc::F_GETLK, READ, 997, 0)));
    set(fd, WRITE, 0, 999).unwrap();
    in_child(|| say!("{}", in_the_way(fd, libc::F_GETLK, READ, 997, 0)));
    close(fd);
    for name in [c"f", c"g"] {
        let _ = sys!(SYS_unlink, name.as_ptr());
    }
}
