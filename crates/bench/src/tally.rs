//! What was counted while requests were answered.

use crate::mix::Act;
use hdrhistogram::Histogram;

/// The counts of one thread, or of all of them once they are added up.
#[derive(Debug, Clone)]
pub(crate) struct Tally {
    /// Requests answered, whatever the answer, by [`Act`].
    pub(crate) answered: [u64; Act::ALL.len()],
    /// Authentications, when these are what is measured.
    pub(crate) logins: u64,
    /// Keys found by gets.
    pub(crate) hits: u64,
    /// Keys not found, by gets and by changes of what does not exist.
    pub(crate) misses: u64,
    /// Values that nobody wrote under their key.
    pub(crate) wrong_values: u64,
    /// Requests that the server refused.
    pub(crate) refused: u64,
    /// The first few different refusals, in the server's words.
    pub(crate) refusals: Vec<String>,
    /// Requests that were never answered: their connection was lost, or the run was over.
    pub(crate) unanswered: u64,
    /// Requests that a fixed rate called for and that were never sent.
    pub(crate) unsent: u64,
    /// Connections that the server closed, or that failed.
    pub(crate) connections_lost: u64,
    pub(crate) bytes_sent: u64,
    pub(crate) bytes_received: u64,
    /// Nanoseconds from the intended sending of a request to the reading of its reply.
    pub(crate) latencies: Histogram<u64>,
    /// At a fixed rate: nanoseconds from the intended to the true sending.
    pub(crate) lateness: Histogram<u64>,
}

/// Enough to see what is the matter; a million equal lines help nobody.
const REFUSALS_KEPT_MAX: usize = 5;

impl Tally {
    pub(crate) fn new() -> Tally {
        Tally {
            answered: [0; Act::ALL.len()],
            logins: 0,
            hits: 0,
            misses: 0,
            wrong_values: 0,
            refused: 0,
            refusals: Vec::new(),
            unanswered: 0,
            unsent: 0,
            connections_lost: 0,
            bytes_sent: 0,
            bytes_received: 0,
            latencies: histogram(),
            lateness: histogram(),
        }
    }

    pub(crate) fn requests(&self) -> u64 {
        self.answered.iter().sum()
    }

    pub(crate) fn refuse(&mut self, words: &[u8]) {
        self.refused += 1;
        if self.refusals.len() < REFUSALS_KEPT_MAX {
            let words = String::from_utf8_lossy(words).into_owned();
            if !self.refusals.contains(&words) {
                self.refusals.push(words);
            }
        }
    }

    pub(crate) fn add(&mut self, other: &Tally) {
        for (sum, count) in self.answered.iter_mut().zip(other.answered) {
            *sum += count;
        }
        self.logins += other.logins;
        self.hits += other.hits;
        self.misses += other.misses;
        self.wrong_values += other.wrong_values;
        self.refused += other.refused;
        for words in &other.refusals {
            if self.refusals.len() < REFUSALS_KEPT_MAX && !self.refusals.contains(words) {
                self.refusals.push(words.clone());
            }
        }
        self.unanswered += other.unanswered;
        self.unsent += other.unsent;
        self.connections_lost += other.connections_lost;
        self.bytes_sent += other.bytes_sent;
        self.bytes_received += other.bytes_received;
        self.latencies.add(&other.latencies).expect("all histograms have the same bounds");
        self.lateness.add(&other.lateness).expect("all histograms have the same bounds");
    }
}

/// Three digits, from a nanosecond to a minute; what is longer counts as a minute.
fn histogram() -> Histogram<u64> {
    Histogram::new_with_bounds(1, 60_000_000_000, 3).expect("these bounds are allowed")
}
