//! The real-time class of one CPU: a ring of entities per priority level, and a bitmap of the
//! levels that have any.
//!
//! The running entity stays in its ring, at the head. So an entity that is preempted is at the head
//! still, and taking turns is moving the head by one.
//!
//! `first` is the head of the highest level, so that the next entity is found by one load.
//!
//! Invariants: a level's bit is set exactly if its ring is not empty; a runnable real-time entity
//! is in the ring of its priority and in no other; if the running entity is a real-time one, it is
//! the head of its level.

use super::entity::Entity;
use super::policy::RtPriority;
use crate::tree::Link;
use core::ptr::NonNull;

/// A power of two, so that a masked level needs no bounds check.
const LEVELS: usize = 128;

#[derive(Debug)]
pub(super) struct RtQueue {
    /// Levels with anyone in them: bit `n % 64` of word `n / 64`.
    occupied: [u64; 2],
    len: u32,
    /// The head of the highest occupied level.
    first: Link<Entity>,
    heads: [Link<Entity>; LEVELS],
}

/// Where in its level's ring an entity goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Place {
    Head,
    Tail,
}

impl RtQueue {
    pub const fn new() -> Self {
        Self { occupied: [0; 2], len: 0, first: None, heads: [None; LEVELS] }
    }

    /// Entities in the class.
    pub const fn len(&self) -> u32 {
        self.len
    }

    const fn highest_level(&self) -> Option<u32> {
        let [low, high] = self.occupied;
        if high != 0 {
            Some(127 - high.leading_zeros())
        } else if low != 0 {
            Some(63 - low.leading_zeros())
        } else {
            None
        }
    }

    /// The highest level that has anyone.
    #[inline]
    pub fn highest(&self) -> Option<RtPriority> {
        // SAFETY: the entities of a ring are alive.
        self.first.and_then(|first| unsafe { first.as_ref() }.policy().rt_priority())
    }

    /// The entity whose turn it is: the head of the highest level.
    #[inline]
    pub const fn first(&self) -> Link<Entity> {
        self.first
    }

    /// To be called where a level becomes occupied or empty, or its head another.
    #[inline(never)]
    fn find_first(&mut self) {
        self.first = self.highest_level().and_then(|level| self.heads[level as usize % LEVELS]);
    }

    /// Puts an entity in its level.
    ///
    /// # Safety
    /// It is in no ring, and stays alive, where it is, until it is removed.
    #[inline]
    pub unsafe fn insert(&mut self, entity: NonNull<Entity>, level: RtPriority, place: Place) {
        self.len += 1;
        let level = level.get() as usize % LEVELS;
        // SAFETY: the caller's entity, and those in the ring, are alive.
        unsafe {
            let this = entity.as_ref();
            match self.heads[level] {
                None => {
                    this.ring_next.set(Some(entity));
                    this.ring_prev.set(Some(entity));
                    self.heads[level] = Some(entity);
                    self.occupied[level / 64] |= 1 << (level % 64);
                    self.find_first();
                }
                Some(head) => {
                    let tail = head.as_ref().ring_prev.replace(Some(entity));
                    this.ring_prev.set(tail);
                    this.ring_next.set(Some(head));
                    if let Some(tail) = tail {
                        tail.as_ref().ring_next.set(Some(entity));
                    }
                    if place == Place::Head {
                        self.heads[level] = Some(entity);
                        self.find_first();
                    }
                }
            }
        }
    }

    /// Takes an entity out of its level.
    ///
    /// # Safety
    /// It is in the ring of this level of this queue.
    #[inline]
    pub unsafe fn remove(&mut self, entity: NonNull<Entity>, level: RtPriority) {
        self.len -= 1;
        let level = level.get() as usize % LEVELS;
        // SAFETY: the entities of a ring are alive.
        let this = unsafe { entity.as_ref() };
        let (next, prev) = (this.ring_next.get(), this.ring_prev.get());
        if next == Some(entity) {
            self.heads[level] = None;
            self.occupied[level / 64] &= !(1 << (level % 64));
            self.find_first();
        } else {
            if self.heads[level] == Some(entity) {
                self.heads[level] = next;
                if self.first == Some(entity) {
                    self.first = next;
                }
            }
            if let (Some(next), Some(prev)) = (next, prev) {
                // SAFETY: as above.
                unsafe {
                    next.as_ref().ring_prev.set(Some(prev));
                    prev.as_ref().ring_next.set(Some(next));
                }
            }
        }
    }

    /// Makes the running entity, the head of its level, the tail, and returns whose turn it is.
    ///
    /// # Safety
    /// `running` is in the ring of this level.
    #[inline]
    pub unsafe fn rotate(
        &mut self,
        running: NonNull<Entity>,
        level: RtPriority,
    ) -> NonNull<Entity> {
        // SAFETY: runnable entities are alive, and one in a ring (caller) has a successor there,
        // if only itself.
        let next = unsafe { running.as_ref().ring_next.get().unwrap_unchecked() };
        self.heads[level.get() as usize % LEVELS] = Some(next);
        match self.first {
            Some(higher) if higher != running => higher,
            _ => {
                self.first = Some(next);
                next
            }
        }
    }

    /// All entities, highest level first, each level in the order of its turns.
    pub fn iter(&self) -> impl Iterator<Item = NonNull<Entity>> {
        self.heads.iter().rev().copied().flatten().flat_map(|head| {
            core::iter::successors(Some(head), move |at| {
                // SAFETY: the entities of a ring are alive.
                unsafe { at.as_ref() }.ring_next.get().filter(|next| *next != head)
            })
        })
    }
}
