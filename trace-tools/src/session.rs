//! A stream decoded as it comes.
//!
//! [`Session`] is what live users hold: bytes go in, [`Item`]s come out, in the order in which they
//! were sent (events of one CPU in order, CPUs interleaved by packet). [`crate::Trace`] collects
//! the same items and merges them by time.

use std::sync::Arc;

use orrery_core::trace::wire::{Kind, Stream};

use crate::{
    Error,
    events::{BadRecord, EventRef, Plans},
    schema::{LogTable, Schema},
    transport::{Accounts, End, Gap, Hello, Packet, Panic, Parser, Piece},
};

/// A schema made ready for decoding; cheap to share.
#[derive(Clone, Debug)]
pub struct Decoder {
    /// The schema.
    pub schema: Arc<Schema>,
    /// Its events' plans.
    pub plans: Arc<Plans>,
    /// Its log lines.
    pub logs: Arc<LogTable>,
}

impl Decoder {
    /// Compiles a schema.
    ///
    /// # Errors
    /// [`Error::Schema`] where a log line's format is malformed.
    pub fn new(schema: Schema) -> Result<Self, Error> {
        let logs = Arc::new(LogTable::new(&schema)?);
        let plans = Arc::new(Plans::new(&schema));
        Ok(Self { schema: Arc::new(schema), plans, logs })
    }
}

/// What a stream says.
#[derive(Clone, Debug)]
pub enum Item<'a> {
    /// A valid packet as it came; what it says follows. For those who keep streams.
    Packet(&'a [u8]),
    /// The stream's hello; comes once, before everything else but foreign bytes.
    Hello(&'a Hello),
    /// Something is missing here, before what follows of this CPU.
    Gap {
        /// CPU of the packet that told.
        cpu: u16,
        /// What is missing.
        gap: Gap,
    },
    /// An event.
    Event(EventRef<'a>),
    /// Text of the kernel's console, not aligned to lines or characters.
    Console {
        /// When it was sent.
        time_ticks: u64,
        /// CPU that sent it.
        cpu: u16,
        /// The text.
        text: &'a [u8],
    },
    /// What a program wrote.
    Output {
        /// When it was sent.
        time_ticks: u64,
        /// CPU that sent it.
        cpu: u16,
        /// Standard output or error.
        stream: Stream,
        /// What was written, not aligned to anything.
        bytes: &'a [u8],
    },
    /// A fatal error of the kernel.
    Panic(Panic),
    /// The kernel ended the stream.
    End(&'a End),
    /// A block that does not fit the schema, though its build does: a bug in the kernel. The rest
    /// of the block is skipped.
    Malformed {
        /// CPU whose block it is.
        cpu: u16,
        /// What is wrong.
        reason: BadRecord,
    },
    /// Bytes that belong to no packet: firmware text, or damage.
    Foreign(&'a [u8]),
}

/// Decodes one stream.
#[derive(Debug)]
pub struct Session {
    decoder: Decoder,
    parser: Parser,
    greeted: bool,
    malformed_blocks: u64,
}

impl Session {
    /// A session at the start of a stream.
    pub fn new(decoder: Decoder) -> Self {
        Self { decoder, parser: Parser::new(), greeted: false, malformed_blocks: 0 }
    }

    /// What decodes the stream.
    pub fn decoder(&self) -> &Decoder {
        &self.decoder
    }

    /// The stream's hello, once there was one.
    pub fn hello(&self) -> Option<&Hello> {
        self.parser.hello()
    }

    /// What arrived and what did not, so far.
    pub fn accounts(&self) -> &Accounts {
        self.parser.accounts()
    }

    /// Blocks that did not fit the schema.
    pub fn malformed_blocks(&self) -> u64 {
        self.malformed_blocks
    }

    /// Takes the next bytes and hands out what they say.
    ///
    /// # Errors
    /// [`Error::Mismatch`] where the stream is of another build than the schema,
    /// [`Error::Format`] where its hello cannot be read. Nothing of the stream was handed out
    /// then, and the session is of no further use.
    pub fn push(&mut self, bytes: &[u8], mut sink: impl FnMut(Item<'_>)) -> Result<(), Error> {
        self.run(|parser, handle| parser.push(bytes, &mut |piece| handle(piece)), &mut sink)
    }

    /// Says that the stream ended and hands out what was still held.
    ///
    /// # Errors
    /// As [`Self::push`].
    pub fn finish(&mut self, mut sink: impl FnMut(Item<'_>)) -> Result<(), Error> {
        self.run(|parser, handle| parser.finish(&mut |piece| handle(piece)), &mut sink)
    }

    fn run(
        &mut self,
        feed: impl FnOnce(&mut Parser, &mut dyn FnMut(Piece<'_>)),
        sink: &mut impl FnMut(Item<'_>),
    ) -> Result<(), Error> {
        let Self { decoder, parser, greeted, malformed_blocks } = self;
        let mut failed = None;
        feed(parser, &mut |piece| match piece {
            _ if failed.is_some() => {}
            Piece::Foreign(bytes) => sink(Item::Foreign(bytes)),
            Piece::Packet(packet) => {
                if !*greeted {
                    if let Err(error) = decoder.schema.check_build(&packet.hello.build_id) {
                        failed = Some(error);
                        return;
                    }
                    *greeted = true;
                    sink(Item::Hello(packet.hello));
                }
                *malformed_blocks += u64::from(hand_out(decoder, &packet, sink).is_err());
            }
        });
        match (failed, self.parser.refused_hello()) {
            (Some(error), _) => Err(error),
            (None, Some(reason)) if self.parser.hello().is_none() => {
                Err(Error::Format(reason.to_owned()))
            }
            (None, _) => Ok(()),
        }
    }
}

/// Hands out what one packet says; an error is a block that does not fit the schema.
fn hand_out(
    decoder: &Decoder,
    packet: &Packet<'_>,
    sink: &mut impl FnMut(Item<'_>),
) -> Result<(), BadRecord> {
    let header = &packet.header;
    sink(Item::Packet(packet.bytes));
    if !packet.gap.is_empty() {
        sink(Item::Gap { cpu: header.cpu, gap: packet.gap });
    }
    match header.kind {
        Kind::Hello => {}
        Kind::Events => {
            let decoded =
                decoder.plans.decode(header, packet.payload, |event| sink(Item::Event(event)));
            if let Err(reason) = decoded {
                sink(Item::Malformed { cpu: header.cpu, reason });
                return Err(reason);
            }
        }
        Kind::Console => sink(Item::Console {
            time_ticks: header.base_ticks,
            cpu: header.cpu,
            text: packet.payload,
        }),
        Kind::Output => {
            // The parser hands out packets of known streams only.
            if let Some((&number, bytes)) = packet.payload.split_first()
                && let Some(stream) = Stream::from_u8(number)
            {
                sink(Item::Output {
                    time_ticks: header.base_ticks,
                    cpu: header.cpu,
                    stream,
                    bytes,
                });
            }
        }
        Kind::Panic => sink(Item::Panic(Panic::parse(packet.payload))),
        Kind::End => {
            // The parser hands out end packets that parse only.
            if let Ok(end) = End::parse(packet.payload) {
                sink(Item::End(&end));
            }
        }
    }
    Ok(())
}
