//! `trace-tools record`

use std::{
    fs::File,
    io::{self, BufWriter, Read, Write},
    path::{Path, PathBuf},
    thread,
    time::{Duration, Instant},
};

use clap::Args;
use trace_tools::{
    Decoder, Error, Exit, Item, Schema, Session, input::read_file, recording::Writer,
    trace::Builder,
};

use crate::common::{Failure, progress, verdict};

/// How often a growing file is looked at.
const POLL: Duration = Duration::from_millis(20);

#[derive(Args)]
pub struct Options {
    /// The raw stream; `-` is stdin
    #[arg(value_name = "STREAM", default_value = "-")]
    input: PathBuf,
    /// The kernel's ELF, whose schema goes into the recording
    #[arg(long, value_name = "FILE")]
    elf: PathBuf,
    /// The recording; `-` is stdout
    #[arg(long, short, value_name = "FILE")]
    output: PathBuf,
    /// The file still grows: wait for more until the stream's end packet
    #[arg(long)]
    follow: bool,
    /// With --follow: give up when nothing came for this long
    #[arg(long, value_name = "SECONDS", requires = "follow")]
    timeout: Option<u64>,
    /// Show the kernel's console on stderr
    #[arg(long)]
    console: bool,
}

pub fn run(options: &Options) -> Result<Exit, Failure> {
    let schema = Schema::from_elf(&read_file(&options.elf)?)?;
    let decoder = Decoder::new(schema)?;
    let (mut input, len_bytes) = open(options)?;
    let bar = progress(len_bytes, "recording");
    let mut session = Session::new(decoder.clone());
    let mut writer = None;
    let mut chunk = vec![0; 256 * 1024];
    let mut last_news = Instant::now();
    loop {
        let len = match input.read(&mut chunk) {
            Ok(len) => len,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => {
                let what = format!("cannot read {}", options.input.display());
                return Err(Error::io(what, error).into());
            }
        };
        if len > 0 {
            last_news = Instant::now();
            feed(&mut session, Some(&chunk[..len]), options, &mut writer)?;
            bar.inc(len as u64);
            continue;
        }
        let given_up = options
            .timeout
            .is_some_and(|seconds| last_news.elapsed() >= Duration::from_secs(seconds));
        if !options.follow || given_up || session.accounts().end.is_some() {
            break;
        }
        thread::sleep(POLL);
    }
    feed(&mut session, None, options, &mut writer)?;
    // A stream without one valid packet still gets its recording: it says so when it is read.
    match writer {
        Some(writer) => writer.finish()?,
        None => create(options, &session)?.finish()?,
    };
    bar.finish_and_clear();
    Ok(verdict(&Builder::default().finish(&session)))
}

type Output = Writer<Box<dyn Write>>;

/// Records what the next bytes hold; no bytes are the end of the stream.
fn feed(
    session: &mut Session,
    bytes: Option<&[u8]>,
    options: &Options,
    writer: &mut Option<Output>,
) -> Result<(), Failure> {
    let mut packets = Vec::new();
    let mut console = Vec::new();
    let sink = |item: Item<'_>| match item {
        Item::Packet(packet) => packets.extend_from_slice(packet),
        Item::Console { text, .. } => console.extend_from_slice(text),
        _ => {}
    };
    match bytes {
        Some(bytes) => session.push(bytes, sink)?,
        None => session.finish(sink)?,
    }
    if !packets.is_empty() {
        // Created only now, so that a stream of another build leaves no file behind.
        let writer = match writer {
            Some(writer) => writer,
            None => writer.insert(create(options, session)?),
        };
        writer.packet(&packets)?;
    }
    if options.console {
        // Nobody may be there to read it; the recording matters more.
        let _ = io::stderr().write_all(&console);
    }
    Ok(())
}

fn create(options: &Options, session: &Session) -> Result<Output, Error> {
    let output: Box<dyn Write> = if options.output == Path::new("-") {
        Box::new(io::stdout())
    } else {
        let file = File::create(&options.output).map_err(|error| {
            Error::io(format!("cannot create {}", options.output.display()), error)
        })?;
        Box::new(BufWriter::new(file))
    };
    Writer::new(output, &session.decoder().schema)
}

fn open(options: &Options) -> Result<(Box<dyn Read>, Option<u64>), Error> {
    if options.input == Path::new("-") {
        return Ok((Box::new(io::stdin()), None));
    }
    let cannot = |error| Error::io(format!("cannot read {}", options.input.display()), error);
    let file = File::open(&options.input).map_err(cannot)?;
    let len_bytes = file.metadata().map_err(cannot)?.len();
    Ok((Box::new(file), (!options.follow).then_some(len_bytes)))
}
