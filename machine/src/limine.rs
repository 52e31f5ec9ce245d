//! Where Limine's files are. They come from the user's system or from Limine's binary release, and
//! are never part of this repository.

use crate::{Error, Result};
use std::path::{Path, PathBuf};

/// The files of a Limine release that a hybrid ISO needs.
const FILES: [&str; 4] =
    ["limine-bios.sys", "limine-bios-cd.bin", "limine-uefi-cd.bin", "BOOTX64.EFI"];

/// Names the directory, and nothing else: no other one is looked at.
const VARIABLE: &str = "LIMINE_DIR";

/// A directory that has all of Limine's files.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Limine {
    dir: PathBuf,
}

impl Limine {
    /// Finds Limine: in `LIMINE_DIR` when it is set, else in `/usr/share/limine`,
    /// `/usr/local/share/limine` and `limine` below the build's target directory.
    ///
    /// # Errors
    /// [`Error::LimineMissing`] where there is none, [`Error::LimineBroken`] where there is one with files missing.
    pub fn find(target_dir: &Path) -> Result<Self> {
        match std::env::var_os(VARIABLE).filter(|dir| !dir.is_empty()) {
            Some(dir) => Self::at(dir),
            None => Self::find_in(&[
                "/usr/share/limine".into(),
                "/usr/local/share/limine".into(),
                target_dir.join("limine"),
            ]),
        }
    }

    /// The Limine in this directory.
    ///
    /// # Errors
    /// As [`Limine::find`].
    pub fn at(dir: impl Into<PathBuf>) -> Result<Self> {
        let dir = dir.into();
        if !dir.is_dir() {
            return Err(Error::LimineMissing { looked_in: vec![dir] });
        }
        let usable =
            |name: &str| dir.join(name).metadata().is_ok_and(|m| m.is_file() && m.len() > 0);
        let missing: Vec<_> = FILES.into_iter().filter(|name| !usable(name)).collect();
        if missing.is_empty() {
            Ok(Self { dir })
        } else {
            Err(Error::LimineBroken { dir, missing })
        }
    }

    fn find_in(dirs: &[PathBuf]) -> Result<Self> {
        match dirs.iter().find(|dir| dir.is_dir()) {
            Some(dir) => Self::at(dir),
            None => Err(Error::LimineMissing { looked_in: dirs.to_vec() }),
        }
    }

    /// Path of one of the release's files.
    pub(crate) fn file(&self, name: &str) -> PathBuf {
        debug_assert!(FILES.contains(&name));
        self.dir.join(name)
    }

    /// Where it was found.
    pub fn dir(&self) -> &Path {
        &self.dir
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn missing_and_broken_say_what_to_do() {
        let dir = tempfile::tempdir().unwrap();
        let absent = dir.path().join("absent");
        let error = Limine::find_in(std::slice::from_ref(&absent)).unwrap_err().to_string();
        assert!(error.contains("absent") && error.contains("LIMINE_DIR"), "{error}");

        std::fs::write(dir.path().join("BOOTX64.EFI"), b"x").unwrap();
        std::fs::write(dir.path().join("limine-bios.sys"), b"").unwrap();
        let error = Limine::find_in(&[absent, dir.path().into()]).unwrap_err().to_string();
        assert!(
            error.contains("limine-bios.sys, limine-bios-cd.bin, limine-uefi-cd.bin missing"),
            "{error}"
        );

        for name in FILES {
            std::fs::write(dir.path().join(name), b"x").unwrap();
        }
        assert_eq!(Limine::at(dir.path()).unwrap().dir(), dir.path());
    }
}
