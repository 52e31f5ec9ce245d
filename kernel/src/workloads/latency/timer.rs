//! Timers: how late a sleep ends. Each is as long as the others from where it begins, so that an idle CPU that
//! polls is found at the same instruction.

use super::{HERE, Hog, LONG, Suite};
use crate::app::{self, Failure};
use crate::sched::idle;

pub fn measure(suite: Suite) -> Result<(), Failure> {
    let name = match idle::mode() {
        idle::Mode::Poll => "timer/task/idle/polling",
        idle::Mode::Auto | idle::Mode::Halt => "timer/task/idle/halted",
    };
    lateness(suite, name)?;
    if suite.wants("timer/task/loaded") {
        let hog = Hog::on(HERE)?;
        let measured = lateness(suite, "timer/task/loaded");
        hog.stop();
        measured?;
    }
    Ok(())
}

fn lateness(suite: Suite, name: &str) -> Result<(), Failure> {
    if !suite.wants(name) {
        return Ok(());
    }
    for round in 0..suite.rounds() {
        let deadline_ticks = app::now_ticks() + app::to_ticks(LONG);
        app::sleep_until(deadline_ticks);
        suite.tell(round, name, (deadline_ticks, app::now_ticks()), 1)?;
    }
    Ok(())
}
