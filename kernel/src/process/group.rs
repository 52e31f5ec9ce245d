//! The process: a group of threads that share a number, signal handlers, limits and a fate.
//!
//! # Life
//!
//! ```text
//!   Running ──▶ Exiting: every thread is doomed ──▶ Zombie: the last thread has gone ──▶ reaped by its parent
//!                                                          └── or by itself, where nobody wants to know
//! ```
//!
//! The group's leader is its first thread. A leader that exits before the others waits, without an address
//! space, until it is alone: the number is its task's, and an `execve` of another thread goes on in
//! the leader ([`super::exec`]).

use alloc::boxed::Box;
use alloc::collections::BTreeMap;
use alloc::sync::{Arc, Weak};
use alloc::vec::Vec;
use core::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};

use linux_raw_sys::general as abi;
use orrery_core::errno::Errno;
use orrery_core::sched::cpu_time::Told;

use super::exec::Handover;
use super::limits::Limits;
use super::run_timer::{self, RunTimers};
use super::thread::Thread;
use super::tree::{InTree, Tree};
use super::usage::{Counts, Usage};
use super::wait::Status;
use super::{attribute, maker, signal};
use crate::fs::write_or_run::Running;
use crate::sched::Task;
use crate::sched::wait::WaitQueue;
use crate::sync::SpinLock;
use crate::task::{JoinHandle, Namespace};
use crate::time::real_timer;

/// A process.
pub struct Process {
    /// The namespace it has its innermost number in.
    pub namespace: Namespace,
    /// Signals sent to the process, and its handlers.
    pub signals: signal::ProcessSignals,
    /// What it may use; shared with its maker until one of them changes it.
    pub limits: SpinLock<Arc<Limits>>,
    /// Who belongs to it, and to whom it belongs.
    pub family: InTree<Family>,
    /// Its number and its parent's, both in its own namespace: [`Family`]'s, to be read without the lock.
    numbers: Numbers,
    /// Woken when a child changes its state.
    pub children_changed: WaitQueue,
    /// Woken when a thread has gone, and when a waiting leader has something to do.
    pub threads_changed: WaitQueue,
    /// Woken when the process has become a zombie.
    pub exited: WaitQueue,
    /// An `execve` that goes on in the leader.
    pub handover: SpinLock<Option<Box<Handover>>>,
    /// Most pages that it had in an address space that it has left.
    pub past_resident_pages: AtomicU64,
    /// How often it has become another program, modulo 2³². Until it has, `setpgid` of its parent may move it.
    pub execs: AtomicU32,
    /// Whether any child has ever wanted a signal at the end of the thread that made it.
    pub has_death_watchers: AtomicBool,
    /// Its interval timer.
    pub real_timer: real_timer::Slot,
    /// Bits of [`super::attribute`].
    pub attributes: AtomicU32,
    /// What it runs; none before its first `execve`.
    pub program: SpinLock<Option<Arc<Program>>>,
}

#[derive(Default)]
struct Numbers {
    own: AtomicU32,
    parent: AtomicU32,
}

/// What a process runs.
pub struct Program {
    /// The file.
    pub file: Running,
    /// The arguments it began with, each followed by a NUL; cut where they are long.
    pub command_line: Vec<u8>,
}

/// Who belongs to a process, and to whom it belongs.
pub struct Family {
    /// Its number in the root namespace, which is its leader's.
    pub pid: u32,
    /// Its leader's number in the process's own namespace.
    pub tgid: u32,
    /// Its parent; none for the first, and for those whose namespace ends.
    pub parent: Option<Weak<Process>>,
    /// Its children by number in the root namespace, zombies included.
    pub children: BTreeMap<u32, Arc<Process>>,
    /// Its threads that have not gone, the leader among them until the process is a zombie.
    pub threads: Vec<Arc<Task>>,
    /// Threads that are being made, for which there is room in the list.
    reserved_threads: usize,
    /// Its leader; none once the process was reaped.
    pub leader: Option<JoinHandle>,
    /// What becomes of it.
    pub state: State,
    /// How the last of its threads that has ended by itself has.
    pub last_status: Status,
    /// The last signal to many that has reached it, or its maker before it was made, see [`signal::kill`].
    pub last_broadcast: u64,
    /// The signal that its parent gets when it has ended; 0 for none.
    pub exit_signal: u8,
    /// [`Process::execs`] of its maker, then. A maker that is another program by now did not choose the signal.
    pub execs_of_maker: u32,
    /// The thread of its parent that it is of, by number in the root namespace, see [`super::maker`].
    pub maker: u32,
    /// Number of its process group, in the root namespace.
    pub group: u32,
    /// Number of its session, in the root namespace.
    pub session: u32,
    /// Whether it inherits the orphans among its descendants.
    pub is_subreaper: bool,
    /// The signal it gets when the thread that made it has ended; 0 for none.
    pub parent_death_signal: u8,
    /// What threads that have gone had used.
    pub past_counts: Counts,
    /// What has been told of its run time.
    pub told_time: Told,
    /// Timers that count its run time, if it has ever set one.
    pub run_timers: Option<Box<RunTimers>>,
    /// Whether its threads look at its run time, see [`super::run_timer`].
    pub is_run_time_watched: bool,
    /// What children that were waited for had used, and theirs, if there were any.
    pub children_usage: Option<Box<Usage>>,
}

/// What becomes of a process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// It runs.
    Running,
    /// All its threads end, with this status.
    Exiting(Status),
    /// All its threads have; the status waits for the parent.
    Zombie(Status),
}

impl Process {
    /// A process without threads, of nobody.
    pub fn new(namespace: Namespace, signals: signal::ProcessSignals, limits: Arc<Limits>) -> Self {
        Self {
            namespace,
            signals,
            limits: SpinLock::new("limits", limits),
            family: InTree::new(Family {
                pid: 0,
                tgid: 0,
                parent: None,
                children: BTreeMap::new(),
                threads: Vec::new(),
                reserved_threads: 0,
                leader: None,
                state: State::Running,
                last_status: Status::exited(0),
                last_broadcast: 0,
                exit_signal: 0,
                execs_of_maker: 0,
                maker: maker::ANY,
                group: 0,
                session: 0,
                is_subreaper: false,
                parent_death_signal: 0,
                past_counts: Counts::default(),
                told_time: Told::default(),
                run_timers: None,
                is_run_time_watched: false,
                children_usage: None,
            }),
            numbers: Numbers::default(),
            children_changed: WaitQueue::new(),
            threads_changed: WaitQueue::new(),
            exited: WaitQueue::new(),
            handover: SpinLock::new("exec handover", None),
            past_resident_pages: AtomicU64::new(0),
            execs: AtomicU32::new(0),
            has_death_watchers: AtomicBool::new(false),
            real_timer: real_timer::Slot::new(),
            attributes: AtomicU32::new(attribute::DEFAULT),
            program: SpinLock::new("process's program", None),
        }
    }

    /// Its number as seen from `namespace`; 0 if it is not seen there.
    pub fn number_in(&self, namespace: &Namespace, tree: &Tree) -> u32 {
        let family = self.family.get(tree);
        if namespace.level() == 0 {
            return family.pid;
        }
        let leader = family.leader.as_ref();
        leader.and_then(|leader| leader.task().pid_in(namespace)).unwrap_or(0)
    }

    /// Its number in its own namespace.
    pub fn tgid(&self) -> u32 {
        self.numbers.own.load(Ordering::Relaxed)
    }

    /// Its parent's number in its own namespace; 0 for a parent that is not seen there, or none.
    pub fn parent_tgid(&self) -> u32 {
        self.numbers.parent.load(Ordering::Relaxed)
    }

    /// Its number, or its parent, has changed.
    pub(super) fn note_numbers(&self, tree: &Tree) {
        // Where no program is the parent, it is the kernel's own `init`, the first of the root namespace.
        let nobody = u32::from(self.namespace.level() == 0);
        let parent =
            self.parent(tree).map_or(nobody, |parent| parent.number_in(&self.namespace, tree));
        self.numbers.own.store(self.family.get(tree).tgid, Ordering::Relaxed);
        self.numbers.parent.store(parent, Ordering::Relaxed);
    }

    /// Its parent, if it has one.
    pub fn parent(&self, tree: &Tree) -> Option<Arc<Process>> {
        self.family.get(tree).parent.as_ref()?.upgrade()
    }

    /// The number of the signal that its parent, this one, gets at its end; 0 for none.
    pub fn end_signal(&self, parent: &Self, tree: &Tree) -> u8 {
        let family = self.family.get(tree);
        let is_chosen = family.execs_of_maker == parent.execs.load(Ordering::Relaxed);
        if is_chosen { family.exit_signal } else { abi::SIGCHLD as u8 }
    }

    /// Whether it is a zombie.
    pub fn is_zombie(&self, tree: &Tree) -> bool {
        matches!(self.family.get(tree).state, State::Zombie(_))
    }
}

impl Family {
    /// Whether the process is made. Until it has its first thread, and a parent, it is merely found by its number, which
    /// nobody can have learnt yet: for others it is not there.
    pub fn is_made(&self) -> bool {
        self.pid != 0
    }

    /// Makes room in the list of threads for one that is about to be made, until that
    /// [joins](Self::add_reserved_thread) or [is not made](Self::give_thread_back). There may be so many that the
    /// list is large: then there may be no memory for it, and a thread that is made must be able to join.
    ///
    /// # Errors
    /// `ENOMEM`.
    pub(super) fn reserve_thread(&mut self) -> Result<(), Errno> {
        self.threads.try_reserve(self.reserved_threads + 1).map_err(|_| Errno::ENOMEM)?;
        self.reserved_threads += 1;
        Ok(())
    }

    /// A thread for which there is room is not made.
    pub(super) fn give_thread_back(&mut self) {
        self.reserved_threads -= 1;
    }

    /// A thread for which there is room joins.
    pub(super) fn add_reserved_thread(&mut self, task: &Arc<Task>) {
        debug_assert!(self.threads.len() + self.reserved_threads <= self.threads.capacity());
        self.reserved_threads -= 1;
        self.add_thread(task);
    }

    /// The first thread joins.
    pub(super) fn add_thread(&mut self, task: &Arc<Task>) {
        if let Some(thread) = super::thread_of(task) {
            thread.place.store(self.threads.len(), Ordering::Relaxed);
        }
        if self.is_run_time_watched {
            run_timer::watch(task);
        }
        self.threads.push(task.clone());
    }

    /// A thread goes. Returns the list's reference to it.
    pub(super) fn remove_thread(&mut self, thread: &Thread) -> Arc<Task> {
        let place = thread.place.load(Ordering::Relaxed);
        let gone = self.threads.swap_remove(place);
        if let Some(moved) = self.threads.get(place).and_then(|task| super::thread_of(task)) {
            moved.place.store(place, Ordering::Relaxed);
        }
        gone
    }

    /// Calls `each` with every thread that has not gone.
    pub fn for_each_thread(&self, mut each: impl FnMut(&Arc<Task>, &Thread)) {
        for task in &self.threads {
            if let Some(thread) = super::thread_of(task) {
                each(task, thread);
            }
        }
    }
}
