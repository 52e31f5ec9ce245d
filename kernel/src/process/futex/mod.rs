//! Futexes: threads that sleep until a word of theirs has changed.
//!
//! A waiter lies on its thread's stack, in the queue of the bucket that its key hashes to. User memory is
//! not touched under a bucket's lock, so a waiter is queued first and looks at the word then:
//!
//! ```text
//!   waiter                                        waker
//!   lock; queue the waiter; unlock                change the word
//!   the word has changed? then leave              lock; take waiters out; unlock
//!   sleep until woken
//! ```
//!
//! Either the waiter sees the new word, or the waker finds the waiter. A waiter that is woken although it
//! sees that the word has changed was in the way of that wake, and passes it on.
//!
//! Who waits is taken out of its queue, under the lock, by its waker or by itself. While a requeue has it
//! in neither queue, its bucket is [`IN_TRANSIT`].
//!
//! Neighbours: `orrery_core::futex` has the queues and the decoding; [`robust`] is the end of a thread.

pub mod robust;

use core::ptr::NonNull;
use core::sync::atomic::{AtomicU32, AtomicUsize, Ordering};

use orrery_core::errno::Errno;
use orrery_core::futex::{ANY, Key, Queue, Scope, WordOperation};

pub use robust::on_thread_exit;

use super::current;
use crate::arch::cpu;
use crate::arch::irq::IrqOff;
use crate::arch::user::WINDOW_END;
use crate::mm::space::{FutexKey, Visibility};
use crate::mm::user;
use crate::sched::task::Sleep;
use crate::sched::wait::{self, WaitError};
use crate::sched::{self, Task, wake as sched_wake};
use crate::sync::{PreemptOff, SpinLock};

type Waiter = orrery_core::futex::Waiter<Sleeper>;

/// The kernel's part of a waiter.
struct Sleeper {
    task: NonNull<Task>,
    /// The bits of the wake that has taken it out; 0 before. The last that a waker touches.
    woken_by: AtomicU32,
    /// The bucket that it is in. Changed under that bucket's lock.
    bucket: AtomicUsize,
}

// SAFETY: the task outlives the waiter, which is on its stack; the rest is atomic.
unsafe impl Sync for Sleeper {}

const BUCKET_BITS: u32 = 8;
const BUCKETS_LEN: usize = 1 << BUCKET_BITS;
/// In place of a bucket: between two.
const IN_TRANSIT: usize = BUCKETS_LEN;

#[repr(align(64))]
struct Bucket(SpinLock<Queue<Sleeper>>);

static BUCKETS: [Bucket; BUCKETS_LEN] =
    [const { Bucket(SpinLock::new("futex bucket", Queue::new())) }; BUCKETS_LEN];

/// The key of a word of the running thread's.
///
/// # Errors
/// `EINVAL` if the address is not a multiple of 4; `EFAULT` if it cannot be a program's.
#[inline]
fn key(address: u64, scope: Scope) -> Result<Key, Errno> {
    if !address.is_multiple_of(4) {
        return Err(Errno::EINVAL);
    }
    if address >= WINDOW_END {
        return Err(Errno::EFAULT);
    }
    // SAFETY: the running thread's own address space stays until it is replaced, by itself.
    let space = unsafe { current().space_unlocked() };
    if scope == Scope::Private {
        return Ok(private_key(space.id(), address));
    }
    // Memory that nobody else has is the address space's own, whatever the program says.
    Ok(match space.futex_key(address, Visibility::Shared)? {
        FutexKey::Private { space, address } => private_key(space, address),
        FutexKey::Shared { object, offset } => Key { object: object << 1 | 1, offset },
    })
}

/// Numbers of address spaces and of shared objects are told apart by their lowest bit.
#[inline]
fn private_key(space: u64, address: u64) -> Key {
    Key { object: space << 1, offset: address }
}

/// What a thread waits for.
#[derive(Clone, Copy, Debug)]
pub struct Wait {
    /// Where the word is.
    pub address: u64,
    /// What it must be.
    pub expected: u32,
    /// Whose it is.
    pub scope: Scope,
    /// Which wakes end the wait.
    pub bitset: u32,
    /// When to give up.
    pub deadline_ticks: Option<u64>,
}

/// Why a wait has ended without a wake.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NotWoken {
    /// The word is not what it must be.
    Changed,
    /// The deadline has come.
    TimedOut,
    /// The thread has a signal.
    Interrupted,
    /// The word cannot be waited for.
    Refused(Errno),
}

/// Sleeps until the word's waiters are woken.
///
/// # Errors
/// [`NotWoken`].
#[inline(always)]
pub fn wait(request: &Wait) -> Result<(), NotWoken> {
    let key = key(request.address, request.scope).map_err(NotWoken::Refused)?;
    let task = sched::current();
    let bucket = key.bucket(BUCKET_BITS);
    let waiter = Waiter::new(
        key,
        request.bitset,
        task.wake_priority(),
        Sleeper {
            task: NonNull::from(task),
            woken_by: AtomicU32::new(0),
            bucket: AtomicUsize::new(bucket),
        },
    );
    // SAFETY: it is new, and stays here until it is out of every queue: see below.
    unsafe { BUCKETS[bucket].0.lock().insert(NonNull::from(&waiter)) };
    let word = user::load_u32(request.address);
    let outcome = match word {
        Ok(word) if word == request.expected => {
            let is_woken = || waiter.payload.woken_by.load(Ordering::SeqCst) != 0;
            match wait::sleep_until_woken(Sleep::Interruptible, request.deadline_ticks, is_woken) {
                // The waker has taken it out of its queue, and will not touch it any more.
                Ok(()) => return Ok(()),
                Err(WaitError::TimedOut) => NotWoken::TimedOut,
                Err(WaitError::Interrupted) => NotWoken::Interrupted,
            }
        }
        Ok(_) => NotWoken::Changed,
        Err(why) => NotWoken::Refused(why),
    };
    match leave(&waiter) {
        Left::Queue => Err(outcome),
        Left::Woken { by } => match outcome {
            NotWoken::TimedOut | NotWoken::Interrupted => Ok(()),
            NotWoken::Changed | NotWoken::Refused(_) => {
                wake_key(waiter.key(), 1, by);
                Err(outcome)
            }
        },
    }
}

/// How a waiter has got out of its queue.
enum Left {
    /// By itself.
    Queue,
    /// By a wake of these bits.
    Woken { by: u32 },
}

/// Takes the running thread's waiter out of whatever queue it is in.
#[cold]
fn leave(waiter: &Waiter) -> Left {
    loop {
        let bucket = waiter.payload.bucket.load(Ordering::Acquire);
        if let Some(Bucket(queue)) = BUCKETS.get(bucket) {
            let mut queue = queue.lock();
            if waiter.payload.bucket.load(Ordering::Relaxed) == bucket {
                if !waiter.is_queued() {
                    return Left::Woken { by: waiter.payload.woken_by.load(Ordering::Relaxed) };
                }
                // SAFETY: it is in the queue of its bucket, whose lock is held.
                unsafe { queue.remove(NonNull::from(waiter)) };
                return Left::Queue;
            }
        }
        // Whoever moves it does so with preemption off.
        cpu::pause();
    }
}

/// Wakes up to `limit` that wait for the word with one of these bits. Returns how many there were.
///
/// # Errors
/// As [`key`].
#[inline(always)]
pub fn wake(address: u64, scope: Scope, limit: u32, bitset: u32) -> Result<u32, Errno> {
    Ok(wake_here(key(address, scope)?, limit, bitset))
}

#[cold]
#[inline(never)]
fn wake_key(key: Key, limit: u32, bitset: u32) -> u32 {
    wake_here(key, limit, bitset)
}

#[inline(always)]
fn wake_here(key: Key, limit: u32, bitset: u32) -> u32 {
    let mut queue = BUCKETS[key.bucket(BUCKET_BITS)].0.lock();
    // SAFETY: taken out under the lock, which is held until all are woken.
    queue.take_matching(key, bitset, limit, |waiter| unsafe { rouse(waiter, bitset) })
}

/// Wakes a waiter that was taken out of its queue.
///
/// # Safety
/// Its bucket's lock is held, and preemption is off from there on.
#[inline]
unsafe fn rouse(waiter: NonNull<Waiter>, bitset: u32) {
    // SAFETY: it leaves its thread's stack only when it sees that it was woken, or under this lock.
    let payload = unsafe { &waiter.as_ref().payload };
    let task = payload.task;
    payload.woken_by.store(bitset, Ordering::SeqCst);
    // SAFETY: its thread may go on from here and end, but a task is freed only after this CPU has gone
    // through the scheduler (`sched::epoch`), and preemption is off.
    sched_wake::wake_with(unsafe { task.as_ref() }, &IrqOff::new());
}

/// What [`requeue`] does.
#[derive(Clone, Copy, Debug)]
pub struct Requeue {
    /// Whose waiters.
    pub from: u64,
    /// Which word they are to wait for.
    pub to: u64,
    /// Whose words both are.
    pub scope: Scope,
    /// How many are woken.
    pub wake_limit: u32,
    /// How many more wait for the other word from now on.
    pub move_limit: u32,
    /// What the first word must be.
    pub expected: Option<u32>,
}

/// Wakes some who wait for a word and lets others wait for another one. Returns how many were woken or
/// moved.
///
/// # Errors
/// As [`key`]; `EAGAIN` if the first word is not what it must be; `EFAULT` if a shared word cannot be read.
pub fn requeue(request: &Requeue) -> Result<u32, Errno> {
    let from = key(request.from, request.scope)?;
    let to = key(request.to, request.scope)?;
    if request.scope == Scope::Shared {
        // Whose words they are, Linux learns from their pages.
        user::load_u32(request.from)?;
        user::load_u32(request.to)?;
    }
    // It may change right afterwards, as it may right after a check under a lock, which a program that
    // changes it does not know.
    if let Some(expected) = request.expected
        && user::load_u32(request.from)? != expected
    {
        return Err(Errno::EAGAIN);
    }
    // Nobody waits long for a waiter in transit.
    let _on_this_cpu = PreemptOff::new();
    let mut moving = Queue::new();
    let mut count;
    {
        let mut queue = BUCKETS[from.bucket(BUCKET_BITS)].0.lock();
        count = queue.take_matching(from, ANY, request.wake_limit, |waiter| {
            // SAFETY: taken out under the lock, which is held.
            unsafe { rouse(waiter, ANY) };
        });
        count += queue.take_matching(from, ANY, request.move_limit, |waiter| {
            // SAFETY: it does not leave its thread's stack while it is in transit; it was just taken out.
            unsafe {
                waiter.as_ref().payload.bucket.store(IN_TRANSIT, Ordering::Relaxed);
                waiter.as_ref().set_key(to);
                moving.insert(waiter);
            }
        });
    }
    if !moving.is_empty() {
        let bucket = to.bucket(BUCKET_BITS);
        let mut queue = BUCKETS[bucket].0.lock();
        while let Some(waiter) = moving.pop() {
            // SAFETY: as above; from the store on it may leave, under this lock.
            unsafe {
                queue.insert(waiter);
                waiter.as_ref().payload.bucket.store(bucket, Ordering::Release);
            }
        }
    }
    Ok(count)
}

/// `FUTEX_WAKE_OP`: changes the second word, wakes those who wait for the first, and those who wait for the
/// second if its old value was right. Returns how many were woken.
///
/// # Errors
/// As [`key`]; `EFAULT` if the second word cannot be changed; `ENOSYS`, once it is changed, if there is
/// no such comparison.
pub fn wake_after(
    operation: WordOperation,
    scope: Scope,
    (first, first_limit): (u64, u32),
    (second, second_limit): (u64, u32),
) -> Result<u32, Errno> {
    let (first, second_key) = (key(first, scope)?, key(second, scope)?);
    let mut old = user::load_u32(second)?;
    loop {
        let seen = user::compare_exchange_u32(second, old, operation.apply(old))?;
        if seen == old {
            break;
        }
        old = seen;
    }
    let holds = operation.holds(old)?;
    let mut count = wake_key(first, first_limit, ANY);
    if holds {
        count += wake_key(second_key, second_limit, ANY);
    }
    Ok(count)
}
