//! `fork-pressure [COUNT]`: forks and reaps COUNT children (100,000 unless told otherwise) while most of memory is in use.
//!
//! A child touches some of what it shares. Where memory runs out a fork may fail (ENOMEM, EAGAIN) or a child be
//! killed; both are counted, and neither may hurt this process. At the end all but a little must have succeeded
//! again, because nothing was kept.

use programs::memory::{PAGE, PRIVATE, RW, map, page, peek, poke};
use programs::process::{try_spawn, wait};
use programs::sys::Errno;
use programs::{check, say, sys};

/// What is left free, of all memory: one part in this many.
const FREE_PART: usize = 8;

fn main() {
    let count: u32 = std::env::args().nth(1).and_then(|text| text.parse().ok()).unwrap_or(100_000);
    let mut info = [0u64; 14];
    sys!(SYS_sysinfo, &mut info).expect("sysinfo");
    let (total, free) = (info[4] as usize, info[5] as usize);
    // On a large host a part of a gigabyte is enough: the point is a guest whose memory is nearly full.
    let keep = free.saturating_sub(total / FREE_PART).min(512 << 20) / PAGE;
    let base = map(keep.max(1) * PAGE, RW, PRIVATE).expect("mmap");
    for number in 0..keep {
        poke(page(base, number), number as u8);
    }
    let (mut well, mut refused, mut killed) = (0u32, 0u32, 0u32);
    for round in 0..count {
        let touched = (round as usize * 7_919) % keep.max(1);
        let child = try_spawn(|| {
            let first = peek(page(base, touched)) != touched as u8;
            // Sometimes much: more than is free.
            let step = if round % 997 == 0 { 1 } else { keep.max(1) };
            for number in (touched..keep).step_by(step) {
                poke(page(base, number), 0xff);
            }
            i32::from(first)
        });
        match child {
            Ok(child) => {
                let status = wait(child);
                if status.exited_with(0) {
                    well += 1;
                } else {
                    check!(libc::WIFSIGNALED(status.0), "{status}");
                    killed += 1;
                }
            }
            Err(error) => {
                check!(matches!(error, Errno(libc::ENOMEM | libc::EAGAIN)), "fork: {error}");
                refused += 1;
            }
        }
    }
    let changed = (0..keep).filter(|&number| peek(page(base, number)) != number as u8).count();
    check!(changed == 0, "{changed} pages changed");
    check!(
        well >= count - count / 50 - 2,
        "{well} of {count} well, {refused} refused, {killed} killed"
    );
    eprintln!("{well} well, {refused} refused, {killed} killed, {keep} pages in use");
    say!("{count} forks, {changed} pages changed");
    std::process::exit(programs::status());
}
