//! What must be installed on the host, whether it is, and how to get it.
//!
//! [`ensure`] is called by every command that needs something; it looks at files only, so that it costs
//! nothing and touches no network when nothing is missing.

use crate::{
    programs::PROGRAM_TARGET,
    project::{Failure, IMAGE_TARGET, display, run},
};
use anyhow::{Context, Result};
use std::{
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

/// Something a command needs from the host.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Need {
    /// The compiler's support for the image's target.
    ImageTarget,
    /// `cargo fmt`.
    Rustfmt,
    /// `cargo clippy`.
    Clippy,
    /// The emulator.
    Qemu,
    /// UEFI firmware for the emulator.
    Ovmf,
    /// The program that writes ISO images.
    Xorriso,
    /// The Rust compiler's support for guest programs.
    ProgramTarget,
    /// The C compiler, with glibc for static programs.
    Cc,
    /// The C compiler with musl.
    MuslGcc,
    /// A shell and its tools in one static program, for guest tests.
    Busybox,
}

/// Everything, for `setup` and `test`.
pub const ALL: [Need; 10] = [
    Need::ImageTarget,
    Need::Rustfmt,
    Need::Clippy,
    Need::Qemu,
    Need::Ovmf,
    Need::Xorriso,
    Need::ProgramTarget,
    Need::Cc,
    Need::MuslGcc,
    Need::Busybox,
];

/// Where a need comes from.
enum Origin {
    /// A rustup target of the active toolchain.
    Target(&'static str),
    /// A rustup component of the active toolchain.
    Component(&'static str),
    /// A Debian package.
    Package(&'static str),
}

impl Need {
    fn origin(self) -> Origin {
        match self {
            Self::ImageTarget => Origin::Target(IMAGE_TARGET),
            Self::Rustfmt => Origin::Component("rustfmt"),
            Self::Clippy => Origin::Component("clippy"),
            Self::Qemu => Origin::Package("qemu-system-x86"),
            Self::Ovmf => Origin::Package("ovmf"),
            Self::Xorriso => Origin::Package("xorriso"),
            Self::ProgramTarget => Origin::Target(PROGRAM_TARGET),
            Self::Cc => Origin::Package("build-essential"),
            Self::MuslGcc => Origin::Package("musl-tools"),
            Self::Busybox => Origin::Package("busybox-static"),
        }
    }

    fn is_met(self, sysroot: &Path) -> bool {
        match self {
            Self::ImageTarget => sysroot.join("lib/rustlib").join(IMAGE_TARGET).is_dir(),
            Self::Rustfmt => sysroot.join("bin/cargo-fmt").is_file(),
            Self::Clippy => sysroot.join("bin/cargo-clippy").is_file(),
            Self::Qemu => machine::find_program(machine::QEMU).is_some(),
            Self::Ovmf => machine::uefi_firmware_present(),
            Self::Xorriso => machine::find_program("xorriso").is_some(),
            Self::ProgramTarget => sysroot.join("lib/rustlib").join(PROGRAM_TARGET).is_dir(),
            Self::Cc => machine::find_program("cc").is_some(),
            Self::MuslGcc => machine::find_program("musl-gcc").is_some(),
            Self::Busybox => machine::find_program("busybox").is_some(),
        }
    }
}

/// Installs what is missing of `needs`, and says so; silent when nothing is.
///
/// # Errors
/// Status 2 with the exact command where the user has no right to install; the installer's failure otherwise.
pub fn ensure(needs: &[Need]) -> Result<()> {
    let sysroot = sysroot()?;
    let missing = missing(needs, &sysroot);
    if missing.is_empty() {
        return Ok(());
    }
    let mut blocked = Vec::new();
    for step in plan(&missing) {
        let privileged = step.packages;
        let command = match (privileged, rights()) {
            (true, Rights::None) => {
                blocked.push(format!("sudo {}", step.line));
                continue;
            }
            (true, Rights::Sudo) => format!("sudo {}", step.line),
            _ => step.line,
        };
        eprintln!("setup: {command}");
        run(&mut words(&command)).context("cargo xtask setup could not install what is missing")?;
    }
    if !blocked.is_empty() {
        let packages = packages(&missing).join(" ");
        return Err(Failure::usage(format!(
            "missing on this machine: {packages}. Installing packages needs root; type\n    {}\n\
             (or, where there is no apt, install the same programs another way) and try again",
            blocked.join(" && ")
        )));
    }
    let still: Vec<_> = needs.iter().filter(|need| !need.is_met(&sysroot)).collect();
    if !still.is_empty() {
        return Err(Failure::usage(format!("still missing after installing: {still:?}")));
    }
    Ok(())
}

/// `cargo xtask setup`: installs everything and says what there was to do.
///
/// # Errors
/// As [`ensure`].
pub fn setup(target_dir: &Path) -> Result<()> {
    ensure(&ALL)?;
    eprintln!(
        "setup: QEMU, OVMF, xorriso, C compilers, busybox and the Rust targets {IMAGE_TARGET} and {PROGRAM_TARGET} are installed"
    );
    match machine::Limine::find(target_dir) {
        Ok(limine) => eprintln!("setup: Limine found in {}", limine.dir().display()),
        Err(error) => eprintln!("setup: optional, for boots by Limine: {error}"),
    }
    Ok(())
}

fn missing(needs: &[Need], sysroot: &Path) -> Vec<Need> {
    needs.iter().copied().filter(|need| !need.is_met(sysroot)).collect()
}

fn packages(missing: &[Need]) -> Vec<&'static str> {
    let package = |need: &Need| match need.origin() {
        Origin::Package(name) => Some(name),
        _ => None,
    };
    missing.iter().filter_map(package).collect()
}

/// One command of an installation.
#[derive(Debug, PartialEq, Eq)]
struct Step {
    line: String,
    /// It installs system packages, so it needs root.
    packages: bool,
}

fn plan(missing: &[Need]) -> Vec<Step> {
    let mut steps = Vec::new();
    for need in missing {
        // Asked for by name: `rust-toolchain.toml` lists them too, but automatic installation may be off.
        match need.origin() {
            Origin::Target(name) => {
                steps.push(Step { line: format!("rustup target add {name}"), packages: false });
            }
            Origin::Component(name) => {
                steps.push(Step { line: format!("rustup component add {name}"), packages: false });
            }
            Origin::Package(_) => {}
        }
    }
    let packages = packages(missing);
    if !packages.is_empty() {
        steps.push(Step { line: "apt-get update".into(), packages: true });
        steps.push(Step {
            line: format!(
                "env DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends {}",
                packages.join(" ")
            ),
            packages: true,
        });
    }
    steps
}

fn words(line: &str) -> Command {
    let mut words = line.split(' ');
    let mut command = Command::new(words.next().unwrap_or_default());
    // Standard output belongs to the command that needed the installation.
    command.args(words).stdout(Stdio::from(std::io::stderr()));
    command
}

#[derive(Clone, Copy)]
enum Rights {
    Root,
    Sudo,
    None,
}

/// Whether packages can be installed without asking anyone for a password.
fn rights() -> Rights {
    if machine::find_program("apt-get").is_none() {
        return Rights::None;
    }
    let says = |line: &str| words(line).stdout(Stdio::piped()).stderr(Stdio::null()).output();
    if says("id -u").is_ok_and(|output| output.stdout.trim_ascii() == b"0") {
        return Rights::Root;
    }
    match says("sudo -n true") {
        Ok(output) if output.status.success() => Rights::Sudo,
        _ => Rights::None,
    }
}

/// Directory of the active toolchain.
fn sysroot() -> Result<PathBuf> {
    let mut command = Command::new("rustc");
    command.args(["--print", "sysroot"]);
    let output = command.output().with_context(|| format!("cannot run `{}`", display(&command)))?;
    if !output.status.success() {
        anyhow::bail!(
            "`rustc --print sysroot` failed: {}",
            String::from_utf8_lossy(&output.stderr)
        );
    }
    Ok(PathBuf::from(String::from_utf8_lossy(&output.stdout).trim()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_plan_names_what_is_missing_and_nothing_else() {
        assert_eq!(plan(&[]), []);
        let steps = plan(&[Need::ImageTarget, Need::Qemu, Need::Xorriso]);
        let lines: Vec<_> = steps.iter().map(|step| step.line.as_str()).collect();
        assert_eq!(
            lines,
            [
                "rustup target add x86_64-unknown-none",
                "apt-get update",
                "env DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends \
                 qemu-system-x86 xorriso",
            ]
        );
        assert!(!steps[0].packages && steps[1].packages && steps[2].packages);
    }

    #[test]
    fn an_empty_sysroot_lacks_the_rust_parts() {
        let dir = tempfile::tempdir().unwrap();
        let needs = [Need::ImageTarget, Need::Rustfmt, Need::Clippy];
        assert_eq!(missing(&needs, dir.path()), needs);
        std::fs::create_dir_all(dir.path().join("lib/rustlib/x86_64-unknown-none")).unwrap();
        assert_eq!(missing(&needs, dir.path()), needs[1..]);
    }
}
