//! The latency suite: what its boots measure, compared with what they measured before, and judged.
//!
//! A boot of the suite runs a program or a workload that marks *regions* in its trace (a system call, a wake-up, a fork).
//! Each region is a metric; its figure is in instructions where the machine counts them, and then exact. Floors, bottom up:
//!
//! - [`figure`]: a metric's repetitions and the one number that stands for them
//! - [`rank`]: whether two sets of noisy numbers differ at all
//! - [`suite`]: which boots there are, read from `latency/suite.toml`
//! - [`boot`]: one boot, from machine to trace
//! - [`measure`]: all boots of one image, or of two images by turns
//! - [`limits`]: what a metric may cost, read from `latency/limits.toml`
//! - [`baseline`]: what metrics cost when that was last accepted, `latency/baseline.toml`
//! - [`compare`]: base and now, metric by metric, with a verdict for each
//! - [`report`]: comparisons as tables, JSON, JUnit and Markdown
//!
//! `docs/latency.md` is the user's view of it; `cargo xtask latency` the command.
#![forbid(unsafe_code)]

pub mod baseline;
pub mod boot;
pub mod compare;
mod error;
pub mod figure;
pub mod limits;
pub mod measure;
pub mod rank;
pub mod report;
pub mod suite;

pub use error::Error;

/// Result of this library.
pub type Result<T> = std::result::Result<T, Error>;
