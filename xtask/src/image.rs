//! `cargo xtask image`: the image on a hybrid BIOS and UEFI boot medium.

use crate::{
    app::App,
    build::{self, Profile},
    program::{self, Program},
    project::Project,
    setup::{self, Need},
};
use anyhow::{Context, Result};
use machine::{Limine, Payload};
use std::{
    ffi::OsString,
    path::{Path, PathBuf},
};

/// Options of `cargo xtask image`.
#[derive(Debug, clap::Args)]
pub struct Options {
    /// Where to write it; target/orrery/orrery.iso unless given.
    #[arg(short, long, value_name = "FILE")]
    output: Option<PathBuf>,
    /// The kernel's command line; `trace=all workload=mixed`, or `trace=all` with a program, unless given.
    #[arg(long, value_name = "WORDS")]
    cmdline: Option<String>,
    /// With debug assertions and lock-order checks.
    #[arg(long)]
    checked: bool,
    /// Directory of a crate to link into the image as an application.
    #[arg(long, value_name = "CRATE_DIR")]
    app: Option<PathBuf>,
    /// A program to put into the kernel's image and to run: a path on this host, a path in the bundle, or the name
    /// of one of this repository's guest programs.
    #[arg(long, value_name = "ELF", conflicts_with = "app")]
    program: Option<OsString>,
    /// Files for the program: a directory, or a cpio archive (newc). May be repeated.
    #[arg(long, value_name = "DIR|FILE", requires = "program")]
    bundle: Vec<PathBuf>,
    /// Adds to the program's environment, or changes it.
    #[arg(long, value_name = "KEY=VALUE", requires = "program")]
    env: Vec<String>,
    /// All that the program reads from its standard input.
    #[arg(long, value_name = "FILE", requires = "program")]
    stdin: Option<PathBuf>,
    /// Write the kernel's ELF file only, for a boot by PVH (`qemu -kernel`), and no boot medium.
    #[arg(long)]
    elf: bool,
    /// The program's arguments.
    #[arg(last = true, value_name = "ARGS", requires = "program")]
    arguments: Vec<OsString>,
}

/// Builds the image, writes the medium and says how to boot it.
///
/// # Errors
/// Where Limine or xorriso is missing, where the program cannot run or the image does not build, and where a
/// file cannot be written.
pub fn image(project: &Project, options: &Options) -> Result<()> {
    let limine = match options.elf {
        true => None,
        false => {
            let limine = Limine::find(&project.target_dir)?;
            setup::ensure(&[Need::Xorriso])?;
            Some(limine)
        }
    };
    let kernel = kernel(project, options)?;
    let name = if options.elf { "orrery.elf" } else { "orrery.iso" };
    let output = match &options.output {
        Some(path) => path.clone(),
        None => project.out_dir()?.join(name),
    };
    let Some(limine) = limine else {
        std::fs::copy(&kernel, &output)
            .with_context(|| format!("cannot write {}", output.display()))?;
        println!("{}", output.display());
        eprintln!("boots by PVH: qemu-system-x86_64 -kernel FILE -append WORDS, Firecracker");
        return Ok(());
    };
    let scratch = tempfile::tempdir().context("cannot create a temporary directory")?;
    let default = match options.program {
        Some(_) => "trace=all",
        None => "trace=all workload=mixed",
    };
    let cmdline = options.cmdline.as_deref().unwrap_or(default);
    let payload = Payload { kernel: &kernel, cmdline, bundle: None };
    machine::write_iso(&limine, payload, scratch.path(), &output)?;
    println!("{}", output.display());
    eprintln!("boots from CD by BIOS and UEFI, and from a USB stick by UEFI");
    eprintln!("(by BIOS too, where `limine` is on PATH when the image is written)");
    Ok(())
}

/// Builds the kernel, with the application or the program in it if there is one.
fn kernel(project: &Project, options: &Options) -> Result<PathBuf> {
    let profile = Profile::new(options.checked);
    let Some(name) = &options.program else {
        let app = options.app.as_deref().map(App::open).transpose()?;
        return build::image(project, profile, app.as_ref());
    };
    let stdin = options.stdin.as_deref().map(program::whole_file).transpose()?;
    let program = Program {
        name,
        arguments: &options.arguments,
        bundles: &options.bundle,
        environment: &options.env,
        stdin,
    };
    let archive = program.bundle(project)?.archive();
    // Always the same path: the compiler looks at the file anew when it has changed.
    let path = project.out_dir()?.join("embedded.cpio");
    write_if_changed(&path, &archive)?;
    build::image_with_bundle(project, profile, &path)
}

/// Leaves the file alone where it is as it should be, so that nothing is built anew.
fn write_if_changed(path: &Path, bytes: &[u8]) -> Result<()> {
    if std::fs::read(path).is_ok_and(|old| old == bytes) {
        return Ok(());
    }
    std::fs::write(path, bytes).with_context(|| format!("cannot write {}", path.display()))
}
