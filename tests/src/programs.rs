//! Guest programs on the host's Linux, which says what is right: the same file runs here and in the guest, and what it
//! printed and how it ended are compared.

use std::ffi::OsStr;
use std::os::unix::fs::MetadataExt;
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::{Command, Stdio};

use crate::guest::program_path;
use crate::outcome::Outcome;

/// Seconds after which a program that hangs on the host is killed.
const HOST_LIMIT: &str = "120";

/// What a program printed and how it ended, on the host.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OnLinux {
    /// As a shell has it: 128 + N for signal N.
    pub status: u8,
    /// What it wrote to its standard output.
    pub stdout: Vec<u8>,
}

impl OnLinux {
    /// Runs a guest program of this repository in an empty directory, with an empty environment and no input.
    ///
    /// # Panics
    /// Where it cannot be run.
    pub fn run(name: &str, arguments: &[&str]) -> Self {
        let dir = tempfile::tempdir().unwrap_or_else(|why| panic!("no directory: {why}"));
        // Its own process group, and an end to programs that hang.
        let mut command = Command::new("timeout");
        command.args(["--signal=KILL", HOST_LIMIT]).arg(program_path(name)).args(arguments);
        Self::finish(command.current_dir(dir.path()).env_clear().env("PATH", "/usr/bin:/bin"))
    }

    /// Runs a program with this directory as its root; `None` where the host does not let us.
    ///
    /// # Panics
    /// Where it cannot be run although the host lets us.
    pub fn in_root<S: AsRef<OsStr>>(root: &Path, words: &[S]) -> Option<Self> {
        const WAYS: [&[&str]; 2] = [&["chroot"], &["unshare", "--map-root-user", "chroot"]];
        let command = |way: &[&str]| {
            let mut command = Command::new(way[0]);
            command.args(&way[1..]).arg(root).env_clear().env("PATH", SEARCH_PATH);
            command
        };
        let works = |way: &&[&str]| {
            let mut trial = command(way);
            let trial = trial.args(["/bin/busybox", "true"]).stderr(Stdio::null());
            trial.status().is_ok_and(|status| status.success())
        };
        let way = WAYS.into_iter().find(works)?;
        Some(Self::finish(command(way).args(words)))
    }

    fn finish(command: &mut Command) -> Self {
        let output = command.stdin(Stdio::null()).stderr(Stdio::null()).output();
        let output = output.unwrap_or_else(|why| panic!("{command:?}: {why}"));
        let status = match (output.status.code(), output.status.signal()) {
            (Some(code), _) => code as u8,
            (None, signal) => 128 + signal.unwrap_or(0) as u8,
        };
        Self { status, stdout: output.stdout }
    }

    /// The program in the guest did the same, and left nothing behind.
    ///
    /// # Panics
    /// With the first line that differs, where it did not.
    #[track_caller]
    pub fn is_what_happened_in(&self, outcome: &Outcome) {
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        let (here, there) = (text(&self.stdout), text(&outcome.stdout));
        let (mut here, mut there) = (here.lines(), there.lines());
        let mut section = String::new();
        loop {
            let pair = (here.next(), there.next());
            assert_eq!(pair.0, pair.1, "{section}: Linux and guest; {}", outcome.story());
            match pair.0 {
                None => break,
                Some(line) if line.starts_with('[') => section = line.into(),
                Some(_) => {}
            }
        }
        assert_eq!(Some(self.status), outcome.exit_status(), "{}", outcome.story());
        left_nothing(outcome);
    }
}

/// Where programs are looked for, on either side.
pub const SEARCH_PATH: &str = "/bin:/sbin:/usr/bin:/usr/sbin";

/// The kernel found frames, tables, PIDs and tasks as they were before the first program.
///
/// # Panics
/// Where it did not, or has not come to look.
#[track_caller]
pub fn left_nothing(outcome: &Outcome) {
    assert!(outcome.exit_status().is_some(), "{}", outcome.story());
    assert!(!outcome.console.contains("left something behind"), "{}", outcome.story());
}

/// Whether this process is root's, which some calls of some programs ask for on Linux.
pub fn is_root() -> bool {
    std::fs::metadata("/proc/self").is_ok_and(|metadata| metadata.uid() == 0)
}
