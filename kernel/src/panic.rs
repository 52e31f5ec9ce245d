//! The disorderly end: a bug in the kernel. One CPU tells the story, the others are stopped, and
//! everything that was recorded still reaches the host.

use core::fmt::{self, Write};
use core::panic::PanicInfo;
use core::sync::atomic::{AtomicBool, AtomicPtr, Ordering};

use orrery_core::trace::wire::Kind;

use crate::arch::exception::{self, Frame};
use crate::arch::percpu::PerCpu;
use crate::arch::{apic, backtrace, cpu, irq, percpu, tsc};
use crate::console;
use crate::drivers::exit::{Ending, exit};
use crate::mm::stack;
use crate::per_cpu;
use crate::sched::Task;
use crate::sync::lockdep;
use crate::trace::stream::{WIRE, Wire};
use crate::trace::{drain, events};

static PANICKING: AtomicBool = AtomicBool::new(false);

#[panic_handler]
fn on_panic(info: &PanicInfo<'_>) -> ! {
    die(Ending::Panic, info.location(), None, format_args!("{}", info.message()))
}

/// [`crate::arch::Hooks::fatal_exception`].
pub fn on_exception(frame: &Frame) -> ! {
    let address = exception::fault_address();
    if frame.vector == exception::PAGE_FAULT && !PANICKING.load(Ordering::Relaxed) {
        events::page_fault(address, frame.rip, frame.error_code as u32);
    }
    if frame.vector == exception::PAGE_FAULT || frame.vector == exception::DOUBLE_FAULT {
        let what = if stack::overflow_at(address) { "kernel stack overflow" } else { frame.name() };
        let error = frame.error_code;
        die(
            Ending::Panic,
            None,
            Some(frame),
            format_args!("{what} at address {address:#x}, error code {error:#x}"),
        )
    }
    let (name, error) = (frame.name(), frame.error_code);
    die(Ending::Panic, None, Some(frame), format_args!("{name}, error code {error:#x}"))
}

/// [`crate::arch::Hooks::stop`]: another CPU panics. Leaves what this one did for the other to tell.
pub fn on_stop(frame: &Frame) -> ! {
    let stopped = STOPPED.this();
    stopped.task.store(percpu::current().cast(), Ordering::Relaxed);
    // The frame stays: it is on this CPU's interrupt stack, which is not left any more.
    stopped.frame.store(core::ptr::from_ref(frame).cast_mut(), Ordering::Release);
    cpu::halt_forever()
}

/// Where a CPU was stopped.
struct Stopped {
    task: AtomicPtr<Task>,
    frame: AtomicPtr<Frame>,
}

static STOPPED: PerCpu<Stopped> = per_cpu!(Stopped {
    task: AtomicPtr::new(core::ptr::null_mut()),
    frame: AtomicPtr::new(core::ptr::null_mut()),
});

/// Who is to blame for a stall.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Culprit {
    /// The task that the watchdog's interrupt has interrupted.
    ThisCpu,
    /// Whatever runs on the CPU of this number.
    OtherCpu(u32),
}

/// The watchdog has found a CPU that does not schedule. The story is that CPU's.
pub fn on_stall(culprit: Culprit, message: fmt::Arguments<'_>) -> ! {
    let cpu = match culprit {
        Culprit::ThisCpu => percpu::cpu_id(),
        Culprit::OtherCpu(cpu) => cpu,
    };
    die_for(cpu, Ending::Watchdog, None, None, message)
}

fn die(
    ending: Ending,
    location: Option<&core::panic::Location<'_>>,
    frame: Option<&Frame>,
    message: fmt::Arguments<'_>,
) -> ! {
    die_for(percpu::cpu_id(), ending, location, frame, message)
}

/// [`die`] for the sake of CPU `cpu`, whose story it is.
fn die_for(
    cpu: u32,
    ending: Ending,
    location: Option<&core::panic::Location<'_>>,
    frame: Option<&Frame>,
    message: fmt::Arguments<'_>,
) -> ! {
    irq::disable();
    if PANICKING.swap(true, Ordering::SeqCst) {
        // A second CPU, or a panic in a panic: the first one's story counts. It would be cut short
        // only if this were the same CPU, which then has nothing left to say.
        if STORY_TELLER.load(Ordering::SeqCst) == percpu::cpu_id() {
            exit(ending)
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
    let mut teller = (percpu::current().cast::<Task>().cast_const(), frame);
    if cpu != percpu::cpu_id() {
        let stopped = STOPPED.of(cpu);
        while stopped.frame.load(Ordering::Acquire).is_null()
            && tsc::now() - since < tsc::from_us(PATIENCE_US)
        {
            cpu::pause();
        }
        // SAFETY: null, or on a stack that is not used any more (`on_stop`).
        let its_frame = unsafe { stopped.frame.load(Ordering::Acquire).as_ref() };
        teller = (stopped.task.load(Ordering::Relaxed), its_frame);
    }
    // SAFETY: every other CPU is stopped, and this one does not return.
    unsafe {
        let wire = WIRE.seize();
        console::send_after_stop(wire);
        tell(wire, cpu, teller.0.as_ref(), location, teller.1, message);
        drain::flush_all(wire, ending);
    }
    exit(ending)
}

/// How long a CPU that the story is about may take to stop, in microseconds.
const PATIENCE_US: u64 = 200_000;

static STORY_TELLER: core::sync::atomic::AtomicU32 = core::sync::atomic::AtomicU32::new(u32::MAX);

/// Sends the panic packet. Its keys are in `docs/trace-format.md`.
fn tell(
    wire: &mut Wire,
    cpu: u32,
    task: Option<&Task>,
    location: Option<&core::panic::Location<'_>>,
    frame: Option<&Frame>,
    message: fmt::Arguments<'_>,
) {
    wire.text(Kind::Panic, |out| {
        out.write_str("message=")?;
        OneLine(out).write_fmt(message)?;
        writeln!(out, "\ncpu={cpu}")?;
        if let Some(task) = task {
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
            None if cpu != percpu::cpu_id() => {} // it did not even stop
            None => {
                for address in backtrace::from_here() {
                    writeln!(out, "frame={address:#x}")?;
                }
            }
        }
        // SAFETY: that CPU is stopped, or is this one, which takes no lock while it tells.
        for (name, site) in unsafe { lockdep::held_by(cpu) } {
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
