//! The cluster map: a table, and how new it is.

use std::fmt;

use crate::digest::Digest;
use crate::member::MemberName;
use crate::slot::Slot;
use crate::table::Table;

/// How often a cluster's map has changed. Grows by one with each map, so of two the greater is
/// newer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Epoch(u64);

impl Epoch {
    pub const FIRST: Epoch = Epoch(1);

    pub const fn new(number: u64) -> Self {
        Epoch(number)
    }

    pub const fn get(self) -> u64 {
        self.0
    }

    /// The epoch after this one. At a million maps a second, `u64` lasts for 500,000 years.
    pub const fn next(self) -> Self {
        Epoch(self.0 + 1)
    }
}

impl fmt::Display for Epoch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// Which member owns which slot, as of one epoch. Cheap to clone.
///
/// For a proxy a map is a *hint*: the backend that is asked decides whether it owns the slot. So an
/// old map costs a hop, never a stale value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClusterMap {
    epoch: Epoch,
    table: Table,
}

impl ClusterMap {
    pub fn new(epoch: Epoch, table: Table) -> Self {
        ClusterMap { epoch, table }
    }

    /// The map that follows this one.
    pub fn next(&self, table: Table) -> Self {
        ClusterMap { epoch: self.epoch.next(), table }
    }

    pub fn epoch(&self) -> Epoch {
        self.epoch
    }

    pub fn table(&self) -> &Table {
        &self.table
    }

    pub fn owner(&self, slot: Slot) -> &MemberName {
        self.table.owner_name(slot)
    }

    /// Of the table alone: two maps of different epochs with one digest send every key to the same
    /// member.
    pub fn digest(&self) -> Digest {
        self.table.digest()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::member::{Member, Members, Weight};
    use crate::scheme::Scheme;

    #[test]
    fn the_same_table_under_a_later_epoch_has_the_same_digest() {
        let name = MemberName::parse("only").expect("a good name");
        let members = Members::new([Member { name: name.clone(), weight: Weight::new(1) }]);
        let table = Scheme::Maglev.place(&members.expect("one member"));
        let first = ClusterMap::new(Epoch::FIRST, table.clone());
        let second = first.next(table);
        assert!(first.epoch() < second.epoch());
        assert_ne!(first, second);
        assert_eq!(first.digest(), second.digest());
        assert!(Slot::all().all(|slot| *second.owner(slot) == name));
    }
}
