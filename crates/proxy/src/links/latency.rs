//! How long a backend takes: a running estimate of the time that 95 of 100 replies keep.

/// First guess, in microseconds, before any reply has come.
const FIRST_GUESS: f64 = 1_000.0;

/// How fast the estimate moves: by a hundredth up for a reply that is later than it, by a
/// nineteenth of that down for one that is not. It rests where 19 of 20 replies are sooner.
const STEP: f64 = 0.01;

/// Estimates the 95th percentile in constant space and a few instructions per reply.
#[derive(Debug)]
pub(super) struct Percentile95(f64);

impl Percentile95 {
    pub(super) fn new() -> Self {
        Percentile95(FIRST_GUESS)
    }

    pub(super) fn note(&mut self, micros: u64) {
        if self.0 < micros as f64 {
            self.0 *= 1.0 + STEP;
        } else {
            self.0 *= 1.0 - STEP / 19.0;
        }
        // Below a microsecond there is nothing to tell, and never being 0 lets it grow again.
        self.0 = self.0.max(1.0);
    }

    pub(super) fn micros(&self) -> u64 {
        self.0 as u64
    }
}

#[cfg(test)]
mod tests {
    use super::Percentile95;

    #[test]
    fn the_estimate_finds_the_percentile_and_follows_a_change() {
        let mut estimate = Percentile95::new();
        for scale in [1, 10] {
            // A permutation of 0..1000 again and again: the 95th percentile is 950.
            for number in 0..100_000_u64 {
                estimate.note(number * 387 % 1_000 * scale);
            }
            let expected = 950 * scale;
            let found = estimate.micros();
            assert!(found.abs_diff(expected) < expected / 10, "{found} instead of {expected}");
        }
    }
}
