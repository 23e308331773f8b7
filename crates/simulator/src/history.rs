//! What clients did and were told: the only evidence that the laws look at.

use std::collections::BTreeMap;

use crate::time::Micros;

/// A key as the simulation knows it: whose it is, and which of theirs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct KeyId {
    pub tenant: usize,
    pub key: usize,
}

/// Every value that is written has a number of its own.
pub type Number = u64;

/// One thing a client did to one key.
#[derive(Debug, Clone)]
pub struct Deed {
    pub client: usize,
    pub through: usize,
    pub began: Micros,
    /// `None`: it was never answered, or so that nobody knows whether it happened.
    pub ended: Option<Micros>,
    pub what: What,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum What {
    Wrote(Number),
    Deleted,
    Read(Number),
    Missed,
    /// The client was told that it had not happened.
    Refused(Number),
}

/// All deeds, by key, in the order in which they ended.
#[derive(Debug, Default)]
pub struct History {
    pub deeds: BTreeMap<KeyId, Vec<Deed>>,
}

impl History {
    pub fn note(&mut self, key: KeyId, deed: Deed) {
        self.deeds.entry(key).or_default().push(deed);
    }
}
