//! Maglev: every member gets its share of the slots, exactly, and few slots move when one comes or
//! goes.
//!
//! The algorithm is that of "Maglev: A Fast and Reliable Software Network Load Balancer" (Eisenbud
//! and others, NSDI 2016, sections 3.4 and 5.3). Each member has an order of preference over all
//! slots, decided by its name alone; members take turns, and whoever has the turn claims the first
//! slot of its order that is still free:
//!
//! ```text
//!   order of a:  3 0 4 1 5 2 6      turn 1: a claims 3      turn 3: a claims 4, since 0 is gone
//!   order of b:  0 2 4 6 1 3 5      turn 2: b claims 0      turn 4: b claims 2, and so on
//! ```
//!
//! Shares are even because turns are. Few slots move because most wishes are granted with or without
//! the member that comes or goes: from 9 to 10 members 10.3 % move, 10 % being the least possible.
//!
//! **Orders.** The j-th wish of a member is `(start + j · skip)³ + offset`, modulo M = 65,537. M is
//! a prime, so steps of `skip` visit every number; and M - 1 is no multiple of 3, so cubing only
//! permutes the numbers (0 stays). With h1, h2, h3 the first three times 8 bytes, little-endian, of
//! SHA-256 over the 16 bytes `larder maglev 1\n` and the name: `offset = h1 mod M`,
//! `skip = h2 mod (M - 1) + 1`, `start = h3 mod M`.
//!
//! The paper does without the cube, and says that better permutations may be used. They should: two
//! members whose skips are small multiples of one another want the same slots again and again, and
//! whatever happens to one throws the other off its course. Of 500 random clusters that grew from 20
//! to 21 members, the unluckiest moved 7.2 % without the cube and 5.2 % with it (least possible:
//! 4.8 %; the mean is 5.1 % either way). Nobody should have to choose names by luck.
//!
//! **Weights.** The k-th turn (k = 0, 1, …) of a member of weight w is due at time (2k + 1) / 2w;
//! turns are taken in the order of time, equal times in the order of names. With equal weights that
//! is the paper's round robin, and shares differ by one slot at most. With any weights it is Webster's
//! method of apportioning seats: every member has its due at a common rate, rounded; so N members of
//! share s are within 1/2 + s · N/2 slots of what their weights ask for. And when one member's weight
//! changes, the turns of all others keep their order among themselves, so little else moves.

use std::cmp::{Ordering, Reverse};
use std::collections::BinaryHeap;

use sha2::{Digest as _, Sha256};

use crate::member::{MemberName, Members, Weight};
use crate::slot::SLOTS;
use crate::table::Table;

/// Gives every slot an owner; the same members give the same table, whatever order they were listed
/// in and wherever this runs.
///
/// A member whose weight is less than half a slot's worth owns nothing.
pub fn place(members: &Members) -> Table {
    let mut orders: Vec<Order> =
        members.as_slice().iter().map(|member| Order::of(&member.name)).collect();
    let mut owners = vec![FREE; SLOTS as usize];
    let mut turns = Turns::of(members);
    for _ in 0..SLOTS {
        let member = turns.next();
        let order = &mut orders[usize::from(member)];
        let slot = loop {
            let wish = order.next() as usize;
            if owners[wish] == FREE {
                break wish;
            }
        };
        owners[slot] = member;
    }
    let names = members.as_slice().iter().map(|member| member.name.clone()).collect();
    Table::from_parts(names, owners).expect("members are checked, and every slot was claimed")
}

/// No member's index: members are counted in hundreds.
const FREE: u16 = u16::MAX;

/// One member's order of preference over the slots. It has no end: after [`SLOTS`] wishes it starts
/// again, but before that some slot was free.
struct Order {
    /// `start + j · skip` mod M.
    place: u32,
    skip: u32,
    offset: u32,
}

// Three must not divide M - 1, or numbers would share cubes and some slots never be wished for.
const _: () = assert!(!(SLOTS - 1).is_multiple_of(3));

impl Order {
    fn of(name: &MemberName) -> Self {
        let hash = Sha256::new().chain_update(b"larder maglev 1\n").chain_update(name.as_str());
        let hash: [u8; 32] = hash.finalize().into();
        let (h1, rest) = hash.split_first_chunk().expect("32 bytes hold 8");
        let (h2, rest) = rest.split_first_chunk().expect("24 bytes hold 8");
        let (h3, _) = rest.split_first_chunk().expect("16 bytes hold 8");
        let below = |hash: &[u8; 8], bound: u32| {
            let rest = u64::from_le_bytes(*hash) % u64::from(bound);
            u32::try_from(rest).expect("less than a u32")
        };
        Order { place: below(h3, SLOTS), skip: below(h2, SLOTS - 1) + 1, offset: below(h1, SLOTS) }
    }

    fn next(&mut self) -> u32 {
        let place = u64::from(self.place);
        self.place = (self.place + self.skip) % SLOTS;
        // Three factors of 17 bits fit 64.
        let wish = (place * place * place + u64::from(self.offset)) % u64::from(SLOTS);
        u32::try_from(wish).expect("less than SLOTS, which is a u32")
    }
}

/// Whose turn it is, for ever.
struct Turns(BinaryHeap<Reverse<Turn>>);

impl Turns {
    fn of(members: &Members) -> Self {
        let owning = |(_, weight): &(u16, Weight)| *weight != Weight::NOTHING;
        let first = |(member, weight): (u16, Weight)| {
            Reverse(Turn { halves: 1, weight: weight.get().into(), member })
        };
        let weights = members.as_slice().iter().map(|member| member.weight);
        Turns((0..).zip(weights).filter(owning).map(first).collect())
    }

    fn next(&mut self) -> u16 {
        let mut top = self.0.peek_mut().expect("members always hold one with a weight");
        let member = top.0.member;
        top.0.halves += 2;
        member
    }
}

/// One turn of one member, due at time `halves` / 2 `weight`.
#[derive(PartialEq, Eq)]
struct Turn {
    /// 2k + 1 for the k-th turn: at most twice [`SLOTS`].
    halves: u64,
    weight: u64,
    member: u16,
}

impl Ord for Turn {
    fn cmp(&self, other: &Self) -> Ordering {
        // Fractions compared by cross multiplication: 18 bits times 32 bits cannot overflow.
        let (mine, theirs) = (self.halves * other.weight, other.halves * self.weight);
        mine.cmp(&theirs).then(self.member.cmp(&other.member))
    }
}

impl PartialOrd for Turn {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::member::Member;

    #[test]
    fn every_order_visits_every_slot_once() {
        for name in ["a", "backend-1", "node-12.backend-3"] {
            let mut order = Order::of(&MemberName::parse(name).expect("a good name"));
            let mut visits = vec![0; SLOTS as usize];
            for _ in 0..SLOTS {
                visits[order.next() as usize] += 1;
            }
            assert!(visits.iter().all(|&count| count == 1), "{name}");
        }
    }

    #[test]
    fn turns_come_in_proportion_to_weights_and_spread_out() {
        let member = |(name, weight)| Member {
            name: MemberName::parse(name).expect("a good name"),
            weight: Weight::new(weight),
        };
        let members = Members::new([("a", 1), ("b", 0), ("c", 3), ("d", 2)].map(member));
        let mut turns = Turns::of(&members.expect("distinct names"));
        let taken: Vec<u16> = (0..12).map(|_| turns.next()).collect();
        // Due at 1/6 (c), 1/4 (d), 1/2 (a, c), 3/4 (d), 5/6 (c), and again one later.
        assert_eq!(taken, [2, 3, 0, 2, 3, 2, 2, 3, 0, 2, 3, 2]);
    }
}
