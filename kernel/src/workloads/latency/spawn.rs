//! A task that is made, runs, ends and is joined.

use super::{HERE, PRIORITY, Suite};
use crate::app::{Builder, CpuSet, Failure, SpawnError};

/// Tasks in a sample. Every few of them the work queue's task frees the last ones in between; so each sample has
/// several of those turns.
const TASKS: u32 = 8;

pub fn measure(suite: Suite) -> Result<(), Failure> {
    let mut failed = Ok(());
    suite.measure("spawn-join", TASKS, || {
        for _ in 0..TASKS {
            if let Err(why) = spawn_and_join() {
                failed = Err(why);
            }
        }
    })?;
    Ok(failed?)
}

fn spawn_and_join() -> Result<(), SpawnError> {
    let builder = Builder::new("nothing").fifo(PRIORITY).cpus(CpuSet::single(HERE));
    builder.spawn(|| ())?.join();
    Ok(())
}
