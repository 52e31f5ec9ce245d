//! Boots the image and judges what it did.
//!
//! A [`Guest`] describes one run of the image; [`Guest::run`] boots it and gives an [`Outcome`]: how it
//! ended, what it said, and its decoded trace. The verdicts are read from the trace, by the
//! functions of [`judge`], and never from how long something took on the host.
//!
//! ```no_run
//! use orrery_tests::{Guest, judge};
//!
//! let outcome = Guest::new().smp(4).workload("pingpong,rounds=1000").run();
//! let trace = outcome.succeeded();
//! judge::affinity(trace);
//! ```
//!
//! The images come from `cargo xtask test guest`, which builds them and names them in `ORRERY_IMAGE` and
//! `ORRERY_IMAGE_CHECKED` (with run-time checks). A run whose test fails leaves its recording in
//! `target/orrery/failed/`. At most two guests run at once, whatever number of tests does.
//!
//! Neighbours: `machine` knows how to run a guest, `trace-tools` what its trace means.

mod guest;
pub mod judge;
mod outcome;
pub mod programs;
mod turnstile;

pub use guest::{Guest, Image, program_path};
pub use machine::{Boot, Clock, Limine, MachineType, Port, Status};
pub use outcome::Outcome;

use std::io::Write;
use std::path::{Path, PathBuf};

/// Cargo's target directory.
pub fn target_dir() -> PathBuf {
    match std::env::var_os("CARGO_TARGET_DIR").filter(|dir| !dir.is_empty()) {
        Some(dir) => dir.into(),
        None => Path::new(env!("CARGO_MANIFEST_DIR")).join("../target"),
    }
}

/// Says that this test cannot run here. `cargo xtask test` counts it as skipped, not as passed.
pub fn skip(test: &str, reason: &str) {
    // Past libtest's capture, in one piece. Nobody is left to tell if standard output is closed.
    let _ = std::io::stdout().write_all(format!("SKIPPED {test}: {reason}\n").as_bytes());
}

/// A line for the person who waits, past libtest's capture.
pub fn progress(line: &str) {
    let _ = std::io::stderr().write_all(format!("  {line}\n").as_bytes());
}
