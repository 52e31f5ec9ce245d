//! What a file holds: reading, writing, seeking, truncating, holes, and who sees it when.

use programs::process::{close, pipe, spawn, wait, write};
use programs::sys::value;
use programs::{check, memory, say, sys};

use super::{RW, open, opened, remove, stat, text};

pub fn create() {
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

pub fn seek() {
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

pub fn append() {
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

pub fn truncate() {
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

pub fn holes() {
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
pub fn partly() {
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

pub fn positioned() {
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

pub fn allocate() {
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
pub fn read_ahead() {
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

/// What `std` makes of it.
pub fn std_files() {
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

pub fn sendfile() {
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

/// Appends of several processes lose nothing.
pub fn concurrent() {
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
