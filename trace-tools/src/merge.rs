//! One order out of many CPUs' orders.
//!
//! Events of one CPU are in the order in which they were written. CPUs are merged by their clocks,
//! which agree only approximately; causes are not guessed from times. What contradicts the clocks
//! is found by the per-task sequence number that a wake-up increments and the switch that answers
//! it repeats: [`crate::analyses::inversions`].

use std::{cmp::Reverse, collections::BinaryHeap};

use crate::events::Event;

/// Merges the events of several CPUs, each in its own order, by time; equal times by CPU. A clock
/// that runs backwards on one CPU does not reorder that CPU's events.
pub fn merge(cpus: Vec<Vec<Event>>) -> Vec<Event> {
    let mut cpus: Vec<_> = cpus.into_iter().filter(|events| !events.is_empty()).collect();
    if cpus.len() <= 1 {
        return cpus.pop().unwrap_or_default();
    }
    let mut merged = Vec::with_capacity(cpus.iter().map(Vec::len).sum());
    let mut next = vec![0; cpus.len()];
    let mut heads: BinaryHeap<_> = cpus
        .iter()
        .enumerate()
        .map(|(lane, events)| Reverse((events[0].time_ticks, events[0].cpu, lane)))
        .collect();
    while let Some(Reverse((_, _, lane))) = heads.pop() {
        let rival = heads.peek().map(|Reverse((time, cpu, _))| (*time, *cpu));
        let events = &cpus[lane];
        let from = next[lane];
        // The first is this lane's turn; the others while they come before every other lane.
        let until = events[from + 1..]
            .iter()
            .position(|event| rival.is_some_and(|rival| rival < (event.time_ticks, event.cpu)))
            .map_or(events.len(), |run| from + 1 + run);
        merged.extend_from_slice(&events[from..until]);
        next[lane] = until;
        match events.get(until) {
            Some(event) => heads.push(Reverse((event.time_ticks, event.cpu, lane))),
            // What is merged is not needed twice.
            None => cpus[lane] = Vec::new(),
        }
    }
    merged
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn event(time_ticks: u64, cpu: u16, data: u64) -> Event {
        Event { time_ticks, data, pid: 0, cpu, plan: 0 }
    }

    proptest! {
        #[test]
        fn agrees_with_a_stable_sort(cpus in prop::collection::vec(prop::collection::vec(0u64..50, 0..40), 0..6)) {
            let cpus: Vec<Vec<Event>> = cpus
                .into_iter()
                .enumerate()
                .map(|(cpu, mut times)| {
                    times.sort_unstable();
                    times.into_iter().zip(0..).map(|(time, n)| event(time, cpu as u16, n)).collect()
                })
                .collect();
            let mut sorted: Vec<Event> = cpus.iter().flatten().copied().collect();
            sorted.sort_by_key(|event| (event.time_ticks, event.cpu));
            prop_assert_eq!(merge(cpus), sorted);
        }

        #[test]
        fn keeps_each_cpus_order_whatever_its_clock(cpus in prop::collection::vec(prop::collection::vec(0u64..50, 0..40), 0..6)) {
            let cpus: Vec<Vec<Event>> = cpus
                .into_iter()
                .enumerate()
                .map(|(cpu, times)| {
                    times.into_iter().zip(0..).map(|(time, n)| event(time, cpu as u16, n)).collect()
                })
                .collect();
            let merged = merge(cpus.clone());
            for (cpu, events) in cpus.iter().enumerate() {
                let own: Vec<Event> =
                    merged.iter().filter(|event| usize::from(event.cpu) == cpu).copied().collect();
                prop_assert_eq!(&own, events);
            }
        }
    }
}
