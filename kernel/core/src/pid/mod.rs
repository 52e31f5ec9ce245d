//! PIDs: numbers for tasks, one in each namespace that sees them.
//!
//! A [`Pid`] belongs to a namespace and has a number there and in every namespace above, up to the
//! root. It refers to a *subject* `T`, in the kernel a task. Its life:
//!
//! 1. [`OwnedPid::reserve`] takes a number at every level; none of them is found yet. If one level
//!    refuses (limit reached, number taken, out of memory), those taken before are given back.
//! 2. [`OwnedPid::publish`] sets the subject and lets lookups find the numbers.
//! 3. [`OwnedPid::free`] gives the numbers back at once, and the memory after a grace period, since
//!    a lookup may still read it.
//!
//! Changes take the [`Writer`], which the kernel has under one lock for all namespaces. Lookups
//! take none, and are valid for a read-side section.
//!
//! Numbers are given out as Linux does: upwards from the last, from `pid_max` on again from
//! [`RESERVED_PIDS`]; the first in a namespace is 1.
//!
//! Neighbours: [`crate::idr`], [`crate::epoch`]; [`namespace`] has the tree.

use alloc::alloc::{Layout, alloc, dealloc};
use core::fmt;
use core::ptr::{self, NonNull};

use crate::epoch::{Callback, Deferred};
use crate::idr::{IdrError, Writer};
use crate::shim::{AtomicPtr, Ordering};

#[cfg(all(test, loom))]
mod loom_tests;
mod namespace;
#[cfg(all(test, not(loom)))]
mod tests;

pub use namespace::{NamespaceRef, PidNamespace};

/// Deepest level of a namespace; the root has level 0.
pub const MAX_LEVEL: u32 = 32;
/// After the first round, numbers below this are not given out again.
pub const RESERVED_PIDS: u32 = 300;
/// Largest `pid_max`, as on 64-bit Linux.
pub const PID_MAX_LIMIT: u32 = 1 << 22;
/// The usual `pid_max`.
pub const PID_MAX_DEFAULT: u32 = 32768;

/// Why a PID or a namespace could not be had. Nothing has changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PidError {
    /// All numbers below the `pid_max` of the namespace at this level are in use.
    LimitReached {
        /// Its level.
        level: u32,
    },
    /// The chosen number is in use.
    Taken {
        /// Level of the namespace.
        level: u32,
        /// The number.
        number: u32,
    },
    /// The chosen number is 0 or not below `pid_max`, or is not 1 although it is the first.
    InvalidNumber {
        /// Level of the namespace.
        level: u32,
        /// The number.
        number: u32,
    },
    /// More numbers were chosen than there are levels.
    TooManyNumbers,
    /// PID 1 of the namespace at this level has ended.
    Dying {
        /// Its level.
        level: u32,
    },
    /// The namespace would be deeper than [`MAX_LEVEL`].
    TooDeep,
    /// A `pid_max` outside of 2..=[`PID_MAX_LIMIT`].
    InvalidLimit(u32),
    /// Memory is exhausted.
    OutOfMemory,
}

impl PidError {
    fn at_level(error: IdrError, level: u32, number: u32) -> Self {
        match error {
            IdrError::Full => Self::LimitReached { level },
            IdrError::Taken => Self::Taken { level, number },
            IdrError::OutOfMemory => Self::OutOfMemory,
        }
    }
}

impl fmt::Display for PidError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Self::LimitReached { level } => {
                write!(f, "the PID namespace at level {level} has no free number: raise pid_max")
            }
            Self::Taken { level, number } => {
                write!(f, "PID {number} is in use in the namespace at level {level}")
            }
            Self::InvalidNumber { level, number } => {
                write!(f, "PID {number} cannot be chosen in the namespace at level {level}")
            }
            Self::TooManyNumbers => f.write_str("more PIDs chosen than there are namespace levels"),
            Self::Dying { level } => {
                write!(f, "PID 1 of the namespace at level {level} has ended")
            }
            Self::TooDeep => write!(f, "PID namespaces nest {MAX_LEVEL} deep at most"),
            Self::InvalidLimit(limit) => {
                write!(f, "pid_max {limit} is not in 2..={PID_MAX_LIMIT}")
            }
            Self::OutOfMemory => f.write_str("out of memory for a PID"),
        }
    }
}

impl core::error::Error for PidError {}

/// A task's numbers. Found by lookups; allocated and freed through [`OwnedPid`].
///
/// The numbers, `level + 1` of them, lie behind the structure in the same allocation.
#[derive(Debug)]
#[repr(C)]
pub struct Pid<T> {
    callback: Callback,
    namespace: NamespaceRef<T>,
    subject: AtomicPtr<T>,
    /// One number per level, the root's first. The pointer covers the whole allocation.
    numbers: NonNull<u32>,
}

// SAFETY: atomics, a `NamespaceRef`, a pointer into its own allocation, and a callback that only
// the owner of an unlinked `Pid` touches. `T` is only pointed to.
unsafe impl<T> Send for Pid<T> {}
// SAFETY: as above; the numbers do not change while the `Pid` is shared.
unsafe impl<T> Sync for Pid<T> {}

impl<T> Pid<T> {
    /// The innermost namespace it is in.
    pub fn namespace(&self) -> &NamespaceRef<T> {
        &self.namespace
    }

    /// Its numbers, the root's first.
    pub fn numbers(&self) -> &[u32] {
        // SAFETY: `level + 1` initialised numbers, from `allocate`, that live as long as `self`.
        unsafe {
            core::slice::from_raw_parts(self.numbers.as_ptr(), self.namespace.level() as usize + 1)
        }
    }

    /// Its number in the root namespace.
    #[inline]
    pub fn number(&self) -> u32 {
        // SAFETY: there is always a number for level 0.
        unsafe { self.numbers.read() }
    }

    /// Its number as seen from `namespace`, if it is seen there.
    pub fn number_in(&self, namespace: &PidNamespace<T>) -> Option<u32> {
        let seen_as = self.namespace.ancestor(namespace.level())?;
        ptr::eq(seen_as, namespace).then(|| self.numbers()[namespace.level() as usize])
    }

    /// What it refers to, once it is published.
    #[inline]
    pub fn subject(&self) -> Option<NonNull<T>> {
        NonNull::new(self.subject.load(Ordering::Acquire))
    }

    fn layout(level: u32) -> (Layout, usize) {
        Layout::array::<u32>(level as usize + 1)
            .and_then(|numbers| Layout::new::<Self>().extend(numbers))
            .expect("33 numbers are few")
    }

    /// A PID with all numbers 0; `None` when memory is exhausted.
    fn allocate(writer: &mut Writer, namespace: NamespaceRef<T>) -> Option<NonNull<Self>> {
        if !writer.may_allocate() {
            return None;
        }
        let count = namespace.level() as usize + 1;
        let (layout, numbers_at) = Self::layout(namespace.level());
        // SAFETY: the layout is not zero-sized.
        let memory = NonNull::new(unsafe { alloc(layout) })?;
        // SAFETY: the numbers lie in the allocation, at their alignment; so does the structure.
        unsafe {
            let numbers = memory.add(numbers_at).cast::<u32>();
            numbers.write_bytes(0, count);
            memory.cast::<Self>().write(Self {
                callback: Callback::new(),
                namespace,
                subject: AtomicPtr::new(ptr::null_mut()),
                numbers,
            });
        }
        Some(memory.cast())
    }

    /// Frees it, as the epoch does.
    ///
    /// # Safety
    /// `callback` is that of a `Pid<T>` from [`allocate`](Self::allocate), with the provenance of
    /// the allocation, that nobody can reach any more.
    unsafe fn release(callback: NonNull<Callback>) {
        let pid = callback.cast::<Self>();
        // Loom checks that this is ordered after every lookup that read the PID.
        #[cfg(loom)]
        // SAFETY: still allocated, and ours alone (contract).
        unsafe { &mut (*pid.as_ptr()).subject }.with_mut(|subject| *subject = ptr::null_mut());
        // SAFETY: ours alone, and not used afterwards (contract).
        unsafe {
            let (layout, _) = Self::layout(pid.as_ref().namespace.level());
            ptr::drop_in_place(pid.as_ptr());
            dealloc(pid.as_ptr().cast(), layout);
        }
    }
}

/// The right to publish and to free a [`Pid`]. It must end in [`free`](Self::free): dropped, it
/// leaks its numbers.
#[derive(Debug)]
#[must_use = "a PID that is not freed keeps its numbers for ever"]
pub struct OwnedPid<T> {
    pid: NonNull<Pid<T>>,
}

// SAFETY: a unique handle to a `Pid`, which is `Send` and `Sync`.
unsafe impl<T> Send for OwnedPid<T> {}
// SAFETY: as above; shared, it only lends `&Pid`.
unsafe impl<T> Sync for OwnedPid<T> {}

impl<T> OwnedPid<T> {
    /// Takes a number in `namespace` and in all above. `chosen` has the numbers to take, for the
    /// innermost namespace first, as `clone3`'s `set_tid`; levels it does not reach get the next
    /// free one.
    ///
    /// # Errors
    /// A [`PidError`] that says which level refused.
    pub fn reserve(
        writer: &mut Writer,
        deferred: &mut Deferred,
        namespace: &NamespaceRef<T>,
        chosen: &[u32],
    ) -> Result<Self, PidError> {
        let levels = namespace.level() as usize + 1;
        if chosen.len() > levels {
            return Err(PidError::TooManyNumbers);
        }
        let pid = Pid::allocate(writer, namespace.clone()).ok_or(PidError::OutOfMemory)?;
        let mut owned = Self { pid };
        let mut at: &PidNamespace<T> = namespace;
        for nth in 0..levels {
            match at.reserve(writer, chosen.get(nth).copied()) {
                Ok(number) => owned.set_number(at.level(), number),
                Err(error) => {
                    owned.free(writer, deferred);
                    return Err(error);
                }
            }
            if let Some(parent) = at.parent() {
                at = parent;
            }
        }
        Ok(owned)
    }

    fn set_number(&mut self, level: u32, number: u32) {
        // SAFETY: `level` is that of the namespace or of one above, so it lies in the array, and an
        // unpublished PID is not shared.
        unsafe { self.pid.as_ref().numbers.add(level as usize).write(number) };
    }

    /// Sets what it refers to, and lets lookups find it in all its namespaces.
    ///
    /// # Errors
    /// [`PidError::Dying`] if a namespace began to die since the numbers were taken. Then none is
    /// published, and the caller frees the PID.
    pub fn publish(&self, writer: &mut Writer, subject: NonNull<T>) -> Result<(), PidError> {
        let mut at = Some(&self.namespace);
        while let Some(namespace) = at {
            if namespace.is_dying() {
                return Err(PidError::Dying { level: namespace.level() });
            }
            at = namespace.parent();
        }
        self.subject.store(subject.as_ptr(), Ordering::Release);
        let mut at = Some(&self.namespace);
        while let Some(namespace) = at {
            let number = self.numbers()[namespace.level() as usize];
            namespace.idr.publish(writer, number, self.pid);
            at = namespace.parent();
        }
        Ok(())
    }

    /// Gives the numbers back at every level: lookups that begin now do not find it. The memory, and
    /// its hold on the namespace, go after a grace period.
    pub fn free(self, writer: &mut Writer, deferred: &mut Deferred) {
        let mut at = Some(&self.namespace);
        while let Some(namespace) = at {
            // 0: reservation ended before this level.
            let number = self.numbers()[namespace.level() as usize];
            if number != 0 {
                namespace.idr.remove(writer, number, deferred);
                namespace.forget();
            }
            at = namespace.parent();
        }
        // SAFETY: unlinked at every level, and `self` was the only handle; the pointer is the one
        // that `allocate` returned.
        unsafe { deferred.defer(self.pid.cast(), Pid::<T>::release) };
    }
}

impl<T> core::ops::Deref for OwnedPid<T> {
    type Target = Pid<T>;

    fn deref(&self) -> &Pid<T> {
        // SAFETY: valid until `free`, which takes the handle.
        unsafe { self.pid.as_ref() }
    }
}
