//! `output`: several tasks write numbered lines as programs would, to standard output and error, without a pause.
//! All lines must reach the host, each task's in their order.

use alloc::format;
use alloc::vec::Vec;

use crate::app::{self, Args, Failure};
use crate::console::{Stream, program_output};

crate::app!(
    name = "output",
    about = "writes lines= numbered lines from each of tasks= tasks to standard output, and half of them to standard error",
    main = main
);

fn main(args: &Args<'static>) -> Result<i32, Failure> {
    let tasks = args.u64_in("tasks", 2, 1..=100)?;
    let lines = args.u64_in("lines", 1000, 0..=10_000_000)?;
    args.finish()?;
    let writers: Result<Vec<_>, _> =
        (0..tasks).map(|task| app::spawn("writer", move || write(task, lines))).collect();
    super::join_all(writers?)?;
    Ok(0)
}

fn write(task: u64, lines: u64) -> i32 {
    for line in 0..lines {
        program_output(Stream::Out, format!("{task} {line}\n").as_bytes());
        if line % 2 == 0 {
            program_output(Stream::Err, format!("{task} {line}\n").as_bytes());
        }
    }
    0
}
