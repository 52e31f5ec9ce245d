//! The per-CPU head: the few words that every path reaches with one `gs:`-relative instruction.
//!
//! Each CPU's GS base points at its [`CpuHead`] from `install` on; it never changes while the CPU
//! runs kernel code. Larger per-CPU state lives in the floors above, in [`PerCpu`] arrays.
//!
//! # The preempt count
//!
//! | bits | meaning |
//! |---|---|
//! | 0–15 | preemption disabled this many times (spinlocks, guards) |
//! | 16–23 | interrupt handlers this CPU is inside of |
//! | 31 | *clear* when a reschedule is needed ("inverted", as on Linux/x86) |
//!
//! The inversion makes one `dec` answer both questions of `preempt_enable`: it gives zero exactly
//! when nothing forbids preemption any more and a reschedule is wanted.
//!
//! The count needs no saving at a task switch: a switch always happens at a count of one with a
//! reschedule not needed, on both sides.

use core::arch::asm;
use core::cell::UnsafeCell;
use core::mem::offset_of;

use super::irq::IrqOff;

/// Most CPUs the kernel drives. CPU sets are one `u64`.
pub const MAX_CPUS: usize = 64;

/// One interrupt level in the preempt count.
pub const IRQ_LEVEL: u32 = 1 << 16;
const IRQ_MASK: u32 = 0xFF << 16;
const NO_RESCHED: u32 = 1 << 31;

/// What GS points at.
#[repr(C, align(64))]
pub struct CpuHead {
    this: *const CpuHead,
    current: *mut (),
    preempt_count: u32,
    cpu: u32,
    /// Local APIC id of this CPU.
    apic_id: u32,
    /// The CPU's number plus one: what it puts into a lock word.
    owner: u32,
    /// What [`Slot`] names.
    slots: [*const (); Slot::COUNT],
    /// Where the running task's kernel stack begins when it comes from ring 3.
    kernel_stack: u64,
    /// For the entry code, while it has no stack.
    scratch: u64,
}

/// Offset of the word with the kernel stack's top, for the entry code.
pub(super) const KERNEL_STACK: usize = offset_of!(CpuHead, kernel_stack);
/// Offset of the entry code's own word.
pub(super) const SCRATCH: usize = offset_of!(CpuHead, scratch);

/// Per-CPU structures of the floors above that are reached so often that one `gs:`-relative load is
/// worth a word in the head.
#[derive(Clone, Copy)]
#[repr(usize)]
pub enum Slot {
    /// The scheduler's.
    Scheduler = 0,
    /// The trace ring.
    TraceRing = 1,
}

impl Slot {
    const COUNT: usize = 2;
}

/// A value per CPU, on a cache line of its own; `T` brings its own synchronisation.
#[repr(align(128))]
pub struct CacheAligned<T>(pub T);

/// One `T` for each possible CPU.
pub struct PerCpu<T>([CacheAligned<T>; MAX_CPUS]);

impl<T> PerCpu<T> {
    /// From one value per CPU.
    pub const fn new(values: [CacheAligned<T>; MAX_CPUS]) -> Self {
        Self(values)
    }

    /// The value of CPU `cpu`; numbers wrap at [`MAX_CPUS`].
    #[inline(always)]
    pub fn of(&self, cpu: u32) -> &T {
        &self.0[cpu as usize % MAX_CPUS].0
    }

    /// The value of the CPU that asks. Meaningful while preemption is off.
    #[inline(always)]
    pub fn this(&self) -> &T {
        self.of(cpu_id())
    }
}

/// `PerCpu::new` with the same constant expression for every CPU.
#[macro_export]
macro_rules! per_cpu {
    ($value:expr) => {
        $crate::arch::percpu::PerCpu::new(
            [const { $crate::arch::percpu::CacheAligned($value) }; $crate::arch::percpu::MAX_CPUS],
        )
    };
}

struct Heads(UnsafeCell<[CpuHead; MAX_CPUS]>);
// SAFETY: a head's mutable words are written only by its own CPU through GS.
unsafe impl Sync for Heads {}

static HEADS: Heads = Heads(UnsafeCell::new(
    [const {
        CpuHead {
            this: core::ptr::null(),
            current: core::ptr::null_mut(),
            preempt_count: NO_RESCHED | 1,
            cpu: 0,
            apic_id: 0,
            owner: 0,
            slots: [core::ptr::null(); Slot::COUNT],
            kernel_stack: 0,
            scratch: 0,
        }
    }; MAX_CPUS],
));

/// Makes this CPU number `cpu`. Its preempt count starts at one: preemption is off until the
/// scheduler takes over.
///
/// # Safety
/// Once per CPU, by that CPU, before anything else here is used on it; `cpu < MAX_CPUS`.
pub unsafe fn install(cpu: u32, apic_id: u32) {
    // SAFETY: `cpu` is in range (caller) and no one else touches this head (caller).
    unsafe {
        let head = HEADS.0.get().cast::<CpuHead>().add(cpu as usize);
        (*head).this = head;
        (*head).cpu = cpu;
        (*head).apic_id = apic_id;
        (*head).owner = cpu + 1;
        x86_64::registers::model_specific::GsBase::write(x86_64::VirtAddr::from_ptr(head));
    }
}

/// The address that GS has on CPU `cpu`, for entries that may not trust GS (NMI, #DF, #MC).
pub fn head_address(cpu: u32) -> u64 {
    HEADS.0.get() as u64 + (cpu as usize % MAX_CPUS * size_of::<CpuHead>()) as u64
}

macro_rules! read_head {
    ($field:ident, $register:literal, $type:ty $(, $option:ident)*) => {{
        let value: $type;
        // SAFETY: GS points at this CPU's head (`install`), which lives for ever.
        unsafe {
            asm!(
                concat!("mov {value", $register, "}, gs:[{at}]"),
                value = out(reg) value,
                at = const offset_of!(CpuHead, $field),
                options(nostack, preserves_flags $(, $option)*)
            );
        }
        value
    }};
}

/// Number of the CPU that asks. A task may be moved right after, unless preemption is off.
#[inline(always)]
pub fn cpu_id() -> u32 {
    let cpu = read_head!(cpu, ":e", u32, readonly);
    // SAFETY: `install` is called with such numbers only, and GS is set by it.
    unsafe { core::hint::assert_unchecked((cpu as usize) < MAX_CPUS) };
    cpu
}

/// Local APIC id of the CPU that asks.
pub fn apic_id() -> u32 {
    read_head!(apic_id, ":e", u32, readonly)
}

/// The CPU's number plus one.
#[inline(always)]
pub fn owner_word() -> u32 {
    read_head!(owner, ":e", u32, readonly)
}

/// Puts a structure of this CPU into a slot of the head of CPU `cpu`.
///
/// # Safety
/// Once per slot and CPU, before [`slot`] is used there; `cpu < MAX_CPUS`.
pub unsafe fn set_slot(cpu: u32, slot: Slot, value: &'static ()) {
    // SAFETY: in range (caller); the word is not read before it is set (caller).
    unsafe {
        let head = HEADS.0.get().cast::<CpuHead>().add(cpu as usize);
        (*head).slots[slot as usize] = value;
    }
}

/// What [`set_slot`] put into this CPU's head.
#[inline(always)]
pub fn slot<const SLOT: usize>() -> *const () {
    let value: *const ();
    // SAFETY: GS points at this CPU's head.
    unsafe {
        asm!("mov {value}, gs:[{at}]", value = out(reg) value,
            at = const offset_of!(CpuHead, slots) + SLOT * size_of::<*const ()>(),
            options(nostack, preserves_flags, readonly));
    }
    value
}

/// The running task as the scheduler set it; null before the scheduler runs. The same for a task
/// wherever it runs, so the compiler may keep it.
#[inline(always)]
pub fn current() -> *mut () {
    read_head!(current, ":r", *mut (), pure, nomem)
}

/// Makes `task` the running task of this CPU.
///
/// # Safety
/// Only the scheduler, at a switch, with interrupts off.
#[inline(always)]
pub unsafe fn set_current(task: *mut ()) {
    // SAFETY: GS points at this CPU's head; the caller owns the word.
    unsafe {
        asm!("mov gs:[{at}], {task}", task = in(reg) task,
            at = const offset_of!(CpuHead, current), options(nostack, preserves_flags));
    }
}

/// Sets where the kernel stack begins when this CPU comes from ring 3 by SYSCALL.
#[inline(always)]
pub(super) fn set_kernel_stack(_irq: &IrqOff, top: u64) {
    // SAFETY: GS points at this CPU's head; only the entry code reads the word.
    unsafe {
        asm!("mov gs:[{at}], {top}", top = in(reg) top, at = const KERNEL_STACK,
            options(nostack, preserves_flags));
    }
}

/// Forbids preemption once more.
#[inline(always)]
pub fn preempt_disable() {
    // SAFETY: one instruction on this CPU's own word.
    unsafe {
        asm!("inc dword ptr gs:[{at}]", at = const offset_of!(CpuHead, preempt_count),
            options(nostack));
    }
}

/// Forbids preemption one time less, and calls `reschedule` when preemption is allowed now and a
/// reschedule is wanted.
#[inline(always)]
pub fn preempt_enable(reschedule: fn()) {
    // SAFETY: as `preempt_disable`; the jump leaves the block by its label.
    unsafe {
        asm!("dec dword ptr gs:[{at}]", "jz {wanted}",
            at = const offset_of!(CpuHead, preempt_count), wanted = label { reschedule() },
            options(nostack));
    }
}

/// Forbids preemption one time less, without looking whether a reschedule is wanted.
#[inline(always)]
pub fn preempt_enable_no_resched() {
    // SAFETY: as `preempt_disable`.
    unsafe {
        asm!("dec dword ptr gs:[{at}]", at = const offset_of!(CpuHead, preempt_count),
            options(nostack));
    }
}

/// The raw count, see the module's table.
#[inline(always)]
pub fn preempt_count() -> u32 {
    read_head!(preempt_count, ":e", u32, readonly)
}

/// Whether nothing but a wanted reschedule is in the count: preemption is due.
#[inline(always)]
pub fn preemption_is_due() -> bool {
    preempt_count() == 0
}

/// How many times preemption is disabled, interrupt levels not counted.
pub fn preempt_depth() -> u32 {
    preempt_count() & (IRQ_LEVEL - 1)
}

/// Whether this CPU is inside an interrupt handler.
#[inline(always)]
pub fn in_interrupt() -> bool {
    preempt_count() & IRQ_MASK != 0
}

/// Counts an interrupt handler in.
#[inline(always)]
pub fn enter_interrupt() {
    // SAFETY: as `preempt_disable`.
    unsafe {
        asm!("add dword ptr gs:[{at}], {level}", at = const offset_of!(CpuHead, preempt_count),
            level = const IRQ_LEVEL, options(nostack));
    }
}

/// Counts an interrupt handler out.
#[inline(always)]
pub fn exit_interrupt() {
    // SAFETY: as `preempt_disable`.
    unsafe {
        asm!("sub dword ptr gs:[{at}], {level}", at = const offset_of!(CpuHead, preempt_count),
            level = const IRQ_LEVEL, options(nostack));
    }
}

/// Whether a reschedule is wanted on this CPU.
#[inline(always)]
pub fn need_resched() -> bool {
    preempt_count() & NO_RESCHED == 0
}

/// Wants a reschedule on this CPU.
#[inline(always)]
pub fn set_need_resched() {
    // SAFETY: as `preempt_disable`.
    unsafe {
        asm!("and dword ptr gs:[{at}], {mask}", at = const offset_of!(CpuHead, preempt_count),
            mask = const 0x7FFF_FFFFu32, options(nostack));
    }
}

/// Wants no reschedule any more: the scheduler has looked.
#[inline(always)]
pub fn clear_need_resched() {
    // SAFETY: as `preempt_disable`.
    unsafe {
        asm!("or dword ptr gs:[{at}], {bit}", at = const offset_of!(CpuHead, preempt_count),
            bit = const NO_RESCHED as i32, options(nostack));
    }
}
