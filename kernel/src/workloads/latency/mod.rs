//! `latency`: what the kernel's own paths cost, the part of the latency suite that needs no program.
//!
//! Each sample is a region, told after it has ended. `docs/latency.md` lists what is measured. Every sample of a
//! metric does the same work, so that where ticks are instructions the usual sample is the same in every run.
//!
//! - [`switch`]: two tasks take turns; what a recorded event adds to that
//! - [`wake`], [`timer`], [`preempt`]: how soon a task runs that was woken or whose time has come
//! - [`pid`], [`spawn`]: numbers, and tasks

mod pid;
mod preempt;
mod spawn;
mod switch;
mod timer;
mod wake;

use alloc::sync::Arc;
use core::sync::atomic::{AtomicBool, Ordering};
use core::time::Duration;

use crate::app::{self, Args, Builder, CpuSet, Failure, JoinHandle, println};
use crate::arch::cpu;
use crate::boot;

crate::app!(
    name = "latency",
    about = "what the kernel's paths cost: only= (what names begin with, with commas), repeat=",
    main = main,
);

/// The CPU on which everything is measured.
const HERE: usize = 0;
/// The other one, where there is one.
const THERE: usize = 1;
/// Rounds of a metric that are not told, in which pools are filled.
const WARM_UP: u32 = 8;
/// Priority of whoever measures, in the real-time class.
const PRIORITY: u8 = 10;
/// Priority of those who run before it.
const HIGHER_PRIORITY: u8 = 20;
/// After this time a CPU that has nothing to do idles as it does for long.
const LONG: Duration = Duration::from_millis(1);

/// Whether anything that was asked for is measured.
static HAS_WANTED: AtomicBool = AtomicBool::new(false);

fn main(args: &Args<'static>) -> Result<(), Failure> {
    let only = args.text("only").unwrap_or("");
    let repeat = args.u64_in("repeat", 31, 1..=101)? as u32;
    args.finish()?;
    let suite = Suite { only, repeat };
    app::set_affinity(CpuSet::single(HERE))?;
    become_fifo();
    if suite.wants("boot-to-init") {
        suite.tell(WARM_UP, "boot-to-init", boot::times_ticks(), 1)?;
    }
    // First, while the heap is in one piece: where it splits a block costs a little more.
    spawn::measure(suite)?;
    switch::measure(suite)?;
    wake::measure(suite)?;
    timer::measure(suite)?;
    preempt::measure(suite)?;
    pid::measure(suite)?;
    if !HAS_WANTED.load(Ordering::Relaxed) {
        println!("latency: nothing is measured here whose name begins with {only}");
    }
    Ok(())
}

/// Makes the calling task one that measures.
fn become_fifo() {
    app::set_policy(app::Policy::Fifo(
        app::RtPriority::new(PRIORITY).unwrap_or(app::RtPriority::MIN),
    ));
}

/// What is asked for.
#[derive(Clone, Copy)]
struct Suite {
    /// What names begin with, with commas; empty for all.
    only: &'static str,
    /// Samples of each metric.
    repeat: u32,
}

impl Suite {
    /// Whether a metric is asked for.
    fn wants(self, name: &str) -> bool {
        let wants = self.only.is_empty() || self.only.split(',').any(|it| name.starts_with(it));
        HAS_WANTED.fetch_or(wants, Ordering::Relaxed);
        wants
    }

    /// Whether a metric is asked for that needs two CPUs; says that it is left out where there is one.
    fn wants_with_two_cpus(self, name: &str) -> bool {
        let wants = self.wants(name);
        if wants && app::cpus() < 2 {
            println!("latency: {name} is left out: it needs two CPUs");
        }
        wants && app::cpus() > 1
    }

    /// Rounds of a metric: [`WARM_UP`] of them, then one for each sample.
    fn rounds(self) -> u32 {
        WARM_UP + self.repeat
    }

    /// Tells a sample of a metric that is asked for, unless it is of the warm-up.
    fn tell(
        self,
        round: u32,
        name: &str,
        (start_ticks, end_ticks): (u64, u64),
        ops: u32,
    ) -> Result<(), Failure> {
        if round >= WARM_UP {
            app::tell_region(name, start_ticks, end_ticks, ops)?;
        }
        Ok(())
    }

    /// Measures work that is the same in every round, and holds so many operations of a metric.
    fn measure(self, name: &str, ops: u32, mut work: impl FnMut()) -> Result<(), Failure> {
        if !self.wants(name) {
            return Ok(());
        }
        for round in 0..self.rounds() {
            let start_ticks = app::now_ticks();
            work();
            let end_ticks = app::now_ticks();
            self.tell(round, name, (start_ticks, end_ticks), ops)?;
        }
        Ok(())
    }
}

/// A task that keeps a CPU busy, in the fair class.
struct Hog {
    stop: Arc<AtomicBool>,
    task: JoinHandle,
}

impl Hog {
    fn on(cpu: usize) -> Result<Self, Failure> {
        let stop = Arc::new(AtomicBool::new(false));
        let task = Builder::new("hog").cpus(CpuSet::single(cpu)).spawn({
            let stop = stop.clone();
            move || burn_unless(&stop)
        })?;
        Ok(Self { stop, task })
    }

    fn stop(self) {
        self.stop.store(true, Ordering::Relaxed);
        self.task.join();
    }
}

/// Keeps the CPU busy until this is set.
fn burn_unless(stop: &AtomicBool) {
    while !stop.load(Ordering::Relaxed) {
        cpu::spin(100);
        cpu::pause();
    }
}

/// Keeps the CPU busy until this time, to some ten instructions.
fn spin_until(ticks: u64) {
    while app::now_ticks() < ticks {}
}
