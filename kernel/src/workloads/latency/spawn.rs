//! A task that is made, runs, ends and is joined.

use super::{HERE, PRIORITY, Suite};
use crate::app::{Builder, CpuSet, Failure};

pub fn measure(suite: Suite) -> Result<(), Failure> {
    let mut failed = Ok(());
    suite.measure("spawn-join", 1, || {
        let builder = Builder::new("nothing").fifo(PRIORITY).cpus(CpuSet::single(HERE));
        match builder.spawn(|| ()) {
            Ok(task) => drop(task.join()),
            Err(why) => failed = Err(why),
        }
    })?;
    Ok(failed?)
}
