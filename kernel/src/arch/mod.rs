//! All that knows x86-64. A small safe interface upwards; what must call *up* goes through
//! [`Hooks`], which the boot story installs once.

pub mod cpu;
pub mod irq;
pub mod percpu;
pub mod tsc;

use core::sync::atomic::{AtomicPtr, Ordering};

/// What the floors above want to be called for.
pub struct Hooks {
    /// An interrupt with this vector came; it is acknowledged, interrupts are off. May switch
    /// tasks before it returns.
    pub interrupt: fn(vector: u8),
    /// Preemption has just become allowed and a reschedule is wanted; interrupts may be on.
    pub preempt: fn(),
    /// A spinlock at this address was waited for since `since_ticks`, held by CPU `owner - 1`.
    pub lock_contended: fn(lock: u64, since_ticks: u64, owner: u32),
    /// An exception that nothing has handled. Interrupts are off.
    pub fatal_exception: fn(&exception::Frame) -> !,
    /// A page fault in kernel mode: `true` where it was resolved. Interrupts are off.
    pub page_fault: fn(&exception::Frame, address: u64) -> bool,
    /// Another CPU has panicked and stops this one (an NMI, possibly inside anything).
    pub stop: fn(&exception::Frame) -> !,
}

static HOOKS: AtomicPtr<Hooks> = AtomicPtr::new(core::ptr::from_ref(&hooks_before_boot::HOOKS).cast_mut());

/// Installs the hooks.
pub fn set_hooks(hooks: &'static Hooks) {
    HOOKS.store(core::ptr::from_ref(hooks).cast_mut(), Ordering::Release);
}

/// The hooks in force.
#[inline(always)]
pub fn hooks() -> &'static Hooks {
    // SAFETY: only `&'static Hooks` are ever stored.
    unsafe { &*HOOKS.load(Ordering::Relaxed) }
}
