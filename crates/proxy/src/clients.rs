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
use crate::connection::{Connection, STRANGERS};
use crate::link::BackendLink;
use crate::links::{Asker, Micros, Sink};
use crate::round::{ACCEPTS_CROWDED, ACCEPTS_MAX, Done, Round, STRANGERS_WAITING_MAX};

/// What a cache may use in one turn: thirty small operations, or a part of one large value.
const QUANTUM: u64 = 16 * 1024;

/// A line of one cache that takes longer is not served in order any more: half of what impatient clients
/// wait.
const LINE_TIME_MAX: Micros = 250_000;

/// For so long after a line was served out of order there may still be those in the kernel's queues who
/// came meanwhile, and have given up.
const CROWDED: Micros = 1_000_000;

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
    pub(crate) round: Round,
}

/// What becomes of a connection whose client has hung up while there is more to do than can be done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum HungUp {
    /// It has its turn as ever.
    Serve,
    /// It has its turn at once, for what changes something. The cache whose line it stood in.
    InVain(CacheId),
    /// Nothing that it said was promised anything.
    Close,
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
            round: Round::default(),
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

    /// Whether this connection may have its turn at once. If not, it is made to wait for its cache's.
    /// Strangers always are: whoever is named beside them by the same look at the sockets goes first, and
    /// of them so many go in a round as may.
    #[inline]
    pub(crate) fn may_go(&mut self, key: usize, now: Micros) -> bool {
        let Some(connection) = self.connections.get_mut(key) else { return false };
        let cache = connection.cache();
        if self.round.is_easy() && !connection.is_stranger() && !self.late.has(cache) {
            return true;
        }
        if !std::mem::replace(&mut connection.is_queued, true) {
            connection.is_late = true;
            self.late.push(cache, key, now);
        }
        false
    }

    /// Whether there is, or was a moment ago, more to do than can be done.
    pub(crate) fn are_crowded(&self, now: Micros) -> bool {
        self.late.stood().is_some_and(|stood| now < stood + CROWDED)
    }

    /// How many may be let in in this round. None while more is to be done than can be, and strangers who
    /// were let in wait: then the next round begins at once.
    pub(crate) fn accepts_max(&self, now: Micros) -> usize {
        if !self.are_crowded(now) {
            ACCEPTS_MAX
        } else if self.late.waiting(STRANGERS) < STRANGERS_WAITING_MAX {
            ACCEPTS_CROWDED
        } else {
            0
        }
    }

    /// What becomes of a connection whose client says nothing more, and most likely is gone.
    ///
    /// While there is more to do than can be done, it is gone because of that. A stranger's login was not
    /// answered, so nothing was promised to him. What a member said last may be a deletion whose answer it
    /// does not want, and a value that should be gone would be stale: that is carried out. What it wanted to
    /// know is not looked up, because nobody waits for it.
    pub(crate) fn hung_up(&mut self, key: usize, now: Micros) -> HungUp {
        let Some(connection) = self.connections.get_mut(key) else { return HungUp::Serve };
        if connection.is_stranger() {
            return if self.are_crowded(now) { HungUp::Close } else { HungUp::Serve };
        }
        let cache = connection.cache();
        if !connection.is_late || !self.late.stands(cache, now) {
            return HungUp::Serve;
        }
        self.late.forget(cache, &key);
        connection.is_late = false;
        connection.is_queued = false;
        connection.nobody_listens();
        HungUp::InVain(cache)
    }

    /// A connection is gone; so it needs no turn.
    pub(crate) fn forget(&mut self, key: usize, connection: &Connection<L>) {
        if connection.is_late {
            self.late.forget(connection.cache(), &key);
        }
    }

    /// The next connection that waited for its cache's turn, while the round is not over.
    pub(crate) fn next_late(&mut self, now: Micros) -> Option<(CacheId, usize)> {
        if self.round.is_over() { None } else { self.late.pop(now) }
    }

    /// Whether some wait for their cache's turn.
    pub(crate) fn are_late(&self) -> bool {
        !self.late.is_empty()
    }

    #[inline]
    pub(crate) fn charge(&mut self, done: Done) {
        self.round.charge(&done);
        if let Some(cache) = done.late {
            self.late.charge(cache, done.cost());
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

#[cfg(test)]
mod tests;
