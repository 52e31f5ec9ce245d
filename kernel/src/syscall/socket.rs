//! Socket pairs beyond reading and writing: messages with files (`SCM_RIGHTS`), options, names.

use alloc::vec::Vec;

use linux_raw_sys::general as abi;
use linux_raw_sys::net;
use orrery_core::fs::fd_table::OnExec;

use super::channel::{finish_send, socket_file, transfer};
use super::descriptor::{descriptor_limit, file};
use super::io::with_segments;
use super::{Args, Errno, SysResult};
use crate::fs::OpenFile;
use crate::fs::io::{IoFrom, IoTo};
use crate::fs::pipe::queue::Rights;
use crate::fs::socket::SocketEnd;
use crate::mm::user;
use crate::process::current;

/// A `struct msghdr` of a program.
struct Message {
    at: u64,
    name_len: u32,
    segments: u64,
    segment_count: u64,
    control: u64,
    control_len: u64,
}

impl Message {
    fn read(at: u64) -> Result<Self, Errno> {
        let [name, name_len, segments, segment_count, control, control_len, _] =
            user::read::<[u64; 7]>(at)?;
        let name_len = if name == 0 { 0 } else { name_len as u32 };
        if name_len.cast_signed() < 0 {
            return Err(Errno::EINVAL);
        }
        if segment_count > abi::UIO_MAXIOV.into() {
            return Err(Errno::EMSGSIZE);
        }
        Ok(Self { at, name_len, segments, segment_count, control, control_len })
    }

    /// Tells the program what came besides bytes: nobody's name, so many bytes of control messages, these flags.
    fn answer(&self, control_len: u64, flags: u32) -> Result<(), Errno> {
        const NAME_LEN: u64 = core::mem::offset_of!(net::msghdr, msg_namelen) as u64;
        const CONTROL_LEN: u64 = core::mem::offset_of!(net::msghdr, msg_controllen) as u64;
        const FLAGS: u64 = core::mem::offset_of!(net::msghdr, msg_flags) as u64;
        user::write(self.at + NAME_LEN, &0u32)?;
        user::write(self.at + CONTROL_LEN, &control_len)?;
        user::write(self.at + FLAGS, &flags)
    }
}

/// Bytes of a control message's header: its length (`u64`), level and type (`i32`).
const HEADER_BYTES: u64 = size_of::<net::cmsghdr>() as u64;
/// Control messages begin at multiples of this.
const CONTROL_ALIGN: u64 = size_of::<u64>() as u64;
/// Bytes of control messages that one call takes (Linux's `net.core.optmem_max`).
const MAX_CONTROL_BYTES: u64 = 20_480;
/// Files that one message takes along (Linux's `SCM_MAX_FD`).
const MAX_RIGHTS: usize = 253;

/// The files that the control messages of a message name.
fn read_rights(message: &Message) -> Result<Rights, Errno> {
    let mut rights = Rights::new();
    if message.control_len > MAX_CONTROL_BYTES {
        return Err(Errno::ENOBUFS);
    }
    let end = message.control.checked_add(message.control_len).ok_or(Errno::EFAULT)?;
    let mut at = message.control;
    while end.saturating_sub(at) >= HEADER_BYTES {
        let [len, level_and_type] = user::read::<[u64; 2]>(at)?;
        if len < HEADER_BYTES || len > end - at {
            return Err(Errno::EINVAL);
        }
        let (level, kind) = (level_and_type as u32, (level_and_type >> 32) as u32);
        let data_bytes = len - HEADER_BYTES;
        match (level, kind) {
            (net::SOL_SOCKET, net::SCM_RIGHTS) => {
                let count = data_bytes as usize / size_of::<i32>();
                if rights.len() + count > MAX_RIGHTS {
                    return Err(Errno::EINVAL);
                }
                let mut fds = [0i32; MAX_RIGHTS];
                user::read_slice(&mut fds[..count], at + HEADER_BYTES)?;
                rights.try_reserve(count).map_err(|_| Errno::ENOMEM)?;
                for &fd in &fds[..count] {
                    rights.push(sendable(fd)?);
                }
            }
            // Whose they are is what the receiver would not be told.
            (net::SOL_SOCKET, net::SCM_CREDENTIALS)
                if data_bytes == size_of::<net::ucred>() as u64 => {}
            (net::SOL_SOCKET, _) => return Err(Errno::EINVAL),
            _ => {}
        }
        at += len.next_multiple_of(CONTROL_ALIGN);
    }
    Ok(rights)
}

/// A file that may be sent. A socket may not: one that is on its way to itself would never be closed.
fn sendable(fd: i32) -> Result<alloc::sync::Arc<OpenFile>, Errno> {
    let file = file(u64::from(fd.cast_unsigned()))?;
    if file.file().socket().is_some() { Err(Errno::ETOOMANYREFS) } else { Ok(file) }
}

/// sendmsg(2), to the peer.
pub fn sendmsg(args: &Args) -> SysResult {
    let flags = args[2] as u32;
    let known = net::MSG_DONTWAIT
        | net::MSG_NOSIGNAL
        | net::MSG_MORE
        | net::MSG_EOR
        | net::MSG_CMSG_CLOEXEC;
    if flags & !known != 0 {
        return Err(Errno::EOPNOTSUPP);
    }
    let file = socket_file(args[0])?;
    let message = Message::read(args[1])?;
    let rights = read_rights(&message)?;
    if message.name_len != 0 {
        return Err(Errno::EISCONN);
    }
    with_segments(message.segments, message.segment_count, |segments| {
        let mut from = IoFrom::program_segments(segments);
        let mut transfer = transfer(&file, flags);
        let result = match file.file().socket() {
            Some(socket) if !rights.is_empty() => {
                socket.send_with_rights(&mut from, &transfer, rights)
            }
            _ => file.file().write(&mut from, &mut transfer),
        };
        finish_send(from.done(), result, flags)
    })
}

/// recvmsg(2).
pub fn recvmsg(args: &Args) -> SysResult {
    let flags = args[2] as u32;
    let file = socket_file(args[0])?;
    let message = Message::read(args[1])?;
    let (done, rights) = with_segments(message.segments, message.segment_count, |segments| {
        receive(&file, &mut IoTo::program_segments(segments), flags)
    })?;
    let (control_len, truncated) = match rights {
        None => (0, 0),
        Some(rights) => write_rights(&message, &rights, flags)?,
    };
    message.answer(control_len, truncated | flags & net::MSG_CMSG_CLOEXEC)?;
    Ok(done as u64)
}

/// Receives as the flags say: the bytes, and the files that came with them.
///
/// # Errors
/// Those of recv(2), if nothing came.
pub(super) fn receive(
    file: &OpenFile,
    to: &mut IoTo<'_>,
    flags: u32,
) -> Result<(usize, Option<Rights>), Errno> {
    let known = net::MSG_DONTWAIT
        | net::MSG_PEEK
        | net::MSG_WAITALL
        | net::MSG_TRUNC
        | net::MSG_CMSG_CLOEXEC
        | net::MSG_NOSIGNAL;
    if flags & !known != 0 {
        return Err(Errno::EOPNOTSUPP);
    }
    let socket: &SocketEnd = file.file().socket().ok_or(Errno::ENOTSOCK)?;
    let transfer = transfer(file, flags);
    let is_peek = flags & net::MSG_PEEK != 0;
    loop {
        let before = to.done();
        let result =
            if is_peek { socket.peek(to, &transfer) } else { socket.receive(to, &transfer) };
        match result {
            Err(why) if to.done() == 0 => return Err(why),
            Err(_) => return Ok((to.done(), None)),
            Ok(rights) => {
                let goes_on = flags & net::MSG_WAITALL != 0 && !is_peek && rights.is_none();
                if !goes_on || to.left() == 0 || to.done() == before {
                    return Ok((to.done(), rights));
                }
            }
        }
    }
}

/// Gives the program descriptors of these files, and tells it which. The bytes of control messages that it gets,
/// and `MSG_CTRUNC` if there was no room for all.
fn write_rights(message: &Message, rights: &Rights, flags: u32) -> Result<(u64, u32), Errno> {
    const FD_BYTES: u64 = size_of::<i32>() as u64;
    let room = message.control_len.saturating_sub(HEADER_BYTES) / FD_BYTES;
    let closes = flags & net::MSG_CMSG_CLOEXEC != 0;
    let on_exec = if closes { OnExec::Close } else { OnExec::Keep };
    let table = current().files();
    let mut fds = Vec::new();
    fds.try_reserve_exact(rights.len()).map_err(|_| Errno::ENOMEM)?;
    for file in rights.iter().take(room as usize) {
        match table.insert(0, descriptor_limit(), file.clone(), on_exec) {
            Ok(fd) => fds.push(fd),
            Err(_) => break,
        }
    }
    let flags = if fds.len() < rights.len() { net::MSG_CTRUNC } else { 0 };
    if fds.is_empty() {
        return Ok((0, flags));
    }
    let len = HEADER_BYTES + fds.len() as u64 * FD_BYTES;
    let level_and_type = u64::from(net::SOL_SOCKET) | u64::from(net::SCM_RIGHTS) << 32;
    let written = user::write(message.control, &[len, level_and_type])
        .and_then(|()| user::write_slice(message.control + HEADER_BYTES, &fds));
    if let Err(why) = written {
        for (fd, file) in fds.into_iter().zip(rights.iter()) {
            table.withdraw(fd, file);
        }
        return Err(why);
    }
    Ok((len.next_multiple_of(CONTROL_ALIGN).min(message.control_len), flags))
}

/// Writes an answer of at most the length that the program has room for, and its length.
fn answer(bytes: &[u8], to: u64, len_at: u64) -> SysResult {
    let len = usize::try_from(user::read::<i32>(len_at)?).map_err(|_| Errno::EINVAL)?;
    let given = &bytes[..bytes.len().min(len)];
    user::write_bytes(to, given)?;
    user::write(len_at, &(given.len() as u32))?;
    Ok(0)
}

/// getsockopt(2): what a connected `AF_UNIX` stream is.
pub fn getsockopt(args: &Args) -> SysResult {
    let (level, option) = (args[1] as u32, args[2] as u32);
    let file = socket_file(args[0])?;
    if level != net::SOL_SOCKET {
        return Err(Errno::EOPNOTSUPP);
    }
    let number = match option {
        net::SO_TYPE => net::SOCK_STREAM,
        net::SO_DOMAIN => net::AF_UNIX,
        net::SO_RCVLOWAT => 1,
        net::SO_SNDBUF | net::SO_RCVBUF => crate::fs::pipe::CAPACITY_BYTES as u32,
        net::SO_ERROR => {
            let socket = file.file().socket().ok_or(Errno::ENOTSOCK)?;
            if socket.take_reset() { Errno::ECONNRESET.number().into() } else { 0 }
        }
        net::SO_PROTOCOL
        | net::SO_ACCEPTCONN
        | net::SO_PASSCRED
        | net::SO_REUSEADDR
        | net::SO_KEEPALIVE
        | net::SO_BROADCAST
        | net::SO_OOBINLINE
        | net::SO_PRIORITY => 0,
        net::SO_PEERCRED => {
            let socket = file.file().socket().ok_or(Errno::ENOTSOCK)?;
            let pid = socket.maker_in(&current().process.namespace);
            // Everybody is root.
            let [pid, uid, gid] = [pid, 0, 0].map(u32::to_ne_bytes);
            return answer(&[pid, uid, gid].concat(), args[3], args[4]);
        }
        _ => return Err(Errno::ENOPROTOOPT),
    };
    answer(&number.to_ne_bytes(), args[3], args[4])
}

/// getsockname(2), getpeername(2): the address of a socket without a name is its family.
pub fn getsockname(args: &Args) -> SysResult {
    socket_file(args[0])?;
    let family = (net::AF_UNIX as u16).to_ne_bytes();
    answer(&family, args[1], args[2])?;
    // The length that it has, be it more than there was room for.
    user::write(args[2], &(family.len() as u32))?;
    Ok(0)
}
