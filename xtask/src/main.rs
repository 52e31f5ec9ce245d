//! `cargo xtask …`: set-up, builds, and thin commands over the libraries.
//!
//! Each command is a module; what a command does beyond parsing its options is done by a library:
//! `machine` runs virtual machines, `trace-tools` makes sense of what they say.
//!
//! Exit status: 0 fine, 1 a command failed, 2 wrong usage or something is missing that must be installed
//! by hand; `run` passes the guest's status on and has more of its own, see `run`; `latency` has 3 for a regression, and
//! `versus-linux` for a target that is missed.

mod app;
mod bisect;
mod build;
#[cfg(test)]
mod docs;
mod image;
mod latency;
mod program;
mod programs;
mod project;
mod revision;
mod run;
mod setup;
mod test;
mod torture;
mod versus;
mod watch;

use anyhow::Result;
use build::Profile;
use clap::{Parser, Subcommand};
use project::{Failure, Project};
use std::{path::PathBuf, process::ExitCode};

/// Builds, runs and tests Orrery.
#[derive(Debug, Parser)]
#[command(bin_name = "cargo xtask")]
struct Cli {
    #[command(subcommand)]
    command: Verb,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// Install what is missing: QEMU, OVMF, xorriso, the Rust target.
    Setup,
    /// Build the image and print where it is.
    Build(BuildOptions),
    /// Boot the image in a virtual machine, run a program or a workload there, and decode its trace.
    Run(run::Options),
    /// Write a boot medium for BIOS and UEFI: an ISO image, for a CD or a USB stick.
    Image(image::Options),
    /// Run every test, or those that match.
    Test {
        /// Part of tests' names, or a step: fmt, clippy-host, clippy-kernel,
        /// clippy-programs, host, loom, images, guest.
        filter: Option<String>,
    },
    /// Measure what the kernel's paths cost, compare with what they cost before, and fail where they cost more.
    Latency(latency::Options),
    /// Find the commit that made a metric of the latency suite slower.
    Bisect(bisect::Options),
    /// What `git bisect run` runs.
    #[command(hide = true)]
    BisectStep(bisect::StepOptions),
    /// Repeat the hard workloads with other seeds and numbers of CPUs, for a long time.
    Torture(torture::Options),
    /// Compare with Linux on the same virtual machine, row by row.
    VersusLinux(versus::Options),
}

#[derive(Debug, clap::Args)]
struct BuildOptions {
    /// With debug assertions and lock-order checks.
    #[arg(long)]
    checked: bool,
    /// Directory of a crate to link into the image as an application.
    #[arg(long, value_name = "CRATE_DIR")]
    app: Option<PathBuf>,
}

fn main() -> ExitCode {
    match dispatch(Cli::parse().command) {
        Ok(code) => code,
        Err(error) => {
            eprintln!("error: {error:#}");
            error.downcast_ref::<Failure>().map_or(ExitCode::FAILURE, |f| ExitCode::from(f.code))
        }
    }
}

fn dispatch(verb: Verb) -> Result<ExitCode> {
    let project = Project::find()?;
    match verb {
        Verb::Setup => setup::setup(&project.target_dir)?,
        Verb::Build(options) => {
            build::build(&project, Profile::new(options.checked), options.app.as_deref())?;
        }
        Verb::Run(options) => return run::run(&project, &options),
        Verb::Image(options) => image::image(&project, &options)?,
        Verb::Latency(options) => return latency::latency(&project, &options),
        Verb::Bisect(options) => return bisect::bisect(&project, &options),
        Verb::BisectStep(options) => return bisect::step(&project, &options),
        Verb::Torture(options) => return torture::torture(&project, &options),
        Verb::VersusLinux(options) => return versus::versus(&project, &options),
        Verb::Test { filter } => return test::test(&project, filter.as_deref()),
    }
    Ok(ExitCode::SUCCESS)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        <Cli as clap::CommandFactory>::command().debug_assert();
    }
}
