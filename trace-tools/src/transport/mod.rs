//! From bytes to packets.
//!
//! [`Parser`] is fed bytes as they come, in pieces of any size, and hands out *packets* that are
//! whole, valid and new, in the order in which they were sent, together with what was missing
//! before each ([`Gap`]). Bytes that belong to no packet are handed out as *foreign*: firmware
//! writes to the serial port before the kernel does, and damage looks the same.
//!
//! Invariants, whatever the input:
//! - a packet is handed out only if its CRC, seeded with the nonce of the first hello, agrees;
//! - no packet is handed out twice, and none out of order: sequence numbers only grow;
//! - a packet that arrives intact is handed out, whatever surrounds it (unless no hello arrives);
//! - memory is bounded: at most [`HELD_MAX`] and one push are kept.
//!
//! Only the wire format (`orrery_core::trace`) is known here; [`crate::session`] is the user.

mod accounts;
mod messages;

pub use accounts::{Accounts, CpuAccount, Gap};
pub use messages::{Cause, End, EndCpu, Hello, Mode, Panic};

use memchr::memmem;
use orrery_core::trace::{
    compact,
    wire::{self, Encoding, HEADER_LEN, HELLO_NONCE, Header, HeaderError, Kind, MAGIC, Stream},
};

/// Most bytes that are kept while waiting for the first hello packet, without which nothing can be
/// verified. Hellos are repeated every 64 packets of at most 64 KiB.
pub const HELD_MAX: usize = 8 * 1024 * 1024;

/// A valid packet.
#[derive(Clone, Copy, Debug)]
pub struct Packet<'a> {
    /// Its header.
    pub header: Header,
    /// The whole packet as sent, header included.
    pub bytes: &'a [u8],
    /// The payload, decoded.
    pub payload: &'a [u8],
    /// What was missing before it.
    pub gap: Gap,
    /// The stream's first hello, which may have come later than this packet.
    pub hello: &'a Hello,
}

/// What the parser found.
#[derive(Clone, Copy, Debug)]
pub enum Piece<'a> {
    /// A valid packet that was not seen before.
    Packet(Packet<'a>),
    /// Bytes that belong to no packet.
    Foreign(&'a [u8]),
}

/// What stands at a magic number.
enum Candidate {
    /// A valid packet of this length in bytes.
    Valid(Header, usize),
    /// No packet of this stream.
    Invalid,
    /// Too few bytes to tell.
    Incomplete,
}

/// The incremental packet parser.
#[derive(Debug, Default)]
pub struct Parser {
    /// Bytes not yet handed out.
    buffer: Vec<u8>,
    /// Where the search for the first hello continues in `buffer`.
    searched: usize,
    hello: Option<Hello>,
    refused_hello: Option<String>,
    accounts: Accounts,
    payload: Vec<u8>,
}

impl Parser {
    /// A parser at the start of a stream.
    pub fn new() -> Self {
        Self::default()
    }

    /// The stream's first hello. Known before the first packet is handed out.
    pub fn hello(&self) -> Option<&Hello> {
        self.hello.as_ref()
    }

    /// Why a hello packet with a correct CRC could not be used, where there was one.
    pub fn refused_hello(&self) -> Option<&str> {
        self.refused_hello.as_deref()
    }

    /// What arrived and what did not, so far.
    pub fn accounts(&self) -> &Accounts {
        &self.accounts
    }

    /// Takes the next bytes of the stream and hands out what is complete.
    pub fn push(&mut self, bytes: &[u8], sink: &mut impl FnMut(Piece<'_>)) {
        self.buffer.extend_from_slice(bytes);
        self.scan(Input::MayContinue, sink);
    }

    /// Says that no more bytes come: what is still held is handed out.
    pub fn finish(&mut self, sink: &mut impl FnMut(Piece<'_>)) {
        self.scan(Input::Ended, sink);
    }

    fn scan(&mut self, input: Input, sink: &mut impl FnMut(Piece<'_>)) {
        let done = if self.hello.is_some() || self.find_hello(input) {
            self.hand_out(input, sink)
        } else {
            self.release_unverifiable(input, sink)
        };
        self.buffer.drain(..done);
        self.searched = self.searched.saturating_sub(done);
    }

    /// Looks for the hello that makes everything else verifiable.
    fn find_hello(&mut self, input: Input) -> bool {
        while let Some(at) = find_magic(&self.buffer, self.searched) {
            match self.examine(at, HELLO_NONCE) {
                Candidate::Valid(header, len) if header.kind == Kind::Hello => {
                    let payload = &self.buffer[at + HEADER_LEN..at + len];
                    match decode_payload(&header, payload, &mut self.payload).and_then(Hello::parse)
                    {
                        Ok(hello) => {
                            self.hello = Some(hello);
                            return true;
                        }
                        Err(reason) => self.refused_hello = Some(reason),
                    }
                }
                Candidate::Incomplete if input == Input::MayContinue => {
                    self.searched = at;
                    return false;
                }
                _ => {}
            }
            self.searched = at + 1;
        }
        self.searched = self.searched.max(self.buffer.len().saturating_sub(MAGIC.len() - 1));
        false
    }

    /// Hands out packets and what lies between them; returns how many bytes are done with.
    fn hand_out(&mut self, input: Input, sink: &mut impl FnMut(Piece<'_>)) -> usize {
        let nonce = self.hello.as_ref().map_or(HELLO_NONCE, |hello| hello.nonce);
        let mut foreign_from = 0;
        let mut at = 0;
        while let Some(magic) = find_magic(&self.buffer, at) {
            match self.examine(magic, nonce) {
                Candidate::Valid(header, len) => {
                    self.foreign(foreign_from, magic, sink);
                    self.accept(header, magic, len, sink);
                    at = magic + len;
                    foreign_from = at;
                }
                Candidate::Incomplete if input == Input::MayContinue => {
                    self.foreign(foreign_from, magic, sink);
                    return magic;
                }
                _ => at = magic + 1,
            }
        }
        let end = match input {
            Input::Ended => self.buffer.len(),
            // The last bytes may be the first ones of a magic number.
            Input::MayContinue => {
                self.buffer.len().saturating_sub(MAGIC.len() - 1).max(foreign_from)
            }
        };
        self.foreign(foreign_from, end, sink);
        end
    }

    /// Before the first hello: only what cannot be part of any packet is handed out.
    fn release_unverifiable(&mut self, input: Input, sink: &mut impl FnMut(Piece<'_>)) -> usize {
        let len = self.buffer.len();
        let end = if input == Input::Ended {
            len
        } else if len > HELD_MAX {
            len - HELD_MAX / 2
        } else {
            find_magic(&self.buffer, 0).unwrap_or(len.saturating_sub(MAGIC.len() - 1))
        };
        self.foreign(0, end, sink);
        end
    }

    fn foreign(&mut self, from: usize, to: usize, sink: &mut impl FnMut(Piece<'_>)) {
        if from < to {
            self.accounts.foreign((to - from) as u64);
            sink(Piece::Foreign(&self.buffer[from..to]));
        }
    }

    fn examine(&self, at: usize, nonce: u32) -> Candidate {
        let bytes = &self.buffer[at..];
        let (header, crc) = match Header::decode(bytes) {
            Ok(decoded) => decoded,
            Err(HeaderError::Short) => return Candidate::Incomplete,
            Err(_) => return Candidate::Invalid,
        };
        let seed = match (header.kind, &self.hello) {
            (Kind::Hello, _) => HELLO_NONCE,
            // Nothing but a hello can be verified yet.
            (_, None) => return Candidate::Invalid,
            (_, Some(_)) => nonce,
        };
        let len = HEADER_LEN + header.wire_len as usize;
        let Some(packet) = bytes.get(..len) else {
            return Candidate::Incomplete;
        };
        let (head, payload) = packet.split_at(HEADER_LEN);
        if wire::packet_crc(seed, head, payload) != crc {
            return Candidate::Invalid;
        }
        Candidate::Valid(header, len)
    }

    /// Counts a packet whose CRC agrees, and hands it out if it is new and sound.
    fn accept(&mut self, header: Header, at: usize, len: usize, sink: &mut impl FnMut(Piece<'_>)) {
        let Some(hello) = &self.hello else {
            return;
        };
        let bytes = &self.buffer[at..at + len];
        let payload = decode_payload(&header, &bytes[HEADER_LEN..], &mut self.payload);
        if header.kind == Kind::Hello
            && payload.as_ref().ok().and_then(|payload| Hello::parse(payload).ok()).as_ref()
                != Some(hello)
        {
            // The hello of another boot; its packets do not verify either.
            self.foreign(at, at + len, sink);
            return;
        }
        let accounts = &mut self.accounts;
        let Some(packets) = accounts.sequence(header.seq) else {
            return;
        };
        let Ok(payload) = payload else {
            accounts.undecodable += 1;
            return;
        };
        let mut gap = Gap { packets, ..Gap::default() };
        match header.kind {
            Kind::Events => match accounts.block(&header) {
                Some((records, dropped)) => (gap.records, gap.dropped) = (records, dropped),
                None => return,
            },
            Kind::End => match End::parse(payload) {
                Ok(end) => accounts.end(end),
                Err(_) => {
                    accounts.undecodable += 1;
                    return;
                }
            },
            Kind::Output if payload.first().is_none_or(|&n| Stream::from_u8(n).is_none()) => {
                accounts.undecodable += 1;
                return;
            }
            Kind::Hello | Kind::Console | Kind::Panic | Kind::Output => {}
        }
        sink(Piece::Packet(Packet { header, bytes, payload, gap, hello }));
    }
}

/// Whether more bytes may follow those that were pushed.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Input {
    MayContinue,
    Ended,
}

fn find_magic(buffer: &[u8], from: usize) -> Option<usize> {
    memmem::find(buffer.get(from..)?, &MAGIC).map(|at| from + at)
}

/// Undoes the payload's encoding.
fn decode_payload<'a>(
    header: &Header,
    wire: &'a [u8],
    scratch: &'a mut Vec<u8>,
) -> Result<&'a [u8], String> {
    match header.encoding {
        Encoding::Raw if header.raw_len == header.wire_len => Ok(wire),
        Encoding::Raw => Err("raw_len differs from wire_len".to_owned()),
        Encoding::Compact => {
            scratch.resize(header.raw_len as usize, 0);
            compact::decode(wire, scratch)
                .map_err(|error| format!("malformed compaction: {error:?}"))?;
            Ok(scratch)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Bytes full of magic numbers, each before what could be the header of a hello.
    fn junk(len_bytes: usize) -> Vec<u8> {
        let mut header = vec![0; HEADER_LEN];
        header[..4].copy_from_slice(&MAGIC);
        header[8] = Kind::Hello as u8;
        header.into_iter().cycle().take(len_bytes).collect()
    }

    #[test]
    fn without_a_hello_memory_is_bounded_and_every_byte_comes_out_once() {
        let junk = junk(3 * HELD_MAX + 12_345);
        let mut parser = Parser::new();
        let mut out = Vec::new();
        let mut sink = |piece: Piece<'_>| match piece {
            Piece::Foreign(bytes) => out.extend_from_slice(bytes),
            Piece::Packet(packet) => panic!("{packet:?}"),
        };
        for piece in junk.chunks(100_000) {
            parser.push(piece, &mut sink);
            assert!(parser.buffer.len() <= HELD_MAX + piece.len());
        }
        parser.finish(&mut sink);
        assert!(out == junk);
        assert_eq!(parser.accounts().leading_bytes, junk.len() as u64);
    }

    #[test]
    fn a_hello_is_found_after_text_however_both_are_cut() {
        let mut stream = crate::synthetic::Stream::new(1, Encoding::Raw);
        stream.hello();
        let bytes = [b"Booting from ROM...\r\n", &*stream.bytes()].concat();
        for cut in 0..bytes.len() {
            let mut parser = Parser::new();
            let mut packets = 0;
            let mut sink =
                |piece: Piece<'_>| packets += u32::from(matches!(piece, Piece::Packet(_)));
            parser.push(&bytes[..cut], &mut sink);
            parser.push(&bytes[cut..], &mut sink);
            assert_eq!(packets, 1, "cut at {cut}");
        }
    }

    #[test]
    fn text_is_not_held_back() {
        let mut parser = Parser::new();
        let mut out = Vec::new();
        let mut sink = |piece: Piece<'_>| {
            if let Piece::Foreign(bytes) = piece {
                out.extend_from_slice(bytes);
            }
        };
        parser.push(b"Booting from ROM...\r\n", &mut sink);
        parser.push(&MAGIC, &mut sink);
        assert_eq!(out, b"Booting from ROM...\r\n");
    }
}
