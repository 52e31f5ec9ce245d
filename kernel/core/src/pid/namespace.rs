//! PID namespaces: a tree in which each has its own numbers.

use alloc::alloc::{Layout, alloc, dealloc};
use core::ops::Deref;
use core::ptr::{self, NonNull};
use core::sync::atomic::{AtomicBool, AtomicPtr, AtomicU32, Ordering, fence};

use crate::epoch::{Deferred, ReadSide};
use crate::idr::{Idr, Writer};

use super::{MAX_LEVEL, PID_MAX_LIMIT, Pid, PidError, RESERVED_PIDS};

/// One PID namespace. Reached through a [`NamespaceRef`].
///
/// The fields below `idr` are changed with the [`Writer`] in hand.
#[derive(Debug)]
pub struct PidNamespace<T> {
    references: AtomicU32,
    level: u32,
    parent: Option<NamespaceRef<T>>,
    reaper: AtomicPtr<T>,

    pub(super) idr: Idr<Pid<T>>,
    /// One above the number that was allocated last.
    cursor: AtomicU32,
    /// One above the largest number.
    pid_max: AtomicU32,
    live: AtomicU32,
    dying: AtomicBool,
}

/// A counted reference to a namespace, which holds its parents as well. The last one frees it: it
/// has no PIDs then, since each of them holds a reference.
#[derive(Debug)]
pub struct NamespaceRef<T> {
    namespace: NonNull<PidNamespace<T>>,
}

// SAFETY: a namespace is made of atomics and other `NamespaceRef`s. `T` is only pointed to, and the
// pointer is handed out, never followed.
unsafe impl<T> Send for NamespaceRef<T> {}
// SAFETY: as above.
unsafe impl<T> Sync for NamespaceRef<T> {}

impl<T> NamespaceRef<T> {
    /// The namespace that all others descend from.
    ///
    /// # Errors
    /// [`PidError::OutOfMemory`]; [`PidError::InvalidLimit`] for a `pid_max` outside of
    /// 2..=[`PID_MAX_LIMIT`].
    pub fn new_root(writer: &mut Writer, pid_max: u32) -> Result<Self, PidError> {
        check_limit(pid_max)?;
        Self::new(writer, None, pid_max)
    }

    /// An empty namespace below this one, with the same limit. Its first PID will be 1.
    ///
    /// # Errors
    /// [`PidError::OutOfMemory`]; [`PidError::TooDeep`] below level [`MAX_LEVEL`];
    /// [`PidError::Dying`].
    pub fn new_child(&self, writer: &mut Writer) -> Result<Self, PidError> {
        if self.level == MAX_LEVEL {
            return Err(PidError::TooDeep);
        }
        if self.is_dying() {
            return Err(PidError::Dying { level: self.level });
        }
        Self::new(writer, Some(self.clone()), self.pid_max())
    }

    fn new(writer: &mut Writer, parent: Option<Self>, pid_max: u32) -> Result<Self, PidError> {
        if !writer.may_allocate() {
            return Err(PidError::OutOfMemory);
        }
        // SAFETY: a namespace is not zero-sized.
        let memory = unsafe { alloc(Layout::new::<PidNamespace<T>>()) };
        let namespace =
            NonNull::new(memory.cast::<PidNamespace<T>>()).ok_or(PidError::OutOfMemory)?;
        let value = PidNamespace {
            references: AtomicU32::new(1),
            level: parent.as_ref().map_or(0, |parent| parent.level + 1),
            parent,
            reaper: AtomicPtr::new(ptr::null_mut()),
            idr: Idr::new(),
            cursor: AtomicU32::new(1),
            pid_max: AtomicU32::new(pid_max),
            live: AtomicU32::new(0),
            dying: AtomicBool::new(false),
        };
        // SAFETY: freshly allocated with this layout.
        unsafe { namespace.write(value) };
        Ok(Self { namespace })
    }

    /// Whether both mean the same namespace.
    pub fn is(&self, other: &PidNamespace<T>) -> bool {
        ptr::eq(self.namespace.as_ptr(), other)
    }
}

impl<T> Clone for NamespaceRef<T> {
    fn clone(&self) -> Self {
        let before = self.references.fetch_add(1, Ordering::Relaxed);
        assert!(before < 1 << 31, "a PID namespace with {before} references: a leak");
        Self { namespace: self.namespace }
    }
}

impl<T> Deref for NamespaceRef<T> {
    type Target = PidNamespace<T>;

    fn deref(&self) -> &PidNamespace<T> {
        // SAFETY: a counted reference keeps it allocated; it is only ever borrowed shared.
        unsafe { self.namespace.as_ref() }
    }
}

impl<T> Drop for NamespaceRef<T> {
    fn drop(&mut self) {
        // Release: what was done through this reference happens before the free; the fence acquires
        // the same from all others.
        if self.references.fetch_sub(1, Ordering::Release) != 1 {
            return;
        }
        fence(Ordering::Acquire);
        debug_assert_eq!(self.live(), 0, "a PID outlived its namespace");
        // SAFETY: that was the last reference, so it is ours alone; from `new`'s allocation.
        unsafe {
            ptr::drop_in_place(self.namespace.as_ptr());
            dealloc(self.namespace.as_ptr().cast(), Layout::new::<PidNamespace<T>>());
        }
    }
}

impl<T> PidNamespace<T> {
    /// Frees memory that is kept for numbers to come.
    pub fn trim(&self, writer: &mut Writer, deferred: &mut Deferred) {
        self.idr.trim(writer, deferred);
    }

    /// Its depth: 0 for the root.
    pub fn level(&self) -> u32 {
        self.level
    }

    /// The namespace it was made in.
    pub fn parent(&self) -> Option<&NamespaceRef<T>> {
        self.parent.as_ref()
    }

    /// The namespace at `level` on the way to the root, itself included.
    pub fn ancestor(&self, level: u32) -> Option<&Self> {
        let mut namespace = self;
        while namespace.level > level {
            namespace = namespace.parent()?;
        }
        (namespace.level == level).then_some(namespace)
    }

    /// One above the largest number it gives out.
    pub fn pid_max(&self) -> u32 {
        self.pid_max.load(Ordering::Relaxed)
    }

    /// Changes the limit. Numbers beyond it that are in use stay so.
    ///
    /// # Errors
    /// [`PidError::InvalidLimit`] outside of 2..=[`PID_MAX_LIMIT`].
    pub fn set_pid_max(&self, _writer: &mut Writer, pid_max: u32) -> Result<(), PidError> {
        check_limit(pid_max)?;
        self.pid_max.store(pid_max, Ordering::Relaxed);
        Ok(())
    }

    /// Numbers in use, those of descendants included.
    pub fn live(&self) -> u32 {
        self.live.load(Ordering::Relaxed)
    }

    /// What inherits orphans: the subject of PID 1, once there is one.
    pub fn reaper(&self) -> Option<NonNull<T>> {
        NonNull::new(self.reaper.load(Ordering::Acquire))
    }

    /// Sets or clears what inherits orphans.
    pub fn set_reaper(&self, _writer: &mut Writer, reaper: Option<NonNull<T>>) {
        let reaper = reaper.map_or(ptr::null_mut(), NonNull::as_ptr);
        self.reaper.store(reaper, Ordering::Release);
    }

    /// Its PID 1 ends: from now on it takes no new PIDs. There is no way back.
    pub fn begin_dying(&self, _writer: &mut Writer) {
        self.dying.store(true, Ordering::Relaxed);
    }

    /// Whether its PID 1 has ended.
    pub fn is_dying(&self) -> bool {
        self.dying.load(Ordering::Relaxed)
    }

    /// The PID that has this number here. It takes no lock.
    #[inline]
    pub fn lookup<'s>(&self, number: u32, section: &'s ReadSide) -> Option<&'s Pid<T>> {
        let pid = self.idr.lookup(number, section)?;
        // SAFETY: published PIDs are valid, and freed after a grace period at the earliest, which
        // cannot end while the section lasts.
        Some(unsafe { pid.as_ref() })
    }

    /// The PID with the lowest number from `from` on. It takes no lock; a walk finds every PID that
    /// is there from its beginning to its end.
    pub fn next<'s>(&self, from: u32, section: &'s ReadSide) -> Option<(u32, &'s Pid<T>)> {
        let (number, pid) = self.idr.next(from, section)?;
        // SAFETY: as in `lookup`.
        Some((number, unsafe { pid.as_ref() }))
    }

    /// Takes a number: `wanted`, or the next one as Linux counts. After the largest it goes on at
    /// [`RESERVED_PIDS`], since the numbers below belong to tasks that live long.
    pub(super) fn reserve(
        &self,
        writer: &mut Writer,
        wanted: Option<u32>,
    ) -> Result<u32, PidError> {
        let level = self.level;
        if self.is_dying() {
            return Err(PidError::Dying { level });
        }
        let cursor = self.cursor.load(Ordering::Relaxed);
        let pid_max = self.pid_max();
        let number = match wanted {
            Some(number) => {
                let first = self.reaper().is_none() && cursor == 1;
                if number == 0 || number >= pid_max || (first && number != 1) {
                    return Err(PidError::InvalidNumber { level, number });
                }
                self.idr
                    .reserve_at(writer, number)
                    .map_err(|error| PidError::at_level(error, level, number))?;
                if first {
                    self.cursor.store(2, Ordering::Relaxed);
                }
                number
            }
            None => {
                let min = if cursor > RESERVED_PIDS { RESERVED_PIDS } else { 1 };
                let number = self
                    .idr
                    .reserve_cyclic(writer, cursor, min, pid_max - 1)
                    .map_err(|error| PidError::at_level(error, level, 0))?;
                self.cursor.store(number + 1, Ordering::Relaxed);
                number
            }
        };
        self.live.fetch_add(1, Ordering::Relaxed);
        Ok(number)
    }

    /// One above the number that was allocated last.
    #[cfg(all(test, not(loom)))]
    pub(super) fn cursor_for_tests(&self) -> u32 {
        self.cursor.load(Ordering::Relaxed)
    }

    /// A number is in use no longer, and not in the map any more.
    pub(super) fn forget(&self) {
        self.live.fetch_sub(1, Ordering::Relaxed);
    }
}

fn check_limit(pid_max: u32) -> Result<(), PidError> {
    if (2..=PID_MAX_LIMIT).contains(&pid_max) {
        Ok(())
    } else {
        Err(PidError::InvalidLimit(pid_max))
    }
}
