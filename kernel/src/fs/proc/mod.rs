//! `/proc`: processes and the system, as text (proc(5)).
//!
//! Nothing is stored: an inode is made by each lookup, and a file's text by each read from its beginning.
//! Processes are those that the reader's PID namespace sees, by their numbers there; the kernel's own tasks are
//! among them, as on Linux.

mod process;
mod system;

use alloc::boxed::Box;
use alloc::format;
use alloc::sync::Arc;

use linux_raw_sys::general::S_IFDIR;
use orrery_core::errno::Errno;

use super::inode::{FileSystem, Inode, Listed, Node, Parent, VirtualDirectory};
use super::tree::{Destination, Entry, Kind, Table};
use crate::process::{current, thread_of, tree};
use crate::sched::Task;
use crate::task::Namespace;

pub use system::{RELEASE, VERSION};

/// Number of the root's inode.
const ROOT_NUMBER: u64 = 1;
/// Numbers of the inodes of one task begin at this many times its number in the root namespace.
const NUMBERS_PER_TASK: u64 = 1 << 20;
/// Positions of processes in the root directory begin here.
const FIRST_PROCESS: u64 = 1 << 16;

/// The root directory of the file system.
///
/// # Errors
/// `ENOSPC`.
pub fn root() -> Result<Arc<Inode>, Errno> {
    let table = Table {
        subject: (),
        entries: ENTRIES,
        file_system: FileSystem::Proc,
        first_number: ROOT_NUMBER + 1,
    };
    let node = Node::VirtualDirectory(Box::new(Root(table)));
    Inode::made(FileSystem::Proc, ROOT_NUMBER, node, 0o555, (Parent::Nobody, b""))
}

struct Root(Table<()>);

static ENTRIES: &[Entry<()>] = &[
    Entry { name: "self", kind: Kind::Link(|()| path(&format!("{}", own_number()))) },
    Entry {
        name: "thread-self",
        kind: Kind::Link(|()| path(&format!("{}/task/{}", own_number(), current().tid()))),
    },
    Entry { name: "mounts", kind: Kind::Link(|()| path("self/mounts")) },
    Entry { name: "cmdline", kind: Kind::Text(|(), text| system::command_line(text)) },
    Entry { name: "cpuinfo", kind: Kind::Text(|(), text| system::cpuinfo(text)) },
    Entry { name: "filesystems", kind: Kind::Text(|(), text| system::filesystems(text)) },
    Entry { name: "loadavg", kind: Kind::Text(|(), text| system::loadavg(text)) },
    Entry { name: "meminfo", kind: Kind::Text(|(), text| system::meminfo(text)) },
    Entry { name: "stat", kind: Kind::Text(|(), text| system::stat(text)) },
    Entry { name: "uptime", kind: Kind::Text(|(), text| system::uptime(text)) },
    Entry { name: "version", kind: Kind::Text(|(), text| system::version(text)) },
    Entry { name: "sys", kind: Kind::Directory(|()| system::settings()) },
];

fn path(path: &str) -> Result<Destination, Errno> {
    Ok(Destination::Path(path.as_bytes().to_vec()))
}

/// The namespace that numbers are of: the reader's.
fn namespace() -> &'static Namespace {
    &current().process.namespace
}

/// The number of the running thread's process.
fn own_number() -> u32 {
    current().process.number_in(namespace(), &tree::lock())
}

/// A number as a name says it: without zeros in front.
fn number(name: &[u8]) -> Option<u32> {
    let name = core::str::from_utf8(name).ok()?;
    let number: u32 = name.parse().ok()?;
    (format!("{number}") == name).then_some(number)
}

/// Whether a task is listed among the processes: a thread that is not its process's leader is not.
fn is_process(task: &Task) -> bool {
    thread_of(task).is_none_or(|thread| thread.process.family.get(&tree::lock()).pid == task.pid())
}

impl VirtualDirectory for Root {
    fn lookup(&self, this: &Arc<Inode>, name: &[u8]) -> Result<Arc<Inode>, Errno> {
        if let Some(found) = self.0.find(this, name) {
            return found;
        }
        let number = number(name).ok_or(Errno::ENOENT)?;
        let task = namespace().find(number).ok_or(Errno::ENOENT)?;
        process::directory(task, this, name)
    }

    fn list(&self, from: u64, each: &mut dyn FnMut(Listed<'_>) -> bool) {
        if from < FIRST_PROCESS && !self.0.list_entries(from, each) {
            return;
        }
        let first = from.saturating_sub(FIRST_PROCESS).try_into().unwrap_or(u32::MAX);
        for (pid, task) in namespace().tasks_from(first).filter(|(_, task)| is_process(task)) {
            let (name, number) = (format!("{pid}"), process::first_number(&task));
            let next = FIRST_PROCESS + u64::from(pid) + 1;
            if !each(Listed { next, number, kind: S_IFDIR, name: name.as_bytes() }) {
                return;
            }
        }
    }
}
