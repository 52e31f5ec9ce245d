//! One task over a trace.
//!
//! ```text
//!   wake, enqueue      switch in
//!  Blocked ──▶ Ready ──────────▶ Running ──▶ Blocked, Dead   (switch out with that state)
//!                ▲                  │
//!                └──────────────────┘  switch out while runnable: preempted, or yielded
//! ```
//! A wake-up may come while its task still runs, on its way to sleep. The kernel then either lets it
//! go on running, or switches it out and in again; so the wake-up is remembered until the next switch.

/// What the scheduler calls a task's state, with the numbers of the `sched_switch` event.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TaskState {
    /// Wants to run.
    Runnable,
    /// Sleeps until an event or a signal.
    Interruptible,
    /// Sleeps until an event.
    Uninterruptible,
    /// Stopped by job control.
    Stopped,
    /// Stopped by a debugger.
    Traced,
    /// Ended, not yet reaped.
    Zombie,
    /// Ended.
    Dead,
}

impl TaskState {
    /// The state with this number.
    pub fn from_number(number: u8) -> Option<Self> {
        Some(match number {
            0 => Self::Runnable,
            1 => Self::Interruptible,
            2 => Self::Uninterruptible,
            3 => Self::Stopped,
            4 => Self::Traced,
            5 => Self::Zombie,
            6 => Self::Dead,
            _ => return None,
        })
    }

    /// The letter that `ps` uses for it.
    pub fn letter(self) -> char {
        match self {
            Self::Runnable => 'R',
            Self::Interruptible => 'S',
            Self::Uninterruptible => 'D',
            Self::Stopped => 'T',
            Self::Traced => 't',
            Self::Zombie => 'Z',
            Self::Dead => 'X',
        }
    }
}

/// Scheduling class, with the numbers of the `task_attr` event.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Class {
    /// Real time, first in first out.
    Fifo,
    /// Real time, round robin.
    RoundRobin,
    /// Fair shares by nice value.
    Fair,
    /// Runs when nothing else does.
    Idle,
}

impl Class {
    /// The class with this number.
    pub fn from_number(number: u8) -> Option<Self> {
        Some(match number {
            0 => Self::Fifo,
            1 => Self::RoundRobin,
            2 => Self::Fair,
            3 => Self::Idle,
            _ => return None,
        })
    }
}

/// Where a task is in the replay.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// Not seen yet, or lost sight of.
    Unknown,
    /// On a CPU.
    Running {
        /// Which.
        cpu: u16,
        /// Since when.
        since_ticks: u64,
    },
    /// Waiting for a CPU.
    Ready {
        /// Since when.
        since_ticks: u64,
        /// Whether a wake-up made it so, rather than a preemption or its creation.
        woken: bool,
    },
    /// Asleep or stopped.
    Blocked {
        /// Since when.
        since_ticks: u64,
        /// Whether a wake-up came while it was on its way here.
        woken_before: bool,
    },
    /// Ended.
    Dead,
}

/// What a task did.
#[derive(Clone, Debug)]
pub struct Task {
    /// Its pid.
    pub pid: u32,
    /// Its name, once told.
    pub name: Option<String>,
    /// Its parent's pid, once told.
    pub parent: Option<u32>,
    /// Its scheduling class, as last told.
    pub class: Option<Class>,
    /// Real-time priority, 0 to 99.
    pub priority: u8,
    /// Nice value, −20 to 19.
    pub nice: i8,
    /// CPUs it may use, one bit each.
    pub affinity: Option<u64>,
    /// When it was created, if that was seen.
    pub created_ticks: Option<u64>,
    /// When it ended, if that was seen.
    pub exited_ticks: Option<u64>,
    /// What it ended with, if that was seen.
    pub exit_code: Option<i32>,
    /// Time on a CPU.
    pub runtime_ticks: u64,
    /// Times it got a CPU.
    pub switches: u64,
    /// Times it gave the CPU up to sleep or end.
    pub voluntary_switches: u64,
    /// Times it lost the CPU while runnable.
    pub involuntary_switches: u64,
    /// Wake-ups.
    pub wakeups: u64,
    /// Moves to another CPU's queue.
    pub migrations: u64,
    /// Waits for a CPU whose begin was seen.
    pub delays: u64,
    /// Sum of those waits.
    pub delay_ticks: u64,
    /// The longest of them.
    pub max_delay_ticks: u64,
    /// When the longest of them ended.
    pub max_delay_end_ticks: u64,
    /// From each wake-up to the switch that answered it.
    pub wake_latencies_ticks: Vec<u64>,
    /// Where it is now.
    pub(super) state: State,
    /// A wake-up that came while it ran.
    woken_while_running: bool,
    /// Number of the wake-up that the last switch-in answered.
    answered: Option<u8>,
}

impl Task {
    pub(super) fn new(pid: u32) -> Self {
        Self {
            pid,
            name: None,
            parent: None,
            class: None,
            priority: 0,
            nice: 0,
            affinity: None,
            created_ticks: None,
            exited_ticks: None,
            exit_code: None,
            runtime_ticks: 0,
            switches: 0,
            voluntary_switches: 0,
            involuntary_switches: 0,
            wakeups: 0,
            migrations: 0,
            delays: 0,
            delay_ticks: 0,
            max_delay_ticks: 0,
            max_delay_end_ticks: 0,
            wake_latencies_ticks: Vec::new(),
            state: State::Unknown,
            woken_while_running: false,
            answered: None,
        }
    }

    /// Whether it has a history, so that a new task with its pid is another one.
    pub(super) fn was_seen(&self) -> bool {
        self.created_ticks.is_some() || self.switches > 0 || self.exited_ticks.is_some()
    }

    pub(super) fn wake(&mut self, now: u64, seq: u8) {
        self.wakeups += 1;
        match self.state {
            // The clocks disagree: this is the wake-up that made it run.
            State::Running { .. } if self.answered == Some(seq) => {}
            State::Running { .. } => self.woken_while_running = true,
            State::Ready { .. } => {}
            State::Blocked { .. } | State::Unknown | State::Dead => {
                self.state = State::Ready { since_ticks: now, woken: true };
            }
        }
    }

    pub(super) fn enqueue(&mut self, now: u64) {
        if let State::Unknown = self.state {
            self.state = State::Ready { since_ticks: now, woken: false };
        }
    }

    pub(super) fn dumped(&mut self, state: TaskState) {
        self.state = match state {
            // Since when it waits is not known.
            TaskState::Runnable => State::Unknown,
            TaskState::Zombie | TaskState::Dead => State::Dead,
            _ => State::Blocked { since_ticks: 0, woken_before: false },
        };
    }

    pub(super) fn switch_in(&mut self, now: u64, cpu: u16, seq: u8) {
        self.switches += 1;
        self.answered = Some(seq);
        match self.state {
            State::Ready { since_ticks, woken } => self.waited(since_ticks, now, woken),
            State::Blocked { since_ticks, woken_before: true } => {
                self.waited(since_ticks, now, true);
            }
            _ => {}
        }
        self.woken_while_running = false;
        self.state = State::Running { cpu, since_ticks: now };
    }

    fn waited(&mut self, since_ticks: u64, now: u64, woken: bool) {
        let delay = now.saturating_sub(since_ticks);
        self.delays += 1;
        self.delay_ticks += delay;
        if delay > self.max_delay_ticks {
            self.max_delay_ticks = delay;
            self.max_delay_end_ticks = now;
        }
        if woken {
            self.wake_latencies_ticks.push(delay);
        }
    }

    pub(super) fn switch_out(&mut self, now: u64, state: Option<TaskState>) {
        self.stop(now);
        let woken_before = std::mem::take(&mut self.woken_while_running);
        match state {
            Some(TaskState::Runnable) => {
                self.involuntary_switches += 1;
                self.state = State::Ready { since_ticks: now, woken: false };
            }
            Some(TaskState::Zombie | TaskState::Dead) => {
                self.voluntary_switches += 1;
                self.state = State::Dead;
            }
            Some(_) => {
                self.voluntary_switches += 1;
                self.state = State::Blocked { since_ticks: now, woken_before };
            }
            None => self.state = State::Unknown,
        }
    }

    /// Accounts what it ran until `now`, if it runs.
    pub(super) fn stop(&mut self, now: u64) {
        if let State::Running { cpu, since_ticks } = self.state {
            self.runtime_ticks += now.saturating_sub(since_ticks);
            self.state = State::Running { cpu, since_ticks: since_ticks.max(now) };
        }
    }
}
