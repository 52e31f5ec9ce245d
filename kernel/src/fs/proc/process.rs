//! `/proc/PID` and `/proc/PID/task/TID`.

use alloc::boxed::Box;
use alloc::collections::BTreeMap;
use alloc::format;
use alloc::string::String;
use alloc::sync::Arc;
use core::fmt::Write;

use linux_raw_sys::general::{
    S_IFDIR, S_IFLNK, SCHED_BATCH, SCHED_FIFO, SCHED_IDLE, SCHED_NORMAL, SCHED_RR,
};
use orrery_core::errno::Errno;
use orrery_core::sched::Policy;
use orrery_core::sched::cpu_time::CpuTime;
use orrery_core::space::area::AreaFlags;

use super::{NUMBERS_PER_TASK, namespace, number};
use crate::fs::directory::FIRST_POSITION;
use crate::fs::inode::{FileSystem, Inode, Listed, Node, Parent, VirtualDirectory};
use crate::fs::page::PAGE_BYTES;
use crate::fs::text::Text;
use crate::fs::tree::{Destination, Entry, Kind, Link, Table};
use crate::mm::space::{Backing, Protection, Space};
use crate::process::group::Program;
use crate::process::signal::{self, summary};
use crate::process::usage::Usage;
use crate::process::{Process, Thread, thread_of, tree};
use crate::sched::task::label;
use crate::sched::{State, Task};
use crate::time;

/// Clock ticks per second, as programs take them to be (`USER_HZ`).
pub(super) const CLOCK_HZ: u64 = 100;
/// Numbers of the inodes of open files begin here, among those of a task.
const FILES: u64 = 1 << 12;
/// Numbers of the inodes of a thread's directory begin here, among those of its task.
const THREAD: u64 = 1 << 8;

/// What a directory is about.
type Subject = Arc<Task>;

/// Number of the inode of a task's directory.
pub(super) fn first_number(task: &Task) -> u64 {
    u64::from(task.pid()) * NUMBERS_PER_TASK
}

/// The directory of a task in the root directory.
pub(super) fn directory(
    task: Arc<Task>,
    parent: &Arc<Inode>,
    name: &[u8],
) -> Result<Arc<Inode>, Errno> {
    let first_number = first_number(&task);
    let entries = if thread_of(&task).is_some() { PROCESS } else { KERNEL };
    make_directory(table(task, entries, first_number + 1), first_number, parent, name)
}

fn table(task: Subject, entries: &'static [Entry<Subject>], first_number: u64) -> Table<Subject> {
    Table { subject: task, entries, file_system: FileSystem::Proc, first_number }
}

fn make_directory(
    directory: impl VirtualDirectory + 'static,
    number: u64,
    parent: &Arc<Inode>,
    name: &[u8],
) -> Result<Arc<Inode>, Errno> {
    let node = Node::VirtualDirectory(Box::new(directory));
    let place = (Parent::Made(parent.clone()), name);
    Inode::made(FileSystem::Proc, number, node, 0o555, place)
}

/// What a process has.
static PROCESS: &[Entry<Subject>] = &[
    Entry { name: "stat", kind: Kind::Text(process_stat) },
    Entry { name: "status", kind: Kind::Text(status) },
    Entry { name: "statm", kind: Kind::Text(statm) },
    Entry { name: "cmdline", kind: Kind::Text(command_line) },
    Entry { name: "comm", kind: Kind::Text(comm) },
    Entry { name: "maps", kind: Kind::Text(maps) },
    Entry { name: "mounts", kind: Kind::Text(|_, text| super::system::mounts(text)) },
    Entry { name: "mountinfo", kind: Kind::Text(|_, text| super::system::mountinfo(text)) },
    Entry { name: "schedstat", kind: Kind::Text(schedstat) },
    Entry { name: "exe", kind: Kind::Link(executable) },
    Entry { name: "cwd", kind: Kind::Link(working_directory) },
    Entry { name: "root", kind: Kind::Link(root_directory) },
    Entry { name: "fd", kind: Kind::Directory(|task| Box::new(OpenFiles(task.clone()))) },
    Entry { name: "task", kind: Kind::Directory(|task| Box::new(Threads(task.clone()))) },
];

/// What a thread has.
static THREAD_ENTRIES: &[Entry<Subject>] = &[
    Entry { name: "stat", kind: Kind::Text(thread_stat) },
    Entry { name: "status", kind: Kind::Text(status) },
    Entry { name: "statm", kind: Kind::Text(statm) },
    Entry { name: "cmdline", kind: Kind::Text(command_line) },
    Entry { name: "comm", kind: Kind::Text(comm) },
    Entry { name: "maps", kind: Kind::Text(maps) },
    Entry { name: "schedstat", kind: Kind::Text(schedstat) },
    Entry { name: "exe", kind: Kind::Link(executable) },
    Entry { name: "cwd", kind: Kind::Link(working_directory) },
    Entry { name: "root", kind: Kind::Link(root_directory) },
    Entry { name: "fd", kind: Kind::Directory(|task| Box::new(OpenFiles(task.clone()))) },
];

/// What one of the kernel's own tasks has.
static KERNEL: &[Entry<Subject>] = &[
    Entry { name: "stat", kind: Kind::Text(thread_stat) },
    Entry { name: "status", kind: Kind::Text(status) },
    Entry { name: "statm", kind: Kind::Text(statm) },
    Entry { name: "cmdline", kind: Kind::Text(command_line) },
    Entry { name: "comm", kind: Kind::Text(comm) },
    Entry { name: "schedstat", kind: Kind::Text(schedstat) },
];

/// `ESRCH` for a task that has been buried meanwhile.
fn alive(task: &Task) -> Result<(), Errno> {
    if task.state() == State::Dead { Err(Errno::ESRCH) } else { Ok(()) }
}

fn thread(task: &Task) -> Result<&Thread, Errno> {
    alive(task)?;
    thread_of(task).ok_or(Errno::ESRCH)
}

fn name(task: &Task) -> String {
    match thread_of(task) {
        Some(thread) => String::from(thread.comm.lock().as_str()),
        None => String::from(task.name()),
    }
}

fn space(task: &Task) -> Option<Arc<Space>> {
    thread_of(task)?.space.lock().clone()
}

/// The letter and the word for what a task does.
fn state(task: &Task) -> (char, &'static str) {
    let stopped =
        thread_of(task).is_some_and(|thread| signal::is_stopped(&thread.process, &tree::lock()));
    match task.state() {
        State::Runnable => ('R', "running"),
        State::Zombie | State::Dead => ('Z', "zombie"),
        _ if stopped => ('T', "stopped"),
        state if state.trace_number() == 1 => ('S', "sleeping"),
        _ => ('D', "disk sleep"),
    }
}

/// Who belongs to whom, in the reader's numbers.
struct Relations {
    tgid: u32,
    parent: u32,
    group: u32,
    session: u32,
    threads: usize,
    exit_signal: u8,
    /// Its threads' together.
    usage: Usage,
    /// That of children that it has waited for.
    children_usage: Usage,
}

fn relations(task: &Task) -> Relations {
    let seen = |root_number| crate::process::lookup::seen_from_here(root_number);
    let Some(thread) = thread_of(task) else {
        return Relations {
            tgid: seen(task.pid()),
            parent: seen(task.parent()),
            group: 0,
            session: 0,
            threads: 1,
            exit_signal: 0,
            usage: kernel_usage(task),
            children_usage: Usage::default(),
        };
    };
    let process: &Process = &thread.process;
    let mut tree = tree::lock();
    let usage = process.usage(&mut tree);
    let family = process.family.get(&tree);
    // Who is seen here and is as deep is in the same namespace.
    let parent = if process.namespace.level() == namespace().level() {
        process.parent_tgid()
    } else {
        process.parent(&tree).map_or(0, |parent| parent.number_in(namespace(), &tree))
    };
    let relations = Relations {
        tgid: process.number_in(namespace(), &tree),
        parent,
        group: family.group,
        session: family.session,
        threads: family.threads.len(),
        exit_signal: family.exit_signal,
        usage,
        children_usage: process.children_usage(&tree),
    };
    drop(tree);
    Relations { group: seen(relations.group), session: seen(relations.session), ..relations }
}

fn own_number(task: &Task) -> u32 {
    task.pid_in(namespace()).unwrap_or(0)
}

/// Ticks of the time-stamp counter as clock ticks.
fn clock_ticks(ticks: u64) -> u64 {
    time::to_nanos(ticks) / (1_000_000_000 / CLOCK_HZ)
}

/// All that one of the kernel's own tasks has run is time in the kernel.
fn kernel_usage(task: &Task) -> Usage {
    let time = CpuTime { user_ticks: 0, system_ticks: task.run_ticks() };
    Usage { time, ..Usage::default() }
}

fn process_stat(task: &Subject, text: &mut Text) -> Result<(), Errno> {
    let relations = relations(task);
    let usage = relations.usage;
    stat(task, relations, usage, text)
}

fn thread_stat(task: &Subject, text: &mut Text) -> Result<(), Errno> {
    let usage = thread_of(task).map_or_else(|| kernel_usage(task), |thread| thread.usage(task));
    stat(task, relations(task), usage, text)
}

/// One line of numbers. Those that are not kept are 0.
fn stat(task: &Task, its: Relations, usage: Usage, text: &mut Text) -> Result<(), Errno> {
    alive(task)?;
    let nice = i32::from(task.nice().get());
    let (priority, rt_priority, policy) = match task.policy() {
        Policy::Fifo(it) => (-1 - i32::from(it.get()), it.get(), SCHED_FIFO),
        Policy::RoundRobin(it) => (-1 - i32::from(it.get()), it.get(), SCHED_RR),
        Policy::IDLE => (20 + nice, 0, SCHED_IDLE),
        Policy::Fair(_) if task.has_label(label::BATCH) => (20 + nice, 0, SCHED_BATCH),
        Policy::Fair(_) => (20 + nice, 0, SCHED_NORMAL),
    };
    let (virtual_bytes, resident) = match space(task) {
        Some(space) => (space.mapped_pages() * PAGE_BYTES as u64, space.resident_pages()),
        None => (0, 0),
    };
    let signals = thread_of(task).map(summary);
    let bits = |choose: fn(&signal::Summary) -> u64| {
        // Real-time signals have no room here.
        signals.as_ref().map_or(0, choose) & 0x7fff_ffff
    };
    let _ = writeln!(
        text,
        "{} ({}) {} {} {} {} 0 -1 0 {} {} 0 0 {} {} {} {} {priority} {nice} {} 0 0 {virtual_bytes} \
         {resident} {} 0 0 0 0 0 {} {} {} {} 0 0 0 {} {} {rt_priority} {policy} 0 0 0 0 0 0 0 0 0 0 0",
        own_number(task),
        name(task),
        state(task).0,
        its.parent,
        its.group,
        its.session,
        usage.faults,
        its.children_usage.faults,
        clock_ticks(usage.time.user_ticks),
        clock_ticks(usage.time.system_ticks),
        clock_ticks(its.children_usage.time.user_ticks),
        clock_ticks(its.children_usage.time.system_ticks),
        its.threads,
        u64::MAX,
        bits(|it| it.pending.bits()),
        bits(|it| it.blocked.bits()),
        bits(|it| it.ignored.bits()),
        bits(|it| it.handled.bits()),
        its.exit_signal,
        task.cpu(),
    );
    Ok(())
}

fn status(task: &Subject, text: &mut Text) -> Result<(), Errno> {
    alive(task)?;
    let its = relations(task);
    let (letter, word) = state(task);
    let _ = writeln!(text, "Name:\t{}", name(task));
    let thread = thread_of(task);
    if let Some(fs) = thread.and_then(|thread| thread.fs.lock().clone()) {
        let _ = writeln!(text, "Umask:\t{:04o}", fs.umask());
    }
    let _ = writeln!(
        text,
        "State:\t{letter} ({word})\nTgid:\t{}\nNgid:\t0\nPid:\t{}\nPPid:\t{}\nTracerPid:\t0\n\
         Uid:\t0\t0\t0\t0\nGid:\t0\t0\t0\t0",
        its.tgid,
        own_number(task),
        its.parent,
    );
    let files = thread.and_then(|thread| thread.files.lock().clone());
    let slots = files.map_or(0, |files| files.count().next_multiple_of(64));
    let _ = writeln!(text, "FDSize:\t{slots}\nGroups:\t0 ");
    if let Some(space) = space(task) {
        let kib = |pages: u64| pages * (PAGE_BYTES as u64 / 1024);
        let _ = writeln!(
            text,
            "VmSize:\t{:8} kB\nVmRSS:\t{:8} kB",
            kib(space.mapped_pages()),
            kib(space.resident_pages()),
        );
    }
    let _ = writeln!(text, "Threads:\t{}", its.threads);
    if let Some(thread) = thread {
        let signals = summary(thread);
        let _ = writeln!(
            text,
            "SigPnd:\t{:016x}\nShdPnd:\t{:016x}\nSigBlk:\t{:016x}\nSigIgn:\t{:016x}\nSigCgt:\t{:016x}",
            signals.pending.bits(),
            signals.shared.bits(),
            signals.blocked.bits(),
            signals.ignored.bits(),
            signals.handled.bits(),
        );
    }
    let info = task.sched_info();
    let _ = writeln!(
        text,
        "Cpus_allowed:\t{:x}\nvoluntary_ctxt_switches:\t{}\nnonvoluntary_ctxt_switches:\t{}",
        task.allowed().bits(),
        info.voluntary_switches,
        info.involuntary_switches,
    );
    Ok(())
}

fn statm(task: &Subject, text: &mut Text) -> Result<(), Errno> {
    alive(task)?;
    let (size, resident) =
        space(task).map_or((0, 0), |space| (space.mapped_pages(), space.resident_pages()));
    let _ = writeln!(text, "{size} {resident} 0 0 0 {size} 0");
    Ok(())
}

fn program(task: &Task) -> Result<Arc<Program>, Errno> {
    // A process without an address space runs nothing any more.
    space(task).ok_or(Errno::ENOENT)?;
    thread(task)?.process.program.lock().clone().ok_or(Errno::ENOENT)
}

fn command_line(task: &Subject, text: &mut Text) -> Result<(), Errno> {
    alive(task)?;
    if let Ok(program) = program(task) {
        text.push_bytes(&program.command_line);
    }
    Ok(())
}

fn comm(task: &Subject, text: &mut Text) -> Result<(), Errno> {
    alive(task)?;
    let _ = writeln!(text, "{}", name(task));
    Ok(())
}

fn schedstat(task: &Subject, text: &mut Text) -> Result<(), Errno> {
    alive(task)?;
    let info = task.sched_info();
    let nanos = time::to_nanos;
    let (run, wait) = (nanos(info.run_ticks), nanos(info.run_delay_ticks));
    let _ = writeln!(text, "{run} {wait} {}", info.pcount);
    Ok(())
}

fn executable(task: &Subject) -> Result<Destination, Errno> {
    Ok(Destination::Inode(program(task)?.file.inode().clone()))
}

fn working_directory(task: &Subject) -> Result<Destination, Errno> {
    let fs = thread(task)?.fs.lock().clone().ok_or(Errno::ENOENT)?;
    Ok(Destination::Inode(fs.working_directory()))
}

fn root_directory(task: &Subject) -> Result<Destination, Errno> {
    let fs = thread(task)?.fs.lock().clone().ok_or(Errno::ENOENT)?;
    Ok(Destination::Inode(fs.root()))
}

fn maps(task: &Subject, text: &mut Text) -> Result<(), Errno> {
    let Some(space) = space(task) else { return Ok(()) };
    let areas = space.areas();
    for area in areas.iter() {
        let flag = |has: bool, letter: char| if has { letter } else { '-' };
        let protection = area.protection;
        let shared = matches!(area.backing, Backing::Shared(..));
        let start = text.len_bytes();
        let _ = write!(
            text,
            "{:08x}-{:08x} {}{}{}{} ",
            area.start,
            area.end,
            flag(protection.contains(Protection::READ), 'r'),
            flag(protection.writable(), 'w'),
            flag(protection.executable(), 'x'),
            if shared { 's' } else { 'p' },
        );
        let name = match area.backing.object() {
            Some((object, offset)) => {
                let _ = write!(text, "{offset:08x} 00:01 {} ", object.identity());
                object.name()
            }
            None => {
                text.push_bytes(b"00000000 00:00 0 ");
                let is = |flags| area.flags.contains(flags);
                let name = match () {
                    () if is(AreaFlags::STACK) => "[stack]",
                    () if is(AreaFlags::HEAP) => "[heap]",
                    () => "",
                };
                String::from(name)
            }
        };
        if !name.is_empty() {
            // Where Linux has the names.
            for _ in text.len_bytes() - start..73 {
                text.push_bytes(b" ");
            }
        }
        let _ = writeln!(text, "{name}");
    }
    Ok(())
}

/// `/proc/PID/fd`.
struct OpenFiles(Subject);

impl VirtualDirectory for OpenFiles {
    fn lookup(&self, this: &Arc<Inode>, name: &[u8]) -> Result<Arc<Inode>, Errno> {
        let fd = number(name).ok_or(Errno::ENOENT)?;
        let task = self.0.clone();
        let file = move || {
            let files = thread(&task)?.files.lock().clone().ok_or(Errno::ENOENT)?;
            let file = files.get(fd.cast_signed()).map_err(|_| Errno::ENOENT)?;
            Ok(Destination::Inode(file.inode().clone()))
        };
        file()?;
        let node = Node::VirtualLink(Box::new(Link(file)));
        let number = first_number(&self.0) + FILES + u64::from(fd);
        Inode::made(FileSystem::Proc, number, node, 0o700, (Parent::Made(this.clone()), name))
    }

    fn list(&self, from: u64, each: &mut dyn FnMut(Listed<'_>) -> bool) {
        let files = thread(&self.0).ok().and_then(|thread| thread.files.lock().clone());
        let Some(files) = files else { return };
        let mut next = (from - FIRST_POSITION) as u32;
        while let Some(fd) = files.next_open(next) {
            next = fd + 1;
            let name = format!("{fd}");
            let listed = Listed {
                next: FIRST_POSITION + u64::from(next),
                number: first_number(&self.0) + FILES + u64::from(fd),
                kind: S_IFLNK,
                name: name.as_bytes(),
            };
            if !each(listed) {
                return;
            }
        }
    }
}

/// `/proc/PID/task`.
struct Threads(Subject);

impl VirtualDirectory for Threads {
    fn lookup(&self, this: &Arc<Inode>, name: &[u8]) -> Result<Arc<Inode>, Errno> {
        let number = number(name).ok_or(Errno::ENOENT)?;
        let task = namespace().find(number).ok_or(Errno::ENOENT)?;
        let is_of_it = Arc::ptr_eq(&thread(&task)?.process, &thread(&self.0)?.process);
        if !is_of_it {
            return Err(Errno::ENOENT);
        }
        let first_number = first_number(&task) + THREAD;
        make_directory(table(task, THREAD_ENTRIES, first_number + 1), first_number, this, name)
    }

    fn list(&self, from: u64, each: &mut dyn FnMut(Listed<'_>) -> bool) {
        let Ok(thread) = thread(&self.0) else { return };
        let mut from = (from - FIRST_POSITION).try_into().unwrap_or(u32::MAX);
        loop {
            let numbers = lowest_numbers(&thread.process, from);
            for (&tid, &number) in &numbers {
                from = tid + 1;
                let next = FIRST_POSITION + u64::from(from);
                let name = format!("{tid}");
                if !each(Listed { next, number, kind: S_IFDIR, name: name.as_bytes() }) {
                    return;
                }
            }
            if numbers.len() < THREADS_AT_ONCE {
                return;
            }
        }
    }
}

/// Threads that are looked up at once to be listed: there may be too many for one list of them.
const THREADS_AT_ONCE: usize = 512;

/// The lowest [`THREADS_AT_ONCE`] numbers of a process's threads that are at least `from`, each with that of the
/// thread's directory.
fn lowest_numbers(process: &Process, from: u32) -> BTreeMap<u32, u64> {
    let mut lowest = BTreeMap::new();
    process.family.get(&tree::lock()).for_each_thread(|task, _| {
        let tid = own_number(task);
        let is_full = lowest.len() == THREADS_AT_ONCE;
        if tid < from || is_full && lowest.last_key_value().is_some_and(|(&last, _)| tid > last) {
            return;
        }
        lowest.insert(tid, first_number(task) + THREAD);
        if is_full {
            lowest.pop_last();
        }
    });
    lowest
}
