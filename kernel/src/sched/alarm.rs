//! Alarms: functions that are called at a time, in the timer's interrupt.
//!
//! They have queues of their own beside those of sleeping tasks ([`super::timer`]), which so pay one
//! comparison for them. An alarm is in the queue of the CPU that has armed it.

use core::ptr::NonNull;
use core::sync::atomic::{AtomicU32, AtomicU64, Ordering};

use orrery_core::timer_queue::{Timer, TimerQueue, TimerState};

use super::timer::{self, NEVER};
use crate::arch::irq::IrqOff;
use crate::arch::percpu::PerCpu;
use crate::arch::{percpu, tsc};
use crate::per_cpu;
use crate::sync::SpinLock;

/// Something to be called at a time.
#[repr(C)]
pub struct Alarm {
    /// Guarded by the lock of CPU `cpu`'s queue.
    timer: Timer,
    cpu: AtomicU32,
    ring: fn(NonNull<Alarm>),
}

// SAFETY: the timer is guarded as its comment says, the rest is atomic or constant.
unsafe impl Sync for Alarm {}
// SAFETY: as above; an alarm that moves is not armed.
unsafe impl Send for Alarm {}

struct Queue {
    alarms: SpinLock<TimerQueue>,
    /// The first deadline. Written under the lock.
    next_ticks: AtomicU64,
}

static QUEUES: PerCpu<Queue> = per_cpu!(Queue {
    alarms: SpinLock::new("alarm queue", TimerQueue::new()),
    next_ticks: AtomicU64::new(NEVER),
});

impl Queue {
    fn note_next(&self, alarms: &TimerQueue) {
        self.next_ticks.store(alarms.next_deadline_ticks().unwrap_or(NEVER), Ordering::Relaxed);
    }
}

impl Alarm {
    /// An alarm that calls `ring` with itself. That must neither sleep nor take a lock that is ever
    /// taken with interrupts on.
    pub const fn new(ring: fn(NonNull<Alarm>)) -> Self {
        Self { timer: Timer::new(), cpu: AtomicU32::new(0), ring }
    }

    fn timer_of(alarm: NonNull<Alarm>) -> NonNull<Timer> {
        // The first field (`repr(C)`).
        alarm.cast()
    }
}

/// Lets an alarm ring at a time.
///
/// # Safety
/// It is not armed, and nobody else arms or cancels it meanwhile. It stays alive, where it is, until it has rung
/// or [`cancel`] has returned true.
pub unsafe fn arm(alarm: NonNull<Alarm>, deadline_ticks: u64) {
    let irq = IrqOff::new();
    let queue = QUEUES.this();
    // SAFETY: alive (caller).
    unsafe { alarm.as_ref() }.cpu.store(percpu::cpu_id(), Ordering::Relaxed);
    {
        let mut alarms = queue.alarms.lock_with(&irq);
        // SAFETY: in no other queue, and alive until it is out of this one (caller).
        unsafe { alarms.arm(Alarm::timer_of(alarm), deadline_ticks) };
        queue.note_next(&alarms);
    }
    timer::cover(deadline_ticks, tsc::now(), &irq);
}

/// Keeps an alarm from ringing. False if it is too late: it rings now, or has rung.
///
/// # Safety
/// It is alive, and nobody else arms or cancels it meanwhile.
pub unsafe fn cancel(alarm: NonNull<Alarm>) -> bool {
    let irq = IrqOff::new();
    // SAFETY: alive (caller).
    let queue = QUEUES.of(unsafe { alarm.as_ref() }.cpu.load(Ordering::Relaxed));
    let mut alarms = queue.alarms.lock_with(&irq);
    // SAFETY: alive (caller), and in this queue if in any.
    let was = unsafe { alarms.cancel(Alarm::timer_of(alarm)) };
    queue.note_next(&alarms);
    was == TimerState::Armed
}

/// In the timer's interrupt: lets those ring whose time has come. Returns the next deadline.
#[inline]
pub(super) fn on_timer(now: u64, irq: &IrqOff) -> Option<u64> {
    let queue = QUEUES.this();
    if queue.next_ticks.load(Ordering::Relaxed) <= now {
        ring_due(queue, now, irq);
    }
    Some(queue.next_ticks.load(Ordering::Relaxed)).filter(|&next| next != NEVER)
}

#[cold]
fn ring_due(queue: &Queue, now: u64, irq: &IrqOff) {
    loop {
        let due = {
            let mut alarms = queue.alarms.lock_with(irq);
            let due = alarms.pop_expired(now);
            queue.note_next(&alarms);
            due
        };
        let Some(timer) = due else { return };
        let alarm = timer.cast::<Alarm>();
        // SAFETY: the queue is given timers of whole alarms only, alive until they have rung.
        let ring = unsafe { alarm.as_ref() }.ring;
        ring(alarm);
    }
}
