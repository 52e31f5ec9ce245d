//! `yield-bench`: two tasks on one CPU yield to each other; prints what one task switch costs, in
//! ticks. Under `--icount` these are instructions, and what is printed repeats exactly.
//!
//! Each yield of the measuring task switches to its partner, whose yield switches back: two switches
//! per turn of the loop. How the trace is configured is part of the cost: compare `trace=off` with
//! `trace=sched`.

use alloc::format;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::sync::atomic::{AtomicBool, Ordering};

use super::stats::Samples;
use crate::app::{self, Args, Builder, CpuSet, Failure, Policy, RtPriority, channel, println};

crate::app!(
    name = "yield-bench",
    about = "what a task switch costs: class=fifo|fair, rounds=",
    main = main,
);

/// Yields that are measured together, so that reading the clock costs little.
const BATCH: u64 = 64;
/// Yields of [`yield_some`].
pub(super) const UNROLLED: u32 = 8;
const PRIORITY: u8 = 10;

fn main(args: &Args<'static>) -> Result<(), Failure> {
    let rounds = args.u64_in("rounds", 1_000, 1..=1_000_000)?;
    let fifo = Policy::Fifo(RtPriority::new(PRIORITY).unwrap_or(RtPriority::MIN));
    let (class, policy) =
        args.choice("class", &[("fifo", ("fifo", fifo)), ("fair", ("fair", Policy::default()))])?;
    args.finish()?;
    let cpu = app::cpus() - 1;
    let builder = |name| Builder::new(name).policy(policy).cpus(CpuSet::single(cpu));

    let done = Arc::new(AtomicBool::new(false));
    let (results, outlet) = channel(1);
    let measuring = builder("measuring").spawn({
        let done = done.clone();
        // The partner sleeps until both are there: were it to yield before that, nobody below its
        // class would get to make the other on this CPU.
        let (start, started) = channel(1);
        let partner_done = done.clone();
        let partner = builder("partner").spawn(move || -> Result<(), Failure> {
            started.recv()?;
            while !partner_done.load(Ordering::Relaxed) {
                yield_some();
            }
            Ok(())
        })?;
        move || -> Result<(), Failure> {
            start.send(())?;
            let measured = measure(rounds);
            done.store(true, Ordering::Relaxed);
            results.send(measured)?;
            match partner.join() {
                0 => Ok(()),
                code => Err(format!("the partner ended with {code}").into()),
            }
        }
    })?;
    let measured = outlet.recv();
    if measuring.join() != 0 {
        return Err("the measuring task failed".into());
    }
    let Measured { batches, voluntary_switches } = measured?;
    if voluntary_switches < rounds * BATCH {
        return Err(
            format!("{} yields made only {voluntary_switches} switches", rounds * BATCH).into()
        );
    }
    let per_switch = |ticks: u64| {
        let hundredths = ticks * 100 / (2 * BATCH);
        format!("{}.{:02}", hundredths / 100, hundredths % 100)
    };
    println!(
        "yield-bench: class={class} min={} median={} ticks per switch, batches={rounds}",
        per_switch(batches.percentile(0)),
        per_switch(batches.percentile(50)),
    );
    Ok(())
}

struct Measured {
    /// Ticks of each batch.
    batches: Samples,
    /// Times that a yield of the measuring task gave its CPU away.
    voluntary_switches: u64,
}

/// Yields [`UNROLLED`] times, without a loop around each that would be measured with it.
#[inline(always)]
pub(super) fn yield_some() {
    app::yield_now();
    app::yield_now();
    app::yield_now();
    app::yield_now();
    app::yield_now();
    app::yield_now();
    app::yield_now();
    app::yield_now();
}

fn measure(rounds: u64) -> Measured {
    let mut batches = Vec::with_capacity(rounds as usize);
    let before = app::sched_info().voluntary_switches;
    for _ in 0..rounds {
        let start_ticks = app::now_ticks();
        for _ in 0..BATCH / u64::from(UNROLLED) {
            yield_some();
        }
        batches.push(app::now_ticks() - start_ticks);
    }
    let voluntary_switches = app::sched_info().voluntary_switches - before;
    Measured { batches: Samples::new(batches), voluntary_switches }
}
