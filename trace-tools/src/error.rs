//! What can go wrong with an input, in words that say what to do about it.

use crate::exit::Exit;

/// Why an input could not be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A file or pipe failed.
    #[error("{what}: {source}")]
    Io {
        /// What was being done, with the name of the file.
        what: String,
        /// The system's answer.
        source: std::io::Error,
    },
    /// The ELF file has no usable schema or symbols.
    #[error("not a usable kernel ELF: {0}")]
    Elf(String),
    /// The schema contradicts itself.
    #[error("malformed schema: {0}")]
    Schema(String),
    /// The file is not a recording, or its header is damaged.
    #[error("not a usable recording: {0}")]
    Recording(String),
    /// The stream has a format version or a hello packet that this program cannot read.
    #[error("unreadable stream: {0}")]
    Format(String),
    /// Stream and schema come from different builds.
    #[error(
        "the stream is from build {stream}, the schema from build {schema}: \
         give the ELF of the kernel that wrote the stream"
    )]
    Mismatch {
        /// Build id that the stream's hello packet announces, hex.
        stream: String,
        /// Build id of the schema, hex.
        schema: String,
    },
}

impl Error {
    /// An [`Error::Io`] that says what was being done.
    pub fn io(what: impl Into<String>, source: std::io::Error) -> Self {
        Self::Io { what: what.into(), source }
    }

    /// The exit status that goes with it.
    pub fn exit(&self) -> Exit {
        match self {
            Self::Io { .. } | Self::Elf(_) | Self::Schema(_) => Exit::Unexpected,
            Self::Recording(_) => Exit::Corrupt,
            Self::Format(_) | Self::Mismatch { .. } => Exit::Mismatch,
        }
    }
}
