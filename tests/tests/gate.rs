//! The latency gate as users run it: a build that is slower by a known number of instructions fails, with the step
//! named; a build that is not passes.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use orrery_tests::{Image, progress, skip, target_dir};
use serde_json::Value;

/// Makes every wake-up slower, by this many instructions at least: what the compiler makes of the rest of the function
/// may add a few.
const PATCH: &str = include_str!("../patches/slower-wake.patch");
const SLOWER_BY: f64 = 41.0;
const A_FEW: f64 = 8.0;
/// A metric with a wake-up in it, and the event that the slower step leads to.
const METRIC: &str = "wake/futex/same-cpu";
const SLOWER_TO: &str = "sched_wakeup";

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap_or(Path::new("/"))
}

/// Runs `cargo xtask latency`, noisy boots left out unless the arguments say how many.
fn gate(arguments: &[&str]) -> Output {
    let mut cargo = Command::new(std::env::var_os("CARGO").unwrap_or("cargo".into()));
    cargo.current_dir(root()).args(["run", "--quiet", "--package", "xtask", "--", "latency"]);
    let output = cargo.args(arguments).stdin(Stdio::null()).output();
    let output = output.unwrap_or_else(|why| panic!("cargo cannot be run: {why}"));
    for line in String::from_utf8_lossy(&output.stderr).lines() {
        progress(line);
    }
    output
}

#[track_caller]
fn ends_with(output: &Output, status: i32) -> String {
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let complaint = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(status), "{text}\n{complaint}");
    text
}

/// The row of a metric in a comparison.
fn row<'a>(comparison: &'a Value, metric: &str) -> &'a Value {
    let rows = comparison["rows"].as_array().map(Vec::as_slice).unwrap_or_default();
    let row = rows.iter().find(|row| row["metric"] == metric);
    row.unwrap_or_else(|| panic!("no {metric} in {comparison:#}"))
}

/// Builds this tree with the patch. `None` where this is no checkout.
fn slower_image() -> Option<PathBuf> {
    // Not below this tree, whose configuration cargo would take for another part of the copy's.
    let dir = tempfile::tempdir().unwrap_or_else(|why| panic!("no temporary directory: {why}"));
    let tree = dir.path().join("tree");
    let listed =
        Command::new("git").arg("-C").arg(root()).args(["ls-files", "-z"]).output().ok()?;
    if !listed.status.success() {
        return None;
    }
    for name in listed.stdout.split(|&byte| byte == 0).filter(|name| !name.is_empty()) {
        let name = String::from_utf8_lossy(name).into_owned();
        let (from, to) = (root().join(&name), tree.join(&name));
        // One that is deleted, though not yet for git.
        if from.exists() {
            let parent = to.parent().unwrap_or(&tree);
            fs::create_dir_all(parent).unwrap_or_else(|why| panic!("{}: {why}", parent.display()));
            fs::copy(&from, &to).unwrap_or_else(|why| panic!("{name}: {why}"));
        }
    }
    let patch = dir.path().join("slower.patch");
    fs::write(&patch, PATCH).unwrap_or_else(|why| panic!("{}: {why}", patch.display()));
    let mut apply = Command::new("git");
    apply.arg("apply").arg(&patch).current_dir(&tree);
    let applied = apply.output().unwrap_or_else(|why| panic!("git: {why}"));
    assert!(
        applied.status.success(),
        "tests/patches/slower-wake.patch does not apply any more: {}",
        String::from_utf8_lossy(&applied.stderr)
    );
    progress("building the slower image");
    // Kept, so that the next time is quicker.
    let target = target_dir().join("orrery/slower");
    let mut cargo = Command::new(std::env::var_os("CARGO").unwrap_or("cargo".into()));
    cargo.current_dir(&tree).env("CARGO_TARGET_DIR", &target).stdin(Stdio::null());
    cargo.args(["build", "--quiet", "--package", "orrery", "--bin", "orrery"]);
    cargo.args(["--target", "x86_64-unknown-none", "--profile", "image"]);
    let built = cargo.output().unwrap_or_else(|why| panic!("cargo: {why}"));
    assert!(built.status.success(), "{}", String::from_utf8_lossy(&built.stderr));
    Some(target.join("x86_64-unknown-none/image/orrery"))
}

#[test]
fn latency_gate_names_the_step_of_a_slower_build() {
    let Some(slower) = slower_image() else {
        skip("latency_gate_names_the_step_of_a_slower_build", "not a git checkout");
        return;
    };
    let dir = tempfile::tempdir().unwrap();
    let [json, junit] = ["gate.json", "gate.xml"].map(|name| dir.path().join(name));
    let image = Image::Fast.path();
    let paths = [&slower, &image, &json, &junit].map(|path| path.to_string_lossy());
    let [slower, image, json_path, junit_path] = paths;
    let output = gate(&[
        "--image",
        &slower,
        "--against-image",
        &image,
        "--only",
        METRIC,
        "--only",
        "null-call",
        "--boots",
        "0",
        "--json",
        &json_path,
        "--junit",
        &junit_path,
    ]);
    let text = ends_with(&output, 3);
    assert!(text.contains("SLOWER") && text.contains("grew most"), "{text}");
    let comparison: Value = serde_json::from_slice(&fs::read(&json).unwrap()).unwrap();
    let slower = row(&comparison, METRIC);
    assert_eq!(slower["verdict"], "slower", "{slower:#}");
    let number = |value: &Value| value.as_f64().unwrap_or(f64::NAN);
    let grew = number(&slower["now_ticks"]) - number(&slower["base_ticks"]);
    assert!((SLOWER_BY..=SLOWER_BY + A_FEW).contains(&grew), "grew by {grew}");
    let step = &slower["breakdown"]["grew_most"];
    assert_eq!(step["to"], SLOWER_TO, "{slower:#}");
    let grew = number(&step["now_ticks"]) - number(&step["base_ticks"]);
    assert!((SLOWER_BY..=SLOWER_BY + A_FEW).contains(&grew), "the step grew by {grew}");
    // What wakes nobody is what it was.
    assert_eq!(row(&comparison, "null-call")["verdict"], "same", "{comparison:#}");
    let junit = fs::read_to_string(&junit).unwrap();
    assert!(junit.contains(r#"failures="1""#) && junit.contains(SLOWER_TO), "{junit}");
}

#[test]
fn latency_gate_passes_an_unchanged_build() {
    let dir = tempfile::tempdir().unwrap();
    let json = dir.path().join("gate.json");
    let (image, json_path) = (Image::Fast.path(), json.to_string_lossy().into_owned());
    let image = image.to_string_lossy();
    let output =
        gate(&["--image", &image, "--against-image", &image, "--boots", "0", "--json", &json_path]);
    ends_with(&output, 0);
    let comparison: Value = serde_json::from_slice(&fs::read(&json).unwrap()).unwrap();
    for row in comparison["rows"].as_array().unwrap() {
        // To the last instruction, not only within limits.
        assert_eq!(row["base_ticks"], row["now_ticks"], "{row:#}");
    }
    assert!(row(&comparison, METRIC)["now_ticks"].as_f64().unwrap() > 0.0);
}

#[test]
fn latency_gate_says_what_cannot_be_measured() {
    let image = Image::Fast.path();
    let image = image.to_string_lossy();
    let output = gate(&["--image", &image, "--against", "no-such-revision"]);
    ends_with(&output, 2);
    let complaint = String::from_utf8_lossy(&output.stderr);
    assert!(complaint.contains("no-such-revision"), "{complaint}");
    let output = gate(&["--image", &image, "--only", "nothing-is-called-so", "--boots", "0"]);
    ends_with(&output, 4);
    let output = gate(&["--image", "/no/such/image", "--only", METRIC, "--boots", "0"]);
    ends_with(&output, 1);
    let complaint = String::from_utf8_lossy(&output.stderr);
    assert!(complaint.contains("/no/such/image"), "{complaint}");
}
