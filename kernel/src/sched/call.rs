//! Functions run on other CPUs, by interrupt.

use core::ptr::NonNull;
use core::sync::atomic::{AtomicBool, AtomicU32, Ordering};

use orrery_core::cpuset::CpuSet;
use orrery_core::inbox::{Inbox, Link, Linked};

use super::cpu::online;
use crate::arch::irq::IrqOff;
use crate::arch::percpu::{MAX_CPUS, PerCpu};
use crate::arch::{apic, cpu, irq, percpu, tsc, vectors};
use crate::per_cpu;
use crate::sync::PreemptOff;
use crate::trace::events;

/// One CPU's copy of a request. Lies on the caller's stack, which waits for all of them.
struct Call {
    link: Link<Call>,
    /// What to run; the lifetime is the caller's wait.
    function: *const (dyn Fn() + Sync),
    pending: *const AtomicU32,
}

// SAFETY: one link per call, used by the inbox only.
unsafe impl Linked for Call {
    fn link(&self) -> &Link<Self> {
        &self.link
    }
}

static CALLS: PerCpu<Inbox<Call>> = per_cpu!(Inbox::new());

static STOP: AtomicBool = AtomicBool::new(false);
static STOPPED: AtomicU32 = AtomicU32::new(0);

/// Runs `function` on each of these CPUs that is online, in an interrupt, and waits until all are
/// done. On the caller's own CPU it is run directly.
///
/// # Panics
/// With interrupts off: two CPUs that call each other so would wait for ever.
pub fn run_on(cpus: CpuSet, function: &(dyn Fn() + Sync)) {
    assert!(irq::are_enabled(), "a call to other CPUs waits with interrupts off");
    let _here = PreemptOff::new();
    let me = percpu::cpu_id() as usize;
    let mut others = cpus.intersection(online());
    let includes_me = others.contains(me);
    others.remove(me);
    let pending = AtomicU32::new(others.len() as u32);
    // SAFETY: only the lifetime is forgotten; the wait below outlasts every use.
    let function_forever: *const (dyn Fn() + Sync) =
        unsafe { core::mem::transmute::<&(dyn Fn() + Sync), &'static (dyn Fn() + Sync)>(function) };
    let calls: [Call; MAX_CPUS] = core::array::from_fn(|_| Call {
        link: Link::new(),
        function: function_forever,
        pending: &raw const pending,
    });
    for target in others.iter() {
        // SAFETY: the call is in no other inbox, and lives until `pending` is zero.
        let _ = unsafe { CALLS.of(target as u32).push(NonNull::from(&calls[target])) };
        events::ipi_send(target as u8, 1);
        apic::send_ipi(target as u32, vectors::CALL_FUNCTION);
    }
    if includes_me {
        function();
    }
    while pending.load(Ordering::Acquire) != 0 {
        cpu::pause();
    }
}

/// Stops all other CPUs for good, each at its next interrupt, and waits until they have. The
/// caller's interrupts are off from here on.
///
/// A CPU that takes no interrupt any more is stopped by NMI.
pub fn stop_others() {
    irq::disable();
    let mut others = online();
    others.remove(percpu::cpu_id() as usize);
    STOP.store(true, Ordering::SeqCst);
    for target in others.iter() {
        events::ipi_send(target as u8, 2);
        apic::send_ipi(target as u32, vectors::CALL_FUNCTION);
    }
    let since = tsc::now();
    while STOPPED.load(Ordering::SeqCst) < others.len() as u32 {
        cpu::pause();
        if tsc::now() - since > tsc::hz() {
            apic::send_nmi_to_others();
            return;
        }
    }
}

/// The call-function interrupt.
pub(super) fn on_interrupt(_irq: &IrqOff) {
    if STOP.load(Ordering::SeqCst) {
        STOPPED.fetch_add(1, Ordering::SeqCst);
        cpu::halt_forever();
    }
    for call in CALLS.this().drain() {
        // SAFETY: the caller waits until `pending` says that its calls are done; nothing of the
        // call is read after that.
        unsafe {
            let Call { function, pending, .. } = call.as_ref();
            let pending = *pending;
            (**function)();
            (*pending).fetch_sub(1, Ordering::Release);
        }
    }
}
