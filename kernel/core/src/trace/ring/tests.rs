//! The ring against a model, and its hand-over under loom.

use std::alloc::{Layout, alloc_zeroed, dealloc};
use std::vec::Vec;

use super::*;

/// A ring with storage of its own.
struct Owned {
    ring: Ring,
    storage: NonNull<u8>,
    layout: Layout,
}

impl Owned {
    fn new(blocks: u64, mode: Mode) -> Self {
        let layout = Layout::from_size_align(BLOCK_LEN * blocks as usize, 4096).unwrap();
        // SAFETY: the layout is not empty.
        let storage = NonNull::new(unsafe { alloc_zeroed(layout) }).unwrap();
        let ring = Ring::new();
        // SAFETY: fresh storage, freed only when the ring goes.
        unsafe { ring.attach(storage, blocks, mode) };
        Self { ring, storage, layout }
    }

    /// Writes a record of `len` bytes that carries `value` in its first eight.
    fn write(&self, value: u64, len: usize, now: u64) -> bool {
        // SAFETY: tests write from one thread; `len` is at least 8.
        unsafe {
            let Some((at, _)) = self.ring.reserve(len, now, || 7) else { return false };
            at.as_ptr().cast::<u64>().write_unaligned(value);
            self.ring.commit(at, len);
            true
        }
    }

    /// Reads a block: its head and the values of its records of `len` bytes.
    fn read(&self, len: usize) -> Option<(BlockHead, Vec<u64>)> {
        // SAFETY: tests read from one thread.
        unsafe {
            self.ring.read(|head, data| {
                let values = data
                    .chunks(len)
                    .map(|record| u64::from_le_bytes(record[..8].try_into().unwrap()))
                    .collect();
                (*head, values)
            })
        }
    }

    fn totals(&self) -> Totals {
        // SAFETY: no writer at work.
        unsafe { self.ring.totals() }
    }

    fn close(&self) {
        // SAFETY: the test is the writer.
        unsafe { self.ring.close() }
    }
}

impl Drop for Owned {
    fn drop(&mut self) {
        // SAFETY: allocated in `new` with this layout.
        unsafe { dealloc(self.storage.as_ptr(), self.layout) }
    }
}

#[cfg(not(loom))]
mod plain {
    use super::*;
    use proptest::prelude::*;

    const CASES: u32 = if cfg!(miri) { 4 } else { 256 };

    #[test]
    fn without_memory_everything_is_dropped_and_counted() {
        let ring = Ring::new();
        // SAFETY: one thread.
        unsafe {
            assert!(ring.reserve(8, 0, || 0).is_none());
            assert_eq!(ring.totals(), Totals { produced: 1, dropped: 1 });
            assert!(ring.read(|_, _| ()).is_none());
        }
    }

    #[test]
    fn a_block_is_closed_when_offsets_run_out() {
        let owned = Owned::new(4, Mode::Stream);
        assert!(owned.write(1, 16, 100));
        assert!(owned.write(2, 16, 100 + (1 << 32)));
        owned.close();
        let (first, values) = owned.read(16).unwrap();
        assert_eq!((first.base_ticks, values), (100, std::vec![1]));
        let (second, values) = owned.read(16).unwrap();
        assert_eq!((second.base_ticks, second.first_record), (100 + (1 << 32), 1));
        assert_eq!(values, std::vec![2]);
    }

    #[test]
    fn a_record_larger_than_a_block_is_dropped() {
        let owned = Owned::new(2, Mode::Stream);
        assert!(!owned.write(1, BLOCK_CAPACITY + 1, 0));
        assert!(owned.write(2, BLOCK_CAPACITY, 0));
        assert_eq!(owned.totals(), Totals { produced: 2, dropped: 1 });
    }

    #[test]
    fn an_empty_open_block_stays_open() {
        let owned = Owned::new(2, Mode::Stream);
        for round in 0..10 {
            assert!(owned.write(round, 8, round));
            owned.close();
            owned.close();
            assert_eq!(owned.read(8).unwrap().1, std::vec![round]);
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(CASES))]

        /// Stream: what is read is what was accepted, in order; the totals add up, block by block.
        #[test]
        fn stream_loses_nothing_uncounted(
            blocks in 2u64..5,
            len in 8usize..200,
            steps in prop::collection::vec(0u8..100, 1..400),
        ) {
            let owned = Owned::new(blocks, Mode::Stream);
            let (mut sent, mut accepted, mut received) = (0u64, Vec::new(), Vec::new());
            for step in steps {
                match step {
                    0..90 => for _ in 0..step {
                        if owned.write(sent, len, sent) { accepted.push(sent); }
                        sent += 1;
                    },
                    90..95 => owned.close(),
                    _ => if let Some((head, values)) = owned.read(len) {
                        prop_assert_eq!(head.first_record, received.len() as u64);
                        prop_assert_eq!(head.records as usize, values.len());
                        prop_assert_eq!(head.dropped, values[0] - head.first_record);
                        received.extend(values);
                    },
                }
            }
            owned.close();
            while let Some((_, values)) = owned.read(len) { received.extend(values); }
            let totals = owned.totals();
            prop_assert_eq!(totals.produced, sent);
            prop_assert_eq!(totals.produced, received.len() as u64 + totals.dropped);
            prop_assert_eq!(received, accepted);
        }

        /// Snapshot: the newest records survive; what was overwritten is counted.
        #[test]
        fn snapshot_keeps_the_newest(
            blocks in 2u64..5,
            len in 8usize..200,
            count in 0u64..4000,
            close_every in 1u64..500,
        ) {
            let owned = Owned::new(blocks, Mode::Snapshot);
            for value in 0..count {
                prop_assert!(owned.write(value, len, value));
                if value % close_every == 0 { owned.close(); }
            }
            owned.close();
            let totals = owned.totals();
            let mut received = Vec::new();
            while let Some((head, values)) = owned.read(len) {
                prop_assert_eq!(head.dropped, totals.dropped);
                prop_assert_eq!(head.first_record, received.len() as u64);
                received.extend(values);
            }
            prop_assert_eq!(totals.produced, count);
            prop_assert_eq!(&received, &(totals.dropped..count).collect::<Vec<_>>());
        }
    }
}

#[cfg(loom)]
mod model {
    use super::*;
    use loom::sync::Arc;

    /// A writer that fills and closes blocks against a reader that drains them: what arrives is
    /// what was accepted, and a slot is never written while it is read.
    #[test]
    fn loom_blocks_change_hands_whole() {
        loom::model(|| {
            let owned = Arc::new(Owned::new(2, Mode::Stream));
            let writer = {
                let owned = owned.clone();
                loom::thread::spawn(move || {
                    let mut accepted = Vec::new();
                    for value in 1..=3u64 {
                        if owned.write(value, 8, value) {
                            accepted.push(value);
                        }
                        owned.close();
                    }
                    accepted
                })
            };
            let mut received = Vec::new();
            for _ in 0..2 {
                if let Some((_, values)) = owned.read(8) {
                    received.extend(values);
                }
            }
            let accepted = writer.join().unwrap();
            while let Some((_, values)) = owned.read(8) {
                received.extend(values);
            }
            assert_eq!(received, accepted);
        });
    }
}
