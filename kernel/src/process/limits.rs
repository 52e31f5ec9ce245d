//! What a process may use (getrlimit(2)).

use linux_raw_sys::general as abi;
use orrery_core::fs::fd_table::MAX_DESCRIPTORS;

use crate::mm::space;

/// No limit.
pub const INFINITY: u64 = u64::MAX;

/// A limit: what is in force, and how far the process may raise that.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limit {
    /// In force.
    pub soft: u64,
    /// The most that `soft` may be.
    pub hard: u64,
}

/// Kinds of limits, as `RLIMIT_` numbers them.
pub const KINDS: usize = 16;

/// All limits of a process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits([Limit; KINDS]);

impl Default for Limits {
    /// As Linux gives them to the first process, where they are enforced here.
    fn default() -> Self {
        let mut limits = Self([Limit { soft: INFINITY, hard: INFINITY }; KINDS]);
        let mut set = |kind: u32, soft, hard| limits.0[kind as usize] = Limit { soft, hard };
        set(abi::RLIMIT_STACK, 8 << 20, INFINITY);
        set(abi::RLIMIT_CORE, 0, INFINITY);
        set(abi::RLIMIT_NOFILE, 1024, MAX_DESCRIPTORS.into());
        set(abi::RLIMIT_MEMLOCK, 64 << 10, 64 << 10);
        set(abi::RLIMIT_SIGPENDING, 4096, 4096);
        set(abi::RLIMIT_MSGQUEUE, 0, 0);
        set(abi::RLIMIT_NICE, 0, 0);
        set(abi::RLIMIT_RTPRIO, 0, 0);
        limits
    }
}

impl Limits {
    /// The limit of a kind; none for numbers that are no kind.
    pub fn get(&self, kind: u32) -> Option<Limit> {
        self.0.get(kind as usize).copied()
    }

    /// What is in force for a kind, one of `RLIMIT_`.
    pub fn soft(&self, kind: u32) -> u64 {
        self.get(kind).map_or(INFINITY, |limit| limit.soft)
    }

    /// One above the largest descriptor that the process may have.
    pub fn descriptors(&self) -> u32 {
        u32::try_from(self.soft(abi::RLIMIT_NOFILE)).unwrap_or(u32::MAX)
    }

    /// Those that an address space enforces.
    pub fn of_memory(&self) -> space::Limits {
        space::Limits {
            stack_bytes: self.soft(abi::RLIMIT_STACK),
            total_bytes: self.soft(abi::RLIMIT_AS),
            data_bytes: self.soft(abi::RLIMIT_DATA),
        }
    }

    /// Replaces the limit of a kind. False if there is no such kind.
    pub fn set(&mut self, kind: u32, limit: Limit) -> bool {
        self.0.get_mut(kind as usize).map(|slot| *slot = limit).is_some()
    }
}
