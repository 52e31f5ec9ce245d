//! `cargo xtask torture`: the hard workloads, over and over with other seeds and numbers of CPUs, for as
//! long as one likes, on the image with run-time checks.
//!
//! Every run must end with status 0, which says that the workload verified itself and left nothing behind. The
//! first that does not ends the torture, with the command that repeats it.

use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::Result;
use clap::Parser;
use machine::Status;

use crate::project::Project;
use crate::run;

/// Options of `cargo xtask torture`.
#[derive(Debug, clap::Args)]
pub struct Options {
    /// How long, in minutes; the run that is under way then is finished.
    #[arg(long, default_value_t = 60)]
    minutes: u64,
    /// Seed of the first round; each round takes the next one.
    #[arg(long, default_value_t = 1)]
    seed: u64,
}

const WORKLOADS: [&str; 6] = [
    "storm,tasks=300",
    "pids,rounds=20",
    "mixed",
    "pingpong,rounds=2000",
    "timers",
    "overflow,marks=20000",
];
const CPUS: [u32; 4] = [1, 2, 4, 8];

/// The options of `cargo xtask run`, by themselves.
#[derive(Debug, Parser)]
#[command(no_binary_name = true)]
struct RunLine {
    #[command(flatten)]
    options: run::Options,
}

/// Runs until the time is up or a run fails.
///
/// # Errors
/// When the image cannot be built or QEMU not started.
pub fn torture(project: &Project, options: &Options) -> Result<ExitCode> {
    let end = Instant::now() + Duration::from_secs(options.minutes * 60);
    let mut passed = 0;
    for seed in options.seed.. {
        for (workload, cpus) in WORKLOADS.iter().flat_map(|workload| CPUS.map(|n| (workload, n))) {
            let line = format!(
                "--checked --boot pvh --smp {cpus} --seed {seed} --workload {workload} --memory 512M"
            );
            let begun = Instant::now();
            let status = run::quietly(project, &RunLine::try_parse_from(line.split(' '))?.options)?;
            let took = begun.elapsed().as_secs_f32();
            if status != Status::Guest(0) {
                println!("FAILED {workload}: {status:?} after {took:.1} s");
                println!("again: cargo xtask run {line}");
                return Ok(ExitCode::FAILURE);
            }
            passed += 1;
            println!("ok {workload}, {cpus} CPUs, seed {seed} ({took:.1} s)");
            if Instant::now() > end {
                println!("{passed} passed, 0 failed");
                return Ok(ExitCode::SUCCESS);
            }
        }
    }
    Ok(ExitCode::SUCCESS)
}
