//! A persistent ordered set of areas: a B+ tree whose nodes are shared between clones.
//!
//! A clone is one reference. A change copies the nodes on its path that others share, and changes
//! the rest in place. Each node's parent knows the largest gap between areas in it, so that a place
//! for a new area is found in logarithmic time; it knows itself how much is in it, so that many areas are removed
//! and measured in logarithmic time as well.
//!
//! Areas do not overlap, and are in order of their addresses; no node but the root is empty.

use alloc::sync::Arc;
use alloc::vec::Vec;
use core::iter::Sum;
use core::ops::{AddAssign, SubAssign};

use super::area::Area;

/// Areas or children that a node has at most.
const CAPACITY: usize = 16;

#[derive(Clone)]
struct Node<B> {
    total: Total,
    items: Items<B>,
}

#[derive(Clone)]
enum Items<B> {
    Areas(Vec<Area<B>>),
    Children(Vec<Child<B>>),
}

#[derive(Clone)]
struct Child<B> {
    start: u64,
    end: u64,
    /// Largest gap between neighbours in it, bytes.
    max_gap: u64,
    node: Arc<Node<B>>,
}

/// How much there is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Total {
    /// Number of areas.
    pub areas: usize,
    /// Bytes in all of them.
    pub bytes: u64,
}

impl Total {
    fn of<B>(area: &Area<B>) -> Self {
        Self { areas: 1, bytes: area.end - area.start }
    }
}

impl AddAssign for Total {
    fn add_assign(&mut self, other: Self) {
        self.areas += other.areas;
        self.bytes += other.bytes;
    }
}

impl SubAssign for Total {
    fn sub_assign(&mut self, other: Self) {
        self.areas -= other.areas;
        self.bytes -= other.bytes;
    }
}

impl Sum for Total {
    fn sum<I: Iterator<Item = Self>>(parts: I) -> Self {
        let mut sum = Self::default();
        parts.for_each(|part| sum += part);
        sum
    }
}

/// The set.
#[derive(Clone)]
pub struct Tree<B> {
    root: Arc<Node<B>>,
}

impl<B: Clone> Default for Tree<B> {
    fn default() -> Self {
        Self { root: Node::new(Items::Areas(Vec::new())) }
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
        (self.start, self.end, self.max_gap) = match &self.node.items {
            Items::Areas(areas) => summary(areas.iter().map(|area| (area.start, area.end, 0))),
            Items::Children(children) => {
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
    fn new(items: Items<B>) -> Arc<Self> {
        let total = match &items {
            Items::Areas(areas) => areas.iter().map(Total::of).sum(),
            Items::Children(children) => children.iter().map(|child| child.node.total).sum(),
        };
        Arc::new(Self { total, items })
    }

    fn len(&self) -> usize {
        match &self.items {
            Items::Areas(areas) => areas.len(),
            Items::Children(children) => children.len(),
        }
    }

    /// Inserts an area that overlaps none. The upper half, if the node had to be split.
    fn insert(this: &mut Arc<Self>, area: Area<B>) -> Option<Arc<Self>> {
        let Self { total, items } = Arc::make_mut(this);
        *total += Total::of(&area);
        let upper = match items {
            Items::Areas(areas) => {
                let at = areas.partition_point(|it| it.start < area.start);
                areas.insert(at, area);
                Items::Areas(upper_half(areas)?)
            }
            Items::Children(children) => {
                let at = children.partition_point(|it| it.start <= area.start).saturating_sub(1);
                let split = Self::insert(&mut children[at].node, area);
                children[at].refresh();
                if let Some(upper) = split {
                    children.insert(at + 1, Child::new(upper));
                }
                Items::Children(upper_half(children)?)
            }
        };
        let upper = Self::new(upper);
        *total -= upper.total;
        Some(upper)
    }

    /// Removes the area that starts at `start`.
    fn remove(this: &mut Arc<Self>, start: u64) -> Option<Area<B>> {
        let Self { total, items } = Arc::make_mut(this);
        let removed = match items {
            Items::Areas(areas) => {
                let at = areas.binary_search_by_key(&start, |it| it.start).ok()?;
                areas.remove(at)
            }
            Items::Children(children) => {
                let at = children.partition_point(|it| it.start <= start).checked_sub(1)?;
                let removed = Self::remove(&mut children[at].node, start)?;
                if children[at].node.len() == 0 {
                    children.remove(at);
                } else {
                    children[at].refresh();
                    join(children, at);
                }
                removed
            }
        };
        *total -= Total::of(&removed);
        Some(removed)
    }

    /// Removes the areas in `start..end`, over whose edges none reaches. How much that was.
    fn remove_within(this: &mut Arc<Self>, start: u64, end: u64) -> Total {
        let Self { total, items } = Arc::make_mut(this);
        let mut removed = Total::default();
        match items {
            Items::Areas(areas) => areas.retain(|area| {
                let stays = area.start < start || area.end > end;
                if !stays {
                    removed += Total::of(area);
                }
                stays
            }),
            Items::Children(children) => {
                children.retain_mut(|child| {
                    if child.end <= start || child.start >= end {
                        return true;
                    }
                    let stays = child.start < start || child.end > end;
                    if stays {
                        removed += Self::remove_within(&mut child.node, start, end);
                        child.refresh();
                    } else {
                        removed += child.node.total;
                    }
                    stays
                });
                if let Some(before) = children.partition_point(|it| it.start < start).checked_sub(1)
                {
                    join(children, before);
                }
            }
        }
        *total -= removed;
        removed
    }

    /// Bytes of the areas below `address`, and of the part below it of one that reaches over it.
    fn bytes_below(&self, address: u64) -> u64 {
        match &self.items {
            Items::Areas(areas) => {
                let before = areas.iter().take_while(|area| area.start < address);
                before.map(|area| area.end.min(address) - area.start).sum()
            }
            Items::Children(children) => {
                let before = children.iter().take_while(|child| child.start < address);
                let bytes = |child: &Child<B>| match child.end <= address {
                    true => child.node.total.bytes,
                    false => child.node.bytes_below(address),
                };
                before.map(bytes).sum()
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
    let Node { total, items } = Arc::make_mut(&mut children[at].node);
    *total += next.node.total;
    match (items, &next.node.items) {
        (Items::Areas(areas), Items::Areas(more)) => areas.extend_from_slice(more),
        (Items::Children(below), Items::Children(more)) => below.extend_from_slice(more),
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
            self.root = Node::new(Items::Children(children));
        }
    }

    /// Removes the area that starts at `start`.
    pub fn remove(&mut self, start: u64) -> Option<Area<B>> {
        let removed = Node::remove(&mut self.root, start);
        self.lower();
        removed
    }

    /// Removes the areas in `start..end`, over whose edges none reaches.
    pub fn remove_within(&mut self, start: u64, end: u64) {
        Node::remove_within(&mut self.root, start, end);
        self.lower();
    }

    /// Takes away roots that lead to one child, or none.
    fn lower(&mut self) {
        while let Items::Children(children) = &self.root.items
            && children.len() < 2
        {
            let only = children.first().map(|child| Arc::clone(&child.node));
            self.root = only.unwrap_or_else(|| Node::new(Items::Areas(Vec::new())));
        }
    }

    /// How much there is in all.
    pub fn total(&self) -> Total {
        self.root.total
    }

    /// Bytes of `start..end` that are in areas.
    pub fn bytes_within(&self, start: u64, end: u64) -> u64 {
        self.root.bytes_below(end) - self.root.bytes_below(start)
    }

    /// The first area that ends above `address`.
    #[inline]
    pub fn first_above(&self, address: u64) -> Option<&Area<B>> {
        let mut node = &*self.root;
        loop {
            match &node.items {
                Items::Areas(areas) => {
                    return areas.get(areas.partition_point(|it| it.end <= address));
                }
                Items::Children(children) => {
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
            match &node.items {
                Items::Areas(areas) => {
                    let after = areas.partition_point(|it| it.start < address);
                    return areas.get(after.checked_sub(1)?);
                }
                Items::Children(children) => {
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
        match &node.items {
            Items::Areas(areas) => areas.iter().rev().find_map(|area| {
                let above = core::mem::replace(upper, area.start);
                self.between(area.end, above)
            }),
            Items::Children(children) => children.iter().rev().find_map(|child| {
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
