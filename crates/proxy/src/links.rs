//! The links of one event loop to the backends of other nodes.
//!
//! ```text
//!   sessions ── Outgoing ──▶ submit ─┬─▶ frame ─▶ output of a link ─▶ shell writes, once per turn
//!                                    └─▶ fair queue (when the link is full)
//!
//!   shell reads ─▶ received ─▶ which request? ─┬─ done ─────────▶ Sink::answered
//!                                              ├─ moved, not yet ▶ sent again to whom it names
//!                                              └─ nobody's ──────▶ poisoned: the link is closed
//!
//!   tick: deadlines, silent backends, hedges, keep-alive, whom to connect to
//! ```
//!
//! No socket, no clock, no chance: bytes and the time come in, bytes come out, and the lots that are
//! drawn come from a seed. What each reply is checked for: that it answers a request which is on its
//! way *on this connection*, and that it names the same cache. One that does not closes the
//! connection, because nothing that comes on it can be believed any more.
//!
//! Order. All requests of an event loop to one backend take one connection, and a client connection
//! stays with its loop; so what a client asks of a backend arrives in the order it was asked. Only a
//! repetition could overtake: before one, the session is asked ([`Sink::may_repeat`]), and while a
//! request looks for its owner the session sends nothing more. Requests of the same client and slot
//! that were on their way already wait behind the first of them.
//!
//! Who asks twice leaves one trace: a read that may have been carried out goes out again as one that is
//! counted nowhere, so what a client asks is counted once.
//!
//! Several reads of one client for one backend go in one frame ([`crate::outbox`]) and are answered
//! in order. One that is refused goes its own way from then on; a connection that is lost, a repetition
//! and a time-out are about all of them.
//!
//! Who answers nothing. A request is answered at its deadline at the latest. A backend that was
//! silent for [`LinkSettings::silence`] while something was asked of it is taken for silent: all
//! that waits for it fails, and what comes fails at once, until it is heard again. Its slots have
//! no other owner meanwhile: nobody re-hashes because of what one proxy sees.
//!
//! One connection that says nothing is not yet a silent backend: a lost packet is sent again after
//! 200 ms at the earliest where nobody has told the kernel otherwise. So before a backend is taken for
//! silent it is asked for a sign of life on its other connection. While it gives one, requests wait,
//! reads are hedged, and a connection that stays stuck for as long as a request may take is given up;
//! so is one on which bytes come, and no answer.
//!
//! A pause of ours is no silence of theirs. Where this process stood still, because others had the core, what
//! was answered meanwhile waits to be read. So silence is counted up to the look before, since when all that
//! had come by then has been heard.

mod budget;
#[cfg(any(test, feature = "simulation"))]
mod due;
mod fair;
mod latency;
mod peer;
mod request;
#[cfg(test)]
mod tests;

use std::collections::{HashMap, VecDeque};
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering::{Relaxed, Release};
use std::time::Duration;

use cluster::map::Epoch;
use cluster::member::MemberName;
use cluster::mistake::{Mistake, is_made};
use cluster::ownership::Token;
use cluster::slot::Slot;
use protocol::operation::Key;
use slab::Slab;
use tenancy::id::CacheId;
use wire::control::name::NodeName;
use wire::data::frame::{Decoded, Seal};
use wire::data::handshake::{Greeting, Hello, VERSION_MAX, VERSION_MIN};
use wire::data::many::{self, Answers, ReadAt, Reads};
use wire::data::operation::{Operation, key_of_own};
use wire::data::reply::{Answer, Busy, Outcome, Refusal, Reply};
use wire::data::request::{HOPS_MAX, RequestHeader};

use self::budget::Budget;
use self::peer::{Peer, Phase};
use self::request::{Copy, Request, Requests, Stage};
use crate::answers::Failure;
use crate::link_usage::LinkUsage;
use crate::outbox::Outgoing;
use crate::routing::Routing;
use crate::view::{ClusterView, Place, ViewMember};

pub(crate) use self::request::Asker;

/// Microseconds since some moment before the first event. Time comes in with each call.
pub(crate) type Micros = u64;

/// Connections to each backend: one for requests, one for repetitions and for when the first is
/// lost.
pub(crate) const LINKS_PER_PEER: usize = 2;

/// Requests on their way from one event loop, and their bytes. More are refused: their clients would
/// wait longer than they do.
const REQUESTS_MAX: usize = 64 * 1024;
const REQUEST_BYTES_MAX: usize = 128 * 1024 * 1024;

/// How often what waits is looked at. Hedges are due after two milliseconds or more.
const TICK: Micros = 1_000;

/// A backend whose slot is on its way to another owner is asked again after this time; a hand-off
/// pauses a slot for 50 ms at most.
const PARK: Micros = 2_000;

/// Slots whose owner is asked for at one time. A proxy that missed a change of everything must not
/// ask everyone for everything at once.
const WHO_AT_ONCE_MAX: usize = 64;

/// A get is asked again at the earliest after this time.
const HEDGE_MIN: Micros = 2_000;

/// A quiet connection is asked whether it is still there this often, before a firewall on the way
/// forgets it.
const KEEP_ALIVE: Micros = 15_000_000;

/// A connection is given up when it could not be made, or greeted, or heard, for this long.
const CONNECT_TIMEOUT: Micros = 1_000_000;
const DEAD: Micros = 5_000_000;

/// What a frame says where it is about no slot.
const NO_SLOT: Slot = Slot::new(0).expect("there is a first slot");

/// What a frame says where it is about no cache.
const NO_CACHE: CacheId = CacheId::new(0);

/// What a frame says where there is no map yet.
const NO_MAP: Epoch = Epoch::new(0);

/// How links behave; what a settings file may change.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LinkSettings {
    /// From the moment a client asks until it hears of a failure. Travels in every frame, so that a
    /// backend does nothing that nobody waits for.
    pub request_timeout: Duration,
    /// A backend that says nothing for so long, while it is asked something, is taken for silent.
    pub silence: Duration,
    /// Whether late gets are asked a second time.
    pub hedge: bool,
}

impl Default for LinkSettings {
    fn default() -> Self {
        LinkSettings {
            // Clients give up after a second or so.
            request_timeout: Duration::from_secs(1),
            // Four times the longest pause of a hand-off, and still an answer within 250 ms.
            silence: Duration::from_millis(200),
            hedge: true,
        }
    }
}

/// Hears what becomes of requests.
pub(crate) trait Sink {
    /// `key` is the request's; `was_held_to` whether [`Sink::hold`] or [`Sink::may_repeat`] was.
    fn answered(
        &mut self,
        asker: &Asker,
        was_held_to: bool,
        key: Option<Key<'_>>,
        result: &Result<Outcome<'_>, Failure>,
    );

    /// The request must find another owner. Its session shall send nothing more until it is
    /// answered.
    fn hold(&mut self, asker: &Asker);

    /// Whether the request may be asked twice: none that must not overtake, or be overtaken, is
    /// on its way. If so, the session holds as for [`Sink::hold`].
    fn may_repeat(&mut self, asker: &Asker) -> bool;
}

/// A connection of ours, as the shell knows it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct LinkId {
    peer: usize,
    link: usize,
    serial: u32,
}

impl LinkId {
    /// Of no peer: what comes on it is taken and forgotten.
    #[cfg(test)]
    pub(crate) const NOBODYS: LinkId = LinkId { peer: usize::MAX, link: 0, serial: 0 };

    fn parts(self) -> (usize, usize, u32) {
        (self.peer, self.link, self.serial)
    }
}

/// A connection that the shell shall make.
pub(crate) struct Dial {
    pub(crate) id: LinkId,
    pub(crate) address: SocketAddr,
    /// Whose backend is to be there.
    pub(crate) node: NodeName,
    /// How many were in vain since it stood last.
    pub(crate) attempts: u32,
}

/// A request that must be executed in this process.
pub(crate) struct Errand {
    pub(crate) backend: usize,
    pub(crate) cache: CacheId,
    pub(crate) slot: Option<Slot>,
    pub(crate) token: Option<Token>,
    /// As it stands in a frame.
    pub(crate) operation: Vec<u8>,
}

/// Why a connection must be closed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum LinkFault {
    #[error("it sent a reply that nobody waits for")]
    Stray,
    #[error("it sent bytes that are no reply")]
    Frame(#[from] wire::data::frame::WrongFrame),
    #[error("it greeted in a way that cannot be understood")]
    Handshake(#[from] wire::data::handshake::HandshakeError),
    #[error("it will not serve us")]
    Refused(#[source] wire::data::handshake::Refused),
    #[error("it speaks another version")]
    Version,
}

pub(crate) struct Links {
    settings: LinkSettings,
    seal: Seal,
    usage: Arc<LinkUsage>,
    routing: Option<Routing>,
    routing_version: u64,
    /// By place in the view's members.
    targets: Vec<Target>,
    peers: Slab<Peer>,
    requests: Requests,
    /// Requests that look for their owner, by client and slot; the first is on its way, the others
    /// wait behind it.
    searching: HashMap<(u64, Slot), VecDeque<u64>>,
    /// Slots whose owner is asked for, and how many answers are still to come.
    asking_who: HashMap<Slot, usize>,
    /// Requests to be executed in this process.
    here: VecDeque<u64>,
    /// Links that have something to write that the shell was not told of.
    dirty: Vec<LinkId>,
    /// Connections that are given up, for the shell to close.
    gone: Vec<LinkId>,
    /// Connections that shall be made anew, one after another.
    refreshing: VecDeque<LinkId>,
    budget: Budget,
    chance: Chance,
    /// No two connections have the same.
    next_serial: u32,
    next_tick: Micros,
    /// Until then all that came was heard: when [`Links::tick`] was called the last time but one.
    heard_until: Micros,
    /// When it was called last.
    looked_at: Micros,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Target {
    Here { backend: usize },
    There { peer: usize },
    Nowhere,
}

impl Links {
    pub(crate) fn new(
        settings: LinkSettings,
        seal: Seal,
        usage: Arc<LinkUsage>,
        seed: u64,
    ) -> Self {
        Links {
            settings,
            seal,
            usage,
            routing: None,
            routing_version: 0,
            targets: Vec::new(),
            peers: Slab::new(),
            requests: Requests::default(),
            searching: HashMap::new(),
            asking_who: HashMap::new(),
            here: VecDeque::new(),
            dirty: Vec::new(),
            gone: Vec::new(),
            refreshing: VecDeque::new(),
            budget: Budget::default(),
            chance: Chance(seed),
            next_serial: 0,
            next_tick: 0,
            heard_until: 0,
            looked_at: 0,
        }
    }

    pub(crate) fn routing(&self) -> Option<&Routing> {
        self.routing.as_ref()
    }

    /// Takes up another view: connects to whom it names anew, lets go of whom it does not name.
    pub(crate) fn follow(&mut self, view: Arc<ClusterView>, now: Micros, sink: &mut impl Sink) {
        self.routing_version += 1 << 32;
        let mut kept = vec![false; self.peers.capacity()];
        let mut targets = Vec::with_capacity(view.members().len());
        for member in view.members() {
            targets.push(match member.place {
                Place::Here { backend } => Target::Here { backend },
                Place::There { address } => {
                    let peer = self.peer_for(member, address);
                    kept.resize(kept.len().max(peer + 1), false);
                    kept[peer] = true;
                    Target::There { peer }
                }
                Place::Refused { .. } => Target::Nowhere,
            });
        }
        self.targets = targets;
        self.asking_who.clear();
        self.routing = Some(Routing::new(view, self.routing_version));
        let leaving: Vec<usize> =
            self.peers.iter().map(|(peer, _)| peer).filter(|&peer| !kept[peer]).collect();
        for peer in leaving {
            for link in 0..LINKS_PER_PEER {
                self.give_up(self.link_id(peer, link), now, sink);
            }
            self.empty_queue(peer, sink);
            set_silent(&mut self.peers[peer], false);
            self.peers.remove(peer);
        }
    }

    fn peer_for(&mut self, member: &ViewMember, address: SocketAddr) -> usize {
        let known = self.peers.iter().find(|(_, peer)| {
            peer.name == member.name
                && peer.incarnation == member.incarnation
                && peer.address == address
        });
        if let Some((peer, _)) = known {
            return peer;
        }
        let usage = self.usage.member(&member.name, member.incarnation);
        let serial = self.next_serial + 1;
        self.next_serial += LINKS_PER_PEER as u32;
        self.peers.insert(Peer::new(member, address, serial, usage))
    }

    /// Sends a session's request on its way.
    pub(crate) fn submit(
        &mut self,
        connection: usize,
        serial: u64,
        outgoing: Outgoing,
        now: Micros,
        sink: &mut impl Sink,
    ) {
        let asker = Asker { connection, serial, number: outgoing.number };
        let bytes = self.requests.bytes() + outgoing.operation.len();
        let is_full = REQUESTS_MAX <= self.requests.len() || REQUEST_BYTES_MAX < bytes;
        let is_many = !outgoing.numbers.is_empty();
        let id = self.requests.insert(Request {
            id: 0,
            asker: Some(asker),
            who: None,
            cache: outgoing.cache,
            slot: outgoing.far.slot.filter(|_| !is_many),
            is_read: outgoing.is_read,
            numbers: outgoing.numbers,
            reads_done: 0,
            operation: outgoing.operation,
            may_be_counted: false,
            deadline: now + self.settings.request_timeout.as_micros() as Micros,
            hops_left: HOPS_MAX,
            token: None,
            is_held_to: false,
            stage: Stage::Behind,
            copies: [None; 2],
        });
        if is_full {
            return self.finish(id, &Err(Failure::Busy), sink);
        }
        self.budget.earn(self.requests.get(id).map_or(1, |request| request.weight()));
        match outgoing.elsewhere {
            None => self.dispatch(id, outgoing.far.member, now, sink),
            Some(elsewhere) => {
                self.refused(id, &elsewhere.refusal(), now, sink);
            }
        }
    }

    /// Where a request goes next, as the shell executes it in this process. `None` when there is
    /// none.
    pub(crate) fn next_errand(&mut self) -> Option<u64> {
        self.here.pop_front()
    }

    /// Reads an errand; `None` when its request is over.
    pub(crate) fn errand(&mut self, id: u64) -> Option<Errand> {
        let request = self.requests.get(id)?;
        let Stage::Here { backend } = request.stage else { return None };
        Some(Errand {
            backend,
            cache: request.cache,
            slot: request.slot,
            token: request.token,
            // Errands are rare, so a copy does no harm.
            operation: request.to_ask().into_owned(),
        })
    }

    /// What became of an errand.
    pub(crate) fn errand_done(
        &mut self,
        id: u64,
        result: Result<Outcome<'_>, Refusal<'_>>,
        now: Micros,
        sink: &mut impl Sink,
    ) {
        match result {
            Ok(outcome) => self.finish(id, &Ok(outcome), sink),
            Err(refusal) => self.refused(id, &refusal, now, sink),
        }
    }

    /// Sends a request to a member of the view, or executes it here.
    fn dispatch(&mut self, id: u64, member: usize, now: Micros, sink: &mut impl Sink) {
        match self.targets.get(member) {
            Some(&Target::There { peer }) => self.send(id, peer, now, sink),
            Some(&Target::Here { backend }) => {
                if self.requests.get(id).is_some_and(|request| request.is_many()) {
                    self.take_apart(id, sink, |links, read, sink| {
                        links.dispatch(read, member, now, sink);
                    });
                } else if let Some(request) = self.requests.get(id) {
                    request.stage = Stage::Here { backend };
                    self.here.push_back(id);
                }
            }
            Some(Target::Nowhere) => self.finish(id, &Err(Failure::Unreachable), sink),
            None => self.finish(id, &Err(Failure::NoOwner), sink),
        }
    }

    fn send(&mut self, id: u64, peer: usize, now: Micros, sink: &mut impl Sink) {
        let Some(request) = self.requests.get(id) else { return };
        let to = &mut self.peers[peer];
        let Some(link) = to.usable() else {
            return self.finish_unreachable(id, peer, sink);
        };
        if request.is_many() && !to.takes_many {
            return self
                .take_apart(id, sink, |links, read, sink| links.send(read, peer, now, sink));
        }
        if to.queue.is_empty() && to.takes_more(link) {
            return self.write(id, peer, link, now);
        }
        request.stage = Stage::Queued { peer };
        if to.queue.push(request.cache, id, request.operation.len()) {
            to.usage.queued.fetch_add(1, Relaxed);
        } else {
            self.finish(id, &Err(Failure::Busy), sink);
        }
    }

    /// Appends the request's frame to a link's output.
    fn write(&mut self, id: u64, peer: usize, link: usize, now: Micros) {
        let Some(request) = self.requests.get(id) else { return };
        let to = &mut self.peers[peer];
        let on = &mut to.links[link];
        let before = on.out.len();
        let left_ms = request.deadline.saturating_sub(now).div_ceil(1_000);
        let header = RequestHeader {
            id,
            cache: request.cache,
            epoch: self.routing.as_ref().map_or(NO_MAP, |routing| routing.view().map().epoch()),
            deadline_ms: u32::try_from(left_ms).unwrap_or(u32::MAX),
            slot: request.slot.unwrap_or(NO_SLOT),
            hops_left: request.hops_left,
            token: request.token,
        };
        header.encode(&mut on.out, &request.to_ask(), self.seal);
        on.queued_total += (on.out.len() - before) as u64;
        if on.in_flight == 0 {
            // Silence counts from the moment something was asked.
            on.heard = now;
            on.moved = now;
        }
        let weight = request.weight();
        on.in_flight += weight;
        request.add_copy(Copy {
            peer,
            link,
            serial: on.serial,
            end: on.queued_total,
            at: now,
            reads_answered: 0,
            is_counted: !request.may_be_counted,
        });
        request.may_be_counted = true;
        request.stage = Stage::Sent;
        to.usage.requests_total.fetch_add(weight as u64, Relaxed);
        to.usage.in_flight.fetch_add(weight, Relaxed);
        self.mark_dirty(peer, link);
    }

    /// Writes what waits for its turn, as far as there is room.
    fn pump(&mut self, peer: usize, now: Micros, sink: &mut impl Sink) {
        loop {
            let to = &mut self.peers[peer];
            if to.queue.is_empty() {
                return;
            }
            let Some(link) = to.usable() else { return self.empty_queue(peer, sink) };
            if !to.takes_more(link) {
                return;
            }
            let Some(id) = to.queue.pop() else { return };
            to.usage.queued.fetch_sub(1, Relaxed);
            let waits = |request: &mut Request| request.stage == Stage::Queued { peer };
            if self.requests.get(id).is_some_and(waits) {
                self.write(id, peer, link, now);
            }
        }
    }

    /// Everything that waits for its turn at this peer fails.
    fn empty_queue(&mut self, peer: usize, sink: &mut impl Sink) {
        while let Some(id) = self.peers[peer].queue.pop() {
            self.peers[peer].usage.queued.fetch_sub(1, Relaxed);
            let waits = |request: &mut Request| request.stage == Stage::Queued { peer };
            if self.requests.get(id).is_some_and(waits) {
                self.finish_unreachable(id, peer, sink);
            }
        }
    }

    /// Bytes came on a connection. Returns how many of them are done with; the rest must come again
    /// with more behind it.
    ///
    /// # Errors
    /// The connection must be closed, and [`Links::lost`] be called.
    pub(crate) fn received(
        &mut self,
        id: LinkId,
        bytes: &[u8],
        now: Micros,
        sink: &mut impl Sink,
    ) -> Result<usize, LinkFault> {
        let mut consumed = 0;
        if !self.is_current(id) {
            return Ok(bytes.len());
        }
        self.heard(id, now);
        if self.peers[id.peer].links[id.link].phase != Phase::Up {
            let Some((greeting, length)) = Greeting::decode(bytes)? else { return Ok(0) };
            consumed += length;
            self.greeted(id, &greeting)?;
        }
        loop {
            match Reply::decode(&bytes[consumed..], self.seal)? {
                Decoded::NeedMore { .. } => break,
                Decoded::Complete { frame, consumed: length } => {
                    consumed += length;
                    self.peers[id.peer].links[id.link].moved = now;
                    self.replied(id, &frame, now, sink)?;
                }
            }
        }
        self.pump(id.peer, now, sink);
        Ok(consumed)
    }

    fn heard(&mut self, id: LinkId, now: Micros) {
        let peer = &mut self.peers[id.peer];
        peer.heard = now;
        peer.links[id.link].heard = now;
    }

    fn greeted(&mut self, id: LinkId, greeting: &Greeting) -> Result<(), LinkFault> {
        let welcome = match greeting {
            Greeting::Welcome(welcome) => welcome,
            Greeting::Refused(refused) => return Err(LinkFault::Refused(refused.clone())),
        };
        if !(VERSION_MIN..=VERSION_MAX).contains(&welcome.version) {
            return Err(LinkFault::Version);
        }
        let peer = &mut self.peers[id.peer];
        // Who does not say it may mean any epoch.
        let without_us = welcome.without_caller.unwrap_or(welcome.epoch);
        peer.usage.without_us.fetch_max(without_us.get(), Relaxed);
        if !peer.is_up() {
            peer.usage.loops_connected.fetch_add(1, Release);
        }
        peer.usage.connects_total.fetch_add(1, Relaxed);
        peer.links[id.link].phase = Phase::Up;
        peer.takes_many = many::VERSION <= welcome.version;
        set_silent(peer, false);
        Ok(())
    }

    fn replied(
        &mut self,
        on: LinkId,
        reply: &Reply<'_>,
        now: Micros,
        sink: &mut impl Sink,
    ) -> Result<(), LinkFault> {
        let in_order = is_made(Mistake::TrustsTheOrderOfReplies);
        let first = if in_order { self.requests.first_on(on) } else { None };
        let id = first.unwrap_or(reply.header.id);
        let request = self.requests.get(id).ok_or(LinkFault::Stray)?;
        if request.cache != reply.header.cache && !in_order {
            return Err(LinkFault::Stray);
        }
        if let Answer::Many(answers) = &reply.answer {
            return self.replied_many(on, id, answers, now, sink);
        }
        let is_over = request.stage == Stage::Over;
        let is_many = request.is_many();
        let (copy, others) = self.copy_answered(on, id, now).ok_or(LinkFault::Stray)?;
        if is_over {
            return Ok(());
        }
        if matches!(reply.answer, Answer::Refused(_))
            && let Some(request) = self.requests.get(id)
        {
            request.note_not_done(&copy);
        }
        match &reply.answer {
            Answer::Done(outcome) => {
                if !self.fits(id, outcome) {
                    return Err(LinkFault::Stray);
                }
                self.finish(id, &Ok(*outcome), sink);
            }
            // The other copy may still be answered.
            Answer::Refused(_) | Answer::Failed if 0 < others => (),
            // Not one by one: whoever refuses all of them has not looked at any.
            Answer::Refused(refusal) if is_many => {
                self.take_apart(id, sink, |links, read, sink| {
                    links.refused(read, refusal, now, sink);
                });
            }
            Answer::Refused(refusal) => {
                if matches!(refusal, Refusal::Moved { .. }) {
                    self.peers[on.peer].usage.moved_total.fetch_add(1, Relaxed);
                }
                self.refused(id, refusal, now, sink);
            }
            Answer::Failed | Answer::Many(_) => self.finish_unreachable(id, on.peer, sink),
        }
        Ok(())
    }

    /// A frame that was written to this connection is answered. Returns it, and how many other copies
    /// of its request are not; `None` when there was no such frame.
    fn copy_answered(&mut self, on: LinkId, id: u64, now: Micros) -> Option<(Copy, usize)> {
        let request = self.requests.get(id)?;
        let copy = request.take_copy(on)?;
        let (others, weight) = (request.copies(), request.weight());
        let is_over = request.stage == Stage::Over;
        let peer = &mut self.peers[on.peer];
        peer.links[on.link].in_flight -= weight;
        peer.usage.in_flight.fetch_sub(weight, Relaxed);
        let micros = now.saturating_sub(copy.at);
        peer.latency.note(micros);
        peer.usage.note_latency(micros);
        set_silent(peer, false);
        if is_over && others == 0 {
            self.requests.remove(id);
        }
        Some((copy, others))
    }

    /// Answers came for the next of several reads.
    fn replied_many(
        &mut self,
        on: LinkId,
        id: u64,
        answers: &Answers<'_>,
        now: Micros,
        sink: &mut impl Sink,
    ) -> Result<(), LinkFault> {
        let request = self.requests.get(id).ok_or(LinkFault::Stray)?;
        let (weight, is_over) = (request.weight(), request.stage == Stage::Over);
        let asker = request.asker.filter(|_| request.is_many()).ok_or(LinkFault::Stray)?;
        let copy = *request.copy_on(on).ok_or(LinkFault::Stray)?;
        let first = copy.reads_answered;
        // Taken out for the while, so that requests can be made of what is refused.
        let operation = std::mem::take(&mut request.operation);
        let numbers = std::mem::take(&mut request.numbers);
        let mut answered = first;
        let mut heard = Ok(());
        let mut reads =
            if is_over { None } else { Some(Reads::of_own(&operation).iter().skip(first)) };
        for answer in answers.iter() {
            let answer = match answer {
                Ok(answer) if answered < weight => answer,
                Ok(_) => {
                    heard = Err(LinkFault::Stray);
                    break;
                }
                Err(error) => {
                    heard = Err(LinkFault::Frame(error.into()));
                    break;
                }
            };
            let read = reads.as_mut().and_then(Iterator::next);
            let place = answered;
            answered += 1;
            let (Some(read), Some(request)) = (read, self.requests.get(id)) else { continue };
            if place < request.reads_done {
                // The other copy was answered before.
                continue;
            }
            request.reads_done = answered;
            let was_held_to = request.is_held_to && answered == weight;
            let asker = Asker { number: numbers[place], ..asker };
            match answer {
                Answer::Done(outcome @ Outcome::Get(_)) => {
                    let key = key_of_own(read.operation);
                    sink.answered(&asker, was_held_to, key, &Ok(outcome));
                }
                Answer::Refused(refusal) => {
                    if matches!(refusal, Refusal::Moved { .. }) {
                        self.peers[on.peer].usage.moved_total.fetch_add(1, Relaxed);
                    }
                    let alone = self.alone(id, asker, read, was_held_to);
                    if let Some(alone) = self.requests.get(alone) {
                        alone.note_not_done(&copy);
                    }
                    self.refused(alone, &refusal, now, sink);
                }
                Answer::Failed => {
                    self.peers[on.peer].usage.failures_total.fetch_add(1, Relaxed);
                    let key = key_of_own(read.operation);
                    sink.answered(&asker, was_held_to, key, &Err(Failure::Unreachable));
                }
                Answer::Done(_) | Answer::Many(_) => {
                    request.reads_done = place;
                    heard = Err(LinkFault::Stray);
                    break;
                }
            }
        }
        drop(reads);
        let request = self.requests.get(id).expect("its copy is not answered yet");
        (request.operation, request.numbers) = (operation, numbers);
        if let Some(copy) = request.copy_on(on) {
            copy.reads_answered = answered;
        }
        heard?;
        if request.reads_done == weight {
            self.over(id);
        }
        if answered == weight {
            self.copy_answered(on, id, now);
        }
        Ok(())
    }

    /// Nothing more is to be told of a request; it stays as long as replies may come for it.
    fn over(&mut self, id: u64) {
        self.requests.forget_operation(id);
        let Some(request) = self.requests.get(id) else { return };
        request.stage = Stage::Over;
        if request.copies() == 0 {
            self.requests.remove(id);
        }
    }

    /// Makes one of several reads a request of its own.
    fn alone(&mut self, id: u64, asker: Asker, read: ReadAt<'_>, is_held_to: bool) -> u64 {
        let together = self.requests.get(id).expect("asked by who has just looked at it");
        let alone = Request {
            id: 0,
            asker: Some(asker),
            who: None,
            cache: together.cache,
            slot: Some(read.slot),
            is_read: true,
            numbers: Vec::new(),
            reads_done: 0,
            operation: read.operation.to_vec(),
            may_be_counted: together.may_be_counted,
            deadline: together.deadline,
            hops_left: together.hops_left,
            token: None,
            is_held_to,
            stage: Stage::Behind,
            copies: [None; 2],
        };
        self.requests.insert(alone)
    }

    /// Lets each of several reads that is not answered go its own way.
    fn take_apart<S: Sink>(
        &mut self,
        id: u64,
        sink: &mut S,
        mut send: impl FnMut(&mut Self, u64, &mut S),
    ) {
        let operation = self.requests.forget_operation(id);
        let Some(request) = self.requests.get(id) else { return };
        let (Some(asker), numbers) = (request.asker, request.numbers.clone()) else { return };
        let (done, is_held_to) = (request.reads_done, request.is_held_to);
        let reads = Reads::of_own(&operation).iter().zip(&numbers).enumerate().skip(done);
        let mut alone = Vec::with_capacity(numbers.len());
        for (place, (read, &number)) in reads {
            let is_last = place + 1 == numbers.len();
            alone.push(self.alone(id, Asker { number, ..asker }, read, is_held_to && is_last));
        }
        self.over(id);
        for read in alone {
            send(self, read, sink);
        }
    }

    /// Whether the outcome can be that of the request.
    fn fits(&mut self, id: u64, outcome: &Outcome<'_>) -> bool {
        let Some(request) = self.requests.get(id) else { return false };
        let Ok(operation) = Operation::decode(&request.operation) else { return false };
        match operation {
            Operation::Get(_) | Operation::Peek(_) => matches!(outcome, Outcome::Get(_)),
            Operation::Store(_) => matches!(outcome, Outcome::Store(_)),
            Operation::Delete(_) => matches!(outcome, Outcome::Delete(_)),
            Operation::Arithmetic(_) => matches!(outcome, Outcome::Arithmetic(_)),
            Operation::Touch(_) => matches!(outcome, Outcome::Touch(_)),
            Operation::Figures => matches!(outcome, Outcome::Figures(_)),
            Operation::Flush { .. }
            | Operation::ResetFigures
            | Operation::Who
            | Operation::Ping => matches!(outcome, Outcome::Done),
            // Their answers come as many.
            Operation::Many(_) => false,
        }
    }

    /// A backend did not execute the request, and said why.
    fn refused(&mut self, id: u64, refusal: &Refusal<'_>, now: Micros, sink: &mut impl Sink) {
        let Some(request) = self.requests.get(id) else { return };
        // Whoever it was for has had it, and it is of no use to another.
        request.token = None;
        match refusal {
            Refusal::Moved { to, token } => {
                request.token = Some(*token);
                let slot = request.slot;
                if let (Some(slot), Some(member)) = (slot, self.member_named(to)) {
                    let routing = self.routing.as_mut().expect("there is a member, so a view");
                    routing.note_moved(slot, member);
                }
                let to = self.member_named(to);
                self.seek(id, to, now, sink);
            }
            Refusal::NotYet { ask } => {
                let ask = ask.and_then(|name| self.member_named(name));
                self.seek(id, ask, now, sink);
            }
            Refusal::Unknown { .. } => {
                let request = self.requests.get(id);
                let slot = request.filter(|request| request.asker.is_some());
                if let Some(slot) = slot.and_then(|request| request.slot) {
                    self.ask_who(slot, now, sink);
                }
                self.seek(id, None, now, sink);
            }
            Refusal::Busy(Busy::Parked | Busy::Draining) => self.seek(id, None, now, sink),
            Refusal::Busy(Busy::Cache | Busy::Link) => {
                self.finish(id, &Err(Failure::Busy), sink);
            }
            Refusal::Expired => self.finish(id, &Err(Failure::TimedOut), sink),
            Refusal::NoSuchCache => self.finish(id, &Err(Failure::NoCache), sink),
        }
    }

    fn member_named(&self, name: &str) -> Option<usize> {
        let members = self.routing.as_ref()?.view().members();
        members.iter().position(|member| member.name.as_str() == name)
    }

    /// Sends a request again: to this member, or, where nobody is known, after a moment to whom the
    /// view then names. One at a time for each client and slot.
    fn seek(&mut self, id: u64, member: Option<usize>, now: Micros, sink: &mut impl Sink) {
        let Some(request) = self.requests.get(id) else { return };
        let (Some(slot), Some(asker)) = (request.slot, request.asker) else {
            // What is meant for a member as a whole is not another's.
            return self.finish(id, &Err(Failure::NoOwner), sink);
        };
        if !request.is_held_to {
            request.is_held_to = true;
            sink.hold(&asker);
        }
        let searching = self.searching.entry((asker.serial, slot)).or_default();
        if searching.front() != Some(&id) {
            searching.push_back(id);
            if 1 < searching.len() {
                request.stage = Stage::Behind;
                return;
            }
        }
        match member {
            Some(_) if request.hops_left == 0 => self.finish(id, &Err(Failure::NoOwner), sink),
            Some(member) => {
                request.hops_left -= 1;
                self.dispatch(id, member, now, sink);
            }
            None => request.stage = Stage::Parked { until: now + PARK },
        }
    }

    /// Answers a request, and lets go on what waited behind it.
    fn finish(&mut self, id: u64, result: &Result<Outcome<'_>, Failure>, sink: &mut impl Sink) {
        let operation = self.requests.forget_operation(id);
        let Some(request) = self.requests.get(id) else { return };
        if request.stage == Stage::Over {
            return;
        }
        request.stage = Stage::Over;
        let (asker, slot, was_held_to) = (request.asker, request.slot, request.is_held_to);
        let who = request.who;
        if let (true, Some(asker)) = (request.is_many(), asker) {
            let (numbers, done) = (request.numbers.clone(), request.reads_done);
            let reads = Reads::of_own(&operation).iter().zip(&numbers).enumerate().skip(done);
            for (place, (read, &number)) in reads {
                let was_held_to = was_held_to && place + 1 == numbers.len();
                let key = key_of_own(read.operation);
                sink.answered(&Asker { number, ..asker }, was_held_to, key, result);
            }
            return self.over(id);
        }
        if request.copies() == 0 {
            self.requests.remove(id);
        }
        if let (Some(slot), Some(member)) = (slot, who) {
            self.heard_who(slot, member, result.is_ok());
        }
        let Some(asker) = asker else { return };
        let key = key_of_own(&operation);
        sink.answered(&asker, was_held_to, key, result);
        if let (true, Some(slot)) = (was_held_to, slot) {
            self.release(asker.serial, slot, id);
        }
    }

    /// The next request of this client and slot may look for its owner.
    fn release(&mut self, serial: u64, slot: Slot, id: u64) {
        let Some(searching) = self.searching.get_mut(&(serial, slot)) else { return };
        let was_first = searching.front() == Some(&id);
        searching.retain(|&other| other != id);
        match searching.front() {
            None => drop(self.searching.remove(&(serial, slot))),
            Some(&next) if was_first => {
                // Due at once; the next look at what is parked sends it.
                if let Some(request) = self.requests.get(next) {
                    request.stage = Stage::Parked { until: 0 };
                }
                self.next_tick = 0;
            }
            Some(_) => (),
        }
    }

    fn finish_unreachable(&mut self, id: u64, peer: usize, sink: &mut impl Sink) {
        self.peers[peer].usage.failures_total.fetch_add(1, Relaxed);
        self.finish(id, &Err(Failure::Unreachable), sink);
    }

    /// What a connection shall write, once per turn of the loop.
    pub(crate) fn next_dirty(&mut self) -> Option<LinkId> {
        while let Some(id) = self.dirty.pop() {
            if self.is_current(id) {
                self.peers[id.peer].links[id.link].is_dirty = false;
                return Some(id);
            }
        }
        None
    }

    /// A connection that is to be closed.
    pub(crate) fn next_gone(&mut self) -> Option<LinkId> {
        self.gone.pop()
    }

    /// What the socket of this connection has not taken yet.
    pub(crate) fn output(&self, id: LinkId) -> &[u8] {
        if !self.is_current(id) {
            return &[];
        }
        self.peers[id.peer].links[id.link].unwritten()
    }

    pub(crate) fn wrote(&mut self, id: LinkId, bytes: usize, now: Micros, sink: &mut impl Sink) {
        if self.is_current(id) {
            let link = &mut self.peers[id.peer].links[id.link];
            link.wrote(bytes);
            if !link.unwritten().is_empty() {
                // It was full, and took something: whoever reads is not silent.
                link.moved = now;
                self.heard(id, now);
            }
            self.pump(id.peer, now, sink);
        }
    }

    /// A connection that the shell was told to make stands; the greeting is on its way out.
    pub(crate) fn connected(&mut self, id: LinkId) {
        let Some(routing) = &self.routing else { return };
        if !self.is_current(id) {
            return;
        }
        let view = routing.view();
        let peer = &mut self.peers[id.peer];
        let hello = Hello {
            version_min: VERSION_MIN,
            version_max: VERSION_MAX,
            cluster: view.identity().cluster,
            slot_fingerprint: view.slot_fingerprint(),
            from: view.identity().node.clone(),
            to: peer.name.clone(),
            to_incarnation: peer.incarnation,
            epoch: view.map().epoch(),
            digest: view.digest(),
            from_incarnation: Some(view.identity().incarnation),
        };
        let link = &mut peer.links[id.link];
        hello.encode(&mut link.out);
        link.queued_total = link.out.len() as u64;
        self.mark_dirty(id.peer, id.link);
    }

    /// A connection was lost, or could not be made.
    pub(crate) fn lost(&mut self, id: LinkId, now: Micros, sink: &mut impl Sink) {
        if !self.is_current(id) {
            return;
        }
        let chance = self.chance.draw();
        self.next_serial += 1;
        let peer = &mut self.peers[id.peer];
        let was_up = peer.is_up();
        let link = &mut peer.links[id.link];
        let written = link.written_total();
        peer.usage.in_flight.fetch_sub(link.in_flight, Relaxed);
        link.lost(self.next_serial, now, chance);
        if was_up && !peer.is_up() {
            peer.usage.loops_connected.fetch_sub(1, Relaxed);
        }
        let on_it =
            |copy: &Copy| (copy.peer, copy.link, copy.serial) == (id.peer, id.link, id.serial);
        let mut orphans: Vec<(u64, u64)> = self
            .requests
            .iter()
            .flat_map(|request| request.copies.iter().flatten().map(|copy| (request.id, copy)))
            .filter(|(_, copy)| on_it(copy))
            .map(|(request, copy)| (copy.end, request))
            .collect();
        // In the order in which they were written.
        orphans.sort_unstable();
        for (end, orphan) in orphans {
            self.orphaned(orphan, end <= written, id, now, sink);
        }
        if !self.peers[id.peer].is_up() {
            self.empty_queue(id.peer, sink);
        }
    }

    /// The connection on which a request was sent is lost.
    fn orphaned(
        &mut self,
        id: u64,
        may_have_run: bool,
        on: LinkId,
        now: Micros,
        sink: &mut impl Sink,
    ) {
        let Some(request) = self.requests.get(id) else { return };
        if let Some(copy) = request.take_copy(on)
            && !may_have_run
        {
            request.note_not_done(&copy);
        }
        if 0 < request.copies() {
            return;
        }
        if request.stage == Stage::Over {
            return self.requests.remove(id);
        }
        let (is_read, asker, is_held_to) = (request.is_read, request.asker, request.is_held_to);
        let weight = request.weight();
        let again = self.peers[on.peer].usable().filter(|_| {
            !may_have_run
                || is_made(Mistake::RepeatsWrites)
                || is_read
                    && self.budget.take(weight)
                    && asker.is_some_and(|asker| is_held_to || sink.may_repeat(&asker))
        });
        let Some(link) = again else { return self.finish_unreachable(id, on.peer, sink) };
        if may_have_run && let Some(request) = self.requests.get(id) {
            request.is_held_to = true;
        }
        self.peers[on.peer].usage.retries_total.fetch_add(1, Relaxed);
        self.write(id, on.peer, link, now);
    }

    /// Does what is due. Cheap before [`Links::next_wake`]. Called in each turn of the loop, when all that came
    /// since the turn before was given to [`Links::received`].
    pub(crate) fn tick(&mut self, now: Micros, sink: &mut impl Sink) {
        self.heard_until = std::mem::replace(&mut self.looked_at, now);
        if now < self.next_tick {
            return;
        }
        self.next_tick = now + TICK;
        let silence = self.settings.silence.as_micros() as Micros;
        let mut due = Vec::new();
        for request in self.requests.iter() {
            match request.stage {
                Stage::Over => (),
                _ if request.deadline <= now => due.push((request.id, Due::Late)),
                Stage::Parked { until } if until <= now => due.push((request.id, Due::Again)),
                Stage::Sent => {
                    if let Some(what) = self.due_of_sent(request, silence, now) {
                        due.push((request.id, what));
                    }
                }
                Stage::Queued { .. }
                | Stage::Here { .. }
                | Stage::Parked { .. }
                | Stage::Behind => (),
            }
        }
        for (id, what) in due {
            match what {
                Due::Late => self.late(id, sink),
                Due::Again => self.again(id, now, sink),
                Due::Silent { peer } => self.fall_silent(peer, sink),
                Due::Hedge { peer, link } => self.hedge(id, peer, link, now, sink),
            }
        }
        self.look_after_links(now, sink);
    }

    fn due_of_sent(&self, request: &Request, silence: Micros, now: Micros) -> Option<Due> {
        let copy = request.copies.iter().flatten().next()?;
        let peer = &self.peers[copy.peer];
        let quiet_since = copy.at.max(peer.heard);
        if !peer.is_silent && quiet_since + silence <= self.heard_until {
            return Some(Due::Silent { peer: copy.peer });
        }
        let hedge_after = (peer.latency.micros() * 3 / 2).max(HEDGE_MIN);
        let is_hedged = 1 < request.copies();
        if !self.settings.hedge
            || is_hedged
            || !request.is_read
            || request.is_held_to
            || request.asker.is_none()
            || now < copy.at + hedge_after
        {
            return None;
        }
        let link = peer.other(copy.link)?;
        Some(Due::Hedge { peer: copy.peer, link })
    }

    fn late(&mut self, id: u64, sink: &mut impl Sink) {
        let Some(request) = self.requests.get(id) else { return };
        let peer = request.copies.iter().flatten().next().map(|copy| copy.peer);
        let failure = match request.stage {
            Stage::Parked { .. } | Stage::Behind | Stage::Here { .. } => Failure::NoOwner,
            Stage::Queued { .. } => Failure::Busy,
            Stage::Sent | Stage::Over => Failure::TimedOut,
        };
        if let Some(peer) = peer {
            self.peers[peer].usage.failures_total.fetch_add(1, Relaxed);
        }
        self.finish(id, &Err(failure), sink);
    }

    /// A request that was parked is sent to whom the routing names now.
    fn again(&mut self, id: u64, now: Micros, sink: &mut impl Sink) {
        let Some(slot) = self.requests.get(id).and_then(|request| request.slot) else { return };
        let Some(routing) = &self.routing else { return };
        let member = routing.member_of(slot);
        self.dispatch(id, member, now, sink);
    }

    /// The backend says nothing: all that was asked of it fails.
    fn fall_silent(&mut self, peer: usize, sink: &mut impl Sink) {
        if self.peers[peer].is_silent {
            return;
        }
        set_silent(&mut self.peers[peer], true);
        let asked: Vec<u64> = self
            .requests
            .iter()
            .filter(|request| request.stage == Stage::Sent)
            .filter(|request| request.copies.iter().flatten().any(|copy| copy.peer == peer))
            .map(|request| request.id)
            .collect();
        for id in asked {
            self.finish_unreachable(id, peer, sink);
        }
        self.empty_queue(peer, sink);
    }

    /// Asks a late get a second time, on the other connection.
    fn hedge(&mut self, id: u64, peer: usize, link: usize, now: Micros, sink: &mut impl Sink) {
        let Some(request) = self.requests.get(id) else { return };
        let Some(asker) = request.asker else { return };
        if request.stage != Stage::Sent || !self.peers[peer].links[link].has_room() {
            return;
        }
        if !self.budget.take(request.weight()) || !sink.may_repeat(&asker) {
            return;
        }
        if let Some(request) = self.requests.get(id) {
            request.is_held_to = true;
        }
        self.peers[peer].usage.hedges_total.fetch_add(1, Relaxed);
        self.write(id, peer, link, now);
    }

    /// Keep-alive, signs of life, and connections that are dead or stuck.
    fn look_after_links(&mut self, now: Micros, sink: &mut impl Sink) {
        let silence = self.settings.silence.as_micros() as Micros;
        let stuck = (self.settings.request_timeout.as_micros() as Micros).min(DEAD);
        let mut quiet = Vec::new();
        let mut dead = Vec::new();
        for (peer, known) in &self.peers {
            for (link, on) in known.links.iter().enumerate() {
                match on.phase {
                    Phase::Up if 0 < on.in_flight && on.heard + DEAD <= now => {
                        dead.push((peer, link));
                    }
                    // The backend is there, so it is the connection. Bytes that never become an answer are
                    // none: where a length was damaged on its way, what follows is taken for its content.
                    Phase::Up
                        if 0 < on.in_flight
                            && on.moved + stuck <= now
                            && now < known.heard + silence =>
                    {
                        dead.push((peer, link));
                    }
                    // In time for the answer to come before the backend is taken for silent.
                    Phase::Up
                        if 0 < on.in_flight
                            && on.heard.max(known.heard) + silence / 2 <= now
                            && !known.is_silent =>
                    {
                        let other = known.other(link);
                        quiet.extend(
                            other
                                .filter(|&other| known.links[other].in_flight == 0)
                                .map(|other| (peer, other)),
                        );
                    }
                    Phase::Up if on.in_flight == 0 && on.heard + KEEP_ALIVE <= now => {
                        quiet.push((peer, link));
                    }
                    Phase::Coming { since, .. } if since + CONNECT_TIMEOUT <= now => {
                        dead.push((peer, link));
                    }
                    Phase::Up | Phase::Coming { .. } | Phase::Down { .. } => (),
                }
            }
        }
        for (peer, link) in quiet {
            self.ping(peer, link, now);
        }
        for (peer, link) in dead {
            self.give_up(self.link_id(peer, link), now, sink);
        }
        self.refresh_next(now, sink);
    }

    fn give_up(&mut self, id: LinkId, now: Micros, sink: &mut impl Sink) {
        self.gone.push(id);
        self.lost(id, now, sink);
    }

    /// Makes every connection anew, one at a time, so that none of a member's requests fail: those
    /// who fear that a connection is stuck to something old can be sure afterwards.
    pub(crate) fn refresh(&mut self) {
        self.refreshing = self
            .peers
            .iter()
            .flat_map(|(peer, _)| (0..LINKS_PER_PEER).map(move |link| (peer, link)))
            .map(|(peer, link)| self.link_id(peer, link))
            .collect();
        self.next_tick = 0;
    }

    /// Closes the next connection that shall be made anew, once nothing is on its way on it and the
    /// other one of its member stands.
    fn refresh_next(&mut self, now: Micros, sink: &mut impl Sink) {
        let Some(&id) = self.refreshing.front() else { return };
        let is_up = self.is_current(id) && self.peers[id.peer].links[id.link].phase == Phase::Up;
        if !is_up {
            // It was lost meanwhile, so it is made anew anyway.
            self.refreshing.pop_front();
            return;
        }
        let peer = &mut self.peers[id.peer];
        let Some(other) = peer.other(id.link) else {
            peer.is_changing = false;
            return self.pump(id.peer, now, sink);
        };
        let in_flight = peer.links[id.link].in_flight;
        if peer.active == id.link && !peer.is_silent {
            // Requests wait here until those on their way are answered, so that none is overtaken.
            peer.is_changing = 0 < in_flight;
            if peer.is_changing {
                return;
            }
            peer.active = other;
            self.pump(id.peer, now, sink);
        }
        if in_flight == 0 || self.peers[id.peer].is_silent {
            self.refreshing.pop_front();
            self.give_up(id, now, sink);
        }
    }

    fn ping(&mut self, peer: usize, link: usize, now: Micros) {
        let id = self.insert_own(&Operation::Ping, None, None, now);
        self.write(id, peer, link, now);
    }

    /// A request of the links themselves.
    fn insert_own(
        &mut self,
        operation: &Operation<'_>,
        slot: Option<Slot>,
        who: Option<usize>,
        now: Micros,
    ) -> u64 {
        let mut encoded = Vec::new();
        operation.encode(&mut encoded);
        self.requests.insert(Request {
            id: 0,
            asker: None,
            who,
            cache: NO_CACHE,
            slot,
            is_read: true,
            numbers: Vec::new(),
            reads_done: 0,
            operation: encoded,
            may_be_counted: false,
            deadline: now + self.settings.request_timeout.as_micros() as Micros,
            hops_left: 0,
            token: None,
            is_held_to: false,
            stage: Stage::Behind,
            copies: [None; 2],
        })
    }

    /// Nobody is known who has the slot: asks every member, unless that is being done. Whoever has
    /// it is remembered as if the one before had said so.
    fn ask_who(&mut self, slot: Slot, now: Micros, sink: &mut impl Sink) {
        if self.asking_who.contains_key(&slot) || WHO_AT_ONCE_MAX <= self.asking_who.len() {
            return;
        }
        self.asking_who.insert(slot, self.targets.len());
        for member in 0..self.targets.len() {
            let id = self.insert_own(&Operation::Who, Some(slot), Some(member), now);
            self.dispatch(id, member, now, sink);
        }
    }

    fn heard_who(&mut self, slot: Slot, member: usize, has_it: bool) {
        // Of an earlier view, whose members are not those of this one.
        let Some(left) = self.asking_who.get_mut(&slot) else { return };
        *left -= 1;
        if *left == 0 {
            self.asking_who.remove(&slot);
        }
        if let (true, Some(routing)) = (has_it, &mut self.routing) {
            routing.note_moved(slot, member);
        }
    }

    /// Whom the shell shall connect to now; it then says [`Links::connected`] or [`Links::lost`].
    pub(crate) fn next_dial(&mut self, now: Micros) -> Option<Dial> {
        for (peer, known) in &mut self.peers {
            for (link, on) in known.links.iter_mut().enumerate() {
                if let Phase::Down { attempts, retry_at } = on.phase
                    && retry_at <= now
                {
                    on.phase = Phase::Coming { attempts, since: now };
                    let id = LinkId { peer, link, serial: on.serial };
                    let (address, node) = (known.address, known.node.clone());
                    return Some(Dial { id, address, node, attempts });
                }
            }
        }
        None
    }

    /// When [`Links::tick`] and [`Links::next_dial`] have something to do at the earliest; `None`
    /// when nothing but an event can change that.
    pub(crate) fn next_wake(&self, now: Micros) -> Option<Micros> {
        if self.peers.is_empty() && self.requests.len() == 0 {
            return None;
        }
        if 0 < self.requests.len() || !self.refreshing.is_empty() {
            return Some(self.next_tick.max(now));
        }
        let due =
            self.peers.iter().flat_map(|(_, peer)| &peer.links).map(|link| match link.phase {
                Phase::Down { retry_at, .. } => retry_at,
                Phase::Coming { since, .. } => since + CONNECT_TIMEOUT,
                Phase::Up => link.heard + KEEP_ALIVE,
            });
        due.min()
    }

    /// A connection sent what it must not.
    pub(crate) fn note_poisoned(&self, id: LinkId) {
        if self.is_current(id) {
            self.peers[id.peer].usage.poisoned_total.fetch_add(1, Relaxed);
        }
    }

    /// The member at the other end of a connection.
    pub(crate) fn member(&self, id: LinkId) -> Option<&MemberName> {
        self.is_current(id).then(|| &self.peers[id.peer].name)
    }

    /// Requests on their way, and the bytes kept of them.
    #[cfg(feature = "simulation")]
    pub(crate) fn requests_under_way(&self) -> (usize, usize) {
        (self.requests.len(), self.requests.bytes())
    }

    fn link_id(&self, peer: usize, link: usize) -> LinkId {
        LinkId { peer, link, serial: self.peers[peer].links[link].serial }
    }

    fn is_current(&self, id: LinkId) -> bool {
        self.peers.get(id.peer).is_some_and(|peer| peer.links[id.link].serial == id.serial)
    }

    fn mark_dirty(&mut self, peer: usize, link: usize) {
        let on = &mut self.peers[peer].links[link];
        if !on.is_dirty {
            on.is_dirty = true;
            self.dirty.push(LinkId { peer, link, serial: on.serial });
        }
    }
}

/// What time has made due for one request.
#[derive(Debug, Clone, Copy)]
enum Due {
    Late,
    Again,
    Silent { peer: usize },
    Hedge { peer: usize, link: usize },
}

fn set_silent(peer: &mut Peer, is_silent: bool) {
    if peer.is_silent != is_silent {
        peer.is_silent = is_silent;
        if is_silent {
            peer.usage.loops_silent.fetch_add(1, Relaxed);
        } else {
            peer.usage.loops_silent.fetch_sub(1, Relaxed);
        }
    }
}

/// Lots from a seed (Steele, Lea and Flood's SplitMix64).
struct Chance(u64);

impl Chance {
    fn draw(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ mixed >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ mixed >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ mixed >> 31
    }
}
