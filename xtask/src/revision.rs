//! Other revisions of this repository, built beside the one that is checked out.

use crate::{
    build,
    project::{IMAGE_TARGET, Project, display},
};
use anyhow::{Context, Result, bail};
use std::{
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

/// A commit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Revision(String);

impl Revision {
    /// The commit that git knows by this name.
    ///
    /// # Errors
    /// Where there is no git, no repository, or no such commit.
    pub fn parse(project: &Project, name: &str) -> Result<Self> {
        let mut command = git(&project.root);
        command.args(["rev-parse", "--verify", "--quiet", "--end-of-options"]);
        command.arg(format!("{name}^{{commit}}")).stderr(Stdio::null());
        match answer(&mut command) {
            Ok(hash) if !hash.is_empty() => Ok(Self(hash)),
            _ => bail!(
                "no revision `{name}` in {}; a shallow clone has only its newest ones \
                 (`git fetch --unshallow`)",
                project.root.display()
            ),
        }
    }

    /// The commit that last changed a file; `None` where none did.
    ///
    /// # Errors
    /// Where there is no git or no repository.
    pub fn of_last_change(project: &Project, file: &Path) -> Result<Option<Self>> {
        let mut command = git(&project.root);
        let hash = answer(command.args(["log", "-1", "--format=%H", "--"]).arg(file))?;
        Ok((!hash.is_empty()).then_some(Self(hash)))
    }

    /// The whole hash.
    pub fn hash(&self) -> &str {
        &self.0
    }

    /// As much of the hash as people read.
    pub fn short(&self) -> &str {
        &self.0[..self.0.len().min(10)]
    }

    /// Builds the revision's image, unless this compiler has built it before, and returns its ELF.
    ///
    /// # Errors
    /// Where it does not build.
    pub fn image(&self, project: &Project, compiler: &str) -> Result<PathBuf> {
        let dir = project.out_dir()?.join("revisions");
        let tag: String = compiler.chars().filter(char::is_ascii_alphanumeric).collect();
        let elf = dir.join(format!("{}-{tag}.elf", self.short()));
        if elf.is_file() {
            return Ok(elf);
        }
        std::fs::create_dir_all(&dir)
            .with_context(|| format!("cannot create {}", dir.display()))?;
        eprintln!("building revision {}", self.short());
        let checkout = Checkout::new(project, self)?;
        let built = checkout.image()?;
        std::fs::copy(&built, &elf).with_context(|| format!("cannot write {}", elf.display()))?;
        Ok(elf)
    }
}

/// A working tree of its own, which goes when it is dropped.
#[derive(Debug)]
pub struct Checkout {
    project: Project,
    dir: tempfile::TempDir,
    /// Where cargo builds; common to all checkouts, which differ in this repository's crates only.
    target_dir: PathBuf,
}

impl Checkout {
    /// Checks a revision out.
    ///
    /// # Errors
    /// Where git cannot.
    pub fn new(project: &Project, revision: &Revision) -> Result<Self> {
        let dir = tempfile::Builder::new().prefix("orrery-revision-").tempdir();
        let dir = dir.context("cannot create a temporary directory")?;
        let target_dir = project.out_dir()?.join("revisions/target");
        let mut command = git(&project.root);
        command.args(["worktree", "add", "--quiet", "--force", "--detach"]);
        answer(command.arg(dir.path()).arg(revision.hash()))?;
        Ok(Self { project: project.clone(), dir, target_dir })
    }

    /// Its top-level directory.
    pub fn root(&self) -> &Path {
        self.dir.path()
    }

    /// Where cargo builds it.
    pub fn target_dir(&self) -> &Path {
        &self.target_dir
    }

    /// Builds its image.
    ///
    /// # Errors
    /// Where that fails.
    pub fn image(&self) -> Result<PathBuf> {
        image_of_tree(self.dir.path(), &self.target_dir)
    }
}

impl Drop for Checkout {
    fn drop(&mut self) {
        // What is left over, `git worktree prune` finds.
        let mut command = git(&self.project.root);
        let _ = command.args(["worktree", "remove", "--force"]).arg(self.dir.path()).output();
    }
}

/// Builds the image of some tree of this repository's, of whatever revision, in a target directory of its own.
///
/// # Errors
/// Where that fails.
pub fn image_of_tree(root: &Path, target_dir: &Path) -> Result<PathBuf> {
    let project = Project::at(root, target_dir);
    let mut cargo = project.cargo(["build", "--package", "orrery", "--bin", "orrery", "--quiet"]);
    cargo.args(["--target", IMAGE_TARGET, "--profile", build::Profile::Image.name()]);
    // One that the caller's cargo has set up for itself would be this tree's.
    cargo.env_remove("CARGO_MANIFEST_DIR").stdin(Stdio::null());
    let status = cargo.status().with_context(|| format!("cannot run `{}`", display(&cargo)))?;
    if !status.success() {
        bail!("{} does not build", root.display());
    }
    Ok(target_dir.join(IMAGE_TARGET).join(build::Profile::Image.name()).join("orrery"))
}

/// git, in this directory.
pub fn git(dir: &Path) -> Command {
    let mut command = Command::new("git");
    command.arg("-C").arg(dir).stdin(Stdio::null());
    command
}

/// What a command writes to its standard output, without white space around it.
///
/// # Errors
/// Where it cannot be run or fails, with what it says.
pub fn answer(command: &mut Command) -> Result<String> {
    let output = command
        .stderr(Stdio::piped())
        .output()
        .with_context(|| format!("cannot run `{}`", display(command)))?;
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr);
        bail!("`{}` failed ({}): {}", display(command), output.status, said.trim());
    }
    Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_revision_that_is_not_there_is_named() {
        let dir = tempfile::tempdir().unwrap();
        let project = Project::at(dir.path(), dir.path());
        answer(git(dir.path()).args(["init", "--quiet"])).unwrap();
        let error = Revision::parse(&project, "no-such-branch").unwrap_err().to_string();
        assert!(error.contains("no revision `no-such-branch`"), "{error}");
        assert_eq!(Revision::of_last_change(&project, Path::new("x")).ok().flatten(), None);
    }
}
