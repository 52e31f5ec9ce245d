//! How a run ended, and what is kept of it when its test fails.

use std::path::PathBuf;
use std::sync::atomic::{AtomicU32, Ordering};

use machine::Status;
use trace_tools::transport::{Cause, Panic};
use trace_tools::{Stream, Trace};

use crate::target_dir;

/// How a run ended. Dropped by a test that fails, it leaves its recording.
#[derive(Debug)]
pub struct Outcome {
    /// How the machine ended.
    pub status: Status,
    /// All that programs wrote to their standard output.
    pub stdout: Vec<u8>,
    /// All that programs wrote to their standard error.
    pub stderr: Vec<u8>,
    /// Everything the kernel printed.
    pub console: String,
    /// The decoded trace.
    pub trace: Trace,
    /// The recording, as `cargo xtask run --record` writes it.
    pub recording: Vec<u8>,
    guest: String,
    com1: Vec<u8>,
    qemu: String,
}

impl Outcome {
    pub(crate) fn new(
        guest: String,
        status: Status,
        trace: Trace,
        recording: Vec<u8>,
        com1: Vec<u8>,
        qemu: String,
    ) -> Self {
        let text: Vec<u8> = trace.console().iter().flat_map(|chunk| chunk.text.clone()).collect();
        let console = String::from_utf8_lossy(&text).into_owned();
        let [stdout, stderr] = [Stream::Out, Stream::Err].map(|stream| trace.output_of(stream));
        Self { status, stdout, stderr, console, trace, recording, guest, com1, qemu }
    }

    /// The trace of a run that succeeded and whose trace arrived whole, without a record dropped.
    ///
    /// # Panics
    /// Where it did not.
    #[track_caller]
    pub fn succeeded(&self) -> &Trace {
        let trace = self.ended_with(0);
        let dropped = trace.accounts().dropped();
        assert_eq!(dropped, 0, "{}: {dropped} records dropped", self.guest);
        trace
    }

    /// The trace of a run that ended with this status and whose trace arrived whole; the kernel
    /// may have dropped records.
    ///
    /// # Panics
    /// Where it ended otherwise, or some of the stream is missing or damaged.
    #[track_caller]
    pub fn ended_with(&self, status: u8) -> &Trace {
        // The port has seven bits; the end packet says it all.
        assert_eq!(self.status, Status::Guest(status.min(127)), "{}", self.story());
        let accounts = self.trace.accounts();
        assert!(self.trace.is_whole(), "{}: not whole: {accounts:#?}", self.guest);
        let told = accounts.end.as_ref().map(|end| end.status);
        assert_eq!(told, Some(u32::from(status)), "{}: status in the end packet", self.guest);
        &self.trace
    }

    /// The trace of a run whose program exited with this status, and left nothing behind.
    ///
    /// # Panics
    /// As [`Self::ended_with`], and where something else decided the status.
    #[track_caller]
    pub fn exited_with(&self, status: u8) -> &Trace {
        self.caused_by(Cause::Program, status)
    }

    /// The trace of a run whose program was killed by this signal.
    ///
    /// # Panics
    /// As [`Self::exited_with`].
    #[track_caller]
    pub fn killed_by(&self, signal: u8) -> &Trace {
        self.caused_by(Cause::Signal, 128 + signal)
    }

    #[track_caller]
    fn caused_by(&self, cause: Cause, status: u8) -> &Trace {
        let told = self.trace.accounts().end.as_ref();
        let told = told.map(|end| (end.cause, end.status));
        assert_eq!(told, Some((Some(cause), u32::from(status))), "{}", self.story());
        self.ended_with(status)
    }

    /// The program's exit status, as a shell has it; `None` where something else ended the run.
    pub fn exit_status(&self) -> Option<u8> {
        let end = self.trace.accounts().end.as_ref()?;
        let is_its_own = matches!(end.cause, Some(Cause::Program | Cause::Signal));
        is_its_own.then(|| u8::try_from(end.status).ok()).flatten()
    }

    /// The panic of a run that crashed with this status. Every record arrived. Whoever was
    /// sending when the CPUs were stopped may have left a packet unfinished.
    ///
    /// # Panics
    /// Where it ended otherwise.
    #[track_caller]
    pub fn crashed(&self, status: u8) -> &Panic {
        assert_eq!(self.status, Status::Guest(status), "{}", self.story());
        let accounts = self.trace.accounts();
        let told = accounts.end.as_ref().map(|end| end.status);
        assert_eq!(told, Some(u32::from(status)), "{}: status in the end packet", self.guest);
        assert!(accounts.lost_packets <= 1, "{}: {accounts:#?}", self.guest);
        assert_eq!(accounts.lost(), 0, "{}: records are lost: {accounts:#?}", self.guest);
        assert_eq!(self.trace.malformed_blocks(), 0, "{}: malformed blocks", self.guest);
        match self.trace.panics() {
            [panic] => panic,
            _ => panic!("not one panic: {}", self.story()),
        }
    }

    /// All that is known of the run, in words.
    pub fn story(&self) -> String {
        let Self { guest, console, qemu, .. } = self;
        let [stdout, stderr] = [&self.stdout, &self.stderr].map(|it| String::from_utf8_lossy(it));
        let panics = self.trace.panics();
        let com1: String = String::from_utf8_lossy(&self.com1)
            .chars()
            .filter(|c| c.is_ascii_graphic() || matches!(c, ' ' | '\n'))
            .take(4_000)
            .collect();
        let com1 = if self.trace.hello().is_none() { com1 } else { String::new() };
        format!(
            "{guest}\nconsole:\n{console}\nstdout:\n{stdout}\nstderr:\n{stderr}\n\
             panics: {panics:#?}\ncom1: {com1}\nqemu: {qemu}"
        )
    }

    /// The first line of the console that starts with `prefix`, without it.
    ///
    /// # Panics
    /// Where there is none.
    #[track_caller]
    pub fn line(&self, prefix: &str) -> &str {
        match self.console.lines().find_map(|line| line.strip_prefix(prefix)) {
            Some(rest) => rest,
            None => panic!("no line begins with {prefix:?}: {}", self.story()),
        }
    }

    fn keep(&self) -> std::io::Result<PathBuf> {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let dir = target_dir().join("orrery/failed");
        std::fs::create_dir_all(&dir)?;
        let thread = std::thread::current();
        let test = thread.name().unwrap_or("test").replace("::", "-");
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let path = dir.join(format!("{test}-{number}.orrec"));
        std::fs::write(&path, &self.recording)?;
        Ok(path)
    }
}

impl Drop for Outcome {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            return;
        }
        match self.keep() {
            Ok(path) => eprintln!("{}: its recording is {}", self.guest, path.display()),
            Err(why) => eprintln!("{}: its recording cannot be kept: {why}", self.guest),
        }
    }
}
