//! PID namespaces. Wants to be root (CAP_SYS_ADMIN) on Linux.

use std::sync::atomic::{AtomicU32, Ordering};

use programs::memory::shared_pages;
use programs::process::{
    Baton, close, exit_now, id, pause_ms, pipe, read, spawn, try_wait, wait, wait_until, write,
};
use programs::sys::value;
use programs::{check, say, signal, sys};

fn main() {
    programs::main(&[
        ("numbers", numbers),
        ("signals", signals),
        ("init-dies", init_dies),
        ("last-of-all", last_of_all),
        ("orphans", orphans),
        ("nested", nested),
        ("waiting", waiting),
        ("early-signals", early_signals),
    ]);
}

/// A child that is process 1 of a new namespace; its number here.
fn new_namespace(body: impl FnOnce() -> i32) -> i32 {
    let flags = (libc::CLONE_NEWPID | libc::SIGCHLD) as u64;
    match sys!(SYS_clone, flags, 0, 0, 0, 0) {
        Ok(0) => exit_now(body()),
        Ok(pid) => pid as i32,
        Err(error) => {
            say!("no namespace: {error}");
            exit_now(4)
        }
    }
}

fn parent() -> u64 {
    sys!(SYS_getppid).unwrap()
}

fn numbers() {
    let child = new_namespace(|| {
        let go = Baton::new();
        let inner = spawn(|| {
            go.await_pass();
            say!("I am {} and my parent is {}", id(), parent());
            0
        });
        say!("I am {} and my parent is {}; my child is {inner}", id(), parent());
        say!("thread {}", value(sys!(SYS_gettid)));
        go.pass();
        say!("{}", wait(inner));
        let more: Vec<i32> = (0..3).map(|_| spawn(|| 0)).collect();
        say!("{more:?}");
        more.into_iter().for_each(|child| {
            wait(child);
        });
        say!("group {}", value(sys!(SYS_getpgid, 0)));
        say!("process 1's: {}", value(sys!(SYS_getpgid, 1)));
        say!("nobody outside: {}", value(sys!(SYS_getpgid, 1 << 20)));
        say!("new session: {}", value(sys!(SYS_setsid)));
        0
    });
    say!("not 1 out here: {}, {}", child != 1, wait(child));
}

/// Process 1 is not hurt from inside, but it is from outside.
fn signals() {
    let child = new_namespace(|| {
        for number in [libc::SIGTERM, libc::SIGKILL, libc::SIGSTOP, libc::SIGUSR1] {
            signal::kill(1, number).unwrap();
        }
        let inner = spawn(|| {
            say!("from a child: {}", value(signal::kill(1, libc::SIGKILL)));
            0
        });
        say!("{}", wait(inner));
        // What it handles it gets.
        signal::recorded(libc::SIGUSR2, 0);
        signal::kill(1, libc::SIGUSR2).unwrap();
        say!("unharmed, got {}", signal::taken_names());
        3
    });
    say!("{}", wait(child));
    let ready = Baton::new();
    let child = new_namespace(|| {
        ready.pass();
        loop {
            pause_ms(1_000_000);
        }
    });
    ready.await_pass();
    // Without a handler only these two get through.
    signal::kill(child, libc::SIGTERM).unwrap();
    pause_ms(5);
    say!("after SIGTERM: {:?}", try_wait(child, libc::WNOHANG).map(|(pid, _)| pid));
    signal::kill(child, libc::SIGKILL).unwrap();
    say!("{}", wait(child));
    // From inside a sender has the number 0 if it is outside.
    let (input, output) = pipe(0);
    let child = new_namespace(|| {
        signal::recorded(libc::SIGUSR1, 0);
        ready.pass();
        wait_until(|| signal::count() > 0);
        let seen = signal::take()[0];
        let _ = write(output, &[seen.pid as u8]);
        0
    });
    ready.await_pass();
    signal::kill(child, libc::SIGUSR1).unwrap();
    say!("sent by {:?}, {}", read(input, 1).unwrap(), wait(child));
    close(input);
    close(output);
}

/// With process 1 the whole namespace ends.
fn init_dies() {
    let (input, output) = pipe(0);
    let child = new_namespace(|| {
        for depth in 0..3 {
            spawn(move || {
                for _ in 0..depth {
                    spawn(|| {
                        loop {
                            pause_ms(1_000_000);
                        }
                    });
                }
                let _ = write(output, b"x");
                loop {
                    pause_ms(1_000_000);
                }
            });
        }
        for _ in 0..3 {
            let _ = read(input, 1);
        }
        9
    });
    close(output);
    say!("{}", wait(child));
    // The last writer is gone with them.
    sys!(SYS_fcntl, input, libc::F_SETFL, libc::O_NONBLOCK).unwrap();
    say!("{:?}", read(input, 1));
    close(input);
}

/// Whatever the others are at, children of process 1 or orphans, and however it ends: they are gone before.
fn last_of_all() {
    fn forever(kind: usize) {
        match kind {
            0 => loop {
                std::hint::spin_loop();
            },
            1 => pause_ms(1_000_000),
            2 => drop(signal::raise(libc::SIGSTOP)),
            _ => std::thread::scope(|scope| {
                scope.spawn(|| pause_ms(1_000_000));
            }),
        }
    }
    for is_killed in [false, true] {
        let (input, output) = pipe(libc::O_NONBLOCK);
        let child = new_namespace(|| {
            let ready = Baton::new();
            for (kind, is_orphan) in [0, 1, 2, 3].into_iter().zip([true, false].into_iter().cycle())
            {
                let body = || {
                    ready.pass();
                    forever(kind);
                    0
                };
                if is_orphan {
                    wait(spawn(|| {
                        spawn(body);
                        0
                    }));
                } else {
                    spawn(body);
                }
            }
            for _ in 0..4 {
                ready.await_pass();
            }
            if is_killed {
                // From inside that does nothing; a fault does.
                // SAFETY: nothing is there, and nothing comes after it.
                unsafe { std::ptr::without_provenance_mut::<u8>(16).write_volatile(0) };
            }
            10
        });
        close(output);
        say!("{}", wait(child));
        say!("{:?}", read(input, 1));
        close(input);
    }
}

/// Orphans go to process 1 of their namespace.
fn orphans() {
    let child = new_namespace(|| {
        let go = Baton::new();
        let middle = spawn(|| {
            spawn(|| {
                go.await_pass();
                wait_until(|| parent() == 1);
                say!("adopted by {}", parent());
                12
            });
            0
        });
        say!("{}", wait(middle));
        go.pass();
        say!("{}", try_wait(-1, 0).unwrap().1);
        say!("{:?}", try_wait(-1, 0).err());
        0
    });
    say!("{}", wait(child));
}

fn nested() {
    fn level(depth: i32) -> i32 {
        check!(id() == 1, "I am {}", id());
        if depth == 5 {
            return 5;
        }
        let child = new_namespace(|| level(depth + 1));
        // Seen from the outer namespace it has an ordinary number.
        check!(child == 2, "the child is {child}");
        libc::WEXITSTATUS(wait(child).0)
    }
    let child = new_namespace(|| level(1));
    say!("{}", wait(child));
    // There is an end to it: 32 levels.
    fn deeper(depth: i32) -> i32 {
        let flags = (libc::CLONE_NEWPID | libc::SIGCHLD) as u64;
        match sys!(SYS_clone, flags, 0, 0, 0, 0) {
            Ok(0) => exit_now(deeper(depth + 1)),
            Ok(pid) => libc::WEXITSTATUS(wait(pid as i32).0),
            Err(error) => {
                say!("no more: {error}");
                depth
            }
        }
    }
    let levels = deeper(0);
    say!("about 32 levels: {}", (29..=32).contains(&levels));
}

/// wait4 and waitid speak of numbers in the caller's namespace.
fn waiting() {
    let child = new_namespace(|| {
        let inner = spawn(|| 7);
        let mut info = [0i32; 32];
        sys!(SYS_waitid, libc::P_PID, inner, &mut info, libc::WEXITED, 0).unwrap();
        say!("inside: child {inner}, told {}", info[4]);
        0
    });
    let mut info = [0i32; 32];
    sys!(SYS_waitid, libc::P_PID, child, &mut info, libc::WEXITED, 0).unwrap();
    say!("outside: {}", info[4] == child);
}

/// Children are killed by number as soon as they have one, or before: in a namespace of their own, where nobody else is
/// hit. Each ends.
fn early_signals() {
    let child = new_namespace(|| {
        // SAFETY: a page of its own that is never unmapped.
        let newest = unsafe { AtomicU32::from_ptr(shared_pages(1).cast()) };
        newest.store(u32::MAX, Ordering::Relaxed);
        let killers: Vec<i32> = (1..3)
            .map(|ahead| {
                spawn(move || {
                    loop {
                        let number = newest.load(Ordering::Relaxed).saturating_add(ahead);
                        if number < u32::MAX {
                            let _ = signal::kill(number as i32, libc::SIGKILL);
                        }
                    }
                })
            })
            .collect();
        let mut killed = 0;
        for _ in 0..400 {
            let child = spawn(|| {
                loop {
                    pause_ms(1_000_000);
                }
            });
            newest.store(child as u32, Ordering::Relaxed);
            let _ = signal::kill(child, libc::SIGKILL);
            killed += u32::from(libc::WIFSIGNALED(wait(child).0));
        }
        for killer in killers {
            let _ = signal::kill(killer, libc::SIGKILL);
            wait(killer);
        }
        say!("{killed} killed");
        0
    });
    say!("{}", wait(child));
}
