//! Page faults: pages that are not there yet, and pages that a fork has left shared.

use programs::check;
use programs::memory::{self, PAGE, PRIVATE, RW};
use programs::process;

use crate::raw::{read_pages, ticks, write_pages};
use crate::suite::{Sample, Suite};

/// Memory below one last-level page table.
const TABLE: usize = 2 << 20;
/// Pages in a sample: a multiple of what a CPU fetches at a time when it has no free page left.
const PAGES: u32 = 64;

pub fn measure(suite: &Suite) {
    not_there(suite, "fault/demand-zero", write_pages);
    not_there(suite, "fault/zero-read", |first, pages| read_pages(first, pages));
    let names = ["fault/first-write-after-fork", "fault/cow-copy", "fault/cow-reuse"];
    if names.iter().any(|name| suite.wants(name)) {
        shared_by_a_fork(suite, names);
    }
}

/// A mapping with a table for each round.
struct Tables {
    mapped: *mut u8,
    count: usize,
}

impl Tables {
    fn map(suite: &Suite) -> Self {
        let count = suite.rounds() as usize;
        let flags = PRIVATE | libc::MAP_NORESERVE;
        let mapped = memory::map((count + 1) * TABLE, RW, flags).expect("mmap");
        Self { mapped, count }
    }

    /// The first page below the table of a round.
    fn table(&self, round: u32) -> *mut u8 {
        let first = self.mapped.wrapping_add(self.mapped.align_offset(TABLE));
        first.wrapping_add(round as usize * TABLE)
    }
}

impl Drop for Tables {
    fn drop(&mut self) {
        memory::unmap(self.mapped, (self.count + 1) * TABLE);
    }
}

/// Touches pages below a table that is there, since its first page is.
fn not_there(suite: &Suite, name: &str, touch: impl Fn(*mut u8, usize)) {
    if !suite.wants(name) {
        return;
    }
    let tables = Tables::map(suite);
    for round in 0..suite.rounds() {
        let first = tables.table(round);
        touch(first, 1);
        let start = ticks();
        touch(first.wrapping_add(PAGE), PAGES as usize);
        let end = ticks();
        suite.tell(round, &Sample { name, start, end, ops: PAGES });
    }
}

/// A child writes to what it shares with its parent; then it ends, and the parent writes to the same, which is
/// its own again.
fn shared_by_a_fork(suite: &Suite, [first_write, copy, reuse]: [&str; 3]) {
    let tables = Tables::map(suite);
    write_pages(tables.table(0), tables.count * TABLE / PAGE);
    let write_all = |names: [Option<&str>; 2]| {
        for round in 0..suite.rounds() {
            let first = tables.table(round);
            let start = ticks();
            write_pages(first, 1);
            let between = ticks();
            write_pages(first.wrapping_add(PAGE), PAGES as usize);
            let end = ticks();
            let [alone, others] = names;
            if let Some(name) = alone {
                suite.tell(round, &Sample { name, start, end: between, ops: 1 });
            }
            if let Some(name) = others {
                suite.tell(round, &Sample { name, start: between, end, ops: PAGES });
            }
        }
    };
    let status = process::ending(|| {
        write_all([Some(first_write), Some(copy)]);
        0
    });
    check!(status.exited_with(0), "the child that writes: {status}");
    write_all([None, Some(reuse)]);
}
