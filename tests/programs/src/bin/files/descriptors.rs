//! Devices, descriptors that are copied, and numbers that are none.

use programs::process::{close, read, write};
use programs::sys::value;
use programs::{memory, say, sys};

use super::{RW, describe, open, opened, remove, stat};

pub fn devices() {
    for name in [c"/dev/null", c"/dev/zero", c"/dev/full", c"/dev/random", c"/dev/urandom"] {
        let fd = opened(name, libc::O_RDWR);
        let what = describe(|status| sys!(SYS_fstat, fd, status));
        let got = read(fd, 5_000).map(|bytes| (bytes.len(), bytes.iter().all(|&byte| byte == 0)));
        say!(
            "{name:?} {what} read {got:?} write {}",
            value(write(fd, b"abc")).replace("ENOSPC", "full")
        );
        // Each is the same everywhere: whatever is sought, it is at its beginning.
        let seek = |offset: i64, whence: i32| value(sys!(SYS_lseek, fd, offset, whence));
        say!("seek {} {} {}", seek(-5, 0), seek(100, 0), seek(7, 1));
        close(fd);
    }
    let fd = opened(c"/dev/zero", libc::O_RDWR);
    let map = sys!(SYS_mmap, 0, 8_192, memory::RW, libc::MAP_PRIVATE, fd, 0).unwrap() as *mut u8;
    memory::poke(map, 1);
    say!("mapped: {} {}", memory::peek(map), memory::peek(map.wrapping_add(4_096)));
    memory::unmap(map, 8_192);
    close(fd);
}

/// The lowest free number is taken.
pub fn descriptors() {
    let fds: Vec<i32> = (0..5).map(|_| opened(c"/dev/null", 0)).collect();
    let base = fds[0];
    say!("in a row: {}", fds.iter().enumerate().all(|(n, &fd)| fd == base + n as i32));
    close(fds[3]);
    close(fds[1]);
    say!("{}", opened(c"/dev/null", 0) == base + 1);
    say!("{}", opened(c"/dev/null", 0) == base + 3);
    say!("range: {}", value(sys!(SYS_close_range, base + 1, base + 3, 0)));
    say!(
        "{} {}",
        value(sys!(SYS_fcntl, base + 2, libc::F_GETFD)),
        value(sys!(SYS_fcntl, base + 4, libc::F_GETFD))
    );
    say!("backwards: {}", value(sys!(SYS_close_range, 9, 8, 0)));
    close(base);
    close(base + 4);
    let fd = opened(c"/dev/null", libc::O_CLOEXEC);
    say!("{}", value(sys!(SYS_fcntl, fd, libc::F_GETFD)));
    say!(
        "{} {}",
        value(sys!(SYS_fcntl, fd, libc::F_SETFD, 0)),
        value(sys!(SYS_fcntl, fd, libc::F_GETFD))
    );
    close(fd);
}

/// Where no descriptor is left, no file is made and none is cut off.
pub fn no_descriptor() {
    std::fs::write("f", b"kept").unwrap();
    let mut before = libc::rlimit64 { rlim_cur: 0, rlim_max: 0 };
    sys!(SYS_prlimit64, 0, libc::RLIMIT_NOFILE, 0, &mut before).unwrap();
    let none = libc::rlimit64 { rlim_cur: 0, ..before };
    sys!(SYS_prlimit64, 0, libc::RLIMIT_NOFILE, &none, 0).unwrap();
    say!("cut off: {}", value(open(c"f", libc::O_RDWR | libc::O_TRUNC)));
    say!("made: {}", value(open(c"g", RW)));
    say!("not there: {}", value(open(c"none", libc::O_RDONLY)));
    sys!(SYS_prlimit64, 0, libc::RLIMIT_NOFILE, &before, 0).unwrap();
    say!("{} {}", stat(c"f"), stat(c"g"));
    remove(c"f");
}
