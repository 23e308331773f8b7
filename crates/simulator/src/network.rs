//! The network: connections that keep their bytes in order, and everything that may happen to them.
//!
//! A connection is a stream in each direction. Bytes take a while, never overtake one another on one
//! connection, and overtake freely between connections. Where the way is cut they wait, as they do in
//! a kernel that sends again, and arrive when it is mended; unless somebody has lost patience by then.

use std::collections::VecDeque;

use backend::peer::simulated::ServedLink;
use daemon::memory_stream::NetworkEnd;
use proxy::simulated::ClientKey;
use wire::control::message::{FromControl, FromNode};

use crate::random::Random;
use crate::scenario::{Latency, NODES_MAX, Place};
use crate::time::Micros;

/// One connection, by a number that is never used twice.
pub(crate) type StreamId = u64;

/// From whoever called, or to them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Way {
    There,
    Back,
}

impl Way {
    pub(crate) fn index(self) -> usize {
        match self {
            Way::There => 0,
            Way::Back => 1,
        }
    }
}

/// What travels.
#[derive(Debug)]
pub(crate) enum Parcel {
    Connect,
    Connected,
    Refused,
    Bytes(Vec<u8>),
    ToControl(Box<FromNode>),
    ToNode(Box<FromControl>),
    /// Nothing more comes from there.
    End,
    /// The other side is gone.
    Reset,
}

/// What a connection is for.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Kind {
    /// A client's, once its proxy has taken it in.
    Client {
        key: Option<ClientKey>,
    },
    /// A proxy's link to another node's backends, by the number its proxy knows it by.
    Peer {
        number: u64,
        served: Option<ServedLink>,
    },
    Control,
}

#[derive(Debug)]
pub(crate) struct Stream {
    pub(crate) from: Place,
    pub(crate) to: Place,
    pub(crate) kind: Kind,
    /// By way: what the sender at its beginning writes into, if it is a program.
    pub(crate) ends: [Option<NetworkEnd>; 2],
    /// By way: whether its sender has closed, so that nothing is sent, and nothing heard, there.
    pub(crate) closed: [bool; 2],
    /// By way: when the last parcel arrives.
    last: [Micros; 2],
    /// By way: what waits for the way to be mended.
    pub(crate) held: [VecDeque<Parcel>; 2],
}

impl Stream {
    pub(crate) fn new(from: Place, to: Place, kind: Kind) -> Self {
        Stream {
            from,
            to,
            kind,
            ends: [None, None],
            closed: [false, false],
            last: [0, 0],
            held: [VecDeque::new(), VecDeque::new()],
        }
    }

    /// Where parcels of this way come from, and where they go.
    pub(crate) fn ends_of(&self, way: Way) -> (Place, Place) {
        match way {
            Way::There => (self.from, self.to),
            Way::Back => (self.to, self.from),
        }
    }

    /// The moment a parcel sent now arrives: after all that were sent before it.
    pub(crate) fn arrival(&mut self, way: Way, at: Micros) -> Micros {
        let last = &mut self.last[way.index()];
        *last = at.max(*last);
        *last
    }
}

/// Nodes, then control.
const PLACES: usize = NODES_MAX + 1;

/// How good the ways are.
#[derive(Debug)]
pub(crate) struct Ways {
    latency: Latency,
    cut_until: [[Micros; PLACES]; PLACES],
    slow_until: [[Micros; PLACES]; PLACES],
    /// How much later everything arrives, and until when.
    late: [[(Micros, Micros); PLACES]; PLACES],
    random: Random,
}

/// How much longer a late or slow delivery takes.
const LATE_TIMES: u64 = 20;

impl Ways {
    pub(crate) fn new(latency: Latency, seed: u64) -> Self {
        Ways {
            latency,
            cut_until: [[0; PLACES]; PLACES],
            slow_until: [[0; PLACES]; PLACES],
            late: [[(0, 0); PLACES]; PLACES],
            random: Random::of(seed, 3),
        }
    }

    pub(crate) fn cut(&mut self, from: Place, to: Place, until: Micros) {
        if let Some((from, to)) = places(from, to) {
            self.cut_until[from][to] = until.max(self.cut_until[from][to]);
        }
    }

    pub(crate) fn slow(&mut self, from: Place, to: Place, until: Micros) {
        if let Some((from, to)) = places(from, to) {
            self.slow_until[from][to] = until;
        }
    }

    pub(crate) fn make_late(&mut self, from: Place, to: Place, by: Micros, until: Micros) {
        if let Some((from, to)) = places(from, to) {
            self.late[from][to] = (by, until);
        }
    }

    pub(crate) fn is_cut(&self, from: Place, to: Place, now: Micros) -> bool {
        places(from, to).is_some_and(|(from, to)| now < self.cut_until[from][to])
    }

    /// Mends everything.
    pub(crate) fn heal(&mut self) {
        self.cut_until = [[0; PLACES]; PLACES];
        self.slow_until = [[0; PLACES]; PLACES];
        self.late = [[(0, 0); PLACES]; PLACES];
        self.latency.late_percent = 0;
    }

    pub(crate) fn delay(&mut self, from: Place, to: Place, now: Micros) -> Micros {
        let delay = self.random.between(self.latency.min, self.latency.max);
        let Some((from, to)) = places(from, to) else { return self.perhaps_late(delay, false) };
        let (by, until) = self.late[from][to];
        let later = if now < until { by } else { 0 };
        later + self.perhaps_late(delay, now < self.slow_until[from][to])
    }

    fn perhaps_late(&mut self, delay: Micros, is_slow: bool) -> Micros {
        if is_slow || self.random.percent(self.latency.late_percent) {
            delay * LATE_TIMES
        } else {
            delay
        }
    }
}

/// Clients stand beside the proxies they talk to: their ways are never cut, only their connections.
fn places(from: Place, to: Place) -> Option<(usize, usize)> {
    Some((place(from)?, place(to)?))
}

fn place(place: Place) -> Option<usize> {
    match place {
        Place::Node(node) => Some(node),
        Place::Control => Some(NODES_MAX),
        Place::Client(_) => None,
    }
}
