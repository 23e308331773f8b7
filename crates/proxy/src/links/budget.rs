//! How much may be asked twice: a tenth of what is asked once.
//!
//! Hedges and retries share one budget. When everything is slow, asking everything twice is what
//! turns slow into down; a tenth more is not felt.

/// Repetitions that may be saved up; enough for the requests of a few milliseconds.
const SAVED_MAX: u32 = 64 * COST;

/// What one repetition costs, where each first attempt earns 1.
const COST: u32 = 10;

#[derive(Debug, Default)]
pub(super) struct Budget {
    saved: u32,
}

impl Budget {
    /// So many requests were asked for the first time.
    pub(super) fn earn(&mut self, requests: usize) {
        self.saved = self.saved.saturating_add(units(requests)).min(SAVED_MAX);
    }

    /// Whether so many requests, which go together, may be repeated.
    pub(super) fn take(&mut self, requests: usize) -> bool {
        let cost = units(requests).saturating_mul(COST);
        let enough = cost <= self.saved;
        if enough {
            self.saved -= cost;
        }
        enough
    }
}

fn units(requests: usize) -> u32 {
    u32::try_from(requests).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use super::{Budget, COST, SAVED_MAX};

    #[test]
    fn a_tenth_may_be_repeated_and_little_is_saved_up() {
        let mut budget = Budget::default();
        assert!(!budget.take(1));
        let mut repeated = 0;
        for _ in 0..10_000 {
            budget.earn(1);
            repeated += u32::from(budget.take(1));
        }
        assert_eq!(repeated, 1_000);
        (0..100_000).for_each(|_| budget.earn(1));
        assert_eq!((0..100_000).filter(|_| budget.take(1)).count() as u32, SAVED_MAX / COST);
    }
}
