//! Memory that processes share.

use programs::memory::{PAGE, RW, page, pages, peek, poke, shared_pages, unmap};
use programs::process::{Baton, close, ending, spawn, wait};
use programs::sys::Errno;
use programs::{check, say, sys};

use super::{fill, wrong};

pub fn shared() {
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
pub fn shared_late() {
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
pub fn shared_by_name() {
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
