//! The kernel's command line: `key=value` words, as on Linux. `docs/command-line.md` lists them.

use core::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use orrery_core::pid::{PID_MAX_DEFAULT, PID_MAX_LIMIT};
use orrery_core::trace::ring::Mode;

use crate::drivers::virtio_console::MmioDevice;
use crate::mm::space::Pcids;
use crate::sched::idle;
use crate::sync::SpinLock;
use crate::trace::record;

/// What the command line asks for.
#[derive(Clone, Copy)]
pub struct Options {
    /// Trace categories, a bit each.
    pub trace_mask: u32,
    /// What a full ring does.
    pub trace_mode: Mode,
    /// Whether packets go to virtio-console rather than COM1.
    pub trace_to_virtio: bool,
    /// Whether event blocks are compacted.
    pub trace_compact: bool,
    /// Size of each CPU's ring, in KiB.
    pub trace_kib_per_cpu: u64,
    /// Shortest time with preemption or interrupts off that is reported, in microseconds.
    pub latency_threshold_us: u64,
    /// One above the largest PID in the root namespace.
    pub pid_limit: u32,
    /// What PCIDs are used for.
    pub pcid: Pcids,
    /// Whether parts of programs are put at random addresses.
    pub randomise_addresses: bool,
    /// The workload and its parameters, `name,key=value,…`.
    pub workload: &'static str,
    /// Whether programs' input arrives on COM2.
    pub stdin_from_com2: bool,
    /// Path of the program to run instead of a workload.
    pub init: Option<&'static str>,
    /// The program's arguments after its name: the words behind ` -- `, not taken apart.
    pub init_arguments: &'static str,
}

const DEFAULTS: Options = Options {
    trace_mask: u32::MAX,
    trace_mode: Mode::Stream,
    trace_to_virtio: false,
    trace_compact: true,
    trace_kib_per_cpu: 1024,
    latency_threshold_us: 1_000,
    pid_limit: PID_MAX_DEFAULT,
    pcid: Pcids::Auto,
    randomise_addresses: true,
    workload: "mixed",
    stdin_from_com2: false,
    init: None,
    init_arguments: "",
};

/// A word of the command line that means nothing, and why.
#[derive(Clone, Copy)]
pub struct Complaint {
    /// The word.
    pub word: &'static str,
    /// What would be right.
    pub expected: &'static str,
}

/// Most complaints that are kept.
const MAX_COMPLAINTS: usize = 8;

static OPTIONS: SpinLock<Options> = SpinLock::new("options", DEFAULTS);
static COMPLAINTS: SpinLock<[Option<Complaint>; MAX_COMPLAINTS]> =
    SpinLock::new("options", [None; MAX_COMPLAINTS]);
static SEED: AtomicU64 = AtomicU64::new(0);
static SEED_IS_GIVEN: AtomicBool = AtomicBool::new(false);

/// The options in force.
pub fn get() -> Options {
    *OPTIONS.lock()
}

/// The seed, if the command line has one.
pub fn given_seed() -> Option<u64> {
    SEED_IS_GIVEN.load(Ordering::Relaxed).then(seed)
}

/// The seed of all that is random, from `seed=`.
pub fn seed() -> u64 {
    SEED.load(Ordering::Relaxed)
}

/// What was wrong with the command line.
pub fn complaints() -> impl Iterator<Item = Complaint> {
    let complaints = *COMPLAINTS.lock();
    complaints.into_iter().flatten()
}

/// Reads the command line. What is wrong there is kept for [`complaints`]; the rest counts.
pub fn parse(line: &'static str) {
    let mut options = DEFAULTS;
    let mut complaints = [None; MAX_COMPLAINTS];
    let mut next = 0;
    let (ours, arguments) = split_arguments(line);
    options.init_arguments = arguments;
    for word in ours.split_ascii_whitespace() {
        if let Err(expected) = apply(&mut options, word)
            && let Some(slot) = complaints.get_mut(next)
        {
            *slot = Some(Complaint { word, expected });
            next += 1;
        }
    }
    *OPTIONS.lock() = options;
    *COMPLAINTS.lock() = complaints;
}

/// The kernel's words, and those behind the word `--`, which are the program's, as Linux has it.
fn split_arguments(line: &str) -> (&str, &str) {
    match line.split_once(" -- ") {
        Some(parts) => parts,
        None => (line.strip_suffix(" --").unwrap_or(line), ""),
    }
}

fn apply(options: &mut Options, word: &'static str) -> Result<(), &'static str> {
    // A word without a value is another program's flag, as Linux has it.
    let Some((key, value)) = word.split_once('=') else { return Ok(()) };
    let number = |expected| value.parse::<u64>().map_err(|_| expected);
    match key {
        "trace" => {
            options.trace_mask = record::parse_categories(value)
                .map_err(|_| "trace=all|off or a list of categories, see docs/command-line.md")?;
        }
        "trace_mode" => {
            options.trace_mode = match value {
                "stream" => Mode::Stream,
                "snapshot" => Mode::Snapshot,
                _ => return Err("trace_mode=stream|snapshot"),
            };
        }
        "trace_out" => {
            options.trace_to_virtio = match value {
                "com1" => false,
                "virtio" => true,
                _ => return Err("trace_out=com1|virtio"),
            };
        }
        "trace_compact" => {
            options.trace_compact = match value {
                "on" => true,
                "off" => false,
                _ => return Err("trace_compact=on|off"),
            };
        }
        "trace_buf" => {
            let kib = number("trace_buf=KiB per CPU, 8 to 262144")?;
            if !(8..=262_144).contains(&kib) {
                return Err("trace_buf=KiB per CPU, 8 to 262144");
            }
            options.trace_kib_per_cpu = kib;
        }
        "latency_us" => {
            let expected = "latency_us=microseconds, up to 60000000";
            options.latency_threshold_us =
                value.parse().ok().filter(|&us| us <= 60_000_000).ok_or(expected)?;
        }
        "pid_limit" => {
            // Fewer would not do for the kernel's own tasks and a workload.
            let expected = "pid_limit=one above the largest PID, 16 to 4194304";
            options.pid_limit = value
                .parse()
                .ok()
                .filter(|limit| (16..=PID_MAX_LIMIT).contains(limit))
                .ok_or(expected)?;
        }
        "idle" => idle::set_mode(match value {
            "auto" => idle::Mode::Auto,
            "poll" => idle::Mode::Poll,
            "halt" => idle::Mode::Halt,
            _ => return Err("idle=auto|poll|halt"),
        }),
        "seed" => {
            SEED.store(number("seed=a decimal number")?, Ordering::Relaxed);
            SEED_IS_GIVEN.store(true, Ordering::Relaxed);
        }
        "aslr" => {
            options.randomise_addresses = match value {
                "on" => true,
                "off" => false,
                _ => return Err("aslr=on|off"),
            };
        }
        "pcid" => {
            options.pcid = match value {
                "auto" => Pcids::Auto,
                "off" => Pcids::Off,
                "model" if cfg!(debug_assertions) => Pcids::Model,
                "model" => return Err("pcid=model in a checked image only"),
                _ => return Err("pcid=auto|off|model"),
            };
        }
        "workload" => options.workload = value,
        "stdin" => {
            options.stdin_from_com2 = match value {
                "com2" => true,
                "none" => false,
                _ => return Err("stdin=com2|none"),
            };
        }
        "init" => options.init = Some(value),
        // Linux's way to announce a device; the driver reads it itself.
        "virtio_mmio.device" => {
            MmioDevice::parse(value).ok_or("virtio_mmio.device=SIZE@ADDRESS:IRQ")?;
        }
        _ => return Err("a key of docs/command-line.md"),
    }
    Ok(())
}
