//! Areas against a model that knows each page by itself.

use std::collections::BTreeMap;
use std::vec;
use std::vec::Vec;

use proptest::prelude::*;

use super::PAGE_BYTES;
use super::area::{Area, AreaFlags, Areas, Backing, MAX_AREAS, Protection, TooManyAreas};

/// A file and an offset, or nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Source(Option<(u8, u64)>);

impl Backing for Source {
    fn advance(&self, bytes: u64) -> Self {
        Self(self.0.map(|(file, offset)| (file, offset + bytes)))
    }

    fn is_continued_by(&self, next: &Self, bytes: u64) -> bool {
        self.advance(bytes) == *next
    }
}

/// Pages of the model's window.
const PAGES: u64 = if cfg!(miri) { 40 } else { 600 };

#[derive(Clone, Debug)]
enum Op {
    Insert { at: u64, pages: u64, bits: u64, file: Option<u8> },
    Remove { at: u64, pages: u64 },
    Protect { at: u64, pages: u64, bits: u64 },
    Clone,
}

fn op() -> impl Strategy<Value = Op> {
    let range = || (0..PAGES, prop_oneof![4 => 1..4u64, 1 => 1..40u64]);
    prop_oneof![
        9 => (range(), 0..4u64, prop::option::of(0..2u8)).prop_map(|((at, pages), bits, file)| {
            Op::Insert { at, pages, bits, file }
        }),
        3 => range().prop_map(|(at, pages)| Op::Remove { at, pages }),
        1 => (0..PAGES, 1..PAGES).prop_map(|(at, pages)| Op::Remove { at, pages }),
        2 => (range(), 0..4u64).prop_map(|((at, pages), bits)| Op::Protect { at, pages, bits }),
        1 => Just(Op::Clone),
    ]
}

type Model = BTreeMap<u64, (Protection, Source)>;

fn check(areas: &Areas<Source>, model: &Model) {
    let mut seen = Model::new();
    let mut previous: Option<Area<Source>> = None;
    for area in areas.iter() {
        assert!(area.start < area.end);
        if let Some(previous) = previous {
            assert!(previous.end <= area.start);
            let is_alike = previous.end == area.start
                && previous.protection == area.protection
                && previous.backing.is_continued_by(&area.backing, previous.len_bytes());
            assert!(!is_alike, "neighbours that are alike are not one");
        }
        for page in area.start / PAGE_BYTES..area.end / PAGE_BYTES {
            let source = area.backing.advance(page * PAGE_BYTES - area.start);
            seen.insert(page, (area.protection, source));
        }
        previous = Some(area.clone());
    }
    assert_eq!(&seen, model);
    assert_eq!(areas.len(), areas.iter().count());
    assert_eq!(areas.bytes(), model.len() as u64 * PAGE_BYTES);
    for page in 0..PAGES + 50 {
        let found = areas.find(page * PAGE_BYTES + 5);
        assert_eq!(found.is_some(), model.contains_key(&page));
        let last = model.range(..page).next_back().map(|it| *it.0);
        let below = areas.last_below(page * PAGE_BYTES);
        assert_eq!(below.is_some(), last.is_some());
        assert!(below.is_none_or(|it| it.contains(last.unwrap_or(0) * PAGE_BYTES)));
    }
}

/// The highest gap, the slow way.
fn highest_gap(model: &Model, pages: u64, low: u64, high: u64) -> Option<u64> {
    (low..(high + 1).saturating_sub(pages))
        .rev()
        .find(|&start| start + pages <= high && model.range(start..start + pages).next().is_none())
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: if cfg!(miri) { 2 } else { 200 },
        failure_persistence: None,
        ..ProptestConfig::default()
    })]

    #[test]
    fn areas_are_what_each_page_says(
        ops in prop::collection::vec(op(), 0..if cfg!(miri) { 10 } else { 250 }),
        gaps in prop::collection::vec((1..30u64, 0..PAGES, 0..PAGES), 20),
    ) {
        let mut areas = Areas::default();
        let mut model = Model::new();
        let mut clones = vec![];
        for op in ops {
            match op {
                Op::Insert { at, pages, bits, file } => {
                    let (start, end) = (at * PAGE_BYTES, (at + pages) * PAGE_BYTES);
                    let is_free = model.range(at..at + pages).next().is_none();
                    prop_assert_eq!(areas.is_free(start, end), is_free);
                    if is_free {
                        let protection = Protection::from_bits(bits).unwrap();
                        let backing = Source(file.map(|file| (file, at * PAGE_BYTES)));
                        let flags = AreaFlags::NONE;
                        areas.insert(Area { start, end, protection, flags, backing }).unwrap();
                        for page in at..at + pages {
                            model.insert(page, (protection, backing.advance((page - at) * PAGE_BYTES)));
                        }
                    }
                }
                Op::Remove { at, pages } => {
                    let (start, end) = (at * PAGE_BYTES, (at + pages) * PAGE_BYTES);
                    let bytes = model.range(at..at + pages).count() as u64 * PAGE_BYTES;
                    prop_assert_eq!(areas.bytes_within(start, end), bytes);
                    areas.remove(start, end).unwrap();
                    model.retain(|page, _| !(at..at + pages).contains(page));
                }
                Op::Protect { at, pages, bits } => {
                    let protection = Protection::from_bits(bits).unwrap();
                    let covered = model.range(at..at + pages).count() as u64 == pages;
                    let (start, end) = (at * PAGE_BYTES, (at + pages) * PAGE_BYTES);
                    prop_assert_eq!(areas.covers(start, end), covered);
                    areas.protect(start, end, protection, || {}).unwrap();
                    model.range_mut(at..at + pages).for_each(|(_, page)| page.0 = protection);
                }
                Op::Clone => clones.push((areas.clone(), model.clone())),
            }
        }
        for (pages, low, high) in gaps {
            let found = areas.highest_gap(pages * PAGE_BYTES, low * PAGE_BYTES, high * PAGE_BYTES);
            let expected = highest_gap(&model, pages, low, high);
            prop_assert_eq!(found.map(|it| it / PAGE_BYTES), expected);
        }
        check(&areas, &model);
        for (areas, model) in clones.iter().rev().take(3) {
            check(areas, model);
        }
    }
}

fn area(page: u64) -> Area<Source> {
    let (start, end) = (page * PAGE_BYTES, (page + 1) * PAGE_BYTES);
    let (protection, flags, backing) = (Protection::READ, AreaFlags::NONE, Source(None));
    Area { start, end, protection, flags, backing }
}

#[test]
#[cfg_attr(miri, ignore = "many areas")]
fn there_is_a_limit() {
    let mut areas = Areas::default();
    for page in 0..MAX_AREAS as u64 {
        areas.insert(area(page * 2)).unwrap();
    }
    let full = areas.clone();
    assert_eq!(areas.insert(area(3 * MAX_AREAS as u64)), Err(TooManyAreas));
    areas.insert(area(1)).unwrap();
    assert_eq!(areas.len(), MAX_AREAS - 1);
    assert_eq!(areas.remove(PAGE_BYTES, 2 * PAGE_BYTES), Ok(()));
    let in_the_middle = areas.remove(PAGE_BYTES, 2 * PAGE_BYTES);
    assert_eq!((in_the_middle, areas.len(), full.len()), (Ok(()), MAX_AREAS, MAX_AREAS));
    let starts: Vec<u64> = areas.iter().map(|it| it.start / PAGE_BYTES).collect();
    assert!(starts.iter().enumerate().all(|(n, &page)| page == 2 * n as u64));
    for page in 0..MAX_AREAS as u64 {
        areas.remove(page * 2 * PAGE_BYTES, (page * 2 + 1) * PAGE_BYTES).unwrap();
    }
    assert!(areas.is_empty() && areas.bytes() == 0 && full.len() == MAX_AREAS);
}
