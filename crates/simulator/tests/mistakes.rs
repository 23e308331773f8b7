//! Laws that never fail may be blind: each mistake is made on purpose, and a seed must find it.

use cluster::mistake::{Mistake, make};
use simulator::play::play;
use simulator::scenario::{Scenario, Swarm};
use simulator::story::Story;
use simulator::time::{MILLISECOND, SECOND};

/// More than any mistake needs.
const SEEDS_MAX: u64 = 100;

/// Most show within a few seeds. Two need a rare order of events, so their search begins near where
/// one was found last, which only saves time.
const FIRST_SEEDS: &[(Mistake, u64)] =
    &[(Mistake::TrustsTheOrderOfReplies, 20), (Mistake::AcknowledgesBeforeDisk, 60)];

/// Each mistake, the faults under which it shows, and the laws that it breaks.
const MISTAKES: &[(Mistake, &[&str], &[&str])] = &[
    (Mistake::ServesAnySlot, &["reweigh", "slow"], &["one owner", "reads are never stale"]),
    (Mistake::TrustsTheMap, &["reweigh", "slow"], &["one owner", "reads are never stale"]),
    (Mistake::SweepsNothing, &["reweigh"], &["reads are never stale", "an increment happens once"]),
    (
        Mistake::SettlesEarly,
        &["reweigh", "partition", "cut one way", "slow"],
        &["one owner", "reads are never stale", "what is acknowledged is kept"],
    ),
    (
        Mistake::GivesUpTheSilent,
        &["partition", "cut one way", "pause"],
        &["one owner", "reads are never stale"],
    ),
    (
        Mistake::TrustsTheOrderOfReplies,
        &["reply twice", "reweigh"],
        &[
            "no client sees another's bytes",
            "an answer belongs to its request",
            "reads are never stale",
        ],
    ),
    (
        Mistake::ChecksNoChecksum,
        &["damaged bytes"],
        &[
            "no client sees another's bytes",
            "an answer belongs to its request",
            "what is acknowledged is kept",
            "reads are never stale",
            "no engine panics",
            "tokens are unique",
            "an increment happens once",
        ],
    ),
    (
        Mistake::RepeatsWrites,
        &["reset", "crash"],
        &["reads are never stale", "an increment happens once", "no engine panics"],
    ),
    (
        Mistake::HedgesPastWrites,
        &["slow", "pause"],
        &["a pipeline keeps its order", "what is acknowledged is kept"],
    ),
    (Mistake::IgnoresLimits, &["resize"], &["quotas add up"]),
    (
        Mistake::AcknowledgesBeforeDisk,
        &["reweigh", "crash", "control away"],
        &["one owner", "reads are never stale"],
    ),
    (Mistake::RepeatsTokens, &["reweigh", "crash"], &["tokens are unique"]),
];

#[test]
fn every_mistake_is_found_by_a_seed() {
    let mut blind = Vec::new();
    for &(mistake, faults, laws) in MISTAKES {
        make(Some(mistake));
        let first = FIRST_SEEDS.iter().find(|(of, _)| *of == mistake).map_or(0, |(_, seed)| *seed);
        let found = (first..first + SEEDS_MAX).find_map(|seed| {
            let scenario = Scenario::with(Swarm::Only(faults), seed, 10 * SECOND, 15 * MILLISECOND);
            let violation = play(scenario, Story::silent()).violation?;
            Some((seed, violation))
        });
        make(None);
        match found {
            Some((_, violation)) if laws.contains(&violation.law) => (),
            other => blind.push((mistake, other)),
        }
    }
    assert!(blind.is_empty(), "not found, or as something else: {blind:#?}");
}
