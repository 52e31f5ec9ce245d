//! A small application: workers square numbers on every CPU, a channel brings the results back.
//!
//! `cargo xtask run --app examples/hello-app` builds it into the image and runs it;
//! `docs/applications.md` explains it line by line.
#![no_std]
#![forbid(unsafe_code)]

extern crate alloc;

use alloc::format;
use alloc::vec::Vec;
use core::time::Duration;

use orrery::app::{self, Args, Builder, CpuSet, Failure, channel};
use orrery::println;

orrery::app!(
    name = "hello-app",
    about = "squares numbers on every CPU: numbers=, pause=",
    main = main,
);

fn main(args: &Args<'static>) -> Result<(), Failure> {
    let numbers = args.u64_in("numbers", 100, 1..=1_000_000)?;
    let pause = args.duration("pause", Duration::from_micros(200))?;
    args.finish()?;

    println!("hello from pid {}, on CPU {} of {}", app::pid(), app::cpu(), app::cpus());
    let (jobs, inbox) = channel(16);
    let (results, outbox) = channel(16);

    let mut workers = Vec::new();
    for cpu in 0..app::cpus() {
        let (inbox, results) = (inbox.clone(), results.clone());
        let worker = Builder::new(format!("worker-{cpu}")).cpus(CpuSet::single(cpu));
        workers.push(worker.spawn(move || -> Result<(), Failure> {
            for number in inbox.iter() {
                app::sleep(pause);
                results.send(number * number)?;
            }
            app::mark(cpu as u64, "worker is done");
            Ok(())
        })?);
    }
    // The workers have their own ends; a channel closes when the last one goes.
    drop((inbox, results));

    let feeder = app::spawn("feeder", move || -> Result<(), Failure> {
        (1..=numbers).try_for_each(|number| jobs.send(number))?;
        Ok(())
    })?;

    // How long that takes is told to the host, see `docs/latency.md`.
    let sum: u64 = app::region("hello-app/squares", numbers as u32, || outbox.iter().sum())?;
    for task in workers.into_iter().chain([feeder]) {
        if task.join() != 0 {
            return Err("a task failed".into());
        }
    }
    println!("the squares of 1 to {numbers} add up to {sum}");

    let expected = numbers * (numbers + 1) * (2 * numbers + 1) / 6;
    if sum != expected {
        return Err(format!("{sum} is not {expected}").into());
    }
    Ok(())
}
