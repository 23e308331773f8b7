//! Whether what was counted on one side is more than chance, beside what was counted on the other.
//!
//! Rare events that befall two kinds of work alike fall on each by its share of the time. So of all
//! that were seen, the number on one side is drawn from a binomial distribution, whatever their rate
//! is; a side that has more than that will give brings some of its own.

/// How probable it is that of `mine + others` events that strike both sides alike so many as `mine`
/// or more are on mine, which has this share of the time.
///
/// # Panics
/// When `share` is not between 0 and 1: then there was nothing to compare with.
pub fn chance_of(mine: u64, others: u64, share: f64) -> f64 {
    assert!(0.0 < share && share < 1.0, "both sides need some of the time");
    let all = mine + others;
    // By logarithms, because the probability of each count alone may be too small for a number.
    let ways: f64 = (1..=mine).map(|i| ((others + i) as f64 / i as f64).ln()).sum();
    let mut term = ways + mine as f64 * share.ln() + others as f64 * (1.0 - share).ln();
    let odds = (share / (1.0 - share)).ln();
    let mut sum = 0.0;
    for count in mine..=all {
        sum += term.exp();
        term += ((all - count) as f64 / (count + 1) as f64).ln() + odds;
    }
    sum.min(1.0)
}

/// The least count on one side that chance alone gives with a probability below `rare`.
pub fn least_beyond_chance(others: u64, share: f64, rare: f64) -> u64 {
    (0..).find(|&mine| chance_of(mine, others, share) < rare).expect("more is ever less probable")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(mine: u64, others: u64, share: f64, expected: f64) {
        let chance = chance_of(mine, others, share);
        assert!((chance - expected).abs() < 1e-9 * expected, "{chance}, not {expected}");
    }

    #[test]
    fn nothing_or_more_is_certain() {
        check(0, 0, 0.5, 1.0);
        check(0, 9, 0.3, 1.0);
    }

    #[test]
    fn coins_fall_as_they_do() {
        check(1, 0, 0.5, 0.5);
        check(3, 0, 0.5, 0.125);
        check(2, 1, 0.5, 0.5);
        check(9, 1, 0.5, 11.0 / 1_024.0);
    }

    #[test]
    fn a_side_with_little_time_has_few_by_chance() {
        check(2, 0, 0.1, 0.01);
        check(1, 1, 0.1, 0.19);
    }

    #[test]
    fn large_counts_are_told_apart() {
        assert!(chance_of(5_000, 5_000, 0.5) > 0.4);
        assert!(chance_of(5_500, 4_500, 0.5) < 1e-20);
    }

    #[test]
    fn seven_against_none_are_more_than_chance() {
        assert_eq!(least_beyond_chance(0, 0.5, 0.01), 7);
        assert_eq!(least_beyond_chance(3, 0.5, 0.01), 14);
    }
}
