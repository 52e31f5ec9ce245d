//! `mixed`, the default: a bit of everything, so that all CPUs work and the report is worth
//! reading.
//!
//! With `pace=on` (the default) each act waits for the trace of the one before it to be on its way, so
//! that nothing is lost on a slow line.

use alloc::vec::Vec;
use core::time::Duration;

use super::pingpong::Game;
use super::{hog, pipeline, storm, timers};
use crate::app::{self, Args, CpuSet, Failure, Policy, println};

crate::app!(
    name = "mixed",
    about = "a bit of everything: pace=on|off, scale= (percent)",
    main = main,
);

fn main(args: &Args<'static>) -> Result<(), Failure> {
    let pace = args.choice("pace", &[("on", Pace::Settle), ("off", Pace::GoOn)])?;
    let percent = args.u64_in("scale", 100, 1..=100_000)?;
    args.finish()?;
    let scaled = |count: u64| (count * percent).div_ceil(100);

    act(1, "pairs play ping-pong, on one CPU and across two", pace);
    let rounds = scaled(300);
    let cpus = app::cpus();
    let games = (0..cpus).map(|cpu| {
        let partner = if cpu % 2 == 0 { cpu } else { (cpu + 1) % cpus };
        Game::start(rounds, Policy::default(), [CpuSet::single(cpu), CpuSet::single(partner)])
    });
    let games = games.collect::<Result<Vec<_>, _>>()?;
    games.into_iter().try_for_each(Game::finish)?;
    println!("  {cpus} pairs, {rounds} rounds each");

    act(2, "values pass through a chain of channels", pace);
    let (items, stages) = (scaled(500), 3);
    pipeline::run(items, stages, 8)?;
    println!("  {items} values through {stages} stages");

    act(3, "hogs on every CPU, and sleepers that want to run on time", pace);
    let time = Duration::from_millis(scaled(150));
    println!("  {}", hog::against_sleepers(time, 4, 4)?);

    act(4, "timers expire in order", pace);
    println!("  late by {}", timers::run(scaled(32), 4, Duration::from_millis(10))?);

    act(5, "tasks sleep, wake, yield and spawn at random", pace);
    println!("  {}", storm::run(scaled(60), 12)?);
    Ok(())
}

#[derive(Clone, Copy)]
enum Pace {
    Settle,
    GoOn,
}

fn act(number: u64, what: &str, pace: Pace) {
    if let Pace::Settle = pace {
        app::settle();
    }
    println!("mixed: {number}. {what}");
    app::mark(number, what);
}
