//! Files: what opens, what is written and read, where; links, renames, directories and their errors.

mod contents;
mod descriptors;
mod directories;
mod names;

use std::ffi::CStr;

use programs::process::read;
use programs::sys;
use programs::sys::value;

fn main() {
    sys!(SYS_umask, 0o022).unwrap();
    programs::main(&[
        ("create", contents::create),
        ("seek", contents::seek),
        ("append", contents::append),
        ("truncate", contents::truncate),
        ("holes", contents::holes),
        ("partly", contents::partly),
        ("positioned", contents::positioned),
        ("unlink", names::unlink),
        ("links", names::links),
        ("symlinks", names::symlinks),
        ("slashes", names::slashes),
        ("rename", names::rename),
        ("directories", directories::directories),
        ("removed", directories::removed_directories),
        ("listing", directories::listing),
        ("at", names::at),
        ("modes", names::modes),
        ("set-group", names::set_group),
        ("sockets", names::sockets),
        ("allocate", contents::allocate),
        ("read-ahead", contents::read_ahead),
        ("dot", names::dot),
        ("names", names::names),
        ("errors", names::errors),
        ("devices", descriptors::devices),
        ("descriptors", descriptors::descriptors),
        ("no-descriptor", descriptors::no_descriptor),
        ("std", contents::std_files),
        ("sendfile", contents::sendfile),
        ("concurrent", contents::concurrent),
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
