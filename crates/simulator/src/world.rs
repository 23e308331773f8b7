//! A whole cluster and everything that happens to it, one event after another.
//!
//! ```text
//!   events by time ──▶ arrives / turn / look / fault ──▶ the real engines ──▶ new parcels, new events
//!                                                            │
//!                              laws of one answer ◀──────────┴── answers to clients ──▶ History
//! ```
//!
//! One thread, one queue; ties are broken by the order of planning, so one seed is one story.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, BinaryHeap};
use std::time::Duration;

use cluster::slot::{Slot, SlotHasher, SlotKey};
use control::push::driver::RETRY_AFTER;
use daemon::memory_stream::MemoryStream;
use node::link::{DISK_RETRY_AFTER, RECONNECT_MAX};
use proxy::simulated::Wish;
use wire::control::topology::{Topology, TopologyMember};
use wire::data::handshake::Greeting;

use crate::client::{Client, PATIENCE, State};
use crate::control::{Control, Effect, LOOK_EVERY, cache_of};
use crate::counts::Counts;
use crate::history::{History, KeyId, Number};
use crate::laws::{self, Parts, Violation};
use crate::network::{Kind, Parcel, Stream, StreamId, Way, Ways};
use crate::node::{Ask, ControlLink, Node, SWEEP_EVERY, node_at};
use crate::play::Played;
use crate::random::Random;
use crate::scenario::{NODES_MAX, Place, Scenario};
use crate::story::Story;
use crate::time::{MILLISECOND, Micros, SECOND, micros};

/// How long all is left alone after everything was mended, before every request must succeed.
pub(crate) const HEALING: Micros = 5 * SECOND;
/// A proxy's longest wait before it connects to a backend again (`proxy::links`).
const LINK_WAIT_MAX: Micros = SECOND;
/// For messages, and for what is looked at now and then by who is told nothing.
const MOMENTS: Micros = SECOND / 4 + LOOK_EVERY;
/// What a request may have to wait for, one after the other, when everything works again: its node is
/// heard by control and writes what it could not write, which are two waits at the same time; an epoch
/// that could not be prepared is begun anew; links to its members are made.
const WAITS: Micros = longer(RECONNECT_MAX, DISK_RETRY_AFTER) + micros(RETRY_AFTER) + LINK_WAIT_MAX;
const _: () = assert!(WAITS + MOMENTS <= HEALING, "what was mended is whole in time");
/// How long everything must go well then.
const WELL: Micros = 2 * SECOND;
/// How often it is looked at who serves what.
const LOOK_AT_OWNERS_EVERY: Micros = 20 * MILLISECOND;
/// How often it is looked at what everyone holds.
const LOOK_AT_BUDGETS_EVERY: Micros = 100 * MILLISECOND;
/// How often a node looks at its way to control.
const CONTROL_LOOK: Micros = 50 * MILLISECOND;

const fn longer(one: Duration, other: Duration) -> Micros {
    let (one, other) = (micros(one), micros(other));
    if one < other { other } else { one }
}

/// One play under way.
pub(crate) struct World {
    pub(crate) scenario: Scenario,
    pub(crate) now: Micros,
    events: BinaryHeap<Reverse<Due>>,
    planned: u64,
    pub(crate) ways: Ways,
    pub(crate) streams: BTreeMap<StreamId, Stream>,
    next_stream: StreamId,
    pub(crate) nodes: Vec<Node>,
    pub(crate) control: Control,
    pub(crate) clients: Vec<Client>,
    pub(crate) history: History,
    pub(crate) placing: Placing,
    pub(crate) random: Random,
    pub(crate) counts: Counts,
    pub(crate) story: Story,
    pub(crate) violation: Option<Violation>,
    pub(crate) phase: Phase,
    /// Replies of each node's proxy, the newest, for [`crate::scenario::Fault::Replay`].
    pub(crate) replies: Vec<Vec<u8>>,
    /// Connections on which the next bytes are damaged, or come twice.
    pub(crate) to_damage: BTreeSet<(usize, usize)>,
    pub(crate) to_replay: BTreeSet<(usize, usize)>,
    pub(crate) incarnations: u64,
    /// Whose token each is, and which were used.
    pub(crate) tokens: BTreeMap<(KeyId, u64), Number>,
    pub(crate) spent_tokens: BTreeSet<(KeyId, u64)>,
    pub(crate) healed_at: Option<Micros>,
    owners_looked_at: Micros,
    budgets_looked_at: Micros,
    /// What parts of caches were like then.
    parts: Parts,
    /// When an epoch was committed last.
    committed_at: Micros,
}

/// How far the play has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Phase {
    /// Faults happen.
    Play,
    /// Everything is mended; what was broken may still show until then.
    Healing { until: Micros },
    /// Everything must go well until then.
    Well { until: Micros },
}

/// Where each key's slot is, and when its items may have been lost.
pub(crate) struct Placing {
    pub(crate) slots: BTreeMap<KeyId, Slot>,
    /// Until when; `Micros::MAX` while the slot is on its way.
    pub(crate) lost_until: BTreeMap<KeyId, Micros>,
}

/// An event and when it is due.
struct Due {
    at: Micros,
    order: u64,
    event: Event,
}

#[derive(Debug)]
pub(crate) enum Event {
    Arrive {
        stream: StreamId,
        way: Way,
        parcel: Parcel,
    },
    /// A way may be open again: what waits goes on.
    Mended {
        from: Place,
        to: Place,
    },
    Turn {
        node: usize,
    },
    ControlLook {
        node: usize,
        run: u64,
    },
    DriverLook,
    ClientActs {
        client: usize,
    },
    Fault {
        number: usize,
    },
    Start {
        node: usize,
    },
    Resume {
        node: usize,
    },
    ControlBack,
    Heal,
}

impl PartialEq for Due {
    fn eq(&self, other: &Self) -> bool {
        (self.at, self.order) == (other.at, other.order)
    }
}

impl Eq for Due {}

impl PartialOrd for Due {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Due {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        (self.at, self.order).cmp(&(other.at, other.order))
    }
}

impl World {
    pub(crate) fn new(scenario: Scenario, story: Story) -> Self {
        let seed = scenario.seed;
        let hasher = SlotHasher::new(&SlotKey::new(crate::control::SLOT_KEY));
        let mut slots = BTreeMap::new();
        for tenant in 0..scenario.tenants {
            for key in 0..scenario.keys {
                let text = crate::client::key_text(key);
                let slot = hasher.slot(cache_of(tenant), text.as_bytes());
                slots.insert(KeyId { tenant, key }, slot);
            }
        }
        let lost_until = slots.keys().map(|&key| (key, 0)).collect();
        let clients = (0..scenario.clients)
            .map(|number| Client::new(number, scenario.tenants, scenario.keys, seed))
            .collect();
        let backends_mib = vec![scenario.memory.backend_mib(); scenario.backends];
        let new_node = |number| Node::new(number, number as u64 + 1, backends_mib.clone());
        let mut world = World {
            now: 0,
            events: BinaryHeap::new(),
            planned: 0,
            ways: Ways::new(scenario.latency, seed),
            streams: BTreeMap::new(),
            next_stream: 1,
            nodes: (0..NODES_MAX).map(new_node).collect(),
            control: Control::new(scenario.tenants, scenario.memory),
            clients,
            history: History::default(),
            placing: Placing { slots, lost_until },
            random: Random::of(seed, 4),
            counts: Counts::default(),
            story,
            violation: None,
            phase: Phase::Play,
            replies: vec![Vec::new(); NODES_MAX],
            to_damage: BTreeSet::new(),
            to_replay: BTreeSet::new(),
            incarnations: 100,
            tokens: BTreeMap::new(),
            spent_tokens: BTreeSet::new(),
            healed_at: None,
            owners_looked_at: 0,
            budgets_looked_at: 0,
            parts: Parts::default(),
            committed_at: 0,
            scenario,
        };
        world.begin();
        world
    }

    fn begin(&mut self) {
        self.control.start(0);
        for node in 0..self.scenario.nodes {
            self.nodes[node].is_wanted = true;
            let name = self.nodes[node].name.clone();
            self.control.invite(&name);
            self.plan(node as u64 * MILLISECOND, Event::Start { node });
        }
        self.plan(LOOK_EVERY, Event::DriverLook);
        for client in 0..self.clients.len() {
            self.plan(SECOND + client as u64 * MILLISECOND, Event::ClientActs { client });
        }
        for number in 0..self.scenario.faults.len() {
            self.plan(2 * SECOND + self.scenario.faults[number].at, Event::Fault { number });
        }
        self.plan(2 * SECOND + self.scenario.length, Event::Heal);
    }

    pub(crate) fn plan(&mut self, at: Micros, event: Event) {
        self.planned += 1;
        self.events.push(Reverse(Due { at: at.max(self.now), order: self.planned, event }));
    }

    pub(crate) fn now(&self) -> Micros {
        self.now
    }

    /// What is left when the play is over.
    pub(crate) fn end(mut self, violation: Option<Violation>) -> Played {
        self.counts.simulated = self.now;
        for node in &self.nodes {
            let Some(process) = &node.process else { continue };
            for (_, _, links) in process.asked.members() {
                for (name, count) in
                    links.figures().into_iter().filter(|it| it.0.ends_with("total"))
                {
                    *self.counts.links.entry(name).or_default() += count;
                }
            }
        }
        let batches = self.clients.iter().map(|client| client.batches).collect();
        Played { violation, counts: self.counts, story: self.story, batches }
    }

    /// Plays to the end, or to the first law that does not hold.
    pub(crate) fn run(&mut self) -> Result<(), Violation> {
        while let Some(Reverse(due)) = self.events.pop() {
            self.now = due.at;
            if let Phase::Healing { until } = self.phase
                && until <= self.now
            {
                self.phase = Phase::Well { until: self.now + WELL };
                self.story.tell(self.now, || "from now on everything must go well".to_owned());
            }
            if let Phase::Well { until } = self.phase
                && until <= self.now
            {
                break;
            }
            self.counts.events += 1;
            self.happen(due.event);
            self.look_at_everything();
            if let Some(violation) = self.violation.take() {
                return Err(violation);
            }
        }
        self.note_what_is_under_way();
        self.laws_of_the_end().map_err(|violation| match violation.at {
            0 => Violation { at: self.now, ..violation },
            _ => violation,
        })
    }

    /// What was asked and is not answered yet may have happened, and somebody may have read it.
    fn note_what_is_under_way(&mut self) {
        for client in 0..self.clients.len() {
            self.nobody_knows(client);
        }
    }

    fn laws_of_the_end(&self) -> Result<(), Violation> {
        laws::invariant_every_epoch_is_settled(&self.control, self.committed_at, self.now)?;
        let tenants = self.scenario.tenants;
        laws::invariant_quotas_add_up(&self.nodes, &self.control, tenants)?;
        laws::invariant_parts_are_kept(&self.nodes, &self.control, tenants)?;
        laws::invariant_nothing_is_left_over(&self.nodes, self.clients.len())?;
        laws::invariant_reads_are_never_stale(&self.history)
    }

    /// Laws about the state of the whole, now and then.
    fn look_at_everything(&mut self) {
        let mut seen = Ok(());
        if self.owners_looked_at + LOOK_AT_OWNERS_EVERY <= self.now {
            self.owners_looked_at = self.now;
            seen = laws::invariant_one_owner(&self.nodes, &self.placing.slots);
        }
        if self.budgets_looked_at + LOOK_AT_BUDGETS_EVERY <= self.now {
            self.budgets_looked_at = self.now;
            seen = seen.and_then(|()| self.look_at_budgets());
        }
        if let Err(mut violation) = seen {
            violation.at = self.now;
            self.violation.get_or_insert(violation);
        }
    }

    fn look_at_budgets(&mut self) -> Result<(), Violation> {
        laws::invariant_budgets_are_kept(&self.nodes)?;
        let (tenants, evicted) = (self.scenario.tenants, &mut self.counts.evicted);
        laws::invariant_only_full_caches_evict(&self.nodes, tenants, &mut self.parts, evicted)
    }

    fn happen(&mut self, event: Event) {
        match event {
            Event::Arrive { stream, way, parcel } => self.arrive(stream, way, parcel),
            Event::Mended { from, to } => self.let_go(from, to),
            Event::Turn { node } => {
                let is_due = |process: &crate::node::Process| process.wakes_at == self.now;
                if self.nodes[node].process.as_ref().is_some_and(is_due) {
                    self.turn(node);
                }
            }
            Event::ControlLook { node, run } => self.look_at_control(node, run),
            Event::DriverLook => self.driver_looks(),
            Event::ClientActs { client } => self.client_acts(client),
            Event::Fault { number } => {
                let fault = self.scenario.faults[number].fault;
                self.inflict(fault);
            }
            Event::Start { node } => self.start(node),
            Event::Resume { node } => self.resume(node),
            Event::ControlBack => self.control_back(),
            Event::Heal => self.heal(),
        }
    }

    /// Sends a parcel on its way.
    pub(crate) fn send(&mut self, id: StreamId, way: Way, parcel: Parcel) {
        let Some(stream) = self.streams.get_mut(&id) else { return };
        let (from, to) = stream.ends_of(way);
        let delay = self.ways.delay(from, to, self.now);
        let at = stream.arrival(way, self.now + delay);
        self.plan(at, Event::Arrive { stream: id, way, parcel });
    }

    fn arrive(&mut self, id: StreamId, way: Way, parcel: Parcel) {
        let Some(stream) = self.streams.get_mut(&id) else { return };
        let (from, to) = stream.ends_of(way);
        if self.ways.is_cut(from, to, self.now) || !stream.held[way.index()].is_empty() {
            stream.held[way.index()].push_back(parcel);
            return;
        }
        self.deliver(id, way, parcel);
    }

    /// What waited for a way goes on, if it is open now.
    fn let_go(&mut self, from: Place, to: Place) {
        if self.ways.is_cut(from, to, self.now) {
            return;
        }
        let ids: Vec<StreamId> = self.streams.keys().copied().collect();
        for id in ids {
            for way in [Way::There, Way::Back] {
                let Some(stream) = self.streams.get_mut(&id) else { continue };
                if stream.ends_of(way) != (from, to) {
                    continue;
                }
                for parcel in std::mem::take(&mut stream.held[way.index()]) {
                    self.send(id, way, parcel);
                }
            }
        }
    }

    fn deliver(&mut self, id: StreamId, way: Way, parcel: Parcel) {
        let Some(stream) = self.streams.get(&id) else { return };
        let (_, to) = stream.ends_of(way);
        match to {
            Place::Node(node) => {
                if self.nodes[node].is_paused(self.now) {
                    // The kernel takes connections for a process that stands still.
                    if matches!(parcel, Parcel::Connect) {
                        self.send(id, Way::Back, Parcel::Connected);
                    }
                    self.nodes[node].inbox.push_back((id, way, parcel));
                } else {
                    self.node_gets(node, id, way, parcel);
                }
            }
            Place::Control => self.control_gets(id, parcel),
            Place::Client(client) => self.client_gets(client, id, parcel),
        }
    }

    pub(crate) fn node_gets(&mut self, number: usize, id: StreamId, way: Way, parcel: Parcel) {
        let Some(stream) = self.streams.get_mut(&id) else { return };
        let is_caller = way == Way::Back;
        let from = stream.ends_of(way).0;
        // What the receiver has closed is not heard any more.
        let receiver = if is_caller { Way::There } else { Way::Back };
        if stream.closed[receiver.index()] {
            return;
        }
        let Some(process) = &mut self.nodes[number].process else {
            if matches!(parcel, Parcel::Connect) {
                self.send(id, Way::Back, Parcel::Refused);
            }
            return;
        };
        let loop_time = process.loop_time(self.now);
        match (&mut stream.kind, parcel) {
            (Kind::Client { key }, Parcel::Connect) => {
                let (program, network) = MemoryStream::pair();
                if let Some(accepted) = process.proxy.accept(program, loop_time) {
                    *key = Some(accepted);
                    process.streams.insert(id, (Way::Back, network.clone()));
                    stream.ends[Way::Back.index()] = Some(network);
                    self.send(id, Way::Back, Parcel::Connected);
                } else {
                    self.send(id, Way::Back, Parcel::Refused);
                }
            }
            (Kind::Client { key: Some(key) }, Parcel::Bytes(bytes)) => {
                if let Some(end) = &stream.ends[Way::Back.index()] {
                    end.bring(&bytes);
                }
                process.proxy.client_readable(*key, false);
            }
            (Kind::Client { key: Some(key) }, Parcel::End | Parcel::Reset) => {
                if let Some(end) = &stream.ends[Way::Back.index()] {
                    end.end();
                }
                process.proxy.client_readable(*key, true);
            }
            (Kind::Peer { served, .. }, Parcel::Connect) => {
                let (program, network) = MemoryStream::pair();
                *served = Some(process.server.accept(program));
                process.streams.insert(id, (Way::Back, network.clone()));
                stream.ends[Way::Back.index()] = Some(network);
                self.send(id, Way::Back, Parcel::Connected);
            }
            (Kind::Peer { number: link, .. }, Parcel::Connected) => {
                let (program, network) = MemoryStream::pair();
                if stream.ends[Way::There.index()].is_none() {
                    process.proxy.link_connected(*link, program);
                    process.streams.insert(id, (Way::There, network.clone()));
                    stream.ends[Way::There.index()] = Some(network);
                }
            }
            (Kind::Peer { number: link, .. }, Parcel::Refused) => {
                process.proxy.link_lost(*link, loop_time);
                self.forget(id);
            }
            (Kind::Peer { number: link, .. }, Parcel::Bytes(mut bytes)) if is_caller => {
                let peer = match from {
                    Place::Node(peer) => peer,
                    Place::Control | Place::Client(_) => NODES_MAX,
                };
                if self.to_damage.remove(&(peer, number)) {
                    let at = self.random.place(bytes.len());
                    bytes[at] ^= 1 << self.random.below(8);
                }
                let link = *link;
                let mut stands = process.proxy.link_received(link, &bytes, loop_time);
                if stands && self.to_replay.remove(&(peer, number)) {
                    let again = std::mem::take(&mut self.replies[number]);
                    if !again.is_empty() {
                        self.counts.replayed += 1;
                        stands = process.proxy.link_received(link, &again, loop_time);
                    }
                }
                if stands {
                    // What a link says once is no reply: a second one would be found by the first
                    // reply after it, however late that is.
                    if !matches!(Greeting::decode(&bytes), Ok(Some(_))) {
                        self.replies[number] = bytes;
                    }
                } else {
                    self.counts.poisoned += 1;
                    self.close(id, Way::There);
                }
            }
            (Kind::Peer { number: link, .. }, Parcel::End | Parcel::Reset) if is_caller => {
                process.proxy.link_lost(*link, loop_time);
                self.close(id, Way::There);
            }
            (Kind::Peer { served: Some(served), .. }, Parcel::Bytes(mut bytes)) => {
                if let Place::Node(peer) = from
                    && self.to_damage.remove(&(peer, number))
                {
                    let at = self.random.place(bytes.len());
                    bytes[at] ^= 1 << self.random.below(8);
                }
                if let Some(end) = &stream.ends[Way::Back.index()] {
                    end.bring(&bytes);
                }
                process.server.note_readable(*served, false);
            }
            (Kind::Peer { served: Some(served), .. }, Parcel::End | Parcel::Reset) => {
                if let Some(end) = &stream.ends[Way::Back.index()] {
                    end.end();
                }
                process.server.note_readable(*served, true);
            }
            (Kind::Control, parcel) => return self.node_hears_control(number, id, parcel),
            (
                Kind::Client { .. } | Kind::Peer { .. },
                Parcel::Connected
                | Parcel::Refused
                | Parcel::Bytes(_)
                | Parcel::ToControl(_)
                | Parcel::ToNode(_)
                | Parcel::End
                | Parcel::Reset,
            ) => (),
        }
        self.turn(number);
    }

    /// One round of a node's loops, and what follows from it.
    pub(crate) fn turn(&mut self, number: usize) {
        let node = &mut self.nodes[number];
        if node.is_paused(self.now) {
            return;
        }
        let time = node.time(self.now);
        let Some(process) = &mut node.process else { return };
        process.move_hand(time);
        let sweep = process.next_sweep <= self.now;
        if sweep {
            process.next_sweep = self.now + SWEEP_EVERY;
        }
        let loop_time = process.loop_time(self.now);
        let wishes = process.proxy.turn(time, loop_time, sweep);
        let again_ms = process.server.turn(time, loop_time / 1_000, sweep);
        let mut wake = process.next_sweep;
        if let Some(at) = process.proxy.next_wake(loop_time) {
            // A loop's clock ticks: what is due at once is due with the next tick.
            wake = wake.min(process.started + at.max(loop_time + 1));
        }
        if let Some(ms) = again_ms {
            wake = wake.min(self.now + (ms * MILLISECOND).max(1));
        }
        // When it has been planned for the same moment already, that is enough.
        let is_planned = std::mem::replace(&mut process.wakes_at, wake) == wake;
        self.counts.note_requests(process.proxy.counts());
        if !is_planned {
            self.plan(wake, Event::Turn { node: number });
        }
        for wish in wishes {
            match wish {
                Wish::Dial { number: link, address } => {
                    let to = Place::Node(node_at(address).expect("members are nodes"));
                    let kind = Kind::Peer { number: link, served: None };
                    self.open(Place::Node(number), to, kind);
                }
                Wish::Close { number: link } => {
                    let is_it = |stream: &Stream| {
                        stream.from == Place::Node(number)
                            && matches!(stream.kind, Kind::Peer { number, .. } if number == link)
                    };
                    let found =
                        self.streams.iter().find(|(_, stream)| is_it(stream)).map(|(&id, _)| id);
                    if let Some(id) = found {
                        self.close(id, Way::There);
                    }
                }
            }
        }
        self.fetch(number);
    }

    /// Takes what a node's programs have written.
    fn fetch(&mut self, number: usize) {
        let Some(process) = &mut self.nodes[number].process else { return };
        let mut fetched = Vec::new();
        for (&id, (way, end)) in &process.streams {
            let (written, is_finished) = end.fetch();
            if is_finished || !written.is_empty() {
                fetched.push((id, *way, written, is_finished));
            }
        }
        for (id, way, written, is_finished) in fetched {
            if !written.is_empty() {
                self.send(id, way, Parcel::Bytes(written));
            }
            if is_finished {
                self.close(id, way);
            }
        }
    }

    pub(crate) fn open(&mut self, from: Place, to: Place, kind: Kind) -> StreamId {
        let id = self.next_stream;
        self.next_stream += 1;
        self.streams.insert(id, Stream::new(from, to, kind));
        self.send(id, Way::There, Parcel::Connect);
        id
    }

    /// The sender of a way closes the connection: the other side hears of it after all the rest.
    pub(crate) fn close(&mut self, id: StreamId, way: Way) {
        let Some(stream) = self.streams.get_mut(&id) else { return };
        if stream.closed[way.index()] {
            return;
        }
        stream.closed[way.index()] = true;
        let (from, _) = stream.ends_of(way);
        let is_over = stream.closed == [true, true];
        if let Place::Node(node) = from
            && let Some(process) = &mut self.nodes[node].process
        {
            process.streams.remove(&id);
        }
        if is_over {
            self.forget(id);
        } else {
            self.send(id, way, Parcel::End);
        }
    }

    fn forget(&mut self, id: StreamId) {
        if let Some(stream) = self.streams.remove(&id) {
            for place in [stream.from, stream.to] {
                if let Place::Node(node) = place
                    && let Some(process) = &mut self.nodes[node].process
                {
                    process.streams.remove(&id);
                }
            }
        }
    }

    /// A connection breaks: both sides hear of it.
    pub(crate) fn break_stream(&mut self, id: StreamId) {
        self.send(id, Way::There, Parcel::Reset);
        self.send(id, Way::Back, Parcel::Reset);
    }

    fn start(&mut self, number: usize) {
        let node = &mut self.nodes[number];
        if node.process.is_some() || !node.is_wanted {
            return;
        }
        node.paused_until = 0;
        node.start(self.now, self.scenario.seed);
        self.counts.starts += 1;
        let run = node.runs;
        self.story.tell(self.now, || format!("node-{number} starts (process {run})"));
        self.plan(self.now, Event::ControlLook { node: number, run });
        self.turn(number);
    }

    /// A node's process ends. Its machine says so to everyone who is connected, where it can.
    pub(crate) fn end_process(&mut self, number: usize) {
        let node = &mut self.nodes[number];
        node.paused_until = 0;
        node.inbox.clear();
        let Some(process) = node.process.take() else { return };
        drop(process);
        let mine = |stream: &Stream| {
            [stream.from, stream.to].iter().position(|place| *place == Place::Node(number))
        };
        let ids: Vec<(StreamId, Way)> = self
            .streams
            .iter()
            .filter_map(|(&id, stream)| {
                mine(stream).map(|at| (id, if at == 0 { Way::There } else { Way::Back }))
            })
            .collect();
        for (id, way) in ids {
            if let Some(stream) = self.streams.get_mut(&id) {
                stream.ends[way.index()] = None;
            }
            self.close(id, way);
        }
        self.items_are_lost(number);
    }

    /// The items of every slot that this node had are gone.
    fn items_are_lost(&mut self, number: usize) {
        let Some(committed) = self.control.committed().cloned() else { return };
        let keys: Vec<(KeyId, Slot)> =
            self.placing.slots.iter().map(|(&key, &slot)| (key, slot)).collect();
        for (key, slot) in keys {
            if node_at(owner(&committed, slot).address) == Some(number) {
                let lost = self.placing.lost_until.entry(key).or_default();
                *lost = (*lost).max(self.now);
            }
        }
    }

    fn resume(&mut self, number: usize) {
        if self.nodes[number].is_paused(self.now) || self.nodes[number].process.is_none() {
            return;
        }
        self.story.tell(self.now, || format!("node-{number} goes on"));
        let waiting: Vec<_> = self.nodes[number].inbox.drain(..).collect();
        let run = self.nodes[number].runs;
        for (id, way, parcel) in waiting {
            if self.nodes[number].runs == run {
                self.node_gets(number, id, way, parcel);
            }
        }
        self.turn(number);
    }

    fn look_at_control(&mut self, number: usize, run: u64) {
        let node = &mut self.nodes[number];
        if node.runs != run || node.process.is_none() {
            return;
        }
        if !node.is_paused(self.now) {
            let asks = node.look_at_control(self.now);
            self.node_asks(number, asks);
        }
        self.plan(self.now + CONTROL_LOOK, Event::ControlLook { node: number, run });
    }

    fn node_asks(&mut self, number: usize, asks: Vec<Ask>) {
        for ask in asks {
            match ask {
                Ask::Call => {
                    let id = self.open(Place::Node(number), Place::Control, Kind::Control);
                    if let Some(process) = &mut self.nodes[number].process {
                        let since = self.now;
                        process.copy.link = ControlLink::Connecting { stream: id, since };
                    }
                }
                Ask::Say(id, message) => {
                    self.send(id, Way::There, Parcel::ToControl(message));
                }
                Ask::HangUp(id) => self.close(id, Way::There),
            }
        }
    }

    fn node_hears_control(&mut self, number: usize, id: StreamId, parcel: Parcel) {
        let Some(process) = &mut self.nodes[number].process else { return };
        let is_mine = match process.copy.link {
            ControlLink::Down { .. } => false,
            ControlLink::Connecting { stream, .. } | ControlLink::Open { stream, .. } => {
                stream == id
            }
        };
        if !is_mine {
            return self.close(id, Way::There);
        }
        match parcel {
            Parcel::Connected => {
                process.copy.connected(id, self.now);
                if let Some(hello) = self.nodes[number].hello() {
                    self.send(id, Way::There, Parcel::ToControl(Box::new(hello)));
                }
            }
            Parcel::ToNode(message) => match self.nodes[number].hear_control(*message, self.now) {
                Ok(asks) => self.node_asks(number, asks),
                Err(refusal) => {
                    self.story.tell(self.now, || format!("node-{number} hangs up: {refusal}"));
                    self.node_loses_control(number, id);
                }
            },
            Parcel::Refused | Parcel::End | Parcel::Reset => self.node_loses_control(number, id),
            Parcel::Connect | Parcel::Bytes(_) | Parcel::ToControl(_) => (),
        }
        self.turn(number);
    }

    fn node_loses_control(&mut self, number: usize, id: StreamId) {
        if let Some(process) = &mut self.nodes[number].process {
            process.copy.lost(self.now);
        }
        self.close(id, Way::There);
    }

    fn control_gets(&mut self, id: StreamId, parcel: Parcel) {
        let Some(stream) = self.streams.get(&id) else { return };
        let Place::Node(node) = stream.from else { return };
        match parcel {
            Parcel::Connect if self.control.process.is_none() => {
                self.send(id, Way::Back, Parcel::Refused);
            }
            Parcel::Connect => {
                let name = self.nodes[node].name.clone();
                self.control.accept(id, name, self.now);
                self.send(id, Way::Back, Parcel::Connected);
            }
            Parcel::ToControl(message) => {
                let effects = self.control.hear(id, *message, self.now);
                self.control_does(effects);
            }
            Parcel::End | Parcel::Reset => {
                self.control.lost(id);
                self.close(id, Way::Back);
                let effects = self.control.drive(self.now);
                self.control_does(effects);
            }
            Parcel::Connected | Parcel::Refused | Parcel::Bytes(_) | Parcel::ToNode(_) => (),
        }
    }

    fn driver_looks(&mut self) {
        let refusing = (0..NODES_MAX)
            .filter(|&node| {
                let place = Place::Node(node);
                self.nodes[node].process.is_none()
                    && !self.ways.is_cut(Place::Control, place, self.now)
                    && !self.ways.is_cut(place, Place::Control, self.now)
            })
            .map(|node| self.nodes[node].name.clone())
            .collect();
        self.control.note_refusing(&refusing, self.now);
        let effects = self.control.look(self.now);
        self.control_does(effects);
        self.plan(self.now + LOOK_EVERY, Event::DriverLook);
    }

    pub(crate) fn control_does(&mut self, effects: Vec<Effect>) {
        for effect in effects {
            match effect {
                Effect::Say(id, message) => {
                    self.send(id, Way::Back, Parcel::ToNode(Box::new(message)));
                }
                Effect::HangUp(id) => self.close(id, Way::Back),
                Effect::Prepared(topology) => {
                    self.counts.prepared += 1;
                    self.story.tell(self.now, || {
                        let members: Vec<String> = topology
                            .members()
                            .iter()
                            .map(|m| format!("{}#{}*{}", m.name, m.incarnation, m.weight.get()))
                            .collect();
                        format!("epoch {} prepared: {}", topology.epoch(), members.join(" "))
                    });
                }
                Effect::Committed { before, now } => {
                    self.counts.committed += 1;
                    self.committed_at = self.now;
                    self.story.tell(self.now, || format!("epoch {} committed", now.epoch()));
                    self.slots_move(before.as_deref(), &now);
                }
                Effect::Aborted => {
                    self.counts.aborted += 1;
                    self.story.tell(self.now, || "the epoch is aborted".to_owned());
                }
                Effect::Settled(epoch) => {
                    self.counts.settled += 1;
                    self.story.tell(self.now, || format!("epoch {epoch} settled"));
                    for lost in self.placing.lost_until.values_mut() {
                        if *lost == Micros::MAX {
                            *lost = self.now;
                        }
                    }
                }
                Effect::GivenUp(name) => {
                    self.counts.given_up += 1;
                    self.story.tell(self.now, || format!("{name} is given up"));
                }
                Effect::Forgotten(name) => {
                    self.story.tell(self.now, || format!("{name} is forgotten"));
                    let node = (0..NODES_MAX).find(|&node| self.nodes[node].name == name);
                    if let Some(node) = node {
                        self.removed(node);
                    }
                }
            }
        }
    }

    /// Slots with a new owner begin empty, and until the epoch is settled nobody knows when.
    fn slots_move(&mut self, before: Option<&Topology>, now: &Topology) {
        let Some(before) = before else { return };
        for (key, &slot) in &self.placing.slots {
            let run = |member: &TopologyMember| (member.name.clone(), member.incarnation);
            if run(owner(before, slot)) != run(owner(now, slot)) {
                self.placing.lost_until.insert(*key, Micros::MAX);
            }
        }
    }

    fn client_acts(&mut self, number: usize) {
        let client = &mut self.clients[number];
        let mut next = self.now + 50 * MILLISECOND;
        match client.state {
            State::Away => {
                let servers: Vec<usize> =
                    (0..NODES_MAX).filter(|&node| self.nodes[node].is_wanted).collect();
                if !servers.is_empty() {
                    let at = self.random.place(servers.len());
                    client.through = servers[at];
                    client.input.clear();
                    let (from, to) = (Place::Client(number), Place::Node(client.through));
                    let id = self.open(from, to, Kind::Client { key: None });
                    self.clients[number].state = State::Connecting { stream: id, since: self.now };
                }
            }
            State::Connecting { stream, since } => {
                if since + SECOND <= self.now {
                    self.client_leaves(number, stream);
                }
            }
            State::Ready { stream } => {
                let oldest = client.pending.front().map(|pending| pending.began);
                match oldest {
                    Some(began) if began + PATIENCE <= self.now => {
                        self.late_answer(number);
                        self.client_leaves(number, stream);
                    }
                    Some(_) => (),
                    None => {
                        let batch = (number, client.batches);
                        let is_left_out = self.scenario.left_out.contains(&batch);
                        let pause = match self.phase {
                            Phase::Play => self.scenario.pause,
                            // Every key shall be asked for in the time there is.
                            Phase::Healing { .. } | Phase::Well { .. } => {
                                self.scenario.pause.min(20 * MILLISECOND)
                            }
                        };
                        let (bytes, then) = client.batch(self.now, pause, is_left_out);
                        next = then;
                        if !bytes.is_empty() {
                            self.send(stream, Way::There, Parcel::Bytes(bytes));
                        }
                    }
                }
            }
        }
        self.plan(next, Event::ClientActs { client: number });
    }

    fn client_gets(&mut self, number: usize, id: StreamId, parcel: Parcel) {
        if self.clients[number].stream() != Some(id) {
            return self.close(id, Way::There);
        }
        match parcel {
            Parcel::Connected => {
                let client = &mut self.clients[number];
                client.state = State::Ready { stream: id };
                let login = client.login(self.now);
                self.send(id, Way::There, Parcel::Bytes(login));
            }
            Parcel::Bytes(bytes) => {
                self.clients[number].input.extend_from_slice(&bytes);
                self.client_hears(number);
            }
            Parcel::Refused | Parcel::End | Parcel::Reset => self.client_leaves(number, id),
            Parcel::Connect | Parcel::ToControl(_) | Parcel::ToNode(_) => (),
        }
    }

    /// The client's connection ends; of what it had asked nobody knows what became.
    pub(crate) fn client_leaves(&mut self, number: usize, id: StreamId) {
        self.clients[number].state = State::Away;
        self.counts.unanswered += self.clients[number].pending.len() as u64;
        self.nobody_knows(number);
        self.close(id, Way::There);
    }

    pub(crate) fn violate(&mut self, law: &'static str, key: Option<KeyId>, seen: String) {
        self.violation.get_or_insert(Violation { law, seen, key, at: self.now });
    }
}

/// Whom a topology gives a slot to.
fn owner(topology: &Topology, slot: Slot) -> &TopologyMember {
    &topology.members()[topology.map().table().owner(slot).index()]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::client::{Ask, Pending};
    use crate::history::What;

    #[test]
    fn what_is_under_way_when_a_play_ends_is_in_its_history() {
        let scenario = |seed| Scenario::drawn(seed, SECOND, 20 * MILLISECOND);
        let mut world = World::new(scenario(0), Story::silent());
        let ask = Ask::Set { key: 0, number: 77 };
        world.clients[1].pending.push_back(Pending { ask, began: 5, batch: 0 });
        world.note_what_is_under_way();
        let key = world.clients[1].key_id(0);
        let deeds: Vec<_> =
            world.history.deeds[&key].iter().map(|it| (it.what, it.ended)).collect();
        assert_eq!(deeds, [(What::Wrote(77), None)]);

        for seed in 0..4 {
            let mut world = World::new(scenario(seed), Story::silent());
            assert_eq!(world.run(), Ok(()), "seed {seed}");
            let left = world.clients.iter().find(|client| !client.pending.is_empty());
            assert!(left.is_none(), "seed {seed}");
        }
    }
}
