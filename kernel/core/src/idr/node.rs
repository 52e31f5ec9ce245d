//! The nodes of the radix tree.
//!
//! | field | meaning | written | read |
//! |---|---|---|---|
//! | `shift` | the slot of id *i* is `(i >> shift) % WAYS`; 0 in a leaf | before publication | lock-free |
//! | `free` | bit *n*: somewhere below slot *n* an id is free (an absent child is all free) | writer | writer |
//! | `present` | bit *n*: slot *n* has a child, or (leaf) its id is taken | writer | lock-free, as a hint for iteration |
//! | `slots` | child nodes, or (leaf) the values; null where there is none, or only a placeholder | writer, release | lock-free, acquire |
//!
//! A node is unlinked when `present` becomes 0, and freed through the epoch.

use alloc::alloc::{Layout, alloc, dealloc};
use core::mem::MaybeUninit;
use core::ptr::{self, NonNull};

use crate::epoch::Callback;
use crate::shim::{AtomicPtr, AtomicU64, Ordering};

use super::Writer;

/// log₂ of the children of a node. Loom tracks every atomic; smaller nodes are enough there.
pub(super) const BITS: u32 = if cfg!(loom) { 1 } else { 6 };
/// Children of a node.
pub(super) const WAYS: usize = 1 << BITS;
/// A bitmap with a bit for every child.
pub(super) const FULL: u64 = u64::MAX >> (64 - WAYS);
/// Levels that all 32-bit ids need.
pub(super) const MAX_LEVELS: usize = 32usize.div_ceil(BITS as usize);

/// A node of the tree. Its [`Callback`] comes first, so that a pointer to one is a pointer to the
/// other.
#[repr(C)]
pub(super) struct Node {
    callback: Callback,
    pub(super) shift: u32,
    free: AtomicU64,
    present: AtomicU64,
    slots: [AtomicPtr<()>; WAYS],
}

impl Node {
    /// A node without children; `None` when memory is exhausted.
    pub(super) fn allocate(writer: &mut Writer, shift: u32) -> Option<NonNull<Self>> {
        if !writer.may_allocate() {
            return None;
        }
        // SAFETY: a node is not zero-sized.
        let node = NonNull::new(unsafe { alloc(Layout::new::<Self>()) })?.cast::<Self>();
        let empty = Self {
            callback: Callback::new(),
            shift,
            free: AtomicU64::new(FULL),
            present: AtomicU64::new(0),
            slots: core::array::from_fn(|_| AtomicPtr::new(ptr::null_mut())),
        };
        // SAFETY: freshly allocated with this layout.
        unsafe { node.write(empty) };
        Some(node)
    }

    /// Frees a node, not its children.
    ///
    /// # Safety
    /// `node` came from [`allocate`](Self::allocate) and nobody can reach it any more.
    pub(super) unsafe fn free(node: NonNull<Self>) {
        // Loom checks that this is ordered after every lookup that went through the node.
        #[cfg(loom)]
        // SAFETY: still allocated, and ours alone (contract).
        for slot in unsafe { &mut (*node.as_ptr()).slots } {
            slot.with_mut(|slot| *slot = ptr::null_mut());
        }
        // SAFETY: ours alone (contract), and not used afterwards.
        unsafe {
            ptr::drop_in_place(node.as_ptr());
            dealloc(node.as_ptr().cast(), Layout::new::<Self>());
        }
    }

    /// [`free`](Self::free) as the epoch calls it.
    ///
    /// # Safety
    /// `callback` is that of a node that nobody can reach any more, with the provenance of the node.
    pub(super) unsafe fn free_deferred(callback: NonNull<Callback>) {
        // SAFETY: the callback is the node's first field, and the node is unreachable (contract).
        unsafe { Self::free(callback.cast()) };
    }

    /// The slot that leads to `id`.
    pub(super) fn index(&self, id: u32) -> usize {
        (id >> self.shift) as usize % WAYS
    }

    /// Whether `id` lies in the range of a tree with this root.
    pub(super) fn spans(&self, id: u32) -> bool {
        u64::from(id) < self.capacity()
    }

    /// Ids below this node.
    pub(super) fn capacity(&self) -> u64 {
        (WAYS as u64) << self.shift
    }

    pub(super) fn is_leaf(&self) -> bool {
        self.shift == 0
    }

    pub(super) fn slot(&self, index: usize) -> &AtomicPtr<()> {
        &self.slots[index]
    }

    /// The child behind a slot of an inner node.
    pub(super) fn child(&self, index: usize) -> Option<&Node> {
        debug_assert!(!self.is_leaf());
        let child = self.slots[index].load(Ordering::Acquire).cast::<Node>();
        // SAFETY: slots of inner nodes hold nodes, published by the release store in `attach`. They
        // are freed after a grace period, and whoever borrows this node is in a read-side section
        // or is the writer.
        unsafe { child.as_ref() }
    }

    pub(super) fn free_bits(&self) -> u64 {
        self.free.load(Ordering::Relaxed)
    }

    pub(super) fn present_bits(&self) -> u64 {
        self.present.load(Ordering::Relaxed)
    }

    /// Writer: links a child. Its contents are published with it.
    pub(super) fn attach(&self, index: usize, child: NonNull<Node>) {
        // SAFETY: a child that is being attached is the writer's.
        let full = unsafe { child.as_ref() }.free_bits() == 0;
        self.set_free(index, !full);
        self.set_present(index, true);
        self.slots[index].store(child.as_ptr().cast(), Ordering::Release);
    }

    /// Writer: unlinks a child; the slot counts as all free again.
    pub(super) fn detach(&self, index: usize) {
        self.slots[index].store(ptr::null_mut(), Ordering::Release);
        self.set_present(index, false);
        self.set_free(index, true);
    }

    /// Writer: whether something below slot `index` is free.
    pub(super) fn set_free(&self, index: usize, free: bool) {
        set_bit(&self.free, index, free);
    }

    /// Writer: whether slot `index` is taken.
    pub(super) fn set_present(&self, index: usize, present: bool) {
        set_bit(&self.present, index, present);
    }
}

/// Only the writer changes bitmaps, so that a load and a store do.
fn set_bit(bitmap: &AtomicU64, index: usize, value: bool) {
    let others = bitmap.load(Ordering::Relaxed) & !(1 << index);
    bitmap.store(others | u64::from(value) << index, Ordering::Relaxed);
}

/// Nodes that are allocated before anything is changed, so that running out of memory changes
/// nothing.
pub(super) struct Spare {
    nodes: [MaybeUninit<NonNull<Node>>; 2 * MAX_LEVELS],
    len: usize,
}

impl Spare {
    /// `count` empty nodes, or `None`, and nothing kept, when memory is exhausted.
    pub(super) fn allocate(writer: &mut Writer, count: usize) -> Option<Self> {
        let mut spare = Self { nodes: [const { MaybeUninit::uninit() }; 2 * MAX_LEVELS], len: 0 };
        while spare.len < count {
            spare.nodes[spare.len].write(Node::allocate(writer, 0)?);
            spare.len += 1;
        }
        Some(spare)
    }

    /// One of them.
    ///
    /// # Panics
    /// If more are taken than were allocated.
    pub(super) fn take(&mut self, shift: u32) -> NonNull<Node> {
        self.len = self.len.checked_sub(1).expect("as many nodes as were counted");
        // SAFETY: the first `len` entries are initialised.
        let node = unsafe { self.nodes[self.len].assume_init() };
        // SAFETY: not published yet, so the writer's alone.
        unsafe { (*node.as_ptr()).shift = shift };
        node
    }
}

impl Drop for Spare {
    fn drop(&mut self) {
        for node in &self.nodes[..self.len] {
            // SAFETY: initialised, from `allocate`, never published.
            unsafe { Node::free(node.assume_init()) };
        }
    }
}
