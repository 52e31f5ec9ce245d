//! `/sys`: which CPUs there are, and the file by which programs write events of their own.

use alloc::boxed::Box;
use alloc::sync::Arc;
use core::fmt::Write;

use orrery_core::errno::Errno;

use super::file::{File, Transfer};
use super::inode::{FileSystem, Inode, Node, Parent, VirtualDirectory, VirtualFile};
use super::io::{IoFrom, IoTo};
use super::text::Text;
use super::tree::{Entry, Kind, Table};
use crate::sched::cpu;
use crate::trace::{MAX_MARK_BYTES, events};

/// The root directory of the file system.
///
/// # Errors
/// `ENOSPC`.
pub fn root() -> Result<Arc<Inode>, Errno> {
    let node = Node::VirtualDirectory(table(ROOT, 16));
    Inode::made(FileSystem::Sys, 1, node, 0o555, (Parent::Nobody, b""))
}

fn table(entries: &'static [Entry<()>], first_number: u64) -> Box<dyn VirtualDirectory> {
    Box::new(Table { subject: (), entries, file_system: FileSystem::Sys, first_number })
}

static ROOT: &[Entry<()>] = &[
    Entry { name: "devices", kind: Kind::Directory(|()| table(DEVICES, 32)) },
    Entry { name: "kernel", kind: Kind::Directory(|()| table(KERNEL, 48)) },
];

static DEVICES: &[Entry<()>] =
    &[Entry { name: "system", kind: Kind::Directory(|()| table(SYSTEM, 64)) }];

static SYSTEM: &[Entry<()>] = &[
    Entry { name: "cpu", kind: Kind::Directory(|()| table(CPUS, 80)) },
    Entry { name: "clocksource", kind: Kind::Directory(|()| table(CLOCK_SOURCES, 96)) },
];

static CPUS: &[Entry<()>] = &[
    Entry { name: "online", kind: Kind::Text(|(), text| cpu_list(text)) },
    Entry { name: "possible", kind: Kind::Text(|(), text| cpu_list(text)) },
    Entry { name: "present", kind: Kind::Text(|(), text| cpu_list(text)) },
];

static CLOCK_SOURCES: &[Entry<()>] =
    &[Entry { name: "clocksource0", kind: Kind::Directory(|()| table(CLOCK_SOURCE, 112)) }];

static CLOCK_SOURCE: &[Entry<()>] = &[
    Entry { name: "current_clocksource", kind: Kind::Text(|(), text| clock_source(text)) },
    Entry { name: "available_clocksource", kind: Kind::Text(|(), text| clock_source(text)) },
];

static KERNEL: &[Entry<()>] =
    &[Entry { name: "tracing", kind: Kind::Directory(|()| table(TRACING, 128)) }];

static TRACING: &[Entry<()>] = &[Entry {
    name: "trace_marker",
    kind: Kind::Other(|| Node::VirtualFile(Box::new(TraceMarker)), 0o222),
}];

/// CPUs are numbered from 0, and none ever goes.
fn cpu_list(text: &mut Text) -> Result<(), Errno> {
    match cpu::each().last() {
        Some(last @ 1..) => writeln!(text, "0-{last}"),
        _ => writeln!(text, "0"),
    }
    .map_err(|_| Errno::ENOMEM)
}

fn clock_source(text: &mut Text) -> Result<(), Errno> {
    text.push_bytes(b"tsc\n");
    Ok(())
}

/// `trace_marker`: what is written becomes an event.
struct TraceMarker;

impl VirtualFile for TraceMarker {
    fn open(&self, _inode: &Arc<Inode>) -> Result<Arc<dyn File>, Errno> {
        Ok(Arc::new(TraceMarker))
    }
}

impl File for TraceMarker {
    fn read(&self, _to: &mut IoTo<'_>, _transfer: &mut Transfer) -> Result<(), Errno> {
        Err(Errno::EINVAL)
    }

    /// One write is one event. Its text ends at the first byte that is not UTF-8, and where an event's text
    /// must; a newline at its end is left out.
    fn write(&self, from: &mut IoFrom<'_>, _transfer: &mut Transfer) -> Result<(), Errno> {
        let mut bytes = [0; MAX_MARK_BYTES];
        let len = from.take(&mut bytes)?;
        let bytes = bytes[..len].strip_suffix(b"\n").unwrap_or(&bytes[..len]);
        let text = match core::str::from_utf8(bytes) {
            Ok(text) => text,
            Err(error) => core::str::from_utf8(&bytes[..error.valid_up_to()]).unwrap_or(""),
        };
        events::mark(0, text);
        from.discard();
        Ok(())
    }
}
