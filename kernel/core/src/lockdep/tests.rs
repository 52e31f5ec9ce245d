//! Lock orders, right and wrong, and a random one against a search for cycles.

use super::*;
use proptest::prelude::*;
use std::boxed::Box;
use std::string::ToString;
use std::sync::{Mutex, PoisonError};
use std::vec::Vec;

use Context::{Interrupt, InterruptsOff, InterruptsOn};

/// Every class of every test, so that Miri does not take them for leaks.
static CLASSES: Mutex<Vec<&'static Class>> = Mutex::new(Vec::new());

fn class(name: &'static str) -> &'static Class {
    let class = Box::leak(Box::new(Class::new(name)));
    CLASSES.lock().unwrap_or_else(PoisonError::into_inner).push(class);
    class
}

#[track_caller]
fn here() -> &'static Location<'static> {
    Location::caller()
}

/// Takes the classes one under the other, and releases them.
#[track_caller]
fn take(lockdep: &Lockdep, classes: &[&'static Class], context: Context) -> Result<(), Violation> {
    let mut held = Held::new();
    for class in classes {
        lockdep.acquire(&mut held, class, here(), context)?;
    }
    for class in classes {
        assert!(held.release(class));
    }
    assert_eq!(held.iter().count(), 0);
    Ok(())
}

#[test]
fn one_order_is_fine_however_often() {
    let lockdep = Box::new(Lockdep::new());
    let [a, b, c] = ["a", "b", "c"].map(class);
    for _ in 0..3 {
        take(&lockdep, &[a, b, c], InterruptsOff).unwrap();
        take(&lockdep, &[a, c], InterruptsOff).unwrap();
        take(&lockdep, &[b], InterruptsOff).unwrap();
    }
    assert_eq!(lockdep.with_graph(|graph| graph.edge_count), 3);
}

#[test]
fn the_reverse_order_is_reported_with_both_places() {
    let lockdep = Box::new(Lockdep::new());
    let [a, b] = ["run queue", "wait queue"].map(class);
    take(&lockdep, &[a, b], InterruptsOff).unwrap();
    let first_line = line!() - 1;
    let violation = take(&lockdep, &[b, a], InterruptsOff).unwrap_err();
    let text = violation.to_string();
    let Violation::Order { now, before, before_last } = violation else { panic!("{text}") };
    assert_eq!((now.first.class.name(), now.second.class.name()), ("wait queue", "run queue"));
    assert_eq!((before.first.site.line(), before.second.site.line()), (first_line, first_line));
    assert_eq!(before.second.site, before_last.second.site);
    assert_eq!(now.second.site.line(), first_line + 2);
    assert!(
        text.contains("\"run queue\" is wanted") || text.contains("\"run queue\" at"),
        "{text}"
    );
    assert!(text.contains(&std::format!("tests.rs:{first_line}")), "{text}");
    take(&lockdep, &[a, b], InterruptsOff).expect("the right order stays right");
}

#[test]
fn a_cycle_through_other_classes_is_found() {
    let lockdep = Box::new(Lockdep::new());
    let [a, b, c, d] = ["a", "b", "c", "d"].map(class);
    take(&lockdep, &[c, d], InterruptsOff).unwrap();
    take(&lockdep, &[a, b], InterruptsOff).unwrap();
    take(&lockdep, &[b, c], InterruptsOff).unwrap();
    let violation = take(&lockdep, &[d, a], InterruptsOff).unwrap_err();
    let Violation::Order { before, before_last, .. } = violation else { panic!("{violation}") };
    assert_eq!((before.first.class.name(), before.second.class.name()), ("a", "b"));
    assert_eq!((before_last.first.class.name(), before_last.second.class.name()), ("c", "d"));
}

#[test]
fn a_class_under_itself_needs_a_second_class() {
    let lockdep = Box::new(Lockdep::new());
    let [queue, second] = ["run queue", "run queue, second"].map(class);
    take(&lockdep, &[queue, second], InterruptsOff).unwrap();
    let violation = take(&lockdep, &[queue, queue], InterruptsOff).unwrap_err();
    assert!(matches!(violation, Violation::Recursion(_)), "{violation}");
    assert!(violation.to_string().contains("a class of its own"));
}

#[test]
fn a_lock_of_handlers_is_never_taken_with_interrupts_on() {
    for swapped in [false, true] {
        let lockdep = Box::new(Lockdep::new());
        let lock = class("timer");
        let (first, second) =
            if swapped { (InterruptsOn, Interrupt) } else { (Interrupt, InterruptsOn) };
        take(&lockdep, &[lock], InterruptsOff).unwrap();
        take(&lockdep, &[lock], first).unwrap();
        let violation = take(&lockdep, &[lock], second).unwrap_err();
        assert!(matches!(violation, Violation::Interrupts { .. }), "{violation}");
        take(&lockdep, &[lock], first).unwrap();
    }
}

#[test]
fn nor_is_one_that_a_handlers_lock_waits_for() {
    // In whichever order the three facts come to light.
    for order in [[0, 1, 2], [0, 2, 1], [1, 0, 2], [1, 2, 0], [2, 0, 1], [2, 1, 0]] {
        let lockdep = Box::new(Lockdep::new());
        let [handler, between, task] = ["handler", "between", "task"].map(class);
        let facts: [&dyn Fn() -> Result<(), Violation>; 3] = [
            &|| take(&lockdep, &[handler], Interrupt),
            &|| take(&lockdep, &[task], InterruptsOn),
            &|| take(&lockdep, &[handler, between, task], InterruptsOff),
        ];
        facts[order[0]]().unwrap();
        facts[order[1]]().unwrap();
        let violation = facts[order[2]]().unwrap_err();
        let Violation::Interrupts { handler, interruptible } = violation else {
            panic!("{violation}")
        };
        assert_eq!((handler.class.name(), interruptible.class.name()), ("handler", "task"));
    }
}

#[test]
fn trying_adds_no_order() {
    let lockdep = Box::new(Lockdep::new());
    let [a, b, c] = ["a", "b", "c"].map(class);
    take(&lockdep, &[a, b], InterruptsOff).unwrap();
    let mut held = Held::new();
    lockdep.acquire(&mut held, b, here(), InterruptsOff).unwrap();
    lockdep.acquired_by_trying(&mut held, a, here(), InterruptsOff).unwrap();
    lockdep.acquire(&mut held, c, here(), InterruptsOff).unwrap();
    assert!(held.release(a) && held.release(b) && held.release(c) && !held.release(c));
    let violation = take(&lockdep, &[c, a], InterruptsOff).unwrap_err();
    assert!(matches!(violation, Violation::Order { .. }), "a → c counts: {violation}");
}

#[test]
#[cfg_attr(miri, ignore = "takes thousands of locks")]
fn tables_that_are_full_say_so() {
    let lockdep = Box::new(Lockdep::new());
    let classes: Vec<_> = (0..MAX_CLASSES).map(|_| class("one of many")).collect();
    for class in &classes {
        take(&lockdep, &[class], InterruptsOff).unwrap();
    }
    let violation = take(&lockdep, &[class("last straw")], InterruptsOff).unwrap_err();
    assert!(matches!(violation, Violation::TooManyClasses(_)), "{violation}");
    let violation = take(&lockdep, &classes[..=MAX_HELD], InterruptsOff).unwrap_err();
    assert!(matches!(violation, Violation::TooManyHeld(_)), "{violation}");
    let mut full = None;
    for (at, first) in classes.iter().enumerate() {
        for second in &classes[at + 1..] {
            full = full.or(take(&lockdep, &[first, second], InterruptsOff).err());
        }
    }
    assert!(matches!(full, Some(Violation::TooManyEdges(_))));
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: if cfg!(miri) { 3 } else { 256 },
        failure_persistence: None,
        ..ProptestConfig::default()
    })]

    /// Pairs are refused exactly when the opposite is reachable over the pairs accepted before.
    #[test]
    fn agrees_with_a_search_for_cycles(pairs in prop::collection::vec((0usize..10, 0usize..10), 0..80)) {
        let lockdep = Box::new(Lockdep::new());
        let classes: Vec<_> = (0..10).map(|_| class("one of ten")).collect();
        let mut accepted: Vec<(usize, usize)> = Vec::new();
        for (first, second) in pairs {
            let mut reached = std::vec![second];
            let mut next = 0;
            while next < reached.len() {
                for &(from, to) in &accepted {
                    if from == reached[next] && !reached.contains(&to) {
                        reached.push(to);
                    }
                }
                next += 1;
            }
            let result = take(&lockdep, &[classes[first], classes[second]], InterruptsOff);
            prop_assert_eq!(result.is_err(), reached.contains(&first));
            if result.is_ok() {
                accepted.push((first, second));
            }
        }
    }
}
