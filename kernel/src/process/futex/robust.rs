//! What a thread that ends leaves behind for others: robust futexes (get_robust_list(2)), which it may have
//! held, and the word that says that it exists (set_tid_address(2)).
//!
//! All of it is in the program's memory and may be anything: the list is walked for a bounded number of
//! steps, and what cannot be read ends the walk.

use alloc::sync::Arc;
use core::sync::atomic::Ordering;

use linux_raw_sys::general as abi;
use orrery_core::errno::Errno;
use orrery_core::futex::{ANY, Scope};

use super::wake;
use crate::mm::user;
use crate::process::Thread;

/// Most futexes of a thread that are looked at (Linux's `ROBUST_LIST_LIMIT`).
const MAX_FUTEXES: u32 = abi::ROBUST_LIST_LIMIT;
/// Set in an entry's address where the futex has priority inheritance.
const PRIORITY_INHERITANCE: u64 = 1;

/// A thread is about to end, or to begin another program. It is the running one, and still has its
/// address space.
pub fn on_thread_exit(thread: &Thread) {
    let head = thread.robust_list.swap(0, Ordering::Relaxed);
    if head != 0 {
        // What cannot be read ends the walk.
        let _ = walk(thread, head);
    }
    let at = thread.clear_child_tid.swap(0, Ordering::Relaxed);
    // As on Linux: nobody can see the word if nobody else has this memory.
    if at != 0 && thread.space.lock().as_ref().is_some_and(|space| Arc::strong_count(space) > 1) {
        let _ = user::write(at, &0u32);
        let _ = wake(at, Scope::Shared, 1, ANY);
    }
}

/// Where an entry's futex is, and how it is locked.
struct Entry {
    address: u64,
    kind: u64,
}

impl Entry {
    fn of(pointer: u64) -> Self {
        Self { address: pointer & !PRIORITY_INHERITANCE, kind: pointer & PRIORITY_INHERITANCE }
    }
}

/// Walks a `struct robust_list_head`: the first entry, the futexes' distance from their entries, and the
/// entry that is just being put in or taken out.
fn walk(thread: &Thread, head: u64) -> Result<(), Errno> {
    let [first, distance, pending] = user::read::<[u64; 3]>(head)?;
    let pending = Entry::of(pending);
    let mut entry = Entry::of(first);
    for _ in 0..MAX_FUTEXES {
        if entry.address == head {
            break;
        }
        // Read before the futex is given away: then it may be freed.
        let next = user::read::<u64>(entry.address).map(Entry::of);
        if entry.address != pending.address {
            give_up(thread, &entry, distance, Held::Yes)?;
        }
        entry = next?;
    }
    if pending.address != 0 {
        give_up(thread, &pending, distance, Held::Perhaps)?;
    }
    Ok(())
}

/// Whether the thread says that it holds a futex.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Held {
    Yes,
    /// It was about to, or has just stopped to.
    Perhaps,
}

/// Marks a futex that the thread holds as one whose owner has died, and wakes somebody who waits for it.
fn give_up(thread: &Thread, entry: &Entry, distance: u64, held: Held) -> Result<(), Errno> {
    let at = entry.address.wrapping_add(distance);
    if !at.is_multiple_of(4) {
        return Err(Errno::EINVAL);
    }
    let mut word = user::load_u32(at)?;
    loop {
        let plain = entry.kind != PRIORITY_INHERITANCE;
        if held == Held::Perhaps && plain && word & abi::FUTEX_TID_MASK == 0 {
            // It was unlocked, perhaps by its owner's end, and perhaps nobody was woken.
            wake(at, Scope::Shared, 1, ANY)?;
            return Ok(());
        }
        if word & abi::FUTEX_TID_MASK != thread.tid() {
            return Ok(());
        }
        let died = word & abi::FUTEX_WAITERS | abi::FUTEX_OWNER_DIED;
        let seen = user::compare_exchange_u32(at, word, died)?;
        if seen == word {
            if plain && word & abi::FUTEX_WAITERS != 0 {
                wake(at, Scope::Shared, 1, ANY)?;
            }
            return Ok(());
        }
        word = seen;
    }
}
