//! `trace-tools regions`

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
    /// How to print them; JSON has every repetition
    #[arg(long, value_enum, default_value = "text")]
    format: OutputFormat,
}

pub fn run(options: &Options) -> Result<Exit, Failure> {
    let trace = options.source.load()?;
    let regions = analyses::regions(&trace);
    print(options.format, &regions, views::regions_text)?;
    for problem in &regions.malformed {
        eprintln!("trace-tools: no region: {problem}");
    }
    Ok(if regions.by_name.is_empty() { Exit::NothingMatched } else { verdict(&trace) })
}
