//! Where the clocks contradict the causes.
//!
//! A successful wake-up raises its task's sequence number, and the switch that answers it carries
//! the number. In merged order the wake-up must come first; where it comes later, by a later clock,
//! the two CPUs' clocks disagree by at least the difference.

use std::collections::HashMap;

use serde::Serialize;

use crate::{Trace, events::Known};

/// Contradictions found.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Inversions {
    /// Switches that come before the wake-up they answer.
    pub wakeups: u64,
    /// The largest difference among them, in ticks.
    pub largest_ticks: u64,
    /// Events of one CPU that are earlier than the event before them.
    pub backward_steps: u64,
}

/// What was last seen of a task.
#[derive(Clone, Copy, Default)]
struct Seen {
    woken: Option<u8>,
    /// A switch-in whose wake-up was not seen yet.
    unexplained: Option<(u8, u64)>,
}

/// Looks for contradictions in merged order.
pub fn inversions(trace: &Trace) -> Inversions {
    let mut found = Inversions::default();
    let mut tasks: HashMap<u32, Seen> = HashMap::new();
    let mut last_ticks: HashMap<u16, u64> = HashMap::new();
    for (event, known) in trace.known() {
        let now = event.time_ticks;
        let last = last_ticks.entry(event.cpu).or_default();
        found.backward_steps += u64::from(now < *last);
        *last = now;
        match known {
            Known::SchedWakeup { pid, seq, .. } => {
                let task = tasks.entry(pid).or_default();
                if let Some((_, switched)) = task.unexplained.take_if(|(wanted, _)| *wanted == seq)
                    && now > switched
                {
                    found.wakeups += 1;
                    found.largest_ticks = found.largest_ticks.max(now - switched);
                }
                task.woken = Some(seq);
            }
            Known::SchedSwitch { next, seq, .. } if next != 0 => {
                let task = tasks.entry(next).or_default();
                // The number is ahead of the last wake-up seen: that wake-up is still to come, or lost.
                if task.woken.is_some_and(|woken| (1..128).contains(&seq.wrapping_sub(woken))) {
                    task.unexplained = Some((seq, now));
                }
            }
            Known::TaskNew { pid, .. } => {
                tasks.remove(&pid);
            }
            _ => {}
        }
    }
    found
}
