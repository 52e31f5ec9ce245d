//! Concurrent writers to copied memory, maps that change under them, areas without number.

use std::sync::atomic::{AtomicU32, Ordering};
use std::thread;

use programs::memory::{PAGE, RW, page, pages, peek, poke, unmap};
use programs::process::{ending, pause_ms, spawn, wait};
use programs::signal::kill;
use programs::sys::Errno;
use programs::{check, say, sys};

use super::{Random, counter, scaled, verdict};

/// Four processes write to memory that they share copy-on-write, over and over, and compare with a model.
pub fn copy_storm() {
    const PAGES: usize = 700;
    let base = pages(PAGES);
    let mut random = Random(3);
    for round in 0..scaled(4) as u64 {
        let mut model = vec![0u8; PAGES];
        for (number, byte) in model.iter_mut().enumerate() {
            *byte = random.next() as u8;
            poke(page(base, number), *byte);
        }
        let children: Vec<i32> = (0..4)
            .map(|me| {
                let mut model = model.clone();
                spawn(move || write_and_compare(base, &mut model, 100 * round + me + 1))
            })
            .collect();
        let bad = write_and_compare(base, &mut model, 1_000 + round);
        check!(bad == 0, "the parent's memory changed");
        for child in children {
            let status = wait(child);
            check!(status.exited_with(0), "{status}");
        }
        let sum = (0..PAGES).filter(|&number| peek(page(base, number)) != model[number]).count();
        check!(sum == 0, "{sum} pages changed in the parent");
    }
    say!("consistent");
    unmap(base, PAGES * PAGE);
}

fn write_and_compare(base: *mut u8, model: &mut [u8], seed: u64) -> i32 {
    let mut random = Random(seed);
    for _ in 0..4_000 {
        let number = random.below(model.len() as u64) as usize;
        if random.below(3) == 0 {
            model[number] = random.next() as u8;
            poke(page(base, number), model[number]);
        } else if peek(page(base, number)) != model[number] {
            return 1;
        }
        if random.below(1_500) == 0 {
            let copy = model.to_vec();
            let status =
                ending(|| i32::from((0..copy.len()).any(|n| peek(page(base, n)) != copy[n])));
            if !status.exited_with(0) {
                return 2;
            }
        }
    }
    i32::from((0..model.len()).any(|number| peek(page(base, number)) != model[number]))
}

/// Threads, two of them real-time, touch, protect, discard and move a little memory while two others change much of it,
/// which the first have to wait for, in the middle, on the same CPU. All find what they wrote.
pub fn long_changes() {
    const PAGES: usize = 4_096;
    let stop = AtomicU32::new(0);
    thread::scope(|scope| {
        let small: Vec<_> = (0..4)
            .map(|me| {
                scope.spawn({
                    let stop = &stop;
                    move || change_a_little(me, stop)
                })
            })
            .collect();
        let large = [1u8, 2].map(|seed| {
            scope.spawn(move || {
                (0..scaled(4)).map(|round| change_much(PAGES, seed, round)).sum::<usize>()
            })
        });
        let wrong: usize = large.map(|thread| thread.join().unwrap()).iter().sum();
        stop.store(1, Ordering::Relaxed);
        let lost: usize = small.into_iter().map(|thread| thread.join().unwrap()).sum();
        say!("{wrong} of the many, {lost} of the few pages are wrong");
        check!(wrong + lost == 0, "changes of the same memory meet");
    });
}

fn change_a_little(me: i32, stop: &AtomicU32) -> usize {
    const PAGES: usize = 64;
    if me < 2 {
        // Where that is allowed; the rest need not be real-time.
        let _ = sys!(SYS_sched_setscheduler, 0, libc::SCHED_FIFO, &(10 + me));
    }
    let (mut base, mut value, mut wrong) = (pages(PAGES), 0u8, 0);
    while stop.load(Ordering::Relaxed) == 0 {
        value = value.wrapping_add(1);
        (0..PAGES).for_each(|number| poke(page(base, number), value));
        let mut expected = value;
        match value % 3 {
            0 => {
                sys!(SYS_madvise, base, PAGES * PAGE, libc::MADV_DONTNEED).unwrap();
                expected = 0;
            }
            1 => {
                sys!(SYS_mprotect, base, PAGES * PAGE, libc::PROT_READ).unwrap();
                sys!(SYS_mprotect, base, PAGES * PAGE, RW).unwrap();
            }
            _ => base = moved(base, pages(PAGES), PAGES),
        }
        wrong += (0..PAGES).filter(|&number| peek(page(base, number)) != expected).count();
        let moment = libc::timespec { tv_sec: 0, tv_nsec: 300_000 };
        let _ = sys!(SYS_nanosleep, &moment, 0);
    }
    unmap(base, PAGES * PAGE);
    wrong
}

/// Moves pages that go by tables in one round, and one by one in the next. How many are wrong afterwards.
fn change_much(count: usize, seed: u8, round: u32) -> usize {
    let value = |number: usize| (number as u8).wrapping_mul(7).wrapping_add(seed + round as u8);
    let base = pages(count);
    (0..count).for_each(|number| poke(page(base, number), value(number)));
    for protection in [libc::PROT_READ, RW] {
        sys!(SYS_mprotect, base, count * PAGE, protection).unwrap();
    }
    for number in (0..1_000).step_by(2) {
        sys!(SYS_mprotect, page(base, number), PAGE, libc::PROT_READ).unwrap();
    }
    sys!(SYS_mprotect, base, count * PAGE, RW).unwrap();
    let child = spawn(|| {
        (0..count).step_by(7).for_each(|number| poke(page(base, number), 0));
        i32::from((0..count).any(|n| peek(page(base, n)) != if n % 7 == 0 { 0 } else { value(n) }))
    });
    let room = pages(count + 1);
    let base = moved(base, page(room, (round % 2) as usize), count);
    let wrong = (0..count).filter(|&number| peek(page(base, number)) != value(number)).count();
    let status = wait(child);
    check!(status.exited_with(0), "{status}");
    unmap(room, (count + 1) * PAGE);
    wrong
}

fn moved(base: *mut u8, to: *mut u8, count: usize) -> *mut u8 {
    let (len, flags) = (count * PAGE, libc::MREMAP_MAYMOVE | libc::MREMAP_FIXED);
    sys!(SYS_mremap, base, len, len, flags, to).unwrap() as *mut u8
}

/// Threads write to one address space while it is forked: a snapshot is taken, torn or not, and stays as it is.
pub fn shared_storm() {
    const PAGES: usize = 64;
    let base = pages(PAGES);
    let stop = AtomicU32::new(0);
    thread::scope(|scope| {
        for me in 0..3usize {
            let (stop, base) = (&stop, base as usize);
            scope.spawn(move || {
                let base = base as *mut u8;
                let mut value = 0u8;
                while stop.load(Ordering::Relaxed) == 0 {
                    value = value.wrapping_add(1);
                    for number in (me..PAGES).step_by(3) {
                        // First and second half of the page get the same value, in this order.
                        poke(page(base, number), value);
                        poke(page(base, number).wrapping_add(PAGE / 2), value);
                    }
                }
            });
        }
        for _ in 0..scaled(60) {
            let status = ending(|| {
                let before: Vec<(u8, u8)> =
                    (0..PAGES).map(|number| both_halves(base, number)).collect();
                // The second is at most one step behind the first.
                let torn =
                    before.iter().filter(|(first, second)| first.wrapping_sub(*second) > 1).count();
                let _ = sys!(SYS_sched_yield);
                let moved = (0..PAGES)
                    .filter(|&number| both_halves(base, number) != before[number])
                    .count();
                i32::from(torn > 0) + 2 * i32::from(moved > 0)
            });
            check!(status.exited_with(0), "{status} (1 torn, 2 changed after the fork)");
        }
        stop.store(1, Ordering::Relaxed);
    });
    say!("snapshots hold");
    unmap(base, PAGES * PAGE);
}

fn both_halves(base: *mut u8, number: usize) -> (u8, u8) {
    (peek(page(base, number)), peek(page(base, number).wrapping_add(PAGE / 2)))
}

/// Threads map, protect, move and unmap side by side.
pub fn map_storm() {
    thread::scope(|scope| {
        for seed in 1..=4u64 {
            scope.spawn(move || {
                let mut random = Random(seed * 77);
                for _ in 0..scaled(40) {
                    let count = 1 + random.below(40) as usize;
                    let base = pages(count);
                    for number in 0..count {
                        poke(page(base, number), seed as u8);
                    }
                    let half = count / 2;
                    let read = libc::PROT_READ;
                    check!(sys!(SYS_mprotect, base, half.max(1) * PAGE, read).is_ok(), "mprotect");
                    let moved = sys!(
                        SYS_mremap,
                        page(base, half),
                        (count - half) * PAGE,
                        (count + 5) * PAGE,
                        1,
                        0
                    );
                    let moved = moved.unwrap() as *mut u8;
                    for number in 0..count - half {
                        check!(peek(page(moved, number)) == seed as u8, "a moved page");
                    }
                    for number in 0..half {
                        check!(peek(page(base, number)) == seed as u8, "a page that stayed");
                    }
                    unmap(moved, (count + 5) * PAGE);
                    if half > 0 {
                        unmap(base, half * PAGE);
                    }
                }
            });
        }
    });
    say!("all gone");
}

/// Bytes of memory that the machine has, and that are free.
fn memory_of_machine() -> (u64, u64) {
    // SAFETY: all zeroes is a sysinfo.
    let mut info: libc::sysinfo = unsafe { std::mem::zeroed() };
    sys!(SYS_sysinfo, &mut info).unwrap();
    let unit = u64::from(info.mem_unit);
    (info.totalram * unit, info.freeram * unit)
}

/// A process that takes nearly all memory of a small machine, and keeps it until it is killed.
fn hog_of_small_machine() -> i32 {
    const SMALL: u64 = 256 << 20;
    let hog = spawn(|| {
        let (total, free) = memory_of_machine();
        if total <= SMALL {
            let left = total / 32;
            for number in 0.. {
                let count = (free.saturating_sub(left) / PAGE as u64) as usize;
                if number == count || memory_of_machine().1 <= left {
                    break;
                }
                poke(pages(1), 1);
            }
        }
        pause_ms(1_000_000);
        0
    });
    pause_ms(if memory_of_machine().0 <= SMALL { 300 } else { 1 });
    hog
}

/// Processes with thousands of areas, all of which are read from `/proc` while memory is short.
pub fn area_storm() {
    const AREAS: usize = 20_000;
    let (ready, go) = (counter(), counter());
    let children: Vec<i32> = (0..3)
        .map(|_| {
            spawn(|| {
                let base = pages(AREAS);
                for number in (0..AREAS).step_by(2) {
                    let at = page(base, number);
                    sys!(SYS_mprotect, at, PAGE, libc::PROT_READ).unwrap();
                }
                ready.fetch_add(1, Ordering::Relaxed);
                while go.load(Ordering::Relaxed) == 0 {
                    pause_ms(1);
                }
                match lines_of(c"/proc/self/maps") {
                    Ok(lines) => check!(lines >= AREAS, "{lines} areas"),
                    // For which there is no memory.
                    Err(why) => check!(why.0 == libc::ENOMEM, "{why}"),
                }
                0
            })
        })
        .collect();
    while ready.load(Ordering::Relaxed) < 3 {
        pause_ms(1);
    }
    let hog = hog_of_small_machine();
    go.store(1, Ordering::Relaxed);
    let well = children.into_iter().filter(|&child| wait(child).exited_with(0)).count();
    kill(hog, libc::SIGKILL).unwrap();
    wait(hog);
    verdict("all told", well == 3);
}

/// How many lines a file has.
fn lines_of(path: &std::ffi::CStr) -> Result<usize, Errno> {
    use programs::process::{close, read};
    let fd = sys!(SYS_open, path.as_ptr(), libc::O_RDONLY)? as i32;
    let mut lines = 0;
    loop {
        let bytes = read(fd, 8_192).inspect_err(|_| close(fd))?;
        if bytes.is_empty() {
            close(fd);
            return Ok(lines);
        }
        lines += bytes.iter().filter(|&&byte| byte == b'\n').count();
    }
}
