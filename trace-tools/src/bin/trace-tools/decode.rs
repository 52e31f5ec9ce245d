//! `trace-tools decode`
//!
//! A file is read to its end and printed in merged order. Stdin is printed as it comes: each CPU's
//! events in order, the CPUs interleaved as their packets arrive.

use std::{
    io::{self, BufWriter, Read, Write},
    path::Path,
};

use clap::Args;
use trace_tools::{
    Decoder, Error, Exit, Item, Session, Trace,
    events::EventRef,
    input::Input,
    symbols::Symboliser,
    trace::{Builder, ConsoleText, OutputChunk},
    views::{EventWriter, Format},
};

use crate::{
    OutputFormat, Source,
    common::{Failure, verdict},
};

#[derive(Args)]
pub struct Options {
    #[command(flatten)]
    source: Source,
    /// How to print it; JSON is one object a line
    #[arg(long, value_enum, default_value = "text")]
    format: OutputFormat,
    #[command(flatten)]
    filter: Filter,
}

/// Which events are wanted; the defaults want everything, console text included.
#[derive(Args)]
struct Filter {
    /// Only events of this name or category (repeat for more)
    #[arg(long = "event", value_name = "NAME")]
    events: Vec<String>,
    /// Only events of this CPU (repeat for more)
    #[arg(long = "cpu", value_name = "N")]
    cpus: Vec<u16>,
    /// Only events while this task runs (repeat for more)
    #[arg(long = "pid", value_name = "PID")]
    pids: Vec<u32>,
}

impl Filter {
    fn is_empty(&self) -> bool {
        self.events.is_empty() && self.cpus.is_empty() && self.pids.is_empty()
    }

    fn wants(&self, event: &EventRef<'_>) -> bool {
        let named = |name: &String| name == event.name() || name == event.category();
        (self.events.is_empty() || self.events.iter().any(named))
            && (self.cpus.is_empty() || self.cpus.contains(&event.cpu))
            && (self.pids.is_empty() || self.pids.contains(&event.pid))
    }
}

/// Prints what the filter wants and counts it.
struct Printer<'a, W: Write> {
    writer: EventWriter<'a, W>,
    filter: &'a Filter,
    matched: u64,
}

impl<'a, W: Write> Printer<'a, W> {
    fn new(
        options: &'a Options,
        output: W,
        decoder: &Decoder,
        symbols: Option<&'a Symboliser>,
    ) -> Self {
        let format = match options.format {
            OutputFormat::Text => Format::Text,
            OutputFormat::Json => Format::Json,
        };
        let writer = EventWriter::new(output, format, decoder.clone(), symbols);
        Self { writer, filter: &options.filter, matched: 0 }
    }

    fn item(&mut self, item: &Item<'_>) -> io::Result<()> {
        match item {
            Item::Event(event) => {
                if !self.filter.wants(event) {
                    self.writer.learn(event);
                    return Ok(());
                }
                self.matched += 1;
            }
            Item::Console { .. } | Item::Output { .. } if !self.filter.is_empty() => return Ok(()),
            _ => {}
        }
        self.writer.item(item)
    }

    /// The exit status, once everything was printed.
    fn exit(&self, verdict: Exit) -> Exit {
        match verdict {
            Exit::Fine if !self.filter.is_empty() && self.matched == 0 => Exit::NothingMatched,
            verdict => verdict,
        }
    }
}

pub fn run(options: &Options) -> Result<Exit, Failure> {
    let symbols = options.source.symbols()?;
    if options.source.path == Path::new("-") {
        live(options, symbols.as_ref())
    } else {
        merged(options, symbols.as_ref())
    }
}

fn merged(options: &Options, symbols: Option<&Symboliser>) -> Result<Exit, Failure> {
    let trace = options.source.load()?;
    let output = BufWriter::new(io::stdout().lock());
    let mut printer = Printer::new(options, output, trace.decoder(), symbols);
    print_trace(&trace, &mut printer)?;
    let exit = printer.exit(verdict(&trace));
    printer.writer.into_inner().flush()?;
    Ok(exit)
}

fn print_trace(trace: &Trace, printer: &mut Printer<'_, impl Write>) -> io::Result<()> {
    if let Some(hello) = trace.hello() {
        printer.item(&Item::Hello(hello))?;
    }
    for &(cpu, gap) in trace.gaps() {
        printer.item(&Item::Gap { cpu, gap })?;
    }
    let mut texts = texts(trace).into_iter().peekable();
    for event in trace.iter() {
        while let Some((_, text)) = texts.next_if(|(time_ticks, _)| *time_ticks < event.time_ticks)
        {
            printer.item(&text)?;
        }
        printer.item(&Item::Event(event))?;
    }
    for (_, text) in texts {
        printer.item(&text)?;
    }
    for panic in trace.panics() {
        printer.item(&Item::Panic(panic.clone()))?;
    }
    match &trace.accounts().end {
        Some(end) => printer.item(&Item::End(end)),
        None => Ok(()),
    }
}

/// What the kernel and the programs wrote, by the time at which it was sent.
fn texts(trace: &Trace) -> Vec<(u64, Item<'_>)> {
    let console = trace.console().iter().map(|chunk| {
        let ConsoleText { time_ticks, cpu, ref text } = *chunk;
        (time_ticks, Item::Console { time_ticks, cpu, text })
    });
    let output = trace.output().iter().map(|chunk| {
        let OutputChunk { time_ticks, cpu, stream, ref bytes } = *chunk;
        (time_ticks, Item::Output { time_ticks, cpu, stream, bytes })
    });
    let mut texts: Vec<_> = console.chain(output).collect();
    texts.sort_by_key(|(time_ticks, _)| *time_ticks);
    texts
}

fn live(options: &Options, symbols: Option<&Symboliser>) -> Result<Exit, Failure> {
    let mut input = Input::open(&options.source.path, options.source.elf.as_deref())?;
    let decoder = Decoder::new(input.schema)?;
    let output = BufWriter::new(io::stdout().lock());
    let mut printer = Printer::new(options, output, &decoder, symbols);
    let mut session = Session::new(decoder.clone());
    let mut chunk = vec![0; 64 * 1024];
    let mut written = Ok(());
    loop {
        let len = match input.packets.read(&mut chunk) {
            Ok(len) => len,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => return Err(Error::io("cannot read the trace", error).into()),
        };
        let sink = |item: Item<'_>| {
            if written.is_ok() {
                written = printer.item(&item);
            }
        };
        if len == 0 {
            session.finish(sink)?;
        } else {
            session.push(&chunk[..len], sink)?;
        }
        std::mem::replace(&mut written, Ok(()))?;
        printer.writer.flush()?;
        if len == 0 {
            break;
        }
    }
    // A trace without its events has all that the verdict needs.
    Ok(printer.exit(verdict(&Builder::default().finish(&session))))
}
