//! Signals between relatives: stop and continue, SIGCHLD, process groups.

use programs::process::{
    Baton, Status, close, ending, exit_now, id, pause_ms, pipe, read, spawn, try_wait, wait,
    wait_until,
};
use programs::signal::{self, kill, mask, name, raise, record, recorded, set};
use programs::sys::value;
use programs::{check, say, sys};

fn main() {
    let arguments: Vec<String> = std::env::args().collect();
    match arguments.get(1).map(String::as_str) {
        Some("@exit") => exit_now(7),
        Some("@parent") => exit_now(end_a_child_of_before(&arguments[2], &arguments[3])),
        _ => {}
    }
    programs::main(&[
        ("stop", stop),
        ("stop-signals", stop_signals),
        ("sigchld", sigchld),
        ("no-cld-stop", no_cld_stop),
        ("clone-children", clone_children),
        ("exec-children", exec_children),
        ("exec-parents", exec_parents),
        ("groups", groups),
        ("orphaned-groups", orphaned_groups),
        ("during-vfork", during_vfork),
        ("queries", queries),
    ]);
}

fn next(child: i32) -> Status {
    try_wait(child, libc::WUNTRACED | libc::WCONTINUED).unwrap().1
}

fn stop() {
    let (input, output) = pipe(0);
    let child = spawn(|| {
        loop {
            pause_ms(1);
            let _ = programs::process::write(output, b".");
        }
    });
    check!(read(input, 1).is_ok(), "read");
    for _ in 0..3 {
        kill(child, libc::SIGSTOP).unwrap();
        say!("{}", next(child));
        say!(
            "told once: {:?}",
            try_wait(child, libc::WUNTRACED | libc::WNOHANG).map(|(pid, _)| pid)
        );
        kill(child, libc::SIGCONT).unwrap();
        say!("{}", next(child));
    }
    kill(child, libc::SIGSTOP).unwrap();
    say!("{}", next(child));
    // Signals wait while it is stopped, except the one that kills.
    kill(child, libc::SIGTERM).unwrap();
    say!("still stopped: {:?}", try_wait(child, libc::WNOHANG).map(|(pid, _)| pid));
    kill(child, libc::SIGCONT).unwrap();
    say!("{}", wait(child));
    let child = spawn(|| raise_and(libc::SIGSTOP));
    say!("{}", next(child));
    kill(child, libc::SIGKILL).unwrap();
    say!("{}", next(child));
    programs::process::close(input);
    programs::process::close(output);
}

fn raise_and(number: i32) -> i32 {
    let _ = raise(number);
    0
}

/// The terminal's stop signals can be handled and ignored; SIGCONT continues even if it is ignored or masked.
fn stop_signals() {
    for number in [libc::SIGTSTP, libc::SIGTTIN, libc::SIGTTOU] {
        let child = spawn(|| {
            // In a group without a parent outside of it they would do nothing.
            sys!(SYS_setpgid, 0, 0).unwrap();
            raise_and(number)
        });
        say!("{}", next(child));
        kill(child, libc::SIGCONT).unwrap();
        say!("{}", wait(child));
        let status = ending(|| {
            signal::dispose(number, libc::SIG_IGN);
            raise_and(number)
        });
        say!("ignored: {status}");
    }
    let child = spawn(|| {
        signal::dispose(libc::SIGCONT, libc::SIG_IGN);
        mask(libc::SIG_BLOCK, set(&[libc::SIGCONT]));
        raise_and(libc::SIGSTOP)
    });
    say!("{}", next(child));
    kill(child, libc::SIGCONT).unwrap();
    say!("{}", wait(child));
    // A handler for SIGCONT runs when it goes on, and a pending stop is forgotten.
    let child = spawn(|| {
        recorded(libc::SIGCONT, 0);
        mask(libc::SIG_BLOCK, set(&[libc::SIGTSTP]));
        let _ = raise(libc::SIGTSTP);
        let _ = raise(libc::SIGCONT);
        say!("pending {}, seen {}", signal::names(signal::pending()), signal::taken_names());
        0
    });
    say!("{}", next(child));
}

fn told(seen: signal::Seen, child: i32) -> String {
    let code = match seen.code {
        libc::CLD_EXITED => "exited",
        libc::CLD_KILLED => "killed",
        libc::CLD_DUMPED => "dumped",
        libc::CLD_STOPPED => "stopped",
        libc::CLD_CONTINUED => "continued",
        _ => "?",
    };
    format!("{} {code} {} this child: {}", name(seen.signal), seen.value, seen.pid == child)
}

fn await_signal() -> signal::Seen {
    wait_until(|| signal::count() > 0);
    signal::take()[0]
}

fn sigchld() {
    recorded(libc::SIGCHLD, libc::SA_RESTART);
    let child = spawn(|| 42);
    say!("{}", told(await_signal(), child));
    wait(child);
    let child = spawn(|| {
        pause_ms(1_000_000);
        0
    });
    for number in [libc::SIGSTOP, libc::SIGCONT, libc::SIGTERM] {
        kill(child, number).unwrap();
        say!("{}", told(await_signal(), child));
    }
    wait(child);
    signal::dispose(libc::SIGCHLD, libc::SIG_DFL);
}

fn no_cld_stop() {
    signal::handle(libc::SIGCHLD, record, libc::SA_NOCLDSTOP, &[]).unwrap();
    let child = spawn(|| raise_and(libc::SIGSTOP));
    say!("{}", next(child));
    kill(child, libc::SIGCONT).unwrap();
    let seen = await_signal();
    say!("{}", told(seen, child));
    wait(child);
    // Neither zombie nor wait, but the signal still comes.
    signal::handle(libc::SIGCHLD, record, libc::SA_NOCLDWAIT, &[]).unwrap();
    let child = spawn(|| 1);
    say!("{}", told(await_signal(), child));
    say!("{:?}", try_wait(child, 0).err());
    signal::dispose(libc::SIGCHLD, libc::SIG_DFL);
}

/// Who ignores SIGCHLD still hears of children that were made to end with another signal, or none.
fn clone_children() {
    signal::dispose(libc::SIGCHLD, libc::SIG_IGN);
    for exit_signal in [0, libc::SIGUSR1, libc::SIGCHLD] {
        recorded(libc::SIGUSR1, libc::SA_RESTART);
        let child = sys!(SYS_clone, exit_signal, 0, 0, 0, 0).unwrap() as i32;
        if child == 0 {
            exit_now(6);
        }
        let (plain, clones) = (wait_with(child, 0), wait_with(child, libc::__WCLONE));
        say!("ends with {exit_signal}: {plain} {clones}");
    }
    signal::dispose(libc::SIGUSR1, libc::SIG_DFL);
    signal::dispose(libc::SIGCHLD, libc::SIG_DFL);
}

/// However a child was made to end, with another program it ends with SIGCHLD.
fn exec_children() {
    for exit_signal in [0, libc::SIGUSR1, libc::SIGCHLD] {
        signal::take();
        recorded(libc::SIGUSR1, libc::SA_RESTART);
        recorded(libc::SIGCHLD, libc::SA_RESTART);
        let child = sys!(SYS_clone, exit_signal, 0, 0, 0, 0).unwrap() as i32;
        if child == 0 {
            let args = [c"x".as_ptr(), c"@exit".as_ptr(), std::ptr::null()];
            let path = c"/proc/self/exe".as_ptr();
            let _ = sys!(SYS_execve, path, args.as_ptr(), args[2..].as_ptr());
            exit_now(6);
        }
        say!("made to end with {exit_signal}: {}", told(await_signal(), child));
        say!("{}", wait(child));
    }
    signal::dispose(libc::SIGUSR1, libc::SIG_DFL);
    signal::dispose(libc::SIGCHLD, libc::SIG_DFL);
}

/// Whatever signal a process chose for its children, the program that it becomes did not.
fn exec_parents() {
    for exit_signal in [0, libc::SIGUSR1, libc::SIGCHLD] {
        let status = ending(|| {
            mask(libc::SIG_SETMASK, set(&[libc::SIGUSR1, libc::SIGCHLD]));
            let (input, output) = pipe(0);
            let child = sys!(SYS_clone, exit_signal, 0, 0, 0, 0).unwrap() as i32;
            if child == 0 {
                close(output);
                let _ = read(input, 1);
                exit_now(6);
            }
            let text = |number: i32| std::ffi::CString::new(number.to_string()).unwrap();
            let (output, child) = (text(output), text(child));
            let null = std::ptr::null();
            let args = [c"x".as_ptr(), c"@parent".as_ptr(), output.as_ptr(), child.as_ptr(), null];
            let path = c"/proc/self/exe".as_ptr();
            let _ = sys!(SYS_execve, path, args.as_ptr(), args[4..].as_ptr());
            98
        });
        say!("made to end with {exit_signal}: {status}");
    }
}

/// Lets a child end that was made before `execve`. The number of the signal that comes.
fn end_a_child_of_before(output: &str, child: &str) -> i32 {
    close(output.parse().unwrap());
    let signals = set(&[libc::SIGUSR1, libc::SIGCHLD]);
    let number = sys!(SYS_rt_sigtimedwait, &signals, 0, 0, signal::SET_BYTES).unwrap() as i32;
    say!("{}", wait_with(child.parse().unwrap(), 0));
    say!("{}", wait_with(child.parse().unwrap(), libc::__WCLONE));
    number
}

fn wait_with(child: i32, options: i32) -> String {
    match try_wait(child, options) {
        Ok((pid, status)) => format!("{} {status}", pid == child),
        Err(error) => error.to_string(),
    }
}

/// Who stops where nobody is left to continue it goes on, and is told; terminal stop signals do not stop it.
fn orphaned_groups() {
    sys!(SYS_prctl, libc::PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0).unwrap();
    let in_own_group = |number: i32| {
        spawn(|| {
            sys!(SYS_setpgid, 0, 0).unwrap();
            recorded(libc::SIGHUP, 0);
            recorded(libc::SIGCONT, 0);
            let _ = raise(number);
            let seen: Vec<String> = signal::take()
                .iter()
                .map(|seen| format!("{} by {:#x}", name(seen.signal), seen.code))
                .collect();
            say!("after {}: {}", name(number), seen.join(", "));
            0
        })
    };
    // Its parent, of another group of the session, ends; or the parent of the same group does, that had such a parent.
    for number in [libc::SIGSTOP, libc::SIGTSTP] {
        let parent = ending(|| {
            sys!(SYS_setsid).unwrap();
            next(in_own_group(number));
            0
        });
        say!("{parent}, {}", wait(-1));
    }
    // Many at once, each in a group of its own, stopped or not.
    let parent = ending(|| {
        sys!(SYS_setsid).unwrap();
        for stops in [true, false].into_iter().cycle().take(100) {
            let (input, output) = pipe(0);
            let child = spawn(|| {
                sys!(SYS_setpgid, 0, 0).unwrap();
                recorded(libc::SIGHUP, 0);
                let parent = sys!(SYS_getppid);
                let _ = programs::process::write(output, b".");
                if stops {
                    let _ = raise(libc::SIGSTOP);
                }
                wait_until(|| sys!(SYS_getppid) != parent);
                pause_ms(20);
                signal::take().len() as i32
            });
            let _ = programs::process::read(input, 1);
            if stops {
                next(child);
            }
            programs::process::close(input);
            programs::process::close(output);
        }
        0
    });
    let hung_up = (0..100).filter(|_| wait(-1).exited_with(1)).count();
    say!("{parent}, {hung_up} of 100 were hung up");
    let leader = spawn(|| {
        sys!(SYS_setsid).unwrap();
        ending(|| {
            sys!(SYS_setpgid, 0, 0).unwrap();
            next(spawn(|| {
                recorded(libc::SIGHUP, 0);
                let _ = raise(libc::SIGSTOP);
                say!("in its parent's group: {}", signal::taken_names());
                0
            }));
            0
        });
        // The subreaper above is of another session: this one must not end before.
        pause_ms(1_000_000);
        0
    });
    say!("{}", wait(-1));
    kill(leader, libc::SIGKILL).unwrap();
    say!("{}", wait(-1));
    // In a group that nobody cares for already.
    let status = ending(|| {
        sys!(SYS_setsid).unwrap();
        for number in [libc::SIGTSTP, libc::SIGTTIN, libc::SIGTTOU] {
            raise(number).unwrap();
        }
        let (input, output) = pipe(0);
        ending(|| {
            let parent = sys!(SYS_getpid);
            spawn(|| {
                wait_until(|| sys!(SYS_getppid) != parent);
                raise(libc::SIGTSTP).unwrap();
                let _ = programs::process::write(output, b".");
                0
            });
            0
        });
        say!("goes on: {:?}", read(input, 1).map(|bytes| bytes.len()));
        0
    });
    say!("{status}, {}", wait(-1));
    sys!(SYS_prctl, libc::PR_SET_CHILD_SUBREAPER, 0, 0, 0, 0).unwrap();
}

/// Who waits for a `vfork` child ends by what ends it, at once, and heeds all else later.
fn during_vfork() {
    for number in [libc::SIGTERM, libc::SIGUSR1, 40, libc::SIGKILL, libc::SIGUSR2] {
        let (go, to_go) = pipe(0);
        // However late the parent is, it has a handler.
        recorded(libc::SIGUSR2, 0);
        let parent = spawn(|| {
            let flags = libc::CLONE_VFORK | libc::SIGCHLD;
            if sys!(SYS_clone, flags, 0, 0, 0, 0) == Ok(0) {
                exit_now(read(go, 1).map_or(1, |_| 0));
            }
            say!("seen {}", signal::taken_names());
            9
        });
        pause_ms(20);
        kill(parent, number).unwrap();
        if number == libc::SIGUSR2 {
            pause_ms(20);
            say!("waits: {:?}", try_wait(parent, libc::WNOHANG).map(|(pid, _)| pid));
            let _ = programs::process::write(to_go, b".");
        }
        say!("{}: {}", name(number), wait(parent));
        let _ = programs::process::write(to_go, b".");
        programs::process::close(go);
        programs::process::close(to_go);
    }
    signal::dispose(libc::SIGUSR2, libc::SIG_DFL);
}

fn groups() {
    let baton = Baton::new();
    let leader = spawn(|| {
        sys!(SYS_setpgid, 0, 0).unwrap();
        let members: Vec<i32> = (0..3)
            .map(|_| {
                spawn(|| {
                    baton.pass();
                    pause_ms(1_000_000);
                    0
                })
            })
            .collect();
        recorded(libc::SIGTERM, 0);
        baton.pass();
        let statuses: Vec<String> = members.into_iter().map(|pid| wait(pid).to_string()).collect();
        say!("{}, leader saw {}", statuses.join(", "), signal::taken_names());
        0
    });
    for _ in 0..4 {
        baton.await_pass();
    }
    let killed = kill(-leader, libc::SIGTERM);
    let status = wait(leader);
    say!("kill: {}, {status}", value(killed));
    say!("empty group: {}", value(kill(-leader, libc::SIGTERM)));
    // To one's own group.
    let child = spawn(|| {
        sys!(SYS_setpgid, 0, 0).unwrap();
        let inner = spawn(|| {
            pause_ms(1_000_000);
            0
        });
        signal::dispose(libc::SIGHUP, libc::SIG_IGN);
        kill(0, libc::SIGHUP).unwrap();
        say!("{}", wait(inner));
        0
    });
    say!("{}", wait(child));
}

/// Stops and continuations seen through waitid, which can look without taking.
fn queries() {
    let go = Baton::new();
    let child = spawn(|| {
        let status = raise_and(libc::SIGSTOP);
        go.await_pass();
        status
    });
    for options in [
        libc::WSTOPPED | libc::WNOWAIT,
        libc::WSTOPPED,
        libc::WSTOPPED | libc::WNOHANG,
        libc::WEXITED | libc::WNOHANG,
    ] {
        let mut info = [0i32; 32];
        let result = sys!(SYS_waitid, libc::P_PID, child, &mut info, options, 0);
        say!(
            "{} code {} status {} this child: {}",
            value(result),
            info[2],
            info[6],
            info[4] == child
        );
    }
    kill(child, libc::SIGCONT).unwrap();
    let mut info = [0i32; 32];
    let result = sys!(SYS_waitid, libc::P_PID, child, &mut info, libc::WCONTINUED, 0);
    say!("{} code {} status {}", value(result), info[2], info[6]);
    go.pass();
    check!(id() != child, "the child is me");
    say!("{}", wait(child));
}
