//! The first two tasks, and what `init` does: run the workload, see that nothing is left, and
//! switch off.

use alloc::boxed::Box;
use alloc::format;
use alloc::string::String;

use orrery_core::cpuset::CpuSet;
use orrery_core::sched::{Nice, Policy};

use crate::arch::smp::{self, Started};
use crate::arch::{Platform, tsc};
use crate::boot::BootInfo;
use crate::drivers::exit::Ending;
use crate::process::first::{self, Command};
use crate::sched::task::{Body, TaskSpec};
use crate::sched::{call, cpu, wait, wake};
use crate::task::registry::{self, Namespace};
use crate::task::{JoinHandle, Nesting, birth, work};
use crate::trace::drain;
use crate::{app, boot, console, mm, options, power, println, task, watchdog};

/// Exit status of a run whose workload failed or left something behind.
const FAILED: u8 = 1;
/// The drain runs a little before ordinary tasks, so that rings do not fill behind hogs.
const DRAIN_NICE: i8 = -10;

/// Says what was booted, and what was wrong with the command line.
pub fn announce(boot: &BootInfo, platform: &Platform, others: &Started) {
    task::trace_idle_tasks();
    let memory = mm::frames::stats();
    println!("orrery: {others}, {} MiB, booted by {}", memory.total * 4 / 1024, boot.door);
    println!("orrery: {platform}");
    if boot.command_line_cut {
        println!("orrery: the command line was too long and has been cut");
    }
    for complaint in options::complaints() {
        println!("orrery: `{}` ignored; expected {}", complaint.word, complaint.expected);
        defmt::warn!("command line: {=str} ignored", complaint.word);
    }
    console::flush();
}

/// Makes `init` and `kthreadd` and lets them run.
pub fn create() {
    registry::init(options::get().pid_limit);
    let spec = |name| TaskSpec {
        name: String::from(name).into(),
        policy: Policy::Fair(Nice::default()),
        allowed: CpuSet::ALL,
        parent: 0,
    };
    let make =
        |name, body: Body| match birth::make(spec(name), Nesting::Inherit, Namespace::root(), body)
        {
            Ok(task) => task,
            Err(why) => panic!("{name} cannot be made: {why}"),
        };
    let init = make("init", Box::new(run));
    let kthreadd = make("kthreadd", Box::new(birth::kthreadd));
    wake::wake_new(&kthreadd);
    wake::wake_new(&init);
}

/// A CPU that has been started still has a few steps to take until it schedules, which the host may delay: tasks that are
/// to run there would find no such CPU.
fn wait_for_all_cpus() {
    while cpu::online().len() < smp::count() as usize {
        core::hint::spin_loop();
    }
}

/// `init`'s body.
fn run() -> i32 {
    wait_for_all_cpus();
    boot::finish();
    watchdog::boot_is_finished();
    let worker = spawn("kworker", Policy::default(), Box::new(work::run));
    let drain = spawn_drain();
    warm_up();
    let before = Belongings::count(UNTIL_REST);
    let ending = run_first_program()
        .unwrap_or_else(|| Ending::Workload(run_workload(options::get().workload)));
    let left = wait_until_nothing_is_left(&before);
    let ending = match left {
        Some(left) => {
            defmt::error!("the workload left something behind");
            println!("orrery: the workload left something behind: {left}");
            if ending.status() == 0 { Ending::Workload(FAILED) } else { ending }
        }
        None => ending,
    };
    worker.stop();
    power::off(drain, ending)
}

fn spawn_drain() -> JoinHandle {
    let policy = Policy::Fair(Nice::new(DRAIN_NICE).unwrap_or_default());
    spawn("traced", policy, Box::new(drain::run))
}

/// Makes one of the kernel's own tasks.
fn spawn(name: &str, policy: Policy, body: Body) -> JoinHandle {
    match birth::create(String::from(name), policy, CpuSet::ALL, Nesting::Inherit, body) {
        Ok(handle) => {
            birth::run(&handle);
            handle
        }
        Err(why) => panic!("the task `{name}` cannot be made: {why}"),
    }
}

/// Makes and joins a task, and takes the largest PID once, so that containers which grow have done so
/// before anything is counted.
fn warm_up() {
    spawn("warm-up", Policy::default(), Box::new(|| 0)).join();
    registry::warm_up();
}

/// Runs the program that the bundle or the command line names, if one is named.
fn run_first_program() -> Option<Ending> {
    let command = Command::find()?;
    Some(match first::run(command) {
        Ok(status) => match status.signal() {
            Some(signal) => Ending::Signal(signal as u8),
            None => Ending::Program(status.code()),
        },
        Err(why) => {
            println!("orrery: no program can be started: {why}");
            Ending::Workload(FAILED)
        }
    })
}

fn run_workload(words: &'static str) -> u8 {
    let (name, _) = words.split_once(',').unwrap_or((words, ""));
    let body = Box::new(move || app::run(words));
    let policy = Policy::default();
    match birth::create(String::from(name), policy, CpuSet::ALL, Nesting::Inherit, body) {
        Ok(handle) => {
            defmt::info!("workload {=str} begins as PID {=u32}", name, handle.task().pid());
            birth::run(&handle);
            let code = handle.join();
            defmt::info!("workload {=str} has ended with {=i32}", name, code);
            u8::try_from(code).unwrap_or(FAILED)
        }
        Err(why) => {
            println!("orrery: workload `{name}` cannot be started: {why}");
            FAILED
        }
    }
}

/// As many tries to count as it takes.
const UNTIL_REST: u32 = u32::MAX;

/// What a workload must give back. The heap keeps frames, and containers keep capacity; so it is
/// frames outside the heap and allocations that are compared.
#[derive(Clone, Copy, PartialEq)]
struct Belongings {
    tasks: usize,
    frames: u64,
    stacks: u64,
    allocations: u64,
}

impl Belongings {
    /// Counts what is in use, when nobody is about to give anything back: what only waits to be freed is freed first, and
    /// whoever is in the middle of something comes to its end, however late the host lets its CPU run. If there is no
    /// such moment in so many tries, it counts all the same.
    fn count(tries: u32) -> Self {
        /// What all have between two tries, in microseconds.
        const PAUSE_US: u64 = 1_000;
        for _ in 0..tries {
            work::flush();
            registry::barrier();
            mm::stack::reclaim(flush_all_tlbs);
            wait::sleep_until(tsc::now() + tsc::from_us(PAUSE_US));
            let rested = cpu::all_rest();
            let now = Self::read();
            if rested && cpu::all_rest() && now == Self::read() {
                return now;
            }
        }
        Self::read()
    }

    fn read() -> Self {
        let usage = mm::usage();
        let accounted = usage.free_frames + usage.heap_frames + usage.table_frames;
        Self {
            tasks: registry::count(),
            frames: usage.total_frames - accounted,
            stacks: mm::stack::stats().used,
            allocations: mm::heap::stats().allocations,
        }
    }
}

fn flush_all_tlbs() {
    call::run_on(cpu::online(), &crate::arch::tlb::flush_all);
}

/// Waits a little for tasks that are on their way out; then says what is left that was not there
/// before, if anything.
fn wait_until_nothing_is_left(before: &Belongings) -> Option<String> {
    const TRIES: usize = 20;
    const TRIES_TO_COUNT: u32 = 20;
    let mut now = *before;
    for _ in 0..TRIES {
        now = Belongings::count(TRIES_TO_COUNT);
        if now == *before {
            return None;
        }
    }
    for task in registry::tasks() {
        println!("orrery: pid {} `{}` is {:?}", task.pid(), task.name(), task.state());
    }
    Some(format!(
        "tasks {} -> {}, stacks {} -> {}, frames {} -> {}, allocations {} -> {}",
        before.tasks,
        now.tasks,
        before.stacks,
        now.stacks,
        before.frames,
        now.frames,
        before.allocations,
        now.allocations
    ))
}
