//! Futexes.

use super::thread::Thread;
use core::sync::atomic::Ordering;

/// What a thread that ends does for those who wait for it.
pub fn on_thread_exit(thread: &Thread) {
    let at = thread.clear_child_tid.swap(0, Ordering::Relaxed);
    if at != 0 {
        let _ = crate::mm::user::write(at, &0u32);
    }
}
