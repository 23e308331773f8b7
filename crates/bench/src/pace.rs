//! When requests leave: as replies come (closed loop), or at times decided beforehand (open loop).

use crate::random::{GOLDEN, Random};

#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Pace {
    /// Each connection keeps its number of requests in flight.
    Closed,
    /// Requests leave at a rate, whatever the server does.
    Open(Rate),
}

/// How often a thread sends.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Rate {
    pub(crate) per_second: f64,
    pub(crate) spacing: Spacing,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Spacing {
    /// At equal distances.
    Even,
    /// As by many clients that know nothing of each other.
    Poisson,
}

/// The times at which one thread should send.
#[derive(Debug, Clone)]
pub(crate) struct Arrivals {
    rate: Rate,
    /// Nanoseconds since the run began; a fraction, so that rounding does not change the rate.
    next_at: f64,
    random: Random,
    /// Whose turn it is among the connections.
    turn: usize,
}

impl Arrivals {
    pub(crate) fn new(rate: Rate, start: u64, seed: u64, part: usize) -> Arrivals {
        let random = Random::new(seed.wrapping_mul(GOLDEN) ^ part as u64);
        let mut arrivals = Arrivals { rate, next_at: start as f64, random, turn: 0 };
        arrivals.advance();
        arrivals
    }

    /// When the next request should leave.
    pub(crate) fn next_at(&self) -> u64 {
        self.next_at as u64
    }

    pub(crate) fn advance(&mut self) {
        let gap = match self.rate.spacing {
            Spacing::Even => 1.0,
            // The logarithm of 0 would be endless; 1 - x for x below 1 never is 0.
            Spacing::Poisson => -(1.0 - self.random.unit()).ln(),
        };
        self.next_at += gap * 1e9 / self.rate.per_second;
    }

    /// The place of the connection whose turn it is, out of `count`.
    pub(crate) fn take_turn(&mut self, count: usize) -> usize {
        self.turn = (self.turn + 1) % count;
        self.turn
    }

    /// Skips and counts the requests that should have left before `end`.
    pub(crate) fn due_before(&mut self, end: u64) -> u64 {
        let mut count = 0;
        while self.next_at() < end {
            self.advance();
            count += 1;
        }
        count
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_spacings_keep_the_rate() {
        for spacing in [Spacing::Even, Spacing::Poisson] {
            let rate = Rate { per_second: 50_000.0, spacing };
            let sent = Arrivals::new(rate, 7, 1, 0).due_before(4_000_000_007);
            assert!((198_500..201_500).contains(&sent), "{spacing:?}: {sent}");
        }
    }

    #[test]
    fn even_requests_stand_at_equal_distances() {
        let rate = Rate { per_second: 1e6, spacing: Spacing::Even };
        let mut arrivals = Arrivals::new(rate, 0, 1, 0);
        let times: Vec<u64> = (0..3)
            .map(|_| {
                let at = arrivals.next_at();
                arrivals.advance();
                at
            })
            .collect();
        assert_eq!(times, [1_000, 2_000, 3_000]);
    }
}
