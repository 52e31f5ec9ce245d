//! Replays tasks and CPUs as state machines.
//!
//! [`Model::replay`] goes once over a trace in merged order and keeps, per task and per CPU, how
//! long it was in which state and how often it changed. The analyses are pure functions of the
//! result.
//!
//! A trace may begin in the middle, lack records, or have clocks that disagree by a little. So
//! nothing is asserted about the order: a state that was not seen is [`State::Unknown`] and is not
//! accounted, and a negative time counts as zero.

mod cpu;
mod task;

pub use cpu::Cpu;
pub use task::{Class, State, Task, TaskState};

use std::collections::HashMap;

use crate::{
    Trace,
    events::{EventRef, Known},
};

/// What the tasks and CPUs of a trace did.
#[derive(Clone, Debug)]
pub struct Model {
    /// Ticks of the trace clock in a second.
    pub tick_hz: u64,
    /// Time of the first event.
    pub start_ticks: u64,
    /// Time of the last event.
    pub end_ticks: u64,
    /// Every task that was seen, in order of first appearance. A pid that was used again is
    /// another task. Idle tasks are not among them: they are the CPUs' idle time.
    pub tasks: Vec<Task>,
    /// Every CPU that was seen.
    pub cpus: Vec<Cpu>,
    /// The task that has a pid now, by index.
    by_pid: HashMap<u32, usize>,
}

impl Model {
    /// Replays a trace.
    pub fn replay(trace: &Trace) -> Self {
        let mut model = Self {
            tick_hz: trace.hello().map_or(1, |hello| hello.tick_hz),
            start_ticks: trace.events().first().map_or(0, |event| event.time_ticks),
            end_ticks: trace.events().last().map_or(0, |event| event.time_ticks),
            tasks: Vec::new(),
            cpus: Vec::new(),
            by_pid: HashMap::new(),
        };
        for event in trace.iter() {
            model.step(&event);
        }
        model.close();
        model
    }

    /// The task with this pid now, a new one if there is none.
    fn task(&mut self, pid: u32) -> &mut Task {
        let index = *self.by_pid.entry(pid).or_insert_with(|| {
            self.tasks.push(Task::new(pid));
            self.tasks.len() - 1
        });
        &mut self.tasks[index]
    }

    fn cpu(&mut self, cpu: u16) -> &mut Cpu {
        let index = match self.cpus.binary_search_by_key(&cpu, |known| known.cpu) {
            Ok(index) => index,
            Err(index) => {
                self.cpus.insert(index, Cpu::new(cpu));
                index
            }
        };
        &mut self.cpus[index]
    }

    fn step(&mut self, event: &EventRef<'_>) {
        let now = event.time_ticks;
        self.settle(event);
        match event.known() {
            Known::SchedSwitch { next, prev_state, seq } => {
                self.switch(event, next, prev_state, seq);
            }
            Known::SchedWakeup { pid, seq, .. } => {
                self.cpu(event.cpu).wakeups_sent += 1;
                if pid != 0 {
                    self.task(pid).wake(now, seq);
                }
            }
            Known::SchedEnqueue { pid, .. } if pid != 0 => self.task(pid).enqueue(now),
            Known::SchedMigrate { pid, .. } if pid != 0 => self.task(pid).migrations += 1,
            Known::IrqEnter { .. } => self.cpu(event.cpu).interrupts += 1,
            Known::IpiSend { .. } => self.cpu(event.cpu).ipis_sent += 1,
            Known::TaskNew { pid, parent } if pid != 0 => {
                // The pid's last owner is gone, whether or not its end was seen.
                if self.by_pid.get(&pid).is_some_and(|&old| self.tasks[old].was_seen()) {
                    self.by_pid.remove(&pid);
                }
                let task = self.task(pid);
                task.parent = Some(parent);
                task.created_ticks = Some(now);
            }
            Known::TaskAttr { pid, class, priority, nice, affinity, name } if pid != 0 => {
                let task = self.task(pid);
                task.name = Some(name.to_text());
                task.class = Class::from_number(class);
                task.priority = priority;
                task.nice = nice;
                task.affinity = Some(affinity);
            }
            Known::TaskExit { pid, code } if pid != 0 => {
                let task = self.task(pid);
                task.exit_code = Some(code);
                task.exited_ticks = Some(now);
            }
            Known::TaskDump { pid, parent, state, .. } if pid != 0 => {
                let task = self.task(pid);
                task.parent = Some(parent);
                if let (State::Unknown, Some(state)) = (task.state, TaskState::from_number(state)) {
                    task.dumped(state);
                }
            }
            _ => {}
        }
        self.cpu(event.cpu).last_ticks = now;
    }

    /// Makes the CPU's running task the one that the event names. They differ at a CPU's first
    /// event and where a switch was lost.
    fn settle(&mut self, event: &EventRef<'_>) {
        let now = event.time_ticks;
        let cpu = self.cpu(event.cpu);
        let before = cpu.current;
        if before == Some(event.pid) {
            return;
        }
        let seen_until = cpu.last_ticks;
        if before.is_some() {
            cpu.account(seen_until);
            cpu.unknown_ticks += now.saturating_sub(seen_until);
        }
        cpu.current = Some(event.pid);
        cpu.since_ticks = now;
        if let Some(pid) = before.filter(|&pid| pid != 0) {
            let task = self.task(pid);
            task.stop(seen_until);
            task.state = State::Unknown;
        }
        if event.pid != 0 {
            let cpu = event.cpu;
            self.task(event.pid).state = State::Running { cpu, since_ticks: now };
        }
    }

    fn switch(&mut self, event: &EventRef<'_>, next: u32, prev_state: u8, seq: u8) {
        let now = event.time_ticks;
        let cpu = self.cpu(event.cpu);
        cpu.account(now);
        cpu.switches += 1;
        cpu.current = Some(next);
        if event.pid != 0 {
            self.task(event.pid).switch_out(now, TaskState::from_number(prev_state));
        }
        if next != 0 {
            self.task(next).switch_in(now, event.cpu, seq);
        }
    }

    /// What still runs at the end ran until then.
    fn close(&mut self) {
        let end = self.end_ticks;
        for cpu in &mut self.cpus {
            cpu.account(end);
        }
        for task in &mut self.tasks {
            task.stop(end);
        }
    }
}
