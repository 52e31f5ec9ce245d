//! Areas that grow, shrink and move: mremap(2), brk(2), stacks.

use programs::memory::{
    PAGE, PRIVATE, RW, map_at, page, pages, peek, poke, readable, shared_pages, unmap,
};
use programs::process::{ending, spawn, wait};
use programs::sys::value;
use programs::{check, say, sys};

use super::{fill, resize, segfaults_on_write, wrong};

pub fn remap() {
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
pub fn remap_kept() {
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

pub fn remap_errors() {
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

pub fn program_break() {
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

fn deep(depth: usize) -> usize {
    let frame = std::hint::black_box([depth; 400]);
    if depth == 0 { 0 } else { deep(depth - 1) + frame[depth % 400] }
}

/// The stack grows as it is used, and no further than its limit.
pub fn stack() {
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

/// Memory that grows down stays away from what is below, but not from where nobody may go.
pub fn grows_down() {
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
