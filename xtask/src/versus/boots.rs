//! Boots Linux and Orrery on the same virtual machine, with the same program, and collects what it prints.

use crate::{
    build::{self, Profile},
    program::Program,
    programs,
    project::Project,
    setup::{self, Need},
};
use anyhow::{Context, Result, bail};
use machine::{Bundle, Clock, Finished, Guest, Machine, QEMU, Status};
use std::{
    ffi::OsStr,
    fs,
    path::{Path, PathBuf},
    process::Command,
    time::{Duration, Instant},
};
use trace_tools::{Decoder, Item, Schema, Session, Stream};

use super::{
    figures::{self, Record, System},
    targets::{Boot, Mode, Targets},
};

/// The benchmark, linked with musl.
const PROGRAM: &str = "lbench-musl";
/// How long the host is watched before a boot whose figures are times.
const WATCH: Duration = Duration::from_secs(1);

/// A boot of one kernel, to be made.
#[derive(Clone, Debug)]
pub struct Plan<'a> {
    /// Its name in the list.
    pub name: &'a str,
    /// What is asked for.
    pub boot: &'a Boot,
    /// Number of CPUs, the boot's own where it is not a sweep.
    pub cpus: u32,
    /// Whose kernel.
    pub system: System,
    /// Groups of lbench.
    pub groups: Vec<&'a str>,
}

/// Everything that boots need, built.
pub struct Bench<'a> {
    project: &'a Project,
    targets: &'a Targets,
    linux: PathBuf,
    orrery: PathBuf,
    decoder: Decoder,
    program: Vec<u8>,
    timeout: Duration,
    /// What the guests print is kept here.
    logs: &'a Path,
}

impl<'a> Bench<'a> {
    /// Builds Orrery and the program.
    ///
    /// # Errors
    /// Where that fails, or something is missing that cannot be installed.
    pub fn new(
        project: &'a Project,
        targets: &'a Targets,
        linux: PathBuf,
        logs: &'a Path,
        timeout: Duration,
    ) -> Result<Self> {
        setup::ensure(&[Need::Qemu])?;
        let orrery = build::image(project, Profile::Image, None)?;
        let image =
            fs::read(&orrery).with_context(|| format!("cannot read {}", orrery.display()))?;
        let decoder = Decoder::new(Schema::from_elf(&image)?)?;
        let path = programs::build_one(project, PROGRAM)?
            .with_context(|| format!("tests/programs has no `{PROGRAM}`"))?;
        let program = fs::read(&path).with_context(|| format!("cannot read {}", path.display()))?;
        fs::create_dir_all(logs).with_context(|| format!("cannot create {}", logs.display()))?;
        Ok(Self { project, targets, linux, orrery, decoder, program, timeout, logs })
    }

    /// Makes one boot, the `number`th of its kind.
    ///
    /// # Errors
    /// Where the machine cannot be run, or the program did not do all it should; what it said is in a file then.
    pub fn boot(&self, plan: &Plan<'_>, number: usize) -> Result<Record> {
        let &Plan { name, boot, cpus, system, ref groups } = plan;
        let scratch = tempfile::tempdir().context("cannot create a temporary directory")?;
        let machine = self.machine(plan, scratch.path())?;
        let others_busy = match boot.mode {
            Mode::Icount => None,
            Mode::Mttcg => others_busy(WATCH),
        };
        let finished = machine.start()?.finish()?;
        let text = match system {
            System::Linux => String::from_utf8_lossy(&finished.com1).into_owned(),
            System::Orrery => self.output(&finished)?,
        };
        let log = self.logs.join(format!("{name}-{}-smp{cpus}.{number}.txt", system.key()));
        fs::write(&log, &text).with_context(|| format!("cannot write {}", log.display()))?;
        let ended = match (system, &finished.status) {
            (System::Linux, Status::Reset) | (System::Orrery, Status::Guest(0)) => None,
            (_, Status::Timeout) => Some("stopped; give it longer with --timeout".to_owned()),
            (_, status) => Some(format!("{status:?}")),
        };
        if let Some(why) = ended.or_else(|| figures::failure(&text)) {
            let groups = groups.join(",");
            bail!("{system}, boot `{name}`, groups {groups}: {why}; see {}", log.display());
        }
        let figures = figures::parse(&text);
        let (boot, cmdline) = (name.to_owned(), machine.full_cmdline());
        Ok(Record { boot, system, cpus, cmdline, others_busy, figures })
    }

    fn machine(&self, plan: &Plan<'_>, scratch: &Path) -> Result<Machine> {
        let only = format!("lbench_only={}", plan.groups.join(","));
        let cmdline = self.targets.cmdline(plan.system, plan.boot);
        let cmdline = cmdline.with_context(|| format!("{} has no boot", plan.system))?;
        let (guest, kernel, cmdline, bundle) = match plan.system {
            System::Linux => {
                (Guest::Linux, &self.linux, format!("{cmdline} {only}"), self.initramfs())
            }
            System::Orrery => (Guest::Orrery, &self.orrery, cmdline, self.bundle(only)?),
        };
        let path = scratch.join("bundle.cpio");
        fs::write(&path, bundle.archive())
            .with_context(|| format!("cannot write {}", path.display()))?;
        Ok(Machine {
            guest,
            cmdline,
            bundle: Some(path),
            ..self.line(plan.boot, plan.cpus, kernel)
        })
    }

    /// The machine itself, which is the same for both.
    fn line(&self, boot: &Boot, cpus: u32, kernel: &Path) -> Machine {
        Machine {
            cpus,
            memory: boot.memory,
            clock: match boot.mode {
                Mode::Icount => Clock::Instructions,
                Mode::Mttcg => Clock::Host,
            },
            timeout: Some(self.timeout),
            ..Machine::new(kernel)
        }
    }

    /// QEMU's command line for a boot, with words in capitals for what differs.
    pub fn shown_line(&self, boot: &Boot) -> String {
        let (cmdline, bundle) = ("WORDS".to_owned(), Some("FILES".into()));
        Machine { cmdline, bundle, ..self.line(boot, boot.cpus, Path::new("KERNEL")) }.shown()
    }

    /// The program as the first of Linux's processes; it mounts file systems on these directories.
    fn initramfs(&self) -> Bundle {
        let mut bundle = Bundle::new();
        for dir in ["dev", "proc", "sys", "t"] {
            bundle.add_directory(dir, 0o755);
        }
        bundle.add_file("init", 0o755, self.program.clone());
        bundle
    }

    fn bundle(&self, only: String) -> Result<Bundle> {
        let program = Program {
            name: OsStr::new(PROGRAM),
            arguments: &[],
            bundles: &[],
            environment: &[only],
            stdin: None,
        };
        program.bundle(self.project)
    }

    /// What the program wrote, from the packets on Orrery's port.
    fn output(&self, finished: &Finished) -> Result<String> {
        let mut session = Session::new(self.decoder.clone());
        let mut text = Vec::new();
        let mut panic = None;
        let mut sink = |item: Item<'_>| match item {
            Item::Output { stream: Stream::Out, bytes, .. } => text.extend_from_slice(bytes),
            Item::Panic(said) => panic = Some(format!("{said:?}")),
            _ => {}
        };
        session.push(&finished.com1, &mut sink)?;
        session.finish(&mut sink)?;
        match panic {
            Some(said) => bail!("the kernel panicked: {said}"),
            None => Ok(String::from_utf8_lossy(&text).into_owned()),
        }
    }
}

/// The version of the emulator.
pub fn qemu_version() -> String {
    let output = Command::new(QEMU).arg("--version").output();
    let text = output.map(|output| String::from_utf8_lossy(&output.stdout).into_owned());
    let text = text.unwrap_or_default();
    let words = text.lines().next().unwrap_or_default().split(' ');
    words.skip_while(|&word| word != "version").nth(1).unwrap_or("unknown").to_owned()
}

/// How many CPUs of the host are busy while this process waits; `None` where the host does not tell.
fn others_busy(time: Duration) -> Option<f64> {
    /// Ticks of `/proc/stat` in a second: USER_HZ, which is part of Linux's ABI on x86.
    const HZ: f64 = 100.0;
    let busy = || busy_ticks(&fs::read_to_string("/proc/stat").ok()?);
    let (begun, before) = (Instant::now(), busy()?);
    std::thread::sleep(time);
    Some(busy()?.saturating_sub(before) as f64 / HZ / begun.elapsed().as_secs_f64())
}

/// Ticks in which any CPU worked: user, nice, system, irq, softirq, steal (proc(5)).
fn busy_ticks(stat: &str) -> Option<u64> {
    let all = stat.lines().next()?.strip_prefix("cpu ")?;
    let ticks: Vec<u64> = all.split_whitespace().map_while(|word| word.parse().ok()).collect();
    ticks.get(..8).map(|it| it[0] + it[1] + it[2] + it[5] + it[6] + it[7])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn busy_time_is_all_but_idle() {
        assert_eq!(busy_ticks("cpu  1 2 3 1000 2000 4 5 6 7 8\ncpu0 1"), Some(21));
        assert_eq!(busy_ticks("cpu  1 2"), None);
        assert_eq!(busy_ticks(""), None);
    }
}
