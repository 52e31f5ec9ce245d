//! Futexes (futex(2)): what a call asks for, and who waits for what.
//!
//! A program's word is named by a [`Key`]. Keys are hashed into buckets, each a [`Queue`] of waiters
//! under a lock of the kernel's; waiters of several keys share a bucket. Within a key they are woken by
//! priority, and in order of arrival where that is equal.
//!
//! Neighbours: the kernel's `process::futex` has the buckets, their locks and the sleeping.

mod operation;
mod queue;

pub use operation::{Clock, Command, Operation, Scope, WordOperation};
pub use queue::{Queue, Waiter};

/// A word that is waited on: what memory it is in, and where there. A private futex is named by its
/// address space and its address, a shared one by the object that the page is of and the place in it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Key {
    /// Which memory. The names of address spaces and of shared objects are never equal.
    pub object: u64,
    /// Where in it, in bytes.
    pub offset: u64,
}

/// Every bit: a wait that any wake ends, a wake that ends any wait.
pub const ANY: u32 = u32::MAX;

impl Key {
    /// Which of `1 << bits` buckets is this key's; `bits` is 1 to 32.
    #[inline]
    pub const fn bucket(self, bits: u32) -> usize {
        // Multiplicative hashing (Knuth 6.4): the upper bits depend on all of the key.
        const GOLDEN: u64 = 0x9E37_79B9_7F4A_7C15;
        let mixed = (self.object.rotate_left(32) ^ (self.offset >> 2)).wrapping_mul(GOLDEN);
        (mixed >> (64 - bits)) as usize
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn neighbouring_words_spread() {
        let mut used = [0u32; 256];
        for word in 0..1024u64 {
            used[Key { object: 7, offset: 0x7fff_0000_0000 + word * 4 }.bucket(8)] += 1;
        }
        assert!(used.iter().all(|&count| count <= 16), "{used:?}");
    }
}
