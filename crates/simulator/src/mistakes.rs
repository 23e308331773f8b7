//! Which mistakes seeds must find, and how: laws that never fail may be blind.
//!
//! What seeds cannot find is found by models (`cluster::ownership`, `cluster::handoff`); all of it stands
//! in `docs/simulation.md`.

use cluster::mistake::{Mistake, make};

use crate::laws::Violation;
use crate::play::play;
use crate::scenario::{Scenario, Swarm};
use crate::story::Story;
use crate::time::{MILLISECOND, Micros, SECOND};

/// A mistake that seeds must find.
#[derive(Debug)]
pub struct Case {
    pub mistake: Mistake,
    /// The faults under which it shows, by [name](crate::scenario::Fault::name).
    pub faults: &'static [&'static str],
    /// The laws that it breaks.
    pub laws: &'static [&'static str],
    /// Where the search begins, unless it is to be told how many seeds it takes: most show within a few
    /// seeds, and those that need a rare order of events are looked for near where one was found last.
    pub first_seed: u64,
    /// How long faults happen: most show within seconds, but nobody is given up sooner than ten seconds
    /// after its process has ended.
    pub length: Micros,
}

/// More seeds than any mistake needs.
pub const SEEDS_MAX: u64 = 100;

const PAUSE: Micros = 15 * MILLISECOND;

/// Every mistake that seeds find.
pub const CASES: &[Case] = &[
    case(Mistake::ServesAnySlot, &["reweigh", "slow"], &["one owner", "reads are never stale"]),
    case(Mistake::TrustsTheMap, &["reweigh", "slow"], &["one owner", "reads are never stale"]),
    case(Mistake::TrustsTheHint, &["reweigh", "slow"], &["one owner", "reads are never stale"]),
    Case {
        first_seed: 25,
        ..case(
            Mistake::SweepsNothing,
            &["reweigh"],
            &["reads are never stale", "an increment happens once"],
        )
    },
    case(
        Mistake::SettlesEarly,
        &["reweigh", "partition", "cut one way", "slow"],
        &["one owner", "reads are never stale", "what is acknowledged is kept"],
    ),
    case(
        Mistake::GivesUpTheSilent,
        &["partition", "cut one way", "pause"],
        &["one owner", "reads are never stale"],
    ),
    Case {
        first_seed: 75,
        ..case(
            Mistake::TrustsTheOrderOfReplies,
            &["reply twice", "reweigh"],
            &[
                "no client sees another's bytes",
                "an answer belongs to its request",
                "reads are never stale",
            ],
        )
    },
    case(
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
    case(
        Mistake::RepeatsWrites,
        &["reset", "crash"],
        &["reads are never stale", "an increment happens once", "no engine panics"],
    ),
    case(
        Mistake::HedgesPastWrites,
        &["slow", "pause"],
        &["a pipeline keeps its order", "what is acknowledged is kept"],
    ),
    case(Mistake::IgnoresLimits, &["resize"], &["quotas add up", "parts are kept"]),
    Case {
        first_seed: 60,
        ..case(
            Mistake::AcknowledgesBeforeDisk,
            &["reweigh", "crash", "control away"],
            &["one owner", "reads are never stale"],
        )
    },
    Case {
        length: 60 * SECOND,
        ..case(
            Mistake::ServesByDisk,
            &["crash", "control late"],
            &["one owner", "reads are never stale"],
        )
    },
    case(Mistake::RepeatsTokens, &["reweigh", "crash"], &["tokens are unique"]),
];

/// Those that no seed finds, and why.
pub const ONLY_BY_MODEL: &[(Mistake, &str)] = &[(
    Mistake::TakesAnyToken,
    "cluster::ownership's model: control tells a new run of no view older than itself, so here such a \
     token is too old anyway",
)];

const fn case(
    mistake: Mistake,
    faults: &'static [&'static str],
    laws: &'static [&'static str],
) -> Case {
    Case { mistake, faults, laws, first_seed: 0, length: 10 * SECOND }
}

impl Case {
    /// The first seed, of so many, that breaks a law, and what it breaks.
    pub fn find(&self, from: u64, seeds: u64) -> Option<(u64, Violation)> {
        make(Some(self.mistake));
        let found = (from..from + seeds).find_map(|seed| {
            let scenario = Scenario::with(Swarm::Only(self.faults), seed, self.length, PAUSE);
            Some((seed, play(scenario, Story::silent()).violation?))
        });
        make(None);
        found
    }
}
