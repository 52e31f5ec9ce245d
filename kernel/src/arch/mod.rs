//! All that knows x86-64. A small safe interface upwards; what must call *up* goes through
//! [`Hooks`], which the boot story installs once.
//!
//! The boot story calls, in this order: [`init_boot_cpu`], `mm::init`, [`init_platform`],
//! [`smp::start_others`].

pub mod acpi;
pub mod apic;
pub mod backtrace;
pub mod branch;
pub mod context;
pub mod cpu;
mod entry;
pub mod exception;
pub mod features;
pub mod fpu;
mod gdt;
mod hooks_before_boot;
mod idt;
pub mod io_apic;
pub mod irq;
pub mod latency;
pub mod percpu;
mod pic;
mod pit;
pub mod rtc;
pub mod smp;
pub mod stacks;
pub mod syscall;
pub mod tlb;
pub(crate) mod trampoline;
pub mod tsc;
pub mod uaccess;
pub mod user;
pub mod vectors;

use core::fmt;
use core::sync::atomic::{AtomicPtr, Ordering};

use crate::boot::{BootInfo, die};

/// What the floors above want to be called for.
pub struct Hooks {
    /// An interrupt with this vector came, while that was running; it is acknowledged, interrupts are off.
    /// May switch tasks before it returns.
    pub interrupt: fn(vector: u8, exception::Origin),
    /// Preemption has just become allowed and a reschedule is wanted; interrupts may be on.
    pub preempt: fn(),
    /// A spinlock at this address was waited for since `since_ticks`, held by CPU `owner - 1`.
    pub lock_contended: fn(lock: u64, since_ticks: u64, owner: u32),
    /// Preemption or interrupts were off for `ticks`; ended at address `site`. They are still off.
    pub long_section: fn(section: latency::Section, ticks: u64, site: u64),
    /// An exception that nothing has handled. Interrupts are off.
    pub fatal_exception: fn(&exception::Frame) -> !,
    /// A page fault in kernel mode: `true` where it was resolved, or the frame changed so that the
    /// code goes on elsewhere. Interrupts are off.
    pub page_fault: fn(&mut exception::Frame, address: u64) -> bool,
    /// A page fault of a program. Interrupts are off, and may be on while it is handled.
    pub user_page_fault: fn(&mut exception::Frame, address: u64),
    /// Any other exception of a program. As `user_page_fault`.
    pub user_exception: fn(&mut exception::Frame),
    /// Ring 3 is about to go on after an interrupt or an exception. Interrupts are off, and must be
    /// when it returns.
    pub return_to_user: fn(&mut exception::Frame),
    /// Another CPU has panicked and stops this one (an NMI, possibly inside anything).
    pub stop: fn(&exception::Frame) -> !,
}

static HOOKS: AtomicPtr<Hooks> =
    AtomicPtr::new(core::ptr::from_ref(&hooks_before_boot::HOOKS).cast_mut());

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

/// Gives the boot CPU its features, segments, interrupt stacks, exception handlers and per-CPU
/// head: from here on a bug is reported, not a reset.
///
/// # Safety
/// Once, first of all, on the boot CPU and the boot stack, with interrupts off.
pub unsafe fn init_boot_cpu() {
    // SAFETY: the loaders' tables map the image executable and nothing as a user page.
    if let Err(missing) = unsafe { features::enable() } {
        die(missing);
    }
    // SAFETY: once, on the boot CPU (caller); its interrupt stacks are static.
    unsafe {
        gdt::load(0, stacks::BOOT_STACKS.ist.each_ref().map(stacks::GuardedStack::top));
        percpu::install(0, cpu::initial_apic_id());
        tsc::tell_cpu_number(0);
        idt::init();
        idt::load();
        syscall::init();
    }
}

/// What the boot CPU found out about the machine.
pub struct Platform {
    /// The CPUs to start.
    pub cpus: acpi::Cpus,
    /// Why that is only the boot CPU, if firmware's list cannot be used.
    pub cpus_unknown: Option<acpi::Error>,
    /// How the time-stamp counter's rate was found.
    pub tsc_source: tsc::Source,
}

impl fmt::Display for Platform {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mode = if apic::is_x2apic() { "x2APIC" } else { "xAPIC" };
        let timer = if apic::has_deadline_timer() { "TSC deadlines" } else { "one shot" };
        let mhz = tsc::hz() / 1_000_000;
        write!(f, "{mode}, timer with {timer}, TSC at {mhz} MHz by {:?}", self.tsc_source)?;
        if tlb::has_pcids() {
            write!(f, ", PCIDs")?;
        }
        if let Some(why) = &self.cpus_unknown {
            write!(f, "; using one CPU: {why}")?;
        }
        Ok(())
    }
}

/// Silences the 8259s, reads firmware's tables, calibrates the clock, and sets up the boot CPU's
/// local APIC and timer.
///
/// # Safety
/// Once, on the boot CPU, after `mm::init`, with interrupts off.
pub unsafe fn init_platform(boot: &BootInfo) -> Platform {
    // SAFETY: nothing waits for their interrupts.
    unsafe { pic::silence() };
    let apic_id = percpu::apic_id();
    let (cpus, cpus_unknown) = match acpi::cpus(boot.rsdp, apic_id) {
        Ok(cpus) => (cpus, None),
        Err(why) => (acpi::Cpus::only(apic_id), Some(why)),
    };
    let tsc_source = tsc::calibrate().unwrap_or_else(|why| die(why));
    // SAFETY: by contract.
    unsafe { apic::init_boot_cpu(apic_id) };
    Platform { cpus, cpus_unknown, tsc_source }
}
