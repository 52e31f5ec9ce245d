//! Waiting for several things: poll, ppoll, select; event counters and socket pairs.

use programs::process::{close, ending, pause_ms, pipe, read, spawn, wait, write};
use programs::sys::value;
use programs::{check, say, signal, sys};

fn main() {
    programs::main(&[
        ("poll", poll),
        ("poll-errors", poll_errors),
        ("ppoll", ppoll),
        ("select", select),
        ("select-errors", select_errors),
        ("many", many),
        ("eventfd", eventfd),
        ("eventfd-semaphore", semaphore),
        ("eventfd-blocking", eventfd_blocking),
        ("socketpair", socketpair),
        ("socket-ends", socket_ends),
        ("socket-calls", socket_calls),
        ("socket-errors", socket_errors),
        ("socket-bulk", socket_bulk),
        ("wakes", wakes),
    ]);
}

const BOTH: i16 = libc::POLLIN | libc::POLLOUT;

fn names(events: i16) -> String {
    let all = [
        (libc::POLLIN, "IN"),
        (libc::POLLOUT, "OUT"),
        (libc::POLLERR, "ERR"),
        (libc::POLLHUP, "HUP"),
        (libc::POLLNVAL, "NVAL"),
        (libc::POLLRDHUP, "RDHUP"),
    ];
    let set: Vec<&str> =
        all.iter().filter(|(bit, _)| events & bit != 0).map(|pair| pair.1).collect();
    if set.is_empty() { "-".into() } else { set.join("|") }
}

fn request(fd: i32, events: i16) -> libc::pollfd {
    libc::pollfd { fd, events, revents: -1 }
}

fn poll_for(requests: &mut [libc::pollfd], timeout_ms: i32) -> String {
    let ready = sys!(SYS_poll, requests.as_mut_ptr(), requests.len(), timeout_ms);
    let each: Vec<String> = requests.iter().map(|request| names(request.revents)).collect();
    format!("{} [{}]", value(ready), each.join(" "))
}

fn one(fd: i32) -> String {
    poll_for(&mut [request(fd, BOTH | libc::POLLRDHUP)], 0)
}

fn poll() {
    let (first, second) = (pipe(0), pipe(0));
    let mut all = [
        request(first.0, BOTH),
        request(first.1, BOTH),
        request(second.0, BOTH),
        request(-1, BOTH),
        request(900, BOTH),
    ];
    say!("{}", poll_for(&mut all, -1));
    write(first.1, b"x").unwrap();
    say!("{}", poll_for(&mut all, -1));
    let every = |fd: i32| {
        let mut request = request(fd, i16::MAX);
        sys!(SYS_poll, &mut request, 1, 0).unwrap();
        format!("{:#x}", request.revents)
    };
    let (left, right) = sockets(libc::SOCK_STREAM);
    let counter = sys!(SYS_eventfd2, 1, 0).unwrap() as i32;
    let all = [first.0, first.1, second.0, second.1, left, counter].map(every);
    say!("every event: {}", all.join(" "));
    for fd in [left, right, counter] {
        close(fd);
    }
    say!("nothing wanted: {}", poll_for(&mut [request(first.0, 0)], 0));
    say!("time: {}", poll_for(&mut [request(second.0, libc::POLLIN)], 5));
    let child = spawn(|| {
        pause_ms(10);
        write(second.1, b"late").unwrap();
        0
    });
    say!("woken: {}", poll_for(&mut [request(second.0, libc::POLLIN), request(-5, 0)], -1));
    wait(child);
    say!(
        "twice the same: {}",
        poll_for(&mut [request(second.0, BOTH), request(second.0, BOTH)], -1)
    );
    let file = sys!(SYS_open, c"f".as_ptr(), libc::O_CREAT | libc::O_RDWR, 0o600).unwrap() as i32;
    say!("a file: {}", poll_for(&mut [request(file, BOTH)], -1));
    sys!(SYS_unlink, c"f".as_ptr()).unwrap();
    for fd in [first.0, first.1, second.0, second.1, file] {
        close(fd);
    }
}

fn poll_errors() {
    let mut none: [libc::pollfd; 0] = [];
    say!("none: {}", poll_for(&mut none, 0));
    say!("none, for a while: {}", poll_for(&mut none, 2));
    say!("nowhere: {}", value(sys!(SYS_poll, 16u64, 1, 0)));
    say!("too many: {}", value(sys!(SYS_poll, 16u64, 1 << 30, 0)));
    say!("none in 32 bits: {}", value(sys!(SYS_poll, 16u64, 1u64 << 32, 0)));
}

/// The mask is in effect only while it waits.
fn ppoll() {
    signal::recorded(libc::SIGUSR1, 0);
    signal::mask(libc::SIG_BLOCK, signal::set(&[libc::SIGUSR1]));
    signal::raise(libc::SIGUSR1).unwrap();
    let (input, output) = pipe(0);
    let long = libc::timespec { tv_sec: 100, tv_nsec: 0 };
    let none = 0u64;
    let mut requests = [request(input, libc::POLLIN)];
    let result = sys!(SYS_ppoll, &mut requests, 1, &long, &none, 8);
    say!("{}, saw {}", value(result), signal::taken_names());
    say!("masked {}", signal::names(signal::mask(libc::SIG_BLOCK, 0)));
    let now = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    say!("time: {}", value(sys!(SYS_ppoll, &mut requests, 1, &now, 0, 0)));
    say!(
        "bad time: {}",
        value(sys!(SYS_ppoll, &mut requests, 1, &libc::timespec { tv_sec: 0, tv_nsec: -1 }, 0, 0))
    );
    say!("mask size: {}", value(sys!(SYS_ppoll, &mut requests, 1, &now, &none, 4)));
    signal::mask(libc::SIG_SETMASK, 0);
    signal::dispose(libc::SIGUSR1, libc::SIG_DFL);
    close(input);
    close(output);
}

type Set = [u64; 16];

fn set(fds: &[i32]) -> Set {
    let mut set = [0; 16];
    for &fd in fds {
        set[fd as usize / 64] |= 1 << (fd % 64);
    }
    set
}

fn select() {
    let (first, second) = (pipe(0), pipe(0));
    let end = second.1.max(first.1) + 1;
    let (mut reads, mut writes) = (set(&[first.0, second.0]), set(&[first.1]));
    say!("{}", value(sys!(SYS_select, end, &mut reads, &mut writes, 0, 0)));
    say!("{} {}", reads == set(&[]), writes == set(&[first.1]));
    write(second.1, b"x").unwrap();
    let mut reads = set(&[first.0, second.0]);
    say!("{} {}", value(sys!(SYS_select, end, &mut reads, 0, 0, 0)), reads == set(&[second.0]));
    let mut time = [0i64, 3_000];
    let mut reads = set(&[first.0]);
    say!(
        "time: {} {}",
        value(sys!(SYS_select, end, &mut reads, 0, 0, &mut time)),
        reads == set(&[])
    );
    say!("left {time:?}");
    let child = spawn(|| {
        pause_ms(10);
        write(first.1, b"late").unwrap();
        0
    });
    let mut reads = set(&[first.0]);
    let mut time = [100i64, 0];
    say!(
        "woken: {} {}",
        value(sys!(SYS_select, end, &mut reads, 0, 0, &mut time)),
        (90..=100).contains(&time[0])
    );
    wait(child);
    close(first.1);
    read(first.0, 10).unwrap();
    let mut reads = set(&[first.0]);
    say!("end of file: {}", value(sys!(SYS_select, end, &mut reads, 0, 0, 0)));
    let time = libc::timespec { tv_sec: 0, tv_nsec: 1_000 };
    say!("pselect6: {}", value(sys!(SYS_pselect6, 0, 0, 0, 0, &time, 0)));
    for fd in [first.0, second.0, second.1] {
        close(fd);
    }
}

fn select_errors() {
    let mut reads = set(&[50]);
    let none = [0i64, 0];
    say!("not open: {}", value(sys!(SYS_select, 51, &mut reads, 0, 0, &none)));
    say!("negative: {}", value(sys!(SYS_select, -1, &mut reads, 0, 0, 0)));
    say!("nowhere: {}", value(sys!(SYS_select, 1, 16u64, 0, 0, 0)));
    for bad in [[-1i64, 0], [0, -1], [1, -1], [-1, 1_000_000]] {
        say!("time {bad:?}: {}", value(sys!(SYS_select, 0, 0, 0, 0, &bad)));
    }
    say!("none: {}", value(sys!(SYS_select, 0, 0, 0, 0, &none)));
}

/// Two hundred pipes, one of them ready.
fn many() {
    let pipes: Vec<(i32, i32)> = (0..200).map(|_| pipe(0)).collect();
    let mut requests: Vec<_> = pipes.iter().map(|pipe| request(pipe.0, libc::POLLIN)).collect();
    for chosen in [0, 77, 199] {
        let child = spawn(|| {
            pause_ms(3);
            write(pipes[chosen].1, b"x").unwrap();
            0
        });
        let ready = sys!(SYS_poll, requests.as_mut_ptr(), requests.len(), -1);
        let which: Vec<usize> = (0..200).filter(|&n| requests[n].revents != 0).collect();
        say!("{} {which:?}", value(ready));
        read(pipes[chosen].0, 1).unwrap();
        wait(child);
    }
    // One of them many times, between others.
    for (n, request) in requests.iter_mut().enumerate() {
        request.fd = if n % 10 == 3 { pipes[n].0 } else { pipes[5].0 };
    }
    for chosen in [5, 43] {
        let child = spawn(|| {
            pause_ms(3);
            write(pipes[chosen].1, b"x").unwrap();
            0
        });
        let ready = sys!(SYS_poll, requests.as_mut_ptr(), requests.len(), -1);
        say!("{}", value(ready));
        read(pipes[chosen].0, 1).unwrap();
        wait(child);
    }
    for (input, output) in pipes {
        close(input);
        close(output);
    }
}

fn count(fd: i32) -> String {
    match read(fd, 8) {
        Ok(bytes) => u64::from_le_bytes(bytes.try_into().unwrap()).to_string(),
        Err(error) => error.to_string(),
    }
}

fn add(fd: i32, number: u64) -> String {
    value(write(fd, &number.to_le_bytes()))
}

fn eventfd() {
    let fd = sys!(SYS_eventfd2, 3, libc::EFD_NONBLOCK).unwrap() as i32;
    say!("{} {}", one(fd), count(fd));
    say!("{} {}", one(fd), count(fd));
    say!("{} {} {}", add(fd, 5), add(fd, 6), count(fd));
    say!("none: {} {}", add(fd, 0), count(fd));
    say!("too large: {}", add(fd, u64::MAX));
    say!("largest: {} {}", add(fd, u64::MAX - 1), one(fd));
    say!("one more: {}", add(fd, 1));
    say!("{} {}", count(fd), one(fd));
    say!("short: {} {}", value(write(fd, b"1234")), value(read(fd, 4).map(|_| 0)));
    close(fd);
    say!("flags: {}", value(sys!(SYS_eventfd2, 0, 4)));
    let fd = sys!(SYS_eventfd2, 0, libc::EFD_CLOEXEC).unwrap() as i32;
    say!("close on exec: {}", value(sys!(SYS_fcntl, fd, libc::F_GETFD)));
    close(fd);
}

fn semaphore() {
    let fd = sys!(SYS_eventfd2, 3, libc::EFD_NONBLOCK | libc::EFD_SEMAPHORE).unwrap() as i32;
    say!("{} {} {} {}", count(fd), count(fd), count(fd), count(fd));
    close(fd);
}

fn eventfd_blocking() {
    let fd = sys!(SYS_eventfd2, 0, 0).unwrap() as i32;
    let child = spawn(|| {
        pause_ms(5);
        add(fd, 7);
        0
    });
    say!("{}", count(fd));
    wait(child);
    add(fd, u64::MAX - 1);
    let child = spawn(|| {
        say!("waits for room: {}", add(fd, 2));
        0
    });
    pause_ms(5);
    count(fd);
    say!("{} {}", wait(child), count(fd));
    close(fd);
}

fn sockets(kind: i32) -> (i32, i32) {
    let mut ends = [0i32; 2];
    sys!(SYS_socketpair, libc::AF_UNIX, kind, 0, &mut ends).unwrap();
    (ends[0], ends[1])
}

fn text(fd: i32, len: usize) -> String {
    match read(fd, len) {
        Ok(bytes) => format!("{:?}", String::from_utf8_lossy(&bytes)),
        Err(error) => error.to_string(),
    }
}

fn socketpair() {
    let (left, right) = sockets(libc::SOCK_STREAM);
    say!("{} {}", one(left), one(right));
    say!("{} {}", value(write(left, b"to the right")), value(write(right, b"to the left")));
    say!("{} {}", one(left), one(right));
    say!("{} {}", text(left, 6), text(left, 100));
    say!("{}", text(right, 100));
    let child = spawn(|| {
        close(right);
        let request = text(left, 100);
        write(left, format!("answer to {request}").as_bytes()).unwrap();
        0
    });
    write(right, b"question").unwrap();
    let status = wait(child);
    say!("{status}");
    say!("{}", text(right, 100));
    close(left);
    close(right);
}

fn socket_ends() {
    let (left, right) = sockets(libc::SOCK_STREAM | libc::SOCK_NONBLOCK);
    say!("nothing yet: {}", text(left, 1));
    write(right, b"last words").unwrap();
    close(right);
    say!("{} {} {}", one(left), text(left, 100), text(left, 100));
    signal::dispose(libc::SIGPIPE, libc::SIG_IGN);
    say!("{} {}", value(write(left, b"x")), one(left));
    signal::dispose(libc::SIGPIPE, libc::SIG_DFL);
    let status = ending(|| {
        let _ = write(left, b"x");
        0
    });
    say!("{status}");
    close(left);
    let (left, right) = sockets(libc::SOCK_STREAM);
    say!("half closed: {}", value(sys!(SYS_shutdown, left, libc::SHUT_WR)));
    say!("{} {}", text(right, 10), one(right));
    say!("the other way: {} {}", value(write(right, b"still")), text(left, 10));
    say!("how: {}", value(sys!(SYS_shutdown, left, 9)));
    close(left);
    close(right);
}

fn socket_calls() {
    let (left, right) = sockets(libc::SOCK_STREAM);
    let send = |flags: i32| value(sys!(SYS_sendto, left, b"hello".as_ptr(), 5, flags, 0, 0));
    let mut buffer = [0u8; 10];
    say!("{}", send(libc::MSG_NOSIGNAL));
    say!("peek: {}", value(sys!(SYS_recvfrom, right, &mut buffer, 10, libc::MSG_PEEK, 0, 0)));
    say!("{}", value(sys!(SYS_recvfrom, right, &mut buffer, 10, 0, 0, 0)));
    say!(
        "not now: {}",
        value(sys!(SYS_recvfrom, right, &mut buffer, 10, libc::MSG_DONTWAIT, 0, 0))
    );
    close(right);
    say!("no signal: {}", send(libc::MSG_NOSIGNAL));
    close(left);
}

fn socket_errors() {
    let mut ends = [0i32; 2];
    let pair = |domain: i32, kind: i32, protocol: i32, ends: &mut [i32; 2]| {
        value(sys!(SYS_socketpair, domain, kind, protocol, ends))
    };
    say!("protocol: {}", pair(libc::AF_UNIX, libc::SOCK_STREAM, 5, &mut ends));
    say!("nowhere: {}", value(sys!(SYS_socketpair, libc::AF_UNIX, libc::SOCK_STREAM, 0, 16u64)));
    say!("bad flags: {}", pair(libc::AF_UNIX, libc::SOCK_STREAM | 0x1000_0000, 0, &mut ends));
    let (input, output) = pipe(0);
    let mut byte = [0u8];
    say!("a pipe: {}", value(sys!(SYS_recvfrom, input, &mut byte, 1, 0, 0, 0)));
    close(input);
    close(output);
    let (left, right) = sockets(libc::SOCK_STREAM);
    say!("seek: {}", value(sys!(SYS_lseek, left, 0, 1)));
    close(left);
    close(right);
}

/// More than fits, both ways at once.
fn socket_bulk() {
    const LEN: usize = 500_000;
    let (left, right) = sockets(libc::SOCK_STREAM);
    let exchange = |fd: i32, byte: u8| {
        let writer = std::thread::spawn(move || {
            let data = vec![byte; LEN];
            let mut rest = &data[..];
            while !rest.is_empty() {
                let written = write(fd, rest).unwrap() as usize;
                rest = &rest[written..];
            }
        });
        let (mut got, mut wrong) = (0, 0);
        while got < LEN {
            let bytes = read(fd, 30_000).unwrap();
            got += bytes.len();
            wrong += bytes.iter().filter(|&&its| its == byte).count();
        }
        writer.join().unwrap();
        (got, wrong)
    };
    let child = spawn(|| {
        close(right);
        i32::from(exchange(left, 1) != (LEN, 0))
    });
    close(left);
    say!("{:?}", exchange(right, 2));
    say!("{}", wait(child));
    close(right);
}

/// A thread that waits in poll is woken by whatever comes first.
fn wakes() {
    let pipes: Vec<(i32, i32)> = (0..3).map(|_| pipe(0)).collect();
    let event = sys!(SYS_eventfd2, 0, 0).unwrap() as i32;
    for round in 0..60 {
        let which = round % 4;
        std::thread::scope(|scope| {
            let poller = scope.spawn(|| {
                let mut requests: Vec<_> =
                    pipes.iter().map(|pipe| request(pipe.0, libc::POLLIN)).collect();
                requests.push(request(event, libc::POLLIN));
                let ready = sys!(SYS_poll, requests.as_mut_ptr(), 4, 60_000);
                ready == Ok(1) && requests[which].revents == libc::POLLIN
            });
            if round % 3 == 0 {
                pause_ms(1);
            }
            match pipes.get(which) {
                Some(pipe) => write(pipe.1, b"12345678").unwrap(),
                None => write(event, &1u64.to_le_bytes()).unwrap(),
            };
            check!(poller.join().unwrap(), "round {round}");
        });
        read(pipes.get(which).map_or(event, |pipe| pipe.0), 8).unwrap();
    }
    say!("60 rounds");
    for (input, output) in pipes {
        close(input);
        close(output);
    }
    close(event);
}
