//! A whole trace in memory: every event of a stream in merged order, and what surrounds them.
//!
//! 24 bytes per event and its fields as they came, so that ten million events fit into some 400 MB.

use std::io::Read;

use orrery_core::trace::wire::Stream;

use crate::{
    Error,
    events::{Event, EventRef, Known},
    merge::merge,
    session::{Decoder, Item, Session},
    transport::{Accounts, Gap, Hello, Panic},
};

/// Text of the kernel's console.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConsoleText {
    /// When it was sent.
    pub time_ticks: u64,
    /// CPU that sent it.
    pub cpu: u16,
    /// The text; chunks are not aligned to lines.
    pub text: Vec<u8>,
}

/// What a program wrote.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OutputChunk {
    /// When it was sent.
    pub time_ticks: u64,
    /// CPU that sent it.
    pub cpu: u16,
    /// Standard output or error.
    pub stream: Stream,
    /// What was written; chunks are not aligned to anything.
    pub bytes: Vec<u8>,
}

/// A whole trace.
#[derive(Debug)]
pub struct Trace {
    decoder: Decoder,
    hello: Option<Hello>,
    events: Vec<Event>,
    bytes: Vec<u8>,
    console: Vec<ConsoleText>,
    output: Vec<OutputChunk>,
    panics: Vec<Panic>,
    gaps: Vec<(u16, Gap)>,
    accounts: Accounts,
    malformed_blocks: u64,
}

impl Trace {
    /// Reads a whole stream of packets; `progress` is told after every piece how many bytes were
    /// read.
    ///
    /// # Errors
    /// As [`Session::push`], and [`Error::Io`] where reading fails.
    pub fn read(
        decoder: Decoder,
        mut input: impl Read,
        mut progress: impl FnMut(u64),
    ) -> Result<Self, Error> {
        let mut session = Session::new(decoder);
        let mut builder = Builder::default();
        let mut chunk = vec![0; 256 * 1024];
        loop {
            let len = match input.read(&mut chunk) {
                Ok(0) => break,
                Ok(len) => len,
                Err(error) if error.kind() == std::io::ErrorKind::Interrupted => continue,
                Err(error) => return Err(Error::io("cannot read the trace", error)),
            };
            session.push(&chunk[..len], |item| builder.add(item))?;
            progress(len as u64);
        }
        session.finish(|item| builder.add(item))?;
        Ok(builder.finish(&session))
    }

    /// The stream's hello, or `None` where nothing of the stream could be verified.
    pub fn hello(&self) -> Option<&Hello> {
        self.hello.as_ref()
    }

    /// What decoded it.
    pub fn decoder(&self) -> &Decoder {
        &self.decoder
    }

    /// Number of events.
    pub fn len(&self) -> usize {
        self.events.len()
    }

    /// Whether there is no event.
    pub fn is_empty(&self) -> bool {
        self.events.is_empty()
    }

    /// All events in merged order, in compact form.
    pub fn events(&self) -> &[Event] {
        &self.events
    }

    /// Everything that is known of an event of this trace.
    ///
    /// # Panics
    /// Where the event is of a longer trace.
    pub fn get(&self, event: &Event) -> EventRef<'_> {
        let plan = self.decoder.plans.get(event.plan);
        let bytes = &self.bytes[event.data as usize..];
        // Its length was checked when it was decoded.
        let bytes = &bytes[..plan.len(bytes).unwrap_or(0)];
        EventRef { time_ticks: event.time_ticks, cpu: event.cpu, pid: event.pid, plan, bytes }
    }

    /// All events in merged order.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = EventRef<'_>> {
        self.events.iter().map(|event| self.get(event))
    }

    /// All events in merged order, typed.
    pub fn known(&self) -> impl ExactSizeIterator<Item = (EventRef<'_>, Known<'_>)> {
        self.iter().map(|event| (event, event.known()))
    }

    /// The console's text, in order.
    pub fn console(&self) -> &[ConsoleText] {
        &self.console
    }

    /// What programs wrote, in order.
    pub fn output(&self) -> &[OutputChunk] {
        &self.output
    }

    /// All that programs wrote to one stream.
    pub fn output_of(&self, stream: Stream) -> Vec<u8> {
        let chunks = self.output.iter().filter(|chunk| chunk.stream == stream);
        chunks.flat_map(|chunk| chunk.bytes.iter().copied()).collect()
    }

    /// The kernel's fatal errors.
    pub fn panics(&self) -> &[Panic] {
        &self.panics
    }

    /// Where something was missing, and the CPU whose packet told.
    pub fn gaps(&self) -> &[(u16, Gap)] {
        &self.gaps
    }

    /// What arrived and what did not.
    pub fn accounts(&self) -> &Accounts {
        &self.accounts
    }

    /// Blocks that did not fit the schema.
    pub fn malformed_blocks(&self) -> u64 {
        self.malformed_blocks
    }

    /// Whether everything that was sent arrived and made sense, and the stream was ended properly.
    pub fn is_whole(&self) -> bool {
        self.accounts.is_whole() && self.malformed_blocks == 0
    }
}

/// Collects the items of a [`Session`] for a [`Trace`].
#[derive(Debug, Default)]
pub struct Builder {
    cpus: Vec<Vec<Event>>,
    bytes: Vec<u8>,
    console: Vec<ConsoleText>,
    output: Vec<OutputChunk>,
    panics: Vec<Panic>,
    gaps: Vec<(u16, Gap)>,
}

impl Builder {
    /// Keeps an item.
    #[inline]
    pub fn add(&mut self, item: Item<'_>) {
        match item {
            Item::Event(event) => {
                let lane = usize::from(event.cpu);
                if lane >= self.cpus.len() {
                    self.cpus.resize_with(lane + 1, Vec::new);
                }
                self.cpus[lane].push(Event {
                    time_ticks: event.time_ticks,
                    data: self.bytes.len() as u64,
                    pid: event.pid,
                    cpu: event.cpu,
                    plan: event.plan.number,
                });
                self.bytes.extend_from_slice(event.bytes);
            }
            Item::Console { time_ticks, cpu, text } => {
                self.console.push(ConsoleText { time_ticks, cpu, text: text.to_vec() });
            }
            Item::Output { time_ticks, cpu, stream, bytes } => {
                self.output.push(OutputChunk { time_ticks, cpu, stream, bytes: bytes.to_vec() });
            }
            Item::Panic(panic) => self.panics.push(panic),
            Item::Gap { cpu, gap } => self.gaps.push((cpu, gap)),
            Item::Packet(_)
            | Item::Hello(_)
            | Item::End(_)
            | Item::Malformed { .. }
            | Item::Foreign(_) => {}
        }
    }

    /// The trace of a session that has finished.
    pub fn finish(self, session: &Session) -> Trace {
        Trace {
            decoder: session.decoder().clone(),
            hello: session.hello().cloned(),
            events: merge(self.cpus),
            bytes: self.bytes,
            console: self.console,
            output: self.output,
            panics: self.panics,
            gaps: self.gaps,
            accounts: session.accounts().clone(),
            malformed_blocks: session.malformed_blocks(),
        }
    }
}
