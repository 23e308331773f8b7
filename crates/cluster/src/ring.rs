//! The consistent-hash ring: members own the arcs that begin at their points.
//!
//! The scheme that Maglev replaces (Karger and others, "Consistent Hashing and Random Trees", STOC
//! 1997). It stays for two reasons: to show by experiment how uneven it is, and to describe a
//! cluster that still lives by it until its slots are handed over.
//!
//! ```text
//!        0 ─────a───b──────────c───────────── 2^64
//!     …ccccccc  aaaa bbbbbbbbbb ccccccccccccc…        the arc before the first point is the last one's
//! ```
//!
//! **Points.** The points of a member come four from a hash: SHA-256 over the 14 bytes
//! `larder ring 1\n`, the block number as 4 little-endian bytes, and the name, read as four
//! little-endian numbers of 8 bytes; point p is number p mod 4 of block p / 4. (ketama takes four
//! from an MD5 in the same manner.) Should two members share a point, the later name has the arc.
//!
//! Weights are not looked at, except that a member of no weight has no points.

use sha2::{Digest as _, Sha256};

use crate::member::{MemberName, Members, Weight};
use crate::slot::{SLOTS, Slot};
use crate::table::Table;

/// The most points a member may have. With 1,000 the shares of 9 members still differ by a tenth,
/// so more would be slow and not even.
pub const POINTS_MAX: u32 = 1_000;

/// The points of all members on a circle of 2^64.
#[derive(Debug, Clone)]
pub struct Ring {
    names: Vec<MemberName>,
    /// Invariant: never empty; ascending by point, equal points by member.
    points: Vec<(u64, u16)>,
}

impl Ring {
    /// Puts `points` points of each member on the circle; at least 1 and at most [`POINTS_MAX`], and
    /// what is outside is taken for the nearest of the two.
    pub fn new(members: &Members, points: u32) -> Self {
        let points_each = points.clamp(1, POINTS_MAX);
        let mut points = Vec::new();
        for (index, member) in (0..).zip(members.as_slice()) {
            if member.weight != Weight::NOTHING {
                points.extend(points_of(&member.name, points_each).map(|point| (point, index)));
            }
        }
        points.sort_unstable();
        Ring { names: members.as_slice().iter().map(|m| m.name.clone()).collect(), points }
    }

    /// Who owns a place on the circle.
    pub fn owner(&self, place: u64) -> &MemberName {
        &self.names[usize::from(self.owner_index(place))]
    }

    /// The part of the circle that each member owns, 0 to 1, in the order of names. Exact, whereas
    /// [`Ring::table`] rounds every arc to whole slots.
    pub fn shares(&self) -> Vec<f64> {
        let mut lengths = vec![0_u128; self.names.len()];
        let (first, _) = self.points[0];
        let ends = self.points[1..].iter().map(|&(point, _)| u128::from(point));
        for (&(start, owner), end) in
            self.points.iter().zip(ends.chain([CIRCLE + u128::from(first)]))
        {
            lengths[usize::from(owner)] += end - u128::from(start);
        }
        lengths.into_iter().map(|length| length as f64 / CIRCLE as f64).collect()
    }

    /// The ring in slots: slot s stands at s / 65,537 of the circle.
    pub fn table(&self) -> Table {
        let owners = Slot::all().map(|slot| self.owner_index(place_of(slot))).collect();
        Table::from_parts(self.names.clone(), owners)
            .expect("members are checked, owners among them")
    }

    fn owner_index(&self, place: u64) -> u16 {
        let after = self.points.partition_point(|&(point, _)| point <= place);
        // Before the first point, the last arc goes on.
        let (_, owner) = self.points[after.checked_sub(1).unwrap_or(self.points.len() - 1)];
        owner
    }
}

const CIRCLE: u128 = 1 << 64;

fn place_of(slot: Slot) -> u64 {
    let place = u128::from(slot.get()) * CIRCLE / u128::from(SLOTS);
    u64::try_from(place).expect("a slot is less than SLOTS, so its place is on the circle")
}

fn points_of(name: &MemberName, points: u32) -> impl Iterator<Item = u64> {
    let blocks = (0..points.div_ceil(4)).flat_map(move |block| {
        let hash = Sha256::new()
            .chain_update(b"larder ring 1\n")
            .chain_update(block.to_le_bytes())
            .chain_update(name.as_str());
        let hash: [u8; 32] = hash.finalize().into();
        let (numbers, _) = hash.as_chunks::<8>();
        [0, 1, 2, 3].map(|at| u64::from_le_bytes(numbers[at]))
    });
    blocks.take(points as usize)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::member::Member;

    #[test]
    fn an_arc_begins_at_its_own_point_and_the_last_one_wraps() {
        let ring = Ring { names: names(), points: vec![(100, 0), (200, 1), (u64::MAX, 0)] };
        for (place, owner) in [(0, "a"), (99, "a"), (100, "a"), (199, "a"), (200, "b")] {
            assert_eq!(ring.owner(place).as_str(), owner, "{place}");
        }
        assert_eq!(ring.owner(u64::MAX - 1).as_str(), "b");
        assert_eq!(ring.owner(u64::MAX).as_str(), "a");
    }

    #[test]
    fn one_point_owns_the_whole_circle() {
        let ring = Ring { names: names(), points: vec![(42, 1)] };
        assert_eq!(ring.shares(), [0.0, 1.0]);
        assert_eq!(ring.table().shares(), [0.0, 1.0]);
    }

    #[test]
    fn of_two_members_on_one_point_the_later_name_has_the_arc() {
        let ring = Ring { names: names(), points: vec![(42, 0), (42, 1)] };
        assert_eq!(ring.shares(), [0.0, 1.0]);
        assert_eq!(ring.owner(42).as_str(), "b");
    }

    #[test]
    fn a_drained_member_has_no_points() {
        let member = |name: &MemberName, weight| Member { name: name.clone(), weight };
        let [a, b] = &names()[..] else { panic!("two names") };
        let members = Members::new([member(a, Weight::NOTHING), member(b, Weight::new(1))]);
        let ring = Ring::new(&members.expect("one owner"), 10);
        assert_eq!(ring.points.len(), 10);
        assert_eq!(ring.shares(), [0.0, 1.0]);
    }

    fn names() -> Vec<MemberName> {
        ["a", "b"].map(|name| MemberName::parse(name).expect("a good name")).to_vec()
    }
}
