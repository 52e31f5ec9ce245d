//! `panic`: crashes on purpose, to show what a crash looks like on the host.

use core::hint::black_box;

use crate::app::{self, Args, Builder, CpuSet, Failure, SpinLock};
use crate::arch::cpu;
use crate::arch::irq::IrqOff;
use crate::sync::PreemptOff;

crate::app!(
    name = "panic",
    about = "crashes: kind=assert|page-fault|stack-overflow|deadlock|lock-order|hang|hang-irq",
    main = main,
);

fn main(args: &Args<'static>) -> Result<(), Failure> {
    let crash = args.choice::<fn()>(
        "kind",
        &[
            ("assert", assert),
            ("page-fault", page_fault),
            ("stack-overflow", stack_overflow),
            ("deadlock", deadlock),
            ("lock-order", lock_order),
            ("hang", hang),
            ("hang-irq", hang_irq),
        ],
    )?;
    args.finish()?;
    crash();
    Err("survived; kind=lock-order needs an image with run-time checks".into())
}

fn assert() {
    let planets = black_box(9);
    assert!(planets == 8, "there are {planets} planets, and one of them is none");
}

fn page_fault() {
    // SAFETY: none: nothing is mapped there, and the fault is what is wanted.
    black_box(unsafe { core::ptr::without_provenance::<u64>(black_box(0x1000)).read_volatile() });
}

fn stack_overflow() {
    black_box(deeper(black_box(u64::MAX)));
}

#[inline(never)]
fn deeper(levels: u64) -> u64 {
    let frame = black_box([levels; 32]);
    if levels == 0 { 0 } else { frame[31] + deeper(levels - 1) }
}

static FIRST: SpinLock<()> = SpinLock::new("panic workload, first", ());
static SECOND: SpinLock<()> = SpinLock::new("panic workload, second", ());

/// Takes a spinlock that this CPU has.
fn deadlock() {
    let _once = FIRST.lock();
    let _twice = FIRST.lock();
}

/// Takes two spinlocks in both orders: no deadlock today, but one that waits to happen.
fn lock_order() {
    {
        let _first = FIRST.lock();
        let _second = SECOND.lock();
    }
    let _second = SECOND.lock();
    let _first = FIRST.lock();
}

/// Keeps its CPU from scheduling, though a task waits there.
fn hang() {
    let here = CpuSet::single(app::cpu());
    if app::set_affinity(here).is_err() {
        panic!("the CPU that runs this is not online");
    }
    let waiting = Builder::new("waiting").cpus(here).spawn(|| {
        while !app::should_stop() {
            app::yield_now();
        }
    });
    if let Err(why) = waiting {
        panic!("the task that would wait cannot be made: {why}");
    }
    let _off = PreemptOff::new();
    loop {
        cpu::pause();
    }
}

/// Keeps its CPU from doing anything else at all.
fn hang_irq() {
    let _off = IrqOff::new();
    loop {
        cpu::pause();
    }
}
