//! The guest programs of this repository, in `tests/programs`: ordinary static programs for Linux, which run there
//! as well.
//!
//! - `tests/programs/Cargo.toml` is a package of its own; each `src/bin/NAME.rs` (or `[[bin]]`) is the program
//!   `NAME`, built for x86_64-unknown-linux-musl;
//! - each `tests/programs/c/NAME.c` is two programs: `NAME`, linked with glibc, and `NAME-musl`.
//!
//! What is built lies in one directory, [`dir`], each under its name.

use crate::{
    project::{Project, run},
    setup::{self, Need},
};
use anyhow::{Context, Result};
use std::{
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

/// The target of Rust programs.
pub const PROGRAM_TARGET: &str = "x86_64-unknown-linux-musl";
const MUSL_SUFFIX: &str = "-musl";

/// What a program is made of.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Source {
    /// A binary of the package.
    Rust,
    /// A C file and the compiler for it.
    C { file: PathBuf, compiler: &'static str },
}

/// Builds one program; `None` where there is none of this name.
///
/// # Errors
/// Where a compiler is missing, or it does not build.
pub fn build_one(project: &Project, name: &str) -> Result<Option<PathBuf>> {
    let Some((name, source)) = sources(project).into_iter().find(|(its, _)| its == name) else {
        return Ok(None);
    };
    build(project, &[(name.clone(), source)])?;
    Ok(Some(dir(project).join(name)))
}

/// Builds all of them; returns the directory.
///
/// # Errors
/// As [`build_one`].
pub fn build_all(project: &Project) -> Result<PathBuf> {
    build(project, &sources(project))?;
    Ok(dir(project))
}

/// Their names.
pub fn names(project: &Project) -> Vec<String> {
    sources(project).into_iter().map(|(name, _)| name).collect()
}

/// Where they are, once they are built.
fn dir(project: &Project) -> PathBuf {
    project.target_dir.join("programs/bin")
}

fn build(project: &Project, wanted: &[(String, Source)]) -> Result<()> {
    let dir = dir(project);
    std::fs::create_dir_all(&dir).with_context(|| format!("cannot create {}", dir.display()))?;
    let rust = wanted.iter().filter(|(_, source)| *source == Source::Rust);
    let rust: Vec<_> = rust.map(|(name, _)| name.as_str()).collect();
    if !rust.is_empty() {
        setup::ensure(&[Need::ProgramTarget])?;
        build_rust(project, &rust, &dir)?;
    }
    for (name, source) in wanted {
        if let Source::C { file, compiler } = source {
            setup::ensure(&[if *compiler == "cc" { Need::Cc } else { Need::MuslGcc }])?;
            build_c(compiler, file, &dir.join(name))?;
        }
    }
    Ok(())
}

/// A command of Cargo for the package of the Rust programs.
pub fn cargo(project: &Project, command: &str) -> Command {
    let mut cargo = project.cargo([command, "--quiet", "--target", PROGRAM_TARGET]);
    cargo.arg("--manifest-path").arg(package(project));
    cargo.env("CARGO_TARGET_DIR", target_dir(project));
    cargo
}

/// Theirs alone: another profile than the workspace's.
fn target_dir(project: &Project) -> PathBuf {
    project.target_dir.join("programs")
}

fn build_rust(project: &Project, names: &[&str], dir: &Path) -> Result<()> {
    let mut cargo = cargo(project, "build");
    cargo.arg("--release");
    for name in names {
        cargo.args(["--bin", name]);
    }
    run(cargo.stdin(Stdio::null()).stdout(Stdio::from(std::io::stderr())))?;
    for name in names {
        let from = target_dir(project).join(PROGRAM_TARGET).join("release").join(name);
        let to = dir.join(name);
        std::fs::copy(&from, &to)
            .with_context(|| format!("cannot copy {} to {}", from.display(), to.display()))?;
    }
    Ok(())
}

/// Compiles a C file unless that has been done since it was changed.
fn build_c(compiler: &str, file: &Path, to: &Path) -> Result<()> {
    let changed = |path: &Path| path.metadata().and_then(|meta| meta.modified()).ok();
    if changed(to).is_some_and(|built| Some(built) > changed(file)) {
        return Ok(());
    }
    let mut command = Command::new(compiler);
    command.args(["-O2", "-g", "-static", "-pthread", "-Wall", "-o"]).arg(to).arg(file);
    run(command.stdin(Stdio::null()).stdout(Stdio::from(std::io::stderr())))
}

fn package(project: &Project) -> PathBuf {
    project.root.join("tests/programs/Cargo.toml")
}

/// All programs by name, sorted.
fn sources(project: &Project) -> Vec<(String, Source)> {
    let package = package(project);
    let here = package.parent().unwrap_or(Path::new(""));
    let manifest = std::fs::read_to_string(&package).unwrap_or_default();
    let manifest: toml::Table = manifest.parse().unwrap_or_default();
    let listed = manifest.get("bin").and_then(toml::Value::as_array).into_iter().flatten();
    let listed = listed.filter_map(|bin| Some(bin.get("name")?.as_str()?.to_owned()));
    let found = files(&here.join("src/bin"), "rs").into_iter().map(|(name, _)| name);
    let mut all: Vec<_> = listed.chain(found).map(|name| (name, Source::Rust)).collect();
    for (name, file) in files(&here.join("c"), "c") {
        all.push((
            format!("{name}{MUSL_SUFFIX}"),
            Source::C { file: file.clone(), compiler: "musl-gcc" },
        ));
        all.push((name, Source::C { file, compiler: "cc" }));
    }
    all.sort();
    all.dedup();
    all
}

/// Name and path of the directory's files with this extension.
fn files(dir: &Path, extension: &str) -> Vec<(String, PathBuf)> {
    let entries = std::fs::read_dir(dir).into_iter().flatten().flatten();
    let paths = entries.map(|entry| entry.path());
    let paths = paths.filter(|path| path.extension().is_some_and(|its| its == extension));
    paths.filter_map(|path| Some((path.file_stem()?.to_str()?.to_owned(), path))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn programs_are_found_by_name() {
        let dir = tempfile::tempdir().unwrap();
        let project = Project::at(dir.path(), dir.path().join("target"));
        assert!(names(&project).is_empty());
        assert_eq!(build_one(&project, "hello").unwrap(), None);
        let here = dir.path().join("tests/programs");
        std::fs::create_dir_all(here.join("src/bin")).unwrap();
        std::fs::create_dir_all(here.join("c")).unwrap();
        std::fs::write(here.join("Cargo.toml"), "[[bin]]\nname = \"fork\"\npath = \"x.rs\"\n")
            .unwrap();
        std::fs::write(here.join("src/bin/hello.rs"), "").unwrap();
        std::fs::write(here.join("c/bench.c"), "").unwrap();
        std::fs::write(here.join("c/notes.md"), "").unwrap();
        assert_eq!(names(&project), ["bench", "bench-musl", "fork", "hello"]);
    }
}
