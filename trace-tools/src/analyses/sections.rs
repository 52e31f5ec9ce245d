//! Sections in which preemption or interrupts stayed off for long, by where they ended.
//!
//! The kernel tells of those that are longer than `latency_us` of its command line.

use std::collections::BTreeMap;

use serde::Serialize;

use crate::{Trace, events::Known, symbols::Place};

/// What stayed off.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Off {
    /// Interrupts, hence preemption as well.
    Interrupts,
    /// Preemption.
    Preemption,
}

/// The long sections that ended at one place.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct SectionRow {
    /// What was off.
    pub off: Off,
    /// Address of the instruction where it ended.
    pub site: u64,
    /// The place in the source, once [symbols](super::Report::name_places) have said it.
    pub place: Option<Place>,
    /// How many there were.
    pub count: u64,
    /// All of them together.
    pub total_ticks: u64,
    /// The longest.
    pub longest_ticks: u64,
    /// When that ended.
    pub longest_end_ticks: u64,
}

/// The long sections of a trace, the longest first.
pub fn sections(trace: &Trace) -> Vec<SectionRow> {
    let mut rows: BTreeMap<(Off, u64), SectionRow> = BTreeMap::new();
    for (event, known) in trace.known() {
        let (off, ticks, site) = match known {
            Known::PreemptOff { ticks, site } => (Off::Preemption, u64::from(ticks), site),
            Known::IrqOff { ticks, site } => (Off::Interrupts, u64::from(ticks), site),
            _ => continue,
        };
        let row = rows.entry((off, site)).or_insert_with(|| SectionRow {
            off,
            site,
            place: None,
            count: 0,
            total_ticks: 0,
            longest_ticks: 0,
            longest_end_ticks: 0,
        });
        row.count += 1;
        row.total_ticks = row.total_ticks.saturating_add(ticks);
        if ticks > row.longest_ticks {
            (row.longest_ticks, row.longest_end_ticks) = (ticks, event.time_ticks);
        }
    }
    let mut rows: Vec<_> = rows.into_values().collect();
    rows.sort_by_key(|row| (std::cmp::Reverse(row.longest_ticks), row.off, row.site));
    rows
}
