//! What a trace says, as plain data: pure functions of a trace or its model.
//!
//! Times are in ticks of the trace clock; [`crate::views`] makes them readable.

mod info;
mod inversions;
mod path;
mod regions;
mod report;
mod sections;

pub use info::{CpuInfo, Info, info, is_lossy};
pub use inversions::{Inversions, inversions};
pub use path::{END, Path, START, SideBySide, Step, grew_most, most_frequent, path, side_by_side};
pub use regions::{Measured, Regions, regions};
pub use report::{CpuRow, Percentiles, Report, TaskRow, report};
pub use sections::{Off, SectionRow, sections};
