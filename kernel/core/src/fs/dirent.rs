//! What `getdents64` returns: directory entries one after the other (`struct linux_dirent64`,
//! getdents(2)).

use core::mem::offset_of;

use linux_raw_sys::general::linux_dirent64;

const NAME_AT: usize = offset_of!(linux_dirent64, d_name);

/// One directory entry.
#[derive(Clone, Copy, Debug)]
pub struct Dirent<'a> {
    /// Inode number.
    pub inode: u64,
    /// Position of the entry that comes next.
    pub next: u64,
    /// Type, as `DT_REG` and the like.
    pub kind: u8,
    /// Its name, at most 255 bytes.
    pub name: &'a [u8],
}

/// Fills a buffer with entries.
#[derive(Debug)]
pub struct DirentWriter<'a> {
    buffer: &'a mut [u8],
    len: usize,
}

impl<'a> DirentWriter<'a> {
    /// Nothing is written yet.
    pub fn new(buffer: &'a mut [u8]) -> Self {
        Self { buffer, len: 0 }
    }

    /// Adds an entry. False, and nothing added, if it does not fit.
    pub fn push(&mut self, entry: &Dirent<'_>) -> bool {
        let record_len = (NAME_AT + entry.name.len() + 1).next_multiple_of(8);
        let Some(record) = self.buffer[self.len..].get_mut(..record_len) else { return false };
        let (fixed, name) = record.split_at_mut(NAME_AT);
        fixed[offset_of!(linux_dirent64, d_ino)..][..8].copy_from_slice(&entry.inode.to_le_bytes());
        fixed[offset_of!(linux_dirent64, d_off)..][..8].copy_from_slice(&entry.next.to_le_bytes());
        fixed[offset_of!(linux_dirent64, d_reclen)..][..2]
            .copy_from_slice(&(record_len as u16).to_le_bytes());
        fixed[offset_of!(linux_dirent64, d_type)] = entry.kind;
        name[..entry.name.len()].copy_from_slice(entry.name);
        name[entry.name.len()..].fill(0);
        self.len += record_len;
        true
    }

    /// What was written.
    pub fn written(&self) -> &[u8] {
        &self.buffer[..self.len]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entries_lie_as_linux_has_them() {
        let mut buffer = [0xaa; 64];
        let mut writer = DirentWriter::new(&mut buffer);
        let entry = Dirent { inode: 5, next: 7, kind: 8, name: b"hello" };
        assert!(writer.push(&entry));
        assert!(writer.push(&Dirent { name: b"x", ..entry }));
        assert!(!writer.push(&entry));
        let written = writer.written();
        // 19 bytes, the name and its NUL, padded to 8.
        assert_eq!(written.len(), 32 + 24);
        assert_eq!(written[..8], 5u64.to_le_bytes());
        assert_eq!(written[8..16], 7u64.to_le_bytes());
        assert_eq!(written[16..18], 32u16.to_le_bytes());
        assert_eq!(written[18], 8);
        assert_eq!(&written[19..32], b"hello\0\0\0\0\0\0\0\0");
        assert_eq!(written[48..50], 24u16.to_le_bytes());
    }
}
