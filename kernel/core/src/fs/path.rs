//! Walks a path component by component (path_resolution(7)).
//!
//! A [`Walk`] has the components that are still to come. A symbolic link's target is put before them by
//! [`Walk::follow`]; it is kept as it is, so that nothing is copied and what a walk may keep is bounded by the
//! number of links that may be followed.

use alloc::sync::Arc;
use alloc::vec::Vec;

use crate::errno::Errno;

/// Longest path with its NUL, in bytes (`PATH_MAX`).
pub const MAX_PATH_BYTES: usize = linux_raw_sys::general::PATH_MAX as usize;
/// Longest name in a directory, in bytes (`NAME_MAX`).
pub const MAX_NAME_BYTES: usize = linux_raw_sys::general::NAME_MAX as usize;
/// Symbolic links that one walk follows at most (`MAXSYMLINKS` of Linux).
pub const MAX_LINKS: u32 = 40;

/// One step of a walk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Component<'a> {
    /// `.`
    Current,
    /// `..`
    Parent,
    /// A name in the directory.
    Name(&'a [u8]),
}

/// What is left of a path.
#[derive(Debug)]
pub struct Walk<'a> {
    path: &'a [u8],
    /// Targets of links, the innermost last, each with the offset of what is left of it.
    targets: Vec<(Arc<[u8]>, usize)>,
    followed: u32,
}

/// Splits off the slashes at the beginning.
fn without_slashes(path: &[u8]) -> &[u8] {
    let slashes = path.iter().take_while(|&&byte| byte == b'/').count();
    &path[slashes..]
}

impl<'a> Walk<'a> {
    /// A walk along `path`, whose first slashes say where it starts and are no components.
    pub fn new(path: &'a [u8]) -> Self {
        Self { path, targets: Vec::new(), followed: 0 }
    }

    /// Whether a path starts at the root.
    pub fn is_absolute(path: &[u8]) -> bool {
        path.first() == Some(&b'/')
    }

    /// The next component.
    ///
    /// # Errors
    /// `ENAMETOOLONG`.
    pub fn step(&mut self) -> Result<Option<Component<'_>>, Errno> {
        while let Some((target, at)) = self.targets.last() {
            if without_slashes(&target[*at..]).is_empty() {
                self.targets.pop();
            } else {
                break;
            }
        }
        let name = if let Some((target, at)) = self.targets.last_mut() {
            let rest = without_slashes(&target[*at..]);
            let len = name_len(rest);
            let start = target.len() - rest.len();
            *at = start + len;
            &target[start..start + len]
        } else {
            let rest = without_slashes(self.path);
            let (name, rest) = rest.split_at(name_len(rest));
            self.path = rest;
            name
        };
        match name {
            b"" => Ok(None),
            b"." => Ok(Some(Component::Current)),
            b".." => Ok(Some(Component::Parent)),
            _ if name.len() > MAX_NAME_BYTES => Err(Errno::ENAMETOOLONG),
            _ => Ok(Some(Component::Name(name))),
        }
    }

    /// Whether the component that came last was the last one.
    pub fn is_at_end(&self) -> bool {
        self.rests().all(|rest| without_slashes(rest).is_empty())
    }

    /// Whether slashes follow the last component: it must be a directory. Only where [`Self::is_at_end`].
    pub fn wants_directory(&self) -> bool {
        self.rests().any(|rest| !rest.is_empty())
    }

    /// Goes on with a symbolic link's target before what is left.
    ///
    /// # Errors
    /// `ELOOP` after too many links; `ENOENT` if the target is empty.
    pub fn follow(&mut self, target: Arc<[u8]>) -> Result<(), Errno> {
        self.count_link()?;
        if target.is_empty() {
            return Err(Errno::ENOENT);
        }
        self.targets.push((target, 0));
        Ok(())
    }

    /// Counts a link that leads to its end directly, without a path.
    ///
    /// # Errors
    /// `ELOOP` after too many links.
    pub fn count_link(&mut self) -> Result<(), Errno> {
        self.followed += 1;
        if self.followed > MAX_LINKS { Err(Errno::ELOOP) } else { Ok(()) }
    }

    fn rests(&self) -> impl Iterator<Item = &[u8]> {
        self.targets.iter().map(|(target, at)| &target[*at..]).chain([self.path])
    }
}

fn name_len(path: &[u8]) -> usize {
    path.iter().position(|&byte| byte == b'/').unwrap_or(path.len())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::string::String;

    fn all(path: &[u8]) -> Vec<Vec<u8>> {
        let mut walk = Walk::new(path);
        let mut names = Vec::new();
        while let Some(component) = walk.step().unwrap() {
            names.push(match component {
                Component::Current => b".".to_vec(),
                Component::Parent => b"..".to_vec(),
                Component::Name(name) => name.to_vec(),
            });
        }
        names
    }

    #[test]
    fn slashes_only_separate() {
        assert_eq!(all(b"//a/./b///../c//"), [&b"a"[..], b".", b"b", b"..", b"c"]);
        assert!(all(b"/").is_empty());
        assert!(all(b"").is_empty());
    }

    #[test]
    fn the_end_and_its_slash_are_seen_through_links() {
        let mut walk = Walk::new(b"a/link");
        assert_eq!(walk.step(), Ok(Some(Component::Name(b"a"))));
        assert!(!walk.is_at_end());
        assert_eq!(walk.step(), Ok(Some(Component::Name(b"link"))));
        assert!(walk.is_at_end() && !walk.wants_directory());
        walk.follow(Arc::from(&b"x/y/"[..])).unwrap();
        assert!(!walk.is_at_end());
        assert_eq!(walk.step(), Ok(Some(Component::Name(b"x"))));
        assert_eq!(walk.step(), Ok(Some(Component::Name(b"y"))));
        assert!(walk.is_at_end() && walk.wants_directory());
        assert_eq!(walk.step(), Ok(None));
    }

    #[test]
    fn links_are_limited() {
        let mut walk = Walk::new(b"");
        let target: Arc<[u8]> = Arc::from(&b"a"[..]);
        for _ in 0..MAX_LINKS {
            walk.follow(target.clone()).unwrap();
        }
        assert_eq!(walk.follow(target), Err(Errno::ELOOP));
        assert_eq!(Walk::new(b"").follow(Arc::from(&b""[..])), Err(Errno::ENOENT));
        assert_eq!(Walk::new(&[b'a'; 256]).step(), Err(Errno::ENAMETOOLONG));
        assert!(Walk::new(&[b'a'; 255]).step().is_ok());
    }

    proptest! {
        /// A walk with links sees what a walk along the pasted path sees.
        #[test]
        fn following_is_pasting(path in "[/a.]{0,12}", target in "[/b.]{1,6}", at in 0..4usize) {
            let mut walk = Walk::new(path.as_bytes());
            let mut seen = Vec::new();
            let mut pasted = Vec::new();
            let mut steps = 0;
            loop {
                let name = match walk.step().unwrap() {
                    None => break,
                    Some(Component::Current) => String::from("."),
                    Some(Component::Parent) => String::from(".."),
                    Some(Component::Name(name)) => String::from_utf8(name.to_vec()).unwrap(),
                };
                if steps == at {
                    walk.follow(Arc::from(target.as_bytes())).unwrap();
                } else {
                    seen.push(name.into_bytes());
                }
                steps += 1;
            }
            let mut names = all(path.as_bytes());
            if at < names.len() {
                let rest = names.split_off(at + 1);
                names.pop();
                pasted.extend(names);
                pasted.extend(all(target.as_bytes()));
                pasted.extend(rest);
            } else {
                pasted = names;
            }
            prop_assert_eq!(seen, pasted);
        }
    }
}
