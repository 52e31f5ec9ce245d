//! The description of a virtual machine, and the parsers of its parts.

use crate::{Error, Limine, Result};
use std::{
    ffi::OsString,
    fmt,
    path::{Path, PathBuf},
    str::FromStr,
    sync::{Arc, atomic::AtomicBool},
    time::Duration,
};

/// The board.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum MachineType {
    /// A PC with PCI Express; boots through every door.
    #[default]
    Q35,
    /// Firecracker-like: no PCI, devices on virtio-mmio; boots by PVH only, in milliseconds.
    Microvm,
}

/// The door the kernel comes in through.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Boot {
    /// `qemu -kernel`: no boot loader and, in effect, no firmware.
    #[default]
    Pvh,
    /// SeaBIOS and Limine, from an ISO.
    LimineBios,
    /// OVMF and Limine, from the same ISO.
    LimineUefi,
}

/// Which kernel the machine boots; it decides what the kernel's file must be.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Guest {
    /// This repository's: a 64-bit ELF file, through any door.
    #[default]
    Orrery,
    /// Linux, as what Orrery is compared with: a bzImage, by `qemu -kernel` only. Its bundle is its initramfs, which
    /// has to hold `/init`.
    Linux,
}

/// What executes the guest's instructions.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Accel {
    /// QEMU's translator, one thread per CPU.
    #[default]
    Tcg,
    /// The host's hardware virtualisation.
    Kvm,
}

/// What the guest's clocks count.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Clock {
    /// The host's time.
    #[default]
    Host,
    /// Executed instructions (`-icount shift=0,sleep=off`): runs repeat to the bit. All CPUs share one host thread.
    Instructions,
}

/// A port the guest can write bytes to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Port {
    /// The 16550 at I/O port 0x3f8; every machine has it.
    #[default]
    Com1,
    /// A virtio-console, on PCI (q35) or virtio-mmio (microvm).
    Virtio,
}

/// What the guest can read from its host while it runs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Input {
    /// Nothing.
    #[default]
    None,
    /// What is written to [`Running::input`](crate::Running::input). It arrives on COM2 in the frames of
    /// `orrery_core::input`; the kernel is told by a word on its command line.
    Live,
}

/// An amount of memory in MiB, at least [`Memory::MIN_MIB`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Memory(u32);

macro_rules! names {
    ($type:ident, $what:literal, $($variant:ident = $name:literal),+) => {
        impl fmt::Display for $type {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(match self { $(Self::$variant => $name),+ })
            }
        }

        impl FromStr for $type {
            type Err = Error;

            fn from_str(text: &str) -> Result<Self> {
                match text {
                    $($name => Ok(Self::$variant),)+
                    _ => Err(Error::Parse {
                        what: $what,
                        value: text.into(),
                        expected: concat!("must be one of", $(" `", $name, "`"),+),
                    }),
                }
            }
        }
    };
}

names!(MachineType, "machine", Q35 = "q35", Microvm = "microvm");
names!(Boot, "boot door", Pvh = "pvh", LimineBios = "limine-bios", LimineUefi = "limine-uefi");
names!(Accel, "accelerator", Tcg = "tcg", Kvm = "kvm");
names!(Port, "port", Com1 = "com1", Virtio = "virtio");

impl Memory {
    /// The least a machine gets: firmware, boot loader and kernel fit in it.
    pub const MIN_MIB: u32 = 32;
    /// The most: what fits in a q35's address space without thinking about it, 1 TiB.
    pub const MAX_MIB: u32 = 1 << 20;

    /// This many MiB, if it is within [`Memory::MIN_MIB`] and [`Memory::MAX_MIB`].
    pub const fn from_mib(mib: u32) -> Option<Self> {
        if mib >= Self::MIN_MIB && mib <= Self::MAX_MIB { Some(Self(mib)) } else { None }
    }

    /// The amount in MiB.
    pub const fn mib(self) -> u32 {
        self.0
    }
}

impl Default for Memory {
    fn default() -> Self {
        Self(256)
    }
}

impl fmt::Display for Memory {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}M", self.0)
    }
}

impl FromStr for Memory {
    type Err = Error;

    /// `256M`, `1G`; a bare number is MiB, as QEMU has it.
    fn from_str(text: &str) -> Result<Self> {
        let digits = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
        let factor = match text[digits.len()..].to_ascii_lowercase().as_str() {
            "" | "m" | "mb" | "mib" => Some(1),
            "g" | "gb" | "gib" => Some(1024),
            _ => None,
        };
        let mib = digits.parse::<u32>().ok().zip(factor).and_then(|(n, f)| n.checked_mul(f));
        mib.and_then(Self::from_mib).ok_or_else(|| Error::Parse {
            what: "memory size",
            value: text.into(),
            expected: "must be a number with M or G, from 32M to 1024G, such as `256M`",
        })
    }
}

/// A virtual machine that does not run yet.
#[derive(Clone, Debug)]
pub struct Machine {
    /// The board.
    pub machine_type: MachineType,
    /// Number of CPUs, 1..=255.
    pub cpus: u32,
    /// Guest memory.
    pub memory: Memory,
    /// Who executes.
    pub accel: Accel,
    /// What time is.
    pub clock: Clock,
    /// Seed of QEMU's own random numbers; `None` leaves them to the host, except under
    /// [`Clock::Instructions`], where it means 1.
    pub seed: Option<u64>,
    /// Whose kernel it is.
    pub guest: Guest,
    /// The door.
    pub boot: Boot,
    /// The kernel's file, of the kind that [`Machine::guest`] says.
    pub kernel: PathBuf,
    /// The kernel's command line. What the machine itself has to tell the kernel is added to it.
    pub cmdline: String,
    /// A file handed to the kernel beside its image (PVH module, Limine module, Linux's initrd).
    pub bundle: Option<PathBuf>,
    /// The fastest port the guest should have. COM1 is always there.
    pub port: Port,
    /// What the guest can read while it runs.
    pub input: Input,
    /// Boot loader files; needed for the Limine doors only.
    pub limine: Option<Limine>,
    /// Host time after which the guest is stopped; `None` waits for ever.
    pub timeout: Option<Duration>,
    /// The machine is stopped when this becomes true; for Ctrl-C and the like.
    pub stop: Option<Arc<AtomicBool>>,
    /// Further arguments for QEMU, last on its command line.
    pub extra_args: Vec<OsString>,
}

impl Machine {
    /// A q35 with one CPU and 256 MiB under TCG, which boots this kernel by PVH, writes to COM1 and may
    /// run for ever.
    pub fn new(kernel: impl Into<PathBuf>) -> Self {
        Self {
            machine_type: MachineType::default(),
            cpus: 1,
            memory: Memory::default(),
            accel: Accel::default(),
            clock: Clock::default(),
            seed: None,
            guest: Guest::default(),
            boot: Boot::default(),
            kernel: kernel.into(),
            cmdline: String::new(),
            bundle: None,
            port: Port::default(),
            input: Input::default(),
            limine: None,
            timeout: None,
            stop: None,
            extra_args: Vec::new(),
        }
    }

    /// Looks for contradictions among the options; no file is looked at.
    ///
    /// # Errors
    /// [`Error::Combination`], with what to change.
    pub fn check_options(&self) -> Result<()> {
        if !(1..=255).contains(&self.cpus) {
            return Err(Error::Combination(format!("{} CPUs: must be 1 to 255", self.cpus)));
        }
        if self.machine_type == MachineType::Microvm && self.boot != Boot::Pvh {
            return Err(Error::Combination(format!(
                "machine `microvm` has no disk to boot from by `{}`; use machine `q35`, or boot by `pvh`",
                self.boot
            )));
        }
        if self.guest == Guest::Linux && self.boot != Boot::Pvh {
            return Err(Error::Combination(format!(
                "Linux is booted by `qemu -kernel` only, not by `{}`; leave the door at `pvh`",
                self.boot
            )));
        }
        if self.guest == Guest::Linux && self.input == Input::Live {
            return Err(Error::Combination(
                "live input comes in Orrery's frames, which Linux does not read; give it none"
                    .into(),
            ));
        }
        if self.clock == Clock::Instructions && self.accel == Accel::Kvm {
            return Err(Error::Combination(
                "instruction counting needs accelerator `tcg`: KVM does not count".into(),
            ));
        }
        if self.clock == Clock::Instructions && self.input == Input::Live {
            return Err(Error::Combination(
                "live input under instruction counting would change the run; give the input as a file"
                    .into(),
            ));
        }
        if let Some(bad) = self.cmdline.chars().find(|c| c.is_control()) {
            return Err(Error::Combination(format!(
                "the kernel command line holds the control character {bad:?}; it must be one line"
            )));
        }
        Ok(())
    }

    /// Looks for contradictions, and at the files that QEMU would only complain about obscurely.
    ///
    /// # Errors
    /// [`Error::Combination`] or [`Error::File`], with what to change.
    pub fn check(&self) -> Result<()> {
        self.check_options()?;
        match self.guest {
            Guest::Orrery => check_elf(&self.kernel)?,
            Guest::Linux => check_bzimage(&self.kernel)?,
        }
        if let Some(bundle) = &self.bundle {
            std::fs::File::open(bundle).map_err(|error| Error::File {
                what: "bundle",
                path: bundle.clone(),
                problem: error.to_string(),
            })?;
        }
        Ok(())
    }
}

/// Makes sure that the kernel can be read and is a 64-bit x86 ELF.
fn check_elf(path: &Path) -> Result<()> {
    const ADVICE: &str = "build one with `cargo xtask build`";
    let head = head::<20>(path, ADVICE)?;
    // ELF64, little-endian, EM_X86_64 (System V ABI, "ELF Header").
    if head[..6] != *b"\x7fELF\x02\x01" || head[18..20] != [62, 0] {
        return Err(not_a_kernel(path, format!("not a 64-bit x86 ELF file; {ADVICE}")));
    }
    Ok(())
}

/// Makes sure that the kernel can be read and is Linux's bzImage.
fn check_bzimage(path: &Path) -> Result<()> {
    const ADVICE: &str = "a bzImage is wanted, such as /boot/vmlinuz-*";
    let head = head::<0x206>(path, ADVICE)?;
    // `boot_flag` and `header` (Linux, Documentation/x86/boot.rst).
    if head[0x1fe..0x200] != [0x55, 0xaa] || head[0x202..0x206] != *b"HdrS" {
        return Err(not_a_kernel(path, format!("not a Linux kernel for x86; {ADVICE}")));
    }
    Ok(())
}

/// The first bytes of a kernel's file.
fn head<const N: usize>(path: &Path, advice: &str) -> Result<[u8; N]> {
    let mut head = [0; N];
    std::fs::File::open(path)
        .and_then(|mut file| std::io::Read::read_exact(&mut file, &mut head))
        .map_err(|error| not_a_kernel(path, format!("{error}; {advice}")))?;
    Ok(head)
}

fn not_a_kernel(path: &Path, problem: String) -> Error {
    Error::File { what: "kernel", path: path.into(), problem }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_sizes() {
        for (text, mib) in [("256M", 256), ("1G", 1024), ("64", 64), ("2gib", 2048), ("32m", 32)] {
            assert_eq!(text.parse::<Memory>().unwrap().mib(), mib, "{text}");
        }
        for text in ["", "M", "31M", "4K", "-1G", "1.5G", "99999999999G", "1GM", "4194304G"] {
            let error = text.parse::<Memory>().unwrap_err().to_string();
            assert!(error.contains("such as `256M`"), "{text}: {error}");
        }
    }

    #[test]
    fn names_round_trip() {
        for boot in [Boot::Pvh, Boot::LimineBios, Boot::LimineUefi] {
            assert_eq!(boot.to_string().parse::<Boot>().unwrap(), boot);
        }
        let error = "floppy".parse::<Boot>().unwrap_err().to_string();
        assert_eq!(error, "boot door `floppy`: must be one of `pvh` `limine-bios` `limine-uefi`");
    }

    #[test]
    fn contradictions_are_named() {
        let dir = tempfile::tempdir().unwrap();
        let elf = dir.path().join("kernel");
        let mut head = vec![0u8; 64];
        head[..6].copy_from_slice(b"\x7fELF\x02\x01");
        head[18] = 62;
        std::fs::write(&elf, &head).unwrap();
        let good = Machine::new(&elf);
        good.check().unwrap();

        let refused = |machine: Machine, words: &str| {
            let error = machine.check().unwrap_err().to_string();
            assert!(error.contains(words), "{error}");
        };
        refused(Machine { cpus: 0, ..good.clone() }, "1 to 255");
        refused(Machine { cpus: 256, ..good.clone() }, "1 to 255");
        let mut machine = good.clone();
        machine.machine_type = MachineType::Microvm;
        machine.boot = Boot::LimineUefi;
        refused(machine, "use machine `q35`");
        let mut machine = good.clone();
        machine.clock = Clock::Instructions;
        machine.accel = Accel::Kvm;
        refused(machine, "needs accelerator `tcg`");
        refused(Machine { cmdline: "a\nb".into(), ..good.clone() }, "one line");
        refused(Machine { kernel: dir.path().join("absent"), ..good.clone() }, "cargo xtask build");
        refused(Machine { bundle: Some(dir.path().join("absent")), ..good.clone() }, "bundle");
        std::fs::write(&elf, b"#!/bin/sh\n").unwrap();
        refused(good.clone(), "cargo xtask build");
        head[18] = 183;
        std::fs::write(&elf, &head).unwrap();
        refused(good, "not a 64-bit x86 ELF");
    }

    #[test]
    fn each_guest_wants_its_own_kind_of_kernel() {
        let dir = tempfile::tempdir().unwrap();
        let (elf, bzimage) = (dir.path().join("elf"), dir.path().join("vmlinuz"));
        let mut bytes = vec![0u8; 0x400];
        bytes[..6].copy_from_slice(b"\x7fELF\x02\x01");
        bytes[18] = 62;
        std::fs::write(&elf, &bytes).unwrap();
        let mut bytes = vec![0u8; 0x400];
        bytes[0x1fe..0x200].copy_from_slice(&[0x55, 0xaa]);
        bytes[0x202..0x206].copy_from_slice(b"HdrS");
        std::fs::write(&bzimage, &bytes).unwrap();
        let with = |guest, kernel: &Path| Machine { guest, ..Machine::new(kernel) };
        with(Guest::Orrery, &elf).check().unwrap();
        with(Guest::Linux, &bzimage).check().unwrap();

        let refused = |machine: Machine, words: &str| {
            let error = machine.check().unwrap_err().to_string();
            assert!(error.contains(words), "{error}");
        };
        refused(with(Guest::Orrery, &bzimage), "not a 64-bit x86 ELF");
        refused(with(Guest::Linux, &elf), "bzImage is wanted");
        refused(with(Guest::Linux, &dir.path().join("absent")), "bzImage is wanted");
        bytes[0x202] = b'X';
        std::fs::write(&bzimage, &bytes).unwrap();
        let linux = with(Guest::Linux, &bzimage);
        refused(linux.clone(), "not a Linux kernel");
        refused(Machine { boot: Boot::LimineBios, ..linux.clone() }, "`limine-bios`");
        refused(Machine { input: Input::Live, ..linux }, "live input");
    }
}
