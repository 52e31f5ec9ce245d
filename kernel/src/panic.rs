//! The disorderly end: a bug in the kernel. One CPU tells the story, the others are stopped, and
//! everything that was recorded still reaches the host.

use core::fmt::{self, Write};
use core::panic::PanicInfo;
use core::sync::atomic::{AtomicBool, Ordering};

use orrery_core::trace::wire::Kind;

use crate::arch::exception::{self, Frame};
use crate::arch::{apic, backtrace, cpu, irq, percpu, tsc};
use crate::console;
use crate::drivers::exit::{ExitStatus, exit};
use crate::mm::stack;
use crate::sched::Task;
use crate::sync::lockdep;
use crate::trace::stream::{WIRE, Wire};
use crate::trace::{drain, events};

static PANICKING: AtomicBool = AtomicBool::new(false);

#[panic_handler]
fn on_panic(info: &PanicInfo<'_>) -> ! {
    die(ExitStatus::PANIC, info.location(), None, format_args!("{}", info.message()))
}

/// [`crate::arch::Hooks::fatal_exception`].
pub fn on_exception(frame: &Frame) -> ! {
    let address = exception::fault_address();
    if frame.vector == exception::PAGE_FAULT || frame.vector == exception::DOUBLE_FAULT {
        let what = if stack::overflow_at(address) { "kernel stack overflow" } else { frame.name() };
        let error = frame.error_code;
        die(
            ExitStatus::PANIC,
            None,
            Some(frame),
            format_args!("{what} at address {address:#x}, error code {error:#x}"),
        )
    }
    let (name, error) = (frame.name(), frame.error_code);
    die(ExitStatus::PANIC, None, Some(frame), format_args!("{name}, error code {error:#x}"))
}

/// [`crate::arch::Hooks::page_fault`]: kernel memory is always mapped, so none is resolved.
pub fn on_page_fault(frame: &Frame, address: u64) -> bool {
    if !PANICKING.load(Ordering::Relaxed) {
        events::page_fault(address, frame.rip, frame.error_code as u32);
    }
    false
}

/// [`crate::arch::Hooks::stop`]: another CPU panics.
pub fn on_stop(_frame: &Frame) -> ! {
    cpu::halt_forever()
}

/// The watchdog has found a CPU that does not schedule.
pub fn on_stall(message: fmt::Arguments<'_>) -> ! {
    die(ExitStatus::WATCHDOG, None, None, message)
}

fn die(
    status: ExitStatus,
    location: Option<&core::panic::Location<'_>>,
    frame: Option<&Frame>,
    message: fmt::Arguments<'_>,
) -> ! {
    irq::disable();
    if PANICKING.swap(true, Ordering::SeqCst) {
        // A second CPU, or a panic in a panic: the first one's story counts. It would be cut short
        // only if this were the same CPU, which then has nothing left to say.
        if STORY_TELLER.load(Ordering::SeqCst) == percpu::cpu_id() {
            exit(status)
        }
        cpu::halt_forever()
    }
    STORY_TELLER.store(percpu::cpu_id(), Ordering::SeqCst);
    lockdep::silence();
    apic::send_nmi_to_others();
    // Time for the others to be where they stop; none of them is waited for.
    let since = tsc::now();
    while tsc::now() - since < tsc::from_us(100) {
        cpu::pause();
    }
    // SAFETY: every other CPU is stopped, and this one does not return.
    unsafe {
        let wire = WIRE.seize();
        console::send_after_stop(wire);
        tell(wire, location, frame, message);
        drain::flush_all(wire, status.value());
    }
    exit(status)
}

static STORY_TELLER: core::sync::atomic::AtomicU32 = core::sync::atomic::AtomicU32::new(u32::MAX);

/// Sends the panic packet. Its keys are in `docs/trace-format.md`.
fn tell(
    wire: &mut Wire,
    location: Option<&core::panic::Location<'_>>,
    frame: Option<&Frame>,
    message: fmt::Arguments<'_>,
) {
    wire.text(Kind::Panic, |out| {
        out.write_str("message=")?;
        OneLine(out).write_fmt(message)?;
        writeln!(out, "\ncpu={}", percpu::cpu_id())?;
        // SAFETY: null before the scheduler runs, else the running task.
        if let Some(task) = unsafe { percpu::current().cast::<Task>().as_ref() } {
            writeln!(out, "pid={}\ntask={}", task.pid(), task.name())?;
        }
        if let Some(location) = location {
            writeln!(out, "location={location}")?;
        }
        match frame {
            Some(frame) => {
                for address in backtrace::from_frame(frame) {
                    writeln!(out, "frame={address:#x}")?;
                }
                for (name, value) in frame.registers() {
                    writeln!(out, "register={name}={value:#x}")?;
                }
            }
            None => {
                for address in backtrace::from_here() {
                    writeln!(out, "frame={address:#x}")?;
                }
            }
        }
        // SAFETY: this CPU takes and releases no lock while it tells.
        for (name, site) in unsafe { lockdep::held_by(percpu::cpu_id()) } {
            writeln!(out, "lock={name} {}:{}", site.file(), site.line())?;
        }
        Ok(())
    });
}

/// Writes newlines as spaces.
struct OneLine<'a>(&'a mut dyn Write);

impl Write for OneLine<'_> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        for (index, line) in text.split('\n').enumerate() {
            if index > 0 {
                self.0.write_char(' ')?;
            }
            self.0.write_str(line)?;
        }
        Ok(())
    }
}
