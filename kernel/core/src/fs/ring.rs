//! Where in a pipe's pages its bytes are.
//!
//! The bytes lie in a ring of pages, oldest first. This is arithmetic only: whoever has the pages
//! copies into [`Ring::room`] and calls [`Ring::filled`], or copies out of [`Ring::data`] and calls
//! [`Ring::drained`]. An empty ring begins again at its first page, so that little traffic needs
//! one page.

/// Bytes of a page.
pub const PAGE_BYTES: usize = 4096;

/// Positions in a ring of so many pages.
#[derive(Clone, Copy, Debug)]
pub struct Ring<const PAGES: usize> {
    /// Where the oldest byte is; less than the capacity.
    start: usize,
    len: usize,
    /// Bytes that it takes: its capacity, or none.
    limit: usize,
}

/// A run of bytes inside one page.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Span {
    /// Number of the page in the ring.
    pub page: usize,
    /// Where in the page it begins.
    pub offset: usize,
    /// Its bytes; 0 if there are none.
    pub len: usize,
}

impl<const PAGES: usize> Ring<PAGES> {
    const CAPACITY_BYTES: usize = PAGES * PAGE_BYTES;

    /// An empty ring.
    pub const fn new() -> Self {
        Self { start: 0, len: 0, limit: Self::CAPACITY_BYTES }
    }

    /// An empty ring that has no room.
    pub const fn closed() -> Self {
        Self { start: 0, len: 0, limit: 0 }
    }

    /// Bytes in it.
    #[allow(clippy::len_without_is_empty)] // a pipe is "empty" to its users, not to its pages
    #[inline]
    pub fn len(&self) -> usize {
        self.len
    }

    /// Bytes that still fit.
    #[inline]
    pub fn room_bytes(&self) -> usize {
        self.limit - self.len
    }

    /// Where the next bytes go, as far as one page has room.
    #[inline]
    pub fn room(&self) -> Span {
        let mut at = self.start + self.len;
        if at >= Self::CAPACITY_BYTES {
            at -= Self::CAPACITY_BYTES;
        }
        Self::span(at, self.room_bytes())
    }

    /// Where the oldest bytes are, as far as one page has them.
    #[inline]
    pub fn data(&self) -> Span {
        Self::span(self.start, self.len)
    }

    #[inline]
    fn span(at: usize, len: usize) -> Span {
        let offset = at % PAGE_BYTES;
        Span { page: at / PAGE_BYTES, offset, len: len.min(PAGE_BYTES - offset) }
    }

    /// `bytes` of the room, no more than [`Self::room`] said, have been filled.
    #[inline]
    pub fn filled(&mut self, bytes: usize) {
        debug_assert!(bytes <= self.room().len);
        self.len += bytes;
    }

    /// `bytes` of the data, no more than [`Self::data`] said, have been taken.
    #[inline]
    pub fn drained(&mut self, bytes: usize) {
        debug_assert!(bytes <= self.data().len);
        self.len -= bytes;
        self.start += bytes;
        if self.len == 0 || self.start == Self::CAPACITY_BYTES {
            self.start = 0;
        }
    }
}

impl<const PAGES: usize> Default for Ring<PAGES> {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::VecDeque;
    use std::vec;

    #[test]
    fn a_closed_ring_takes_nothing() {
        let ring = Ring::<3>::closed();
        assert_eq!((ring.len(), ring.room_bytes(), ring.room().len, ring.data().len), (0, 0, 0, 0));
    }

    proptest! {
        #[test]
        fn bytes_come_out_as_they_went_in(
            steps in prop::collection::vec((any::<bool>(), 1..9000usize), 1..60),
        ) {
            const PAGES: usize = 3;
            let mut ring = Ring::<PAGES>::new();
            let mut pages = vec![[0u8; PAGE_BYTES]; PAGES];
            let mut model = VecDeque::new();
            let mut next = 0u8;
            for (write, wanted) in steps {
                let mut left = wanted;
                while left > 0 {
                    let span = if write { ring.room() } else { ring.data() };
                    let bytes = span.len.min(left);
                    if bytes == 0 {
                        break;
                    }
                    let part = &mut pages[span.page][span.offset..span.offset + bytes];
                    for byte in part {
                        if write {
                            next = next.wrapping_add(1);
                            *byte = next;
                            model.push_back(next);
                        } else {
                            prop_assert_eq!(model.pop_front(), Some(*byte));
                        }
                    }
                    if write { ring.filled(bytes) } else { ring.drained(bytes) }
                    left -= bytes;
                }
                prop_assert_eq!(ring.len(), model.len());
                prop_assert_eq!(ring.room_bytes(), PAGES * PAGE_BYTES - model.len());
                prop_assert!(!write || left == 0 || ring.room_bytes() == 0);
            }
        }
    }
}
