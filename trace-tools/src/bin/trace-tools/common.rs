//! What the verbs share: failures, progress, output, and the verdict on a trace.

use std::io::{self, Write};

use indicatif::{ProgressBar, ProgressStyle};
use serde::Serialize;
use trace_tools::{
    Error, Exit, Trace,
    analyses::is_lossy,
    input::{Input, read_file},
    symbols::Symboliser,
};

use crate::{OutputFormat, Source};

/// Why a verb stopped.
pub enum Failure {
    /// Whoever reads our output has had enough; that is no error.
    OutputClosed,
    /// Something to tell the user.
    Error(Error),
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        match error {
            Error::Io { source, .. } if source.kind() == io::ErrorKind::BrokenPipe => {
                Self::OutputClosed
            }
            error => Self::Error(error),
        }
    }
}

impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Self {
        Error::io("cannot write the output", error).into()
    }
}

/// A bar on stderr for long work; invisible unless stderr is a terminal.
pub fn progress(len_bytes: Option<u64>, what: &'static str) -> ProgressBar {
    let bar = match len_bytes {
        Some(len) => ProgressBar::new(len).with_style(
            ProgressStyle::with_template("{msg} {bar:30} {bytes}/{total_bytes} {eta}")
                .unwrap_or_else(|_| ProgressStyle::default_bar()),
        ),
        None => ProgressBar::new_spinner(),
    };
    bar.with_message(what)
}

impl Source {
    /// Reads all of it.
    pub fn load(&self) -> Result<Trace, Error> {
        let input = Input::open(&self.path, self.elf.as_deref())?;
        let bar = progress(input.len_bytes, "reading");
        let trace = input.into_trace(|len| bar.inc(len));
        bar.finish_and_clear();
        trace
    }

    /// The kernel's symbols, where its ELF was given.
    pub fn symbols(&self) -> Result<Option<Symboliser>, Error> {
        match &self.elf {
            Some(elf) => Ok(Some(Symboliser::from_elf(&read_file(elf)?)?)),
            None => Ok(None),
        }
    }
}

/// Prints a result as it is wanted: as this text, or as JSON.
pub fn print<T: Serialize>(
    format: OutputFormat,
    result: &T,
    text: impl FnOnce(&T) -> String,
) -> io::Result<()> {
    let mut stdout = io::stdout().lock();
    match format {
        OutputFormat::Text => stdout.write_all(text(result).as_bytes())?,
        OutputFormat::Json => {
            serde_json::to_writer_pretty(&mut stdout, result)?;
            writeln!(stdout)?;
        }
    }
    stdout.flush()
}

/// The exit status that a trace's condition calls for; says on stderr what is wrong with it.
pub fn verdict(trace: &Trace) -> Exit {
    let accounts = trace.accounts();
    if trace.is_whole() && !is_lossy(trace) {
        return Exit::Fine;
    }
    if trace.hello().is_none() {
        eprintln!(
            "trace-tools: no hello packet of a kernel was found, so nothing could be decoded"
        );
        return Exit::Corrupt;
    }
    let mut faults = Vec::new();
    if accounts.end.is_none() {
        faults.push("its end packet is missing".to_owned());
    }
    for (count, what) in [
        (accounts.lost(), "records lost"),
        (accounts.dropped(), "records dropped by the kernel"),
        (accounts.lost_packets, "packets lost"),
        (accounts.duplicates, "packets duplicated"),
        (accounts.damaged_bytes, "bytes damaged"),
        (accounts.undecodable + trace.malformed_blocks(), "packets or blocks that make no sense"),
    ] {
        if count > 0 {
            faults.push(format!("{count} {what}"));
        }
    }
    eprintln!("trace-tools: the trace is not whole: {}", faults.join(", "));
    Exit::Corrupt
}
