//! `cargo xtask bisect METRIC GOOD BAD`: the commit that made a metric slower, by `git bisect run`.
//!
//! The revisions are checked out and built beside this tree, which stays as it is; what measures is this tree's, so that
//! all of them are measured alike. A revision is bad where the gate would fail it against GOOD.

use crate::{
    latency::{EXIT_REGRESSION, Options as LatencyOptions, latency},
    project::{Failure, Project},
    revision::{Checkout, Revision, answer, git, image_of_tree},
};
use anyhow::{Context, Result, bail};
use clap::Parser;
use std::{
    io::{BufRead, BufReader},
    path::{Path, PathBuf},
    process::{Command, ExitCode, Stdio},
};

/// What `git bisect run` takes for "this revision cannot be tested".
const EXIT_SKIP: u8 = 125;
/// What it takes for "stop".
const EXIT_ABORT: u8 = 128;

/// Options of `cargo xtask bisect`.
#[derive(Debug, clap::Args)]
pub struct Options {
    /// The metric, by its whole name.
    #[arg(value_name = "METRIC")]
    metric: String,
    /// A revision where it was quick.
    #[arg(value_name = "GOOD")]
    good: String,
    /// A later one where it is slow.
    #[arg(value_name = "BAD")]
    bad: String,
}

/// Options of the step.
#[derive(Debug, clap::Args)]
pub struct StepOptions {
    metric: String,
    base_image: PathBuf,
    tree: PathBuf,
    target_dir: PathBuf,
}

/// The options of `cargo xtask latency`, by themselves.
#[derive(Debug, Parser)]
#[command(no_binary_name = true)]
struct LatencyLine {
    #[command(flatten)]
    options: LatencyOptions,
}

/// Finds the commit and prints it.
///
/// # Errors
/// Where there is no such commit between the two, or git cannot look for it.
pub fn bisect(project: &Project, options: &Options) -> Result<ExitCode> {
    let revision = |name: &str| {
        Revision::parse(project, name).map_err(|error| Failure::usage(error.to_string()))
    };
    let (good, bad) = (revision(&options.good)?, revision(&options.bad)?);
    let compiler = answer(Command::new("rustc").arg("--version").current_dir(&project.root))?;
    let base_image = good.image(project, &compiler)?;
    let bad_image = bad.image(project, &compiler)?;
    if gate(project, &options.metric, &base_image, &bad_image)? != ExitCode::from(EXIT_REGRESSION) {
        return Err(Failure::usage(format!(
            "{} is not slower at {} than at {}: nothing to look for",
            options.metric, options.bad, options.good
        )));
    }
    let checkout = Checkout::new(project, &bad)?;
    answer(git(checkout.root()).args(["bisect", "start", bad.hash(), good.hash()]))?;
    let myself = std::env::current_exe().context("where am I?")?;
    let mut command = git(checkout.root());
    command.args(["bisect", "run"]).arg(myself).arg("bisect-step").arg(&options.metric);
    command.args([&base_image, checkout.root(), checkout.target_dir()]);
    command.stdout(Stdio::piped());
    let mut child = command.spawn().context("cannot run `git bisect run`")?;
    let mut told = Vec::new();
    if let Some(stdout) = child.stdout.take() {
        for line in BufReader::new(stdout).lines() {
            let line = line.context("cannot read what `git bisect run` prints")?;
            eprintln!("{line}");
            told.push(line);
        }
    }
    let status = child.wait().context("cannot wait for `git bisect run`")?;
    // The state of a bisection is common to all working trees of a repository in old versions of git.
    let _ = git(checkout.root()).args(["bisect", "reset"]).output();
    let first_bad = told.iter().find_map(|line| line.strip_suffix(" is the first bad commit"));
    match first_bad {
        Some(hash) if status.success() => {
            let mut git = git(&project.root);
            println!(
                "{}",
                answer(git.args(["log", "-1", "--format=%H%n%an, %ad%n%n%B"]).arg(hash))?
            );
            Ok(ExitCode::SUCCESS)
        }
        _ => bail!("`git bisect run` found no commit ({status}); see what it printed"),
    }
}

/// Builds the tree, measures the metric, and says what `git bisect run` wants to know.
///
/// # Errors
/// None: what fails is told by the exit status.
pub fn step(project: &Project, options: &StepOptions) -> Result<ExitCode> {
    let image = match image_of_tree(&options.tree, &options.target_dir) {
        Ok(image) => image,
        Err(error) => {
            eprintln!("{error:#}");
            return Ok(ExitCode::from(EXIT_SKIP));
        }
    };
    match gate(project, &options.metric, &options.base_image, &image) {
        Ok(code) if code == ExitCode::SUCCESS => Ok(ExitCode::SUCCESS),
        Ok(code) if code == ExitCode::from(EXIT_REGRESSION) => Ok(ExitCode::FAILURE),
        // A revision that cannot run, or that does not have the metric, says nothing.
        Ok(_) => Ok(ExitCode::from(EXIT_SKIP)),
        Err(error) => {
            eprintln!("{error:#}");
            let is_here = error.downcast_ref::<latency::Error>().is_some();
            Ok(ExitCode::from(if is_here { EXIT_SKIP } else { EXIT_ABORT }))
        }
    }
}

/// The gate's exit status for one metric of two images.
fn gate(project: &Project, metric: &str, base: &Path, image: &Path) -> Result<ExitCode> {
    // A name without a mark is that of the metric which has none.
    let only = if metric.contains('@') { metric.to_owned() } else { format!("{metric}@") };
    let words = ["--only", &only, "--against-image"].map(Into::into);
    let words = words.into_iter().chain([base.into(), "--image".into(), image.into()]);
    let line = LatencyLine::try_parse_from::<_, std::ffi::OsString>(words)?;
    latency(project, &line.options)
}
