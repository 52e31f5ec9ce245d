//! Who belongs to whom: waitid, orphans and who adopts them, death signals, sessions and groups, process descriptors.

use programs::process::{
    Baton, close, ending, exit_now, id, pause_ms, pipe, read, spawn, try_wait, wait, wait_until,
    write,
};
use programs::sys::value;
use programs::{check, say, signal, sys};

fn main() {
    if let Some("@until") = std::env::args().nth(1).as_deref() {
        let input = std::env::args().nth(2).and_then(|number| number.parse().ok());
        let _ = read(input.unwrap(), 1);
        exit_now(7);
    }
    programs::main(&[
        ("waitid", waitid),
        ("waitid-errors", waitid_errors),
        ("nowait", nowait),
        ("orphans", orphans),
        ("subreaper", subreaper),
        ("nested-subreapers", nested_subreapers),
        ("thread-parents", thread_parents),
        ("own-children", own_children),
        ("death-signal", death_signal),
        ("death-of-maker", death_of_maker),
        ("death-by-exec", death_by_exec),
        ("sessions", sessions),
        ("pidfd", pidfd),
        ("pidfd-poll", pidfd_poll),
        ("pidfd-errors", pidfd_errors),
        ("pidfd-nonblocking", pidfd_nonblocking),
        ("pidfd-getfd", pidfd_getfd),
        ("pidfd-siginfo", pidfd_siginfo),
        ("many", many),
    ]);
}

/// `si_signo`, `si_code`, `si_pid` and `si_status` of a waitid.
fn wait_id(kind: libc::idtype_t, number: i32, options: i32) -> (sys::Result, [i32; 4]) {
    let mut info = [0i32; 32];
    let result = sys!(SYS_waitid, kind, number, &mut info, options, 0);
    (result, [info[0], info[2], info[4], info[6]])
}

fn shown(child: i32, (result, [number, code, pid, status]): (sys::Result, [i32; 4])) -> String {
    format!(
        "{} signal {number} code {code} status {status}, this child: {}",
        value(result),
        pid == child
    )
}

fn sleeper() -> i32 {
    spawn(|| {
        loop {
            pause_ms(1_000_000);
        }
    })
}

fn waitid() {
    let child = spawn(|| 300);
    say!("{}", shown(child, wait_id(libc::P_PID, child, libc::WEXITED)));
    let child = sleeper();
    signal::kill(child, libc::SIGTERM).unwrap();
    say!("{}", shown(child, wait_id(libc::P_ALL, 0, libc::WEXITED)));
    let child = sleeper();
    say!("{}", shown(child, wait_id(libc::P_PID, child, libc::WEXITED | libc::WNOHANG)));
    signal::kill(child, libc::SIGSTOP).unwrap();
    say!("{}", shown(child, wait_id(libc::P_PID, child, libc::WSTOPPED)));
    signal::kill(child, libc::SIGCONT).unwrap();
    say!("{}", shown(child, wait_id(libc::P_PID, child, libc::WCONTINUED)));
    signal::kill(child, libc::SIGKILL).unwrap();
    say!("{}", shown(child, wait_id(libc::P_PID, child, libc::WEXITED)));
    let child = spawn(|| {
        sys!(SYS_setpgid, 0, 0).unwrap();
        6
    });
    let _ = sys!(SYS_setpgid, child, child);
    say!("{}", shown(child, wait_id(libc::P_PGID, child, libc::WEXITED)));
    let child = spawn(|| 7);
    say!("own group: {}", shown(child, wait_id(libc::P_PGID, 0, libc::WEXITED)));
    let child = spawn(|| 8);
    say!("no siginfo: {}", value(sys!(SYS_waitid, libc::P_PID, child, 0, libc::WEXITED, 0)));
}

fn waitid_errors() {
    let result = |kind: u32, number: i32, options: i32| value(wait_id(kind, number, options).0);
    say!("no children: {}", result(libc::P_ALL, 0, libc::WEXITED));
    let mut info = [!0i32; 32];
    let none = value(sys!(SYS_waitid, libc::P_ALL, 0, &mut info, libc::WEXITED, 0));
    say!("{none}: {:?}", [0, 1, 2, 4, 5, 6].map(|word| info[word]));
    say!("nothing to wait for: {}", result(libc::P_ALL, 0, 0));
    say!("only WNOHANG: {}", result(libc::P_ALL, 0, libc::WNOHANG));
    say!("unknown option: {}", result(libc::P_ALL, 0, libc::WEXITED | 0x100));
    say!("unknown kind: {}", result(9, 0, libc::WEXITED));
    say!("process 0: {}", result(libc::P_PID, 0, libc::WEXITED));
    say!("process -1: {}", result(libc::P_PID, -1, libc::WEXITED));
    say!("group -1: {}", result(libc::P_PGID, -1, libc::WEXITED));
    say!("a pidfd that is none: {}", result(libc::P_PIDFD, 0, libc::WEXITED));
    let child = spawn(|| 1);
    say!(
        "siginfo nowhere: {}",
        value(sys!(SYS_waitid, libc::P_PID, child, 16u64, libc::WEXITED, 0))
    );
    let _ = try_wait(child, 0);
}

/// WNOWAIT leaves the child as it is.
fn nowait() {
    let child = spawn(|| 44);
    for _ in 0..3 {
        say!("{}", shown(child, wait_id(libc::P_PID, child, libc::WEXITED | libc::WNOWAIT)));
    }
    // A zombie is there for signals too.
    say!("kill: {}", value(signal::kill(child, libc::SIGTERM)));
    say!("{}", wait(child));
    say!("kill: {}", value(signal::kill(child, libc::SIGTERM)));
}

/// Sends what it is told through a pipe: numbers of four bytes.
fn send(output: i32, number: i32) {
    check!(write(output, &number.to_le_bytes()) == Ok(4), "a short write");
}

fn receive(input: i32) -> i32 {
    i32::from_le_bytes(read(input, 4).unwrap().try_into().unwrap())
}

fn parent() -> i32 {
    sys!(SYS_getppid).unwrap() as i32
}

fn set(option: i32, value: u64) -> sys::Result {
    sys!(SYS_prctl, option, value, 0, 0, 0)
}

/// An orphan's parent becomes another, and its end is nobody's business here.
fn orphans() {
    let (input, output) = pipe(0);
    let middle = spawn(|| {
        let own = id();
        spawn(|| {
            wait_until(|| parent() != own);
            send(output, parent());
            0
        });
        0
    });
    say!("{}", wait(middle));
    let new_parent = receive(input);
    say!("another parent: {}, not me: {}", new_parent != middle, new_parent != id() || id() == 1);
    if id() == 1 {
        // Who is the first of all adopts it.
        let _ = try_wait(-1, 0);
    }
    say!("{:?}", try_wait(-1, libc::WNOHANG).err());
    close(input);
    close(output);
}

fn subreaper() {
    let status = ending(|| {
        say!("{}", value(set(libc::PR_SET_CHILD_SUBREAPER, 1)));
        let mut is = 0i32;
        sys!(SYS_prctl, libc::PR_GET_CHILD_SUBREAPER, &mut is, 0, 0, 0).unwrap();
        say!("is one: {is}");
        let me = id();
        let (input, output) = pipe(0);
        let middle = spawn(|| {
            for status in [50, 51] {
                let own = id();
                spawn(|| {
                    wait_until(|| parent() != own);
                    send(output, parent());
                    status
                });
            }
            // Not inherited.
            let mut is = 9i32;
            sys!(SYS_prctl, libc::PR_GET_CHILD_SUBREAPER, &mut is, 0, 0, 0).unwrap();
            is
        });
        say!("{}", wait(middle));
        for _ in 0..2 {
            check!(receive(input) == me, "adopted by another");
        }
        let mut ends: Vec<String> =
            (0..2).map(|_| try_wait(-1, 0).unwrap().1.to_string()).collect();
        ends.sort();
        say!("{ends:?} {:?}", try_wait(-1, 0).err());
        0
    });
    say!("{status}");
}

/// The nearest subreaper above adopts, and when it goes the next one.
fn nested_subreapers() {
    let status = ending(|| {
        set(libc::PR_SET_CHILD_SUBREAPER, 1).unwrap();
        let outer = id();
        let (input, output) = pipe(0);
        let go = Baton::new();
        let inner = spawn(|| {
            set(libc::PR_SET_CHILD_SUBREAPER, 1).unwrap();
            let me = id();
            let middle = spawn(|| {
                let own = id();
                spawn(|| {
                    wait_until(|| parent() != own);
                    send(output, parent());
                    wait_until(|| parent() != me);
                    send(output, parent());
                    61
                });
                0
            });
            wait(middle);
            go.await_pass();
            0
        });
        say!("the inner one first: {}", receive(input) == inner);
        go.pass();
        say!("{}", wait(inner));
        say!("then the outer one: {}", receive(input) == outer);
        say!("{}", try_wait(-1, 0).unwrap().1);
        0
    });
    say!("{status}");
}

/// Children belong to the process: any thread may wait for them, and the end of the thread that made them
/// changes nothing.
fn thread_parents() {
    let me = id();
    let (input, output) = pipe(0);
    let go = Baton::new();
    let child = std::thread::scope(|scope| {
        let (go, output) = (&go, output);
        scope
            .spawn(move || {
                spawn(|| {
                    go.await_pass();
                    send(output, parent());
                    70
                })
            })
            .join()
            .unwrap()
    });
    go.pass();
    say!("its parent is the process: {}", receive(input) == me);
    say!("{}", wait(child));
    let child = spawn(|| 71);
    let status = std::thread::spawn(move || wait(child)).join().unwrap();
    say!("waited for by another thread: {status}");
    close(input);
    close(output);
}

fn death_signal() {
    let (input, output) = pipe(0);
    let middle = spawn(|| {
        let (ready, middle) = (Baton::new(), id());
        spawn(|| {
            signal::recorded(libc::SIGUSR1, 0);
            say!("{}", value(set(libc::PR_SET_PDEATHSIG, libc::SIGUSR1 as u64)));
            let mut number = 0i32;
            sys!(SYS_prctl, libc::PR_GET_PDEATHSIG, &mut number, 0, 0, 0).unwrap();
            say!("set: {}", signal::name(number));
            ready.pass();
            wait_until(|| signal::count() > 0);
            let seen = signal::take();
            send(output, seen[0].signal);
            check!(seen[0].pid == middle, "sent by {} not {middle}", seen[0].pid);
            exit_now(programs::status());
        });
        ready.await_pass();
        0
    });
    say!("{}", wait(middle));
    say!("told by {}", signal::name(receive(input)));
    say!("bad signal: {}", value(set(libc::PR_SET_PDEATHSIG, 65)));
    // Not inherited by fork.
    set(libc::PR_SET_PDEATHSIG, libc::SIGTERM as u64).unwrap();
    let status = ending(|| {
        let mut number = 9i32;
        sys!(SYS_prctl, libc::PR_GET_PDEATHSIG, &mut number, 0, 0, 0).unwrap();
        number
    });
    say!("{status}");
    set(libc::PR_SET_PDEATHSIG, 0).unwrap();
    if id() == 1 {
        let _ = try_wait(-1, 0);
    }
    close(input);
    close(output);
}

/// It is the thread that made it whose end a child is told of; then that of the thread that it is given to.
fn death_of_maker() {
    let (input, output) = pipe(0);
    let status = ending(|| {
        let (ready, middle) = (Baton::new(), id());
        let maker = std::thread::spawn(move || {
            spawn(|| {
                signal::recorded(libc::SIGUSR1, 0);
                set(libc::PR_SET_PDEATHSIG, libc::SIGUSR1 as u64).unwrap();
                ready.pass();
                for _ in 0..2 {
                    wait_until(|| signal::count() > 0);
                    let seen = signal::take();
                    check!(seen[0].pid == middle, "sent by {} not {middle}", seen[0].pid);
                    send(output, seen.len() as i32);
                }
                exit_now(programs::status());
            });
            ready.await_pass();
        });
        maker.join().unwrap();
        say!("told while the process lives: {}", receive(input));
        0
    });
    say!("{status}");
    say!("told of its end: {}", receive(input));
    if id() == 1 {
        let _ = try_wait(-1, 0);
    }
    close(input);
    close(output);
}

/// A thread that executes takes the first thread's place: that one ends, and its children are told; its own children only
/// when the new program ends.
fn death_by_exec() {
    let (input, output) = pipe(0);
    let (until, release) = pipe(0);
    let middle = spawn(|| {
        close(release);
        let ready = Baton::new();
        let child_that_sends = |number: i32| {
            spawn(|| {
                signal::recorded(libc::SIGUSR1, 0);
                set(libc::PR_SET_PDEATHSIG, libc::SIGUSR1 as u64).unwrap();
                ready.pass();
                wait_until(|| signal::count() > 0);
                send(output, number);
                exit_now(programs::status());
            });
            ready.await_pass();
        };
        child_that_sends(1);
        std::thread::scope(|scope| {
            scope.spawn(|| {
                child_that_sends(2);
                let until = std::ffi::CString::new(until.to_string()).unwrap();
                let args = [c"x".as_ptr(), c"@until".as_ptr(), until.as_ptr(), std::ptr::null()];
                let path = c"/proc/self/exe".as_ptr();
                let _ = sys!(SYS_execve, path, args.as_ptr(), args[3..].as_ptr());
            });
        });
        98
    });
    say!("of the first thread: {}", receive(input));
    close(release);
    say!("{}", wait(middle));
    say!("of the one that executed: {}", receive(input));
    if id() == 1 {
        while try_wait(-1, 0).is_ok() {}
    }
    [input, output, until].into_iter().for_each(close);
}

/// With `__WNOTHREAD` a thread waits for its own children, and, once their thread has ended, for those of others.
fn own_children() {
    let own = libc::__WNOTHREAD;
    let count = |options: i32| value(try_wait(-1, options | libc::WNOHANG).map(|it| it.0 as u64));
    let status = ending(|| {
        let first = sleeper();
        let (ready, go_on) = (Baton::new(), Baton::new());
        let left = std::thread::scope(|scope| {
            let other = scope.spawn(|| {
                say!("none of its own: {}, of all: {}", count(own), count(0));
                let (mine, left) = (spawn(|| 5), spawn(|| 6));
                say!("its own: {}", try_wait(mine, own).unwrap().1);
                ready.pass();
                go_on.await_pass();
                left
            });
            ready.await_pass();
            signal::kill(first, libc::SIGKILL).unwrap();
            say!("the first's: {}", try_wait(first, own).unwrap().1);
            say!("none left of its own: {}", count(own));
            go_on.pass();
            other.join().unwrap()
        });
        let mut last = Err(sys::Errno(libc::ECHILD));
        wait_until(|| {
            last = try_wait(left, own);
            last.is_ok()
        });
        say!("of a thread that has ended: {}", last.unwrap().1);
        0
    });
    say!("{status}");
}

fn sessions() {
    let group = |pid: i32| sys!(SYS_getpgid, pid);
    let status = ending(|| {
        let me = id() as u64;
        say!("new session: {}", sys!(SYS_setsid) == Ok(me));
        say!("leads: {} {}", sys!(SYS_getsid, 0) == Ok(me), group(0) == Ok(me));
        say!("again: {}", value(sys!(SYS_setsid)));
        say!("a leader stays in its group: {}", value(sys!(SYS_setpgid, 0, 0)));
        let ready = Baton::new();
        let child = spawn(|| {
            ready.await_pass();
            0
        });
        say!(
            "a child's own group: {} {}",
            value(sys!(SYS_setpgid, child, child)),
            group(child) == Ok(child as u64)
        );
        say!("back: {} {}", value(sys!(SYS_setpgid, child, 0)), group(child) == Ok(child as u64));
        say!("into mine: {} {}", value(sys!(SYS_setpgid, child, me)), group(child) == Ok(me));
        say!("into none: {}", value(sys!(SYS_setpgid, child, 1 << 22)));
        ready.pass();
        wait(child);
        let child = spawn(|| {
            let _ = sys!(SYS_setsid);
            ready.pass();
            pause_ms(1_000_000);
            0
        });
        ready.await_pass();
        say!("out of another session: {}", value(sys!(SYS_setpgid, child, me)));
        signal::kill(child, libc::SIGKILL).unwrap();
        wait(child);
        0
    });
    say!("{status}");
    say!("of nobody: {} {}", value(group(1 << 30)), value(sys!(SYS_getsid, 1 << 30)));
    say!("getpgrp: {}", sys!(SYS_getpgrp) == group(0));
}

fn open(pid: i32, flags: u32) -> sys::Result {
    sys!(SYS_pidfd_open, pid, flags)
}

fn pidfd() {
    let child = sleeper();
    let fd = open(child, 0).unwrap() as i32;
    say!("close on exec: {}", value(sys!(SYS_fcntl, fd, libc::F_GETFD)));
    say!("signal 0: {}", value(sys!(SYS_pidfd_send_signal, fd, 0, 0, 0)));
    say!("signal: {}", value(sys!(SYS_pidfd_send_signal, fd, libc::SIGTERM, 0, 0)));
    say!("{}", shown(child, wait_id(libc::P_PIDFD, fd, libc::WEXITED)));
    say!("signal: {}", value(sys!(SYS_pidfd_send_signal, fd, libc::SIGTERM, 0, 0)));
    say!("again: {}", value(wait_id(libc::P_PIDFD, fd, libc::WEXITED).0));
    close(fd);
}

/// It becomes readable when the process has ended.
fn pidfd_poll() {
    let go = Baton::new();
    let child = spawn(|| {
        go.await_pass();
        5
    });
    let fd = open(child, 0).unwrap() as i32;
    let poll = |timeout: i32| {
        let mut request = [libc::pollfd { fd, events: libc::POLLIN, revents: 0 }];
        let ready = sys!(SYS_poll, &mut request, 1, timeout);
        format!("{} {:#x}", value(ready), request[0].revents)
    };
    say!("alive: {}", poll(0));
    go.pass();
    say!("dead: {}", poll(-1));
    say!("{}", wait(child));
    close(fd);
}

fn pidfd_nonblocking() {
    let go = Baton::new();
    let child = spawn(|| {
        go.await_pass();
        5
    });
    let fd = open(child, libc::O_NONBLOCK.cast_unsigned()).unwrap() as i32;
    let flags = sys!(SYS_fcntl, fd, libc::F_GETFL).unwrap() as i32;
    say!("flags: {:#o}", flags & (libc::O_ACCMODE | libc::O_NONBLOCK));
    say!("wait: {}", value(wait_id(libc::P_PIDFD, fd, libc::WEXITED).0));
    let asked_not_to = wait_id(libc::P_PIDFD, fd, libc::WEXITED | libc::WNOHANG);
    say!("wait with WNOHANG: {}", shown(child, asked_not_to));
    sys!(SYS_fcntl, fd, libc::F_SETFL, 0).unwrap();
    go.pass();
    say!("{}", shown(child, wait_id(libc::P_PIDFD, fd, libc::WEXITED)));
    say!("a negative one: {}", value(wait_id(libc::P_PIDFD, -1, libc::WEXITED).0));
    close(fd);
    // The limit of descriptors holds for them as for others.
    let status = ending(|| {
        sys!(SYS_prlimit64, 0, libc::RLIMIT_NOFILE, &[3u64, 3], 0).unwrap();
        say!("one too many: {}", value(open(id(), 0)));
        0
    });
    say!("{status}");
    // As many as a limit may allow at most, there are.
    let status = ending(|| {
        let mut limit = [0u64; 2];
        sys!(SYS_prlimit64, 0, libc::RLIMIT_NOFILE, 0, &mut limit).unwrap();
        limit[0] = limit[1];
        sys!(SYS_prlimit64, 0, libc::RLIMIT_NOFILE, &limit, 0).unwrap();
        let last = sys!(SYS_dup2, 1, limit[1] - 1);
        say!("the last: {} {}", last == Ok(limit[1] - 1), value(sys!(SYS_dup2, 1, limit[1])));
        0
    });
    say!("{status}");
}

/// A descriptor of another process's file.
fn pidfd_getfd() {
    let (ready, go) = (Baton::new(), Baton::new());
    let (input, output) = pipe(0);
    close(input);
    close(output);
    let child = spawn(|| {
        let (input, output) = pipe(0);
        say!("the child's: {input} {output}");
        write(output, b"hello").unwrap();
        ready.pass();
        go.await_pass();
        0
    });
    ready.await_pass();
    let fd = open(child, 0).unwrap() as i32;
    let get = |theirs: i32, flags: u32| sys!(SYS_pidfd_getfd, fd, theirs, flags);
    // The child's pipe had the numbers that this process's had.
    let mine = get(input, 0).unwrap() as i32;
    say!("{:?} {}", read(mine, 10), value(sys!(SYS_fcntl, mine, libc::F_GETFD)));
    say!("none: {} {}", value(get(900, 0)), value(get(-1, 0)));
    say!("flags: {}", value(get(input, 1)));
    say!("no pidfd: {}", value(sys!(SYS_pidfd_getfd, mine, 0, 0)));
    go.pass();
    say!("{}", shown(child, wait_id(libc::P_PIDFD, fd, libc::WEXITED)));
    say!("of nobody: {}", value(get(input, 0)));
    close(mine);
    close(fd);
}

/// Whose siginfo a sender may choose, and that it is the signal's.
fn pidfd_siginfo() {
    let status = ending(|| {
        signal::mask(libc::SIG_BLOCK, u64::MAX);
        let fd = open(id(), 0).unwrap() as i32;
        let by_handle = |number: i32, code: i32, signal: i32| {
            let info = [number, 0, code, 0, id(), 0, 77, 0, 0, 0, 0, 0, 0, 0, 0, 0];
            let info = [info, [0; 16]];
            value(sys!(SYS_pidfd_send_signal, fd, signal, &info, 0))
        };
        for (number, code) in [(10, -1), (12, -1), (0, -1), (10, 0), (10, -6)] {
            say!("{number} {code}: {}", by_handle(number, code, libc::SIGUSR1));
        }
        // What only the kernel, or kill(2), says of itself, a thread may say to itself, but not to its process.
        let info = [libc::SIGUSR1, 0, 0, 0, id(), 0, 0, 0];
        let info = [info, [0; 8], [0; 8], [0; 8]];
        let queue = move || value(sys!(SYS_rt_sigqueueinfo, id(), libc::SIGUSR1, &info));
        say!("by the first thread: {}", queue());
        say!("by another: {}", std::thread::spawn(queue).join().unwrap());
        let to_itself = move || {
            let tid = sys!(SYS_gettid).unwrap();
            value(sys!(SYS_rt_tgsigqueueinfo, id(), tid, libc::SIGUSR1, &info))
        };
        say!("to itself: {}", std::thread::spawn(to_itself).join().unwrap());
        0
    });
    say!("{status}");
}

fn pidfd_errors() {
    say!("of nobody: {}", value(open(1 << 22, 0)));
    say!("of process 0: {}", value(open(0, 0)));
    say!("of -1: {}", value(open(-1, 0)));
    say!("flags: {}", value(open(id(), 1)));
    let fd = open(id(), 0).unwrap() as i32;
    let mut byte = [0u8];
    say!("read: {}", value(sys!(SYS_read, fd, &mut byte, 1)));
    say!("write: {}", value(write(fd, b"x")));
    say!("bad signal: {}", value(sys!(SYS_pidfd_send_signal, fd, 65, 0, 0)));
    say!("flags: {}", value(sys!(SYS_pidfd_send_signal, fd, 0, 0, 0x100)));
    let (input, output) = pipe(0);
    say!("a pipe: {}", value(sys!(SYS_pidfd_send_signal, input, 0, 0, 0)));
    close(input);
    close(output);
    say!("not a child: {}", value(wait_id(libc::P_PIDFD, fd, libc::WEXITED).0));
    close(fd);
}

/// Numbers are used again only when nobody knows them any more.
fn many() {
    let mut last = 0;
    let mut repeated = 0;
    for _ in 0..300 {
        let child = spawn(|| 0);
        repeated += i32::from(child == last);
        last = child;
        wait(child);
    }
    check!(repeated == 0, "a number was used twice in a row {repeated} times");
    let children: Vec<i32> = (0..100).map(|_| sleeper()).collect();
    for &child in &children {
        signal::kill(child, libc::SIGKILL).unwrap();
    }
    let killed = children.iter().filter(|&&child| libc::WIFSIGNALED(wait(child).0)).count();
    say!("{killed}");
}
