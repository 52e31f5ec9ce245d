//! What a running guest says, told to the person who watches, kept in a recording, and summed up.
//!
//! The trace leaves by one port, but the kernel may have to fall back to COM1, and firmware speaks there
//! first. So each port has a decoder of its own; the one that a kernel greets on is the trace.

use anyhow::{Context, Result};
use machine::Port;
use std::{
    fs::File,
    io::{BufWriter, Write},
    path::{Path, PathBuf},
};
use trace_tools::{
    Decoder, Item, Schema, Session, Trace, analyses,
    model::Model,
    recording,
    symbols::Symboliser,
    trace::Builder,
    transport::{Cause, End, Panic},
    views::{self, EventWriter},
};

/// Text outside packets that is kept, for guests that never greet; the last of it.
const FOREIGN_LEN_BYTES: usize = 4096;
/// Tasks that the report lists.
const REPORT_TASKS: usize = 20;

/// What is shown while the guest runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Show {
    /// The console's text.
    Console,
    /// Every event as a line, and the console's text as lines between them.
    Events,
    /// Nothing of the kernel's but a panic.
    Nothing,
}

/// Whose run it is, which decides what standard output is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Subject {
    /// The kernel's own: standard output has its text and the report.
    Kernel,
    /// A program's: standard output has exactly what the program writes there, everything else goes to
    /// standard error.
    Program,
}

/// Watches one run.
pub struct Watch {
    elf: PathBuf,
    recording: PathBuf,
    com1: Stream,
    virtio: Stream,
    screen: Screen,
}

/// One port's bytes and what became of them.
struct Stream {
    session: Session,
    builder: Builder,
    writer: Option<recording::Writer<BufWriter<File>>>,
    foreign: Vec<u8>,
}

/// Where things are shown.
struct Screen {
    output: Output,
    programs: Programs,
    /// The image, for the names in a backtrace.
    image: Vec<u8>,
    /// Whether the console's last character began a new line.
    at_line_start: bool,
}

enum Output {
    Console(Box<dyn Write>),
    Events(Box<EventWriter<'static, Box<dyn Write>>>),
    Nothing,
}

/// Where programs' standard output and error go, as they come.
struct Programs {
    out: Box<dyn Write>,
    err: Box<dyn Write>,
}

impl Watch {
    /// Prepares to watch a run of the image `elf`, to show it, and to keep its trace in the file
    /// `recording`.
    ///
    /// # Errors
    /// Where the image cannot be read or the recording cannot be created.
    pub fn open(elf: &Path, recording: &Path, subject: Subject, show: Show) -> Result<Self> {
        let image = std::fs::read(elf).with_context(|| format!("cannot read {}", elf.display()))?;
        let decoder = Decoder::new(Schema::from_elf(&image)?)?;
        let output: Box<dyn Write> = match subject {
            Subject::Kernel => Box::new(std::io::stdout()),
            Subject::Program => Box::new(std::io::stderr()),
        };
        let programs =
            Programs { out: Box::new(std::io::stdout()), err: Box::new(std::io::stderr()) };
        let screen = Screen::new(output, programs, show, &decoder, image);
        Self::new(decoder, screen, elf, recording)
    }

    fn new(decoder: Decoder, screen: Screen, elf: &Path, recording: &Path) -> Result<Self> {
        // Now, rather than when the first packet comes: a wrong path should not cost a boot.
        File::create(recording)
            .with_context(|| format!("cannot create the recording {}", recording.display()))?;
        Ok(Self {
            elf: elf.into(),
            recording: recording.into(),
            com1: Stream::new(decoder.clone()),
            virtio: Stream::new(decoder),
            screen,
        })
    }

    /// Takes the next bytes of a port.
    ///
    /// # Errors
    /// Where they are of another build than the image, or cannot be kept or shown.
    pub fn push(&mut self, port: Port, bytes: &[u8]) -> Result<()> {
        let stream = match port {
            Port::Com1 => &mut self.com1,
            Port::Virtio => &mut self.virtio,
        };
        stream.feed(Some(bytes), &self.recording, &mut self.screen)?;
        self.screen.flush()
    }

    /// The guest has ended: shows what was held back, and sums up.
    ///
    /// # Errors
    /// As [`Watch::push`].
    pub fn finish(mut self) -> Result<Summary> {
        for stream in [&mut self.com1, &mut self.virtio] {
            stream.feed(None, &self.recording, &mut self.screen)?;
        }
        self.screen.end_line()?;
        let greeted = |stream: &Stream| stream.session.hello().is_some();
        if !greeted(&self.com1) && !greeted(&self.virtio) {
            let mut text = self.com1.foreign;
            text.extend(self.virtio.foreign);
            return Ok(Summary::Silent(String::from_utf8_lossy(&text).trim().to_owned()));
        }
        let stream = if greeted(&self.virtio) { self.virtio } else { self.com1 };
        if let Some(writer) = stream.writer {
            writer.finish()?;
        }
        let trace = stream.builder.finish(&stream.session);
        Ok(Summary::Traced { trace: Box::new(trace), recording: self.recording, elf: self.elf })
    }
}

impl Stream {
    fn new(decoder: Decoder) -> Self {
        Self {
            session: Session::new(decoder),
            builder: Builder::default(),
            writer: None,
            foreign: Vec::new(),
        }
    }

    /// Decodes the next bytes; none are the end.
    fn feed(&mut self, bytes: Option<&[u8]>, recording: &Path, screen: &mut Screen) -> Result<()> {
        let Self { session, builder, writer, foreign } = self;
        let schema = session.decoder().schema.clone();
        let mut outcome = Ok(());
        let sink = |item: Item<'_>| {
            if outcome.is_err() {
                return;
            }
            outcome = match &item {
                Item::Hello(_) => start(recording, &schema).map(|new| *writer = Some(new)),
                Item::Packet(packet) => match writer {
                    Some(writer) => writer.packet(packet).map_err(Into::into),
                    None => Ok(()),
                },
                Item::Foreign(bytes) => {
                    foreign.extend_from_slice(bytes);
                    foreign.drain(..foreign.len().saturating_sub(FOREIGN_LEN_BYTES));
                    Ok(())
                }
                _ => Ok(()),
            };
            outcome = std::mem::replace(&mut outcome, Ok(())).and_then(|()| screen.show(&item));
            builder.add(item);
        };
        match bytes {
            Some(bytes) => session.push(bytes, sink)?,
            None => session.finish(sink)?,
        }
        outcome
    }
}

/// Starts the recording, anew where a kernel has greeted on another port before.
fn start(path: &Path, schema: &Schema) -> Result<recording::Writer<BufWriter<File>>> {
    let file = File::create(path)
        .with_context(|| format!("cannot create the recording {}", path.display()))?;
    Ok(recording::Writer::new(BufWriter::new(file), schema)?)
}

impl Screen {
    fn new(
        output: Box<dyn Write>,
        programs: Programs,
        show: Show,
        decoder: &Decoder,
        image: Vec<u8>,
    ) -> Self {
        let output = match show {
            Show::Console => Output::Console(output),
            Show::Events => {
                let decoder = decoder.clone();
                Output::Events(Box::new(EventWriter::new(
                    Box::new(BufWriter::new(output)) as Box<dyn Write>,
                    views::Format::Text,
                    decoder,
                    None,
                )))
            }
            Show::Nothing => Output::Nothing,
        };
        Self { output, programs, image, at_line_start: true }
    }

    fn show(&mut self, item: &Item<'_>) -> Result<()> {
        if let Item::Panic(panic) = item {
            self.end_line()?;
            eprint!("{}", self.panic_text(panic));
            return Ok(());
        }
        if let Item::Output { stream, bytes, .. } = item {
            let to = match stream {
                trace_tools::Stream::Out => &mut self.programs.out,
                trace_tools::Stream::Err => &mut self.programs.err,
            };
            return to.write_all(bytes).context("cannot write the program's output");
        }
        match (&mut self.output, item) {
            (Output::Console(stdout), Item::Console { text, .. }) => {
                self.at_line_start = text.last().is_none_or(|&last| last == b'\n');
                stdout.write_all(text).context("cannot write the console")
            }
            (Output::Console(_) | Output::Nothing, _) => Ok(()),
            (Output::Events(writer), item) => writer.item(item).context("cannot write the events"),
        }
    }

    fn panic_text(&self, panic: &Panic) -> String {
        // Without symbols a backtrace of addresses is still worth showing.
        views::panic_text(panic, Symboliser::from_elf(&self.image).ok().as_ref())
    }

    fn end_line(&mut self) -> Result<()> {
        if let Output::Console(stdout) = &mut self.output
            && !self.at_line_start
        {
            self.at_line_start = true;
            stdout.write_all(b"\n").context("cannot write the console")?;
        }
        self.flush()
    }

    fn flush(&mut self) -> Result<()> {
        match &mut self.output {
            Output::Console(stdout) => stdout.flush(),
            Output::Events(writer) => writer.flush(),
            Output::Nothing => Ok(()),
        }
        .and_then(|()| self.programs.out.flush())
        .and_then(|()| self.programs.err.flush())
        .context("cannot write what the guest says")
    }
}

/// What a run came to.
pub enum Summary {
    /// No kernel greeted; what came instead.
    Silent(String),
    /// A trace.
    Traced {
        /// All of it.
        trace: Box<Trace>,
        /// Where it is kept.
        recording: PathBuf,
        /// The image that sent it.
        elf: PathBuf,
    },
}

impl Summary {
    /// The stream's last packet, if it came.
    pub fn end(&self) -> Option<&End> {
        match self {
            Self::Silent(_) => None,
            Self::Traced { trace, .. } => trace.accounts().end.as_ref(),
        }
    }

    /// Whether a program decided how the run ended.
    pub fn is_by_program(&self) -> bool {
        let cause = self.end().and_then(|end| end.cause);
        matches!(cause, Some(Cause::Program | Cause::Signal))
    }

    /// All that the kernel wrote.
    pub fn console(&self) -> String {
        match self {
            Self::Silent(text) => text.clone(),
            Self::Traced { trace, .. } => {
                let text = trace.console().iter().flat_map(|chunk| chunk.text.iter().copied());
                String::from_utf8_lossy(&text.collect::<Vec<_>>()).into_owned()
            }
        }
    }

    /// Writes the report to `output`, and on standard error what to do with it.
    ///
    /// # Errors
    /// Where `output` cannot be written.
    pub fn print(&self, output: &mut dyn Write) -> Result<()> {
        let (trace, recording, elf) = match self {
            Self::Silent(text) => {
                eprintln!("warning: the guest sent no trace");
                if !text.is_empty() {
                    eprintln!("it wrote this instead:\n{text}");
                }
                return Ok(());
            }
            Self::Traced { trace, recording, elf } => (trace, recording, elf),
        };
        let text = if trace.is_empty() {
            format!("{}\n", account(trace))
        } else {
            let mut report = analyses::report(trace, &Model::replay(trace));
            // Without symbols addresses are still worth showing.
            if !report.sections.is_empty()
                && let Some(image) = std::fs::read(elf).ok()
                && let Ok(symbols) = Symboliser::from_elf(&image)
            {
                report.name_places(&symbols);
            }
            format!("\n{}", views::report_text(&report, Some(REPORT_TASKS)))
        };
        output.write_all(text.as_bytes()).context("cannot write the report")?;
        if !trace.is_whole() {
            eprintln!("warning: {}", account(trace));
        }
        let recording = shown(recording);
        eprintln!("recording: {recording}");
        eprintln!("next: cargo trace report {recording}   (every task)");
        eprintln!("      cargo trace decode {recording}   (every event)");
        if !trace.panics().is_empty() {
            eprintln!("      cargo trace decode {recording} --elf {}   (with names)", shown(elf));
        }
        Ok(())
    }
}

/// One line that says whether the trace is whole.
fn account(trace: &Trace) -> String {
    let accounts = trace.accounts();
    let nonsense = accounts.undecodable + trace.malformed_blocks();
    let mut line = format!(
        "trace: {} events from {} CPUs in {} packets; {} lost, {} dropped, {} damaged bytes",
        trace.len(),
        accounts.cpus.values().filter(|cpu| cpu.received > 0).count(),
        accounts.packets,
        accounts.lost(),
        accounts.dropped(),
        accounts.damaged_bytes,
    );
    for (count, what) in [
        (accounts.lost_packets, "packets lost"),
        (accounts.duplicates, "packets duplicated"),
        (nonsense, "packets or blocks that make no sense"),
    ] {
        if count > 0 {
            line += &format!(", {count} {what}");
        }
    }
    if accounts.end.is_none() {
        line += "; it has no end";
    }
    line
}

/// A path as short as it can be typed.
fn shown(path: &Path) -> String {
    let here = std::env::current_dir().unwrap_or_default();
    path.strip_prefix(here).unwrap_or(path).display().to_string()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::{Arc, Mutex};
    use trace_tools::{
        input::Input,
        synthetic::{self, Block, Fields, STATEMENTS},
    };

    /// A screen that tests can look at.
    #[derive(Clone, Default)]
    struct Paper(Arc<Mutex<Vec<u8>>>);

    impl Write for Paper {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            self.0.lock().unwrap().write(bytes)
        }

        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }

    impl Paper {
        fn text(&self) -> String {
            String::from_utf8(self.0.lock().unwrap().clone()).unwrap()
        }
    }

    /// Two switches on CPU 1, some console text, and an end.
    fn stream() -> Vec<u8> {
        let mut stream = synthetic::Stream::new(2, orrery_core::trace::wire::Encoding::Compact);
        stream.hello();
        stream.console(5, b"up\nand ");
        let mut block = Block::new(1, 10, 0);
        for (offset, next) in [(0, 7u32), (5, 0)] {
            block.record(0, offset, &Fields::new().int(next.to_le_bytes()).int([1, 0]));
        }
        stream.block(&block);
        stream.output(15, trace_tools::Stream::Out, b"\xffhello");
        stream.output(15, trace_tools::Stream::Err, b"oh");
        stream.console(20, b"running");
        stream.end(0);
        stream.bytes()
    }

    struct Run {
        dir: tempfile::TempDir,
        paper: Paper,
        programs: [Paper; 2],
        watch: Watch,
    }

    fn run(show: Show) -> Run {
        let dir = tempfile::tempdir().unwrap();
        let decoder = Decoder::new(synthetic::schema(&STATEMENTS).unwrap()).unwrap();
        let paper = Paper::default();
        let programs = [Paper::default(), Paper::default()];
        let [out, err] = programs.clone().map(Box::new);
        let screen =
            Screen::new(Box::new(paper.clone()), Programs { out, err }, show, &decoder, Vec::new());
        let watch =
            Watch::new(decoder, screen, Path::new("/elf"), &dir.path().join("r.orrec")).unwrap();
        Run { dir, paper, programs, watch }
    }

    #[test]
    fn a_run_is_shown_kept_and_summed_up() {
        for port in [Port::Com1, Port::Virtio] {
            let mut run = run(Show::Console);
            run.watch.push(Port::Com1, b"firmware speaks").unwrap();
            for byte in stream().chunks(7) {
                run.watch.push(port, byte).unwrap();
            }
            let Summary::Traced { trace, recording, .. } = run.watch.finish().unwrap() else {
                panic!("no trace")
            };
            assert_eq!(run.paper.text(), "up\nand running\n");
            assert_eq!(*run.programs[0].0.lock().unwrap(), b"\xffhello");
            assert_eq!(*run.programs[1].0.lock().unwrap(), b"oh");
            assert!(trace.is_whole());
            assert_eq!(trace.len(), 2);
            assert!(
                account(&trace).starts_with("trace: 2 events from 1 CPUs"),
                "{}",
                account(&trace)
            );
            let kept = Input::open(&recording, None).unwrap().into_trace(|_| {}).unwrap();
            assert_eq!(kept.len(), 2);
            assert!(kept.is_whole());
            drop(run.dir);
        }
    }

    #[test]
    fn events_are_shown_as_lines() {
        let mut run = run(Show::Events);
        run.watch.push(Port::Virtio, &stream()).unwrap();
        run.watch.finish().unwrap();
        assert_eq!(run.paper.text().matches("sched_switch").count(), 2, "{}", run.paper.text());
    }

    #[test]
    fn a_guest_that_never_greets_is_quoted() {
        let mut run = run(Show::Console);
        run.watch.push(Port::Com1, &[b'.'; 3 * FOREIGN_LEN_BYTES]).unwrap();
        run.watch.push(Port::Com1, b"PANIC: no kernel").unwrap();
        let Summary::Silent(text) = run.watch.finish().unwrap() else { panic!("a trace") };
        assert!(text.ends_with("PANIC: no kernel") && text.len() <= FOREIGN_LEN_BYTES);
    }

    #[test]
    fn a_missing_end_is_said() {
        let mut run = run(Show::Console);
        let bytes = stream();
        run.watch.push(Port::Virtio, &bytes[..bytes.len() - 10]).unwrap();
        let Summary::Traced { trace, .. } = run.watch.finish().unwrap() else { panic!() };
        assert!(account(&trace).ends_with("; it has no end"), "{}", account(&trace));
    }
}
