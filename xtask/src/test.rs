//! `cargo xtask test`: every test there is, and one line that adds them up.
//!
//! What a test program prints passes through as it comes. Its verdict is read from libtest's
//! `test result:` lines. A test that cannot run on this host says so by writing a line
//! `SKIPPED name: reason` to standard output, past libtest's capture (`std::io::stdout()`, not
//! `println!`), and returns; it is counted as skipped, not as passed.

use crate::{
    build::{self, Profile},
    programs,
    project::{IMAGE_TARGET, Project, display},
    setup,
};
use anyhow::{Context, Result};
use std::{
    fmt,
    io::{BufRead, BufReader},
    process::{Command, ExitCode, Stdio},
    time::Instant,
};

/// One part of the whole.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Step {
    Format,
    LintHost,
    LintKernel,
    LintPrograms,
    Host,
    Loom,
    Images,
    Guest,
}

const STEPS: [Step; 8] = [
    Step::Format,
    Step::LintHost,
    Step::LintKernel,
    Step::LintPrograms,
    Step::Host,
    Step::Loom,
    Step::Images,
    Step::Guest,
];

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Format => "fmt",
            Self::LintHost => "clippy-host",
            Self::LintKernel => "clippy-kernel",
            Self::LintPrograms => "clippy-programs",
            Self::Host => "host",
            Self::Loom => "loom",
            Self::Images => "images",
            Self::Guest => "guest",
        })
    }
}

/// Which steps run, and which of their tests.
#[derive(Debug, PartialEq, Eq)]
struct Selection {
    steps: Vec<Step>,
    test_names: Option<String>,
}

impl Selection {
    /// No filter is everything. The name of a step is that step; any other word selects tests by their
    /// names, and leaves out the steps that have no named tests.
    fn new(filter: Option<&str>) -> Self {
        let Some(filter) = filter else { return Self { steps: STEPS.into(), test_names: None } };
        if let Some(&step) = STEPS.iter().find(|step| step.to_string() == filter) {
            return Self { steps: vec![step], test_names: None };
        }
        Self { steps: vec![Step::Host, Step::Guest], test_names: Some(filter.into()) }
    }
}

/// What became of the tests so far.
#[derive(Debug, Default, PartialEq, Eq)]
struct Tally {
    /// Tests that came to a good end, the withdrawn ones included.
    ended_well: u64,
    /// Tests among them that only said why they cannot run.
    withdrawn: u64,
    failed: Vec<String>,
    skipped: Vec<String>,
}

/// Runs everything, or what the filter leaves of it: a step's name, or part of tests' names.
///
/// # Errors
/// Where a command cannot be run at all. That tests fail is no error but exit status 1.
pub fn test(project: &Project, filter: Option<&str>) -> Result<ExitCode> {
    setup::ensure(&setup::ALL)?;
    let selection = Selection::new(filter);
    let started = Instant::now();
    let mut tally = Tally::default();
    for (number, &step) in selection.steps.iter().enumerate() {
        println!("\n==> {}/{} {step}", number + 1, selection.steps.len());
        let step_started = Instant::now();
        run_step(project, step, selection.test_names.as_deref(), &mut tally)?;
        println!("<== {step}: {} s", step_started.elapsed().as_secs());
    }
    println!();
    for name in &tally.skipped {
        println!("skipped: {name}");
    }
    for name in &tally.failed {
        println!("FAILED: {name}");
    }
    println!("{tally} in {} s", started.elapsed().as_secs());
    if tally.passed() == 0 && tally.failed.is_empty() {
        eprintln!("error: no test matches `{}`", filter.unwrap_or_default());
        return Ok(ExitCode::FAILURE);
    }
    Ok(if tally.failed.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn run_step(project: &Project, step: Step, names: Option<&str>, tally: &mut Tally) -> Result<()> {
    match step {
        Step::Format => {
            check(step, &mut project.cargo(["fmt", "--all", "--check"]), tally)?;
            for package in ["tests/programs", "examples/hello-app"] {
                let mut cargo = project.cargo(["fmt", "--check", "--manifest-path"]);
                check(step, cargo.arg(project.root.join(package).join("Cargo.toml")), tally)?;
            }
            Ok(())
        }
        Step::LintHost => {
            let mut cargo = project.cargo(["clippy", "--quiet", "--all-targets"]);
            check(step, cargo.args(["--", "-D", "warnings"]), tally)
        }
        Step::LintKernel => {
            let mut cargo = project.cargo(["clippy", "--quiet", "--package", "orrery"]);
            cargo.args(["--target", IMAGE_TARGET, "--", "-D", "warnings"]);
            check(step, &mut cargo, tally)
        }
        Step::LintPrograms => {
            let mut cargo = programs::cargo(project, "clippy");
            check(step, cargo.args(["--", "-D", "warnings"]), tally)
        }
        Step::Host => {
            let mut cargo = project.cargo(["test", "--no-fail-fast"]);
            for package in ["orrery-core", "trace-tools", "machine", "latency", "xtask"] {
                cargo.args(["--package", package]);
            }
            tests(step, &mut cargo, names, tally)
        }
        Step::Loom => {
            let mut cargo = project.cargo(["test", "--package", "orrery-core", "--release"]);
            // Another configuration of everything: in the common directory each would evict the other.
            cargo.args(["--lib", "loom_"]).env("CARGO_TARGET_DIR", project.target_dir.join("loom"));
            tests(step, cargo.env("RUSTFLAGS", "--cfg loom"), None, tally)
        }
        Step::Images => {
            for profile in [Profile::Image, Profile::Checked] {
                let name = format!("{step}::{}", profile.name());
                match build::image(project, profile, None) {
                    Ok(_) => tally.ended_well += 1,
                    Err(error) => {
                        println!("{error:#}");
                        tally.failed.push(name);
                    }
                }
            }
            Ok(())
        }
        Step::Guest => guest(project, step, names, tally),
    }
}

/// The tests that boot the image; they are told where it is, and where the guest programs are.
fn guest(project: &Project, step: Step, names: Option<&str>, tally: &mut Tally) -> Result<()> {
    let images = build::image(project, Profile::Image, None)
        .and_then(|image| Ok((image, build::image(project, Profile::Checked, None)?)))
        .and_then(|(image, checked)| Ok((image, checked, programs::build_all(project)?)));
    let (image, checked, programs) = match images {
        Ok(images) => images,
        Err(error) => {
            println!("{error:#}");
            tally.failed.push(format!("{step}: image or guest programs do not build"));
            return Ok(());
        }
    };
    let mut cargo = project.cargo(["test", "--no-fail-fast", "--package", "orrery-tests"]);
    cargo.env("ORRERY_IMAGE", image).env("ORRERY_IMAGE_CHECKED", checked);
    cargo.env("ORRERY_PROGRAMS", programs);
    tests(step, &mut cargo, names, tally)
}

/// Runs a command that is one test by itself.
fn check(step: Step, command: &mut Command, tally: &mut Tally) -> Result<()> {
    let status = command.status().with_context(|| format!("cannot run `{}`", display(command)))?;
    if status.success() {
        tally.ended_well += 1;
    } else {
        tally.failed.push(format!("{step}: `{}`", display(command)));
    }
    Ok(())
}

/// Runs `cargo test` and counts what it ran.
fn tests(step: Step, cargo: &mut Command, names: Option<&str>, tally: &mut Tally) -> Result<()> {
    cargo.args(names).stdout(Stdio::piped());
    let line = display(cargo);
    let mut child = cargo.spawn().with_context(|| format!("cannot run `{line}`"))?;
    let failed_before = tally.failed.len();
    if let Some(stdout) = child.stdout.take() {
        for line in BufReader::new(stdout).split(b'\n') {
            let line = line.context("cannot read what the tests print")?;
            let line = String::from_utf8_lossy(&line);
            println!("{line}");
            tally.read(&line);
        }
    }
    let status = child.wait().with_context(|| format!("cannot wait for `{line}`"))?;
    // It did not compile, or a test took the whole program down.
    if !status.success() && tally.failed.len() == failed_before {
        tally.failed.push(format!("{step}: `{line}` ({status})"));
    }
    Ok(())
}

impl Tally {
    fn passed(&self) -> u64 {
        self.ended_well.saturating_sub(self.withdrawn)
    }

    /// Takes a line of a test program into account.
    fn read(&mut self, line: &str) {
        if let Some((_, counts)) = line.split_once("test result: ") {
            self.ended_well += count(counts, " passed");
        } else if let Some(name) = line.split("SKIPPED ").nth(1)
            && (line.starts_with("SKIPPED ") || line.contains("... SKIPPED "))
        {
            self.skipped.push(name.trim().into());
            // As far as libtest can tell, it passes; its result line comes later.
            self.withdrawn += 1;
        } else if let Some((name, verdict)) =
            line.strip_prefix("test ").and_then(|rest| rest.split_once(" ... "))
        {
            if verdict.starts_with("FAILED") {
                self.failed.push(name.into());
            } else if verdict.starts_with("ignored") {
                self.skipped.push(format!("{name}: {verdict}"));
            }
        }
    }
}

/// The number before `what` in `12 passed; 0 failed; …`.
fn count(counts: &str, what: &str) -> u64 {
    let before = counts.split(what).next().filter(|before| before.len() < counts.len());
    before.and_then(|before| before.rsplit([' ', ';']).next()?.parse().ok()).unwrap_or(0)
}

impl fmt::Display for Tally {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (failed, skipped) = (self.failed.len(), self.skipped.len());
        write!(f, "{} passed, {failed} failed, {skipped} skipped", self.passed())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_are_read_from_the_output() {
        let mut tally = Tally::default();
        for line in [
            "running 4 tests",
            "test ring::wraps ... ok",
            "SKIPPED limine_uefi: no Limine found",
            "test limine_uefi ... ok",
            "test slow ... ignored, takes an hour",
            "test broken ... FAILED",
            "test result: FAILED. 2 passed; 1 failed; 1 ignored; 0 measured; 0 filtered out",
            "test a ... SKIPPED a: no KVM",
            "ok",
            "test result: ok. 12 passed; 0 failed; 0 ignored; 0 measured; 3 filtered out",
        ] {
            tally.read(line);
        }
        assert_eq!(tally.passed(), 12);
        assert_eq!(tally.failed, ["broken"]);
        assert_eq!(
            tally.skipped,
            ["limine_uefi: no Limine found", "slow: ignored, takes an hour", "a: no KVM"]
        );
        assert_eq!(tally.to_string(), "12 passed, 1 failed, 3 skipped");
    }

    #[test]
    fn text_that_only_looks_alike_is_not_counted() {
        let mut tally = Tally::default();
        tally.read("the word SKIPPED here");
        tally.read("test result: unknown");
        tally.read("test of patience");
        assert_eq!(tally, Tally::default());
    }

    #[test]
    fn a_filter_is_a_step_or_a_name() {
        assert_eq!(Selection::new(None).steps, STEPS);
        assert_eq!(Selection::new(Some("loom")).steps, [Step::Loom]);
        let by_name = Selection::new(Some("wraps"));
        assert_eq!(by_name.steps, [Step::Host, Step::Guest]);
        assert_eq!(by_name.test_names.as_deref(), Some("wraps"));
    }
}
