//! What one round of an event loop may cost, so that whoever has just said something is soon looked at.
//!
//! ```text
//!   easy: turns as sockets name them ─▶ caches take turns ─▶ over: newcomers, links, sockets again
//! ```
//!
//! Costs are counted in bytes: about what copying so many would take.

use tenancy::id::CacheId;

/// What a turn costs beyond what is done in it: the system is asked twice.
const TURN_COST: u64 = 2 * 1024;

/// What one operation costs beyond its bytes.
const OPERATION_COST: u64 = 512;

/// What the turn of a stranger costs beyond that. A password is compared, and the system is asked twice, for
/// one client's sake: about 10 µs in all. It is charged four times that, so that of a loop that has
/// more to do than it can strangers have a fifth: ten thousand who come back at once shall not stand before
/// those who stayed, nor those who give up and come again before those who wait.
const STRANGER_COST: u64 = 48 * 1024;

/// What a round may cost before connections wait for their cache's turn: about 100 µs of work.
const EASY_COST: u64 = 128 * 1024;

/// What a round may cost before sockets are looked at again, which takes 1 or 2 µs: about 200 µs of work.
/// Whoever has just asked waits for so long before anybody knows of it.
const ROUND_COST: u64 = 256 * 1024;

// A few strangers at once, and no round is theirs for longer than a part of a millisecond.
const _: () = assert!(EASY_COST / STRANGER_COST <= 4 && ROUND_COST / STRANGER_COST <= 6);

/// The account of one event loop.
#[derive(Debug, Default)]
pub(crate) struct Round {
    cost: u64,
}

/// What was done in one connection's turn.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Done {
    /// Its cache, if it pays for it in its line.
    pub(crate) late: Option<CacheId>,
    /// It had not authenticated before.
    pub(crate) was_stranger: bool,
    pub(crate) operations: u64,
    pub(crate) bytes: u64,
}

impl Done {
    pub(crate) fn cost(&self) -> u64 {
        let more = if self.was_stranger { STRANGER_COST } else { 0 };
        TURN_COST + OPERATION_COST * self.operations + self.bytes + more
    }
}

impl Round {
    pub(crate) fn begin(&mut self) {
        self.cost = 0;
    }

    pub(crate) fn charge(&mut self, cost: u64) {
        self.cost += cost;
    }

    /// Whether connections have their turns as they come.
    #[inline]
    pub(crate) fn is_easy(&self) -> bool {
        self.cost <= EASY_COST
    }

    pub(crate) fn is_over(&self) -> bool {
        ROUND_COST < self.cost
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn done(operations: u64, bytes: u64, was_stranger: bool) -> u64 {
        Done { late: None, was_stranger, operations, bytes }.cost()
    }

    #[test]
    fn a_round_ends_after_some_hundred_operations_or_some_logins() {
        for (cost, easy, most) in [
            (done(1, 100, false), 40, 120),
            (done(64, 8_000, false), 2, 10),
            (done(0, 64, true), 2, 8),
            // A turn may be long, but then it is the only one.
            (done(16, 1 << 20, false), 1, 1),
        ] {
            let mut round = Round::default();
            round.begin();
            let mut turns = [0; 2];
            while !round.is_over() {
                turns[usize::from(!round.is_easy())] += 1;
                round.charge(cost);
            }
            let [easily, later] = turns;
            assert!((easy..=most).contains(&(easily + later)), "{turns:?} of {cost}");
        }
    }
}
