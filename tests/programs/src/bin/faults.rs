//! What a program's own mistakes become: the signal, its code and its address.

use std::arch::asm;

use programs::process::{Status, ending, exit_now, id, pipe, read, write};
use programs::{check, memory, say, signal, sys};

fn main() {
    programs::main(&[
        ("segv", segv),
        ("bus", bus),
        ("arithmetic", arithmetic),
        ("instructions", instructions),
        ("trap", trap),
        ("privileged", privileged),
        ("alignment", alignment),
        ("stack", stack),
        ("blocked", blocked),
        ("ignored", ignored),
        ("nested", nested),
        ("repaired", repaired),
        ("calls", calls),
        ("registers", registers),
    ]);
}

/// Tells what it was told and ends the process.
extern "C" fn tell(number: i32, info: &libc::siginfo_t, context: &mut libc::ucontext_t) {
    // SAFETY: every fault's siginfo has an address.
    let address = unsafe { info.si_addr() } as u64;
    let registers = &context.uc_mcontext.gregs;
    let rip = registers[libc::REG_RIP as usize] as u64;
    let shown = match address {
        0 => "null".into(),
        _ if address == rip => "the instruction".to_owned(),
        _ if address < 0x10_0000 || address >> 47 != 0 => format!("{address:#x}"),
        _ => format!("page offset {:#x}", address % 4096),
    };
    say!("{} code {} at {shown}", signal::name(number), info.si_code);
    exit_now(0);
}

const ALL: [i32; 5] = [libc::SIGSEGV, libc::SIGBUS, libc::SIGFPE, libc::SIGILL, libc::SIGTRAP];

/// What a handler is told of this fault, and how it ends without one.
fn fault(what: &str, body: impl Fn()) {
    say!("{what}:");
    let handled = ending(|| {
        ALL.into_iter().for_each(|number| signal::handle(number, tell, 0, &[]).unwrap());
        body();
        say!("nothing happened");
        0
    });
    let plain = ending(|| {
        body();
        0
    });
    say!("  {handled}, {plain}");
}

/// What some emulated CPUs leave out: nothing, or this signal.
fn either(status: Status, number: i32, what: &str) {
    let signalled = libc::WIFSIGNALED(status.0) && libc::WTERMSIG(status.0) == number;
    check!(status.exited_with(0) || signalled, "{what}: {status}");
}

fn segv() {
    let page = memory::pages(1);
    fault("read null", || {
        memory::peek(std::ptr::null());
    });
    fault("write null", || memory::poke(std::ptr::null_mut(), 1));
    fault("read low", || {
        memory::peek(0x1234 as *const u8);
    });
    fault("not mapped", || {
        memory::unmap(page, memory::PAGE);
        memory::poke(page.wrapping_add(0x123), 1);
    });
    for (name, protection) in
        [("none", 0), ("read", libc::PROT_READ), ("execute", libc::PROT_READ | libc::PROT_EXEC)]
    {
        sys!(SYS_mprotect, page, memory::PAGE, protection).unwrap();
        fault(&format!("write with protection {name}"), || {
            memory::poke(page.wrapping_add(0x456), 1)
        });
    }
    sys!(SYS_mprotect, page, memory::PAGE, libc::PROT_NONE).unwrap();
    fault("read with protection none", || {
        memory::peek(page.wrapping_add(0x789));
    });
    sys!(SYS_mprotect, page, memory::PAGE, memory::RW).unwrap();
    memory::poke(page, 0xc3);
    fault("execute data", || jump(page as u64));
    fault("execute nothing", || jump(0x10));
    fault("write code", || memory::poke(segv as *const () as *mut u8, 0x90));
    memory::unmap(page, memory::PAGE);
    fault("kernel address", || {
        memory::peek(0xffff_8000_0000_0000 as *const u8);
    });
    fault("highest address", || {
        memory::peek(u64::MAX as *const u8);
    });
    fault("not canonical", || {
        memory::peek(0x8000_0000_0000_0000 as *const u8);
    });
    fault("first beyond the window", || {
        memory::peek(0x7fff_ffff_f000 as *const u8);
    });
    fault("first not canonical", || {
        memory::peek(0x8000_0000_0000 as *const u8);
    });
}

fn jump(address: u64) {
    // SAFETY: none; whether this comes back is the question. Where it does, a RET did it.
    unsafe { asm!("call {}", in(reg) address, clobber_abi("C")) };
}

/// A mapping beyond the end of its file.
fn bus() {
    let fd = sys!(SYS_open, c"bus".as_ptr(), libc::O_CREAT | libc::O_RDWR, 0o600).unwrap() as i32;
    write(fd, b"a few bytes").unwrap();
    let len = 3 * memory::PAGE;
    let map = sys!(SYS_mmap, 0, len, libc::PROT_READ, libc::MAP_PRIVATE, fd, 0).unwrap() as *mut u8;
    say!(
        "first {} and then {}",
        memory::peek(map),
        memory::peek(map.wrapping_add(memory::PAGE - 1))
    );
    fault("beyond the end", || {
        memory::peek(map.wrapping_add(memory::PAGE + 0x321));
    });
    memory::unmap(map, len);
    sys!(SYS_unlink, c"bus".as_ptr()).unwrap();
    programs::process::close(fd);
}

fn arithmetic() {
    fault("divide by zero", || {
        // SAFETY: changes only what is declared, and faults.
        unsafe {
            asm!("xor ecx, ecx", "div ecx", out("ecx") _, inout("eax") 1 => _, inout("edx") 0 => _)
        };
    });
    fault("quotient too large", || {
        // SAFETY: as above.
        unsafe {
            asm!("mov ecx, -1", "idiv ecx", out("ecx") _, inout("eax") i32::MIN => _, inout("edx") -1 => _);
        }
    });
    // Not every emulated CPU raises these; one that does must be understood.
    let status = ending(|| {
        let control = 0x1f80u32 & !0x200;
        // SAFETY: changes only what is declared, and may fault.
        unsafe {
            asm!(
                "sub rsp, 8", "mov [rsp], {control:e}", "ldmxcsr [rsp]", "add rsp, 8",
                "mov eax, 0x3f800000", "movd xmm0, eax", "xorps xmm1, xmm1", "divss xmm0, xmm1",
                control = in(reg) control, out("eax") _, out("xmm0") _, out("xmm1") _,
            );
        }
        0
    });
    either(status, libc::SIGFPE, "vector divide");
    fault("x87 divide", || {
        // SAFETY: changes the x87 state, which Rust does not use, and faults.
        unsafe {
            asm!(
                "sub rsp, 8",
                "mov word ptr [rsp], 0x37b",
                "fldcw [rsp]",
                "fld1",
                "fldz",
                "fdivp",
                "fwait",
                "add rsp, 8",
            );
        }
    });
}

fn instructions() {
    fault("ud2", || {
        // SAFETY: faults.
        unsafe { asm!("ud2") };
    });
    fault("not an instruction", || {
        // SAFETY: faults.
        unsafe { asm!(".byte 0x06") };
    });
    fault("lock without memory", || {
        // SAFETY: faults.
        unsafe { asm!(".byte 0xf0, 0x90") };
    });
}

fn trap() {
    fault("int3", || {
        // SAFETY: traps.
        unsafe { asm!("int3") };
    });
    fault("single step", || {
        // SAFETY: sets TF, so that the instruction after POPFQ traps.
        unsafe { asm!("pushfq", "or qword ptr [rsp], 0x100", "popfq", "nop") };
    });
}

fn privileged() {
    fault("hlt", || {
        // SAFETY: faults.
        unsafe { asm!("hlt") };
    });
    fault("cli", || {
        // SAFETY: faults.
        unsafe { asm!("cli") };
    });
    fault("in", || {
        // SAFETY: faults.
        unsafe { asm!("in al, 0x60", out("al") _) };
    });
    fault("mov from cr3", || {
        // SAFETY: faults.
        unsafe { asm!("mov {}, cr3", out(reg) _) };
    });
    fault("wrmsr", || {
        // SAFETY: faults.
        unsafe { asm!("wrmsr", in("ecx") 0xc000_0082u32, in("eax") 0, in("edx") 0) };
    });
    fault("int 0x20", || {
        // SAFETY: faults.
        unsafe { asm!("int 0x20") };
    });
    fault("int 14", || {
        // SAFETY: faults.
        unsafe { asm!("int 14") };
    });
    fault("ltr", || {
        // SAFETY: faults.
        unsafe { asm!("ltr ax", in("ax") 0x40u16) };
    });
}

fn alignment() {
    let status = ending(|| {
        let block = [0u8; 64];
        let odd = std::hint::black_box(&block).as_ptr().align_offset(16) + 1;
        // SAFETY: reads within the block, and may fault.
        unsafe {
            asm!("movaps xmm0, [{}]", in(reg) block.as_ptr().wrapping_add(odd), out("xmm0") _)
        };
        0
    });
    either(status, libc::SIGSEGV, "vector not aligned");
    // No handler: it would begin with AC set and fault in turn.
    let status = ending(|| {
        let block = [0u64; 4];
        let odd = std::hint::black_box(&block).as_ptr().cast::<u8>().wrapping_add(1);
        // SAFETY: sets AC, so that the read may fault.
        unsafe {
            asm!("pushfq", "or qword ptr [rsp], 0x40000", "popfq", "mov {0}, [{0}]", inout(reg) odd => _);
        }
        0
    });
    either(status, libc::SIGBUS, "alignment check");
}

#[expect(unconditional_recursion, reason = "the stack is to overflow")]
fn overflow(depth: i32) -> i32 {
    let frame = std::hint::black_box([depth; 200]);
    overflow(depth + 1) + frame[depth as usize % 200]
}

fn stack() {
    say!("overflow: {}", ending(|| overflow(1)));
    let status = ending(|| {
        let code: u64 = 0;
        // SAFETY: none; with a stack pointer like this the program cannot go on.
        unsafe { asm!("mov rsp, 0x7000", "push {}", in(reg) code, options(noreturn)) };
    });
    say!("stack pointer astray: {status}");
    let status = ending(|| {
        // SAFETY: none, as above.
        unsafe {
            asm!("mov rsp, {}", "push rax", in(reg) 0x8000_0000_0000_0000u64, options(noreturn))
        };
    });
    // A stack fault, or a general protection fault where the CPU does not tell them apart.
    let number = libc::WTERMSIG(status.0);
    check!(matches!(number, libc::SIGBUS | libc::SIGSEGV), "stack pointer not canonical: {status}");
    // A handler without a stack to run on.
    let status = ending(|| {
        signal::handle(libc::SIGUSR1, tell, 0, &[]).unwrap();
        let (pid, number) = (id(), libc::SIGUSR1);
        // SAFETY: none, as above: the signal cannot be delivered.
        unsafe {
            asm!("mov rsp, 0x7000", "syscall", in("rax") libc::SYS_kill, in("rdi") pid, in("rsi") number,
                options(noreturn));
        }
    });
    say!("no room for the frame: {status}");
}

/// A fault's signal that is masked cannot wait: it kills.
fn blocked() {
    let status = ending(|| {
        signal::recorded(libc::SIGSEGV, 0);
        signal::mask(libc::SIG_BLOCK, signal::set(&[libc::SIGSEGV]));
        memory::peek(std::ptr::null());
        0
    });
    say!("{status}");
}

fn ignored() {
    for number in [libc::SIGSEGV, libc::SIGFPE, libc::SIGILL] {
        let status = ending(|| {
            signal::dispose(number, libc::SIG_IGN);
            match number {
                libc::SIGSEGV => {
                    memory::peek(std::ptr::null());
                }
                // SAFETY: faults.
                libc::SIGFPE => unsafe {
                    asm!("xor ecx, ecx", "div ecx", out("ecx") _, out("eax") _, out("edx") _);
                },
                // SAFETY: faults.
                _ => unsafe { asm!("ud2") },
            }
            0
        });
        say!("{status}");
    }
}

extern "C" fn fault_again(_: i32, _: &libc::siginfo_t, _: &mut libc::ucontext_t) {
    memory::peek(8 as *const u8);
}

/// A fault in the handler of the same fault kills.
fn nested() {
    let status = ending(|| {
        signal::handle(libc::SIGSEGV, fault_again, 0, &[]).unwrap();
        memory::peek(std::ptr::null());
        0
    });
    say!("{status}");
}

extern "C" fn repair(_: i32, info: &libc::siginfo_t, _: &mut libc::ucontext_t) {
    // SAFETY: a SIGSEGV's siginfo has an address.
    let address = unsafe { info.si_addr() } as usize;
    let page = address & !(memory::PAGE - 1);
    if sys!(SYS_mprotect, page, memory::PAGE, memory::RW).is_err() {
        exit_now(9);
    }
    signal::record(libc::SIGSEGV, info, &mut empty_context());
}

fn empty_context() -> libc::ucontext_t {
    // SAFETY: all zeroes is a ucontext_t.
    unsafe { std::mem::zeroed() }
}

/// A handler makes the page accessible and the instruction runs again.
fn repaired() {
    let pages = memory::pages(20);
    sys!(SYS_mprotect, pages, 20 * memory::PAGE, libc::PROT_NONE).unwrap();
    signal::handle(libc::SIGSEGV, repair, 0, &[]).unwrap();
    for number in 0..20 {
        memory::poke(memory::page(pages, number), number as u8 + 1);
    }
    let sum: u32 = (0..20).map(|number| u32::from(memory::peek(memory::page(pages, number)))).sum();
    say!("{} faults, sum {sum}", signal::take().len());
    signal::dispose(libc::SIGSEGV, libc::SIG_DFL);
    memory::unmap(pages, 20 * memory::PAGE);
}

/// A bad pointer in a system call is an error, not a signal, even at the end of good memory.
fn calls() {
    let pages = memory::pages(2);
    let last = pages.wrapping_add(2 * memory::PAGE - 4);
    let (input, output) = pipe(0);
    write(output, b"12345678").unwrap();
    say!("read half: {}", sys::outcome(sys!(SYS_read, input, last, 4)));
    say!("read beyond: {}", sys::value(sys!(SYS_read, input, memory::page(pages, 2), 4)));
    say!("left {:?}", read(input, 10).unwrap().len());
    sys!(SYS_mprotect, pages, memory::PAGE, libc::PROT_READ).unwrap();
    write(output, b"12345678").unwrap();
    say!("read to read-only: {}", sys::value(sys!(SYS_read, input, pages, 4)));
    say!("time to read-only: {}", sys::value(sys!(SYS_getcpu, pages, 0, 0)));
    say!("write from unmapped: {}", sys::value(sys!(SYS_write, output, 0x1000, 4)));
    programs::process::close(input);
    programs::process::close(output);
    memory::unmap(pages, 2 * memory::PAGE);
}

/// The registers at the fault are in the handler's context.
fn registers() {
    extern "C" fn show(_: i32, _: &libc::siginfo_t, context: &mut libc::ucontext_t) {
        let registers = &context.uc_mcontext.gregs;
        let of = |register: i32| registers[register as usize];
        let low = [
            of(libc::REG_RAX),
            of(libc::REG_RBX),
            of(libc::REG_R8),
            of(libc::REG_R15),
            of(libc::REG_RDI),
        ];
        say!(
            "{low:x?} trap {} error {:#x} cr2 {:#x}",
            of(libc::REG_TRAPNO),
            of(libc::REG_ERR),
            of(libc::REG_CR2)
        );
        exit_now(0);
    }
    for write in [false, true] {
        let status = ending(|| {
            signal::handle(libc::SIGSEGV, show, 0, &[]).unwrap();
            // SAFETY: faults, and the handler ends the process.
            unsafe {
                asm!(
                    "test ecx, ecx", "mov rbx, 0xb", "mov r8, 0x8", "mov r15, 0xf", "jnz 2f",
                    "mov [rax], rax", "2:", "mov rax, [rax]",
                    in("rax") 0xabc, in("ecx") i32::from(!write), in("rdi") 0xd1, options(noreturn),
                );
            }
        });
        say!("{status}");
    }
}
