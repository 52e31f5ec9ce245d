//! futex(2): all operations, private and shared, their errors, and robust lists.

use std::sync::atomic::{AtomicU32, AtomicUsize, Ordering};
use std::thread;

use programs::process::{Baton, ending, pause_ms, spawn, wait, wait_until};
use programs::sys::value;
use programs::{check, memory, say, sys};

fn main() {
    programs::main(&[
        ("values", values),
        ("wake", wake),
        ("bitset", bitset),
        ("requeue", requeue),
        ("wake-op", wake_op),
        ("timeout", timeout),
        ("shared", shared),
        ("private-copies", private_copies),
        ("two-addresses", two_addresses),
        ("ping-pong", ping_pong),
        ("lock", lock),
        ("errors", errors),
        ("robust", robust),
        ("storm", storm),
    ]);
}

const PRIVATE: i32 = libc::FUTEX_PRIVATE_FLAG;
const ALL: u32 = u32::MAX;

/// futex(2) with every argument.
fn futex(
    word: &AtomicU32,
    op: i32,
    value: u32,
    timeout: u64,
    other: *const AtomicU32,
    last: u32,
) -> sys::Result {
    sys!(SYS_futex, word.as_ptr(), op, value, timeout, other, last)
}

fn simple(word: &AtomicU32, op: i32, value: u32) -> sys::Result {
    futex(word, op, value, 0, std::ptr::null(), ALL)
}

/// Runs waiters while `body` runs; `sleeping` of them are asleep before it begins.
fn with_waiters(
    word: &AtomicU32,
    count: usize,
    wait_op: impl Fn(usize) -> sys::Result + Sync,
    body: impl FnOnce(&AtomicUsize),
) -> Vec<String> {
    let (about_to, done) = (AtomicUsize::new(0), AtomicUsize::new(0));
    thread::scope(|scope| {
        let threads: Vec<_> = (0..count)
            .map(|number| {
                let (about_to, done, wait_op) = (&about_to, &done, &wait_op);
                let thread = scope.spawn(move || {
                    about_to.fetch_add(1, Ordering::SeqCst);
                    let result = wait_op(number);
                    done.fetch_add(1, Ordering::SeqCst);
                    value(result)
                });
                // One after the other, so that they queue in order.
                wait_until(|| about_to.load(Ordering::SeqCst) > number);
                pause_ms(5);
                thread
            })
            .collect();
        // The queue is as long as expected: a requeue onto itself counts them and wakes none.
        wait_until(|| {
            let waiters = futex(word, libc::FUTEX_REQUEUE | PRIVATE, 0, 1_000, word, 0);
            waiters.is_err() || waiters == Ok(count as u64) || done.load(Ordering::SeqCst) == count
        });
        body(&done);
        threads.into_iter().map(|thread| thread.join().unwrap()).collect()
    })
}

fn values() {
    let word = AtomicU32::new(5);
    say!("another value: {}", value(simple(&word, libc::FUTEX_WAIT | PRIVATE, 4)));
    say!("nobody to wake: {}", value(simple(&word, libc::FUTEX_WAKE | PRIVATE, 1)));
    say!("shared: {}", value(simple(&word, libc::FUTEX_WAIT, 4)));
}

fn wake() {
    let word = AtomicU32::new(0);
    let results = with_waiters(
        &word,
        6,
        |_| simple(&word, libc::FUTEX_WAIT | PRIVATE, 0),
        |done| {
            say!("one: {}", value(simple(&word, libc::FUTEX_WAKE | PRIVATE, 1)));
            wait_until(|| done.load(Ordering::SeqCst) == 1);
            say!("two: {}", value(simple(&word, libc::FUTEX_WAKE | PRIVATE, 2)));
            wait_until(|| done.load(Ordering::SeqCst) == 3);
            say!("all: {}", value(simple(&word, libc::FUTEX_WAKE | PRIVATE, i32::MAX as u32)));
        },
    );
    say!("{results:?}");
}

fn bitset() {
    let word = AtomicU32::new(0);
    let op = libc::FUTEX_WAIT_BITSET | PRIVATE;
    let wait_op = |number: usize| futex(&word, op, 0, 0, std::ptr::null(), 1 << (number % 3));
    let wake = |bits: u32| {
        value(futex(&word, libc::FUTEX_WAKE_BITSET | PRIVATE, 100, 0, std::ptr::null(), bits))
    };
    let results = with_waiters(&word, 6, wait_op, |_| {
        say!("none: {}", wake(8));
        say!("one bit: {}", wake(2));
        say!("two bits: {}", wake(5));
        say!("no bits: {}", wake(0));
    });
    say!("{results:?}");
    say!("wait for nothing: {}", value(futex(&word, op, 0, 0, std::ptr::null(), 0)));
}

fn requeue() {
    let (first, second) = (AtomicU32::new(7), AtomicU32::new(0));
    let requeue = |wake: u32, move_most: u64, expected: u32| {
        value(futex(&first, libc::FUTEX_CMP_REQUEUE | PRIVATE, wake, move_most, &second, expected))
    };
    let results = with_waiters(
        &first,
        6,
        |_| simple(&first, libc::FUTEX_WAIT | PRIVATE, 7),
        |done| {
            say!("another value: {}", requeue(1, 10, 8));
            say!("one woken, two moved: {}", requeue(1, 2, 7));
            wait_until(|| done.load(Ordering::SeqCst) == 1);
            say!("at the second: {}", value(simple(&second, libc::FUTEX_WAKE | PRIVATE, 1)));
            wait_until(|| done.load(Ordering::SeqCst) == 2);
            let rest = futex(&first, libc::FUTEX_REQUEUE | PRIVATE, 0, 100, &second, 0);
            say!("the rest moved: {}", value(rest));
            say!("at the first: {}", value(simple(&first, libc::FUTEX_WAKE | PRIVATE, 9)));
            say!("at the second: {}", value(simple(&second, libc::FUTEX_WAKE | PRIVATE, 9)));
        },
    );
    say!("{results:?}");
    say!("negative: {}", requeue(u32::MAX, 1, 7));
}

/// Operation, argument, comparison, its argument.
const fn encode(op: u32, argument: u32, comparison: u32, compared: u32) -> u32 {
    op << 28 | comparison << 24 | (argument & 0xfff) << 12 | (compared & 0xfff)
}

fn wake_op() {
    let (first, second) = (AtomicU32::new(0), AtomicU32::new(0));
    let operate = |code: u32| {
        let result = futex(&first, libc::FUTEX_WAKE_OP | PRIVATE, 1, 1, &second, code);
        format!("{} leaves {}", value(result), second.load(Ordering::SeqCst))
    };
    for (name, code) in [
        ("set 5", encode(0, 5, 0, 0)),
        ("add 3", encode(1, 3, 1, 0)),
        ("or 0x10", encode(2, 0x10, 2, 0)),
        ("andn 0x8", encode(3, 8, 3, 0)),
        ("xor 0xff", encode(4, 0xff, 4, 0)),
        ("or 1 << 20", encode(2 | 8, 20, 5, 0)),
        ("add -1", encode(1, 0xfff, 0, 0)),
        ("bad operation", encode(7, 1, 0, 0)),
        ("bad comparison", encode(0, 1, 9, 0)),
    ] {
        say!("{name}: {}", operate(code));
    }
    second.store(0, Ordering::SeqCst);
    let results = with_waiters(
        &first,
        1,
        |_| simple(&first, libc::FUTEX_WAIT | PRIVATE, 0),
        |_| {
            let results = with_waiters(
                &second,
                1,
                |_| simple(&second, libc::FUTEX_WAIT | PRIVATE, 0),
                |_| {
                    // Wakes one here, and one there because the old value was 0.
                    say!("both woken: {}", operate(encode(0, 1, 0, 0)));
                },
            );
            say!("{results:?}");
        },
    );
    say!("{results:?}");
}

fn timeout() {
    let word = AtomicU32::new(0);
    let soon = libc::timespec { tv_sec: 0, tv_nsec: 3_000_000 };
    let timed = |op: i32, time: &libc::timespec| {
        value(futex(&word, op | PRIVATE, 0, std::ptr::from_ref(time) as u64, std::ptr::null(), ALL))
    };
    say!("relative: {}", timed(libc::FUTEX_WAIT, &soon));
    // FUTEX_WAIT_BITSET takes a moment: long ago.
    say!("absolute: {}", timed(libc::FUTEX_WAIT_BITSET, &soon));
    say!(
        "of the real time: {}",
        timed(libc::FUTEX_WAIT_BITSET | libc::FUTEX_CLOCK_REALTIME, &soon)
    );
    say!("nothing: {}", timed(libc::FUTEX_WAIT, &libc::timespec { tv_sec: 0, tv_nsec: 0 }));
    say!(
        "too many ns: {}",
        timed(libc::FUTEX_WAIT, &libc::timespec { tv_sec: 0, tv_nsec: 1_000_000_000 })
    );
    say!("negative: {}", timed(libc::FUTEX_WAIT, &libc::timespec { tv_sec: -1, tv_nsec: 0 }));
    // Woken before the time is up.
    let long = libc::timespec { tv_sec: 1_000, tv_nsec: 0 };
    let results = with_waiters(
        &word,
        2,
        |_| {
            futex(
                &word,
                libc::FUTEX_WAIT | PRIVATE,
                0,
                &raw const long as u64,
                std::ptr::null(),
                ALL,
            )
        },
        |_| say!("{}", value(simple(&word, libc::FUTEX_WAKE | PRIVATE, 2))),
    );
    say!("{results:?}");
}

fn word_in(page: *mut u8) -> &'static AtomicU32 {
    // SAFETY: the page is mapped as long as the case runs, and used as this word only.
    unsafe { AtomicU32::from_ptr(page.cast()) }
}

/// Between processes, in memory that they share.
fn shared() {
    let page = memory::shared_pages(1);
    let word = word_in(page);
    let children: Vec<i32> = (0..3)
        .map(|_| {
            spawn(|| {
                while word.load(Ordering::SeqCst) == 0 {
                    let _ = simple(word, libc::FUTEX_WAIT, 0);
                }
                8
            })
        })
        .collect();
    pause_ms(10);
    word.store(1, Ordering::SeqCst);
    let woken = simple(word, libc::FUTEX_WAKE, 10).unwrap();
    check!(woken <= 3, "{woken} woken");
    for child in children {
        say!("{}", wait(child));
    }
    memory::unmap(page, memory::PAGE);
}

/// In private memory the copies after a fork are two words.
fn private_copies() {
    let page = memory::pages(1);
    let word = word_in(page);
    word.store(0, Ordering::SeqCst);
    let (asleep, done) = (Baton::new(), Baton::new());
    let child = spawn(|| {
        asleep.pass();
        let long = libc::timespec { tv_sec: 0, tv_nsec: 60_000_000 };
        let result =
            futex(word, libc::FUTEX_WAIT, 0, &raw const long as u64, std::ptr::null(), ALL);
        say!("the child's wait: {}", value(result));
        done.pass();
        0
    });
    asleep.await_pass();
    pause_ms(10);
    say!("woken by the parent: {}", value(simple(word, libc::FUTEX_WAKE, 10)));
    done.await_pass();
    say!("{}", wait(child));
    memory::unmap(page, memory::PAGE);
}

/// The same shared memory at two addresses is one word.
fn two_addresses() {
    let page = memory::shared_pages(1);
    let word = word_in(page);
    let child = spawn(|| {
        // Moved elsewhere in the child; the object behind it is the same.
        let moved = sys!(
            SYS_mremap,
            page,
            memory::PAGE,
            memory::PAGE,
            libc::MREMAP_MAYMOVE | libc::MREMAP_FIXED,
            memory::pages(1)
        );
        let word = word_in(moved.unwrap() as *mut u8);
        pause_ms(5);
        word.store(1, Ordering::SeqCst);
        let _ = simple(word, libc::FUTEX_WAKE, 1);
        0
    });
    while word.load(Ordering::SeqCst) == 0 {
        let _ = simple(word, libc::FUTEX_WAIT, 0);
    }
    say!("{} {}", word.load(Ordering::SeqCst), wait(child));
    memory::unmap(page, memory::PAGE);
}

fn ping_pong() {
    const ROUNDS: u32 = 2_000;
    let word = AtomicU32::new(0);
    let play = |mine: u32| {
        loop {
            let now = word.load(Ordering::SeqCst);
            if now >= ROUNDS {
                break;
            }
            if now % 2 == mine {
                word.store(now + 1, Ordering::SeqCst);
                let _ = simple(&word, libc::FUTEX_WAKE | PRIVATE, 1);
            } else {
                let _ = simple(&word, libc::FUTEX_WAIT | PRIVATE, now);
            }
        }
    };
    thread::scope(|scope| {
        scope.spawn(|| play(0));
        play(1);
    });
    say!("{}", word.load(Ordering::SeqCst));
}

/// A lock of three states among processes: a lost wake would hang it.
fn lock() {
    let page = memory::shared_pages(1);
    let (word, counter) = (word_in(page), word_in(page.wrapping_add(64)));
    let children: Vec<i32> = (0..4)
        .map(|_| {
            spawn(|| {
                for _ in 0..2_000 {
                    let mut state = word
                        .compare_exchange(0, 1, Ordering::SeqCst, Ordering::SeqCst)
                        .unwrap_or_else(|s| s);
                    if state != 0 {
                        if state == 1 {
                            state = word.swap(2, Ordering::SeqCst);
                        }
                        while state != 0 {
                            let _ = simple(word, libc::FUTEX_WAIT, 2);
                            state = word.swap(2, Ordering::SeqCst);
                        }
                    }
                    let value = counter.load(Ordering::Relaxed);
                    std::hint::spin_loop();
                    counter.store(value + 1, Ordering::Relaxed);
                    if word.swap(0, Ordering::SeqCst) == 2 {
                        let _ = simple(word, libc::FUTEX_WAKE, 1);
                    }
                }
                0
            })
        })
        .collect();
    for child in children {
        check!(wait(child).exited_with(0), "a child failed");
    }
    say!("{}", counter.load(Ordering::SeqCst));
    memory::unmap(page, memory::PAGE);
}

fn errors() {
    let word = AtomicU32::new(0);
    let raw = |address: u64, op: i32| value(sys!(SYS_futex, address, op, 1, 0, 0, 0));
    let odd = word.as_ptr() as u64 + 1;
    say!("odd: {} {}", raw(odd, libc::FUTEX_WAIT), raw(odd, libc::FUTEX_WAKE));
    for op in [libc::FUTEX_WAIT, libc::FUTEX_WAIT | PRIVATE] {
        say!("nowhere: {} {} {}", raw(0, op), raw(0x1000, op), raw(0xffff_8000_0000_0000, op));
    }
    say!("unknown: {}", raw(word.as_ptr() as u64, 77));
    say!(
        "clock with wake: {}",
        raw(word.as_ptr() as u64, libc::FUTEX_WAKE | libc::FUTEX_CLOCK_REALTIME)
    );
    let bad_time = futex(&word, libc::FUTEX_WAIT | PRIVATE, 0, 16, std::ptr::null(), 0);
    say!("bad time: {}", value(bad_time));
    let bad_second = futex(&word, libc::FUTEX_WAKE_OP | PRIVATE, 1, 1, 17 as *const AtomicU32, 0);
    say!("odd second word: {}", value(bad_second));
    let page = memory::map(memory::PAGE, libc::PROT_NONE, libc::MAP_PRIVATE | libc::MAP_ANONYMOUS)
        .unwrap();
    for op in [libc::FUTEX_REQUEUE, libc::FUTEX_CMP_REQUEUE] {
        for scope in [0, PRIVATE] {
            let to = futex(&word, op | scope, 1, 1, word_in(page), 0);
            let from = futex(word_in(page), op | scope, 1, 1, &word, 0);
            say!("moved where nothing can be read, scope {scope}: {} {}", value(to), value(from));
        }
    }
    for op in [libc::FUTEX_WAKE, libc::FUTEX_WAKE | PRIVATE, libc::FUTEX_WAIT] {
        say!("of what cannot be read: {}", value(simple(word_in(page), op, 1)));
    }
    memory::unmap(page, memory::PAGE);
}

/// What a thread held when it ended is marked, and who waits for it is woken.
fn robust() {
    const OWNER_DIED: u32 = 0x4000_0000;
    let page = memory::shared_pages(1);
    // The head: first entry, offset of the lock word from an entry, the entry in progress; then two entries.
    let head = page.cast::<u64>();
    let (entry, pending) = (page as u64 + 64, page as u64 + 128);
    let (word, pending_word) = (word_in(page.wrapping_add(72)), word_in(page.wrapping_add(136)));
    let child = spawn(|| {
        // SAFETY: all of it lies in the page, which is this case's own.
        unsafe {
            head.write(entry);
            head.add(1).write(8);
            head.add(2).write(pending);
            (entry as *mut u64).write(head as u64);
        }
        let tid = sys!(SYS_gettid).unwrap() as u32;
        word.store(tid | libc::FUTEX_WAITERS, Ordering::SeqCst);
        pending_word.store(tid, Ordering::SeqCst);
        say!("set: {}", value(sys!(SYS_set_robust_list, head, 24)));
        let (mut seen, mut len) = (0u64, 0u64);
        let got = sys!(SYS_get_robust_list, 0, &mut seen, &mut len);
        say!("get: {} {} {len}", value(got), seen == head as u64);
        pause_ms(10);
        0
    });
    loop {
        let now = word.load(Ordering::SeqCst);
        if now & OWNER_DIED != 0 {
            break;
        }
        let _ = simple(word, libc::FUTEX_WAIT, now);
    }
    say!("{}", wait(child));
    let flags = |word: &AtomicU32| word.load(Ordering::SeqCst) & !0x3fff_ffff;
    say!("{:#x} {:#x}", flags(word), flags(pending_word));
    // A thread that was woken to take such a lock, and ends before it has, passes the wake on.
    pending_word.store(OWNER_DIED | libc::FUTEX_WAITERS, Ordering::SeqCst);
    let child = spawn(|| {
        // SAFETY: as above.
        unsafe { head.write(head as u64) };
        sys!(SYS_set_robust_list, head, 24).unwrap();
        pause_ms(20);
        0
    });
    let soon = libc::timespec { tv_sec: 10, tv_nsec: 0 };
    let word = OWNER_DIED | libc::FUTEX_WAITERS;
    let passed_on =
        futex(pending_word, libc::FUTEX_WAIT, word, &raw const soon as u64, std::ptr::null(), ALL);
    say!("passed on: {} {}", value(passed_on), wait(child));
    // Lists that never end or lead nowhere must not hold up the kernel.
    for next in [page as u64 + 64, 0x1000, 0xffff_8000_0000_0000, 1] {
        let status = ending(|| {
            // SAFETY: as above.
            unsafe {
                head.write(entry);
                (entry as *mut u64).write(next);
            }
            sys!(SYS_set_robust_list, head, 24).unwrap();
            0
        });
        say!("{status}");
    }
    // What is no word's address ends the walk.
    let status = ending(|| {
        let tid = sys!(SYS_gettid).unwrap() as u32;
        word_in(page.wrapping_add(72)).store(tid << 16, Ordering::SeqCst);
        word_in(page.wrapping_add(76)).store(tid >> 16, Ordering::SeqCst);
        // SAFETY: as above.
        unsafe {
            head.write(entry);
            head.add(1).write(10);
            head.add(2).write(0);
            (entry as *mut u64).write(head as u64);
        }
        sys!(SYS_set_robust_list, head, 24).unwrap();
        0
    });
    let seen = word_in(page.wrapping_add(76)).load(Ordering::SeqCst);
    say!("not aligned: {status} {:#x}", seen >> 14);
    say!("size: {}", value(sys!(SYS_set_robust_list, head, 23)));
    say!("of nobody: {}", value(sys!(SYS_get_robust_list, 1 << 30, page, page)));
    memory::unmap(page, memory::PAGE);
}

/// Waiters that are moved, woken, timed out and in each other's way all the time: every wait ends.
fn storm() {
    const WAITS: u32 = 300;
    let (first, second) = (AtomicU32::new(0), AtomicU32::new(0));
    let running = AtomicUsize::new(0);
    thread::scope(|scope| {
        for number in 0..6u64 {
            let (first, second, running) = (&first, &second, &running);
            running.fetch_add(1, Ordering::SeqCst);
            scope.spawn(move || {
                let soon = libc::timespec { tv_sec: 0, tv_nsec: 20_000 };
                // Every third has a timeout, the others must be woken.
                let timeout = if number % 3 == 0 { &raw const soon as u64 } else { 0 };
                for round in 0..WAITS {
                    let word = if round % 4 == 3 { second } else { first };
                    let seen = word.load(Ordering::SeqCst);
                    let op = libc::FUTEX_WAIT | PRIVATE;
                    let _ = futex(word, op, seen, timeout, std::ptr::null(), ALL);
                }
                running.fetch_sub(1, Ordering::SeqCst);
            });
        }
        for round in 0.. {
            if running.load(Ordering::SeqCst) == 0 {
                break;
            }
            let word = if round % 2 == 0 { &first } else { &second };
            if round % 16 == 0 {
                word.fetch_add(1, Ordering::SeqCst);
            }
            let other = if round % 2 == 0 { &second } else { &first };
            // The fourth argument is a number here: how many are moved.
            let _ = futex(word, libc::FUTEX_REQUEUE | PRIVATE, round % 2, 5, other, 0);
            let _ = simple(other, libc::FUTEX_WAKE | PRIVATE, round % 3 + 1);
        }
    });
    say!("every wait has ended");
}
