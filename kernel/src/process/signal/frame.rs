//! A handler begins and ends: the program's registers go to its stack, and come back.

use orrery_core::errno::Errno;
use orrery_core::signal::action::{Flags, Handler};
use orrery_core::signal::frame::{
    self, Context, Extent, HEADER_BYTES, INFO_AT, LEGACY_BYTES, LEGACY_COMPONENTS, MAGIC_2,
    RETURNED_BYTES, SOFTWARE_AT, SOFTWARE_BYTES, SignalFrame, UCONTEXT_AT, Xstate,
};
use orrery_core::signal::{Action, SignalInfo, SignalSet};

use super::{LastException, mask};
use crate::arch::exception::Frame;
use crate::arch::fpu::{self, BadState};
use crate::arch::user::{OutsideWindow, WINDOW_END};
use crate::mm::user::{self, Plain};
use crate::process::thread::{self, Thread};

/// Registers cannot be put on the program's stack, or taken from it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct BadFrame;

impl From<Errno> for BadFrame {
    fn from(_: Errno) -> Self {
        Self
    }
}

impl From<BadState> for BadFrame {
    fn from(_: BadState) -> Self {
        Self
    }
}

impl From<OutsideWindow> for BadFrame {
    fn from(_: OutsideWindow) -> Self {
        Self
    }
}

impl From<frame::StackOverflow> for BadFrame {
    fn from(_: frame::StackOverflow) -> Self {
        Self
    }
}

// SAFETY: a structure of integers and arrays of them, without padding (its size is the sum of theirs).
unsafe impl Plain for SignalFrame {}

/// Flags that a handler begins without: direction, and what a debugger uses (psABI, 3.2.1; SDM vol. 3,
/// 17.3.1.1).
const CLEARED_FLAGS: u64 = 1 << 10 | 1 << 16 | 1 << 8;

/// What XRSTOR of this CPU takes.
fn xstate() -> Xstate {
    Xstate { components: fpu::components(), len_bytes: fpu::used_bytes() }
}

/// Makes the running thread begin a handler when it goes to ring 3.
///
/// # Errors
/// [`BadFrame`] if there is no place on the stack, or the action has no restorer; the registers are as they
/// were then.
pub(super) fn enter_handler(
    thread: &Thread,
    registers: &mut Frame,
    info: &SignalInfo,
    action: &Action,
) -> Result<(), BadFrame> {
    let Handler::Function(address) = action.handler else { return Err(BadFrame) };
    if address >= WINDOW_END || !action.flags.contains(Flags::RESTORER) {
        return Err(BadFrame);
    }
    let (stack, last, saved_mask) = {
        let own = thread.signals.own.lock();
        (own.stack, own.last_exception, own.saved_mask)
    };
    let xstate = xstate();
    let place = frame::place(registers.rsp, &stack, action.flags, xstate)?;
    let mask = thread.signals.mask();
    let context = context(registers, &last, place.fpu);
    let raw_stack = stack.encode(registers.rsp);
    let on_stack =
        SignalFrame::new(action, info, context, xstate, raw_stack, saved_mask.unwrap_or(mask));
    save_floating_point(place.fpu, xstate)?;
    user::write(place.frame, &on_stack)?;

    registers.rdi = info.signal.number().into();
    registers.rsi = place.frame + INFO_AT;
    registers.rdx = place.frame + UCONTEXT_AT;
    registers.rax = 0;
    registers.rsp = place.frame;
    registers.rip = address;
    registers.rflags &= !CLEARED_FLAGS;
    thread::context().fpu.reset();
    {
        let mut own = thread.signals.own.lock();
        own.stack = stack.after_use();
        own.saved_mask = None;
        own.restart = None;
    }
    let mut blocked = mask.union(action.mask);
    if !action.flags.contains(Flags::NO_DEFER) {
        blocked = blocked.with(info.signal);
    }
    mask::set(thread, blocked);
    Ok(())
}

/// Takes the running thread's registers, mask and alternate stack from the frame that its stack pointer is at,
/// after rt_sigreturn(2). Whatever the program has made of them is made harmless.
///
/// # Errors
/// [`BadFrame`]; then some of it has been taken, and the thread must not go on.
pub(super) fn leave_handler(thread: &Thread, registers: &mut Frame) -> Result<(), BadFrame> {
    let at = registers.rsp.wrapping_sub(RETURNED_BYTES);
    let saved: SignalFrame = user::read(at)?;
    super::forget_call(registers);
    mask::set(thread, SignalSet::from_bits(saved.mask));
    restore(registers, &saved.context);
    registers.sanitise()?;
    load_floating_point(saved.context.fpu, xstate())?;
    let mut own = thread.signals.own.lock();
    // As on Linux, an alternate stack that cannot be is not taken.
    own.stack = own.stack.replaced(saved.stack, registers.rsp).unwrap_or(own.stack);
    own.restart = None;
    Ok(())
}

fn context(registers: &Frame, last: &LastException, fpu: u64) -> Context {
    Context {
        r8: registers.r8,
        r9: registers.r9,
        r10: registers.r10,
        r11: registers.r11,
        r12: registers.r12,
        r13: registers.r13,
        r14: registers.r14,
        r15: registers.r15,
        rdi: registers.rdi,
        rsi: registers.rsi,
        rbp: registers.rbp,
        rbx: registers.rbx,
        rdx: registers.rdx,
        rax: registers.rax,
        rcx: registers.rcx,
        rsp: registers.rsp,
        rip: registers.rip,
        rflags: registers.rflags,
        cs: registers.cs as u16,
        ss: registers.ss as u16,
        error_code: last.error_code,
        vector: last.vector,
        fault_address: last.address,
        fpu,
        ..Context::default()
    }
}

fn restore(registers: &mut Frame, from: &Context) {
    registers.r8 = from.r8;
    registers.r9 = from.r9;
    registers.r10 = from.r10;
    registers.r11 = from.r11;
    registers.r12 = from.r12;
    registers.r13 = from.r13;
    registers.r14 = from.r14;
    registers.r15 = from.r15;
    registers.rdi = from.rdi;
    registers.rsi = from.rsi;
    registers.rbp = from.rbp;
    registers.rbx = from.rbx;
    registers.rdx = from.rdx;
    registers.rax = from.rax;
    registers.rcx = from.rcx;
    registers.rsp = from.rsp;
    registers.rip = from.rip;
    registers.rflags = from.rflags;
}

/// Writes the running program's floating-point registers to its stack.
fn save_floating_point(at: u64, xstate: Xstate) -> Result<(), BadFrame> {
    let software = xstate.software_bytes();
    let header_at = at + LEGACY_BYTES as u64;
    let end = at + xstate.len_bytes as u64;
    match thread::context().fpu.saved() {
        Some(area) => {
            user::write_bytes(at, &area[..SOFTWARE_AT])?;
            user::write_bytes(header_at, &area[LEGACY_BYTES..xstate.len_bytes])?;
        }
        None => {
            user::zero(at, xstate.len_bytes)?;
            user::write(at + fpu::FCW_AT as u64, &fpu::INITIAL_FCW)?;
            user::write(at + fpu::MXCSR_AT as u64, &fpu::INITIAL_MXCSR)?;
        }
    }
    user::write_bytes(at + SOFTWARE_AT as u64, &software)?;
    if xstate.components != 0 {
        // A handler that changes x87 or SSE registers here wants them to count.
        let present: u64 = user::read(header_at)?;
        user::write(header_at, &(present | LEGACY_COMPONENTS))?;
        user::write(end, &MAGIC_2)?;
    }
    Ok(())
}

/// Gives the running program the floating-point registers that are at an address of its own choice.
fn load_floating_point(at: u64, xstate: Xstate) -> Result<(), BadFrame> {
    let state = &thread::context().fpu;
    if at == 0 {
        state.reset();
        return Ok(());
    }
    let mut software = [0; SOFTWARE_BYTES];
    user::read_bytes(&mut software, at.wrapping_add(SOFTWARE_AT as u64))?;
    let extent = match xstate.extent(&software) {
        Extent::Extended { len_bytes, .. }
            if user::read(at.wrapping_add(len_bytes as u64)) != Ok(MAGIC_2) =>
        {
            Extent::Legacy
        }
        extent => extent,
    };
    state.load(|area| match extent {
        Extent::Legacy => {
            user::read_bytes(&mut area[..LEGACY_BYTES], at)?;
            area[LEGACY_BYTES..].fill(0);
            set_components(area, if xstate.components == 0 { 0 } else { LEGACY_COMPONENTS });
            Ok(())
        }
        Extent::Extended { components, len_bytes } => {
            user::read_bytes(&mut area[..len_bytes], at)?;
            area[len_bytes..].fill(0);
            let header = area[LEGACY_BYTES..].first_chunk::<8>().copied().unwrap_or_default();
            set_components(area, u64::from_le_bytes(header) & components);
            Ok(())
        }
    })
}

fn set_components(area: &mut [u8; fpu::AREA_BYTES], components: u64) {
    const _: () = assert!(fpu::AREA_BYTES >= LEGACY_BYTES + HEADER_BYTES);
    area[LEGACY_BYTES..LEGACY_BYTES + 8].copy_from_slice(&components.to_le_bytes());
}
