//! `cargo xtask image`: the image on a hybrid BIOS and UEFI boot medium.

use crate::{
    app::App,
    build::{self, Profile},
    project::Project,
    setup::{self, Need},
};
use anyhow::{Context, Result};
use machine::{Limine, Payload};
use std::path::PathBuf;

/// Options of `cargo xtask image`.
#[derive(Debug, clap::Args)]
pub struct Options {
    /// Where to write it; target/orrery/orrery.iso unless given.
    #[arg(short, long, value_name = "FILE")]
    output: Option<PathBuf>,
    /// The kernel's command line.
    #[arg(long, value_name = "WORDS", default_value = "trace=all workload=mixed")]
    cmdline: String,
    /// With debug assertions and lock-order checks.
    #[arg(long)]
    checked: bool,
    /// Directory of a crate to link into the image as an application.
    #[arg(long, value_name = "CRATE_DIR")]
    app: Option<PathBuf>,
}

/// Builds the image, writes the medium and says how to boot it.
///
/// # Errors
/// Where Limine or xorriso is missing, where the image does not build, and where a file cannot be
/// written.
pub fn image(project: &Project, options: &Options) -> Result<()> {
    let limine = Limine::find(&project.target_dir)?;
    setup::ensure(&[Need::Xorriso])?;
    let app = options.app.as_deref().map(App::open).transpose()?;
    let kernel = build::image(project, Profile::new(options.checked), app.as_ref())?;
    let output = match &options.output {
        Some(path) => path.clone(),
        None => project.out_dir()?.join("orrery.iso"),
    };
    let scratch = tempfile::tempdir().context("cannot create a temporary directory")?;
    let payload = Payload { kernel: &kernel, cmdline: &options.cmdline, bundle: None };
    machine::write_iso(&limine, payload, scratch.path(), &output)?;
    println!("{}", output.display());
    eprintln!("boots from CD by BIOS and UEFI, and from a USB stick by UEFI");
    eprintln!("(by BIOS too, where `limine` is on PATH when the image is written)");
    Ok(())
}
