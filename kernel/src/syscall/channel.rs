//! Pipes, socket pairs and event counters.

use alloc::sync::Arc;

use linux_raw_sys::general as abi;
use linux_raw_sys::net;

use super::descriptor::{descriptor_limit, install, on_exec, usable_file};
use super::io;
use super::socket::receive;
use super::{Args, Errno, SysResult};
use crate::fs::OpenFile;
use crate::fs::event_fd::{EventFd, Take};
use crate::fs::fifo::{Fifo, Kind};
use crate::fs::file::Transfer;
use crate::fs::inode::{Inode, Node};
use crate::fs::io::{IoFrom, IoTo};
use crate::fs::socket::{self, Direction};
use crate::mm::user;
use crate::process::current;

/// Gives two files descriptors and writes these to the program.
fn install_pair(files: &[Arc<OpenFile>; 2], flags: u32, to: u64) -> SysResult {
    let table = current().files();
    let fds = table.insert_pair(descriptor_limit(), files, on_exec(flags))?;
    if let Err(why) = user::write::<[u32; 2]>(to, &fds) {
        for (fd, file) in fds.into_iter().zip(files) {
            table.withdraw(fd, file);
        }
        return Err(why);
    }
    Ok(0)
}

/// pipe(2).
pub fn pipe(args: &Args) -> SysResult {
    make_pipe(args[0], 0)
}

/// pipe2(2).
pub fn pipe2(args: &Args) -> SysResult {
    make_pipe(args[0], args[1] as u32)
}

fn make_pipe(to: u64, flags: u32) -> SysResult {
    if flags & !(abi::O_CLOEXEC | abi::O_NONBLOCK | abi::O_DIRECT) != 0 {
        return Err(Errno::EINVAL);
    }
    let fifo = Fifo::new(Kind::Nameless);
    if flags & abi::O_DIRECT != 0 {
        fifo.pipe().take_packets()?;
    }
    let (reader, writer) = fifo.ends();
    let inode = Inode::nameless(Node::Fifo(fifo), 0o600)?;
    let status = flags & abi::O_NONBLOCK;
    let reader = OpenFile::new(reader, inode.clone(), abi::O_RDONLY | status)?;
    let status = flags & (abi::O_NONBLOCK | abi::O_DIRECT);
    let writer = OpenFile::new(writer, inode, abi::O_WRONLY | status)?;
    install_pair(&[reader, writer], flags, to)
}

/// Bits of a socket's type that are no flags (`SOCK_TYPE_MASK` of Linux).
const SOCKET_KINDS: u32 = 0xf;

/// socketpair(2): `AF_UNIX` streams.
pub fn socketpair(args: &Args) -> SysResult {
    let (family, kind, protocol) = (args[0] as u32, args[1] as u32, args[2] as u32);
    // `SOCK_NONBLOCK` and `SOCK_CLOEXEC` are the same numbers.
    let flags = kind & !SOCKET_KINDS;
    if flags & !(abi::O_NONBLOCK | abi::O_CLOEXEC) != 0 {
        return Err(Errno::EINVAL);
    }
    if family != net::AF_UNIX {
        return Err(Errno::EAFNOSUPPORT);
    }
    if kind & SOCKET_KINDS != net::SOCK_STREAM {
        return Err(Errno::ESOCKTNOSUPPORT);
    }
    if protocol != 0 && protocol != net::AF_UNIX {
        return Err(Errno::EPROTONOSUPPORT);
    }
    let [a, b] = socket::pair();
    let open = |end| {
        let inode = Inode::nameless(Node::Nameless, abi::S_IFSOCK | 0o777)?;
        OpenFile::new(Arc::new(end), inode, abi::O_RDWR | flags & abi::O_NONBLOCK)
    };
    install_pair(&[open(a)?, open(b)?], flags, args[3])
}

/// eventfd(2).
pub fn eventfd(args: &Args) -> SysResult {
    make_event_fd(args[0] as u32, 0)
}

/// eventfd2(2).
pub fn eventfd2(args: &Args) -> SysResult {
    make_event_fd(args[0] as u32, args[1] as u32)
}

fn make_event_fd(count: u32, flags: u32) -> SysResult {
    if flags & !(abi::EFD_SEMAPHORE | abi::EFD_CLOEXEC | abi::EFD_NONBLOCK) != 0 {
        return Err(Errno::EINVAL);
    }
    let take = if flags & abi::EFD_SEMAPHORE != 0 { Take::One } else { Take::All };
    let inode = Inode::nameless(Node::Nameless, 0o600)?;
    let file = Arc::new(EventFd::new(count, take));
    // The flags are those of open(2).
    let status = abi::O_RDWR | flags & abi::O_NONBLOCK;
    install(OpenFile::new(file, inode, status)?, flags)
}

/// The file of a socket's descriptor.
pub(super) fn socket_file(fd: u64) -> Result<Arc<OpenFile>, Errno> {
    let file = usable_file(fd)?;
    if file.file().socket().is_some() { Ok(file) } else { Err(Errno::ENOTSOCK) }
}

/// shutdown(2).
pub fn shutdown(args: &Args) -> SysResult {
    let file = usable_file(args[0])?;
    let socket = file.file().socket().ok_or(Errno::ENOTSOCK)?;
    let directions: &[Direction] = match args[1] as u32 {
        net::SHUT_RD => &[Direction::Receive],
        net::SHUT_WR => &[Direction::Send],
        net::SHUT_RDWR => &[Direction::Receive, Direction::Send],
        _ => return Err(Errno::EINVAL),
    };
    for &direction in directions {
        socket.shut_down(direction);
    }
    Ok(0)
}

pub(super) fn transfer(file: &OpenFile, flags: u32) -> Transfer {
    let dont_wait = if flags & net::MSG_DONTWAIT != 0 { abi::O_NONBLOCK } else { 0 };
    Transfer { at: 0, flags: file.flags() | dont_wait }
}

/// What a call returns that has sent so many bytes.
pub(super) fn finish_send(done: usize, result: Result<(), Errno>, flags: u32) -> SysResult {
    match result {
        Err(why) if done == 0 => {
            if why == Errno::EPIPE && flags & net::MSG_NOSIGNAL == 0 {
                io::broken_pipe();
            }
            Err(why)
        }
        _ => Ok(done as u64),
    }
}

/// sendto(2), without an address.
pub fn sendto(args: &Args) -> SysResult {
    let flags = args[3] as u32;
    if flags & !(net::MSG_DONTWAIT | net::MSG_NOSIGNAL | net::MSG_MORE | net::MSG_EOR) != 0 {
        return Err(Errno::EOPNOTSUPP);
    }
    let file = socket_file(args[0])?;
    if args[4] != 0 && args[5] != 0 {
        return Err(Errno::EISCONN);
    }
    let mut from = IoFrom::program(args[1], io::transfer_len(args[1], args[2])?);
    let result = file.file().write(&mut from, &mut transfer(&file, flags));
    finish_send(from.done(), result, flags)
}

/// recvfrom(2): nobody has an address. Files that came along are closed.
pub fn recvfrom(args: &Args) -> SysResult {
    let file = usable_file(args[0])?;
    let mut to = IoTo::program(args[1], io::transfer_len(args[1], args[2])?);
    let (done, _) = receive(&file, &mut to, args[3] as u32)?;
    if args[4] != 0 && args[5] != 0 {
        user::write::<u32>(args[5], &0)?;
    }
    Ok(done as u64)
}
