//! `trace-tools regions`

use std::io::{self, Write};

use clap::Args;
use trace_tools::{Exit, analyses, views};

use crate::{
    OutputFormat, Source,
    common::{Failure, verdict},
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
    let mut stdout = io::stdout().lock();
    match options.format {
        OutputFormat::Text => stdout.write_all(views::regions_text(&regions).as_bytes())?,
        OutputFormat::Json => {
            serde_json::to_writer_pretty(&mut stdout, &regions).map_err(io::Error::from)?;
            writeln!(stdout)?;
        }
    }
    stdout.flush()?;
    for problem in &regions.malformed {
        eprintln!("trace-tools: no region: {problem}");
    }
    Ok(if regions.by_name.is_empty() { Exit::NothingMatched } else { verdict(&trace) })
}
