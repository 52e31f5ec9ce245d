//! Where the repository is, and how commands are run in it.

use anyhow::{Context, Result, bail};
use std::{
    ffi::OsStr,
    fmt,
    path::{Path, PathBuf},
    process::Command,
};

/// The target the image is built for.
pub const IMAGE_TARGET: &str = "x86_64-unknown-none";

/// An end of xtask with an exit status of its own.
#[derive(Debug)]
pub struct Failure {
    /// Exit status of the process.
    pub code: u8,
    /// What is printed, with what to do.
    pub message: String,
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for Failure {}

impl Failure {
    /// Wrong usage, or a host that lacks something that only its owner can give: status 2.
    pub fn usage(message: impl Into<String>) -> anyhow::Error {
        Self { code: 2, message: message.into() }.into()
    }
}

/// The checkout that this xtask was built from.
#[derive(Clone, Debug)]
pub struct Project {
    /// Top-level directory.
    pub root: PathBuf,
    /// Cargo's target directory.
    pub target_dir: PathBuf,
    /// Whether cargo tells of errors only.
    pub is_quiet: bool,
}

impl Project {
    /// Finds the checkout.
    ///
    /// # Errors
    /// Where it has been moved since xtask was built.
    pub fn find() -> Result<Self> {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap_or(Path::new("/"));
        if !root.join("kernel/Cargo.toml").is_file() {
            bail!("{} is no checkout of Orrery; build xtask again there", root.display());
        }
        let target_dir = match std::env::var_os("CARGO_TARGET_DIR").filter(|dir| !dir.is_empty()) {
            Some(dir) => std::env::current_dir().context("no current directory")?.join(dir),
            None => root.join("target"),
        };
        Ok(Self::at(root, target_dir))
    }

    /// The checkout at `root`, built into `target_dir`.
    pub fn at(root: impl Into<PathBuf>, target_dir: impl Into<PathBuf>) -> Self {
        Self { root: root.into(), target_dir: target_dir.into(), is_quiet: false }
    }

    /// Directory for what runs leave behind; created.
    ///
    /// # Errors
    /// Where it cannot be created.
    pub fn out_dir(&self) -> Result<PathBuf> {
        let dir = self.target_dir.join("orrery");
        std::fs::create_dir_all(&dir)
            .with_context(|| format!("cannot create {}", dir.display()))?;
        Ok(dir)
    }

    /// `cargo` with these arguments, in the top-level directory, so that `.cargo/config.toml` is in effect.
    pub fn cargo<I: IntoIterator<Item: AsRef<OsStr>>>(&self, args: I) -> Command {
        let mut command = Command::new(std::env::var_os("CARGO").unwrap_or("cargo".into()));
        command.current_dir(&self.root).env("CARGO_TARGET_DIR", &self.target_dir).args(args);
        if self.is_quiet {
            command.env("CARGO_TERM_QUIET", "true");
        }
        command
    }
}

/// Runs a command to its end.
///
/// # Errors
/// Where it cannot be run or fails; the message names it.
pub fn run(command: &mut Command) -> Result<()> {
    let line = display(command);
    let status = command.status().with_context(|| format!("cannot run `{line}`"))?;
    if !status.success() {
        bail!("`{line}` failed ({status})");
    }
    Ok(())
}

/// A command as one would type it.
pub fn display(command: &Command) -> String {
    let words = std::iter::once(command.get_program()).chain(command.get_args());
    let quoted = words.map(|word| {
        let word = word.to_string_lossy();
        let plain = |c: char| c.is_ascii_alphanumeric() || "-_=+./:,@".contains(c);
        if !word.is_empty() && word.chars().all(plain) {
            word.into_owned()
        } else {
            format!("'{}'", word.replace('\'', r"'\''"))
        }
    });
    let line = quoted.collect::<Vec<_>>().join(" ");
    // The full path of cargo says nothing to the reader.
    match Path::new(command.get_program()).file_name() {
        Some(name) if name == "cargo" => {
            line.replacen(&*command.get_program().to_string_lossy(), "cargo", 1)
        }
        _ => line,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn commands_are_shown_as_typed() {
        let mut command = Command::new("/somewhere/bin/cargo");
        command.args(["build", "-p", "a b", ""]);
        assert_eq!(display(&command), "cargo build -p 'a b' ''");
    }
}
