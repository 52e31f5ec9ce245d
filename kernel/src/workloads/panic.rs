//! `panic`: crashes on purpose, to show what a crash looks like on the host.

use core::hint::black_box;
use core::sync::atomic::{AtomicBool, Ordering};

use crate::app::{self, Args, Builder, CpuSet, Failure, SpinLock};
use crate::arch::cpu;
use crate::arch::irq::IrqOff;
use crate::sched::call;
use crate::sync::PreemptOff;

crate::app!(
    name = "panic",
    about = "crashes: kind=assert|page-fault|stack-overflow|deadlock|lock-order|hang|hang-irq|hang-call",
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
            ("hang-call", hang_call),
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
    stay_on(here);
    spawn("waiting", here, yield_for_ever);
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

/// Set by the task that hangs once its CPU takes no interrupts.
static HANGS: AtomicBool = AtomicBool::new(false);

/// As [`hang_irq`], while another CPU waits for this one and owes its own tasks a switch: the story is not that
/// CPU's.
fn hang_call() {
    let here = CpuSet::single(app::cpu());
    stay_on(here);
    let mut others = app::online();
    others.remove(app::cpu());
    if let Some(other) = others.iter().next().map(CpuSet::single) {
        spawn("waiting", other, yield_for_ever);
        spawn("calling", other, move || {
            while !HANGS.load(Ordering::Acquire) {
                app::yield_now();
            }
            call::run_on(here, &|| ());
        });
    }
    let _off = IrqOff::new();
    HANGS.store(true, Ordering::Release);
    loop {
        cpu::pause();
    }
}

fn stay_on(cpu: CpuSet) {
    if app::set_affinity(cpu).is_err() {
        panic!("the CPU that runs this is not online");
    }
}

fn spawn(name: &str, cpu: CpuSet, main: impl FnOnce() + Send + 'static) {
    if let Err(why) = Builder::new(name).cpus(cpu).spawn(main) {
        panic!("the task '{name}' cannot be made: {why}");
    }
}

fn yield_for_ever() {
    while !app::should_stop() {
        app::yield_now();
    }
}
