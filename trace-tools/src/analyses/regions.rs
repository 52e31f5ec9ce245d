//! Regions that programs and applications measured and marked.
//!
//! A region is told by one `mark` event after it has ended (the line that [`orrery_core::region`] describes), or by a
//! pair of marks `begin NAME` and `end NAME` of one task, which is what a shell script can write; that pair's own cost is
//! then part of it.

use std::collections::{BTreeMap, HashMap};

use orrery_core::region::Region;
use serde::Serialize;

use crate::{Trace, events::Known};

/// A region of a trace.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Measured {
    /// Clock when it began.
    pub start_ticks: u64,
    /// Clock when it ended; not before it began.
    pub end_ticks: u64,
    /// Operations in it, at least 1.
    pub ops: u64,
    /// CPU that told of it.
    pub cpu: u16,
    /// Task that told of it.
    pub pid: u32,
}

impl Measured {
    /// How long it took.
    pub fn ticks(&self) -> u64 {
        self.end_ticks.saturating_sub(self.start_ticks)
    }

    /// How long one operation took.
    pub fn ticks_per_op(&self) -> f64 {
        self.ticks() as f64 / self.ops.max(1) as f64
    }
}

/// All regions of a trace, by name, each in the order in which they were told.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Regions {
    /// The regions.
    pub by_name: BTreeMap<String, Vec<Measured>>,
    /// Marks that look like a region and are none, and why.
    pub malformed: Vec<String>,
}

/// Finds the regions of a trace.
pub fn regions(trace: &Trace) -> Regions {
    let mut found = Regions::default();
    let mut open: HashMap<(u32, String), u64> = HashMap::new();
    for (event, known) in trace.known() {
        let Known::Mark { text, .. } = known else { continue };
        let text = text.to_text();
        let (word, name) = text.split_once(' ').unwrap_or((&text, ""));
        let measured = |start_ticks, end_ticks, ops| Measured {
            start_ticks,
            end_ticks,
            ops,
            cpu: event.cpu,
            pid: event.pid,
        };
        match word {
            "region" => match Region::parse(&text) {
                Some(Ok(region)) => {
                    let one =
                        measured(region.start_ticks(), region.end_ticks(), region.ops().into());
                    found.by_name.entry(region.name().to_owned()).or_default().push(one);
                }
                Some(Err(why)) => found.malformed.push(format!("`{text}`: {why}")),
                None => {}
            },
            "begin" | "end" if Region::new(name, 0, 0, 1).is_err() => {
                found.malformed.push(format!("`{text}`: `{name}` is no region's name"));
            }
            "begin" => {
                open.insert((event.pid, name.to_owned()), event.time_ticks);
            }
            "end" => match open.remove(&(event.pid, name.to_owned())) {
                Some(start) => {
                    let one = measured(start, event.time_ticks.max(start), 1);
                    found.by_name.entry(name.to_owned()).or_default().push(one);
                }
                None => found.malformed.push(format!("`{text}`: the task began no such region")),
            },
            _ => {}
        }
    }
    found
}
