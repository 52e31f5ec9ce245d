//! Tests of the run queue, by what they compare it with.
//!
//! - `classes.rs`: examples and a naive model of the real-time class
//! - `fairness.rs`: what the fair class promises about shares and lag
//! - `simulation.rs`: two CPUs under random operations, every invariant and account checked after
//!   each

mod classes;
mod fairness;
mod simulation;

use super::*;
use crate::cpuset::CpuSet;
use proptest::prelude::*;
use std::ptr::NonNull;
use std::rc::Rc;
use std::vec::Vec;

const CONFIG: Config = Config { slice_ticks: 3_000, rr_quantum_ticks: 10_000 };

fn proptest_config(cases: u32) -> ProptestConfig {
    ProptestConfig {
        cases: if cfg!(miri) { 2 } else { cases },
        failure_persistence: None,
        ..ProptestConfig::default()
    }
}

fn fair(nice: i8) -> Policy {
    Policy::Fair(Nice::new(nice).unwrap())
}

fn fifo(priority: u8) -> Policy {
    Policy::Fifo(RtPriority::new(priority).unwrap())
}

fn round_robin(priority: u8) -> Policy {
    Policy::RoundRobin(RtPriority::new(priority).unwrap())
}

fn any_policy() -> impl Strategy<Value = Policy> {
    prop_oneof![
        (0u8..4).prop_map(|n| fifo(n * 33)),
        (0u8..4).prop_map(|n| round_robin(n * 33)),
        (-20i8..20).prop_map(fair),
        (-20i8..20).prop_map(fair),
        Just(Policy::IDLE),
    ]
}

/// One queue, its entities by number, and the time.
struct Cpu {
    queue: RunQueue,
    entities: Vec<Rc<Entity>>,
    now: u64,
}

impl Cpu {
    fn new() -> Self {
        Self { queue: RunQueue::new(0, CONFIG, 0), entities: Vec::new(), now: 0 }
    }

    /// A CPU with one new entity per policy enqueued, in order, and nobody running.
    fn with(policies: &[Policy]) -> Self {
        let mut cpu = Self::new();
        for policy in policies {
            let n = cpu.create(*policy);
            let _ = cpu.enqueue(n, Enqueue::New);
        }
        cpu
    }

    fn create(&mut self, policy: Policy) -> usize {
        self.entities.push(Rc::new(Entity::new(policy, CpuSet::ALL)));
        self.entities.len() - 1
    }

    fn pointer(&self, n: usize) -> NonNull<Entity> {
        NonNull::from(&*self.entities[n])
    }

    fn number(&self, entity: NonNull<Entity>) -> usize {
        let found = self.entities.iter().position(|other| NonNull::from(&**other) == entity);
        found.expect("the queue returned an entity it was never given")
    }

    fn enqueue(&mut self, n: usize, why: Enqueue) -> Preempt {
        let entity = self.pointer(n);
        // SAFETY: the entities live as long as the queue; the tests only enqueue those that are
        // off.
        unsafe { self.queue.enqueue(entity, self.now, why) }
    }

    fn dequeue(&mut self, n: usize) {
        let entity = self.pointer(n);
        // SAFETY: as above; the tests only dequeue those that wait.
        unsafe { self.queue.dequeue(entity, self.now) }
    }

    fn set_policy(&mut self, n: usize, policy: Policy) -> Preempt {
        let entity = self.pointer(n);
        // SAFETY: as above; there is only this queue.
        unsafe { self.queue.set_policy(entity, policy, self.now) }
    }

    /// Lets time pass, then schedules.
    fn schedule(&mut self, after_ticks: u64, why: Switch) -> Option<usize> {
        self.now += after_ticks;
        // SAFETY: as above.
        let next = unsafe { self.queue.schedule(self.now, why) };
        assert_eq!(next, self.queue.current());
        next.map(|entity| self.number(entity))
    }

    /// Lets time pass until the queue wants to be looked at again, and does what it then says.
    fn run_to_next_event(&mut self) -> Option<usize> {
        let at = self.queue.next_event().expect("somebody competes");
        self.now = self.now.max(at);
        if self.queue.tick(self.now) == Preempt::Yes {
            self.schedule(0, Switch::Preempt)
        } else {
            self.queue.current().map(|entity| self.number(entity))
        }
    }

    fn info(&self, n: usize) -> SchedInfo {
        self.entities[n].info()
    }
}
