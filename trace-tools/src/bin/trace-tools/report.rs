//! `trace-tools report`

use std::io::{self, Write};

use clap::Args;
use trace_tools::{Exit, analyses, model::Model, views};

use crate::{
    OutputFormat, Source,
    common::{Failure, verdict},
};

#[derive(Args)]
pub struct Options {
    #[command(flatten)]
    source: Source,
    /// How to print it; JSON has all tasks and all times in ticks
    #[arg(long, value_enum, default_value = "text")]
    format: OutputFormat,
    /// List every task, not just those that ran most
    #[arg(long)]
    all: bool,
}

pub fn run(options: &Options) -> Result<Exit, Failure> {
    let trace = options.source.load()?;
    let report = analyses::report(&trace, &Model::replay(&trace));
    let mut stdout = io::stdout().lock();
    match options.format {
        OutputFormat::Text => {
            let limit = options.all.then_some(usize::MAX);
            stdout.write_all(views::report_text(&report, limit).as_bytes())?;
        }
        OutputFormat::Json => {
            serde_json::to_writer_pretty(&mut stdout, &report).map_err(io::Error::from)?;
            writeln!(stdout)?;
        }
    }
    stdout.flush()?;
    Ok(verdict(&trace))
}
