//! What one seed plays: how large the cluster is, who its clients are, and what goes wrong when.
//!
//! Everything is drawn before the play begins, so that a part of it can be left out and the rest
//! stays as it was: that is what [`crate::shrink`] does. Which kinds of faults there are at all is
//! drawn first ("swarm testing", Groce and others 2012): a seed without pauses reaches states that
//! one with everything at once never does.

use std::collections::BTreeSet;

use crate::random::Random;
use crate::time::{MILLISECOND, Micros, SECOND};

/// One play, whole.
#[derive(Debug, Clone)]
pub struct Scenario {
    pub seed: u64,
    /// How long clients ask and faults happen; then everything is healed and looked at.
    pub length: Micros,
    pub nodes: usize,
    /// At each node, in one process.
    pub backends: usize,
    pub clients: usize,
    pub tenants: usize,
    pub keys: usize,
    /// Mean pause of a client between two of its batches.
    pub pause: Micros,
    pub latency: Latency,
    pub memory: Memory,
    pub faults: Vec<Timed>,
    /// Batches of clients that are left out, when a failure is made smaller.
    pub left_out: BTreeSet<(usize, u64)>,
}

/// How long bytes are under way.
#[derive(Debug, Clone, Copy)]
pub struct Latency {
    pub min: Micros,
    pub max: Micros,
    /// In a hundred deliveries, so many take twenty times as long.
    pub late_percent: u64,
}

/// How much memory there is for items.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Memory {
    /// More than is ever stored: nothing is evicted.
    Ample,
    /// Little; and of the tenants the last ([`CROWD`]) stores more than it may hold, so its cache is
    /// soon full and stays so.
    Tight,
}

/// The tenant that crowds its cache, where memory is [tight](Memory::Tight).
pub const CROWD: usize = 2;

impl Memory {
    pub(crate) fn tenants(self) -> usize {
        match self {
            Memory::Ample => CROWD,
            Memory::Tight => CROWD + 1,
        }
    }

    /// Of each backend: enough for all that may be promised, should it be the only one.
    pub(crate) fn backend_mib(self) -> u32 {
        match self {
            Memory::Ample => 256,
            Memory::Tight => 8,
        }
    }

    /// In which caches' limits are counted.
    pub(crate) fn unit_bytes(self) -> u64 {
        match self {
            Memory::Ample => 1 << 20,
            Memory::Tight => 16 << 10,
        }
    }

    pub(crate) fn item_bytes_max(self) -> u32 {
        match self {
            Memory::Ample => 256 << 10,
            Memory::Tight => 64 << 10,
        }
    }
}

/// A fault and when it happens.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Timed {
    pub at: Micros,
    pub fault: Fault,
}

/// What goes wrong, or is done on purpose.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// A connection between two nodes is lost.
    Reset { from: usize, to: usize },
    /// What one place sends to another does not arrive, for a while.
    Cut { from: Place, to: Place, lasts: Micros },
    /// Some nodes (by bits) are cut off from all others, and from control if it says so.
    Partition { nodes: u32, control_too: bool, lasts: Micros },
    /// A process ends, and is started again after a while.
    Crash { node: usize, away: Micros },
    /// A process stands still.
    Pause { node: usize, lasts: Micros },
    /// The control plane is away.
    ControlAway { lasts: Micros },
    /// The wall clock of a node is set.
    ClockStep { node: usize, seconds: i64 },
    /// A node's disk takes nothing more for a while.
    DiskFull { node: usize, lasts: Micros },
    /// Bytes between two nodes are damaged on their way.
    Damage { from: usize, to: usize },
    /// A reply is delivered a second time, on the same connection.
    Replay { from: usize, to: usize },
    /// Everything between two nodes is slow for a while.
    Slow { from: usize, to: usize, lasts: Micros },
    /// What control sends to a node arrives so much later, for a while: config is late.
    Late { node: usize, by: Micros, lasts: Micros },
    /// A client's connection is lost.
    ClientGone { client: usize },
    /// Control sends a node something that no control plane should.
    Garbage { node: usize, kind: u64 },
    /// An operator changes a weight, to so many parts in 256 of what the node has at first.
    Reweigh { node: usize, weight: u32 },
    /// A new node joins, or one that was removed comes back as another machine.
    Join { node: usize },
    /// A node is drained, and removed when it serves nothing any more.
    Remove { node: usize },
    /// A node ends for good, without being asked.
    Lose { node: usize },
    /// A cache's limits are changed, to so many [units](Memory::unit_bytes).
    Resize { tenant: usize, units: u64 },
}

/// Where bytes come from and go to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Place {
    Node(usize),
    Control,
    Client(usize),
}

impl Fault {
    /// Each kind's name, for counting.
    pub fn name(&self) -> &'static str {
        match self {
            Fault::Reset { .. } => "reset",
            Fault::Cut { .. } => "cut one way",
            Fault::Partition { .. } => "partition",
            Fault::Crash { .. } => "crash",
            Fault::Pause { .. } => "pause",
            Fault::ControlAway { .. } => "control away",
            Fault::ClockStep { .. } => "clock step",
            Fault::DiskFull { .. } => "disk full",
            Fault::Damage { .. } => "damaged bytes",
            Fault::Replay { .. } => "reply twice",
            Fault::Slow { .. } => "slow",
            Fault::Late { .. } => "control late",
            Fault::ClientGone { .. } => "client gone",
            Fault::Garbage { .. } => "garbage from control",
            Fault::Reweigh { .. } => "reweigh",
            Fault::Join { .. } => "join",
            Fault::Remove { .. } => "remove",
            Fault::Lose { .. } => "lose for good",
            Fault::Resize { .. } => "resize",
        }
    }
}

/// How many nodes there are at most, those that join later included.
pub const NODES_MAX: usize = 6;

/// Which kinds of faults there are.
#[derive(Debug, Clone, Copy)]
pub enum Swarm<'a> {
    /// Each kind by lot, with one chance in three.
    ByLot,
    /// These by [name](Fault::name), as often as they may be, and no others.
    Only(&'a [&'a str]),
}

/// Kinds that a swarm may switch on, with how many of each happen in a minute, at least and at most.
const KINDS: &[(Draw, u64, u64)] = &[
    (|r, n| Fault::Reset { from: r.place(n), to: r.place(n) }, 2, 60),
    (
        |r, n| Fault::Cut {
            from: any_place(r, n),
            to: any_place(r, n),
            lasts: r.between(100 * MILLISECOND, 8 * SECOND),
        },
        2,
        12,
    ),
    (
        |r, n| Fault::Partition {
            nodes: u32::try_from(r.below(1 << n)).expect("a few bits"),
            control_too: r.percent(50),
            lasts: r.between(100 * MILLISECOND, 10 * SECOND),
        },
        1,
        6,
    ),
    (
        |r, n| Fault::Crash { node: r.place(n), away: r.between(50 * MILLISECOND, 20 * SECOND) },
        1,
        6,
    ),
    (
        |r, n| Fault::Pause { node: r.place(n), lasts: r.between(20 * MILLISECOND, 15 * SECOND) },
        1,
        8,
    ),
    (|r, _| Fault::ControlAway { lasts: r.between(100 * MILLISECOND, 30 * SECOND) }, 1, 4),
    (
        |r, n| Fault::ClockStep {
            node: r.place(n),
            seconds: [3_600, -3_600, 30 * 86_400, -30 * 86_400][r.place(4)],
        },
        1,
        6,
    ),
    (|r, n| Fault::DiskFull { node: r.place(n), lasts: r.between(SECOND, 20 * SECOND) }, 1, 4),
    (|r, n| Fault::Damage { from: r.place(n), to: r.place(n) }, 2, 30),
    (|r, n| Fault::Replay { from: r.place(n), to: r.place(n) }, 2, 30),
    (
        |r, n| Fault::Slow {
            from: r.place(n),
            to: r.place(n),
            lasts: r.between(100 * MILLISECOND, 10 * SECOND),
        },
        2,
        12,
    ),
    (|r, _| Fault::ClientGone { client: r.place(8) }, 2, 30),
    (|r, n| Fault::Garbage { node: r.place(n), kind: r.word() }, 1, 12),
    (
        |r, n| Fault::Reweigh {
            node: r.place(n),
            weight: u32::try_from(r.below(4) * 32).expect("small"),
        },
        1,
        8,
    ),
    (|r, _| Fault::Join { node: r.place(NODES_MAX) }, 1, 6),
    (|r, n| Fault::Remove { node: r.place(n) }, 1, 4),
    (|r, n| Fault::Lose { node: r.place(n) }, 1, 2),
    (|r, _| Fault::Resize { tenant: r.place(2), units: r.between(4, 32) }, 1, 12),
];

/// Control is heard this much later at most: longer than a node calls silence would be a cut, of which
/// there are others.
const LATE_MAX: Micros = 2_500 * MILLISECOND;

/// Kinds that came later. They have chance of their own, so that seeds played before stay what they
/// were.
const LATER_KINDS: &[(Draw, u64, u64)] = &[(
    |r, n| Fault::Late {
        node: r.place(n),
        by: r.between(100 * MILLISECOND, LATE_MAX),
        lasts: r.between(SECOND, 15 * SECOND),
    },
    1,
    6,
)];

/// Of a hundred seeds, so many are played with [tight](Memory::Tight) memory.
const TIGHT_PERCENT: u64 = 20;

type Draw = fn(&mut Random, usize) -> Fault;

fn any_place(random: &mut Random, nodes: usize) -> Place {
    match random.place(nodes + 1) {
        place if place == nodes => Place::Control,
        place => Place::Node(place),
    }
}

impl Scenario {
    /// Draws everything from the seed.
    pub fn drawn(seed: u64, length: Micros, pause: Micros) -> Self {
        Self::with(Swarm::ByLot, seed, length, pause)
    }

    /// The same with some kinds of faults only.
    pub fn with(swarm: Swarm<'_>, seed: u64, length: Micros, pause: Micros) -> Self {
        let mut random = Random::of(seed, 1);
        let nodes = usize::try_from(random.between(2, 4)).expect("a few");
        let mut faults = Vec::new();
        draw_faults(KINDS, swarm, &mut random, nodes, length, &mut faults);
        draw_faults(LATER_KINDS, swarm, &mut Random::of(seed, 8), nodes, length, &mut faults);
        faults.sort_by_key(|timed| timed.at);
        let min = random.between(20, 300);
        let is_tight = Random::of(seed, 9).percent(TIGHT_PERCENT);
        let memory = if is_tight { Memory::Tight } else { Memory::Ample };
        Scenario {
            seed,
            length,
            nodes,
            backends: 1 + usize::from(Random::of(seed, 10).percent(TWO_BACKENDS_PERCENT)),
            // Each tenant has at least one.
            clients: usize::try_from(random.between(2, 8)).expect("a few").max(memory.tenants()),
            tenants: memory.tenants(),
            keys: usize::try_from(random.between(2, 24)).expect("a few"),
            pause,
            latency: Latency {
                min,
                max: min + random.between(10, 2_000),
                late_percent: random.below(8),
            },
            memory,
            faults,
            left_out: BTreeSet::new(),
        }
    }
}

/// Of a hundred seeds, so many are played with two backends at each node.
const TWO_BACKENDS_PERCENT: u64 = 25;

/// Draws which kinds there are, how often each happens, and when.
fn draw_faults(
    kinds: &[(Draw, u64, u64)],
    swarm: Swarm<'_>,
    random: &mut Random,
    nodes: usize,
    length: Micros,
    faults: &mut Vec<Timed>,
) {
    for &(draw, least, most) in kinds {
        let by_lot = random.percent(33);
        let per_minute = random.between(least, most);
        let mut of_kind = Random::of(random.word(), 2);
        let (is_on, per_minute) = match swarm {
            Swarm::ByLot => (by_lot, per_minute),
            Swarm::Only(names) => {
                let name = draw(&mut of_kind.clone(), nodes).name();
                (names.contains(&name), most)
            }
        };
        if !is_on {
            continue;
        }
        let count = (per_minute * length).div_ceil(60 * SECOND);
        for _ in 0..count {
            let at = of_kind.below(length);
            faults.push(Timed { at, fault: draw(&mut of_kind, nodes) });
        }
    }
}
