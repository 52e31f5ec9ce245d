//! On the way to ring 3 a thread takes its signals.

use core::fmt;
use core::sync::atomic::Ordering;

use linux_raw_sys::general as abi;
use orrery_core::errno::Errno;
use orrery_core::signal::action::{Flags, Handler, Interrupted, interrupted};
use orrery_core::signal::{
    Action, Disposition, Effect, Pending, Signal, SignalInfo, SignalSet, UNBLOCKABLE,
};

use super::{LastException, ProcessSignals, forget_call, frame, is_syscall, job, mask};
use crate::arch::exception::{self, Frame};
use crate::println;
use crate::process::thread::Thread;
use crate::process::tree;
use crate::process::wait::Status;
use crate::process::{exec, exit, look_again, run_timer};
use crate::sched;
use crate::trace::events;

/// A program's own fault.
pub struct Fault<'a> {
    /// The signal.
    pub signal: u32,
    /// `si_code`.
    pub code: i32,
    /// `si_addr`.
    pub address: u64,
    /// The registers at the fault.
    pub frame: &'a Frame,
}

/// Why a signal is delivered.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Cause {
    /// It was sent.
    Sent,
    /// The thread has done something it must not go on from: it cannot be blocked or ignored.
    Fault,
}

/// The running thread `thread` has caused a fault: it gets this signal before it goes on. Where it blocks or
/// ignores the signal, it ends (Linux: `force_sig_info_to_task`).
pub fn force(thread: &Thread, fault: Fault<'_>) {
    let signal = Signal::new(fault.signal.into()).unwrap_or(Signal::SIGSEGV);
    let info = if fault.code == abi::SI_KERNEL as i32 {
        SignalInfo::kernel(signal)
    } else {
        SignalInfo::fault(signal, fault.code as u32, fault.address)
    };
    events::signal_generate(sched::current().pid(), signal.number(), info.code);
    let mut own = thread.signals.own.lock();
    own.forced = Some(info);
    let frame = fault.frame;
    own.last_exception = LastException {
        vector: frame.vector,
        error_code: frame.error_code,
        address: if frame.vector == exception::PAGE_FAULT {
            fault.address
        } else {
            own.last_exception.address
        },
    };
    drop(own);
    look_again();
}

/// The running thread gets SIGSEGV from the kernel, as by [`force`].
fn force_segmentation_fault(thread: &Thread) {
    thread.signals.own.lock().forced = Some(SignalInfo::kernel(Signal::SIGSEGV));
}

/// What the running thread does about its signals before it goes to ring 3 with these registers: begins
/// handlers, one on top of the other, stops, ends; and what becomes of the call that was interrupted.
pub fn deliver(thread: &Thread, frame: &mut Frame) {
    let returns = core::mem::take(&mut thread.signals.own.lock().returns);
    if returns && frame::leave_handler(thread, frame).is_err() {
        force_segmentation_fault(thread);
    }
    let process = &thread.process;
    loop {
        if process.signals.job.is_asked() {
            job::stop_here(thread);
            // Another thread may have executed a program meanwhile.
            exec::adopt_handover();
        }
        if thread.is_doomed() {
            exit::exit_thread();
        }
        let (info, cause) = match take(thread) {
            Next::Taken(info, cause) => (info, cause),
            Next::Stopped => continue,
            Next::None => break,
        };
        let signal = info.signal;
        let action = process.signals.begin(signal);
        let refused = cause == Cause::Fault
            && (action.handler == Handler::Ignore || thread.signals.mask().contains(signal));
        match action.disposition(signal) {
            _ if refused => die(thread, &info, frame, cause),
            Disposition::Handle(address) => {
                events::signal_deliver(signal.number(), info.code, address);
                settle_call(frame, Some(action.flags));
                forget_call(frame);
                if frame::enter_handler(thread, frame, &info, &action).is_err() {
                    if signal == Signal::SIGSEGV {
                        die(thread, &SignalInfo::kernel(signal), frame, Cause::Fault);
                    }
                    force_segmentation_fault(thread);
                }
            }
            Disposition::Ignore | Disposition::Default(Effect::Ignore | Effect::Continue) => {}
            Disposition::Default(Effect::Stop) => job::stop(process, signal, &mut tree::lock()),
            Disposition::Default(Effect::Terminate | Effect::Core) => {
                if cause == Cause::Fault || !is_protected(thread, signal) {
                    die(thread, &info, frame, cause);
                }
            }
        }
    }
    settle_call(frame, None);
    let saved = thread.signals.own.lock().saved_mask.take();
    if let Some(saved) = saved {
        mask::set(thread, saved);
    }
}

impl ProcessSignals {
    /// What is done about a signal that is delivered now; with `SA_RESETHAND` once.
    fn begin(&self, signal: Signal) -> Action {
        let action = self.action(signal);
        if matches!(action.handler, Handler::Function(_))
            && action.flags.contains(Flags::RESET_HANDLER)
        {
            // It has a handler, so it is one that may be set.
            let _ = self.set_action(signal, Action { handler: Handler::Default, ..action });
        }
        action
    }
}

/// The first process of a namespace gets none of the signals that it has no handler for.
fn is_protected(thread: &Thread, signal: Signal) -> bool {
    !UNBLOCKABLE.contains(signal) && thread.process.family.get(&tree::lock()).tgid == 1
}

enum Next {
    Taken(SignalInfo, Cause),
    /// It was a stop signal, and has done its work.
    Stopped,
    None,
}

/// Takes the signal that is to be delivered first: a fault, then what was sent to the thread, then what was sent
/// to the process.
fn take(thread: &Thread) -> Next {
    if let Some(info) = thread.signals.own.lock().forced.take() {
        return Next::Taken(info, Cause::Fault);
    }
    let signals = &thread.process.signals;
    let stop = {
        let mut shared = signals.pending.lock();
        let mut own = thread.signals.pending.lock();
        let unblocked = SignalSet::from_bits(!thread.signals.mask().bits());
        let next = |pending: &Pending| pending.set().intersection(unblocked).next();
        let Some(signal) = next(&own).or_else(|| next(&shared)) else { return Next::None };
        let action = signals.action(signal);
        if action.disposition(signal) != Disposition::Default(Effect::Stop) {
            let info = own.take(unblocked).or_else(|| shared.take(unblocked));
            return info.map_or(Next::None, |info| Next::Taken(info, Cause::Sent));
        }
        signal
    };
    // Under the tree's lock, so that a SIGCONT forgets it or continues from it.
    if let Some(info) = job::take_stop(thread, stop) {
        events::signal_deliver(stop.number(), info.code, 0);
    }
    Next::Stopped
}

/// What becomes of the call that the frame is of, if a signal has interrupted it, now that a handler with
/// these flags runs, or none.
fn settle_call(frame: &mut Frame, handler: Option<Flags>) {
    /// Bytes of the SYSCALL instruction.
    const SYSCALL_BYTES: u64 = 2;
    if !is_syscall(frame) {
        return;
    }
    let errors = [
        Errno::RESTART_SYS,
        Errno::RESTART_ALWAYS,
        Errno::RESTART_NO_HANDLER,
        Errno::RESTART_BLOCK,
    ];
    let error = errors.into_iter().find(|error| error.to_return_value() == frame.rax);
    match error.and_then(|error| interrupted(error, handler)) {
        None => {}
        Some(Interrupted::Fails) => frame.rax = Errno::EINTR.to_return_value(),
        Some(Interrupted::Restarts) => {
            frame.rax = frame.error_code;
            frame.rip = frame.rip.wrapping_sub(SYSCALL_BYTES);
        }
        Some(Interrupted::Resumes) => {
            frame.rax = abi::__NR_restart_syscall.into();
            frame.rip = frame.rip.wrapping_sub(SYSCALL_BYTES);
        }
    }
}

/// Ends the running thread's process by a signal.
///
/// No core is dumped: the status says so, as that of Linux does with `RLIMIT_CORE` 0 (the bit 0x80 is
/// clear).
fn die(thread: &Thread, info: &SignalInfo, frame: &Frame, cause: Cause) -> ! {
    events::signal_deliver(info.signal.number(), info.code, 0);
    if cause == Cause::Fault {
        report_crash(thread, info, frame);
    }
    exit::exit_group(Status::signalled(info.signal.number().into()))
}

/// Says which program has crashed, and where.
fn report_crash(thread: &Thread, info: &SignalInfo, frame: &Frame) {
    let pid = sched::current().pid();
    let comm = *thread.comm.lock();
    println!(
        "orrery: pid {pid} `{}` crashed: {:?}, code {}, {}at rip {:#x}\n{}",
        comm.as_str(),
        info.signal,
        info.code,
        At(info.address()),
        frame.rip,
        Registers(frame),
    );
}

struct At(Option<u64>);

impl fmt::Display for At {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Some(address) => write!(f, "address {address:#x}, "),
            None => Ok(()),
        }
    }
}

struct Registers<'a>(&'a Frame);

impl fmt::Display for Registers<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const PER_LINE: usize = 4;
        for (index, (name, value)) in self.0.registers().enumerate() {
            let separator = match index {
                0 => " ",
                _ if index % PER_LINE == 0 => "\n ",
                _ => "",
            };
            write!(f, "{separator} {name:>6} {value:016x}")?;
        }
        Ok(())
    }
}

/// Whether the running thread has a signal to take, or must stop or end. If not, its interruption is
/// forgotten: it may go on sleeping.
pub(super) fn is_due(thread: &Thread) -> bool {
    use crate::sched::task::interruption::SIGNAL;
    let task = sched::current();
    task.interruptions.fetch_and(!SIGNAL, Ordering::SeqCst);
    run_timer::look(thread);
    let is_due = {
        let shared = thread.process.signals.pending.lock();
        let own = thread.signals.pending.lock();
        let pending = shared.set().union(own.set());
        !pending.difference(thread.signals.mask()).is_empty()
    };
    let is_due = is_due
        || thread.process.signals.job.is_asked()
        || thread.must_leave()
        || task.stop_requested()
        || thread.signals.own.lock().forced.is_some();
    if is_due {
        task.interruptions.fetch_or(SIGNAL, Ordering::SeqCst);
    }
    is_due
}
