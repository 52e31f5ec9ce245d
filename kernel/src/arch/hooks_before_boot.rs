//! What is called before the floors above have installed their hooks: an exception then ends the
//! machine, with the facts as text on COM1.

use core::fmt::Write;

use super::exception::{self, Frame};
use super::{Hooks, backtrace};
use crate::drivers::exit::{Ending, exit};
use crate::drivers::serial::Com1;
use crate::mm::stack;

pub(super) static HOOKS: Hooks = Hooks {
    interrupt: |_, _| {},
    preempt: || {},
    lock_contended: |_, _, _| {},
    long_section: |_, _, _| {},
    fatal_exception: report,
    page_fault: |_, _| false,
    user_page_fault: |frame, _| report(frame),
    user_exception: |frame| report(frame),
    return_to_user: |_| {},
    stop: |_| super::cpu::halt_forever(),
};

struct Text(Com1);

impl Write for Text {
    fn write_str(&mut self, text: &str) -> core::fmt::Result {
        self.0.write(text.as_bytes());
        Ok(())
    }
}

fn report(frame: &Frame) -> ! {
    let mut text = Text(Com1::init());
    let address = exception::fault_address();
    // Writing to COM1 does not fail.
    let _ = write!(text, "orrery: {} while booting", frame.name());
    let _ = write!(text, ", error code {:#x}, CR2 {address:#x}", frame.error_code);
    if stack::overflow_at(address) {
        let _ = write!(text, " (kernel stack overflow)");
    }
    for (name, value) in frame.registers() {
        let _ = write!(text, "\r\n{name:6} {value:016x}");
    }
    for address in backtrace::from_frame(frame) {
        let _ = write!(text, "\r\n  at {address:#x}");
    }
    let _ = write!(text, "\r\n");
    exit(Ending::Panic)
}
