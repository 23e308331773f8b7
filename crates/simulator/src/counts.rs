//! How much was played, and which states were reached: laws that hold in a world where nothing
//! happens say nothing.

use std::collections::BTreeMap;
use std::fmt;

use proxy::simulated;

use crate::time::{Micros, SECOND};

/// Figures of one play, or of many together.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Counts {
    pub simulated: Micros,
    pub events: u64,
    /// Requests of clients that were answered, by what the answer was.
    pub done: u64,
    pub found: u64,
    pub missed: u64,
    pub unsure: u64,
    pub refused: u64,
    /// Requests whose clients gave up, or lost their connection.
    pub unanswered: u64,
    pub logins: u64,
    pub faults: BTreeMap<&'static str, u64>,
    pub starts: u64,
    pub prepared: u64,
    pub committed: u64,
    pub aborted: u64,
    pub settled: u64,
    pub given_up: u64,
    pub poisoned: u64,
    pub replayed: u64,
    /// Items that had to go because their cache was full.
    pub evicted: u64,
    /// Of the links: requests written, hedged, retried, sent on to another owner.
    pub links: BTreeMap<&'static str, u64>,
    /// Most requests one proxy had under way.
    pub under_way_max: usize,
    /// From the moment everything was mended to the last request that did not succeed.
    pub healed_after_max: Micros,
}

impl Counts {
    pub(crate) fn note_requests(&mut self, counts: simulated::Counts) {
        self.under_way_max = self.under_way_max.max(counts.requests.0);
    }

    pub fn operations(&self) -> u64 {
        self.done + self.found + self.missed + self.unsure + self.refused + self.unanswered
    }

    pub fn faults(&self) -> u64 {
        self.faults.values().sum()
    }

    pub fn add(&mut self, other: &Counts) {
        self.simulated += other.simulated;
        self.events += other.events;
        self.done += other.done;
        self.found += other.found;
        self.missed += other.missed;
        self.unsure += other.unsure;
        self.refused += other.refused;
        self.unanswered += other.unanswered;
        self.logins += other.logins;
        for (mine, theirs) in [(&mut self.faults, &other.faults), (&mut self.links, &other.links)] {
            for (name, count) in theirs {
                *mine.entry(name).or_default() += count;
            }
        }
        self.starts += other.starts;
        self.prepared += other.prepared;
        self.committed += other.committed;
        self.aborted += other.aborted;
        self.settled += other.settled;
        self.given_up += other.given_up;
        self.poisoned += other.poisoned;
        self.replayed += other.replayed;
        self.evicted += other.evicted;
        self.under_way_max = self.under_way_max.max(other.under_way_max);
        self.healed_after_max = self.healed_after_max.max(other.healed_after_max);
    }
}

impl fmt::Display for Counts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let minutes = self.simulated / (60 * SECOND);
        writeln!(f, "simulated   {minutes} minutes, {} events", self.events)?;
        writeln!(
            f,
            "operations  {} (done {}, found {}, missed {}, unsure {}, refused {}, unanswered {})",
            self.operations(),
            self.done,
            self.found,
            self.missed,
            self.unsure,
            self.refused,
            self.unanswered
        )?;
        writeln!(f, "faults      {}", self.faults())?;
        for (name, count) in &self.faults {
            writeln!(f, "            {count:>9} {name}")?;
        }
        writeln!(
            f,
            "states      {} processes started, epochs: {} prepared, {} committed, {} aborted, {} \
             settled; {} nodes given up; {} links poisoned, {} replies replayed; {} items evicted",
            self.starts,
            self.prepared,
            self.committed,
            self.aborted,
            self.settled,
            self.given_up,
            self.poisoned,
            self.replayed,
            self.evicted
        )?;
        for (name, count) in &self.links {
            writeln!(f, "            {count:>9} {name}")?;
        }
        writeln!(
            f,
            "            {} requests under way at most; all well {} ms after healing at the latest",
            self.under_way_max,
            self.healed_after_max / 1_000
        )
    }
}
