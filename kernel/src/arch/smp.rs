//! Starting the other CPUs.
//!
//! One after the other, the same way whatever door the boot CPU came through: INIT, a start-up IPI
//! with the page of the [`Trampoline`], a second one for those that missed the first (SDM vol. 3,
//! 9.4.4.1). A CPU that does not come is put back to sleep and left out. Those that came halt until
//! all are there, so that [`count`] is final when the first of them schedules.

use core::fmt;
use core::sync::atomic::{AtomicBool, AtomicPtr, AtomicU8, AtomicU32, AtomicU64, Ordering};

use super::acpi::Cpus;
use super::percpu::MAX_CPUS;
use super::stacks::IST_STACKS;
use super::trampoline::Trampoline;
use super::{apic, cpu, features, gdt, idt, irq, percpu, syscall, tlb, tsc, vectors};
use crate::mm::OutOfMemory;
use crate::mm::stack::KernelStack;

/// CPUs that run, the boot CPU included; their numbers are below this.
static COUNT: AtomicU32 = AtomicU32::new(1);

/// Set once all CPUs may go on.
static RELEASED: AtomicBool = AtomicBool::new(false);

/// Where the CPU that is starting stands.
static PROGRESS: AtomicU8 = AtomicU8::new(AWAITED);
const AWAITED: u8 = 0;
const ARRIVED: u8 = 1;
const GIVEN_UP: u8 = 2;

/// For the CPU that is starting: its APIC id, the tops of its interrupt stacks, where it goes on.
static APIC_ID: AtomicU32 = AtomicU32::new(0);
static IST_TOPS: [AtomicU64; IST_STACKS] = [const { AtomicU64::new(0) }; IST_STACKS];
static ENTRY: AtomicPtr<()> = AtomicPtr::new(core::ptr::null_mut());

/// Time between INIT and the start-up IPI that real CPUs need; emulated ones need none.
const INIT_US: u64 = 10_000;
/// Time after which the start-up IPI is repeated.
const REPEAT_US: u64 = 1_000;
/// Time after which a CPU is given up: long, since an emulator's host may be busy.
const PATIENCE_US: u64 = 1_000_000;

/// CPUs that run, the boot CPU included; their numbers are below this. It does not change once the
/// others have been started.
#[inline]
pub fn count() -> u32 {
    COUNT.load(Ordering::Acquire)
}

/// How it went.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Started {
    /// CPUs that run, the boot CPU included.
    pub running: u32,
    /// CPUs that did not answer.
    pub silent: u32,
    /// CPUs beyond those that the kernel can drive.
    pub beyond: usize,
    /// Why CPUs were not even tried, if so.
    pub obstacle: Option<&'static str>,
}

impl fmt::Display for Started {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} CPU{}", self.running, if self.running == 1 { "" } else { "s" })?;
        if self.silent > 0 {
            write!(f, ", {} did not start", self.silent)?;
        }
        if self.beyond > 0 {
            write!(f, ", {} beyond the first {MAX_CPUS} are not used", self.beyond)?;
        }
        match self.obstacle {
            Some(why) => write!(f, ", the others cannot be started: {why}"),
            None => Ok(()),
        }
    }
}

/// Starts all CPUs but the one that asks, which is the first of the list; each calls `entry` with
/// its number, on a stack of its own, with interrupts and preemption off.
///
/// # Panics
/// When called twice.
pub fn start_others(cpus: &Cpus, entry: fn(cpu: u32) -> !) -> Started {
    assert!(!RELEASED.load(Ordering::Relaxed), "the other CPUs have been started already");
    let mut started = Started { running: 1, beyond: cpus.beyond, ..Started::default() };
    ENTRY.store(entry as *mut (), Ordering::Relaxed);
    let others = cpus.apic_ids().get(1..).unwrap_or(&[]);
    if !others.is_empty() {
        started.obstacle = start_all(others, &mut started).err();
    }
    COUNT.store(started.running, Ordering::Release);
    RELEASED.store(true, Ordering::Release);
    for cpu in 1..started.running {
        apic::send_ipi(cpu, vectors::START);
    }
    started
}

fn start_all(apic_ids: &[u32], started: &mut Started) -> Result<(), &'static str> {
    let trampoline = Trampoline::install().ok_or("no memory below 1 MiB")?;
    for &apic_id in apic_ids {
        apic::send_init(apic_id);
    }
    if !features::detect().hypervisor {
        tsc::delay_us(INIT_US);
    }
    for &apic_id in apic_ids {
        let stacks = Stacks::new().map_err(|OutOfMemory| "out of memory for their stacks")?;
        if start(&trampoline, started.running, apic_id, &stacks) {
            started.running += 1;
            // They are that CPU's for good.
            core::mem::forget(stacks);
        } else {
            started.silent += 1;
        }
    }
    Ok(())
}

/// A CPU's stacks: its first, later its idle task's, and its interrupt stacks.
struct Stacks {
    first: KernelStack,
    ist: [KernelStack; IST_STACKS],
}

impl Stacks {
    fn new() -> Result<Self, OutOfMemory> {
        let stack = KernelStack::new;
        Ok(Self { first: stack()?, ist: [stack()?, stack()?, stack()?, stack()?] })
    }
}

/// Starts one CPU as number `cpu`. False if it does not come.
fn start(trampoline: &Trampoline, cpu: u32, apic_id: u32, stacks: &Stacks) -> bool {
    APIC_ID.store(apic_id, Ordering::Relaxed);
    for (top, stack) in IST_TOPS.iter().zip(&stacks.ist) {
        top.store(stack.top().as_u64(), Ordering::Relaxed);
    }
    trampoline.prepare(cpu, stacks.first.top().as_u64());
    PROGRESS.store(AWAITED, Ordering::Release);
    let since = tsc::now();
    let mut repeat_at = since;
    let mut repeats = 2;
    while PROGRESS.load(Ordering::Acquire) == AWAITED {
        let now = tsc::now();
        if now >= repeat_at && repeats > 0 {
            apic::send_startup(apic_id, trampoline.page_number());
            repeats -= 1;
            repeat_at = now + tsc::from_us(REPEAT_US);
        }
        if now - since > tsc::from_us(PATIENCE_US) {
            let given_up =
                PROGRESS.compare_exchange(AWAITED, GIVEN_UP, Ordering::AcqRel, Ordering::Acquire);
            if given_up.is_ok() {
                // Whatever it is doing, it must not come later: the trampoline is used again.
                apic::send_init(apic_id);
                return false;
            }
        }
        cpu::pause();
    }
    true
}

/// The first Rust code of another CPU, called by the trampoline on that CPU's own stack.
pub(super) extern "C" fn start_here(cpu: u64) -> ! {
    let cpu = cpu as u32;
    let apic_id = APIC_ID.load(Ordering::Relaxed);
    // SAFETY: once on this CPU, with interrupts off; its stacks and number are its alone; the boot
    // CPU has made the IDT and found the registers of the APIC.
    unsafe {
        if features::enable().is_err() {
            cpu::halt_forever();
        }
        tlb::init_this_cpu();
        gdt::load(cpu, IST_TOPS.each_ref().map(|top| top.load(Ordering::Relaxed)));
        percpu::install(cpu, apic_id);
        tsc::tell_cpu_number(cpu);
        idt::load();
        syscall::init();
        apic::init_this_cpu(cpu, apic_id);
    }
    let arrived =
        PROGRESS.compare_exchange(AWAITED, ARRIVED, Ordering::AcqRel, Ordering::Relaxed).is_ok();
    if !arrived {
        cpu::halt_forever();
    }
    while !RELEASED.load(Ordering::Acquire) {
        // SAFETY: nothing is held here; `vectors::START` ends the halt.
        unsafe { cpu::enable_and_halt() };
        irq::disable();
    }
    // SAFETY: `start_others` stored a function of this type before any CPU was started.
    let entry =
        unsafe { core::mem::transmute::<*mut (), fn(u32) -> !>(ENTRY.load(Ordering::Relaxed)) };
    entry(cpu)
}
