//! Everything that can be wrong before the guest runs. Each message names what was wrong and what to
//! do about it; `cargo xtask` prints them as they are.

use std::path::PathBuf;

/// Why a virtual machine cannot be built or started.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// An option's text has no meaning.
    #[error("{what} `{value}`: {expected}")]
    Parse {
        /// What was parsed, such as "memory size".
        what: &'static str,
        /// The text as given.
        value: String,
        /// What would have been right.
        expected: &'static str,
    },
    /// The options are each right, but not together.
    #[error("{0}")]
    Combination(String),
    /// A program is not on `PATH`.
    #[error(
        "`{program}` is not on PATH; install it with `cargo xtask setup` (Debian package `{package}`)"
    )]
    MissingProgram {
        /// The program's name.
        program: &'static str,
        /// The Debian package that has it.
        package: &'static str,
    },
    /// No directory has Limine's files.
    #[error(
        "no Limine boot loader found; looked in {}. Unpack a binary release of Limine \
         (branch `v8.x-binary` or newer of https://github.com/limine-bootloader/limine) there, or set \
         LIMINE_DIR to where it is",
        list(looked_in)
    )]
    LimineMissing {
        /// Where it was looked for.
        looked_in: Vec<PathBuf>,
    },
    /// A directory that should be Limine's lacks some of its files.
    #[error(
        "{} is not a complete Limine directory: {} missing or empty; unpack the whole binary release \
         of Limine there, or point LIMINE_DIR at one",
        dir.display(),
        missing.join(", ")
    )]
    LimineBroken {
        /// The directory.
        dir: PathBuf,
        /// The files it lacks.
        missing: Vec<&'static str>,
    },
    /// No UEFI firmware.
    #[error(
        "no UEFI firmware (OVMF) found; looked for {}; install it with `cargo xtask setup` \
         (Debian package `ovmf`)",
        list(looked_for)
    )]
    FirmwareMissing {
        /// The code images that were looked for.
        looked_for: Vec<PathBuf>,
    },
    /// A file cannot be read, or is not what it should be.
    #[error("{what} {}: {problem}", path.display())]
    File {
        /// What the file is for, such as "kernel".
        what: &'static str,
        /// Its path.
        path: PathBuf,
        /// What is wrong, and what to do.
        problem: String,
    },
    /// The accelerator cannot be used on this host.
    #[error(
        "KVM cannot be used here: {0}; run without `--accel kvm` (TCG needs no support from the host)"
    )]
    Kvm(String),
    /// A helper program ran and failed.
    #[error("`{program}` failed ({status}):\n{stderr}")]
    Helper {
        /// The program.
        program: &'static str,
        /// Its exit status.
        status: std::process::ExitStatus,
        /// What it wrote to standard error.
        stderr: String,
    },
    /// The host's operating system refused something.
    #[error("cannot {doing}: {source}")]
    Io {
        /// What was attempted.
        doing: String,
        /// The system's answer.
        source: std::io::Error,
    },
}

impl Error {
    /// For `map_err`: wraps the system's answer with what was attempted.
    pub(crate) fn io(doing: impl Into<String>) -> impl FnOnce(std::io::Error) -> Self {
        let doing = doing.into();
        move |source| Self::Io { doing, source }
    }
}

fn list(paths: &[PathBuf]) -> String {
    paths.iter().map(|path| path.display().to_string()).collect::<Vec<_>>().join(", ")
}
