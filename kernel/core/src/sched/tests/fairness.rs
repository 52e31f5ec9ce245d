//! What the fair class promises: shares by weight, bounded lag, nobody starves, lag survives.

use super::*;

/// What the entity is owed now, in virtual time; it is runnable.
fn lag(cpu: &Cpu, n: usize) -> i64 {
    cpu.queue.virtual_time().wrapping_sub(cpu.entities[n].vruntime.get()) as i64
}

/// What the entity is owed now, in ticks.
fn lag_ticks(cpu: &Cpu, n: usize) -> i128 {
    lag(cpu, n) as i128 * cpu.entities[n].weight() as i128 / 1024
}

/// What the entity may run before its deadline, in virtual time.
fn slice_left(cpu: &Cpu, n: usize) -> u64 {
    let entity = &cpu.entities[n];
    entity.deadline.get().wrapping_sub(entity.vruntime.get())
}

#[test]
fn yielding_entities_alternate() {
    let mut cpu = Cpu::with(&[fair(0), fair(0)]);
    cpu.schedule(0, Switch::Preempt);
    // Whatever they use before they yield, and whatever they are owed when they begin.
    for (step, ticks) in
        [1, 50, 2_999, 7_000, 0, 0, 1, 1, 1, 1].into_iter().cycle().take(200).enumerate()
    {
        let expected = (step + 1) % 2;
        assert_eq!(cpu.schedule(ticks, Switch::Yield), Some(expected), "step {step}");
    }
}

#[test]
fn a_yielding_entity_does_not_run_away() {
    let mut cpu = Cpu::with(&[fair(0), fair(0)]);
    cpu.schedule(0, Switch::Preempt);
    for _ in 0..1_000 {
        cpu.schedule(1, Switch::Yield);
        assert!(lag(&cpu, 0).abs() <= 2 * 3_000, "lag {}", lag(&cpu, 0));
    }
}

#[test]
fn yielding_saves_nothing_up() {
    let mut cpu = Cpu::with(&[fair(0), fair(0)]);
    cpu.schedule(0, Switch::Preempt);
    for _ in 0..50 {
        // One yields at once, the other uses all it gets.
        if cpu.queue.current() == Some(cpu.pointer(0)) {
            assert_eq!(cpu.schedule(1, Switch::Yield), Some(1));
        } else {
            cpu.run_to_next_event();
        }
        assert!(lag(&cpu, 0) <= 3_000, "lag {}", lag(&cpu, 0));
    }
}

#[test]
fn a_woken_sleeper_preempts_a_hog() {
    let mut cpu = Cpu::with(&[fair(0), fair(0)]);
    cpu.schedule(0, Switch::Preempt);
    let sleeper = 0;
    assert_eq!(cpu.schedule(10, Switch::Block), Some(1));
    cpu.now += 10_000;
    assert_eq!(cpu.enqueue(sleeper, Enqueue::Wakeup), Preempt::Yes);
    assert_eq!(cpu.schedule(0, Switch::Preempt), Some(sleeper));
}

/// What the dead have used is not forgotten: otherwise those who come and go would always be first.
#[test]
fn a_stream_of_newcomers_starves_nobody() {
    let mut cpu = Cpu::with(&[fair(0)]);
    cpu.schedule(0, Switch::Preempt);
    // It has a debt when the others come.
    let veteran = 0;
    for _ in 0..10 {
        let newcomer = cpu.create(fair(0));
        let _ = cpu.enqueue(newcomer, Enqueue::New);
    }
    let mut running = cpu.schedule(2_000, Switch::Preempt);
    let mut turns = 0;
    while running != Some(veteran) {
        turns += 1;
        assert!(turns < 200, "it waits for ever");
        let newcomer = cpu.create(fair(0));
        let _ = cpu.enqueue(newcomer, Enqueue::New);
        running = cpu.schedule(500, Switch::Exit);
    }
}

#[test]
fn sleep_does_not_save_up_time() {
    let mut cpu = Cpu::with(&[fair(0), fair(0)]);
    cpu.schedule(0, Switch::Preempt);
    cpu.schedule(10, Switch::Block);
    cpu.now += 1_000_000_000;
    let _ = cpu.enqueue(0, Enqueue::Wakeup);
    assert!(lag_ticks(&cpu, 0) <= 2 * 3_000);
}

#[test]
fn nice_0_and_5_share_by_weight() {
    let mut cpu = Cpu::with(&[fair(0), fair(5)]);
    cpu.schedule(0, Switch::Preempt);
    let slices = if cfg!(miri) { 20 } else { 200 };
    for _ in 0..slices {
        cpu.run_to_next_event();
    }
    let ratio = cpu.info(0).run_ticks as f64 / cpu.info(1).run_ticks as f64;
    let weights = 1024.0 / 335.0;
    let tolerance = if cfg!(miri) { 0.3 } else { 0.02 };
    assert!((ratio / weights - 1.0).abs() < tolerance, "ratio {ratio}, weights {weights}");
}

/// A policy of the fair class: the nice values, and one above them for `Policy::IDLE`.
fn any_fair(number: i8) -> Policy {
    if number > Nice::MAX.get() { Policy::IDLE } else { fair(number) }
}

#[test]
fn idle_gets_next_to_nothing_beside_a_hog() {
    let mut cpu = Cpu::with(&[Policy::IDLE, fair(19), fair(0)]);
    cpu.schedule(0, Switch::Preempt);
    let slices = if cfg!(miri) { 700 } else { 40_000 };
    for _ in 0..slices {
        cpu.run_to_next_event();
    }
    let share = |n: usize| cpu.info(n).run_ticks as f64 / cpu.now as f64;
    let total = f64::from(3 + 15 + 1024);
    let tolerance = if cfg!(miri) { 0.5 } else { 0.02 };
    assert!((share(0) / (3.0 / total) - 1.0).abs() < tolerance, "{}", share(0));
    assert!((share(1) / (15.0 / total) - 1.0).abs() < tolerance, "{}", share(1));
}

#[test]
fn idle_makes_way_for_who_wakes_and_preempts_nobody() {
    let mut cpu = Cpu::with(&[fair(0)]);
    cpu.schedule(0, Switch::Preempt);
    let (sleeper, idle) = (0, cpu.create(Policy::IDLE));
    cpu.schedule(10_000, Switch::Block);
    let _ = cpu.enqueue(idle, Enqueue::New);
    assert_eq!(cpu.schedule(0, Switch::Preempt), Some(idle));
    for _ in 0..100 {
        cpu.now += 1_000;
        assert!(!cpu.queue.should_make_way(), "it is alone");
        let preempt = cpu.enqueue(sleeper, Enqueue::Wakeup);
        assert!(cpu.queue.should_make_way());
        let next = if preempt == Preempt::Yes {
            cpu.schedule(0, Switch::Preempt)
        } else {
            // The rest of its slice is, by the weights, shorter than the other's: next to nothing.
            let left = cpu.queue.next_event().unwrap() - cpu.now;
            assert!(left <= 1 + 3_000 * 3 / 1024, "{left}");
            cpu.run_to_next_event()
        };
        assert_eq!(next, Some(sleeper));
        assert!(!cpu.queue.should_make_way());
        assert_eq!(cpu.schedule(100, Switch::Block), Some(idle));
    }
    // The other way round: one that is owed nothing waits.
    let mut cpu = Cpu::with(&[fair(0)]);
    cpu.schedule(0, Switch::Preempt);
    let idle = cpu.create(Policy::IDLE);
    cpu.now += 100;
    assert_eq!(cpu.enqueue(idle, Enqueue::Wakeup), Preempt::No);
}

proptest! {
    #![proptest_config(proptest_config(64))]

    /// Hogs of any nice values get their shares. The theory (Stoica and Abdel-Wahab, theorem 1)
    /// bounds every lag by one slice at any time, so the error does not grow; over 100 slices
    /// of the entity itself it is below 2 %.
    #[test]
    fn hogs_share_by_weight(nices in proptest::collection::vec(-20i8..=20, 2..6)) {
        let policies: Vec<_> = nices.iter().map(|nice| any_fair(*nice)).collect();
        let mut cpu = Cpu::with(&policies);
        cpu.schedule(0, Switch::Preempt);
        let total: u64 = cpu.entities.iter().map(|entity| entity.weight()).sum();
        let mut switches = 0u64;
        let steps = if cfg!(miri) { 40 } else { 3_000 };
        for _ in 0..steps {
            let before = cpu.queue.current();
            cpu.run_to_next_event();
            switches += u64::from(cpu.queue.current() != before);
            for n in 0..nices.len() {
                // A tick's rounding per switch, and one slice.
                prop_assert!(lag_ticks(&cpu, n).abs() <= 3_000 + 3, "{n}: {}", lag_ticks(&cpu, n));
            }
        }
        let elapsed = cpu.now as f64;
        for n in 0..nices.len() {
            let share = elapsed * cpu.entities[n].weight() as f64 / total as f64;
            let run = cpu.info(n).run_ticks as f64;
            let error = (run - share).abs();
            prop_assert!(error <= 3_000.0 + switches as f64, "{n}: {run} for {share}");
            if share >= 100.0 * 3_000.0 {
                prop_assert!((run / share - 1.0).abs() < 0.02, "{n}: {run} for {share}");
            }
        }
    }

    /// Lag is what it was when an entity comes back from sleep or from elsewhere, whoever is there
    /// meanwhile.
    #[test]
    fn lag_survives(
        nices in proptest::collection::vec(-20i8..=20, 3..6),
        ran in proptest::collection::vec(1u64..20_000, 1..20),
        away in 0u64..50_000,
        how in prop_oneof![Just(Switch::Block), Just(Switch::Migrate)],
    ) {
        let policies: Vec<_> = nices.iter().map(|nice| any_fair(*nice)).collect();
        let mut cpu = Cpu::with(&policies);
        cpu.schedule(0, Switch::Preempt);
        for ticks in ran {
            cpu.schedule(ticks, Switch::Preempt);
        }
        let traveller = cpu.number(cpu.queue.current().unwrap());
        cpu.schedule(0, Switch::Preempt);
        prop_assume!(cpu.queue.current() == Some(cpu.pointer(traveller)));
        let limit = 2 * cpu.entities[traveller].slice_virtual.get() as i64;
        let before = lag(&cpu, traveller).clamp(-limit, limit);
        let left = slice_left(&cpu, traveller);
        cpu.schedule(0, how);
        cpu.now += away;
        let slept = how == Switch::Block;
        let _ = cpu.enqueue(traveller, if slept { Enqueue::Wakeup } else { Enqueue::Migrated });
        let after = lag(&cpu, traveller);
        if slept && before < 0 {
            // A debt is paid by sleeping, and never more than paid.
            prop_assert!((before - 2..=2).contains(&after), "{after} for {before}");
        } else {
            prop_assert!((after - before).abs() <= 2, "{after} for {before}");
        }
        let expected = if slept { cpu.entities[traveller].slice_virtual.get() } else { left };
        prop_assert_eq!(slice_left(&cpu, traveller), expected);
    }

    /// A change of the nice value keeps what is owed in real time, and nobody else's lag.
    #[test]
    fn renice_keeps_what_is_owed(
        nices in proptest::collection::vec(-20i8..=20, 2..6),
        ran in proptest::collection::vec(1u64..3_000, 1..20),
        which in 0usize..6,
        nice in -20i8..=20,
    ) {
        let policies: Vec<_> = nices.iter().map(|nice| any_fair(*nice)).collect();
        let mut cpu = Cpu::with(&policies);
        cpu.schedule(0, Switch::Preempt);
        for ticks in ran {
            cpu.schedule(ticks, Switch::Preempt);
        }
        let which = which % nices.len();
        let owed: Vec<_> = (0..nices.len()).map(|n| lag_ticks(&cpu, n)).collect();
        prop_assume!(owed[which].abs() < 2 * 3_000);
        let _ = cpu.set_policy(which, any_fair(nice));
        // Virtual times are whole: an error of 1 is weight / 1024 ticks, and moves everybody.
        let lowest = nices.iter().chain([&nice]).min().unwrap();
        let heaviest = Nice::new(*lowest).unwrap_or(Nice::MAX).weight();
        let error = 3 + 3 * i128::from(heaviest) / 1024;
        for (n, owed) in owed.into_iter().enumerate() {
            let now = lag_ticks(&cpu, n);
            prop_assert!((now - owed).abs() <= error, "{n}: {now} for {owed}");
        }
    }

    /// Nobody waits longer than the others' slices take, plus its own way to eligibility.
    #[test]
    fn nobody_starves(nices in proptest::collection::vec(-20i8..=20, 2..8)) {
        let policies: Vec<_> = nices.iter().map(|nice| any_fair(*nice)).collect();
        let mut cpu = Cpu::with(&policies);
        cpu.schedule(0, Switch::Preempt);
        let total: u64 = cpu.entities.iter().map(|entity| entity.weight()).sum();
        for _ in 0..if cfg!(miri) { 30 } else { 2_000 } {
            cpu.run_to_next_event();
            for entity in &cpu.entities {
                // At most two slices behind or ahead: V needs that many rounds to catch up.
                let bound = 5 * 3_000 * (total / entity.weight() + nices.len() as u64);
                let info = entity.info();
                if info.last_queued_ticks != 0 {
                    prop_assert!(cpu.now - info.last_queued_ticks <= bound);
                }
            }
        }
    }
}
