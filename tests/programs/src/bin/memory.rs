//! Address spaces: mapping, protection, moving, growing; what fork shares and what it does not.

use programs::memory::{
    PAGE, PRIVATE, RW, SHARED, map, map_at, page, pages, peek, poke, readable, shared_pages, unmap,
};
use programs::process::{Baton, close, ending, pipe, spawn, wait, write};
use programs::sys::{Errno, outcome, value};
use programs::{check, memory, say, sys};

fn main() {
    programs::main(&[
        ("zero", zero),
        ("protect", protect),
        ("split", split),
        ("gap", gap),
        ("fixed", fixed),
        ("errors", errors),
        ("remap", remap),
        ("remap-kept", remap_kept),
        ("remap-errors", remap_errors),
        ("dontneed", dontneed),
        ("break", program_break),
        ("sparse", sparse),
        ("stack", stack),
        ("grows-down", grows_down),
        ("copy-on-write", copy_on_write),
        ("both-ways", both_ways),
        ("shared", shared),
        ("shared-late", shared_late),
        ("by-name", shared_by_name),
        ("protected-copy", protected_copy),
        ("unmapped-copy", unmapped_copy),
        ("file", file),
        ("shared-file", shared_file),
        ("deleted-file", deleted_file),
        ("cut-off", cut_off),
        ("calls", calls),
        ("presence", presence),
        ("locking", locking),
        ("advice", advice),
        ("flags", flags),
        ("limits", limits),
        ("generations", generations),
    ]);
}

/// Writes the page's number (and what) into the first bytes of each page.
fn fill(base: *mut u8, count: usize, seed: u8) {
    for number in 0..count {
        poke(page(base, number), (number as u8).wrapping_mul(7).wrapping_add(seed));
        poke(page(base, number).wrapping_add(PAGE - 1), seed);
    }
}

/// How many pages are not as [`fill`] left them.
fn wrong(base: *mut u8, count: usize, seed: u8) -> usize {
    let is_wrong = |&number: &usize| {
        peek(page(base, number)) != (number as u8).wrapping_mul(7).wrapping_add(seed)
            || peek(page(base, number).wrapping_add(PAGE - 1)) != seed
    };
    (0..count).filter(is_wrong).count()
}

fn segfaults(address: *mut u8) -> bool {
    let status = ending(|| {
        peek(address);
        0
    });
    libc::WIFSIGNALED(status.0) && libc::WTERMSIG(status.0) == libc::SIGSEGV
}

/// What comes before the first page that cannot be changed is changed.
fn gap() {
    let base = pages(6);
    unmap(page(base, 3), PAGE);
    let read_only = |number| segfaults_on_write(page(base, number));
    let protect = |from: usize, count: usize, bits: i32| {
        value(sys!(SYS_mprotect, page(base, from), count * PAGE, bits))
    };
    say!("{} {:?}", protect(0, 6, libc::PROT_READ), [0, 2, 4].map(read_only));
    say!("{} {:?}", protect(1, 2, RW), [0, 1, 2].map(read_only));
    say!("{} {:?}", protect(3, 2, libc::PROT_READ), [4].map(read_only));
    // What is cut off may be of several areas, what is grown not.
    let here = |result: sys::Result| result.map(|at| at == base as u64);
    say!("{:?}", here(sys!(SYS_mremap, base, 3 * PAGE, 4 * PAGE, 0)));
    say!("{:?}", here(sys!(SYS_mremap, base, 3 * PAGE, PAGE, 0)));
    say!("{} {} {}", readable(base), readable(page(base, 1)), readable(page(base, 2)));
    unmap(base, 6 * PAGE);
}

fn segfaults_on_write(address: *mut u8) -> bool {
    !ending(|| {
        poke(address, 1);
        0
    })
    .exited_with(0)
}

/// Memory that grows down stays away from what is below, but not from where nobody may go.
fn grows_down() {
    const COUNT: usize = 1_024;
    for below in [RW, libc::PROT_READ, libc::PROT_NONE] {
        let base = pages(COUNT);
        unmap(base, COUNT * PAGE);
        let fixed = |number: usize, protection, flags| {
            let flags = PRIVATE | libc::MAP_FIXED | flags;
            map_at(page(base, number) as usize, PAGE, protection, flags).unwrap()
        };
        fixed(900, RW, libc::MAP_GROWSDOWN);
        fixed(400, below, 0);
        let writable = [899, 880, 700, 656, 650, 401, 400];
        let writable = writable.map(|number| !segfaults_on_write(page(base, number)));
        say!("{below}: {writable:?}");
        unmap(base, COUNT * PAGE);
    }
}

/// New memory is zero, whatever was there before, even if it is read before it is written.
fn zero() {
    for round in 0..4u8 {
        let base = pages(300);
        let sum: u64 =
            (0..300 * PAGE).step_by(512).map(|at| u64::from(peek(base.wrapping_add(at)))).sum();
        check!(sum == 0, "round {round}: memory is not zero");
        fill(base, 300, round);
        check!(wrong(base, 300, round) == 0, "round {round}: lost writes");
        unmap(base, 300 * PAGE);
    }
    let base = pages(2);
    check!(peek(base) == 0, "not zero");
    poke(page(base, 1), 1);
    check!(peek(base) == 0, "the zero page was written");
    say!("zero");
    unmap(base, 2 * PAGE);
}

fn protect() {
    let base = pages(4);
    fill(base, 4, 1);
    for (name, protection) in [("read", libc::PROT_READ), ("none", libc::PROT_NONE), ("both", RW)] {
        say!("{name}: {}", value(sys!(SYS_mprotect, page(base, 1), 2 * PAGE, protection)));
        let write_ends = ending(|| {
            poke(page(base, 2), 9);
            0
        });
        say!("  readable {}, write: {write_ends}", readable(page(base, 1)));
        check!(peek(base) == 1 && peek(page(base, 3)) == 22, "neighbours changed");
    }
    say!("{} pages changed", wrong(base, 4, 1));
    say!("half a page: {}", value(sys!(SYS_mprotect, base.wrapping_add(8), PAGE, RW)));
    say!("bad bits: {}", value(sys!(SYS_mprotect, base, PAGE, 0x40)));
    say!("nothing: {}", value(sys!(SYS_mprotect, base, 0, RW)));
    unmap(page(base, 2), PAGE);
    say!("over a hole: {}", value(sys!(SYS_mprotect, base, 4 * PAGE, libc::PROT_READ)));
    say!("wraps: {}", value(sys!(SYS_mprotect, base, usize::MAX - 2 * PAGE, RW)));
    unmap(base, 4 * PAGE);
}

/// Pieces of a mapping go away and come back.
fn split() {
    let base = pages(64);
    fill(base, 64, 3);
    for number in (1..64).step_by(2) {
        unmap(page(base, number), PAGE);
    }
    let alive = (0..64).filter(|&number| readable(page(base, number))).count();
    say!("{alive} of 64 left");
    check!(
        (0..64).step_by(2).all(|number| peek(page(base, number)) == (number as u8) * 7 + 3),
        "changed"
    );
    let again = map_at(page(base, 1) as usize, PAGE, RW, PRIVATE | libc::MAP_FIXED).unwrap();
    say!("in the hole: {}, {}", again == page(base, 1), peek(again));
    say!("all of it: {}", value(sys!(SYS_munmap, base, 64 * PAGE)));
    say!("once more: {}", value(sys!(SYS_munmap, base, 64 * PAGE)));
    say!("gone: {}", !readable(base) && !readable(page(base, 62)));
}

fn fixed() {
    let base = pages(8);
    fill(base, 8, 5);
    let at = page(base, 2) as usize;
    let none = map_at(at, PAGE, RW, PRIVATE | libc::MAP_FIXED_NOREPLACE);
    say!("no replace: {:?}", none.err());
    let over = map_at(at, 2 * PAGE, RW, PRIVATE | libc::MAP_FIXED).unwrap();
    say!("replaced: {} {} {}", over == page(base, 2), peek(over), peek(page(base, 4)));
    unmap(page(base, 2), 2 * PAGE);
    let hinted = map_at(at, 2 * PAGE, RW, PRIVATE).unwrap();
    say!("a free hint is taken: {}", hinted == page(base, 2));
    let elsewhere = map_at(at, PAGE, RW, PRIVATE).unwrap();
    say!("a taken one is not: {}", elsewhere != page(base, 2));
    unmap(elsewhere, PAGE);
    unmap(base, 8 * PAGE);
    let kernel = 0xffff_8000_0000_0000usize;
    say!("kernel: {:?}", map_at(kernel, PAGE, RW, PRIVATE | libc::MAP_FIXED).err());
    let top = 0x7fff_ffff_f000usize;
    say!("last page: {:?}", map_at(top, PAGE, RW, PRIVATE | libc::MAP_FIXED).err());
    say!("odd: {:?}", map_at(at + 1, PAGE, RW, PRIVATE | libc::MAP_FIXED).err());
}

fn errors() {
    say!("nothing: {:?}", map(0, RW, PRIVATE).err());
    say!("too much: {:?}", map(1 << 47, RW, PRIVATE).err());
    say!("all: {:?}", map(usize::MAX, RW, PRIVATE).err());
    say!("neither private nor shared: {:?}", map(PAGE, RW, libc::MAP_ANONYMOUS).err());
    say!("bad descriptor: {}", value(sys!(SYS_mmap, 0, PAGE, RW, libc::MAP_PRIVATE, 1_000, 0)));
    say!("odd offset: {}", value(sys!(SYS_mmap, 0, PAGE, RW, PRIVATE, -1, 5)));
    let (input, output) = pipe(0);
    say!("a pipe: {}", value(sys!(SYS_mmap, 0, PAGE, RW, libc::MAP_PRIVATE, input, 0)));
    close(input);
    close(output);
    say!("munmap odd: {}", value(sys!(SYS_munmap, 0x1001, PAGE)));
    say!("munmap nothing: {}", value(sys!(SYS_munmap, 0x10_0000, 0)));
    say!("munmap kernel: {}", value(sys!(SYS_munmap, 0xffff_8000_0000_0000u64, PAGE)));
    say!("munmap all: {}", value(sys!(SYS_munmap, 0, u64::MAX)));
    say!("munmap where nothing is: {}", value(sys!(SYS_munmap, 0x10_0000_0000u64, PAGE)));
    say!("madvise odd: {}", value(sys!(SYS_madvise, 0x1001, PAGE, libc::MADV_DONTNEED)));
    say!(
        "madvise hole: {}",
        value(sys!(SYS_madvise, 0x10_0000_0000u64, PAGE, libc::MADV_DONTNEED))
    );
    let base = pages(1);
    say!("madvise what: {}", value(sys!(SYS_madvise, base, PAGE, 1_000)));
    unmap(base, PAGE);
}

fn resize(base: *mut u8, old: usize, new: usize, flags: i32) -> Result<*mut u8, Errno> {
    sys!(SYS_mremap, base, old * PAGE, new * PAGE, flags, 0).map(|address| address as *mut u8)
}

fn remap() {
    let base = pages(16);
    fill(base, 16, 9);
    say!("shrink: {}", resize(base, 16, 8, 0) == Ok(base));
    say!("tail gone: {}, {} wrong", !readable(page(base, 8)), wrong(base, 8, 9));
    say!("grow in place: {}", resize(base, 8, 16, 0) == Ok(base));
    say!("new part is zero: {}, {} wrong", peek(page(base, 12)) == 0, wrong(base, 8, 9));
    // Something in the way.
    unmap(page(base, 8), 8 * PAGE);
    let fence = map_at(page(base, 8) as usize, PAGE, RW, PRIVATE | libc::MAP_FIXED).unwrap();
    say!("no room: {:?}", resize(base, 8, 32, 0).err());
    let moved = resize(base, 8, 3_000, libc::MREMAP_MAYMOVE).unwrap();
    say!("moved: {}, {} wrong, old gone: {}", moved != base, wrong(moved, 8, 9), !readable(base));
    check!(peek(page(moved, 2_999)) == 0, "not zero");
    poke(page(moved, 2_999), 4);
    let target = pages(3_000);
    let flags = libc::MREMAP_MAYMOVE | libc::MREMAP_FIXED;
    let result = sys!(SYS_mremap, moved, 3_000 * PAGE, 3_000 * PAGE, flags, target);
    say!(
        "to a place: {}, {} wrong, {}",
        result == Ok(target as u64),
        wrong(target, 8, 9),
        peek(page(target, 2_999))
    );
    // The same after a fork: tables are shared when the pages move.
    let child = spawn(|| {
        let moved = resize(target, 3_000, 4_000, libc::MREMAP_MAYMOVE).unwrap();
        check!(wrong(moved, 8, 9) == 0, "lost in the child");
        fill(moved, 8, 10);
        0
    });
    say!("{}, {} wrong", wait(child), wrong(target, 8, 9));
    unmap(target, 3_000 * PAGE);
    unmap(fence, PAGE);
}

/// What stays where it was: another mapping of shared memory, and an area whose pages have gone.
fn remap_kept() {
    let again = |base: *mut u8, old: usize, new: usize, flags: i32| {
        sys!(SYS_mremap, base, old, new, flags, 0).map(|at| at as *mut u8)
    };
    let shared = shared_pages(8);
    fill(shared, 8, 3);
    say!("in place: {:?}", again(shared, 0, PAGE, 0).err());
    let other = again(page(shared, 2), 0, 4 * PAGE, libc::MREMAP_MAYMOVE).unwrap();
    poke(page(other, 1), 77);
    say!("seen {}, {}", peek(page(shared, 3)), peek(other) == peek(page(shared, 2)));
    unmap(shared, 8 * PAGE);
    say!("still there: {}", peek(page(other, 1)));
    let own = pages(4);
    say!("not shared: {:?}", again(own, 0, PAGE, libc::MREMAP_MAYMOVE).err());
    fill(own, 4, 5);
    let keep = libc::MREMAP_MAYMOVE | libc::MREMAP_DONTUNMAP;
    say!("kept, alone: {:?}", again(own, PAGE, PAGE, libc::MREMAP_DONTUNMAP).err());
    say!("kept, longer: {:?}", again(own, PAGE, 2 * PAGE, keep).err());
    let moved = again(own, 4 * PAGE, 4 * PAGE, keep).unwrap();
    say!("moved {} wrong, zero {}", wrong(moved, 4, 5), peek(own));
    poke(page(own, 2), 9);
    say!("apart: {} wrong, {}", wrong(moved, 4, 5), peek(page(own, 2)));
    // One page of the middle of the shared ones: both show it.
    let moved_shared = again(page(other, 1), PAGE, PAGE, keep).unwrap();
    say!("shared: {} {}", peek(moved_shared), peek(page(other, 1)));
    let child = spawn(|| {
        poke(own, 1);
        poke(moved, 2);
        i32::from(peek(own) != 1 || peek(moved) != 2)
    });
    say!("{} {} wrong, zero {}", wait(child), wrong(moved, 4, 5), peek(own));
    for (base, len) in [(other, 4), (own, 4), (moved, 4), (moved_shared, 1)] {
        unmap(base, len * PAGE);
    }
}

fn remap_errors() {
    let base = pages(4);
    say!("odd: {}", value(sys!(SYS_mremap, base.wrapping_add(1), PAGE, PAGE, 0, 0)));
    say!("to nothing: {}", value(sys!(SYS_mremap, base, PAGE, 0, 0, 0)));
    say!("flags: {}", value(sys!(SYS_mremap, base, PAGE, PAGE, 0x100, 0)));
    say!("fixed alone: {}", value(sys!(SYS_mremap, base, PAGE, PAGE, libc::MREMAP_FIXED, 0)));
    let both = libc::MREMAP_FIXED | libc::MREMAP_MAYMOVE;
    say!("onto itself: {}", value(sys!(SYS_mremap, base, 2 * PAGE, 2 * PAGE, both, page(base, 1))));
    say!("nothing there: {}", value(sys!(SYS_mremap, 0x10_0000_0000u64, PAGE, 2 * PAGE, 1, 0)));
    say!(
        "to the kernel: {}",
        value(sys!(SYS_mremap, base, PAGE, PAGE, both, 0xffff_8000_0000_0000u64))
    );
    unmap(base, 4 * PAGE);
}

fn dontneed() {
    let base = pages(32);
    fill(base, 32, 1);
    say!("{}", value(sys!(SYS_madvise, page(base, 8), 16 * PAGE, libc::MADV_DONTNEED)));
    let zero =
        (0..32).filter(|&number| peek(page(base, number).wrapping_add(PAGE - 1)) == 0).count();
    say!("{zero} pages are zero");
    fill(base, 32, 2);
    // In a child: the parent keeps its pages.
    let status = ending(|| {
        sys!(SYS_madvise, base, 32 * PAGE, libc::MADV_DONTNEED).unwrap();
        check!(peek(base) == 0, "not zero");
        0
    });
    say!("{status}, {} wrong", wrong(base, 32, 2));
    for advice in [libc::MADV_NORMAL, libc::MADV_WILLNEED, libc::MADV_SEQUENTIAL, libc::MADV_RANDOM]
    {
        say!("advice {advice}: {}", value(sys!(SYS_madvise, base, PAGE, advice)));
    }
    unmap(base, 32 * PAGE);
}

fn program_break() {
    let status = ending(|| {
        let start = sys!(SYS_brk, 0).unwrap();
        let end = start + 100 * PAGE as u64;
        say!("grows: {}", sys!(SYS_brk, end) == Ok(end));
        let base = start.next_multiple_of(PAGE as u64) as *mut u8;
        check!(peek(base) == 0, "not zero");
        fill(base, 99, 6);
        say!("{} wrong", wrong(base, 99, 6));
        say!("odd sizes: {}", sys!(SYS_brk, end + 5) == Ok(end + 5));
        say!("shrinks: {}", sys!(SYS_brk, start + 8) == Ok(start + 8));
        say!("gone: {}", !readable(page(base, 50)));
        sys!(SYS_brk, end).unwrap();
        say!("zero again: {}", peek(page(base, 50)) == 0);
        say!("too low: {}", sys!(SYS_brk, 4_096) == Ok(end));
        say!("too high: {}", sys!(SYS_brk, 0xffff_8000_0000_0000u64) == Ok(end));
        sys!(SYS_brk, start).unwrap();
        0
    });
    say!("{status}");
}

/// Much address space, few pages.
fn sparse() {
    const LEN: usize = 1 << 40;
    let flags = PRIVATE | libc::MAP_NORESERVE;
    let base = map(LEN, RW, flags).unwrap();
    let step = LEN / 61;
    for number in 0..61 {
        poke(base.wrapping_add(number * step), number as u8);
    }
    let child = spawn(|| {
        for number in 0..61 {
            let place = base.wrapping_add(number * step);
            check!(peek(place) == number as u8, "place {number}");
            poke(place, 100);
            check!(peek(place.wrapping_add(PAGE)) == 0, "beside place {number}");
        }
        0
    });
    say!("{}", wait(child));
    let sum: u32 = (0..61).map(|number| u32::from(peek(base.wrapping_add(number * step)))).sum();
    say!("{sum}");
    unmap(base, LEN);
    say!("gone: {}", !readable(base));
}

fn deep(depth: usize) -> usize {
    let frame = std::hint::black_box([depth; 400]);
    if depth == 0 { 0 } else { deep(depth - 1) + frame[depth % 400] }
}

/// The stack grows as it is used, and no further than its limit.
fn stack() {
    say!("{}", deep(700));
    let status = ending(|| {
        say!("in a child: {}", deep(900));
        0
    });
    say!("{status}");
    let status = ending(|| {
        let limit = libc::rlimit64 { rlim_cur: 256 << 10, rlim_max: 256 << 10 };
        sys!(SYS_prlimit64, 0, libc::RLIMIT_STACK, &limit, 0).unwrap();
        deep(1_000_000) as i32
    });
    say!("limit of 256 KiB: {status}");
}

fn copy_on_write() {
    let base = pages(600);
    fill(base, 600, 1);
    let (child_may, parent_may) = (Baton::new(), Baton::new());
    let child = spawn(|| {
        fill(base, 300, 2);
        parent_may.pass();
        child_may.await_pass();
        check!(wrong(base, 300, 2) == 0, "the child lost its writes");
        // What it did not write is as it was at the fork.
        let rest = wrong_from(base, 300, 600, 1);
        check!(rest == 0, "{rest} pages changed in the child");
        0
    });
    parent_may.await_pass();
    check!(wrong(base, 600, 1) == 0, "the child's writes came through");
    fill(base, 600, 3);
    child_may.pass();
    say!("{}, {} wrong", wait(child), wrong(base, 600, 3));
    unmap(base, 600 * PAGE);
}

fn wrong_from(base: *mut u8, first: usize, end: usize, seed: u8) -> usize {
    (first..end)
        .filter(|&number| {
            peek(page(base, number)) != (number as u8).wrapping_mul(7).wrapping_add(seed)
        })
        .count()
}

/// Parent, child and grandchild write in turns; each sees its own.
fn both_ways() {
    let base = pages(40);
    fill(base, 40, 1);
    let child = spawn(|| {
        let grandchild = spawn(|| {
            fill(base, 20, 3);
            i32::from(wrong(base, 20, 3) + wrong_from(base, 20, 40, 1) > 0)
        });
        fill(page(base, 10), 20, 2);
        let inner = wait(grandchild);
        let lost = wrong(page(base, 10), 20, 2) + wrong_from(base, 0, 10, 1);
        check!(inner.exited_with(0) && lost == 0, "grandchild {inner}, {lost} lost");
        0
    });
    fill(base, 40, 4);
    say!("{}, {} wrong", wait(child), wrong(base, 40, 4));
    // With the children gone the pages belong to this process alone again.
    fill(base, 40, 5);
    say!("{} wrong", wrong(base, 40, 5));
    unmap(base, 40 * PAGE);
}

fn shared() {
    let base = shared_pages(50);
    let private = pages(50);
    fill(base, 50, 1);
    fill(private, 50, 1);
    let child = spawn(|| {
        fill(base, 50, 2);
        fill(private, 50, 2);
        0
    });
    say!(
        "{}, shared {} wrong, private {} wrong",
        wait(child),
        wrong(base, 50, 2),
        wrong(private, 50, 1)
    );
    unmap(base, 50 * PAGE);
    unmap(private, 50 * PAGE);
}

/// Shared pages that are first touched after the fork are shared too, from either side.
fn shared_late() {
    let base = shared_pages(1_200);
    let (there, back) = (Baton::new(), Baton::new());
    let child = spawn(|| {
        fill(base, 600, 1);
        there.pass();
        back.await_pass();
        i32::from(wrong(page(base, 600), 600, 2) > 0)
    });
    there.await_pass();
    check!(wrong(base, 600, 1) == 0, "the child's pages are not here");
    fill(page(base, 600), 600, 2);
    back.pass();
    say!("{}", wait(child));
    // DONTNEED drops this process's view, not the memory.
    sys!(SYS_madvise, base, 600 * PAGE, libc::MADV_DONTNEED).unwrap();
    say!("after DONTNEED: {} wrong", wrong(base, 600, 1));
    let grandchildren: Vec<i32> = (0..4)
        .map(|me| {
            spawn(move || {
                for number in (me..1_200).step_by(4) {
                    poke(page(base, number), 77);
                }
                0
            })
        })
        .collect();
    for child in grandchildren {
        check!(wait(child).exited_with(0), "a grandchild failed");
    }
    say!("{}", (0..1_200).filter(|&number| peek(page(base, number)) == 77).count());
    unmap(base, 1_200 * PAGE);
}

/// Two processes open the same shared memory by its name, and wake each other through it.
fn shared_by_name() {
    let name = std::ffi::CString::new(format!("/orrery-{}", programs::process::id())).unwrap();
    let open = |flags| {
        // SAFETY: a string that ends with a NUL.
        let fd = unsafe { libc::shm_open(name.as_ptr(), libc::O_RDWR | flags, 0o600) };
        check!(fd >= 0, "{:?}", Errno::last());
        if flags != 0 {
            sys!(SYS_ftruncate, fd, PAGE).unwrap();
        }
        let base = sys!(SYS_mmap, 0, PAGE, RW, libc::MAP_SHARED, fd, 0).unwrap() as *mut u8;
        close(fd);
        base
    };
    let mine = open(libc::O_CREAT | libc::O_EXCL);
    let status = ending(|| {
        let its = open(0);
        // SAFETY: zeroes at first, in memory that both map and that lasts.
        let semaphore = unsafe { &mut *its.cast::<libc::sem_t>() };
        // SAFETY: as above; it is shared.
        unsafe { libc::sem_init(semaphore, 1, 0) };
        let waker = spawn(move || {
            let its = open(0);
            poke(its.wrapping_add(100), 7);
            // SAFETY: initialised before the waker began.
            unsafe { libc::sem_post(its.cast()) }
        });
        // SAFETY: initialised above.
        let waited = unsafe { libc::sem_wait(semaphore) };
        say!("waited {waited}, {}", wait(waker));
        0
    });
    say!("{status}, {}", peek(mine.wrapping_add(100)));
    // SAFETY: as above.
    let unlinked = || unsafe { libc::shm_unlink(name.as_ptr()) };
    say!("unlinked {}, again {}", unlinked(), unlinked());
    unmap(mine, PAGE);
}

/// Protection changed on one side of a fork.
fn protected_copy() {
    let base = pages(16);
    fill(base, 16, 1);
    let (changed, done) = (Baton::new(), Baton::new());
    let child = spawn(|| {
        sys!(SYS_mprotect, base, 16 * PAGE, libc::PROT_READ).unwrap();
        changed.pass();
        done.await_pass();
        i32::from(wrong(base, 16, 1) > 0)
    });
    changed.await_pass();
    fill(base, 16, 2);
    done.pass();
    say!("{}, {} wrong", wait(child), wrong(base, 16, 2));
    // Read-only at the fork, writable in the child later: still a copy.
    sys!(SYS_mprotect, base, 16 * PAGE, libc::PROT_READ).unwrap();
    let status = ending(|| {
        sys!(SYS_mprotect, base, 16 * PAGE, RW).unwrap();
        fill(base, 16, 3);
        i32::from(wrong(base, 16, 3) > 0)
    });
    say!("{status}, {} wrong", wrong(base, 16, 2));
    unmap(base, 16 * PAGE);
}

fn unmapped_copy() {
    let base = pages(1_100);
    fill(base, 1_100, 1);
    let status = ending(|| {
        unmap(page(base, 100), 900 * PAGE);
        let fresh =
            map_at(page(base, 100) as usize, 900 * PAGE, RW, PRIVATE | libc::MAP_FIXED).unwrap();
        check!(peek(page(fresh, 450)) == 0, "not zero");
        fill(fresh, 900, 9);
        i32::from(wrong(fresh, 900, 9) > 0)
    });
    say!("{status}, {} wrong", wrong(base, 1_100, 1));
    let child = spawn(|| {
        programs::process::pause_ms(5);
        i32::from(wrong(base, 1_100, 1) > 0)
    });
    unmap(base, 1_100 * PAGE);
    say!("{}, gone: {}", wait(child), segfaults(base));
}

fn create(name: &std::ffi::CStr, contents: &[u8]) -> i32 {
    let flags = libc::O_CREAT | libc::O_RDWR | libc::O_TRUNC;
    let fd = sys!(SYS_open, name.as_ptr(), flags, 0o600).unwrap() as i32;
    check!(write(fd, contents) == Ok(contents.len() as u64), "cannot write {name:?}");
    fd
}

fn file() {
    let contents: Vec<u8> = (0..3 * PAGE + 100).map(|n| (n / 64) as u8).collect();
    let fd = create(c"mapped", &contents);
    let len = 4 * PAGE;
    let map = sys!(SYS_mmap, 0, len, RW, libc::MAP_PRIVATE, fd, 0).unwrap() as *mut u8;
    let second =
        sys!(SYS_mmap, 0, PAGE, libc::PROT_READ, libc::MAP_PRIVATE, fd, PAGE).unwrap() as *mut u8;
    close(fd);
    let seen: Vec<u8> = (0..contents.len()).map(|at| peek(map.wrapping_add(at))).collect();
    say!("same: {}, {:x}", seen == contents, memory::checksum(&seen));
    say!("beyond its end: {}", peek(map.wrapping_add(contents.len())));
    say!("from page 1: {}", peek(second) == contents[PAGE]);
    poke(map.wrapping_add(PAGE), 0xff);
    say!(
        "private: {} {}",
        peek(map.wrapping_add(PAGE)),
        std::fs::read("mapped").unwrap() == contents
    );
    let status = ending(|| {
        poke(map, 0xee);
        i32::from(peek(map.wrapping_add(PAGE)) != 0xff)
    });
    say!("{status} {}", peek(map));
    unmap(map, len);
    unmap(second, PAGE);
    std::fs::remove_file("mapped").unwrap();
}

/// A deleted file lives on as long as it is mapped.
/// All shared mappings of a file show what is written to it, by whatever way. `MAPPED_FILE` may name one that is there
/// already, of four pages at least.
fn shared_file() {
    let name = std::env::var("MAPPED_FILE").unwrap_or_else(|_| {
        std::fs::write("mapped", vec![b'-'; 4 * PAGE]).unwrap();
        "mapped".into()
    });
    let name = std::ffi::CString::new(name).unwrap();
    let open = |flags: i32| sys!(SYS_open, name.as_ptr(), flags).unwrap() as i32;
    let (fd, reader) = (open(libc::O_RDWR), open(libc::O_RDONLY));
    let mapped = |fd: i32, protection: i32| {
        sys!(SYS_mmap, 0, 4 * PAGE, protection, libc::MAP_SHARED, fd, 0).unwrap() as *mut u8
    };
    let maps = [mapped(fd, RW), mapped(fd, libc::PROT_READ), mapped(reader, libc::PROT_READ)];
    let seen = |number: usize| maps.map(|base| char::from(peek(page(base, number))));
    check!((0..4).all(|number| seen(number) == ['-'; 3]), "not what is in the file");
    sys!(SYS_pwrite64, fd, b"w".as_ptr(), 1, PAGE).unwrap();
    poke(page(maps[0], 2), b'm');
    say!("{:?} {:?}", seen(1), seen(2));
    sys!(SYS_mprotect, maps[1], 4 * PAGE, RW).unwrap();
    poke(page(maps[1], 3), b'p');
    let mut byte = [0u8];
    sys!(SYS_pread64, reader, &mut byte, 1, 3 * PAGE).unwrap();
    say!("{:?} {:?}", seen(3), char::from(byte[0]));
    maps.iter().for_each(|&base| unmap(base, 4 * PAGE));
    close(fd);
    close(reader);
    sys!(SYS_unlink, name.as_ptr()).unwrap();
}

fn deleted_file() {
    let fd = create(c"deleted", &vec![7; 2 * PAGE]);
    let map =
        sys!(SYS_mmap, 0, 2 * PAGE, libc::PROT_READ, libc::MAP_PRIVATE, fd, 0).unwrap() as *mut u8;
    sys!(SYS_unlink, c"deleted".as_ptr()).unwrap();
    close(fd);
    say!("{} {}", peek(map), peek(page(map, 1)));
    unmap(map, 2 * PAGE);
    say!("write only: {}", {
        let fd =
            sys!(SYS_open, c"wo".as_ptr(), libc::O_CREAT | libc::O_WRONLY, 0o600).unwrap() as i32;
        let result = sys!(SYS_mmap, 0, PAGE, libc::PROT_READ, libc::MAP_PRIVATE, fd, 0);
        close(fd);
        std::fs::remove_file("wo").unwrap();
        value(result)
    });
}

/// What a file no longer has its mappings, of whatever process, no longer have; when it is as long again they show
/// what it has then.
fn cut_off() {
    let fd = create(c"cut", &vec![7; 4 * PAGE]);
    let mapped = |flags: i32| sys!(SYS_mmap, 0, 4 * PAGE, RW, flags, fd, 0).unwrap() as *mut u8;
    let (shared, private) = (mapped(libc::MAP_SHARED), mapped(libc::MAP_PRIVATE));
    for number in 0..4 {
        check!(peek(page(shared, number)) == 7, "page {number}");
    }
    poke(page(private, 3), 8);
    check!(peek(page(private, 2)) == 7, "page 2");
    let in_child = Baton::new();
    let done = Baton::new();
    let child = spawn(|| {
        poke(page(private, 1), 9);
        poke(page(shared, 1), 9);
        in_child.pass();
        done.await_pass();
        let [a, b] = [private, shared].map(|base| peek(page(base, 3)));
        say!("child: {} {} {a} {b}", peek(page(private, 1)), peek(page(shared, 1)));
        0
    });
    in_child.await_pass();
    sys!(SYS_ftruncate, fd, PAGE + 100).unwrap();
    let ends = |address: *mut u8| {
        ending(|| {
            peek(address);
            0
        })
    };
    for base in [shared, private] {
        say!("{}", [0, 1, 2, 3].map(|number| ends(page(base, number)).to_string()).join(", "));
    }
    say!("by a call: {}", value(sys!(SYS_pwrite64, fd, page(shared, 3), 10, 0)));
    sys!(SYS_ftruncate, fd, 4 * PAGE).unwrap();
    say!("{} {}", peek(page(shared, 1).wrapping_add(99)), peek(page(shared, 1).wrapping_add(100)));
    say!("{} {}", peek(page(private, 3)), peek(page(shared, 3)));
    poke(page(shared, 3), 5);
    let mut byte = 0u8;
    sys!(SYS_pread64, fd, &mut byte, 1, 3 * PAGE).unwrap();
    say!("{byte} {}", peek(page(private, 3)));
    done.pass();
    say!("{}", wait(child));
    close(sys!(SYS_open, c"cut".as_ptr(), libc::O_RDWR | libc::O_TRUNC).unwrap() as i32);
    say!("{} {}", ends(shared), ends(private));
    for base in [shared, private] {
        unmap(base, 4 * PAGE);
    }
    close(fd);
    std::fs::remove_file("cut").unwrap();
}

/// The kernel's own writes break copies, and never reach the other side.
fn calls() {
    let base = pages(3);
    fill(base, 3, 1);
    let (input, output) = pipe(0);
    check!(write(output, &[0xaa; 5_000]) == Ok(5_000), "write");
    let status = ending(|| {
        let got = sys!(SYS_read, input, base.wrapping_add(100), 5_000);
        i32::from(got != Ok(5_000) || peek(base.wrapping_add(200)) != 0xaa)
    });
    say!("{status}, {} wrong, {}", wrong(base, 3, 1), peek(base.wrapping_add(200)));
    let status = ending(|| {
        check!(write(output, &[0xbb; 4_000]) == Ok(4_000), "write");
        unmap(page(base, 1), PAGE);
        let got = sys!(SYS_read, input, base.wrapping_add(2_000), 4_000);
        say!("into a hole: {}", outcome(got).len() > 1);
        0
    });
    say!("{status}");
    close(input);
    close(output);
    unmap(base, 3 * PAGE);
}

/// Which of eight pages are in memory, as mincore(2) says it.
fn present(base: *const u8) -> String {
    let mut pages = [9u8; 8];
    match sys!(SYS_mincore, base, 8 * PAGE, &mut pages) {
        Ok(_) => pages.iter().map(|page| if page & 1 == 1 { '1' } else { '0' }).collect(),
        Err(error) => error.to_string(),
    }
}

fn presence() {
    let base = pages(8);
    say!("new: {}", present(base));
    poke(page(base, 1), 1);
    poke(page(base, 6), 1);
    say!("two written: {}", present(base));
    sys!(SYS_mprotect, page(base, 1), PAGE, libc::PROT_NONE).unwrap();
    say!("one not to be touched: {}", present(base));
    say!("{}", ending(|| i32::from(present(base) != "01000010")));
    sys!(SYS_madvise, page(base, 6), PAGE, libc::MADV_DONTNEED).unwrap();
    say!("one given back: {}", present(base));
    let mut byte = [0u8; 8];
    say!("odd: {}", value(sys!(SYS_mincore, base.wrapping_add(1), PAGE, &mut byte)));
    say!("nowhere: {}", value(sys!(SYS_mincore, base, PAGE, 16u64)));
    say!("nothing: {}", value(sys!(SYS_mincore, base, 0, 16u64)));
    unmap(page(base, 3), PAGE);
    say!("over a hole: {}", present(base));
    unmap(base, 8 * PAGE);
    let shared = shared_pages(8);
    say!(
        "{}",
        ending(|| {
            poke(page(shared, 4), 1);
            0
        })
    );
    say!("touched by a child: {}", present(shared));
    unmap(shared, 8 * PAGE);
    let fd = create(c"present", &[1; PAGE]);
    sys!(SYS_pwrite64, fd, &[1u8], 1, 5 * PAGE).unwrap();
    sys!(SYS_ftruncate, fd, 8 * PAGE).unwrap();
    let file = sys!(SYS_mmap, 0, 8 * PAGE, RW, libc::MAP_SHARED, fd, 0).unwrap() as *mut u8;
    check!(peek(file) == 1 && peek(page(file, 5)) == 1, "not the file's");
    let seen = present(file);
    check!(&seen[..1] == "1" && &seen[5..6] == "1", "a file's pages: {seen}");
    unmap(file, 8 * PAGE);
    close(fd);
    std::fs::remove_file("present").unwrap();
}

fn locking() {
    let base = pages(8);
    let inside = page(base, 2).wrapping_add(100);
    say!("{} {}", value(sys!(SYS_mlock, inside, PAGE)), present(base));
    say!("later: {}", value(sys!(SYS_mlock2, page(base, 6), PAGE, libc::MLOCK_ONFAULT)));
    say!("{}", present(base));
    say!("flags: {}", value(sys!(SYS_mlock2, base, PAGE, 8)));
    say!("{}", value(sys!(SYS_munlock, inside, PAGE)));
    sys!(SYS_mprotect, page(base, 4), PAGE, libc::PROT_NONE).unwrap();
    say!("not to be touched: {}", value(sys!(SYS_mlock, page(base, 4), PAGE)));
    say!("{} {}", value(sys!(SYS_munlock, base, 8 * PAGE)), value(sys!(SYS_mlock, base, 0)));
    unmap(page(base, 5), PAGE);
    say!(
        "a hole: {} {}",
        value(sys!(SYS_mlock, base, 8 * PAGE)),
        value(sys!(SYS_munlock, base, 8 * PAGE))
    );
    unmap(base, 8 * PAGE);
    for flags in [0, libc::MCL_ONFAULT, 8] {
        say!("all {flags}: {}", value(sys!(SYS_mlockall, flags)));
    }
    let base = pages(8);
    say!("all: {} {}", value(sys!(SYS_mlockall, libc::MCL_CURRENT)), present(base));
    say!("none: {}", value(sys!(SYS_munlockall)));
    unmap(base, 8 * PAGE);
}

fn advice() {
    let base = pages(8);
    for (name, advice) in [("read", libc::MADV_POPULATE_READ), ("write", libc::MADV_POPULATE_WRITE)]
    {
        say!(
            "{name}: {} {}",
            value(sys!(SYS_madvise, page(base, 2), 2 * PAGE, advice)),
            present(base)
        );
    }
    sys!(SYS_mprotect, page(base, 6), PAGE, libc::PROT_READ).unwrap();
    say!(
        "write what is read only: {}",
        value(sys!(SYS_madvise, page(base, 6), PAGE, libc::MADV_POPULATE_WRITE))
    );
    unmap(page(base, 5), PAGE);
    for advice in
        [libc::MADV_NORMAL, libc::MADV_WILLNEED, libc::MADV_FREE, libc::MADV_POPULATE_READ]
    {
        say!("{advice} over a hole: {}", value(sys!(SYS_madvise, base, 8 * PAGE, advice)));
    }
    unmap(base, 8 * PAGE);
    let shared = shared_pages(1);
    say!("free what is shared: {}", value(sys!(SYS_madvise, shared, PAGE, libc::MADV_FREE)));
    unmap(shared, PAGE);
    say!("sync a hole: {}", value(sys!(SYS_msync, shared, PAGE, libc::MS_SYNC)));
}

fn flags() {
    for flags in [libc::MAP_POPULATE, libc::MAP_POPULATE | libc::MAP_NONBLOCK, libc::MAP_LOCKED] {
        let base = map(8 * PAGE, RW, PRIVATE | flags).unwrap();
        say!("{flags:#x}: {}", present(base));
        unmap(base, 8 * PAGE);
    }
    let low = |hint: usize, len: usize, flags: i32| {
        map_at(hint, len, RW, PRIVATE | libc::MAP_32BIT | flags)
            .map(|base| ((1 << 30..1 << 31).contains(&(base as usize)), base))
    };
    for (hint, len, flags) in [
        (0, PAGE, 0),
        (0, 16 << 20, libc::MAP_POPULATE),
        (0x7654_3000, PAGE, 0),
        (0x7654_3210_0000, PAGE, 0),
        (0, 1 << 31, 0),
    ] {
        let mapped = low(hint, len, flags);
        let is_at_hint = mapped.is_ok_and(|(_, base)| base as usize == hint);
        say!("low: {:?}, at the hint: {is_at_hint}", mapped.map(|(is_low, _)| is_low));
        mapped.into_iter().for_each(|(_, base)| unmap(base, len));
    }
    let fd = create(c"flags", &[1; PAGE]);
    for flags in [libc::MAP_SHARED_VALIDATE, libc::MAP_SHARED_VALIDATE | libc::MAP_SYNC] {
        let result = sys!(SYS_mmap, 0, PAGE, RW, flags, fd, 0);
        say!("{flags:#x}: {}", outcome(result).len());
        if let Ok(base) = result {
            unmap(base as *mut u8, PAGE);
        }
    }
    say!("anonymous: {:?}", map(PAGE, RW, libc::MAP_SHARED_VALIDATE | libc::MAP_ANONYMOUS).err());
    close(fd);
    say!("closed comes before empty: {}", value(sys!(SYS_mmap, 0, 0, RW, libc::MAP_SHARED, fd, 0)));
    let fd = sys!(SYS_open, c"flags".as_ptr(), libc::O_PATH).unwrap() as i32;
    say!("a path only: {}", value(sys!(SYS_mmap, 0, PAGE, RW, libc::MAP_SHARED, fd, 0)));
    close(fd);
    std::fs::remove_file("flags").unwrap();
    let base = map(PAGE, libc::PROT_WRITE, PRIVATE).unwrap();
    let maps = std::fs::read_to_string("/proc/self/maps").unwrap();
    let start = format!("{:x}-", base as usize);
    let line = maps.lines().find(|line| line.starts_with(&start)).unwrap_or("none");
    say!("write only: {:?}", line.split(' ').nth(1));
    unmap(base, PAGE);
}

/// RLIMIT_AS.
fn limits() {
    let status = ending(|| {
        let limit = libc::rlimit64 { rlim_cur: 64 << 20, rlim_max: 64 << 20 };
        sys!(SYS_prlimit64, 0, libc::RLIMIT_AS, &limit, 0).unwrap();
        say!("128 MiB: {:?}", map(128 << 20, RW, PRIVATE).err());
        let base = map(16 << 20, RW, PRIVATE);
        say!("16 MiB: {:?}", base.err());
        say!("growing: {:?}", resize(base.unwrap(), 4_096, 4_096 * 20, libc::MREMAP_MAYMOVE).err());
        let many = (0..100).take_while(|_| map(4 << 20, RW, PRIVATE).is_ok()).count();
        check!(many > 5 && many < 16, "{many} times 4 MiB");
        say!("shared counts: {:?}", map(64 << 20, RW, SHARED).err());
        0
    });
    say!("{status}");
    let status = ending(|| {
        let limit = libc::rlimit64 { rlim_cur: 16 << 20, rlim_max: 16 << 20 };
        sys!(SYS_prlimit64, 0, libc::RLIMIT_DATA, &limit, 0).unwrap();
        say!("data: {:?}", map(32 << 20, RW, PRIVATE).err());
        say!("shared is none: {:?}", map(32 << 20, RW, SHARED).err());
        let none = map(32 << 20, libc::PROT_NONE, PRIVATE);
        say!("nor what cannot be written: {:?}", none.err());
        let none = none.unwrap();
        let writable = |bytes: usize| value(sys!(SYS_mprotect, none, bytes, RW));
        say!("made writable: {} {} {}", writable(32 << 20), writable(8 << 20), writable(8 << 20));
        let base = map(PAGE, RW, PRIVATE).unwrap();
        say!("growing: {:?}", resize(base, 1, 8_192, libc::MREMAP_MAYMOVE).err());
        say!("8 MiB more: {:?}", map(8 << 20, RW, PRIVATE).err());
        say!("in place: {:?}", {
            let flags = PRIVATE | libc::MAP_FIXED;
            map_at(none as usize, 8 << 20, RW, flags).map(|at| at == none)
        });
        0
    });
    say!("{status}");
}

/// Forks of forks that each write a little: tables shared among many.
fn generations() {
    fn next(base: *mut u8, depth: u8) -> i32 {
        for number in 0..256 {
            check!(peek(page(base, number * 4)) == depth, "generation {depth}, page {number}");
        }
        if depth == 25 {
            return 0;
        }
        let status = ending(|| {
            for number in 0..256 {
                poke(page(base, number * 4), depth + 1);
            }
            next(base, depth + 1)
        });
        for number in 0..256 {
            check!(
                peek(page(base, number * 4)) == depth,
                "generation {depth}, page {number} after"
            );
        }
        i32::from(!status.exited_with(0))
    }
    let base = pages(1_024);
    say!("{}", next(base, 0));
    unmap(base, 1_024 * PAGE);
}
