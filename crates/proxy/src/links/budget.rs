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
    pub(super) fn earn(&mut self) {
        self.saved = (self.saved + 1).min(SAVED_MAX);
    }

    /// Whether one more request may be repeated.
    pub(super) fn take(&mut self) -> bool {
        let enough = COST <= self.saved;
        if enough {
            self.saved -= COST;
        }
        enough
    }
}

#[cfg(test)]
mod tests {
    use super::{Budget, COST, SAVED_MAX};

    #[test]
    fn a_tenth_may_be_repeated_and_little_is_saved_up() {
        let mut budget = Budget::default();
        assert!(!budget.take());
        let mut repeated = 0;
        for _ in 0..10_000 {
            budget.earn();
            repeated += u32::from(budget.take());
        }
        assert_eq!(repeated, 1_000);
        (0..100_000).for_each(|_| budget.earn());
        assert_eq!((0..100_000).filter(|_| budget.take()).count() as u32, SAVED_MAX / COST);
    }
}
