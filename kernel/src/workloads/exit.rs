//! `exit`: ends at once, with the status it is given.

use crate::app::{Args, Failure};

crate::app!(name = "exit", about = "ends with status=", main = main);

fn main(args: &Args<'static>) -> Result<i32, Failure> {
    let status = args.u64_in("status", 0, 0..=255)?;
    args.finish()?;
    Ok(status as i32)
}
