//! Where the Linux kernel comes from: a file that is named, or Debian's package, which is downloaded and unpacked but
//! not installed.

use crate::project::{Failure, Project, run};
use anyhow::{Context, Result};
use std::{
    fs,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

/// The package that depends on Debian's newest kernel.
const META_PACKAGE: &str = "linux-image-amd64";

/// Finds a kernel: `given`, or what was unpacked before, or Debian's.
///
/// # Errors
/// Status 2, with what to do, where there is none.
pub fn kernel(project: &Project, given: Option<&Path>) -> Result<PathBuf> {
    if let Some(path) = given {
        return Ok(path.into());
    }
    let dir = project.out_dir()?.join("linux");
    match newest_image(&dir) {
        Some(path) => Ok(path),
        None => unpack(&dir),
    }
}

/// The version of a bzImage, such as `6.1.0-56-amd64` (Linux, Documentation/x86/boot.rst, `kernel_version`).
pub fn version(image: &[u8]) -> Option<String> {
    let offset = u16::from_le_bytes(image.get(0x20e..0x210)?.try_into().ok()?);
    let text = image.get(usize::from(offset) + 0x200..)?;
    let text = text.get(..256).unwrap_or(text).split(|&byte| byte == 0 || byte == b' ').next()?;
    let text = std::str::from_utf8(text).ok().filter(|text| !text.is_empty())?;
    Some(text.to_owned())
}

fn newest_image(dir: &Path) -> Option<PathBuf> {
    let entries = fs::read_dir(dir).ok()?.flatten().map(|entry| entry.path());
    let named = |path: &PathBuf| {
        path.file_name().and_then(|name| name.to_str()).is_some_and(|it| it.starts_with("vmlinuz-"))
    };
    let age = |path: &PathBuf| path.metadata().and_then(|meta| meta.modified()).ok();
    entries.filter(named).max_by_key(age)
}

fn unpack(dir: &Path) -> Result<PathBuf> {
    for program in ["apt-cache", "apt-get", "dpkg-deb"] {
        if machine::find_program(program).is_none() {
            return Err(missing(&format!("`{program}` is not on PATH")));
        }
    }
    let depends = output(Command::new("apt-cache").args(["depends", META_PACKAGE]))?;
    let Some(package) = image_package(&depends) else {
        return Err(missing(&format!("apt knows no `{META_PACKAGE}`; try `apt-get update`")));
    };
    fs::create_dir_all(dir).with_context(|| format!("cannot create {}", dir.display()))?;
    let scratch = tempfile::tempdir_in(dir).context("cannot create a temporary directory")?;
    eprintln!("linux: downloading Debian's {package}, to be unpacked, not installed");
    let mut download = Command::new("apt-get");
    download.args(["--quiet", "--quiet", "download", &package]).current_dir(scratch.path());
    run(quiet(&mut download)).map_err(|error| missing(&format!("{error:#}")))?;
    let archives = fs::read_dir(scratch.path())?.flatten().map(|entry| entry.path());
    let archive = archives.into_iter().find(|path| path.extension().is_some_and(|it| it == "deb"));
    let archive = archive.context("apt-get left no package behind")?;
    let root = scratch.path().join("root");
    run(quiet(Command::new("dpkg-deb").arg("-x").arg(&archive).arg(&root)))?;
    let image = newest_image(&root.join("boot"))
        .with_context(|| format!("{package} has no /boot/vmlinuz-*; give a kernel by --linux"))?;
    let kept = dir.join(image.file_name().unwrap_or_default());
    fs::rename(&image, &kept).with_context(|| format!("cannot write {}", kept.display()))?;
    Ok(kept)
}

/// The package with the kernel itself, from what `apt-cache depends` says.
fn image_package(depends: &str) -> Option<String> {
    let mut needed = depends.lines().filter_map(|line| line.trim().strip_prefix("Depends: "));
    needed.find(|name| name.starts_with("linux-image-")).map(str::to_owned)
}

fn missing(why: &str) -> anyhow::Error {
    Failure::usage(format!(
        "no Linux kernel to compare with: {why}. Name a bzImage with --linux FILE (this host's is \
         /boot/vmlinuz-*, perhaps), or run this where apt has Debian's package {META_PACKAGE}"
    ))
}

/// Standard output belongs to the table.
fn quiet(command: &mut Command) -> &mut Command {
    command.stdin(Stdio::null()).stdout(Stdio::from(std::io::stderr()))
}

fn output(command: &mut Command) -> Result<String> {
    let output = command.stdin(Stdio::null()).stderr(Stdio::null()).output();
    Ok(String::from_utf8_lossy(&output.context("cannot run apt-cache")?.stdout).into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn project(dir: &Path) -> Project {
        Project::at(dir, dir.join("target"))
    }

    #[test]
    fn the_package_is_found() {
        let said =
            "linux-image-amd64\n  Depends: linux-image-6.1.0-56-amd64\n  Recommends: firmware\n";
        assert_eq!(image_package(said).unwrap(), "linux-image-6.1.0-56-amd64");
        assert_eq!(image_package("linux-image-amd64\n  Depends: <linux-image-x>\n"), None);
        assert_eq!(image_package(""), None);
    }

    #[test]
    fn versions_are_read() {
        let mut image = vec![0; 0x400];
        image[0x20e..0x210].copy_from_slice(&0x80u16.to_le_bytes());
        image[0x280..0x298].copy_from_slice(b"6.1.0-56-amd64 (debian) ");
        assert_eq!(version(&image).unwrap(), "6.1.0-56-amd64");
        image[0x20e..0x210].copy_from_slice(&u16::MAX.to_le_bytes());
        assert_eq!(version(&image), None);
        assert_eq!(version(b"short"), None);
    }

    #[test]
    fn an_unpacked_kernel_is_used_again() {
        let dir = tempfile::tempdir().unwrap();
        let project = project(dir.path());
        let linux = project.out_dir().unwrap().join("linux");
        fs::create_dir_all(&linux).unwrap();
        fs::write(linux.join("notes"), "").unwrap();
        fs::write(linux.join("vmlinuz-6.1"), "").unwrap();
        assert_eq!(kernel(&project, None).unwrap(), linux.join("vmlinuz-6.1"));
        assert_eq!(kernel(&project, Some(Path::new("x"))).unwrap(), Path::new("x"));
    }
}
