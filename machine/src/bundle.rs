//! The bundle: a cpio archive (newc, as in Linux's `Documentation/driver-api/early-userspace/buffer-format.rst`)
//! with the files that a guest's programs see, and with what the kernel is to run.
//!
//! A [`Bundle`] is a tree in memory, filled from directories, archives and single files; whatever is added
//! later replaces what was there. [`Bundle::archive`] writes it in the order of its paths, with times and
//! owners zero, so that the same files give the same bytes. The data of files of a page or more begins at a
//! multiple of a page in the archive (the name field is padded with NULs), so that the guest can map it
//! in place.
//!
//! Entries below [`INSTRUCTIONS`] are for the kernel and not part of the guest's file system.

use crate::{Error, Result};
use orrery_core::cpio;
use std::{
    collections::{BTreeMap, HashMap},
    ffi::OsStr,
    fs,
    os::unix::{
        ffi::{OsStrExt, OsStringExt},
        fs::{MetadataExt, PermissionsExt},
    },
    path::Path,
    sync::Arc,
};

/// Directory of the entries that tell the kernel what to do.
pub const INSTRUCTIONS: &str = ".orrery";

/// What a program finds in its environment unless it is told otherwise.
pub const ENVIRONMENT: [&str; 3] = ["PATH=/bin:/sbin:/usr/bin:/usr/sbin", "HOME=/", "TERM=dumb"];

const HEADER_BYTES: usize = 110;
const MAGIC: &[u8] = b"070701";
const TRAILER: &[u8] = b"TRAILER!!!";
const PAGE_BYTES: usize = 4096;
/// Longest chain of symbolic links that is followed (Linux's limit).
const LINKS_MAX: usize = 40;

/// File types of `st_mode` (inode(7)).
const TYPE_MASK: u32 = 0o170_000;
const DIRECTORY: u32 = 0o040_000;
const REGULAR: u32 = 0o100_000;
const SYMLINK: u32 = 0o120_000;
const PERMISSIONS: u32 = 0o7777;

/// What is at a path.
#[derive(Clone, Debug)]
enum Node {
    Directory {
        permissions: u32,
    },
    /// Paths that share the data are hard links of one file.
    File {
        permissions: u32,
        data: Arc<Vec<u8>>,
    },
    Symlink {
        target: Vec<u8>,
    },
}

/// The files of a guest. See the module's description.
#[derive(Clone, Debug, Default)]
pub struct Bundle {
    /// By path, without a leading slash.
    nodes: BTreeMap<Vec<u8>, Node>,
}

impl Bundle {
    /// No files at all.
    pub fn new() -> Self {
        Self::default()
    }

    /// The directories that every program may expect, and nothing else.
    pub fn for_programs() -> Self {
        let mut bundle = Self::new();
        for dir in ["bin", "dev", "proc", "sys"] {
            bundle.add_directory(dir, 0o755);
        }
        bundle.add_directory("tmp", 0o1777);
        bundle
    }

    /// Adds a directory, and those above it.
    pub fn add_directory(&mut self, path: impl AsRef<OsStr>, permissions: u32) {
        let path = normal(path.as_ref().as_bytes());
        self.insert(path, Node::Directory { permissions: permissions & PERMISSIONS });
    }

    /// Adds a file, and the directories above it.
    pub fn add_file(&mut self, path: impl AsRef<OsStr>, permissions: u32, data: Vec<u8>) {
        let path = normal(path.as_ref().as_bytes());
        let permissions = permissions & PERMISSIONS;
        self.insert(path, Node::File { permissions, data: Arc::new(data) });
    }

    /// Adds strings for the kernel, each with a NUL behind it, as the entry `name` of [`INSTRUCTIONS`].
    pub fn instruct<I: IntoIterator<Item: AsRef<OsStr>>>(&mut self, name: &str, strings: I) {
        let mut data = Vec::new();
        for string in strings {
            data.extend_from_slice(string.as_ref().as_bytes());
            data.push(0);
        }
        self.instruct_bytes(name, data);
    }

    /// Adds bytes for the kernel, as the entry `name` of [`INSTRUCTIONS`].
    pub fn instruct_bytes(&mut self, name: &str, data: Vec<u8>) {
        let path = format!("{INSTRUCTIONS}/{name}").into_bytes();
        self.nodes.insert(path, Node::File { permissions: 0o444, data: Arc::new(data) });
    }

    /// Adds what is in a directory of the host: files, directories and symbolic links with their modes, hard links as such.
    /// Devices, sockets and FIFOs are left out.
    ///
    /// # Errors
    /// [`Error::File`] where something cannot be read.
    pub fn add_tree(&mut self, root: &Path) -> Result<()> {
        self.add_tree_at(root, &mut Vec::new(), &mut HashMap::new())
    }

    fn add_tree_at(
        &mut self,
        dir: &Path,
        prefix: &mut Vec<u8>,
        seen: &mut HashMap<(u64, u64), Arc<Vec<u8>>>,
    ) -> Result<()> {
        for entry in fs::read_dir(dir).map_err(unreadable(dir))? {
            let entry = entry.map_err(unreadable(dir))?;
            let path = entry.path();
            let meta = entry.metadata().map_err(unreadable(&path))?;
            let permissions = meta.permissions().mode() & PERMISSIONS;
            let len = prefix.len();
            if len > 0 {
                prefix.push(b'/');
            }
            prefix.extend_from_slice(entry.file_name().as_bytes());
            let kind = meta.file_type();
            if kind.is_dir() {
                self.insert(prefix.clone(), Node::Directory { permissions });
                self.add_tree_at(&path, prefix, seen)?;
            } else if kind.is_symlink() {
                let target = fs::read_link(&path).map_err(unreadable(&path))?;
                let target = target.into_os_string().into_vec();
                self.insert(prefix.clone(), Node::Symlink { target });
            } else if kind.is_file() {
                let known = seen.get(&(meta.dev(), meta.ino())).cloned();
                let data = match known {
                    Some(data) => data,
                    None => Arc::new(fs::read(&path).map_err(unreadable(&path))?),
                };
                if meta.nlink() > 1 {
                    seen.insert((meta.dev(), meta.ino()), data.clone());
                }
                self.insert(prefix.clone(), Node::File { permissions, data });
            }
            prefix.truncate(len);
        }
        Ok(())
    }

    /// Adds the entries of a newc archive. Devices, sockets and FIFOs are left out.
    ///
    /// # Errors
    /// [`Error::File`], with `name` for the file's, where the archive is damaged.
    pub fn add_archive(&mut self, name: &Path, archive: &[u8]) -> Result<()> {
        let damaged = |error: cpio::Error| Error::File {
            what: "bundle",
            path: name.into(),
            problem: format!(
                "{error}; it must be a directory, or a cpio archive in newc format (`cpio -o -H newc`)"
            ),
        };
        let mut links: HashMap<(u32, u32, u32), Vec<Vec<u8>>> = HashMap::new();
        for entry in cpio::entries(archive) {
            let entry = entry.map_err(damaged)?;
            let path = normal(entry.name);
            let permissions = entry.mode & PERMISSIONS;
            match entry.mode & TYPE_MASK {
                DIRECTORY => self.insert(path, Node::Directory { permissions }),
                SYMLINK => self.insert(path, Node::Symlink { target: entry.data.to_vec() }),
                REGULAR => {
                    let node = Node::File { permissions, data: Arc::new(entry.data.to_vec()) };
                    if entry.links > 1 {
                        // The last link has the data.
                        let names = links.entry(entry.inode).or_default();
                        for name in names.iter() {
                            self.insert(name.clone(), node.clone());
                        }
                        names.push(path.clone());
                    }
                    self.insert(path, node);
                }
                _ => {}
            }
        }
        Ok(())
    }

    /// Adds whatever is at `path` on the host: the tree of a directory, the entries of an archive.
    ///
    /// # Errors
    /// [`Error::File`] where that cannot be read or is neither.
    pub fn add(&mut self, path: &Path) -> Result<()> {
        if fs::metadata(path).map_err(unreadable(path))?.is_dir() {
            return self.add_tree(path);
        }
        self.add_archive(path, &fs::read(path).map_err(unreadable(path))?)
    }

    /// The regular file at an absolute path, symbolic links followed: its path and its data.
    pub fn file(&self, path: impl AsRef<OsStr>) -> Option<(Vec<u8>, &[u8])> {
        let mut rest = normal(path.as_ref().as_bytes());
        'links: for _ in 0..LINKS_MAX {
            let parts: Vec<_> = rest.split(|&byte| byte == b'/').map(<[u8]>::to_vec).collect();
            let mut here: Vec<u8> = Vec::new();
            for (index, part) in parts.iter().enumerate() {
                if part == b".." {
                    here.truncate(here.iter().rposition(|&byte| byte == b'/').unwrap_or(0));
                    continue;
                }
                let parent = here.clone();
                here = join(&parent, part);
                match self.nodes.get(&here)? {
                    Node::Directory { .. } => {}
                    Node::File { data, .. } => {
                        return (index + 1 == parts.len()).then_some((join(b"/", &here), data));
                    }
                    Node::Symlink { target } => {
                        let base = if target.starts_with(b"/") { b"" } else { &parent[..] };
                        let behind = parts[index + 1..].join(&b'/');
                        rest = normal(&join(&join(base, target), &behind));
                        continue 'links;
                    }
                }
            }
            return None;
        }
        None
    }

    /// The archive's bytes.
    pub fn archive(&self) -> Vec<u8> {
        let mut links: HashMap<*const Vec<u8>, Link> = HashMap::new();
        for node in self.nodes.values() {
            if let Node::File { data, .. } = node {
                links.entry(Arc::as_ptr(data)).or_default().count += 1;
            }
        }
        let mut out = Vec::new();
        for (inode, (path, node)) in (1..).zip(&self.nodes) {
            match node {
                Node::Directory { permissions } => {
                    write_entry(&mut out, path, DIRECTORY | permissions, inode, 2, b"");
                }
                Node::Symlink { target } => {
                    write_entry(&mut out, path, SYMLINK | 0o777, inode, 1, target);
                }
                Node::File { permissions, data } => {
                    let link = links.entry(Arc::as_ptr(data)).or_default();
                    link.seen += 1;
                    let inode = *link.inode.get_or_insert(inode);
                    // The last of the links has the data.
                    let data = if link.seen == link.count { &data[..] } else { b"" };
                    write_entry(&mut out, path, REGULAR | permissions, inode, link.count, data);
                }
            }
        }
        write_entry(&mut out, TRAILER, 0, 0, 1, b"");
        out
    }

    /// Puts a node at a normal path, and directories above it where there are none.
    fn insert(&mut self, path: Vec<u8>, node: Node) {
        if path.is_empty() {
            return;
        }
        for (at, _) in path.iter().enumerate().filter(|&(_, &byte)| byte == b'/') {
            if &path[..at] != INSTRUCTIONS.as_bytes() {
                let above = self.nodes.entry(path[..at].to_vec());
                above.or_insert(Node::Directory { permissions: 0o755 });
            }
        }
        self.nodes.insert(path, node);
    }
}

/// The hard links of one file, while an archive is written.
#[derive(Default)]
struct Link {
    count: u32,
    seen: u32,
    inode: Option<u32>,
}

fn write_entry(out: &mut Vec<u8>, path: &[u8], mode: u32, inode: u32, links: u32, data: &[u8]) {
    let name_at = out.len() + HEADER_BYTES;
    let mut name_len = path.len() + 1;
    if data.len() >= PAGE_BYTES {
        name_len = (name_at + name_len).next_multiple_of(PAGE_BYTES) - name_at;
    }
    out.extend_from_slice(MAGIC);
    let len = data.len() as u32;
    // ino mode uid gid nlink mtime filesize devmajor devminor rdevmajor rdevminor namesize check
    for field in [inode, mode, 0, 0, links, 0, len, 0, 0, 0, 0, name_len as u32, 0] {
        out.extend_from_slice(format!("{field:08x}").as_bytes());
    }
    out.extend_from_slice(path);
    out.resize((name_at + name_len).next_multiple_of(4), 0);
    out.extend_from_slice(data);
    out.resize(out.len().next_multiple_of(4), 0);
}

/// The path without leading, trailing and doubled slashes and without `.`.
fn normal(path: &[u8]) -> Vec<u8> {
    let parts = path.split(|&byte| byte == b'/').filter(|part| !part.is_empty() && *part != b".");
    parts.collect::<Vec<_>>().join(&b'/')
}

fn join(base: &[u8], name: &[u8]) -> Vec<u8> {
    match base {
        b"" => name.to_vec(),
        b"/" => [base, name].concat(),
        _ => [base, b"/", name].concat(),
    }
}

fn unreadable(path: &Path) -> impl FnOnce(std::io::Error) -> Error {
    move |error| Error::File { what: "bundle", path: path.into(), problem: error.to_string() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::process::{Command, Stdio};

    fn sample() -> Bundle {
        let mut bundle = Bundle::new();
        bundle.add_file("/bin/tool", 0o755, vec![7; 10_000]);
        bundle.add_file("etc/motd", 0o644, b"hello\n".to_vec());
        bundle.add_directory("/tmp", 0o1777);
        bundle.instruct("argv", ["/bin/tool", "-x"]);
        bundle
    }

    #[test]
    fn archives_come_back() {
        let bundle = sample();
        let bytes = bundle.archive();
        let mut again = Bundle::new();
        again.add_archive(Path::new("a"), &bytes).unwrap();
        assert!(again.archive() == bytes);
        assert_eq!(again.file("/bin/../bin/tool").unwrap().1, vec![7; 10_000]);
        let Node::File { data, .. } = &again.nodes[&b".orrery/argv"[..]] else { panic!() };
        assert_eq!(data[..], b"/bin/tool\0-x\0"[..]);
        assert!(again.file("/bin").is_none() && again.file("/bin/tool/x").is_none());
    }

    #[test]
    fn large_files_begin_at_a_page() {
        let mut bundle = sample();
        bundle.add_file("/b", 0o644, vec![9; 4096]);
        let bytes = bundle.archive();
        for fill in [7u8, 9] {
            let at = bytes.windows(4096).position(|page| page.iter().all(|&it| it == fill));
            assert_eq!(at.unwrap() % 4096, 0, "{fill}");
        }
    }

    #[test]
    fn trees_keep_modes_and_links() {
        let dir = tempfile::tempdir().unwrap();
        let path = |name: &str| dir.path().join(name);
        fs::create_dir(path("bin")).unwrap();
        fs::write(path("bin/one"), vec![1; 5000]).unwrap();
        fs::set_permissions(path("bin/one"), fs::Permissions::from_mode(0o750)).unwrap();
        fs::hard_link(path("bin/one"), path("bin/two")).unwrap();
        std::os::unix::fs::symlink("bin", path("sbin")).unwrap();
        std::os::unix::fs::symlink("/sbin/two", path("init")).unwrap();
        let mut bundle = Bundle::new();
        bundle.add(dir.path()).unwrap();
        let bytes = bundle.archive();
        assert!(bytes.len() < 3 * 5000, "the link's data is there once");
        let mut again = Bundle::new();
        again.add_archive(Path::new("a"), &bytes).unwrap();
        let (path, data) = again.file("/init").unwrap();
        assert_eq!((path.as_slice(), data), (&b"/bin/two"[..], &[1; 5000][..]));
        assert!(matches!(again.nodes[&b"bin/one"[..]], Node::File { permissions: 0o750, .. }));
        assert!(again.archive() == bytes);
    }

    #[test]
    fn what_cpio_writes_is_read() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("a"), b"data").unwrap();
        fs::hard_link(dir.path().join("a"), dir.path().join("b")).unwrap();
        let child = Command::new("cpio")
            .args(["-o", "-H", "newc", "--quiet"])
            .current_dir(dir.path())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn();
        // Not every host has it.
        let Ok(mut child) = child else { return };
        std::io::Write::write_all(&mut child.stdin.take().unwrap(), b"a\nb\n").unwrap();
        let bytes = child.wait_with_output().unwrap().stdout;
        let mut bundle = Bundle::new();
        bundle.add_archive(Path::new("x"), &bytes).unwrap();
        assert_eq!(bundle.file("a").unwrap().1, b"data");
        assert_eq!(bundle.file("b").unwrap().1, b"data");
    }

    #[test]
    fn damage_is_named() {
        let bytes = sample().archive();
        let refused = |bytes: &[u8], words: &str| {
            let error = Bundle::new().add_archive(Path::new("x.cpio"), bytes).unwrap_err();
            let text = error.to_string();
            assert!(text.contains(words) && text.contains("x.cpio"), "{text}");
        };
        refused(b"", "cut off");
        refused(b"#!/bin/sh", "newc");
        refused(&[b'x'; 200], "newc");
        refused(&bytes[..bytes.len() - 50], "cut off");
        refused(&bytes[..9000], "cut off");
        let mut evil = Vec::new();
        write_entry(&mut evil, b"../x", REGULAR, 1, 1, b"");
        refused(&evil, "..");
        let error = Bundle::new().add(Path::new("/no/such/thing")).unwrap_err().to_string();
        assert!(error.contains("/no/such/thing"), "{error}");
    }

    #[test]
    fn loops_of_links_lead_nowhere() {
        let mut bundle = Bundle::new();
        bundle.insert(b"a".to_vec(), Node::Symlink { target: b"/b".to_vec() });
        bundle.insert(b"b".to_vec(), Node::Symlink { target: b"a".to_vec() });
        assert!(bundle.file("/a").is_none());
    }

    proptest! {
        #[test]
        fn no_bytes_panic(bytes: Vec<u8>, at: prop::sample::Index, change: u8) {
            let _ = Bundle::new().add_archive(Path::new("x"), &bytes);
            let mut archive = sample().archive();
            let at = at.index(archive.len());
            archive[at] ^= change;
            let _ = Bundle::new().add_archive(Path::new("x"), &archive);
        }
    }
}
