//! Notices a CPU that does not schedule any more.
//!
//! Nothing here measures host time, which on an emulated machine says little: a host that is busy
//! delays everyone alike. What is counted are *ticks* of the watch timer, which the kernel arms
//! with one and the same period on every CPU that is not idle, and *scheduling points*.
//!
//! Two ways to hang, two ways to be seen:
//! - A CPU that still takes interrupts but owes a task switch (`need_resched` is set and nothing
//!   comes of it: preemption disabled for ever) is found by its own ticks: [`OWED_LIMIT_TICKS`] of
//!   them in a row with a switch owed and no scheduling point in between. A task that runs long
//!   because nobody else is due is no hang.
//! - A CPU that takes no interrupts at all is found by another one. Each CPU watches the next one,
//!   in a ring, that is not idle: [`SILENCE_LIMIT_TICKS`] of the watcher's ticks without a tick or a
//!   scheduling point of the watched one. The limit leaves room for ticks that come unevenly.
//!
//! A CPU that owes a switch may do so because it waits for a silent one: for a lock, or for an answer to an
//! interrupt. Silence is therefore found long before a switch that is owed, so that the story is the culprit's.
//!
//! A boot that hangs is seen the same way, when it counts its milestones as scheduling points and
//! says that a switch is owed. If all CPUs but one are idle, nobody watches that one; the kernel may
//! keep one idle CPU's watch timer running while any other CPU is busy.
//!
//! Neighbours: the kernel's timer interrupt, context switch and idle loop.

use core::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};

use crate::cpuset::MAX_CPUS;

/// Ticks without a sign of life of another CPU that make a hang.
pub const SILENCE_LIMIT_TICKS: u32 = 10;

/// Ticks with a switch owed that make a hang. Twice the limit of silence, for those whose ticks come slowly.
pub const OWED_LIMIT_TICKS: u32 = 2 * SILENCE_LIMIT_TICKS;

/// Whether the scheduler has decided on a switch that has not happened yet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Switch {
    /// What runs may run on.
    NotOwed,
    /// `need_resched` is set, or the boot is not finished.
    Owed,
}

/// What a tick found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub enum Verdict {
    /// No CPU hangs as far as this one can see.
    Alive,
    /// This CPU takes interrupts, but has not switched although it should.
    NotScheduling {
        /// The CPU that hangs, which is the one that asked.
        cpu: usize,
        /// Its scheduling points since boot.
        points: u64,
    },
    /// Another CPU gives no sign of life.
    Silent {
        /// The CPU that hangs.
        cpu: usize,
        /// Its scheduling points since boot.
        points: u64,
        /// The CPU that noticed.
        seen_by: usize,
    },
}

/// One CPU's counters. Written by that CPU only.
#[derive(Debug)]
#[repr(align(64))]
struct CpuWatch {
    awake: AtomicBool,
    points: AtomicU64,
    ticks: AtomicU64,
    /// `points` at the last tick at which it was well.
    own_points: AtomicU64,
    own_missed: AtomicU32,
    /// The CPU it watches, and that CPU's `signs` when it last changed.
    watched: AtomicU32,
    watched_signs: AtomicU64,
    watched_missed: AtomicU32,
}

impl CpuWatch {
    const fn new() -> Self {
        Self {
            awake: AtomicBool::new(false),
            points: AtomicU64::new(0),
            ticks: AtomicU64::new(0),
            own_points: AtomicU64::new(0),
            own_missed: AtomicU32::new(0),
            watched: AtomicU32::new(u32::MAX),
            watched_signs: AtomicU64::new(0),
            watched_missed: AtomicU32::new(0),
        }
    }

    /// Changes whenever the CPU gives a sign of life.
    fn signs(&self) -> u64 {
        self.points.load(Ordering::Relaxed).wrapping_add(self.ticks.load(Ordering::Relaxed))
    }
}

/// The watch over all CPUs. Every method is called on the CPU that it names.
#[derive(Debug)]
pub struct Watchdog {
    cpus: [CpuWatch; MAX_CPUS],
}

impl Watchdog {
    /// A watch over CPUs that all count as idle, until they [`wake`](Self::wake).
    pub const fn new() -> Self {
        Self { cpus: [const { CpuWatch::new() }; MAX_CPUS] }
    }

    /// `cpu` passes a scheduling point: the scheduler was asked, whether or not it switched.
    ///
    /// # Panics
    /// If `cpu` is [`MAX_CPUS`] or more; so do the others.
    #[inline]
    pub fn scheduling_point(&self, cpu: usize) {
        bump(&self.cpus[cpu].points);
    }

    /// `cpu` goes idle, and its watch timer may stop.
    #[inline]
    pub fn idle(&self, cpu: usize) {
        self.cpus[cpu].awake.store(false, Ordering::Relaxed);
    }

    /// `cpu` is not idle any more: its watch timer runs from now on.
    #[inline]
    pub fn wake(&self, cpu: usize) {
        bump(&self.cpus[cpu].points);
        self.cpus[cpu].awake.store(true, Ordering::Relaxed);
    }

    /// The watch timer of `cpu` expired. After a verdict other than [`Verdict::Alive`] the count
    /// begins anew.
    pub fn tick(&self, cpu: usize, switch: Switch) -> Verdict {
        bump(&self.cpus[cpu].ticks);
        match self.check_own(cpu, switch) {
            Verdict::Alive => self.check_next(cpu),
            verdict => verdict,
        }
    }

    fn check_own(&self, cpu: usize, switch: Switch) -> Verdict {
        let own = &self.cpus[cpu];
        let points = own.points.load(Ordering::Relaxed);
        let well = switch == Switch::NotOwed || points != own.own_points.load(Ordering::Relaxed);
        own.own_points.store(points, Ordering::Relaxed);
        if missed_too_often(&own.own_missed, OWED_LIMIT_TICKS, well) {
            Verdict::NotScheduling { cpu, points }
        } else {
            Verdict::Alive
        }
    }

    fn check_next(&self, cpu: usize) -> Verdict {
        let own = &self.cpus[cpu];
        let next = (1..MAX_CPUS)
            .map(|distance| (cpu + distance) % MAX_CPUS)
            .find(|&other| self.cpus[other].awake.load(Ordering::Relaxed));
        let Some(next) = next else {
            own.watched.store(u32::MAX, Ordering::Relaxed);
            return Verdict::Alive;
        };
        let signs = self.cpus[next].signs();
        let well = own.watched.swap(next as u32, Ordering::Relaxed) != next as u32
            || own.watched_signs.load(Ordering::Relaxed) != signs;
        own.watched_signs.store(signs, Ordering::Relaxed);
        if missed_too_often(&own.watched_missed, SILENCE_LIMIT_TICKS, well) {
            let points = self.cpus[next].points.load(Ordering::Relaxed);
            Verdict::Silent { cpu: next, points, seen_by: cpu }
        } else {
            Verdict::Alive
        }
    }
}

impl Default for Watchdog {
    fn default() -> Self {
        Self::new()
    }
}

/// Only one CPU writes, so that a load and a store do.
fn bump(counter: &AtomicU64) {
    counter.store(counter.load(Ordering::Relaxed).wrapping_add(1), Ordering::Relaxed);
}

/// Counts ticks that were not well in a row.
fn missed_too_often(missed: &AtomicU32, limit: u32, well: bool) -> bool {
    let count = if well { 0 } else { missed.load(Ordering::Relaxed) + 1 };
    let too_often = count >= limit;
    missed.store(if too_often { 0 } else { count }, Ordering::Relaxed);
    too_often
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::boxed::Box;
    use std::vec::Vec;

    fn watch(awake: &[usize]) -> Box<Watchdog> {
        let watchdog = Box::new(Watchdog::new());
        awake.iter().for_each(|&cpu| watchdog.wake(cpu));
        watchdog
    }

    #[test]
    fn a_cpu_that_owes_a_switch_finds_itself() {
        let watchdog = watch(&[0]);
        // The first tick sees the point that waking was.
        for _ in 0..OWED_LIMIT_TICKS {
            assert_eq!(watchdog.tick(0, Switch::Owed), Verdict::Alive);
        }
        assert_eq!(watchdog.tick(0, Switch::Owed), Verdict::NotScheduling { cpu: 0, points: 1 });
    }

    #[test]
    fn a_hog_that_nobody_waits_for_is_no_hang() {
        let watchdog = watch(&[0]);
        for _ in 0..100 {
            assert_eq!(watchdog.tick(0, Switch::NotOwed), Verdict::Alive);
        }
    }

    #[test]
    fn a_scheduling_point_now_and_then_is_life() {
        let watchdog = watch(&[0]);
        for _ in 0..100 {
            for _ in 0..OWED_LIMIT_TICKS {
                assert_eq!(watchdog.tick(0, Switch::Owed), Verdict::Alive);
            }
            watchdog.scheduling_point(0);
        }
    }

    #[test]
    fn a_silent_cpu_is_found_by_the_one_before_it_in_the_ring() {
        let watchdog = watch(&[1, 4, 7]);
        let mut verdicts = Vec::new();
        for _ in 0..=SILENCE_LIMIT_TICKS {
            for cpu in [1, 7] {
                verdicts.push(watchdog.tick(cpu, Switch::NotOwed));
            }
        }
        verdicts.retain(|&verdict| verdict != Verdict::Alive);
        assert_eq!(verdicts, [Verdict::Silent { cpu: 4, points: 1, seen_by: 1 }]);
    }

    #[test]
    fn an_idle_cpu_is_not_missed() {
        let watchdog = watch(&[0, 1]);
        watchdog.idle(1);
        for _ in 0..100 {
            assert_eq!(watchdog.tick(0, Switch::NotOwed), Verdict::Alive);
        }
        watchdog.wake(1);
        for _ in 0..SILENCE_LIMIT_TICKS {
            assert_eq!(watchdog.tick(0, Switch::NotOwed), Verdict::Alive);
        }
        let silent = Verdict::Silent { cpu: 1, points: 2, seen_by: 0 };
        assert_eq!(watchdog.tick(0, Switch::NotOwed), silent);
    }

    #[test]
    fn who_waits_for_a_silent_cpu_is_not_accused() {
        let watchdog = watch(&[0, 1, 2]);
        // CPU 1 is silent; CPU 2, which is not the one that watches it, waits for it, and ticks half as often again.
        for round in 0..=SILENCE_LIMIT_TICKS {
            let ticks = [(2, Switch::Owed), (2, Switch::Owed), (0, Switch::NotOwed)];
            for &(cpu, switch) in &ticks[(round % 2) as usize..] {
                match watchdog.tick(cpu, switch) {
                    Verdict::Alive => {}
                    verdict => {
                        assert_eq!(verdict, Verdict::Silent { cpu: 1, points: 1, seen_by: 0 });
                        return;
                    }
                }
            }
        }
        panic!("nobody is accused");
    }

    proptest! {
        #![proptest_config(ProptestConfig {
            cases: if cfg!(miri) { 4 } else { 256 },
            failure_persistence: None,
            ..ProptestConfig::default()
        })]

        /// However CPUs wake and go idle: whoever ticks or schedules at least once per round is
        /// never accused, and one that stops for good while another ticks is.
        #[test]
        fn the_living_are_never_accused_and_the_dead_always(
            rounds in prop::collection::vec(prop::collection::vec(any::<bool>(), 4), 1..60),
            dead in 0usize..4,
        ) {
            let watchdog = watch(&[0, 1, 2, 3]);
            for awake in &rounds {
                for (cpu, &awake) in awake.iter().enumerate() {
                    if awake {
                        watchdog.wake(cpu);
                        prop_assert_eq!(watchdog.tick(cpu, Switch::NotOwed), Verdict::Alive);
                    } else {
                        watchdog.idle(cpu);
                    }
                }
            }
            watchdog.wake(dead);
            let mut accused = Vec::new();
            for _ in 0..SILENCE_LIMIT_TICKS + 1 {
                for cpu in (0..4).filter(|&cpu| cpu != dead) {
                    watchdog.wake(cpu);
                    match watchdog.tick(cpu, Switch::NotOwed) {
                        Verdict::Silent { cpu, .. } => accused.push(cpu),
                        verdict => prop_assert_eq!(verdict, Verdict::Alive),
                    }
                }
            }
            prop_assert_eq!(accused, [dead]);
        }
    }
}
