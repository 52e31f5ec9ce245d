//! Emptying the rings: by a task while the system runs, by force at its end.
//!
//! The drain task wakes every now and then, and at once when a ring is half full
//! ([`on_block_opened`]) or text is printed. It holds no lock while it sends, so it can be preempted between
//! any two bytes.
//!
//! A block reaches the drain when its CPU closes it: when it is full, when the CPU halts and the block
//! is old or large enough ([`before_halt`]), and once in [`CLOSE_US`] on the drain's request, so
//! that the last words of a quiet CPU do not stay with it.

use core::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, Ordering};

use orrery_core::trace::ring::{BlockHead, Mode, Ring, Totals};
use orrery_core::trace::wire::Kind;

use super::record::RINGS;
use super::stream::{WIRE, Wire};
use crate::arch::irq::IrqOff;
use crate::arch::percpu::MAX_CPUS;
use crate::arch::{smp, tsc};
use crate::console;
use crate::drivers::exit::Ending;
use crate::sched::interrupt::{Deferred, raise};
use crate::sched::task::Sleep;
use crate::sched::wait::{Sharing, WaitMode, WaitQueue};
use crate::sched::{call, cpu, current};

/// Shortest and longest time between two looks of the drain.
const LOOK_US: (u64, u64) = (5_000, 250_000);
/// A look that finds less than this makes the next one come later.
const TRICKLE_BYTES: usize = 16 * 1024;
/// How often every CPU is asked to close its open block.
const CLOSE_US: u64 = 1_000_000;
/// A halting CPU closes its block when it is this old.
const OLD_US: u64 = 10_000;

static SLEEPING: WaitQueue = WaitQueue::new();
static WORK: AtomicBool = AtomicBool::new(false);
static RUNNING: AtomicBool = AtomicBool::new(false);
static MODE: AtomicU8 = AtomicU8::new(0);
/// Blocks of each ring.
static BLOCKS: AtomicU64 = AtomicU64::new(0);

/// Tells the drain what the rings are like, before it runs.
pub fn configure(mode: Mode, blocks_per_cpu: u64) {
    MODE.store(mode as u8, Ordering::Relaxed);
    BLOCKS.store(blocks_per_cpu, Ordering::Relaxed);
}

fn is_streaming() -> bool {
    MODE.load(Ordering::Relaxed) == Mode::Stream as u8
}

/// Wakes the drain task.
pub fn wake() {
    WORK.store(true, Ordering::SeqCst);
    SLEEPING.wake_all();
}

/// Asks for the drain from anywhere.
pub fn request() {
    if RUNNING.load(Ordering::Relaxed) {
        raise(Deferred::WakeDrain);
    }
}

/// A CPU needs another block of its ring: time to wake the drain when half of them are full.
pub(super) fn on_block_opened(ring: &Ring) {
    if is_streaming() && ring.readable() * 2 > BLOCKS.load(Ordering::Relaxed) {
        request();
    }
}

/// This CPU is about to halt: gives the drain what it has, if that is worth a packet.
pub fn before_halt(_irq: &IrqOff) {
    if is_streaming() && RUNNING.load(Ordering::Relaxed) {
        let ring = RINGS.this();
        // SAFETY: interrupts are off, and this is the ring's CPU.
        unsafe {
            if ring.open_age_ticks(tsc::now()).is_some_and(|age| age > tsc::from_us(OLD_US)) {
                ring.close();
            }
        }
    }
}

/// The drain task's body. Ends when it is asked to stop.
pub fn run() -> i32 {
    RUNNING.store(true, Ordering::SeqCst);
    let mut pause_us = LOOK_US.0;
    let mut closed_at = tsc::now();
    while !current().stop_requested() {
        WORK.store(false, Ordering::SeqCst);
        let sent = WIRE.try_with(|wire| {
            console::send_all(wire);
            if is_streaming() { send_closed_blocks(wire) } else { 0 }
        });
        // Its own wakeups are recorded, too: a trickle of that size must not keep it awake.
        let trickle = sent.is_some_and(|bytes| bytes < TRICKLE_BYTES);
        pause_us = if trickle { (pause_us * 2).min(LOOK_US.1) } else { LOOK_US.0 };
        let now = tsc::now();
        if is_streaming() && now - closed_at > tsc::from_us(CLOSE_US) {
            closed_at = now;
            call::run_on(cpu::online(), &close_own);
        }
        let deadline = tsc::now() + tsc::from_us(pause_us);
        let mode = WaitMode {
            sleep: Sleep::Interruptible,
            sharing: Sharing::Shared,
            deadline_ticks: Some(deadline),
        };
        // All three ends of this wait mean the same: look again.
        let _ = SLEEPING.wait(mode, || WORK.load(Ordering::SeqCst));
    }
    RUNNING.store(false, Ordering::SeqCst);
    0
}

/// Waits until everything that this task's CPU and the others have recorded before is on its
/// way to the host. For programs that produce more than the line can carry and want nothing lost.
pub fn settle() {
    if !is_streaming() || !RUNNING.load(Ordering::Relaxed) {
        return;
    }
    call::run_on(cpu::online(), &close_own);
    // What is closed from here on is not waited for: the waiting itself records events.
    let mut goals = [0; MAX_CPUS];
    for cpu in cpu::each() {
        goals[cpu as usize] = RINGS.of(cpu).closed();
    }
    while cpu::each().any(|cpu| RINGS.of(cpu).read_so_far() < goals[cpu as usize]) {
        wake();
        crate::sched::wait::sleep_until(tsc::now() + tsc::from_us(LOOK_US.0));
    }
}

fn close_own() {
    let _irq = IrqOff::new();
    // SAFETY: interrupts are off, and this is the ring's CPU.
    unsafe { RINGS.this().close() };
}

/// Sends every closed block of every CPU, and says how many bytes of records that was.
fn send_closed_blocks(wire: &mut Wire) -> usize {
    let mut sent = 0;
    for cpu in 0..smp::count() {
        let ring = RINGS.of(cpu);
        // No more than are there now: a CPU that writes faster than the line must not starve the
        // others.
        for _ in 0..ring.readable() {
            let send = |head: &BlockHead, records: &[u8]| {
                wire.events(cpu, head, records);
                records.len()
            };
            // SAFETY: whoever has the wire is the only reader.
            sent += unsafe { ring.read(send) }.unwrap_or(0);
        }
    }
    if sent > 0 {
        wire.flush();
    }
    sent
}

/// Sends all that is left, and `end`. Nothing is recorded after this.
///
/// # Safety
/// All other CPUs are stopped for good, interrupts are off on this one, and the wire is the caller's.
pub unsafe fn flush_all(wire: &mut Wire, ending: Ending) {
    super::record::set_enabled(0);
    for cpu in 0..smp::count() {
        let ring = RINGS.of(cpu);
        // SAFETY: every writer has stopped (caller).
        unsafe { ring.close_stopped() };
    }
    send_closed_blocks(wire);
    wire.text(Kind::End, |out| {
        writeln!(out, "status={}\ncause={}", ending.status(), ending.cause())?;
        for cpu in 0..smp::count() {
            // SAFETY: every writer has stopped (caller).
            let Totals { produced, dropped } = unsafe { RINGS.of(cpu).totals() };
            writeln!(out, "cpu={cpu} produced={produced} dropped={dropped}")?;
        }
        Ok(())
    });
    wire.flush();
}
