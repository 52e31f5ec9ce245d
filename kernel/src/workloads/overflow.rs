//! `overflow`: one task per CPU floods the trace with marks, faster than any line can carry them, and
//! counts them itself. What the host received and what the kernel says it dropped must add up to
//! exactly that: run it with `trace=mark`, so that marks are the only events.
//!
//! The count per CPU is exact because each task is pinned.

use alloc::format;
use alloc::vec::Vec;

use super::join_all;
use crate::app::{self, Args, Builder, CpuSet, Failure, println};

crate::app!(
    name = "overflow",
    about = "floods the trace with marks and counts them: marks= per CPU",
    main = main,
);

fn main(args: &Args<'static>) -> Result<(), Failure> {
    let marks = args.u64_in("marks", 200_000, 0..=1 << 40)?;
    args.finish()?;
    let mut tasks = Vec::new();
    for cpu in 0..app::cpus() {
        let flood = Builder::new(format!("flood-{cpu}")).cpus(CpuSet::single(cpu));
        tasks.push(flood.spawn(move || (0..marks).for_each(|count| app::mark(count, "")))?);
    }
    join_all(tasks)?;
    for cpu in 0..app::cpus() {
        println!("produced cpu={cpu} marks={marks}");
    }
    Ok(())
}
