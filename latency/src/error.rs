//! What can be wrong before there is a verdict, and what to do about it.

use std::path::PathBuf;

/// An error of this library.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A file that cannot be read or written.
    #[error("cannot {action} {path}: {source}")]
    File {
        /// `read` or `write`.
        action: &'static str,
        /// The file.
        path: PathBuf,
        /// What the system says.
        source: std::io::Error,
    },
    /// A file that does not say what it should.
    #[error("{path}: {problem}")]
    Content {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        problem: String,
    },
    /// A boot that did not end well.
    #[error("the boot `{boot}` of {image}: {problem}")]
    Boot {
        /// Its name in the suite.
        boot: String,
        /// The image.
        image: PathBuf,
        /// How it ended.
        problem: String,
    },
    /// The machine cannot be started.
    #[error(transparent)]
    Machine(#[from] machine::Error),
    /// The trace cannot be decoded.
    #[error(transparent)]
    Trace(#[from] trace_tools::Error),
}

impl Error {
    pub(crate) fn read(path: impl Into<PathBuf>) -> impl FnOnce(std::io::Error) -> Self {
        let path = path.into();
        move |source| Self::File { action: "read", path, source }
    }

    pub(crate) fn write(path: impl Into<PathBuf>) -> impl FnOnce(std::io::Error) -> Self {
        let path = path.into();
        move |source| Self::File { action: "write", path, source }
    }
}
