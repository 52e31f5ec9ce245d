//! The packets that are text: hello, panic and end, as `key=value` lines.
//!
//! `docs/trace-format.md` lists the keys. Unknown keys are ignored, so that a newer kernel may say
//! more; a missing or malformed key that a reader cannot do without is an error.

use orrery_core::trace::wire::{OLDEST_VERSION, VERSION};
use serde::{Deserialize, Serialize};

/// How the kernel's rings treat a reader that is too slow.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Mode {
    /// A full ring drops new records.
    Stream,
    /// A full ring overwrites its oldest block.
    Snapshot,
}

impl Mode {
    /// The word for it on the wire.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Stream => "stream",
            Self::Snapshot => "snapshot",
        }
    }
}

/// Who speaks: the payload of a `hello` packet.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Hello {
    /// Version of the format.
    pub version: u32,
    /// GNU build id of the kernel, lower-case hex.
    pub build_id: String,
    /// CRC seed of all other packets.
    pub nonce: u32,
    /// Ticks of the trace clock in a second; at least 1.
    pub tick_hz: u64,
    /// CPUs running.
    pub cpus: u32,
    /// What a full ring does.
    pub mode: Mode,
    /// The kernel's command line.
    pub cmdline: String,
}

/// A fatal error of the kernel: the payload of a `panic` packet.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Panic {
    /// What happened.
    pub message: String,
    /// CPU it happened on.
    pub cpu: Option<u32>,
    /// Task that ran.
    pub pid: Option<u32>,
    /// That task's name.
    pub task: Option<String>,
    /// `file:line:column` of a Rust panic.
    pub location: Option<String>,
    /// Return addresses, innermost first.
    pub frames: Vec<u64>,
    /// `name=value` of a CPU exception's registers.
    pub registers: Vec<String>,
    /// Spinlocks the CPU held, as `name file:line`.
    pub locks: Vec<String>,
}

/// What one CPU says it produced.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct EndCpu {
    /// The CPU.
    pub cpu: u16,
    /// Records put in the ring or dropped.
    pub produced: u64,
    /// Those of them that were dropped.
    pub dropped: u64,
}

/// What decided a run's exit status.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Cause {
    /// A workload ended, or left something behind.
    Workload,
    /// The first program exited; the status is its own.
    Program,
    /// A signal killed the first program; the status is 128 and the signal's number.
    Signal,
    /// The kernel panicked.
    Panic,
    /// The watchdog stopped the machine.
    Watchdog,
}

/// The payload of the `end` packet.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct End {
    /// Exit status the guest asked for.
    pub status: u32,
    /// What decided it; `None` where the kernel did not say, as in version 1.
    pub cause: Option<Cause>,
    /// What each CPU produced.
    pub cpus: Vec<EndCpu>,
}

/// The `key=value` pairs of a payload; lines without `=` are skipped.
fn pairs(text: &str) -> impl Iterator<Item = (&str, &str)> {
    text.lines().filter_map(|line| line.split_once('='))
}

fn text(payload: &[u8]) -> Result<&str, String> {
    std::str::from_utf8(payload).map_err(|error| format!("text packet is not UTF-8: {error}"))
}

fn number<T: std::str::FromStr>(key: &str, value: &str) -> Result<T, String> {
    value.parse().map_err(|_| format!("`{key}={value}`: not a number in range"))
}

impl Hello {
    /// Reads the payload of a hello packet.
    ///
    /// # Errors
    /// Says which key is missing or malformed, or that the version is not this program's.
    pub fn parse(payload: &[u8]) -> Result<Self, String> {
        let (mut version, mut build_id, mut nonce) = (None, None, None);
        let (mut tick_hz, mut cpus, mut mode) = (None, None, None);
        let mut cmdline = String::new();
        for (key, value) in pairs(text(payload)?) {
            match key {
                "version" => version = Some(number(key, value)?),
                "build_id" => build_id = Some(value.to_owned()),
                "nonce" => nonce = Some(number(key, value)?),
                "tick_hz" => tick_hz = Some(number(key, value)?),
                "cpus" => cpus = Some(number(key, value)?),
                "mode" => {
                    mode = Some(match value {
                        "stream" => Mode::Stream,
                        "snapshot" => Mode::Snapshot,
                        other => return Err(format!("`mode={other}`: unknown mode")),
                    });
                }
                "cmdline" => cmdline = value.to_owned(),
                _ => {}
            }
        }
        let missing = |key: &str| format!("hello packet without `{key}=`");
        let version = version.ok_or_else(|| missing("version"))?;
        if !(OLDEST_VERSION..=VERSION).contains(&version) {
            return Err(format!(
                "the stream has format version {version}, this program reads versions \
                 {OLDEST_VERSION} to {VERSION}"
            ));
        }
        let tick_hz = tick_hz.ok_or_else(|| missing("tick_hz"))?;
        if tick_hz == 0 {
            return Err("hello packet with `tick_hz=0`".to_owned());
        }
        Ok(Self {
            version,
            build_id: build_id.ok_or_else(|| missing("build_id"))?,
            nonce: nonce.ok_or_else(|| missing("nonce"))?,
            tick_hz,
            cpus: cpus.ok_or_else(|| missing("cpus"))?,
            mode: mode.ok_or_else(|| missing("mode"))?,
            cmdline,
        })
    }
}

impl Panic {
    /// Reads the payload of a panic packet. A panic is worth showing however malformed it is, so
    /// what cannot be read is left out.
    pub fn parse(payload: &[u8]) -> Self {
        let mut panic = Self::default();
        for (key, value) in pairs(&String::from_utf8_lossy(payload)) {
            match key {
                "message" => panic.message = value.to_owned(),
                "cpu" => panic.cpu = value.parse().ok(),
                "pid" => panic.pid = value.parse().ok(),
                "task" => panic.task = Some(value.to_owned()),
                "location" => panic.location = Some(value.to_owned()),
                "frame" => panic.frames.extend(hex(value)),
                "register" => panic.registers.push(value.to_owned()),
                "lock" => panic.locks.push(value.to_owned()),
                _ => {}
            }
        }
        panic
    }
}

fn hex(value: &str) -> Option<u64> {
    u64::from_str_radix(value.strip_prefix("0x")?, 16).ok()
}

impl End {
    /// Reads the payload of an end packet.
    ///
    /// # Errors
    /// Says which key is missing or malformed.
    pub fn parse(payload: &[u8]) -> Result<Self, String> {
        let (mut status, mut cause) = (None, None);
        let mut cpus = Vec::new();
        for (key, value) in pairs(text(payload)?) {
            match key {
                "status" => status = Some(number(key, value)?),
                "cause" => {
                    cause = match value {
                        "workload" => Some(Cause::Workload),
                        "program" => Some(Cause::Program),
                        "signal" => Some(Cause::Signal),
                        "panic" => Some(Cause::Panic),
                        "watchdog" => Some(Cause::Watchdog),
                        _ => None,
                    };
                }
                "cpu" => cpus.push(end_cpu(value)?),
                _ => {}
            }
        }
        Ok(Self { status: status.ok_or("end packet without `status=`")?, cause, cpus })
    }
}

/// `N produced=P dropped=D`
fn end_cpu(value: &str) -> Result<EndCpu, String> {
    let mut words = value.split(' ');
    let cpu = number("cpu", words.next().unwrap_or_default())?;
    let (mut produced, mut dropped) = (None, None);
    for word in words {
        match word.split_once('=') {
            Some(("produced", n)) => produced = Some(number("produced", n)?),
            Some(("dropped", n)) => dropped = Some(number("dropped", n)?),
            _ => {}
        }
    }
    match (produced, dropped) {
        (Some(produced), Some(dropped)) => Ok(EndCpu { cpu, produced, dropped }),
        _ => Err(format!("`cpu={value}`: produced= and dropped= are wanted")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HELLO: &str = "version=1\nbuild_id=ab12\nnonce=7\ntick_hz=1000\ncpus=4\nmode=snapshot\n\
                         future=x\ncmdline=workload=mixed,a=b seed=1\n";

    #[test]
    fn hello_keeps_a_command_line_with_equals_signs() {
        let hello = Hello::parse(HELLO.as_bytes()).unwrap();
        assert_eq!(hello.cmdline, "workload=mixed,a=b seed=1");
        assert_eq!((hello.nonce, hello.cpus, hello.mode), (7, 4, Mode::Snapshot));
    }

    #[test]
    fn a_hello_without_a_key_says_which() {
        for key in ["version", "build_id", "nonce", "tick_hz", "cpus", "mode"] {
            let short: String =
                HELLO.lines().filter(|l| !l.starts_with(key)).map(|l| format!("{l}\n")).collect();
            assert!(Hello::parse(short.as_bytes()).unwrap_err().contains(key), "{key}");
        }
    }

    #[test]
    fn another_version_is_refused() {
        let newer = HELLO.replace("version=1", "version=3");
        assert!(Hello::parse(newer.as_bytes()).unwrap_err().contains("version 3"));
    }

    #[test]
    fn panic_collects_repeated_keys() {
        let panic = Panic::parse(
            b"message=oh: a=b\ncpu=1\npid=x\nframe=0xffff\nframe=nonsense\nframe=0x10\n\
              register=rip=0x1\nlock=rq sched.rs:3\n",
        );
        assert_eq!(panic.message, "oh: a=b");
        assert_eq!(panic.frames, [0xffff, 0x10]);
        assert_eq!((panic.cpu, panic.pid), (Some(1), None));
        assert_eq!(panic.registers, ["rip=0x1"]);
        assert_eq!(panic.locks, ["rq sched.rs:3"]);
    }

    #[test]
    fn end_reads_every_cpu() {
        let end =
            End::parse(b"status=0\ncpu=0 produced=10 dropped=2\ncpu=1 produced=3 dropped=0\n")
                .unwrap();
        assert_eq!(end.cpus[0], EndCpu { cpu: 0, produced: 10, dropped: 2 });
        assert_eq!(end.cpus.len(), 2);
        assert!(End::parse(b"cpu=0 produced=1 dropped=0").unwrap_err().contains("status"));
        assert!(End::parse(b"status=0\ncpu=0 produced=1").unwrap_err().contains("dropped"));
    }
}
