//! Checks at run time that locks are taken in one order.
//!
//! Every lock belongs to a [`Class`], such as "run queue". Taking a lock of class B while one of
//! class A is held is an *edge* A → B. As long as the edges have no cycle, these locks cannot
//! deadlock each other, whatever the timing; so a wrong order is found the first time it is used,
//! not the first time it hangs. (The idea and the name are Linux's.)
//!
//! Reported, as a [`Violation`] that names classes and source lines:
//! - an order that closes a cycle, directly or through other classes;
//! - a lock taken while another of its class is held. Where that is meant, as for two run queues in
//!   CPU order, the second lock is taken under a class of its own;
//! - a class that is taken in interrupt handlers and elsewhere with interrupts enabled: the handler
//!   may hit the very CPU that holds it. Also when such classes are connected by edges: a lock held
//!   by a handler that waits for one whose holder the handler may interrupt.
//!
//! Invariants
//! - The graph of edges has no cycle: an edge that would close one is reported and not added.
//! - `known` and `usage` are copies of what is in the graph, for the usual case, where an edge was
//!   seen before: one bit test per held lock and no lock.
//!
//! A lock that was taken by trying cannot be waited for, so it adds no edge to itself, but what is
//! taken under it does.
//!
//! Neighbours: the kernel's spinlocks, in builds with debug assertions.

use core::cell::UnsafeCell;
use core::fmt;
use core::hint::spin_loop;
use core::panic::Location;
use core::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, Ordering};

#[cfg(test)]
mod tests;

/// Classes that can be told apart.
pub const MAX_CLASSES: usize = 128;
/// Edges whose source lines are remembered.
pub const MAX_EDGES: usize = 512;
/// Locks that one context can hold.
pub const MAX_HELD: usize = 16;

const WORDS: usize = MAX_CLASSES / 64;
/// Id of a class that has not been used yet.
const UNUSED: u8 = u8::MAX;
const _: () = assert!(MAX_CLASSES <= UNUSED as usize);

/// A kind of lock; one static for each.
#[derive(Debug)]
pub struct Class {
    name: &'static str,
    id: AtomicU8,
}

impl Class {
    /// A class, with the name that reports show.
    pub const fn new(name: &'static str) -> Self {
        Self { name, id: AtomicU8::new(UNUSED) }
    }

    /// Its name.
    pub const fn name(&self) -> &'static str {
        self.name
    }
}

/// Where a lock is taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Context {
    /// In an interrupt handler.
    Interrupt = 1,
    /// Elsewhere, with interrupts enabled.
    InterruptsOn = 2,
    /// Elsewhere, with interrupts disabled.
    InterruptsOff = 4,
}

/// One lock that was or is to be taken.
#[derive(Clone, Copy, Debug)]
pub struct Taken {
    /// Its class.
    pub class: &'static Class,
    /// The source line that takes it.
    pub site: &'static Location<'static>,
}

impl fmt::Display for Taken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "\"{}\" at {}", self.class.name, self.site)
    }
}

/// `second` was taken while `first` was held.
#[derive(Clone, Copy, Debug)]
pub struct Edge {
    /// The lock that was held.
    pub first: Taken,
    /// The lock that was taken under it.
    pub second: Taken,
}

/// A rule that was broken.
#[derive(Clone, Copy, Debug)]
pub enum Violation {
    /// The opposite order was used before.
    Order {
        /// What is tried now.
        now: Edge,
        /// The first edge of the opposite order: it begins with the class that is wanted now.
        before: Edge,
        /// Its last edge, which ends with the class that is held now; the same one when the
        /// opposite order is direct.
        before_last: Edge,
    },
    /// A lock of this class is held already.
    Recursion(Edge),
    /// A handler may interrupt the holder of the lock that it then waits for.
    Interrupts {
        /// Taken in an interrupt handler.
        handler: Taken,
        /// Taken with interrupts enabled. Of the same class, or waited for under it.
        interruptible: Taken,
    },
    /// More locks held than [`MAX_HELD`].
    TooManyHeld(Taken),
    /// More classes than [`MAX_CLASSES`].
    TooManyClasses(Taken),
    /// More edges than [`MAX_EDGES`].
    TooManyEdges(Edge),
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Order { now, before, before_last } => {
                write!(
                    f,
                    "lock order reversed: {} is wanted while {} is held; ",
                    now.second, now.first
                )?;
                write!(f, "before, {} was taken under {}", before.second, before.first)?;
                if before.second.class.name != before_last.second.class.name {
                    let (last, under) = (before_last.second, before_last.first);
                    write!(f, ", and so on to {last} under {under}")?;
                }
                Ok(())
            }
            Self::Recursion(edge) => write!(
                f,
                "lock class taken twice: {} is wanted while {} is held; take the second under a \
                 class of its own if that is meant",
                edge.second, edge.first
            ),
            Self::Interrupts { handler, interruptible } => write!(
                f,
                "an interrupt can deadlock: {handler} is taken in an interrupt handler, which may \
                 wait for {interruptible}, taken with interrupts enabled"
            ),
            Self::TooManyHeld(taken) => {
                write!(f, "more than {MAX_HELD} locks held: {taken} is one too many")
            }
            Self::TooManyClasses(taken) => {
                write!(f, "more than {MAX_CLASSES} lock classes: {taken} is one too many")
            }
            Self::TooManyEdges(edge) => write!(
                f,
                "more than {MAX_EDGES} lock orders: {} under {} is one too many",
                edge.second, edge.first
            ),
        }
    }
}

impl core::error::Error for Violation {}

/// The locks that one CPU, or one task, holds.
#[derive(Debug)]
pub struct Held {
    locks: [Option<Taken>; MAX_HELD],
    len: usize,
}

impl Held {
    /// None.
    pub const fn new() -> Self {
        Self { locks: [None; MAX_HELD], len: 0 }
    }

    /// The locks held, in the order in which they were taken.
    pub fn iter(&self) -> impl Iterator<Item = Taken> + '_ {
        self.locks[..self.len].iter().flatten().copied()
    }

    fn push(&mut self, taken: Taken) -> Result<(), Violation> {
        *self.locks.get_mut(self.len).ok_or(Violation::TooManyHeld(taken))? = Some(taken);
        self.len += 1;
        Ok(())
    }

    /// Forgets the lock of this class that was taken last. Locks may be released in any order.
    /// Returns whether one was held.
    pub fn release(&mut self, class: &'static Class) -> bool {
        let held = |lock: &Option<Taken>| lock.is_some_and(|l| core::ptr::eq(l.class, class));
        let Some(at) = self.locks[..self.len].iter().rposition(held) else { return false };
        self.locks.copy_within(at + 1..self.len, at);
        self.len -= 1;
        self.locks[self.len] = None;
        true
    }
}

impl Default for Held {
    fn default() -> Self {
        Self::new()
    }
}

/// A set of classes.
type Set = u128;

const fn bit(id: usize) -> Set {
    1 << id
}

/// What is known of all locks.
#[derive(Debug)]
struct Graph {
    classes: [Option<&'static Class>; MAX_CLASSES],
    class_count: usize,
    edges: [Option<Edge>; MAX_EDGES],
    edge_count: usize,
    /// For each class those that were taken under it, directly or not.
    reach: [Set; MAX_CLASSES],
    /// Classes taken in interrupt handlers, and the first place of each.
    in_handlers: Set,
    handler_sites: [Option<Taken>; MAX_CLASSES],
    /// Classes taken with interrupts enabled, and the first place of each.
    interruptible: Set,
    interruptible_sites: [Option<Taken>; MAX_CLASSES],
}

/// The lock order of the whole kernel; one static.
#[derive(Debug)]
pub struct Lockdep {
    /// Bit *b* of row *a*: the edge a → b is in the graph.
    known: [[AtomicU64; WORDS]; MAX_CLASSES],
    /// [`Context`]s in which a class was taken.
    usage: [AtomicU8; MAX_CLASSES],
    /// Taken while the graph is used: rare, and short.
    busy: AtomicBool,
    graph: UnsafeCell<Graph>,
}

// SAFETY: the graph is used by whoever took `busy` alone (`with_graph`); all else is atomic.
unsafe impl Sync for Lockdep {}

impl Lockdep {
    /// Nothing is known yet.
    pub const fn new() -> Self {
        Self {
            known: [const { [const { AtomicU64::new(0) }; WORDS] }; MAX_CLASSES],
            usage: [const { AtomicU8::new(0) }; MAX_CLASSES],
            busy: AtomicBool::new(false),
            graph: UnsafeCell::new(Graph {
                classes: [None; MAX_CLASSES],
                class_count: 0,
                edges: [None; MAX_EDGES],
                edge_count: 0,
                reach: [0; MAX_CLASSES],
                in_handlers: 0,
                handler_sites: [None; MAX_CLASSES],
                interruptible: 0,
                interruptible_sites: [None; MAX_CLASSES],
            }),
        }
    }

    /// A lock of `class` is about to be waited for by whoever holds `held`. Call it before the wait,
    /// with interrupts disabled (`context` says how they were before).
    ///
    /// # Errors
    /// The [`Violation`]; the lock is not among those held then.
    pub fn acquire(
        &self,
        held: &mut Held,
        class: &'static Class,
        site: &'static Location<'static>,
        context: Context,
    ) -> Result<(), Violation> {
        let taken = Taken { class, site };
        let id = self.id_of(taken)?;
        let unknown = |lock: Taken| !self.is_known(class_id(lock.class), id);
        if held.iter().any(unknown) || !self.is_used(id, context) {
            self.with_graph(|graph| self.learn(graph, held, taken, id, context))?;
        }
        held.push(taken)
    }

    /// A lock of `class` was taken by trying, without waiting.
    ///
    /// # Errors
    /// The [`Violation`]; the lock is not among those held then.
    pub fn acquired_by_trying(
        &self,
        held: &mut Held,
        class: &'static Class,
        site: &'static Location<'static>,
        context: Context,
    ) -> Result<(), Violation> {
        let taken = Taken { class, site };
        let id = self.id_of(taken)?;
        // A handler that only tries never waits; but whoever waits may interrupt this holder.
        if context == Context::InterruptsOn && !self.is_used(id, context) {
            self.with_graph(|graph| self.learn(graph, &Held::new(), taken, id, context))?;
        }
        held.push(taken)
    }

    fn id_of(&self, taken: Taken) -> Result<usize, Violation> {
        match taken.class.id.load(Ordering::Relaxed) {
            UNUSED => self.with_graph(|graph| graph.register(taken)),
            id => Ok(usize::from(id)),
        }
    }

    fn is_known(&self, first: usize, second: usize) -> bool {
        self.known[first][second / 64].load(Ordering::Relaxed) >> (second % 64) & 1 != 0
    }

    fn is_used(&self, id: usize, context: Context) -> bool {
        self.usage[id].load(Ordering::Relaxed) & context as u8 != 0
    }

    /// Adds what is new about this acquisition, if it breaks no rule.
    fn learn(
        &self,
        graph: &mut Graph,
        held: &Held,
        taken: Taken,
        id: usize,
        context: Context,
    ) -> Result<(), Violation> {
        graph.use_in(taken, id, context)?;
        self.usage[id].fetch_or(context as u8, Ordering::Relaxed);
        for lock in held.iter() {
            let first = class_id(lock.class);
            if !self.is_known(first, id) {
                graph.add_edge(Edge { first: lock, second: taken }, first, id)?;
                self.known[first][id / 64].fetch_or(1 << (id % 64), Ordering::Relaxed);
            }
        }
        Ok(())
    }

    /// Runs with the graph for itself. The caller has interrupts disabled, so that no handler on the
    /// same CPU waits for it.
    fn with_graph<R>(&self, body: impl FnOnce(&mut Graph) -> R) -> R {
        while self.busy.swap(true, Ordering::Acquire) {
            spin_loop();
        }
        // SAFETY: `busy` was free and is ours: nobody else uses the graph until it is released.
        let result = body(unsafe { &mut *self.graph.get() });
        self.busy.store(false, Ordering::Release);
        result
    }
}

impl Default for Lockdep {
    fn default() -> Self {
        Self::new()
    }
}

/// The id of a class that is held, and so has been registered.
fn class_id(class: &Class) -> usize {
    usize::from(class.id.load(Ordering::Relaxed))
}

impl Graph {
    fn register(&mut self, taken: Taken) -> Result<usize, Violation> {
        let id = taken.class.id.load(Ordering::Relaxed);
        if id != UNUSED {
            return Ok(usize::from(id)); // another CPU was faster
        }
        let id = self.class_count;
        *self.classes.get_mut(id).ok_or(Violation::TooManyClasses(taken))? = Some(taken.class);
        self.class_count += 1;
        taken.class.id.store(id as u8, Ordering::Relaxed);
        Ok(id)
    }

    fn use_in(&mut self, taken: Taken, id: usize, context: Context) -> Result<(), Violation> {
        match context {
            Context::InterruptsOff => {}
            Context::Interrupt => {
                let waits_for = self.reach[id] | bit(id);
                if let Some(other) = first_of(waits_for & self.interruptible) {
                    return self.interrupts(Some(taken), self.interruptible_sites[other]);
                }
                self.in_handlers |= bit(id);
                self.handler_sites[id].get_or_insert(taken);
            }
            Context::InterruptsOn => {
                let waited_for_by = self.reaching(id) | bit(id);
                if let Some(other) = first_of(waited_for_by & self.in_handlers) {
                    return self.interrupts(self.handler_sites[other], Some(taken));
                }
                self.interruptible |= bit(id);
                self.interruptible_sites[id].get_or_insert(taken);
            }
        }
        Ok(())
    }

    fn interrupts(&self, handler: Option<Taken>, on: Option<Taken>) -> Result<(), Violation> {
        match (handler, on) {
            (Some(handler), Some(interruptible)) => {
                Err(Violation::Interrupts { handler, interruptible })
            }
            _ => Ok(()),
        }
    }

    /// Classes under which `id` was taken, directly or not.
    fn reaching(&self, id: usize) -> Set {
        (0..self.class_count)
            .filter(|&from| self.reach[from] & bit(id) != 0)
            .fold(0, |set, from| set | bit(from))
    }

    fn add_edge(&mut self, edge: Edge, first: usize, second: usize) -> Result<(), Violation> {
        if first == second {
            return Err(Violation::Recursion(edge));
        }
        if self.reach[second] & bit(first) != 0 {
            return Err(self.reversed(edge, first, second));
        }
        let above = self.reaching(first) | bit(first);
        let below = self.reach[second] | bit(second);
        if let (Some(handler), Some(on)) =
            (first_of(above & self.in_handlers), first_of(below & self.interruptible))
        {
            self.interrupts(self.handler_sites[handler], self.interruptible_sites[on])?;
        }
        *self.edges.get_mut(self.edge_count).ok_or(Violation::TooManyEdges(edge))? = Some(edge);
        self.edge_count += 1;
        for from in 0..self.class_count {
            if above & bit(from) != 0 {
                self.reach[from] |= below;
            }
        }
        Ok(())
    }

    /// The report for an edge first → second, where second reaches first already.
    fn reversed(&self, now: Edge, first: usize, second: usize) -> Violation {
        let leads_to_first = |id: usize| id == first || self.reach[id] & bit(first) != 0;
        let reached_from_second = |id: usize| id == second || self.reach[second] & bit(id) != 0;
        let before = self.find_edge(|from, to| from == second && leads_to_first(to));
        let last = self.find_edge(|from, to| to == first && reached_from_second(from));
        match (before, last) {
            (Some(before), Some(before_last)) => Violation::Order { now, before, before_last },
            _ => Violation::TooManyEdges(now),
        }
    }

    fn find_edge(&self, wanted: impl Fn(usize, usize) -> bool) -> Option<Edge> {
        let mut edges = self.edges[..self.edge_count].iter().flatten().copied();
        edges.find(|edge| wanted(class_id(edge.first.class), class_id(edge.second.class)))
    }
}

fn first_of(set: Set) -> Option<usize> {
    (set != 0).then(|| set.trailing_zeros() as usize)
}
