//! Experiments on placement: how uneven are shares, and how much moves?
//!
//! Each experiment is a number of rounds; in each the members have fresh random names, as each
//! installation has its own. The same seed gives the same rounds, for every scheme, so that schemes
//! are compared on the same clusters.

use std::num::NonZeroU32;

use crate::member::{InvalidMembers, Member, MemberName, Members, Weight};
use crate::random::Random;
use crate::ring::Ring;
use crate::scheme::Scheme;
use crate::slot::{SLOTS, Slot};

/// What an experiment is made of.
#[derive(Debug, Clone, Copy)]
pub struct Setup {
    pub backends: usize,
    pub rounds: NonZeroU32,
    pub seed: u64,
}

/// Figures of all rounds, for which there are medians and intervals.
#[derive(Debug, Clone, PartialEq)]
pub struct Distribution(Vec<f64>);

impl Distribution {
    fn new(mut values: Vec<f64>) -> Self {
        assert!(!values.is_empty(), "an experiment has at least one round");
        values.sort_by(f64::total_cmp);
        Distribution(values)
    }

    /// All values, ascending.
    pub fn values(&self) -> &[f64] {
        &self.0
    }

    pub fn median(&self) -> f64 {
        self.quantile(0.5)
    }

    pub fn mean(&self) -> f64 {
        self.0.iter().sum::<f64>() / self.0.len() as f64
    }

    /// The value that the part `below` of all values does not exceed (0: the smallest, 1: the
    /// largest); between two values in proportion, as R's type 7 and numpy do.
    pub fn quantile(&self, below: f64) -> f64 {
        let last = self.0.len() - 1;
        let place = below.clamp(0.0, 1.0) * last as f64;
        let (low, part) = (place.floor() as usize, place.fract());
        self.0[low] + part * (self.0[(low + 1).min(last)] - self.0[low])
    }
}

/// The shares of every member in every round.
#[derive(Debug, Clone, PartialEq)]
pub struct Spread {
    /// Each round's shares, 0 to 1, ascending.
    rounds: Vec<Vec<f64>>,
}

impl Spread {
    /// Each round's shares, 0 to 1, ascending.
    pub fn rounds(&self) -> &[Vec<f64>] {
        &self.rounds
    }

    /// The shares by rank: first those of each round's smallest member, last of its largest.
    pub fn ranks(&self) -> Vec<Distribution> {
        let share = |rank: usize| self.rounds.iter().map(|shares| shares[rank]).collect();
        (0..self.rounds[0].len()).map(|rank| Distribution::new(share(rank))).collect()
    }

    pub fn smallest(&self) -> Distribution {
        Distribution::new(self.rounds.iter().map(|shares| shares[0]).collect())
    }

    pub fn largest(&self) -> Distribution {
        let last = self.rounds[0].len() - 1;
        Distribution::new(self.rounds.iter().map(|shares| shares[last]).collect())
    }
}

/// How evenly a scheme shares among members of equal weight. Calls `done` after each round.
///
/// The shares of a ring are those of the circle of 2^64, not rounded to slots.
pub fn spread(
    scheme: Scheme,
    setup: Setup,
    mut done: impl FnMut(),
) -> Result<Spread, InvalidMembers> {
    let mut random = Random::new(setup.seed);
    let mut rounds = Vec::new();
    for _ in 0..setup.rounds.get() {
        let members = Members::new(fresh(&mut random, &vec![1; setup.backends]))?;
        let mut shares = match scheme {
            Scheme::Maglev => scheme.place(&members).shares(),
            Scheme::Ring { points } => Ring::new(&members, points).shares(),
        };
        shares.sort_by(f64::total_cmp);
        rounds.push(shares);
        done();
    }
    Ok(Spread { rounds })
}

/// Which key has which owner, by a scheme or without any.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Rule {
    /// The hash modulo the number of members: what one does without thinking.
    Modulo,
    Scheme(Scheme),
}

/// What happens to a cluster in [`moved`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Happening {
    /// One member joins.
    Join,
    /// One member is replaced by one of another name.
    Rename,
}

impl Happening {
    /// The least part that must move, 0 to 1.
    pub fn share_moved_min(self, backends: usize) -> f64 {
        match self {
            Happening::Join => 1.0 / (backends as f64 + 1.0),
            Happening::Rename => 1.0 / backends as f64,
        }
    }
}

/// The part of all slots, 0 to 1, that changes owners when something happens to a cluster of
/// `setup.backends` members. Calls `done` after each round.
pub fn moved(
    rule: Rule,
    happening: Happening,
    setup: Setup,
    mut done: impl FnMut(),
) -> Result<Distribution, InvalidMembers> {
    let mut random = Random::new(setup.seed);
    let mut shares = Vec::new();
    for _ in 0..setup.rounds.get() {
        let all = fresh(&mut random, &vec![1; setup.backends + 1]);
        let before = &all[..setup.backends];
        let mut after = all.clone();
        if happening == Happening::Rename {
            // The newcomer stands where the first stood.
            after.swap_remove(0);
        }
        shares.push(match rule {
            Rule::Modulo => moved_by_modulo(before, &after),
            Rule::Scheme(scheme) => {
                let place =
                    |members: &[Member]| Ok(scheme.place(&Members::new(members.iter().cloned())?));
                place(before)?.share_moved_to(&place(&after)?)
            }
        });
        done();
    }
    Ok(Distribution::new(shares))
}

/// A number modulo their count picks a member from a list in the order in which they came.
fn moved_by_modulo(before: &[Member], after: &[Member]) -> f64 {
    let other = |slot: &Slot| {
        let (was, is) = (slot.index() % before.len(), slot.index() % after.len());
        before[was].name != after[is].name
    };
    let moves = Slot::all().filter(other).count();
    moves as f64 / f64::from(SLOTS)
}

/// What members of given weights got, and what a change of one weight moved.
#[derive(Debug, Clone, PartialEq)]
pub struct Weighted {
    /// The share that each weight asks for, 0 to 1, in the order given.
    pub wanted: Vec<f64>,
    /// The shares got in all rounds, in the order given.
    pub got: Vec<Distribution>,
    /// The furthest that any share was from the one wanted, in slots.
    pub error_slots_max: f64,
    /// The part of all slots that moves when the last weight is doubled.
    pub moved: Distribution,
    /// The least part that must move then.
    pub share_moved_min: f64,
}

/// How well a scheme heeds weights. Calls `done` after each round.
///
/// At least one weight must be given that is not 0.
pub fn weighted(
    scheme: Scheme,
    weights: &[u32],
    rounds: NonZeroU32,
    seed: u64,
    mut done: impl FnMut(),
) -> Result<Weighted, InvalidMembers> {
    let mut doubled = weights.to_vec();
    if let Some(last) = doubled.last_mut() {
        *last = last.saturating_mul(2);
    }
    let wanted = portions(weights);
    let mut random = Random::new(seed);
    let mut got = vec![Vec::new(); weights.len()];
    let mut moved = Vec::new();
    for _ in 0..rounds.get() {
        let members = fresh(&mut random, weights);
        let heavier = members
            .iter()
            .zip(&doubled)
            .map(|(member, &weight)| Member { weight: Weight::new(weight), ..member.clone() });
        let before = scheme.place(&Members::new(members.iter().cloned())?);
        moved.push(before.share_moved_to(&scheme.place(&Members::new(heavier)?)));
        let shares = before.shares();
        for (got, member) in got.iter_mut().zip(&members) {
            let index = before.index_of(&member.name).expect("every member is in its table");
            got.push(shares[index.index()]);
        }
        done();
    }
    let error = |(wanted, got): (&f64, &Vec<f64>)| {
        got.iter().map(|share| (share - wanted).abs() * f64::from(SLOTS)).fold(0.0, f64::max)
    };
    let error_slots_max = wanted.iter().zip(&got).map(error).fold(0.0, f64::max);
    let gained = portions(&doubled).iter().zip(&wanted).map(|(b, a)| (b - a).max(0.0)).sum();
    Ok(Weighted {
        wanted,
        got: got.into_iter().map(Distribution::new).collect(),
        error_slots_max,
        moved: Distribution::new(moved),
        share_moved_min: gained,
    })
}

fn portions(weights: &[u32]) -> Vec<f64> {
    let sum: f64 = weights.iter().map(|&weight| f64::from(weight)).sum();
    weights.iter().map(|&weight| f64::from(weight) / sum).collect()
}

/// One member for each weight, in that order, with names that no other round has.
fn fresh(random: &mut Random, weights: &[u32]) -> Vec<Member> {
    let member = |(number, &weight): (usize, &u32)| {
        let name = format!("{:016x}-{number}", random.next());
        let name = MemberName::parse(&name).expect("digits and a dash, fewer than 63");
        Member { name, weight: Weight::new(weight) }
    };
    weights.iter().enumerate().map(member).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_lie_between_the_values_in_proportion() {
        let distribution = Distribution::new(vec![4.0, 1.0, 2.0, 3.0]);
        assert_eq!(distribution.median(), 2.5);
        assert_eq!(distribution.mean(), 2.5);
        assert_eq!(distribution.quantile(0.0), 1.0);
        assert_eq!(distribution.quantile(1.0), 4.0);
        assert_eq!(distribution.quantile(0.9), 3.7);
    }

    #[test]
    fn the_same_seed_gives_the_same_rounds() {
        let rounds = NonZeroU32::new(2).expect("not 0");
        let run = |seed| {
            let setup = Setup { backends: 3, rounds, seed };
            spread(Scheme::Ring { points: 1 }, setup, || ()).expect("three members")
        };
        assert_eq!(run(1), run(1));
        assert_ne!(run(1), run(2));
    }

    #[test]
    fn what_cannot_be_a_cluster_is_refused() {
        let rounds = NonZeroU32::MIN;
        let none = Setup { backends: 0, rounds, seed: 1 };
        assert_eq!(spread(Scheme::Maglev, none, || ()), Err(InvalidMembers::NoOwner));
        let weightless = weighted(Scheme::Maglev, &[0, 0], rounds, 1, || ());
        assert_eq!(weightless, Err(InvalidMembers::NoOwner));
    }
}
