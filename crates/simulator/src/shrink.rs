//! Makes a failing scenario smaller: fewer faults, fewer clients, fewer requests, and still the same
//! law broken.
//!
//! Zeller and Hildebrandt's delta debugging (2002): leave out half of what there is, else a quarter,
//! and so on, for as long as the failure stays and there is time.

use std::time::{Duration, Instant};

use crate::laws::Violation;
use crate::play::play;
use crate::scenario::Scenario;
use crate::story::Story;

/// The smallest scenario that was found to break the same law, and how often it was tried.
#[derive(Debug)]
pub struct Shrunk {
    pub scenario: Scenario,
    pub violation: Violation,
    pub tries: u64,
}

/// Makes the scenario smaller for at most this long.
pub fn shrink(scenario: Scenario, violation: Violation, time_max: Duration) -> Shrunk {
    let until = Instant::now() + time_max;
    let mut shrinking = Shrinking { best: scenario, violation, tries: 0, until };
    // What comes after the failure has no part in it.
    let end = shrinking.violation.at;
    let mut shorter = shrinking.best.clone();
    shorter.length = shorter.length.min(end);
    shorter.faults.retain(|timed| timed.at <= end);
    shrinking.try_it(shorter);
    shrinking.leave_out_faults();
    while 1 < shrinking.best.clients {
        let mut fewer = shrinking.best.clone();
        fewer.clients -= 1;
        if !shrinking.try_it(fewer) {
            break;
        }
    }
    shrinking.leave_out_batches();
    shrinking.leave_out_faults();
    let Shrinking { best, violation, tries, .. } = shrinking;
    Shrunk { scenario: best, violation, tries }
}

struct Shrinking {
    best: Scenario,
    violation: Violation,
    tries: u64,
    until: Instant,
}

impl Shrinking {
    /// Keeps the scenario if it breaks the same law.
    fn try_it(&mut self, scenario: Scenario) -> bool {
        if self.until <= Instant::now() {
            return false;
        }
        self.tries += 1;
        let played = play(scenario.clone(), Story::silent());
        match played.violation {
            Some(violation) if violation.law == self.violation.law => {
                self.best = scenario;
                self.violation = violation;
                true
            }
            Some(_) | None => false,
        }
    }

    fn leave_out_faults(&mut self) {
        let mut size = self.best.faults.len().div_ceil(2);
        while 0 < size {
            let mut at = 0;
            while at < self.best.faults.len() {
                let mut fewer = self.best.clone();
                let end = (at + size).min(fewer.faults.len());
                fewer.faults.drain(at..end);
                if !self.try_it(fewer) {
                    at += size;
                }
            }
            size = if size == 1 { 0 } else { size.div_ceil(2) };
        }
    }

    fn leave_out_batches(&mut self) {
        let batches = play(self.best.clone(), Story::silent()).batches;
        let mut left: Vec<(usize, u64)> = batches
            .iter()
            .enumerate()
            .flat_map(|(client, &count)| (0..count).map(move |batch| (client, batch)))
            .filter(|batch| !self.best.left_out.contains(batch))
            .collect();
        left.sort_by_key(|&(client, batch)| (batch, client));
        let mut size = left.len().div_ceil(2);
        while 0 < size {
            let mut at = 0;
            while at < left.len() && Instant::now() < self.until {
                let end = (at + size).min(left.len());
                let mut fewer = self.best.clone();
                fewer.left_out.extend(&left[at..end]);
                if self.try_it(fewer) {
                    left.drain(at..end);
                } else {
                    at += size;
                }
            }
            size = if size == 1 || self.until <= Instant::now() { 0 } else { size.div_ceil(2) };
        }
    }
}
