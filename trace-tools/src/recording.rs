//! The file that keeps a trace: its schema, then its packets as they came.
//!
//! | offset | size | what |
//! |---|---|---|
//! | 0 | 8 | `ORRYREC1` |
//! | 8 | 4 | bytes of schema, little-endian |
//! | 12 | 4 | CRC-32C of the schema |
//! | 16 | … | the schema, JSON ([`Schema::to_json`]) |
//! | … | … | valid packets, in the order of their sequence numbers |
//!
//! Nothing of the host is in it: the same image and the same stream give the same bytes.

use std::io::{ErrorKind, Read, Write};

use orrery_core::trace::wire::crc32c;

use crate::{Error, schema::Schema};

/// First bytes of a recording.
pub const MAGIC: [u8; 8] = *b"ORRYREC1";
/// Largest schema that is read, in bytes.
const SCHEMA_MAX: u32 = 64 * 1024 * 1024;

/// Writes a recording.
#[derive(Debug)]
pub struct Writer<W: Write> {
    output: W,
}

impl<W: Write> Writer<W> {
    /// Starts a recording of a build's packets.
    ///
    /// # Errors
    /// [`Error::Io`] where writing fails.
    pub fn new(mut output: W, schema: &Schema) -> Result<Self, Error> {
        let json = schema.to_json();
        let mut head = MAGIC.to_vec();
        head.extend((json.len() as u32).to_le_bytes());
        head.extend(crc32c(0, &json).to_le_bytes());
        head.extend(json);
        output.write_all(&head).map_err(|error| Error::io("cannot write the recording", error))?;
        Ok(Self { output })
    }

    /// Appends a packet, as [`crate::session::Item::Packet`] hands it out.
    ///
    /// # Errors
    /// [`Error::Io`] where writing fails.
    pub fn packet(&mut self, bytes: &[u8]) -> Result<(), Error> {
        self.output.write_all(bytes).map_err(|error| Error::io("cannot write the recording", error))
    }

    /// Flushes it and gives the output back.
    ///
    /// # Errors
    /// [`Error::Io`] where writing fails.
    pub fn finish(mut self) -> Result<W, Error> {
        self.output.flush().map_err(|error| Error::io("cannot write the recording", error))?;
        Ok(self.output)
    }
}

/// Reads a recording's head after its magic number; the packets are what `input` has left.
///
/// # Errors
/// [`Error::Recording`] or [`Error::Schema`] where the head is damaged, [`Error::Io`] where reading
/// fails.
pub fn read_schema(input: &mut impl Read) -> Result<Schema, Error> {
    let mut head = [0; 8];
    read_exact(input, &mut head)?;
    let [len, crc] = [&head[..4], &head[4..]]
        .map(|word| u32::from_le_bytes([word[0], word[1], word[2], word[3]]));
    if len > SCHEMA_MAX {
        return Err(Error::Recording(format!("it claims a schema of {len} bytes")));
    }
    // The length is a claim: memory follows what is really there.
    let mut json = Vec::new();
    input
        .take(u64::from(len))
        .read_to_end(&mut json)
        .map_err(|error| Error::io("cannot read the recording", error))?;
    if json.len() != len as usize {
        return Err(truncated());
    }
    if crc32c(0, &json) != crc {
        return Err(Error::Recording("its schema is damaged (CRC)".to_owned()));
    }
    Schema::from_json(&json)
}

fn truncated() -> Error {
    Error::Recording("it ends inside its schema".to_owned())
}

fn read_exact(input: &mut impl Read, buffer: &mut [u8]) -> Result<(), Error> {
    input.read_exact(buffer).map_err(|error| match error.kind() {
        ErrorKind::UnexpectedEof => truncated(),
        _ => Error::io("cannot read the recording", error),
    })
}
