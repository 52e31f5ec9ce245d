//! Address spaces: mapping, protection, moving, growing; what fork shares and what it does not.

mod copies;
mod files;
mod growth;
mod mapping;
mod residency;
mod sharing;

use programs::memory::{PAGE, page, peek, poke};
use programs::process::{ending, write};
use programs::sys::Errno;
use programs::{check, sys};

fn main() {
    programs::main(&[
        ("zero", mapping::zero),
        ("protect", mapping::protect),
        ("split", mapping::split),
        ("gap", mapping::gap),
        ("fixed", mapping::fixed),
        ("errors", mapping::errors),
        ("remap", growth::remap),
        ("remap-kept", growth::remap_kept),
        ("remap-errors", growth::remap_errors),
        ("dontneed", residency::dontneed),
        ("break", growth::program_break),
        ("sparse", mapping::sparse),
        ("stack", growth::stack),
        ("grows-down", growth::grows_down),
        ("copy-on-write", copies::copy_on_write),
        ("both-ways", copies::both_ways),
        ("shared", sharing::shared),
        ("shared-late", sharing::shared_late),
        ("by-name", sharing::shared_by_name),
        ("protected-copy", copies::protected_copy),
        ("unmapped-copy", copies::unmapped_copy),
        ("file", files::file),
        ("shared-file", files::shared_file),
        ("deleted-file", files::deleted_file),
        ("cut-off", files::cut_off),
        ("calls", copies::calls),
        ("presence", residency::presence),
        ("locking", residency::locking),
        ("advice", residency::advice),
        ("flags", mapping::flags),
        ("limits", mapping::limits),
        ("generations", copies::generations),
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

fn segfaults_on_write(address: *mut u8) -> bool {
    !ending(|| {
        poke(address, 1);
        0
    })
    .exited_with(0)
}

fn resize(base: *mut u8, old: usize, new: usize, flags: i32) -> Result<*mut u8, Errno> {
    sys!(SYS_mremap, base, old * PAGE, new * PAGE, flags, 0).map(|address| address as *mut u8)
}

fn create(name: &std::ffi::CStr, contents: &[u8]) -> i32 {
    let flags = libc::O_CREAT | libc::O_RDWR | libc::O_TRUNC;
    let fd = sys!(SYS_open, name.as_ptr(), flags, 0o600).unwrap() as i32;
    check!(write(fd, contents) == Ok(contents.len() as u64), "cannot write {name:?}");
    fd
}

/// Which of eight pages are in memory, as mincore(2) says it.
fn present(base: *const u8) -> String {
    let mut pages = [9u8; 8];
    match sys!(SYS_mincore, base, 8 * PAGE, &mut pages) {
        Ok(_) => pages.iter().map(|page| if page & 1 == 1 { '1' } else { '0' }).collect(),
        Err(error) => error.to_string(),
    }
}
