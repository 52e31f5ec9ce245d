//! `pipeline`: values pass through a chain of tasks, from channel to channel; each stage adds one.

use alloc::format;
use alloc::vec::Vec;

use crate::app::{self, Args, Failure, channel, println};

crate::app!(
    name = "pipeline",
    about = "values pass through a chain of channels: items=, stages=, capacity=",
    main = main,
);

fn main(args: &Args<'static>) -> Result<(), Failure> {
    let items = args.u64_in("items", 5_000, 1..=1 << 32)?;
    let stages = args.u64_in("stages", 4, 1..=64)?;
    let capacity = args.u64_in("capacity", 16, 1..=4096)?;
    args.finish()?;
    run(items, stages, capacity as usize)?;
    println!("pipeline: {items} items through {stages} stages");
    Ok(())
}

/// Sends `0..items` through `stages` tasks.
///
/// # Errors
/// When a task cannot be made, or a value does not arrive as it should, in its order.
pub fn run(items: u64, stages: u64, capacity: usize) -> Result<(), Failure> {
    let mut tasks = Vec::new();
    let (source, mut outlet) = channel(capacity);
    for stage in 0..stages {
        let (sender, next_outlet) = channel(capacity);
        let inlet = core::mem::replace(&mut outlet, next_outlet);
        tasks.push(app::spawn(format!("stage-{stage}"), move || -> Result<(), Failure> {
            for value in inlet.iter() {
                sender.send(value + 1)?;
            }
            Ok(())
        })?);
    }
    tasks.push(app::spawn("source", move || -> Result<(), Failure> {
        for value in 0..items {
            source.send(value)?;
        }
        Ok(())
    })?);
    let mut received = 0;
    for value in outlet.iter() {
        if value != received + stages {
            return Err(format!("{value} arrived instead of {}", received + stages).into());
        }
        received += 1;
    }
    super::join_all(tasks)?;
    if received != items {
        return Err(format!("{received} items of {items} arrived").into());
    }
    Ok(())
}
