//! Child processes: made by `fork`, reaped by number, their ends told in words.

use std::fmt;

use crate::sys::Errno;
use crate::{check, signal, sys};

/// How a child changed its state, a wait status of wait(2).
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Status(pub i32);

impl Status {
    /// Whether it ended with this exit status.
    pub fn exited_with(self, status: i32) -> bool {
        libc::WIFEXITED(self.0) && libc::WEXITSTATUS(self.0) == status
    }
}

impl fmt::Display for Status {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let status = self.0;
        if libc::WIFEXITED(status) {
            write!(f, "exit {}", libc::WEXITSTATUS(status))
        } else if libc::WIFSIGNALED(status) {
            write!(f, "killed by {}", signal::name(libc::WTERMSIG(status)))
        } else if libc::WIFSTOPPED(status) {
            write!(f, "stopped by {}", signal::name(libc::WSTOPSIG(status)))
        } else if libc::WIFCONTINUED(status) {
            f.write_str("continued")
        } else {
            write!(f, "status {status:#x}")
        }
    }
}

/// Ends this process at once.
pub fn exit_now(status: i32) -> ! {
    loop {
        let _ = sys!(SYS_exit_group, status);
    }
}

/// A process that runs `body` and ends with the status it returns. Gives its number.
///
/// # Errors
/// Those of fork(2).
pub fn try_spawn(body: impl FnOnce() -> i32) -> Result<i32, Errno> {
    // The C library's, because it corrects what it remembers of the thread: `abort` needs that.
    // SAFETY: the child has only this thread and calls nothing that waits for another.
    match unsafe { libc::fork() } {
        0 => {
            let status = body();
            exit_now(if status == 0 { crate::status() } else { status });
        }
        -1 => Err(Errno::last()),
        pid => Ok(pid),
    }
}

/// A process that runs `body` and ends with the status it returns, or 1 if that is 0 and one of its checks
/// failed. Gives its number.
///
/// # Panics
/// Where there can be none.
pub fn spawn(body: impl FnOnce() -> i32) -> i32 {
    try_spawn(body).expect("fork")
}

/// Waits for this child (or as wait4(2) says for numbers below 1) with these options: its number and status.
///
/// # Errors
/// Those of wait4(2).
pub fn try_wait(pid: i32, options: i32) -> Result<(i32, Status), Errno> {
    let mut status = 0;
    loop {
        match sys!(SYS_wait4, pid, &mut status, options, 0) {
            Err(Errno(libc::EINTR)) => {}
            result => return result.map(|pid| (pid as i32, Status(status))),
        }
    }
}

/// Waits for the end of this child.
///
/// # Panics
/// Where it is not one.
pub fn wait(pid: i32) -> Status {
    try_wait(pid, 0).expect("wait4").1
}

/// How a child that runs `body` ends.
pub fn ending(body: impl FnOnce() -> i32) -> Status {
    wait(spawn(body))
}

/// This process's number.
pub fn id() -> i32 {
    std::process::id() as i32
}

/// Waits, a few milliseconds at a time, until the condition holds.
pub fn wait_until(mut condition: impl FnMut() -> bool) {
    while !condition() {
        pause_ms(2);
    }
}

/// Sleeps for this long, whatever signals come.
pub fn pause_ms(milliseconds: i64) {
    let mut left =
        libc::timespec { tv_sec: milliseconds / 1000, tv_nsec: milliseconds % 1000 * 1_000_000 };
    let rest = &raw mut left;
    while sys!(SYS_nanosleep, rest, rest) == Err(Errno(libc::EINTR)) {}
}

/// A pipe, to read from and to write to.
///
/// # Panics
/// Where there can be none.
pub fn pipe(flags: i32) -> (i32, i32) {
    let mut ends = [0i32; 2];
    sys!(SYS_pipe2, &mut ends, flags).expect("pipe2");
    (ends[0], ends[1])
}

/// Closes a descriptor.
///
/// # Panics
/// Where it is not open.
pub fn close(fd: i32) {
    sys!(SYS_close, fd).expect("close");
}

/// Reads once, into a buffer of this many bytes.
///
/// # Errors
/// Those of read(2).
pub fn read(fd: i32, len: usize) -> Result<Vec<u8>, Errno> {
    let mut bytes = vec![0; len];
    let got = sys!(SYS_read, fd, bytes.as_mut_ptr(), len)?;
    bytes.truncate(got as usize);
    Ok(bytes)
}

/// Writes once.
///
/// # Errors
/// Those of write(2).
pub fn write(fd: i32, bytes: &[u8]) -> sys::Result {
    sys!(SYS_write, fd, bytes.as_ptr(), bytes.len())
}

/// Processes and threads that wait for each other: a pipe through which bytes are handed.
#[derive(Debug)]
pub struct Baton {
    ends: (i32, i32),
}

impl Default for Baton {
    fn default() -> Self {
        Self::new()
    }
}

impl Baton {
    /// One that nobody has handed on yet.
    pub fn new() -> Self {
        Self { ends: pipe(0) }
    }

    /// Lets one waiter go on.
    pub fn pass(&self) {
        check!(write(self.ends.1, b"x") == Ok(1), "the baton cannot be passed");
    }

    /// Waits until it is passed.
    pub fn await_pass(&self) {
        while read(self.ends.0, 1).err() == Some(Errno(libc::EINTR)) {}
    }
}

impl Drop for Baton {
    fn drop(&mut self) {
        close(self.ends.0);
        close(self.ends.1);
    }
}
