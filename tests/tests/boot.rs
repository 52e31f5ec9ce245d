//! Every door, every board, every line to the host, from one CPU to sixty-four.

use std::time::Duration;

use orrery_tests::{Boot, Guest, Limine, MachineType, Outcome, Port, judge, skip, target_dir};

/// Every CPU is there, and switches tasks.
fn all_cpus_work(outcome: &Outcome, cpus: u32) {
    let trace = outcome.succeeded();
    assert_eq!(trace.hello().map(|hello| hello.cpus), Some(cpus), "{}", outcome.story());
    for cpu in 0..cpus as u16 {
        let switches =
            trace.iter().filter(|event| event.cpu == cpu && event.name() == "sched_switch").count();
        assert!(switches >= 2, "CPU {cpu}: {switches} switches");
    }
    judge::everything(trace);
}

fn boots(board: MachineType, port: Port) {
    for cpus in [1, 2, 4, 8] {
        let guest = Guest::new().board(board).port(port).smp(cpus).workload("mixed,scale=10");
        all_cpus_work(&guest.run(), cpus);
    }
}

#[test]
fn q35_com1() {
    boots(MachineType::Q35, Port::Com1);
}

#[test]
fn q35_virtio() {
    boots(MachineType::Q35, Port::Virtio);
}

#[test]
fn microvm_com1() {
    boots(MachineType::Microvm, Port::Com1);
}

#[test]
fn microvm_virtio() {
    boots(MachineType::Microvm, Port::Virtio);
}

#[test]
fn the_default_workload_with_checks() {
    for board in [MachineType::Q35, MachineType::Microvm] {
        let outcome = Guest::checked().board(board).smp(4).run();
        all_cpus_work(&outcome, 4);
    }
}

#[test]
fn memory_from_64_mib_to_8_gib() {
    for size in ["64M", "128M", "1G", "4G", "8G"] {
        let guest = Guest::new().memory(size).smp(2).workload("mixed,scale=10");
        all_cpus_work(&guest.run(), 2);
    }
}

#[test]
fn sixty_four_cpus() {
    let guest = Guest::new().smp(64).memory("512M").word("trace_buf=256");
    let outcome = guest.workload("storm,tasks=64,steps=4").run();
    let trace = outcome.ended_with(0);
    assert_eq!(trace.hello().map(|hello| hello.cpus), Some(64), "{}", outcome.story());
}

#[test]
fn more_cpus_than_fit() {
    let guest = Guest::new().smp(66).memory("512M").word("trace_buf=256");
    let outcome = guest.workload("exit,status=0").run();
    let trace = outcome.ended_with(0);
    assert_eq!(trace.hello().map(|hello| hello.cpus), Some(64), "{}", outcome.story());
    assert!(
        outcome.console.contains("2 beyond the first 64"),
        "nothing is said of it: {}",
        outcome.console
    );
}

#[test]
fn a_wrong_wish_for_pcids_is_named() {
    for (guest, word) in [(Guest::checked(), "pcid=yes"), (Guest::new(), "pcid=model")] {
        let outcome = guest.word(word).workload("exit,status=0").run();
        outcome.ended_with(0);
        let complaint = format!("`{word}` ignored; expected pcid=");
        assert!(outcome.console.contains(&complaint), "{}", outcome.console);
    }
}

#[test]
fn statuses_reach_the_host() {
    for status in [0, 1, 42, 100, 127, 128, 255] {
        let workload = format!("exit,status={status}");
        Guest::new().workload(&workload).run().ended_with(status);
    }
}

#[test]
fn an_unknown_workload_is_named() {
    let outcome = Guest::new().workload("nosuch").run();
    outcome.ended_with(1);
    assert!(outcome.console.contains("nosuch"), "{}", outcome.console);
}

#[test]
fn nonsense_on_the_command_line_is_named() {
    let words = ["trace_buf=none", "colour=blue", "virtio_mmio.device=banana"];
    let guest = words.iter().fold(Guest::new(), |guest, word| guest.word(word));
    let outcome = guest.workload("exit,status=0").run();
    outcome.succeeded();
    for word in words {
        assert!(outcome.console.contains(word), "{word}: {}", outcome.console);
    }
}

fn boots_by(boot: Boot, test: &str) {
    let limine = match Limine::find(&target_dir()) {
        Ok(limine) => limine,
        Err(machine::Error::LimineMissing { .. }) => return skip(test, "limine not found"),
        Err(why) => panic!("{why}"),
    };
    if boot == Boot::LimineUefi && !machine::uefi_firmware_present() {
        return skip(test, "no UEFI firmware (OVMF) found");
    }
    for cpus in [1, 4] {
        let guest = Guest::new().limine(boot, limine.clone()).smp(cpus).timeout(TIMEOUT);
        all_cpus_work(&guest.workload("mixed,scale=10").run(), cpus);
    }
}

/// Firmware takes its time.
const TIMEOUT: Duration = Duration::from_secs(240);

#[test]
fn limine_bios() {
    boots_by(Boot::LimineBios, "limine_bios");
}

#[test]
fn limine_uefi() {
    boots_by(Boot::LimineUefi, "limine_uefi");
}
