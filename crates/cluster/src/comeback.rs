//! Whether a node that was started again, and does not hear control, may serve by the epoch on its
//! disk: the other nodes of that epoch decide.
//!
//! ```text
//!            started, epoch d on disk
//!                      │ asks the other nodes of d
//!                      ▼
//!                   asking ──── control says what is in force ────────────────────┐
//!                   │    │                                                        │
//!   half of them:   │    │ one of them: there is a newer epoch without you        ▼
//!   "you are in all │    ▼                                                    as control
//!    that I know"   │   waits for control                                        says
//!                   ▼                                                             ▲
//!           serves by d ─────────── control says what is in force ────────────────┘
//! ```
//!
//! Its slots are another's only once an epoch without it is *settled*. Control gives a node up only
//! while at least half of the nodes of `d` are connected, and commits the epoch without it when all that
//! are connected have prepared it. Of `n` nodes at least `n/2`, rounded up, and all of them others than
//! the one given up, have so heard of that epoch before it is committed. The others are `n-1`, so any
//! `n/2` of them, rounded down, have one of those among them: whoever hears from so many that they know
//! of no such epoch knows that there was none when they answered. And none comes after: a node does not
//! prepare an epoch that gives up one that has a link to it.
//!
//! Control does not know `d`. But whoever is a member has acknowledged the last epoch that was settled,
//! so `d` is that one or one that came into force after it. Half of the nodes of each of these are wanted.
//!
//! Whole clusters that are started without control so serve as soon as half of their nodes are there.
//! That a machine refuses connections is no evidence here: its process may come back with an epoch
//! that it heard of.
//!
//! `docs/decisions/0046-who-comes-back-asks-the-others.md` has what was not chosen, and what is open.

use crate::mistake::{Mistake, is_made};

/// What another node of the epoch on disk says of us.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Says {
    /// There is no link to it, and it has said nothing against us.
    Nothing,
    /// There is a link, and it knows of no newer epoch without us.
    With,
    /// It knows of a newer epoch without us, in force or only prepared.
    Without,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// Nothing is known yet: serve nothing that is not served already.
    Wait,
    /// No epoch without us can be settled.
    Serve,
    /// Others may serve what was ours: serve nothing, until control has said what is in force.
    LeftOut,
}

/// Judges by what every other node of the epoch on disk says.
pub fn verdict(others: impl IntoIterator<Item = Says>) -> Verdict {
    if is_made(Mistake::ServesByDisk) {
        return Verdict::Serve;
    }
    let (mut count, mut with) = (0, 0);
    for says in others {
        match says {
            Says::Without => return Verdict::LeftOut,
            Says::With => with += 1,
            Says::Nothing => (),
        }
        count += 1;
    }
    let nodes = count + 1;
    if nodes / 2 <= with { Verdict::Serve } else { Verdict::Wait }
}

#[cfg(test)]
mod chain_model;
#[cfg(test)]
mod explore;
#[cfg(test)]
mod model;

#[cfg(test)]
mod tests {
    use super::{Says, Verdict, verdict};

    #[test]
    fn half_of_the_others_are_enough_and_one_who_knows_better_is_too() {
        use Says::{Nothing, With, Without};
        let check = |others: &[Says], expected| {
            assert_eq!(verdict(others.iter().copied()), expected, "{others:?}");
        };
        check(&[], Verdict::Serve);
        check(&[Nothing], Verdict::Wait);
        check(&[With], Verdict::Serve);
        check(&[Nothing, With], Verdict::Serve);
        check(&[Nothing, With, Nothing], Verdict::Wait);
        check(&[Nothing, With, With], Verdict::Serve);
        check(&[With, With, Without], Verdict::LeftOut);
        check(&[Without], Verdict::LeftOut);
    }
}
