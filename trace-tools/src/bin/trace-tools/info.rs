//! `trace-tools info`

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
    /// How to print it
    #[arg(long, value_enum, default_value = "text")]
    format: OutputFormat,
}

pub fn run(options: &Options) -> Result<Exit, Failure> {
    let trace = options.source.load()?;
    let info = analyses::info(&trace);
    let mut stdout = io::stdout().lock();
    match options.format {
        OutputFormat::Text => stdout.write_all(views::info_text(&info).as_bytes())?,
        OutputFormat::Json => {
            serde_json::to_writer_pretty(&mut stdout, &info).map_err(io::Error::from)?;
            writeln!(stdout)?;
        }
    }
    stdout.flush()?;
    Ok(verdict(&trace))
}
