//! `echo`: copies what programs would read from the console to standard output, until the input ends.

use alloc::format;
use alloc::vec;

use crate::app::{Args, Failure};
use crate::console::{self, Blocking, Stream, program_output};

crate::app!(
    name = "echo",
    about = "copies the console's input to standard output, at most size= bytes at a time",
    main = main
);

fn main(args: &Args<'static>) -> Result<(), Failure> {
    let size = args.u64_in("size", 4096, 1..=1 << 20)?;
    args.finish()?;
    let mut buffer = vec![0; size as usize];
    loop {
        let read = console::input().read(&mut buffer, Blocking::Wait);
        match read.map_err(|why| format!("read: {why:?}"))? {
            0 => return Ok(()),
            count => program_output(Stream::Out, &buffer[..count]),
        }
    }
}
