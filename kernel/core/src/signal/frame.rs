//! The frame that a handler finds on its stack, and gives back to rt_sigreturn(2).
//!
//! ```text
//!                    128 bytes that leaf functions use below their stack pointer (the red zone)
//!   at a 64th byte   floating-point registers in the format of XSAVE, with 48 bytes of software's own
//!                    at 464 and a magic word at the end (Linux's `asm/sigcontext.h`)
//!   8 below a 16th   return address, ucontext, siginfo: `struct rt_sigframe`
//! ```
//!
//! The psABI wants the stack pointer 8 below a multiple of 16 where a function begins; the return
//! address lies there.
//!
//! Nothing of what comes back is trusted: addresses, segments, flags and floating-point registers are for
//! whoever loads them to check. What is checked here is only which parts of the frame are there.

use super::action::Flags;
use super::info::{INFO_BYTES, SignalInfo};
use super::stack::{AltStack, RawStack};
use super::{Action, SignalSet};

/// Bytes below the stack pointer that are in use (psABI, 3.2.2).
const RED_ZONE_BYTES: u64 = 128;
/// `uc_flags`: the floating-point registers are in the format of XSAVE (`UC_FP_XSTATE`).
const HAS_XSTATE: u64 = 1;
/// `uc_flags`: SS is there, and is to be restored (`UC_SIGCONTEXT_SS | UC_STRICT_RESTORE_SS`).
const HAS_SS: u64 = 2 | 4;

/// The interrupted registers: `struct sigcontext`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
#[allow(missing_docs)]
pub struct Context {
    pub r8: u64,
    pub r9: u64,
    pub r10: u64,
    pub r11: u64,
    pub r12: u64,
    pub r13: u64,
    pub r14: u64,
    pub r15: u64,
    pub rdi: u64,
    pub rsi: u64,
    pub rbp: u64,
    pub rbx: u64,
    pub rdx: u64,
    pub rax: u64,
    pub rcx: u64,
    pub rsp: u64,
    pub rip: u64,
    pub rflags: u64,
    pub cs: u16,
    pub gs: u16,
    pub fs: u16,
    pub ss: u16,
    /// Error code of the thread's last exception.
    pub error_code: u64,
    /// Vector of the thread's last exception.
    pub vector: u64,
    /// The lower half of the mask.
    pub old_mask: u64,
    /// Address of the thread's last page fault.
    pub fault_address: u64,
    /// Where the floating-point registers are; 0: nowhere, they are the initial ones.
    pub fpu: u64,
    pub reserved: [u64; 8],
}

/// What lies on the handler's stack: `struct rt_sigframe`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
pub struct SignalFrame {
    /// Where the handler returns to.
    pub return_address: u64,
    /// `uc_flags`.
    pub flags: u64,
    /// `uc_link`.
    pub link: u64,
    /// `uc_stack`: the thread's alternate stack.
    pub stack: RawStack,
    /// `uc_mcontext`.
    pub context: Context,
    /// `uc_sigmask`: what was blocked.
    pub mask: u64,
    /// What came with the signal.
    pub info: [u8; INFO_BYTES],
}

/// Where the ucontext is in a frame.
pub const UCONTEXT_AT: u64 = core::mem::offset_of!(SignalFrame, flags) as u64;
/// Where the siginfo is in a frame.
pub const INFO_AT: u64 = core::mem::offset_of!(SignalFrame, info) as u64;
/// Where the frame is, as seen from the stack pointer that rt_sigreturn(2) is called with: the handler's `ret`
/// has taken the return address.
pub const RETURNED_BYTES: u64 = 8;
/// Bytes of a frame.
pub const FRAME_BYTES: usize = size_of::<SignalFrame>();

impl SignalFrame {
    /// The frame for a handler that is called by `action` for `info`.
    ///
    /// `context` has the interrupted registers and where the floating-point ones will be; `xstate` says in
    /// which format.
    pub fn new(
        action: &Action,
        info: &SignalInfo,
        context: Context,
        xstate: Xstate,
        stack: RawStack,
        mask: SignalSet,
    ) -> Self {
        let has_xstate = if xstate.components == 0 { 0 } else { HAS_XSTATE };
        Self {
            return_address: action.restorer,
            flags: HAS_SS | has_xstate,
            link: 0,
            stack,
            context: Context { old_mask: mask.bits(), ..context },
            mask: mask.bits(),
            info: info.encode(),
        }
    }
}

/// Where a frame goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place {
    /// The frame: the handler's stack pointer.
    pub frame: u64,
    /// The floating-point registers.
    pub fpu: u64,
}

/// The stack has no room: it ends in SIGSEGV.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StackOverflow;

/// Where the frame of a handler goes that interrupts a program with this stack pointer.
///
/// # Errors
/// [`StackOverflow`] if it would leave the alternate stack, or the address space. Whether the
/// memory is there shows when it is written.
pub fn place(
    stack_pointer: u64,
    stack: &AltStack,
    flags: Flags,
    xstate: Xstate,
) -> Result<Place, StackOverflow> {
    let entered = if flags.contains(Flags::ON_STACK) { stack.top_for(stack_pointer) } else { None };
    let top = match entered {
        Some(top) => top,
        None => stack_pointer.checked_sub(RED_ZONE_BYTES).ok_or(StackOverflow)?,
    };
    let fpu = top.checked_sub(xstate.frame_bytes() as u64).ok_or(StackOverflow)? & !63;
    let frame = fpu.checked_sub(FRAME_BYTES as u64).ok_or(StackOverflow)? & !15;
    let frame = frame.checked_sub(8).ok_or(StackOverflow)?;
    let must_fit = entered.is_some() || stack.contains(stack_pointer);
    if must_fit && !stack.spans(frame) {
        return Err(StackOverflow);
    }
    Ok(Place { frame, fpu })
}

/// What the CPU saves of floating-point and vector registers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Xstate {
    /// The components, as XCR0 has them; 0 where there is only FXSAVE.
    pub components: u64,
    /// Bytes of all of them.
    pub len_bytes: usize,
}

/// Bytes of the part that FXSAVE writes (SDM vol. 1, 13.4.1).
pub const LEGACY_BYTES: usize = 512;
/// Where software has its own bytes in that part, and how many.
pub const SOFTWARE_AT: usize = 464;
/// How many.
pub const SOFTWARE_BYTES: usize = LEGACY_BYTES - SOFTWARE_AT;
/// Bytes of the header behind it (SDM vol. 1, 13.4.2). Its first word says which components are there.
pub const HEADER_BYTES: usize = 64;
/// The components that FXSAVE writes: x87 and SSE.
pub const LEGACY_COMPONENTS: u64 = 3;

/// `FP_XSTATE_MAGIC1`.
const MAGIC_1: u32 = 0x4650_5853;
/// `FP_XSTATE_MAGIC2`, behind the last component.
pub const MAGIC_2: u32 = 0x4650_5845;
/// Its size.
pub const MAGIC_2_BYTES: usize = 4;

/// Which of the registers in a frame are to be loaded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Extent {
    /// What FXSAVE writes; the other components become initial.
    Legacy,
    /// These components, of those that the header names, in so many bytes, if [`MAGIC_2`] follows.
    Extended {
        /// As XCR0 has them.
        components: u64,
        /// Legacy part and header included.
        len_bytes: usize,
    },
}

impl Xstate {
    /// Bytes in a frame.
    pub const fn frame_bytes(self) -> usize {
        if self.components == 0 { LEGACY_BYTES } else { self.len_bytes + MAGIC_2_BYTES }
    }

    /// The bytes of software's own: `struct _fpx_sw_bytes`.
    pub fn software_bytes(self) -> [u8; SOFTWARE_BYTES] {
        let mut bytes = [0; SOFTWARE_BYTES];
        if self.components != 0 {
            bytes[..4].copy_from_slice(&MAGIC_1.to_le_bytes());
            bytes[4..8].copy_from_slice(&(self.frame_bytes() as u32).to_le_bytes());
            bytes[8..16].copy_from_slice(&self.components.to_le_bytes());
            bytes[16..20].copy_from_slice(&(self.len_bytes as u32).to_le_bytes());
        }
        bytes
    }

    /// What the bytes of software's own in a frame that came back say. As on Linux a program may leave out
    /// what is extended.
    pub fn extent(self, software: &[u8; SOFTWARE_BYTES]) -> Extent {
        let word = |at: usize| {
            u32::from_le_bytes([software[at], software[at + 1], software[at + 2], software[at + 3]])
        };
        let (extended, len_bytes) = (word(4) as usize, word(16) as usize);
        let fits = len_bytes >= LEGACY_BYTES + HEADER_BYTES && len_bytes <= self.len_bytes;
        if self.components == 0 || word(0) != MAGIC_1 || !fits || len_bytes > extended {
            return Extent::Legacy;
        }
        let components = u64::from(word(8)) | u64::from(word(12)) << 32;
        Extent::Extended { components: components & self.components, len_bytes }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::signal::Signal;
    use core::mem::offset_of;
    use proptest::prelude::*;

    const AVX: Xstate = Xstate { components: 7, len_bytes: 832 };
    const OLD: Xstate = Xstate { components: 0, len_bytes: 512 };
    const ON_STACK: u64 = linux_raw_sys::general::SA_ONSTACK as u64;

    fn flags(bits: u64) -> Flags {
        Action::decode([0, bits, 0, 0]).flags
    }

    /// From `asm/sigcontext.h` and `asm/ucontext.h`, as a C compiler lays them out.
    #[test]
    fn the_layout_is_the_abi_s() {
        assert_eq!(size_of::<Context>(), 256);
        assert_eq!(offset_of!(Context, rdi), 64);
        assert_eq!(offset_of!(Context, rip), 128);
        assert_eq!(offset_of!(Context, cs), 144);
        assert_eq!(offset_of!(Context, error_code), 152);
        assert_eq!(offset_of!(Context, fault_address), 176);
        assert_eq!(offset_of!(Context, fpu), 184);
        assert_eq!(UCONTEXT_AT, 8);
        assert_eq!(offset_of!(SignalFrame, stack), 8 + 16);
        assert_eq!(offset_of!(SignalFrame, context), 8 + 40);
        assert_eq!(offset_of!(SignalFrame, mask), 8 + 296);
        assert_eq!(INFO_AT, 8 + 304);
        assert_eq!(FRAME_BYTES, 440);
    }

    #[test]
    fn a_frame_says_what_it_was_made_for() {
        let action = Action::decode([0x40_1000, 4, 0x40_2000, 0]);
        let info = SignalInfo::user(Signal::SIGUSR1, 12, 0);
        let mask = SignalSet::of(&[Signal::SIGCHLD]);
        let context = Context { rip: 0x40_3000, fpu: 0x7fff_0000, ..Context::default() };
        let frame = SignalFrame::new(&action, &info, context, AVX, [1, 2, 3], mask);
        assert_eq!(frame.return_address, 0x40_2000);
        assert_eq!(frame.flags, 7);
        assert_eq!(frame.stack, [1, 2, 3]);
        assert_eq!(frame.context.rip, 0x40_3000);
        assert_eq!((frame.mask, frame.context.old_mask), (1 << 16, 1 << 16));
        assert_eq!(frame.info, info.encode());
        let old = SignalFrame::new(&action, &info, context, OLD, [0; 3], mask);
        assert_eq!(old.flags, 6);
    }

    #[test]
    fn the_alternate_stack_is_used_once_at_a_time_and_not_overrun() {
        let stack = AltStack::None.replaced([0x10_0000, 0, 0x4000], 0).unwrap();
        let top = 0x10_4000;
        let plain = place(0x7fff_f000, &stack, flags(0), AVX).unwrap();
        assert!(plain.frame < 0x7fff_f000 - 128);
        let first = place(0x7fff_f000, &stack, flags(ON_STACK), AVX).unwrap();
        assert!(first.fpu + 836 <= top && top - first.frame < 836 + 440 + 128);
        let nested = place(first.frame, &stack, flags(ON_STACK), AVX).unwrap();
        assert!(nested.frame < first.frame - 128);
        assert_eq!(place(0x10_0100, &stack, flags(ON_STACK), AVX), Err(StackOverflow));
        assert_eq!(place(0x10_0100, &stack, flags(0), AVX), Err(StackOverflow));
        let tiny = AltStack::None.replaced([0x10_0000, 0, 2048], 0).unwrap();
        assert!(place(0x7fff_f000, &tiny, flags(ON_STACK), AVX).is_ok());
        let wraps = AltStack::None.replaced([u64::MAX - 10, 0, 4096], 0).unwrap();
        let _ = place(0x7fff_f000, &wraps, flags(ON_STACK), AVX);
    }

    #[test]
    fn software_s_bytes_come_back() {
        let bytes = AVX.software_bytes();
        assert_eq!(bytes[..4], *b"SXPF");
        assert_eq!(bytes[4..8], 836u32.to_le_bytes());
        assert_eq!(AVX.extent(&bytes), Extent::Extended { components: 7, len_bytes: 832 });
        assert_eq!(OLD.extent(&bytes), Extent::Legacy);
        assert_eq!(OLD.software_bytes(), [0; SOFTWARE_BYTES]);
        let with = |at: usize, value: u32| {
            let mut bytes = bytes;
            bytes[at..at + 4].copy_from_slice(&value.to_le_bytes());
            AVX.extent(&bytes)
        };
        assert_eq!(with(0, 0), Extent::Legacy);
        assert_eq!(with(16, 833), Extent::Legacy, "more than the CPU has");
        assert_eq!(with(16, 575), Extent::Legacy, "no header");
        assert_eq!(with(4, 831), Extent::Legacy);
        assert_eq!(with(16, 576), Extent::Extended { components: 7, len_bytes: 576 });
        assert_eq!(with(8, u32::MAX), Extent::Extended { components: 7, len_bytes: 832 });
        assert_eq!(with(8, 2), Extent::Extended { components: 2, len_bytes: 832 });
    }

    proptest! {
        #[test]
        fn frames_are_aligned_and_apart(
            stack_pointer: u64,
            base: u64,
            len_bytes in 2048..u64::MAX,
            bits: u64,
            has_stack: bool,
        ) {
            let stack = if has_stack {
                AltStack::None.replaced([base, 0, len_bytes], 0).unwrap()
            } else {
                AltStack::None
            };
            for xstate in [AVX, OLD] {
                if let Ok(place) = place(stack_pointer, &stack, flags(bits), xstate) {
                    prop_assert_eq!(place.frame % 16, 8);
                    prop_assert_eq!(place.fpu % 64, 0);
                    prop_assert!(place.frame + FRAME_BYTES as u64 <= place.fpu);
                    prop_assert!(place.fpu.checked_add(xstate.frame_bytes() as u64).is_some());
                }
            }
        }
    }
}
