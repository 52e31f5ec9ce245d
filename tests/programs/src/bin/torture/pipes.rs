//! Many at the two ends of a pipe.

use std::sync::atomic::Ordering;

use programs::check;
use programs::process::{Status, spawn, wait};

use super::{counter, scaled, verdict};

/// Many writers, many readers, one pipe: every byte arrives once.
pub fn pipe_storm() {
    use programs::process::{close, pipe, read, write};
    let (input, output) = pipe(0);
    let sum = counter();
    let readers: Vec<i32> = (0..4)
        .map(|_| {
            spawn(|| {
                close(output);
                loop {
                    let bytes = read(input, 333).unwrap();
                    if bytes.is_empty() {
                        return 0;
                    }
                    sum.fetch_add(
                        bytes.iter().map(|&byte| u32::from(byte)).sum(),
                        Ordering::Relaxed,
                    );
                }
            })
        })
        .collect();
    let writers: Vec<i32> = (1..=4u8)
        .map(|me| {
            spawn(move || {
                close(input);
                for n in 0..scaled(300) as usize {
                    let block = vec![me; 1 + n * 37 % 3_000];
                    let mut rest = &block[..];
                    while !rest.is_empty() {
                        rest = &rest[write(output, rest).unwrap() as usize..];
                    }
                }
                0
            })
        })
        .collect();
    close(input);
    close(output);
    let all: Vec<Status> = writers.into_iter().chain(readers).map(wait).collect();
    check!(all.iter().all(|status| status.exited_with(0)), "a child failed");
    let bytes: u32 = (0..scaled(300)).map(|n| 1 + n * 37 % 3_000).sum();
    verdict("all of them", sum.load(Ordering::Relaxed) == bytes * 10);
}
