//! Reads cpio archives of the "newc" kind (`070701`; with checksums, which are not looked at, `070702`).
//!
//! An archive is a byte slice; names and data are parts of it. Every malformed archive is an [`Error`] that
//! says where and what; nothing in an archive makes the reader panic or read outside the slice.
//!
//! An entry is a header of 110 ASCII characters, the name with its NUL, and the data; name and data are each
//! padded to a multiple of 4 bytes. A writer that wants the data to begin at a page's start adds NULs to the
//! name. The entry `TRAILER!!!` ends the archive; what follows is ignored. (Linux,
//! `Documentation/driver-api/early-userspace/buffer-format.rst`.)
//!
//! Neighbours: the kernel's root file system is made from this.

use core::fmt;

use linux_raw_sys::general::{S_IFLNK, S_IFMT, S_IFREG};

/// Bytes of a header.
const HEADER_BYTES: usize = 110;
const TRAILER: &[u8] = b"TRAILER!!!";
/// Longest name without its NUL, in bytes (`PATH_MAX` with it).
pub const MAX_NAME_BYTES: usize = 4095;
/// Longest component of a name, in bytes (`NAME_MAX`).
pub const MAX_COMPONENT_BYTES: usize = 255;

/// One entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Entry<'a> {
    /// The path, without slashes or `./` at its beginning and without slashes at its end; empty for the root.
    pub name: &'a [u8],
    /// Type and permissions, as in `st_mode`.
    pub mode: u32,
    /// User.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Number of names that the file has.
    pub links: u32,
    /// When it was last modified, in seconds since 1970.
    pub mtime_s: u32,
    /// Names with the same device and inode number are one file; the last one has its data.
    pub inode: (u32, u32, u32),
    /// Major and minor number of a device node.
    pub device: (u32, u32),
    /// Contents of a regular file, target of a symbolic link.
    pub data: &'a [u8],
}

/// Where an archive is malformed, and how.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Error {
    /// Offset of the entry's header, in bytes.
    pub offset_bytes: usize,
    /// What is wrong with it.
    pub what: Malformed,
}

/// What is wrong with an entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Malformed {
    /// The archive ends inside the entry, or before the trailer.
    Truncated,
    /// No header begins here.
    BadMagic,
    /// A field of the header is no hexadecimal number.
    BadNumber,
    /// The name has no NUL at its end.
    NameNotTerminated,
    /// The name goes on after its first NUL.
    NameAfterNul,
    /// The name has no bytes, or is longer than [`MAX_NAME_BYTES`].
    NameLength,
    /// A component of the name is longer than [`MAX_COMPONENT_BYTES`].
    ComponentLength,
    /// A component of the name is `..`.
    ParentInName,
    /// A file that has no contents has data.
    UnexpectedData,
    /// A symbolic link's target is empty, longer than [`MAX_NAME_BYTES`] or contains a NUL.
    BadTarget,
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let what = match self.what {
            Malformed::Truncated => "the archive is cut off here",
            Malformed::BadMagic => "no newc header (070701) here",
            Malformed::BadNumber => "a header field is no hexadecimal number",
            Malformed::NameNotTerminated => "the name does not end with a NUL",
            Malformed::NameAfterNul => "the name goes on after a NUL",
            Malformed::NameLength => "the name is empty or too long",
            Malformed::ComponentLength => "a component of the name is too long",
            Malformed::ParentInName => "the name contains `..`",
            Malformed::UnexpectedData => "neither a file nor a symbolic link, but has data",
            Malformed::BadTarget => "the symbolic link's target is empty, too long or has a NUL",
        };
        write!(f, "cpio entry at byte {}: {what}", self.offset_bytes)
    }
}

impl core::error::Error for Error {}

/// The entries of `archive`, in order. After an error there are no more.
pub fn entries(archive: &[u8]) -> Entries<'_> {
    Entries { archive, at: Some(0) }
}

/// Iterates over an archive's entries.
#[derive(Clone, Debug)]
pub struct Entries<'a> {
    archive: &'a [u8],
    /// Offset of the next header; `None` after the end.
    at: Option<usize>,
}

impl<'a> Iterator for Entries<'a> {
    type Item = Result<Entry<'a>, Error>;

    fn next(&mut self) -> Option<Self::Item> {
        let at = self.at.take()?;
        match entry_at(self.archive, at) {
            Ok(Some((entry, next))) => {
                self.at = Some(next);
                Some(Ok(entry))
            }
            Ok(None) => None,
            Err(what) => Some(Err(Error { offset_bytes: at, what })),
        }
    }
}

/// The bytes `from .. from + len`, and the next multiple of 4 after them.
fn part(archive: &[u8], from: usize, len: usize) -> Result<(&[u8], usize), Malformed> {
    let end = from.checked_add(len).ok_or(Malformed::Truncated)?;
    let bytes = archive.get(from..end).ok_or(Malformed::Truncated)?;
    Ok((bytes, end.checked_next_multiple_of(4).ok_or(Malformed::Truncated)?))
}

/// The entry whose header is at `at`, and where the next header is; `None` for the trailer.
fn entry_at(archive: &[u8], at: usize) -> Result<Option<(Entry<'_>, usize)>, Malformed> {
    let (header, _) = part(archive, at, HEADER_BYTES)?;
    if &header[..6] != b"070701" && &header[..6] != b"070702" {
        return Err(Malformed::BadMagic);
    }
    let mut fields = [0; 13];
    for (field, digits) in fields.iter_mut().zip(header[6..].chunks_exact(8)) {
        *field = number(digits).ok_or(Malformed::BadNumber)?;
    }
    let [inode, mode, uid, gid, links, mtime_s, len, major, minor, rmajor, rminor, name_len, _] =
        fields;
    let (padded_name, data_at) = part(archive, at + HEADER_BYTES, name_len as usize)?;
    let nul = padded_name.iter().position(|&byte| byte == 0);
    let name = match nul {
        Some(nul) if padded_name[nul..].iter().all(|&byte| byte == 0) => &padded_name[..nul],
        Some(_) => return Err(Malformed::NameAfterNul),
        None if padded_name.is_empty() => return Err(Malformed::NameLength),
        None => return Err(Malformed::NameNotTerminated),
    };
    if name == TRAILER {
        return Ok(None);
    }
    let name = checked_name(name)?;
    let (data, next) = part(archive, data_at, len as usize)?;
    match mode & S_IFMT {
        S_IFREG => {}
        S_IFLNK if data.is_empty() || data.len() > MAX_NAME_BYTES || data.contains(&0) => {
            return Err(Malformed::BadTarget);
        }
        S_IFLNK => {}
        _ if !data.is_empty() => return Err(Malformed::UnexpectedData),
        _ => {}
    }
    let inode = (major, minor, inode);
    let device = (rmajor, rminor);
    Ok(Some((Entry { name, mode, uid, gid, links, mtime_s, inode, device, data }, next)))
}

/// Eight hexadecimal digits.
fn number(digits: &[u8]) -> Option<u32> {
    digits.iter().try_fold(0, |number, &digit| Some(number << 4 | char::from(digit).to_digit(16)?))
}

/// The name as [`Entry::name`] has it.
fn checked_name(name: &[u8]) -> Result<&[u8], Malformed> {
    if name.is_empty() || name.len() > MAX_NAME_BYTES {
        return Err(Malformed::NameLength);
    }
    for component in name.split(|&byte| byte == b'/') {
        if component == b".." {
            return Err(Malformed::ParentInName);
        }
        if component.len() > MAX_COMPONENT_BYTES {
            return Err(Malformed::ComponentLength);
        }
    }
    let mut name = name;
    loop {
        name = match name {
            [b'/', rest @ ..] | [b'.', b'/', rest @ ..] | [rest @ .., b'/'] => rest,
            b"." => b"",
            _ => return Ok(name),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::format;
    use alloc::string::ToString;
    use alloc::vec::Vec;
    use proptest::prelude::*;

    const REGULAR: u32 = S_IFREG | 0o644;

    /// Appends an entry whose name is followed by `nuls` NULs.
    fn push(archive: &mut Vec<u8>, name: &[u8], nuls: usize, mode: u32, data: &[u8]) {
        let fields =
            [7, mode, 1, 2, 1, 1000, data.len() as u32, 8, 9, 1, 3, (name.len() + nuls) as u32, 0];
        archive.extend(b"070701");
        fields.iter().for_each(|field| archive.extend(format!("{field:08x}").bytes()));
        for bytes in [&[name, &[0].repeat(nuls)].concat(), data] {
            archive.extend(bytes);
            archive.resize(archive.len().next_multiple_of(4), 0);
        }
    }

    fn finish(mut archive: Vec<u8>) -> Vec<u8> {
        push(&mut archive, TRAILER, 1, 0, b"");
        archive
    }

    fn one(name: &[u8], nuls: usize, mode: u32, data: &[u8]) -> Vec<u8> {
        let mut archive = Vec::new();
        push(&mut archive, name, nuls, mode, data);
        finish(archive)
    }

    fn error(archive: &[u8]) -> Malformed {
        let error = entries(archive).find_map(Result::err).expect("an error");
        assert!(error.to_string().contains("byte"));
        error.what
    }

    #[test]
    fn an_archive_is_read_in_order() {
        let mut archive = Vec::new();
        push(&mut archive, b".", 1, 0o40755, b"");
        push(&mut archive, b"./bin/sh", 1, REGULAR, b"hello");
        push(&mut archive, b"/link", 1, S_IFLNK | 0o777, b"bin/sh");
        let archive = finish(archive);
        let all: Vec<_> = entries(&archive).map(Result::unwrap).collect();
        assert_eq!(
            all.iter().map(|it| it.name).collect::<Vec<_>>(),
            [b"".as_slice(), b"bin/sh", b"link"]
        );
        assert_eq!((all[1].data, all[2].data), (b"hello".as_slice(), b"bin/sh".as_slice()));
        let expected = Entry {
            name: b"bin/sh",
            mode: REGULAR,
            uid: 1,
            gid: 2,
            links: 1,
            mtime_s: 1000,
            inode: (8, 9, 7),
            device: (1, 3),
            data: b"hello",
        };
        assert_eq!(all[1], expected);
    }

    #[test]
    fn nuls_after_the_name_align_the_data() {
        let nuls = 4096 - HEADER_BYTES - 3;
        let archive = one(b"abc", nuls, REGULAR, b"data");
        let entry = entries(&archive).next().unwrap().unwrap();
        assert_eq!((entry.name, entry.data), (b"abc".as_slice(), b"data".as_slice()));
        assert_eq!(entry.data.as_ptr() as usize - archive.as_ptr() as usize, 4096);
    }

    #[test]
    fn what_is_malformed_is_named() {
        assert_eq!(error(b""), Malformed::Truncated);
        assert_eq!(error(&[b'x'; 200]), Malformed::BadMagic);
        assert_eq!(error(&one(b"a", 0, REGULAR, b"")), Malformed::NameNotTerminated);
        assert_eq!(error(&one(b"", 0, REGULAR, b"")), Malformed::NameLength);
        assert_eq!(error(&one(b"", 1, REGULAR, b"")), Malformed::NameLength);
        assert_eq!(error(&one(b"a\0b", 1, REGULAR, b"")), Malformed::NameAfterNul);
        assert_eq!(error(&one(b"a/../b", 1, REGULAR, b"")), Malformed::ParentInName);
        assert_eq!(error(&one(&[b'a'; 256], 1, REGULAR, b"")), Malformed::ComponentLength);
        assert_eq!(error(&one(&b"a/".repeat(2048), 1, REGULAR, b"")), Malformed::NameLength);
        assert_eq!(error(&one(b"a", 1, 0o40755, b"x")), Malformed::UnexpectedData);
        assert_eq!(error(&one(b"a", 1, S_IFLNK, b"")), Malformed::BadTarget);
        assert_eq!(error(&one(b"a", 1, S_IFLNK, b"x\0")), Malformed::BadTarget);
        let mut bad_digit = one(b"a", 1, REGULAR, b"");
        bad_digit[20] = b'g';
        assert_eq!(error(&bad_digit), Malformed::BadNumber);
        let mut no_trailer = Vec::new();
        push(&mut no_trailer, b"a", 1, REGULAR, b"");
        assert_eq!(error(&no_trailer), Malformed::Truncated);
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_or_refused(bytes: Vec<u8>) {
            entries(&bytes).for_each(drop);
        }

        #[test]
        fn damage_and_cuts_are_survived(
            data: Vec<u8>,
            at: prop::sample::Index,
            byte: u8,
            end: prop::sample::Index,
        ) {
            let mut archive = one(b"some/name", 2, REGULAR, &data);
            let at = at.index(archive.len());
            archive[at] = byte;
            entries(&archive).for_each(drop);
            let cut = &archive[..end.index(archive.len())];
            let complete = entries(cut).all(|it| it.is_ok());
            prop_assert!(!complete || cut.windows(10).any(|it| it == TRAILER));
        }
    }
}
