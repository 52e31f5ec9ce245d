//! Changes of the directory tree: creating, linking, removing, renaming.
//!
//! They come one at a time, under one sleeping mutex, so that what a change has checked stays true until it
//! is made. Lookups go on meanwhile; they see each name before or after a change. What cannot be
//! changed is a directory that is made on demand (`EPERM`) and the root of another file system (`EBUSY`).

use alloc::sync::Arc;

use linux_raw_sys::general::S_ISGID;
use orrery_core::errno::Errno;

use super::directory::Directory;
use super::inode::{FileSystem, Inode, Node, Parent};
use super::lookup::{Found, Last};
use crate::sched::mutex::{Mutex, MutexGuard};

static CHANGES: Mutex<()> = Mutex::new(());

/// What `renameat2` does when the new name exists.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum IfExists {
    /// It is replaced, where types allow that.
    Replace,
    /// `EEXIST`
    Fail,
    /// The two change places; it must exist.
    Exchange,
}

/// What is removed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Remove {
    /// Anything but a directory (`unlink`).
    File,
    /// An empty directory (`rmdir`).
    Directory,
}

fn lock() -> MutexGuard<'static, ()> {
    CHANGES.lock()
}

/// The stored directory behind an inode.
fn stored(directory: &Inode) -> Result<&Directory, Errno> {
    match &directory.node {
        Node::Directory(entries) => Ok(entries),
        Node::VirtualDirectory(_) => Err(Errno::EPERM),
        _ => Err(Errno::ENOTDIR),
    }
}

/// The name that a path ends with.
fn name_of(last: &Last, otherwise: Errno) -> Result<&Arc<[u8]>, Errno> {
    match last {
        Last::Name(name) => Ok(name),
        Last::Current | Last::Parent | Last::Nameless => Err(otherwise),
    }
}

/// Lets a name that is free lead to `inode`.
fn put(directory: &Arc<Inode>, name: &Arc<[u8]>, inode: &Arc<Inode>) -> Result<(), Errno> {
    if let Node::VirtualDirectory(entries) = &directory.node {
        return Err(match entries.lookup(directory, name) {
            Ok(_) => Errno::EEXIST,
            // What `/proc` has not is not found by its creator either.
            Err(why) if directory.file_system == FileSystem::Proc => why,
            Err(_) => Errno::EPERM,
        });
    }
    let entries = stored(directory)?;
    if entries.get(name).is_some() {
        return Err(Errno::EEXIST);
    }
    entries.set(name, inode.clone())?;
    inode.set_place(Parent::Stored(Arc::downgrade(directory)), name);
    if inode.is_directory() {
        directory.with_attributes(|it| it.links += 1);
    }
    directory.touch_modified();
    Ok(())
}

/// Gives a new inode its name.
///
/// # Errors
/// `EEXIST`; `ENOENT` in a directory that was removed and in those of `/proc`; `EPERM` in another that is made on demand.
pub fn create(found: &Found, inode: &Arc<Inode>) -> Result<(), Errno> {
    let name = name_of(&found.last, Errno::EEXIST)?;
    if found.wants_directory && !inode.is_directory() {
        return Err(if found.inode.is_some() { Errno::EEXIST } else { Errno::ENOENT });
    }
    let _changes = lock();
    inherit_group(&found.directory, inode);
    put(&found.directory, name, inode)
}

/// What is made in a directory with the set-group-ID bit has the directory's group, and a directory the bit as well.
fn inherit_group(directory: &Inode, inode: &Inode) {
    let parent = directory.attributes();
    if parent.mode & S_ISGID != 0 {
        let more = if inode.is_directory() { S_ISGID } else { 0 };
        inode.with_attributes(|it| (it.gid, it.mode) = (parent.gid, it.mode | more));
    }
}

/// Gives an inode another name.
///
/// # Errors
/// As [`create`]; `EPERM` for a directory, `EXDEV` across file systems, `EMLINK`; `ENOENT` if it has no name
/// any more.
pub fn link(inode: &Arc<Inode>, found: &Found) -> Result<(), Errno> {
    const MAX_LINKS: u32 = 65_000;
    let name = name_of(&found.last, Errno::EEXIST)?;
    let _changes = lock();
    if inode.is_directory() {
        return Err(Errno::EPERM);
    }
    if inode.file_system != found.directory.file_system {
        return Err(Errno::EXDEV);
    }
    match inode.attributes().links {
        0 => return Err(Errno::ENOENT),
        MAX_LINKS.. => return Err(Errno::EMLINK),
        _ => {}
    }
    if found.wants_directory {
        return Err(Errno::ENOENT);
    }
    put(&found.directory, name, inode)?;
    inode.with_attributes(|it| it.links += 1);
    inode.touch_changed();
    Ok(())
}

/// Takes a name away.
///
/// # Errors
/// `ENOENT`, `EISDIR`, `ENOTDIR`, `ENOTEMPTY`, `EBUSY`; `EINVAL` for `.`.
pub fn remove(found: &Found, what: Remove) -> Result<(), Errno> {
    let name = match (&found.last, what) {
        (Last::Name(name), _) => name,
        (Last::Current, Remove::Directory) if found.wants_directory => return Err(Errno::EBUSY),
        (Last::Current, Remove::Directory) => return Err(Errno::EINVAL),
        (Last::Parent, Remove::Directory) => return Err(Errno::ENOTEMPTY),
        (Last::Nameless, _) => return Err(Errno::EPERM),
        (_, Remove::File) => return Err(Errno::EISDIR),
    };
    let _changes = lock();
    let inode = found.directory.lookup(name)?;
    let entries = stored(&found.directory)?;
    if inode.file_system != found.directory.file_system {
        return Err(Errno::EBUSY);
    }
    match what {
        Remove::File if inode.is_directory() => return Err(Errno::EISDIR),
        Remove::File if found.wants_directory => return Err(Errno::ENOTDIR),
        Remove::File => {}
        Remove::Directory if !inode.is_directory() => return Err(Errno::ENOTDIR),
        Remove::Directory => close(&inode)?,
    }
    drop(entries.remove(name));
    has_lost_name(&found.directory, name, &inode);
    found.directory.touch_modified();
    Ok(())
}

/// Makes sure that nothing can be put into a directory that is about to go.
fn close(directory: &Inode) -> Result<(), Errno> {
    if stored(directory)?.remove_if_empty() { Ok(()) } else { Err(Errno::ENOTEMPTY) }
}

/// Counts and notes that `inode` has no longer this name.
fn has_lost_name(directory: &Arc<Inode>, name: &[u8], inode: &Arc<Inode>) {
    if inode.is_directory() {
        inode.with_attributes(|it| it.links = 0);
        directory.with_attributes(|it| it.links -= 1);
    } else {
        inode.with_attributes(|it| it.links -= 1);
    }
    inode.forget_place(directory, name);
    inode.touch_changed();
}

/// Whether `inode` is `top` or below it.
fn is_within(inode: &Arc<Inode>, top: &Arc<Inode>) -> bool {
    let mut at = inode.clone();
    loop {
        if Arc::ptr_eq(&at, top) {
            return true;
        }
        let parent = at.parent();
        if Arc::ptr_eq(&parent, &at) {
            return false;
        }
        at = parent;
    }
}

/// Moves a name.
///
/// # Errors
/// As rename(2) says.
pub fn rename(from: &Found, to: &Found, if_exists: IfExists) -> Result<(), Errno> {
    let old_name = name_of(&from.last, Errno::EBUSY)?;
    let is_new = if_exists == IfExists::Fail;
    let new_name = name_of(&to.last, if is_new { Errno::EEXIST } else { Errno::EBUSY })?;
    let _changes = lock();
    if from.directory.file_system != to.directory.file_system {
        return Err(Errno::EXDEV);
    }
    let inode = from.directory.lookup(old_name)?;
    let (source, target) = (stored(&from.directory)?, stored(&to.directory)?);
    let existing = target.get(new_name);
    match (&existing, if_exists) {
        (Some(_), IfExists::Fail) => return Err(Errno::EEXIST),
        (None, IfExists::Exchange) => return Err(Errno::ENOENT),
        _ => {}
    }
    let is_mounted = |it: &Arc<Inode>| it.file_system != from.directory.file_system;
    if is_mounted(&inode) || existing.as_ref().is_some_and(is_mounted) {
        return Err(Errno::EBUSY);
    }
    let at_new = if if_exists == IfExists::Exchange { existing.as_ref() } else { None };
    let at_new = at_new.unwrap_or(&inode);
    if [(&inode, from), (at_new, to)]
        .iter()
        .any(|(it, at)| at.wants_directory && !it.is_directory())
    {
        return Err(Errno::ENOTDIR);
    }
    if inode.is_directory() && is_within(&to.directory, &inode) {
        return Err(Errno::EINVAL);
    }
    if let Some(existing) = &existing {
        if Arc::ptr_eq(existing, &inode) {
            return Ok(());
        }
        match if_exists {
            IfExists::Exchange => {
                if existing.is_directory() && is_within(&from.directory, existing) {
                    return Err(Errno::EINVAL);
                }
                return exchange((from, old_name, &inode), (to, new_name, existing));
            }
            // The old name is in what would be replaced.
            _ if is_within(&from.directory, existing) => return Err(Errno::ENOTEMPTY),
            _ if inode.is_directory() && !existing.is_directory() => return Err(Errno::ENOTDIR),
            _ if !inode.is_directory() && existing.is_directory() => return Err(Errno::EISDIR),
            _ if existing.is_directory() => close(existing)?,
            _ => {}
        }
    }
    let replaced = target.set(new_name, inode.clone())?;
    drop(source.remove(old_name));
    if let Some(replaced) = replaced {
        has_lost_name(&to.directory, new_name, &replaced);
    }
    move_place(&inode, from, (to, new_name));
    from.directory.touch_modified();
    to.directory.touch_modified();
    Ok(())
}

type End<'a> = (&'a Found, &'a Arc<[u8]>, &'a Arc<Inode>);

/// Lets two names that exist change places.
fn exchange(a: End<'_>, b: End<'_>) -> Result<(), Errno> {
    for (end, other) in [(a, b), (b, a)] {
        let (found, name, inode) = (end.0, end.1, other.2);
        drop(stored(&found.directory)?.set(name, inode.clone())?);
        move_place(inode, other.0, (found, name));
        found.directory.touch_modified();
    }
    Ok(())
}

/// Notes that an inode has gone from one directory to another.
fn move_place(inode: &Arc<Inode>, from: &Found, (to, name): (&Found, &Arc<[u8]>)) {
    if inode.is_directory() {
        from.directory.with_attributes(|it| it.links -= 1);
        to.directory.with_attributes(|it| it.links += 1);
    }
    inode.set_place(Parent::Stored(Arc::downgrade(&to.directory)), name);
    inode.touch_changed();
}
