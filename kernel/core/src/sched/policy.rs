//! Scheduling policies and their parameters, and Linux's nice weights.
//!
//! Neighbours: [`super::entity`] keeps a policy per task; the kernel's and, later, the system
//! calls' numbers are checked here.

/// A real-time priority, 0 to 99; a higher one runs first. (Linux's user-visible `sched_priority`
/// 1..=99 are the same numbers; 0 is below them all.)
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RtPriority(u8);

impl RtPriority {
    /// The lowest.
    pub const MIN: Self = Self(0);
    /// The highest.
    pub const MAX: Self = Self(99);

    /// A priority, if the number is one.
    pub const fn new(priority: u8) -> Option<Self> {
        if priority <= Self::MAX.0 { Some(Self(priority)) } else { None }
    }

    /// The number, 0 to 99.
    #[inline]
    pub const fn get(self) -> u8 {
        self.0
    }
}

/// A nice value, -20 to 19; a lower one gets more of the CPU. One more is below them all: [`Self::IDLE`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Nice(i8);

impl Nice {
    /// The greediest, -20.
    pub const MIN: Self = Self(-20);
    /// The nicest, 19.
    pub const MAX: Self = Self(19);

    /// No nice value, but next to nothing beside anybody who has one: see [`Policy::IDLE`].
    pub const IDLE: Self = Self(20);

    /// A nice value, if the number is one.
    pub const fn new(nice: i8) -> Option<Self> {
        if nice >= Self::MIN.0 && nice <= Self::MAX.0 { Some(Self(nice)) } else { None }
    }

    /// The number, -20 to 19; 20 of [`Self::IDLE`].
    pub const fn get(self) -> i8 {
        self.0
    }

    /// Its share of the CPU, relative to the shares of those it competes with; nice 0 is 1024. One
    /// step of nice is a factor of about 1.25. Linux's `sched_prio_to_weight`, and `WEIGHT_IDLEPRIO`.
    pub const fn weight(self) -> u32 {
        WEIGHTS[self.index()]
    }

    /// Virtual ticks per real tick, as a fixed-point number with 32 fractional bits: 1024 / weight,
    /// rounded up. (Linux's `sched_prio_to_wmult` times 1024, with ten more significant bits.)
    /// Rounding up makes a slice end no later than `RunQueue::next_event` says.
    pub const fn virtual_rate(self) -> u64 {
        (1u64 << 42).div_ceil(WEIGHTS[self.index()] as u64)
    }

    const fn index(self) -> usize {
        (self.0 - Self::MIN.0) as usize
    }
}

/// Linux's `sched_prio_to_weight` (kernel/sched/core.c), nice -20 first, and `WEIGHT_IDLEPRIO` (kernel/sched/sched.h).
#[rustfmt::skip]
const WEIGHTS: [u32; 41] = [
    88761, 71755, 56483, 46273, 36291,
    29154, 23254, 18705, 14949, 11916,
     9548,  7620,  6100,  4904,  3906,
     3121,  2501,  1991,  1586,  1277,
     1024,   820,   655,   526,   423,
      335,   272,   215,   172,   137,
      110,    87,    70,    56,    45,
       36,    29,    23,    18,    15,
        3,
];

/// How a task wants to be scheduled.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Policy {
    /// Real time; runs until it blocks, yields, or someone of a higher priority comes.
    Fifo(RtPriority),
    /// Real time; takes turns with its equals every quantum.
    RoundRobin(RtPriority),
    /// A share of what real time leaves.
    Fair(Nice),
}

impl Policy {
    /// The least of all shares: of a task that runs where the CPU would idle, and makes way for any other (Linux's
    /// `SCHED_IDLE`).
    pub const IDLE: Self = Self::Fair(Nice::IDLE);

    /// Its real-time priority; none in the fair class.
    #[inline]
    pub const fn rt_priority(self) -> Option<RtPriority> {
        match self {
            Self::Fifo(priority) | Self::RoundRobin(priority) => Some(priority),
            Self::Fair(_) => None,
        }
    }

    /// The nice value that it is weighed by: the greediest in real time.
    pub(super) const fn effective_nice(self) -> Nice {
        match self {
            Self::Fair(nice) => nice,
            Self::Fifo(_) | Self::RoundRobin(_) => Nice::MIN,
        }
    }

    /// Its load, beside that of others.
    pub const fn weight(self) -> u64 {
        self.effective_nice().weight() as u64
    }
}

impl Default for Policy {
    fn default() -> Self {
        Self::Fair(Nice::default())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_out_of_range_are_refused() {
        assert_eq!(RtPriority::new(99), Some(RtPriority::MAX));
        assert_eq!(RtPriority::new(100), None);
        assert_eq!(Nice::new(-21), None);
        assert_eq!(Nice::new(20), None);
        assert_eq!(Nice::new(19), Some(Nice::MAX));
    }

    #[test]
    fn weights_are_linuxs() {
        let weight = |nice| Nice::new(nice).unwrap().weight();
        assert_eq!((weight(-20), weight(0), weight(5), weight(19)), (88761, 1024, 335, 15));
        assert_eq!((Nice::new(20), Nice::IDLE.weight()), (None, 3));
        for pair in WEIGHTS[..40].windows(2) {
            let ratio = f64::from(pair[0]) / f64::from(pair[1]);
            assert!((1.19..1.32).contains(&ratio), "{pair:?}");
        }
    }

    #[test]
    fn virtual_rate_is_exact_for_nice_0_and_never_too_low() {
        assert_eq!(Nice::default().virtual_rate(), 1 << 32);
        for nice in (-20..=19).map(|nice| Nice::new(nice).unwrap()).chain([Nice::IDLE]) {
            let product = nice.virtual_rate() * u64::from(nice.weight());
            assert!((1 << 42..(1 << 42) + u64::from(nice.weight())).contains(&product));
        }
    }
}
