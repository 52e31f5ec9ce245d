//! `--app`: the user's own crate as an application in the image.
//!
//! A wrapper package in `target/app-image` has the kernel's `main.rs` as its program and depends on both the kernel and the
//! user's crate; its feature `app` makes `main.rs` link the crate, which registers its applications itself.

use crate::project::{Failure, Project};
use anyhow::{Context, Result};
use std::{
    path::{Path, PathBuf},
    process::Command,
};

/// A crate that can be linked into the image.
#[derive(Debug)]
pub struct App {
    /// The package's name, and the name of its workload.
    pub name: String,
    dir: PathBuf,
}

impl App {
    /// Opens the package in this directory.
    ///
    /// # Errors
    /// Status 2 where it is no package with a library.
    pub fn open(dir: &Path) -> Result<Self> {
        let wrong = |problem: String| {
            Failure::usage(format!(
                "--app {}: {problem}. It must be the directory of a package with a library; \
                 docs/applications.md shows one",
                dir.display()
            ))
        };
        let dir = dir.canonicalize().map_err(|error| wrong(error.to_string()))?;
        let manifest = dir.join("Cargo.toml");
        let text = std::fs::read_to_string(&manifest)
            .map_err(|error| wrong(format!("cannot read its Cargo.toml ({error})")))?;
        let table: toml::Table =
            text.parse().map_err(|error| wrong(format!("its Cargo.toml is not valid: {error}")))?;
        let name = table
            .get("package")
            .and_then(|package| package.get("name")?.as_str())
            .ok_or_else(|| wrong("its Cargo.toml has no `package.name`".into()))?;
        if !table.contains_key("lib") && !dir.join("src/lib.rs").is_file() {
            return Err(wrong(format!("package `{name}` has no library (`src/lib.rs`)")));
        }
        Ok(Self { name: name.into(), dir })
    }

    /// Writes the wrapper package and returns the `cargo build` of it.
    ///
    /// # Errors
    /// Where the wrapper cannot be written.
    pub fn cargo_build(&self, project: &Project) -> Result<Command> {
        let wrapper = project.target_dir.join("app-image");
        std::fs::create_dir_all(&wrapper)
            .with_context(|| format!("cannot create {}", wrapper.display()))?;
        let top = read(&project.root.join("Cargo.toml"))?;
        write(&wrapper.join("Cargo.toml"), &self.wrapper_manifest(&project.root, &top)?)?;
        // The same versions as the plain image; cargo adds those of the application's own dependencies,
        // which stay until the plain image's change.
        let lock = read(&project.root.join("Cargo.lock"))?;
        let fresh = write(&wrapper.join("Cargo.lock.base"), &lock)? == Written::Unchanged;
        if !fresh || !wrapper.join("Cargo.lock").exists() {
            write(&wrapper.join("Cargo.lock"), &lock)?;
        }
        let mut cargo = project.cargo(["build", "--manifest-path"]);
        cargo.arg(wrapper.join("Cargo.toml")).env("CARGO_TARGET_DIR", wrapper.join("target"));
        Ok(cargo)
    }

    fn wrapper_manifest(&self, root: &Path, top: &str) -> Result<String> {
        let top: toml::Table = top.parse().context("the top-level Cargo.toml is not valid")?;
        let path = |path: PathBuf| -> Result<toml::Value> {
            let text = path.into_os_string().into_string();
            let text = text.map_err(|path| Failure::usage(format!("{path:?} is not UTF-8")))?;
            Ok(toml::Value::String(text))
        };
        let mut manifest = toml::toml! {
            [package]
            name = "app-image"
            version = "0.0.0"
            edition = "2024"
            publish = false

            [workspace]

            [features]
            default = ["app"]
            app = []
        };
        let table = |pairs: Vec<(&str, toml::Value)>| {
            let pairs = pairs.into_iter().map(|(key, value)| (key.to_owned(), value));
            toml::Value::Table(pairs.collect())
        };
        let bin = table(vec![
            ("name", "orrery".into()),
            ("path", path(root.join("kernel/src/main.rs"))?),
            ("test", false.into()),
        ]);
        manifest.insert("bin".into(), toml::Value::Array(vec![bin]));
        let app =
            table(vec![("package", self.name.as_str().into()), ("path", path(self.dir.clone())?)]);
        let kernel = table(vec![("path", path(root.join("kernel"))?)]);
        manifest.insert("dependencies".into(), table(vec![("app", app), ("orrery", kernel)]));
        if let Some(profiles) = top.get("profile") {
            manifest.insert("profile".into(), profiles.clone());
        }
        Ok(manifest.to_string())
    }
}

fn read(path: &Path) -> Result<String> {
    std::fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))
}

/// What became of a file.
#[derive(Debug, PartialEq, Eq)]
enum Written {
    Unchanged,
    Anew,
}

/// Writes only what differs, so that cargo's notion of freshness is not disturbed.
fn write(path: &Path, text: &str) -> Result<Written> {
    if std::fs::read_to_string(path).is_ok_and(|old| old == text) {
        return Ok(Written::Unchanged);
    }
    std::fs::write(path, text).with_context(|| format!("cannot write {}", path.display()))?;
    Ok(Written::Anew)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_application_is_said() {
        let dir = tempfile::tempdir().unwrap();
        let refused = |words: &str| {
            let error = App::open(dir.path()).unwrap_err().to_string();
            assert!(error.contains(words) && error.contains("docs/applications.md"), "{error}");
        };
        refused("cannot read its Cargo.toml");
        std::fs::write(dir.path().join("Cargo.toml"), "[package").unwrap();
        refused("not valid");
        std::fs::write(dir.path().join("Cargo.toml"), "[workspace]\n").unwrap();
        refused("no `package.name`");
        std::fs::write(dir.path().join("Cargo.toml"), "[package]\nname = \"a\"\n").unwrap();
        refused("has no library");
        assert!(App::open(&dir.path().join("absent")).is_err());
        std::fs::create_dir(dir.path().join("src")).unwrap();
        std::fs::write(dir.path().join("src/lib.rs"), "").unwrap();
        assert_eq!(App::open(dir.path()).unwrap().name, "a");
    }

    #[test]
    fn the_lock_file_is_copied_when_it_changes() {
        let dir = tempfile::tempdir().unwrap();
        let project = Project::at(dir.path(), dir.path().join("target"));
        let lock = project.target_dir.join("app-image/Cargo.lock");
        let app = App { name: "hello".into(), dir: "/apps/hello".into() };
        std::fs::write(dir.path().join("Cargo.toml"), "[workspace]\n").unwrap();
        for (top, amended) in [("one", "one, amended"), ("two", "two, amended")] {
            std::fs::write(dir.path().join("Cargo.lock"), top).unwrap();
            app.cargo_build(&project).unwrap();
            assert_eq!(std::fs::read_to_string(&lock).unwrap(), top);
            std::fs::write(&lock, amended).unwrap();
            app.cargo_build(&project).unwrap();
            assert_eq!(std::fs::read_to_string(&lock).unwrap(), amended);
        }
    }

    #[test]
    fn the_wrapper_links_kernel_and_application() {
        let app = App { name: "hello".into(), dir: "/apps/hello".into() };
        let top = "[workspace]\n[profile.image]\ninherits = \"release\"\n";
        let text = app.wrapper_manifest(Path::new("/o"), top).unwrap();
        let manifest: toml::Table = text.parse().unwrap();
        assert_eq!(manifest["bin"][0]["path"].as_str(), Some("/o/kernel/src/main.rs"));
        assert_eq!(manifest["dependencies"]["app"]["package"].as_str(), Some("hello"));
        assert_eq!(manifest["dependencies"]["app"]["path"].as_str(), Some("/apps/hello"));
        assert_eq!(manifest["dependencies"]["orrery"]["path"].as_str(), Some("/o/kernel"));
        assert_eq!(manifest["profile"]["image"]["inherits"].as_str(), Some("release"));
        assert_eq!(manifest["features"]["default"][0].as_str(), Some("app"));
        assert!(manifest.contains_key("workspace"));
    }
}
