//! Boot media: a hybrid ISO that boots by Limine from BIOS and from UEFI, from a CD or from a USB stick.

use crate::{Error, Limine, Result, find_program};
use std::{
    path::{Path, PathBuf},
    process::Command,
};

/// The top-level `limine.conf`; only the value of its `cmdline` line is replaced.
const TEMPLATE: &str = include_str!("../../limine.conf");
/// Where the template says the kernel lies.
const KERNEL: &str = "boot/orrery";
const BUNDLE: &str = "boot/bundle";

/// What is put on a boot medium beside the boot loader.
#[derive(Clone, Copy, Debug)]
pub struct Payload<'a> {
    /// The kernel's ELF file.
    pub kernel: &'a Path,
    /// Its command line; one line.
    pub cmdline: &'a str,
    /// A file for the kernel to find as a module.
    pub bundle: Option<&'a Path>,
}

/// Writes a hybrid BIOS and UEFI ISO to `output`, by way of `scratch`, a directory that the caller removes.
///
/// # Errors
/// [`Error::MissingProgram`] without xorriso, [`Error::Helper`] where it fails, [`Error::File`] and
/// [`Error::Io`] for files.
pub fn write_iso(
    limine: &Limine,
    payload: Payload<'_>,
    scratch: &Path,
    output: &Path,
) -> Result<()> {
    if find_program("xorriso").is_none() {
        return Err(Error::MissingProgram { program: "xorriso", package: "xorriso" });
    }
    let root = scratch.join("iso");
    fill_root(limine, payload, &root)?;
    run_helper(
        "xorriso",
        Command::new("xorriso")
            .args("-as mkisofs -R -r -J -V ORRERY -b boot/limine/limine-bios-cd.bin".split(' '))
            .args("-no-emul-boot -boot-load-size 4 -boot-info-table".split(' '))
            .args(
                "-hfsplus -apm-block-size 2048 --efi-boot boot/limine/limine-uefi-cd.bin"
                    .split(' '),
            )
            .args("-efi-boot-part --efi-boot-image --protective-msdos-label".split(' '))
            .arg(&root)
            .arg("-o")
            .arg(output),
    )?;
    // Limine's own tool adds the boot sector that BIOS machines want on a stick. A CD needs none.
    if find_program("limine").is_some() {
        run_helper("limine", Command::new("limine").arg("bios-install").arg(output))?;
    }
    Ok(())
}

fn fill_root(limine: &Limine, payload: Payload<'_>, root: &Path) -> Result<()> {
    let place = |from: &Path, to: &str| {
        let to = root.join(to);
        let dir = to.parent().unwrap_or(root);
        std::fs::create_dir_all(dir).map_err(Error::io(format!("create {}", dir.display())))?;
        std::fs::copy(from, &to).map(drop).map_err(|error| Error::File {
            what: "file for the boot medium",
            path: from.into(),
            problem: error.to_string(),
        })
    };
    for name in ["limine-bios.sys", "limine-bios-cd.bin", "limine-uefi-cd.bin"] {
        place(&limine.file(name), &format!("boot/limine/{name}"))?;
    }
    place(&limine.file("BOOTX64.EFI"), "EFI/BOOT/BOOTX64.EFI")?;
    place(payload.kernel, KERNEL)?;
    if let Some(bundle) = payload.bundle {
        place(bundle, BUNDLE)?;
    }
    let conf = root.join("boot/limine/limine.conf");
    std::fs::write(&conf, configuration(payload.cmdline, payload.bundle.is_some()))
        .map_err(Error::io(format!("write {}", conf.display())))
}

/// The template with this command line, and with a line for the bundle if there is one.
fn configuration(cmdline: &str, bundle: bool) -> String {
    let mut out = String::new();
    for line in TEMPLATE.lines() {
        let key = line.trim_start();
        let indent = &line[..line.len() - key.len()];
        if key.starts_with("cmdline:") {
            out += &format!("{indent}cmdline: {cmdline}\n");
            if bundle {
                out += &format!("{indent}module_path: boot():/{BUNDLE}\n");
            }
        } else {
            out += line;
            out.push('\n');
        }
    }
    out
}

fn run_helper(program: &'static str, command: &mut Command) -> Result<()> {
    let output = command.output().map_err(Error::io(format!("run {program}")))?;
    if output.status.success() {
        return Ok(());
    }
    let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
    Err(Error::Helper { program, status: output.status, stderr })
}

/// Where a run's ISO is, in the run's directory.
pub(crate) fn iso_path(run_dir: &Path) -> PathBuf {
    run_dir.join("boot.iso")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn configuration_fills_the_template() {
        let text = configuration("trace=all seed=1", true);
        assert!(text.contains("\n    cmdline: trace=all seed=1\n"), "{text}");
        assert!(text.contains("\n    module_path: boot():/boot/bundle\n"), "{text}");
        assert!(text.contains(&format!("kernel_path: boot():/{KERNEL}\n")), "{text}");
        assert_eq!(text.matches("cmdline:").count(), 1);
        assert!(!configuration("", false).contains("module_path"));
    }

    #[test]
    fn an_unreadable_kernel_is_named() {
        let dir = tempfile::tempdir().unwrap();
        for name in ["limine-bios.sys", "limine-bios-cd.bin", "limine-uefi-cd.bin", "BOOTX64.EFI"] {
            std::fs::write(dir.path().join(name), b"x").unwrap();
        }
        let limine = Limine::at(dir.path()).unwrap();
        let kernel = dir.path().join("absent-kernel");
        let payload = Payload { kernel: &kernel, cmdline: "", bundle: None };
        let error = fill_root(&limine, payload, &dir.path().join("iso")).unwrap_err().to_string();
        assert!(error.contains("absent-kernel"), "{error}");
    }
}
