//! What to do about each vector.
//!
//! Vectors below 32 are the CPU's exceptions; the rest are interrupts, acknowledged here and handed
//! to [`Hooks::interrupt`](super::Hooks). Exceptions in the kernel are bugs, so all but a page
//! fault that the floors above resolve end in `fatal_exception`.

use core::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use super::{apic, fpu, hooks, vectors};

/// The interrupted registers, as the entry code leaves them on the stack.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
#[allow(missing_docs)]
pub struct Frame {
    pub r15: u64,
    pub r14: u64,
    pub r13: u64,
    pub r12: u64,
    pub rbx: u64,
    pub r11: u64,
    pub r10: u64,
    pub r9: u64,
    pub r8: u64,
    pub rdi: u64,
    pub rsi: u64,
    pub rbp: u64,
    pub rdx: u64,
    pub rcx: u64,
    pub rax: u64,
    pub vector: u64,
    /// 0 for vectors that have none.
    pub error_code: u64,
    pub rip: u64,
    pub cs: u64,
    pub rflags: u64,
    pub rsp: u64,
    pub ss: u64,
}

impl Frame {
    /// All registers with their names, for a dump.
    pub fn registers(&self) -> impl Iterator<Item = (&'static str, u64)> {
        [
            ("rax", self.rax),
            ("rbx", self.rbx),
            ("rcx", self.rcx),
            ("rdx", self.rdx),
            ("rsi", self.rsi),
            ("rdi", self.rdi),
            ("rbp", self.rbp),
            ("rsp", self.rsp),
            ("r8", self.r8),
            ("r9", self.r9),
            ("r10", self.r10),
            ("r11", self.r11),
            ("r12", self.r12),
            ("r13", self.r13),
            ("r14", self.r14),
            ("r15", self.r15),
            ("rip", self.rip),
            ("rflags", self.rflags),
            ("cs", self.cs),
            ("ss", self.ss),
        ]
        .into_iter()
    }

    /// The exception's mnemonic and name (SDM vol. 3, table 6-1).
    pub fn name(&self) -> &'static str {
        match self.vector {
            0 => "#DE divide error",
            1 => "#DB debug exception",
            2 => "NMI",
            3 => "#BP breakpoint",
            4 => "#OF overflow",
            5 => "#BR bound range exceeded",
            6 => "#UD invalid opcode",
            7 => "#NM no math coprocessor",
            8 => "#DF double fault",
            10 => "#TS invalid TSS",
            11 => "#NP segment not present",
            12 => "#SS stack-segment fault",
            13 => "#GP general protection",
            14 => "#PF page fault",
            16 => "#MF x87 floating-point error",
            17 => "#AC alignment check",
            18 => "#MC machine check",
            19 => "#XM SIMD floating-point error",
            20 => "#VE virtualization exception",
            21 => "#CP control protection",
            _ => "reserved vector",
        }
    }
}

/// Vector of the page fault.
pub const PAGE_FAULT: u64 = 14;
/// Vector of the double fault.
pub const DOUBLE_FAULT: u64 = 8;
const NMI: u64 = 2;
const DEVICE_NOT_AVAILABLE: u64 = 7;
/// What `vector` is in the frame of a system call. `error_code` is the call's number then.
pub const SYSCALL: u64 = 256;

/// Set when a CPU wants all others to stop for good.
static STOP_REQUESTED: AtomicBool = AtomicBool::new(false);
static UNEXPECTED_NMIS: AtomicU64 = AtomicU64::new(0);

/// Makes every NMI from here on stop the CPU that takes it.
pub(super) fn request_stop() {
    STOP_REQUESTED.store(true, Ordering::SeqCst);
}

/// NMIs that came without anybody asking for one, since boot.
pub fn unexpected_nmis() -> u64 {
    UNEXPECTED_NMIS.load(Ordering::Relaxed)
}

/// Called by the entry code on the interrupted stack, for what interrupts ring 0; interrupts are off.
pub(super) extern "C" fn on_ordinary(frame: &mut Frame) {
    if let Ok(vector @ 32..) = u8::try_from(frame.vector) {
        return on_interrupt(vector, Origin::Kernel);
    }
    if frame.vector == PAGE_FAULT && (hooks().page_fault)(frame, fault_address()) {
        return;
    }
    (hooks().fatal_exception)(frame)
}

/// Called by the entry code on the stack of the task, for what interrupts ring 3; interrupts are off.
pub(super) extern "C" fn on_ring_3(frame: &mut Frame) {
    if frame.vector == PAGE_FAULT {
        (hooks().user_page_fault)(frame, fault_address());
    } else {
        on_other(frame);
    }
    (hooks().return_to_user)(frame);
}

/// What interrupts ring 3 and is no page fault.
#[inline(never)]
fn on_other(frame: &mut Frame) {
    match frame.vector {
        vector @ 32..256 => on_interrupt(vector as u8, Origin::Program),
        // SAFETY: interrupts are off in a handler, and the running task is that of a program.
        DEVICE_NOT_AVAILABLE => unsafe { fpu::on_first_use() },
        _ => (hooks().user_exception)(frame),
    }
}

/// What an interrupt has interrupted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Origin {
    /// Ring 3.
    Program,
    /// Ring 0.
    Kernel,
}

#[inline(always)]
fn on_interrupt(vector: u8, origin: Origin) {
    if vectors::is_internal(vector) {
        return on_internal(vector);
    }
    apic::end_of_interrupt();
    (hooks().interrupt)(vector, origin);
}

#[cold]
fn on_internal(vector: u8) {
    // The 8259s are masked and the APIC's spurious vector wants no acknowledgement
    // (SDM vol. 3, 10.9): neither may end an interrupt that is truly in service.
    if vector != vectors::SPURIOUS && !vectors::is_legacy(vector) {
        apic::end_of_interrupt();
    }
}

/// Called by the entry code, on an interrupt stack, interrupts off.
pub(super) extern "C" fn on_ist(frame: &Frame) {
    if frame.vector == NMI {
        if STOP_REQUESTED.load(Ordering::SeqCst) {
            (hooks().stop)(frame);
        }
        UNEXPECTED_NMIS.fetch_add(1, Ordering::Relaxed);
        return;
    }
    (hooks().fatal_exception)(frame)
}

/// The address whose access faulted (CR2): meaningful in a page or double fault, until the next.
#[inline(always)]
pub fn fault_address() -> u64 {
    x86_64::registers::control::Cr2::read_raw()
}
