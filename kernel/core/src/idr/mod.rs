//! Ids to pointers: a radix tree with 64-way nodes.
//!
//! - The lowest free id is found with one `tzcnt` per level, since every node has a bitmap of the
//!   children that still have a free id.
//! - Lookup and iteration take no lock. They run in a read-side section ([`ReadSide`]); nodes that
//!   become empty are freed through the [`epoch`](crate::epoch).
//! - Changes are made with the one [`Writer`] of the tree, which the kernel keeps under a lock.
//! - An id is first *reserved*: taken, but not found by lookups; then *published* with a value.
//! - When memory runs out nothing has changed and nothing is lost.
//! - Of the leaves that have become empty the last one is kept, since the id that is taken next is mostly a
//!   neighbour: a process whose children come one after the other pays for their leaf once. [`Idr::trim`] frees it.
//!
//! The tree grows at the root: a new root is built above the old one and published with one store,
//! so a lookup that still starts at the old root finds all that was there before. It never becomes
//! lower until it is empty.
//!
//! [`node`] has the nodes; the users are PID namespaces ([`crate::pid`]).

use core::marker::PhantomData;
use core::ptr::{self, NonNull};

use crate::epoch::{Deferred, ReadSide};
use crate::shim::{AtomicPtr, AtomicU64, Ordering, const_unless_loom};

mod node;

#[cfg(all(test, loom))]
mod loom_tests;
#[cfg(all(test, not(loom)))]
mod tests;

use node::{BITS, FULL, MAX_LEVELS, Node, Spare, WAYS};

/// The right to change a group of [`Idr`]s; the kernel keeps one under a lock.
#[derive(Debug)]
pub struct Writer {
    /// Node allocations that still succeed.
    #[cfg(test)]
    pub(crate) allocations_left: usize,
    /// Nodes that searches for a free id have looked at.
    #[cfg(test)]
    pub(crate) visited: usize,
}

impl Writer {
    /// The writer for some trees.
    ///
    /// # Safety
    /// A tree is only ever changed with one and the same writer.
    pub const unsafe fn new() -> Self {
        Self {
            #[cfg(test)]
            allocations_left: usize::MAX,
            #[cfg(test)]
            visited: 0,
        }
    }

    /// Whether the next allocation may be tried: tests make it fail.
    pub(crate) fn may_allocate(&mut self) -> bool {
        #[cfg(test)]
        {
            let left = self.allocations_left.checked_sub(1);
            self.allocations_left = left.unwrap_or(0);
            left.is_some()
        }
        #[cfg(not(test))]
        true
    }

    fn visit(&mut self) {
        #[cfg(test)]
        {
            self.visited += 1;
        }
    }
}

/// Why an id could not be reserved. Nothing has changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum IdrError {
    /// No id in the range is free.
    Full,
    /// The chosen id is taken.
    Taken,
    /// A node could not be allocated.
    OutOfMemory,
}

/// A map from `u32` ids to pointers. It does not own what they point to.
#[derive(Debug)]
pub struct Idr<T> {
    root: AtomicPtr<Node>,
    /// An id of the leaf that is kept though empty, if it still is; [`NONE`] for no leaf. The writer's.
    kept: AtomicU64,
    values: PhantomData<AtomicPtr<T>>,
}

/// No id.
const NONE: u64 = u64::MAX;

/// The nodes from the root to a leaf.
struct Path<'a> {
    nodes: [Option<&'a Node>; MAX_LEVELS],
    len: usize,
}

impl<T> Idr<T> {
    const_unless_loom! {
        /// A map without ids. It allocates when the first one is reserved.
        pub fn new() -> Self {
            Self {
                root: AtomicPtr::new(ptr::null_mut()),
                kept: AtomicU64::new(NONE),
                values: PhantomData,
            }
        }
    }

    /// The value published under `id`. It takes no lock; a value that is published or removed at
    /// the same time is found or not.
    #[inline]
    pub fn lookup(&self, id: u32, _section: &ReadSide) -> Option<NonNull<T>> {
        let leaf = self.leaf(id)?;
        NonNull::new(leaf.slot(leaf.index(id)).load(Ordering::Acquire).cast())
    }

    /// The lowest published id that is at least `from`, with its value. It takes no lock: ids that
    /// are there during the whole iteration are found, others may be.
    pub fn next(&self, from: u32, _section: &ReadSide) -> Option<(u32, NonNull<T>)> {
        let root = self.root()?;
        if root.spans(from) { Self::next_below(root, from) } else { None }
    }

    /// `from` and the result count from the node's first id.
    fn next_below(node: &Node, from: u32) -> Option<(u32, NonNull<T>)> {
        let first = node.index(from);
        let mut candidates = node.present_bits() & (FULL << first);
        while candidates != 0 {
            let index = candidates.trailing_zeros() as usize;
            candidates &= candidates - 1;
            let base = (index as u32) << node.shift;
            if node.is_leaf() {
                let value = node.slot(index).load(Ordering::Acquire).cast();
                if let Some(value) = NonNull::new(value) {
                    return Some((base, value));
                }
            } else if let Some(child) = node.child(index) {
                let from = if index == first { from - base } else { 0 };
                if let Some((id, value)) = Self::next_below(child, from) {
                    return Some((base + id, value));
                }
            }
        }
        None
    }

    /// Takes the lowest free id in `min..=max`.
    ///
    /// # Errors
    /// [`IdrError::Full`], [`IdrError::OutOfMemory`].
    pub fn reserve_lowest(&self, writer: &mut Writer, min: u32, max: u32) -> Result<u32, IdrError> {
        let id = self.lowest_free(writer, min).filter(|&id| id <= max).ok_or(IdrError::Full)?;
        self.claim(writer, id)?;
        Ok(id)
    }

    /// Takes the lowest free id in `cursor..=max`, or else the lowest in `min..=max`.
    ///
    /// # Errors
    /// [`IdrError::Full`], [`IdrError::OutOfMemory`].
    pub fn reserve_cyclic(
        &self,
        writer: &mut Writer,
        cursor: u32,
        min: u32,
        max: u32,
    ) -> Result<u32, IdrError> {
        match self.reserve_lowest(writer, cursor.max(min), max) {
            Err(IdrError::Full) => self.reserve_lowest(writer, min, max),
            result => result,
        }
    }

    /// Takes this id.
    ///
    /// # Errors
    /// [`IdrError::Taken`], [`IdrError::OutOfMemory`].
    pub fn reserve_at(&self, writer: &mut Writer, id: u32) -> Result<(), IdrError> {
        if self.is_taken(id) {
            return Err(IdrError::Taken);
        }
        self.claim(writer, id)
    }

    /// Lets lookups find `value` under the reserved `id`, replacing what was published before. All
    /// that was written to the value before is visible to whoever finds it.
    ///
    /// # Panics
    /// If `id` is not reserved.
    pub fn publish(&self, _writer: &mut Writer, id: u32, value: NonNull<T>) {
        let leaf = self.leaf(id).expect("the id is reserved");
        let index = leaf.index(id);
        assert!(leaf.present_bits() & 1 << index != 0, "id {id} is published but not reserved");
        leaf.slot(index).store(value.as_ptr().cast(), Ordering::Release);
    }

    /// Frees `id` and returns what was published there. Lookups that run at the same time may still
    /// hold it: the caller frees it through the epoch as well.
    pub fn remove(
        &self,
        _writer: &mut Writer,
        id: u32,
        deferred: &mut Deferred,
    ) -> Option<NonNull<T>> {
        let leaf = self.leaf(id)?;
        let index = leaf.index(id);
        if leaf.present_bits() & 1 << index == 0 {
            return None;
        }
        let value = leaf.slot(index).load(Ordering::Relaxed).cast();
        let was_full = leaf.free_bits() == 0;
        leaf.detach(index);
        if leaf.present_bits() == 0 {
            self.keep(id, deferred);
        } else if was_full {
            self.prune(id, deferred);
        }
        NonNull::new(value)
    }

    /// Frees the empty leaf that is kept, if there is one.
    pub fn trim(&self, _writer: &mut Writer, deferred: &mut Deferred) {
        let kept = self.kept.load(Ordering::Relaxed);
        self.kept.store(NONE, Ordering::Relaxed);
        self.unlink_if_empty(kept, deferred);
    }

    /// The leaf of `id` has become empty, and is kept; the one that was kept before is not.
    #[inline]
    fn keep(&self, id: u32, deferred: &mut Deferred) {
        let before = self.kept.load(Ordering::Relaxed);
        if before >> BITS != u64::from(id) >> BITS {
            self.kept.store(id.into(), Ordering::Relaxed);
            self.unlink_if_empty(before, deferred);
        }
    }

    /// Unlinks the leaf of an id that was kept, unless ids have been taken there since.
    fn unlink_if_empty(&self, kept: u64, deferred: &mut Deferred) {
        if let Ok(id) = u32::try_from(kept)
            && self.leaf(id).is_some_and(|leaf| leaf.present_bits() == 0)
        {
            self.prune(id, deferred);
        }
    }

    /// Whether `id` is reserved or published. For the writer.
    fn is_taken(&self, id: u32) -> bool {
        self.leaf(id).is_some_and(|leaf| leaf.present_bits() & 1 << leaf.index(id) != 0)
    }

    fn root(&self) -> Option<&Node> {
        // SAFETY: the root is null or a node that was published by a release store. It is freed
        // after a grace period, and callers are in a read-side section or are the writer.
        unsafe { self.root.load(Ordering::Acquire).as_ref() }
    }

    /// The leaf of `id`, if it has one. In a read-side section, or for the writer.
    #[inline]
    fn leaf(&self, id: u32) -> Option<&Node> {
        let mut node = self.root().filter(|root| root.spans(id))?;
        while !node.is_leaf() {
            node = node.child(node.index(id))?;
        }
        Some(node)
    }

    /// The nodes down to the leaf of `id`, if it has one. For the writer.
    fn path(&self, id: u32) -> Option<Path<'_>> {
        let mut node = self.root().filter(|root| root.spans(id))?;
        let mut path = Path { nodes: [None; MAX_LEVELS], len: 0 };
        loop {
            path.nodes[path.len] = Some(node);
            path.len += 1;
            if node.is_leaf() {
                return Some(path);
            }
            node = node.child(node.index(id))?;
        }
    }

    /// The lowest free id that is at least `min`, whether or not it has a leaf.
    fn lowest_free(&self, writer: &mut Writer, min: u32) -> Option<u32> {
        let Some(root) = self.root().filter(|root| root.spans(min)) else { return Some(min) };
        match Self::lowest_free_below(writer, root, min) {
            Some(id) => Some(id),
            None => u32::try_from(root.capacity()).ok(),
        }
    }

    /// At most two nodes per level are visited: those on the way to `min`, and where that leads to no free id,
    /// those below the nearest to the right of it that have one.
    fn lowest_free_below(writer: &mut Writer, root: &Node, min: u32) -> Option<u32> {
        let (mut node, mut base) = (root, 0);
        let mut right = None;
        loop {
            writer.visit();
            let index = node.index(min);
            let free = node.free_bits() & (FULL << index);
            if node.is_leaf() && free != 0 {
                return Some(base + free.trailing_zeros());
            }
            let beyond = free & !(1 << index);
            if beyond != 0 {
                right = Some((node, base, beyond.trailing_zeros()));
            }
            if free == beyond {
                break;
            }
            let Some(child) = node.child(index) else { return Some(min) };
            base += (index as u32) << node.shift;
            node = child;
        }
        let (mut node, base, mut index) = right?;
        // The topmost level reaches beyond 32 bits.
        let mut base = u64::from(base);
        loop {
            base += u64::from(index) << node.shift;
            if node.is_leaf() {
                break;
            }
            let Some(child) = node.child(index as usize) else { break };
            writer.visit();
            node = child;
            index = node.free_bits().trailing_zeros();
        }
        u32::try_from(base).ok()
    }

    /// Takes a free id, adding the nodes it needs.
    fn claim(&self, writer: &mut Writer, id: u32) -> Result<(), IdrError> {
        let leaf = match self.leaf(id) {
            Some(leaf) => leaf,
            None => {
                self.grow(writer, id)?;
                self.leaf(id).expect("just made")
            }
        };
        leaf.set_present(leaf.index(id), true);
        leaf.set_free(leaf.index(id), false);
        if leaf.free_bits() == 0 {
            self.note_full(id);
        }
        Ok(())
    }

    /// The leaf of `id` has become full: so may have the nodes above.
    #[cold]
    fn note_full(&self, id: u32) {
        let path = self.path(id).expect("the leaf is there");
        for level in (1..path.len).rev() {
            if path.node(level).free_bits() != 0 {
                break;
            }
            let parent = path.node(level - 1);
            parent.set_free(parent.index(id), false);
        }
    }

    /// Adds the nodes that are missing on the way to a free id.
    #[cold]
    #[inline(never)]
    fn grow(&self, writer: &mut Writer, id: u32) -> Result<(), IdrError> {
        let mut spare =
            Spare::allocate(writer, self.missing_nodes(id)).ok_or(IdrError::OutOfMemory)?;
        let top_shift = top_shift(id);
        if self.root().is_none() {
            self.root.store(spare.take(top_shift).as_ptr(), Ordering::Release);
        }
        while let Some(root) = self.root().filter(|root| !root.spans(id)) {
            let above = spare.take(root.shift + BITS);
            let root = NonNull::new(self.root.load(Ordering::Relaxed)).expect("just seen");
            // SAFETY: taken from the spare nodes, so valid and the writer's alone.
            unsafe { above.as_ref() }.attach(0, root);
            self.root.store(above.as_ptr(), Ordering::Release);
        }
        let mut node = self.root().expect("just made");
        while !node.is_leaf() {
            let index = node.index(id);
            if node.child(index).is_none() {
                node.attach(index, spare.take(node.shift - BITS));
            }
            node = node.child(index).expect("just attached");
        }
        Ok(())
    }

    /// Nodes that must be added before `id` has a leaf.
    fn missing_nodes(&self, id: u32) -> usize {
        let levels = |shift: u32| (shift / BITS) as usize + 1;
        let Some(root) = self.root() else { return levels(top_shift(id)) };
        if !root.spans(id) {
            // New roots, and a branch of its own below the topmost.
            let top = levels(top_shift(id));
            return (top - levels(root.shift)) + (top - 1);
        }
        let mut node = root;
        while !node.is_leaf() {
            match node.child(node.index(id)) {
                Some(child) => node = child,
                None => return levels(node.shift) - 1,
            }
        }
        0
    }

    /// After an id was freed: unlinks the nodes that became empty, and tells those above that there
    /// is a free id.
    #[cold]
    fn prune(&self, id: u32, deferred: &mut Deferred) {
        let path = self.path(id).expect("the leaf is there");
        for level in (0..path.len).rev() {
            let node = path.node(level);
            let parent = level.checked_sub(1).map(|above| path.node(above));
            if node.present_bits() == 0 {
                match parent {
                    Some(parent) => {
                        let index = parent.index(id);
                        let child = parent.slot(index).load(Ordering::Relaxed);
                        parent.detach(index);
                        Self::defer(child.cast(), deferred);
                    }
                    None => {
                        let root = self.root.load(Ordering::Relaxed);
                        self.root.store(ptr::null_mut(), Ordering::Release);
                        Self::defer(root, deferred);
                    }
                }
            } else if let Some(parent) = parent {
                parent.set_free(parent.index(id), true);
            }
        }
    }

    fn defer(node: *mut Node, deferred: &mut Deferred) {
        if let Some(node) = NonNull::new(node) {
            // SAFETY: just unlinked by the writer, empty, and deferred only here; the pointer is the
            // one that the allocation returned.
            unsafe { deferred.defer(node.cast(), Node::free_deferred) };
        }
    }

    /// Frees a node and all below.
    ///
    /// # Safety
    /// Nobody else can reach them.
    unsafe fn free_all(node: NonNull<Node>) {
        // SAFETY: allocated, and ours (contract).
        let inner = unsafe { node.as_ref() };
        if !inner.is_leaf() {
            for index in 0..WAYS {
                if let Some(child) = NonNull::new(inner.slot(index).load(Ordering::Acquire)) {
                    // SAFETY: a child of a node that is ours; slots of inner nodes hold nodes.
                    unsafe { Self::free_all(child.cast()) };
                }
            }
        }
        // SAFETY: ours, and its children are gone.
        unsafe { Node::free(node) };
    }
}

impl<T> Default for Idr<T> {
    fn default() -> Self {
        Self::new()
    }
}

impl<T> Drop for Idr<T> {
    fn drop(&mut self) {
        if let Some(root) = NonNull::new(self.root.load(Ordering::Acquire)) {
            // SAFETY: `&mut self`, so there are neither lookups nor a writer.
            unsafe { Self::free_all(root) };
        }
    }
}

impl<'a> Path<'a> {
    fn node(&self, level: usize) -> &'a Node {
        self.nodes[level].expect("a path has no gaps")
    }
}

/// The shift of the lowest root that spans `id`.
fn top_shift(id: u32) -> u32 {
    match id.checked_ilog2() {
        None => 0,
        Some(highest_bit) => highest_bit / BITS * BITS,
    }
}
