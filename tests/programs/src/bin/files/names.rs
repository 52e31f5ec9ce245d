//! What a file is called: links, renames, modes, and the names that are refused.

use std::ffi::CStr;

use programs::process::{close, write};
use programs::sys::{outcome, value};
use programs::{say, sys};

use super::{RW, describe, open, opened, remove, stat, text};

pub fn unlink() {
    let fd = opened(c"f", RW);
    write(fd, b"alive").unwrap();
    say!("{} {}", remove(c"f"), stat(c"f"));
    sys!(SYS_lseek, fd, 0, 0).unwrap();
    say!("{} links {}", text(fd, 10), describe(|status| sys!(SYS_fstat, fd, status)));
    let again = opened(c"f", RW | libc::O_EXCL);
    say!("another of that name: {}", stat(c"f"));
    close(again);
    close(fd);
    say!("{} {}", remove(c"f"), remove(c"f"));
    sys!(SYS_mkdir, c"d".as_ptr(), 0o755).unwrap();
    say!("a directory: {}", remove(c"d"));
    say!("through a file: {}", remove(c"d/x/y"));
    say!("{}", value(sys!(SYS_rmdir, c"d".as_ptr())));
}

pub fn links() {
    let fd = opened(c"f", RW);
    write(fd, b"shared").unwrap();
    say!("{} {} {}", value(sys!(SYS_link, c"f".as_ptr(), c"g".as_ptr())), stat(c"f"), stat(c"g"));
    say!("taken: {}", value(sys!(SYS_link, c"f".as_ptr(), c"g".as_ptr())));
    say!("nothing: {}", value(sys!(SYS_link, c"none".as_ptr(), c"h".as_ptr())));
    say!("a directory: {}", value(sys!(SYS_link, c".".as_ptr(), c"h".as_ptr())));
    say!("{}", remove(c"f"));
    say!("{} {:?}", stat(c"g"), std::fs::read_to_string("g"));
    close(fd);
    remove(c"g");
}

pub fn symlinks() {
    let link =
        |target: &CStr, name: &CStr| value(sys!(SYS_symlink, target.as_ptr(), name.as_ptr()));
    say!("{} {}", link(c"target", c"l"), stat(c"l"));
    say!("dangling: {}", value(open(c"l", libc::O_RDONLY)));
    let fd = opened(c"l", RW);
    write(fd, b"through").unwrap();
    close(fd);
    say!("{} {}", stat(c"target"), describe(|status| sys!(SYS_stat, c"l".as_ptr(), status)));
    let mut buffer = [b'.'; 10];
    say!(
        "{} {:?}",
        value(sys!(SYS_readlink, c"l".as_ptr(), &mut buffer, 10)),
        String::from_utf8_lossy(&buffer)
    );
    say!("cut: {}", value(sys!(SYS_readlink, c"l".as_ptr(), &mut buffer, 3)));
    say!("no room: {}", value(sys!(SYS_readlink, c"l".as_ptr(), &mut buffer, 0)));
    say!("of a file: {}", value(sys!(SYS_readlink, c"target".as_ptr(), &mut buffer, 10)));
    say!("not followed: {}", value(open(c"l", libc::O_RDONLY | libc::O_NOFOLLOW)));
    say!("taken: {}", link(c"x", c"l"));
    say!("{} {}", link(c"loop2", c"loop1"), link(c"loop1", c"loop2"));
    say!("a loop: {}", value(open(c"loop1", libc::O_RDONLY)));
    say!("to nothing: {}", link(c"", c"empty"));
    sys!(SYS_mkdir, c"d".as_ptr(), 0o755).unwrap();
    say!("{}", link(c"d", c"dl"));
    say!("beneath: {}", value(sys!(SYS_mkdir, c"dl/e".as_ptr(), 0o755)));
    say!("{}", stat(c"d/e"));
    say!("exclusive onto a dangling one: {}", value(open(c"loop1", RW | libc::O_EXCL)));
    for name in [c"l", c"target", c"loop1", c"loop2", c"dl"] {
        say!("{}", remove(name));
    }
    say!("{} {}", value(sys!(SYS_rmdir, c"d/e".as_ptr())), value(sys!(SYS_rmdir, c"d".as_ptr())));
}

/// A slash after a link's name follows the link to look at what is there, not to change names.
pub fn slashes() {
    sys!(SYS_mkdir, c"d".as_ptr(), 0o755).unwrap();
    close(opened(c"f", RW));
    for (target, name) in [(c"d", c"l"), (c"none", c"dangling")] {
        sys!(SYS_symlink, target.as_ptr(), name.as_ptr()).unwrap();
    }
    say!("{}", stat(c"l/"));
    say!("rmdir: {}", value(sys!(SYS_rmdir, c"l/".as_ptr())));
    say!("unlink: {}", remove(c"l/"));
    say!("mkdir: {}", value(sys!(SYS_mkdir, c"dangling/".as_ptr(), 0o755)));
    say!("rename: {} {}", moved(c"l/", c"other"), moved(c"d", c"l/"));
    for name in [c"f/", c"d/", c"l/", c"none/"] {
        let flags = [libc::O_CREAT, libc::O_CREAT | libc::O_EXCL, libc::O_TRUNC];
        say!("{name:?}: {}", flags.map(|flags| outcome(open(name, flags))).join(" "));
    }
    let exchanged = |from: &CStr, to: &CStr| {
        let here = libc::AT_FDCWD;
        value(sys!(SYS_renameat2, here, from.as_ptr(), here, to.as_ptr(), libc::RENAME_EXCHANGE))
    };
    say!("exchange: {} {}", exchanged(c"d", c"f/"), exchanged(c"f", c"l/"));
    say!("{} {} {} {}", stat(c"d"), stat(c"f"), remove(c"l"), remove(c"dangling"));
    say!("{} {}", remove(c"f"), value(sys!(SYS_rmdir, c"d".as_ptr())));
}

fn moved(from: &CStr, to: &CStr) -> String {
    value(sys!(SYS_rename, from.as_ptr(), to.as_ptr()))
}

pub fn rename() {
    for name in [c"a", c"b"] {
        let fd = opened(name, RW);
        write(fd, name.to_bytes()).unwrap();
        close(fd);
    }
    say!("onto nothing: {} {} {}", moved(c"a", c"c"), stat(c"a"), stat(c"c"));
    let fd = opened(c"b", libc::O_RDONLY);
    say!("onto a file: {} {:?}", moved(c"c", c"b"), std::fs::read_to_string("b"));
    say!("the old one is open: {}", text(fd, 5));
    close(fd);
    say!("onto itself: {}", moved(c"b", c"b"));
    say!("nothing: {}", moved(c"a", c"b"));
    for name in [c"d", c"d/e", c"x"] {
        sys!(SYS_mkdir, name.as_ptr(), 0o755).unwrap();
    }
    say!("file onto directory: {}", moved(c"b", c"d"));
    say!("directory onto file: {}", moved(c"d", c"b"));
    say!("onto a full one: {}", moved(c"x", c"d"));
    say!("into itself: {}", moved(c"d", c"d/e/f"));
    say!("onto its parent: {}", moved(c"d/e", c"d"));
    say!("onto an empty one: {} {}", moved(c"d", c"x"), stat(c"x/e"));
    say!("into another: {} {}", moved(c"b", c"x/b"), stat(c"x/b"));
    say!("dots: {} {}", moved(c".", c"y"), moved(c"x/..", c"y"));
    let exchange = |flags: u32| {
        value(sys!(
            SYS_renameat2,
            libc::AT_FDCWD,
            c"x/b".as_ptr(),
            libc::AT_FDCWD,
            c"x/e".as_ptr(),
            flags
        ))
    };
    say!("no replace: {}", exchange(libc::RENAME_NOREPLACE));
    say!("bad flags: {}", exchange(0x80));
    remove(c"x/b");
    sys!(SYS_rmdir, c"x/e".as_ptr()).unwrap();
    sys!(SYS_rmdir, c"x".as_ptr()).unwrap();
}

pub fn at() {
    sys!(SYS_mkdir, c"d".as_ptr(), 0o755).unwrap();
    let dir = opened(c"d", libc::O_RDONLY | libc::O_DIRECTORY);
    let fd = sys!(SYS_openat, dir, c"f".as_ptr(), RW, 0o600).unwrap() as i32;
    say!("{}", stat(c"d/f"));
    close(fd);
    say!("{}", value(sys!(SYS_mkdirat, dir, c"sub".as_ptr(), 0o700)));
    say!("{}", value(sys!(SYS_symlinkat, c"f".as_ptr(), dir, c"l".as_ptr())));
    say!("{}", value(sys!(SYS_linkat, dir, c"f".as_ptr(), dir, c"h".as_ptr(), 0)));
    say!(
        "{}",
        describe(|status| sys!(
            SYS_newfstatat,
            dir,
            c"l".as_ptr(),
            status,
            libc::AT_SYMLINK_NOFOLLOW
        ))
    );
    say!("{}", describe(|status| sys!(SYS_newfstatat, dir, c"l".as_ptr(), status, 0)));
    say!(
        "{}",
        describe(|status| sys!(SYS_newfstatat, dir, c"".as_ptr(), status, libc::AT_EMPTY_PATH))
    );
    say!("empty: {}", describe(|status| sys!(SYS_newfstatat, dir, c"".as_ptr(), status, 0)));
    say!(
        "flags: {}",
        describe(|status| sys!(SYS_newfstatat, dir, c"f".as_ptr(), status, 0x8_0000))
    );
    say!("{}", value(sys!(SYS_renameat, dir, c"h".as_ptr(), libc::AT_FDCWD, c"h".as_ptr())));
    say!("access {}", value(sys!(SYS_faccessat, dir, c"f".as_ptr(), libc::R_OK)));
    say!("access {}", value(sys!(SYS_faccessat, dir, c"none".as_ptr(), libc::F_OK)));
    say!(
        "not a directory: {}",
        value(sys!(SYS_openat, 0, c"f".as_ptr(), 0, 0)).replace("ENOTDIR", "no")
    );
    say!("not open: {}", value(sys!(SYS_openat, 1_000, c"f".as_ptr(), 0, 0)));
    say!("{}", value(sys!(SYS_unlinkat, dir, c"sub".as_ptr(), libc::AT_REMOVEDIR)));
    say!(
        "{} {}",
        value(sys!(SYS_unlinkat, dir, c"f".as_ptr(), 0)),
        value(sys!(SYS_unlinkat, dir, c"l".as_ptr(), 0))
    );
    say!("flags: {}", value(sys!(SYS_unlinkat, dir, c"l".as_ptr(), 1)));
    close(dir);
    say!("{} {}", remove(c"h"), value(sys!(SYS_rmdir, c"d".as_ptr())));
}

pub fn modes() {
    sys!(SYS_umask, 0o027).unwrap();
    let fd = sys!(SYS_open, c"f".as_ptr(), RW, 0o7777).unwrap() as i32;
    say!("{}", stat(c"f"));
    say!("{} {}", value(sys!(SYS_fchmod, fd, 0o640)), stat(c"f"));
    say!("{} {}", value(sys!(SYS_chmod, c"f".as_ptr(), 0o4711)), stat(c"f"));
    say!("umask {:#o}", sys!(SYS_umask, 0o022).unwrap());
    say!("nothing: {}", value(sys!(SYS_chmod, c"none".as_ptr(), 0o600)));
    close(fd);
    remove(c"f");
}

/// What is made in a directory with the set-group-ID bit.
pub fn set_group() {
    sys!(SYS_mkdir, c"d".as_ptr(), 0o755).unwrap();
    sys!(SYS_chmod, c"d".as_ptr(), 0o2755).unwrap();
    sys!(SYS_mkdir, c"d/e".as_ptr(), 0o700).unwrap();
    close(opened(c"d/f", RW));
    say!("{} {} {}", stat(c"d"), stat(c"d/e"), stat(c"d/f"));
    remove(c"d/f");
    for name in [c"d/e", c"d"] {
        sys!(SYS_rmdir, name.as_ptr()).unwrap();
    }
}

/// The name of a socket is no way to it.
pub fn sockets() {
    say!("{}", value(sys!(SYS_mknod, c"s".as_ptr(), libc::S_IFSOCK | 0o600, 0)));
    say!("{} {}", stat(c"s"), value(open(c"s", libc::O_RDWR)));
    remove(c"s");
}

pub fn dot() {
    sys!(SYS_mkdir, c"d".as_ptr(), 0o755).unwrap();
    close(opened(c"d/f", RW));
    for path in [c"./d/f", c"d//f", c"d/./f", c"d/../d/f", c"././d/.././d/f"] {
        say!("{path:?}: {}", stat(path));
    }
    say!("{}", describe(|status| sys!(SYS_stat, c"/../../..".as_ptr(), status)));
    remove(c"d/f");
    sys!(SYS_rmdir, c"d".as_ptr()).unwrap();
}

pub fn names() {
    let longest = std::ffi::CString::new("n".repeat(255)).unwrap();
    let longer = std::ffi::CString::new("n".repeat(256)).unwrap();
    say!("{} {}", open(&longest, RW).is_ok(), value(open(&longer, RW)));
    remove(&longest);
    let path = std::ffi::CString::new("./".repeat(2_047)).unwrap();
    say!("{} bytes: {}", path.count_bytes(), stat(&path).starts_with("directory"));
    let path = std::ffi::CString::new("./".repeat(2_048)).unwrap();
    say!("{} bytes: {}", path.count_bytes(), stat(&path));
    for name in [c"with space", c"\xff\xfe", c"new\nline"] {
        say!("{} {}", open(name, RW).is_ok(), remove(name));
    }
    say!("nowhere: {}", value(sys!(SYS_open, 16u64, 0)));
}

pub fn errors() {
    let fd = opened(c"f", RW);
    say!("to nowhere: {}", value(sys!(SYS_read, fd, 16u64, 0)));
    write(fd, b"contents").unwrap();
    sys!(SYS_lseek, fd, 0, 0).unwrap();
    say!("to nowhere: {}", value(sys!(SYS_read, fd, 16u64, 4)));
    say!("from nowhere: {}", value(sys!(SYS_write, fd, 16u64, 4)));
    say!("fd -1: {} {}", text(-1, 1), value(write(-1, b"x")));
    say!("close: {} {}", value(sys!(SYS_close, fd)), value(sys!(SYS_close, fd)));
    say!("fcntl: {}", value(sys!(SYS_fcntl, fd, libc::F_GETFL)));
    let fd = opened(c"f", libc::O_RDONLY);
    say!("fcntl 999: {}", value(sys!(SYS_fcntl, fd, 999)));
    say!("ioctl: {}", value(sys!(SYS_ioctl, fd, libc::TCGETS, 16u64)));
    say!("fsync: {}", value(sys!(SYS_fsync, fd)));
    close(fd);
    remove(c"f");
}
