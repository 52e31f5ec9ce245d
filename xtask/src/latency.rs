//! `cargo xtask latency`: the gate. Builds what is to be measured, and has the library `latency` measure, compare and
//! report it.
//!
//! Exit status: 0 no regression, 1 something failed, 2 wrong usage, 3 a regression, 4 nothing that was asked for is
//! measured.

use crate::{
    build::{self, Profile},
    program::Program,
    programs,
    project::{Failure, Project},
    revision::{Revision, answer, git},
    run::interrupt_flag,
    setup::{self, Need},
};
use anyhow::{Context, Result};
use latency::{
    baseline::{Baseline, Baselines, Key},
    boot::Subject,
    compare::{Base, Breakdown, Comparison},
    figure::{Figures, Precision},
    limits::Limits,
    measure::{self, Plan},
    report::{self, Report},
    suite::{self, Boot, Choice},
};
use machine::Bundle;
use sha2::{Digest, Sha256};
use std::{
    ffi::OsString,
    path::{Path, PathBuf},
    process::{Command, ExitCode},
};

/// A regression.
pub const EXIT_REGRESSION: u8 = 3;
const EXIT_NOTHING: u8 = 4;

/// Boots of each noisy kind where there is something to compare them with: fewer could not be significant, see
/// `latency/limits.toml`.
const BOOTS_COMPARED: u32 = 10;
/// Boots of each noisy kind where they are only reported.
const BOOTS_REPORTED: u32 = 2;
/// Regressions whose paths are taken apart.
const BREAKDOWNS: usize = 3;

/// Files of the gate, from the top of the repository.
const SUITE: &str = "latency/suite.toml";
const LIMITS: &str = "latency/limits.toml";
const BASELINE: &str = "latency/baseline.toml";

/// Options of `cargo xtask latency`.
#[derive(Debug, clap::Args)]
pub struct Options {
    /// Build this revision, too, and compare with it, instead of the committed baseline.
    #[arg(long, value_name = "REV")]
    against: Option<String>,
    /// Compare with this image, which is built already.
    #[arg(long, value_name = "ELF", conflicts_with = "against")]
    against_image: Option<PathBuf>,
    /// Measure this image, instead of building this tree's.
    #[arg(long, value_name = "ELF")]
    image: Option<PathBuf>,
    /// Only metrics whose names begin so, as `fork`, `wake@smp2`, or `exec@` for those without a mark; may be repeated.
    #[arg(long, value_name = "PREFIX[@MARK]")]
    only: Vec<String>,
    /// How often each noisy boot is repeated; 10 where there is another build to compare with, else 2.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(0..=100))]
    boots: Option<u32>,
    /// Measure the regions that this program marks, instead of the suite; `-- ARGS` are its arguments.
    #[arg(long, value_name = "PROGRAM")]
    program: Option<OsString>,
    /// Files for the program: a directory, or a cpio archive (newc); may be repeated.
    #[arg(long, value_name = "DIR|FILE", requires = "program")]
    bundle: Vec<PathBuf>,
    /// The baseline's file, instead of the suite's.
    #[arg(long, value_name = "FILE", conflicts_with_all = ["against", "against_image"])]
    baseline: Option<PathBuf>,
    /// Make the figures the baseline.
    #[arg(long, conflicts_with_all = ["against", "against_image", "only", "image"])]
    accept: bool,
    /// Write the comparison as JSON.
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// Write the comparison as JUnit XML.
    #[arg(long, value_name = "FILE")]
    junit: Option<PathBuf>,
    /// Write the comparison as Markdown.
    #[arg(long, value_name = "FILE")]
    markdown: Option<PathBuf>,
    /// The program's arguments.
    #[arg(last = true, value_name = "ARGS", requires = "program")]
    arguments: Vec<OsString>,
}

/// Measures, compares, reports.
///
/// # Errors
/// Whatever keeps it from a verdict.
pub fn latency(project: &Project, options: &Options) -> Result<ExitCode> {
    setup::ensure(&[Need::Qemu])?;
    let gate = Gate::open(project, options)?;
    if options.accept {
        return gate.accept(options);
    }
    let base = gate.base(options)?;
    let only: Vec<Choice> = options.only.iter().map(|text| Choice::new(text)).collect();
    let default_boots = if base.image().is_some() { BOOTS_COMPARED } else { BOOTS_REPORTED };
    let boots = options.boots.unwrap_or(default_boots);
    let plan = Plan { suite: &gate.suite, only: &only, boots };
    let (before, now) = gate.measure(&plan, base.image())?;
    if now.is_empty() {
        eprintln!("error: nothing that was measured is called {}", options.only.join(" or "));
        return Ok(ExitCode::from(EXIT_NOTHING));
    }
    let accepted = base.accepted(&only);
    let compared_with = match (&before, &accepted) {
        (Some(figures), _) => Base::Measured(figures),
        (None, Some(baseline)) => Base::Accepted(baseline),
        (None, None) => Base::Nothing,
    };
    let mut comparison = Comparison::of(compared_with, &now, &gate.limits);
    gate.break_down(&mut comparison, &base)?;
    let report = Report { base: base.name(), now: gate.name(options), key: gate.key, comparison };
    write(&report, options)?;
    print!("{}", report::text(&report));
    let failed = !report.comparison.regressions().is_empty();
    Ok(if failed { ExitCode::from(EXIT_REGRESSION) } else { ExitCode::SUCCESS })
}

/// What the measured figures are compared with.
enum Against {
    /// An image, measured in the same run.
    Image { name: String, image: PathBuf },
    /// Accepted figures.
    Baseline { file: PathBuf, baseline: Baseline },
    /// Nothing.
    Nothing,
}

impl Against {
    fn image(&self) -> Option<&Path> {
        match self {
            Self::Image { image, .. } => Some(image),
            Self::Baseline { .. } | Self::Nothing => None,
        }
    }

    fn name(&self) -> String {
        match self {
            Self::Image { name, .. } => name.clone(),
            Self::Baseline { file, .. } => file.display().to_string(),
            Self::Nothing => "none".into(),
        }
    }

    /// The accepted figures, of what was chosen.
    fn accepted(&self, only: &[Choice]) -> Option<Baseline> {
        let Self::Baseline { baseline, .. } = self else { return None };
        let is_wanted = |metric: &String| {
            only.is_empty() || only.iter().any(|choice| choice.includes_metric(metric))
        };
        let mut baseline = baseline.clone();
        baseline.exact.retain(|metric, _| is_wanted(metric));
        baseline.quantised.retain(|metric, _| is_wanted(metric));
        Some(baseline)
    }
}

/// Everything that a measurement needs.
struct Gate<'a> {
    project: &'a Project,
    suite: Vec<Boot>,
    limits: Limits,
    subject: Subject,
    baseline: PathBuf,
    key: Key,
    compiler: String,
}

impl<'a> Gate<'a> {
    fn open(project: &'a Project, options: &Options) -> Result<Self> {
        let limits = Limits::read(&project.root.join(LIMITS))?;
        let (suite, bundle, baseline) = match &options.program {
            None => {
                let suite = suite::read(&project.root.join(SUITE))?;
                let program = programs::build_one(project, "latency")?;
                let program = program.context("no guest program `latency` in this repository")?;
                let mut bundle = Bundle::for_programs();
                let data = std::fs::read(&program)
                    .with_context(|| format!("cannot read {}", program.display()))?;
                bundle.add_file("/bin/latency", 0o755, data);
                (suite, bundle, project.root.join(BASELINE))
            }
            Some(name) => {
                let program = Program {
                    name,
                    arguments: &options.arguments,
                    bundles: &options.bundle,
                    environment: &[],
                    stdin: None,
                };
                let suite = vec![Boot::of_bundled(&name.to_string_lossy())];
                (suite, program.bundle(project)?, PathBuf::new())
            }
        };
        let baseline = options.baseline.clone().unwrap_or(baseline);
        if options.accept && baseline.as_os_str().is_empty() {
            return Err(Failure::usage(
                "--accept with --program needs a file for the figures: --baseline FILE",
            ));
        }
        let image = match &options.image {
            Some(image) => image.clone(),
            None => build::image(project, Profile::Image, None)?,
        };
        let compiler = answer(Command::new("rustc").arg("--version").current_dir(&project.root))?;
        let subject = Subject { image, bundle, stop: Some(interrupt_flag()?) };
        let key = key(project, &compiler)?;
        Ok(Self { project, suite, limits, subject, baseline, key, compiler })
    }

    /// What to compare with. Where there is no baseline for this compiler, QEMU and so on, the revision at which the one
    /// there is was accepted takes its place: it is built and measured here.
    fn base(&self, options: &Options) -> Result<Against> {
        if let Some(image) = &options.against_image {
            return Ok(Against::Image { name: image.display().to_string(), image: image.clone() });
        }
        if let Some(name) = &options.against {
            let revision = Revision::parse(self.project, name)
                .map_err(|error| Failure::usage(format!("--against: {error}")))?;
            let image = revision.image(self.project, &self.compiler)?;
            let name = format!("{name} ({})", revision.short());
            return Ok(Against::Image { name, image });
        }
        if self.baseline.as_os_str().is_empty() {
            return Ok(Against::Nothing);
        }
        let baselines = Baselines::read(&self.baseline)?;
        if let Some(baseline) = baselines.find(&self.key) {
            let file = self.shown_baseline();
            return Ok(Against::Baseline { file, baseline: baseline.clone() });
        }
        let Some(difference) = baselines.difference(&self.key) else {
            eprintln!(
                "warning: no baseline in {}; accept these figures with --accept",
                self.baseline.display()
            );
            return Ok(Against::Nothing);
        };
        eprintln!("no baseline for this set-up ({difference})");
        let revision = Revision::of_last_change(self.project, &self.baseline)?;
        let Some(revision) = revision else {
            return Err(Failure::usage(
                "the baseline's revision is not known to git either; compare with another by --against REV, or \
                 accept these figures with --accept",
            ));
        };
        let image = revision.image(self.project, &self.compiler)?;
        Ok(Against::Image { name: format!("{}, built here", revision.short()), image })
    }

    fn shown_baseline(&self) -> PathBuf {
        let path = self.baseline.strip_prefix(&self.project.root).unwrap_or(&self.baseline);
        path.to_owned()
    }

    /// The figures of the image to compare with, if there is one, and of the subject.
    fn measure(&self, plan: &Plan<'_>, base: Option<&Path>) -> Result<(Option<Figures>, Figures)> {
        let subjects = 1 + u64::from(base.is_some());
        let boots = plan.boot_count() * subjects;
        let mut boot = 0;
        let progress = |name: &str| {
            boot += 1;
            eprintln!("boot {boot} of {boots}: {name}");
        };
        let missed = |error: &latency::Error| eprintln!("warning: not compared: {error}");
        match base {
            None => {
                let [now] = measure::measure(plan, [&self.subject], progress, missed)?;
                Ok((None, now))
            }
            Some(image) => {
                let base = self.with_image(image);
                let [before, now] =
                    measure::measure(plan, [&base, &self.subject], progress, missed)?;
                Ok((Some(before), now))
            }
        }
    }

    fn with_image(&self, image: &Path) -> Subject {
        Subject { image: image.into(), ..self.subject.clone() }
    }

    /// Takes apart the paths of the worst regressions. The baseline's build is made again for it.
    fn break_down(&self, comparison: &mut Comparison, base: &Against) -> Result<()> {
        let worst: Vec<String> = comparison
            .regressions()
            .iter()
            .filter(|row| row.precision != Precision::Noisy && row.now_ticks.is_some())
            .filter(|row| row.growth().is_some_and(|growth| growth > 0.0))
            .take(BREAKDOWNS)
            .map(|row| row.metric.clone())
            .collect();
        if worst.is_empty() {
            return Ok(());
        }
        let image = match base {
            Against::Image { image, .. } => Some(image.clone()),
            Against::Baseline { .. } => {
                match Revision::of_last_change(self.project, &self.baseline)? {
                    Some(revision) => Some(revision.image(self.project, &self.compiler)?),
                    None => None,
                }
            }
            Against::Nothing => None,
        };
        let Some(image) = image else { return Ok(()) };
        let base = self.with_image(&image);
        for metric in worst {
            eprintln!("taking apart {metric}");
            let before = measure::path(&self.suite, &metric, &base)?;
            let now = measure::path(&self.suite, &metric, &self.subject)?;
            let row = comparison.rows.iter_mut().find(|row| row.metric == metric);
            if let (Some(before), Some(now), Some(row)) = (before, now, row) {
                row.breakdown = Some(Breakdown::of(&before, &now));
            }
        }
        Ok(())
    }

    /// Measures what a baseline holds, and makes it the baseline.
    fn accept(&self, options: &Options) -> Result<ExitCode> {
        let plan = Plan { suite: &self.suite, only: &[], boots: 0 };
        let (_, now) = self.measure(&plan, None)?;
        let mut baselines = Baselines::read(&self.baseline)?;
        let old = baselines.find(&self.key).cloned();
        let base = old.as_ref().map_or(Base::Nothing, Base::Accepted);
        let comparison = Comparison::of(base, &now, &self.limits);
        baselines.accept(Baseline::of(self.key.clone(), &now));
        baselines.write(&self.baseline)?;
        let name = self.shown_baseline().display().to_string();
        let base = format!("{name}, as it was");
        let report = Report { base, now: self.name(options), key: self.key.clone(), comparison };
        write(&report, options)?;
        print!("{}", report::text(&report));
        eprintln!("accepted: {name}");
        Ok(ExitCode::SUCCESS)
    }

    /// What is measured.
    fn name(&self, options: &Options) -> String {
        match &options.image {
            Some(image) => image.display().to_string(),
            None => {
                let mut git = git(&self.project.root);
                let described = answer(git.args(["describe", "--always", "--dirty"]));
                described.map_or("this tree".into(), |name| format!("this tree ({name})"))
            }
        }
    }
}

/// What figures hold for, here.
fn key(project: &Project, compiler: &str) -> Result<Key> {
    let qemu = answer(Command::new(machine::QEMU).arg("--version"))?;
    let version = qemu.split_whitespace().nth(3).unwrap_or(&qemu).to_owned();
    // Each crate of the image with its version and features; where this repository's own lie does not matter.
    let mut cargo =
        project.cargo(["tree", "--quiet", "--package", "orrery", "--edges", "normal,build"]);
    cargo.args([
        "--target",
        crate::project::IMAGE_TARGET,
        "--prefix",
        "none",
        "--format",
        "{p} {f}",
    ]);
    let tree = answer(&mut cargo)?;
    let root = project.root.display().to_string();
    let mut crates: Vec<String> = tree.lines().map(|line| line.replace(&root, "")).collect();
    crates.sort();
    crates.dedup();
    Ok(Key {
        compiler: compiler.to_owned(),
        qemu: version,
        cpu: short_hash(machine::CPU_MODEL),
        crates: short_hash(&crates.join("\n")),
    })
}

/// As much of a text's hash as tells it apart.
fn short_hash(text: &str) -> String {
    Sha256::digest(text).iter().take(6).map(|byte| format!("{byte:02x}")).collect()
}

fn write(report: &Report, options: &Options) -> Result<()> {
    let write = |path: &Option<PathBuf>, text: &dyn Fn() -> Result<String>| match path {
        Some(path) => std::fs::write(path, text()?)
            .with_context(|| format!("cannot write {}", path.display())),
        None => Ok(()),
    };
    write(&options.json, &|| Ok(serde_json::to_string_pretty(report)? + "\n"))?;
    write(&options.junit, &|| Ok(report::junit(report)?))?;
    write(&options.markdown, &|| Ok(report::markdown(report)))
}
