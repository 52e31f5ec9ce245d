//! Run time, divided into that of the program and that of the kernel.
//!
//! How long a task has run is known to the tick. Where it was meanwhile is sampled, at regular times: a look at the
//! clock at each system call would cost a tenth of the call. So the exact sum is divided as the samples are
//! (Linux: `cputime_adjust`).

use core::ops::AddAssign;

/// Run time of tasks, in ticks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CpuTime {
    /// In ring 3.
    pub user_ticks: u64,
    /// In the kernel.
    pub system_ticks: u64,
}

impl CpuTime {
    /// Both together.
    pub const fn total_ticks(self) -> u64 {
        self.user_ticks.saturating_add(self.system_ticks)
    }
}

impl AddAssign for CpuTime {
    fn add_assign(&mut self, other: Self) {
        self.user_ticks = self.user_ticks.saturating_add(other.user_ticks);
        self.system_ticks = self.system_ticks.saturating_add(other.system_ticks);
    }
}

/// How often tasks were found where.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Samples {
    /// In ring 3.
    pub user: u64,
    /// In the kernel.
    pub system: u64,
}

impl Samples {
    /// Divides a run time. What was never found in the kernel has all its time in ring 3.
    pub fn divide(self, run_ticks: u64) -> CpuTime {
        let system_ticks = if self.system == 0 {
            0
        } else {
            let all = u128::from(self.user) + u128::from(self.system);
            // A part of `run_ticks`.
            (u128::from(run_ticks) * u128::from(self.system) / all) as u64
        };
        CpuTime { user_ticks: run_ticks - system_ticks, system_ticks }
    }
}

impl AddAssign for Samples {
    fn add_assign(&mut self, other: Self) {
        self.user = self.user.saturating_add(other.user);
        self.system = self.system.saturating_add(other.system);
    }
}

/// What has been told of somebody's run time. Later samples may move time from one part to the other; whoever asks
/// twice must not see either go back.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Told(CpuTime);

impl Told {
    /// Divides a run time that is no less than it was at the last call.
    pub fn divide(&mut self, run_ticks: u64, samples: Samples) -> CpuTime {
        let told = self.0;
        let run_ticks = run_ticks.max(told.total_ticks());
        let least_user = told.user_ticks;
        let system_ticks =
            samples.divide(run_ticks).system_ticks.clamp(told.system_ticks, run_ticks - least_user);
        self.0 = CpuTime { user_ticks: run_ticks - system_ticks, system_ticks };
        self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn without_samples_all_is_the_programs() {
        let time = Samples::default().divide(77);
        assert_eq!(time, CpuTime { user_ticks: 77, system_ticks: 0 });
    }

    #[test]
    fn time_is_divided_as_the_samples_are() {
        let time = Samples { user: 1, system: 3 }.divide(1000);
        assert_eq!(time, CpuTime { user_ticks: 250, system_ticks: 750 });
        let all_system = Samples { user: 0, system: 1 }.divide(9);
        assert_eq!(all_system, CpuTime { user_ticks: 0, system_ticks: 9 });
    }

    #[test]
    fn what_was_told_stays() {
        let mut told = Told::default();
        told.divide(100, Samples { user: 1, system: 0 });
        // By the samples alone 10 of 110 would be the program's now.
        let time = told.divide(110, Samples { user: 1, system: 10 });
        assert_eq!(time, CpuTime { user_ticks: 100, system_ticks: 10 });
    }

    proptest! {
        #[test]
        fn parts_add_up_and_never_go_back(
            steps in prop::collection::vec((0..u64::MAX / 64, 0..1000u64, 0..1000u64), 1..40),
        ) {
            let mut told = Told::default();
            let (mut run, mut samples, mut before) = (0, Samples::default(), CpuTime::default());
            for (ran, user, system) in steps {
                run += ran;
                samples += Samples { user, system };
                let now = told.divide(run, samples);
                prop_assert_eq!(now.total_ticks(), run);
                prop_assert!(now.user_ticks >= before.user_ticks);
                prop_assert!(now.system_ticks >= before.system_ticks);
                before = now;
            }
        }
    }
}
