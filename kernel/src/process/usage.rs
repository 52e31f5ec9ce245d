//! What threads and processes have used: getrusage(2), times(2), wait4(2).

use core::ops::AddAssign;
use core::sync::atomic::Ordering;

use orrery_core::sched::cpu_time::{CpuTime, Samples};

use super::group::Process;
use super::thread::Thread;
use super::tree::{self, Tree};
use crate::sched::Task;

/// What threads have used, as it is counted.
#[derive(Clone, Copy, Debug, Default)]
pub struct Counts {
    /// Time that they have run.
    pub run_ticks: u64,
    /// Where they were found meanwhile.
    pub samples: Samples,
    /// Page faults that were corrected.
    pub faults: u64,
    /// Times that they gave up their CPU.
    pub voluntary_switches: u64,
    /// Times that somebody else was given it.
    pub involuntary_switches: u64,
}

impl Counts {
    /// What a thread's task has used up to now.
    pub fn of(task: &Task) -> Self {
        let info = task.sched_info_now();
        let samples = task.program().map_or(Samples::default(), |program| Samples {
            user: program.user_samples.load(Ordering::Relaxed),
            system: program.system_samples.load(Ordering::Relaxed),
        });
        let faults = task.program().map_or(0, |program| program.faults.load(Ordering::Relaxed));
        Self {
            run_ticks: info.run_ticks,
            samples,
            faults,
            voluntary_switches: info.voluntary_switches,
            involuntary_switches: info.involuntary_switches,
        }
    }
}

impl AddAssign for Counts {
    fn add_assign(&mut self, other: Self) {
        self.run_ticks += other.run_ticks;
        self.samples += other.samples;
        self.faults += other.faults;
        self.voluntary_switches += other.voluntary_switches;
        self.involuntary_switches += other.involuntary_switches;
    }
}

/// What a program is told of it.
#[derive(Clone, Copy, Debug, Default)]
pub struct Usage {
    /// Run time.
    pub time: CpuTime,
    /// Page faults that were corrected.
    pub faults: u64,
    /// See [`Counts`].
    pub voluntary_switches: u64,
    /// See [`Counts`].
    pub involuntary_switches: u64,
    /// Most pages that one process had at a time.
    pub max_resident_pages: u64,
}

impl Usage {
    fn new(time: CpuTime, counts: &Counts, max_resident_pages: u64) -> Self {
        Self {
            time,
            faults: counts.faults,
            voluntary_switches: counts.voluntary_switches,
            involuntary_switches: counts.involuntary_switches,
            max_resident_pages,
        }
    }
}

impl AddAssign for Usage {
    fn add_assign(&mut self, other: Self) {
        self.time += other.time;
        self.faults += other.faults;
        self.voluntary_switches += other.voluntary_switches;
        self.involuntary_switches += other.involuntary_switches;
        self.max_resident_pages = self.max_resident_pages.max(other.max_resident_pages);
    }
}

impl Process {
    /// What its threads have used, those that have gone included.
    pub fn usage(&self, tree: &mut Tree) -> Usage {
        let counts = self.counts(tree);
        let max_resident_pages = self.max_resident_pages(tree);
        Usage::new(self.divide(&counts, tree), &counts, max_resident_pages)
    }

    /// [`Self::usage`]'s time.
    pub fn cpu_time(&self, tree: &mut Tree) -> CpuTime {
        let counts = self.counts(tree);
        self.divide(&counts, tree)
    }

    fn divide(&self, counts: &Counts, tree: &mut Tree) -> CpuTime {
        let told = &mut self.family.get_mut(tree).told_time;
        told.divide(counts.run_ticks, counts.samples)
    }

    /// What its children have used that it has waited for, and theirs.
    pub fn children_usage(&self, tree: &Tree) -> Usage {
        self.family.get(tree).children_usage.as_deref().copied().unwrap_or_default()
    }

    /// Time that its threads have run so far, those that have gone included.
    pub fn run_ticks(&self, tree: &Tree) -> u64 {
        self.counts(tree).run_ticks
    }

    fn counts(&self, tree: &Tree) -> Counts {
        let family = self.family.get(tree);
        let mut counts = family.past_counts;
        for task in &family.threads {
            counts += Counts::of(task);
        }
        counts
    }

    fn max_resident_pages(&self, tree: &Tree) -> u64 {
        let mut most = self.past_resident_pages.load(Ordering::Relaxed);
        self.family.get(tree).for_each_thread(|_, thread| {
            if let Some(space) = &*thread.space.lock() {
                most = most.max(space.max_resident_pages());
            }
        });
        most
    }
}

impl Thread {
    /// What the thread has used, whose task this is.
    pub fn usage(&self, task: &Task) -> Usage {
        let counts = Counts::of(task);
        let mut tree = tree::lock();
        let max_resident_pages = self.process.max_resident_pages(&tree);
        let told = self.told_time.get_mut(&mut tree);
        let time = told.divide(counts.run_ticks, counts.samples);
        Usage::new(time, &counts, max_resident_pages)
    }
}
