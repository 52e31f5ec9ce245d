//! What the exit status of `trace-tools` means, in one place.

/// Exit status of the program.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Exit {
    /// All went well.
    Fine = 0,
    /// Something else failed: a file that cannot be read, say.
    Unexpected = 1,
    /// The command line makes no sense.
    Usage = 2,
    /// A comparison found a regression.
    Regression = 3,
    /// Nothing matched what was asked for.
    NothingMatched = 4,
    /// The trace is lossy, damaged or ends too early.
    Corrupt = 5,
    /// The trace and the schema come from different builds or format versions.
    Mismatch = 6,
    /// An assertion about the trace failed.
    AssertionFailed = 100,
}

impl From<Exit> for std::process::ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit as u8)
    }
}
