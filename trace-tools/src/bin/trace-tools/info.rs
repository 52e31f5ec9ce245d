//! `trace-tools info`

use clap::Args;
use trace_tools::{Exit, analyses, views};

use crate::{
    OutputFormat, Source,
    common::{Failure, print, verdict},
};

#[derive(Args)]
pub struct Options {
    #[command(flatten)]
    source: Source,
    /// How to print it
    #[arg(long, value_enum, default_value = "text")]
    format: OutputFormat,
}

pub fn run(options: &Options) -> Result<Exit, Failure> {
    let trace = options.source.load()?;
    let info = analyses::info(&trace);
    print(options.format, &info, views::info_text)?;
    Ok(verdict(&trace))
}
