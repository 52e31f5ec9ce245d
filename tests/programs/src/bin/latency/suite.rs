//! What is asked for, and how a sample is told.

use std::fmt;
use std::io::{Cursor, Write};
use std::sync::atomic::{AtomicBool, Ordering};

use programs::{check, sys};

use crate::raw::ticks;

/// Rounds of a metric that are not told, in which pools are filled and pages touched.
pub const WARM_UP: u32 = 8;
/// Samples of a metric unless `--repeat` says otherwise, and most of them.
const REPEAT: (u32, u32) = (31, 101);
/// Priority of whoever measures, in the real-time class.
const PRIORITY: i32 = 10;

const MARKER: &std::ffi::CStr = c"/sys/kernel/tracing/trace_marker";
const USAGE: &str = "latency [--only PREFIX]... [--repeat N] [--idle auto|poll|halt] [--stdout]";

/// What is measured, and where.
pub struct Suite {
    only: Vec<String>,
    repeat: u32,
    /// What a CPU does that has been idle for a millisecond: `polling` or `halted`.
    pub long_idle: &'static str,
    /// The CPU on which everything is measured.
    pub here: usize,
    there: Option<usize>,
    output: i32,
    /// Whether [`Self::wants`] has said yes.
    has_wanted: AtomicBool,
}

/// One sample of a metric, in ticks of the time-stamp counter.
pub struct Sample<'a> {
    pub name: &'a str,
    pub start: u64,
    pub end: u64,
    pub ops: u32,
}

/// The line that tells it.
impl fmt::Display for Sample<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { name, start, end, ops } = self;
        write!(f, "region {name} {start} {end} {ops}")
    }
}

impl Suite {
    /// Reads the arguments, and moves this thread to the CPU and the class in which it measures.
    ///
    /// # Errors
    /// What is wrong with the arguments.
    pub fn new(arguments: &[String]) -> Result<Self, String> {
        let (mut only, mut repeat) = (Vec::new(), REPEAT.0);
        let (mut idle, mut to_stdout) = (None, false);
        let mut arguments = arguments.iter();
        while let Some(argument) = arguments.next() {
            let mut value =
                || arguments.next().ok_or_else(|| format!("no value behind {argument}; {USAGE}"));
            match argument.as_str() {
                "--only" => only.push(value()?.clone()),
                "--repeat" => repeat = repeats(value()?)?,
                "--idle" => idle = Some(value()?.clone()),
                "--stdout" => to_stdout = true,
                _ => return Err(format!("`{argument}` means nothing; {USAGE}")),
            }
        }
        let long_idle = long_idle(&idle.unwrap_or_else(booted_idle))?;
        let cpus = allowed_cpus();
        let here = *cpus.first().ok_or("there is no CPU to run on")?;
        pin(here);
        if !become_fifo(PRIORITY) {
            eprintln!("latency: the real-time class is refused: others' work is in the figures");
        }
        let marker = sys!(SYS_open, MARKER.as_ptr(), libc::O_WRONLY | libc::O_CLOEXEC, 0);
        let output = marker.ok().filter(|_| !to_stdout).map_or(1, |fd| fd as i32);
        let (there, has_wanted) = (cpus.get(1).copied(), AtomicBool::new(false));
        Ok(Self { only, repeat, long_idle, here, there, output, has_wanted })
    }

    /// Whether a metric is asked for.
    pub fn wants(&self, name: &str) -> bool {
        let wants = self.only.is_empty() || self.only.iter().any(|it| name.starts_with(it));
        self.has_wanted.fetch_or(wants, Ordering::Relaxed);
        wants
    }

    /// Says so if nothing of what there is was asked for.
    pub fn finish(&self) {
        if !self.has_wanted.load(Ordering::Relaxed) {
            let only = self.only.join(", ");
            eprintln!("latency: nothing is measured here whose name begins with {only}");
        }
    }

    /// The CPU that a metric needs besides [`Self::here`], if the metric is asked for; says that it is left
    /// out where there is no such CPU.
    pub fn there(&self, name: &str) -> Option<usize> {
        if !self.wants(name) {
            return None;
        }
        if self.there.is_none() {
            eprintln!("latency: {name} is left out: it needs two CPUs");
        }
        self.there
    }

    /// Rounds of a metric: [`WARM_UP`] of them, then one for each sample.
    pub fn rounds(&self) -> u32 {
        WARM_UP + self.repeat
    }

    /// Tells a sample, if it is asked for and not of the warm-up. Allocates nothing.
    pub fn tell(&self, round: u32, sample: &Sample<'_>) {
        if round < WARM_UP || !self.wants(sample.name) {
            return;
        }
        let mut line = Cursor::new([0u8; 160]);
        let told = writeln!(line, "{sample}").is_ok() && {
            let len = line.position();
            sys!(SYS_write, self.output, line.get_ref(), len) == Ok(len)
        };
        check!(told, "a sample of {} cannot be told", sample.name);
    }

    /// Measures work that is the same in every round, and holds so many operations of a metric.
    pub fn measure(&self, name: &str, ops: u32, mut work: impl FnMut()) {
        self.measure_between(name, ops, || (), |()| work());
    }

    /// As [`Self::measure`], with something before each round that is not part of the sample.
    pub fn measure_between<T>(
        &self,
        name: &str,
        ops: u32,
        mut prepare: impl FnMut() -> T,
        mut work: impl FnMut(T),
    ) {
        if !self.wants(name) {
            return;
        }
        for round in 0..self.rounds() {
            let prepared = prepare();
            let start = ticks();
            work(prepared);
            let end = ticks();
            self.tell(round, &Sample { name, start, end, ops });
        }
    }
}

fn repeats(text: &str) -> Result<u32, String> {
    let number = text.parse().ok().filter(|number| (1..=REPEAT.1).contains(number));
    number.ok_or_else(|| format!("--repeat is a number from 1 to {}, not `{text}`", REPEAT.1))
}

/// What a CPU that idles as the kernel's word `idle=` says does after a while.
fn long_idle(word: &str) -> Result<&'static str, String> {
    match word {
        "poll" => Ok("polling"),
        "halt" | "auto" => Ok("halted"),
        _ => Err(format!("--idle is auto, poll or halt, not `{word}`")),
    }
}

/// The word `idle=` of the kernel's command line, where it says one of ours.
fn booted_idle() -> String {
    let line = std::fs::read_to_string("/proc/cmdline").unwrap_or_default();
    let word = line.split_whitespace().filter_map(|word| word.strip_prefix("idle=")).next_back();
    word.filter(|word| long_idle(word).is_ok()).unwrap_or("auto").to_owned()
}

/// The CPUs that this thread may use.
fn allowed_cpus() -> Vec<usize> {
    let mut set = [0u64; 16];
    let bytes = sys!(SYS_sched_getaffinity, 0, size_of_val(&set), &mut set).unwrap_or(0);
    let bits = bytes as usize * 8;
    (0..bits).filter(|cpu| set[cpu / 64] >> (cpu % 64) & 1 == 1).collect()
}

/// Keeps the calling thread on this CPU.
pub fn pin(cpu: usize) {
    let mut set = [0u64; 16];
    set[cpu / 64] = 1 << (cpu % 64);
    let pinned = sys!(SYS_sched_setaffinity, 0, size_of_val(&set), &set);
    check!(pinned.is_ok(), "CPU {cpu} cannot be used: {pinned:?}");
}

/// Makes the calling thread one of the real-time class, first in first out, of this priority; whether that is
/// allowed.
pub fn become_fifo(priority: i32) -> bool {
    sys!(SYS_sched_setscheduler, 0, libc::SCHED_FIFO, &priority).is_ok()
}

/// Makes the calling thread one of the fair class.
pub fn become_fair() {
    let made = sys!(SYS_sched_setscheduler, 0, libc::SCHED_OTHER, &0);
    check!(made.is_ok(), "the fair class is refused: {made:?}");
}
