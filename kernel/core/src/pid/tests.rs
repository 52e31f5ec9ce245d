//! PIDs against a model of maps, with memory that runs out.

use super::*;
use crate::epoch::{Epoch, ReadSide};
use proptest::prelude::*;
use std::collections::BTreeMap;
use std::string::ToString;
use std::vec::Vec;

/// What PIDs refer to here: pointers that are never followed.
type Subject = u8;

/// The writer and what it needs. All CPUs are idle: what is deferred is freed at the next poll.
struct World {
    writer: Writer,
    deferred: Deferred,
    epoch: Epoch,
}

impl World {
    fn new() -> Self {
        // SAFETY: the only writer of the namespaces made with it.
        let writer = unsafe { Writer::new() };
        Self { writer, deferred: Deferred::new(), epoch: Epoch::new() }
    }

    fn root(&mut self, pid_max: u32) -> NamespaceRef<Subject> {
        NamespaceRef::new_root(&mut self.writer, pid_max).unwrap()
    }

    fn reserve(
        &mut self,
        namespace: &NamespaceRef<Subject>,
        chosen: &[u32],
    ) -> Result<OwnedPid<Subject>, PidError> {
        OwnedPid::reserve(&mut self.writer, &mut self.deferred, namespace, chosen)
    }

    fn spawn(
        &mut self,
        namespace: &NamespaceRef<Subject>,
        chosen: &[u32],
    ) -> Result<OwnedPid<Subject>, PidError> {
        let pid = self.reserve(namespace, chosen)?;
        pid.publish(&mut self.writer, subject(pid.number()))?;
        Ok(pid)
    }

    fn free(&mut self, pid: OwnedPid<Subject>) {
        pid.free(&mut self.writer, &mut self.deferred);
        self.deferred.poll(&self.epoch);
        assert_eq!(self.deferred.pending(), 0);
    }
}

fn subject(number: u32) -> NonNull<Subject> {
    NonNull::new(ptr::without_provenance_mut(number as usize)).unwrap()
}

fn section() -> ReadSide {
    // SAFETY: these tests are single-threaded, and poll outside of lookups only.
    unsafe { ReadSide::assume() }
}

#[test]
fn init_is_1_kthreadd_is_2_and_numbers_go_on_upwards() {
    let mut world = World::new();
    let root = world.root(PID_MAX_DEFAULT);
    let init = world.spawn(&root, &[]).unwrap();
    let kthreadd = world.spawn(&root, &[]).unwrap();
    assert_eq!((init.number(), kthreadd.number()), (1, 2));
    for number in 3..20 {
        let pid = world.spawn(&root, &[]).unwrap();
        assert_eq!(pid.number(), number, "a freed number is not taken up at once");
        world.free(pid);
    }
    assert_eq!(root.live(), 2);
    world.free(init);
    world.free(kthreadd);
    assert_eq!(root.live(), 0);
}

#[test]
fn numbers_wrap_to_300_and_not_to_1() {
    let mut world = World::new();
    let root = world.root(310);
    let mut pids = Vec::new();
    for number in 1..310 {
        let pid = world.spawn(&root, &[]).unwrap();
        assert_eq!(pid.number(), number);
        pids.push(pid);
    }
    assert_eq!(world.spawn(&root, &[]).unwrap_err(), PidError::LimitReached { level: 0 });
    let (low, high) = (pids.remove(4), pids.remove(304));
    assert_eq!((low.number(), high.number()), (5, 306));
    world.free(low);
    world.free(high);
    let again = world.spawn(&root, &[]).unwrap();
    assert_eq!(again.number(), 306);
    assert_eq!(world.spawn(&root, &[]).unwrap_err(), PidError::LimitReached { level: 0 });
    pids.push(again);
    for pid in pids {
        world.free(pid);
    }
}

#[test]
fn a_pid_has_a_number_at_every_level_and_is_unseen_elsewhere() {
    let mut world = World::new();
    let root = world.root(1000);
    let first = world.spawn(&root, &[]).unwrap();
    let middle = root.new_child(&mut world.writer).unwrap();
    let inner = middle.new_child(&mut world.writer).unwrap();
    let aside = root.new_child(&mut world.writer).unwrap();
    let a = world.spawn(&middle, &[]).unwrap();
    let b = world.spawn(&inner, &[]).unwrap();
    assert_eq!(b.numbers(), [3, 2, 1]);
    assert_eq!(b.number_in(&root), Some(3));
    assert_eq!(b.number_in(&middle), Some(2));
    assert_eq!(b.number_in(&inner), Some(1));
    assert_eq!(b.number_in(&aside), None);
    assert_eq!(a.number_in(&inner), None);
    let s = section();
    assert!(ptr::eq(middle.lookup(2, &s).unwrap(), &*b));
    assert!(middle.lookup(3, &s).is_none());
    assert_eq!(root.lookup(3, &s).unwrap().subject(), Some(subject(3)));
    assert_eq!(root.next(2, &s).map(|(number, _)| number), Some(2));
    assert_eq!(aside.next(0, &s).map(|(number, _)| number), None);
    assert_eq!((root.live(), middle.live(), inner.live(), aside.live()), (3, 2, 1, 0));
    drop((middle, inner, aside));
    for pid in [a, b, first] {
        world.free(pid);
    }
    assert_eq!(root.live(), 0);
}

#[test]
fn a_namespace_lives_as_long_as_its_last_pid_or_child() {
    let mut world = World::new();
    let root = world.root(1000);
    let inner = root.new_child(&mut world.writer).unwrap();
    let pid = world.spawn(&inner, &[]).unwrap();
    drop(inner);
    let through_pid = pid.namespace().clone();
    world.free(pid);
    assert_eq!((through_pid.level(), through_pid.live()), (1, 0));
    let again = world.spawn(&through_pid, &[]).unwrap();
    drop((root, through_pid));
    assert_eq!(again.numbers(), [2, 2]);
    world.free(again);
}

#[test]
fn a_reserved_pid_is_not_found_and_a_published_one_has_its_subject() {
    let mut world = World::new();
    let root = world.root(1000);
    let pid = world.reserve(&root, &[]).unwrap();
    assert_eq!((pid.number(), pid.subject()), (1, None));
    assert!(root.lookup(1, &section()).is_none());
    pid.publish(&mut world.writer, subject(77)).unwrap();
    assert_eq!(root.lookup(1, &section()).unwrap().subject(), Some(subject(77)));
    world.free(pid);
    assert!(root.lookup(1, &section()).is_none());
}

#[test]
fn chosen_numbers_are_given_or_refused_by_name() {
    let mut world = World::new();
    let root = world.root(400);
    let inner = root.new_child(&mut world.writer).unwrap();
    let not_first = world.spawn(&inner, &[7]).unwrap_err();
    assert_eq!(not_first, PidError::InvalidNumber { level: 1, number: 7 });
    let init = world.spawn(&inner, &[1, 1]).unwrap();
    assert_eq!(init.numbers(), [1, 1]);
    let pid = world.spawn(&inner, &[7, 42]).unwrap();
    assert_eq!(pid.numbers(), [42, 7]);
    let taken = world.spawn(&inner, &[8, 42]).unwrap_err();
    assert_eq!(taken, PidError::Taken { level: 0, number: 42 });
    assert_eq!(taken.to_string(), "PID 42 is in use in the namespace at level 0");
    assert_eq!(inner.live(), 2, "8 was given back");
    for number in [0, 400] {
        let refused = world.spawn(&inner, &[number]).unwrap_err();
        assert_eq!(refused, PidError::InvalidNumber { level: 1, number });
    }
    assert_eq!(world.spawn(&inner, &[8, 8, 8]).unwrap_err(), PidError::TooManyNumbers);
    let next = world.spawn(&inner, &[]).unwrap();
    assert_eq!(next.numbers(), [2, 2], "chosen numbers do not move the cursor");
    for pid in [init, pid, next] {
        world.free(pid);
    }
}

#[test]
fn a_limit_above_rolls_back_the_levels_below() {
    let mut world = World::new();
    let root = world.root(400);
    let inner = root.new_child(&mut world.writer).unwrap();
    let init = world.spawn(&root, &[]).unwrap();
    root.set_pid_max(&mut world.writer, 2).unwrap();
    assert_eq!(world.spawn(&inner, &[]).unwrap_err(), PidError::LimitReached { level: 0 });
    assert_eq!((root.live(), inner.live()), (1, 0));
    assert!(inner.next(0, &section()).is_none());
    for limit in [0, 1, PID_MAX_LIMIT + 1] {
        let refused = root.set_pid_max(&mut world.writer, limit);
        assert_eq!(refused, Err(PidError::InvalidLimit(limit)));
    }
    world.free(init);
}

#[test]
fn a_dying_namespace_takes_no_more_pids() {
    let mut world = World::new();
    let root = world.root(400);
    let inner = root.new_child(&mut world.writer).unwrap();
    let init = world.spawn(&inner, &[]).unwrap();
    inner.set_reaper(&mut world.writer, init.subject());
    assert_eq!(inner.reaper(), init.subject());
    let late = world.reserve(&inner, &[]).unwrap();
    inner.begin_dying(&mut world.writer);
    let dying = PidError::Dying { level: 1 };
    assert_eq!(late.publish(&mut world.writer, subject(9)), Err(dying));
    assert!(root.lookup(late.number(), &section()).is_none());
    assert_eq!(world.spawn(&inner, &[]).unwrap_err(), dying);
    assert_eq!(inner.new_child(&mut world.writer).unwrap_err(), dying);
    assert_eq!(root.live(), 2);
    world.free(late);
    world.free(init);
}

#[test]
fn namespaces_nest_32_deep() {
    let mut world = World::new();
    let mut namespace = world.root(400);
    for level in 1..=MAX_LEVEL {
        namespace = namespace.new_child(&mut world.writer).unwrap();
        assert_eq!(namespace.level(), level);
    }
    assert_eq!(namespace.new_child(&mut world.writer).unwrap_err(), PidError::TooDeep);
    let pid = world.spawn(&namespace, &[]).unwrap();
    assert_eq!(pid.numbers(), [1; 33]);
    world.free(pid);
}

#[derive(Clone, Debug)]
enum Step {
    Child(prop::sample::Index),
    Spawn(prop::sample::Index, usize),
    Choose(prop::sample::Index, u32),
    Free(prop::sample::Index),
}

fn step() -> impl Strategy<Value = Step> {
    let any_index = any::<prop::sample::Index>;
    let failing = prop_oneof![3 => Just(usize::MAX), 1 => 0usize..12];
    prop_oneof![
        1 => any_index().prop_map(Step::Child),
        6 => (any_index(), failing).prop_map(|(ns, fail)| Step::Spawn(ns, fail)),
        2 => (any_index(), 1u32..20).prop_map(|(ns, number)| Step::Choose(ns, number)),
        4 => any_index().prop_map(Step::Free),
    ]
}

/// A namespace as the model sees it.
#[derive(Default)]
struct Model {
    parent: Option<usize>,
    cursor: u32,
    taken: BTreeMap<u32, u32>,
}

const MODEL_PID_MAX: u32 = 24;

/// The number that `namespace` would give, and its new cursor.
fn expect(model: &Model, chosen: Option<u32>) -> Option<(u32, u32)> {
    if let Some(number) = chosen {
        let fits = (model.cursor != 1 || number == 1) && !model.taken.contains_key(&number);
        return fits.then_some((number, model.cursor.max(2)));
    }
    let number = (model.cursor..MODEL_PID_MAX)
        .chain(1..model.cursor)
        .find(|number| *number < MODEL_PID_MAX && !model.taken.contains_key(number))?;
    Some((number, number + 1))
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: if cfg!(miri) { 4 } else { 300 },
        failure_persistence: None,
        ..ProptestConfig::default()
    })]

    #[test]
    fn behaves_as_maps(steps in prop::collection::vec(step(), 0..if cfg!(miri) { 40 } else { 200 })) {
        let mut world = World::new();
        let mut namespaces = std::vec![world.root(MODEL_PID_MAX)];
        let mut models = std::vec![Model { cursor: 1, ..Model::default() }];
        // PIDs, and the index of their namespaces.
        let mut pids: Vec<(OwnedPid<Subject>, usize)> = Vec::new();
        for step in steps {
            let (at, chosen, fail_after) = match step {
                Step::Child(parent) => {
                    let parent = parent.index(namespaces.len());
                    namespaces.push(namespaces[parent].new_child(&mut world.writer).unwrap());
                    models.push(Model { parent: Some(parent), cursor: 1, ..Model::default() });
                    continue;
                }
                Step::Free(which) => {
                    if !pids.is_empty() {
                        let (pid, mut at) = pids.swap_remove(which.index(pids.len()));
                        for &number in pid.numbers().iter().rev() {
                            prop_assert!(models[at].taken.remove(&number).is_some());
                            at = models[at].parent.unwrap_or(0);
                        }
                        world.free(pid);
                    }
                    continue;
                }
                Step::Spawn(at, fail_after) => (at, None, fail_after),
                Step::Choose(at, number) => (at, Some(number), usize::MAX),
            };
            let at = at.index(namespaces.len());
            world.writer.allocations_left = fail_after;
            let chosen_list: Vec<u32> = chosen.into_iter().collect();
            let got = world.spawn(&namespaces[at], &chosen_list);
            world.writer.allocations_left = usize::MAX;
            world.deferred.poll(&world.epoch);
            let out_of_memory = matches!(&got, Err(PidError::OutOfMemory));
            prop_assert!(!out_of_memory || fail_after != usize::MAX);

            // Cursors move as far as the reservation came, numbers only if all of it succeeded.
            let mut numbers = Vec::new();
            let mut level = Some(at);
            let mut chosen = chosen;
            while let Some(index) = level {
                let Some((number, cursor)) = expect(&models[index], chosen.take()) else { break };
                if out_of_memory && namespaces[index].cursor_for_tests() != cursor {
                    break;
                }
                models[index].cursor = cursor;
                numbers.push((index, number));
                level = models[index].parent;
            }
            match got {
                Ok(pid) => {
                    let expected: Vec<u32> = numbers.iter().rev().map(|&(_, n)| n).collect();
                    prop_assert_eq!(pid.numbers(), expected);
                    for (index, number) in numbers {
                        models[index].taken.insert(number, pid.number());
                    }
                    pids.push((pid, at));
                }
                Err(_) => prop_assert!(out_of_memory || level.is_some()),
            }
            for (namespace, model) in namespaces.iter().zip(&models) {
                prop_assert_eq!(namespace.live() as usize, model.taken.len());
            }
        }
        let s = section();
        for (namespace, model) in namespaces.iter().zip(&models) {
            for number in 0..MODEL_PID_MAX + 2 {
                let found = namespace.lookup(number, &s).map(|pid| {
                    assert_eq!(pid.number_in(namespace), Some(number));
                    pid.number()
                });
                prop_assert_eq!(found, model.taken.get(&number).copied());
            }
        }
        for (pid, _) in pids {
            world.free(pid);
        }
        prop_assert!(namespaces.iter().all(|namespace| namespace.live() == 0));
    }
}
