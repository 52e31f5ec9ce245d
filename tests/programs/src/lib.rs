//! What the guest programs share: cases, checks and lines of output.
//!
//! Every program under `src/bin` is an ordinary static Linux program. It prints lines that do not
//! depend on the machine (no process numbers, times or addresses) and ends with status 0 if all of
//! its own checks hold. The tests run the same file on the host's Linux and in the guest and compare
//! what it printed and how it ended; so a program prints what a call returned, and the comparison
//! decides whether that was right.
//!
//! A program is a list of cases. Without arguments it runs them all; arguments choose some by name.
//!
//! Neighbours: [`sys`] makes system calls, [`process`] children, [`signal`] handlers, [`memory`] mappings.

pub mod memory;
pub mod process;
pub mod signal;
pub mod sys;

use std::process::exit;
use std::sync::atomic::{AtomicBool, Ordering};

/// A case's name and what it does.
pub type Case = (&'static str, fn());

static FAILED: AtomicBool = AtomicBool::new(false);

/// Runs the cases that the arguments name, or all, and ends the program: status 0 if every check
/// held, 1 if one failed, 2 if an argument names no case.
pub fn main(cases: &[Case]) -> ! {
    // Programs that crash on purpose leave no core files behind. Where that cannot be had, they do.
    let no_core = libc::rlimit64 { rlim_cur: 0, rlim_max: 0 };
    let _ = sys!(SYS_prlimit64, 0, libc::RLIMIT_CORE, &no_core, 0);
    // Descriptors that whoever started the program left open would shift the numbers of its own.
    let _ = sys!(SYS_close_range, 3, u32::MAX, 0);
    // `std` has handlers and ignores SIGPIPE, and whoever started the program may have ignored more; here signals
    // do what they do by default.
    let default = [0u64; 4];
    for number in 1..=64 {
        // SIGKILL and SIGSTOP refuse.
        let _ = sys!(SYS_rt_sigaction, number, &default, 0, signal::SET_BYTES);
    }
    signal::mask(libc::SIG_SETMASK, 0);
    let chosen: Vec<String> = std::env::args().skip(1).collect();
    if let Some(unknown) = chosen.iter().find(|name| cases.iter().all(|case| case.0 != **name)) {
        let names: Vec<&str> = cases.iter().map(|case| case.0).collect();
        eprintln!("no case `{unknown}`; there are: {}", names.join(" "));
        exit(2);
    }
    for (name, run) in cases {
        if chosen.is_empty() || chosen.iter().any(|chosen| chosen == name) {
            say!("[{name}]");
            run();
        }
    }
    exit(status());
}

/// The status a process of a program ends with: 1 if one of its checks failed.
pub fn status() -> i32 {
    i32::from(FAILED.load(Ordering::Relaxed))
}

/// Notes that a check failed. Called by [`check!`].
pub fn failed() {
    FAILED.store(true, Ordering::Relaxed);
}

/// Writes a line to standard output in one piece. Called by [`say!`].
pub fn line(mut text: String) {
    text.push('\n');
    let mut rest = text.as_bytes();
    while !rest.is_empty() {
        match sys!(SYS_write, 1, rest.as_ptr(), rest.len()) {
            Ok(written) => rest = &rest[written as usize..],
            Err(sys::Errno(libc::EINTR)) => {}
            Err(_) => exit(3),
        }
    }
}

/// Prints a line: unbuffered, so that a fork doubles nothing and lines of several processes never mix.
#[macro_export]
macro_rules! say {
    ($($arg:tt)*) => { $crate::line(format!($($arg)*)) };
}

/// Prints a line and makes the program fail where the condition does not hold.
#[macro_export]
macro_rules! check {
    ($condition:expr, $($arg:tt)*) => {
        if !$condition {
            $crate::failed();
            $crate::say!("CHECK FAILED {}:{}: {}", file!(), line!(), format!($($arg)*));
        }
    };
}
