//! The program `trace-tools`: command line in, verbs out.
//!
//! Data goes to stdout, everything else to stderr. `trace_tools::exit` says what the exit status
//! means.
#![forbid(unsafe_code)]

mod common;
mod decode;
mod info;
mod record;
mod regions;
mod report;

use std::{path::PathBuf, process::ExitCode};

use clap::{Args, Parser, Subcommand, ValueEnum};
use trace_tools::Exit;

use common::Failure;

/// Records, decodes and analyses Orrery traces
///
/// Exit status: 0 fine, 1 unexpected, 2 usage, 3 regression, 4 nothing matched, 5 trace lossy, damaged
/// or without its end, 6 trace and schema do not match, 100 an assertion failed.
#[derive(Parser)]
#[command(version)]
struct Cli {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Subcommand)]
enum Verb {
    /// Keep a raw stream as a recording
    Record(record::Options),
    /// Print events, one a line
    Decode(decode::Options),
    /// Say what a trace is and how much of it is there
    Info(info::Options),
    /// Print run times, delays and wake-up latencies
    Report(report::Options),
    /// Print what programs and applications measured: the regions that they marked
    Regions(regions::Options),
}

/// Where a trace comes from.
#[derive(Args)]
struct Source {
    /// A recording, or a raw stream (then --elf is needed); `-` is stdin
    #[arg(value_name = "TRACE")]
    path: PathBuf,
    /// The kernel's ELF: the schema of a raw stream, and function names for backtraces
    #[arg(long, value_name = "FILE")]
    elf: Option<PathBuf>,
}

/// How results are printed.
#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum OutputFormat {
    /// For people
    Text,
    /// For programs
    Json,
}

fn main() -> ExitCode {
    let result = match Cli::parse().verb {
        Verb::Record(options) => record::run(&options),
        Verb::Decode(options) => decode::run(&options),
        Verb::Info(options) => info::run(&options),
        Verb::Report(options) => report::run(&options),
        Verb::Regions(options) => regions::run(&options),
    };
    match result {
        Ok(exit) => exit.into(),
        Err(Failure::OutputClosed) => Exit::Fine.into(),
        Err(Failure::Error(error)) => {
            eprintln!("trace-tools: {error}");
            error.exit().into()
        }
    }
}
