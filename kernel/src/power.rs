//! The orderly end: nothing runs, nothing is lost, the host gets a status.

use crate::arch::irq;
use crate::drivers::exit::{Ending, exit};
use crate::sched::call;
use crate::task::JoinHandle;
use crate::trace::drain;
use crate::trace::stream::WIRE;
use crate::{console, task};

/// Ends the machine: stops the drain, then the other CPUs, sends what is left.
pub fn off(drain: JoinHandle, ending: Ending) -> ! {
    // A flight recorder has overwritten what it was told at the start.
    task::trace_all();
    drain.stop();
    call::stop_others();
    irq::disable();
    // SAFETY: the other CPUs are stopped, and this one never returns; the drain, which had the
    // wire, has ended.
    unsafe {
        let wire = WIRE.seize();
        console::send_all(wire);
        drain::flush_all(wire, ending);
    }
    exit(ending)
}
