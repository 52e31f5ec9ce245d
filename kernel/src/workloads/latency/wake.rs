//! Wake-ups: from the waker's last look at the clock to the first of the task that was woken.
//!
//! The task that sleeps is of a higher priority than the waker, so that it runs at once on the same CPU, and
//! instead of a hog on another.

use alloc::sync::Arc;
use core::sync::atomic::{AtomicU32, AtomicU64, Ordering};

use orrery_core::idle::Idle;

use super::{HERE, HIGHER_PRIORITY, Hog, LONG, Suite, THERE, spin_until};
use crate::app::{self, Builder, CpuSet, Failure, JoinHandle, WaitQueue};
use crate::arch::cpu;
use crate::sched::{State, idle};

pub fn measure(suite: Suite) -> Result<(), Failure> {
    if suite.wants("wake/task/same-cpu") {
        wakes(suite, "wake/task/same-cpu", HERE, || ())?;
    }
    let (name, state) = match idle::mode() {
        idle::Mode::Poll => ("wake/task/other-cpu/polling", Idle::Polling),
        idle::Mode::Auto | idle::Mode::Halt => ("wake/task/other-cpu/halted", Idle::Halted),
    };
    if suite.wants_with_two_cpus(name) {
        wakes(suite, name, THERE, || wait_for_state(state))?;
    }
    let name = "wake/task/other-cpu/busy";
    if suite.wants_with_two_cpus(name) {
        let hog = Hog::on(THERE)?;
        let measured = wakes(suite, name, THERE, || wait_for_state(Idle::Busy));
        hog.stop();
        measured?;
    }
    Ok(())
}

/// Waits until the other CPU has idled, or worked, for long.
fn wait_for_state(state: Idle) {
    spin_until(app::now_ticks() + app::to_ticks(LONG));
    while idle::state_of(THERE) != state {
        cpu::pause();
    }
}

fn wakes(suite: Suite, name: &'static str, cpu: usize, settle: impl Fn()) -> Result<(), Failure> {
    let sleeper = Sleeper::start(suite, name, cpu, when_woken)?;
    while sleeper.has_rounds_left() {
        sleeper.wait_for_sleep();
        settle();
        sleeper.wake(app::now_ticks());
        sleeper.wait_for_end_of_round();
    }
    sleeper.finish()
}

/// What a sleeper does whose waker's word is the beginning of the sample.
pub fn when_woken(word_ticks: &AtomicU64) -> Option<(u64, u64)> {
    let end_ticks = app::now_ticks();
    Some((word_ticks.load(Ordering::Relaxed), end_ticks))
}

/// A task that is woken again and again, and tells a sample each time.
pub struct Sleeper {
    bed: Arc<Bed>,
    task: JoinHandle,
}

struct Bed {
    queue: WaitQueue,
    /// What the waker says, in ticks; 0 while the sleeper is to sleep.
    word_ticks: AtomicU64,
    rounds_left: AtomicU32,
}

impl Sleeper {
    /// A task for so many rounds as `suite` wants. `awake` is what it does when it was woken, with the waker's word:
    /// it returns the beginning and the end of the sample, or nothing where there is none to tell. Such a round
    /// does not count.
    ///
    /// # Errors
    /// When there can be no such task.
    pub fn start(
        suite: Suite,
        name: &'static str,
        cpu: usize,
        awake: impl Fn(&AtomicU64) -> Option<(u64, u64)> + Send + 'static,
    ) -> Result<Self, Failure> {
        let bed = Arc::new(Bed {
            queue: WaitQueue::new(),
            word_ticks: AtomicU64::new(0),
            rounds_left: AtomicU32::new(suite.rounds()),
        });
        let builder = Builder::new("sleeper").fifo(HIGHER_PRIORITY).cpus(CpuSet::single(cpu));
        let task = builder.spawn({
            let bed = bed.clone();
            move || -> Result<(), Failure> {
                let mut round = 0;
                while round < suite.rounds() {
                    bed.queue.wait_until(|| bed.word_ticks.load(Ordering::Acquire) != 0);
                    let mut told = Ok(());
                    if let Some(sample) = awake(&bed.word_ticks) {
                        told = suite.tell(round, name, sample, 1);
                        round += 1;
                    }
                    let left = if told.is_ok() { suite.rounds() - round } else { 0 };
                    bed.rounds_left.store(left, Ordering::Relaxed);
                    bed.word_ticks.store(0, Ordering::Release);
                    told?;
                }
                Ok(())
            }
        })?;
        Ok(Self { bed, task })
    }

    /// Whether it has rounds left, between two of them.
    pub fn has_rounds_left(&self) -> bool {
        self.bed.rounds_left.load(Ordering::Relaxed) > 0
    }

    /// Waits until it sleeps. On the caller's own CPU it does.
    pub fn wait_for_sleep(&self) {
        while !matches!(self.task.task().state(), State::Sleeping(_)) {
            cpu::pause();
        }
    }

    /// Says this word, and wakes it.
    #[inline(always)]
    pub fn wake(&self, word_ticks: u64) {
        self.bed.word_ticks.store(word_ticks, Ordering::Release);
        self.bed.queue.wake_one();
    }

    /// Says another word instead of `before`, unless the round has ended.
    pub fn correct(&self, before_ticks: u64, word_ticks: u64) {
        let (success, failure) = (Ordering::Release, Ordering::Relaxed);
        let word = &self.bed.word_ticks;
        // That the round has ended is what `wait_for_end_of_round` sees as well.
        let _ = word.compare_exchange(before_ticks, word_ticks, success, failure);
    }

    /// Waits until it has told its sample, or has none.
    pub fn wait_for_end_of_round(&self) {
        while self.bed.word_ticks.load(Ordering::Acquire) != 0 {
            cpu::pause();
        }
    }

    /// Waits for its end, after the last round.
    ///
    /// # Errors
    /// When a sample could not be told.
    pub fn finish(self) -> Result<(), Failure> {
        match self.task.join() {
            0 => Ok(()),
            _ => Err("the task that is woken has failed".into()),
        }
    }
}
