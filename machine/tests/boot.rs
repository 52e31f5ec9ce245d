//! Boots a guest of a few instructions through every door, on every board.
//!
//! The guest is assembled here, byte by byte, from instructions that mean the same in 32-bit mode (where PVH
//! enters) and in 64-bit mode (where Limine does).

use machine::{Boot, Clock, Error, Finished, Limine, Machine, MachineType, Port, Status};
use std::{
    io::Write,
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

const VIRTUAL: u64 = 0xFFFF_FFFF_8010_0000;
const PHYSICAL: u64 = 0x10_0000;
const PAGE: u64 = 4096;

/// `mov dx, 0x3f8`, then `mov al, byte; out dx, al` for each byte.
fn say(text: &str) -> Vec<u8> {
    let bytes = text.bytes().flat_map(|byte| [0xB0, byte, 0xEE]);
    [0x66, 0xBA, 0xF8, 0x03].into_iter().chain(bytes).collect()
}

/// `mov eax, status; out 0xf4, eax`.
fn exit(status: u8) -> Vec<u8> {
    vec![0xB8, status, 0, 0, 0, 0xE7, 0xF4]
}

/// `jmp $`.
const HANG: [u8; 2] = [0xEB, 0xFE];
/// `lidt [zeroes]; ud2`, with the zeroes 256 bytes into the code.
const TRIPLE_FAULT: [u8; 9] = [0x0F, 0x01, 0x1D, 0x00, 0x11, 0x10, 0x00, 0x0F, 0x0B];

/// An ELF file of one code segment and the note that makes it a PVH kernel (Xen's `elfnote.h`, type 18).
fn elf(code: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    let mut put = |bytes: &[u8]| out.extend_from_slice(bytes);
    put(b"\x7fELF\x02\x01\x01\0\0\0\0\0\0\0\0\0");
    put(&[2, 0, 62, 0, 1, 0, 0, 0]); // ET_EXEC, EM_X86_64, EV_CURRENT
    for word in [VIRTUAL, 64, 0] {
        put(&word.to_le_bytes()); // entry, program headers, no section headers
    }
    put(&[0, 0, 0, 0, 64, 0, 56, 0, 2, 0, 64, 0, 0, 0, 0, 0]);
    let header = |kind: u32, flags: u32, words: [u64; 6]| {
        let words = words.into_iter().flat_map(u64::to_le_bytes);
        kind.to_le_bytes().into_iter().chain(flags.to_le_bytes()).chain(words).collect::<Vec<u8>>()
    };
    put(&header(1, 5, [PAGE, VIRTUAL, PHYSICAL, PAGE, PAGE, PAGE]));
    let note_at = 0x200;
    put(&header(4, 4, [note_at, VIRTUAL + 0x800, PHYSICAL + 0x800, 24, 24, 4]));
    out.resize(note_at as usize, 0);
    for word in [4u32, 8, 18, u32::from_le_bytes(*b"Xen\0"), PHYSICAL as u32, 0] {
        out.extend_from_slice(&word.to_le_bytes());
    }
    out.resize(PAGE as usize, 0);
    out.extend_from_slice(code);
    out.resize(2 * PAGE as usize, 0);
    out
}

/// A guest in a file of its own.
struct Guest {
    _dir: tempfile::TempDir,
    kernel: PathBuf,
}

impl Guest {
    fn new(parts: &[&[u8]]) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let kernel = dir.path().join("kernel");
        std::fs::write(&kernel, elf(&parts.concat())).unwrap();
        Self { _dir: dir, kernel }
    }

    fn machine(&self) -> Machine {
        let mut machine = Machine::new(&self.kernel);
        machine.timeout = Some(Duration::from_secs(60));
        machine
    }
}

fn finish(machine: &Machine) -> Finished {
    machine.start().unwrap().finish().unwrap()
}

/// Says, past the harness's capture, that a test did not run.
fn skip(test: &str, why: &str) {
    let _ = writeln!(std::io::stdout(), "SKIPPED {test}: {why}");
}

/// Limine's files; `None` where this machine has none.
fn limine() -> Option<Limine> {
    let target = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).parent().unwrap().to_owned();
    match Limine::find(&target) {
        Ok(limine) => Some(limine),
        Err(Error::LimineMissing { .. }) => None,
        Err(error) => panic!("{error}"),
    }
}

#[test]
fn pvh_on_both_boards() {
    let guest = Guest::new(&[&say("hello\n"), &exit(42)]);
    for machine_type in [MachineType::Q35, MachineType::Microvm] {
        for port in [Port::Com1, Port::Virtio] {
            let mut machine = guest.machine();
            machine.machine_type = machine_type;
            machine.port = port;
            machine.cpus = 2;
            let finished = finish(&machine);
            assert_eq!(finished.status, Status::Guest(42), "{machine_type}: {}", finished.stderr);
            assert_eq!(finished.com1, b"hello\n");
            assert_eq!(finished.stderr, "", "no warnings");
        }
    }
}

#[test]
fn instruction_counting_runs() {
    let guest = Guest::new(&[&say("hello\n"), &exit(0)]);
    let mut machine = guest.machine();
    machine.clock = Clock::Instructions;
    let finished = finish(&machine);
    assert_eq!(finished.status, Status::Guest(0), "{}", finished.stderr);
    assert_eq!(finished.stderr, "", "no warnings");
}

#[test]
fn limine_bios() {
    by_limine("limine_bios", Boot::LimineBios);
}

#[test]
fn limine_uefi() {
    by_limine("limine_uefi", Boot::LimineUefi);
}

fn by_limine(test: &str, boot: Boot) {
    let Some(limine) = limine() else { return skip(test, "no Limine found") };
    let guest = Guest::new(&[&say("hello\n"), &exit(7)]);
    let mut machine = guest.machine();
    machine.boot = boot;
    machine.limine = Some(limine);
    let finished = finish(&machine);
    let said = String::from_utf8_lossy(&finished.com1);
    assert_eq!(finished.status, Status::Guest(7), "{said}{}", finished.stderr);
    // Firmware may speak on COM1 first.
    assert!(said.ends_with("hello\n"), "{said}");
}

#[test]
fn a_hang_ends_with_the_time() {
    let guest = Guest::new(&[&say("on\n"), &HANG]);
    let mut machine = guest.machine();
    machine.timeout = Some(Duration::from_secs(3));
    let finished = finish(&machine);
    assert_eq!(finished.status, Status::Timeout);
    assert_eq!(finished.com1, b"on\n");
}

#[test]
fn a_triple_fault_is_a_reset() {
    let guest = Guest::new(&[&TRIPLE_FAULT]);
    assert_eq!(finish(&guest.machine()).status, Status::Reset);
}

#[test]
fn what_qemu_refuses_is_its_failure() {
    let guest = Guest::new(&[&exit(0)]);
    let mut machine = guest.machine();
    machine.extra_args = vec!["-device".into(), "no-such-device".into()];
    let Status::QemuFailed(text) = finish(&machine).status else { panic!("it ran") };
    assert!(text.contains("no-such-device"), "{text}");
}

#[test]
fn a_machine_can_be_stopped() {
    let guest = Guest::new(&[&say("on\n"), &HANG]);
    let mut machine = guest.machine();
    let stop = Arc::new(AtomicBool::new(false));
    machine.stop = Some(stop.clone());
    let mut said = Vec::new();
    let status = machine.start().unwrap().follow(|_, bytes| {
        said.extend_from_slice(bytes);
        stop.store(said.ends_with(b"on\n"), Ordering::Relaxed);
        Ok::<(), Error>(())
    });
    assert_eq!(status.unwrap(), Status::Stopped);
}

#[test]
fn dropping_a_machine_stops_it() {
    let guest = Guest::new(&[&HANG]);
    let running = guest.machine().start().unwrap();
    let process = PathBuf::from(format!("/proc/{}", running.pid()));
    assert!(process.exists());
    drop(running);
    assert!(!process.exists());
}
