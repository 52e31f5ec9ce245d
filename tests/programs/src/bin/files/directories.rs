//! Directories: making, removing, changing into and listing them.

use std::ffi::CStr;

use programs::process::{close, ending};
use programs::sys::value;
use programs::{say, sys};

use super::{RW, open, opened, remove, stat, text};

pub fn directories() {
    let make = |name: &CStr| value(sys!(SYS_mkdir, name.as_ptr(), 0o777));
    say!("{} {} {}", make(c"d"), stat(c"d"), make(c"d"));
    say!("{} {}", make(c"d/e/f"), make(c"d/e"));
    let fd = opened(c"d/file", RW);
    close(fd);
    say!("through a file: {} {}", make(c"d/file/x"), value(open(c"d/file/x", RW)));
    say!("slash after a file: {}", value(open(c"d/file/", libc::O_RDONLY)));
    say!("full: {}", value(sys!(SYS_rmdir, c"d".as_ptr())));
    say!("a file: {}", value(sys!(SYS_rmdir, c"d/file".as_ptr())));
    say!("dot: {}", value(sys!(SYS_rmdir, c"d/e/.".as_ptr())));
    say!("write a directory: {}", value(open(c"d", libc::O_WRONLY)));
    let dir = opened(c"d", libc::O_RDONLY | libc::O_DIRECTORY);
    say!("read a directory: {}", text(dir, 10));
    say!("file as a directory: {}", value(open(c"d/file", libc::O_DIRECTORY)));
    say!("{} {}", value(sys!(SYS_fchdir, dir)), stat(c"file"));
    say!("up: {}", value(sys!(SYS_chdir, c"..".as_ptr())));
    close(dir);
    say!("to a file: {}", value(sys!(SYS_chdir, c"d/file".as_ptr())));
    say!("to nothing: {}", value(sys!(SYS_chdir, c"none".as_ptr())));
    remove(c"d/file");
    sys!(SYS_rmdir, c"d/e".as_ptr()).unwrap();
    // One that is gone while we stand in it.
    let status = ending(|| {
        sys!(SYS_chdir, c"d".as_ptr()).unwrap();
        sys!(SYS_rmdir, c"../d".as_ptr()).unwrap();
        let mut path = [0u8; 100];
        say!("gone: {} {}", value(sys!(SYS_getcwd, &mut path, 100)), value(open(c"x", RW)));
        0
    });
    say!("{status}");
    let mut path = [0u8; 4096];
    say!("no room: {}", value(sys!(SYS_getcwd, &mut path, 1)));
    say!("nowhere: {}", value(sys!(SYS_getcwd, 16u64, 4096)));
}

/// The names that getdents64 gives, in as many calls as its buffer needs.
fn entries(name: &CStr, room: usize) -> Vec<String> {
    let fd = opened(name, libc::O_RDONLY | libc::O_DIRECTORY);
    let mut names = Vec::new();
    let mut buffer = vec![0u8; room];
    loop {
        let got = sys!(SYS_getdents64, fd, buffer.as_mut_ptr(), room).unwrap() as usize;
        if got == 0 {
            break;
        }
        let mut at = 0;
        while at < got {
            let len = usize::from(u16::from_le_bytes([buffer[at + 16], buffer[at + 17]]));
            let kind = buffer[at + 18];
            let name = CStr::from_bytes_until_nul(&buffer[at + 19..at + len]).unwrap();
            names.push(format!("{} {kind}", name.to_string_lossy()));
            at += len;
        }
    }
    close(fd);
    names.sort();
    names
}

pub fn listing() {
    sys!(SYS_mkdir, c"d".as_ptr(), 0o755).unwrap();
    sys!(SYS_mkdir, c"d/sub".as_ptr(), 0o755).unwrap();
    sys!(SYS_symlink, c"x".as_ptr(), c"d/link".as_ptr()).unwrap();
    close(opened(c"d/file", RW));
    say!("{:?}", entries(c"d", 1_000));
    for number in 0..100 {
        std::fs::write(format!("d/number-{number}"), b"").unwrap();
    }
    say!("{} {}", entries(c"d", 4_096).len(), entries(c"d", 4_096) == entries(c"d", 64));
    // Removing while reading skips nothing that stays.
    let removed = std::fs::read_dir("d").unwrap().map(|entry| entry.unwrap().path());
    let removed: Vec<_> =
        removed.filter(|path| path.to_string_lossy().contains("number")).collect();
    removed.iter().for_each(|path| std::fs::remove_file(path).unwrap());
    say!("{} {:?}", removed.len(), entries(c"d", 1_000));
    let fd = opened(c"d", libc::O_RDONLY);
    let mut small = [0u8; 10];
    say!("no room: {}", value(sys!(SYS_getdents64, fd, &mut small, 10)));
    say!("nowhere: {}", value(sys!(SYS_getdents64, fd, 16u64, 1_000)));
    let mut large = [0u8; 1_000];
    say!("none was lost: {}", value(sys!(SYS_getdents64, fd, &mut large, 1_000)));
    close(fd);
    let fd = opened(c"d/file", libc::O_RDONLY);
    say!("of a file: {}", value(sys!(SYS_getdents64, fd, &mut small, 10)));
    close(fd);
    std::fs::remove_dir_all("d").unwrap();
    say!("{}", stat(c"d"));
}

/// What a directory that was removed still knows: where it was.
pub fn removed_directories() {
    let inode = |path: &str| {
        std::fs::metadata(path).map(|it| std::os::unix::fs::MetadataExt::ino(&it)).ok()
    };
    let top = inode(".");
    std::fs::create_dir_all("a/b").unwrap();
    let a = inode("a");
    let path = std::env::current_dir().unwrap();
    let status = ending(|| {
        std::env::set_current_dir("a/b").unwrap();
        say!("{}", value(sys!(SYS_rmdir, c"../b".as_ptr())));
        say!("above: {}", inode("..") == a);
        let link = std::fs::read_link("/proc/self/cwd").unwrap();
        say!("{:?}", link.strip_prefix(&path));
        say!("made in it: {}", value(open(c"x", RW)));
        say!("{}", value(sys!(SYS_rmdir, c"../../a".as_ptr())));
        say!("above: {} {}", inode("..") == a, inode("../..") == top);
        say!("{}", value(sys!(SYS_chdir, c"../..".as_ptr())));
        say!("back: {}", inode(".") == top);
        0
    });
    say!("{status}");
    // So many that none is let go from inside of the next.
    let status = ending(|| {
        for _ in 0..2_000 {
            sys!(SYS_mkdir, c"deep".as_ptr(), 0o755).unwrap();
            sys!(SYS_chdir, c"deep".as_ptr()).unwrap();
        }
        let fd = opened(c".", libc::O_RDONLY);
        for _ in 0..2_000 {
            sys!(SYS_chdir, c"..".as_ptr()).unwrap();
            sys!(SYS_rmdir, c"deep".as_ptr()).unwrap();
        }
        close(fd);
        i32::from(inode(".") != top)
    });
    say!("{status}");
}
