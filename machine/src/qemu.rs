//! A [`Machine`] as QEMU's command line: a pure function, so that the whole of it can be tested.
//!
//! Everything is explicit (`-nodefaults`, a named CPU model): figures are compared between runs, and a
//! newer QEMU must not change them by changing a default.

use crate::{
    Accel, Boot, Clock, Input, Machine, MachineType, Port,
    firmware::Firmware,
    running::{COM1_FILE, VIRTIO_FILE},
};
use std::{ffi::OsString, path::Path};

/// The emulator.
pub const QEMU: &str = "qemu-system-x86_64";

/// The CPU under TCG: x86-64-v2 with the AVX2 group and the protection features the kernel uses, all
/// of which QEMU 7.2 can emulate; `enforce` turns a feature that it cannot into an error. ERMS is left
/// out on purpose: an instruction count takes each byte of `rep movsb` for an instruction.
pub const CPU_MODEL: &str = "qemu64-v1,enforce,-svm,+ssse3,+sse4.1,+sse4.2,+popcnt,+movbe,+aes,\
+pclmulqdq,+avx,+avx2,+fma,+f16c,+bmi1,+bmi2,+adx,+xsave,+xsaveopt,+xgetbv1,+rdrand,+fsgsbase,+smep,\
+smap,+umip,+pdpe1gb,+rdtscp,+clflushopt,+arat";

/// How a kernel on microvm hears of its virtio-console, in Linux's syntax: the first of the eight
/// slots, which QEMU places at 0xfeb00000 and, with ACPI on and one IO-APIC, wires to GSI 16.
pub const VIRTIO_MMIO_DEVICE: &str = "virtio_mmio.device=512@0xfeb00000:16";

/// How the kernel hears that COM2 is its programs' input.
const LIVE_INPUT: &str = " stdin=com2";

/// Files that the command line refers to.
pub(crate) struct Files<'a> {
    /// Directory of this run, for the ports' files.
    pub run_dir: &'a Path,
    /// The ISO, for the Limine doors.
    pub iso: Option<&'a Path>,
    /// The UEFI firmware, for its door.
    pub firmware: Option<&'a Firmware>,
}

impl Machine {
    /// The kernel's command line with what this machine adds to it.
    pub fn full_cmdline(&self) -> String {
        let mut cmdline = self.cmdline.trim().to_owned();
        if self.machine_type == MachineType::Microvm && self.port == Port::Virtio {
            if !cmdline.is_empty() {
                cmdline.push(' ');
            }
            cmdline.push_str(VIRTIO_MMIO_DEVICE);
        }
        if self.input == Input::Live {
            // Before the program's own arguments, if there are any.
            let arguments = cmdline.find(" -- ").unwrap_or(cmdline.len());
            cmdline.insert_str(arguments, LIVE_INPUT);
        }
        cmdline
    }

    /// QEMU's command line as text to show, with `RUN` for the directory of the run. Boot media are not in it.
    pub fn shown(&self) -> String {
        let files = Files { run_dir: Path::new("RUN"), iso: None, firmware: None };
        let arguments = self.arguments(&files);
        let words = arguments.iter().map(|word| word.to_string_lossy());
        std::iter::once(QEMU.into()).chain(words).collect::<Vec<_>>().join(" ")
    }

    /// Arguments of [`QEMU`].
    pub(crate) fn arguments(&self, files: &Files<'_>) -> Vec<OsString> {
        let mut args = Arguments::default();
        args.words("-nodefaults -no-user-config -display none -nic none -no-reboot");
        args.words("-device isa-debug-exit,iobase=0xf4,iosize=4");
        args.pair("-machine", self.board());
        args.pair("-cpu", if self.accel == Accel::Tcg { CPU_MODEL } else { "host" });
        args.pair("-smp", self.cpus.to_string());
        args.pair("-m", self.memory.to_string());
        self.accelerator(&mut args);
        self.ports(&mut args, files.run_dir);
        self.boot(&mut args, files);
        args.0.extend(self.extra_args.iter().cloned());
        args.0
    }

    fn board(&self) -> &'static str {
        match self.machine_type {
            MachineType::Q35 => "q35",
            // One IO-APIC: with the second one, virtio-mmio's interrupts and slots move.
            MachineType::Microvm => {
                "microvm,acpi=on,pit=on,pic=on,rtc=on,isa-serial=on,ioapic2=off,pcie=off,usb=off"
            }
        }
    }

    fn accelerator(&self, args: &mut Arguments) {
        match (self.accel, self.clock) {
            (Accel::Kvm, _) => args.pair("-accel", "kvm"),
            (Accel::Tcg, Clock::Host) => args.pair("-accel", "tcg,thread=multi"),
            (Accel::Tcg, Clock::Instructions) => {
                args.pair("-accel", "tcg,thread=single");
                args.pair("-icount", "shift=0,sleep=off");
                // Nothing of the host's calendar may reach the guest.
                args.pair("-rtc", "base=2024-01-01,clock=vm");
            }
        }
        let fixed = (self.clock == Clock::Instructions).then_some(1);
        if let Some(seed) = self.seed.or(fixed) {
            args.pair("-seed", seed.to_string());
        }
    }

    fn ports(&self, args: &mut Arguments, run_dir: &Path) {
        args.pair("-chardev", file_chardev("com1", run_dir, COM1_FILE));
        args.pair("-serial", "chardev:com1");
        if self.input == Input::Live {
            // QEMU's own standard input, which is a pipe from us; what the guest writes there is thrown away.
            args.pair("-chardev", "stdio,id=input,signal=off");
            args.pair("-device", "isa-serial,chardev=input,iobase=0x2f8,irq=3");
        }
        if self.port == Port::Virtio {
            args.pair("-chardev", file_chardev("virtio", run_dir, VIRTIO_FILE));
            // Without ioeventfd the device answers before the guest's next instruction, which is
            // what makes its answer repeat under `-icount`; it is no slower otherwise.
            match self.machine_type {
                MachineType::Q35 => {
                    let device = "virtio-serial-pci,disable-legacy=on,max_ports=1,ioeventfd=off";
                    args.pair("-device", device);
                }
                MachineType::Microvm => {
                    args.pair("-global", "virtio-mmio.force-legacy=false");
                    args.pair("-global", "virtio-mmio.ioeventfd=off");
                    args.pair("-device", "virtio-serial-device,bus=virtio-mmio-bus.0,max_ports=1");
                }
            }
            args.pair("-device", "virtconsole,chardev=virtio");
        }
    }

    fn boot(&self, args: &mut Arguments, files: &Files<'_>) {
        if self.boot == Boot::Pvh {
            args.pair("-kernel", &self.kernel);
            args.pair("-append", self.full_cmdline());
            if let Some(bundle) = &self.bundle {
                args.pair("-initrd", bundle);
            }
        }
        if let Some(firmware) = files.firmware {
            args.pair("-drive", drive("if=pflash,unit=0,format=raw,readonly=on", &firmware.code));
            args.pair("-drive", drive("if=pflash,unit=1,format=raw", &firmware.vars));
        }
        if let Some(iso) = files.iso {
            args.pair("-drive", drive("media=cdrom,format=raw,readonly=on", iso));
            args.words("-boot d");
        }
    }
}

/// Grows QEMU's argument vector.
#[derive(Default)]
struct Arguments(Vec<OsString>);

impl Arguments {
    fn words(&mut self, words: &str) {
        self.0.extend(words.split_whitespace().map(OsString::from));
    }

    fn pair(&mut self, option: &str, value: impl Into<OsString>) {
        self.0.push(option.into());
        self.0.push(value.into());
    }
}

fn file_chardev(id: &str, run_dir: &Path, name: &str) -> OsString {
    let mut text = OsString::from(format!("file,id={id},path="));
    text.push(escaped(&run_dir.join(name)));
    text
}

fn drive(options: &str, path: &Path) -> OsString {
    let mut text = OsString::from(format!("{options},file="));
    text.push(escaped(path));
    text
}

/// QEMU's option parser takes a doubled comma for a literal one.
fn escaped(path: &Path) -> OsString {
    match path.to_str() {
        Some(text) => text.replace(',', ",,").into(),
        None => path.into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Guest;
    use std::path::PathBuf;

    fn line(machine: &Machine, files: &Files<'_>) -> String {
        let words = machine.arguments(files);
        words.iter().map(|word| word.to_str().unwrap()).collect::<Vec<_>>().join(" ")
    }

    fn pvh(machine: &Machine) -> String {
        line(machine, &Files { run_dir: Path::new("/run"), iso: None, firmware: None })
    }

    #[test]
    fn golden_q35_pvh() {
        let mut machine = Machine::new("/k");
        machine.cpus = 4;
        machine.cmdline = "trace=all".into();
        assert_eq!(
            pvh(&machine),
            format!(
                "-nodefaults -no-user-config -display none -nic none -no-reboot \
                 -device isa-debug-exit,iobase=0xf4,iosize=4 -machine q35 -cpu {CPU_MODEL} -smp 4 \
                 -m 256M -accel tcg,thread=multi -chardev file,id=com1,path=/run/com1 \
                 -serial chardev:com1 -kernel /k -append trace=all"
            )
        );
    }

    #[test]
    fn linux_has_the_same_line() {
        let mut orrery = Machine::new("/k");
        orrery.clock = Clock::Instructions;
        orrery.bundle = Some("/b".into());
        let linux = Machine { guest: Guest::Linux, ..orrery.clone() };
        assert_eq!(pvh(&orrery), pvh(&linux));
        assert_eq!(linux.shown(), format!("{QEMU} {}", pvh(&linux).replace("/run", "RUN")));
        assert!(pvh(&linux).ends_with("-kernel /k -append  -initrd /b"));
    }

    #[test]
    fn golden_microvm_virtio_icount() {
        let mut machine = Machine::new("/k");
        machine.machine_type = MachineType::Microvm;
        machine.port = Port::Virtio;
        machine.clock = Clock::Instructions;
        machine.memory = "1G".parse().unwrap();
        machine.cmdline = "seed=1".into();
        machine.extra_args = vec!["-s".into()];
        assert_eq!(
            pvh(&machine),
            format!(
                "-nodefaults -no-user-config -display none -nic none -no-reboot \
                 -device isa-debug-exit,iobase=0xf4,iosize=4 \
                 -machine microvm,acpi=on,pit=on,pic=on,rtc=on,isa-serial=on,ioapic2=off,pcie=off,usb=off \
                 -cpu {CPU_MODEL} -smp 1 -m 1024M -accel tcg,thread=single -icount shift=0,sleep=off \
                 -rtc base=2024-01-01,clock=vm -seed 1 -chardev file,id=com1,path=/run/com1 \
                 -serial chardev:com1 -chardev file,id=virtio,path=/run/virtio \
                 -global virtio-mmio.force-legacy=false -global virtio-mmio.ioeventfd=off \
                 -device virtio-serial-device,bus=virtio-mmio-bus.0,max_ports=1 \
                 -device virtconsole,chardev=virtio -kernel /k \
                 -append seed=1 {VIRTIO_MMIO_DEVICE} -s"
            )
        );
    }

    #[test]
    fn live_input_comes_by_com2() {
        let mut machine = Machine::new("/k");
        machine.input = Input::Live;
        machine.cmdline = "init=/x -- a".into();
        let line = pvh(&machine);
        assert!(line.contains("-device isa-serial,chardev=input,iobase=0x2f8,irq=3"), "{line}");
        assert!(line.contains("-append init=/x stdin=com2 -- a"), "{line}");
    }

    #[test]
    fn limine_doors_boot_the_iso() {
        let mut machine = Machine::new("/k");
        machine.boot = Boot::LimineUefi;
        machine.seed = Some(7);
        let firmware = Firmware { code: "/fw/code".into(), vars: "/run/va,rs".into() };
        let iso = PathBuf::from("/run/boot.iso");
        let files =
            Files { run_dir: Path::new("/run"), iso: Some(&iso), firmware: Some(&firmware) };
        let line = line(&machine, &files);
        assert!(line.contains("if=pflash,unit=0,format=raw,readonly=on,file=/fw/code"), "{line}");
        assert!(line.contains("if=pflash,unit=1,format=raw,file=/run/va,,rs"), "{line}");
        assert!(line.contains("media=cdrom,format=raw,readonly=on,file=/run/boot.iso"), "{line}");
        assert!(line.contains("-seed 7"), "{line}");
        assert!(!line.contains("-kernel"), "{line}");
    }

    #[test]
    fn kvm_uses_the_host_cpu() {
        let mut machine = Machine::new("/k");
        machine.accel = Accel::Kvm;
        let line = pvh(&machine);
        assert!(line.contains("-cpu host") && line.contains("-accel kvm"), "{line}");
        assert!(!line.contains("tcg"), "{line}");
    }
}
