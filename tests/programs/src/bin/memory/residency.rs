//! Which pages are in memory, and what a program may say of that.

use programs::memory::{PAGE, RW, page, pages, peek, poke, shared_pages, unmap};
use programs::process::{close, ending};
use programs::sys::value;
use programs::{check, say, sys};

use super::{create, fill, present, wrong};

pub fn dontneed() {
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

pub fn presence() {
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

pub fn locking() {
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

pub fn advice() {
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
