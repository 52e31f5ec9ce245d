//! The latency suite's own measurements: all of them are made, and under `-icount` two runs tell the same, to the
//! tick.

use std::collections::{BTreeMap, BTreeSet};

use orrery_core::region::Region;
use orrery_tests::Guest;
use trace_tools::events::Known;

/// The table of what is measured.
const TABLE: &str = include_str!("../../docs/latency.md");
/// Samples of each metric.
const SAMPLES: usize = 15;

/// What a boot can measure: what it is called in the table.
#[derive(Clone, Copy)]
struct BootKind {
    cpus: u32,
    idle: &'static str,
}
