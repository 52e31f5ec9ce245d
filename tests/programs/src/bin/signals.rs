//! Signals: default actions, handlers, masks, alternate stacks, restarts, waiting for them.
//!
//! Neighbour: `signals-family` has stop and continue, SIGCHLD and process groups.

use std::arch::asm;
use std::sync::atomic::{AtomicI32, AtomicU64, Ordering};

use programs::process::{Baton, ending, id, pause_ms, pipe, spawn, try_wait, wait, wait_until};
use programs::signal::{self, kill, mask, name, raise, record, recorded, set};
use programs::sys::{Errno, value};
use programs::{check, memory, say, sys};

fn main() {
    programs::main(&[
        ("defaults", defaults),
        ("siginfo", siginfo),
        ("masks", masks),
        ("handler-mask", handler_mask),
        ("order", order),
        ("queue", queue),
        ("full-queue", full_queue),
        ("reset", reset),
        ("nested", nested),
        ("altstack", altstack),
        ("restart", restart),
        ("suspend", suspend),
        ("timedwait", timedwait),
        ("errors", errors),
        ("ignored", ignored),
        ("threads", threads),
        ("context", context),
        ("registers", registers),
        ("own-registers", own_registers),
    ]);
}

/// What every signal does where nothing was arranged.
fn defaults() {
    let mut same: Vec<(String, Vec<String>)> = Vec::new();
    for number in 1..=64 {
        let (ready, go) = (Baton::new(), Baton::new());
        let child = spawn(|| {
            mask(libc::SIG_SETMASK, 0);
            // The terminal's signals stop nobody in a group without a parent outside of it.
            sys!(SYS_setpgid, 0, 0).unwrap();
            ready.pass();
            go.await_pass();
            0
        });
        ready.await_pass();
        kill(child, number).unwrap();
        go.pass();
        let (_, status) = try_wait(child, libc::WUNTRACED).unwrap();
        if libc::WIFSTOPPED(status.0) {
            kill(child, libc::SIGKILL).unwrap();
            wait(child);
        }
        let what = status.to_string().replace(&name(number), "it");
        match same.iter_mut().find(|(outcome, _)| *outcome == what) {
            Some((_, names)) => names.push(name(number)),
            None => same.push((what, vec![name(number)])),
        }
    }
    for (what, names) in same {
        say!("{what}: {}", names.join(" "));
    }
}

/// What a handler is told about who sent it.
fn siginfo() {
    recorded(libc::SIGUSR1, 0);
    kill(id(), libc::SIGUSR1).unwrap();
    raise(libc::SIGUSR1).unwrap();
    for seen in signal::take() {
        say!("{} code {} from me: {}", name(seen.signal), seen.code, seen.pid == id());
    }
    let parent = id();
    let child = spawn(|| {
        kill(parent, libc::SIGUSR1).unwrap();
        0
    });
    wait(child);
    wait_until(|| signal::count() > 0);
    for seen in signal::take() {
        say!("{} code {} from the child: {}", name(seen.signal), seen.code, seen.pid == child);
    }
    signal::dispose(libc::SIGUSR1, libc::SIG_DFL);
}

fn masks() {
    recorded(libc::SIGUSR1, 0);
    recorded(libc::SIGUSR2, 0);
    let both = set(&[libc::SIGUSR1, libc::SIGUSR2]);
    mask(libc::SIG_BLOCK, both);
    for _ in 0..3 {
        kill(id(), libc::SIGUSR1).unwrap();
    }
    kill(id(), libc::SIGUSR2).unwrap();
    say!("pending {}, seen {}", signal::names(signal::pending()), signal::count());
    mask(libc::SIG_UNBLOCK, set(&[libc::SIGUSR1]));
    say!("seen {}", signal::taken_names());
    say!("masked {}", signal::names(mask(libc::SIG_SETMASK, 0)));
    say!("seen {}", signal::taken_names());
    // These two cannot be masked; the kernel drops them silently.
    mask(libc::SIG_SETMASK, u64::MAX);
    let left = !mask(libc::SIG_SETMASK, 0);
    say!("never masked: {}", signal::names(left));
    signal::dispose(libc::SIGUSR1, libc::SIG_DFL);
    signal::dispose(libc::SIGUSR2, libc::SIG_DFL);
}

static MASK_SEEN: AtomicU64 = AtomicU64::new(0);

extern "C" fn look_at_mask(_: i32, _: &libc::siginfo_t, _: &mut libc::ucontext_t) {
    MASK_SEEN.store(mask(libc::SIG_BLOCK, 0), Ordering::SeqCst);
}

/// The signal itself and those of sa_mask are masked while a handler runs, and not after it.
fn handler_mask() {
    mask(libc::SIG_SETMASK, set(&[libc::SIGHUP]));
    for (flags, blocked) in [
        (0, &[libc::SIGTERM, libc::SIGINT][..]),
        (libc::SA_NODEFER, &[libc::SIGTERM]),
        (libc::SA_NODEFER, &[]),
    ] {
        signal::handle(libc::SIGUSR1, look_at_mask, flags, blocked).unwrap();
        raise(libc::SIGUSR1).unwrap();
        let after = mask(libc::SIG_BLOCK, 0);
        say!("{} then {}", signal::names(MASK_SEEN.load(Ordering::SeqCst)), signal::names(after));
    }
    mask(libc::SIG_SETMASK, 0);
    signal::dispose(libc::SIGUSR1, libc::SIG_DFL);
}

/// Several pending at once: the first to be returned to runs last, so lowest numbers run outermost last.
fn order() {
    let all = [libc::SIGTERM, libc::SIGUSR2, libc::SIGHUP, libc::SIGUSR1, 40, 35];
    let blocked = set(&all);
    for number in all {
        signal::handle(number, record, 0, &all).unwrap();
    }
    mask(libc::SIG_BLOCK, blocked);
    for number in all {
        kill(id(), number).unwrap();
    }
    mask(libc::SIG_UNBLOCK, blocked);
    say!("{}", signal::taken_names());
    all.into_iter().for_each(|number| signal::dispose(number, libc::SIG_DFL));
}

/// Real-time signals queue, with their values; others do not.
fn queue() {
    let numbers = [libc::SIGUSR1, 40, 41];
    for number in numbers {
        signal::handle(number, record, 0, &numbers).unwrap();
    }
    mask(libc::SIG_BLOCK, set(&numbers));
    for value in 0..4i32 {
        for number in [41, 40, libc::SIGUSR1] {
            let mut info = [0i32; 32];
            info[0] = number;
            info[2] = -1; // SI_QUEUE
            info[4] = id();
            info[6] = value;
            let result = sys!(SYS_rt_sigqueueinfo, id(), number, &info);
            check!(result.is_ok(), "rt_sigqueueinfo: {result:?}");
        }
    }
    mask(libc::SIG_SETMASK, 0);
    for seen in signal::take() {
        say!("{} value {} code {}", name(seen.signal), seen.value, seen.code);
    }
    let mut info = [0i32; 32];
    info[2] = -1;
    say!("to nobody: {}", value(sys!(SYS_rt_sigqueueinfo, 1 << 30, 40, &info)));
    info[2] = libc::SI_KERNEL;
    let child = spawn(|| {
        pause_ms(1_000_000);
        0
    });
    say!("as the kernel: {}", value(sys!(SYS_rt_sigqueueinfo, child, 40, &info)));
    kill(child, libc::SIGKILL).unwrap();
    wait(child);
    numbers.into_iter().for_each(|number| signal::dispose(number, libc::SIG_DFL));
}

/// Where nothing more may be queued, a standard signal loses what it came with, unless `kill` sent it.
fn full_queue() {
    let status = ending(|| {
        let numbers = [libc::SIGUSR1, libc::SIGUSR2, 40];
        mask(libc::SIG_BLOCK, set(&numbers));
        let limit = [0u64; 2];
        sys!(SYS_prlimit64, 0, libc::RLIMIT_SIGPENDING, &limit, 0).unwrap();
        let me = id();
        for number in numbers {
            say!("kill {}: {}", name(number), value(kill(me, number)));
            taken();
            say!("tgkill {}: {}", name(number), value(sys!(SYS_tgkill, me, me, number)));
            taken();
        }
        0
    });
    say!("{status}");

    fn taken() {
        let mut info = [0i32; 32];
        let wanted = set(&[libc::SIGUSR1, libc::SIGUSR2, 40]);
        let at_once = [0u64; 2];
        let got = sys!(SYS_rt_sigtimedwait, &wanted, &mut info, &at_once, signal::SET_BYTES);
        say!("{} code {}, mine: {}", value(got), info[2], info[4] == id());
    }
}

/// SA_RESETHAND: once handled, then the default.
fn reset() {
    let status = ending(|| {
        recorded(libc::SIGUSR1, libc::SA_RESETHAND);
        raise(libc::SIGUSR1).unwrap();
        say!("seen {}", signal::taken_names());
        raise(libc::SIGUSR1).unwrap();
        5
    });
    say!("{status}");
}

static DEPTH: AtomicI32 = AtomicI32::new(0);
static DEEPEST: AtomicI32 = AtomicI32::new(0);
static RAISES_LEFT: AtomicI32 = AtomicI32::new(0);

extern "C" fn again(signal: i32, _: &libc::siginfo_t, _: &mut libc::ucontext_t) {
    let depth = DEPTH.fetch_add(1, Ordering::SeqCst) + 1;
    DEEPEST.fetch_max(depth, Ordering::SeqCst);
    if RAISES_LEFT.fetch_sub(1, Ordering::SeqCst) > 0 {
        let _ = raise(signal);
    }
    DEPTH.fetch_sub(1, Ordering::SeqCst);
}

fn nested() {
    for flags in [0, libc::SA_NODEFER] {
        signal::handle(libc::SIGUSR1, again, flags, &[]).unwrap();
        DEEPEST.store(0, Ordering::SeqCst);
        RAISES_LEFT.store(4, Ordering::SeqCst);
        raise(libc::SIGUSR1).unwrap();
        say!("nodefer {}: {} deep", flags != 0, DEEPEST.load(Ordering::SeqCst));
    }
    signal::dispose(libc::SIGUSR1, libc::SIG_DFL);
}

static STACK_SEEN: AtomicU64 = AtomicU64::new(0);
static FLAGS_SEEN: AtomicU64 = AtomicU64::new(0);

extern "C" fn look_at_stack(_: i32, _: &libc::siginfo_t, _: &mut libc::ucontext_t) {
    let local = 0u8;
    STACK_SEEN.store(std::hint::black_box(&raw const local) as u64, Ordering::SeqCst);
    let mut stack = [0u64; 3];
    let result = sys!(SYS_sigaltstack, 0, &mut stack);
    check!(result.is_ok(), "sigaltstack: {result:?}");
    FLAGS_SEEN.store(stack[1] & 0xffff_ffff, Ordering::SeqCst);
    // A stack in use cannot be changed.
    let change = [stack[0], 0, stack[2]];
    let result = sys!(SYS_sigaltstack, &change, 0);
    check!(result == Err(Errno(libc::EPERM)), "changing the stack in use: {result:?}");
}

fn altstack() {
    const LEN: u64 = 64 * 1024;
    let memory = memory::pages(16) as u64;
    let mut old = [0u64; 3];
    let stack = [memory, 0, LEN];
    let status = ending(|| {
        say!("set: {}", value(sys!(SYS_sigaltstack, &stack, &mut old)));
        for flags in [libc::SA_ONSTACK, 0] {
            signal::handle(libc::SIGUSR1, look_at_stack, flags, &[]).unwrap();
            if flags == 0 {
                signal::handle(libc::SIGUSR1, record, flags, &[]).unwrap();
                STACK_SEEN.store(1, Ordering::SeqCst);
            }
            raise(libc::SIGUSR1).unwrap();
            let seen = STACK_SEEN.load(Ordering::SeqCst);
            let on_it = (memory..memory + LEN).contains(&seen);
            say!("on the stack: {on_it}, flags {}", FLAGS_SEEN.load(Ordering::SeqCst));
        }
        let mut now = [0u64; 3];
        sys!(SYS_sigaltstack, 0, &mut now).unwrap();
        say!("as set: {} flags {}", now[0] == memory && now[2] == LEN, now[1] & 0xffff_ffff);
        say!("too small: {}", value(sys!(SYS_sigaltstack, &[memory, 0, 1_000], 0)));
        say!("bad flags: {}", value(sys!(SYS_sigaltstack, &[memory, 0x40, LEN], 0)));
        say!("nowhere: {}", value(sys!(SYS_sigaltstack, 16u64, 0)));
        say!("off: {}", value(sys!(SYS_sigaltstack, &[0u64, 2, 0], 0)));
        sys!(SYS_sigaltstack, 0, &mut now).unwrap();
        say!("flags {}", now[1] & 0xffff_ffff);
        0
    });
    say!("{status}");
    // With the ordinary stack gone the handler still runs on its own.
    let status = ending(|| {
        sys!(SYS_sigaltstack, &stack, 0).unwrap();
        signal::handle(libc::SIGSEGV, leave, libc::SA_ONSTACK, &[]).unwrap();
        overflow(1)
    });
    say!("overflow with a stack for it: {status}");
    let status = ending(|| {
        sys!(SYS_sigaltstack, &[0u64, 2, 0], 0).unwrap();
        signal::handle(libc::SIGSEGV, leave, 0, &[]).unwrap();
        overflow(1)
    });
    say!("overflow without: {status}");
    memory::unmap(memory as *mut u8, LEN as usize);
}

extern "C" fn leave(_: i32, _: &libc::siginfo_t, _: &mut libc::ucontext_t) {
    programs::process::exit_now(33);
}

#[expect(unconditional_recursion, reason = "the stack is to overflow")]
fn overflow(depth: i32) -> i32 {
    let frame = std::hint::black_box([depth; 200]);
    overflow(depth + 1) + frame[depth as usize % 200]
}

/// Sends a signal to the parent again and again until it is killed.
fn pester(number: i32) -> i32 {
    let parent = id();
    spawn(move || {
        loop {
            pause_ms(5);
            let _ = kill(parent, number);
        }
    })
}

fn silence(child: i32) {
    kill(child, libc::SIGKILL).unwrap();
    wait(child);
    signal::take();
}

/// Which calls come back with EINTR, whatever SA_RESTART says.
fn restart() {
    for flags in [0, libc::SA_RESTART] {
        recorded(libc::SIGUSR1, flags);
        let child = pester(libc::SIGUSR1);
        let wait_for = |call: &str, result: sys::Result| say!("{call}: {}", value(result));
        say!("restart: {}", flags != 0);
        let long = libc::timespec { tv_sec: 1_000, tv_nsec: 0 };
        let mut left = libc::timespec { tv_sec: 0, tv_nsec: 0 };
        wait_for("nanosleep", sys!(SYS_nanosleep, &long, &mut left));
        check!((900..=1_000).contains(&left.tv_sec), "{} s left", left.tv_sec);
        let (input, _output) = pipe(0);
        let mut request = [libc::pollfd { fd: input, events: libc::POLLIN, revents: 0 }];
        wait_for("poll", sys!(SYS_poll, &mut request, 1, 1_000_000));
        let mut fds = [0u64; 16];
        fds[input as usize / 64] = 1 << (input % 64);
        wait_for("select", sys!(SYS_select, input + 1, &mut fds, 0, 0, 0));
        wait_for("pause", sys!(SYS_pause));
        let nothing = 0u64;
        wait_for("rt_sigsuspend", sys!(SYS_rt_sigsuspend, &nothing, 8));
        let word = 0u32;
        wait_for("futex with a timeout", sys!(SYS_futex, &word, libc::FUTEX_WAIT, 0, &long));
        if flags == 0 {
            wait_for("futex", sys!(SYS_futex, &word, libc::FUTEX_WAIT, 0, 0));
            wait_for("read", sys!(SYS_read, input, &mut left, 1));
            wait_for("wait4", sys!(SYS_wait4, child, 0, 0, 0));
        }
        silence(child);
    }
    signal::dispose(libc::SIGUSR1, libc::SIG_DFL);
}

/// rt_sigsuspend: the mask is changed and the wait begins as one step.
fn suspend() {
    recorded(libc::SIGUSR1, 0);
    recorded(libc::SIGUSR2, 0);
    mask(libc::SIG_SETMASK, set(&[libc::SIGUSR1, libc::SIGUSR2]));
    kill(id(), libc::SIGUSR1).unwrap();
    kill(id(), libc::SIGUSR2).unwrap();
    let all_but_one = !set(&[libc::SIGUSR1]);
    say!("{}, seen {}", value(sys!(SYS_rt_sigsuspend, &all_but_one, 8)), signal::taken_names());
    say!("masked {}", signal::names(mask(libc::SIG_BLOCK, 0)));
    let none = 0u64;
    say!("{}, seen {}", value(sys!(SYS_rt_sigsuspend, &none, 8)), signal::taken_names());
    say!("size: {}", value(sys!(SYS_rt_sigsuspend, &none, 16)));
    mask(libc::SIG_SETMASK, 0);
    signal::dispose(libc::SIGUSR1, libc::SIG_DFL);
    signal::dispose(libc::SIGUSR2, libc::SIG_DFL);
}

/// rt_sigtimedwait takes pending signals without a handler.
fn timedwait() {
    let wanted = set(&[libc::SIGUSR1, libc::SIGUSR2, 40]);
    mask(libc::SIG_SETMASK, wanted);
    let mut info = [0i32; 32];
    let now = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    let mut take =
        |timeout: &libc::timespec| value(sys!(SYS_rt_sigtimedwait, &wanted, &mut info, timeout, 8));
    say!("nothing: {}", take(&now));
    for number in [40, libc::SIGUSR2, libc::SIGUSR1] {
        kill(id(), number).unwrap();
    }
    say!("{} {} {} {}", take(&now), take(&now), take(&now), take(&now));
    say!("after a while: {}", take(&libc::timespec { tv_sec: 0, tv_nsec: 5_000_000 }));
    say!("bad time: {}", take(&libc::timespec { tv_sec: 0, tv_nsec: 1_000_000_000 }));
    let parent = id();
    let child = spawn(|| {
        pause_ms(10);
        kill(parent, libc::SIGUSR2).unwrap();
        0
    });
    say!("from a child: {}", value(sys!(SYS_rt_sigtimedwait, &wanted, &mut info, 0, 8)));
    say!("told who: {}", info[4] == child && info[0] == libc::SIGUSR2 && info[2] == libc::SI_USER);
    wait(child);
    say!("size: {}", value(sys!(SYS_rt_sigtimedwait, &wanted, 0, &now, 4)));
    // A signal that is not waited for interrupts.
    recorded(libc::SIGHUP, libc::SA_RESTART);
    let child = pester(libc::SIGHUP);
    say!("another: {}", value(sys!(SYS_rt_sigtimedwait, &wanted, 0, 0, 8)));
    silence(child);
    signal::dispose(libc::SIGHUP, libc::SIG_DFL);
    mask(libc::SIG_SETMASK, 0);
}

fn errors() {
    say!("signal 0 to me: {}", value(kill(id(), 0)));
    say!("signal 65: {}", value(kill(id(), 65)));
    say!("signal -1: {}", value(kill(id(), -1)));
    say!("to nobody: {}", value(kill(1 << 30, 0)));
    say!("to the lowest: {}", value(kill(i32::MIN, 0)));
    say!("tgkill thread 0: {}", value(sys!(SYS_tgkill, id(), 0, 0)));
    say!("tgkill group 0: {}", value(sys!(SYS_tgkill, 0, id(), 0)));
    say!("tgkill other group: {}", value(sys!(SYS_tgkill, id() + 100_000, id(), 0)));
    say!("tkill: {}", value(sys!(SYS_tkill, id(), 0)));
    let action = [0u64; 4];
    for number in [0, libc::SIGKILL, libc::SIGSTOP, 65] {
        say!("action of {number}: {}", value(sys!(SYS_rt_sigaction, number, &action, 0, 8)));
    }
    let mut old = [0u64; 4];
    say!("look at SIGKILL's: {}", value(sys!(SYS_rt_sigaction, libc::SIGKILL, 0, &mut old, 8)));
    say!("size: {}", value(sys!(SYS_rt_sigaction, libc::SIGUSR1, 0, &mut old, 4)));
    say!("nowhere: {}", value(sys!(SYS_rt_sigaction, libc::SIGUSR1, 16u64, 0, 8)));
    say!("how: {}", value(sys!(SYS_rt_sigprocmask, 3, &old, 0, 8)));
    say!("mask nowhere: {}", value(sys!(SYS_rt_sigprocmask, 0, 16u64, 0, 8)));
    say!("mask size: {}", value(sys!(SYS_rt_sigprocmask, 0, &old, 0, 16)));
    say!("pending size: {}", value(sys!(SYS_rt_sigpending, &mut old, 16)));
}

/// A signal that is ignored is not even pending; one that becomes ignored is forgotten.
fn ignored() {
    let hup = set(&[libc::SIGHUP]);
    mask(libc::SIG_BLOCK, hup);
    kill(id(), libc::SIGHUP).unwrap();
    say!("pending {}", signal::names(signal::pending()));
    signal::dispose(libc::SIGHUP, libc::SIG_IGN);
    say!("pending {}", signal::names(signal::pending()));
    mask(libc::SIG_UNBLOCK, hup);
    kill(id(), libc::SIGHUP).unwrap();
    say!("alive");
    signal::dispose(libc::SIGHUP, libc::SIG_DFL);
}

static HANDLED_BY: AtomicI32 = AtomicI32::new(0);

extern "C" fn note_thread(_: i32, _: &libc::siginfo_t, _: &mut libc::ucontext_t) {
    HANDLED_BY.store(sys!(SYS_gettid).unwrap_or(0) as i32, Ordering::SeqCst);
}

/// A process's signal goes to a thread that does not mask it, a thread's to that thread.
fn threads() {
    signal::handle(libc::SIGUSR1, note_thread, 0, &[]).unwrap();
    mask(libc::SIG_BLOCK, set(&[libc::SIGUSR1]));
    let (tid_of, stop) = (AtomicI32::new(0), AtomicI32::new(0));
    std::thread::scope(|scope| {
        scope.spawn(|| {
            mask(libc::SIG_UNBLOCK, set(&[libc::SIGUSR1]));
            tid_of.store(sys!(SYS_gettid).unwrap() as i32, Ordering::SeqCst);
            wait_until(|| stop.load(Ordering::SeqCst) == 1);
        });
        wait_until(|| tid_of.load(Ordering::SeqCst) != 0);
        let thread = tid_of.load(Ordering::SeqCst);
        for by_tid in [false, true] {
            HANDLED_BY.store(0, Ordering::SeqCst);
            if by_tid {
                sys!(SYS_tgkill, id(), thread, libc::SIGUSR1).unwrap();
            } else {
                kill(id(), libc::SIGUSR1).unwrap();
            }
            wait_until(|| HANDLED_BY.load(Ordering::SeqCst) != 0);
            say!("by the thread: {}", HANDLED_BY.load(Ordering::SeqCst) == thread);
        }
        // To the thread that masks it: it stays pending there.
        HANDLED_BY.store(0, Ordering::SeqCst);
        raise(libc::SIGUSR1).unwrap();
        say!("pending {}", signal::names(signal::pending()));
        mask(libc::SIG_UNBLOCK, set(&[libc::SIGUSR1]));
        say!("by me: {}", HANDLED_BY.load(Ordering::SeqCst) == id());
        stop.store(1, Ordering::SeqCst);
    });
    // On its way out the thread may hold a lock of the library's, which a fork would copy, never to be released.
    let thread = tid_of.load(Ordering::SeqCst);
    wait_until(|| sys!(SYS_tgkill, id(), thread, 0).is_err());
    // A signal for one thread that kills, kills all.
    let status = ending(|| {
        let thread = std::thread::spawn(|| raise(libc::SIGUSR2));
        let _ = thread.join();
        pause_ms(1_000_000);
        0
    });
    say!("{status}");
    signal::dispose(libc::SIGUSR1, libc::SIG_DFL);
}

extern "C" fn skip_two_bytes(_: i32, _: &libc::siginfo_t, context: &mut libc::ucontext_t) {
    context.uc_mcontext.gregs[libc::REG_RIP as usize] += 2;
    context.uc_mcontext.gregs[libc::REG_RBX as usize] = 0x1234_5678_9abc_def0;
}

/// A handler changes what is returned to.
fn context() {
    signal::handle(libc::SIGILL, skip_two_bytes, 0, &[]).unwrap();
    let rbx: u64;
    // SAFETY: UD2 has two bytes, which the handler skips.
    unsafe { asm!("xchg {0}, rbx", "ud2", "xchg {0}, rbx", inout(reg) 0u64 => rbx) };
    say!("{rbx:#x}");
    signal::dispose(libc::SIGILL, libc::SIG_DFL);
}

extern "C" fn spoil_registers(_: i32, _: &libc::siginfo_t, _: &mut libc::ucontext_t) {
    // SAFETY: each register is declared as changed.
    unsafe {
        asm!(
            "xor eax, eax", "xor ecx, ecx", "xor edx, edx", "xor esi, esi", "xor edi, edi",
            "pcmpeqd xmm0, xmm0", "pcmpeqd xmm7, xmm7", "pcmpeqd xmm15, xmm15", "std", "cld",
            out("eax") _, out("ecx") _, out("edx") _, out("esi") _, out("edi") _,
            out("xmm0") _, out("xmm7") _, out("xmm15") _,
        );
    }
}

/// Integer and vector registers, flags and the red zone survive a handler that comes at any instruction.
fn registers() {
    signal::handle(libc::SIGUSR1, spoil_registers, libc::SA_RESTART, &[]).unwrap();
    let child = pester(libc::SIGUSR1);
    let mut bad = 0;
    let until = std::time::Instant::now() + std::time::Duration::from_millis(300);
    while std::time::Instant::now() < until {
        let (a, b, c, d): (u64, u64, u64, u64);
        // SAFETY: works on its own registers only.
        unsafe {
            asm!(
                "mov rax, 0x1111", "movq xmm0, rax", "mov rdx, 0x2222", "movq xmm7, rdx", "mov rsi, 0x3333",
                "movq xmm15, rsi", "mov rcx, 200000", "2:", "dec rcx", "jnz 2b", "movq rdi, xmm0", "add rdi, rax",
                "movq rax, xmm7", "add rdx, rax", "movq rax, xmm15", "add rsi, rax", "mov rax, rcx",
                out("rax") a, out("rdx") b, out("rsi") c, out("rdi") d, out("rcx") _,
                out("xmm0") _, out("xmm7") _, out("xmm15") _,
            );
        }
        bad += i32::from((a, b, c, d) != (0, 0x4444, 0x6666, 0x2222));
    }
    say!("{bad} changed");
    silence(child);
    signal::dispose(libc::SIGUSR1, libc::SIG_DFL);
}

/// Vector registers survive a handler also where another process is given the CPU while they are taken from the
/// stack: on one CPU, beside a sleeper that wakes all the time, signals that the process sends itself.
fn own_registers() {
    const ROUNDS: u64 = 10_000;
    let mut allowed = [0u64; 128];
    sys!(SYS_sched_getaffinity, 0, size_of_val(&allowed), &mut allowed).unwrap();
    let (word, bits) = allowed.iter().enumerate().find(|(_, bits)| **bits != 0).unwrap();
    let mut one = [0u64; 128];
    one[word] = 1 << bits.trailing_zeros();
    sys!(SYS_sched_setaffinity, 0, size_of_val(&one), &one).unwrap();
    signal::handle(libc::SIGUSR1, spoil_registers, 0, &[]).unwrap();
    let sleeper = spawn(|| {
        loop {
            let soon = libc::timespec { tv_sec: 0, tv_nsec: 20_000 };
            let _ = sys!(SYS_nanosleep, &soon, 0);
        }
    });
    let mut bad = 0;
    for round in 0..ROUNDS {
        let seen: u64;
        // SAFETY: sends a signal whose handler works on its own registers; changes what is declared.
        unsafe {
            asm!(
                "movq xmm7, r8", "syscall", "movq r8, xmm7",
                inout("rax") libc::SYS_tgkill => _, in("rdi") u64::from(id().cast_unsigned()),
                in("rsi") u64::from(id().cast_unsigned()), in("rdx") i64::from(libc::SIGUSR1),
                inout("r8") round => seen, out("rcx") _, out("r11") _, out("xmm7") _,
            );
        }
        bad += i32::from(seen != round);
    }
    say!("{bad} changed");
    silence(sleeper);
    sys!(SYS_sched_setaffinity, 0, size_of_val(&allowed), &allowed).unwrap();
    signal::dispose(libc::SIGUSR1, libc::SIG_DFL);
}
