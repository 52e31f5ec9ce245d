//! What fork(2) copies: each side sees its own.

use programs::memory::{PAGE, PRIVATE, RW, map_at, page, pages, peek, poke, unmap};
use programs::process::{Baton, close, ending, pipe, spawn, wait, write};
use programs::sys::outcome;
use programs::{check, say, sys};

use super::{fill, segfaults, wrong};

pub fn copy_on_write() {
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
pub fn both_ways() {
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

/// Protection changed on one side of a fork.
pub fn protected_copy() {
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

pub fn unmapped_copy() {
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

/// The kernel's own writes break copies, and never reach the other side.
pub fn calls() {
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

/// Forks of forks that each write a little: tables shared among many.
pub fn generations() {
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
