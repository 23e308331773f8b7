//! One backend on another node, and the two connections to it.

use std::net::SocketAddr;
use std::sync::Arc;

use cluster::member::{Incarnation, MemberName};
use wire::control::name::NodeName;

use super::fair::FairQueue;
use super::latency::Percentile95;
use super::{LINKS_PER_PEER, Micros};
use crate::link_usage::MemberLinks;
use crate::view::ViewMember;

/// Requests on their way over one connection: what a backend does in a few milliseconds, and what
/// some dozens of clients ask with long multi-gets. More would only wait there instead of here.
const IN_FLIGHT_MAX: usize = 4096;

/// Bytes that wait for the socket of one connection before requests wait for their turns instead.
const OUTPUT_BYTES_MAX: usize = 256 * 1024;

/// Memory for output that a connection keeps when all is written.
const OUTPUT_BYTES_KEPT: usize = 64 * 1024;

/// Longest and shortest wait before connecting again: doubled each time, then drawn by lot between
/// nothing and that ("full jitter"), so that many proxies do not come at once.
const RECONNECT_MAX: Micros = 1_000_000;
const RECONNECT_MIN: Micros = 10_000;

pub(super) struct Peer {
    pub(super) name: MemberName,
    pub(super) node: NodeName,
    pub(super) incarnation: Incarnation,
    pub(super) address: SocketAddr,
    pub(super) links: [Link; LINKS_PER_PEER],
    /// The connection that requests take. The other one takes hedges, and all when this is lost.
    pub(super) active: usize,
    /// When a byte came last, on any of the connections.
    pub(super) heard: Micros,
    /// Nothing was heard for so long that requests fail at once, until something is heard.
    pub(super) is_silent: bool,
    /// The active connection is about to be another; nothing is sent until it is.
    pub(super) is_changing: bool,
    /// Whether its process takes several reads in one frame.
    pub(super) takes_many: bool,
    pub(super) queue: FairQueue,
    pub(super) latency: Percentile95,
    pub(super) usage: Arc<MemberLinks>,
}

/// One connection.
pub(super) struct Link {
    pub(super) phase: Phase,
    /// Which connection of this place it is: what is said of an earlier one is not of this one.
    pub(super) serial: u32,
    pub(super) out: Vec<u8>,
    /// Bytes at the front of `out` that the socket has taken.
    written: usize,
    /// Bytes that were ever appended to `out` for this connection.
    pub(super) queued_total: u64,
    pub(super) in_flight: usize,
    /// When a byte came last, or when it was asked something after it had nothing to say.
    pub(super) heard: Micros,
    /// When an answer was whole last, or requests went on that had to wait, or it was asked something after
    /// it had nothing to say.
    pub(super) moved: Micros,
    /// Whether the shell has been told that there is something to write.
    pub(super) is_dirty: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Phase {
    Down {
        attempts: u32,
        retry_at: Micros,
    },
    /// Connecting, or greeting.
    Coming {
        attempts: u32,
        since: Micros,
    },
    Up,
}

impl Peer {
    pub(super) fn new(
        member: &ViewMember,
        address: SocketAddr,
        first_serial: u32,
        usage: Arc<MemberLinks>,
    ) -> Self {
        Peer {
            name: member.name.clone(),
            node: member.node.clone(),
            incarnation: member.incarnation,
            address,
            links: std::array::from_fn(|link| Link::new(first_serial + link as u32)),
            active: 0,
            heard: 0,
            is_silent: false,
            is_changing: false,
            takes_many: false,
            queue: FairQueue::default(),
            latency: Percentile95::new(),
            usage,
        }
    }

    /// The connection for the next request. Changes only when one is lost, so that the requests of
    /// a client keep their order.
    pub(super) fn usable(&mut self) -> Option<usize> {
        if self.is_silent {
            return None;
        }
        if self.links[self.active].phase != Phase::Up {
            self.is_changing = false;
            self.active = self.links.iter().position(|link| link.phase == Phase::Up)?;
        }
        Some(self.active)
    }

    /// Whether one more request may be written to this connection.
    pub(super) fn takes_more(&self, link: usize) -> bool {
        !self.is_changing && self.links[link].has_room()
    }

    /// A connection besides this one that can take a repetition.
    pub(super) fn other(&self, link: usize) -> Option<usize> {
        let other = (0..LINKS_PER_PEER).find(|&other| other != link)?;
        (self.links[other].phase == Phase::Up && self.links[other].has_room()).then_some(other)
    }

    pub(super) fn is_up(&self) -> bool {
        self.links.iter().any(|link| link.phase == Phase::Up)
    }
}

impl Link {
    fn new(serial: u32) -> Self {
        Link {
            phase: Phase::Down { attempts: 0, retry_at: 0 },
            serial,
            out: Vec::new(),
            written: 0,
            queued_total: 0,
            in_flight: 0,
            heard: 0,
            moved: 0,
            is_dirty: false,
        }
    }

    pub(super) fn has_room(&self) -> bool {
        self.in_flight < IN_FLIGHT_MAX && self.unwritten().len() < OUTPUT_BYTES_MAX
    }

    /// What the socket has not taken yet.
    pub(super) fn unwritten(&self) -> &[u8] {
        &self.out[self.written..]
    }

    /// Bytes of this connection that the socket has taken.
    pub(super) fn written_total(&self) -> u64 {
        self.queued_total - self.unwritten().len() as u64
    }

    /// The socket took that many bytes.
    pub(super) fn wrote(&mut self, bytes: usize) {
        self.written += bytes;
        if self.written == self.out.len() {
            self.out.clear();
            self.out.shrink_to(OUTPUT_BYTES_KEPT);
            self.written = 0;
        } else if OUTPUT_BYTES_MAX < self.written {
            self.out.drain(..self.written);
            self.written = 0;
        }
    }

    /// Begins anew after the connection was lost or could not be made.
    pub(super) fn lost(&mut self, serial: u32, now: Micros, chance: u64) {
        let attempts = match self.phase {
            Phase::Up => 0,
            Phase::Down { attempts, .. } | Phase::Coming { attempts, .. } => attempts + 1,
        };
        self.phase = Phase::Down { attempts, retry_at: now + delay(attempts, chance) };
        self.serial = serial;
        self.out = Vec::new();
        self.written = 0;
        self.queued_total = 0;
        self.in_flight = 0;
        self.is_dirty = false;
    }
}

/// How long to wait before attempt number `attempts`, counted from 0.
fn delay(attempts: u32, chance: u64) -> Micros {
    let longest = (RECONNECT_MIN << attempts.min(20)).min(RECONNECT_MAX);
    chance % (longest + 1)
}

#[cfg(test)]
mod tests {
    use super::{RECONNECT_MAX, RECONNECT_MIN, delay};

    #[test]
    fn waits_grow_to_a_limit_and_are_drawn_by_lot() {
        let longest = |attempts| (0..10_000).map(|n| delay(attempts, n * 7_919)).max();
        assert!(longest(0).is_some_and(|longest| longest <= RECONNECT_MIN));
        let later = longest(30).expect("some were drawn");
        assert!(RECONNECT_MAX / 2 < later && later <= RECONNECT_MAX, "{later}");
        assert_eq!(delay(30, 0), 0);
    }
}
