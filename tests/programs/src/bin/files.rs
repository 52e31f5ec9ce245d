//! Files: what opens, what is written and read, where; links, renames, directories and their errors.

use std::ffi::CStr;

use programs::process::{close, ending, pipe, read, spawn, wait, write};
use programs::sys::{outcome, value};
use programs::{check, memory, say, sys};

fn main() {
    sys!(SYS_umask, 0o022).unwrap();
    programs::main(&[
        ("create", create),
        ("seek", seek),
        ("append", append),
        ("truncate", truncate),
        ("holes", holes),
        ("partly", partly),
        ("positioned", positioned),
        ("unlink", unlink),
        ("links", links),
        ("symlinks", symlinks),
        ("slashes", slashes),
        ("rename", rename),
        ("directories", directories),
        ("removed", removed_directories),
        ("listing", listing),
        ("at", at),
        ("modes", modes),
        ("set-group", set_group),
        ("sockets", sockets),
        ("allocate", allocate),
        ("read-ahead", read_ahead),
        ("dot", dot),
        ("names", names),
        ("errors", errors),
        ("devices", devices),
        ("descriptors", descriptors),
        ("no-descriptor", no_descriptor),
        ("std", std_files),
        ("sendfile", sendfile),
        ("concurrent", concurrent),
    ]);
}

const RW: i32 = libc::O_RDWR | libc::O_CREAT;

fn open(name: &CStr, flags: i32) -> sys::Result {
    sys!(SYS_open, name.as_ptr(), flags, 0o644)
}

fn opened(name: &CStr, flags: i32) -> i32 {
    open(name, flags).expect("open") as i32
}

fn text(fd: i32, len: usize) -> String {
    match read(fd, len) {
        Ok(bytes) => format!("{:?}", String::from_utf8_lossy(&bytes)),
        Err(error) => error.to_string(),
    }
}

fn remove(name: &CStr) -> String {
    value(sys!(SYS_unlink, name.as_ptr()))
}

/// Kind, permissions, links and size; the size of directories is the file system's own affair.
fn stat(name: &CStr) -> String {
    describe(|status| sys!(SYS_lstat, name.as_ptr(), status))
}

fn describe(get: impl FnOnce(*mut libc::stat) -> sys::Result) -> String {
    let mut status = std::mem::MaybeUninit::<libc::stat>::zeroed();
    if let Err(error) = get(status.as_mut_ptr()) {
        return error.to_string();
    }
    // SAFETY: all zeroes is a stat.
    let status = unsafe { status.assume_init() };
    let permissions = status.st_mode & 0o7777;
    match status.st_mode & libc::S_IFMT {
        libc::S_IFDIR => format!("directory {permissions:o}"),
        libc::S_IFREG => {
            format!("file {permissions:o} links {} size {}", status.st_nlink, status.st_size)
        }
        libc::S_IFLNK => format!("symlink size {}", status.st_size),
        libc::S_IFCHR => {
            format!("device {}:{}", libc::major(status.st_rdev), libc::minor(status.st_rdev))
        }
        libc::S_IFIFO => "pipe".into(),
        other => format!("kind {other:o}"),
    }
}

fn create() {
    say!("not there: {}", value(open(c"f", libc::O_RDONLY)));
    let fd = opened(c"f", RW | libc::O_EXCL);
    say!("exclusive again: {}", value(open(c"f", RW | libc::O_EXCL)));
    say!("{} {}", value(write(fd, b"contents")), stat(c"f"));
    let second = opened(c"f", libc::O_RDONLY);
    say!("{} {}", text(second, 100), text(second, 100));
    say!("read only: {}", value(write(second, b"x")));
    close(second);
    let third = opened(c"f", libc::O_WRONLY | libc::O_TRUNC);
    say!("truncated: {}", stat(c"f"));
    say!("write only: {}", text(third, 1));
    close(third);
    say!("the first sees it: {}", text(fd, 10));
    close(fd);
    say!("{} {}", remove(c"f"), stat(c"f"));
}

fn seek() {
    let fd = opened(c"f", RW);
    write(fd, b"0123456789").unwrap();
    for (offset, whence) in [(3, 0), (2, 1), (-4, 2), (-2, 1), (0, 2), (5, 2), (100, 0)] {
        let place = value(sys!(SYS_lseek, fd, offset, whence));
        let mut left = 0i32;
        sys!(SYS_ioctl, fd, libc::FIONREAD, &mut left).unwrap();
        say!("{left} from here on");
        say!("{offset} from {whence}: {place} {}", text(fd, 2));
    }
    say!("before the start: {}", value(sys!(SYS_lseek, fd, -1, 0)));
    say!("from 9: {}", value(sys!(SYS_lseek, fd, 0, 9)));
    say!("overflow: {}", sys!(SYS_lseek, fd, i64::MAX, 1).is_err());
    close(fd);
    remove(c"f");
}

fn append() {
    let fd = opened(c"f", RW | libc::O_APPEND);
    write(fd, b"one").unwrap();
    sys!(SYS_lseek, fd, 0, 0).unwrap();
    write(fd, b"two").unwrap();
    sys!(SYS_lseek, fd, 0, 0).unwrap();
    say!("{}", text(fd, 20));
    let flags = sys!(SYS_fcntl, fd, libc::F_GETFL).unwrap() as i32;
    say!("flags: {}", flags & libc::O_APPEND != 0 && flags & libc::O_ACCMODE == libc::O_RDWR);
    sys!(SYS_fcntl, fd, libc::F_SETFL, 0).unwrap();
    sys!(SYS_lseek, fd, 0, 0).unwrap();
    write(fd, b"ONE").unwrap();
    sys!(SYS_lseek, fd, 0, 0).unwrap();
    say!("{}", text(fd, 20));
    close(fd);
    remove(c"f");
}

fn truncate() {
    let fd = opened(c"f", RW);
    write(fd, b"0123456789").unwrap();
    say!("{} {}", value(sys!(SYS_ftruncate, fd, 4)), stat(c"f"));
    say!("{} {}", value(sys!(SYS_truncate, c"f".as_ptr(), 8)), stat(c"f"));
    sys!(SYS_lseek, fd, 0, 0).unwrap();
    say!("{}", text(fd, 20));
    say!(
        "negative: {} {}",
        value(sys!(SYS_ftruncate, fd, -1)),
        value(sys!(SYS_truncate, c"f".as_ptr(), -1))
    );
    let second = opened(c"f", libc::O_RDONLY);
    say!("read only: {}", value(sys!(SYS_ftruncate, second, 0)));
    close(second);
    // The part of a page beyond the end is zero when the file grows again.
    sys!(SYS_ftruncate, fd, 0).unwrap();
    write(fd, &[b'x'; 5_000]).unwrap_or(0);
    sys!(SYS_ftruncate, fd, 4_100).unwrap();
    sys!(SYS_ftruncate, fd, 4_300).unwrap();
    let bytes = std::fs::read("f").unwrap();
    say!("{} {}", bytes.len(), bytes.iter().filter(|&&byte| byte == 0).count());
    say!("directory: {}", value(sys!(SYS_truncate, c".".as_ptr(), 0)));
    close(fd);
    remove(c"f");
}

fn holes() {
    let fd = opened(c"f", RW);
    write(fd, b"start").unwrap();
    sys!(SYS_lseek, fd, 100_000, 0).unwrap();
    write(fd, b"end").unwrap();
    say!("{}", stat(c"f"));
    let bytes = std::fs::read("f").unwrap();
    say!("{} bytes that are not zero", bytes.iter().filter(|&&byte| byte != 0).count());
    close(fd);
    remove(c"f");
    let fd = opened(c"f", RW);
    sys!(SYS_ftruncate, fd, 100 * memory::PAGE).unwrap();
    let blocks = || std::os::unix::fs::MetadataExt::blocks(&std::fs::metadata("f").unwrap());
    say!("all of it: {} blocks", blocks());
    sys!(SYS_pwrite64, fd, b"data".as_ptr(), 4, 50 * memory::PAGE + 10).unwrap();
    check!((1..100).contains(&blocks()), "{} blocks of 800", blocks());
    for (at, whence) in [
        (0, libc::SEEK_DATA),
        (0, libc::SEEK_HOLE),
        (50 * memory::PAGE + 100, libc::SEEK_DATA),
        (50 * memory::PAGE + 100, libc::SEEK_HOLE),
        (52 * memory::PAGE, libc::SEEK_DATA),
        (100 * memory::PAGE, libc::SEEK_HOLE),
    ] {
        say!("{at}, {whence}: {}", value(sys!(SYS_lseek, fd, at, whence)));
    }
    close(fd);
    remove(c"f");
}

/// Memory that ends before the transfer does, at any byte: what there is counts.
fn partly() {
    let base = memory::pages(2);
    let end = memory::page(base, 1);
    sys!(SYS_mprotect, end, memory::PAGE, libc::PROT_NONE).unwrap();
    let fd = opened(c"f", RW);
    for len in [1, 3, 8, 13, 4_095] {
        let from = end.wrapping_sub(len);
        let written = value(sys!(SYS_pwrite64, fd, from, len + 20, 0));
        say!("{len}: {written} {}", value(sys!(SYS_pread64, fd, from, len + 20, 0)));
        let pieces = [[base as u64, 2], [from as u64, len as u64 + 1], [base as u64, 5]];
        say!("in pieces: {}", value(sys!(SYS_pwritev, fd, &pieces, 3, 1)));
    }
    say!("{}", stat(c"f"));
    say!("nothing: {}", value(sys!(SYS_pwrite64, fd, end, 10, 0)));
    say!("nothing: {}", value(sys!(SYS_pread64, fd, end, 10, 0)));
    sys!(SYS_lseek, fd, 0, 0).unwrap();
    say!("{}", value(sys!(SYS_read, fd, end.wrapping_sub(5), 100)));
    say!("at {}", value(sys!(SYS_lseek, fd, 0, libc::SEEK_CUR)));
    close(fd);
    memory::unmap(base, 2 * memory::PAGE);
    remove(c"f");
}

fn positioned() {
    let fd = opened(c"f", RW);
    say!("{}", value(sys!(SYS_pwrite64, fd, b"abcdef".as_ptr(), 6, 2)));
    let mut bytes = [b'-'; 4];
    say!("{} {:?}", value(sys!(SYS_pread64, fd, &mut bytes, 4, 1)), bytes);
    say!("offset unmoved: {}", value(sys!(SYS_lseek, fd, 0, 1)));
    say!("negative: {}", value(sys!(SYS_pread64, fd, &mut bytes, 4, -1)));
    say!("beyond: {}", value(sys!(SYS_pread64, fd, &mut bytes, 4, 1_000)));
    let vectors = [[bytes.as_mut_ptr() as u64, 2], [bytes.as_mut_ptr() as u64 + 2, 2]];
    say!("readv: {} {:?}", value(sys!(SYS_readv, fd, &vectors, 2)), bytes);
    close(fd);
    remove(c"f");
}

fn unlink() {
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

fn links() {
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

fn symlinks() {
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
fn slashes() {
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

fn rename() {
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

fn directories() {
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

fn listing() {
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

fn at() {
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

fn modes() {
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
fn set_group() {
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
fn sockets() {
    say!("{}", value(sys!(SYS_mknod, c"s".as_ptr(), libc::S_IFSOCK | 0o600, 0)));
    say!("{} {}", stat(c"s"), value(open(c"s", libc::O_RDWR)));
    remove(c"s");
}

fn allocate() {
    let fd = opened(c"f", RW);
    let allocate = |fd: i32, mode: i32, at: i64, len: i64| {
        format!("{} {}", value(sys!(SYS_fallocate, fd, mode, at, len)), stat(c"f"))
    };
    say!("{}", allocate(fd, 0, 100, 50));
    say!("kept: {}", allocate(fd, libc::FALLOC_FL_KEEP_SIZE, 1_000, 50));
    say!("shorter: {}", allocate(fd, 0, 0, 10));
    for (at, len) in [(0, 0), (0, -1), (-1, 1), (i64::MAX, 1), (1, i64::MAX)] {
        say!("{at} {len}: {}", allocate(fd, 0, at, len));
    }
    say!("mode: {}", allocate(fd, 1 << 20, 0, 10));
    let reader = opened(c"f", libc::O_RDONLY);
    say!("read only: {}", allocate(reader, 0, 0, 10));
    let (input, output) = programs::process::pipe(0);
    say!("a pipe: {}", allocate(output, 0, 0, 10));
    for fd in [fd, reader, input, output] {
        close(fd);
    }
    remove(c"f");
}

/// Advice about what will be read is taken of a file that can be read.
fn read_ahead() {
    let fd = opened(c"f", RW);
    let advise = |fd: i32, advice: i32| value(sys!(SYS_fadvise64, fd, 0, 4_096, advice));
    say!("{} {}", value(sys!(SYS_readahead, fd, 0, 4_096)), advise(fd, libc::POSIX_FADV_WILLNEED));
    say!("unknown: {}", advise(fd, 99));
    close(fd);
    let fd = opened(c"f", libc::O_WRONLY);
    say!("to write: {}", value(sys!(SYS_readahead, fd, 0, 4_096)));
    close(fd);
    let (input, output) = pipe(0);
    say!(
        "a pipe: {} {}",
        value(sys!(SYS_readahead, input, 0, 1)),
        advise(input, libc::POSIX_FADV_NORMAL)
    );
    close(input);
    close(output);
    say!("not open: {} {}", value(sys!(SYS_readahead, -1, 0, 1)), advise(-1, 0));
    remove(c"f");
}

fn dot() {
    sys!(SYS_mkdir, c"d".as_ptr(), 0o755).unwrap();
    close(opened(c"d/f", RW));
    for path in [c"./d/f", c"d//f", c"d/./f", c"d/../d/f", c"././d/.././d/f"] {
        say!("{path:?}: {}", stat(path));
    }
    say!("{}", describe(|status| sys!(SYS_stat, c"/../../..".as_ptr(), status)));
    remove(c"d/f");
    sys!(SYS_rmdir, c"d".as_ptr()).unwrap();
}

fn names() {
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

fn errors() {
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

fn devices() {
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
fn descriptors() {
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

/// What `std` makes of it.
fn std_files() {
    use std::io::{BufRead, BufReader, Read, Seek, SeekFrom, Write};
    std::fs::create_dir_all("d/e/f").unwrap();
    let mut file = std::fs::File::create("d/lines").unwrap();
    for number in 0..1_000 {
        writeln!(file, "line {number}").unwrap();
    }
    file.sync_all().unwrap();
    let lines = BufReader::new(std::fs::File::open("d/lines").unwrap()).lines().count();
    say!("{lines} lines, {:?}", std::fs::metadata("d/lines").unwrap().len());
    let mut file = std::fs::OpenOptions::new().read(true).write(true).open("d/lines").unwrap();
    file.seek(SeekFrom::End(-4)).unwrap();
    let mut end = String::new();
    file.read_to_string(&mut end).unwrap();
    say!("{end:?}");
    say!("{:?}", std::fs::copy("d/lines", "d/copy"));
    say!("{}", std::fs::read("d/copy").unwrap() == std::fs::read("d/lines").unwrap());
    std::os::unix::fs::symlink("lines", "d/link").unwrap();
    say!("{:?}", std::fs::canonicalize("d/e/../link").unwrap().file_name());
    let mut names: Vec<_> =
        std::fs::read_dir("d").unwrap().map(|entry| entry.unwrap().file_name()).collect();
    names.sort();
    say!("{names:?}");
    std::fs::rename("d/copy", "d/e/f/copy").unwrap();
    say!("{:?}", std::fs::remove_dir("d/e").map_err(|error| error.kind()));
    std::fs::remove_dir_all("d").unwrap();
    say!("{:?}", std::fs::metadata("d").map_err(|error| error.kind()).err());
}

fn sendfile() {
    let data = vec![b's'; 10_000];
    std::fs::write("f", &data).unwrap();
    let (from, to) = (opened(c"f", libc::O_RDONLY), opened(c"g", RW));
    say!("{}", value(sys!(SYS_sendfile, to, from, 0, 20_000)));
    say!("{}", std::fs::read("g").unwrap() == data);
    let mut offset = 9_990u64;
    say!("{} {offset}", value(sys!(SYS_sendfile, to, from, &mut offset, 100)));
    close(from);
    close(to);
    remove(c"f");
    remove(c"g");
}

/// Where no descriptor is left, no file is made and none is cut off.
fn no_descriptor() {
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

/// What a directory that was removed still knows: where it was.
fn removed_directories() {
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

/// Appends of several processes lose nothing.
fn concurrent() {
    close(opened(c"f", RW));
    let children: Vec<i32> = (0..4u8)
        .map(|me| {
            spawn(move || {
                let fd = opened(c"f", libc::O_WRONLY | libc::O_APPEND);
                for _ in 0..200 {
                    check!(write(fd, &[b'a' + me; 10]) == Ok(10), "a short write");
                }
                let name = format!("own-{me}");
                for _ in 0..50 {
                    std::fs::write(&name, b"x").unwrap();
                    std::fs::remove_file(&name).unwrap();
                }
                0
            })
        })
        .collect();
    for child in children {
        say!("{}", wait(child));
    }
    let bytes = std::fs::read("f").unwrap();
    let whole = bytes.chunks(10).all(|chunk| chunk.iter().all(|&byte| byte == chunk[0]));
    say!("{} bytes, whole: {whole}", bytes.len());
    remove(c"f");
}
