//! `std`'s threads on the kernel's: creation, joins, locks, condition variables, channels, thread locals.

use std::cell::{Cell, RefCell};
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Barrier, Condvar, Mutex, Once, RwLock, mpsc};
use std::thread;
use std::time::Duration;

use programs::{check, process, say};

fn main() {
    programs::main(&[
        ("join", join),
        ("many", many),
        ("mutex", mutex),
        ("condvar", condvar),
        ("channel", channel),
        ("pipeline", pipeline),
        ("locals", locals),
        ("scope", scope),
        ("park", park),
        ("barrier", barrier),
        ("rwlock", rwlock),
        ("once", once),
        ("panic", panic),
        ("names", names),
        ("timeout", timeout),
        ("exit-group", exit_group),
        ("stack", stack),
    ]);
}

fn join() {
    let threads: Vec<_> = (0..8u64).map(|n| thread::spawn(move || n * n)).collect();
    let squares: Vec<u64> = threads.into_iter().map(|thread| thread.join().unwrap()).collect();
    say!("{squares:?}");
}

/// Threads come and go: stacks and numbers are used again.
fn many() {
    let counter = Arc::new(AtomicUsize::new(0));
    for _ in 0..20 {
        let threads: Vec<_> = (0..25)
            .map(|_| {
                let counter = Arc::clone(&counter);
                thread::spawn(move || counter.fetch_add(1, Ordering::Relaxed))
            })
            .collect();
        threads.into_iter().for_each(|thread| {
            thread.join().unwrap();
        });
    }
    say!("{} threads", counter.load(Ordering::Relaxed));
}

fn mutex() {
    let shared = Arc::new(Mutex::new((0u64, 0u64)));
    let threads: Vec<_> = (0..8)
        .map(|_| {
            let shared = Arc::clone(&shared);
            thread::spawn(move || {
                for _ in 0..5_000 {
                    let mut pair = shared.lock().unwrap();
                    pair.0 += 1;
                    pair.1 += pair.0;
                }
            })
        })
        .collect();
    threads.into_iter().for_each(|thread| thread.join().unwrap());
    let pair = shared.lock().unwrap();
    say!("{} {}", pair.0, pair.1);
}

/// A turn that goes round among threads in order.
fn condvar() {
    const THREADS: usize = 4;
    let turn = Arc::new((Mutex::new((0usize, Vec::new())), Condvar::new()));
    let threads: Vec<_> = (0..THREADS)
        .map(|me| {
            let turn = Arc::clone(&turn);
            thread::spawn(move || {
                for _ in 0..50 {
                    let (lock, changed) = &*turn;
                    let mut state =
                        changed.wait_while(lock.lock().unwrap(), |state| state.0 != me).unwrap();
                    state.1.push(me);
                    state.0 = (me + 1) % THREADS;
                    changed.notify_all();
                }
            })
        })
        .collect();
    threads.into_iter().for_each(|thread| thread.join().unwrap());
    let state = turn.0.lock().unwrap();
    let in_order = state.1.iter().enumerate().all(|(n, &who)| who == n % THREADS);
    say!("{} turns, in order: {in_order}", state.1.len());
}

fn channel() {
    let (sender, receiver) = mpsc::channel();
    let threads: Vec<_> = (0..4u64)
        .map(|n| {
            let sender = sender.clone();
            thread::spawn(move || (0..1_000).for_each(|i| sender.send((n, i)).unwrap()))
        })
        .collect();
    drop(sender);
    let mut next = [0u64; 4];
    let mut in_order = true;
    for (who, number) in receiver {
        in_order &= next[who as usize] == number;
        next[who as usize] += 1;
    }
    threads.into_iter().for_each(|thread| thread.join().unwrap());
    say!("{next:?}, in order: {in_order}");
}

/// Stages that are joined by channels with room for one message.
fn pipeline() {
    let (first, mut input) = mpsc::sync_channel::<u64>(1);
    for stage in 1..=5 {
        let (output, next) = mpsc::sync_channel(1);
        let from = std::mem::replace(&mut input, next);
        thread::spawn(move || {
            for value in from {
                if output.send(value * stage).is_err() {
                    return;
                }
            }
        });
    }
    thread::spawn(move || (0..500).for_each(|n| first.send(n).unwrap()));
    say!("{}", input.iter().sum::<u64>());
}

thread_local! {
    static CELL: Cell<u64> = const { Cell::new(7) };
    static DROPPED: RefCell<Option<Tell>> = const { RefCell::new(None) };
}

struct Tell(Arc<AtomicU64>, u64);

impl Drop for Tell {
    fn drop(&mut self) {
        self.0.fetch_add(self.1, Ordering::SeqCst);
    }
}

/// Each thread has its own, and its destructors run at its end.
fn locals() {
    let dropped = Arc::new(AtomicU64::new(0));
    CELL.set(1);
    let threads: Vec<_> = (0..6u64)
        .map(|n| {
            let dropped = Arc::clone(&dropped);
            thread::spawn(move || {
                let before = CELL.get();
                CELL.set(n);
                DROPPED.set(Some(Tell(dropped, 10u64.pow(n as u32))));
                thread::yield_now();
                (before, CELL.get())
            })
        })
        .collect();
    let seen: Vec<_> = threads.into_iter().map(|thread| thread.join().unwrap()).collect();
    say!("{seen:?} main {} dropped {}", CELL.get(), dropped.load(Ordering::SeqCst));
}

fn scope() {
    let mut numbers: Vec<u64> = (0..1_000).collect();
    let total = AtomicU64::new(0);
    thread::scope(|scope| {
        for chunk in numbers.chunks_mut(250) {
            let total = &total;
            scope.spawn(move || {
                chunk.iter_mut().for_each(|n| *n *= 2);
                total.fetch_add(chunk.iter().sum(), Ordering::Relaxed);
            });
        }
    });
    say!("{} {}", total.load(Ordering::Relaxed), numbers[999]);
}

fn park() {
    let main = thread::current();
    let woken = Arc::new(AtomicBool::new(false));
    let flag = Arc::clone(&woken);
    let thread = thread::spawn(move || {
        let mut rounds = 0;
        while !flag.load(Ordering::Acquire) {
            thread::park();
            rounds += 1;
        }
        main.unpark();
        rounds > 0
    });
    woken.store(true, Ordering::Release);
    thread.thread().unpark();
    thread::park();
    // A wake before the sleep is kept, so it may have been parked no time at all.
    let _ = thread.join().unwrap();
    say!("both unparked");
}

fn barrier() {
    let barrier = Arc::new(Barrier::new(5));
    let leaders = Arc::new(AtomicUsize::new(0));
    let threads: Vec<_> = (0..5)
        .map(|_| {
            let (barrier, leaders) = (Arc::clone(&barrier), Arc::clone(&leaders));
            thread::spawn(move || {
                for _ in 0..40 {
                    if barrier.wait().is_leader() {
                        leaders.fetch_add(1, Ordering::Relaxed);
                    }
                }
            })
        })
        .collect();
    threads.into_iter().for_each(|thread| thread.join().unwrap());
    say!("{} leaders", leaders.load(Ordering::Relaxed));
}

fn rwlock() {
    let pair = Arc::new(RwLock::new((0u64, 0u64)));
    let torn = Arc::new(AtomicBool::new(false));
    let threads: Vec<_> = (0..6)
        .map(|n| {
            let (pair, torn) = (Arc::clone(&pair), Arc::clone(&torn));
            thread::spawn(move || {
                for _ in 0..1_000 {
                    if n % 3 == 0 {
                        let mut pair = pair.write().unwrap();
                        pair.0 += 1;
                        pair.1 += 1;
                    } else {
                        let pair = pair.read().unwrap();
                        torn.fetch_or(pair.0 != pair.1, Ordering::Relaxed);
                    }
                }
            })
        })
        .collect();
    threads.into_iter().for_each(|thread| thread.join().unwrap());
    say!("{:?} torn: {}", *pair.read().unwrap(), torn.load(Ordering::Relaxed));
}

fn once() {
    static ONCE: Once = Once::new();
    let runs = Arc::new(AtomicUsize::new(0));
    thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| {
                ONCE.call_once(|| {
                    thread::sleep(Duration::from_millis(1));
                    runs.fetch_add(1, Ordering::Relaxed);
                });
                check!(runs.load(Ordering::Relaxed) == 1, "a thread went past an unfinished once");
            });
        }
    });
    say!("{} run", runs.load(Ordering::Relaxed));
}

/// A panic unwinds its own thread only, runs destructors and poisons what it held.
fn panic() {
    let lock = Arc::new(Mutex::new(1));
    let held = Arc::clone(&lock);
    let dropped = Arc::new(AtomicU64::new(0));
    let tell = Tell(Arc::clone(&dropped), 5);
    let result = thread::spawn(move || {
        let _tell = tell;
        let _guard = held.lock().unwrap();
        panic!("on purpose");
    })
    .join();
    let message = result.unwrap_err().downcast_ref::<&str>().map(|message| (*message).to_owned());
    say!("{message:?}, poisoned: {}, {}", lock.is_poisoned(), dropped.load(Ordering::SeqCst));
}

fn names() {
    let thread = thread::Builder::new().name("a-thread-with-a-long-name".into());
    let thread = thread
        .spawn(|| {
            let mut name = [0u8; 16];
            let result = programs::sys!(SYS_prctl, libc::PR_GET_NAME, name.as_mut_ptr());
            check!(result.is_ok(), "PR_GET_NAME: {result:?}");
            String::from_utf8_lossy(&name).trim_end_matches('\0').to_owned()
        })
        .unwrap();
    say!("{:?}", thread.join().unwrap());
}

fn timeout() {
    let (lock, condvar) = (Mutex::new(()), Condvar::new());
    let result = condvar.wait_timeout(lock.lock().unwrap(), Duration::from_millis(5)).unwrap().1;
    let (sender, receiver) = mpsc::channel::<()>();
    let received = receiver.recv_timeout(Duration::from_millis(5));
    drop(sender);
    say!("timed out: {} {received:?} {:?}", result.timed_out(), receiver.recv());
    thread::park_timeout(Duration::from_millis(1));
}

/// A process that ends takes its threads with it, whatever they do.
fn exit_group() {
    for who in ["main", "thread"] {
        let status = process::ending(|| {
            let mut threads = vec![
                thread::spawn(|| {
                    loop {
                        std::hint::spin_loop();
                    }
                }),
                thread::spawn(|| {
                    loop {
                        thread::sleep(Duration::from_secs(100));
                    }
                }),
                thread::spawn(|| {
                    loop {
                        thread::park();
                    }
                }),
            ];
            if who == "main" {
                return 42;
            }
            threads.push(thread::spawn(|| process::exit_now(43)));
            threads.into_iter().for_each(|thread| {
                let _ = thread.join();
            });
            44
        });
        say!("{who} ends the process: {status}");
    }
}

fn deep(levels: u64) -> u64 {
    let block = std::hint::black_box([levels; 128]);
    if levels == 0 { 0 } else { block[(levels % 128) as usize] + deep(levels - 1) }
}

/// Large stacks are usable to the end that was asked for.
fn stack() {
    let thread = thread::Builder::new().stack_size(16 << 20).spawn(|| deep(8_000)).unwrap();
    say!("{}", thread.join().unwrap());
}
