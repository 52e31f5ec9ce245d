//! Messages between connected sockets: vectors, files that travel along, what is told of a socket.

use std::ffi::CStr;

use programs::process::{close, pause_ms, pipe, read, spawn, wait, write};
use programs::sys::value;
use programs::{check, say, signal, sys};

fn main() {
    programs::main(&[
        ("vectors", vectors),
        ("files", files),
        ("between-processes", between_processes),
        ("borders", borders),
        ("peek", peek),
        ("truncated", truncated),
        ("not-taken", not_taken),
        ("refused", refused),
        ("wait-all", wait_all),
        ("options", options),
        ("names", names),
        ("ends", ends),
        ("peek-and-read", peek_and_read),
        ("reset", reset),
    ]);
}

const SPACE: usize = 64;

fn sockets() -> (i32, i32) {
    let mut ends = [0i32; 2];
    sys!(SYS_socketpair, libc::AF_UNIX, libc::SOCK_STREAM, 0, &mut ends).unwrap();
    (ends[0], ends[1])
}

/// A control message of this kind with these numbers.
fn control(level: i32, kind: i32, numbers: &[i32]) -> Vec<u8> {
    let len = 16 + 4 * numbers.len();
    let mut bytes = len.to_ne_bytes().to_vec();
    bytes.extend(level.to_ne_bytes());
    bytes.extend(kind.to_ne_bytes());
    bytes.extend(numbers.iter().flat_map(|number| number.to_ne_bytes()));
    bytes.resize(len.next_multiple_of(8), 0);
    bytes
}

fn message(vectors: &[[u64; 2]], control: &mut [u8]) -> [u64; 7] {
    let vectors_at = vectors.as_ptr() as u64;
    let control_at = if control.is_empty() { 0 } else { control.as_mut_ptr() as u64 };
    [0, 0, vectors_at, vectors.len() as u64, control_at, control.len() as u64, 0]
}

fn send_with(fd: i32, bytes: &[u8], mut control: Vec<u8>, flags: i32) -> String {
    let vectors = [[bytes.as_ptr() as u64, bytes.len() as u64]];
    let message = message(&vectors, &mut control);
    value(sys!(SYS_sendmsg, fd, &message, flags))
}

fn send(fd: i32, bytes: &[u8], files: &[i32]) -> String {
    let control = if files.is_empty() {
        Vec::new()
    } else {
        control(libc::SOL_SOCKET, libc::SCM_RIGHTS, files)
    };
    send_with(fd, bytes, control, 0)
}

/// Receives: what is said of it, and the descriptors that came.
fn receive(fd: i32, len: usize, space: usize, flags: i32) -> (String, Vec<i32>) {
    let mut bytes = vec![0u8; len];
    let mut control = vec![0u8; space];
    let vectors = [[bytes.as_mut_ptr() as u64, len as u64]];
    let mut message = message(&vectors, &mut control);
    match sys!(SYS_recvmsg, fd, &mut message, flags) {
        Err(error) => (error.to_string(), Vec::new()),
        Ok(done) => {
            let text = String::from_utf8_lossy(&bytes[..done as usize]).into_owned();
            let (used, flags) = (message[5] as usize, message[6] as u32);
            let word = |at: usize| i32::from_ne_bytes(control[at..at + 4].try_into().unwrap());
            let files = if used >= 16 { (word(0) as usize - 16) / 4 } else { 0 };
            let fds: Vec<i32> = (0..files).map(|index| word(16 + 4 * index)).collect();
            (format!("{text:?} name {} control {used} flags {flags:#x}", message[1] as u32), fds)
        }
    }
}

fn open(name: &CStr, flags: i32) -> i32 {
    sys!(SYS_open, name.as_ptr(), flags, 0o644).expect("open") as i32
}

fn vectors() {
    let (left, right) = sockets();
    let parts = [b"one ".as_slice(), b"", b"two ", b"three"];
    let vectors: Vec<[u64; 2]> =
        parts.iter().map(|part| [part.as_ptr() as u64, part.len() as u64]).collect();
    let out = message(&vectors, &mut []);
    say!("{}", value(sys!(SYS_sendmsg, left, &out, 0)));
    let mut blocks = [[b'.'; 5]; 3];
    let vectors = [0, 1, 2].map(|n: usize| [(&raw mut blocks[n]) as u64, 5]);
    let mut into = message(&vectors, &mut []);
    say!("{}", value(sys!(SYS_recvmsg, right, &mut into, 0)));
    say!("{:?} {:?}", String::from_utf8_lossy(&blocks.concat()), &into[5..]);
    say!("nothing: {}", value(sys!(SYS_recvmsg, right, &mut into, libc::MSG_DONTWAIT)));
    let mut many = out;
    many[3] = 1_025;
    say!("too many: {}", value(sys!(SYS_sendmsg, left, &many, 0)));
    say!("nowhere: {}", value(sys!(SYS_sendmsg, left, 16u64, 0)));
    let mut bad = out;
    bad[2] = 16;
    say!("bad vector: {}", value(sys!(SYS_sendmsg, left, &bad, 0)));
    close(left);
    close(right);
}

fn files() {
    let (left, right) = sockets();
    let file = open(c"f", libc::O_RDWR | libc::O_CREAT | libc::O_TRUNC);
    let (input, output) = pipe(0);
    say!("{}", send(left, b"three files", &[file, input, output]));
    let (text, fds) = receive(right, 100, SPACE, libc::MSG_CMSG_CLOEXEC);
    say!("{text} {}", fds.len());
    for &fd in &fds {
        say!("closed by exec: {}", value(sys!(SYS_fcntl, fd, libc::F_GETFD)));
    }
    // The same open file: it shares its position.
    write(file, b"position").unwrap();
    say!("{}", value(sys!(SYS_lseek, fds[0], 0, libc::SEEK_CUR)));
    close(output);
    write(fds[2], b"through the pipe").unwrap();
    close(fds[2]);
    say!("{:?}", String::from_utf8_lossy(&read(fds[1], 100).unwrap()));
    say!("{}", read(fds[1], 100).unwrap().len());
    for fd in [left, right, file, input, fds[0], fds[1]] {
        close(fd);
    }
    std::fs::remove_file("f").unwrap();
}

/// The child gets a pipe that it did not inherit.
fn between_processes() {
    let (left, right) = sockets();
    let child = spawn(|| {
        close(left);
        let (text, fds) = receive(right, 100, SPACE, 0);
        say!("{text}");
        write(fds[0], b"from the child").unwrap();
        0
    });
    close(right);
    pause_ms(10);
    let (input, output) = pipe(0);
    let sent = send(left, b"x", &[output]);
    close(output);
    let ended = wait(child);
    say!("{sent} {:?}", String::from_utf8_lossy(&read(input, 100).unwrap()));
    say!("{ended} {}", read(input, 1).unwrap().len());
    close(left);
    close(input);
}

/// Bytes before the files are read with them, bytes behind are not.
fn borders() {
    let (left, right) = sockets();
    let file = open(c"/dev/null", libc::O_RDWR);
    for step in 0..2 {
        for (bytes, files) in [
            (b"before ".as_slice(), [].as_slice()),
            (b"with ", &[file]),
            (b"also ", &[file, file]),
            (b"behind ", &[]),
        ] {
            send(left, bytes, files);
        }
        let len = if step == 0 { 100 } else { 9 };
        loop {
            let (text, fds) = receive(right, len, SPACE, libc::MSG_DONTWAIT);
            let is_over = text == "EAGAIN";
            say!("{text} {}", fds.len());
            fds.into_iter().for_each(close);
            if is_over {
                break;
            }
        }
    }
    say!("no bytes: {}", send(left, b"", &[file]));
    say!("{}", receive(right, 10, SPACE, libc::MSG_DONTWAIT).0);
    for fd in [left, right, file] {
        close(fd);
    }
}

fn peek() {
    let (left, right) = sockets();
    let file = open(c"/dev/null", libc::O_RDWR);
    send(left, b"look", &[file]);
    for flags in [libc::MSG_PEEK, libc::MSG_PEEK, 0] {
        let (text, fds) = receive(right, 10, SPACE, flags | libc::MSG_DONTWAIT);
        say!("{text} {}", fds.len());
        fds.into_iter().for_each(close);
    }
    for fd in [left, right, file] {
        close(fd);
    }
}

/// Too little room for what is told: the rest is closed.
fn truncated() {
    let (left, right) = sockets();
    let (input, output) = pipe(0);
    for space in [0, 8, 16, 20, 24, 28, 32] {
        send(left, b"x", &[output, output, output]);
        let (text, fds) = receive(right, 10, space, 0);
        say!("{space}: {text} {}", fds.len());
        fds.into_iter().for_each(close);
    }
    let limit = libc::rlimit64 { rlim_cur: output as u64 + 2, rlim_max: 1_024 };
    sys!(SYS_prlimit64, 0, libc::RLIMIT_NOFILE, &limit, 0).unwrap();
    send(left, b"x", &[output, output, output]);
    let (text, fds) = receive(right, 10, SPACE, 0);
    say!("no more descriptors: {text} {}", fds.len());
    fds.into_iter().for_each(close);
    close(output);
    say!("all closed: {}", read(input, 1).unwrap().len());
    for fd in [left, right, input] {
        close(fd);
    }
}

/// Files that nobody takes are closed.
fn not_taken() {
    let (input, output) = pipe(0);
    let (left, right) = sockets();
    send(left, b"read", &[output]);
    send(left, b"received", &[output]);
    send(left, b"left there", &[output]);
    close(output);
    let poll = |input: i32| {
        let mut request = [libc::pollfd { fd: input, events: libc::POLLIN, revents: 0 }];
        value(sys!(SYS_poll, &mut request, 1, 0))
    };
    say!("{:?} {}", read(right, 100).unwrap().len(), poll(input));
    let mut buffer = [0u8; 100];
    let received = sys!(SYS_recvfrom, right, &mut buffer, 100, 0, 0, 0);
    say!("{} {}", value(received), poll(input));
    close(left);
    close(right);
    say!("{}", poll(input));
    close(input);
}

fn refused() {
    let (left, right) = sockets();
    let (input, output) = pipe(0);
    say!("closed: {}", send(left, b"x", &[1_000]));
    say!("too many: {}", send(left, b"x", &vec![output; 254]));
    say!("as many as can be: {}", send(left, b"x", &vec![output; 253]));
    let (text, fds) = receive(right, 10, 2_000, 0);
    say!("{text} {}", fds.len());
    fds.into_iter().for_each(close);
    let kinds = [(libc::SOL_SOCKET, 9), (libc::SOL_SOCKET, libc::SCM_CREDENTIALS), (77, 1)];
    for (level, kind) in kinds {
        let control = control(level, kind, &[output]);
        say!("{level} {kind}: {}", send_with(left, b"x", control, 0));
    }
    for len in [0usize, 15, 25, usize::MAX] {
        let mut control = control(libc::SOL_SOCKET, libc::SCM_RIGHTS, &[output]);
        control[..8].copy_from_slice(&len.to_ne_bytes());
        say!("length {len}: {}", send_with(left, b"x", control, 0));
    }
    let bytes = b"x";
    let vectors = [[bytes.as_ptr() as u64, 1]];
    let mut addressed = message(&vectors, &mut []);
    let name = [libc::AF_UNIX as u16, 0];
    (addressed[0], addressed[1]) = (name.as_ptr() as u64, 4);
    say!("with a name: {}", value(sys!(SYS_sendmsg, left, &addressed, 0)));
    (addressed[0], addressed[1]) = (0, u64::MAX);
    say!("only its length: {}", value(sys!(SYS_sendmsg, left, &addressed, 0)));
    let plain = message(&vectors, &mut []);
    say!("a pipe: {}", value(sys!(SYS_sendmsg, output, &plain, 0)));
    say!("a pipe: {}", receive(input, 1, 0, 0).0);
    for fd in [left, right, input, output] {
        close(fd);
    }
}

fn wait_all() {
    let (left, right) = sockets();
    let child = spawn(|| {
        close(right);
        for part in [b"in ".as_slice(), b"three ", b"parts"] {
            pause_ms(5);
            write(left, part).unwrap();
        }
        0
    });
    close(left);
    let mut buffer = [0u8; 14];
    let all = sys!(SYS_recvfrom, right, &mut buffer, 12, libc::MSG_WAITALL, 0, 0);
    say!("{} {:?}", value(all), String::from_utf8_lossy(&buffer));
    let rest = sys!(SYS_recvfrom, right, &mut buffer, 12, libc::MSG_WAITALL, 0, 0);
    say!("until the end: {} {}", value(rest), wait(child));
    close(right);
}

fn option(fd: i32, level: i32, option: i32, room: i32) -> String {
    let (mut answer, mut len) = ([-1i32; 4], room);
    match sys!(SYS_getsockopt, fd, level, option, &mut answer, &mut len) {
        Ok(_) => format!("{} of {len}", answer[0]),
        Err(error) => error.to_string(),
    }
}

fn options() {
    let (left, right) = sockets();
    let numbers = [
        libc::SO_TYPE,
        libc::SO_DOMAIN,
        libc::SO_PROTOCOL,
        libc::SO_ERROR,
        libc::SO_ACCEPTCONN,
        libc::SO_PASSCRED,
        libc::SO_RCVLOWAT,
        libc::SO_KEEPALIVE,
    ];
    for number in numbers {
        say!("{number}: {}", option(left, libc::SOL_SOCKET, number, 16));
    }
    for room in [0, 1, 3, 4, -1] {
        say!("room {room}: {}", option(left, libc::SOL_SOCKET, libc::SO_DOMAIN, room));
    }
    say!("unknown: {}", option(left, libc::SOL_SOCKET, 999, 4));
    say!("level: {}", option(left, 77, libc::SO_TYPE, 4));
    let (input, output) = pipe(0);
    say!("a pipe: {}", option(input, libc::SOL_SOCKET, libc::SO_TYPE, 4));
    let (mut peer, mut len) = ([-1i32; 3], 12);
    sys!(SYS_getsockopt, left, libc::SOL_SOCKET, libc::SO_PEERCRED, &mut peer, &mut len).unwrap();
    say!("made by me: {} of {len}", peer[0] == programs::process::id());
    for fd in [left, right, input, output] {
        close(fd);
    }
}

fn names() {
    let (left, right) = sockets();
    for number in [libc::SYS_getsockname, libc::SYS_getpeername] {
        for room in [0, 1, 2, 100, -1] {
            let (mut name, mut len) = ([0x5555u16; 8], room);
            let result = unsafe_call(number, left, &mut name, &mut len);
            say!("{result} {:x} {len}", name[0]);
        }
    }
    close(right);
    let (mut name, mut len) = ([0u16; 8], 16);
    say!("without a peer: {}", unsafe_call(libc::SYS_getpeername, left, &mut name, &mut len));
    close(left);
}

fn unsafe_call(number: i64, fd: i32, name: &mut [u16; 8], len: &mut i32) -> String {
    let args = [fd as u64, name.as_mut_ptr() as u64, std::ptr::from_mut(len) as u64];
    // SAFETY: both calls write a name and its length, which are borrowed for that.
    value(unsafe { sys::call(number, &args) })
}

fn ends() {
    let (left, right) = sockets();
    write(left, b"last").unwrap();
    close(left);
    say!("{} {}", receive(right, 10, 0, 0).0, receive(right, 10, 0, 0).0);
    signal::recorded(libc::SIGPIPE, 0);
    say!("{} {}", send(right, b"x", &[]), signal::taken_names());
    say!("{} {}", send_with(right, b"x", Vec::new(), libc::MSG_NOSIGNAL), signal::taken_names());
    check!(signal::count() == 0, "a signal for nobody");
    close(right);
}

/// One waits to look at bytes, another to read them: both get to see what comes.
fn peek_and_read() {
    let (left, right) = sockets();
    let wait_for = |flags: i32| {
        let child = spawn(|| {
            let mut byte = [0u8];
            let result = sys!(SYS_recvfrom, right, &mut byte, 1, flags, 0, 0);
            i32::from(result != Ok(1) || byte != *b"x")
        });
        pause_ms(10);
        child
    };
    let children = [libc::MSG_PEEK, 0, libc::MSG_PEEK].map(wait_for);
    // One is taken by the reader.
    write(left, b"xx").unwrap();
    say!("{}", children.map(|child| wait(child).to_string()).join(", "));
    close(left);
    close(right);
}

fn poll_events(fd: i32) -> i16 {
    let mut request = libc::pollfd { fd, events: libc::POLLIN | libc::POLLOUT, revents: 0 };
    sys!(SYS_poll, &mut request, 1, 0).unwrap();
    request.revents
}

/// An end is closed before everything was read: the other end is told, once.
fn reset() {
    signal::recorded(libc::SIGPIPE, 0);
    let (left, right) = sockets();
    write(left, b"not read").unwrap();
    write(right, b"read").unwrap();
    close(right);
    say!("{:#x} {}", poll_events(left), receive(left, 10, 0, 0).0);
    say!("{} {}", send(left, b"x", &[]), signal::taken_names());
    say!("{} {:#x}", receive(left, 10, 0, 0).0, poll_events(left));
    say!("{}", receive(left, 10, 0, 0).0);
    close(left);

    let (left, right) = sockets();
    send(left, b"not read", &[]);
    close(right);
    let error = || option(left, libc::SOL_SOCKET, libc::SO_ERROR, 4);
    say!("{} {} {}", error() != "0 of 4", error(), receive(left, 10, 0, 0).0);
    close(left);

    // Whoever waits for room meanwhile gets the error, and no signal.
    let (left, right) = sockets();
    sys!(SYS_fcntl, left, libc::F_SETFL, libc::O_NONBLOCK).unwrap();
    while write(left, &[b'.'; 1_000]).is_ok() {}
    while write(left, b".").is_ok() {}
    sys!(SYS_fcntl, left, libc::F_SETFL, 0).unwrap();
    let child = spawn(|| {
        close(right);
        say!("{} {}", value(write(left, b"x")), signal::taken_names());
        say!("{} {}", value(write(left, b"x")), signal::taken_names());
        0
    });
    pause_ms(20);
    close(right);
    say!("{}", wait(child));
    close(left);
    signal::dispose(libc::SIGPIPE, libc::SIG_DFL);
}
