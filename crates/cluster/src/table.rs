//! Who owns each slot: the result of placing members, and the only form in which it is compared,
//! sent and looked up.

use std::sync::Arc;

use sha2::{Digest as _, Sha256};

use crate::digest::Digest;
use crate::member::{MEMBERS_MAX, MemberName};
use crate::slot::{SLOTS, Slot};

/// Where a member stands in its table's list of names. Meaningless in any other table: names last,
/// indices do not.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct MemberIndex(u16);

impl MemberIndex {
    pub const fn get(self) -> u16 {
        self.0
    }

    /// Where the member stands in [`Table::names`].
    pub const fn index(self) -> usize {
        self.0 as usize
    }
}

/// The owner of every slot. Cheap to clone: 128 KiB are shared.
///
/// Two tables are equal if, and only if, they list the same names and every slot has the same
/// owner; their [`Table::digest`] says the same in 32 bytes.
#[derive(Debug, Clone)]
pub struct Table {
    /// Invariant: 1 to [`MEMBERS_MAX`] names, ascending, none twice.
    names: Arc<[MemberName]>,
    /// Invariant: [`SLOTS`] entries, each an index into `names`.
    owners: Arc<[u16]>,
    digest: Digest,
}

impl PartialEq for Table {
    fn eq(&self, other: &Self) -> bool {
        self.digest == other.digest
    }
}

impl Eq for Table {}

impl Table {
    /// Checks names and owners that came from elsewhere, such as a snapshot or a frame.
    ///
    /// `owners[slot]` is the index of the slot's owner in `names`.
    pub fn from_parts(names: Vec<MemberName>, owners: Vec<u16>) -> Result<Self, InvalidTable> {
        if names.is_empty() || names.len() > MEMBERS_MAX {
            return Err(InvalidTable::MemberCount { count: names.len() });
        }
        if !names.is_sorted_by(|a, b| a < b) {
            return Err(InvalidTable::NamesOutOfOrder);
        }
        if owners.len() != SLOTS as usize {
            return Err(InvalidTable::SlotCount { count: owners.len() });
        }
        if let Some(slot) = owners.iter().position(|&owner| usize::from(owner) >= names.len()) {
            return Err(InvalidTable::UnknownOwner { slot });
        }
        let digest = digest_of(&names, &owners);
        Ok(Table { names: names.into(), owners: owners.into(), digest })
    }

    /// The names of all members, ascending, also of those that own nothing.
    pub fn names(&self) -> &[MemberName] {
        &self.names
    }

    /// The index of each slot's owner in [`Table::names`], by slot.
    pub fn owners(&self) -> &[u16] {
        &self.owners
    }

    pub fn owner(&self, slot: Slot) -> MemberIndex {
        MemberIndex(self.owners[slot.index()])
    }

    pub fn owner_name(&self, slot: Slot) -> &MemberName {
        self.name(self.owner(slot))
    }

    /// # Panics
    ///
    /// If the index is another table's and too large for this one.
    pub fn name(&self, member: MemberIndex) -> &MemberName {
        &self.names[member.index()]
    }

    pub fn index_of(&self, name: &MemberName) -> Option<MemberIndex> {
        let at = self.names.binary_search(name).ok()?;
        Some(MemberIndex(u16::try_from(at).expect("at most MEMBERS_MAX names")))
    }

    /// How many slots each member owns, in the order of [`Table::names`].
    pub fn slot_counts(&self) -> Vec<u32> {
        let mut counts = vec![0; self.names.len()];
        for &owner in &*self.owners {
            counts[usize::from(owner)] += 1;
        }
        counts
    }

    /// The part of all slots that each member owns, 0 to 1, in the order of [`Table::names`].
    pub fn shares(&self) -> Vec<f64> {
        self.slot_counts().into_iter().map(share_of_slots).collect()
    }

    /// What a stranger needs to know whether it has the same table.
    ///
    /// SHA-256 over: the 15 bytes `larder table 1\n`; the number of names, `u16`; each name as one
    /// byte of length and its bytes, ascending; each slot's owner as `u16`, by slot. Numbers are
    /// little-endian. Epoch and weights are left out: they do not say who owns what.
    pub fn digest(&self) -> Digest {
        self.digest
    }

    /// The slots whose owner is another one in `after`, grouped by giver and taker; groups ascend
    /// by the two names, slots within a group by number.
    pub fn moves_to(&self, after: &Table) -> Vec<Move> {
        let pairs = after.names.len();
        // Names differ in their index between tables, so each is translated once.
        let unchanged: Vec<Option<MemberIndex>> =
            self.names.iter().map(|name| after.index_of(name)).collect();
        let mut slots: Vec<Vec<Slot>> = vec![Vec::new(); self.names.len() * pairs];
        for slot in Slot::all() {
            let (from, to) = (self.owner(slot), after.owner(slot));
            if unchanged[from.index()] != Some(to) {
                slots[from.index() * pairs + to.index()].push(slot);
            }
        }
        slots
            .into_iter()
            .enumerate()
            .filter(|(_, slots)| !slots.is_empty())
            .map(|(pair, slots)| Move {
                from: self.names[pair / pairs].clone(),
                to: after.names[pair % pairs].clone(),
                slots,
            })
            .collect()
    }

    /// The part of all slots whose owner is another one in `after`, 0 to 1.
    pub fn share_moved_to(&self, after: &Table) -> f64 {
        let same = |slot: &Slot| self.owner_name(*slot) == after.owner_name(*slot);
        let kept = Slot::all().filter(same).count();
        1.0 - kept as f64 / f64::from(SLOTS)
    }

    /// This table once `moves` are done, all or some of those of a plan. Takers that are new are
    /// added to the names; nobody is taken from them.
    pub fn after_moves(&self, moves: &[Move]) -> Result<Table, NotTheOwner> {
        let mut names = self.names.to_vec();
        names.extend(moves.iter().map(|each| each.to.clone()));
        names.sort();
        names.dedup();
        let index = |name: &MemberName| {
            let at = names.binary_search(name).expect("every name was put in above");
            u16::try_from(at).expect("a cluster has at most MEMBERS_MAX members")
        };
        let translated: Vec<u16> = self.names.iter().map(index).collect();
        let mut owners: Vec<u16> =
            self.owners.iter().map(|&owner| translated[usize::from(owner)]).collect();
        for each in moves {
            for &slot in &each.slots {
                if *self.owner_name(slot) != each.from {
                    return Err(NotTheOwner { slot, name: each.from.clone() });
                }
                owners[slot.index()] = index(&each.to);
            }
        }
        Ok(Table::from_parts(names, owners).expect("ordered names, and owners among them"))
    }
}

/// Slots that one member gives to another.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Move {
    pub from: MemberName,
    pub to: MemberName,
    /// Ascending, never empty.
    pub slots: Vec<Slot>,
}

impl Move {
    /// The part of all slots that this moves, 0 to 1.
    pub fn share(&self) -> f64 {
        share_of_slots(u32::try_from(self.slots.len()).expect("at most SLOTS"))
    }
}

/// Why a table that came from elsewhere is none.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InvalidTable {
    #[error("a table has 1 to {MEMBERS_MAX} members, not {count}")]
    MemberCount { count: usize },
    #[error("the names of a table must ascend, none twice")]
    NamesOutOfOrder,
    #[error("a table has {SLOTS} slots, not {count}")]
    SlotCount { count: usize },
    #[error("slot {slot} has an owner that is not in the table")]
    UnknownOwner { slot: usize },
}

/// A move was asked of a member that does not own the slot, so it was planned on another table.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{name} does not own slot {slot}")]
pub struct NotTheOwner {
    pub slot: Slot,
    pub name: MemberName,
}

fn share_of_slots(count: u32) -> f64 {
    f64::from(count) / f64::from(SLOTS)
}

fn digest_of(names: &[MemberName], owners: &[u16]) -> Digest {
    let count = u16::try_from(names.len()).expect("at most MEMBERS_MAX names");
    let mut hash = Sha256::new();
    hash.update(b"larder table 1\n");
    hash.update(count.to_le_bytes());
    for name in names {
        let length = u8::try_from(name.as_str().len()).expect("at most MEMBER_NAME_BYTES_MAX");
        hash.update([length]);
        hash.update(name.as_str());
    }
    let bytes: Vec<u8> = owners.iter().flat_map(|owner| owner.to_le_bytes()).collect();
    hash.update(bytes);
    Digest::new(hash.finalize().into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_table_comes_back_from_its_parts() {
        let table = halves("a", "b");
        let (names, owners) = (table.names().to_vec(), table.owners().to_vec());
        let again = Table::from_parts(names, owners).expect("its own parts");
        assert_eq!(again, table);
        assert_eq!(again.digest(), table.digest());
    }

    #[test]
    fn parts_that_are_no_table_are_refused() {
        let all = |owner: u16| vec![owner; SLOTS as usize];
        let check = |names: &[&str], owners: Vec<u16>, error: InvalidTable| {
            let names = names.iter().map(|each| name(each)).collect();
            assert_eq!(Table::from_parts(names, owners), Err(error));
        };
        check(&[], all(0), InvalidTable::MemberCount { count: 0 });
        check(&["b", "a"], all(0), InvalidTable::NamesOutOfOrder);
        check(&["a", "a"], all(0), InvalidTable::NamesOutOfOrder);
        check(&["a"], vec![0; 3], InvalidTable::SlotCount { count: 3 });
        check(&["a"], all(1), InvalidTable::UnknownOwner { slot: 0 });
    }

    #[test]
    fn one_slot_that_differs_changes_the_digest() {
        let table = halves("a", "b");
        let mut owners = table.owners().to_vec();
        owners[40_000] ^= 1;
        let other = Table::from_parts(table.names().to_vec(), owners).expect("still two owners");
        assert_ne!(table, other);
        assert_eq!(table.moves_to(&other).len(), 1);
        assert_eq!(table.moves_to(&other)[0].slots, [Slot::new(40_000).expect("a slot")]);
    }

    #[test]
    fn another_name_is_another_owner_although_its_index_is_the_same() {
        let moves = halves("a", "b").moves_to(&halves("a", "c"));
        let [one] = &moves[..] else { panic!("one giver and one taker, not {moves:?}") };
        assert_eq!((&one.from, &one.to), (&name("b"), &name("c")));
        assert_eq!(one.slots.len(), SLOTS as usize / 2);
    }

    #[test]
    fn moves_lead_from_one_table_to_the_other_step_by_step() {
        let (before, after) = (halves("a", "b"), halves("0", "b"));
        let mut table = before.clone();
        for each in before.moves_to(&after) {
            for part in each.slots.chunks(64) {
                let part = Move { slots: part.to_vec(), ..each.clone() };
                table = table.after_moves(&[part]).expect("each slot is still the giver's");
            }
        }
        assert_eq!(table.share_moved_to(&after), 0.0);
        // The giver stays known until a table without it is published.
        assert_eq!(table.names(), [name("0"), name("a"), name("b")]);
    }

    #[test]
    fn a_move_of_a_slot_that_is_gone_is_refused() {
        let table = halves("a", "b");
        let slot = Slot::new(0).expect("the first slot");
        let late = Move { from: name("b"), to: name("a"), slots: vec![slot] };
        let refused = NotTheOwner { slot, name: name("b") };
        assert_eq!(table.after_moves(&[late]), Err(refused));
    }

    /// The lower half of the slots is the first one's, the upper half the second one's.
    fn halves(first: &str, second: &str) -> Table {
        let owners = Slot::all().map(|slot| u16::from(slot.get() > SLOTS / 2)).collect();
        Table::from_parts(vec![name(first), name(second)], owners).expect("two members")
    }

    fn name(name: &str) -> MemberName {
        MemberName::parse(name).expect("a good name")
    }
}
