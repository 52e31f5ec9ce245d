//! execve(2): what a new program keeps, what it loses, and what is refused.
//!
//! Run by itself with `@WHAT` as its first argument, the program tells what it was given.

use std::ffi::{CStr, CString};
use std::process::{Command, Stdio};

use programs::process::{close, ending, exit_now, pipe, read, spawn, try_wait, wait, write};
use programs::sys::value;
use programs::{check, memory, say, signal, sys};

const SELF: &CStr = c"/proc/self/exe";

fn main() {
    let mut args = std::env::args().skip(1);
    if let Some(role) = args.next().filter(|arg| arg.starts_with('@')) {
        become_role(&role, &args.collect::<Vec<_>>());
    }
    programs::main(&[
        ("arguments", arguments),
        ("many-arguments", many_arguments),
        ("descriptors", descriptors),
        ("signals", signals),
        ("identity", identity),
        ("errors", errors),
        ("not-programs", not_programs),
        ("broken-elf", broken_elf),
        ("copy", copy),
        ("from-thread", from_thread),
        ("from-thread-with-its-own", from_thread_with_its_own),
        ("from-thread-amid-signals", from_thread_amid_signals),
        ("from-thread-of-stopped", from_thread_of_stopped),
        ("chain", chain),
        ("memory", memory_is_gone),
        ("command", command),
        ("vfork", vfork),
        ("busy", busy),
    ]);
}

/// What the program does when it has executed itself.
fn become_role(role: &str, args: &[String]) -> ! {
    match role {
        "@tell" => {
            let name = std::env::args_os().next();
            say!("I am {name:?} with {args:?}");
            let mut environment: Vec<_> = std::env::vars().collect();
            environment.sort();
            say!("environment {environment:?}");
        }
        "@lengths" => {
            let bytes: usize = args.iter().map(String::len).sum();
            say!(
                "{} arguments of {bytes} bytes, {:x}",
                args.len(),
                memory::checksum(args.concat().as_bytes())
            );
        }
        "@open" => {
            let open = |fd: &String| {
                let fd: i32 = fd.parse().unwrap();
                value(sys!(SYS_fcntl, fd, libc::F_GETFD))
            };
            say!("{:?}", args.iter().map(open).collect::<Vec<_>>());
        }
        "@signals" => {
            say!("mask {}", signal::names(signal::mask(libc::SIG_BLOCK, 0)));
            say!("pending {}", signal::names(signal::pending()));
            for number in [libc::SIGUSR1, libc::SIGUSR2, libc::SIGCHLD] {
                let mut old = [0u64; 4];
                sys!(SYS_rt_sigaction, number, 0, &mut old, signal::SET_BYTES).unwrap();
                let action = match old[0] {
                    0 => "default",
                    1 => "ignored",
                    _ => "handled",
                };
                say!("{} {action}", signal::name(number));
            }
            let mut stack = [0u64; 3];
            sys!(SYS_sigaltstack, 0, &mut stack).unwrap();
            // std has given its main thread one again; ours was the 7 pages.
            check!(stack[2] != 7 * 4096, "the alternate stack outlived exec");
        }
        "@id" => {
            let own = [programs::process::id().to_string(), sys!(SYS_getppid).unwrap().to_string()];
            let tid = sys!(SYS_gettid).unwrap().to_string();
            say!(
                "pid kept: {}, parent kept: {}, leads: {}",
                args[0] == own[0],
                args[1] == own[1],
                tid == own[0]
            );
        }
        "@scheduling" => {
            let mut cpus = [0u64; 16];
            sys!(SYS_sched_getaffinity, 0, size_of_val(&cpus), &mut cpus).unwrap();
            let mut priority = 0i32;
            sys!(SYS_sched_getparam, 0, &mut priority).unwrap();
            say!(
                "policy {:x} priority {priority} nice {}, on {} CPU, slack {}",
                sys!(SYS_sched_getscheduler, 0).unwrap(),
                20 - sys!(SYS_getpriority, libc::PRIO_PROCESS, 0).unwrap() as i64,
                cpus.iter().map(|word| word.count_ones()).sum::<u32>(),
                sys!(SYS_prctl, libc::PR_GET_TIMERSLACK, 0, 0, 0, 0).unwrap(),
            );
        }
        "@chain" => {
            let left: u32 = args[0].parse().unwrap();
            if left > 0 {
                let _ = run(&["exec", "@chain", &(left - 1).to_string()], &[]);
            }
            say!("the chain ends");
        }
        "@until" => {
            let fds: Vec<i32> = args.iter().map(|fd| fd.parse().unwrap()).collect();
            write(fds[0], b"!").unwrap();
            read(fds[1], 1).unwrap();
        }
        "@exit" => std::process::exit(args[0].parse().unwrap()),
        "@echo" => {
            let mut line = String::new();
            std::io::stdin().read_line(&mut line).unwrap();
            println!("echo {line:?}");
            eprintln!("on standard error");
        }
        _ => std::process::exit(99),
    }
    std::process::exit(programs::status());
}

/// A file is either written or run.
fn busy() {
    let name = c"busy";
    std::fs::copy("/proc/self/exe", "busy").unwrap();
    let execute = |args: &[CString]| {
        let args = pointers(args);
        sys!(SYS_execve, name.as_ptr(), args.as_ptr(), args[args.len() - 1..].as_ptr())
    };
    let open = |flags: i32| match sys!(SYS_open, name.as_ptr(), flags, 0) {
        Ok(fd) => {
            close(fd as i32);
            "opened".into()
        }
        Err(error) => error.to_string(),
    };
    for flags in [libc::O_WRONLY, libc::O_RDWR | libc::O_APPEND] {
        let fd = sys!(SYS_open, name.as_ptr(), flags, 0).unwrap() as i32;
        say!("written: {}", value(execute(&[])));
        close(fd);
    }
    let ((ready, is_ready), (go, to_go)) = (pipe(0), pipe(0));
    let child = spawn(|| {
        let words = ["busy", "@until", &is_ready.to_string(), &go.to_string()];
        let _ = execute(&words.map(|word| CString::new(word).unwrap()));
        1
    });
    read(ready, 1).unwrap();
    say!("run: to read {}, to write {}", open(libc::O_RDONLY), open(libc::O_WRONLY));
    say!("to cut off {}", open(libc::O_RDONLY | libc::O_TRUNC));
    say!("cut off {}", value(sys!(SYS_truncate, name.as_ptr(), 0)));
    say!(
        "run once more: {}",
        ending(|| {
            let words = ["busy", "@exit", "7"].map(|word| CString::new(word).unwrap());
            let _ = execute(&words);
            1
        })
    );
    say!("still run: {}", open(libc::O_WRONLY));
    write(to_go, b"!").unwrap();
    say!("{} {}", wait(child), open(libc::O_WRONLY | libc::O_TRUNC));
    sys!(SYS_unlink, name.as_ptr()).unwrap();
    for fd in [ready, is_ready, go, to_go] {
        close(fd);
    }
}

fn pointers(strings: &[CString]) -> Vec<*const libc::c_char> {
    strings.iter().map(|string| string.as_ptr()).chain([std::ptr::null()]).collect()
}

/// Executes this file; returns only if that fails.
fn run(args: &[&str], environment: &[&str]) -> sys::Result {
    let c_strings = |strings: &[&str]| -> Vec<CString> {
        strings.iter().map(|&string| CString::new(string).unwrap()).collect()
    };
    let (args, environment) = (c_strings(args), c_strings(environment));
    let (args, environment) = (pointers(&args), pointers(&environment));
    sys!(SYS_execve, SELF.as_ptr(), args.as_ptr(), environment.as_ptr())
}

/// How a child ends that executes this file.
fn child(args: &[&str], environment: &[&str]) -> String {
    ending(|| {
        say!("not executed: {}", value(run(args, environment)));
        98
    })
    .to_string()
}

fn execute(path: &CStr) -> sys::Result {
    let args = [c"x".as_ptr(), c"@exit".as_ptr(), c"52".as_ptr(), std::ptr::null()];
    sys!(SYS_execve, path.as_ptr(), args.as_ptr(), args[3..].as_ptr())
}

fn arguments() {
    say!(
        "{}",
        child(&["a name", "@tell", "one", "", "three\nlines", "ünï"], &["A=1", "B=", "C=x=y"])
    );
    say!("{}", child(&["", "@tell"], &[]));
    say!("{}", child(&["x", "@exit", "77"], &["PATH=/nowhere"]));
    // No environment at all counts as an empty one.
    let status = ending(|| {
        let args = [c"x".as_ptr(), c"@tell".as_ptr(), std::ptr::null()];
        let _ = sys!(SYS_execve, SELF.as_ptr(), args.as_ptr(), 0);
        98
    });
    say!("{status}");
}

fn many_arguments() {
    let long = "y".repeat(100_000);
    let mut args = vec!["x", "@lengths"];
    args.extend(std::iter::repeat_n("argument", 5_000));
    args.push(&long);
    say!("{}", child(&args, &[]));
    // One string may have at most 32 pages, its end included.
    for len in [131_070, 131_071, 131_072] {
        let long = "z".repeat(len);
        say!("{len}: {}", child(&["x", "@lengths", &long], &[]));
    }
    // All of them at most a quarter of the stack's limit: 2 MiB where that is 8.
    let long = "w".repeat(100_000);
    let mut args = vec!["x", "@lengths"];
    args.extend(std::iter::repeat_n(long.as_str(), 30));
    let status = ending(|| {
        let limit = libc::rlimit64 { rlim_cur: 8 << 20, rlim_max: 8 << 20 };
        sys!(SYS_prlimit64, 0, libc::RLIMIT_STACK, &limit, 0).unwrap();
        say!("too many: {}", value(run(&args, &[])));
        0
    });
    say!("{status}");
}

fn descriptors() {
    let (kept, gone) = (pipe(0), pipe(libc::O_CLOEXEC));
    let copy = sys!(SYS_dup, gone.0).unwrap();
    let closing = sys!(SYS_fcntl, kept.0, libc::F_DUPFD_CLOEXEC, 0).unwrap();
    let fds =
        [kept.0, kept.1, gone.0, gone.1, copy as i32, closing as i32].map(|fd| fd.to_string());
    let mut args = vec!["x", "@open"];
    args.extend(fds.iter().map(String::as_str));
    say!("{}", child(&args, &[]));
    for fd in [kept.0, kept.1, gone.0, gone.1, copy as i32, closing as i32] {
        close(fd);
    }
}

/// Ignored stays ignored, handled becomes default; mask and pending signals stay.
fn signals() {
    let status = ending(|| {
        signal::recorded(libc::SIGUSR1, 0);
        signal::dispose(libc::SIGUSR2, libc::SIG_IGN);
        signal::dispose(libc::SIGCHLD, libc::SIG_DFL);
        let stack = [memory::pages(7) as u64, 0, 7 * 4096];
        sys!(SYS_sigaltstack, &stack, 0).unwrap();
        signal::mask(libc::SIG_SETMASK, signal::set(&[libc::SIGTERM, libc::SIGHUP]));
        signal::raise(libc::SIGTERM).unwrap();
        let _ = run(&["x", "@signals"], &[]);
        98
    });
    say!("{status}");
}

fn identity() {
    let parent = programs::process::id().to_string();
    let status = ending(|| {
        let own = programs::process::id().to_string();
        let _ = run(&["x", "@id", &own, &parent], &[]);
        98
    });
    say!("{status}");
}

fn errors() {
    let long = CString::new("a/".repeat(2_100)).unwrap();
    let long_name = CString::new("n".repeat(256)).unwrap();
    for path in [c"no-such-file", c"no/such/dir", c"", c"/", c"/proc/self/exe/x", &long, &long_name]
    {
        let shown: String = path.to_string_lossy().chars().take(20).collect();
        say!("{shown:?}: {}", value(execute(path)));
    }
    let nothing = [0u64; 1];
    say!("bad path: {}", value(sys!(SYS_execve, 16u64, &nothing, &nothing)));
    say!("bad argv: {}", value(sys!(SYS_execve, SELF.as_ptr(), 16u64, &nothing)));
    let bad = [c"x".as_ptr() as u64, 16, 0];
    say!("bad argument: {}", value(sys!(SYS_execve, SELF.as_ptr(), &bad, &nothing)));
    let bad = [0xffff_8000_0000_0000u64, 0];
    say!("bad variable: {}", value(sys!(SYS_execve, SELF.as_ptr(), &nothing, &bad)));
    // After all of that this program still is what it was.
    say!("alive");
}

fn file(name: &CStr, contents: &[u8], mode: u32) {
    let flags = libc::O_CREAT | libc::O_WRONLY | libc::O_TRUNC;
    let fd = sys!(SYS_open, name.as_ptr(), flags, mode).unwrap() as i32;
    check!(write(fd, contents) == Ok(contents.len() as u64), "cannot write {name:?}");
    close(fd);
}

fn not_programs() {
    file(c"text", b"just text\n", 0o755);
    file(c"empty", b"", 0o755);
    file(c"plain", b"\x7fELF", 0o644);
    file(c"short", b"\x7fELF\x02\x01\x01", 0o755);
    sys!(SYS_mkdir, c"directory".as_ptr(), 0o755).unwrap();
    for name in [c"text", c"empty", c"plain", c"short", c"directory"] {
        say!("{name:?}: {}", value(execute(name)));
    }
    for name in [c"text", c"empty", c"plain", c"short"] {
        sys!(SYS_unlink, name.as_ptr()).unwrap();
    }
    sys!(SYS_rmdir, c"directory".as_ptr()).unwrap();
}

/// Copies of this program with one thing wrong are refused before anything is lost.
fn broken_elf() {
    let image = std::fs::read("/proc/self/exe").unwrap();
    let word = |at: usize| u64::from_le_bytes(image[at..at + 8].try_into().unwrap());
    let headers = word(32) as usize;
    let breakages: [(&str, usize, &[u8]); 8] = [
        ("magic", 0, b"\x7fELG"),
        ("type", 16, &[1, 0]),
        ("machine", 18, &[40, 0]),
        ("header size", 54, &[8, 0]),
        ("no headers", 56, &[0, 0]),
        ("headers beyond the end", 32, &[0xff; 7]),
        ("segment memory", headers + 40, &[0xff; 8]),
        ("segment offset", headers + 8, &[1, 0xf0, 0xff, 0xff, 0xff, 0xff, 0xff, 0x7f]),
    ];
    for (what, at, bytes) in breakages {
        let mut broken = image.clone();
        broken[at..at + bytes.len()].copy_from_slice(bytes);
        file(c"broken", &broken, 0o755);
        let status = ending(|| {
            let _ = execute(c"broken");
            50
        });
        // Some are found only when the old program is gone; then the process is killed.
        let refused = status.exited_with(50) || libc::WIFSIGNALED(status.0);
        check!(refused, "{what}: {status}");
    }
    sys!(SYS_unlink, c"broken".as_ptr()).unwrap();
}

/// A program that this one has written.
fn copy() {
    let image = std::fs::read("/proc/self/exe").unwrap();
    file(c"copy", &image, 0o755);
    let status = ending(|| {
        let args = [c"copy".as_ptr(), c"@exit".as_ptr(), c"31".as_ptr(), std::ptr::null()];
        let _ = sys!(SYS_execve, c"./copy".as_ptr(), args.as_ptr(), args[3..].as_ptr());
        98
    });
    say!("a copy: {status}");
    sys!(SYS_unlink, c"copy".as_ptr()).unwrap();
}

/// The thread that executes becomes the process; the others are gone.
fn from_thread() {
    let parent = programs::process::id().to_string();
    let status = ending(|| {
        for _ in 0..3 {
            std::thread::spawn(|| {
                loop {
                    std::hint::spin_loop();
                }
            });
            std::thread::spawn(|| {
                loop {
                    std::thread::park();
                }
            });
        }
        let own = programs::process::id().to_string();
        let _ = std::thread::spawn(move || run(&["x", "@id", &own, &parent], &[])).join();
        98
    });
    say!("{status}");
}

/// What the thread that executes had of its own, the new program has; what the first thread had is gone.
fn from_thread_with_its_own() {
    const RESET_ON_FORK: i32 = 0x4000_0000;
    let block = |signals: &[i32]| _ = signal::mask(libc::SIG_SETMASK, signal::set(signals));
    let suspend = |mask: &u64| sys!(SYS_rt_sigsuspend, mask, signal::SET_BYTES);
    let poll = |mask: &u64| sys!(SYS_ppoll, 0, 0, 0, mask, signal::SET_BYTES);
    let temporary_masks: [fn(&u64) -> sys::Result; 2] = [suspend, poll];
    for (name, sleep) in ["sigsuspend", "ppoll"].into_iter().zip(temporary_masks) {
        let status = ending(|| {
            std::thread::spawn(move || {
                block(&[libc::SIGTERM]);
                let (pid, tid) = (sys!(SYS_getpid).unwrap(), sys!(SYS_gettid).unwrap());
                sys!(SYS_tgkill, pid, tid, libc::SIGTERM).unwrap();
                programs::process::pause_ms(20);
                run(&["x", "@signals"], &[])
            });
            block(&[libc::SIGHUP]);
            let _ = sleep(&signal::set(&[libc::SIGINT]));
            98
        });
        say!("in {name}: {status}");
    }
    let set_nice = |nice: i32| _ = sys!(SYS_setpriority, libc::PRIO_PROCESS, 0, nice);
    let set_slack = |nanos: u64| _ = sys!(SYS_prctl, libc::PR_SET_TIMERSLACK, nanos, 0, 0, 0);
    // Real time is not for everybody, and need not be: it is what the first thread had.
    let set_policy = |policy: i32, priority: i32| {
        let _ = sys!(SYS_sched_setscheduler, 0, policy, &priority);
    };
    for policy in [libc::SCHED_OTHER, libc::SCHED_BATCH | RESET_ON_FORK, libc::SCHED_IDLE] {
        let status = ending(|| {
            set_nice(3);
            std::thread::spawn(move || {
                let mut cpus = [0u64; 16];
                sys!(SYS_sched_getaffinity, 0, size_of_val(&cpus), &mut cpus).unwrap();
                let first = cpus.iter_mut().find(|word| **word != 0).unwrap();
                *first &= first.wrapping_neg();
                let past = cpus.iter().position(|word| *word != 0).unwrap() + 1;
                cpus[past..].fill(0);
                sys!(SYS_sched_setaffinity, 0, size_of_val(&cpus), &cpus).unwrap();
                set_nice(5);
                set_slack(12_345);
                set_policy(policy, 0);
                programs::process::pause_ms(20);
                run(&["x", "@scheduling"], &[])
            });
            set_nice(7);
            set_slack(54_321);
            set_policy(libc::SCHED_FIFO, 5);
            let _ = sys!(SYS_pause);
            98
        });
        say!("{status}");
    }
}

/// The first thread is called away in the midst of handlers and faults: none of that is the new program's.
fn from_thread_amid_signals() {
    extern "C" fn skip(_: i32, _: &libc::siginfo_t, context: &mut libc::ucontext_t) {
        const FAULTING_BYTES: i64 = 2;
        context.uc_mcontext.gregs[libc::REG_RIP as usize] += FAULTING_BYTES;
    }
    fn rounds(storm: fn() -> i32) {
        for _ in 0..30 {
            let status = ending(|| {
                std::thread::spawn(|| {
                    programs::process::pause_ms(5);
                    run(&["x", "@exit", "18"], &[])
                });
                storm()
            });
            check!(status.exited_with(18), "{status}");
        }
    }
    rounds(|| {
        signal::handle(libc::SIGUSR1, nothing, 0, &[]).unwrap();
        loop {
            signal::raise(libc::SIGUSR1).unwrap();
        }
    });
    rounds(|| {
        signal::handle(libc::SIGILL, skip, 0, &[]).unwrap();
        loop {
            // SAFETY: the handler goes on behind the instruction.
            unsafe { core::arch::asm!("ud2") };
        }
    });
}

/// Threads that are stopping, or have stopped, when another one executes are gone as well; the new program stops.
fn from_thread_of_stopped() {
    for round in 0..40 {
        let child = spawn(|| {
            let me = programs::process::id();
            // Of a process whose first thread has gone /proc does not tell.
            let path = std::env::current_exe().unwrap().into_os_string().into_encoded_bytes();
            let path = CString::new(path).unwrap();
            for _ in 0..3 {
                std::thread::spawn(|| {
                    loop {
                        std::thread::yield_now();
                    }
                });
            }
            std::thread::spawn(move || {
                if round % 2 == 0 {
                    signal::kill(me, libc::SIGSTOP).unwrap();
                }
                let args = [c"x".as_ptr(), c"@exit".as_ptr(), c"19".as_ptr(), std::ptr::null()];
                sys!(SYS_execve, path.as_ptr(), args.as_ptr(), args[3..].as_ptr())
            });
            if round % 4 < 2 {
                loop {
                    let _ = sys!(SYS_pause);
                }
            }
            let _ = sys!(SYS_exit, 0);
            98
        });
        if round % 2 != 0 {
            programs::process::pause_ms(round / 10);
            signal::kill(child, libc::SIGSTOP).unwrap();
        }
        let mut status = try_wait(child, libc::WUNTRACED).unwrap().1;
        if libc::WIFSTOPPED(status.0) {
            signal::kill(child, libc::SIGCONT).unwrap();
            status = wait(child);
        }
        check!(status.exited_with(19), "round {round}: {status}");
    }
}

extern "C" fn nothing(_: i32, _: &libc::siginfo_t, _: &mut libc::ucontext_t) {}

fn chain() {
    say!("{}", child(&["x", "@chain", "20"], &[]));
}

/// A large address space is gone after exec.
fn memory_is_gone() {
    let status = ending(|| {
        let pages = memory::pages(4_096);
        for number in 0..4_096 {
            memory::poke(memory::page(pages, number), 1);
        }
        let _ = run(&["x", "@exit", "12"], &[]);
        98
    });
    say!("{status}");
}

/// `std::process::Command`, which uses posix_spawn or vfork.
fn command() {
    let output =
        Command::new("/proc/self/exe").args(["@tell", "a", "b"]).env_clear().env("K", "V").output();
    let output = output.unwrap();
    say!("{:?} {}", output.status.code(), String::from_utf8_lossy(&output.stdout).trim_end());
    let mut command = Command::new("/proc/self/exe");
    command.arg("@echo").stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    std::io::Write::write_all(&mut child.stdin.take().unwrap(), b"through a pipe\n").unwrap();
    let output = child.wait_with_output().unwrap();
    let (out, err) =
        (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    say!("{out:?} {err:?}");
    let missing = Command::new("/no/such/program").spawn();
    say!("{:?}", missing.err().map(|error| error.kind()));
    let mut child = Command::new("/proc/self/exe").args(["@exit", "5"]).spawn().unwrap();
    say!("{:?}", child.wait().unwrap().code());
}

/// The parent of a vfork waits until the child has executed or ended.
fn vfork() {
    let shared = memory::shared_pages(1);
    let flags = (libc::CLONE_VFORK | libc::SIGCHLD) as u64;
    for executes in [false, true] {
        memory::poke(shared, 0);
        // Without CLONE_VM: the child has a copy of this stack and cannot disturb it.
        let child = sys!(SYS_clone, flags, 0, 0, 0, 0).unwrap() as i32;
        if child == 0 {
            programs::process::pause_ms(20);
            memory::poke(shared, 1);
            if executes {
                let _ = run(&["x", "@exit", "3"], &[]);
            }
            exit_now(4);
        }
        say!("child came first: {}, {}", memory::peek(shared) == 1, wait(child));
    }
    memory::unmap(shared, memory::PAGE);
}
