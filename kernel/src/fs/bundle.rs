//! The root file system, made from the bundle.
//!
//! Files borrow their contents from the bundle, which stays. Two entries of the bundle are instructions for the
//! kernel and do not become files: `.orrery/argv` and `.orrery/env`. The devices that programs expect are
//! added where the bundle has them not.

use alloc::collections::BTreeMap;
use alloc::sync::Arc;
use alloc::vec::Vec;

use linux_raw_sys::general::{
    O_RDONLY, O_WRONLY, S_IFBLK, S_IFCHR, S_IFDIR, S_IFIFO, S_IFLNK, S_IFMT, S_IFREG,
};
use orrery_core::cpio::{self, Entry};
use orrery_core::errno::Errno;
use orrery_core::fs::fd_table::OnExec;

use super::content::Content;
use super::device;
use super::directory::Directory;
use super::fifo::{Fifo, Kind};
use super::file::OpenFile;
use super::files::{Files, FsContext};
use super::inode::{Inode, Node, Parent};
use super::lookup::{self, LastLink, Start};
use super::terminal::{Terminal, Tty};
use super::{limits, namespace, proc, sys};
use crate::console::Stream;
use crate::{boot, println};

/// What is here is no part of the file system.
const INSTRUCTIONS: &[u8] = b".orrery";
const INSTRUCTIONS_WITHIN: &[u8] = b".orrery/";

/// What the bundle asks of the kernel.
pub struct Instructions {
    /// The first program's arguments; the first of them is its path.
    pub arguments: Option<Vec<Vec<u8>>>,
    /// Its environment.
    pub environment: Option<Vec<Vec<u8>>>,
}

/// What the bundle asks of the kernel.
pub fn instructions() -> Instructions {
    let find = |name: &[u8]| {
        let entries = archive().into_iter().flat_map(cpio::entries).flatten();
        // Later entries replace earlier ones.
        entries.filter(|entry| entry.name == name).last().map(|entry| strings(entry.data))
    };
    Instructions { arguments: find(b".orrery/argv"), environment: find(b".orrery/env") }
}

fn archive() -> Option<&'static [u8]> {
    boot::bundle().map(|bundle| bundle.bytes)
}

/// What the first program has: the console as its standard streams, and the root directory.
///
/// # Errors
/// `ENOSPC` without the memory for it; `EINVAL` if the bundle is malformed, which is said on the console.
pub fn first_program() -> Result<(Arc<Files>, Arc<FsContext>), Errno> {
    let root = unpack(archive()).map_err(|why| {
        println!("orrery: the bundle cannot be used: {why}");
        match why {
            BundleError::Archive(_) => Errno::EINVAL,
            BundleError::Entry(_, why) => why,
        }
    })?;
    mount(&root, b"proc", &proc::root()?)?;
    mount(&root, b"sys", &sys::root()?)?;
    Ok((standard_files(&root, Tty::No)?, FsContext::new(root)))
}

/// Why there is no root file system.
#[derive(Clone, Copy, Debug)]
enum BundleError {
    /// The archive is malformed.
    Archive(cpio::Error),
    /// An entry cannot be made a file: for want of memory, or since another entry is in its way.
    Entry(&'static [u8], Errno),
}

impl core::fmt::Display for BundleError {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        match self {
            Self::Archive(why) => write!(f, "{why}"),
            Self::Entry(name, why) => {
                write!(f, "bundle entry `{}`: {why}", alloc::string::String::from_utf8_lossy(name))
            }
        }
    }
}

/// Makes the root file system from an archive, or an empty one.
///
/// # Errors
/// [`BundleError`].
fn unpack(archive: Option<&'static [u8]>) -> Result<Arc<Inode>, BundleError> {
    limits::init();
    let new_root = Inode::new(Node::Directory(Directory::new()), 0o755);
    let root = new_root.map_err(|why| BundleError::Entry(b"/", why))?;
    let mut linked = BTreeMap::new();
    for entry in archive.into_iter().flat_map(cpio::entries) {
        let entry = entry.map_err(BundleError::Archive)?;
        if entry.name == INSTRUCTIONS || entry.name.starts_with(INSTRUCTIONS_WITHIN) {
            continue;
        }
        add(&root, &entry, &mut linked).map_err(|why| BundleError::Entry(entry.name, why))?;
    }
    add_standard(&root).map_err(|why| BundleError::Entry(b"dev", why))?;
    Ok(root)
}

/// Strings that are each followed by a NUL.
fn strings(data: &[u8]) -> Vec<Vec<u8>> {
    let mut strings: Vec<_> = data.split(|&byte| byte == 0).map(<[u8]>::to_vec).collect();
    if strings.last().is_some_and(|last| last.is_empty()) {
        strings.pop();
    }
    strings
}

/// The inode that a path leads to, and the name at its end, with the directories above made.
fn directory_of<'a>(root: &Arc<Inode>, path: &'a [u8]) -> Result<(Arc<Inode>, &'a [u8]), Errno> {
    let (above, name) = match path.iter().rposition(|&byte| byte == b'/') {
        Some(slash) => (&path[..slash], &path[slash + 1..]),
        None => (&b""[..], path),
    };
    let mut at = root.clone();
    for name in above.split(|&byte| byte == b'/').filter(|name| is_name(name)) {
        at = match at.lookup(name) {
            Err(Errno::ENOENT) => make_directory(&at, name)?,
            found => found?,
        };
    }
    Ok((at, name))
}

fn is_name(name: &[u8]) -> bool {
    !name.is_empty() && name != b"."
}

fn make_directory(above: &Arc<Inode>, name: &[u8]) -> Result<Arc<Inode>, Errno> {
    let inode = Inode::new(Node::Directory(Directory::new()), 0o755)?;
    put(above, name, &inode)?;
    Ok(inode)
}

fn put(directory: &Arc<Inode>, name: &[u8], inode: &Arc<Inode>) -> Result<(), Errno> {
    namespace::create(&lookup::Found::new(directory, name), inode)
}

/// Entries of one file: by device and inode number, the inode.
type Linked = BTreeMap<(u32, u32, u32), Arc<Inode>>;

fn add(root: &Arc<Inode>, entry: &Entry<'static>, linked: &mut Linked) -> Result<(), Errno> {
    let (directory, name) = directory_of(root, entry.name)?;
    if !is_name(name) {
        set_attributes(root, entry);
        return Ok(());
    }
    let kind = entry.mode & S_IFMT;
    let existing = directory.lookup(name).ok();
    if let Some(existing) = &existing
        && kind == S_IFDIR
        && existing.is_directory()
    {
        set_attributes(existing, entry);
        return Ok(());
    }
    if existing.is_some() {
        // A later entry replaces an earlier one.
        namespace::remove(&lookup::Found::new(&directory, name), namespace::Remove::File)?;
    }
    let is_linked = kind == S_IFREG && entry.links > 1;
    if is_linked && let Some(inode) = linked.get(&entry.inode) {
        // The data comes with the last name.
        if let (Node::Regular(content), false) = (&inode.node, entry.data.is_empty()) {
            content.borrow(entry.data);
        }
        return namespace::link(inode, &lookup::Found::new(&directory, name));
    }
    let node = match kind {
        S_IFREG => Node::Regular(Content::new(entry.data)),
        S_IFDIR => Node::Directory(Directory::new()),
        S_IFLNK => Node::Link(Arc::from(entry.data)),
        S_IFCHR => Node::Device(entry.device.0, entry.device.1),
        S_IFIFO => Node::Fifo(Fifo::new(Kind::Named)),
        // There are no block devices, and a socket's name alone is none.
        S_IFBLK => return Ok(()),
        _ => return Ok(()),
    };
    let inode = Inode::new(node, entry.mode)?;
    put(&directory, name, &inode)?;
    set_attributes(&inode, entry);
    if is_linked {
        linked.insert(entry.inode, inode);
    }
    Ok(())
}

fn set_attributes(inode: &Inode, entry: &Entry<'_>) {
    let time = super::time::Time { seconds: entry.mtime_s.into(), nanoseconds: 0 };
    inode.with_attributes(|it| {
        it.mode = it.mode & S_IFMT | entry.mode & super::inode::PERMISSIONS;
        (it.uid, it.gid) = (entry.uid, entry.gid);
        (it.accessed, it.modified, it.changed) = (time, time, time);
    });
}

/// Adds `/tmp` and `/dev`; in that `/dev/shm`, where shm_open(3) and sem_open(3) have their files.
fn add_standard(root: &Arc<Inode>) -> Result<(), Errno> {
    let directory = |parent: &Arc<Inode>, name: &[u8]| match parent.lookup(name) {
        Err(Errno::ENOENT) => make_directory(parent, name),
        found => found,
    };
    let dev = directory(root, b"dev")?;
    for everybodys in [directory(root, b"tmp")?, directory(&dev, b"shm")?] {
        everybodys.with_attributes(|it| it.mode = S_IFDIR | 0o1777);
    }
    for &(name, major, minor) in device::STANDARD {
        if dev.lookup(name) == Err(Errno::ENOENT) {
            put(&dev, name, &Inode::new(Node::Device(major, minor), 0o666)?)?;
        }
    }
    let links: [(&[u8], &[u8]); 4] = [
        (b"fd", b"/proc/self/fd"),
        (b"stdin", b"/proc/self/fd/0"),
        (b"stdout", b"/proc/self/fd/1"),
        (b"stderr", b"/proc/self/fd/2"),
    ];
    for (name, target) in links {
        if dev.lookup(name) == Err(Errno::ENOENT) {
            put(&dev, name, &Inode::new(Node::Link(Arc::from(target)), 0o777)?)?;
        }
    }
    Ok(())
}

/// Puts the root of another file system at a name in the root directory; what was there is gone.
///
/// # Errors
/// `ENOSPC`.
pub fn mount(root: &Arc<Inode>, name: &[u8], mounted: &Arc<Inode>) -> Result<(), Errno> {
    let Node::Directory(entries) = &root.node else { return Err(Errno::ENOTDIR) };
    let name: Arc<[u8]> = Arc::from(name);
    let replaced = entries.set(&name, mounted.clone())?;
    if !replaced.is_some_and(|it| it.is_directory()) {
        root.with_attributes(|it| it.links += 1);
    }
    mounted.set_place(Parent::Stored(Arc::downgrade(root)), &name);
    Ok(())
}

/// The descriptors that the first program begins with: the console as standard input, output and error.
///
/// # Errors
/// `ENFILE`.
fn standard_files(root: &Arc<Inode>, tty: Tty) -> Result<Arc<Files>, Errno> {
    let start = Start { root: root.clone(), base: root.clone() };
    let inode = lookup::existing(&start, b"/dev/console", LastLink::Follow)?;
    let files = Files::new();
    for (flags, stream) in
        [(O_RDONLY, Stream::Out), (O_WRONLY, Stream::Out), (O_WRONLY, Stream::Err)]
    {
        let terminal = Arc::new(Terminal::new(stream, tty));
        let file = OpenFile::new(terminal, inode.clone(), flags)?;
        files.insert(0, 3, file, OnExec::Keep)?;
    }
    Ok(files)
}
