//! The files of `/proc` that are about the system.

use alloc::boxed::Box;
use core::fmt::Write;

use orrery_core::errno::Errno;

use super::process::CLOCK_HZ;
use crate::arch::{features, tsc};
use crate::boot;
use crate::fs::inode::{FileSystem, VirtualDirectory};
use crate::fs::limits;
use crate::fs::pipe;
use crate::fs::text::Text;
use crate::fs::tree::{Entry, Kind, Table};
use crate::mm::{self, frames};
use crate::process::names::{self, Name, Names};
use crate::sched::cpu::{self, CPUS};
use crate::sched::tick;
use crate::task::registry;
use crate::time;

/// The release of the Linux whose calls the kernel has, as uname(2) says it.
pub const RELEASE: &str = "6.1.0-orrery";
/// The kernel's own version, as uname(2) says it.
pub const VERSION: &str = concat!("Orrery ", env!("CARGO_PKG_VERSION"));

type Result = core::result::Result<(), Errno>;

/// Writing into a string cannot fail.
fn put(text: &mut Text, arguments: core::fmt::Arguments<'_>) -> Result {
    text.write_fmt(arguments).map_err(|_| Errno::ENOMEM)
}

pub(super) fn version(text: &mut Text) -> Result {
    put(text, format_args!("Linux version {RELEASE} ({VERSION}) #1 SMP\n"))
}

pub(super) fn command_line(text: &mut Text) -> Result {
    put(text, format_args!("{}\n", boot::command_line()))
}

pub(super) fn filesystems(text: &mut Text) -> Result {
    put(text, format_args!("nodev\ttmpfs\nnodev\tproc\nnodev\tsysfs\nnodev\ttracefs\n"))
}

/// The file systems, as mount(8) says them.
pub(super) fn mounts(text: &mut Text) -> Result {
    put(
        text,
        format_args!("root / tmpfs rw 0 0\nproc /proc proc rw 0 0\nsysfs /sys sysfs rw 0 0\n"),
    )
}

/// The same with the file systems' device numbers, which is what df(1) reads.
pub(super) fn mountinfo(text: &mut Text) -> Result {
    let (root, proc, sys) =
        (FileSystem::Root as u32, FileSystem::Proc as u32, FileSystem::Sys as u32);
    put(text, format_args!("{root} {root} 0:{root} / / rw - tmpfs root rw\n"))?;
    put(text, format_args!("{proc} {root} 0:{proc} / /proc rw - proc proc rw\n"))?;
    put(text, format_args!("{sys} {root} 0:{sys} / /sys rw - sysfs sysfs rw\n"))
}

/// Seconds and hundredths.
fn seconds(nanos: u64) -> (u64, u64) {
    (nanos / 1_000_000_000, nanos / 10_000_000 % 100)
}

/// Time that all CPUs had nothing to do, in nanoseconds.
fn idle_nanos() -> u64 {
    cpu::each().map(|cpu| time::to_nanos(CPUS.of(cpu).idle_ticks())).sum()
}

pub(super) fn uptime(text: &mut Text) -> Result {
    let (up, up_parts) = seconds(time::monotonic_nanos());
    let (idle, idle_parts) = seconds(idle_nanos());
    put(text, format_args!("{up}.{up_parts:02} {idle}.{idle_parts:02}\n"))
}

/// Averages are not kept.
pub(super) fn loadavg(text: &mut Text) -> Result {
    let running = registry::tasks().filter(|task| task.state.is_runnable()).count();
    let (tasks, last) = (registry::count(), super::own_number());
    put(text, format_args!("0.00 0.00 0.00 {running}/{tasks} {last}\n"))
}

pub(super) fn meminfo(text: &mut Text) -> Result {
    let usage = mm::usage();
    let memory = frames::stats();
    let kib = |frames: u64| frames * 4;
    let free = kib(memory.free + memory.cached);
    let files = kib(limits::FILE_PAGES.used());
    let heap = kib(usage.heap_frames);
    for (name, value) in [
        ("MemTotal:", kib(memory.total)),
        ("MemFree:", free),
        ("MemAvailable:", free),
        ("Buffers:", 0),
        ("Cached:", files),
        ("SwapCached:", 0),
        ("SwapTotal:", 0),
        ("SwapFree:", 0),
        ("Shmem:", files),
        ("Slab:", heap),
        ("SReclaimable:", 0),
        ("SUnreclaim:", heap),
        ("KernelStack:", kib(usage.stack_frames)),
        ("PageTables:", kib(usage.table_frames)),
    ] {
        put(text, format_args!("{name:<15} {value:8} kB\n"))?;
    }
    Ok(())
}

pub(super) fn cpuinfo(text: &mut Text) -> Result {
    let identity = features::identity();
    let mhz = tsc::hz() / 1_000;
    for cpu in cpu::each() {
        put(
            text,
            format_args!(
                "processor\t: {cpu}\nvendor_id\t: {}\ncpu family\t: {}\nmodel\t\t: {}\n\
                 model name\t: {}\nstepping\t: {}\ncpu MHz\t\t: {}.{:03}\nflags\t\t:{}\n\n",
                identity.vendor(),
                identity.family,
                identity.model,
                identity.brand(),
                identity.stepping,
                mhz / 1000,
                mhz % 1000,
                identity.flags(),
            ),
        )?;
    }
    Ok(())
}

/// What CPUs have done, in nanoseconds.
#[derive(Default)]
struct CpuTimes {
    user: u64,
    system: u64,
    idle: u64,
}

impl CpuTimes {
    fn of(cpu: u32, now_nanos: u64) -> Self {
        let idle = time::to_nanos(CPUS.of(cpu).idle_ticks());
        let busy = now_nanos.saturating_sub(idle);
        let samples = tick::samples(cpu);
        // Where no program has been found, the kernel alone has been at work.
        let user = if samples.user == 0 { 0 } else { samples.divide(busy).user_ticks };
        Self { user, system: busy - user, idle }
    }

    fn put(&self, text: &mut Text, name: core::fmt::Arguments<'_>) -> Result {
        let ticks = |nanos: u64| nanos / (1_000_000_000 / CLOCK_HZ);
        let [user, system, idle] = [self.user, self.system, self.idle].map(ticks);
        put(text, format_args!("{name} {user} 0 {system} {idle} 0 0 0 0 0 0\n"))
    }
}

pub(super) fn stat(text: &mut Text) -> Result {
    let up = time::monotonic_nanos();
    let mut all = CpuTimes::default();
    for cpu in cpu::each() {
        let its = CpuTimes::of(cpu, up);
        all.user += its.user;
        all.system += its.system;
        all.idle += its.idle;
    }
    all.put(text, format_args!("cpu "))?;
    for cpu in cpu::each() {
        CpuTimes::of(cpu, up).put(text, format_args!("cpu{cpu}"))?;
    }
    let switches: u64 = cpu::each().map(|cpu| CPUS.of(cpu).switches()).sum();
    let booted = time::realtime_offset_nanos() / 1_000_000_000;
    let running = registry::tasks().filter(|task| task.state.is_runnable()).count();
    put(
        text,
        format_args!(
            "ctxt {switches}\nbtime {booted}\nprocesses {}\nprocs_running {running}\n\
             procs_blocked 0\n",
            registry::count()
        ),
    )
}

/// `/proc/sys`
pub(super) fn settings() -> Box<dyn VirtualDirectory> {
    table(SETTINGS, 1 << 8)
}

fn table(entries: &'static [Entry<()>], first_number: u64) -> Box<dyn VirtualDirectory> {
    Box::new(Table { subject: (), entries, file_system: FileSystem::Proc, first_number })
}

static SETTINGS: &[Entry<()>] = &[
    Entry { name: "fs", kind: Kind::Directory(|()| table(FILES, (1 << 8) + 48)) },
    Entry { name: "kernel", kind: Kind::Directory(|()| table(KERNEL, (1 << 8) + 16)) },
    Entry { name: "vm", kind: Kind::Directory(|()| table(MEMORY, (1 << 8) + 32)) },
];

static KERNEL: &[Entry<()>] = &[
    Entry {
        name: "pid_max",
        kind: Kind::Text(|(), text| {
            put(text, format_args!("{}\n", crate::options::get().pid_limit))
        }),
    },
    Entry { name: "hostname", kind: Kind::Text(|(), text| machine_name(text, |it| it.host)) },
    Entry { name: "domainname", kind: Kind::Text(|(), text| machine_name(text, |it| it.domain)) },
    // Nothing that it could be tainted by is here.
    Entry { name: "tainted", kind: Kind::Text(|(), text| put(text, format_args!("0\n"))) },
    Entry { name: "ostype", kind: Kind::Text(|(), text| put(text, format_args!("Linux\n"))) },
    Entry {
        name: "osrelease",
        kind: Kind::Text(|(), text| put(text, format_args!("{RELEASE}\n"))),
    },
    Entry { name: "version", kind: Kind::Text(|(), text| put(text, format_args!("{VERSION}\n"))) },
];

fn machine_name(text: &mut Text, choose: fn(Names) -> Name) -> Result {
    for byte in names::bytes(&choose(names::get())).chain([b'\n']) {
        text.push_bytes(&[byte]);
    }
    Ok(())
}

static MEMORY: &[Entry<()>] = &[Entry {
    // Memory is promised freely; whoever touches what is not there is killed.
    name: "overcommit_memory",
    kind: Kind::Text(|(), text| put(text, format_args!("1\n"))),
}];

static FILES: &[Entry<()>] = &[
    Entry {
        name: "file-max",
        kind: Kind::Text(|(), text| put(text, format_args!("{}\n", limits::OPEN_FILES.limit()))),
    },
    Entry {
        name: "file-nr",
        kind: Kind::Text(|(), text| {
            let files = &limits::OPEN_FILES;
            put(text, format_args!("{}\t0\t{}\n", files.used(), files.limit()))
        }),
    },
    Entry {
        name: "pipe-max-size",
        kind: Kind::Text(|(), text| {
            put(text, format_args!("{}\n", pipe::queue::MAX_CAPACITY_BYTES))
        }),
    },
];
