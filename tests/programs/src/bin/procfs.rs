//! /proc as far as programs need it, and the trace marker.

use std::fs;

use programs::process::{close, ending, id, pause_ms, spawn, wait};
use programs::sys::value;
use programs::{check, say, signal, sys};

fn main() {
    programs::main(&[
        ("exe", exe),
        ("stat", stat),
        ("states", states),
        ("status", status),
        ("tasks", tasks),
        ("maps", maps),
        ("machine", machine),
        ("listing", listing),
        ("descriptors", descriptors),
        ("gone", gone),
        ("from-the-middle", from_the_middle),
        ("read-only", read_only),
        ("marker", marker),
        ("mounts", mounts),
    ]);
}

/// Nothing need have been read before.
fn from_the_middle() {
    let whole = fs::read("/proc/version").unwrap();
    let file = fs::File::open("/proc/version").unwrap();
    let mut bytes = [0; 6];
    let got = std::os::unix::fs::FileExt::read_at(&file, &mut bytes, 3).unwrap();
    say!("{got} {}", bytes == whole[3..9]);
    let got = std::os::unix::fs::FileExt::read_at(&file, &mut bytes, 100_000).unwrap();
    say!("beyond: {got}");
}

fn exe() {
    let link = fs::read_link("/proc/self/exe").unwrap();
    say!("{:?}", link.file_name().unwrap());
    let image = fs::read("/proc/self/exe").unwrap();
    say!("{:?}", &image[..4]);
    let by_number = fs::read_link(format!("/proc/{}/exe", id())).unwrap();
    say!("same: {}", by_number == link);
    say!("{}", fs::read_link("/proc/self").unwrap().to_string_lossy() == id().to_string());
}

/// The fields after the name, which is in parentheses.
fn fields(path: &str) -> (String, String, Vec<String>) {
    let line = fs::read_to_string(path).unwrap();
    let (head, rest) = line.rsplit_once(')').unwrap();
    let (number, name) = head.split_once(" (").unwrap();
    (number.into(), name.into(), rest.split_whitespace().map(str::to_owned).collect())
}

fn stat() {
    let (number, name, rest) = fields("/proc/self/stat");
    say!("{} {name} {} fields", number == id().to_string(), rest.len() >= 40);
    say!("{}", rest[0]);
    check!(rest[1] == sys!(SYS_getppid).unwrap().to_string(), "parent {}", rest[1]);
    check!(rest[2] == sys!(SYS_getpgid, 0).unwrap().to_string(), "group {}", rest[2]);
    say!("threads {}", rest[17]);
    check!(rest[20].parse::<u64>().is_ok_and(|bytes| bytes > 0), "size {}", rest[20]);
    let pair = std::thread::spawn(|| fields("/proc/self/stat").2[17].clone()).join().unwrap();
    say!("with another: {pair}");
}

fn state_of(pid: i32) -> String {
    fields(&format!("/proc/{pid}/stat")).2[0].clone()
}

fn states() {
    let child = spawn(|| {
        pause_ms(1_000_000);
        0
    });
    programs::process::wait_until(|| state_of(child) == "S");
    say!("{}", state_of(child));
    signal::kill(child, libc::SIGSTOP).unwrap();
    programs::process::wait_until(|| state_of(child) == "T");
    say!("{}", state_of(child));
    signal::kill(child, libc::SIGKILL).unwrap();
    programs::process::wait_until(|| state_of(child) == "Z");
    say!("{}", state_of(child));
    wait(child);
    say!("{:?}", fs::read(format!("/proc/{child}/stat")).map_err(|error| error.kind()).err());
    let runner = spawn(|| {
        loop {
            std::hint::spin_loop();
        }
    });
    programs::process::wait_until(|| state_of(runner) == "R");
    say!("{}", state_of(runner));
    signal::kill(runner, libc::SIGKILL).unwrap();
    wait(runner);
}

fn line(text: &str, key: &str) -> String {
    let found = text.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix(':'));
    found.map_or_else(|| "missing".into(), |value| value.trim().to_owned())
}

fn status() {
    let text = fs::read_to_string("/proc/self/status").unwrap();
    say!("{} {}", line(&text, "Name"), line(&text, "State"));
    check!(line(&text, "Pid") == id().to_string(), "Pid {}", line(&text, "Pid"));
    check!(line(&text, "Tgid") == id().to_string(), "Tgid {}", line(&text, "Tgid"));
    check!(line(&text, "PPid") == sys!(SYS_getppid).unwrap().to_string(), "PPid");
    say!("threads {}", line(&text, "Threads"));
    check!(line(&text, "VmRSS").ends_with("kB"), "VmRSS {}", line(&text, "VmRSS"));
}

fn tasks() {
    let tid = std::thread::spawn(|| {
        let tid = sys!(SYS_gettid).unwrap();
        let (number, ..) = fields(&format!("/proc/self/task/{tid}/stat"));
        let mut tasks: Vec<u64> = fs::read_dir("/proc/self/task")
            .unwrap()
            .map(|entry| entry.unwrap().file_name().to_string_lossy().parse().unwrap())
            .collect();
        tasks.sort();
        say!("{} {}", number == tid.to_string(), tasks == [id() as u64, tid]);
        tid
    })
    .join()
    .unwrap();
    programs::process::wait_until(|| {
        !std::path::Path::new(&format!("/proc/self/task/{tid}")).exists()
    });
    say!("gone");
}

/// Address ranges in order, with the stack and this program among them.
fn maps() {
    let text = fs::read_to_string("/proc/self/maps").unwrap();
    let mut end_before = 0;
    let stack = (&raw const end_before) as u64;
    let code = maps as *const () as u64;
    let (mut stack_line, mut code_line) = (String::new(), String::new());
    for line in text.lines() {
        let mut words = line.split_whitespace();
        let (start, end) = words.next().unwrap().split_once('-').unwrap();
        let (start, end) =
            (u64::from_str_radix(start, 16).unwrap(), u64::from_str_radix(end, 16).unwrap());
        check!(start < end && start >= end_before, "out of order: {line}");
        end_before = end;
        let permissions = words.next().unwrap();
        check!(permissions.len() == 4, "{permissions}");
        check!(!(permissions.contains('w') && permissions.contains('x')), "writable code: {line}");
        let name = words.nth(3).unwrap_or("").to_owned();
        if (start..end).contains(&stack) {
            stack_line = format!("{permissions} {name}");
        }
        if (start..end).contains(&code) {
            code_line = format!("{permissions} {}", name.ends_with("/procfs"));
        }
    }
    say!("{stack_line}, {code_line}");
    say!("heap or brk: {}", text.contains("[vdso]"));
}

fn machine() {
    let memory = fs::read_to_string("/proc/meminfo").unwrap();
    let total = line(&memory, "MemTotal");
    let number = |text: &str| text.trim_end_matches(" kB").parse::<u64>().unwrap_or(0);
    check!(number(&total) > 16 << 10, "MemTotal {total}");
    check!(number(&line(&memory, "MemFree")) <= number(&total), "more free than there is");
    let cpus = fs::read_to_string("/proc/cpuinfo").unwrap();
    let count = cpus.lines().filter(|line| line.starts_with("processor")).count();
    let mut set = [0u64; 16];
    sys!(SYS_sched_getaffinity, 0, 128, &mut set).unwrap();
    let allowed: u32 = set.iter().map(|word| word.count_ones()).sum();
    check!(count as u32 >= allowed, "{count} processors, {allowed} allowed");
    say!("flags: {}", cpus.lines().any(|line| line.starts_with("flags")));
}

fn listing() {
    let names: Vec<String> = fs::read_dir("/proc")
        .unwrap()
        .map(|entry| entry.unwrap().file_name().to_string_lossy().into())
        .collect();
    say!("{}", names.iter().any(|name| *name == id().to_string()));
    for name in ["self", "meminfo", "cpuinfo"] {
        say!("{name}: {}", names.iter().any(|its| its == name));
    }
    let children: Vec<i32> = (0..20)
        .map(|_| {
            spawn(|| {
                pause_ms(1_000_000);
                0
            })
        })
        .collect();
    let names: Vec<String> = fs::read_dir("/proc")
        .unwrap()
        .map(|entry| entry.unwrap().file_name().to_string_lossy().into())
        .collect();
    let listed = children.iter().filter(|child| names.contains(&child.to_string())).count();
    say!("{listed} of 20");
    for child in children {
        signal::kill(child, libc::SIGKILL).unwrap();
        wait(child);
    }
}

/// Small reads give the same as one large one.
fn descriptors() {
    let fd = sys!(SYS_open, c"/proc/self/status".as_ptr(), libc::O_RDONLY, 0).unwrap() as i32;
    let mut text = Vec::new();
    loop {
        let bytes = programs::process::read(fd, 7).unwrap();
        if bytes.is_empty() {
            break;
        }
        text.extend(bytes);
    }
    let text = String::from_utf8(text).unwrap();
    say!("{} {}", line(&text, "Name"), text.ends_with('\n'));
    sys!(SYS_lseek, fd, 0, 0).unwrap();
    say!("{}", programs::process::read(fd, 5).unwrap() == b"Name:");
    close(fd);
}

fn gone() {
    let child = spawn(|| {
        pause_ms(1_000_000);
        0
    });
    let path = std::ffi::CString::new(format!("/proc/{child}/stat")).unwrap();
    let fd = sys!(SYS_open, path.as_ptr(), libc::O_RDONLY, 0).unwrap() as i32;
    signal::kill(child, libc::SIGKILL).unwrap();
    wait(child);
    let after = programs::process::read(fd, 100).map(|bytes| bytes.len() as u64);
    say!("{}", value(after));
    say!("{}", value(sys!(SYS_open, path.as_ptr(), libc::O_RDONLY, 0)));
    say!("{:?}", fs::metadata("/proc/0").is_err());
    say!("{:?}", fs::metadata("/proc/self/nothing").is_err());
    close(fd);
}

fn read_only() {
    say!("{}", fs::write("/proc/self/stat", "x").is_err());
    say!("{}", fs::remove_file("/proc/meminfo").is_err());
    for path in [
        c"/proc/new",
        c"/proc/self/new",
        c"/proc/self",
        c"/proc/sys/kernel",
        c"/sys/new",
        c"/sys/kernel",
    ] {
        say!("{path:?} {:?}", sys!(SYS_mkdir, path.as_ptr(), 0o755));
    }
    for path in [c"/proc/new", c"/proc/self/fd/999", c"/proc/self/fd/new"] {
        say!("{path:?} {:?}", sys!(SYS_open, path.as_ptr(), libc::O_CREAT | libc::O_WRONLY, 0o644));
        say!("{:?}", sys!(SYS_symlink, c"target".as_ptr(), path.as_ptr()));
    }
}

/// A program's own words in the trace. Nothing depends on whether it is there.
fn marker() {
    let status = ending(|| {
        if let Ok(fd) =
            sys!(SYS_open, c"/sys/kernel/tracing/trace_marker".as_ptr(), libc::O_WRONLY, 0)
        {
            let written = programs::process::write(fd as i32, b"procfs was here");
            check!(written == Ok(15), "{written:?}");
        }
        0
    });
    say!("{status}");
}

/// What df(1) looks for: the line of a mount point has the device number of the files there.
fn mounts() {
    let table = fs::read_to_string("/proc/self/mountinfo").unwrap();
    for point in ["/proc", "/sys"] {
        let device = std::os::unix::fs::MetadataExt::dev(&fs::metadata(point).unwrap());
        let number = format!("{}:{}", libc::major(device), libc::minor(device));
        let found = table.lines().any(|line| {
            let fields: Vec<&str> = line.split(' ').collect();
            let (before, after) = line.split_once(" - ").unwrap();
            check!(before.split(' ').count() >= 6 && after.split(' ').count() == 3, "{line}");
            fields[2] == number && fields[4] == point
        });
        say!("{point} {found}");
    }
    say!(
        "{}",
        table.lines().count() == fs::read_to_string("/proc/mounts").unwrap().lines().count()
    );
}
