//! What comes with a signal: `siginfo_t` (sigaction(2), "The siginfo_t argument to a SA_SIGINFO
//! handler").
//!
//! The ABI's structure is 128 bytes: number, errno and code, then a union. Linux keeps and copies only the
//! first 48; the rest is zero.

use linux_raw_sys::general as abi;

use super::Signal;

/// Bytes of the ABI's structure.
pub const INFO_BYTES: usize = abi::SI_MAX_SIZE as usize;
/// Bytes of its union that carry anything.
const UNION_BYTES: usize = 32;
/// Where its union starts.
const UNION_AT: usize = 16;

/// Codes of signals that are not the CPU's doing.
pub mod code {
    use super::abi;

    /// Sent by `kill`.
    pub const USER: i32 = abi::SI_USER as i32;
    /// Sent by the kernel.
    pub const KERNEL: i32 = abi::SI_KERNEL as i32;
    /// Sent by `sigqueue`.
    pub const QUEUE: i32 = abi::SI_QUEUE;
    /// A timer has expired.
    pub const TIMER: i32 = abi::SI_TIMER;
    /// Sent by `tkill` or `tgkill`.
    pub const TKILL: i32 = abi::SI_TKILL;
    /// A child has exited.
    pub const CHILD_EXITED: i32 = abi::CLD_EXITED as i32;
    /// A child was killed by a signal.
    pub const CHILD_KILLED: i32 = abi::CLD_KILLED as i32;
    /// A child has stopped.
    pub const CHILD_STOPPED: i32 = abi::CLD_STOPPED as i32;
    /// A child goes on.
    pub const CHILD_CONTINUED: i32 = abi::CLD_CONTINUED as i32;
}

/// The union of [`SignalInfo`], by what sent the signal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Detail {
    /// Nothing.
    None,
    /// A process sent it.
    Sender {
        /// Number of the process, in the receiver's namespace.
        pid: u32,
        /// Its real user.
        uid: u32,
    },
    /// A process sent it with a value.
    Queue {
        /// Number of the process, in the receiver's namespace.
        pid: u32,
        /// Its real user.
        uid: u32,
        /// `sigval`: an integer in the lower half, or a pointer.
        value: u64,
    },
    /// An instruction caused it.
    Fault {
        /// The address that was accessed, or that of the instruction.
        address: u64,
    },
    /// A child changed state.
    Child {
        /// Number of the child, in the receiver's namespace.
        pid: u32,
        /// Its real user.
        uid: u32,
        /// Exit code, or the number of the signal, by `code`.
        status: i32,
        /// Time in ring 3, in units of 1/100 s (`USER_HZ`).
        user_time: i64,
        /// Time in ring 0, in the same units.
        system_time: i64,
    },
    /// A timer expired.
    Timer {
        /// The timer's number.
        id: i32,
        /// Expirations that were not signalled.
        overruns: i32,
        /// As in `Queue`.
        value: u64,
    },
    /// What a program made up (rt_sigqueueinfo(2)).
    Raw([u64; UNION_BYTES / 8]),
}

/// What comes with a signal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SignalInfo {
    /// The signal.
    pub signal: Signal,
    /// `si_errno`: 0 in all that the kernel makes.
    pub errno: i32,
    /// `si_code`: why; positive if from the kernel.
    pub code: i32,
    /// The rest.
    pub detail: Detail,
}

impl SignalInfo {
    /// From the kernel, with nothing but a code.
    pub const fn kernel(signal: Signal) -> Self {
        Self { signal, errno: 0, code: code::KERNEL, detail: Detail::None }
    }

    /// Sent by `kill`.
    pub const fn user(signal: Signal, pid: u32, uid: u32) -> Self {
        Self { signal, errno: 0, code: code::USER, detail: Detail::Sender { pid, uid } }
    }

    /// Sent by `tkill` or `tgkill`.
    pub const fn thread(signal: Signal, pid: u32, uid: u32) -> Self {
        Self { signal, errno: 0, code: code::TKILL, detail: Detail::Sender { pid, uid } }
    }

    /// Caused by an instruction: `code` is one of the signal's own, such as `SEGV_MAPERR`.
    pub const fn fault(signal: Signal, code: u32, address: u64) -> Self {
        Self { signal, errno: 0, code: code as i32, detail: Detail::Fault { address } }
    }

    /// What is known of a pending signal for which there was no memory: as Linux, `kill` from nobody.
    pub const fn lost(signal: Signal) -> Self {
        Self::user(signal, 0, 0)
    }

    /// As the ABI has it. Without padding that would tell anything.
    pub fn encode(&self) -> [u8; INFO_BYTES] {
        let mut bytes = [0; INFO_BYTES];
        let mut put = |at: usize, value: &[u8]| bytes[at..at + value.len()].copy_from_slice(value);
        put(0, &i32::from(self.signal.number()).to_le_bytes());
        put(4, &self.errno.to_le_bytes());
        put(8, &self.code.to_le_bytes());
        match self.detail {
            Detail::None => {}
            Detail::Sender { pid, uid } => {
                put(UNION_AT, &pid.to_le_bytes());
                put(UNION_AT + 4, &uid.to_le_bytes());
            }
            Detail::Queue { pid, uid, value } => {
                put(UNION_AT, &pid.to_le_bytes());
                put(UNION_AT + 4, &uid.to_le_bytes());
                put(UNION_AT + 8, &value.to_le_bytes());
            }
            Detail::Fault { address } => put(UNION_AT, &address.to_le_bytes()),
            Detail::Child { pid, uid, status, user_time, system_time } => {
                put(UNION_AT, &pid.to_le_bytes());
                put(UNION_AT + 4, &uid.to_le_bytes());
                put(UNION_AT + 8, &status.to_le_bytes());
                put(UNION_AT + 16, &user_time.to_le_bytes());
                put(UNION_AT + 24, &system_time.to_le_bytes());
            }
            Detail::Timer { id, overruns, value } => {
                put(UNION_AT, &id.to_le_bytes());
                put(UNION_AT + 4, &overruns.to_le_bytes());
                put(UNION_AT + 8, &value.to_le_bytes());
            }
            Detail::Raw(words) => {
                for (index, word) in words.iter().enumerate() {
                    put(UNION_AT + 8 * index, &word.to_le_bytes());
                }
            }
        }
        bytes
    }

    /// What a program wants `signal` to come with, whatever number `bytes` has for it.
    pub fn decode(signal: Signal, bytes: &[u8; INFO_BYTES]) -> Self {
        let word = |at: usize| {
            i32::from_le_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]])
        };
        let quadword = |index: usize| {
            let at = UNION_AT + 8 * index;
            u64::from(word(at) as u32) | u64::from(word(at + 4) as u32) << 32
        };
        Self {
            signal,
            errno: word(4),
            code: word(8),
            detail: Detail::Raw(core::array::from_fn(quadword)),
        }
    }

    /// Whether the kernel, and no process, sent it.
    pub const fn is_from_kernel(&self) -> bool {
        self.code > 0
    }

    /// The address of a fault.
    pub const fn address(&self) -> Option<u64> {
        match self.detail {
            Detail::Fault { address } => Some(address),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use core::mem::{offset_of, transmute};

    fn as_abi(info: &SignalInfo) -> abi::siginfo {
        // SAFETY: plain bytes, of the same size, read as a structure of integers.
        unsafe { transmute(info.encode()) }
    }

    #[test]
    fn the_layout_is_the_abi_s() {
        assert_eq!(size_of::<abi::siginfo>(), INFO_BYTES);
        assert_eq!(offset_of!(abi::siginfo__bindgen_ty_1__bindgen_ty_1, _sifields), UNION_AT);

        let child = SignalInfo {
            signal: Signal::SIGCHLD,
            errno: 0,
            code: code::CHILD_EXITED,
            detail: Detail::Child { pid: 7, uid: 8, status: -9, user_time: 10, system_time: -11 },
        };
        let raw = as_abi(&child);
        // SAFETY: every field of the union is plain data and initialised.
        unsafe {
            let header = raw.__bindgen_anon_1.__bindgen_anon_1;
            assert_eq!((header.si_signo, header.si_errno, header.si_code), (17, 0, 1));
            let it = header._sifields._sigchld;
            assert_eq!((it._pid, it._uid, it._status), (7, 8, -9));
            assert_eq!((it._utime, it._stime), (10, -11));
        }
        let fault = SignalInfo::fault(Signal::SIGSEGV, abi::SEGV_ACCERR, 0x1234_5678_9abc);
        // SAFETY: as above.
        unsafe {
            let header = as_abi(&fault).__bindgen_anon_1.__bindgen_anon_1;
            assert_eq!((header.si_signo, header.si_code), (11, 2));
            assert_eq!(header._sifields._sigfault._addr as u64, 0x1234_5678_9abc);
        }
        let queue = SignalInfo {
            signal: Signal::SIGUSR1,
            errno: 0,
            code: code::QUEUE,
            detail: Detail::Queue { pid: 3, uid: 4, value: 0xdead_beef_0000_0001 },
        };
        // SAFETY: as above.
        unsafe {
            let header = as_abi(&queue).__bindgen_anon_1.__bindgen_anon_1;
            assert_eq!((header._sifields._rt._pid, header._sifields._rt._uid), (3, 4));
            let value = header._sifields._rt._sigval.sival_ptr as u64;
            assert_eq!(value, 0xdead_beef_0000_0001);
        }
        let timer = SignalInfo {
            signal: Signal::SIGALRM,
            errno: 0,
            code: code::TIMER,
            detail: Detail::Timer { id: 1, overruns: 2, value: 3 },
        };
        // SAFETY: as above.
        unsafe {
            let it = as_abi(&timer).__bindgen_anon_1.__bindgen_anon_1._sifields._timer;
            assert_eq!((it._tid, it._overrun, it._sigval.sival_int), (1, 2, 3));
        }
    }

    #[test]
    fn what_a_program_made_up_comes_out_as_it_went_in() {
        let mut bytes = [0; INFO_BYTES];
        for (index, byte) in bytes.iter_mut().enumerate() {
            *byte = index as u8 ^ 0x5a;
        }
        let info = SignalInfo::decode(Signal::SIGUSR2, &bytes);
        let out = info.encode();
        assert_eq!(out[..4], 12i32.to_le_bytes());
        assert_eq!(out[4..12], bytes[4..12]);
        assert_eq!(out[12..16], [0; 4], "padding");
        assert_eq!(out[UNION_AT..UNION_AT + UNION_BYTES], bytes[UNION_AT..UNION_AT + UNION_BYTES]);
        assert_eq!(out[UNION_AT + UNION_BYTES..], [0; 80]);
    }
}
