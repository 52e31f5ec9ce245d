//! `idle`: sleeps, to show what a guest costs that does nothing.

use core::time::Duration;

use crate::app::{self, Args, Failure};

crate::app!(name = "idle", about = "sleeps for=", main = main);

fn main(args: &Args<'static>) -> Result<(), Failure> {
    let time = args.duration("for", Duration::from_secs(10))?;
    args.finish()?;
    app::sleep(time);
    Ok(())
}
