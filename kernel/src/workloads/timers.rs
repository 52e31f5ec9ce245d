//! `timers`: many sleepers with random deadlines. None wakes early; those of one CPU wake in the
//! order of their deadlines.
//!
//! The order is checked between sleepers of one CPU and one real-time priority, which run in the order in
//! which they wake, and only between sleeps that were sleeps: a task whose deadline had come before it
//! slept just went on.

use alloc::format;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::time::Duration;

use super::stats::Samples;
use super::{join_all, random};
use crate::app::{self, Args, Builder, CpuSet, Failure, SpinLock, println};

crate::app!(
    name = "timers",
    about = "many sleepers wake in order: sleepers=, rounds=, max= (longest sleep)",
    main = main,
);

const PRIORITY: u8 = 30;

fn main(args: &Args<'static>) -> Result<(), Failure> {
    let sleepers = args.u64_in("sleepers", 64, 1..=10_000)?;
    let rounds = args.u64_in("rounds", 8, 1..=100_000)?;
    let max = args.duration("max", Duration::from_millis(20))?;
    args.finish()?;
    println!("timers: late by {}", run(sleepers, rounds, max)?);
    Ok(())
}

/// A sleep that has ended.
struct Woken {
    deadline_ticks: u64,
    late_ticks: u64,
}

/// Has so many tasks sleep `rounds` times for random times up to `max`. Returns how late they woke.
///
/// # Errors
/// When a task cannot be made, wakes early, or in the wrong order.
pub fn run(sleepers: u64, rounds: u64, max: Duration) -> Result<Samples, Failure> {
    // What happened on each CPU, in order. Room is made beforehand: nothing is allocated later.
    let sleeps = (sleepers * rounds) as usize;
    let per_cpu = sleeps.div_ceil(app::cpus()) + rounds as usize;
    let logs: Vec<_> = (0..app::cpus())
        .map(|_| Arc::new(SpinLock::new("timers", Vec::with_capacity(per_cpu))))
        .collect();
    let mut tasks = Vec::new();
    for index in 0..sleepers {
        let cpu = index as usize % app::cpus();
        let log = logs[cpu].clone();
        let sleeper =
            Builder::new(format!("sleeper-{index}")).fifo(PRIORITY).cpus(CpuSet::single(cpu));
        tasks.push(sleeper.spawn(move || sleeper_main(index, rounds, max, &log))?);
    }
    join_all(tasks)?;
    let mut late_ticks = Vec::with_capacity(sleeps);
    for (cpu, log) in logs.iter().enumerate() {
        let log = core::mem::take(&mut *log.lock());
        if let Some(wrong) = log.windows(2).find(|it| it[0].deadline_ticks > it[1].deadline_ticks) {
            let (late, early) = (wrong[0].deadline_ticks, wrong[1].deadline_ticks);
            return Err(format!("CPU {cpu} woke deadline {early} after deadline {late}").into());
        }
        late_ticks.extend(log.iter().map(|woken| woken.late_ticks));
    }
    Ok(Samples::new(late_ticks))
}

fn sleeper_main(
    stream: u64,
    rounds: u64,
    max: Duration,
    log: &SpinLock<Vec<Woken>>,
) -> Result<(), Failure> {
    let mut random = random(stream);
    let max_ticks = app::to_ticks(max).max(1);
    for _ in 0..rounds {
        let switches = app::sched_info().voluntary_switches;
        let deadline_ticks = app::now_ticks() + random.rand_range(0..max_ticks);
        app::sleep_until(deadline_ticks);
        let now = app::now_ticks();
        if now < deadline_ticks {
            return Err(format!("woken {} ticks early", deadline_ticks - now).into());
        }
        if app::sched_info().voluntary_switches > switches {
            log.lock().push(Woken { deadline_ticks, late_ticks: now - deadline_ticks });
        }
    }
    Ok(())
}
