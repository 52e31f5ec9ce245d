//! The console, as programs see it: what they write goes to the host as one of two streams.
//!
//! A program's standard streams are what the host's are connected with, which is usually no terminal; so
//! they are files that refuse a terminal's requests. Opened by name (`/dev/console`, `/dev/tty`) it is a
//! terminal, whose settings are constant: the host's terminal edits lines.

use linux_raw_sys::general::{
    ICANON, ISIG, NCCS, ONLCR, OPOST, POLLIN, POLLOUT, POLLRDNORM, POLLWRNORM, termios,
};
use linux_raw_sys::ioctl::{TCGETS, TCSETS, TCSETSF, TCSETSW, TIOCGWINSZ, TIOCSWINSZ};
use orrery_core::errno::{Errno, SysResult};

use super::file::{File, Transfer};
use super::io::{IoFrom, IoTo};
use crate::console::{self, Blocking, Stream};
use crate::mm::user;
use crate::sched::mutex::Mutex;
use crate::sched::wait::WaitQueue;

/// Keeps the bytes of one write together.
static OUTPUT: Mutex<()> = Mutex::new(());

/// Whether it answers a terminal's requests.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tty {
    /// As `/dev/console` does.
    Yes,
    /// As a pipe does.
    No,
}

/// The console, opened.
pub struct Terminal {
    stream: Stream,
    tty: Tty,
}

impl Terminal {
    /// The console; what is written goes to `stream`.
    pub fn new(stream: Stream, tty: Tty) -> Self {
        Self { stream, tty }
    }
}

impl File for Terminal {
    fn read(&self, to: &mut IoTo<'_>, transfer: &mut Transfer) -> Result<(), Errno> {
        let mut blocking = if transfer.is_nonblocking() { Blocking::Never } else { Blocking::Wait };
        let mut chunk = [0; 512];
        while to.left() > 0 {
            let wanted = to.left().min(chunk.len());
            let count = match console::input().read(&mut chunk[..wanted], blocking) {
                // Only the first bytes are waited for.
                Err(_) if to.done() > 0 => break,
                Err(Errno::EINTR) => return Err(Errno::RESTART_SYS),
                result => result?,
            };
            if count == 0 {
                break;
            }
            to.put(&chunk[..count])?;
            blocking = Blocking::Never;
        }
        Ok(())
    }

    fn readiness(&self) -> u32 {
        let input = if console::input().is_readable() { POLLIN | POLLRDNORM } else { 0 };
        input | POLLOUT | POLLWRNORM
    }

    fn queues(&self) -> [Option<&WaitQueue>; 2] {
        [Some(console::input().wait_queue()), None]
    }

    fn readable_bytes(&self) -> Result<u64, Errno> {
        Ok(console::input().available() as u64)
    }

    fn write(&self, from: &mut IoFrom<'_>, _transfer: &mut Transfer) -> Result<(), Errno> {
        let _one_at_a_time = OUTPUT.lock();
        let mut chunk = [0; 512];
        while from.left() > 0 {
            let before = from.done();
            let result = from.take(&mut chunk);
            console::program_output(self.stream, &chunk[..from.done() - before]);
            result?;
        }
        Ok(())
    }

    fn control(&self, request: u32, argument: u64) -> SysResult {
        if self.tty == Tty::No {
            return Err(Errno::ENOTTY);
        }
        match request {
            TCGETS => user::write_bytes(argument, settings_bytes(&settings()))?,
            TIOCGWINSZ => {
                // `struct winsize`: rows, columns, and pixels of either, which nobody knows.
                user::write::<[u16; 4]>(argument, &[24, 80, 0, 0])?;
            }
            TCSETS | TCSETSW | TCSETSF | TIOCSWINSZ => {}
            _ => return Err(Errno::ENOTTY),
        }
        Ok(0)
    }
}

/// Lines are edited, signals are made of keys, `\n` starts a new line.
fn settings() -> termios {
    termios {
        c_iflag: 0,
        c_oflag: OPOST | ONLCR,
        c_cflag: 0o277,
        c_lflag: ISIG | ICANON,
        c_line: 0,
        c_cc: [0; NCCS as usize],
    }
}

/// The structure as it lies in memory: it has no padding.
fn settings_bytes(settings: &termios) -> &[u8] {
    const { assert!(size_of::<termios>() == 4 * 4 + 1 + NCCS as usize) };
    // SAFETY: a C structure of integers without padding (see above).
    unsafe {
        core::slice::from_raw_parts(core::ptr::from_ref(settings).cast(), size_of::<termios>())
    }
}
