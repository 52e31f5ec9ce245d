//! A persistent ordered set of areas: a B+ tree whose nodes are shared between clones.
//!
//! A clone is one reference. A change copies the nodes on its path that others share, and changes
//! the rest in place. Each node's parent knows the largest gap between areas in it, so that a place
//! for a new area is found in logarithmic time.
//!
//! Areas do not overlap, and are in order of their addresses; no node but the root is empty.

use alloc::sync::Arc;
use alloc::vec::Vec;

use super::area::Area;

/// Areas or children that a node has at most.
const CAPACITY: usize = 16;

#[derive(Clone)]
enum Node<B> {
    Leaf(Vec<Area<B>>),
    Inner(Vec<Child<B>>),
}

#[derive(Clone)]
struct Child<B> {
    start: u64,
    end: u64,
    /// Largest gap between neighbours in it, bytes.
    max_gap: u64,
    node: Arc<Node<B>>,
}

/// The set.
#[derive(Clone)]
pub struct Tree<B> {
    root: Arc<Node<B>>,
}

impl<B: Clone> Default for Tree<B> {
    fn default() -> Self {
        Self { root: Arc::new(Node::Leaf(Vec::new())) }
    }
}

impl<B: Clone> Child<B> {
    fn new(node: Arc<Node<B>>) -> Self {
        let mut child = Self { start: 0, end: 0, max_gap: 0, node };
        child.refresh();
        child
    }

    /// Brings the summary up to date.
    fn refresh(&mut self) {
        (self.start, self.end, self.max_gap) = match &*self.node {
            Node::Leaf(areas) => summary(areas.iter().map(|area| (area.start, area.end, 0))),
            Node::Inner(children) => {
                summary(children.iter().map(|child| (child.start, child.end, child.max_gap)))
            }
        };
    }
}

fn summary(mut parts: impl Iterator<Item = (u64, u64, u64)>) -> (u64, u64, u64) {
    let Some((start, mut end, mut max_gap)) = parts.next() else { return (0, 0, 0) };
    for (next_start, next_end, gap) in parts {
        max_gap = max_gap.max(gap).max(next_start - end);
        end = next_end;
    }
    (start, end, max_gap)
}

impl<B: Clone> Node<B> {
    fn len(&self) -> usize {
        match self {
            Self::Leaf(areas) => areas.len(),
            Self::Inner(children) => children.len(),
        }
    }

    /// Inserts an area that overlaps none. The upper half, if the node had to be split.
    fn insert(this: &mut Arc<Self>, area: Area<B>) -> Option<Arc<Self>> {
        match Arc::make_mut(this) {
            Self::Leaf(areas) => {
                let at = areas.partition_point(|it| it.start < area.start);
                areas.insert(at, area);
                upper_half(areas).map(|upper| Arc::new(Self::Leaf(upper)))
            }
            Self::Inner(children) => {
                let at = children.partition_point(|it| it.start <= area.start).saturating_sub(1);
                let split = Self::insert(&mut children[at].node, area);
                children[at].refresh();
                if let Some(upper) = split {
                    children.insert(at + 1, Child::new(upper));
                }
                upper_half(children).map(|upper| Arc::new(Self::Inner(upper)))
            }
        }
    }

    /// Removes the area that starts at `start`.
    fn remove(this: &mut Arc<Self>, start: u64) -> Option<Area<B>> {
        match Arc::make_mut(this) {
            Self::Leaf(areas) => {
                let at = areas.binary_search_by_key(&start, |it| it.start).ok()?;
                Some(areas.remove(at))
            }
            Self::Inner(children) => {
                let at = children.partition_point(|it| it.start <= start).checked_sub(1)?;
                let removed = Self::remove(&mut children[at].node, start)?;
                if children[at].node.len() == 0 {
                    children.remove(at);
                } else {
                    children[at].refresh();
                    join(children, at);
                }
                Some(removed)
            }
        }
    }
}

fn upper_half<T>(items: &mut Vec<T>) -> Option<Vec<T>> {
    (items.len() > CAPACITY).then(|| items.split_off(CAPACITY / 2))
}

/// Joins a child that has become small with the one after it.
fn join<B: Clone>(children: &mut Vec<Child<B>>, at: usize) {
    let Some(next) = children.get(at + 1) else { return };
    if children[at].node.len() + next.node.len() > CAPACITY / 2 {
        return;
    }
    let next = children.remove(at + 1);
    match (Arc::make_mut(&mut children[at].node), &*next.node) {
        (Node::Leaf(areas), Node::Leaf(more)) => areas.extend_from_slice(more),
        (Node::Inner(below), Node::Inner(more)) => below.extend_from_slice(more),
        _ => unreachable!("children of one node are of one height"),
    }
    children[at].refresh();
}

impl<B: Clone> Tree<B> {
    /// Inserts an area that overlaps none.
    pub fn insert(&mut self, area: Area<B>) {
        if let Some(upper) = Node::insert(&mut self.root, area) {
            let lower = core::mem::replace(&mut self.root, Arc::clone(&upper));
            let children = alloc::vec![Child::new(lower), Child::new(upper)];
            self.root = Arc::new(Node::Inner(children));
        }
    }

    /// Removes the area that starts at `start`.
    pub fn remove(&mut self, start: u64) -> Option<Area<B>> {
        let removed = Node::remove(&mut self.root, start);
        while let Node::Inner(children) = &*self.root
            && children.len() < 2
        {
            let only = children.first().map(|child| Arc::clone(&child.node));
            self.root = only.unwrap_or_else(|| Arc::new(Node::Leaf(Vec::new())));
        }
        removed
    }

    /// The first area that ends above `address`.
    #[inline]
    pub fn first_above(&self, address: u64) -> Option<&Area<B>> {
        let mut node = &*self.root;
        loop {
            match node {
                Node::Leaf(areas) => {
                    return areas.get(areas.partition_point(|it| it.end <= address));
                }
                Node::Inner(children) => {
                    let at = children.partition_point(|it| it.end <= address);
                    node = &children.get(at)?.node;
                }
            }
        }
    }

    /// The last area that starts below `address`.
    pub fn last_below(&self, address: u64) -> Option<&Area<B>> {
        let mut node = &*self.root;
        loop {
            match node {
                Node::Leaf(areas) => {
                    let after = areas.partition_point(|it| it.start < address);
                    return areas.get(after.checked_sub(1)?);
                }
                Node::Inner(children) => {
                    let after = children.partition_point(|it| it.start < address);
                    node = &children[after.checked_sub(1)?].node;
                }
            }
        }
    }

    /// Start of the highest gap of `len_bytes` in `low..high`.
    pub fn highest_gap(&self, len_bytes: u64, low: u64, high: u64) -> Option<u64> {
        let wanted = Wanted { len_bytes, low, high };
        let mut upper = u64::MAX;
        wanted.in_node(&self.root, &mut upper).or_else(|| wanted.between(0, upper))
    }
}

struct Wanted {
    len_bytes: u64,
    low: u64,
    high: u64,
}

impl Wanted {
    /// Start of the highest place in `lower..upper`.
    fn between(&self, lower: u64, upper: u64) -> Option<u64> {
        let (lower, upper) = (lower.max(self.low), upper.min(self.high));
        let start = upper.checked_sub(self.len_bytes)?;
        (start >= lower).then_some(start)
    }

    /// Looks in the node, and between it and `upper`, where what follows it starts. Lowers `upper`
    /// to the start of the node.
    fn in_node<B>(&self, node: &Node<B>, upper: &mut u64) -> Option<u64> {
        match node {
            Node::Leaf(areas) => areas.iter().rev().find_map(|area| {
                let above = core::mem::replace(upper, area.start);
                self.between(area.end, above)
            }),
            Node::Inner(children) => children.iter().rev().find_map(|child| {
                if let Some(found) = self.between(child.end, *upper) {
                    return Some(found);
                }
                let may_fit = child.max_gap >= self.len_bytes
                    && child.start < self.high
                    && child.end > self.low;
                if may_fit {
                    return self.in_node(&child.node, upper);
                }
                *upper = child.start;
                None
            }),
        }
    }
}
