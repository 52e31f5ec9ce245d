//! The program as users run it: output and exit status.

use std::{fs, path::PathBuf, process::Output, time::Duration};

use assert_cmd::Command;
use orrery_core::trace::wire::Encoding;
use tempfile::TempDir;
use trace_tools::synthetic::{BUILD_ID, Block, Fields, STATEMENTS, Stream};

use crate::{
    elf::{elf, symbol},
    stream::{IRQ_ENTER, MARK, SWITCH, TASK_ATTR, attr, mark, small, switch},
};

/// A directory with the kernel's ELF and a stream of it.
struct Place {
    dir: TempDir,
}

impl Place {
    fn new() -> Self {
        let place = Self { dir: tempfile::tempdir().unwrap() };
        place.write("kernel.elf", &kernel(BUILD_ID));
        place.write("raw", &small().bytes());
        place
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn write(&self, name: &str, bytes: &[u8]) {
        fs::write(self.path(name), bytes).unwrap();
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::cargo_bin("trace-tools").unwrap();
        command.current_dir(self.dir.path()).args(arguments);
        command
    }

    /// Runs the program, which must exit with this status.
    fn run(&self, status: i32, arguments: &[&str]) -> Output {
        let output = self.command(arguments).output().unwrap();
        assert_eq!(output.status.code(), Some(status), "{arguments:?}: {output:?}");
        output
    }

    fn stdout(&self, status: i32, arguments: &[&str]) -> String {
        String::from_utf8(self.run(status, arguments).stdout).unwrap()
    }

    fn stderr(&self, status: i32, arguments: &[&str]) -> String {
        String::from_utf8(self.run(status, arguments).stderr).unwrap()
    }
}

/// A kernel of the synthetic statements.
fn kernel(build_id: &str) -> Vec<u8> {
    let id: Vec<u8> = (0..build_id.len() / 2)
        .map(|n| u8::from_str_radix(&build_id[2 * n..2 * n + 2], 16).unwrap())
        .collect();
    let names: Vec<String> = STATEMENTS.iter().map(|text| symbol("defmt_trace", text)).collect();
    let symbols: Vec<(u64, &str)> = (0..).zip(names.iter().map(String::as_str)).collect();
    elf(Some(&id), &symbols)
}

/// A stream without drops, in which tasks 5 and 0 take turns.
fn clean() -> Stream {
    let mut stream = Stream::new(1, Encoding::Compact);
    stream.hello();
    let mut block = Block::new(0, 1_000_000, 0);
    block.record(TASK_ATTR, 0, &attr(5, "worker\u{1b}[31m"));
    for turn in 0..10 {
        let next = if turn % 2 == 0 { 5 } else { 0 };
        block.record(SWITCH, 1000 * (turn + 1), &switch(next, next as u8 & 1, turn as u8));
    }
    stream.console(1_000_000, b"booting\nready\n");
    stream.block(&block);
    stream.output(1_500_000, trace_tools::Stream::Out, b"hello\n");
    stream.output(1_500_000, trace_tools::Stream::Err, b"oh\n");
    stream.end(0);
    stream
}

#[test]
fn record_then_read_without_the_elf() {
    let place = Place::new();
    place.write("clean", &clean().bytes());
    place.run(0, &["record", "clean", "--elf", "kernel.elf", "-o", "a.orrec"]);
    place.run(0, &["record", "clean", "--elf", "kernel.elf", "-o", "b.orrec", "--follow"]);
    assert_eq!(fs::read(place.path("a.orrec")).unwrap(), fs::read(place.path("b.orrec")).unwrap());
    let by_pipe = place
        .command(&["record", "--elf", "kernel.elf", "-o", "-"])
        .write_stdin(clean().bytes())
        .output()
        .unwrap();
    assert_eq!(by_pipe.stdout, fs::read(place.path("a.orrec")).unwrap());

    let text = place.stdout(0, &["decode", "a.orrec"]);
    assert!(text.starts_with(&format!("# build {BUILD_ID}, 1 CPUs")), "{text}");
    assert!(text.contains("console  [000]       0.001000: ready"), "{text}");
    assert!(text.contains("stdout  [000]       0.001500: hello"), "{text}");
    assert!(text.contains("stderr  [000]       0.001500: oh"), "{text}");
    assert!(
        text.contains("idle-0  [000]       0.001001: sched_switch: next=worker\\u{1b}[31m-5"),
        "{text}"
    );
    assert!(!text.contains('\u{1b}'));
    assert!(text.ends_with("# end, status 0\n"), "{text}");

    let report = place.stdout(0, &["report", "a.orrec"]);
    assert!(
        report.contains("11 events in 10.0 us: 0 lost, 0 dropped, 0 bytes damaged"),
        "{report}"
    );
    let info = place.stdout(0, &["info", "a.orrec"]);
    assert!(info.contains(BUILD_ID) && info.contains("The trace is whole."), "{info}");
}

#[test]
fn json_is_complete_and_parses() {
    let place = Place::new();
    place.write("clean", &clean().bytes());
    let source = ["clean", "--elf", "kernel.elf", "--format", "json"];
    let json = |verb| -> serde_json::Value {
        let text = place.stdout(0, &[&[verb], &source[..]].concat());
        serde_json::from_str(&text).unwrap()
    };
    let info = json("info");
    assert_eq!(info["build_id"], BUILD_ID);
    assert_eq!(info["cpus"][0]["received"], 11);
    assert_eq!(info["cpus"][0]["produced"], 11);
    assert_eq!(info["clock_inversions"]["wakeups"], 0);
    let report = json("report");
    assert_eq!(report["tasks"][0]["pid"], 5);
    assert_eq!(report["tasks"][0]["runtime_ticks"], 5000);
    assert_eq!(report["cpus"][0]["switches"], 10);

    let lines = place.stdout(0, &[&["decode"], &source[..]].concat());
    let lines: Vec<serde_json::Value> =
        lines.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(lines[0]["kind"], "hello");
    let switch = lines.iter().find(|line| line["name"] == "sched_switch").unwrap();
    assert_eq!(switch["time_ticks"], 1_001_000);
    assert_eq!(switch["fields"]["next"], 5);
    assert_eq!(lines.last().unwrap()["kind"], "end");
}

#[test]
fn lossy_damaged_or_unended_is_5() {
    let place = Place::new();
    let clean = clean();
    let whole = clean.bytes();
    let elf = ["--elf", "kernel.elf"];
    let status_5 = |bytes: &[u8], why: &str| {
        place.write("bad", bytes);
        for verb in ["info", "report", "decode"] {
            let error = place.stderr(5, &[&[verb, "bad"], &elf[..]].concat());
            assert!(error.contains(why), "{verb}: {error}");
        }
        let error = place.stderr(5, &[&["record", "bad", "-o", "bad.orrec"], &elf[..]].concat());
        assert!(error.contains(why), "{error}");
    };
    status_5(&whole[..whole.len() - 1], "its end packet is missing");
    status_5(&[&whole[..], b"junk"].concat(), "4 bytes damaged");
    let without = |number: usize| {
        let mut packets = clean.packets().to_vec();
        packets.remove(number);
        packets.concat()
    };
    status_5(&without(2), "11 records lost");
    status_5(&without(1), "1 packets lost");
    status_5(b"nothing that a kernel sent", "no hello packet");
    let info = place.stdout(5, &["info", "raw", "--elf", "kernel.elf"]);
    assert!(info.contains("dropped records"), "{info}");
}

#[test]
fn another_build_is_6_and_leaves_no_file() {
    let place = Place::new();
    place.write("other.elf", &kernel("beef"));
    for arguments in [
        &["record", "raw", "--elf", "other.elf", "-o", "none.orrec"][..],
        &["decode", "raw", "--elf", "other.elf"],
        &["info", "raw", "--elf", "other.elf"],
        &["report", "raw", "--elf", "other.elf"],
    ] {
        let error = place.stderr(6, arguments);
        assert!(error.contains(BUILD_ID) && error.contains("beef"), "{error}");
    }
    assert!(!place.path("none.orrec").exists());
}

#[test]
fn filters_select_and_nothing_is_4() {
    let place = Place::new();
    place.write("clean", &clean().bytes());
    let decode = ["decode", "clean", "--elf", "kernel.elf"];
    let lines = place.stdout(0, &[&decode[..], &["--event", "sched", "--pid", "5"]].concat());
    assert_eq!(lines.matches("sched_switch").count(), 5, "{lines}");
    assert!(lines.contains("worker"), "names come from events that are not shown");
    assert!(!lines.contains("console"));
    place.run(4, &[&decode[..], &["--event", "nonsense"]].concat());
    place.run(4, &[&decode[..], &["--cpu", "9"]].concat());
}

#[test]
fn stdin_is_decoded_as_it_comes() {
    let place = Place::new();
    let output = place
        .command(&["decode", "-", "--elf", "kernel.elf"])
        .write_stdin([b"firmware text".to_vec(), clean().bytes()].concat())
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(0));
    assert_eq!(String::from_utf8(output.stdout).unwrap().matches("sched_switch").count(), 10);
}

#[test]
fn a_growing_file_is_followed_until_it_says_end() {
    let place = Place::new();
    let bytes = clean().bytes();
    place.write("growing", &bytes[..100]);
    let mut child = std::process::Command::new(assert_cmd::cargo::cargo_bin("trace-tools"))
        .current_dir(place.dir.path())
        .args(["record", "growing", "--elf", "kernel.elf", "-o", "f.orrec", "--follow"])
        .spawn()
        .unwrap();
    std::thread::sleep(Duration::from_millis(50));
    assert!(child.try_wait().unwrap().is_none(), "it waits");
    place.write("growing", &bytes);
    assert_eq!(child.wait().unwrap().code(), Some(0));
    assert!(fs::read(place.path("f.orrec")).unwrap().ends_with(&bytes));

    place.write("stuck", &bytes[..100]);
    let arguments =
        ["record", "stuck", "--elf", "kernel.elf", "-o", "s.orrec", "--follow", "--timeout", "0"];
    place.run(5, &arguments);
}

#[test]
fn the_console_can_be_shown_while_recording() {
    let place = Place::new();
    place.write("clean", &clean().bytes());
    let arguments = ["record", "clean", "--elf", "kernel.elf", "-o", "c.orrec", "--console"];
    assert!(place.stderr(0, &arguments).contains("booting\nready\n"));
}

#[test]
fn a_panic_is_shown_with_functions() {
    let place = Place::new();
    let mut stream = clean();
    stream.panic("message=out of clockwork\ncpu=0\npid=5\ntask=worker\nframe=0x18\nframe=0x999\n");
    place.write("panic", &stream.bytes());
    let text = place.stdout(0, &["decode", "panic", "--elf", "kernel.elf"]);
    assert!(text.contains("kernel panic: out of clockwork"), "{text}");
    assert!(text.contains("0: 0x0000000000000018 kernel::main"), "{text}");
    assert!(text.contains("1: 0x0000000000000999\n"), "{text}");
}

#[test]
fn bad_input_is_named() {
    let place = Place::new();
    place.write("text", b"just some text, and more of it");
    let error = |status, arguments: &[&str]| place.stderr(status, arguments);
    assert!(error(1, &["info", "absent.orrec"]).contains("absent.orrec"));
    assert!(error(1, &["info", "."]).contains("cannot read ."));
    assert!(error(1, &["info", "raw", "--elf", "text"]).contains("not a usable kernel ELF"));
    assert!(error(5, &["info", "text"]).contains("--elf"));
    let mut newer = Stream::new(1, Encoding::Raw);
    newer.cmdline = "x\nversion=3".to_owned();
    newer.hello();
    place.write("newer", &newer.bytes());
    assert!(error(6, &["info", "newer", "--elf", "kernel.elf"]).contains("format version 3"));
    place.run(2, &["frobnicate"]);
    place.run(2, &["info"]);
    place.run(2, &["info", "raw", "--format", "yaml"]);
    assert!(
        error(1, &["record", "raw", "--elf", "kernel.elf", "-o", "no/such/dir"])
            .contains("no/such/dir")
    );
}

#[test]
fn a_closed_pipe_is_no_error() {
    let place = Place::new();
    let mut stream = Stream::new(1, Encoding::Raw);
    stream.hello();
    for n in 0..200 {
        let mut block = Block::new(0, 1000 * n, 1);
        for offset in 0..100 {
            block.record(IRQ_ENTER, offset, &Fields::new().int([1]));
        }
        stream.block(&block);
    }
    stream.end(0);
    place.write("long", &stream.bytes());
    let mut child = std::process::Command::new(assert_cmd::cargo::cargo_bin("trace-tools"))
        .current_dir(place.dir.path())
        .args(["decode", "long", "--elf", "kernel.elf"])
        .stdout(std::process::Stdio::piped())
        .stderr(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    drop(child.stdout.take());
    let output = child.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(0));
    assert!(output.stderr.is_empty(), "{output:?}");
}

#[test]
fn regions_of_a_trace() {
    let place = Place::new();
    let from = ["--elf", "kernel.elf"];
    place.run(4, &["regions", "raw", from[0], from[1]]);
    let mut stream = Stream::new(1, Encoding::Compact);
    stream.hello();
    let mut block = Block::new(0, 0, 5);
    block.record(MARK, 90, &mark(0, "region fork/call 20 60 2"));
    block.record(MARK, 95, &mark(0, "region fork/call 95 20 1"));
    stream.block(&block);
    stream.end(0);
    place.write("marked", &stream.bytes());
    let text = place.stdout(0, &["regions", "marked", from[0], from[1]]);
    assert!(text.contains("fork/call") && text.contains("20.0"), "{text}");
    let json = place.stdout(0, &["regions", "marked", from[0], from[1], "--format", "json"]);
    assert!(json.contains("\"end_ticks\": 60"), "{json}");
    let complaint = place.stderr(0, &["regions", "marked", from[0], from[1]]);
    assert!(complaint.contains("fork/call 95 20 1"), "{complaint}");
}
