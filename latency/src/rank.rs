//! The rank-sum test of Mann and Whitney: whether two samples come from one distribution, judged by their order
//! alone, so that the long tails of times on a shared host do no harm.
//!
//! Small samples without ties are judged exactly, by counting the arrangements; others by the normal approximation
//! with corrections for ties and continuity. (H. B. Mann, D. R. Whitney, 1947; the approximation as in scipy's
//! `mannwhitneyu`.) The crate `statrs` has the test, but its exact method gives 1 for samples that do not overlap.

/// Largest sample that is judged exactly.
const EXACT_MAX: usize = 25;

/// What the test found.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct RankTest {
    /// Pairs in which the first sample's value is the greater one; ties count one half.
    pub u: f64,
    /// Probability of an order at least as uneven as this, either way, where both come from one distribution.
    pub p_two_sided: f64,
}

/// Compares two samples. Nothing is known of an empty one: probability 1.
pub fn mann_whitney(a: &[f64], b: &[f64]) -> RankTest {
    let (mut u, mut ties) = (0.0, false);
    for x in a {
        for y in b {
            u += if x > y { 1.0 } else { 0.0 };
            if x == y {
                u += 0.5;
                ties = true;
            }
        }
    }
    let p_two_sided = if a.is_empty() || b.is_empty() {
        1.0
    } else if !ties && a.len() <= EXACT_MAX && b.len() <= EXACT_MAX {
        exact(u as usize, a.len(), b.len())
    } else {
        approximate(u, a, b)
    };
    RankTest { u, p_two_sided }
}

/// Two-sided probability without ties, `u` being a whole number then.
fn exact(u: usize, a: usize, b: usize) -> f64 {
    let pairs = a * b;
    // counts[i][k]: arrangements of i values of the first sample among those of the second seen so far with U = k.
    let mut counts = vec![vec![0.0; pairs + 1]; a + 1];
    counts[0][0] = 1.0;
    for rank in 0..a + b {
        // The value of this rank, taken for the first sample as its (i + 1)th, is above rank - i of the second.
        for i in (0..a.min(rank + 1)).rev() {
            if rank - i > b {
                continue;
            }
            for k in (0..=pairs - (rank - i).min(pairs)).rev() {
                counts[i + 1][k + rank - i] += counts[i][k];
            }
        }
    }
    let all: f64 = counts[a].iter().sum();
    let beyond: f64 = counts[a][u.max(pairs - u)..].iter().sum();
    (2.0 * beyond / all).min(1.0)
}

fn approximate(u: f64, a: &[f64], b: &[f64]) -> f64 {
    let mut all: Vec<f64> = a.iter().chain(b).copied().collect();
    all.sort_by(f64::total_cmp);
    let tied: f64 = all
        .chunk_by(|x, y| x == y)
        .map(|group| group.len() as f64)
        .map(|count| count.powi(3) - count)
        .sum();
    let (n, pairs) = (all.len() as f64, (a.len() * b.len()) as f64);
    let variance = pairs / 12.0 * (n + 1.0 - tied / (n * (n - 1.0)));
    if variance <= 0.0 {
        // All values are the same.
        return 1.0;
    }
    let beyond = ((u - pairs / 2.0).abs() - 0.5).max(0.0);
    libm::erfc(beyond / variance.sqrt() / std::f64::consts::SQRT_2)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn p(a: &[f64], b: &[f64]) -> f64 {
        mann_whitney(a, b).p_two_sided
    }

    fn close(left: f64, right: f64) -> bool {
        (left - right).abs() < 1e-9
    }

    #[test]
    fn examples_from_elsewhere() {
        // scipy's documentation of mannwhitneyu: U = 17, p = 0.1111.
        let test = mann_whitney(&[19.0, 22.0, 16.0, 29.0, 24.0], &[20.0, 11.0, 17.0, 12.0]);
        assert_eq!(test.u, 17.0);
        assert!(close(test.p_two_sided, 1.0 / 9.0), "{test:?}");
        // Samples that do not overlap: 2 of the arrangements are so uneven.
        let (low, high) = ([1.0, 2.0, 3.0, 4.0, 5.0], [6.0, 7.0, 8.0, 9.0, 10.0]);
        assert!(close(p(&low, &high), 2.0 / 252.0));
        assert!(close(p(&low[..3], &high[..3]), 2.0 / 20.0));
    }

    #[test]
    fn nothing_to_tell_apart() {
        assert_eq!(p(&[], &[1.0]), 1.0);
        assert_eq!(p(&[2.0; 5], &[2.0; 5]), 1.0);
        assert_eq!(p(&[1.0], &[2.0]), 1.0);
    }

    #[test]
    fn the_approximation_comes_close() {
        let a: Vec<f64> = (0..20).map(|i| f64::from(i) * 1.01).collect();
        let b: Vec<f64> = (0..20).map(|i| f64::from(i) * 1.01 + 3.5).collect();
        let u = mann_whitney(&a, &b).u;
        let (exact, near) = (exact(u as usize, 20, 20), approximate(u, &a, &b));
        assert!((exact - near).abs() < 0.005, "{exact} {near}");
    }

    /// Every way to choose the first sample's ranks, by bits.
    fn by_hand(a: usize, b: usize, u: usize) -> f64 {
        let of = |bits: u32| {
            let above = |rank: u32| (0..rank).filter(|low| bits >> low & 1 == 0).count();
            (0..(a + b) as u32).filter(|rank| bits >> rank & 1 == 1).map(above).sum::<usize>()
        };
        let all: Vec<_> =
            (0..1u32 << (a + b)).filter(|bits| bits.count_ones() as usize == a).map(of).collect();
        let uneven = |u: usize| u.max(a * b - u);
        let beyond = all.iter().filter(|&&other| uneven(other) >= uneven(u)).count();
        beyond as f64 / all.len() as f64
    }

    proptest! {
        #[test]
        fn exact_is_what_counting_gives(order in Just((0..9).collect::<Vec<u32>>()).prop_shuffle(), cut in 1usize..9) {
            let values: Vec<f64> = order.into_iter().map(f64::from).collect();
            let (a, b) = values.split_at(cut);
            let test = mann_whitney(a, b);
            let counted = by_hand(a.len(), b.len(), test.u as usize);
            prop_assert!(close(test.p_two_sided, counted), "{test:?} {counted}");
        }

        #[test]
        fn order_and_scale_do_not_matter(
            a in prop::collection::vec(0u8..20, 1..12), b in prop::collection::vec(0u8..20, 1..12),
        ) {
            let a: Vec<f64> = a.into_iter().map(f64::from).collect();
            let b: Vec<f64> = b.into_iter().map(f64::from).collect();
            let there = p(&a, &b);
            prop_assert!((0.0..=1.0).contains(&there));
            prop_assert!(close(there, p(&b, &a)));
            let cubed = |values: &[f64]| values.iter().map(|v| v.powi(3)).collect::<Vec<_>>();
            prop_assert!(close(there, p(&cubed(&a), &cubed(&b))));
        }
    }
}
