//! Two CPUs under random operations. After each one every account is compared with a naive
//! one, and every invariant of the queues with a computation from the entities themselves.

use super::*;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Off,
    Waiting { cpu: usize, since: u64 },
    Running { cpu: usize, since: u64 },
}

/// What the accounts of an entity should say.
#[derive(Clone, Debug)]
struct Account {
    state: State,
    last_cpu: Option<usize>,
    info: SchedInfo,
}

#[derive(Clone, Copy, Debug)]
enum Step {
    Schedule { cpu: usize, why: Switch },
    Tick { cpu: usize },
    Wake { cpu: usize, n: usize },
    Move { n: usize },
    Steal { from: usize },
    SetPolicy { n: usize, policy: Policy },
}

fn any_step() -> impl Strategy<Value = (u64, Step)> {
    let why = prop_oneof![
        3 => Just(Switch::Yield),
        4 => Just(Switch::Preempt),
        2 => Just(Switch::Block),
        1 => Just(Switch::Migrate),
        1 => Just(Switch::Exit),
    ];
    let step = prop_oneof![
        5 => (0usize..2, why).prop_map(|(cpu, why)| Step::Schedule { cpu, why }),
        1 => (0usize..2).prop_map(|cpu| Step::Tick { cpu }),
        6 => (0usize..2, 0usize..ENTITIES).prop_map(|(cpu, n)| Step::Wake { cpu, n }),
        1 => (0usize..ENTITIES).prop_map(|n| Step::Move { n }),
        1 => (0usize..2).prop_map(|from| Step::Steal { from }),
        1 => (0usize..ENTITIES, any_policy()).prop_map(|(n, policy)| Step::SetPolicy { n, policy }),
    ];
    let ticks =
        prop_oneof![4 => 0u64..100, 4 => 0u64..5_000, 1 => 0u64..1_000_000, 1 => 0u64..1 << 30];
    (ticks, step)
}

const ENTITIES: usize = 10;

struct World {
    queues: [RunQueue; 2],
    entities: Vec<Entity>,
    accounts: Vec<Account>,
    idle: [u64; 2],
    now: u64,
}

impl World {
    fn new(policies: &[Policy]) -> Self {
        let account = Account { state: State::Off, last_cpu: None, info: SchedInfo::default() };
        let entities = policies.iter().map(|policy| Entity::new(*policy, CpuSet::ALL));
        Self {
            queues: [RunQueue::new(0, CONFIG, 0), RunQueue::new(1, CONFIG, 0)],
            entities: entities.collect(),
            accounts: policies.iter().map(|_| account.clone()).collect(),
            idle: [0; 2],
            now: 0,
        }
    }

    fn pointer(&self, n: usize) -> NonNull<Entity> {
        NonNull::from(&self.entities[n])
    }

    fn number(&self, entity: NonNull<Entity>) -> usize {
        (0..ENTITIES).find(|n| self.pointer(*n) == entity).expect("an entity of this world")
    }

    fn running(&self, cpu: usize) -> Option<usize> {
        (0..ENTITIES).find(
            |n| matches!(self.accounts[*n].state, State::Running { cpu: other, .. } if other == cpu),
        )
    }

    /// Time passes: the naive accounts are charged at once, the queues when they are used.
    fn pass(&mut self, ticks: u64) {
        self.now += ticks;
        for cpu in 0..2 {
            match self.running(cpu) {
                Some(n) => self.accounts[n].info.run_ticks += ticks,
                None => self.idle[cpu] += ticks,
            }
        }
    }

    fn stop_waiting(&mut self, n: usize) {
        if let State::Waiting { since, .. } = self.accounts[n].state {
            self.accounts[n].info.run_delay_ticks += self.now - since;
            self.accounts[n].info.last_queued_ticks = 0;
            self.accounts[n].state = State::Off;
        }
    }

    fn start_waiting(&mut self, n: usize, cpu: usize) {
        let account = &mut self.accounts[n];
        account.state = State::Waiting { cpu, since: self.now };
        account.info.last_queued_ticks = self.now;
        if account.last_cpu.replace(cpu).is_some_and(|before| before != cpu) {
            account.info.migrations += 1;
        }
    }

    fn enqueue(&mut self, n: usize, cpu: usize, why: Enqueue) {
        assert!(!self.entities[n].is_on_queue());
        self.start_waiting(n, cpu);
        // SAFETY: the entities live as long as the queues, and it is off.
        let preempt = unsafe { self.queues[cpu].enqueue(self.pointer(n), self.now, why) };
        if self.queues[cpu].current().is_none() {
            assert_eq!(preempt, Preempt::Yes);
        }
    }

    fn schedule(&mut self, cpu: usize, why: Switch) {
        let expected = self.expected(cpu, why);
        let before = self.running(cpu);
        // SAFETY: the entities live as long as the queues.
        let next = unsafe { self.queues[cpu].schedule(self.now, why) };
        let next = next.map(|entity| self.number(entity));
        if let Some(expected) = expected {
            assert!(expected.contains(&next.unwrap()), "{next:?} is not in {expected:?}");
        }
        if next == before {
            assert!(before.is_none() || matches!(why, Switch::Yield | Switch::Preempt));
            return;
        }
        if let Some(n) = before {
            let info = &mut self.accounts[n].info;
            match why {
                Switch::Preempt | Switch::Migrate => info.involuntary_switches += 1,
                Switch::Yield | Switch::Block | Switch::Exit => info.voluntary_switches += 1,
            }
            match why {
                Switch::Yield | Switch::Preempt => self.start_waiting(n, cpu),
                _ => self.accounts[n].state = State::Off,
            }
        }
        if let Some(n) = next {
            let State::Waiting { cpu: on, .. } = self.accounts[n].state else {
                panic!("{n} was not waiting: {:?}", self.accounts[n])
            };
            assert_eq!(on, cpu);
            self.stop_waiting(n);
            self.accounts[n].state = State::Running { cpu, since: self.now };
            self.accounts[n].info.pcount += 1;
            self.accounts[n].info.last_arrival_ticks = self.now;
        }
        if why == Switch::Migrate
            && let Some(n) = before
        {
            self.enqueue(n, 1 - cpu, Enqueue::Migrated);
        }
    }

    /// Who may run next, computed the obvious way; none if nothing is runnable then. Ties may go
    /// either way.
    fn expected(&mut self, cpu: usize, why: Switch) -> Option<Vec<usize>> {
        let running = self.running(cpu);
        let stays = matches!(why, Switch::Yield | Switch::Preempt);
        let candidates: Vec<usize> = (0..ENTITIES)
            .filter(|n| match self.accounts[*n].state {
                State::Waiting { cpu: on, .. } => on == cpu,
                State::Running { cpu: on, .. } => on == cpu && stays,
                State::Off => false,
            })
            .collect();
        let priority = |n: usize| self.entities[n].policy().rt_priority();
        if let Some(highest) = candidates.iter().filter_map(|n| priority(*n)).max() {
            return Some(
                candidates.into_iter().filter(|n| priority(*n) == Some(highest)).collect(),
            );
        }
        if why != Switch::Preempt || candidates.len() < 2 {
            let others: Vec<_> =
                candidates.iter().copied().filter(|n| Some(*n) != running).collect();
            let all = if others.is_empty() { candidates } else { others };
            return (!all.is_empty()).then_some(all);
        }
        // The queue is up to date after a tick; then EEVDF by its definition.
        let _ = self.queues[cpu].tick(self.now);
        let origin = self.entities[candidates[0]].vruntime.get();
        let key = |virtual_time: u64| virtual_time.wrapping_sub(origin) as i64 as i128;
        let weight = |n: usize| self.entities[n].weight() as i128;
        let vruntime = |n: usize| key(self.entities[n].vruntime.get());
        let load: i128 = candidates.iter().map(|n| weight(*n)).sum();
        let sum: i128 = candidates.iter().map(|n| weight(*n) * vruntime(*n)).sum();
        let deadline = |n: usize| {
            let deadline = key(self.entities[n].deadline.get());
            let slice = self.entities[n].slice_virtual.get() as i128;
            let over = running == Some(n) && vruntime(n) >= deadline;
            if over { vruntime(n) + slice } else { deadline }
        };
        let eligible = candidates.iter().copied().filter(|n| vruntime(*n) * load <= sum);
        let eligible: Vec<usize> = eligible.collect();
        let earliest = eligible.iter().map(|n| deadline(*n)).min().expect("somebody is eligible");
        Some(eligible.into_iter().filter(|n| deadline(*n) == earliest).collect())
    }

    fn step(&mut self, step: Step) {
        match step {
            Step::Schedule { cpu, why } => self.schedule(cpu, why),
            Step::Tick { cpu } => {
                if let Some(at) = self.queues[cpu].next_event()
                    && at > self.now
                {
                    self.pass(at - self.now);
                    let preempt = self.queues[cpu].tick(self.now);
                    assert_eq!(preempt, Preempt::Yes, "the announced time ends the slice");
                }
            }
            Step::Wake { cpu, n } => match self.accounts[n].state {
                State::Off if self.accounts[n].last_cpu.is_none() => {
                    self.enqueue(n, cpu, Enqueue::New)
                }
                State::Off => self.enqueue(n, cpu, Enqueue::Wakeup),
                _ => {}
            },
            Step::Move { n } => {
                if let State::Waiting { cpu, .. } = self.accounts[n].state {
                    // SAFETY: it waits there.
                    unsafe { self.queues[cpu].dequeue(self.pointer(n), self.now) };
                    self.stop_waiting(n);
                    self.enqueue(n, 1 - cpu, Enqueue::Migrated);
                }
            }
            Step::Steal { from } => {
                let waiting = self.queues[from].queued().next();
                // SAFETY: the entities live as long as the queues.
                let stolen = unsafe { self.queues[from].steal(self.now, |_| true) };
                assert_eq!(stolen, waiting);
                if let Some(entity) = stolen {
                    let n = self.number(entity);
                    self.stop_waiting(n);
                    self.enqueue(n, 1 - from, Enqueue::Migrated);
                }
            }
            Step::SetPolicy { n, policy } => {
                let cpu = match self.accounts[n].state {
                    State::Waiting { cpu, .. } | State::Running { cpu, .. } => cpu,
                    State::Off => 0,
                };
                // SAFETY: it is on that queue, or on none.
                let _ = unsafe { self.queues[cpu].set_policy(self.pointer(n), policy, self.now) };
                assert_eq!(self.entities[n].policy(), policy);
            }
        }
    }

    fn check(&mut self) {
        for cpu in 0..2 {
            let _ = self.queues[cpu].tick(self.now);
            let queue = &self.queues[cpu];
            let on = |n: &usize| match self.accounts[*n].state {
                State::Waiting { cpu: on, .. } | State::Running { cpu: on, .. } => on == cpu,
                State::Off => false,
            };
            let runnable: Vec<usize> = (0..ENTITIES).filter(on).collect();
            let running = self.running(cpu);
            assert_eq!(queue.current().map(|entity| self.number(entity)), running);
            assert_eq!(queue.nr_running() as usize, runnable.len());
            assert_eq!(
                queue.load(),
                runnable.iter().map(|n| self.entities[*n].weight()).sum::<u64>()
            );
            let mut queued: Vec<_> = queue.queued().map(|entity| self.number(entity)).collect();
            assert_eq!(queue.nr_queued() as usize, queued.len());
            queued.sort_unstable();
            let waiting = runnable.iter().copied().filter(|n| Some(*n) != running);
            assert!(waiting.eq(queued));

            let fair = runnable.iter().map(|n| &self.entities[*n]);
            let fair = fair.filter(|entity| entity.policy().rt_priority().is_none());
            queue.check_fair(fair);
            assert_eq!(queue.idle_ticks(), self.idle[cpu]);
        }
        for n in 0..ENTITIES {
            assert_eq!(self.entities[n].info(), self.accounts[n].info, "entity {n}");
            assert_eq!(self.entities[n].is_on_queue(), self.accounts[n].state != State::Off);
        }
        let run: u64 = self.accounts.iter().map(|account| account.info.run_ticks).sum();
        assert_eq!(run + self.idle[0] + self.idle[1], 2 * self.now);
    }
}

proptest! {
    #![proptest_config(proptest_config(400))]

    #[test]
    fn accounts_and_invariants_hold(
        policies in proptest::collection::vec(any_policy(), ENTITIES),
        steps in proptest::collection::vec(any_step(), 0..if cfg!(miri) { 60 } else { 150 }),
    ) {
        let mut world = World::new(&policies);
        for (ticks, step) in steps {
            world.pass(ticks);
            world.step(step);
            world.check();
        }
    }
}
