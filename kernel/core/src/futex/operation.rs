//! What the arguments of futex(2) mean.

use linux_raw_sys::general as abi;

use crate::errno::Errno;

/// Whose word it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scope {
    /// The address space's own (`FUTEX_PRIVATE_FLAG`).
    Private,
    /// Perhaps that of memory which several address spaces share.
    Shared,
}

impl Scope {
    /// Which a `futex_op` says.
    #[inline]
    pub const fn of(op: u32) -> Self {
        if op & abi::FUTEX_PRIVATE_FLAG != 0 { Self::Private } else { Self::Shared }
    }
}

/// The clock of an absolute timeout.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Clock {
    /// `CLOCK_MONOTONIC`
    Monotonic,
    /// `CLOCK_REALTIME`
    Realtime,
}

/// What to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs)] // futex(2)
pub enum Command {
    Wait,
    WaitBitset,
    Wake,
    WakeBitset,
    Requeue,
    CmpRequeue,
    WakeOp,
}

/// The decoded `futex_op`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Operation {
    /// What to do.
    pub command: Command,
    /// Whose word it is.
    pub scope: Scope,
    /// The clock of an absolute timeout.
    pub clock: Clock,
}

impl Operation {
    /// Decodes `futex_op`.
    ///
    /// # Errors
    /// `ENOSYS` for commands that do not exist, for those with priority inheritance, and for the real-time
    /// clock where timeouts are relative.
    #[inline]
    pub const fn decode(op: u32) -> Result<Self, Errno> {
        let flags = abi::FUTEX_PRIVATE_FLAG | abi::FUTEX_CLOCK_REALTIME;
        let command = match op & !flags {
            abi::FUTEX_WAIT => Command::Wait,
            abi::FUTEX_WAIT_BITSET => Command::WaitBitset,
            abi::FUTEX_WAKE => Command::Wake,
            abi::FUTEX_WAKE_BITSET => Command::WakeBitset,
            abi::FUTEX_REQUEUE => Command::Requeue,
            abi::FUTEX_CMP_REQUEUE => Command::CmpRequeue,
            abi::FUTEX_WAKE_OP => Command::WakeOp,
            _ => return Err(Errno::ENOSYS),
        };
        let scope = Scope::of(op);
        let clock = if op & abi::FUTEX_CLOCK_REALTIME == 0 {
            Clock::Monotonic
        } else if matches!(command, Command::WaitBitset) {
            Clock::Realtime
        } else {
            return Err(Errno::ENOSYS);
        };
        Ok(Self { command, scope, clock })
    }
}

/// `FUTEX_WAKE_OP`'s change of the second word, and its condition on the old value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WordOperation {
    change: Change,
    operand: i32,
    /// None for a number that is no comparison.
    comparison: Option<Comparison>,
    comparand: i32,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Change {
    Set,
    Add,
    Or,
    AndNot,
    Xor,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Comparison {
    Equal,
    NotEqual,
    Less,
    LessOrEqual,
    Greater,
    GreaterOrEqual,
}

impl WordOperation {
    /// Decodes `val3`.
    ///
    /// # Errors
    /// `ENOSYS` for a change that does not exist.
    pub const fn decode(encoded: u32) -> Result<Self, Errno> {
        let change = match encoded >> 28 & 7 {
            abi::FUTEX_OP_SET => Change::Set,
            abi::FUTEX_OP_ADD => Change::Add,
            abi::FUTEX_OP_OR => Change::Or,
            abi::FUTEX_OP_ANDN => Change::AndNot,
            abi::FUTEX_OP_XOR => Change::Xor,
            _ => return Err(Errno::ENOSYS),
        };
        let comparison = match encoded >> 24 & 15 {
            abi::FUTEX_OP_CMP_EQ => Some(Comparison::Equal),
            abi::FUTEX_OP_CMP_NE => Some(Comparison::NotEqual),
            abi::FUTEX_OP_CMP_LT => Some(Comparison::Less),
            abi::FUTEX_OP_CMP_LE => Some(Comparison::LessOrEqual),
            abi::FUTEX_OP_CMP_GT => Some(Comparison::Greater),
            abi::FUTEX_OP_CMP_GE => Some(Comparison::GreaterOrEqual),
            _ => None,
        };
        let mut operand = signed_12(encoded >> 12);
        if encoded >> 28 & abi::FUTEX_OP_OPARG_SHIFT != 0 {
            // As Linux: a shift that is too far counts modulo 32.
            operand = 1 << (operand & 31);
        }
        Ok(Self { change, operand, comparison, comparand: signed_12(encoded) })
    }

    /// What the word becomes.
    pub const fn apply(self, old: u32) -> u32 {
        let operand = self.operand.cast_unsigned();
        match self.change {
            Change::Set => operand,
            Change::Add => old.wrapping_add(operand),
            Change::Or => old | operand,
            Change::AndNot => old & !operand,
            Change::Xor => old ^ operand,
        }
    }

    /// Whether those that wait on the second word are to be woken, too.
    ///
    /// # Errors
    /// `ENOSYS` for a comparison that does not exist: as on Linux, that is noticed after the change was made.
    pub const fn holds(self, old: u32) -> Result<bool, Errno> {
        let old = old.cast_signed();
        let Some(comparison) = self.comparison else { return Err(Errno::ENOSYS) };
        Ok(match comparison {
            Comparison::Equal => old == self.comparand,
            Comparison::NotEqual => old != self.comparand,
            Comparison::Less => old < self.comparand,
            Comparison::LessOrEqual => old <= self.comparand,
            Comparison::Greater => old > self.comparand,
            Comparison::GreaterOrEqual => old >= self.comparand,
        })
    }
}

/// The lower twelve bits, as a number with a sign.
const fn signed_12(field: u32) -> i32 {
    (field << 20).cast_signed() >> 20
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn operations_are_decoded() {
        let decoded = Operation::decode(abi::FUTEX_WAIT | abi::FUTEX_PRIVATE_FLAG).unwrap();
        assert_eq!(decoded.command, Command::Wait);
        assert_eq!((decoded.scope, decoded.clock), (Scope::Private, Clock::Monotonic));
        let decoded = Operation::decode(abi::FUTEX_WAIT_BITSET | abi::FUTEX_CLOCK_REALTIME);
        assert_eq!(decoded.unwrap().clock, Clock::Realtime);
        for refused in [
            abi::FUTEX_FD,
            abi::FUTEX_LOCK_PI,
            abi::FUTEX_WAIT_REQUEUE_PI,
            abi::FUTEX_WAIT | abi::FUTEX_CLOCK_REALTIME,
            abi::FUTEX_WAKE | abi::FUTEX_CLOCK_REALTIME,
            1 << 9,
            77,
        ] {
            assert_eq!(Operation::decode(refused), Err(Errno::ENOSYS), "{refused}");
        }
    }

    /// `FUTEX_OP` of `<linux/futex.h>`.
    const fn encode(change: u32, operand: u32, comparison: u32, comparand: u32) -> u32 {
        change << 28 | comparison << 24 | (operand & 0xfff) << 12 | comparand & 0xfff
    }

    #[test]
    fn word_operations_follow_the_manual() {
        let minus_one = -1i32 as u32;
        for (change, operand, old, new) in [
            (abi::FUTEX_OP_SET, 5, 9, 5),
            (abi::FUTEX_OP_SET, minus_one, 9, minus_one),
            (abi::FUTEX_OP_ADD, minus_one, 9, 8),
            (abi::FUTEX_OP_OR, 6, 9, 15),
            (abi::FUTEX_OP_ANDN, 1, 9, 8),
            (abi::FUTEX_OP_XOR, 3, 9, 10),
            (abi::FUTEX_OP_OR | abi::FUTEX_OP_OPARG_SHIFT, 31, 1, 0x8000_0001),
            (abi::FUTEX_OP_SET | abi::FUTEX_OP_OPARG_SHIFT, 33, 1, 2),
        ] {
            let operation = WordOperation::decode(encode(change, operand, 0, 0)).unwrap();
            assert_eq!(operation.apply(old), new, "{change} {operand}");
        }
        for (comparison, comparand, old, holds) in [
            (abi::FUTEX_OP_CMP_EQ, 7, 7, true),
            (abi::FUTEX_OP_CMP_NE, 7, 7, false),
            (abi::FUTEX_OP_CMP_LT, 0, minus_one, true),
            (abi::FUTEX_OP_CMP_LE, minus_one, minus_one, true),
            (abi::FUTEX_OP_CMP_GT, minus_one, 0, true),
            (abi::FUTEX_OP_CMP_GE, 1, minus_one, false),
        ] {
            let operation = WordOperation::decode(encode(0, 0, comparison, comparand)).unwrap();
            assert_eq!(operation.holds(old), Ok(holds), "{comparison} {comparand}");
        }
        assert_eq!(WordOperation::decode(encode(5, 0, 0, 0)), Err(Errno::ENOSYS));
        let incomparable = WordOperation::decode(encode(0, 1, 6, 0)).unwrap();
        assert_eq!((incomparable.apply(5), incomparable.holds(5)), (1, Err(Errno::ENOSYS)));
    }
}
