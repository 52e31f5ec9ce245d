//! Signals.

use super::exit;
use super::group::Process;
use super::thread::Thread;
use super::tree::Tree;
use super::wait::Status;
use crate::arch::exception::Frame;
use alloc::sync::Arc;

/// A program's own fault.
pub struct Fault<'a> {
    /// The signal.
    pub signal: u32,
    /// `si_code`.
    pub code: i32,
    /// `si_addr`.
    pub address: u64,
    /// The registers at the fault.
    pub frame: &'a Frame,
}

/// What job control has done to a process that its parent was not told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum JobReport {
    /// Stopped by this signal.
    Stopped(u32),
    /// Goes on.
    Continued,
}

/// Signals of a process.
pub struct ProcessSignals(());

impl ProcessSignals {
    /// Those of a first process.
    #[allow(clippy::new_without_default)]
    pub fn new() -> Self {
        Self(())
    }
    /// Those of a child.
    pub fn for_child(_parent: &Arc<Process>, _shares: bool, _clears: bool) -> Self {
        Self(())
    }
}

/// Signals of a thread.
pub struct ThreadSignals(());

impl ThreadSignals {
    /// Those of a first thread.
    #[allow(clippy::new_without_default)]
    pub fn new() -> Self {
        Self(())
    }
    /// Those of a child.
    pub fn for_child(_parent: &Thread, _shares_stack: bool) -> Self {
        Self(())
    }
}

/// A program's own fault ends it.
pub fn force(thread: &Thread, fault: Fault<'_>) {
    crate::println!(
        "orrery: pid {} `{}`: signal {} at address {:#x}",
        crate::sched::current().pid(),
        thread.comm.lock().as_str(),
        fault.signal,
        fault.address
    );
    for (name, value) in fault.frame.registers() {
        crate::println!("  {name:6} {value:#018x}");
    }
    exit::begin_group_exit(&thread.process, Status::signalled(fault.signal));
}

/// Delivers a signal.
pub fn deliver(_thread: &Thread, _frame: &mut Frame) {}
/// A thread ends.
pub fn on_thread_exit(_thread: &Thread) {}
/// Whether a parent wants no zombies.
pub fn ignores_children(_parent: &Process) -> bool {
    false
}
/// Tells a parent that a child has become a zombie.
pub fn tell_parent(_child: &Process, parent: &Process) {
    parent.children_changed.wake_all();
}
/// The parent of `child` has ended.
pub fn on_parent_death(_child: &Process) {}
/// What job control has to say.
pub fn job_report(_child: &Process, _tree: &Tree) -> Option<JobReport> {
    None
}
/// It was said.
pub fn take_job_report(_child: &Process, _tree: &mut Tree) {}
/// A process begins another program.
pub fn on_exec(_thread: &Thread) {}

/// What a thread takes with it when its program goes on in the leader.
pub struct Carried(());
/// Takes it.
pub fn carry(_thread: &Thread) -> Carried {
    Carried(())
}
/// Gives it to the leader.
pub fn adopt(_thread: &Thread, _carried: Carried) {}
