//! The report that `perf sched latency` users know: per task, per CPU, and wake-up latencies.

use serde::Serialize;

use super::sections::{SectionRow, sections};
use crate::{
    Trace,
    model::{Model, Task},
    symbols::Symboliser,
};

/// Percentiles of a set of times, by nearest rank; all 0 where there is none.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Percentiles {
    /// How many times there are.
    pub count: u64,
    /// Half are at most this.
    pub p50_ticks: u64,
    /// 90 % are at most this.
    pub p90_ticks: u64,
    /// 99 % are at most this.
    pub p99_ticks: u64,
    /// All are at most this.
    pub max_ticks: u64,
}

impl Percentiles {
    /// The percentiles of these times.
    pub fn of(mut times_ticks: Vec<u64>) -> Self {
        times_ticks.sort_unstable();
        let rank = |percent: usize| {
            let rank = (times_ticks.len() * percent).div_ceil(100).max(1);
            times_ticks.get(rank - 1).copied().unwrap_or(0)
        };
        Self {
            count: times_ticks.len() as u64,
            p50_ticks: rank(50),
            p90_ticks: rank(90),
            p99_ticks: rank(99),
            max_ticks: rank(100),
        }
    }
}

/// One task.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct TaskRow {
    /// Its pid.
    pub pid: u32,
    /// Its name, or `?`.
    pub name: String,
    /// Time on a CPU.
    pub runtime_ticks: u64,
    /// Times it got a CPU.
    pub switches: u64,
    /// Times it lost the CPU while runnable.
    pub preemptions: u64,
    /// Wake-ups.
    pub wakeups: u64,
    /// Moves to another CPU's queue.
    pub migrations: u64,
    /// Mean wait for a CPU.
    pub average_delay_ticks: u64,
    /// Longest wait for a CPU.
    pub max_delay_ticks: u64,
    /// When that wait ended.
    pub max_delay_end_ticks: u64,
    /// From wake-up to switch-in.
    pub wake_latency: Percentiles,
}

/// One CPU.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct CpuRow {
    /// Its number.
    pub cpu: u16,
    /// Time with a task other than the idle task.
    pub busy_ticks: u64,
    /// Time with the idle task.
    pub idle_ticks: u64,
    /// Time of which nothing is known, because records are missing.
    pub unknown_ticks: u64,
    /// Task switches.
    pub switches: u64,
    /// Interrupts.
    pub interrupts: u64,
    /// Inter-processor interrupts sent.
    pub ipis_sent: u64,
    /// Wake-ups done.
    pub wakeups_sent: u64,
}

/// The whole report.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Report {
    /// Build id of the kernel.
    pub build_id: String,
    /// Ticks in a second.
    pub tick_hz: u64,
    /// From the first event to the last.
    pub duration_ticks: u64,
    /// Events the report is made of.
    pub events: u64,
    /// Records lost on the way.
    pub lost: u64,
    /// Records the kernel had no room for.
    pub dropped: u64,
    /// Bytes of damage.
    pub damaged_bytes: u64,
    /// Whether everything that was sent arrived, up to a proper end.
    pub whole: bool,
    /// Tasks by runtime, longest first.
    pub tasks: Vec<TaskRow>,
    /// CPUs by number.
    pub cpus: Vec<CpuRow>,
    /// From wake-up to switch-in, all tasks.
    pub wake_latency: Percentiles,
    /// Where preemption or interrupts stayed off for long, the longest first.
    pub sections: Vec<SectionRow>,
}

/// Makes the report of a trace and its model.
pub fn report(trace: &Trace, model: &Model) -> Report {
    let mut tasks: Vec<TaskRow> = model.tasks.iter().map(task_row).collect();
    tasks.sort_by_key(|task| (std::cmp::Reverse(task.runtime_ticks), task.pid));
    let all: Vec<u64> =
        model.tasks.iter().flat_map(|task| &task.wake_latencies_ticks).copied().collect();
    let accounts = trace.accounts();
    Report {
        build_id: trace.decoder().schema.build_id.clone(),
        tick_hz: model.tick_hz,
        duration_ticks: model.end_ticks.saturating_sub(model.start_ticks),
        events: trace.len() as u64,
        lost: accounts.lost(),
        dropped: accounts.dropped(),
        damaged_bytes: accounts.damaged_bytes,
        whole: trace.is_whole(),
        tasks,
        cpus: model
            .cpus
            .iter()
            .map(|cpu| CpuRow {
                cpu: cpu.cpu,
                busy_ticks: cpu.busy_ticks,
                idle_ticks: cpu.idle_ticks,
                unknown_ticks: cpu.unknown_ticks,
                switches: cpu.switches,
                interrupts: cpu.interrupts,
                ipis_sent: cpu.ipis_sent,
                wakeups_sent: cpu.wakeups_sent,
            })
            .collect(),
        wake_latency: Percentiles::of(all),
        sections: sections(trace),
    }
}

impl Report {
    /// Says of each address in it which place in the source it is.
    pub fn name_places(&mut self, symbols: &Symboliser) {
        for section in &mut self.sections {
            section.place = symbols.section_place(section.site);
        }
    }
}

fn task_row(task: &Task) -> TaskRow {
    TaskRow {
        pid: task.pid,
        name: task.name.clone().unwrap_or_else(|| "?".to_owned()),
        runtime_ticks: task.runtime_ticks,
        switches: task.switches,
        preemptions: task.involuntary_switches,
        wakeups: task.wakeups,
        migrations: task.migrations,
        average_delay_ticks: task.delay_ticks.checked_div(task.delays).unwrap_or(0),
        max_delay_ticks: task.max_delay_ticks,
        max_delay_end_ticks: task.max_delay_end_ticks,
        wake_latency: Percentiles::of(task.wake_latencies_ticks.clone()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_by_nearest_rank() {
        let p = Percentiles::of((1..=100).rev().collect());
        assert_eq!((p.p50_ticks, p.p90_ticks, p.p99_ticks, p.max_ticks), (50, 90, 99, 100));
        let p = Percentiles::of(vec![7]);
        assert_eq!((p.count, p.p50_ticks, p.max_ticks), (1, 7, 7));
        assert_eq!(Percentiles::of(vec![]), Percentiles::default());
    }
}
