//! `cargo xtask run`: one machine, from build to report.
//!
//! Exit status: that of the program that was run (128 and the signal's number if one killed it); without a
//! program the guest's (0 fine, 1 its workload failed); 101 if the kernel panicked, 102 if the watchdog stopped it; beyond those
//! 124 when the time is up, 125 when QEMU cannot run the machine, 126 when the guest reset it, 130 at Ctrl-C.

use crate::{
    app::App,
    build::{self, Profile},
    program::{self, Program},
    project::{Failure, IMAGE_TARGET, Project},
    setup::{self, Need},
    watch::{Show, Subject, Summary, Watch},
};
use anyhow::{Context, Result};
use clap::ValueEnum;
use machine::{Accel, Boot, Clock, Input, Limine, Machine, MachineType, Memory, Port, Status};
use std::{
    ffi::OsString,
    io::Read,
    os::fd::AsFd,
    path::{Path, PathBuf},
    process::ExitCode,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};
use trace_tools::transport::{Cause, End};

const EXIT_TIMEOUT: u8 = 124;
const EXIT_QEMU: u8 = 125;
const EXIT_RESET: u8 = 126;
const EXIT_INTERRUPTED: u8 = 130;

/// Options of `cargo xtask run`.
#[derive(Debug, clap::Args)]
pub struct Options {
    /// Number of CPUs.
    #[arg(long, default_value_t = 4, value_parser = clap::value_parser!(u32).range(1..=255))]
    smp: u32,
    /// How the kernel is booted: auto, pvh, limine-bios, limine-uefi. `auto` is Limine where its files are found, else PVH.
    #[arg(long, default_value = "auto", value_name = "DOOR", value_parser = parse_door)]
    boot: Door,
    /// The board: q35, microvm.
    #[arg(long, default_value_t = MachineType::Q35, value_name = "TYPE")]
    machine: MachineType,
    /// Guest memory, such as 256M or 1G.
    #[arg(long, default_value_t = Memory::default(), value_name = "SIZE")]
    memory: Memory,
    /// Who executes the guest: tcg (any host), kvm.
    #[arg(long, default_value_t = Accel::Tcg, value_name = "ACCEL")]
    accel: Accel,
    /// What the kernel does, with the workload's own options.
    #[arg(long, value_name = "NAME[,KEY=VALUE...]", conflicts_with = "program")]
    workload: Option<String>,
    /// Directory of a crate to link into the image and run as the workload.
    #[arg(long, value_name = "CRATE_DIR", conflicts_with = "program")]
    app: Option<PathBuf>,
    /// Count instructions instead of time: slower, and every run repeats to the bit.
    #[arg(long)]
    icount: bool,
    /// Seed of everything random, in the kernel and in QEMU.
    #[arg(long, value_name = "N")]
    seed: Option<u64>,
    /// What an idle CPU does; `poll` is the default with --icount, being the one that repeats exactly, `auto` otherwise.
    #[arg(long, value_enum)]
    idle: Option<Idle>,
    /// Categories to trace, `all` or `off`.
    #[arg(long, default_value = "all", value_name = "CATEGORIES")]
    trace: String,
    /// `stream` drops new records when a ring is full, `snapshot` overwrites the oldest.
    #[arg(long, value_enum, default_value_t = TraceMode::Stream)]
    trace_mode: TraceMode,
    /// The port the trace leaves by: com1 or virtio.
    #[arg(long, default_value_t = Port::Virtio, value_name = "PORT")]
    trace_out: Port,
    /// Keep the recording in this file instead of target/orrery/last.orrec.
    #[arg(long, value_name = "FILE")]
    record: Option<PathBuf>,
    /// Show every event as it comes.
    #[arg(long)]
    events: bool,
    /// Host seconds after which the machine is stopped; 0 for never.
    #[arg(long, default_value_t = 120, value_name = "SECONDS")]
    timeout: u64,
    /// Run the build with debug assertions and lock-order checks.
    #[arg(long)]
    checked: bool,
    /// More words for the kernel's command line.
    #[arg(long, value_name = "WORDS", allow_hyphen_values = true)]
    append: Option<String>,
    /// Files for the program: a directory, or a cpio archive (newc). May be repeated; later ones replace files of
    /// earlier ones.
    #[arg(long, value_name = "DIR|FILE")]
    bundle: Vec<PathBuf>,
    /// Adds to the program's environment, or changes it.
    #[arg(long, value_name = "KEY=VALUE", requires = "program")]
    env: Vec<String>,
    /// What the program reads from its standard input, instead of this command's; nothing by default with --icount.
    #[arg(long, value_name = "FILE", requires = "program")]
    stdin: Option<PathBuf>,
    /// Only what the program writes: no text of the kernel's, no report.
    #[arg(short, long)]
    quiet: bool,
    /// The program to run, and its arguments: a path on this host, a path in the bundle, or the name of one of
    /// this repository's guest programs (`tests/programs`).
    #[arg(last = true, value_name = "PROGRAM [ARGS]...")]
    program: Vec<OsString>,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Idle {
    /// Polls.
    Poll,
    /// Halts.
    Halt,
    /// Polls briefly, then halts.
    Auto,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum TraceMode {
    Stream,
    Snapshot,
}

/// A door, or the choice among them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Door {
    Auto,
    Only(Boot),
}

fn parse_door(text: &str) -> Result<Door, String> {
    if text == "auto" {
        return Ok(Door::Auto);
    }
    let expected = "must be one of `auto` `pvh` `limine-bios` `limine-uefi`";
    text.parse().map(Door::Only).map_err(|_| expected.into())
}

/// Builds the image, runs it and reports.
///
/// # Errors
/// Everything that stops it before the guest has ended.
pub fn run(project: &Project, options: &Options) -> Result<ExitCode> {
    let app = options.app.as_deref().map(App::open).transpose()?;
    let scratch = tempfile::tempdir().context("cannot create a temporary directory")?;
    // The first build takes minutes; whoever waits for it is to see what for.
    let is_quiet = options.quiet && project.target_dir.join(IMAGE_TARGET).is_dir();
    let project = &Project { is_quiet, ..project.clone() };
    let mut machine = describe(project, options, app.as_ref(), scratch.path())?;
    let recording = match &options.record {
        Some(path) => path.clone(),
        None => project.out_dir()?.join("last.orrec"),
    };
    let show = match (options.events, options.quiet) {
        (true, _) => Show::Events,
        (false, true) => Show::Nothing,
        (false, false) => Show::Console,
    };
    let subject = if options.program.is_empty() { Subject::Kernel } else { Subject::Program };
    let mut watch = Watch::open(&machine.kernel, &recording, subject, show)?;
    machine.stop = Some(interrupt_flag()?);
    let mut running = machine.start()?;
    if let Some(mut input) = running.input() {
        // Ends with the input, with the machine, which takes its end of the pipe with it, or with this process.
        std::thread::spawn(move || std::io::copy(&mut std::io::stdin(), &mut input));
    }
    let status = running.follow(|port, bytes| watch.push(port, bytes))?;
    let summary = watch.finish()?;
    match subject {
        // A program's end speaks for itself.
        _ if options.quiet && summary.is_by_program() => {}
        _ if options.quiet => eprint!("{}", summary.console()),
        Subject::Kernel => summary.print(&mut std::io::stdout())?,
        Subject::Program => summary.print(&mut std::io::stderr())?,
    }
    if status == Status::Timeout
        && options.accel == Accel::Kvm
        && matches!(summary, Summary::Silent(_))
    {
        eprintln!(
            "error: nothing was heard from the guest; KVM may be unable to run it on this host. Try `--accel tcg`"
        );
    }
    Ok(ExitCode::from(exit_code(&status, summary.end(), options.timeout)))
}

/// Builds the image and runs it, for its status only.
///
/// # Errors
/// Everything that stops it before the guest has ended.
pub fn quietly(project: &Project, options: &Options) -> Result<Status> {
    let scratch = tempfile::tempdir().context("cannot create a temporary directory")?;
    let machine = describe(project, options, None, scratch.path())?;
    let mut running = machine.start()?;
    running.follow(|_, _| Ok::<(), anyhow::Error>(()))
}

/// Becomes true at Ctrl-C, and when the process is asked to end; what the guest said until then is still
/// reported.
///
/// # Errors
/// Where signals cannot be handled.
pub fn interrupt_flag() -> Result<Arc<AtomicBool>> {
    let flag = Arc::new(AtomicBool::new(false));
    let handler = flag.clone();
    ctrlc::set_handler(move || handler.store(true, Ordering::Relaxed))
        .context("cannot handle Ctrl-C")?;
    Ok(flag)
}

/// Names of the signals, by their numbers (signal(7), x86-64).
const SIGNALS: [&str; 32] = [
    "",
    "SIGHUP",
    "SIGINT",
    "SIGQUIT",
    "SIGILL",
    "SIGTRAP",
    "SIGABRT",
    "SIGBUS",
    "SIGFPE",
    "SIGKILL",
    "SIGUSR1",
    "SIGSEGV",
    "SIGUSR2",
    "SIGPIPE",
    "SIGALRM",
    "SIGTERM",
    "SIGSTKFLT",
    "SIGCHLD",
    "SIGCONT",
    "SIGSTOP",
    "SIGTSTP",
    "SIGTTIN",
    "SIGTTOU",
    "SIGURG",
    "SIGXCPU",
    "SIGXFSZ",
    "SIGVTALRM",
    "SIGPROF",
    "SIGWINCH",
    "SIGIO",
    "SIGPWR",
    "SIGSYS",
];

/// Tells how the machine ended where that is no program's own status, and gives the process's exit status.
/// The stream's `end` says the whole status and its cause; the machine passes on seven bits.
fn exit_code(status: &Status, end: Option<&End>, timeout_seconds: u64) -> u8 {
    match status {
        Status::Guest(0) => 0,
        Status::Guest(port) => {
            let told = end.filter(|end| end.status.min(127) == u32::from(*port));
            let status = told.map_or(*port, |end| end.status.min(255) as u8);
            let meaning = match (told.and_then(|end| end.cause), status) {
                (Some(Cause::Program), _) => return status,
                (Some(Cause::Signal), _) => {
                    let number = status.saturating_sub(128);
                    let name = SIGNALS.get(usize::from(number)).copied().unwrap_or_default();
                    eprintln!("the program was killed by signal {number} {name}");
                    return status;
                }
                (Some(Cause::Panic), _) | (None, 101) => " (the kernel panicked)",
                (Some(Cause::Watchdog), _) | (None, 102) => " (the watchdog stopped it)",
                (Some(Cause::Workload) | None, 1) => {
                    " (a workload failed, or something was left behind: see what the kernel wrote)"
                }
                (Some(Cause::Workload) | None, _) => "",
            };
            eprintln!("error: the guest ended with status {status}{meaning}");
            status
        }
        Status::Timeout => {
            eprintln!(
                "error: stopped after {timeout_seconds} s; give it longer with --timeout SECONDS"
            );
            EXIT_TIMEOUT
        }
        Status::Stopped => {
            eprintln!("interrupted");
            EXIT_INTERRUPTED
        }
        Status::Reset => {
            eprintln!("error: the guest reset the machine (a triple fault, most likely)");
            EXIT_RESET
        }
        Status::QemuFailed(text) => {
            eprintln!("error: {text}");
            EXIT_QEMU
        }
    }
}

/// The machine that the options ask for, with the image built and the bundle in the directory `scratch`.
fn describe(
    project: &Project,
    options: &Options,
    app: Option<&App>,
    scratch: &Path,
) -> Result<Machine> {
    let mut machine = Machine::new(PathBuf::new());
    machine.machine_type = options.machine;
    machine.cpus = options.smp;
    machine.memory = options.memory;
    machine.accel = options.accel;
    machine.clock = if options.icount { Clock::Instructions } else { Clock::Host };
    machine.seed = options.seed;
    if let Door::Only(boot) = options.boot {
        machine.boot = boot;
    }
    machine.cmdline = cmdline(options, app)?;
    machine.port = options.trace_out;
    let input = options.stdin.is_none() && !options.icount && !options.program.is_empty();
    machine.input = if input { Input::Live } else { Input::None };
    machine.timeout = (options.timeout > 0).then(|| Duration::from_secs(options.timeout));
    // Before anything is installed or built for it.
    machine.check_options()?;
    machine.bundle = write_bundle(project, options, scratch)?;
    (machine.boot, machine.limine) = choose_boot(options, || Limine::find(&project.target_dir))?;
    let mut needs = vec![Need::Qemu];
    match machine.boot {
        Boot::Pvh => {}
        Boot::LimineBios => needs.push(Need::Xorriso),
        Boot::LimineUefi => needs.extend([Need::Xorriso, Need::Ovmf]),
    }
    setup::ensure(&needs)?;
    machine.kernel = build::image(project, Profile::new(options.checked), app)?;
    Ok(machine)
}

/// Makes the bundle that the options ask for, if they do, as a file in `scratch`.
fn write_bundle(project: &Project, options: &Options, scratch: &Path) -> Result<Option<PathBuf>> {
    let bundle = match options.program.split_first() {
        Some((name, arguments)) => Program {
            name,
            arguments,
            bundles: &options.bundle,
            environment: &options.env,
            stdin: whole_input(options)?,
        }
        .bundle(project)?,
        None if options.bundle.is_empty() => return Ok(None),
        None => program::files(&options.bundle)?,
    };
    let archive = bundle.archive();
    program::check_size(&archive, options.memory)?;
    let path = scratch.join("bundle.cpio");
    std::fs::write(&path, archive).with_context(|| format!("cannot write {}", path.display()))?;
    Ok(Some(path))
}

/// All of the program's input, where it is there before the run: a file that was named, or one that is this process's
/// standard input.
fn whole_input(options: &Options) -> Result<Option<Vec<u8>>> {
    if let Some(path) = &options.stdin {
        return program::whole_file(path).map(Some);
    }
    let is_file = std::io::stdin()
        .as_fd()
        .try_clone_to_owned()
        .and_then(|stdin| std::fs::File::from(stdin).metadata())
        .is_ok_and(|meta| meta.is_file());
    if options.icount || !is_file {
        return Ok(None);
    }
    let mut bytes = Vec::new();
    std::io::stdin().read_to_end(&mut bytes).context("cannot read standard input")?;
    Ok(Some(bytes))
}

/// The door, and Limine's files where it needs them.
fn choose_boot(
    options: &Options,
    find: impl FnOnce() -> machine::Result<Limine>,
) -> Result<(Boot, Option<Limine>)> {
    match options.boot {
        Door::Only(Boot::Pvh) => Ok((Boot::Pvh, None)),
        Door::Only(boot) => Ok((boot, Some(find()?))),
        Door::Auto if options.machine == MachineType::Microvm => Ok((Boot::Pvh, None)),
        Door::Auto if options.icount => {
            if !options.quiet {
                eprintln!(
                    "boot: PVH, since a boot loader's run does not repeat to the instruction"
                );
            }
            Ok((Boot::Pvh, None))
        }
        Door::Auto => match find() {
            Ok(limine) => Ok((Boot::LimineBios, Some(limine))),
            Err(error @ machine::Error::LimineMissing { .. })
                if std::env::var_os("LIMINE_DIR").is_none() =>
            {
                if !options.quiet {
                    eprintln!("boot: PVH; {error}");
                }
                Ok((Boot::Pvh, None))
            }
            Err(error) => Err(error.into()),
        },
    }
}

/// The kernel's command line.
fn cmdline(options: &Options, app: Option<&App>) -> Result<String> {
    let mode = match options.trace_mode {
        TraceMode::Stream => "stream",
        TraceMode::Snapshot => "snapshot",
    };
    let mut words = vec![
        format!("trace={}", one_word("--trace", &options.trace)?),
        format!("trace_mode={mode}"),
        format!("trace_out={}", options.trace_out),
    ];
    if let Some(seed) = options.seed.or(options.icount.then_some(1)) {
        words.push(format!("seed={seed}"));
    }
    if options.icount {
        // A figure is then the same whatever the seed.
        words.push("aslr=off".into());
    }
    // A halt races with QEMU's main loop: about one run in thirty has a timer a few instructions late.
    // Polling costs a third more of the host's time and repeats exactly.
    match options.idle.or(options.icount.then_some(Idle::Poll)) {
        Some(Idle::Poll) => words.push("idle=poll".into()),
        Some(Idle::Halt) => words.push("idle=halt".into()),
        Some(Idle::Auto) => words.push("idle=auto".into()),
        None => {}
    }
    if options.program.is_empty() {
        let workload = options.workload.as_deref().or(app.map(|app| app.name.as_str()));
        words.push(format!("workload={}", one_word("--workload", workload.unwrap_or("mixed"))?));
    }
    words.extend(options.append.clone());
    Ok(words.join(" "))
}

fn one_word<'a>(option: &str, text: &'a str) -> Result<&'a str> {
    if text.is_empty() || text.contains(char::is_whitespace) {
        return Err(Failure::usage(format!(
            "{option} `{text}`: must be one word without spaces; parts are separated by commas"
        )));
    }
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser;

    #[derive(Debug, Parser)]
    struct Cli {
        #[command(flatten)]
        options: Options,
    }

    fn options(line: &str) -> Options {
        Cli::parse_from(std::iter::once("run").chain(line.split_whitespace())).options
    }

    fn missing() -> machine::Result<Limine> {
        Err(machine::Error::LimineMissing { looked_in: vec![] })
    }

    #[test]
    fn the_default_command_line() {
        assert_eq!(
            cmdline(&options(""), None).unwrap(),
            "trace=all trace_mode=stream trace_out=virtio workload=mixed"
        );
    }

    #[test]
    fn options_reach_the_command_line() {
        let given = options(
            "--trace sched,-irq --trace-mode snapshot --trace-out com1 --seed 9 --idle halt \
             --workload storm,tasks=9 --append trace_buf=64",
        );
        assert_eq!(
            cmdline(&given, None).unwrap(),
            "trace=sched,-irq trace_mode=snapshot trace_out=com1 seed=9 idle=halt \
             workload=storm,tasks=9 trace_buf=64"
        );
        assert_eq!(
            cmdline(&options("--icount"), None).unwrap(),
            "trace=all trace_mode=stream trace_out=virtio seed=1 aslr=off idle=poll workload=mixed"
        );
        let mut given = options("");
        given.workload = Some("storm trace=off".into());
        assert!(cmdline(&given, None).unwrap_err().to_string().contains("--workload"));
    }

    #[test]
    fn a_program_takes_the_place_of_the_workload() {
        let given = options("--smp 2 --env A=b -- ./prog -x --smp");
        assert_eq!(given.program, ["./prog", "-x", "--smp"]);
        assert!(!cmdline(&given, None).unwrap().contains("workload"));
        for line in ["--workload idle -- x", "--env A=b", "--stdin x"] {
            let words = std::iter::once("run").chain(line.split_whitespace());
            assert!(Cli::try_parse_from(words).is_err(), "{line}");
        }
    }

    #[test]
    fn what_makes_no_sense_is_refused() {
        for line in ["--smp 0", "--smp 256", "--boot floppy", "--memory 1T", "--machine isapc"] {
            let words = std::iter::once("run").chain(line.split_whitespace());
            assert!(Cli::try_parse_from(words).is_err(), "{line}");
        }
    }

    #[test]
    fn auto_is_pvh_where_limine_cannot_be() {
        assert_eq!(choose_boot(&options("--icount"), || panic!()).unwrap().0, Boot::Pvh);
        assert_eq!(choose_boot(&options("--machine microvm"), || panic!()).unwrap().0, Boot::Pvh);
        assert!(choose_boot(&options("--boot limine-bios"), missing).is_err());
        let broken =
            || Err(machine::Error::LimineBroken { dir: "/x".into(), missing: vec!["BOOTX64.EFI"] });
        assert!(choose_boot(&options(""), broken).is_err());
    }

    #[test]
    fn exit_codes_are_passed_on() {
        assert_eq!(exit_code(&Status::Guest(101), None, 1), 101);
        assert_eq!(exit_code(&Status::Timeout, None, 1), EXIT_TIMEOUT);
        assert_eq!(exit_code(&Status::Reset, None, 1), EXIT_RESET);
        assert_eq!(exit_code(&Status::QemuFailed(String::new()), None, 1), EXIT_QEMU);
        let end = |status, cause| End { status, cause: Some(cause), cpus: vec![] };
        let code = |port, end: End| exit_code(&Status::Guest(port), Some(&end), 1);
        assert_eq!(code(127, end(255, Cause::Program)), 255);
        assert_eq!(code(127, end(139, Cause::Signal)), 139);
        assert_eq!(code(101, end(101, Cause::Program)), 101);
        // The port has the last word where the two differ: the kernel died while it ended.
        assert_eq!(code(101, end(3, Cause::Program)), 101);
    }
}
