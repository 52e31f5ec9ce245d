//! Whether two sets of noisy numbers differ at all: the Mann-Whitney U test.
//!
//! H. B. Mann and D. R. Whitney, "On a Test of Whether one of Two Random Variables is Stochastically Larger than the
//! Other", Annals of Mathematical Statistics 18 (1947). It asks nothing of the numbers' distribution, and one outlier
//! counts for no more than its rank.

/// The verdict on two samples.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct RankTest {
    /// Pairs in which the second sample's number is the larger; a tie counts for half.
    pub u: f64,
    /// Probability of a difference in ranks at least this large, either way, between samples of one distribution.
    pub p_two_sided: f64,
}

/// Most pairs for which the distribution is counted out; beyond, and where there are ties, it is near enough to the
/// normal one.
const MOST_EXACT_PAIRS: usize = 400;

/// Compares two samples; `None` where one is empty.
pub fn mann_whitney(first: &[f64], second: &[f64]) -> Option<RankTest> {
    let (n, m) = (first.len(), second.len());
    if n == 0 || m == 0 {
        return None;
    }
    let mut u = 0.0;
    let mut tied = false;
    for a in first {
        for b in second {
            match b.total_cmp(a) {
                std::cmp::Ordering::Greater => u += 1.0,
                std::cmp::Ordering::Equal => {
                    tied = true;
                    u += 0.5;
                }
                std::cmp::Ordering::Less => {}
            }
        }
    }
    let p =
        if tied || n * m > MOST_EXACT_PAIRS { normal(first, second, u) } else { exact(n, m, u) };
    Some(RankTest { u, p_two_sided: p.min(1.0) })
}

/// Counts in how many orders of the samples each U comes up: `counts(n, m)` by the largest number, which is of the
/// first sample and adds nothing, or of the second and adds a pair with each of the first.
fn exact(n: usize, m: usize, u: f64) -> f64 {
    let pairs = n * m;
    // ways[i][j] are the counts for i and j numbers.
    let mut ways = vec![vec![Vec::new(); m + 1]; n + 1];
    for i in 0..=n {
        for j in 0..=m {
            let mut counts = vec![0.0; i * j + 1];
            if i == 0 || j == 0 {
                counts[0] = 1.0;
            } else {
                let without_first: &Vec<f64> = &ways[i - 1][j];
                let without_second: &Vec<f64> = &ways[i][j - 1];
                for (at, count) in without_first.iter().enumerate() {
                    counts[at] += count;
                }
                for (at, count) in without_second.iter().enumerate() {
                    counts[at + i] += count;
                }
            }
            ways[i][j] = counts;
        }
    }
    let counts = &ways[n][m];
    let all: f64 = counts.iter().sum();
    // As far from the middle as u, or farther: the distribution is symmetric.
    let extreme = (u.min(pairs as f64 - u)) as usize;
    2.0 * counts[..=extreme].iter().sum::<f64>() / all
}

/// The normal approximation, corrected for ties and for continuity.
fn normal(first: &[f64], second: &[f64], u: f64) -> f64 {
    let (n, m) = (first.len() as f64, second.len() as f64);
    let mut all: Vec<f64> = first.iter().chain(second).copied().collect();
    all.sort_unstable_by(f64::total_cmp);
    let ties: f64 = all
        .chunk_by(|a, b| a.total_cmp(b).is_eq())
        .map(|run| (run.len() as f64).powi(3) - run.len() as f64)
        .sum();
    let count = n + m;
    let variance = n * m / 12.0 * (count + 1.0 - ties / (count * (count - 1.0)));
    if variance <= 0.0 {
        return 1.0;
    }
    let distance = ((u - n * m / 2.0).abs() - 0.5).max(0.0);
    complementary_error(distance / variance.sqrt() / std::f64::consts::SQRT_2)
}

/// erfc for numbers that are not negative, within 1.5e-7 (Abramowitz and Stegun, Handbook of Mathematical Functions,
/// 7.1.26).
fn complementary_error(x: f64) -> f64 {
    let t = 1.0 / (1.0 + 0.327_591_1 * x);
    let terms = [1.061_405_429, -1.453_152_027, 1.421_413_741, -0.284_496_736, 0.254_829_592];
    t * terms.into_iter().fold(0.0, |sum, term| sum * t + term) * (-x * x).exp()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn p(first: &[f64], second: &[f64]) -> f64 {
        mann_whitney(first, second).unwrap().p_two_sided
    }

    #[test]
    fn agrees_with_tables() {
        // Complete separation: 2 / C(10, 5) and 2 / C(16, 8).
        let count = |from: u32, to: u32| (from..to).map(f64::from).collect::<Vec<_>>();
        assert!((p(&count(0, 5), &count(5, 10)) - 2.0 / 252.0).abs() < 1e-12);
        assert!((p(&count(0, 8), &count(8, 16)) - 2.0 / 12_870.0).abs() < 1e-12);
        // Critical value of U at 5 % for samples of 8 is 13 (two-sided): 13 is significant, 14 is not.
        assert!(exact(8, 8, 13.0) <= 0.05 && exact(8, 8, 14.0) > 0.05);
        assert!(mann_whitney(&[], &[1.0]).is_none());
    }

    #[test]
    fn samples_that_are_all_alike_do_not_differ() {
        assert_eq!(p(&[3.0; 8], &[3.0; 8]), 1.0);
    }

    #[test]
    fn the_approximation_is_near_what_is_counted() {
        let first: Vec<f64> = (0..20).map(f64::from).collect();
        let second: Vec<f64> = (0..20).map(|at| f64::from(at) + 6.5).collect();
        let u = mann_whitney(&first, &second).unwrap().u;
        let (counted, near) = (exact(20, 20, u), normal(&first, &second, u));
        assert!((counted - near).abs() < 0.003, "{counted} {near}");
    }

    proptest! {
        #[test]
        fn is_symmetric_and_a_probability(
            first in prop::collection::vec(0u32..40, 1..9),
            second in prop::collection::vec(0u32..40, 1..9),
        ) {
            let numbers = |from: &[u32]| from.iter().copied().map(f64::from).collect::<Vec<_>>();
            let (first, second) = (numbers(&first), numbers(&second));
            let (one, other) = (p(&first, &second), p(&second, &first));
            prop_assert!((one - other).abs() < 1e-9);
            prop_assert!((0.0..=1.0).contains(&one));
        }
    }
}
