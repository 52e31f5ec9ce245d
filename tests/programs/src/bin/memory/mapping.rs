//! Mapping, protecting and unmapping: what is there afterwards, and what is refused.

use programs::memory::{
    PAGE, PRIVATE, RW, SHARED, map, map_at, page, pages, peek, poke, readable, unmap,
};
use programs::process::{close, ending, pipe, spawn, wait};
use programs::sys::{outcome, value};
use programs::{check, say, sys};

use super::{create, fill, present, resize, segfaults_on_write, wrong};

/// New memory is zero, whatever was there before, even if it is read before it is written.
pub fn zero() {
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

pub fn protect() {
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
pub fn split() {
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

/// What comes before the first page that cannot be changed is changed.
pub fn gap() {
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

pub fn fixed() {
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

pub fn errors() {
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

/// Much address space, few pages.
pub fn sparse() {
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

pub fn flags() {
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
pub fn limits() {
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
