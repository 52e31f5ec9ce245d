//! One CPU over a trace.

/// What a CPU did.
#[derive(Clone, Debug)]
pub struct Cpu {
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
    /// Interrupts entered.
    pub interrupts: u64,
    /// Inter-processor interrupts sent.
    pub ipis_sent: u64,
    /// Wake-ups its tasks and interrupts did.
    pub wakeups_sent: u64,
    /// Pid that runs, once known.
    pub(super) current: Option<u32>,
    /// Since when it is accounted.
    pub(super) since_ticks: u64,
    /// Time of its last event.
    pub(super) last_ticks: u64,
}

impl Cpu {
    pub(super) fn new(cpu: u16) -> Self {
        Self {
            cpu,
            busy_ticks: 0,
            idle_ticks: 0,
            unknown_ticks: 0,
            switches: 0,
            interrupts: 0,
            ipis_sent: 0,
            wakeups_sent: 0,
            current: None,
            since_ticks: 0,
            last_ticks: 0,
        }
    }

    /// Accounts the time up to `now` to what runs.
    pub(super) fn account(&mut self, now: u64) {
        let ticks = now.saturating_sub(self.since_ticks);
        match self.current {
            Some(0) => self.idle_ticks += ticks,
            Some(_) => self.busy_ticks += ticks,
            None => {}
        }
        self.since_ticks = self.since_ticks.max(now);
    }
}
