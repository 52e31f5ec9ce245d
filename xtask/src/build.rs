//! Builds the image and makes sure that it can be traced.

use crate::{
    app::App,
    project::{IMAGE_TARGET, Project, display},
    setup::{self, Need},
};
use anyhow::{Context, Result, bail};
use object::{Object, ObjectSection, ObjectSymbol};
use std::{
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

/// How the image is compiled: a profile of the top-level `Cargo.toml`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Profile {
    /// As users run it.
    Image,
    /// With debug assertions, overflow checks and lock-order checks.
    Checked,
}

impl Profile {
    /// The profile that a `--checked` option asks for.
    pub fn new(checked: bool) -> Self {
        if checked { Self::Checked } else { Self::Image }
    }

    /// The profile's name for cargo.
    pub fn name(self) -> &'static str {
        match self {
            Self::Image => "image",
            Self::Checked => "image-checked",
        }
    }
}

/// Builds the image, with the user's application in it where there is one, and returns its ELF file.
///
/// # Errors
/// Where something is missing that cannot be installed, where the build fails, and where the result
/// could not be traced.
pub fn image(project: &Project, profile: Profile, app: Option<&App>) -> Result<PathBuf> {
    let cargo = match app {
        None => project.cargo(["build", "--package", "orrery"]),
        Some(app) => app.cargo_build(project)?,
    };
    finish(cargo, profile)
}

/// As [`image`], with this archive in it, which the kernel takes for its bundle where the loader brings none.
///
/// # Errors
/// As [`image`].
pub fn image_with_bundle(project: &Project, profile: Profile, bundle: &Path) -> Result<PathBuf> {
    let mut cargo = project.cargo(["build", "--package", "orrery", "--features", "bundle"]);
    cargo.env("ORRERY_BUNDLE", bundle);
    let elf = finish(cargo, profile)?;
    // The next ordinary build puts its image into the same place.
    let kept = project.out_dir()?.join("orrery-with-program");
    std::fs::copy(&elf, &kept).with_context(|| format!("cannot write {}", kept.display()))?;
    Ok(kept)
}

fn finish(mut cargo: Command, profile: Profile) -> Result<PathBuf> {
    setup::ensure(&[Need::ImageTarget])?;
    cargo.args(["--bin", "orrery", "--target", IMAGE_TARGET, "--profile", profile.name()]);
    cargo.args(["--message-format", "json-render-diagnostics"]);
    let output = cargo
        .stdin(Stdio::null())
        .stderr(Stdio::inherit())
        .output()
        .with_context(|| format!("cannot run `{}`", display(&cargo)))?;
    if !output.status.success() {
        bail!("the image does not build");
    }
    let elf = executable(&output.stdout).context("cargo built no executable named `orrery`")?;
    let bytes = std::fs::read(&elf).with_context(|| format!("cannot read {}", elf.display()))?;
    verify(&bytes).with_context(|| format!("{} cannot be traced", elf.display()))?;
    Ok(elf)
}

/// The executable named `orrery` in cargo's messages.
fn executable(messages: &[u8]) -> Option<PathBuf> {
    let messages = String::from_utf8_lossy(messages);
    messages
        .lines()
        .filter_map(|line| serde_json::from_str::<serde_json::Value>(line).ok())
        .filter(|message| message["target"]["name"] == "orrery")
        .find_map(|message| message["executable"].as_str().map(PathBuf::from))
}

/// Looks for what the host needs to decode the image's trace. Each of these goes missing silently when a linker
/// argument is forgotten.
fn verify(elf: &[u8]) -> Result<()> {
    let file = object::File::parse(elf).context("not an ELF file")?;
    if !file.symbols().any(|symbol| symbol.name() == Ok("__DEFMT_MARKER_END")) {
        bail!("no symbol `__DEFMT_MARKER_END`: the linker was not given `-Tdefmt.x`");
    }
    let table = file.section_by_name(".defmt").context("no section `.defmt`")?;
    let in_table = |symbol: &object::Symbol<'_, '_>| {
        symbol.section_index() == Some(table.index())
            && symbol.name().is_ok_and(|name| name.starts_with('{'))
    };
    if !file.symbols().any(|symbol| in_table(&symbol)) {
        bail!("section `.defmt` holds no statements: the image has no events");
    }
    if file.build_id().ok().flatten().is_none_or(<[u8]>::is_empty) {
        bail!("no GNU build id: the linker was not given `--build-id`");
    }
    Ok(())
}

/// `cargo xtask build`: builds and prints where the image is.
///
/// # Errors
/// As [`image`].
pub fn build(project: &Project, profile: Profile, app: Option<&Path>) -> Result<()> {
    let app = app.map(App::open).transpose()?;
    println!("{}", image(project, profile, app.as_ref())?.display());
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_executable_is_found_among_messages() {
        let messages = br#"
{"reason":"compiler-artifact","target":{"name":"orrery"},"executable":null}
{"reason":"compiler-artifact","target":{"name":"orrery"},"executable":"/t/orrery"}
not json
{"reason":"build-finished","success":true}"#;
        assert_eq!(executable(messages), Some("/t/orrery".into()));
        assert_eq!(executable(b"{}"), None);
    }

    #[test]
    fn an_untraceable_file_is_refused() {
        assert!(format!("{:#}", verify(b"junk").unwrap_err()).contains("not an ELF file"));
        let this = std::fs::read(std::env::current_exe().unwrap()).unwrap();
        assert!(verify(&this).unwrap_err().to_string().contains("-Tdefmt.x"));
    }
}
