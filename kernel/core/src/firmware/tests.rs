//! Tests of both modules, against models that are slow and obvious.

use std::vec;
use std::vec::Vec;

use proptest::prelude::*;

use super::madt::{DamagedEntry, HEADER_BYTES, IsaRoute, isa_route, usable_cpus};
use super::memory_map::{MemoryKind, MemoryMap, MemoryRange};

const PAGE: u64 = 4096;
/// Pages in the address space of the model.
const PAGES: usize = 48;

fn kind() -> impl Strategy<Value = MemoryKind> {
    prop_oneof![
        3 => Just(MemoryKind::Usable),
        1 => Just(MemoryKind::Loader),
        1 => Just(MemoryKind::Bundle),
        1 => Just(MemoryKind::Acpi),
        1 => Just(MemoryKind::Image),
        1 => Just(MemoryKind::Reserved),
    ]
}

/// Which pages a range of bytes stands for.
fn pages(start: u64, len_bytes: u64, kind: MemoryKind) -> core::ops::Range<u64> {
    let end = start + len_bytes;
    match kind {
        MemoryKind::Usable => start.div_ceil(PAGE)..end / PAGE,
        _ => start / PAGE..end.div_ceil(PAGE),
    }
}

proptest! {
    #[test]
    fn the_least_usable_kind_wins(
        ranges in prop::collection::vec(
            (0..PAGES as u64 * PAGE, 0..12 * PAGE, kind()), 0..24,
        )
    ) {
        let mut map = MemoryMap::new();
        let mut model: Vec<Option<MemoryKind>> = vec![None; PAGES + 16];
        for &(start, len_bytes, kind) in &ranges {
            map.add(start, len_bytes, kind);
            for page in pages(start, len_bytes, kind) {
                let known = &mut model[page as usize];
                *known = Some(known.map_or(kind, |known| known.max(kind)));
            }
        }
        for pair in map.ranges().windows(2) {
            prop_assert!(pair[0].end <= pair[1].start, "sorted, without overlaps: {pair:?}");
            let merged = pair[0].end < pair[1].start || pair[0].kind != pair[1].kind;
            prop_assert!(merged, "neighbours of one kind are one range: {pair:?}");
        }
        for (page, expected) in model.iter().enumerate() {
            let at = page as u64 * PAGE;
            let found = map.ranges().iter().find(|range| (range.start..range.end).contains(&at));
            prop_assert_eq!(found.map(|range| range.kind), *expected, "page {}", page);
        }
        prop_assert_eq!(map.dropped(), 0);
    }

    #[test]
    fn any_addresses_are_taken(
        ranges in prop::collection::vec((any::<u64>(), any::<u64>(), kind()), 0..64)
    ) {
        let mut map = MemoryMap::new();
        for (start, len_bytes, kind) in ranges {
            map.add(start, len_bytes, kind);
        }
        for range in map.ranges() {
            prop_assert!(range.start < range.end && range.start % PAGE == 0 && range.end % PAGE == 0);
        }
    }

    #[test]
    fn any_bytes_are_a_table(table in prop::collection::vec(any::<u8>(), 0..400)) {
        let found: Vec<_> = usable_cpus(&table).collect();
        prop_assert!(found.len() <= table.len());
        let _ = isa_route(&table, 3);
        let damaged = found.iter().filter(|entry| entry.is_err()).count();
        prop_assert!(damaged == 0 || (damaged == 1 && found.last().is_some_and(Result::is_err)));
    }

    #[test]
    fn listed_cpus_are_found(
        cpus in prop::collection::vec((any::<u32>(), any::<bool>(), any::<bool>()), 0..40),
        cut in any::<prop::sample::Index>(),
    ) {
        let mut table = vec![0; HEADER_BYTES];
        let mut expected = Vec::new();
        let mut ends = Vec::new();
        for &(apic_id, enabled, wide) in &cpus {
            let flags = u32::from(enabled).to_le_bytes();
            if wide {
                table.extend([9, 16, 0, 0]);
                table.extend(apic_id.to_le_bytes());
                table.extend(flags);
                table.extend([0; 4]);
            } else {
                table.extend([0, 8, 7, apic_id as u8]);
                table.extend(flags);
            }
            let listed = if wide { apic_id } else { apic_id & 0xFF };
            expected.extend(enabled.then_some(listed));
            ends.push((table.len(), expected.len()));
            table.extend([1, 12, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
        }
        let found: Result<Vec<_>, _> = usable_cpus(&table).collect();
        prop_assert_eq!(found, Ok(expected.clone()));

        // Cut off anywhere: what came whole is found, and what did not is reported.
        let len_bytes = HEADER_BYTES + cut.index(table.len() - HEADER_BYTES + 1);
        let found: Vec<_> = usable_cpus(&table[..len_bytes]).collect();
        let whole = ends.iter().rfind(|(end, _)| *end <= len_bytes).map_or(0, |(_, count)| *count);
        let ok: Vec<_> = found.iter().filter_map(|entry| entry.ok()).collect();
        prop_assert_eq!(ok, &expected[..whole]);
    }
}

#[test]
fn a_full_map_says_what_it_dropped() {
    let mut map = MemoryMap::new();
    for at in 0..300 {
        map.add(at * 2 * PAGE, PAGE, MemoryKind::Usable);
    }
    assert_eq!(map.ranges().len() + map.dropped(), 300);
    assert!(map.dropped() > 0);
}

#[test]
fn carving_splits() {
    let mut map = MemoryMap::new();
    map.add(0, 10 * PAGE, MemoryKind::Usable);
    map.add(3 * PAGE + 1, 1, MemoryKind::Image);
    let range = |start, end, kind| MemoryRange { start: start * PAGE, end: end * PAGE, kind };
    assert_eq!(
        map.ranges(),
        [
            range(0, 3, MemoryKind::Usable),
            range(3, 4, MemoryKind::Image),
            range(4, 10, MemoryKind::Usable),
        ]
    );
}

#[test]
fn an_entry_of_length_zero_ends_the_table() {
    let mut table = vec![0; HEADER_BYTES];
    table.extend([5, 0]);
    let found: Vec<_> = usable_cpus(&table).collect();
    assert_eq!(found, [Err(DamagedEntry { offset: HEADER_BYTES })]);
}

#[test]
fn isa_interrupts_find_their_io_apic() {
    let mut table = vec![0; HEADER_BYTES];
    assert_eq!(isa_route(&table, 3), None);
    for (address, base) in [(0xfec0_0000u32, 0u32), (0xfec1_0000, 24)] {
        table.extend([1, 12, 0, 0]);
        table.extend(address.to_le_bytes());
        table.extend(base.to_le_bytes());
    }
    let route = |io_apic, input, flags| Some(IsaRoute { io_apic, input, flags });
    assert_eq!(isa_route(&table, 3), route(0xfec0_0000, 3, 0));
    table.extend([2, 10, 0, 3, 26, 0, 0, 0, 0xD, 0]);
    assert_eq!(isa_route(&table, 3), route(0xfec1_0000, 2, 0xD));
    assert_eq!(isa_route(&table, 4), route(0xfec0_0000, 4, 0));
}
