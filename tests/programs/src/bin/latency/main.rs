//! What paths of the kernel cost: the part of the latency suite that runs as a program.
//!
//! `latency [--only PREFIX]... [--repeat N] [--idle auto|poll|halt] [--stdout]`
//!
//! Each sample is a region, one line `region NAME START END OPS` in the time-stamp counter's ticks, written to
//! the trace's marker after the sample has ended, or to standard output where there is no marker.
//! `docs/latency.md` lists what is measured. Every sample of a metric does the same work, so that where ticks
//! are instructions the usual sample is the same in every run.

mod fault;
mod mapping;
mod processes;
mod raw;
mod sibling;
mod signals;
mod suite;
mod switch;
mod timer;
mod wake;

use std::process::exit;

use suite::Suite;

/// The argument that makes this program end at once: what `exec` is measured with.
const NOTHING: &str = "--nothing";

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    if arguments.first().is_some_and(|argument| argument == NOTHING) {
        return;
    }
    let suite = match Suite::new(&arguments) {
        Ok(suite) => suite,
        Err(why) => {
            eprintln!("latency: {why}");
            exit(2);
        }
    };
    // What needs the kernel's heap comes first, while that is in one piece: where it splits a block costs a
    // little more.
    processes::warm_up();
    processes::measure(&suite);
    mapping::measure(&suite);
    fault::measure(&suite);
    switch::measure(&suite);
    signals::measure(&suite);
    wake::measure(&suite);
    timer::measure(&suite);
    suite.finish();
    exit(programs::status());
}
