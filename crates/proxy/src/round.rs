//! What one round of an event loop may cost, so that whoever has just said something is soon looked at.
//!
//! ```text
//!   easy: members' turns as sockets name them ─▶ caches take turns, strangers as one ─▶ over: newcomers are
//!                                                                   accepted, links written, sockets again
//! ```
//!
//! Strangers are a crowd when something has gone wrong elsewhere: all clients of a proxy that is gone come at
//! once. So in one round only so few of them have their turn that those who are connected hardly wait for
//! them. The loop comes round so much more often, and who comes is let in as fast as before.
//!
//! Costs are counted in bytes: about what copying so many would take, 256 KiB in 200 µs.

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

/// Turns of strangers in one round, after which the sockets of all others are looked at: 20 µs or so.
const STRANGERS_MAX: u32 = 2;

/// Connections accepted in one round: 50 µs. Rounds are short, so some thirty thousand a second are let in.
pub(crate) const ACCEPTS_MAX: usize = 8;

/// And while there is more to do than can be done: as many as have their turn in a round. To let one in and
/// close him unserved costs a fifth of what a large request costs, and nearly all come as newcomers then. If
/// all of them were let in, there would be little time for anything else.
pub(crate) const ACCEPTS_CROWDED: usize = STRANGERS_MAX as usize;

/// Nobody is accepted then as long as so many strangers wait for their turn: those of two rounds. Of more of
/// them most would hang up before it. Who has hung up does not wait.
pub(crate) const STRANGERS_WAITING_MAX: usize = 2 * STRANGERS_MAX as usize;

/// What accepting one costs: a socket is made, and the system is told to tell of it. 6 µs.
const ACCEPT_COST: u64 = 8 * 1024;

/// What a round may cost before connections wait for their cache's turn: about 100 µs of work.
const EASY_COST: u64 = 128 * 1024;

/// What a round may cost before sockets are looked at again, which takes 1 or 2 µs: about 200 µs of work.
/// Whoever has just asked waits for so long before anybody knows of it.
const ROUND_COST: u64 = 256 * 1024;

// What a round does for strangers leaves those who are connected half of what is easy.
const _: () = assert!(ACCEPTS_MAX as u64 * ACCEPT_COST <= EASY_COST / 2);

/// The account of one event loop.
#[derive(Debug, Default)]
pub(crate) struct Round {
    cost: u64,
    /// Turns that strangers had.
    strangers: u32,
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
        *self = Round::default();
    }

    #[inline]
    pub(crate) fn charge(&mut self, done: &Done) {
        self.cost += done.cost();
        self.strangers += u32::from(done.was_stranger);
    }

    /// Bytes that came from other nodes, or were written to them.
    pub(crate) fn charge_bytes(&mut self, bytes: u64) {
        self.cost += bytes;
    }

    pub(crate) fn charge_accept(&mut self) {
        self.cost += ACCEPT_COST;
    }

    /// Whether members' connections have their turns as they come.
    #[inline]
    pub(crate) fn is_easy(&self) -> bool {
        self.cost <= EASY_COST
    }

    pub(crate) fn is_over(&self) -> bool {
        ROUND_COST < self.cost || STRANGERS_MAX <= self.strangers
    }
}

#[cfg(test)]
mod tests {
    use tenancy::turns::Turns;

    use super::{ACCEPTS_MAX, CacheId, Done, Round, STRANGERS_MAX};

    const MEMBER: CacheId = CacheId::new(1);
    const STRANGERS: CacheId = CacheId::new(0);

    const fn done(operations: u64, bytes: u64, was_stranger: bool) -> Done {
        Done { late: None, was_stranger, operations, bytes }
    }

    #[test]
    fn a_round_ends_after_some_hundred_operations_or_two_logins() {
        let logins = STRANGERS_MAX as usize;
        for (each, least, most) in [
            (done(1, 100, false), 40, 120),
            (done(64, 8_000, false), 2, 10),
            (done(0, 64, true), logins, logins),
            // A turn may be long, but then it is the only one.
            (done(16, 1 << 20, false), 1, 1),
        ] {
            let mut round = Round::default();
            round.begin();
            let mut turns = 0;
            while !round.is_over() {
                turns += 1;
                round.charge(&each);
            }
            assert!((least..=most).contains(&turns), "{turns} of {each:?}");
        }
    }

    #[test]
    fn all_that_a_round_does_for_strangers_leaves_it_easy_for_members() {
        let mut round = Round::default();
        round.begin();
        (1..STRANGERS_MAX).for_each(|_| round.charge(&done(0, 64, true)));
        (0..ACCEPTS_MAX).for_each(|_| round.charge_accept());
        assert!(round.is_easy() && !round.is_over());
    }

    /// As the loop does it, where there is always more of both than can be done.
    #[test]
    fn strangers_are_charged_as_much_as_a_cache_that_never_ends() {
        let mut turns = Turns::new(16 * 1024, u64::MAX);
        let mut round = Round::default();
        let mut charged = [0; 2];
        let mut rounds = 0;
        (0..100).for_each(|_| turns.push(MEMBER, (), 0));
        (0..100).for_each(|_| turns.push(STRANGERS, (), 0));
        while rounds < 10_000 {
            rounds += 1;
            round.begin();
            while !round.is_over() {
                let (who, ()) = turns.pop(0).expect("there is always more");
                let is_stranger = who == STRANGERS;
                let done = done(u64::from(!is_stranger), 100, is_stranger);
                round.charge(&done);
                turns.charge(who, done.cost());
                turns.push(who, (), 0);
                charged[usize::from(is_stranger)] += done.cost();
            }
        }
        let [members, strangers] = charged;
        assert!(members.abs_diff(strangers) < members / 100, "{charged:?}");
    }
}
