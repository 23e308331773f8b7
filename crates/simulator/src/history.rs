//! What clients did and were told: the only evidence that the laws look at.

use std::collections::BTreeMap;

use crate::time::{Micros, SECOND};

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

/// All deeds, by key, in the order in which they ended; one without an end stands where its client
/// gave it up.
#[derive(Debug, Default)]
pub struct History {
    pub deeds: BTreeMap<KeyId, Vec<Deed>>,
    /// When the last deletion began of which nobody knows whether it happened.
    perhaps_deleted: BTreeMap<KeyId, Micros>,
}

/// What nobody knows about happens within this time or never: frames wait for a cut way, and in a
/// process that stands still, for less (`scenario::KINDS`), and then are late for their deadline.
const LATE_MAX: Micros = 60 * SECOND;

impl History {
    pub fn note(&mut self, key: KeyId, deed: Deed) {
        if deed.what == What::Deleted && deed.ended.is_none() {
            let latest = self.perhaps_deleted.entry(key).or_default();
            *latest = deed.began.max(*latest);
        }
        self.deeds.entry(key).or_default().push(deed);
    }

    /// The deeds of a key that had not ended at this moment, or of which nobody knows whether they
    /// have, the newest first.
    pub(crate) fn since(&self, key: KeyId, from: Micros) -> impl Iterator<Item = &Deed> {
        let deeds = self.deeds.get(&key).map_or(&[][..], Vec::as_slice);
        deeds.iter().rev().take_while(move |deed| deed.ended.is_none_or(|ended| from <= ended))
    }

    /// The acknowledged write that began last, of those that ended before this moment.
    fn stored_before(&self, key: KeyId, before: Micros) -> Option<&Deed> {
        let deeds = self.deeds.get(&key)?;
        let mut stored: Option<&Deed> = None;
        for deed in deeds.iter().rev() {
            let Some(ended) = deed.ended else { continue };
            // Whatever ended before it began has begun before it, too.
            if stored.is_some_and(|stored| ended < stored.began) {
                break;
            }
            let is_newer = stored.is_none_or(|stored| stored.began < deed.began);
            if ended < before && is_newer && matches!(deed.what, What::Wrote(_)) {
                stored = Some(deed);
            }
        }
        stored
    }

    /// The acknowledged write that a read which began at this moment must find, unless something else
    /// has taken its item: nobody can have deleted it.
    pub(crate) fn kept_before(&self, key: KeyId, before: Micros) -> Option<&Deed> {
        let stored = self.stored_before(key, before)?;
        let is_deleted = self.since(key, stored.began).any(|deed| deed.what == What::Deleted);
        let perhaps = self.perhaps_deleted.get(&key).copied();
        let perhaps_deleted = perhaps.is_some_and(|began| stored.began <= began + LATE_MAX);
        (!is_deleted && !perhaps_deleted).then_some(stored)
    }
}
