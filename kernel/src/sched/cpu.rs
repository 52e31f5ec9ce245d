//! What each CPU has for scheduling, and what the others may see of it.

use core::sync::atomic::{AtomicBool, AtomicPtr, AtomicU32, AtomicU64, Ordering};

use orrery_core::cpuset::CpuSet;
use orrery_core::epoch::Seen;
use orrery_core::idle::{Idle, IdleState};
use orrery_core::inbox::Inbox;
use orrery_core::sched::placement::{Activity, CpuView};
use orrery_core::sched::{Config, RtPriority, RunQueue};

use super::epoch;
use super::task::Task;
use crate::arch::percpu::{self, MAX_CPUS, PerCpu, Slot};
use crate::arch::{smp, tsc};
use crate::per_cpu;
use crate::sync::{PreemptOff, SpinLock};

/// Fair slice, in microseconds (Linux's customary 3 ms).
pub const SLICE_US: u64 = 3_000;
/// Round-robin quantum, in microseconds (Linux's `RR_TIMESLICE`, 100 ms).
pub const RR_QUANTUM_US: u64 = 100_000;

const NO_PRIORITY: u32 = u32::MAX;
const NO_CONFIG: Config = Config { slice_ticks: 1, rr_quantum_ticks: 1 };

/// One CPU's part of the scheduler.
pub struct Cpu {
    /// Its run queue. Others lock it to take tasks away, never to put any there.
    pub(super) queue: SpinLock<RunQueue>,
    /// Tasks that others have woken for this CPU.
    pub(super) inbox: Inbox<Task>,
    pub(super) idle: IdleState,
    /// What runs when nothing else does.
    pub(super) idle_task: AtomicPtr<Task>,
    /// Another CPU asks this one, which idles, to look for work to pull.
    pub(super) kicked: AtomicBool,
    /// A task that has left this CPU for good and is still to be sent on its way, see `balance`.
    pub(super) departing: AtomicPtr<Task>,
    /// What the hardware timer is set to; written by this CPU, interrupts off.
    pub(super) timer_armed_ticks: AtomicU64,
    /// The end of a slice that the hardware timer covers; written by this CPU, interrupts off.
    pub(super) slice_armed_ticks: AtomicU64,
    /// Times this CPU has changed tasks; written by itself.
    pub(super) switches: AtomicU64,
    /// This CPU's word of the epoch.
    seen: AtomicPtr<Seen>,

    // What placement sees, published by the queue's owner whenever it gains or loses a task.
    nr_running: AtomicU32,
    rt_priority: AtomicU32,
    load: AtomicU64,
}

/// Every CPU.
pub static CPUS: PerCpu<Cpu> = per_cpu!(Cpu {
    queue: SpinLock::new("run queue", RunQueue::new(0, NO_CONFIG, 0)),
    inbox: Inbox::new(),
    idle: IdleState::new(),
    idle_task: AtomicPtr::new(core::ptr::null_mut()),
    kicked: AtomicBool::new(false),
    departing: AtomicPtr::new(core::ptr::null_mut()),
    timer_armed_ticks: AtomicU64::new(super::timer::NEVER),
    slice_armed_ticks: AtomicU64::new(super::timer::NEVER),
    switches: AtomicU64::new(0),
    seen: AtomicPtr::new(core::ptr::null_mut()),
    nr_running: AtomicU32::new(0),
    rt_priority: AtomicU32::new(NO_PRIORITY),
    load: AtomicU64::new(0),
});

/// CPUs that schedule, a bit each.
static ONLINE: AtomicU64 = AtomicU64::new(0);

/// CPUs that schedule.
pub fn online() -> CpuSet {
    CpuSet::from_bits(ONLINE.load(Ordering::Relaxed))
}

/// Makes CPU `cpu` schedule, with this task to idle with.
pub(super) fn bring_online(cpu: u32, idle_task: *mut Task) {
    let slices = Config {
        slice_ticks: tsc::from_us(SLICE_US),
        rr_quantum_ticks: tsc::from_us(RR_QUANTUM_US),
    };
    let this = CPUS.of(cpu);
    *this.queue.lock_irq() = RunQueue::new(cpu, slices, tsc::now());
    this.idle_task.store(idle_task, Ordering::Release);
    let seen = core::ptr::from_ref(epoch::EPOCH.word(cpu as usize));
    this.seen.store(seen.cast_mut(), Ordering::Relaxed);
    // SAFETY: once per CPU; a `Cpu` is valid as an opaque unit and lives for ever.
    unsafe {
        let opaque = &*core::ptr::from_ref(this).cast::<()>();
        percpu::set_slot(cpu, Slot::Scheduler, opaque);
    }
    ONLINE.fetch_or(1 << cpu, Ordering::SeqCst);
}

impl Cpu {
    /// Shows the others what the queue holds now.
    #[inline]
    pub(super) fn publish(&self, queue: &RunQueue) {
        self.nr_running.store(queue.nr_running(), Ordering::Relaxed);
        self.load.store(queue.load(), Ordering::Relaxed);
        let priority = queue.highest_rt_priority().map_or(NO_PRIORITY, |it| u32::from(it.get()));
        self.rt_priority.store(priority, Ordering::Relaxed);
    }

    /// This CPU's word of the epoch; for CPUs that are online.
    #[inline(always)]
    pub(super) fn seen(&self) -> &'static Seen {
        // SAFETY: `bring_online` has stored a static's address.
        unsafe { &*self.seen.load(Ordering::Relaxed) }
    }

    /// The CPU as placement sees it.
    pub(super) fn view(&self) -> CpuView {
        let nr_running = self.nr_running.load(Ordering::Relaxed);
        let load = self.load.load(Ordering::Relaxed);
        let priority = u8::try_from(self.rt_priority.load(Ordering::Relaxed));
        let activity = match (self.idle.get(), priority.ok().and_then(RtPriority::new)) {
            (Idle::Polling, _) => Activity::Polling,
            (Idle::Halted, _) => Activity::Halted,
            (Idle::Busy, Some(priority)) => Activity::RealTime(priority),
            (Idle::Busy, None) if nr_running == 0 && self.inbox.is_empty() => Activity::Polling,
            (Idle::Busy, None) => Activity::Fair,
        };
        // A task on its way counts, so that two wakers do not both take this CPU for idle.
        let on_its_way = u32::from(!self.inbox.is_empty());
        let activity =
            if on_its_way == 1 && activity.is_idle() { Activity::Fair } else { activity };
        CpuView { activity, nr_running: nr_running + on_its_way, load }
    }

    /// Whether tasks wait here that another CPU could run.
    pub(super) fn has_waiting(&self) -> bool {
        self.nr_running.load(Ordering::Relaxed) > 1
    }

    /// Times this CPU has changed tasks.
    pub fn switches(&self) -> u64 {
        self.switches.load(Ordering::Relaxed)
    }

    /// Ticks this CPU has had nothing to run.
    pub fn idle_ticks(&self) -> u64 {
        self.queue.lock_irq().idle_ticks_until(tsc::now())
    }
}

/// The CPU that asks. Meaningful while preemption is off; for CPUs that are online.
#[inline(always)]
pub(super) fn this() -> &'static Cpu {
    // SAFETY: `bring_online` has put a `Cpu` into the slot.
    unsafe { &*percpu::slot::<{ Slot::Scheduler as usize }>().cast::<Cpu>() }
}

/// How placement sees CPU `cpu`.
pub(super) fn view(cpu: usize) -> CpuView {
    CPUS.of(cpu as u32).view()
}

/// Whether nothing but the running task runs or waits to run anywhere, as far as this CPU sees: the others poll or halt,
/// and do not even zero memory ahead.
pub fn all_rest() -> bool {
    let _here = PreemptOff::new();
    let me = percpu::cpu_id();
    each().all(|cpu| {
        let it = CPUS.of(cpu);
        if cpu == me {
            it.view().nr_running == 1
        } else {
            it.idle.get() != Idle::Busy && it.view().nr_running == 0
        }
    })
}

/// Numbers of the CPUs that schedule, lowest first.
pub fn each() -> impl Iterator<Item = u32> {
    debug_assert!(smp::count() as usize <= MAX_CPUS);
    online().iter().map(|cpu| cpu as u32)
}
