//! Threads and processes beside the one that measures.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;

use programs::sys;

use crate::suite::{become_fair, pin};

/// A thread that keeps a CPU busy, in the fair class, until it is dropped.
pub struct Hog {
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Hog {
    /// Begins on this CPU: at once on another than the caller's, else when the caller sleeps.
    pub fn on(cpu: usize) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let (is_there, there) = std::sync::mpsc::sync_channel(1);
        let thread = std::thread::spawn({
            let stop = stop.clone();
            move || {
                pin(cpu);
                let _ = is_there.send(());
                become_fair();
                while !stop.load(Ordering::Relaxed) {
                    spin();
                }
            }
        });
        let _ = there.recv();
        Self { stop, thread: Some(thread) }
    }
}

impl Drop for Hog {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        let _ = self.thread.take().map(JoinHandle::join);
    }
}

/// Computes for a while. Pauses at its end: an emulator that runs all CPUs in one thread goes on to the next one
/// there.
fn spin() {
    for turn in 0..1_000 {
        std::hint::black_box(turn);
    }
    std::hint::spin_loop();
}

/// Looks whether a thread of this process sleeps.
pub struct Watch(File);

impl Watch {
    /// Watches the thread of this number.
    ///
    /// # Panics
    /// Where `/proc` does not have it.
    pub fn new(tid: u64) -> Self {
        let path = format!("/proc/self/task/{tid}/stat");
        Self(File::open(&path).unwrap_or_else(|why| panic!("{path}: {why}")))
    }

    /// Waits until the thread sleeps.
    pub fn wait_for_sleep(&self) {
        let mut text = [0; 512];
        loop {
            let len = self.0.read_at(&mut text, 0).unwrap_or(0);
            // The state stands behind the name, which may have anything in it.
            let name_end = text[..len].iter().rposition(|&byte| byte == b')').unwrap_or(0);
            if text.get(name_end + 2) == Some(&b'S') {
                return;
            }
            let _ = sys!(SYS_sched_yield);
        }
    }
}

/// The calling thread's number.
pub fn thread_id() -> u64 {
    sys!(SYS_gettid).unwrap_or(0)
}
