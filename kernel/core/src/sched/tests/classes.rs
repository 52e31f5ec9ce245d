//! The order of the classes and of the real-time levels: examples, and a naive model.

use super::*;
use std::vec;

#[test]
fn classes_and_levels_in_order() {
    let mut cpu = Cpu::with(&[fair(-20), fifo(0), round_robin(99), fifo(70)]);
    assert_eq!(cpu.queue.highest_rt_priority(), Some(RtPriority::MAX));
    for expected in [Some(2), Some(3), Some(1), Some(0), None, None] {
        let why = if cpu.queue.current().is_some() { Switch::Exit } else { Switch::Preempt };
        assert_eq!(cpu.schedule(5, why), expected);
    }
    assert_eq!(cpu.queue.nr_running(), 0);
    assert_eq!(cpu.queue.load(), 0);
}

#[test]
fn a_fifo_entity_runs_until_it_yields() {
    let mut cpu = Cpu::with(&[fifo(5), fifo(5), fifo(5)]);
    assert_eq!(cpu.schedule(0, Switch::Preempt), Some(0));
    assert_eq!(cpu.queue.next_event(), None);
    assert_eq!(cpu.schedule(1_000_000, Switch::Preempt), Some(0));
    assert_eq!(cpu.schedule(1, Switch::Yield), Some(1));
    assert_eq!(cpu.schedule(1, Switch::Yield), Some(2));
    assert_eq!(cpu.schedule(1, Switch::Yield), Some(0));
    assert_eq!(cpu.info(0).voluntary_switches, 1);
}

#[test]
fn a_preempted_real_time_entity_is_still_first() {
    let mut cpu = Cpu::with(&[fifo(5), fifo(5)]);
    cpu.schedule(0, Switch::Preempt);
    let high = cpu.create(fifo(6));
    assert_eq!(cpu.enqueue(high, Enqueue::New), Preempt::Yes);
    assert_eq!(cpu.schedule(1, Switch::Preempt), Some(high));
    assert_eq!(cpu.info(0).involuntary_switches, 1);
    assert_eq!(cpu.schedule(1, Switch::Block), Some(0));
}

#[test]
fn round_robin_takes_turns_each_quantum() {
    let mut cpu = Cpu::with(&[round_robin(5), round_robin(5)]);
    assert_eq!(cpu.schedule(0, Switch::Preempt), Some(0));
    assert_eq!(cpu.queue.next_event(), Some(10_000));
    cpu.now = 9_999;
    assert_eq!(cpu.queue.tick(cpu.now), Preempt::No);
    assert_eq!(cpu.run_to_next_event(), Some(1));
    assert_eq!(cpu.queue.next_event(), Some(20_000));
    // What is left of a quantum is kept over a preemption.
    cpu.now = 16_000;
    let high = cpu.create(fifo(6));
    assert_eq!(cpu.enqueue(high, Enqueue::New), Preempt::Yes);
    assert_eq!(cpu.schedule(0, Switch::Preempt), Some(high));
    assert_eq!(cpu.schedule(1_000, Switch::Block), Some(1));
    assert_eq!(cpu.queue.next_event(), Some(21_000));
    assert_eq!(cpu.run_to_next_event(), Some(0));
}

#[test]
fn every_turn_is_a_whole_quantum() {
    let mut cpu = Cpu::with(&[round_robin(5), round_robin(5), round_robin(5)]);
    cpu.schedule(0, Switch::Preempt);
    for turn in 1..=9 {
        assert_eq!(cpu.run_to_next_event(), Some(turn % 3));
        assert_eq!(cpu.now, turn as u64 * 10_000);
    }
}

#[test]
fn a_lone_entity_needs_no_tick() {
    for policy in [fair(0), round_robin(3), fifo(3)] {
        let mut cpu = Cpu::with(&[policy]);
        cpu.schedule(0, Switch::Preempt);
        assert_eq!(cpu.queue.next_event(), None);
        assert_eq!(cpu.queue.tick(1 << 50), Preempt::No);
        assert_eq!(cpu.schedule(1 << 50, Switch::Yield), Some(0));
        assert_eq!(cpu.info(0).voluntary_switches, 0);
    }
    assert_eq!(Cpu::new().queue.next_event(), None);
}

#[test]
fn an_idle_cpu_is_preempted_by_anybody() {
    let mut cpu = Cpu::new();
    let n = cpu.create(fair(19));
    assert_eq!(cpu.enqueue(n, Enqueue::New), Preempt::Yes);
    cpu.schedule(0, Switch::Preempt);
    let weak = cpu.create(fifo(0));
    assert_eq!(cpu.enqueue(weak, Enqueue::New), Preempt::Yes);
    cpu.schedule(0, Switch::Preempt);
    for policy in [fifo(0), fair(-20)] {
        let n = cpu.create(policy);
        assert_eq!(cpu.enqueue(n, Enqueue::New), Preempt::No);
    }
}

#[test]
fn policy_changes_move_between_classes() {
    let mut cpu = Cpu::with(&[fair(0), fair(0)]);
    assert_eq!(cpu.schedule(0, Switch::Preempt), Some(0));
    assert_eq!(cpu.set_policy(1, fifo(1)), Preempt::Yes);
    assert_eq!(cpu.schedule(10, Switch::Preempt), Some(1));
    assert_eq!(cpu.set_policy(0, round_robin(2)), Preempt::Yes);
    assert_eq!(cpu.set_policy(1, fifo(2)), Preempt::No, "the running one is first of its level");
    assert_eq!(cpu.schedule(10, Switch::Yield), Some(0));
    assert_eq!(cpu.set_policy(0, fair(3)), Preempt::Yes);
    assert_eq!(cpu.schedule(10, Switch::Preempt), Some(1));
    assert_eq!(cpu.schedule(10, Switch::Block), Some(0));
    assert_eq!(cpu.set_policy(1, fair(-5)), Preempt::No);
    assert_eq!(cpu.entities[1].policy(), fair(-5));
}

#[test]
fn steal_takes_the_best_that_is_accepted() {
    let mut cpu = Cpu::with(&[fair(0), fair(0), fifo(4), fifo(9), fifo(9)]);
    assert_eq!(cpu.schedule(0, Switch::Preempt), Some(3));
    let third = cpu.pointer(4);
    let mut taken = vec![];
    // SAFETY: the entities live as long as the queue.
    while let Some(entity) = unsafe { cpu.queue.steal(7, |e| !core::ptr::eq(e, third.as_ptr())) } {
        taken.push(cpu.number(entity));
    }
    assert_eq!(taken, [2, 0, 1]);
    assert_eq!(cpu.queue.nr_queued(), 1);
    assert_eq!(cpu.info(0).run_delay_ticks, 7);
    assert!(!cpu.entities[0].is_on_queue());
}

#[test]
fn migrations_are_counted_where_the_cpu_changes() {
    let mut cpu = Cpu::with(&[fair(0)]);
    assert_eq!(cpu.entities[0].cpu(), Some(0));
    cpu.dequeue(0);
    let _ = cpu.enqueue(0, Enqueue::Migrated);
    assert_eq!(cpu.info(0).migrations, 0);
    cpu.dequeue(0);
    cpu.queue = RunQueue::new(1, CONFIG, 0);
    let _ = cpu.enqueue(0, Enqueue::Wakeup);
    assert_eq!((cpu.info(0).migrations, cpu.entities[0].cpu()), (1, Some(1)));
}

#[test]
fn a_clock_that_goes_back_charges_nothing_twice() {
    let mut cpu = Cpu::with(&[fair(0), fair(0)]);
    cpu.now = 100;
    cpu.schedule(0, Switch::Preempt);
    cpu.now = 50;
    let first = cpu.number(cpu.queue.current().unwrap());
    assert_eq!(cpu.schedule(0, Switch::Yield), Some(1 - first));
    cpu.now = 130;
    cpu.schedule(0, Switch::Yield);
    assert_eq!(cpu.info(first).run_ticks, 0);
    assert_eq!(cpu.info(1 - first).run_ticks, 30);
    assert_eq!(cpu.queue.idle_ticks(), 100);
}

/// Real-time entities on one CPU, the obvious way: per level a list, the running one first.
#[derive(Default)]
struct Model {
    levels: Vec<Vec<usize>>,
}

impl Model {
    fn first(&self) -> Option<usize> {
        self.levels.iter().rev().find_map(|level| level.first().copied())
    }

    fn remove(&mut self, n: usize) {
        self.levels.iter_mut().for_each(|level| level.retain(|other| *other != n));
    }
}

const MAX_STEPS: usize = if cfg!(miri) { 60 } else { 200 };

proptest! {
    #![proptest_config(proptest_config(256))]

    #[test]
    fn real_time_order_is_that_of_lists(
        steps in proptest::collection::vec((0u8..6, 0usize..8, 0u8..3), 0..MAX_STEPS)
    ) {
        let priority = |level: u8| [0, 63, 99][level as usize];
        let mut cpu = Cpu::new();
        (0..8).for_each(|_| { cpu.create(fifo(0)); });
        let mut model = Model { levels: vec![vec![]; 3] };
        let mut running: Option<usize> = None;
        for (action, n, level) in steps {
            let on = cpu.entities[n].is_on_queue();
            prop_assert_eq!(on, model.levels.iter().flatten().any(|other| *other == n));
            match action {
                0 | 1 if !on => {
                    let _ = cpu.set_policy(n, fifo(priority(level)));
                    let preempt = cpu.enqueue(n, Enqueue::Wakeup);
                    model.levels[level as usize].push(n);
                    prop_assert_eq!(preempt == Preempt::Yes, model.first() != running);
                }
                2 if on && running != Some(n) => {
                    cpu.dequeue(n);
                    model.remove(n);
                }
                3 if on => {
                    let preempt = cpu.set_policy(n, fifo(priority(level)));
                    model.remove(n);
                    let list = &mut model.levels[level as usize];
                    list.insert(if running == Some(n) { 0 } else { list.len() }, n);
                    prop_assert_eq!(preempt == Preempt::Yes, model.first() != running);
                }
                4 => {
                    if let Some(n) = running {
                        model.remove(n);
                    }
                    running = model.first();
                    prop_assert_eq!(cpu.schedule(3, Switch::Block), running);
                }
                5 => {
                    if let Some(n) = running {
                        let list = model.levels.iter_mut().find(|list| list.contains(&n)).unwrap();
                        list.rotate_left(1);
                    }
                    running = model.first();
                    prop_assert_eq!(cpu.schedule(3, Switch::Yield), running);
                }
                _ => {
                    running = model.first();
                    prop_assert_eq!(cpu.schedule(3, Switch::Preempt), running);
                }
            }
            let all = model.levels.iter().rev().flatten().copied();
            let waiting: Vec<_> = all.filter(|n| Some(*n) != running).collect();
            let queued: Vec<_> = cpu.queue.queued().map(|entity| cpu.number(entity)).collect();
            prop_assert_eq!(queued, waiting);
        }
    }
}
