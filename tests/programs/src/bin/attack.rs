//! Attempts to get at the kernel or past protections, each in a child of its own: every one must end with the right
//! signal or error, and this program goes on.

use std::arch::asm;

use programs::memory::{self, PAGE, PRIVATE, RW, pages, poke};
use programs::process::{Status, close, ending, pipe, spawn, wait};
use programs::sys::value;
use programs::{check, say, signal, sys};

fn main() {
    programs::main(&[
        ("kernel-memory", kernel_memory),
        ("execute", execute),
        ("return-addresses", return_addresses),
        ("frames", frames),
        ("frame-flags", frame_flags),
        ("frame-segments", frame_segments),
        ("vector-state", vector_state),
        ("gs", gs),
        ("instructions", instructions),
        ("ports", ports),
        ("old-calls", old_calls),
        ("pointers", pointers),
        ("lengths", lengths),
        ("wrap", wrap),
        ("stack", stack),
        ("sigreturn", sigreturn),
        ("racing-unmap", racing_unmap),
        ("descriptors", descriptors),
    ]);
}

const KERNEL: [u64; 8] = [
    0xffff_8000_0000_0000,
    0xffff_8000_0010_0000,
    0xffff_ffff_8020_0000,
    0xffff_ffff_ffff_f000,
    0xffff_ffff_ffff_ffff,
    0x0000_8000_0000_0000,
    0x8000_0000_0000_0000,
    0x7fff_ffff_f000,
];

/// How the children end that try this at all of these addresses, said once if it is always the same.
fn at_each(what: &str, addresses: &[u64], attempt: impl Fn(u64)) {
    let endings: Vec<Status> = addresses
        .iter()
        .map(|&address| {
            ending(|| {
                attempt(address);
                0
            })
        })
        .collect();
    let same = endings.iter().all(|&its| its == endings[0]);
    let shown = if same {
        endings[0].to_string()
    } else {
        endings.iter().map(|its| format!("{its}; ")).collect()
    };
    say!("{what}: {shown}");
}

fn kernel_memory() {
    at_each("read", &KERNEL, |address| {
        memory::peek(address as *const u8);
    });
    at_each("write", &KERNEL, |address| poke(address as *mut u8, 1));
    at_each("jump", &KERNEL, |address| {
        // SAFETY: none is claimed: the attempt must end in a signal.
        unsafe { asm!("jmp {}", in(reg) address, options(noreturn)) }
    });
    at_each("prefetch", &KERNEL, |address| {
        // SAFETY: a hint, which never faults.
        unsafe { asm!("prefetcht0 [{}]", in(reg) address) }
    });
}

/// `mov eax, 1; ret`
const CODE: [u8; 6] = [0xb8, 1, 0, 0, 0, 0xc3];

fn run_at(address: *mut u8) -> i32 {
    let result: i32;
    // SAFETY: none is claimed: either there is the code above, which keeps to the rules, or a signal.
    unsafe { asm!("call {}", in(reg) address, out("eax") result, clobber_abi("C")) };
    result
}

fn place_code(at: *mut u8) {
    for (number, &byte) in CODE.iter().enumerate() {
        poke(at.wrapping_add(number), byte);
    }
}

fn execute() {
    let data = pages(1);
    place_code(data);
    say!("data: {}", ending(|| run_at(data)));
    let mut stack = CODE;
    let place = stack.as_mut_ptr();
    say!("stack: {}", ending(|| run_at(place)));
    let mut heap = CODE.to_vec();
    let place = heap.as_mut_ptr();
    say!("heap: {}", ending(|| run_at(place)));
    let shared = memory::shared_pages(1);
    place_code(shared);
    say!("shared: {}", ending(|| run_at(shared)));
    // Made executable it runs; made data again it does not, on this CPU or any other.
    sys!(SYS_mprotect, data, PAGE, libc::PROT_READ | libc::PROT_EXEC).unwrap();
    say!("code: {}", ending(|| run_at(data)));
    say!(
        "writing code: {}",
        ending(|| {
            poke(data, 0x90);
            0
        })
    );
    check!(run_at(data) == 1, "it does not run here");
    sys!(SYS_mprotect, data, PAGE, RW).unwrap();
    say!("data again: {}", ending(|| run_at(data)));
}

/// What a signal handler does to the context before it returns.
static mut CHANGE: (i32, i64) = (0, 0);

extern "C" fn change(_: i32, _: &libc::siginfo_t, context: &mut libc::ucontext_t) {
    // SAFETY: written before the signal was raised, by this thread.
    let (register, number) = unsafe { CHANGE };
    context.uc_mcontext.gregs[register as usize] = number;
}

/// Returns from a handler with this register changed.
fn with_register(register: i32, number: u64) -> i32 {
    // SAFETY: no signal comes meanwhile.
    unsafe { CHANGE = (register, number as i64) };
    signal::handle(libc::SIGUSR1, change, 0, &[]).unwrap();
    let _ = signal::raise(libc::SIGUSR1);
    3
}

/// sigreturn to where no program may be: IRET and SYSRET must not fault in ring 0.
fn return_addresses() {
    for address in [
        0x0000_7fff_ffff_f000,
        0x0000_7fff_ffff_ffff,
        0x0000_8000_0000_0000,
        0x0000_8000_0000_0001,
        0x8000_0000_0000_0000,
        0xffff_7fff_ffff_ffff,
        0xffff_8000_0000_0000,
        0xffff_ffff_8020_0000,
        0xffff_ffff_ffff_ffff,
        0,
    ] {
        say!("rip {address:#x}: {}", ending(|| with_register(libc::REG_RIP, address)));
    }
    for address in [0, 8, 0x8000_0000_0000, 0x8000_0000_0000_0000, 0xffff_8000_0000_0000, u64::MAX]
    {
        let status = ending(|| with_register(libc::REG_RSP, address));
        check!(libc::WIFSIGNALED(status.0), "rsp {address:#x}: {status}");
    }
    // A SYSCALL in the window's last bytes would return beyond it: nothing may be mapped there.
    let last = 0x7fff_ffff_f000u64;
    say!(
        "the last page: {}",
        value(sys!(SYS_mmap, last, PAGE, RW, PRIVATE | libc::MAP_FIXED, -1, 0))
    );
    let top = memory::map_at(
        (last - PAGE as u64) as usize,
        PAGE,
        RW,
        PRIVATE | libc::MAP_FIXED_NOREPLACE,
    );
    if let Ok(top) = top {
        // `syscall` as the very last instruction of the window.
        poke(top.wrapping_add(PAGE - 2), 0x0f);
        poke(top.wrapping_add(PAGE - 1), 0x05);
        sys!(SYS_mprotect, top, PAGE, libc::PROT_READ | libc::PROT_EXEC).unwrap();
        let status = ending(|| {
            // SAFETY: none is claimed: after a harmless call the next instruction is not there.
            unsafe {
                asm!("mov eax, 39", "jmp {}", in(reg) top.wrapping_add(PAGE - 2), options(noreturn));
            }
        });
        say!("syscall at the end: {status}");
        memory::unmap(top, PAGE);
    } else {
        say!("syscall at the end: killed by SIGSEGV");
    }
}

/// A forged frame: rt_sigreturn on a stack of the attacker's choice.
fn forged(stack: u64) -> i32 {
    // SAFETY: none is claimed: the frame is garbage.
    unsafe {
        asm!("mov rsp, {}", "mov eax, 15", "syscall", "ud2", in(reg) stack, options(noreturn))
    }
}

fn frames() {
    at_each(
        "no frame",
        &[0x1000, 0x7fff_ffff_e000, 0xffff_8000_0000_0000, 0x8000_0000_0000_0000, 1, u64::MAX - 7],
        |stack| {
            forged(stack);
        },
    );
    let zeroes = pages(4);
    say!("zeroes: {}", ending(|| forged(zeroes as u64 + 4096)));
    let ones = pages(4);
    for number in 0..4 * PAGE {
        poke(ones.wrapping_add(number), 0xff);
    }
    say!("ones: {}", ending(|| forged(ones as u64 + 4096)));
    say!("at the end: {}", ending(|| forged(zeroes as u64 + 4 * PAGE as u64 - 16)));
}

/// Flags that no program may set: they are ignored, not believed.
fn frame_flags() {
    extern "C" fn set_all(_: i32, _: &libc::siginfo_t, context: &mut libc::ucontext_t) {
        // IOPL, NT, VM, RF, interrupts off, but neither TF nor AC.
        let flags = &mut context.uc_mcontext.gregs[libc::REG_EFL as usize];
        *flags = (*flags | 0x0003_7000 | 0x10_0000) & !0x200;
    }
    let status = ending(|| {
        signal::handle(libc::SIGUSR1, set_all, 0, &[]).unwrap();
        signal::raise(libc::SIGUSR1).unwrap();
        let flags: u64;
        // SAFETY: reads the flags.
        unsafe { asm!("pushfq", "pop {}", out(reg) flags) };
        say!("iopl {}, nt {}, interrupts {}", flags >> 12 & 3, flags >> 14 & 1, flags >> 9 & 1);
        0
    });
    say!("{status}");
    // POPF from ring 3 cannot do it either.
    let flags: u64;
    // SAFETY: sets IOPL and clears IF, which ring 3 may not: they are ignored.
    unsafe {
        asm!("pushfq", "or qword ptr [rsp], 0x3000", "and qword ptr [rsp], ~0x200", "popfq", "pushfq", "pop {}",
            out(reg) flags);
    }
    say!("popf: iopl {}, interrupts {}", flags >> 12 & 3, flags >> 9 & 1);
}

/// Selectors of the kernel in a frame.
fn frame_segments() {
    for selectors in [0x08u64, 0x10, 0x0010_0008, 0xffff, 0x2b, 0] {
        let status = ending(|| with_register(libc::REG_CSGSFS, selectors));
        // Linux refuses or corrects them; the program never runs on with rights that it did not have.
        let privileged = status.exited_with(3) && selector() & 3 != 3;
        check!(!privileged, "selectors {selectors:#x}: {status}");
    }
    say!("still in ring {}", selector() & 3);
}

fn selector() -> u64 {
    let cs: u64;
    // SAFETY: reads the code segment's selector.
    unsafe { asm!("mov {}, cs", out(reg) cs) };
    cs
}

/// Where the frame says that the vector state is: the word after the 23 registers.
fn vector_pointer(context: &mut libc::ucontext_t) -> *mut u64 {
    (&raw mut context.uc_mcontext.gregs).cast::<u64>().wrapping_add(23)
}

static mut SPOIL: (usize, u8) = (0, 0);

/// FPU state that no XRSTOR accepts.
fn vector_state() {
    extern "C" fn spoil(_: i32, _: &libc::siginfo_t, context: &mut libc::ucontext_t) {
        // SAFETY: the kernel saved at least 512 bytes there; the words are set before the signal was raised.
        unsafe {
            let (offset, byte) = SPOIL;
            let state = vector_pointer(context).read() as *mut u8;
            for number in 0..8 {
                state.add(offset + number).write(byte);
            }
        }
    }
    // MXCSR; the software words' magic and sizes; XSTATE_BV; XCOMP_BV; the header's reserved words.
    for (name, offset) in [
        ("mxcsr", 24),
        ("magic", 464),
        ("sizes", 472),
        ("features", 480),
        ("header", 512),
        ("compaction", 520),
        ("reserved", 536),
    ] {
        let status = ending(|| {
            // SAFETY: no signal comes meanwhile.
            unsafe { SPOIL = (offset, 0xff) };
            signal::handle(libc::SIGUSR1, spoil, 0, &[]).unwrap();
            let _ = signal::raise(libc::SIGUSR1);
            5
        });
        // Refused with SIGSEGV or repaired: what matters is that the kernel and this process are well.
        let fine = status.exited_with(5)
            || libc::WIFSIGNALED(status.0) && libc::WTERMSIG(status.0) == libc::SIGSEGV;
        check!(fine, "{name}: {status}");
    }
    extern "C" fn move_state(_: i32, _: &libc::siginfo_t, context: &mut libc::ucontext_t) {
        // SAFETY: as above.
        unsafe { vector_pointer(context).write(SPOIL.0 as u64) };
    }
    for address in [1usize, 0x1000, 0xffff_8000_0000_0000, 0x8000_0000_0000_0000] {
        let status = ending(|| {
            // SAFETY: as above.
            unsafe { SPOIL = (address, 0) };
            signal::handle(libc::SIGUSR1, move_state, 0, &[]).unwrap();
            let _ = signal::raise(libc::SIGUSR1);
            5
        });
        say!("state at {address:#x}: {status}");
    }
}

/// A forged GS base must not become the kernel's: not by arch_prctl, not by WRGSBASE, not by MOV to GS.
fn gs() {
    for base in
        [0xffff_8000_0000_0000u64, 0xffff_ffff_8020_0000, 0x8000_0000_0000_0000, 0x8000_0000_0000]
    {
        say!("arch_prctl {base:#x}: {}", value(sys!(SYS_arch_prctl, 0x1001, base)));
    }
    // AT_HWCAP2 bit 1: the instructions are there.
    // SAFETY: looks at the auxiliary vector only.
    let has_instructions = unsafe { libc::getauxval(libc::AT_HWCAP2) } & 2 != 0;
    let base = 0xffff_8000_0000_0000u64;
    let status = ending(|| {
        if has_instructions {
            // SAFETY: sets the base that only this program uses.
            unsafe { asm!("wrgsbase {}", in(reg) base) };
        }
        for _ in 0..100 {
            sys!(SYS_sched_yield).unwrap();
        }
        let page = pages(1);
        poke(page, 1);
        let child = spawn(|| 4);
        check!(wait(child).exited_with(4), "the child");
        signal::recorded(libc::SIGUSR1, 0);
        signal::raise(libc::SIGUSR1).unwrap();
        check!(signal::take().len() == 1, "no signal");
        programs::process::pause_ms(2);
        // Faults and interrupts from here find the kernel's base, too.
        let start = std::time::Instant::now();
        while start.elapsed().as_millis() < 20 {
            std::hint::spin_loop();
        }
        0
    });
    say!("a forged base: {status}");
    for selector in [0u16, 3, 0x10, 0x23, 0x2b, 0xffff] {
        let status = ending(|| {
            // SAFETY: loads a selector into GS, which this program does not use.
            unsafe { asm!("mov gs, {:x}", in(reg) selector) };
            let _ = sys!(SYS_sched_yield);
            6
        });
        let fine = status.exited_with(6) || libc::WIFSIGNALED(status.0);
        check!(fine, "gs {selector:#x}: {status}");
    }
}

macro_rules! tries {
    ($($name:literal: $($code:literal),+;)*) => {
        $(say!("{}: {}", $name, ending(|| {
            // SAFETY: the instruction is refused in ring 3; the registers are declared as lost.
            unsafe {
                asm!($($code),+, out("rax") _, out("rcx") _, out("rdx") _, out("rsi") _, out("rdi") _, out("r8") _)
            };
            7
        }));)*
    };
}

fn instructions() {
    tries! {
        "cli": "cli";
        "sti": "sti";
        "hlt": "hlt";
        "lgdt": "lgdt [rsp]";
        "lidt": "lidt [rsp]";
        "lldt": "xor eax, eax", "lldt ax";
        "ltr": "mov eax, 0x28", "ltr ax";
        "clts": "clts";
        "invd": "invd";
        "wbinvd": "wbinvd";
        "invlpg": "invlpg [rsp]";
        "mov to cr0": "mov cr0, rax";
        "mov from cr0": "mov rax, cr0";
        "mov to cr3": "mov cr3, rax";
        "mov to cr4": "mov cr4, rax";
        "mov to cr8": "mov cr8, rax";
        "mov to dr7": "mov dr7, rax";
        "rdmsr": "mov ecx, 0xc0000082", "rdmsr";
        "wrmsr": "mov ecx, 0xc0000082", "wrmsr";
        "swapgs": "swapgs";
        "sysret": "mov rcx, 0x1000", "sysretq";
        "iret to ring 0": "push 0x10", "push rsp", "pushfq", "push 0x8", "push 0", "iretq";
        "far jump": "push 0x8", "push 0", "retfq";
        "xsetbv": "xor ecx, ecx", "xor edx, edx", "mov eax, 1", "xsetbv";
        "int 0": "int 0";
        "int 8": "int 8";
        "int 2": "int 2";
        "int 0xef": "int 0xef";
        "int 0xff": "int 0xff";
        "monitor": "monitor";
        "clac": "clac";
        "stac": "stac";
    }
    // UMIP hides these tables where the CPU has it; Linux emulates some. Nothing else may happen.
    let status = ending(|| {
        // SAFETY: stores ten bytes into the red zone's place that was made for them.
        unsafe { asm!("sub rsp, 256", "sidt [rsp + 32]", "add rsp, 256") };
        8
    });
    check!(status.exited_with(8) || libc::WIFSIGNALED(status.0), "sidt: {status}");
}

fn ports() {
    at_each("in", &[0x20, 0x60, 0x70, 0x3f8, 0xcf8, 0xf4], |port| {
        // SAFETY: refused in ring 3.
        unsafe { asm!("in al, dx", in("dx") port as u16, out("al") _) }
    });
    at_each("out", &[0x20, 0x3f8, 0x604, 0xf4, 0x64], |port| {
        // SAFETY: refused in ring 3.
        unsafe { asm!("out dx, al", in("dx") port as u16, in("al") 0xfeu8) }
    });
}

/// The 32-bit ways into a kernel.
fn old_calls() {
    // Linux may have its 32-bit calls or not; here only that exit(1) is not the worst that happens.
    let status = ending(|| {
        // SAFETY: a system call without pointers, getpid of the 32-bit table, or a fault.
        unsafe { asm!("mov eax, 20", "int 0x80", out("rax") _) };
        9
    });
    check!(status.exited_with(9) || libc::WIFSIGNALED(status.0), "int 0x80: {status}");
    let status = ending(|| {
        // SAFETY: none is claimed.
        unsafe { asm!("mov eax, 20", "sysenter", options(noreturn)) }
    });
    check!(libc::WIFSIGNALED(status.0), "sysenter: {status}");
    say!("no way in");
}

/// Calls that write where a pointer says: to the kernel, to nothing, to read-only memory.
fn pointers() {
    let code = main as *const () as u64;
    let bad: Vec<u64> = KERNEL.iter().copied().chain([0, 8, 0x1000, code]).collect();
    let fd = sys!(SYS_open, c"/dev/zero".as_ptr(), libc::O_RDWR, 0).unwrap();
    let (input, output) = pipe(0);
    programs::process::write(output, b"data").unwrap();
    type Arguments = fn(u64, u64) -> [u64; 6];
    let calls: [(&str, i64, Arguments); 16] = [
        ("read", libc::SYS_read, |fd, at| [fd, at, 64, 0, 0, 0]),
        ("fstat", libc::SYS_fstat, |fd, at| [fd, at, 0, 0, 0, 0]),
        ("uname", libc::SYS_uname, |_, at| [at, 0, 0, 0, 0, 0]),
        ("getrandom", libc::SYS_getrandom, |_, at| [at, 64, 0, 0, 0, 0]),
        ("clock_gettime", libc::SYS_clock_gettime, |_, at| [1, at, 0, 0, 0, 0]),
        ("pipe2", libc::SYS_pipe2, |_, at| [at, 0, 0, 0, 0, 0]),
        ("sysinfo", libc::SYS_sysinfo, |_, at| [at, 0, 0, 0, 0, 0]),
        ("getrlimit", libc::SYS_getrlimit, |_, at| [7, at, 0, 0, 0, 0]),
        ("getrusage", libc::SYS_getrusage, |_, at| [0, at, 0, 0, 0, 0]),
        ("rt_sigpending", libc::SYS_rt_sigpending, |_, at| [at, 8, 0, 0, 0, 0]),
        ("getcwd", libc::SYS_getcwd, |_, at| [at, 4096, 0, 0, 0, 0]),
        ("getresuid", libc::SYS_getresuid, |_, at| [at, at, at, 0, 0, 0]),
        ("sched_getaffinity", libc::SYS_sched_getaffinity, |_, at| [0, 128, at, 0, 0, 0]),
        ("socketpair", libc::SYS_socketpair, |_, at| [1, 1, 0, at, 0, 0]),
        ("mincore", libc::SYS_mincore, |_, at| {
            [main as *const () as u64 & !0xfff, 4096, at, 0, 0, 0]
        }),
        ("getlk", libc::SYS_fcntl, |fd, at| [fd, libc::F_GETLK as u64, at, 0, 0, 0]),
    ];
    for (name, number, arguments) in calls {
        let mut results: Vec<String> = bad
            .iter()
            .map(|&address| {
                // SAFETY: the kernel must refuse every one of these addresses.
                value(unsafe { sys::call(number, &arguments(fd, address)) })
            })
            .collect();
        results.dedup();
        say!("{name}: {results:?}");
    }
    close(input);
    close(output);
    close(fd as i32);
}

fn lengths() {
    let (input, output) = pipe(libc::O_NONBLOCK);
    let page = pages(1);
    let huge = [u64::MAX, i64::MAX as u64, 1 << 47, 1 << 32, u64::from(u32::MAX)];
    for len in huge {
        // What is there is transferred, as far as there is room, or nothing.
        let result = sys!(SYS_write, output, page, len);
        check!(
            result.is_err() || result.is_ok_and(|count| count <= 1 << 16),
            "write {len:#x}: {result:?}"
        );
    }
    for (name, result) in [
        ("mmap", sys!(SYS_mmap, 0, u64::MAX - 4095, RW, PRIVATE, -1, 0)),
        ("munmap", sys!(SYS_munmap, page, u64::MAX - 4095)),
        ("iovec", sys!(SYS_writev, output, page, 1 << 20)),
        ("poll", sys!(SYS_poll, page, u64::from(u32::MAX), 0)),
        ("getrandom nowhere", sys!(SYS_getrandom, 16u64, u64::MAX, 0)),
        ("sigprocmask", sys!(SYS_rt_sigprocmask, 0, page, 0, 1 << 30)),
        ("robust list", sys!(SYS_set_robust_list, page, u64::MAX)),
        ("clone3", sys!(SYS_clone3, page, u64::MAX)),
        ("getdents", sys!(SYS_getdents64, input, page, u64::from(u32::MAX))),
        ("setaffinity", sys!(SYS_sched_setaffinity, 0, u64::from(u32::MAX), 16u64)),
        ("prlimit", sys!(SYS_prlimit64, 0, u32::MAX, page, page)),
    ] {
        say!("{name}: {}", value(result));
    }
    close(input);
    close(output);
    memory::unmap(page, PAGE);
}

/// Ranges that begin in the window and wrap round, or end in the kernel.
fn wrap() {
    let near = 0x7fff_ffff_e000u64;
    for (start, len) in
        [(near, 1u64 << 62), (near, u64::MAX - near + 1), (1 << 46, 0xffff_8000_0000_0000)]
    {
        // In a child, in case that one of them should succeed.
        let status = ending(|| {
            let results = [
                sys!(SYS_munmap, start, len),
                sys!(SYS_mprotect, start, len, RW),
                sys!(SYS_madvise, start, len, libc::MADV_DONTNEED),
                sys!(SYS_mremap, start, len, PAGE, 0, 0),
                sys!(SYS_mmap, start, len, RW, PRIVATE | libc::MAP_FIXED, -1, 0),
            ];
            check!(results.iter().all(Result::is_err), "{start:#x} + {len:#x}: {results:?}");
            0
        });
        check!(status.exited_with(0), "{start:#x} + {len:#x}: {status}");
    }
    say!("none of them");
}

#[expect(unconditional_recursion, reason = "the stack is to overflow")]
fn overflow(depth: u64) -> u64 {
    let frame = std::hint::black_box([depth; 64]);
    overflow(depth + 1) + frame[depth as usize % 64]
}

fn stack() {
    say!("overflow: {}", ending(|| overflow(0) as i32));
    let status = ending(|| {
        let _ =
            std::thread::Builder::new().stack_size(64 << 10).spawn(|| overflow(0)).unwrap().join();
        0
    });
    say!("a thread's: {status}");
    // System calls and faults with a stack pointer that leads nowhere.
    let status = ending(|| {
        // SAFETY: none is claimed.
        unsafe {
            asm!("mov rsp, {}", "mov eax, 39", "syscall", "mov edi, 4", "mov eax, 231", "syscall",
                in(reg) 0xffff_8000_0000_0000u64, options(noreturn));
        }
    });
    say!("call with a kernel stack pointer: {status}");
    let status = ending(|| {
        // SAFETY: none is claimed.
        unsafe { asm!("mov rsp, {}", "ud2", in(reg) 0xffff_8000_0000_0000u64, options(noreturn)) }
    });
    say!("fault with one: {status}");
}

/// sigreturn without a signal, again and again.
fn sigreturn() {
    let status = ending(|| {
        for _ in 0..3 {
            let _ = sys!(SYS_rt_sigreturn);
        }
        0
    });
    check!(libc::WIFSIGNALED(status.0), "{status}");
    // Nested frames until the stack is full.
    extern "C" fn more(_: i32, _: &libc::siginfo_t, _: &mut libc::ucontext_t) {
        let _ = signal::raise(libc::SIGUSR1);
    }
    let status = ending(|| {
        signal::handle(libc::SIGUSR1, more, libc::SA_NODEFER, &[]).unwrap();
        let _ = signal::raise(libc::SIGUSR1);
        0
    });
    say!("frames without end: {status}");
}

/// One thread unmaps what another gives to the kernel: an error at worst.
fn racing_unmap() {
    let status = ending(|| {
        let (input, output) = pipe(0);
        let place = pages(4) as usize;
        let flipper = std::thread::spawn(move || {
            for _ in 0..400 {
                memory::unmap(place as *mut u8, 4 * PAGE);
                let again =
                    memory::map_at(place, 4 * PAGE, RW, PRIVATE | libc::MAP_FIXED_NOREPLACE);
                check!(again == Ok(place as *mut u8), "{again:?}");
            }
        });
        // On the stack: an allocation might take the place while it is free.
        let mut elsewhere = [0u8; 4 * PAGE];
        while !flipper.is_finished() {
            let written = sys!(SYS_write, output, place, 4 * PAGE).unwrap_or(0);
            let mut left = written;
            while left > 0 {
                match sys!(SYS_read, input, place, left) {
                    Ok(got) => left -= got,
                    // Taken away under it: read it elsewhere.
                    Err(_) => left -= sys!(SYS_read, input, &mut elsewhere, left).unwrap(),
                }
            }
        }
        flipper.join().unwrap();
        0
    });
    say!("{status}");
}

fn descriptors() {
    for fd in [-1, -100, 1 << 20, i32::MAX, i32::MIN] {
        let results = [
            sys!(SYS_read, fd, 16u64, 1),
            sys!(SYS_close, fd),
            sys!(SYS_dup, fd),
            sys!(SYS_fstat, fd, 16u64),
            sys!(SYS_lseek, fd, 0, 0),
            sys!(SYS_ftruncate, fd, 0),
        ];
        check!(
            results.iter().all(|&result| result == Err(sys::Errno(libc::EBADF))),
            "{fd}: {results:?}"
        );
    }
    say!("bad ones are bad");
}
