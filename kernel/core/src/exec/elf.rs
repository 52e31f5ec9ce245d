//! An ELF file, as a plan of what is to be mapped where.
//!
//! Static programs only, at fixed addresses or position-independent: what the file says is checked here
//! once, and whoever carries the plan out need not check again. The parsing is the crate `elf`'s.

use alloc::vec::Vec;
use core::fmt;
use core::ops::Range;

use ::elf::abi;
use ::elf::endian::LittleEndian;
use ::elf::file::{Class, FileHeader, parse_ident};
use ::elf::parse::ParsingTable;
use ::elf::segment::ProgramHeader;

/// Bytes of the file header.
pub const HEADER_BYTES: usize = 64;
/// Bytes of a program header.
pub const PROGRAM_HEADER_BYTES: usize = 56;
/// Most program headers a file may have; ordinary ones have about ten.
pub const MAX_PROGRAM_HEADERS: usize = 128;
/// Most bytes of memory from a program's first segment to its last.
pub const MAX_SPAN_BYTES: u64 = 1 << 40;

const PAGE: u64 = 4096;

/// Where programs may be.
pub const WINDOW: Range<u64> = 0x1_0000..0x7fff_ffff_f000;

/// Why a file cannot be run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs)] // `Display` says what each means
pub enum ElfError {
    NotElf,
    NotLittleEndian64,
    WrongMachine(u16),
    NotExecutable(u16),
    NeedsInterpreter,
    Truncated { need_bytes: u64, have_bytes: u64 },
    BadProgramHeaders,
    NoSegments,
    BadSegment { at: u64 },
    WritableAndExecutable { at: u64 },
    OutsideWindow { at: u64 },
    Overlap { at: u64 },
    EntryOutside { at: u64 },
}

impl fmt::Display for ElfError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotElf => f.write_str("not an ELF file"),
            Self::NotLittleEndian64 => f.write_str("not a 64-bit little-endian ELF file"),
            Self::WrongMachine(machine) => {
                write!(f, "for another machine (e_machine {machine}); build it for x86-64")
            }
            Self::NotExecutable(kind) => {
                write!(f, "not an executable (e_type {kind}); link it to a program")
            }
            Self::NeedsInterpreter => f.write_str("dynamically linked; link it statically"),
            Self::Truncated { need_bytes, have_bytes } => {
                write!(f, "truncated: it should have {need_bytes} bytes and has {have_bytes}")
            }
            Self::BadProgramHeaders => f.write_str("its program headers are malformed"),
            Self::NoSegments => f.write_str("nothing in it is to be loaded"),
            Self::BadSegment { at } => write!(f, "the segment at {at:#x} is malformed"),
            Self::WritableAndExecutable { at } => {
                write!(f, "the segment at {at:#x} is both writable and executable")
            }
            Self::OutsideWindow { at } => {
                write!(f, "the segment at {at:#x} is huge, or outside of a program's addresses")
            }
            Self::Overlap { at } => write!(f, "the segment at {at:#x} overlaps the one before it"),
            Self::EntryOutside { at } => write!(f, "its entry point {at:#x} is in no code segment"),
        }
    }
}

impl core::error::Error for ElfError {}

/// A file header that was checked, and where the program headers are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    /// Whether the addresses are relative to wherever the program is put.
    pub is_relocatable: bool,
    /// Where it begins.
    pub entry: u64,
    /// Offset of the program headers in the file.
    pub headers_offset: u64,
    /// How many there are.
    pub headers_count: u16,
}

/// Part of a program in memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Segment {
    /// Its first byte; not always the first of a page.
    pub address: u64,
    /// Where its bytes are in the file; the same offset in a page as `address`.
    pub file_offset: u64,
    /// How many of them come from the file; the rest are zero.
    pub file_bytes: u64,
    /// How many it has in memory; at least `file_bytes`.
    pub memory_bytes: u64,
    /// Whether it is written. Every segment can be read.
    pub is_writable: bool,
    /// Whether it is executed. Never both.
    pub is_executable: bool,
}

impl Segment {
    /// The pages that it touches.
    pub fn pages(&self) -> Range<u64> {
        self.address / PAGE * PAGE..(self.address + self.memory_bytes).next_multiple_of(PAGE)
    }
}

/// What is to be mapped.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Plan {
    /// Whether the addresses are relative.
    pub is_relocatable: bool,
    /// Where it begins.
    pub entry: u64,
    /// Segments by rising address, on different pages.
    pub segments: Vec<Segment>,
    /// Where the program headers are in memory, if a segment has them.
    pub headers_address: Option<u64>,
    /// How many there are.
    pub headers_count: u16,
}

impl Header {
    /// Checks the first bytes of a file of `file_bytes` bytes.
    ///
    /// # Errors
    /// [`ElfError`].
    pub fn parse(start: &[u8], file_bytes: u64) -> Result<Self, ElfError> {
        if start.len() < 4 || start[..4] != abi::ELFMAGIC {
            return Err(ElfError::NotElf);
        }
        let truncated =
            ElfError::Truncated { need_bytes: HEADER_BYTES as u64, have_bytes: file_bytes };
        let start = start.get(..HEADER_BYTES).ok_or(truncated)?;
        let ident = parse_ident::<LittleEndian>(start).map_err(|_| ElfError::NotLittleEndian64)?;
        if ident.1 != Class::ELF64 {
            return Err(ElfError::NotLittleEndian64);
        }
        let header = FileHeader::parse_tail(ident, &start[abi::EI_NIDENT..])
            .map_err(|_| ElfError::NotElf)?;
        if header.e_machine != abi::EM_X86_64 {
            return Err(ElfError::WrongMachine(header.e_machine));
        }
        let is_relocatable = match header.e_type {
            abi::ET_EXEC => false,
            abi::ET_DYN => true,
            other => return Err(ElfError::NotExecutable(other)),
        };
        let is_sane = usize::from(header.e_phentsize) == PROGRAM_HEADER_BYTES
            && (1..=MAX_PROGRAM_HEADERS).contains(&header.e_phnum.into());
        if !is_sane {
            return Err(ElfError::BadProgramHeaders);
        }
        let len = u64::from(header.e_phnum) * PROGRAM_HEADER_BYTES as u64;
        let end = header.e_phoff.checked_add(len).ok_or(ElfError::BadProgramHeaders)?;
        if end > file_bytes {
            return Err(ElfError::Truncated { need_bytes: end, have_bytes: file_bytes });
        }
        Ok(Self {
            is_relocatable,
            entry: header.e_entry,
            headers_offset: header.e_phoff,
            headers_count: header.e_phnum,
        })
    }

    /// Bytes of the program headers in the file.
    pub fn headers_bytes(&self) -> usize {
        usize::from(self.headers_count) * PROGRAM_HEADER_BYTES
    }

    /// Makes the plan from the program headers' bytes.
    ///
    /// # Errors
    /// [`ElfError`].
    pub fn plan(&self, headers: &[u8], file_bytes: u64) -> Result<Plan, ElfError> {
        let headers = headers.get(..self.headers_bytes()).ok_or(ElfError::BadProgramHeaders)?;
        let table = ParsingTable::<_, ProgramHeader>::new(LittleEndian, Class::ELF64, headers);
        let mut plan = Plan {
            is_relocatable: self.is_relocatable,
            entry: self.entry,
            segments: Vec::new(),
            headers_address: None,
            headers_count: self.headers_count,
        };
        for header in table {
            match header.p_type {
                abi::PT_INTERP => return Err(ElfError::NeedsInterpreter),
                abi::PT_LOAD if header.p_memsz > 0 => {
                    let segment = segment(&header, file_bytes)?;
                    plan.add(segment, self.headers_offset)?;
                }
                _ => {}
            }
        }
        plan.check()?;
        Ok(plan)
    }
}

fn segment(header: &ProgramHeader, file_bytes: u64) -> Result<Segment, ElfError> {
    let at = header.p_vaddr;
    let bad = ElfError::BadSegment { at };
    let file_end = header.p_offset.checked_add(header.p_filesz).ok_or(bad)?;
    if file_end > file_bytes {
        return Err(ElfError::Truncated { need_bytes: file_end, have_bytes: file_bytes });
    }
    if header.p_filesz > header.p_memsz || header.p_offset % PAGE != at % PAGE {
        return Err(bad);
    }
    let end = at.checked_add(header.p_memsz).ok_or(ElfError::OutsideWindow { at })?;
    if end > WINDOW.end || header.p_memsz > MAX_SPAN_BYTES {
        return Err(ElfError::OutsideWindow { at });
    }
    let (is_writable, is_executable) =
        (header.p_flags & abi::PF_W != 0, header.p_flags & abi::PF_X != 0);
    if is_writable && is_executable {
        return Err(ElfError::WritableAndExecutable { at });
    }
    Ok(Segment {
        address: at,
        file_offset: header.p_offset,
        file_bytes: header.p_filesz,
        memory_bytes: header.p_memsz,
        is_writable,
        is_executable,
    })
}

impl Plan {
    fn add(&mut self, segment: Segment, headers_offset: u64) -> Result<(), ElfError> {
        if let Some(last) = self.segments.last()
            && segment.pages().start < last.pages().end
        {
            return Err(ElfError::Overlap { at: segment.address });
        }
        let file = segment.file_offset..segment.file_offset + segment.file_bytes;
        if self.headers_address.is_none() && file.contains(&headers_offset) {
            self.headers_address = Some(segment.address + (headers_offset - segment.file_offset));
        }
        self.segments.push(segment);
        Ok(())
    }

    fn check(&self) -> Result<(), ElfError> {
        let span = self.span().ok_or(ElfError::NoSegments)?;
        let at = span.start;
        if span.end - span.start > MAX_SPAN_BYTES
            || !self.is_relocatable && span.start < WINDOW.start
        {
            return Err(ElfError::OutsideWindow { at });
        }
        let is_code = |segment: &Segment| {
            segment.is_executable
                && (segment.address..segment.address + segment.memory_bytes).contains(&self.entry)
        };
        if !self.segments.iter().any(is_code) {
            return Err(ElfError::EntryOutside { at: self.entry });
        }
        Ok(())
    }

    /// The pages from the first segment to the last; `None` if there are no segments.
    pub fn span(&self) -> Option<Range<u64>> {
        Some(self.segments.first()?.pages().start..self.segments.last()?.pages().end)
    }
}

/// The plan of a file that is in memory as a whole.
///
/// # Errors
/// [`ElfError`].
pub fn plan(file: &[u8]) -> Result<Plan, ElfError> {
    let header = Header::parse(file, file.len() as u64)?;
    let start = header.headers_offset as usize;
    header.plan(&file[start..start + header.headers_bytes()], file.len() as u64)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::string::ToString;
    use std::vec;

    struct Part {
        kind: u32,
        flags: u32,
        offset: u64,
        address: u64,
        file_bytes: u64,
        memory_bytes: u64,
    }

    const CODE: Part = Part {
        kind: abi::PT_LOAD,
        flags: abi::PF_R | abi::PF_X,
        offset: 0,
        address: 0x40_0000,
        file_bytes: 0x800,
        memory_bytes: 0x800,
    };
    const DATA: Part = Part {
        kind: abi::PT_LOAD,
        flags: abi::PF_R | abi::PF_W,
        offset: 0x800,
        address: 0x40_1800,
        file_bytes: 0x100,
        memory_bytes: 0x3000,
    };

    fn file(kind: u16, parts: &[Part]) -> Vec<u8> {
        let mut file = vec![0; 0x1000];
        file[..4].copy_from_slice(&abi::ELFMAGIC);
        file[4..7].copy_from_slice(&[2, 1, 1]);
        file[16..18].copy_from_slice(&kind.to_le_bytes());
        file[18..20].copy_from_slice(&abi::EM_X86_64.to_le_bytes());
        file[20] = 1;
        file[24..32].copy_from_slice(&0x40_0100u64.to_le_bytes());
        file[32..40].copy_from_slice(&64u64.to_le_bytes());
        file[54..56].copy_from_slice(&56u16.to_le_bytes());
        file[56..58].copy_from_slice(&(parts.len() as u16).to_le_bytes());
        for (index, part) in parts.iter().enumerate() {
            let words = [part.offset, part.address, 0, part.file_bytes, part.memory_bytes, PAGE];
            let at = 64 + index * PROGRAM_HEADER_BYTES;
            file[at..at + 4].copy_from_slice(&part.kind.to_le_bytes());
            file[at + 4..at + 8].copy_from_slice(&part.flags.to_le_bytes());
            for (index, word) in words.iter().enumerate() {
                file[at + 8 + index * 8..][..8].copy_from_slice(&word.to_le_bytes());
            }
        }
        file
    }

    #[test]
    fn a_program_of_two_segments() {
        let plan = plan(&file(abi::ET_EXEC, &[CODE, DATA])).unwrap();
        assert_eq!(plan.segments.len(), 2);
        assert_eq!(plan.headers_address, Some(0x40_0040));
        assert_eq!(plan.span(), Some(0x40_0000..0x40_5000));
        assert!(!plan.is_relocatable);
    }

    #[test]
    fn what_is_wrong_is_named() {
        let error = |file: &[u8]| plan(file).unwrap_err();
        assert_eq!(error(b"#!/bin/sh\n"), ElfError::NotElf);
        assert_eq!(error(b""), ElfError::NotElf);
        let good = file(abi::ET_EXEC, &[CODE, DATA]);
        assert!(matches!(error(&good[..40]), ElfError::Truncated { .. }));
        assert!(matches!(error(&good[..0x880]), ElfError::Truncated { need_bytes: 0x900, .. }));
        let mut other = good.clone();
        other[4] = 1;
        assert_eq!(error(&other), ElfError::NotLittleEndian64);
        let mut other = good.clone();
        other[18] = 183;
        assert_eq!(error(&other), ElfError::WrongMachine(183));
        assert_eq!(error(&file(abi::ET_REL, &[CODE])), ElfError::NotExecutable(abi::ET_REL));
        assert_eq!(error(&file(abi::ET_EXEC, &[])), ElfError::BadProgramHeaders);
        let interpreter = Part { kind: abi::PT_INTERP, ..CODE };
        assert_eq!(error(&file(abi::ET_DYN, &[CODE, interpreter])), ElfError::NeedsInterpreter);
        let rwx = Part { flags: 7, ..DATA };
        let at = 0x40_1800;
        assert_eq!(
            error(&file(abi::ET_EXEC, &[CODE, rwx])),
            ElfError::WritableAndExecutable { at }
        );
        let same_page = Part { address: 0x40_0800, ..DATA };
        assert_eq!(
            error(&file(abi::ET_EXEC, &[CODE, same_page])),
            ElfError::Overlap { at: 0x40_0800 }
        );
        let huge = Part { memory_bytes: 1 << 46, ..DATA };
        assert_eq!(error(&file(abi::ET_EXEC, &[CODE, huge])), ElfError::OutsideWindow { at });
        let kernel = Part { address: 0xffff_8000_0000_0800, ..DATA };
        assert!(matches!(
            error(&file(abi::ET_EXEC, &[CODE, kernel])),
            ElfError::OutsideWindow { .. }
        ));
        let misaligned = Part { address: 0x40_1900, ..DATA };
        assert_eq!(
            error(&file(abi::ET_EXEC, &[CODE, misaligned])),
            ElfError::BadSegment { at: 0x40_1900 }
        );
        assert_eq!(error(&file(abi::ET_EXEC, &[DATA])), ElfError::EntryOutside { at: 0x40_0100 });
        assert!(ElfError::NeedsInterpreter.to_string().contains("statically"));
    }

    proptest! {
        #[test]
        fn no_bytes_make_it_panic(mut bytes in proptest::collection::vec(any::<u8>(), 0..400), magic: bool) {
            if magic && bytes.len() > 60 {
                bytes[..7].copy_from_slice(&[0x7f, b'E', b'L', b'F', 2, 1, 1]);
                bytes[16..20].copy_from_slice(&[2, 0, 62, 0]);
                bytes[32..40].copy_from_slice(&64u64.to_le_bytes());
                let count = bytes[56] % 6;
                bytes[54..58].copy_from_slice(&[56, 0, count, 0]);
            }
            if let Ok(plan) = plan(&bytes) {
                let span = plan.span().unwrap();
                prop_assert!(span.start < span.end && span.end <= WINDOW.end);
            }
        }
    }
}
