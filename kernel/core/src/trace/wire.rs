//! The packets that carry a trace over a serial line.
//!
//! Everything the kernel tells the host is a *packet*: a 56-byte header and a payload. The header
//! starts with a magic number, and carries a CRC over itself and the payload that is seeded with a
//! *nonce* which only the `hello` packet announces, so that neither line damage nor text that a
//! program prints can pass for a packet. A reader that loses its place looks for the next magic
//! number whose CRC agrees.
//!
//! This module is shared by the kernel, which encodes, and by `trace-tools`, which decodes; it
//! allocates nothing and never panics on any input. `docs/trace-format.md` has the same facts as
//! prose, with the payload of each kind.
//!
//! # Header, little-endian
//!
//! | offset | size | field | meaning |
//! |---|---|---|---|
//! | 0 | 4 | magic | `F5 4F 52 59` |
//! | 4 | 4 | crc | CRC-32C of bytes 8.. of the header and of the payload as sent, seeded |
//! | 8 | 1 | kind | [`Kind`] |
//! | 9 | 1 | encoding | [`Encoding`] of the payload |
//! | 10 | 2 | cpu | CPU whose records these are; the sending CPU for other kinds |
//! | 12 | 4 | seq | counts all packets of this boot from 0, wrapping |
//! | 16 | 4 | wire_len | bytes of payload that follow, at most [`MAX_PAYLOAD`] |
//! | 20 | 4 | raw_len | bytes of the payload once decoded, at most [`MAX_PAYLOAD`] |
//! | 24 | 8 | base_ticks | time that record offsets count from; time of sending for other kinds |
//! | 32 | 8 | first_record | records this CPU had put in its ring before this block, since boot |
//! | 40 | 8 | dropped | records this CPU had dropped before this block, since boot |
//! | 48 | 4 | running_pid | task that ran on the CPU when the block was begun |
//! | 52 | 4 | records | records in the payload; 0 for other kinds |

/// First bytes of every packet. The first is not ASCII, so text rarely looks like a packet.
pub const MAGIC: [u8; 4] = [0xF5, b'O', b'R', b'Y'];
/// Bytes of a packet before its payload.
pub const HEADER_LEN: usize = 56;
/// Largest payload, before and after encoding, in bytes.
pub const MAX_PAYLOAD: usize = 64 * 1024;
/// CRC seed of `hello` packets, which announce the nonce that seeds all others.
pub const HELLO_NONCE: u32 = 0x4F52_5259;
/// Version of this format, announced by `hello` as `version=`.
pub const VERSION: u32 = 2;
/// Oldest version that a reader of [`VERSION`] understands. Version 1 had no [`Kind::Output`].
pub const OLDEST_VERSION: u32 = 1;

/// What a packet carries.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Kind {
    /// Who speaks: `key=value` lines. Sent at boot and repeated, see `docs/trace-format.md`.
    Hello = 1,
    /// One block of one CPU's ring: `records` records.
    Events = 2,
    /// Bytes of the kernel's console, UTF-8 by convention.
    Console = 3,
    /// A fatal error: `key=value` lines and the backtrace as addresses.
    Panic = 4,
    /// Last packet of a complete stream: `key=value` lines with what each CPU produced and dropped.
    End = 5,
    /// What a program wrote to its standard output or error: the number of the [`Stream`], then bytes.
    Output = 6,
}

impl Kind {
    /// The kind with this number, if there is one.
    pub const fn from_u8(value: u8) -> Option<Self> {
        Some(match value {
            1 => Self::Hello,
            2 => Self::Events,
            3 => Self::Console,
            4 => Self::Panic,
            5 => Self::End,
            6 => Self::Output,
            _ => return None,
        })
    }
}

/// Which of a program's streams an [`Kind::Output`] packet carries.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Stream {
    /// Standard output.
    Out = 1,
    /// Standard error.
    Err = 2,
}

impl Stream {
    /// The stream with this number, which is its file descriptor by convention.
    pub const fn from_u8(value: u8) -> Option<Self> {
        Some(match value {
            1 => Self::Out,
            2 => Self::Err,
            _ => return None,
        })
    }
}

/// How a payload was transformed for the wire.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Encoding {
    /// As it is.
    Raw = 0,
    /// Zero bytes removed: see [`super::compact`].
    Compact = 1,
}

impl Encoding {
    /// The encoding with this number, if there is one.
    pub const fn from_u8(value: u8) -> Option<Self> {
        Some(match value {
            0 => Self::Raw,
            1 => Self::Compact,
            _ => return None,
        })
    }
}

/// A packet's header. Field meanings are in the module's table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs)]
pub struct Header {
    pub kind: Kind,
    pub encoding: Encoding,
    pub cpu: u16,
    pub seq: u32,
    pub wire_len: u32,
    pub raw_len: u32,
    pub base_ticks: u64,
    pub first_record: u64,
    pub dropped: u64,
    pub running_pid: u32,
    pub records: u32,
}

/// Why bytes are not a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HeaderError {
    /// Fewer than [`HEADER_LEN`] bytes.
    Short,
    /// They do not start with [`MAGIC`].
    Magic,
    /// A field has a value no sender writes.
    Field(&'static str),
}

impl Header {
    /// Encodes the header of a packet with this payload, CRC included.
    pub fn encode(&self, nonce: u32, payload: &[u8]) -> [u8; HEADER_LEN] {
        let mut out = [0u8; HEADER_LEN];
        out[0..4].copy_from_slice(&MAGIC);
        out[8] = self.kind as u8;
        out[9] = self.encoding as u8;
        out[10..12].copy_from_slice(&self.cpu.to_le_bytes());
        out[12..16].copy_from_slice(&self.seq.to_le_bytes());
        out[16..20].copy_from_slice(&self.wire_len.to_le_bytes());
        out[20..24].copy_from_slice(&self.raw_len.to_le_bytes());
        out[24..32].copy_from_slice(&self.base_ticks.to_le_bytes());
        out[32..40].copy_from_slice(&self.first_record.to_le_bytes());
        out[40..48].copy_from_slice(&self.dropped.to_le_bytes());
        out[48..52].copy_from_slice(&self.running_pid.to_le_bytes());
        out[52..56].copy_from_slice(&self.records.to_le_bytes());
        let crc = packet_crc(nonce, &out, payload);
        out[4..8].copy_from_slice(&crc.to_le_bytes());
        out
    }

    /// Reads a header and its CRC field. The CRC is not checked here, since it covers the payload:
    /// see [`packet_crc`].
    ///
    /// # Errors
    /// [`HeaderError`] where the bytes cannot be the start of a packet of this version.
    pub fn decode(bytes: &[u8]) -> Result<(Self, u32), HeaderError> {
        let Some(head) = bytes.first_chunk::<HEADER_LEN>() else {
            return Err(HeaderError::Short);
        };
        if head[0..4] != MAGIC {
            return Err(HeaderError::Magic);
        }
        let u16_at = |at: usize| u16::from_le_bytes([head[at], head[at + 1]]);
        let u32_at =
            |at: usize| u32::from_le_bytes([head[at], head[at + 1], head[at + 2], head[at + 3]]);
        let u64_at = |at: usize| u64::from(u32_at(at)) | u64::from(u32_at(at + 4)) << 32;
        let header = Self {
            kind: Kind::from_u8(head[8]).ok_or(HeaderError::Field("kind"))?,
            encoding: Encoding::from_u8(head[9]).ok_or(HeaderError::Field("encoding"))?,
            cpu: u16_at(10),
            seq: u32_at(12),
            wire_len: u32_at(16),
            raw_len: u32_at(20),
            base_ticks: u64_at(24),
            first_record: u64_at(32),
            dropped: u64_at(40),
            running_pid: u32_at(48),
            records: u32_at(52),
        };
        if header.wire_len as usize > MAX_PAYLOAD {
            return Err(HeaderError::Field("wire_len"));
        }
        if header.raw_len as usize > MAX_PAYLOAD {
            return Err(HeaderError::Field("raw_len"));
        }
        Ok((header, u32_at(4)))
    }
}

/// CRC of a packet: header bytes from offset 8, then the payload as sent, seeded with the nonce.
/// `header` shorter than [`HEADER_LEN`] is taken as it is.
pub fn packet_crc(nonce: u32, header: &[u8], payload: &[u8]) -> u32 {
    let covered = header.get(8..HEADER_LEN.min(header.len())).unwrap_or(&[]);
    crc32c(crc32c(nonce, covered), payload)
}

/// CRC-32C (Castagnoli, reflected polynomial `0x82F63B78`, RFC 3720 appendix B.4) of `bytes`,
/// continuing from `crc`, 0 to start with. Eight bytes a step ("slicing by 8").
pub fn crc32c(crc: u32, bytes: &[u8]) -> u32 {
    let mut crc = !crc;
    let mut chunks = bytes.chunks_exact(8);
    for chunk in &mut chunks {
        let low = crc ^ u32::from_le_bytes([chunk[0], chunk[1], chunk[2], chunk[3]]);
        crc = CRC_TABLES[7][(low & 0xFF) as usize]
            ^ CRC_TABLES[6][(low >> 8 & 0xFF) as usize]
            ^ CRC_TABLES[5][(low >> 16 & 0xFF) as usize]
            ^ CRC_TABLES[4][(low >> 24) as usize]
            ^ CRC_TABLES[3][chunk[4] as usize]
            ^ CRC_TABLES[2][chunk[5] as usize]
            ^ CRC_TABLES[1][chunk[6] as usize]
            ^ CRC_TABLES[0][chunk[7] as usize];
    }
    for &byte in chunks.remainder() {
        crc = CRC_TABLES[0][((crc ^ u32::from(byte)) & 0xFF) as usize] ^ crc >> 8;
    }
    !crc
}

static CRC_TABLES: [[u32; 256]; 8] = crc_tables();

const fn crc_tables() -> [[u32; 256]; 8] {
    let mut tables = [[0u32; 256]; 8];
    let mut byte = 0;
    while byte < 256 {
        let mut crc = byte as u32;
        let mut bit = 0;
        while bit < 8 {
            crc = crc >> 1 ^ if crc & 1 == 1 { 0x82F6_3B78 } else { 0 };
            bit += 1;
        }
        tables[0][byte] = crc;
        byte += 1;
    }
    let mut slice = 1;
    while slice < 8 {
        let mut byte = 0;
        while byte < 256 {
            let previous = tables[slice - 1][byte];
            tables[slice][byte] = tables[0][(previous & 0xFF) as usize] ^ previous >> 8;
            byte += 1;
        }
        slice += 1;
    }
    tables
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::vec::Vec;

    #[test]
    fn crc_matches_the_published_vectors() {
        // RFC 3720 B.4.
        assert_eq!(crc32c(0, b"123456789"), 0xE306_9283);
        assert_eq!(crc32c(0, &[0u8; 32]), 0x8A91_36AA);
        assert_eq!(crc32c(0, &[0xFFu8; 32]), 0x62A8_AB43);
    }

    fn header() -> impl Strategy<Value = Header> {
        (
            (1u8..=6, 0u8..=1, any::<u16>(), any::<u32>()),
            (0..=MAX_PAYLOAD as u32, 0..=MAX_PAYLOAD as u32),
            any::<[u64; 3]>(),
            any::<[u32; 2]>(),
        )
            .prop_map(|((kind, encoding, cpu, seq), (wire_len, raw_len), wide, narrow)| {
                Header {
                    kind: Kind::from_u8(kind).unwrap(),
                    encoding: Encoding::from_u8(encoding).unwrap(),
                    cpu,
                    seq,
                    wire_len,
                    raw_len,
                    base_ticks: wide[0],
                    first_record: wide[1],
                    dropped: wide[2],
                    running_pid: narrow[0],
                    records: narrow[1],
                }
            })
    }

    proptest! {
        #[test]
        fn crc_continues(bytes: Vec<u8>, at: prop::sample::Index) {
            let at = at.index(bytes.len() + 1);
            prop_assert_eq!(crc32c(crc32c(7, &bytes[..at]), &bytes[at..]), crc32c(7, &bytes));
        }

        #[test]
        fn header_round_trips(header in header(), nonce: u32, payload: Vec<u8>) {
            let bytes = header.encode(nonce, &payload);
            let (decoded, crc) = Header::decode(&bytes).unwrap();
            prop_assert_eq!(decoded, header);
            prop_assert_eq!(crc, packet_crc(nonce, &bytes, &payload));
        }

        #[test]
        fn decode_never_panics(bytes: Vec<u8>) {
            let _ = Header::decode(&bytes);
        }

        #[test]
        fn a_flipped_bit_is_noticed(header in header(), nonce: u32, bit in 0..HEADER_LEN * 8) {
            let mut bytes = header.encode(nonce, b"payload");
            bytes[bit / 8] ^= 1 << (bit % 8);
            let noticed = match Header::decode(&bytes) {
                Err(_) => true,
                Ok((_, crc)) => crc != packet_crc(nonce, &bytes, b"payload"),
            };
            prop_assert!(noticed);
        }
    }
}
