//! A machine that runs: its process, its output and its end.
//!
//! QEMU gets a directory of its own (removed with [`Running`]) with a file per port, which are read as
//! they grow. `isa-debug-exit` makes QEMU exit with `2 * v + 1` for the guest's status `v`; everything
//! else is told apart by the exit code and standard error:
//!
//! | exit code | standard error | meaning |
//! |---|---|---|
//! | 1 | an error, and no output from the guest | QEMU could not start the machine |
//! | odd | | the guest's status |
//! | 0 | | reset or power-off: a triple fault, since `-no-reboot` is given, or the end of Linux |
//! | other, or a signal | | QEMU failed |

use crate::{
    Accel, Boot, Error, Input, Machine, Payload, Port, Result, find_program,
    firmware::Firmware,
    media,
    qemu::{Files, QEMU},
};
use orrery_core::input;
use std::{
    fs::File,
    io::{self, Read, Write},
    os::unix::process::{CommandExt, ExitStatusExt},
    path::{Path, PathBuf},
    process::{Child, ChildStdin, Command, ExitStatus, Stdio},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

/// Names of the ports' files in the run's directory.
pub(crate) const COM1_FILE: &str = "com1";
pub(crate) const VIRTIO_FILE: &str = "virtio";
const STDERR_FILE: &str = "stderr";

/// How often the process and its files are looked at.
const POLL: Duration = Duration::from_millis(10);
/// Most bytes read from a port at once, so that a flood on one port does not hold up the rest.
const READ_LEN_BYTES: u64 = 4 << 20;

/// How a machine ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Status {
    /// The guest wrote this status, 0..=127, to the exit port.
    Guest(u8),
    /// The guest reset the machine or powered it off. Orrery ends by writing a status, so there this is in practice a
    /// triple fault; Linux ends so.
    Reset,
    /// The machine ran longer than it was allowed to and was stopped.
    Timeout,
    /// [`Machine::stop`] became true.
    Stopped,
    /// QEMU could not run the machine; what it said.
    QemuFailed(String),
}

/// What a machine did, from start to end.
#[derive(Clone, Debug)]
pub struct Finished {
    /// How it ended.
    pub status: Status,
    /// All that was written to COM1.
    pub com1: Vec<u8>,
    /// All that was written to the virtio-console; empty where there is none.
    pub virtio: Vec<u8>,
    /// What QEMU wrote to standard error.
    pub stderr: String,
    /// Host time from the start of QEMU to its end.
    pub elapsed: Duration,
}

/// A machine that runs. Dropping it stops it.
#[derive(Debug)]
pub struct Running {
    child: Child,
    accel: Accel,
    com1: Tail,
    virtio: Option<Tail>,
    started: Instant,
    deadline: Option<Instant>,
    stop: Option<Arc<AtomicBool>>,
    status: Option<Status>,
    input: Option<InputWriter>,
    dir: tempfile::TempDir,
}

/// Where the input of a machine with [`Input::Live`] is written; its drop is the input's end.
#[derive(Debug)]
pub struct InputWriter(ChildStdin);

impl Write for InputWriter {
    /// Sends all of `bytes`.
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let mut frames = Vec::with_capacity(bytes.len() + bytes.len() / 255 + 1);
        input::encode(bytes, |part| frames.extend_from_slice(part));
        self.0.write_all(&frames)?;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.0.flush()
    }
}

impl Drop for InputWriter {
    fn drop(&mut self) {
        // The guest may have ended, which is no matter then.
        let _ = self.0.write_all(&input::END);
    }
}

impl Machine {
    /// Builds the boot media and starts QEMU. The machine ends with the thread that starts it, at the
    /// latest.
    ///
    /// # Errors
    /// Whatever [`Machine::check`] finds, and what is missing on the host. That QEMU itself refuses the machine shows as
    /// [`Status::QemuFailed`].
    pub fn start(&self) -> Result<Running> {
        self.check()?;
        if find_program(QEMU).is_none() {
            return Err(Error::MissingProgram { program: QEMU, package: "qemu-system-x86" });
        }
        if self.accel == Accel::Kvm {
            check_kvm()?;
        }
        let dir = tempfile::Builder::new()
            .prefix("orrery-")
            .tempdir()
            .map_err(Error::io("create a temporary directory"))?;
        let iso = match self.boot {
            Boot::Pvh => None,
            Boot::LimineBios | Boot::LimineUefi => Some(self.iso(dir.path())?),
        };
        let firmware = match self.boot {
            Boot::LimineUefi => Some(Firmware::prepare(dir.path())?),
            Boot::Pvh | Boot::LimineBios => None,
        };
        let files = Files { run_dir: dir.path(), iso: iso.as_deref(), firmware: firmware.as_ref() };
        let stderr_path = dir.path().join(STDERR_FILE);
        let stderr = File::create(&stderr_path)
            .map_err(Error::io(format!("create {}", stderr_path.display())))?;
        let started = Instant::now();
        let mut command = Command::new(QEMU);
        command
            .args(self.arguments(&files))
            .stdin(if self.input == Input::Live { Stdio::piped() } else { Stdio::null() })
            .stdout(Stdio::null())
            .stderr(stderr)
            // Ctrl-C in the terminal is for the caller, who stops the machine when it is ready.
            .process_group(0);
        die_with_parent(&mut command);
        let mut child = command.spawn().map_err(Error::io(format!("run {QEMU}")))?;
        let input = child.stdin.take().map(|mut pipe| {
            // Where QEMU ends at once, its end is what is reported.
            let _ = pipe.write_all(&input::PREAMBLE);
            InputWriter(pipe)
        });
        Ok(Running {
            child,
            accel: self.accel,
            com1: Tail::new(dir.path().join(COM1_FILE)),
            virtio: (self.port == Port::Virtio).then(|| Tail::new(dir.path().join(VIRTIO_FILE))),
            started,
            deadline: self.timeout.map(|timeout| started + timeout),
            stop: self.stop.clone(),
            status: None,
            input,
            dir,
        })
    }

    fn iso(&self, run_dir: &Path) -> Result<PathBuf> {
        let limine = self.limine.as_ref().ok_or_else(|| {
            Error::Combination(format!("boot by `{}` needs a Limine directory", self.boot))
        })?;
        let iso = media::iso_path(run_dir);
        let cmdline = self.full_cmdline();
        let payload =
            Payload { kernel: &self.kernel, cmdline: &cmdline, bundle: self.bundle.as_deref() };
        media::write_iso(limine, payload, run_dir, &iso)?;
        Ok(iso)
    }
}

impl Running {
    /// Bytes that came through `port` since the last call, at most a few MiB; empty when there are none
    /// (yet), or when the machine has no such port.
    ///
    /// # Errors
    /// [`Error::Io`] where the port's file cannot be read.
    pub fn read_output(&mut self, port: Port) -> Result<Vec<u8>> {
        let tail = match port {
            Port::Com1 => Some(&mut self.com1),
            Port::Virtio => self.virtio.as_mut(),
        };
        tail.map_or(Ok(Vec::new()), Tail::read)
    }

    /// Where its input is written, for a machine with [`Input::Live`]; the first time only.
    pub fn input(&mut self) -> Option<InputWriter> {
        self.input.take()
    }

    /// Whether the machine has ended, and how. Stops it once its time is up.
    ///
    /// # Errors
    /// [`Error::Io`] where the process cannot be asked.
    pub fn poll_status(&mut self) -> Result<Option<Status>> {
        if self.status.is_none() {
            if let Some(exit) = self.child.try_wait().map_err(Error::io("wait for QEMU"))? {
                self.status = Some(self.judge(exit));
            } else if self.deadline.is_some_and(|deadline| Instant::now() >= deadline) {
                self.kill();
                self.status = Some(Status::Timeout);
            } else if self.stop.as_ref().is_some_and(|stop| stop.load(Ordering::Relaxed)) {
                self.kill();
                self.status = Some(Status::Stopped);
            } else if self.accel == Accel::Kvm && self.stderr().contains("KVM internal error") {
                // QEMU stops such a machine and waits for a debugger that nobody attached.
                self.kill();
                self.status = Some(Status::QemuFailed(self.kvm_failure()));
            }
        }
        Ok(self.status.clone())
    }

    /// Runs the machine to its end and hands its output to `sink` as it comes. The machine is stopped and the sink's answer
    /// returned as soon as that is an error.
    ///
    /// # Errors
    /// What the sink returns, and [`Error::Io`] where output or process cannot be read.
    pub fn follow<E: From<Error>>(
        &mut self,
        mut sink: impl FnMut(Port, &[u8]) -> std::result::Result<(), E>,
    ) -> std::result::Result<Status, E> {
        loop {
            // The status first: what was written before the end is then read after it.
            let status = self.poll_status()?;
            let mut idle = true;
            for port in [Port::Com1, Port::Virtio] {
                let bytes = self.read_output(port)?;
                if !bytes.is_empty() {
                    idle = false;
                    sink(port, &bytes)?;
                }
            }
            match status {
                Some(status) if idle => return Ok(status),
                None if idle => std::thread::sleep(POLL),
                _ => {}
            }
        }
    }

    /// Runs the machine to its end and collects everything.
    ///
    /// # Errors
    /// [`Error::Io`] where output or process cannot be read.
    pub fn finish(mut self) -> Result<Finished> {
        let (mut com1, mut virtio) = (Vec::new(), Vec::new());
        let status = self.follow(|port, bytes| {
            match port {
                Port::Com1 => com1.extend_from_slice(bytes),
                Port::Virtio => virtio.extend_from_slice(bytes),
            }
            Ok::<(), Error>(())
        })?;
        let elapsed = self.started.elapsed();
        Ok(Finished { status, com1, virtio, stderr: self.stderr(), elapsed })
    }

    /// Stops the machine now. Its output so far can still be read.
    pub fn kill(&mut self) {
        // Fails only for a process that has already ended, which is what is wanted.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }

    /// QEMU's process id, for those who measure it from outside.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// What QEMU has written to standard error so far.
    pub fn stderr(&self) -> String {
        let bytes = std::fs::read(self.dir.path().join(STDERR_FILE)).unwrap_or_default();
        String::from_utf8_lossy(&bytes).into_owned()
    }

    fn judge(&self, exit: ExitStatus) -> Status {
        let silent = [Some(&self.com1), self.virtio.as_ref()]
            .into_iter()
            .flatten()
            .all(|tail| tail.path.metadata().map_or(true, |meta| meta.len() == 0));
        let status = judge(exit, &self.stderr(), silent);
        match status {
            Status::QemuFailed(_) if self.accel == Accel::Kvm => {
                Status::QemuFailed(self.kvm_failure())
            }
            status => status,
        }
    }

    fn kvm_failure(&self) -> String {
        Error::Kvm(format!("QEMU says:\n{}", self.stderr().trim())).to_string()
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if self.status.is_none() {
            self.kill();
        }
    }
}

/// The table in the module's header.
fn judge(exit: ExitStatus, stderr: &str, silent: bool) -> Status {
    let failed = |what: String| {
        let said = stderr.trim();
        Status::QemuFailed(if said.is_empty() { what } else { format!("{what}:\n{said}") })
    };
    let complained = || {
        let prefix = format!("{QEMU}: ");
        stderr
            .lines()
            .filter_map(|line| line.strip_prefix(&prefix))
            .any(|line| !line.starts_with("warning:") && !line.starts_with("info:"))
    };
    match exit.code() {
        Some(1) if silent && complained() => failed("QEMU could not start the machine".into()),
        Some(0) => Status::Reset,
        Some(code) => match u8::try_from(code) {
            Ok(code) if code & 1 == 1 => Status::Guest(code >> 1),
            _ => failed(format!("QEMU ended with exit code {code}")),
        },
        None => failed(format!("QEMU was ended by signal {}", exit.signal().unwrap_or(0))),
    }
}

/// Has the kernel end the process when the thread that starts it ends, however that comes about: an emulator
/// that nobody watches would run for ever (`prctl(2)`, `PR_SET_PDEATHSIG`).
fn die_with_parent(command: &mut Command) {
    let set = || {
        rustix::process::set_parent_process_death_signal(Some(rustix::process::Signal::KILL))?;
        Ok(())
    };
    // SAFETY: between fork and exec only async-signal-safe calls are allowed; this closure makes one
    // system call and neither allocates nor locks.
    unsafe { command.pre_exec(set) };
}

/// Whether KVM can be opened at all. That it runs the guest shows only later.
fn check_kvm() -> Result<()> {
    match File::options().read(true).write(true).open("/dev/kvm") {
        Ok(_) => Ok(()),
        Err(error) => Err(Error::Kvm(format!("cannot open /dev/kvm: {error}"))),
    }
}

/// A file that grows, and how far it was read.
#[derive(Debug)]
struct Tail {
    path: PathBuf,
    file: Option<File>,
}

impl Tail {
    fn new(path: PathBuf) -> Self {
        Self { path, file: None }
    }

    fn read(&mut self) -> Result<Vec<u8>> {
        let reading = || Error::io(format!("read {}", self.path.display()));
        let mut bytes = Vec::new();
        if self.file.is_none() {
            match File::open(&self.path) {
                Ok(file) => self.file = Some(file),
                // QEMU creates it a moment after its start.
                Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(bytes),
                Err(error) => return Err(reading()(error)),
            }
        }
        if let Some(file) = &self.file {
            file.take(READ_LEN_BYTES).read_to_end(&mut bytes).map_err(reading())?;
        }
        Ok(bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const REFUSAL: &str = "qemu-system-x86_64: -smp 300: Invalid SMP CPUs 300\n";

    fn exit(code: i32) -> ExitStatus {
        ExitStatus::from_raw(code << 8)
    }

    #[test]
    fn exit_codes() {
        assert_eq!(judge(exit(1), "", true), Status::Guest(0));
        assert_eq!(judge(exit(3), "", false), Status::Guest(1));
        assert_eq!(judge(exit(203), "", false), Status::Guest(101));
        assert_eq!(judge(exit(255), "", false), Status::Guest(127));
        assert_eq!(judge(exit(0), "", false), Status::Reset);
    }

    #[test]
    fn qemu_failures_are_not_guest_statuses() {
        let Status::QemuFailed(text) = judge(exit(1), REFUSAL, true) else { panic!() };
        assert!(text.contains("Invalid SMP CPUs 300"));
        // Once the guest has spoken, the machine had started.
        assert_eq!(judge(exit(1), REFUSAL, false), Status::Guest(0));
        let warning = "qemu-system-x86_64: warning: something is old\n";
        assert_eq!(judge(exit(1), warning, true), Status::Guest(0));
        assert!(matches!(judge(exit(2), "", false), Status::QemuFailed(_)));
        let Status::QemuFailed(text) = judge(ExitStatus::from_raw(6), "", false) else { panic!() };
        assert_eq!(text, "QEMU was ended by signal 6");
    }

    proptest! {
        #[test]
        fn every_status_survives(status in 0u8..=127) {
            prop_assert_eq!(judge(exit(i32::from(status) * 2 + 1), "", false), Status::Guest(status));
        }
    }

    #[test]
    fn a_tail_sees_each_byte_once() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("port");
        let mut tail = Tail::new(path.clone());
        assert!(tail.read().unwrap().is_empty());
        let mut file = File::create(&path).unwrap();
        assert!(tail.read().unwrap().is_empty());
        file.write_all(b"one").unwrap();
        assert_eq!(tail.read().unwrap(), b"one");
        file.write_all(b"two").unwrap();
        assert_eq!(tail.read().unwrap(), b"two");
        assert!(tail.read().unwrap().is_empty());
    }
}
