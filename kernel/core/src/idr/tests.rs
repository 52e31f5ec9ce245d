//! The map against a `BTreeMap`, with memory that runs out.

use super::*;
use crate::epoch::Epoch;
use proptest::prelude::*;
use std::collections::BTreeMap;
use std::vec::Vec;

/// One tree and all it needs. With every CPU idle, what is deferred is freed at the next poll.
struct Fixture {
    idr: Idr<u32>,
    writer: Writer,
    deferred: Deferred,
    epoch: Epoch,
}

impl Fixture {
    fn new() -> Self {
        Self {
            idr: Idr::new(),
            // SAFETY: the only writer of the tree beside it.
            writer: unsafe { Writer::new() },
            deferred: Deferred::new(),
            epoch: Epoch::new(),
        }
    }

    fn lowest(&mut self, min: u32, max: u32) -> Result<u32, IdrError> {
        self.idr.reserve_lowest(&mut self.writer, min, max)
    }

    fn remove(&mut self, id: u32) -> Option<u32> {
        let value = self.idr.remove(&mut self.writer, id, &mut self.deferred);
        self.deferred.poll(&self.epoch);
        value.map(untag)
    }

    fn trim(&mut self) {
        self.idr.trim(&mut self.writer, &mut self.deferred);
        self.deferred.poll(&self.epoch);
    }

    fn publish(&mut self, id: u32) {
        self.idr.publish(&mut self.writer, id, tag(id));
    }

    fn lookup(&self, id: u32) -> Option<u32> {
        self.idr.lookup(id, &section()).map(untag)
    }

    fn ids(&self) -> Vec<u32> {
        let mut ids = Vec::new();
        let mut from = 0;
        while let Some((id, value)) = self.idr.next(from, &section()) {
            assert_eq!(untag(value), id);
            ids.push(id);
            let Some(next) = id.checked_add(1) else { break };
            from = next;
        }
        ids
    }
}

fn section() -> ReadSide {
    // SAFETY: these tests are single-threaded, and poll outside of lookups only.
    unsafe { ReadSide::assume() }
}

/// A pointer that is never followed, and remembers its id.
fn tag(id: u32) -> NonNull<u32> {
    NonNull::new(ptr::without_provenance_mut(id as usize * 4 + 4)).unwrap()
}

fn untag(value: NonNull<u32>) -> u32 {
    (value.addr().get() / 4 - 1) as u32
}

#[test]
fn a_reserved_id_is_taken_but_not_found_until_published() {
    let mut fixture = Fixture::new();
    assert_eq!(fixture.lookup(0), None);
    assert_eq!(fixture.lowest(0, 10), Ok(0));
    assert_eq!(fixture.lowest(0, 10), Ok(1));
    assert_eq!(fixture.lookup(0), None);
    assert!(fixture.ids().is_empty());
    fixture.publish(1);
    assert_eq!(fixture.lookup(1), Some(1));
    assert_eq!(fixture.ids(), [1]);
    assert_eq!(fixture.remove(0), None);
    assert_eq!(fixture.remove(1), Some(1));
    assert_eq!(fixture.remove(1), None);
    assert_eq!(fixture.lookup(1), None);
    assert_eq!(fixture.deferred.pending(), 0);
}

#[test]
fn the_whole_range_of_ids_works() {
    let mut fixture = Fixture::new();
    for id in [0, 63, 64, 4095, 4096, 262_143, 1 << 22, u32::MAX - 1, u32::MAX] {
        assert_eq!(fixture.idr.reserve_at(&mut fixture.writer, id), Ok(()));
        assert_eq!(fixture.idr.reserve_at(&mut fixture.writer, id), Err(IdrError::Taken));
        fixture.publish(id);
        assert_eq!(fixture.lookup(id), Some(id));
    }
    assert_eq!(fixture.ids().len(), 9);
    assert_eq!(fixture.lowest(u32::MAX - 1, u32::MAX), Err(IdrError::Full));
    assert_eq!(fixture.lowest(u32::MAX - 2, u32::MAX), Ok(u32::MAX - 2));
    assert_eq!(fixture.lowest(62, 64), Ok(62));
    assert_eq!(fixture.lowest(62, 64), Err(IdrError::Full));
}

#[test]
fn cyclic_allocation_goes_on_and_wraps_to_the_minimum() {
    let mut fixture = Fixture::new();
    let mut cursor = 5;
    let mut got = Vec::new();
    for _ in 0..7 {
        let id = fixture.idr.reserve_cyclic(&mut fixture.writer, cursor, 3, 9).unwrap();
        cursor = id + 1;
        got.push(id);
    }
    assert_eq!(got, [5, 6, 7, 8, 9, 3, 4]);
    let full = fixture.idr.reserve_cyclic(&mut fixture.writer, cursor, 3, 9);
    assert_eq!(full, Err(IdrError::Full));
}

/// The cost of finding the lowest free id is a matter of levels, not of ids.
#[test]
fn the_last_leaf_that_became_empty_is_kept() {
    let mut fixture = Fixture::new();
    fixture.lowest(1, 100).unwrap();
    for id in [200, 300] {
        assert_eq!(fixture.lowest(id, id), Ok(id));
        fixture.remove(id);
    }
    // The leaf of 300 is still there, that of 200 is not; the ids around them are free all the same.
    fixture.writer.allocations_left = 0;
    assert_eq!(fixture.lowest(200, 299), Err(IdrError::OutOfMemory));
    assert_eq!(fixture.lowest(301, 310), Ok(301));
    // One that is in use again is not given up for another.
    fixture.writer.allocations_left = usize::MAX;
    assert_eq!(fixture.lowest(200, 200), Ok(200));
    fixture.remove(200);
    fixture.publish(301);
    assert_eq!(fixture.lookup(301), Some(301));
    fixture.remove(301);
    fixture.trim();
    fixture.writer.allocations_left = 0;
    assert_eq!(fixture.lowest(300, 300), Err(IdrError::OutOfMemory));
}

#[test]
fn a_search_visits_at_most_two_nodes_per_level() {
    let mut fixture = Fixture::new();
    let count = if cfg!(miri) { 300 } else { 100_000 };
    for id in 0..count {
        fixture.writer.visited = 0;
        assert_eq!(fixture.lowest(0, u32::MAX), Ok(id));
        assert!(fixture.writer.visited <= 3, "{} nodes at id {id}", fixture.writer.visited);
    }
    for id in (0..count).step_by(97) {
        assert_eq!(fixture.remove(id), None);
        fixture.writer.visited = 0;
        assert_eq!(fixture.lowest(id / 2 + 1, u32::MAX), Ok(id.max(count * u32::from(id == 0))));
        assert!(fixture.writer.visited <= 6, "{} nodes at id {id}", fixture.writer.visited);
    }
}

#[derive(Clone, Debug)]
enum Step {
    Lowest(u32, u32),
    Cyclic(u32, u32, u32),
    At(u32),
    Publish(u32),
    Remove(u32),
    FailAfter(usize),
}

/// Ids of all magnitudes, and close to each other.
fn id() -> impl Strategy<Value = u32> {
    prop_oneof![0u32..200, 4000u32..4200, 262_000u32..262_300, (u32::MAX - 70)..=u32::MAX]
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        4 => (id(), id()).prop_map(|(min, max)| Step::Lowest(min, max)),
        2 => (id(), id(), id()).prop_map(|(cursor, min, max)| Step::Cyclic(cursor, min, max)),
        2 => id().prop_map(Step::At),
        4 => id().prop_map(Step::Publish),
        5 => id().prop_map(Step::Remove),
        1 => (0usize..6).prop_map(Step::FailAfter),
    ]
}

fn lowest_in_model(taken: &BTreeMap<u32, bool>, min: u32, max: u32) -> Option<u32> {
    (min..=max).find(|id| !taken.contains_key(id))
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: if cfg!(miri) { 3 } else { 300 },
        failure_persistence: None,
        ..ProptestConfig::default()
    })]

    #[test]
    fn behaves_as_a_btreemap(steps in prop::collection::vec(step(), 0..if cfg!(miri) { 60 } else { 500 })) {
        let mut fixture = Fixture::new();
        // Taken ids, and whether they are published.
        let mut model = BTreeMap::<u32, bool>::new();
        for step in steps {
            fixture.writer.allocations_left = usize::MAX;
            let (got, expected) = match step {
                Step::FailAfter(count) => {
                    fixture.writer.allocations_left = count;
                    let free = lowest_in_model(&model, 1 << 30, u32::MAX).unwrap();
                    let got = fixture.idr.reserve_at(&mut fixture.writer, free);
                    if got == Err(IdrError::OutOfMemory) {
                        (Ok(0), None)
                    } else {
                        (got.map(|()| free), Some(free))
                    }
                }
                Step::Lowest(min, max) => {
                    (fixture.lowest(min, max), lowest_in_model(&model, min, max))
                }
                Step::Cyclic(cursor, min, max) => (
                    fixture.idr.reserve_cyclic(&mut fixture.writer, cursor, min, max),
                    lowest_in_model(&model, cursor.max(min), max)
                        .or_else(|| lowest_in_model(&model, min, max)),
                ),
                Step::At(id) => {
                    let got = fixture.idr.reserve_at(&mut fixture.writer, id);
                    let taken = model.contains_key(&id);
                    prop_assert_eq!(got, if taken { Err(IdrError::Taken) } else { Ok(()) });
                    model.entry(id).or_insert(false);
                    continue;
                }
                Step::Publish(id) => {
                    if let Some(published) = model.get_mut(&id) {
                        fixture.publish(id);
                        *published = true;
                    }
                    continue;
                }
                Step::Remove(id) => {
                    let published = model.remove(&id) == Some(true);
                    prop_assert_eq!(fixture.remove(id), published.then_some(id));
                    continue;
                }
            };
            match expected {
                Some(id) => {
                    prop_assert_eq!(got, Ok(id));
                    model.insert(id, false);
                }
                None if got == Ok(0) => {}
                None => prop_assert_eq!(got, Err(IdrError::Full)),
            }
        }
        let published: Vec<u32> = model.iter().filter(|(_, p)| **p).map(|(&id, _)| id).collect();
        prop_assert_eq!(fixture.ids(), published);
        for (&id, &published) in &model {
            prop_assert_eq!(fixture.lookup(id), published.then_some(id));
        }
        for (id, published) in model {
            prop_assert_eq!(fixture.remove(id), published.then_some(id));
        }
        fixture.trim();
        prop_assert!(fixture.idr.root().is_none(), "an empty tree has no nodes");
        prop_assert_eq!(fixture.deferred.pending(), 0);
    }
}
