//! `trace-tools report`

use clap::Args;
use trace_tools::{Exit, analyses, model::Model, views};

use crate::{
    OutputFormat, Source,
    common::{Failure, print, verdict},
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
    let mut report = analyses::report(&trace, &Model::replay(&trace));
    if let Some(symbols) = options.source.symbols()? {
        report.name_places(&symbols);
    }
    let limit = options.all.then_some(usize::MAX);
    print(options.format, &report, |it| views::report_text(it, limit))?;
    Ok(verdict(&trace))
}
