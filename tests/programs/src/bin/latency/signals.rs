//! Signals that are handled: by whoever sends them, and by a thread that sleeps.

use std::sync::atomic::{AtomicU64, Ordering};

use programs::{check, process, signal};

use crate::raw::{call, ticks};
use crate::suite::Suite;
use crate::wake::Sleeper;

const SIGNAL: i32 = libc::SIGUSR1;

/// When the handler last began.
static HANDLED: AtomicU64 = AtomicU64::new(0);

extern "C" fn nothing(_signal: i32) {}

extern "C" fn note_time(_signal: i32) {
    HANDLED.store(ticks(), Ordering::Relaxed);
}

pub fn measure(suite: &Suite) {
    let handle = |handler: extern "C" fn(i32)| {
        let handled = signal::action(SIGNAL, handler as *const () as usize, 0, &[]);
        check!(handled.is_ok(), "sigaction: {handled:?}");
    };
    let me = process::id() as u64;
    handle(nothing);
    suite.measure("signal/self", 1, || {
        call(libc::SYS_kill, [me, SIGNAL as u64]);
    });
    let name = "signal/other-thread";
    if suite.wants(name) {
        handle(note_time);
        let sleep = || {
            call(libc::SYS_pause, []);
            HANDLED.load(Ordering::Relaxed)
        };
        Sleeper { suite, name, cpu: suite.here }.measure(
            sleep,
            || (),
            |thread| {
                call(libc::SYS_tgkill, [me, thread, SIGNAL as u64]);
            },
        );
    }
}
