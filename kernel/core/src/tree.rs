//! An intrusive ordered tree with an aggregate per subtree: a treap.
//!
//! The nodes belong to the caller and carry their [`Links`]; the tree allocates nothing. Each node
//! gets a random rank when it is inserted, and the tree is at once a search tree by the nodes'
//! order and a heap by their ranks, which makes its shape that of a tree built in random order: the
//! expected depth is logarithmic whatever the order of insertion. The ranks come from a generator
//! with a fixed seed, so that a run repeats exactly. A treap is chosen over a red-black tree
//! because its two loops of rotations are all there is to get right.
//!
//! Invariants, between any two calls:
//! - in-order traversal is the nodes' order, equal ones in the order of their insertion;
//! - no node has a higher rank than its parent;
//! - every node's aggregate ([`Node::refresh`]) is that of its whole subtree;
//! - `first` is the leftmost node.
//!
//! All links are [`Cell`]s and nodes are only ever seen through `&`, so that the caller may hold
//! shared references to a node while it is in a tree.
//!
//! Neighbours: the fair class of [`crate::sched`] and [`crate::timer_queue`].

use core::cell::Cell;
use core::ptr::NonNull;

/// A pointer to a node, or none.
pub type Link<N> = Option<NonNull<N>>;

/// What a node needs to be in a [`Tree`]; all of it is the tree's.
#[derive(Debug)]
pub struct Links<N> {
    parent: Cell<Link<N>>,
    left: Cell<Link<N>>,
    right: Cell<Link<N>>,
    rank: Cell<u32>,
}

impl<N> Links<N> {
    /// Links of a node that is in no tree.
    pub const fn new() -> Self {
        Self {
            parent: Cell::new(None),
            left: Cell::new(None),
            right: Cell::new(None),
            rank: Cell::new(0),
        }
    }
}

impl<N> Default for Links<N> {
    fn default() -> Self {
        Self::new()
    }
}

/// Whether a node's aggregate is another than before.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Aggregate {
    /// It is the same: nothing above it can have changed either.
    Same,
    /// It changed, or may have.
    Changed,
}

/// A type whose values can be in a [`Tree`].
///
/// # Safety
/// `links` always returns the same field of the node, and nothing but the tree uses it. `precedes`
/// is a strict weak order among the nodes of one tree, and what it reads does not change while the
/// node is in the tree.
pub unsafe trait Node: Sized {
    /// The node's links.
    fn links(&self) -> &Links<Self>;

    /// Whether this node comes before the other.
    fn precedes(&self, other: &Self) -> bool;

    /// Computes the node's aggregate from itself and the aggregates of its children.
    #[inline]
    fn refresh(&self, _left: Option<&Self>, _right: Option<&Self>) -> Aggregate {
        Aggregate::Same
    }
}

/// The tree. Dropping it leaves its nodes alone.
#[derive(Debug)]
pub struct Tree<N> {
    root: Link<N>,
    first: Link<N>,
    /// State of the generator of ranks.
    seed: u64,
}

/// Which child of its parent a node is.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Side {
    Left,
    Right,
}

/// The node behind a pointer.
///
/// # Safety
/// The node is in a tree whose contract is kept: it is alive and nobody has a `&mut` to it.
#[inline]
unsafe fn deref<'a, N>(node: NonNull<N>) -> &'a N {
    // SAFETY: the caller's contract.
    unsafe { node.as_ref() }
}

impl<N: Node> Tree<N> {
    /// An empty tree.
    pub const fn new() -> Self {
        Self { root: None, first: None, seed: 0x9E37_79B9_7F4A_7C15 }
    }

    /// Whether there is no node in the tree.
    #[inline]
    pub const fn is_empty(&self) -> bool {
        self.root.is_none()
    }

    /// The first node in order. Constant time.
    #[inline]
    pub const fn first(&self) -> Link<N> {
        self.first
    }

    /// The node at the top, from which [`children`](Self::children) leads everywhere.
    #[inline]
    pub const fn root(&self) -> Link<N> {
        self.root
    }

    /// The children of a node of this tree, left and right.
    #[inline]
    pub fn children(&self, node: &N) -> (Link<N>, Link<N>) {
        (node.links().left.get(), node.links().right.get())
    }

    /// Puts a node in, behind those that are equal to it.
    ///
    /// # Safety
    /// The node is in no tree. Until it is removed it stays alive, where it is, and nobody has a
    /// `&mut` to it.
    #[inline]
    pub unsafe fn insert(&mut self, node: NonNull<N>) {
        // SAFETY: the caller gives us a live node.
        let new = unsafe { deref(node) };
        let links = new.links();
        links.left.set(None);
        links.right.set(None);
        match self.root {
            // The rank stays what it was: at most one node in a tree got there this way.
            None => {
                links.parent.set(None);
                self.root = Some(node);
                self.first = Some(node);
                let _ = new.refresh(None, None);
            }
            // SAFETY: as above; the tree's nodes are alive by the contract of this function.
            Some(root) => unsafe { self.insert_below(root, node) },
        }
    }

    /// Out of line, so that insertion into an empty tree stays short.
    ///
    /// # Safety
    /// As [`insert`](Self::insert); `root` is the root and `node` has no children.
    #[inline(never)]
    unsafe fn insert_below(&mut self, root: NonNull<N>, node: NonNull<N>) {
        // SAFETY: `node` is the caller's, the others are in the tree, hence alive.
        unsafe {
            let new = deref(node);
            let mut parent = root;
            let mut leftmost = true;
            loop {
                let at = deref(parent).links();
                let slot = if new.precedes(deref(parent)) {
                    &at.left
                } else {
                    leftmost = false;
                    &at.right
                };
                match slot.get() {
                    Some(child) => parent = child,
                    None => {
                        slot.set(Some(node));
                        break;
                    }
                }
            }
            new.links().parent.set(Some(parent));
            if leftmost {
                self.first = Some(node);
            }
            let _ = new.refresh(None, None);
            self.refresh_upwards(Some(parent));
            let rank = self.next_rank();
            new.links().rank.set(rank);
            while let Some(parent) = new.links().parent.get()
                && deref(parent).links().rank.get() < rank
            {
                self.rotate_up(node);
            }
        }
    }

    /// Takes a node out.
    ///
    /// # Safety
    /// The node is in this tree.
    #[inline]
    pub unsafe fn remove(&mut self, node: NonNull<N>) {
        // SAFETY: nodes in the tree are alive by the contract of `insert`.
        unsafe {
            let links = deref(node).links();
            if self.first == Some(node) {
                self.first = self.next(node);
            }
            while let (Some(left), Some(right)) = (links.left.get(), links.right.get()) {
                let higher = if deref(left).links().rank.get() > deref(right).links().rank.get() {
                    left
                } else {
                    right
                };
                self.rotate_up(higher);
            }
            let child = links.left.get().or(links.right.get());
            let parent = links.parent.get();
            if let Some(child) = child {
                deref(child).links().parent.set(parent);
            }
            self.replace_child(parent, node, child);
            self.refresh_upwards(parent);
        }
    }

    /// Takes out the only node; none if there are several, or none.
    #[inline]
    pub fn pop_only(&mut self) -> Link<N> {
        let root = self.root?;
        // SAFETY: nodes in the tree are alive by the contract of `insert`.
        let links = unsafe { deref(root) }.links();
        if links.left.get().is_some() || links.right.get().is_some() {
            return None;
        }
        self.root = None;
        self.first = None;
        Some(root)
    }

    /// The node after this one in order.
    ///
    /// # Safety
    /// The node is in this tree.
    pub unsafe fn next(&self, node: NonNull<N>) -> Link<N> {
        // SAFETY: nodes in the tree are alive by the contract of `insert`.
        unsafe {
            if let Some(right) = deref(node).links().right.get() {
                let mut at = right;
                while let Some(left) = deref(at).links().left.get() {
                    at = left;
                }
                return Some(at);
            }
            let mut below = node;
            while let Some(parent) = deref(below).links().parent.get() {
                if deref(parent).links().left.get() == Some(below) {
                    return Some(parent);
                }
                below = parent;
            }
            None
        }
    }

    /// All nodes in order.
    pub fn iter(&self) -> Iter<'_, N> {
        Iter { tree: self, at: self.first }
    }

    /// Exchanges a node with its parent, keeping order and aggregates.
    ///
    /// # Safety
    /// The node is in this tree and is not its root.
    unsafe fn rotate_up(&mut self, node: NonNull<N>) {
        // SAFETY: nodes in the tree are alive by the contract of `insert`.
        unsafe {
            let upper = deref(node);
            let Some(parent) = upper.links().parent.get() else { return };
            let lower = deref(parent);
            let grandparent = lower.links().parent.get();
            let side =
                if lower.links().left.get() == Some(node) { Side::Left } else { Side::Right };
            let (inner, slot) = match side {
                Side::Left => (&upper.links().right, &lower.links().left),
                Side::Right => (&upper.links().left, &lower.links().right),
            };
            slot.set(inner.get());
            if let Some(inner) = inner.get() {
                deref(inner).links().parent.set(Some(parent));
            }
            inner.set(Some(parent));
            lower.links().parent.set(Some(node));
            upper.links().parent.set(grandparent);
            self.replace_child(grandparent, parent, Some(node));
            Self::refresh(lower);
            Self::refresh(upper);
        }
    }

    /// Lets the link that led to `old`, its parent's or the root, lead to `new`.
    ///
    /// # Safety
    /// `parent` is `old`'s parent in this tree, none if it is the root.
    #[inline]
    unsafe fn replace_child(&mut self, parent: Link<N>, old: NonNull<N>, new: Link<N>) {
        let Some(parent) = parent else {
            self.root = new;
            return;
        };
        // SAFETY: nodes in the tree are alive by the contract of `insert`.
        let links = unsafe { deref(parent) }.links();
        let slot = if links.left.get() == Some(old) { &links.left } else { &links.right };
        slot.set(new);
    }

    /// # Safety
    /// The node is in this tree.
    #[inline]
    unsafe fn refresh(node: &N) -> Aggregate {
        let (left, right) = (node.links().left.get(), node.links().right.get());
        // SAFETY: nodes in the tree are alive by the contract of `insert`.
        unsafe { node.refresh(left.map(|left| deref(left)), right.map(|right| deref(right))) }
    }

    /// Refreshes aggregates from a node up, as far as they change.
    ///
    /// # Safety
    /// The node is in this tree.
    #[inline]
    unsafe fn refresh_upwards(&self, mut at: Link<N>) {
        while let Some(node) = at {
            // SAFETY: nodes in the tree are alive by the contract of `insert`.
            let node = unsafe { deref(node) };
            // SAFETY: as above.
            if unsafe { Self::refresh(node) } == Aggregate::Same {
                break;
            }
            at = node.links().parent.get();
        }
    }

    /// Knuth's MMIX linear congruential generator; its upper half is random enough for ranks.
    #[inline]
    fn next_rank(&mut self) -> u32 {
        self.seed = self
            .seed
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        (self.seed >> 32) as u32
    }
}

impl<N: Node> Default for Tree<N> {
    fn default() -> Self {
        Self::new()
    }
}

/// The nodes of a tree in order; see [`Tree::iter`].
#[derive(Debug)]
pub struct Iter<'a, N> {
    tree: &'a Tree<N>,
    at: Link<N>,
}

impl<N: Node> Iterator for Iter<'_, N> {
    type Item = NonNull<N>;

    fn next(&mut self) -> Option<NonNull<N>> {
        let node = self.at?;
        // SAFETY: the node is in the tree, which cannot change while it is borrowed.
        self.at = unsafe { self.tree.next(node) };
        Some(node)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::boxed::Box;
    use std::collections::BTreeMap;
    use std::vec::Vec;

    struct Item {
        links: Links<Item>,
        key: u64,
        value: u64,
        min_value: Cell<u64>,
    }

    impl Item {
        fn leak(key: u64, value: u64) -> NonNull<Item> {
            let item = Item { links: Links::new(), key, value, min_value: Cell::new(0) };
            NonNull::from(Box::leak(Box::new(item)))
        }
    }

    // SAFETY: `links` returns one field, and keys never change.
    unsafe impl Node for Item {
        fn links(&self) -> &Links<Self> {
            &self.links
        }
        fn precedes(&self, other: &Self) -> bool {
            self.key < other.key
        }
        fn refresh(&self, left: Option<&Self>, right: Option<&Self>) -> Aggregate {
            let below = [left, right].into_iter().flatten().map(|item| item.min_value.get());
            let min = below.fold(self.value, u64::min);
            if self.min_value.replace(min) == min { Aggregate::Same } else { Aggregate::Changed }
        }
    }

    const MAX_STEPS: usize = if cfg!(miri) { 40 } else { 300 };

    /// Checks the invariants below a node; returns (lowest value, depth).
    fn check(tree: &Tree<Item>, link: Link<Item>, parent: Link<Item>) -> (u64, usize) {
        let Some(node) = link else { return (u64::MAX, 0) };
        // SAFETY: nodes of the tests live until the end of the test.
        let item = unsafe { node.as_ref() };
        assert_eq!(item.links.parent.get(), parent);
        if let Some(parent) = parent {
            // SAFETY: as above.
            assert!(unsafe { parent.as_ref() }.links.rank.get() >= item.links.rank.get());
        }
        let (left, right) = tree.children(item);
        let (left, right) = (check(tree, left, link), check(tree, right, link));
        let min = item.value.min(left.0).min(right.0);
        assert_eq!(item.min_value.get(), min);
        (min, 1 + left.1.max(right.1))
    }

    proptest! {
        #![proptest_config(ProptestConfig {
            cases: if cfg!(miri) { 3 } else { 256 },
            failure_persistence: None,
            ..ProptestConfig::default()
        })]

        #[test]
        fn behaves_like_a_map(
            steps in proptest::collection::vec((0u64..20, any::<u64>(), 0u8..4), 0..MAX_STEPS)
        ) {
            let mut tree = Tree::new();
            // Keys are made unique by the order of insertion, which is how ties must come out.
            let mut model: BTreeMap<(u64, usize), NonNull<Item>> = BTreeMap::new();
            let mut all = Vec::new();
            for (serial, (key, value, action)) in steps.into_iter().enumerate() {
                if action == 3 {
                    let only = if model.len() == 1 { model.pop_first() } else { None };
                    prop_assert_eq!(tree.pop_only(), only.map(|(_, item)| item));
                } else if action == 0 && !model.is_empty() {
                    let nth = value as usize % model.len();
                    let at = *model.keys().nth(nth).unwrap();
                    // SAFETY: what is in the model is in the tree.
                    unsafe { tree.remove(model.remove(&at).unwrap()) };
                } else {
                    let item = Item::leak(key, value);
                    all.push(item);
                    model.insert((key, serial), item);
                    // SAFETY: a fresh item that lives until the end of the test.
                    unsafe { tree.insert(item) };
                }
                check(&tree, tree.root(), None);
                prop_assert_eq!(tree.first(), model.values().next().copied());
                prop_assert!(tree.iter().eq(model.values().copied()));
                prop_assert_eq!(tree.is_empty(), model.is_empty());
            }
            for item in all {
                // SAFETY: leaked above, and the tree is not used again.
                drop(unsafe { Box::from_raw(item.as_ptr()) });
            }
        }
    }

    #[test]
    fn stays_shallow_when_keys_come_in_order() {
        let count: u64 = if cfg!(miri) { 64 } else { 10_000 };
        let mut tree = Tree::new();
        let items: Vec<_> = (0..count).map(|key| Item::leak(key, key)).collect();
        for item in &items {
            // SAFETY: a fresh item that lives until the end of the test.
            unsafe { tree.insert(*item) };
        }
        let (_, depth) = check(&tree, tree.root(), None);
        assert!(depth <= 40, "depth {depth}");
        for item in items {
            // SAFETY: leaked above, and the tree is not used again.
            drop(unsafe { Box::from_raw(item.as_ptr()) });
        }
    }
}
