//! clone(2) and clone3(2): what is shared by which flag, threads without a library, and what is refused.

use std::arch::asm;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use programs::memory::{self, PAGE};
use programs::process::{close, ending, exit_now, id, pause_ms, pipe, try_wait, wait, wait_until};
use programs::sys::value;
use programs::{check, say, signal, sys};

fn main() {
    programs::main(&[
        ("plain", plain),
        ("signals", signals),
        ("address-space", address_space),
        ("vfork", vfork),
        ("files", files),
        ("directory", directory),
        ("handlers", handlers),
        ("threads", threads),
        ("tids", tids),
        ("tls", tls),
        ("clone3", clone3),
        ("refused", refused),
        ("refused3", refused3),
        ("wait-clone", wait_clone),
        ("siblings", siblings),
        ("leader-exits", leader_exits),
    ]);
}

const VM: i32 = libc::CLONE_VM;
const THREAD: i32 = libc::CLONE_VM
    | libc::CLONE_FS
    | libc::CLONE_FILES
    | libc::CLONE_SIGHAND
    | libc::CLONE_THREAD
    | libc::CLONE_SYSVSEM;

/// What a child that shares the address space runs, on a stack of its own: `body(argument)`, then the end of
/// its thread with the result. The words are passed on that stack.
type Body = extern "C" fn(u64) -> u64;

/// A stack for one such child.
fn new_stack() -> u64 {
    memory::pages(16) as u64 + 16 * PAGE as u64
}

/// clone(2) into `body(argument)` on this stack.
fn clone_onto(
    flags: i32,
    stack: u64,
    tids: [*const AtomicU64; 2],
    tls: u64,
    body: Body,
    argument: u64,
) -> sys::Result {
    let top = (stack - 16) as *mut u64;
    let result: i64;
    // SAFETY: the stack is the child's alone. The child finds its two words there, calls `body` on the rest of
    // it, and never returns from here; the parent's registers are as the kernel left them.
    unsafe {
        top.write(body as *const () as u64);
        top.add(1).write(argument);
        asm!(
            "syscall",
            "test rax, rax",
            "jnz 2f",
            "xor ebp, ebp",
            "pop rax",
            "pop rdi",
            "call rax",
            "mov edi, eax",
            "mov eax, 60",
            "syscall",
            "ud2",
            "2:",
            inlateout("rax") libc::SYS_clone => result,
            in("rdi") i64::from(flags),
            in("rsi") top,
            in("rdx") tids[0],
            in("r10") tids[1],
            in("r8") tls,
            lateout("rcx") _,
            lateout("r11") _,
        );
    }
    if result < 0 { Err(sys::Errno(-result as i32)) } else { Ok(result as u64) }
}

const NO_TIDS: [*const AtomicU64; 2] = [std::ptr::null(); 2];

fn child(flags: i32, body: Body, argument: u64) -> sys::Result {
    clone_onto(flags, new_stack(), NO_TIDS, 0, body, argument)
}

/// A child with a copy of the address space: flags without CLONE_VM.
fn copied(flags: i32, body: impl FnOnce() -> i32) -> i32 {
    let child = sys!(SYS_clone, flags, 0, 0, 0, 0).unwrap() as i32;
    if child == 0 {
        exit_now(body());
    }
    child
}

fn plain() {
    let mut value = 1;
    let pid = copied(libc::SIGCHLD, || {
        value += 1;
        value
    });
    say!("{} {value}", wait(pid));
}

/// The signal that tells of the child's end is the one in the flags, or none.
fn signals() {
    signal::recorded(libc::SIGUSR1, 0);
    let pid = copied(libc::SIGUSR1, || 3);
    wait_until(|| signal::count() > 0);
    let seen = signal::take()[0];
    say!("{} {} this child: {}", signal::name(seen.signal), seen.value, seen.pid == pid);
    say!("not a usual child: {:?}", try_wait(pid, libc::WNOHANG).err());
    say!("with __WALL: {:?}", try_wait(pid, libc::__WALL).map(|(_, status)| status.to_string()));
    let pid = copied(0, || 4);
    say!(
        "with __WCLONE: {:?}",
        try_wait(pid, libc::__WCLONE).map(|(_, status)| status.to_string())
    );
    signal::dispose(libc::SIGUSR1, libc::SIG_DFL);
}

static WORD: AtomicU64 = AtomicU64::new(0);

extern "C" fn store(value: u64) -> u64 {
    WORD.store(value, Ordering::SeqCst);
    9
}

extern "C" fn own_pid(_: u64) -> u64 {
    WORD.store(sys!(SYS_getpid).unwrap_or(0), Ordering::SeqCst);
    0
}

/// CLONE_VM without CLONE_THREAD: another process in the same memory.
fn address_space() {
    WORD.store(1, Ordering::SeqCst);
    let pid = child(VM | libc::SIGCHLD, store, 77).unwrap();
    say!("{} {}", wait(pid as i32), WORD.load(Ordering::SeqCst));
    let pid = child(VM | libc::SIGCHLD, own_pid, 0).unwrap();
    say!("{} its own number: {}", wait(pid as i32), WORD.load(Ordering::SeqCst) == pid);
    // What one maps the other sees.
    extern "C" fn map(_: u64) -> u64 {
        let page = memory::pages(1);
        memory::poke(page, 55);
        WORD.store(page as u64, Ordering::SeqCst);
        0
    }
    let pid = child(VM | libc::SIGCHLD, map, 0).unwrap();
    say!("{}", wait(pid as i32));
    let page = WORD.load(Ordering::SeqCst) as *mut u8;
    say!("{}", memory::peek(page));
    memory::unmap(page, PAGE);
    // A crash of one does not take the other along.
    extern "C" fn crash(_: u64) -> u64 {
        memory::peek(std::ptr::null());
        0
    }
    let pid = child(VM | libc::SIGCHLD, crash, 0).unwrap();
    say!("{}", wait(pid as i32));
}

extern "C" fn slowly(value: u64) -> u64 {
    pause_ms(20);
    WORD.store(value, Ordering::SeqCst);
    5
}

fn vfork() {
    WORD.store(0, Ordering::SeqCst);
    let pid = child(VM | libc::CLONE_VFORK | libc::SIGCHLD, slowly, 8).unwrap();
    say!("the child came first: {}", WORD.load(Ordering::SeqCst) == 8);
    say!("{}", wait(pid as i32));
    // Killed from outside while the parent waits: the parent goes on.
    extern "C" fn kill_me(_: u64) -> u64 {
        let _ = signal::kill(sys!(SYS_getpid).unwrap_or(0) as i32, libc::SIGKILL);
        0
    }
    let pid = child(VM | libc::CLONE_VFORK | libc::SIGCHLD, kill_me, 0).unwrap();
    say!("{}", wait(pid as i32));
    extern "C" fn execute(_: u64) -> u64 {
        let args = [c"x".as_ptr(), c"plain".as_ptr(), std::ptr::null()];
        let _ = sys!(SYS_execve, c"/proc/self/exe".as_ptr(), args.as_ptr(), args[2..].as_ptr());
        7
    }
    let pid = child(VM | libc::CLONE_VFORK | libc::SIGCHLD, execute, 0).unwrap();
    say!("{}", wait(pid as i32));
    // Limits that it gives itself are not its parent's.
    extern "C" fn limit_me(_: u64) -> u64 {
        let limit = libc::rlimit64 { rlim_cur: 1 << 20, rlim_max: 1 << 20 };
        [libc::RLIMIT_AS, libc::RLIMIT_DATA, libc::RLIMIT_STACK]
            .map(|kind| sys!(SYS_prlimit64, 0, kind, &limit, 0).map_or(1, |_| 0))
            .iter()
            .sum()
    }
    let pid = child(VM | libc::CLONE_VFORK | libc::SIGCHLD, limit_me, 0).unwrap();
    let mapped = memory::map(64 << 20, memory::RW, memory::PRIVATE);
    say!("{}, 64 MiB: {:?}", wait(pid as i32), mapped.err());
    mapped.into_iter().for_each(|base| memory::unmap(base, 64 << 20));
}

fn files() {
    for flags in [0, libc::CLONE_FILES] {
        let (input, output) = pipe(0);
        let pid = copied(flags | libc::SIGCHLD, || {
            close(output);
            0
        });
        wait(pid);
        let open = sys!(SYS_fcntl, output, libc::F_GETFD);
        say!("shared {}: {}", flags != 0, value(open));
        close(input);
        if open.is_ok() {
            close(output);
        }
    }
}

fn directory() {
    let mut before = [0u8; 4096];
    sys!(SYS_getcwd, &mut before, 4096).unwrap();
    sys!(SYS_mkdir, c"inner".as_ptr(), 0o755).unwrap();
    for flags in [0, libc::CLONE_FS] {
        let pid = copied(flags | libc::SIGCHLD, || {
            sys!(SYS_umask, 0o077).unwrap();
            sys!(SYS_chdir, c"inner".as_ptr()).map_or(1, |_| 0)
        });
        let status = wait(pid);
        let mut now = [0u8; 4096];
        sys!(SYS_getcwd, &mut now, 4096).unwrap();
        let mask = sys!(SYS_umask, 0o022).unwrap();
        say!("shared {}: {status} moved {} umask {mask:#o}", flags != 0, now != before);
    }
    sys!(SYS_chdir, &before).unwrap();
    sys!(SYS_rmdir, c"inner".as_ptr()).unwrap();
}

fn handlers() {
    for flags in [0, libc::CLONE_SIGHAND] {
        extern "C" fn arrange(_: u64) -> u64 {
            signal::recorded(libc::SIGUSR2, 0);
            0
        }
        signal::dispose(libc::SIGUSR2, libc::SIG_IGN);
        let pid = child(VM | flags | libc::SIGCHLD, arrange, 0).unwrap();
        wait(pid as i32);
        let mut action = [0u64; 4];
        sys!(SYS_rt_sigaction, libc::SIGUSR2, 0, &mut action, 8).unwrap();
        say!("shared {}: ignored here {}", flags != 0, action[0] == 1);
    }
    signal::dispose(libc::SIGUSR2, libc::SIG_DFL);
}

static TOTAL: AtomicUsize = AtomicUsize::new(0);

/// Threads without a library: one process, many numbers.
fn threads() {
    extern "C" fn work(leader: u64) -> u64 {
        let pid = sys!(SYS_getpid).unwrap_or(0);
        let tid = sys!(SYS_gettid).unwrap_or(0);
        if pid == leader && tid != pid {
            TOTAL.fetch_add(1, Ordering::SeqCst);
        }
        0
    }
    let word = Box::leak(Box::new(AtomicU64::new(0)));
    let flags = THREAD | libc::CLONE_CHILD_CLEARTID | libc::CLONE_CHILD_SETTID;
    for _ in 0..30 {
        word.store(u64::MAX, Ordering::SeqCst);
        clone_onto(flags, new_stack(), [std::ptr::null(), word], 0, work, id() as u64).unwrap();
        wait_until(|| word.load(Ordering::SeqCst) as u32 == 0);
    }
    say!("{}", TOTAL.load(Ordering::SeqCst));
    say!("no children: {:?}", try_wait(-1, libc::__WALL).err());
    let old = sys!(SYS_set_tid_address, word.as_ptr());
    say!("set_tid_address gives my number: {}", old == sys!(SYS_gettid));
    sys!(SYS_set_tid_address, 0).unwrap();
}

fn tids() {
    let (parent_word, child_word) =
        (Box::leak(Box::new(AtomicU64::new(0))), Box::leak(Box::new(AtomicU64::new(0))));
    let flags = VM | libc::CLONE_PARENT_SETTID | libc::CLONE_CHILD_SETTID | libc::SIGCHLD;
    let pid = clone_onto(flags, new_stack(), [parent_word, child_word], 0, store, 1).unwrap();
    wait(pid as i32);
    let seen = (parent_word.load(Ordering::SeqCst), child_word.load(Ordering::SeqCst));
    say!("both: {}", seen == (pid, pid));
    // In a copied address space each writes its own.
    parent_word.store(0, Ordering::SeqCst);
    child_word.store(0, Ordering::SeqCst);
    let flags = (libc::CLONE_PARENT_SETTID | libc::CLONE_CHILD_SETTID | libc::SIGCHLD) as u64;
    let pid = sys!(SYS_clone, flags, 0, parent_word.as_ptr(), child_word.as_ptr(), 0).unwrap();
    if pid == 0 {
        let own = sys!(SYS_getpid).unwrap_or(0);
        exit_now(i32::from(child_word.load(Ordering::SeqCst) != own));
    }
    let seen = (parent_word.load(Ordering::SeqCst), child_word.load(Ordering::SeqCst));
    say!("the parent's: {} {}", seen == (pid, 0), wait(pid as i32));
    let flags = (libc::CLONE_PARENT_SETTID | libc::SIGCHLD) as u64;
    let result = sys!(SYS_clone, flags, 0, 16u64, 0, 0);
    if result == Ok(0) {
        exit_now(6);
    }
    say!(
        "to nowhere: {}",
        result.map_or_else(|error| error.to_string(), |pid| wait(pid as i32).to_string())
    );
}

/// CLONE_SETTLS sets the FS base.
fn tls() {
    extern "C" fn look(expected: u64) -> u64 {
        let base: u64;
        // SAFETY: reads the first word of the block that FS points to.
        unsafe { asm!("mov {}, fs:[0]", out(reg) base) };
        WORD.store(u64::from(base == expected), Ordering::SeqCst);
        let mut seen = 0u64;
        let got = sys!(SYS_arch_prctl, 0x1003, &mut seen);
        10 + u64::from(got.is_ok() && seen == expected)
    }
    let block = memory::pages(1);
    // SAFETY: the page is this case's own.
    unsafe { block.cast::<u64>().write(block as u64) };
    let flags = VM | libc::CLONE_SETTLS | libc::SIGCHLD;
    let pid = clone_onto(flags, new_stack(), NO_TIDS, block as u64, look, block as u64).unwrap();
    say!("{} {}", wait(pid as i32), WORD.load(Ordering::SeqCst));
    let bad = clone_onto(flags, new_stack(), NO_TIDS, 0xffff_8000_0000_0000, store, 0);
    say!("in the kernel: {}", value(bad));
    memory::unmap(block, PAGE);
}

/// The structure of clone3 as 11 words: flags, pidfd, child_tid, parent_tid, exit_signal, stack, stack_size, tls,
/// set_tid, set_tid_size, cgroup.
fn clone3_raw(args: &[u64], len: usize) -> sys::Result {
    let result = sys!(SYS_clone3, args.as_ptr(), len);
    if result == Ok(0) {
        exit_now(21);
    }
    result
}

fn clone3() {
    let mut args = [0u64; 11];
    args[4] = libc::SIGCHLD as u64;
    for len in [64, 80, 88] {
        let pid = clone3_raw(&args, len).unwrap();
        say!("{len} bytes: {}", wait(pid as i32));
    }
    let (mut child_tid, mut parent_tid, mut pidfd) = (0u32, 0u32, -1i32);
    args[0] = (libc::CLONE_PARENT_SETTID | libc::CLONE_PIDFD | libc::CLONE_CHILD_CLEARTID) as u64;
    args[1] = (&raw mut pidfd) as u64;
    args[2] = (&raw mut child_tid) as u64;
    args[3] = (&raw mut parent_tid) as u64;
    let pid = clone3_raw(&args, 88).unwrap();
    say!("numbered: {} pidfd: {}", u64::from(parent_tid) == pid, pidfd >= 0);
    say!("close on exec: {}", value(sys!(SYS_fcntl, pidfd, libc::F_GETFD)));
    say!("{}", wait(pid as i32));
    close(pidfd);
}

/// Combinations that make no sense.
fn refused() {
    for (name, flags) in [
        ("thread without handlers", libc::CLONE_THREAD | VM),
        ("thread without memory", libc::CLONE_THREAD),
        ("handlers without memory", libc::CLONE_SIGHAND),
        ("thread in a new namespace", THREAD | libc::CLONE_NEWPID),
        ("new file systems, shared", libc::CLONE_NEWNS | libc::CLONE_FS),
        ("pidfd of a thread's and a number", libc::CLONE_PIDFD | libc::CLONE_PARENT_SETTID),
        ("pidfd, detached", libc::CLONE_PIDFD | libc::CLONE_DETACHED),
    ] {
        let result = sys!(SYS_clone, flags, 0, 0, 0, 0);
        if result == Ok(0) {
            exit_now(6);
        }
        say!("{name}: {}", value(result));
    }
    let left = try_wait(-1, libc::__WALL | libc::WNOHANG);
    check!(left.is_err(), "children were born: {left:?}", left = left.map(|(pid, _)| pid));
}

fn refused3() {
    let with = |index: usize, value: u64| {
        let mut args = [0u64; 11];
        args[4] = libc::SIGCHLD as u64;
        args[index] = value;
        args
    };
    let base = with(4, libc::SIGCHLD as u64);
    say!("too short: {}", value(clone3_raw(&base, 63)));
    say!("too long: {}", value(clone3_raw(&base, 5_000)));
    let mut long = [0u64; 20];
    long[4] = libc::SIGCHLD as u64;
    let pid = clone3_raw(&long, 160);
    say!(
        "longer, the rest zero: {}",
        pid.map_or_else(|e| e.to_string(), |pid| wait(pid as i32).to_string())
    );
    long[15] = 1;
    say!("longer, the rest not zero: {}", value(clone3_raw(&long, 160)));
    say!("nowhere: {}", value(sys!(SYS_clone3, 16u64, 88)));
    say!("signal in the flags: {}", value(clone3_raw(&with(0, libc::SIGCHLD as u64), 88)));
    say!("detached: {}", value(clone3_raw(&with(0, libc::CLONE_DETACHED as u64), 88)));
    say!("exit signal 65: {}", value(clone3_raw(&with(4, 65), 88)));
    say!("exit signal 257: {}", value(clone3_raw(&with(4, 257), 88)));
    say!("stack without size: {}", value(clone3_raw(&with(5, 0x10000), 88)));
    say!("size without stack: {}", value(clone3_raw(&with(6, 4_096), 88)));
    say!("numbers without a list: {}", value(clone3_raw(&with(9, 1), 88)));
    say!("unknown flag: {}", value(clone3_raw(&with(0, 1 << 40), 88)));
    say!("thread with a signal: {}", value(clone3_raw(&with(0, THREAD as u64), 88)));
}

/// Children whose end is told by another signal are waited for with __WCLONE or __WALL.
fn wait_clone() {
    let usual = copied(libc::SIGCHLD, || 1);
    let quiet = copied(0, || 2);
    let first = try_wait(-1, 0).map(|(pid, status)| (pid == usual, status.to_string()));
    say!("plain: {first:?}");
    say!("plain again: {:?}", try_wait(-1, 0).map(|(pid, _)| pid).err());
    let second = try_wait(-1, libc::__WALL).map(|(pid, status)| (pid == quiet, status.to_string()));
    say!("all: {second:?}");
    // To end with a signal that there is not is to end with none.
    let silent = copied(100, || 3);
    let third =
        try_wait(-1, libc::__WCLONE).map(|(pid, status)| (pid == silent, status.to_string()));
    say!("without a signal: {third:?}");
}

/// CLONE_PARENT: the caller's parent gets another child, and is told of its end as of the caller's.
fn siblings() {
    signal::recorded(libc::SIGUSR1, 0);
    let child = copied(libc::SIGCHLD, || {
        let sibling = copied(libc::CLONE_PARENT | libc::SIGUSR1, || 3);
        say!("not mine: {:?}", try_wait(sibling, 0).err());
        4
    });
    say!("{}", wait(child));
    say!("{:?}", try_wait(-1, 0).map(|(_, status)| status.to_string()));
    say!("signals: {}", signal::taken_names());
    signal::dispose(libc::SIGUSR1, libc::SIG_DFL);
    let mut args = [0u64; 11];
    (args[0], args[4]) = (libc::CLONE_PARENT as u64, libc::SIGUSR1 as u64);
    say!("a signal of its own: {}", value(clone3_raw(&args, 88)));
}

/// The first thread ends, the others go on; the process ends with the last of them.
fn leader_exits() {
    let status = ending(|| {
        let (input, output) = pipe(0);
        std::thread::spawn(move || {
            pause_ms(20);
            programs::process::write(output, b"still here").unwrap();
            let bytes = programs::process::read(input, 20).unwrap();
            say!("{:?}", String::from_utf8_lossy(&bytes));
            exit_now(17);
        });
        loop {
            let _ = sys!(SYS_exit, 3);
        }
    });
    say!("{status}");
    let status = ending(|| {
        std::thread::spawn(|| {
            pause_ms(10);
            let _ = sys!(SYS_exit, 9);
        });
        let _ = sys!(SYS_exit, 3);
        0
    });
    say!("each by itself: {status}");
}
