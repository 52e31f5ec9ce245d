//! Pipes: pipelines of processes, atomic writes, ends that close, and not waiting.

use programs::process::{Baton, close, ending, pause_ms, pipe, read, spawn, wait, write};
use programs::sys::{Errno, value};
use programs::{check, memory, say, signal, sys};

const PIPE_BUF: usize = 4096;
/// Bytes a pipe holds.
const CAPACITY: usize = 65_536;

fn main() {
    programs::main(&[
        ("bytes", bytes),
        ("pipeline", pipeline),
        ("bulk", bulk),
        ("atomicity", atomicity),
        ("end-of-file", end_of_file),
        ("broken", broken),
        ("nonblocking", nonblocking),
        ("full", full),
        ("vectors", vectors),
        ("errors", errors),
        ("duplicates", duplicates),
        ("ping-pong", ping_pong),
        ("poll", poll),
        ("interrupted", interrupted),
        ("many", many),
        ("sizes", sizes),
        ("small", small),
        ("large", large),
        ("packets", packets),
        ("mixed", mixed),
        ("packets-wait", packets_wait),
        ("bad-writer", bad_writer),
        ("half-mapped", half_mapped),
        ("rendezvous", rendezvous),
    ]);
}

fn text(result: Result<Vec<u8>, Errno>) -> String {
    match result {
        Ok(bytes) => format!("{:?}", String::from_utf8_lossy(&bytes)),
        Err(error) => error.to_string(),
    }
}

fn bytes() {
    let (input, output) = pipe(0);
    say!("{}", value(write(output, b"hello")));
    say!("{}", value(write(output, b" pipe")));
    say!("{} {} {}", text(read(input, 3)), text(read(input, 4)), text(read(input, 100)));
    say!("{} {}", value(write(output, b"")), value(write(output, b"x")));
    say!("{} {}", text(read(input, 0)), text(read(input, 9)));
    close(input);
    close(output);
}

/// Twelve processes in a row, each adding one to every byte.
fn pipeline() {
    let (mut input, first) = pipe(0);
    let mut children = Vec::new();
    for _ in 0..12 {
        let (next, output) = pipe(0);
        children.push(spawn(|| {
            close(first);
            close(next);
            loop {
                let mut bytes = read(input, 1_000).unwrap();
                if bytes.is_empty() {
                    return 0;
                }
                bytes.iter_mut().for_each(|byte| *byte += 1);
                check!(write(output, &bytes) == Ok(bytes.len() as u64), "a short write");
            }
        }));
        close(input);
        close(output);
        input = next;
    }
    for _ in 0..200 {
        check!(write(first, b"ABCDEFGHIJ") == Ok(10), "a short write");
    }
    close(first);
    let mut all = Vec::new();
    loop {
        let bytes = read(input, 777).unwrap();
        if bytes.is_empty() {
            break;
        }
        all.extend(bytes);
    }
    say!("{} bytes, {:?}", all.len(), String::from_utf8_lossy(&all[..10]));
    check!(all.chunks(10).all(|chunk| chunk == &all[..10]), "mixed up");
    for child in children {
        let status = wait(child);
        check!(status.exited_with(0), "{status}");
    }
    close(input);
}

fn pattern(len: usize) -> Vec<u8> {
    (0..len as u32).map(|n| (n.wrapping_mul(2_654_435_761) >> 13) as u8).collect()
}

/// More than fits, in one write and in reads of odd sizes.
fn bulk() {
    let (input, output) = pipe(0);
    let data = pattern(3_000_001);
    let child = spawn(|| {
        close(input);
        i32::from(write(output, &data) != Ok(data.len() as u64))
    });
    close(output);
    let mut all = Vec::new();
    for size in (1..).map(|n| n * 37 % 70_001 + 1) {
        let bytes = read(input, size).unwrap();
        if bytes.is_empty() {
            break;
        }
        all.extend(bytes);
    }
    say!("{} bytes, same: {}, {}", all.len(), all == data, wait(child));
    close(input);
}

/// Writes of up to PIPE_BUF bytes by several processes do not mix.
fn atomicity() {
    let (input, output) = pipe(0);
    let children: Vec<i32> = (0..6u8)
        .map(|me| {
            spawn(move || {
                close(input);
                for round in 0..60usize {
                    let len = if round % 3 == 0 { PIPE_BUF } else { 100 + round * 50 };
                    let mut block = vec![b'a' + me; len];
                    block[..2].copy_from_slice(&(len as u16).to_le_bytes());
                    check!(write(output, &block) == Ok(len as u64), "a short write");
                }
                0
            })
        })
        .collect();
    close(output);
    let mut all = Vec::new();
    loop {
        let bytes = read(input, 10_000).unwrap();
        if bytes.is_empty() {
            break;
        }
        all.extend(bytes);
    }
    let (mut at, mut blocks) = (0, 0);
    while at < all.len() {
        let len = usize::from(u16::from_le_bytes([all[at], all[at + 1]]));
        let body = &all[at + 2..at + len];
        check!(body.iter().all(|&byte| byte == body[0]), "block {blocks} is mixed");
        at += len;
        blocks += 1;
    }
    say!("{blocks} blocks, {} bytes", all.len());
    for child in children {
        wait(child);
    }
    close(input);
}

fn end_of_file() {
    let (input, output) = pipe(0);
    let child = spawn(|| {
        close(output);
        let first = read(input, 10).unwrap().len();
        let second = read(input, 10).unwrap().len();
        let third = read(input, 10).unwrap().len();
        say!("{first} {second} {third}");
        0
    });
    close(input);
    check!(write(output, b"last") == Ok(4), "write");
    close(output);
    say!("{}", wait(child));
}

fn broken() {
    let (input, output) = pipe(0);
    close(input);
    let status = ending(|| {
        let _ = write(output, b"x");
        9
    });
    say!("by default: {status}");
    signal::dispose(libc::SIGPIPE, libc::SIG_IGN);
    say!("ignored: {}", value(write(output, b"x")));
    signal::recorded(libc::SIGPIPE, 0);
    let result = write(output, b"x");
    say!("handled: {} {}", value(result), signal::taken_names());
    say!("nothing to write: {}", value(write(output, b"")));
    signal::dispose(libc::SIGPIPE, libc::SIG_DFL);
    close(output);
    // The reader goes while the writer waits for room.
    let (input, output) = pipe(0);
    let child = spawn(|| {
        close(input);
        signal::dispose(libc::SIGPIPE, libc::SIG_IGN);
        let result = write(output, &vec![0; 2 * CAPACITY]);
        // What had room was written: the count comes before the error.
        say!("some written: {}, then {}", result.is_ok(), value(write(output, b"x")));
        0
    });
    close(output);
    check!(read(input, 1).is_ok(), "read");
    pause_ms(20);
    close(input);
    let status = wait(child);
    check!(status.exited_with(0), "{status}");
}

fn nonblocking() {
    let (input, output) = pipe(libc::O_NONBLOCK);
    say!("empty: {}", text(read(input, 10)));
    let mut written = 0;
    let error = loop {
        match write(output, &[7; PIPE_BUF]) {
            Ok(count) => written += count,
            Err(error) => break error,
        }
    };
    say!("full after {written}: {error}");
    say!("one more byte: {}", value(write(output, b"x")));
    // Up to PIPE_BUF all or nothing, beyond that what fits.
    say!("one page read: {}", read(input, PIPE_BUF).unwrap().len());
    say!("a page: {}", value(write(output, &[8; PIPE_BUF])));
    let mut left = 0;
    while let Ok(bytes) = read(input, 50_000) {
        left += bytes.len();
    }
    say!("left: {left}");
    say!("large into empty: {}", value(write(output, &vec![1; 3 * CAPACITY])));
    close(output);
    let mut left = 0;
    loop {
        match read(input, 50_000) {
            Ok(bytes) if bytes.is_empty() => break,
            Ok(bytes) => left += bytes.len(),
            Err(error) => {
                say!("{error}");
                break;
            }
        }
    }
    say!("left: {left}, then the end");
    close(input);
}

/// A write that does not fit waits for room.
fn full() {
    let (input, output) = pipe(0);
    check!(write(output, &vec![1; CAPACITY]) == Ok(CAPACITY as u64), "fill");
    let child = spawn(|| {
        close(input);
        say!("written {}", value(write(output, &[2; 10])));
        0
    });
    pause_ms(20);
    let taken = read(input, PIPE_BUF).unwrap().len();
    say!("{}", wait(child));
    say!("a little room: {taken}");
    close(output);
    let mut all = Vec::new();
    loop {
        let bytes = read(input, 10_000).unwrap();
        if bytes.is_empty() {
            break;
        }
        all.extend(bytes);
    }
    say!("{} {:?}", all.len(), &all[all.len() - 11..]);
    close(input);
}

fn vectors() {
    let (input, output) = pipe(0);
    let parts = [b"one ".as_slice(), b"", b"two ", b"three"];
    let vectors: Vec<[u64; 2]> =
        parts.iter().map(|part| [part.as_ptr() as u64, part.len() as u64]).collect();
    say!("{}", value(sys!(SYS_writev, output, vectors.as_ptr(), vectors.len())));
    let mut blocks = [[b'.'; 5]; 3];
    let vectors = [0, 1, 2].map(|n: usize| [(&raw mut blocks[n]) as u64, 5]);
    say!("{}", value(sys!(SYS_readv, input, &vectors, 3)));
    say!("{:?}", String::from_utf8_lossy(&blocks.concat()));
    say!("none: {}", value(sys!(SYS_writev, output, 0, 0)));
    say!("too many: {}", value(sys!(SYS_writev, output, &vectors, 1_025)));
    say!("negative: {}", value(sys!(SYS_writev, output, &vectors, -1)));
    let negative = [[parts[0].as_ptr() as u64, u64::MAX]];
    say!("negative length: {}", value(sys!(SYS_writev, output, &negative, 1)));
    let bad = [[16u64, 4]];
    say!("bad base: {}", value(sys!(SYS_writev, output, &bad, 1)));
    say!("bad vector: {}", value(sys!(SYS_writev, output, 16u64, 1)));
    close(input);
    close(output);
}

fn errors() {
    let (input, output) = pipe(0);
    let mut byte = [0u8];
    say!("read the output: {}", value(sys!(SYS_read, output, &mut byte, 1)));
    say!("write the input: {}", value(write(input, b"x")));
    say!("seek: {}", value(sys!(SYS_lseek, input, 0, libc::SEEK_CUR)));
    say!("pread: {}", value(sys!(SYS_pread64, input, &mut byte, 1, 0)));
    say!("bad buffer: {}", value(sys!(SYS_write, output, 16u64, 4)));
    say!("negative length: {}", value(sys!(SYS_write, output, &byte, -1)));
    check!(write(output, b"abc") == Ok(3), "write");
    say!("read to nowhere: {}", value(sys!(SYS_read, input, 16u64, 4)));
    say!("still there: {}", text(read(input, 9)));
    let mut ends = [0i32; 2];
    say!("pipe2 flags: {}", value(sys!(SYS_pipe2, &mut ends, 0x1)));
    say!("pipe2 nowhere: {}", value(sys!(SYS_pipe2, 16u64, 0)));
    say!("closed: {}", value(write(1_000, b"x")));
    let mut status = std::mem::MaybeUninit::<libc::stat>::zeroed();
    say!("fstat: {}", value(sys!(SYS_fstat, input, status.as_mut_ptr())));
    // SAFETY: all zeroes is a stat.
    let status = unsafe { status.assume_init() };
    say!("is a pipe: {}", status.st_mode & libc::S_IFMT == libc::S_IFIFO);
    say!("truncate: {}", value(sys!(SYS_ftruncate, output, 0)));
    close(input);
    close(output);
}

fn duplicates() {
    let (input, output) = pipe(0);
    let copy = sys!(SYS_dup, output).unwrap() as i32;
    close(output);
    check!(write(copy, b"through a copy") == Ok(14), "write");
    say!("{}", text(read(input, 20)));
    let flags = sys!(SYS_fcntl, copy, libc::F_GETFL).unwrap() as i32;
    say!("write only: {}", flags & libc::O_ACCMODE == libc::O_WRONLY);
    sys!(SYS_fcntl, input, libc::F_SETFL, libc::O_NONBLOCK).unwrap();
    say!("made not to wait: {}", text(read(input, 20)));
    say!("dup2 onto itself: {}", sys!(SYS_dup2, copy, copy) == Ok(copy as u64));
    say!("dup3 onto itself: {}", value(sys!(SYS_dup3, copy, copy, 0)));
    say!("dup3 flags: {}", value(sys!(SYS_dup3, copy, copy + 1, 1)));
    say!("dup2 of nothing: {}", value(sys!(SYS_dup2, 1_000, 5)));
    say!("dup2 too far: {}", value(sys!(SYS_dup2, copy, 1 << 30)));
    let high = sys!(SYS_fcntl, copy, libc::F_DUPFD, 100).unwrap();
    say!("at least 100: {high}");
    close(high as i32);
    close(copy);
    say!("after the last: {}", text(read(input, 20)));
    close(input);
}

fn ping_pong() {
    let (there, back) = (pipe(0), pipe(0));
    let child = spawn(|| {
        close(there.1);
        loop {
            let number = read(there.0, 4).unwrap();
            let Ok(bytes) = <[u8; 4]>::try_from(number.as_slice()) else { return 0 };
            let next = u32::from_le_bytes(bytes) + 1;
            check!(write(back.1, &next.to_le_bytes()) == Ok(4), "write");
        }
    });
    let mut number = 0u32;
    for _ in 0..1_000 {
        check!(write(there.1, &number.to_le_bytes()) == Ok(4), "write");
        number = u32::from_le_bytes(read(back.0, 4).unwrap().try_into().unwrap()) + 1;
    }
    close(there.1);
    say!("{number}, {}", wait(child));
    for fd in [there.0, back.0, back.1] {
        close(fd);
    }
}

fn events(fd: i32, wanted: i16, timeout_ms: i32) -> String {
    let mut request = [libc::pollfd { fd, events: wanted, revents: 0 }];
    let ready = sys!(SYS_poll, &mut request, 1, timeout_ms);
    let names = [
        (libc::POLLIN, "IN"),
        (libc::POLLOUT, "OUT"),
        (libc::POLLERR, "ERR"),
        (libc::POLLHUP, "HUP"),
        (libc::POLLNVAL, "NVAL"),
    ];
    let set = names.iter().filter(|(bit, _)| request[0].revents & bit != 0).map(|pair| pair.1);
    format!("{} {}", value(ready), set.collect::<Vec<_>>().join("|"))
}

fn poll() {
    let both = libc::POLLIN | libc::POLLOUT;
    let (input, output) = pipe(0);
    say!("empty: {}, {}", events(input, both, 0), events(output, both, 0));
    check!(write(output, &vec![1; CAPACITY]) == Ok(CAPACITY as u64), "fill");
    say!("full: {}, {}", events(input, both, 0), events(output, both, 0));
    check!(read(input, PIPE_BUF).is_ok(), "read");
    say!("a page free: {}", events(output, both, 0));
    let child = spawn(|| {
        close(output);
        pause_ms(10);
        while !read(input, 100_000).unwrap().is_empty() {}
        0
    });
    close(output);
    say!("{}", wait(child));
    say!("no writer: {}", events(input, both, -1));
    close(input);
    let (input, output) = pipe(0);
    close(input);
    say!("no reader: {}", events(output, both, -1));
    close(output);
    say!("closed: {}", events(output, both, -1));
}

/// A read that a signal interrupts: EINTR, or restarted.
fn interrupted() {
    for flags in [0, libc::SA_RESTART] {
        let (input, output) = pipe(0);
        signal::recorded(libc::SIGUSR1, flags);
        let parent = programs::process::id();
        let child = spawn(|| {
            // Until the parent sleeps in its read the signal may come too early; it comes again then.
            for _ in 0..10 {
                pause_ms(10);
                signal::kill(parent, libc::SIGUSR1).unwrap();
            }
            check!(write(output, b"data") == Ok(4), "write");
            0
        });
        let result = read(input, 10);
        say!("restart {}: {}, handled: {}", flags != 0, text(result), signal::count() > 0);
        wait(child);
        signal::take();
        signal::dispose(libc::SIGUSR1, libc::SIG_DFL);
        close(input);
        close(output);
    }
}

/// Pipes use up descriptors, and all of them come back.
fn many() {
    let limit = libc::rlimit64 { rlim_cur: 256, rlim_max: 256 };
    let status = ending(|| {
        sys!(SYS_prlimit64, 0, libc::RLIMIT_NOFILE, &limit, 0).unwrap();
        for _ in 0..3 {
            let mut open = Vec::new();
            let mut ends = [0i32; 2];
            let error = loop {
                match sys!(SYS_pipe2, &mut ends, 0) {
                    Ok(_) => open.extend(ends),
                    Err(error) => break error,
                }
            };
            say!("{error} after the descriptor {}", open.iter().max().unwrap());
            open.into_iter().for_each(close);
        }
        0
    });
    say!("{status}");
}

fn set_size(fd: i32, bytes: i64) -> String {
    value(sys!(SYS_fcntl, fd, libc::F_SETPIPE_SZ, bytes))
}

fn size(fd: i32) -> String {
    value(sys!(SYS_fcntl, fd, libc::F_GETPIPE_SZ))
}

fn sizes() {
    let (input, output) = pipe(libc::O_NONBLOCK);
    say!("{} {}", size(input), size(output));
    for bytes in [0, 1, 4_096, 4_097, 65_536, 65_537, 1 << 20, (1 << 31) + 1, -1] {
        say!("{bytes}: {} {}", set_size(input, bytes), size(output));
    }
    set_size(output, 65_536);
    check!(write(output, &pattern(30_000)) == Ok(30_000), "write");
    say!("too small: {} {}", set_size(output, 4_096 * 4), size(output));
    say!("just so: {}", set_size(output, 4_096 * 8));
    say!("as it was: {}", text(read(input, 30_001)).len() > 1);
    close(input);
    close(output);
    sys!(SYS_mknod, c"fifo".as_ptr(), libc::S_IFIFO | 0o600, 0).unwrap();
    let both = sys!(SYS_open, c"fifo".as_ptr(), libc::O_RDWR).unwrap() as i32;
    say!("a named one: {} {}", set_size(both, 8_192), size(both));
    close(both);
    let both = sys!(SYS_open, c"fifo".as_ptr(), libc::O_RDWR).unwrap() as i32;
    say!("opened anew: {}", size(both));
    close(both);
    let file = sys!(SYS_open, c"/dev/null".as_ptr(), libc::O_RDWR).unwrap() as i32;
    say!("no pipe: {} {}", set_size(file, 8_192), size(file));
    close(file);
    std::fs::remove_file("fifo").unwrap();
}

/// A pipe of one page.
fn small() {
    let (input, output) = pipe(0);
    set_size(output, 4_096);
    let data = pattern(100_001);
    let child = spawn(|| {
        close(input);
        i32::from(write(output, &data) != Ok(data.len() as u64))
    });
    close(output);
    let mut all = Vec::new();
    loop {
        let bytes = read(input, 1_000).unwrap();
        if bytes.is_empty() {
            break;
        }
        all.extend(bytes);
    }
    say!("{}, same: {}", wait(child), all == data);
    close(input);
    let (input, output) = pipe(libc::O_NONBLOCK);
    set_size(output, 4_096);
    say!("{} {}", value(write(output, &[1; 4_000])), value(write(output, &[1; 97])));
    say!("{} {}", value(write(output, &[1; 96])), events(output, libc::POLLOUT, 0));
    say!("{} {}", read(input, 10_000).unwrap().len(), events(output, libc::POLLOUT, 0));
    close(input);
    close(output);
}

/// A pipe of 256 pages, and back while something is in it.
fn large() {
    let (input, output) = pipe(libc::O_NONBLOCK);
    check!(write(output, &pattern(50_000)[..10_000]) == Ok(10_000), "write");
    set_size(output, 1 << 20);
    let data = pattern(900_000);
    say!("{}", value(write(output, &data)));
    let waiting = |fd| {
        let mut bytes = 0;
        sys!(SYS_ioctl, fd, libc::FIONREAD, &mut bytes).map(|_| bytes)
    };
    say!("{:?}", waiting(input));
    let first = read(input, 10_000).unwrap();
    say!("{} {}", first == pattern(50_000)[..10_000], set_size(input, 65_536));
    let mut all = Vec::new();
    while let Ok(bytes) = read(input, 70_001) {
        all.extend(bytes);
    }
    say!("same: {}, {}", all == data, set_size(input, 65_536));
    say!(
        "{} {}",
        value(write(output, &vec![5; 2 * CAPACITY])),
        read(input, 1 << 20).unwrap().len()
    );
    close(input);
    close(output);
}

fn packets() {
    let (input, output) = pipe(libc::O_DIRECT | libc::O_NONBLOCK);
    let direct = |fd| sys!(SYS_fcntl, fd, libc::F_GETFL).unwrap() as i32 & libc::O_DIRECT != 0;
    say!("{} {}", direct(input), direct(output));
    say!("{} {}", value(write(output, b"first")), value(write(output, b"second")));
    say!("{} {}", text(read(input, 100)), text(read(input, 3)));
    say!("{} {}", text(read(input, 100)), value(write(output, b"")));
    say!("{}", text(read(input, 100)));
    say!("{}", value(write(output, &pattern(10_000))));
    let sizes: Vec<usize> = (0..3).map(|_| read(input, 20_000).unwrap().len()).collect();
    say!("{sizes:?} {}", text(read(input, 1)));
    let count = (0..).take_while(|_| write(output, b"x").is_ok()).count();
    say!("{count} of one byte: {}", events(output, libc::POLLOUT, 0));
    say!("{} {}", read(input, 0).unwrap().len(), read(input, 10).unwrap().len());
    say!("{}", events(output, libc::POLLOUT, 0));
    close(output);
    let left = (0..).take_while(|_| !read(input, 10).unwrap().is_empty()).count();
    say!("{left} left");
    close(input);
}

/// Packets, and a stream behind them. (Linux adds packets to a stream before them, which pipe(2) does not say.)
fn mixed() {
    let (input, output) = pipe(0);
    let direct = |on: bool| {
        let flags = if on { libc::O_DIRECT } else { 0 };
        say!("{}", value(sys!(SYS_fcntl, output, libc::F_SETFL, flags)));
    };
    direct(true);
    write(output, b"packet").unwrap();
    write(output, b"another").unwrap();
    direct(false);
    write(output, b"and a ").unwrap();
    write(output, b"stream").unwrap();
    for len in [3, 100, 5, 100] {
        say!("{}", text(read(input, len)));
    }
    write(output, b"as ever").unwrap();
    say!("{}", text(read(input, 100)));
    close(input);
    close(output);
}

fn packets_wait() {
    let (input, output) = pipe(libc::O_DIRECT);
    let child = spawn(|| {
        close(input);
        for round in 0..200u32 {
            let len = 1 + round as usize * 37 % 4_096;
            check!(write(output, &vec![round as u8; len]) == Ok(len as u64), "a short write");
        }
        0
    });
    close(output);
    let mut good = 0;
    for round in 0..200u32 {
        let len = 1 + round as usize * 37 % 4_096;
        good += i32::from(read(input, 5_000).unwrap() == vec![round as u8; len]);
    }
    say!("{good} {} {}", read(input, 1).unwrap().len(), wait(child));
    close(input);
}

/// Memory of which a part is there: what lies in one page of the pipe is copied as a whole, or not at all.
fn half_mapped() {
    let pages = memory::pages(2);
    memory::unmap(memory::page(pages, 1), memory::PAGE);
    // Three bytes are there.
    let edge = pages as u64 + memory::PAGE as u64 - 3;
    let mut sockets = [0i32; 2];
    sys!(SYS_socketpair, libc::AF_UNIX, libc::SOCK_STREAM, 0, &mut sockets).unwrap();
    let packets = pipe(libc::O_DIRECT);
    let ends = [("pipe", pipe(0)), ("packets", packets), ("sockets", (sockets[0], sockets[1]))];
    for (name, (input, output)) in ends {
        let left = || {
            let mut bytes = 0i32;
            sys!(SYS_ioctl, input, libc::FIONREAD, &mut bytes).unwrap();
            bytes
        };
        let written = value(sys!(SYS_write, output, edge, 10));
        say!("{name}: written {written}, there {}", left());
        let vector = [[pages as u64, 5], [edge, 10]];
        let written = value(sys!(SYS_writev, output, &vector, 2));
        say!("{name}: of two pieces {written}, there {}", left());
        write(output, b"0123456789").unwrap();
        let read_at_edge = value(sys!(SYS_read, input, edge, 10));
        say!("{name}: read {read_at_edge}, there {}", left());
        let pieces = value(sys!(SYS_readv, input, &vector, 2));
        say!("{name}: in two pieces {pieces}, there {}", left());
        say!("{name}: {}", text(read(input, 20)));
        close(input);
        close(output);
    }
    memory::unmap(pages, memory::PAGE);
}

/// Two writers wait for room in a pipe of one page. Whoever is woken first cannot use the room; the other does.
fn bad_writer() {
    let (input, output) = pipe(0);
    set_size(output, 4_096);
    write(output, &[b'.'; 4_096]).unwrap();
    let bad = spawn(|| i32::from(sys!(SYS_write, output, 16u64, 4) != Err(Errno(libc::EFAULT))));
    pause_ms(20);
    let good = spawn(|| i32::from(write(output, b"good") != Ok(4)));
    pause_ms(20);
    say!("{}", read(input, 4_096).unwrap().len());
    say!("{} {} {}", wait(bad), text(read(input, 10)), wait(good));
    close(input);
    close(output);
}

/// Two processes open a named pipe at the same time, each one end, and close it at once: each has met the other.
fn rendezvous() {
    sys!(SYS_mknod, c"fifo".as_ptr(), libc::S_IFIFO | 0o600, 0).unwrap();
    let meet = |flags: i32, mine: &Baton, other: &Baton| {
        for _ in 0..500 {
            other.pass();
            mine.await_pass();
            close(sys!(SYS_open, c"fifo".as_ptr(), flags).unwrap() as i32);
        }
    };
    let (reader, writer) = (Baton::new(), Baton::new());
    let child = spawn(|| {
        meet(libc::O_WRONLY, &writer, &reader);
        0
    });
    meet(libc::O_RDONLY, &reader, &writer);
    say!("{}", wait(child));
    std::fs::remove_file("fifo").unwrap();
}
