//! What `cargo xtask run -- PROGRAM` runs: where the program is, whether it can run at all, and the bundle that
//! takes it to the guest.

use crate::{
    programs,
    project::{Failure, Project},
};
use anyhow::Result;
use machine::{Bundle, ENVIRONMENT, Memory};
use orrery_core::exec::elf::{self, ElfError};
use std::{
    ffi::{OsStr, OsString},
    os::unix::ffi::{OsStrExt, OsStringExt},
    path::{Path, PathBuf},
};

/// A program, and what it finds around it.
#[derive(Debug)]
pub struct Program<'a> {
    /// As typed: a path on the host, a path in the bundle, or the name of one of this repository's guest programs.
    pub name: &'a OsStr,
    /// Its arguments, without its name.
    pub arguments: &'a [OsString],
    /// Directories and archives for its file system, in this order.
    pub bundles: &'a [PathBuf],
    /// Its environment, `KEY=VALUE`.
    pub environment: &'a [String],
    /// All that it reads from its standard input; `None` leaves it to the machine.
    pub stdin: Option<Vec<u8>>,
}

/// Where a name without a slash is looked for in the bundle.
const BIN_DIRS: [&str; 4] = ["/bin", "/sbin", "/usr/bin", "/usr/sbin"];

/// A bundle of these directories and archives, with the directories that every program may expect.
///
/// # Errors
/// Status 2 where one of them cannot be read.
pub fn files(bundles: &[PathBuf]) -> Result<Bundle> {
    let mut bundle = Bundle::for_programs();
    for path in bundles {
        bundle.add(path).map_err(|error| Failure::usage(error.to_string()))?;
    }
    Ok(bundle)
}

impl Program<'_> {
    /// Finds the program, checks it, and makes the bundle with it.
    ///
    /// # Errors
    /// Status 2 where there is no such program, or it cannot run; and where a file cannot be read.
    pub fn bundle(&self, project: &Project) -> Result<Bundle> {
        let mut bundle = files(self.bundles)?;
        let path = self.place(project, &mut bundle)?;
        let words = std::iter::once(path.as_os_str());
        bundle.instruct("argv", words.chain(self.arguments.iter().map(OsString::as_os_str)));
        bundle.instruct("env", environment(self.environment)?);
        if let Some(bytes) = &self.stdin {
            bundle.instruct_bytes("stdin", bytes.clone());
        }
        Ok(bundle)
    }

    /// Makes sure that the program is in the bundle; returns its path there.
    fn place(&self, project: &Project, bundle: &mut Bundle) -> Result<OsString> {
        let name = self.name;
        let shown = name.to_string_lossy();
        let has_slash = name.as_bytes().contains(&b'/');
        if name.as_bytes().starts_with(b"/")
            && let Some((real, data)) = bundle.file(name)
        {
            check(&real, data)?;
            // By the name it was called, as the applets of busybox want it.
            return Ok(name.into());
        }
        let mut host = has_slash.then(|| PathBuf::from(name));
        if !has_slash {
            if let Some(built) = programs::build_one(project, &shown)? {
                host = Some(built);
            } else {
                for dir in BIN_DIRS {
                    let path = Path::new(dir).join(name);
                    if let Some((real, data)) = bundle.file(&path) {
                        check(&real, data)?;
                        return Ok(path.into());
                    }
                }
                host = Path::new(name).is_file().then(|| PathBuf::from(name));
            }
        }
        let Some(host) = host.filter(|path| path.exists()) else {
            let bundle = if self.bundles.is_empty() { "" } else { ", nor in the bundle" };
            let names = programs::names(project).join(" ");
            return Err(Failure::usage(format!(
                "no program `{shown}`: not on this host{bundle}, and no guest program of this \
                 repository (there are: {names})"
            )));
        };
        let data = std::fs::read(&host)
            .map_err(|error| Failure::usage(format!("cannot read {}: {error}", host.display())))?;
        check(host.as_os_str().as_bytes(), &data)?;
        let file_name = host.file_name().unwrap_or(name);
        let path = Path::new("/bin").join(file_name);
        bundle.add_file(&path, 0o755, data);
        Ok(path.into())
    }
}

/// The bytes of a file for standard input.
///
/// # Errors
/// Status 2 where it cannot be read.
pub fn whole_file(path: &Path) -> Result<Vec<u8>> {
    std::fs::read(path).map_err(|error| {
        Failure::usage(format!("--stdin: cannot read {}: {error}", path.display()))
    })
}

/// Complains where the bundle leaves the machine too little memory.
///
/// # Errors
/// Status 2, with what to change.
pub fn check_size(archive: &[u8], memory: Memory) -> Result<()> {
    /// What the kernel, its trace and a program need beside the bundle.
    const BESIDE_MIB: usize = 32;
    let mib = archive.len().div_ceil(1 << 20);
    if mib + BESIDE_MIB > memory.mib() as usize {
        return Err(Failure::usage(format!(
            "the bundle has {mib} MiB, too much for a machine of {memory}; give it more with --memory"
        )));
    }
    Ok(())
}

/// The default environment with these changes.
fn environment(changes: &[String]) -> Result<Vec<String>> {
    let mut strings: Vec<String> = ENVIRONMENT.map(str::to_owned).into();
    for change in changes {
        let Some((key, _)) = change.split_once('=').filter(|(key, _)| !key.is_empty()) else {
            return Err(Failure::usage(format!("--env `{change}`: must be KEY=VALUE")));
        };
        let head = format!("{key}=");
        strings.retain(|string| !string.starts_with(&head));
        strings.push(change.clone());
    }
    Ok(strings)
}

/// Refuses what the kernel would refuse, with more words.
fn check(path: &[u8], data: &[u8]) -> Result<()> {
    verdict(data).map_err(|why| {
        let path = OsString::from_vec(path.to_vec());
        Failure::usage(format!("{}: {why}", Path::new(&path).display()))
    })
}

/// Whether the kernel can run this file; if not, why, and what to do. The judgement is the kernel's own.
fn verdict(data: &[u8]) -> Result<(), String> {
    const STATIC: &str = "Rust: --target x86_64-unknown-linux-musl; C: -static";
    if data.starts_with(b"#!") {
        let line = data.split(|&byte| byte == b'\n').next().unwrap_or_default();
        let interpreter = String::from_utf8_lossy(&line[2..]).trim().to_owned();
        return Err(format!(
            "a script, not an ELF program; run its interpreter with it: `-- {interpreter} SCRIPT`"
        ));
    }
    elf::plan(data).map(drop).map_err(|why| {
        let advice = match why {
            ElfError::NotElf => "; a program for Linux on x86-64 is wanted",
            ElfError::NotLittleEndian64 => "; build it for x86_64",
            ElfError::NeedsInterpreter => return format!("{why} ({STATIC})"),
            ElfError::Truncated { .. } | ElfError::BadProgramHeaders => "; copy or build it again",
            ElfError::EntryOutside { .. } => "; a shared library, perhaps, which is no program",
            ElfError::Overlap { .. }
            | ElfError::OutsideWindow { .. }
            | ElfError::BadSegment { .. }
            | ElfError::WritableAndExecutable { .. } => "; link it with an ordinary linker script",
            _ => "",
        };
        format!("{why}{advice}")
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use object::elf;

    /// Type, flags, offset, address, bytes in the file, bytes in memory.
    type Segment = (u32, u32, u64, u64, u64, u64);

    const TEXT: Segment = (elf::PT_LOAD, elf::PF_R | elf::PF_X, 0, 0x40_0000, 0x200, 0x200);
    const DATA: Segment = (elf::PT_LOAD, elf::PF_R | elf::PF_W, 0x200, 0x40_1200, 0x10, 0x1000);

    fn program(kind: u16, segments: &[Segment]) -> Vec<u8> {
        let mut out = b"\x7fELF\x02\x01\x01".to_vec();
        out.resize(16, 0);
        out.extend(kind.to_le_bytes());
        out.extend(62u16.to_le_bytes());
        out.extend(1u32.to_le_bytes());
        for word in [0x40_0100u64, 64, 0] {
            out.extend(word.to_le_bytes());
        }
        out.extend(0u32.to_le_bytes());
        for half in [64u16, 56, segments.len() as u16, 0, 0, 0] {
            out.extend(half.to_le_bytes());
        }
        for &(kind, flags, offset, at, file_len, len) in segments {
            out.extend(kind.to_le_bytes());
            out.extend(flags.to_le_bytes());
            for word in [offset, at, at, file_len, len, 0x1000] {
                out.extend(word.to_le_bytes());
            }
        }
        out.resize(0x210, 0);
        out
    }

    #[test]
    fn what_cannot_run_is_told_why() {
        verdict(&program(elf::ET_EXEC, &[TEXT, DATA])).unwrap();
        let refused = |data: &[u8], words: &str| {
            let why = verdict(data).unwrap_err();
            assert!(why.contains(words), "{why}");
        };
        let exec = |segments: &[Segment]| program(elf::ET_EXEC, segments);
        refused(b"", "not an ELF file; a program");
        refused(b"#! /bin/sh -e\n", "`-- /bin/sh -e SCRIPT`");
        let mut narrow = exec(&[TEXT]);
        narrow[4] = 1;
        refused(&narrow, "64-bit little-endian");
        refused(b"\x7fELF\x02\x01\x01", "truncated");
        let good = exec(&[TEXT, DATA]);
        refused(&good[..100], "truncated");
        refused(&good[..0x208], "truncated");
        let mut other = good.clone();
        other[18] = 183;
        refused(&other, "e_machine 183");
        refused(&program(elf::ET_REL, &[TEXT]), "e_type 1");
        refused(&program(elf::ET_CORE, &[TEXT]), "e_type 4");
        refused(&exec(&[]), "malformed");
        refused(&exec(&[TEXT, (elf::PT_INTERP, 4, 0, 0, 8, 8)]), "dynamically linked");
        let (kind, flags, offset, at, file_len, len) = DATA;
        refused(&exec(&[TEXT, (kind, flags, offset, 0x40_0200, 0, len + 1), DATA]), "overlaps");
        refused(&exec(&[TEXT, (kind, flags, offset, at, file_len, 1 << 60)]), "huge");
        refused(&exec(&[TEXT, (kind, flags, offset, at, file_len, u64::MAX)]), "huge");
        refused(&exec(&[TEXT, (kind, flags, offset, at, file_len, 1)]), "malformed");
        refused(&exec(&[TEXT, (kind, flags, offset, at + 8, file_len, len)]), "malformed");
        refused(&exec(&[(kind, flags, 0, 0x1000, 0x10, 0x10), TEXT]), "outside");
        refused(&exec(&[DATA]), "entry point");
    }

    #[test]
    fn programs_of_this_host_are_judged() {
        // This test is one itself: linked dynamically, as tests are.
        let this = std::fs::read(std::env::current_exe().unwrap()).unwrap();
        assert!(verdict(&this).unwrap_err().contains("dynamically linked"));
    }

    #[test]
    fn the_environment_has_defaults() {
        let given = ["HOME=/root".to_owned(), "A=b=c".to_owned()];
        let strings = environment(&given).unwrap();
        assert!(
            strings.iter().any(|it| it == "A=b=c") && strings.iter().any(|it| it == "HOME=/root")
        );
        assert!(!strings.iter().any(|it| it == "HOME=/"));
        assert!(environment(&["x".into()]).is_err() && environment(&["=x".into()]).is_err());
    }

    #[test]
    fn the_bundle_comes_before_the_host() {
        let dir = tempfile::tempdir().unwrap();
        let project = Project::at(dir.path(), dir.path().join("target"));
        let elf = program(elf::ET_EXEC, &[TEXT, DATA]);
        std::fs::create_dir_all(dir.path().join("tree/bin")).unwrap();
        std::fs::write(dir.path().join("tree/bin/cat"), &elf).unwrap();
        std::fs::write(dir.path().join("prog"), &elf).unwrap();
        let bundles = [dir.path().join("tree")];
        let find = |name: &str| {
            let arguments = ["-n".into()];
            let program = Program {
                name: OsStr::new(name),
                arguments: &arguments,
                bundles: &bundles,
                environment: &[],
                stdin: None,
            };
            program.bundle(&project)
        };
        let mut read = Bundle::new();
        let archive = find("/bin/cat").unwrap().archive();
        read.add_archive(Path::new("a"), &archive).unwrap();
        assert!(archive.windows(12).any(|bytes| bytes == b"/bin/cat\0-n\0"));
        assert!(find("cat").is_ok());
        let bundle = find(dir.path().join("prog").to_str().unwrap()).unwrap();
        assert!(bundle.file("/bin/prog").is_some() && bundle.file("/bin/cat").is_some());
        assert!(find("/bin/nosuch").unwrap_err().to_string().contains("nor in the bundle"));
        assert!(check_size(&archive, Memory::from_mib(64).unwrap()).is_ok());
        let large = vec![0; 40 << 20];
        assert!(check_size(&large, Memory::from_mib(64).unwrap()).is_err());
    }
}
