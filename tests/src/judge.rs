//! Verdicts: what must hold in every whole trace of a correct scheduler.
//!
//! Each function replays a trace in merged order and panics with the event that breaks the rule.
//! Clocks of different CPUs are compared where the kernel orders the two moments: a task is
//! switched out before another CPU can switch it in.

use std::collections::{HashMap, HashSet};

use trace_tools::Trace;
use trace_tools::events::{EventRef, Known};
use trace_tools::model::TaskState;

fn at(event: &EventRef<'_>) -> String {
    let fields: Vec<String> =
        event.fields().map(|(name, value)| format!("{name}={value:?}")).collect();
    let (time, cpu, pid) = (event.time_ticks, event.cpu, event.pid);
    format!("at {time} on CPU {cpu}, pid {pid}: {} {}", event.name(), fields.join(" "))
}

/// All the rules that hold whatever the workload did and whatever machine it ran on.
pub fn everything(trace: &Trace) {
    switch_chain(trace);
    one_cpu_at_a_time(trace);
    affinity(trace);
    wakes(trace);
}

/// On each CPU the task that runs is the one that was switched in last.
pub fn switch_chain(trace: &Trace) {
    let mut running: HashMap<u16, u32> = HashMap::new();
    for (event, known) in trace.known() {
        let expected = *running.entry(event.cpu).or_insert(event.pid);
        assert_eq!(event.pid, expected, "pid {expected} was switched in last, but {}", at(&event));
        if let Known::SchedSwitch { next, .. } = known {
            assert_ne!(next, event.pid, "a switch from a task to itself {}", at(&event));
            running.insert(event.cpu, next);
        }
    }
}

/// No task runs on two CPUs, and none after its end.
pub fn one_cpu_at_a_time(trace: &Trace) {
    let mut running: HashMap<u32, u16> = HashMap::new();
    let mut dead: HashSet<u32> = HashSet::new();
    for (event, known) in trace.known() {
        match known {
            Known::SchedSwitch { next, prev_state, .. } => {
                running.remove(&event.pid);
                if TaskState::from_number(prev_state) == Some(TaskState::Dead) {
                    dead.insert(event.pid);
                }
                if next == 0 {
                    continue;
                }
                assert!(!dead.contains(&next), "a dead task runs {}", at(&event));
                if let Some(cpu) = running.insert(next, event.cpu) {
                    panic!("pid {next} still runs on CPU {cpu} {}", at(&event));
                }
            }
            Known::TaskNew { pid, .. } => {
                dead.remove(&pid);
            }
            _ => {}
        }
    }
}

/// No task is switched in on a CPU that it may not use. Returns how many switches were looked at.
pub fn affinity(trace: &Trace) -> u64 {
    let mut allowed: HashMap<u32, u64> = HashMap::new();
    let mut looked_at = 0;
    for (event, known) in trace.known() {
        match known {
            Known::TaskAttr { pid, affinity, .. } => {
                allowed.insert(pid, affinity);
            }
            Known::SchedSwitch { next, .. } if next != 0 => {
                let Some(mask) = allowed.get(&next) else { continue };
                assert!(
                    mask >> event.cpu & 1 == 1,
                    "only the CPUs {mask:#x} are allowed {}",
                    at(&event)
                );
                looked_at += 1;
            }
            _ => {}
        }
    }
    looked_at
}

/// Every wake raises its task's number by one, each switch-in carries the number of the last
/// wake, and no task that was woken is left waiting at the end. Returns the number of wakes.
pub fn wakes(trace: &Trace) -> u64 {
    /// A task's last wake and the last one that a switch-in has answered.
    #[derive(Default)]
    struct Seen {
        woken: Option<u8>,
        unanswered: Option<String>,
    }
    let mut tasks: HashMap<u32, Seen> = HashMap::new();
    let mut count = 0;
    for (event, known) in trace.known() {
        match known {
            Known::TaskNew { pid, .. } => {
                tasks.insert(pid, Seen::default());
            }
            Known::SchedWakeup { pid, seq, .. } => {
                count += 1;
                let task = tasks.entry(pid).or_default();
                if let Some(last) = task.woken.replace(seq) {
                    assert_eq!(seq, last.wrapping_add(1), "last number {last}; {}", at(&event));
                }
                task.unanswered = Some(at(&event));
            }
            Known::SchedSwitch { next, seq, .. } if next != 0 => {
                let task = tasks.entry(next).or_default();
                if let Some(last) = task.woken {
                    assert_eq!(seq, last, "last woken with number {last}; {}", at(&event));
                }
                task.unanswered = None;
            }
            // A wake of a task on its way to sleep lets it go on: it ends without another switch.
            Known::TaskExit { pid, .. } => {
                tasks.entry(pid).or_default().unanswered = None;
            }
            _ => {}
        }
    }
    // Who stops the machine has no time for those who were woken last.
    let end = trace.events().last().map_or(0, |event| event.time_ticks);
    let hz = trace.hello().map_or(1, |hello| hello.tick_hz);
    for (pid, task) in &tasks {
        let Some(wake) = &task.unanswered else { continue };
        let time: u64 = wake.split(' ').nth(1).and_then(|time| time.parse().ok()).unwrap_or(0);
        assert!(time + hz / 10 > end, "pid {pid} was woken and never ran: {wake}");
    }
    count
}

/// The longest time, in ticks, that a CPU idled while a task that it may run waited for one.
pub fn longest_idle_beside_work(trace: &Trace) -> u64 {
    let cpus = trace.hello().map_or(0, |hello| hello.cpus) as usize;
    let mut state = Conservation {
        allowed: HashMap::new(),
        waiting: HashSet::new(),
        waiting_for: vec![0; cpus],
        idle: vec![false; cpus],
        since: vec![None; cpus],
        longest: 0,
    };
    for (event, known) in trace.known() {
        match known {
            Known::TaskAttr { pid, affinity, .. } => {
                let waits = state.waiting.contains(&pid);
                state.set_waiting(pid, false);
                state.allowed.insert(pid, affinity);
                state.set_waiting(pid, waits);
            }
            Known::SchedWakeup { pid, .. } | Known::SchedEnqueue { pid, .. } => {
                state.set_waiting(pid, true);
            }
            Known::SchedSwitch { next, prev_state, .. } => {
                let goes_on = TaskState::from_number(prev_state) == Some(TaskState::Runnable);
                state.set_waiting(event.pid, goes_on);
                state.set_waiting(next, false);
                state.idle[usize::from(event.cpu)] = next == 0;
            }
            _ => {}
        }
        state.look(event.time_ticks);
    }
    state.longest
}

struct Conservation {
    allowed: HashMap<u32, u64>,
    waiting: HashSet<u32>,
    /// How many tasks wait that each CPU may run.
    waiting_for: Vec<usize>,
    idle: Vec<bool>,
    /// Since when each CPU has idled beside work.
    since: Vec<Option<u64>>,
    longest: u64,
}

impl Conservation {
    fn set_waiting(&mut self, pid: u32, waits: bool) {
        // A task whose affinity was never told could be any CPU's own.
        let Some(&mask) = self.allowed.get(&pid) else { return };
        let changed = if waits { self.waiting.insert(pid) } else { self.waiting.remove(&pid) };
        if pid == 0 || !changed {
            return;
        }
        for (cpu, count) in self.waiting_for.iter_mut().enumerate() {
            if mask >> cpu & 1 == 1 {
                *count = if waits { *count + 1 } else { *count - 1 };
            }
        }
    }

    fn look(&mut self, now: u64) {
        for (cpu, since) in self.since.iter_mut().enumerate() {
            if self.idle[cpu] && self.waiting_for[cpu] > 0 {
                self.longest = self.longest.max(now.saturating_sub(*since.get_or_insert(now)));
            } else if let Some(start) = since.take() {
                self.longest = self.longest.max(now.saturating_sub(start));
            }
        }
    }
}
