//! Mappings that come and go, and what other CPUs are told of it.

use programs::check;
use programs::memory::{self, PAGE, PRIVATE, RW};
use std::cell::Cell;

use crate::raw::{call, write_pages};
use crate::sibling::Hog;
use crate::suite::Suite;

const SMALL: usize = 64 << 10;
const LARGE: usize = 2 << 20;

const PRIVATE_EXPEDITED: u64 = libc::MEMBARRIER_CMD_PRIVATE_EXPEDITED as u64;
const REGISTER: u64 = libc::MEMBARRIER_CMD_REGISTER_PRIVATE_EXPEDITED as u64;

pub fn measure(suite: &Suite) {
    map(suite);
    for (name, len) in [("munmap/64kib", SMALL), ("munmap/2mib", LARGE)] {
        suite.measure_between(name, 1, || touched(len), |mapped| unmap(mapped, len));
    }
    let page = touched(PAGE);
    shootdown(suite, "tlb-shootdown/munmap", || touched(PAGE), |page| unmap(page, PAGE));
    shootdown(
        suite,
        "tlb-shootdown/mprotect",
        || writable(page),
        |page| {
            protect(page, libc::PROT_READ);
        },
    );
    shootdown(
        suite,
        "tlb-shootdown/madvise",
        || writable(page),
        |page| {
            call(libc::SYS_madvise, [page as u64, PAGE as u64, libc::MADV_DONTNEED as u64]);
        },
    );
    unmap(page, PAGE);
    if let Some(there) = suite.there("membarrier") {
        let registered = call(libc::SYS_membarrier, [REGISTER, 0, 0]);
        check!(registered == 0, "membarrier: {registered}");
        let _hog = Hog::on(there);
        suite.measure("membarrier", 1, || {
            call(libc::SYS_membarrier, [PRIVATE_EXPEDITED, 0, 0]);
        });
    }
}

/// Each round unmaps, before it begins, what the last one has mapped.
fn map(suite: &Suite) {
    let mapped = Cell::new(memory::pages(SMALL / PAGE));
    suite.measure_between(
        "mmap",
        1,
        || unmap(mapped.get(), SMALL),
        |()| {
            let (protection, flags) = (RW as u64, PRIVATE as u64);
            let at = call(libc::SYS_mmap, [0, SMALL as u64, protection, flags, u64::MAX, 0]);
            mapped.set(at as *mut u8);
        },
    );
    unmap(mapped.get(), SMALL);
}

/// What a change of a page costs that another CPU may have in its TLB.
fn shootdown(
    suite: &Suite,
    name: &str,
    prepare: impl FnMut() -> *mut u8,
    change: impl FnMut(*mut u8),
) {
    if let Some(there) = suite.there(name) {
        // A thread of this program, so that its CPU has this address space loaded.
        let _hog = Hog::on(there);
        suite.measure_between(name, 1, prepare, change);
    }
}

/// A mapping of which every page has been written.
fn touched(len: usize) -> *mut u8 {
    let mapped = memory::pages(len / PAGE);
    write_pages(mapped, len / PAGE);
    mapped
}

#[inline(always)]
fn unmap(mapped: *mut u8, len: usize) {
    call(libc::SYS_munmap, [mapped as u64, len as u64]);
}

#[inline(always)]
fn protect(page: *mut u8, protection: i32) {
    call(libc::SYS_mprotect, [page as u64, PAGE as u64, protection as u64]);
}

/// The page, writable and written.
fn writable(page: *mut u8) -> *mut u8 {
    protect(page, RW);
    write_pages(page, 1);
    page
}
