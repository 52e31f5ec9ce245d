//! Alternate signal stacks: sigaltstack(2).

use linux_raw_sys::general as abi;

use crate::errno::Errno;

/// Whether a thread's alternate stack is one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum AltStack {
    /// There is none.
    #[default]
    None,
    /// There is one.
    Some {
        /// Its lowest address.
        base: u64,
        /// Its size.
        len_bytes: u64,
        /// Whether a handler that starts on it takes it away (`SS_AUTODISARM`).
        use_: Use,
    },
}

/// How often an alternate stack is used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Use {
    /// By handler after handler; those that interrupt one of them go on below it.
    Always,
    /// By one handler: there is none while it runs, so that it may switch contexts.
    Once,
}

/// `stack_t`: address, flags (and padding), size.
pub type RawStack = [u64; 3];
const _: () = assert!(size_of::<RawStack>() == size_of::<abi::sigaltstack>());

impl AltStack {
    /// Whether a stack pointer is on it. A stack that is used once is left by definition.
    pub const fn contains(&self, stack_pointer: u64) -> bool {
        !matches!(self, Self::Some { use_: Use::Once, .. }) && self.spans(stack_pointer)
    }

    /// Whether a stack pointer lies within it.
    pub(super) const fn spans(&self, stack_pointer: u64) -> bool {
        match *self {
            Self::Some { base, len_bytes, .. } => {
                stack_pointer > base && stack_pointer - base <= len_bytes
            }
            Self::None => false,
        }
    }

    /// Where a handler starts that wants it while the program's stack pointer is this; `None` if it stays
    /// where it is.
    pub const fn top_for(&self, stack_pointer: u64) -> Option<u64> {
        match *self {
            Self::Some { base, len_bytes, .. } if !self.contains(stack_pointer) => {
                Some(base.wrapping_add(len_bytes))
            }
            _ => None,
        }
    }

    /// As the ABI has it, for a program whose stack pointer is this.
    pub const fn encode(&self, stack_pointer: u64) -> RawStack {
        match *self {
            Self::None => [0, abi::SS_DISABLE as u64, 0],
            Self::Some { base, len_bytes, use_ } => {
                let is_on_it = if self.contains(stack_pointer) { abi::SS_ONSTACK } else { 0 };
                let auto = if matches!(use_, Use::Once) { abi::SS_AUTODISARM } else { 0 };
                [base, (is_on_it | auto) as u64, len_bytes]
            }
        }
    }

    /// What a program wants it to be, while its stack pointer is this.
    ///
    /// # Errors
    /// `EPERM` if it is on the present one; `EINVAL` for unknown flags; `ENOMEM` if it would be smaller than
    /// `MINSIGSTKSZ`.
    pub const fn replaced(
        &self,
        [base, flags, len_bytes]: RawStack,
        stack_pointer: u64,
    ) -> Result<Self, Errno> {
        if self.contains(stack_pointer) {
            return Err(Errno::EPERM);
        }
        // The upper half is padding.
        let flags = flags as u32;
        match flags & !abi::SS_FLAG_BITS {
            abi::SS_DISABLE => return Ok(Self::None),
            0 | abi::SS_ONSTACK => {}
            _ => return Err(Errno::EINVAL),
        }
        if len_bytes < abi::MINSIGSTKSZ as u64 {
            return Err(Errno::ENOMEM);
        }
        let use_ = if flags & abi::SS_AUTODISARM != 0 { Use::Once } else { Use::Always };
        Ok(Self::Some { base, len_bytes, use_ })
    }

    /// What it is once a handler has started on it.
    pub const fn after_use(&self) -> Self {
        match *self {
            Self::Some { use_: Use::Once, .. } => Self::None,
            other => other,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const AUTODISARM: u64 = abi::SS_AUTODISARM as u64;

    #[test]
    fn a_stack_is_left_before_it_is_replaced() {
        let none = AltStack::None;
        let some = none.replaced([0x1000, 0, 0x2000], 0x9000).unwrap();
        assert!(some.contains(0x3000) && some.contains(0x1001));
        assert!(!some.contains(0x1000) && !some.contains(0x3001));
        assert_eq!(some.top_for(0x9000), Some(0x3000));
        assert_eq!(some.top_for(0x2000), None);
        assert_eq!(some.encode(0x9000), [0x1000, 0, 0x2000]);
        assert_eq!(some.encode(0x2000), [0x1000, 1, 0x2000]);
        assert_eq!(some.replaced([0, 2, 0], 0x2000), Err(Errno::EPERM));
        assert_eq!(some.replaced([0, 2, 0], 0x9000), Ok(AltStack::None));
        assert_eq!(some.after_use(), some);
        assert_eq!(none.encode(0x9000), [0, 2, 0]);
        assert_eq!(none.top_for(0x9000), None);
    }

    #[test]
    fn flags_and_sizes_are_checked() {
        let none = AltStack::None;
        assert_eq!(none.replaced([0x1000, 4, 0x2000], 0), Err(Errno::EINVAL));
        assert_eq!(none.replaced([0x1000, 3, 0x2000], 0), Err(Errno::EINVAL));
        assert_eq!(none.replaced([0x1000, 0, 2047], 0), Err(Errno::ENOMEM));
        assert_eq!(none.replaced([0x1000, 2, 1], 0), Ok(AltStack::None));
        assert!(none.replaced([u64::MAX, 1, u64::MAX], 0).is_ok(), "the fault comes with its use");
    }

    #[test]
    fn a_stack_for_one_handler_goes_with_it() {
        let once = AltStack::None.replaced([0x1000, AUTODISARM, 0x2000], 0).unwrap();
        assert_eq!(once.after_use(), AltStack::None);
        assert!(!once.contains(0x2000));
        assert_eq!(once.top_for(0x2000), Some(0x3000));
        assert_eq!(once.encode(0x2000), [0x1000, AUTODISARM, 0x2000]);
    }
}
