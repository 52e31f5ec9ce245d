//! The allocator against a model that knows which frames are out.

use super::*;
use core::cell::RefCell;
use proptest::prelude::*;
use std::string::ToString;
use std::vec::Vec;

fn table(frames: usize) -> Vec<FrameMeta> {
    (0..frames).map(|_| FrameMeta::new()).collect()
}

fn mismatch<T: core::fmt::Debug>(result: Result<T, FrameError>) -> Mismatch {
    result.unwrap_err().mismatch
}

#[test]
#[cfg_attr(miri, ignore = "Miri's cost of sharing a table grows with its square")]
fn blocks_are_aligned_by_frame_number_even_if_the_table_is_not() {
    let mut meta = table(3100);
    let mut frames = Frames::new(&mut meta, Pfn(1001));
    frames.add_free_range(Pfn(1001), Pfn(4101)).unwrap();
    assert_eq!((frames.total_frames(), frames.free_frames()), (3100, 3100));
    for order in 0..=10 {
        let pfn = frames.alloc(order).unwrap();
        assert_eq!(pfn.0 % (1 << order), 0);
        frames.free(pfn, order).unwrap();
    }
    assert_eq!(frames.alloc(11), Some(Pfn(2048)));
    assert_eq!(frames.alloc(11), None, "there is one aligned block of 2048 in 1001..4101");
}

#[test]
fn misuse_is_refused_and_named() {
    let mut meta = table(64);
    let mut frames = Frames::new(&mut meta, Pfn(16));
    assert_eq!(mismatch(frames.add_free_range(Pfn(0), Pfn(8))), Mismatch::OutsideTable);
    assert_eq!(mismatch(frames.add_free_range(Pfn(64), Pfn(128))), Mismatch::OutsideTable);
    frames.add_free_range(Pfn(16), Pfn(48)).unwrap();
    assert_eq!(mismatch(frames.add_free_range(Pfn(20), Pfn(21))), Mismatch::Overlap);
    assert_eq!(mismatch(frames.add_free_range(Pfn(32), Pfn(64))), Mismatch::Overlap);

    assert_eq!(frames.alloc(MAX_ORDER + 1), None);
    assert_eq!(frames.alloc(MAX_ORDER), None);
    let pfn = frames.alloc(2).unwrap();
    let before = frames.free_frames();
    assert_eq!(mismatch(frames.free(Pfn(5), 0)), Mismatch::OutsideTable);
    assert_eq!(mismatch(frames.free(Pfn(pfn.0 + 1), 0)), Mismatch::NotABlock);
    assert_eq!(mismatch(frames.free(Pfn(60), 0)), Mismatch::NotABlock);
    assert_eq!(mismatch(frames.free(pfn, 0)), Mismatch::WrongOrder(2));
    frames.table().get(pfn).unwrap();
    assert_eq!(mismatch(frames.free(pfn, 2)), Mismatch::Referenced(2));
    assert_eq!(frames.table().put(pfn), Ok(Put::Shared));
    assert_eq!(frames.free_frames(), before);
    frames.free(pfn, 2).unwrap();
    let again = frames.free(pfn, 2).unwrap_err();
    assert!(matches!(again.mismatch, Mismatch::DoubleFree | Mismatch::NotABlock));
    assert!(again.to_string().contains("frame 0x"), "{again}");
}

#[test]
fn references_are_counted_and_the_last_one_is_told() {
    let mut meta = table(8);
    let mut frames = Frames::new(&mut meta, Pfn(0));
    frames.add_free_range(Pfn(0), Pfn(8)).unwrap();
    let table = frames.table();
    let pfn = frames.alloc(0).unwrap();
    table.get(pfn).unwrap();
    assert_eq!(table.references(pfn), Ok(2));
    assert_eq!(table.put(pfn), Ok(Put::Shared));
    assert_eq!(table.put(pfn), Ok(Put::Last));
    assert_eq!(mismatch(table.put(pfn)), Mismatch::NotABlock);
    assert_eq!(mismatch(table.get(pfn)), Mismatch::NotABlock);
    frames.free(pfn, 0).unwrap();
    assert_eq!(frames.free_frames(), 8);
}

#[test]
fn the_owner_finds_its_count_and_word_cleared() {
    let mut meta = table(2);
    let mut frames = Frames::new(&mut meta, Pfn(0));
    frames.add_free_range(Pfn(0), Pfn(2)).unwrap();
    for _ in 0..3 {
        let pfn = frames.alloc(0).unwrap();
        let entry = frames.table().entry(pfn).unwrap();
        let order = core::sync::atomic::Ordering::Relaxed;
        assert_eq!((entry.owner_count().load(order), entry.owner_word().load(order)), (0, 0));
        entry.owner_count().store(7, order);
        entry.owner_word().store(u64::MAX, order);
        frames.free(pfn, 0).unwrap();
    }
}

#[test]
fn a_cache_takes_the_lock_once_per_batch_and_loses_nothing() {
    let mut meta = table(1024);
    let mut frames = Frames::new(&mut meta, Pfn(0));
    frames.add_free_range(Pfn(0), Pfn(1024)).unwrap();
    let table = frames.table();
    let frames = RefCell::new(frames);
    let mut cache = FrameCache::new(table);
    let mut locked = 0;
    let mut held = Vec::new();
    for _ in 0..320 {
        let pfn = cache.alloc(|| {
            locked += 1;
            Some(frames.borrow_mut())
        });
        held.push(pfn.unwrap());
    }
    assert_eq!(locked, 10);
    let first = held[0];
    for pfn in held.drain(..) {
        assert_eq!(table.references(pfn), Ok(1));
        cache
            .free(pfn, || {
                locked += 1;
                frames.borrow_mut()
            })
            .unwrap();
    }
    assert_eq!(locked, 18);
    let mut free = |pfn| cache.free(pfn, || frames.borrow_mut());
    assert!(matches!(mismatch(free(first)), Mismatch::DoubleFree | Mismatch::NotABlock));
    let cached = Pfn((0..1024)
        .find(|&n| {
            free(Pfn(n)).is_err_and(|e| {
                e.mismatch == Mismatch::DoubleFree && table.references(Pfn(n)) == Ok(0)
            })
        })
        .unwrap());
    assert_eq!(mismatch(free(cached)), Mismatch::DoubleFree);
    assert_eq!(frames.borrow().free_frames() + cache.len() as u64, 1024);
    cache.drain(&mut frames.borrow_mut(), usize::MAX);
    assert!(cache.is_empty());
    assert_eq!(frames.borrow().free_frames(), 1024);
}

/// The heap asks for small blocks where there are no large ones.
#[test]
fn a_cache_leaves_small_blocks_to_those_who_need_them() {
    let mut meta = table(256);
    let mut frames = Frames::new(&mut meta, Pfn(0));
    // Every other frame, and one pair.
    for at in (0..128).step_by(2) {
        frames.add_free_range(Pfn(at), Pfn(at + 1)).unwrap();
    }
    frames.add_free_range(Pfn(200), Pfn(202)).unwrap();
    let mut cache = FrameCache::new(frames.table());
    for _ in 0..64 {
        assert!(cache.alloc(|| Some(&mut frames)).is_some());
    }
    assert_eq!(frames.alloc(1), Some(Pfn(200)));
}

#[test]
fn an_exhausted_cache_says_none_and_recovers() {
    let mut meta = table(3);
    let mut frames = Frames::new(&mut meta, Pfn(0));
    frames.add_free_range(Pfn(0), Pfn(3)).unwrap();
    let mut cache = FrameCache::new(frames.table());
    let frames = RefCell::new(frames);
    let held: Vec<_> = core::iter::from_fn(|| cache.alloc(|| Some(frames.borrow_mut()))).collect();
    assert_eq!(held.len(), 3);
    assert_eq!(cache.alloc(|| Some(frames.borrow_mut())), None);
    cache.free(held[1], || frames.borrow_mut()).unwrap();
    assert_eq!(cache.alloc(|| Some(frames.borrow_mut())), Some(held[1]));
}

/// Frames of the longest range in the model test.
const MAX_RANGE: u64 = if cfg!(miri) { 40 } else { 3000 };

/// What a random user does.
#[derive(Clone, Debug)]
enum Step {
    Alloc(u8),
    Free(prop::sample::Index),
    CacheAlloc,
    CacheFree(prop::sample::Index),
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        3 => (0..=MAX_ORDER).prop_map(Step::Alloc),
        3 => any::<prop::sample::Index>().prop_map(Step::Free),
        2 => Just(Step::CacheAlloc),
        2 => any::<prop::sample::Index>().prop_map(Step::CacheFree),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: if cfg!(miri) { 4 } else { 256 },
        failure_persistence: None,
        ..ProptestConfig::default()
    })]

    /// No two blocks overlap, counts are exact after every step, and giving everything back
    /// restores the free lists block by block.
    #[test]
    fn behaves_as_the_model(
        base in 0u64..5000,
        ranges in prop::collection::vec((0u64..400, 1u64..MAX_RANGE), 1..5),
        steps in prop::collection::vec(step(), 0..if cfg!(miri) { 40 } else { 400 }),
    ) {
        let size: u64 = ranges.iter().map(|(gap, len)| gap + len).sum();
        let mut meta = table(size as usize);
        let mut owned = std::vec![false; size as usize];
        let mut frames = Frames::new(&mut meta, Pfn(base));
        let mut at = 0;
        for (gap, len) in ranges {
            at += gap;
            frames.add_free_range(Pfn(base + at), Pfn(base + at + len)).unwrap();
            owned[at as usize..(at + len) as usize].fill(true);
            at += len;
        }
        let total = owned.iter().filter(|&&o| o).count() as u64;
        prop_assert_eq!(frames.free_frames(), total);
        let at_first = frames.free_blocks();
        let mut cache = FrameCache::new(frames.table());
        let mut out: Vec<(Pfn, u8)> = Vec::new();
        let mut in_use = 0;
        for step in steps {
            let got = match step {
                Step::Alloc(order) => {
                    let got = frames.alloc(order).map(|pfn| (pfn, order));
                    let fits = frames.free_blocks()[order.into()..].iter().any(|&n| n > 0);
                    prop_assert!(got.is_some() || !fits);
                    got
                }
                Step::CacheAlloc => cache.alloc(|| Some(&mut frames)).map(|pfn| (pfn, 0)),
                Step::Free(which) if !out.is_empty() => {
                    let (pfn, order) = out.swap_remove(which.index(out.len()));
                    frames.free(pfn, order).unwrap();
                    in_use -= 1u64 << order;
                    owned[(pfn.0 - base) as usize..][..1 << order].fill(true);
                    None
                }
                Step::CacheFree(which) if !out.is_empty() => {
                    let at = which.index(out.len());
                    let (pfn, order) = out[at];
                    let result = cache.free(pfn, || &mut frames);
                    if order == 0 {
                        prop_assert_eq!(result, Ok(()));
                        out.swap_remove(at);
                        in_use -= 1;
                        owned[(pfn.0 - base) as usize] = true;
                    } else {
                        prop_assert_eq!(mismatch(result), Mismatch::WrongOrder(order));
                    }
                    None
                }
                _ => None,
            };
            if let Some((pfn, order)) = got {
                prop_assert_eq!(pfn.0 % (1 << order), 0);
                for frame in &mut owned[(pfn.0 - base) as usize..][..1 << order] {
                    prop_assert!(core::mem::replace(frame, false), "handed out twice");
                }
                in_use += 1u64 << order;
                out.push((pfn, order));
            }
            prop_assert_eq!(frames.free_frames() + cache.len() as u64 + in_use, total);
        }
        for (pfn, order) in out {
            frames.free(pfn, order).unwrap();
        }
        cache.drain(&mut frames, usize::MAX);
        prop_assert_eq!(frames.free_frames(), total);
        prop_assert_eq!(frames.free_blocks(), at_first);
    }
}
