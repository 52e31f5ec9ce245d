//! One run of the image: what machine, what kernel command line; then to its end.

use std::fmt;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use machine::{
    Boot, Bundle, Clock, ENVIRONMENT, Input, Limine, Machine, MachineType, Memory, Port,
};
use trace_tools::Schema;
use trace_tools::recording::Writer;
use trace_tools::session::{Decoder, Item, Session};
use trace_tools::trace::Builder;

use crate::outcome::Outcome;
use crate::progress;
use crate::turnstile::Pass;

/// How often a long run says that it is still there.
const PROGRESS: Duration = Duration::from_secs(15);
/// Host time after which a run is stopped. A limit for guests that hang, not a measurement.
const TIMEOUT: Duration = Duration::from_secs(300);

/// Which build of the kernel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Image {
    /// As users run it.
    Fast,
    /// With debug assertions, overflow checks and lock-order checks.
    Checked,
}

impl Image {
    /// The image's file.
    ///
    /// # Panics
    /// Where the environment does not name it.
    pub fn path(self) -> PathBuf {
        let variable = match self {
            Self::Fast => "ORRERY_IMAGE",
            Self::Checked => "ORRERY_IMAGE_CHECKED",
        };
        match std::env::var_os(variable).filter(|path| !path.is_empty()) {
            Some(path) => path.into(),
            None => panic!(
                "{variable} does not say where the image is; run these tests by \
                 `cargo xtask test guest`, or set it to the path that `cargo xtask build{}` prints",
                if self == Self::Checked { " --checked" } else { "" }
            ),
        }
    }
}

/// Where a guest program of this repository is, built.
///
/// # Panics
/// Where the environment does not say where they are.
pub fn program_path(name: &str) -> PathBuf {
    match std::env::var_os("ORRERY_PROGRAMS").filter(|path| !path.is_empty()) {
        Some(dir) => Path::new(&dir).join(name),
        None => panic!(
            "ORRERY_PROGRAMS does not say where the guest programs are; run these tests by \
             `cargo xtask test guest`"
        ),
    }
}

/// A run of the image that has not begun: one CPU on a q35, booted by PVH, tracing everything to
/// virtio-console, with the workload `mixed`.
#[derive(Clone, Debug)]
pub struct Guest {
    machine: Machine,
    image: Image,
    trace: String,
    mode: &'static str,
    job: Job,
    more_words: Vec<String>,
    bundle: Option<Bundle>,
    environment: Vec<String>,
    typed: Option<Vec<u8>>,
}

/// What the kernel does.
#[derive(Clone, Debug)]
enum Job {
    /// A workload, `name,key=value,…`.
    Workload(String),
    /// A program and its arguments.
    Program(Vec<String>),
}

impl Default for Guest {
    fn default() -> Self {
        Self::new()
    }
}

impl Guest {
    /// A run of the image as users run it.
    pub fn new() -> Self {
        let mut machine = Machine::new(PathBuf::new());
        machine.port = Port::Virtio;
        machine.timeout = Some(TIMEOUT);
        Self {
            machine,
            image: Image::Fast,
            trace: "all".into(),
            mode: "stream",
            job: Job::Workload("mixed".into()),
            more_words: Vec::new(),
            bundle: None,
            environment: ENVIRONMENT.map(str::to_owned).into(),
            typed: None,
        }
    }

    /// A run of the image with run-time checks.
    pub fn checked() -> Self {
        Self { image: Image::Checked, ..Self::new() }
    }

    /// Number of CPUs.
    pub fn smp(mut self, cpus: u32) -> Self {
        self.machine.cpus = cpus;
        self
    }

    /// The board.
    pub fn board(mut self, board: MachineType) -> Self {
        self.machine.machine_type = board;
        self
    }

    /// Memory, as in `256M`.
    ///
    /// # Panics
    /// Where that is no memory size.
    pub fn memory(mut self, size: &str) -> Self {
        self.machine.memory = size.parse::<Memory>().unwrap_or_else(|why| panic!("{why}"));
        self
    }

    /// Boots through Limine rather than by PVH.
    pub fn limine(mut self, boot: Boot, limine: Limine) -> Self {
        self.machine.boot = boot;
        self.machine.limine = Some(limine);
        self
    }

    /// Where the trace goes.
    pub fn port(mut self, port: Port) -> Self {
        self.machine.port = port;
        self
    }

    /// Counts instructions instead of time, and polls when idle: the run repeats to the bit. (Halted
    /// CPUs are woken through QEMU's main loop, and once in some dozens of runs that is a few
    /// instructions late.)
    pub fn icount(mut self) -> Self {
        self.machine.clock = Clock::Instructions;
        self.word("seed=1").word("idle=poll")
    }

    /// Trace categories.
    pub fn trace(mut self, categories: &str) -> Self {
        self.trace = categories.into();
        self
    }

    /// Keeps the newest records when a ring is full, rather than the oldest.
    pub fn snapshot(mut self) -> Self {
        self.mode = "snapshot";
        self
    }

    /// What the kernel does, `name,key=value,…`.
    pub fn workload(mut self, workload: &str) -> Self {
        self.job = Job::Workload(workload.into());
        self
    }

    /// Runs a program instead of a workload, with these arguments after its name: with a slash, a path in the bundle;
    /// without, a guest program of this repository, which is put at `/bin/NAME`.
    ///
    /// # Panics
    /// Where it cannot be read.
    pub fn program(mut self, name: &str, arguments: &[&str]) -> Self {
        let path = if name.contains('/') {
            name.to_owned()
        } else {
            let from = program_path(name);
            let data = std::fs::read(&from)
                .unwrap_or_else(|why| panic!("cannot read {}: {why}", from.display()));
            let path = format!("/bin/{name}");
            self = self.file(&path, 0o755, data);
            path
        };
        let arguments = arguments.iter().map(|&argument| argument.to_owned());
        self.job = Job::Program(std::iter::once(path).chain(arguments).collect());
        self
    }

    /// Adds a directory or a cpio archive of the host to what programs find.
    ///
    /// # Panics
    /// Where it cannot be read.
    pub fn bundle(mut self, path: impl AsRef<Path>) -> Self {
        let added = self.bundle_mut().add(path.as_ref());
        added.unwrap_or_else(|why| panic!("{why}"));
        self
    }

    /// Adds a file to what programs find.
    pub fn file(mut self, path: &str, permissions: u32, data: Vec<u8>) -> Self {
        self.bundle_mut().add_file(path, permissions, data);
        self
    }

    /// What the program reads from its standard input; nothing unless this is called.
    pub fn stdin(mut self, bytes: &[u8]) -> Self {
        self.bundle_mut().instruct_bytes("stdin", bytes.to_vec());
        self
    }

    /// What is sent to the program's standard input while it runs, as if typed or piped.
    pub fn live_stdin(mut self, bytes: &[u8]) -> Self {
        self.machine.input = Input::Live;
        self.typed = Some(bytes.to_vec());
        self
    }

    /// Exactly this environment for the program, `KEY=VALUE`; without it, a path, a home and a terminal's name.
    pub fn environment(mut self, strings: &[&str]) -> Self {
        self.environment = strings.iter().map(|&string| string.to_owned()).collect();
        self
    }

    fn bundle_mut(&mut self) -> &mut Bundle {
        self.bundle.get_or_insert_with(Bundle::for_programs)
    }

    /// One more word for the kernel's command line.
    pub fn word(mut self, word: &str) -> Self {
        self.more_words.push(word.into());
        self
    }

    /// Host time after which the run is stopped.
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.machine.timeout = Some(timeout);
        self
    }

    /// Boots the guest and follows it to its end.
    ///
    /// # Panics
    /// Where the machine cannot be run at all, or its stream is not of this image.
    pub fn run(mut self) -> Outcome {
        self.machine.kernel = self.image.path();
        self.machine.cmdline = self.command_line();
        let scratch = self.write_bundle();
        self.machine.bundle = scratch.as_ref().map(|scratch| scratch.path().to_owned());
        let elf = std::fs::read(&self.machine.kernel)
            .unwrap_or_else(|why| panic!("cannot read {}: {why}", self.machine.kernel.display()));
        let decoder = Schema::from_elf(&elf).and_then(Decoder::new);
        let decoder = decoder.unwrap_or_else(|why| panic!("the image's schema: {why}"));
        let _pass = Pass::wait();
        self.follow(decoder)
    }

    /// The bundle as a file, if there is one, which goes when it is dropped.
    fn write_bundle(&mut self) -> Option<tempfile::NamedTempFile> {
        if let Job::Program(words) = &self.job {
            let words = words.clone();
            let environment = std::mem::take(&mut self.environment);
            let bundle = self.bundle_mut();
            bundle.instruct("argv", words);
            bundle.instruct("env", environment);
        }
        let archive = self.bundle.as_ref()?.archive();
        let file = tempfile::NamedTempFile::new()
            .and_then(|file| std::fs::write(file.path(), archive).map(|()| file));
        Some(file.unwrap_or_else(|why| panic!("the bundle cannot be written: {why}")))
    }

    fn command_line(&self) -> String {
        let mut words = vec![
            format!("trace={}", self.trace),
            format!("trace_mode={}", self.mode),
            format!("trace_out={}", self.machine.port),
        ];
        words.extend(self.more_words.iter().cloned());
        if let Job::Workload(workload) = &self.job {
            words.push(format!("workload={workload}"));
        }
        words.join(" ")
    }

    fn follow(self, decoder: Decoder) -> Outcome {
        let port = self.machine.port;
        let mut recording =
            Writer::new(Vec::new(), &decoder.schema).unwrap_or_else(|why| panic!("{self}: {why}"));
        let mut session = Session::new(decoder);
        let mut builder = Builder::default();
        let mut com1 = Vec::new();
        let mut bytes_seen = 0;
        let started = Instant::now();
        let mut told = started;
        let mut handle = |item: Item<'_>| {
            if let Item::Packet(packet) = &item {
                // Into memory: cannot fail.
                let _ = recording.packet(packet);
            }
            builder.add(item);
        };
        let mut running = self.machine.start().unwrap_or_else(|why| panic!("{self}: {why}"));
        if let Some(mut input) = running.input() {
            let typed = self.typed.clone().unwrap_or_default();
            // Ends with the guest, which takes its end of the pipe with it.
            std::thread::spawn(move || input.write_all(&typed));
        }
        let status = running.follow(|from, bytes| -> machine::Result<()> {
            if from == Port::Com1 {
                com1.extend_from_slice(bytes);
            }
            if from == port {
                bytes_seen += bytes.len();
                if let Err(why) = session.push(bytes, &mut handle) {
                    panic!("{self}: {why}");
                }
            }
            if told.elapsed() >= PROGRESS {
                told = Instant::now();
                let (seconds, mb) = (started.elapsed().as_secs(), bytes_seen / 1_000_000);
                progress(&format!("{self}: {seconds} s, {mb} MB of trace"));
            }
            Ok(())
        });
        let status = status.unwrap_or_else(|why| panic!("{self}: {why}"));
        if let Err(why) = session.finish(&mut handle) {
            panic!("{self}: {why}");
        }
        let elapsed = started.elapsed();
        progress(&format!("{self}: {status:?} after {:.1} s", elapsed.as_secs_f32()));
        let trace = builder.finish(&session);
        let recording = recording.finish().unwrap_or_default();
        Outcome::new(self.to_string(), status, trace, recording, com1, running.stderr())
    }
}

impl fmt::Display for Guest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let machine = &self.machine;
        let clock = if machine.clock == Clock::Instructions { " icount" } else { "" };
        write!(
            f,
            "{} smp={} {} {} {}{clock} {}",
            machine.machine_type,
            machine.cpus,
            machine.memory,
            machine.boot,
            machine.port,
            match &self.job {
                Job::Workload(workload) => workload.clone(),
                Job::Program(words) => words.join(" "),
            }
        )
    }
}
