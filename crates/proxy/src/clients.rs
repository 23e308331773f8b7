//! The clients' connections of one event loop: as the links see them, and whose turn it is.
//!
//! ```text
//!   has something to do ─▶ again ─▶ while the round has been cheap ──────────▶ its turn
//!                                         │ the round has cost enough             ▲
//!                                         ▼                                       │
//!                                       late: caches take turns ──────────────────┤
//!   used faster than it may be ─▶ held: by cache, one after another as it may ────┘
//! ```
//!
//! An idle loop gives each connection its turn at once, in the order in which the kernel names them.
//! A loop with more than a moment's work lets the rest wait by cache, so that one cache's flood does not
//! stand before another's request.

use std::collections::{BTreeMap, VecDeque};

use protocol::operation::Key;
use slab::Slab;
use tenancy::id::CacheId;
use tenancy::turns::Turns;
use wire::data::reply::Outcome;

use crate::answers::Failure;
use crate::connection::Connection;
use crate::link::BackendLink;
use crate::links::{Asker, Micros, Sink};

/// What one operation costs beyond its bytes: about what copying so many would take.
const OPERATION_COST: u64 = 512;

/// What the turn of a stranger costs beyond that. A password is compared, and the system is asked twice, for
/// one client's sake: about 10 µs in all. It is charged four times that, so that of a loop that has
/// more to do than it can strangers have a fifth: ten thousand who come back at once shall not stand before
/// those who stayed, nor those who give up and come again before those who wait.
const STRANGER_COST: u64 = 48 * 1024;

/// What a cache may use in one turn: thirty small operations, or a part of one large value.
const QUANTUM: u64 = 16 * 1024;

/// What a round may cost before connections wait for their cache's turn: about 100 µs of work.
const EASY_COST: u64 = 128 * 1024;

/// What a round may cost before sockets are looked at again: about a millisecond.
const ROUND_COST: u64 = 1 << 20;

/// A line of one cache that takes longer is not served in order any more: half of what impatient clients
/// wait.
const LINE_TIME_MAX: Micros = 250_000;

// A few strangers at once, and no round is theirs for longer than a part of a millisecond.
const _: () = assert!(EASY_COST / STRANGER_COST <= 4 && ROUND_COST / STRANGER_COST <= 25);

/// Who is held is looked at again after this time at the latest, because limits may be raised.
const HOLD_MAX: Micros = 1_000_000;

/// The clients' connections, and which of them want a turn.
pub(crate) struct Clients<L: BackendLink> {
    pub(crate) connections: Slab<Connection<L>>,
    /// Connections that have more to do although the kernel will not say so again. None is in it
    /// twice.
    pub(crate) again: VecDeque<usize>,
    /// Those of them that wait for their cache's turn.
    late: Turns<usize>,
    /// By cache: connections that wait because it was used too fast. In the order of their numbers, as
    /// nothing here is left to chance.
    held: BTreeMap<CacheId, Held>,
    /// Nobody is held beyond this moment; `None` when nobody is held.
    held_until: Option<Micros>,
    /// What this round has cost.
    cost: u64,
}

struct Held {
    until: Micros,
    /// Places and serials, in the order in which they came.
    waiting: VecDeque<(usize, u64)>,
}

impl<L: BackendLink> Clients<L> {
    pub(crate) fn new() -> Self {
        Clients {
            connections: Slab::new(),
            again: VecDeque::new(),
            late: Turns::new(QUANTUM, LINE_TIME_MAX),
            held: BTreeMap::new(),
            held_until: None,
            cost: 0,
        }
    }

    pub(crate) fn queue(&mut self, key: usize) {
        if let Some(connection) = self.connections.get_mut(key)
            && !connection.is_queued
        {
            connection.is_queued = true;
            self.again.push_back(key);
        }
    }

    pub(crate) fn begin_round(&mut self) {
        self.cost = 0;
    }

    /// Whether this connection may have its turn at once. If not, it is made to wait for its cache's.
    #[inline]
    pub(crate) fn may_go(&mut self, key: usize, now: Micros) -> bool {
        if self.cost <= EASY_COST && self.late.is_empty() {
            return true;
        }
        let Some(connection) = self.connections.get_mut(key) else { return false };
        let cache = connection.cache();
        if self.cost <= EASY_COST && !self.late.has(cache) {
            return true;
        }
        if !std::mem::replace(&mut connection.is_queued, true) {
            connection.is_late = true;
            self.late.push(cache, key, now);
        }
        false
    }

    /// Whether this is a stranger who waits in a line that is served out of order: if its client hangs up
    /// now, it is because of that. Members have their turn all the same: what they said last may be a
    /// deletion whose answer they do not want, and a value that should be gone would be stale.
    pub(crate) fn waits_in_vain(&self, key: usize, now: Micros) -> bool {
        let waiting = self.connections.get(key);
        let waiting = waiting.filter(|connection| connection.is_late && connection.is_stranger());
        waiting.is_some_and(|connection| self.late.stands(connection.cache(), now))
    }

    /// A connection is gone; so it needs no turn.
    pub(crate) fn forget(&mut self, key: usize, connection: &Connection<L>) {
        if connection.is_late {
            self.late.forget(connection.cache(), &key);
        }
    }

    /// The next connection that waited for its cache's turn, while the round is not over.
    pub(crate) fn next_late(&mut self, now: Micros) -> Option<(CacheId, usize)> {
        if ROUND_COST < self.cost { None } else { self.late.pop(now) }
    }

    /// Whether some wait for their cache's turn.
    pub(crate) fn are_late(&self) -> bool {
        !self.late.is_empty()
    }

    /// What a connection's turn has cost. `late` is its cache if it had waited for it; `was_stranger`
    /// whether it had not authenticated before.
    #[inline]
    pub(crate) fn charge(
        &mut self,
        late: Option<CacheId>,
        was_stranger: bool,
        operations: u64,
        bytes: u64,
    ) {
        let more = if was_stranger { STRANGER_COST } else { 0 };
        let cost = OPERATION_COST * (1 + operations) + bytes + more;
        self.cost += cost;
        if let Some(cache) = late {
            self.late.charge(cache, cost);
        }
    }

    /// A connection waits because its cache was used too fast.
    pub(crate) fn hold(&mut self, key: usize, until: Micros, now: Micros) {
        let Some(connection) = self.connections.get_mut(key) else { return };
        let until = until.min(now + HOLD_MAX);
        let new = || Held { until, waiting: VecDeque::new() };
        let held = self.held.entry(connection.cache()).or_insert_with(new);
        held.until = until;
        if !std::mem::replace(&mut connection.is_held, true) {
            held.waiting.push_back((key, connection.serial()));
        }
        self.held_until = Some(self.held_until.map_or(until, |first| first.min(until)));
    }

    /// When [`Clients::next_due`] has something at the earliest.
    pub(crate) fn held_until(&self) -> Option<Micros> {
        self.held_until
    }

    /// Caches that need wait no longer.
    pub(crate) fn due_caches(&mut self, now: Micros) -> Vec<CacheId> {
        if self.held_until.is_none_or(|until| now < until) {
            return Vec::new();
        }
        self.held.retain(|_, held| !held.waiting.is_empty());
        let due = self.held.iter().filter(|(_, held)| held.until <= now);
        let due = due.map(|(cache, _)| *cache).collect();
        let later = self.held.values().map(|held| held.until).filter(|until| now < *until);
        self.held_until = later.min();
        due
    }

    /// The next connection of a cache that need wait no longer; it is held no more.
    pub(crate) fn next_due(&mut self, cache: CacheId, now: Micros) -> Option<usize> {
        let held = self.held.get_mut(&cache).filter(|held| held.until <= now)?;
        while let Some((key, serial)) = held.waiting.pop_front() {
            if let Some(connection) = self.connections.get_mut(key)
                && connection.serial() == serial
            {
                connection.is_held = false;
                return Some(key);
            }
        }
        None
    }

    /// Whoever asked, if it is still there.
    fn asker(&mut self, asker: &Asker) -> Option<&mut Connection<L>> {
        let connection = self.connections.get_mut(asker.connection)?;
        (connection.serial() == asker.serial).then_some(connection)
    }
}

impl<L: BackendLink> Sink for Clients<L> {
    fn answered(
        &mut self,
        asker: &Asker,
        was_held_to: bool,
        key: Option<Key<'_>>,
        result: &Result<Outcome<'_>, Failure>,
    ) {
        if let Some(connection) = self.asker(asker) {
            connection.answered(asker.number, was_held_to, key, result);
            self.queue(asker.connection);
        }
    }

    fn hold(&mut self, asker: &Asker) {
        if let Some(connection) = self.asker(asker) {
            connection.note_resent();
        }
    }

    fn may_repeat(&mut self, asker: &Asker) -> bool {
        self.asker(asker).is_some_and(Connection::may_repeat)
    }
}
