//! How an idle CPU waits for work, and when a waker has to interrupt it.
//!
//! An idle CPU first *polls* its inbox, since a store that a polling CPU sees costs a waker next to
//! nothing, and later *halts*, since polling costs the host a core. A waker sends a reschedule
//! interrupt unless the CPU polls. The danger is the moment between the two, where the waker still
//! reads "polling" while the idle CPU has already looked for the last time:
//!
//! ```text
//!        waker, any CPU                            idle CPU, interrupts disabled
//!
//!   W1   inbox.push(task)      SeqCst        I1    state = Halted           SeqCst exchange
//!   ---- total order ---------------         ----- total order ------------------------
//!   W2   read state            SeqCst        I2    inbox.is_empty()?        SeqCst, the last look
//!          Polling: send nothing                     no:  state = Busy, drain
//!          else:    send the interrupt               yes: sti; hlt
//! ```
//!
//! All four are `SeqCst`, so they stand in one order that every CPU agrees on. If W2 reads
//! `Polling`, W2 comes before I1; W1 comes before W2 and I1 before I2, hence W1 before I2, and the
//! last look sees the task. If W2 comes after I1, it reads `Halted` and sends the interrupt, which
//! stays pending until `sti; hlt` and ends the halt. Weaker orderings are not enough: with acquire
//! and release alone both sides may miss the other's store, and the task sleeps until the next
//! interrupt by chance. On x86-64 the exchange is the fence and both reads are plain loads.
//!
//! The same argument covers the way back to work: [`IdleState::resume`] exchanges the state first,
//! and its caller drains the inbox afterwards, so that a waker who read `Polling` just before was
//! not relying on a look that never comes.
//!
//! An interrupt handler of the idle CPU itself may set `need_resched` between the last look and the
//! halt only if interrupts are enabled there. They are not: `sti` takes effect after the following
//! instruction, so the handler runs either before the last look or out of the `hlt`.
//!
//! [`Pushed::Behind`] needs no interrupt even from a halted CPU: the item in front was pushed by a
//! waker that has sent one or is about to, or was seen by the last look.
//!
//! Neighbours: [`crate::inbox`]; the kernel's idle loop and wake path.

use crate::inbox::Pushed;
use crate::shim::{AtomicU8, Ordering, const_unless_loom, seqcst_fence_for_loom};

/// What a CPU does, as far as its wakers care.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Idle {
    /// Runs a task: an interrupt makes it look at its inbox.
    Busy = 0,
    /// Reads its inbox over and over: needs no interrupt.
    Polling = 1,
    /// Sleeps in `hlt`, or is about to: an interrupt wakes it.
    Halted = 2,
}

/// What to do after the last look.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub enum Halt {
    /// Nothing to do: `sti; hlt`, then [`IdleState::resume`].
    Now,
    /// Work came in. The state is [`Idle::Busy`] again: enable interrupts and schedule.
    Cancelled,
}

/// One CPU's idle state. Written by that CPU only, read by all.
#[derive(Debug)]
pub struct IdleState {
    state: AtomicU8,
}

impl IdleState {
    const_unless_loom! {
        /// A CPU that is busy, as every CPU is while it boots.
        pub fn new() -> Self {
            Self { state: AtomicU8::new(Idle::Busy as u8) }
        }
    }

    /// The state at this moment, for statistics and wake placement.
    #[inline]
    pub fn get(&self) -> Idle {
        match self.state.load(Ordering::Relaxed) {
            0 => Idle::Busy,
            1 => Idle::Polling,
            _ => Idle::Halted,
        }
    }

    /// Own CPU: from now on wakers send no interrupt. The caller reads its inbox again and again,
    /// and ends with [`resume`](Self::resume) or [`halt_unless`](Self::halt_unless).
    #[inline]
    pub fn start_polling(&self) {
        // A waker that still reads `Busy` sends one interrupt too many, no harm.
        self.state.store(Idle::Polling as u8, Ordering::Release);
    }

    /// Own CPU, interrupts disabled: announces the halt, then has the last look. `work_waits` says
    /// whether the inbox or a run queue has something or `need_resched` is set; it must read the
    /// inbox by [`Inbox::is_empty`](crate::inbox::Inbox::is_empty).
    ///
    /// Interrupts stay disabled in between, so that whatever arrives after the look stays pending
    /// and ends the `hlt`.
    #[inline]
    pub fn halt_unless(&self, work_waits: impl FnOnce() -> bool) -> Halt {
        self.state.swap(Idle::Halted as u8, Ordering::SeqCst);
        seqcst_fence_for_loom();
        if work_waits() {
            self.state.store(Idle::Busy as u8, Ordering::Relaxed);
            Halt::Cancelled
        } else {
            Halt::Now
        }
    }

    /// Own CPU: polls or halts no longer. The caller drains its inbox *after* this and before it
    /// picks a task.
    #[inline]
    pub fn resume(&self) {
        self.state.swap(Idle::Busy as u8, Ordering::SeqCst);
        seqcst_fence_for_loom();
    }

    /// Waker: whether this CPU must be sent a reschedule interrupt now that `pushed` went into its
    /// inbox.
    #[inline]
    pub fn wake_needs_ipi(&self, pushed: Pushed) -> bool {
        pushed == Pushed::First && self.kick_needs_ipi()
    }

    /// Waker: whether this CPU must be sent an interrupt to notice something other than an inbox
    /// item, such as `need_resched`, that was published by a `SeqCst` exchange before this call
    /// and that the idle loop reads as it reads the inbox.
    #[inline]
    pub fn kick_needs_ipi(&self) -> bool {
        seqcst_fence_for_loom();
        self.state.load(Ordering::SeqCst) != Idle::Polling as u8
    }
}

impl Default for IdleState {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    #[test]
    fn only_a_polling_cpu_is_spared_the_interrupt() {
        let idle = IdleState::new();
        assert_eq!(idle.get(), Idle::Busy);
        assert!(idle.wake_needs_ipi(Pushed::First));
        idle.start_polling();
        assert_eq!(idle.get(), Idle::Polling);
        assert!(!idle.wake_needs_ipi(Pushed::First));
        assert_eq!(idle.halt_unless(|| false), Halt::Now);
        assert_eq!(idle.get(), Idle::Halted);
        assert!(idle.wake_needs_ipi(Pushed::First));
        assert!(!idle.wake_needs_ipi(Pushed::Behind));
        idle.resume();
        assert_eq!(idle.get(), Idle::Busy);
    }

    #[test]
    fn the_last_look_happens_after_the_halt_is_announced() {
        let idle = IdleState::new();
        idle.start_polling();
        let halt = idle.halt_unless(|| {
            assert_eq!(idle.get(), Idle::Halted);
            true
        });
        assert_eq!(halt, Halt::Cancelled);
        assert_eq!(idle.get(), Idle::Busy);
    }
}

/// Inbox and idle state together, in every order the memory model allows. A `Notify` stands for the
/// interrupt line: it stays pending until the halt that it ends, just as after `cli`. A lost wakeup
/// is a deadlock, and loom reports it.
#[cfg(all(test, loom))]
mod loom_tests {
    use super::*;
    use crate::inbox::{Inbox, Link, Linked};
    use crate::shim::loom_model;
    use core::ptr::NonNull;
    use loom::sync::{Arc, Notify};
    use loom::thread;
    use std::boxed::Box;
    use std::vec::Vec;

    struct Item {
        value: usize,
        link: Link<Item>,
    }

    // SAFETY: one link per item, used by the inbox only.
    unsafe impl Linked for Item {
        fn link(&self) -> &Link<Item> {
            &self.link
        }
    }

    struct Cpu {
        inbox: Inbox<Item>,
        idle: IdleState,
        interrupt: Notify,
    }

    impl Cpu {
        fn new() -> Arc<Self> {
            Arc::new(Self { inbox: Inbox::new(), idle: IdleState::new(), interrupt: Notify::new() })
        }

        /// Pushes and reports whether an interrupt was due.
        fn wake(&self, value: usize) -> bool {
            let item = NonNull::from(Box::leak(Box::new(Item { value, link: Link::new() })));
            // SAFETY: freshly leaked, in no inbox, freed by the drain in `collect`.
            let pushed = unsafe { self.inbox.push(item) };
            self.idle.wake_needs_ipi(pushed)
        }

        fn collect(&self, into: &mut Vec<usize>) {
            for item in self.inbox.drain() {
                // SAFETY: yielded by the drain, made from a box by `wake`.
                into.push(unsafe { Box::from_raw(item.as_ptr()) }.value);
            }
        }
    }

    fn spawn_wakers(cpu: &Arc<Cpu>, count: usize) -> Vec<thread::JoinHandle<bool>> {
        (0..count)
            .map(|value| {
                let cpu = cpu.clone();
                thread::spawn(move || {
                    let ipi = cpu.wake(value);
                    if ipi {
                        cpu.interrupt.notify();
                    }
                    ipi
                })
            })
            .collect()
    }

    #[test]
    fn loom_no_wakeup_is_lost_between_polling_and_halting() {
        loom_model(|| {
            let cpu = Cpu::new();
            let wakers = spawn_wakers(&cpu, 2);
            let mut got = Vec::new();
            while got.len() < 2 {
                cpu.idle.start_polling();
                if cpu.inbox.is_empty() {
                    if cpu.idle.halt_unless(|| !cpu.inbox.is_empty()) == Halt::Now {
                        cpu.interrupt.wait();
                        cpu.idle.resume();
                    }
                } else {
                    cpu.idle.resume();
                }
                cpu.collect(&mut got);
            }
            for waker in wakers {
                waker.join().unwrap();
            }
            assert!(cpu.inbox.is_empty());
        });
    }

    /// The idle loop stops polling for a reason of its own (an interrupt set `need_resched`), finds
    /// the inbox empty or not, and runs a task: a task pushed meanwhile must have been seen or must
    /// have brought an interrupt.
    #[test]
    fn loom_leaving_the_poll_loop_loses_nothing() {
        loom_model(|| {
            let cpu = Cpu::new();
            cpu.idle.start_polling();
            let wakers = spawn_wakers(&cpu, 1);
            let mut got = Vec::new();
            cpu.idle.resume();
            cpu.collect(&mut got);
            while got.is_empty() {
                cpu.interrupt.wait();
                cpu.collect(&mut got);
            }
            assert_eq!(got, [0]);
            for waker in wakers {
                waker.join().unwrap();
            }
        });
    }

    #[test]
    fn loom_a_polling_cpu_is_sent_no_interrupt() {
        loom_model(|| {
            let cpu = Cpu::new();
            cpu.idle.start_polling();
            let wakers = spawn_wakers(&cpu, 2);
            let mut got = Vec::new();
            while got.len() < 2 {
                cpu.collect(&mut got);
                thread::yield_now();
            }
            for waker in wakers {
                assert!(!waker.join().unwrap(), "interrupt to a polling CPU");
            }
        });
    }

    /// One producer's items keep their order through concurrent pushes and drains.
    #[test]
    fn loom_inbox_is_fifo_per_producer() {
        loom_model(|| {
            let cpu = Cpu::new();
            let other = {
                let cpu = cpu.clone();
                thread::spawn(move || cpu.wake(10))
            };
            let pair = {
                let cpu = cpu.clone();
                thread::spawn(move || {
                    cpu.wake(0);
                    cpu.wake(1);
                })
            };
            let mut got = Vec::new();
            cpu.collect(&mut got);
            other.join().unwrap();
            pair.join().unwrap();
            cpu.collect(&mut got);
            assert_eq!(got.len(), 3);
            let at = |value| got.iter().position(|&v| v == value).unwrap();
            assert!(at(0) < at(1));
        });
    }
}
