//! Where traces come from: a recording, a raw stream with the kernel's ELF, a file or stdin.

use std::{
    fs::File,
    io::{self, Cursor, Read},
    path::Path,
};

use crate::{Error, Trace, recording, schema::Schema, session::Decoder};

/// An opened trace, about to be decoded.
pub struct Input {
    /// The schema, from the recording or else from the ELF.
    pub schema: Schema,
    /// The packets.
    pub packets: Box<dyn Read>,
    /// Bytes of the whole input, where that is known.
    pub len_bytes: Option<u64>,
}

impl Input {
    /// Opens a recording, or a raw stream of the kernel in `elf`; `-` is stdin.
    ///
    /// # Errors
    /// [`Error`] where a file cannot be read or is not what it should be; [`Error::Mismatch`] where
    /// a recording and `elf` are of different builds.
    pub fn open(path: &Path, elf: Option<&Path>) -> Result<Self, Error> {
        let elf = elf.map(|elf| Schema::from_elf(&read_file(elf)?)).transpose()?;
        if path == Path::new("-") {
            return Self::new(Box::new(io::stdin()), None, elf);
        }
        let cannot = |error| Error::io(format!("cannot read {}", path.display()), error);
        let file = File::open(path).map_err(cannot)?;
        let metadata = file.metadata().map_err(cannot)?;
        if metadata.is_dir() {
            return Err(cannot(io::ErrorKind::IsADirectory.into()));
        }
        let len_bytes = metadata.is_file().then_some(metadata.len());
        Self::new(Box::new(file), len_bytes, elf)
    }

    /// As [`Self::open`], from a reader and a schema.
    ///
    /// # Errors
    /// As [`Self::open`].
    pub fn new(
        mut input: Box<dyn Read>,
        len_bytes: Option<u64>,
        elf: Option<Schema>,
    ) -> Result<Self, Error> {
        let mut magic = Vec::new();
        input
            .by_ref()
            .take(recording::MAGIC.len() as u64)
            .read_to_end(&mut magic)
            .map_err(|error| Error::io("cannot read the trace", error))?;
        if magic == recording::MAGIC {
            let schema = recording::read_schema(&mut input)?;
            if let Some(elf) = elf {
                elf.check_build(&schema.build_id)?;
            }
            return Ok(Self { schema, packets: input, len_bytes });
        }
        let schema = elf.ok_or_else(|| {
            Error::Recording(
                "it does not start as one; a raw stream needs the kernel's ELF (--elf)".to_owned(),
            )
        })?;
        Ok(Self { schema, packets: Box::new(Cursor::new(magic).chain(input)), len_bytes })
    }

    /// Reads all of it.
    ///
    /// # Errors
    /// As [`Trace::read`].
    pub fn into_trace(self, progress: impl FnMut(u64)) -> Result<Trace, Error> {
        Trace::read(Decoder::new(self.schema)?, self.packets, progress)
    }
}

impl std::fmt::Debug for Input {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Input")
            .field("build_id", &self.schema.build_id)
            .field("len_bytes", &self.len_bytes)
            .finish_non_exhaustive()
    }
}

/// Reads a whole file.
///
/// # Errors
/// [`Error::Io`] that names it.
pub fn read_file(path: &Path) -> Result<Vec<u8>, Error> {
    std::fs::read(path).map_err(|error| Error::io(format!("cannot read {}", path.display()), error))
}
