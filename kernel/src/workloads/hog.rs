//! `hog`: one task per CPU that never yields, against tasks that sleep and want to run at once when
//! their time comes: some real-time, some fair. `mode=share`: hogs of different nice values share one CPU.

use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;
use core::time::Duration;

use super::stats::Samples;
use super::{Gate, burn_until, join_all, random};
use crate::app::{self, Args, Builder, CpuSet, Expected, Failure, JoinHandle, Nice};
use crate::app::{channel, println};

crate::app!(
    name = "hog",
    about = "CPU hogs against sleepers: for=, rt=, fair=; or mode=share,nice=0,5,slices=",
    main = main,
);

/// Lowest priority of the real-time sleepers; each has its own.
const FIRST_PRIORITY: u8 = 20;
/// The sleepers sleep this long, in microseconds.
const SLEEP_US: core::ops::Range<u64> = 500..3_000;
/// Length of a fair slice, which `slices=` counts in.
const SLICE: Duration = Duration::from_millis(3);
/// How far the shares of `mode=share` may be off, in percent of the right ones, before the workload
/// calls it a failure. Wide, since the host may stop a CPU; the trace shows what was exactly.
const TOLERANCE_PERCENT: u64 = 10;

#[derive(Clone, Copy)]
enum Mode {
    Sleepers,
    Share,
}

fn main(args: &Args<'static>) -> Result<(), Failure> {
    match args.choice("mode", &[("sleepers", Mode::Sleepers), ("share", Mode::Share)])? {
        Mode::Sleepers => {
            let time = args.duration("for", Duration::from_millis(500))?;
            let real_time = args.u64_in("rt", app::cpus() as u64, 0..=64)?;
            let fair = args.u64_in("fair", app::cpus() as u64, 0..=1000)?;
            args.finish()?;
            println!("{}", against_sleepers(time, real_time, fair)?);
        }
        Mode::Share => {
            let slices = args.u64_in("slices", 500, 1..=100_000)?;
            let nice = Expected::Other("nice values from -20 to 19 with commas, such as 0,5");
            let nice = args.parse("nice", alloc::vec![0, 5], nice, |list| {
                list.split(',').map(|nice| Nice::new(nice.parse().ok()?).map(Nice::get)).collect()
            })?;
            args.finish()?;
            share(&nice, slices as u32)?;
        }
    }
    Ok(())
}

/// One hog per CPU against this many sleepers of each class. Returns how late the sleepers ran.
///
/// # Errors
/// When a task cannot be made, or fails.
pub fn against_sleepers(time: Duration, real_time: u64, fair: u64) -> Result<String, Failure> {
    let gate = Gate::new();
    let mut tasks = Vec::new();
    for cpu in 0..app::cpus() {
        let hog = Builder::new(format!("hog-{cpu}")).cpus(CpuSet::single(cpu));
        let passage = gate.passage();
        tasks.push(hog.spawn(move || burn_until(passage.pass()))?);
    }
    let (results, outlet) = channel((real_time + fair) as usize);
    for index in 0..real_time + fair {
        let (class, sleeper) = if index < real_time {
            let priority = FIRST_PRIORITY + index as u8;
            (Class::RealTime, Builder::new(format!("rt-{index}")).fifo(priority))
        } else {
            (Class::Fair, Builder::new(format!("fair-{}", index - real_time)))
        };
        let (passage, results) = (gate.passage(), results.clone());
        tasks.push(sleeper.spawn(move || {
            let late_ticks = sleep_again_and_again(index, passage.pass());
            results.send((class, late_ticks)).map_err(Failure::from)
        })?);
    }
    gate.open(time);
    drop(results);
    join_all(tasks)?;
    let (mut real_time_ticks, mut fair_ticks) = (Vec::new(), Vec::new());
    for (class, mut late_ticks) in outlet.iter() {
        match class {
            Class::RealTime => real_time_ticks.append(&mut late_ticks),
            Class::Fair => fair_ticks.append(&mut late_ticks),
        }
    }
    let (real_time, fair) = (Samples::new(real_time_ticks), Samples::new(fair_ticks));
    Ok(format!("real-time sleepers late by {real_time}; fair ones by {fair}"))
}

/// Whose times these are.
enum Class {
    RealTime,
    Fair,
}

/// Sleeps for random times, once at least; returns how late each sleep ended, in ticks.
fn sleep_again_and_again(stream: u64, end_ticks: u64) -> Vec<u64> {
    let mut random = random(stream);
    let mut late_ticks = Vec::new();
    while late_ticks.is_empty() || app::now_ticks() < end_ticks {
        let pause = Duration::from_micros(random.rand_range(SLEEP_US));
        let deadline_ticks = app::now_ticks() + app::to_ticks(pause);
        app::sleep_until(deadline_ticks);
        late_ticks.push(app::now_ticks() - deadline_ticks);
    }
    late_ticks
}

/// Hogs of these nice values share the last CPU for so many slices; then each has had what its
/// weight gives it.
fn share(nice: &[i8], slices: u32) -> Result<(), Failure> {
    let cpu = app::cpus() - 1;
    let gate = Gate::new();
    let mut hogs = Vec::new();
    for (index, &nice) in nice.iter().enumerate() {
        let hog = Builder::new(format!("hog-{index}")).nice(nice).cpus(CpuSet::single(cpu));
        let passage = gate.passage();
        hogs.push(hog.spawn(move || burn_until(passage.pass()))?);
    }
    gate.open(SLICE * slices);
    let tasks: Vec<_> = hogs.iter().map(JoinHandle::task).collect();
    join_all(hogs)?;

    let run_ticks: Vec<_> = tasks.iter().map(|task| task.sched_info().run_ticks).collect();
    let weights: Vec<_> = nice.iter().map(|&nice| weight(nice)).collect();
    let (all_ticks, all_weights) = (run_ticks.iter().sum::<u64>(), weights.iter().sum::<u64>());
    for ((task, nice), (&ran, weight)) in tasks.iter().zip(nice).zip(run_ticks.iter().zip(weights))
    {
        let due = all_ticks * weight / all_weights;
        let pid = task.pid();
        println!("hog: share cpu={cpu} pid={pid} nice={nice} run_ticks={ran} due_ticks={due}");
        if ran.abs_diff(due) > due * TOLERANCE_PERCENT / 100 {
            return Err(format!("the hog of nice {nice} ran {ran} ticks instead of {due}").into());
        }
    }
    Ok(())
}

fn weight(nice: i8) -> u64 {
    u64::from(Nice::new(nice).unwrap_or_default().weight())
}
