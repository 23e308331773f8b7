//! Every interleaving of one node that ends and is started again, the others, and control that gives it
//! up: what decides whether it serves is the real [`verdict`].
//!
//! Any node may be cut off from control at any moment, and from the one that comes back; messages arrive
//! late or never; the others crash and start again. The law: when the epoch without the node is settled,
//! the node does not serve. Nothing else protects it here: neither does it hear control, nor does it stop
//! when somebody takes his word back.
//!
//! Two things are supposed. Control looks whether the node listens between the moment at which it was
//! started and the first link of it that is lost, or crash of another (it looks twice a second). And no
//! member has joined or was removed by a person since the epoch that the node has on disk.

use super::explore::explore;
use super::{Says, Verdict, verdict};

/// How often control may try, and how often processes may end.
const ATTEMPTS_MAX: u8 = 2;
const ENDS_MAX: u8 = 2;
const CRASHES_MAX: u8 = 2;

/// What could be done wrong, and must be found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Mistake {
    None,
    /// The node asks nobody.
    ServesByDisk,
    /// One less than half of them is enough.
    AsksTooFew,
    /// Others prepare an epoch without a node that has a link to them.
    PreparesWithoutCallers,
    /// Others do not say what is only prepared.
    TellsCommittedOnly,
    /// What is prepared is not written down.
    ForgetsPrepared,
    /// Half of the nodes need be connected when the node is given up, and not when that is committed.
    HalfAtFirstOnly,
}

/// What another node knows of the epoch without the one that comes back. Attempts have numbers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
enum Knows {
    Nothing,
    Prepared(u8),
    Committed,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
struct Other {
    is_up: bool,
    is_connected: bool,
    knows: Knows,
    has_acknowledged: bool,
    /// A link of the node, and what was said when it was made.
    link: Option<Word>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
enum Word {
    With,
    Without,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Phase {
    Idle,
    Prepared,
    Committed,
    Settled,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct World {
    /// One is as good as another, so they are kept sorted.
    others: Vec<Other>,
    phase: Phase,
    attempt: u8,
    /// Control has found that the node does not listen.
    is_taken_for_dead: bool,
    is_up: bool,
    serves: bool,
    /// Control has looked since the node was started last.
    is_looked_at: bool,
    ends: u8,
    crashes: u8,
}

impl World {
    fn new(others: usize) -> Self {
        let other = Other {
            is_up: true,
            is_connected: true,
            knows: Knows::Nothing,
            has_acknowledged: false,
            link: None,
        };
        World {
            others: vec![other; others],
            phase: Phase::Idle,
            attempt: 0,
            is_taken_for_dead: false,
            is_up: false,
            serves: false,
            is_looked_at: false,
            ends: 0,
            crashes: 0,
        }
    }

    fn half_is_connected(&self) -> bool {
        let connected = self.others.iter().filter(|it| it.is_connected).count();
        self.others.len() < connected * 2
    }

    /// All that may happen next.
    fn next(&self, mistake: Mistake) -> Vec<World> {
        let mut all = Vec::new();
        let mut then = |change: &dyn Fn(&mut World)| {
            let mut world = self.clone();
            change(&mut world);
            world.others.sort_unstable();
            all.push(world);
        };
        self.control_goes_on(mistake, &mut then);
        self.node_goes_on(mistake, &mut then);
        for at in 0..self.others.len() {
            if self.others[..at].contains(&self.others[at]) {
                continue;
            }
            self.other_goes_on(at, mistake, &mut then);
        }
        all
    }

    fn control_goes_on(&self, mistake: Mistake, then: &mut impl FnMut(&dyn Fn(&mut World))) {
        then(&|world| {
            world.is_taken_for_dead = !world.is_up;
            world.is_looked_at = world.is_up;
            if world.is_up && world.phase == Phase::Prepared {
                world.phase = Phase::Idle;
            }
        });
        let is_prepared = self.others.iter().all(|it| !it.is_connected || it.has_acknowledged);
        match self.phase {
            Phase::Idle if self.is_taken_for_dead && self.half_is_connected() => {
                if self.attempt < ATTEMPTS_MAX {
                    then(&|world| {
                        world.phase = Phase::Prepared;
                        world.attempt += 1;
                        world.others.iter_mut().for_each(|it| it.has_acknowledged = false);
                    });
                }
            }
            Phase::Prepared if is_prepared => {
                if self.half_is_connected() || mistake == Mistake::HalfAtFirstOnly {
                    then(&|world| world.phase = Phase::Committed);
                }
            }
            Phase::Committed
                if self.others.iter().all(|it| it.is_connected && it.knows == Knows::Committed) =>
            {
                then(&|world| world.phase = Phase::Settled);
            }
            Phase::Idle | Phase::Prepared | Phase::Committed | Phase::Settled => (),
        }
    }

    fn node_goes_on(&self, mistake: Mistake, then: &mut impl FnMut(&dyn Fn(&mut World))) {
        if !self.is_up {
            then(&|world| {
                world.is_up = true;
                world.is_looked_at = false;
            });
            return;
        }
        let says = self.others.iter().map(|other| match other.link {
            None => Says::Nothing,
            Some(Word::With) => Says::With,
            Some(Word::Without) => Says::Without,
        });
        let one_more = (mistake == Mistake::AsksTooFew).then_some(Says::With);
        let may_serve = verdict(says.chain(one_more)) == Verdict::Serve;
        if !self.serves && (may_serve || mistake == Mistake::ServesByDisk) {
            then(&|world| world.serves = true);
        }
        if self.ends < ENDS_MAX {
            then(&|world| {
                world.ends += 1;
                (world.is_up, world.serves) = (false, false);
                world.others.iter_mut().for_each(|it| it.link = None);
            });
        }
    }

    fn other_goes_on(
        &self,
        at: usize,
        mistake: Mistake,
        then: &mut impl FnMut(&dyn Fn(&mut World)),
    ) {
        let other = self.others[at];
        let may_lose_links = !self.is_up || self.is_looked_at;
        if !other.is_up {
            then(&|world| world.others[at].is_up = true);
            return;
        }
        then(&|world| world.others[at].is_connected = !other.is_connected);
        if self.crashes < CRASHES_MAX && may_lose_links {
            then(&|world| {
                world.crashes += 1;
                let crashed = &mut world.others[at];
                (crashed.is_up, crashed.is_connected, crashed.link) = (false, false, None);
                if mistake == Mistake::ForgetsPrepared && crashed.knows != Knows::Committed {
                    crashed.knows = Knows::Nothing;
                }
            });
        }
        if self.is_up && other.link.is_none() {
            let knows_better = match other.knows {
                Knows::Nothing => false,
                Knows::Prepared(_) => mistake != Mistake::TellsCommittedOnly,
                Knows::Committed => true,
            };
            let word = if knows_better { Word::Without } else { Word::With };
            then(&|world| world.others[at].link = Some(word));
        }
        if other.link.is_some() && may_lose_links {
            then(&|world| world.others[at].link = None);
        }
        if !other.is_connected {
            return;
        }
        match (self.phase, other.knows) {
            (Phase::Idle, Knows::Prepared(_)) => {
                then(&|world| world.others[at].knows = Knows::Nothing);
            }
            (Phase::Prepared, Knows::Prepared(attempt)) if attempt == self.attempt => {
                let is_held = other.link.is_some() && mistake != Mistake::PreparesWithoutCallers;
                if !other.has_acknowledged && !is_held {
                    then(&|world| world.others[at].has_acknowledged = true);
                }
            }
            (Phase::Prepared, _) => {
                let attempt = self.attempt;
                then(&|world| world.others[at].knows = Knows::Prepared(attempt));
            }
            (Phase::Committed | Phase::Settled, Knows::Nothing | Knows::Prepared(_)) => {
                then(&|world| world.others[at].knows = Knows::Committed);
            }
            (Phase::Idle | Phase::Committed | Phase::Settled, _) => (),
        }
    }
}

/// What was reached, or the first world in which two may serve the same.
fn play(others: usize, mistake: Mistake) -> Result<Reached, World> {
    let mut reached = Reached::default();
    let next = |world: &World| world.next(mistake);
    reached.states = explore(World::new(others), next, |world| {
        reached.serves |= world.serves;
        reached.settled |= world.phase == Phase::Settled;
        !(world.serves && world.phase == Phase::Settled)
    })?;
    Ok(reached)
}

#[derive(Debug, Default)]
struct Reached {
    states: usize,
    serves: bool,
    settled: bool,
}

#[test]
fn who_comes_back_never_serves_what_was_given_to_others() {
    let mut states = 0;
    for others in 1..=3 {
        let reached = play(others, Mistake::None).unwrap_or_else(|found| panic!("{found:#?}"));
        assert!(reached.serves && reached.settled, "{others} others: little was reached");
        states += reached.states;
    }
    assert!(250_000 < states, "{states} states are fewer than there were");
}

#[test]
fn every_mistake_is_found() {
    for mistake in [
        Mistake::ServesByDisk,
        Mistake::AsksTooFew,
        Mistake::PreparesWithoutCallers,
        Mistake::TellsCommittedOnly,
        Mistake::ForgetsPrepared,
        Mistake::HalfAtFirstOnly,
    ] {
        let found = (1..=3).any(|others| play(others, mistake).is_err());
        assert!(found, "{mistake:?}");
    }
}
