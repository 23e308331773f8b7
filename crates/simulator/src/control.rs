//! The control plane: the real rules of epochs and of each node's connection, over a registry and
//! records of memory that outlive its process.
//!
//! What `control::push` does with tasks (the fleet, the driver's loop, what a connection is told of
//! epochs) is done here by the same rules with the simulator's time.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use cluster::digest::Digest;
use cluster::map::Epoch;
use cluster::member::{MemberName, Weight};
use cluster::scheme::Scheme;
use control::push::chain::Chain;
use control::push::driver::{
    Announced, Failover, Next, PREPARE_TIME_MAX, RETRY_AFTER, Seen, Situation, Wishes, decide,
    members_of,
};
use control::push::history::History;
use control::push::quota::{DIVIDE_EVERY, Quota};
use control::push::session::{Act, HEARTBEAT, Push, Session};
use control::push::source::RegisteredNode;
use tenancy::capability::Capabilities;
use tenancy::id::{CacheId, Username};
use tenancy::plan::Limits;
use tenancy::secret::SecretKey;
use wire::control::message::{
    FromControl, FromNode, Hello, Reason, Refusal, SnapshotHead, USAGE_VERSION, VERSIONS,
};
use wire::control::name::NodeName;
use wire::control::record::{CacheRecord, CredentialRecord, Delta, Record, Revision};
use wire::control::records::Records;
use wire::control::topology::{MemberSet, Placement, Topology, TopologyMember};
use wire::control::usage::SHARES_MAX;

use crate::network::StreamId;
use crate::node::{CLUSTER, SECRET};
use crate::scenario::{CROWD, Memory};
use crate::time::{Micros, SECOND, micros};

/// The secret by which this cluster's keys find their slots.
pub(crate) const SLOT_KEY: [u8; 16] = [9; 16];
/// How often the driver looks when nothing happens (`control::push::driver`).
pub(crate) const LOOK_EVERY: Micros = SECOND / 2;

/// What is in the database.
pub(crate) struct Database {
    pub(crate) records: Records,
    pub(crate) revision: Revision,
    nodes: BTreeMap<NodeName, RegisteredNode>,
    committed: Option<Arc<Topology>>,
    settled: Epoch,
    chain: Chain,
    highest: u64,
}

impl Database {
    /// Writes what has come into force, or was settled.
    fn keep(&mut self, announced: &Announced) {
        self.committed.clone_from(&announced.committed);
        self.settled = announced.settled;
        self.chain = announced.chain.clone();
    }
}

pub(crate) struct Control {
    memory: Memory,
    pub(crate) database: Database,
    /// The process, when it runs.
    pub(crate) process: Option<ControlProcess>,
}

pub(crate) struct ControlProcess {
    history: History,
    fleet: BTreeMap<NodeName, FleetNode>,
    pub(crate) sessions: BTreeMap<StreamId, NodeLink>,
    pub(crate) announced: Announced,
    pub(crate) wishes: Wishes,
    preparing_since: Micros,
    held_until: Micros,
    given_up_at: Option<Micros>,
    quota: Quota,
    /// When caches were divided last, and what was known then.
    divided_at: Micros,
    divided_for: Option<(Revision, Epoch)>,
}

#[derive(Default)]
struct FleetNode {
    hello: Option<Hello>,
    /// Of its connections the newest counts.
    link: Option<StreamId>,
    refusing_since: Option<Micros>,
}

pub(crate) struct NodeLink {
    pub(crate) node: NodeName,
    engine: Session,
    told: Option<Announced>,
    beaten_at: Option<Micros>,
    prepared: Option<(Epoch, Digest, MemberSet)>,
    committed: Option<(Epoch, Digest)>,
}

/// What control wants of the network, and what the simulation should know of it.
pub(crate) enum Effect {
    Say(StreamId, FromControl),
    HangUp(StreamId),
    Prepared(Arc<Topology>),
    Committed {
        before: Option<Arc<Topology>>,
        now: Arc<Topology>,
    },
    Aborted,
    Settled(Epoch),
    /// A node's slots are given to others although nobody asked for it.
    GivenUp(NodeName),
    Forgotten(NodeName),
}

/// The cache of a tenant.
pub(crate) fn cache_of(tenant: usize) -> CacheId {
    CacheId::new(tenant as u64 + 1)
}

pub(crate) fn username_of(tenant: usize) -> String {
    format!("tenant-{tenant}")
}

pub(crate) fn password_of(tenant: usize) -> String {
    format!("secret-of-{tenant}")
}

fn limits(memory: Memory, units: u64) -> Limits {
    Limits {
        memory_bytes: units * memory.unit_bytes(),
        item_bytes_max: memory.item_bytes_max(),
        connections_max: 1_000,
        rates: tenancy::plan::Rates::UNLIMITED,
    }
}

fn cache_record(tenant: usize, limits: Limits) -> Record {
    Record::Cache(CacheRecord { id: cache_of(tenant), limits, enabled: true, flush_generation: 0 })
}

/// Of each cache at first, in [units](Memory::unit_bytes).
const CACHE_UNITS: u64 = 16;
/// Of the cache that is always full.
const CROWD_UNITS: u64 = 192;

impl Control {
    pub(crate) fn new(tenants: usize, memory: Memory) -> Self {
        let mut records = Records::default();
        let key = SecretKey::new(SECRET);
        for tenant in 0..tenants {
            let units = if tenant == CROWD { CROWD_UNITS } else { CACHE_UNITS };
            records.put(cache_record(tenant, limits(memory, units)));
            let username = username_of(tenant);
            records.put(Record::Credential(CredentialRecord {
                username: Username::parse(&username).expect("letters and a digit"),
                cache: cache_of(tenant),
                hash: key.hash(username.as_bytes(), password_of(tenant).as_bytes()),
                capabilities: Capabilities::ALL,
            }));
        }
        let database = Database {
            records,
            revision: Revision::new(1),
            nodes: BTreeMap::new(),
            committed: None,
            settled: Epoch::new(0),
            chain: Chain::default(),
            highest: 0,
        };
        Control { memory, database, process: None }
    }

    pub(crate) fn start(&mut self, now: Micros) {
        let database = &self.database;
        let history = History::new(database.revision, database.records.digest());
        let fleet = database.nodes.keys().map(|name| (name.clone(), FleetNode::default()));
        self.process = Some(ControlProcess {
            history,
            fleet: fleet.collect(),
            sessions: BTreeMap::new(),
            announced: Announced {
                committed: database.committed.clone(),
                prepared: None,
                settled: database.settled,
                chain: database.chain.clone(),
                forced: false,
            },
            wishes: Wishes::default(),
            preparing_since: now,
            held_until: 0,
            given_up_at: None,
            quota: Quota::default(),
            divided_at: now,
            divided_for: None,
        });
    }

    /// A node may join from now on.
    pub(crate) fn invite(&mut self, name: &NodeName) {
        let node = RegisteredNode {
            name: name.to_string(),
            key_digest: [0; 32],
            incarnation: 0,
            peers: None,
            backends_mib: Vec::new(),
        };
        self.database.nodes.entry(name.clone()).or_insert(node);
        if let Some(process) = &mut self.process {
            process.fleet.entry(name.clone()).or_default();
        }
    }

    pub(crate) fn knows(&self, name: &NodeName) -> bool {
        self.database.nodes.contains_key(name)
    }

    pub(crate) fn settled(&self) -> Epoch {
        self.database.settled
    }

    pub(crate) fn committed(&self) -> Option<&Arc<Topology>> {
        self.database.committed.as_ref()
    }

    /// Something wrong to say to a node, and the connection to say it on.
    pub(crate) fn garbage(
        &self,
        node: &NodeName,
        kind: u64,
    ) -> Option<(StreamId, Vec<FromControl>)> {
        let process = self.process.as_ref()?;
        let stream = process.fleet.get(node)?.link?;
        let revision = self.database.revision;
        let digest = self.database.records.digest();
        let delta = |revision| {
            FromControl::Delta(Delta { revision, puts: Vec::new(), deletes: Vec::new() })
        };
        let committed = self.database.committed.clone()?;
        let head = SnapshotHead {
            revision: revision.next(),
            digest,
            caches: 1,
            credentials: 0,
            forced: false,
        };
        let epoch = committed.epoch();
        let garbage = match kind % 6 {
            0 => vec![delta(revision)],
            1 => vec![delta(revision.next().next())],
            2 => vec![
                FromControl::SnapshotBegin(head),
                FromControl::SnapshotChunk(vec![cache_record(77, limits(self.memory, 1))]),
                FromControl::SnapshotEnd,
            ],
            3 => vec![FromControl::Commit { epoch: epoch.next(), digest: committed.digest() }],
            4 => vec![FromControl::Abort { epoch }],
            // It hangs up.
            _ => vec![FromControl::Welcome { version: VERSIONS.max }],
        };
        Some((stream, garbage))
    }

    pub(crate) fn limits_of(&self, tenant: usize) -> Option<Limits> {
        self.database.records.cache(cache_of(tenant)).map(|cache| cache.limits)
    }

    pub(crate) fn is_member(&self, name: &NodeName) -> bool {
        self.database.committed.as_ref().is_some_and(|topology| has_node(topology, name))
    }

    /// Changes a cache's limits, in one transaction.
    pub(crate) fn resize(&mut self, tenant: usize, units: u64) {
        let record = cache_record(tenant, limits(self.memory, units));
        self.database.records.put(record);
        self.database.revision = self.database.revision.next();
        let revision = self.database.revision;
        if let Some(process) = &mut self.process {
            let delta = Delta { revision, puts: vec![record], deletes: Vec::new() };
            process.history.push(delta, self.database.records.digest());
        }
    }

    pub(crate) fn accept(&mut self, stream: StreamId, node: NodeName, now: Micros) {
        let Some(process) = &mut self.process else { return };
        let engine = Session::new(VERSIONS, CLUSTER, node.clone(), moment(now));
        let link =
            NodeLink { node, engine, told: None, beaten_at: None, prepared: None, committed: None };
        process.sessions.insert(stream, link);
    }

    pub(crate) fn lost(&mut self, stream: StreamId) {
        let Some(process) = &mut self.process else { return };
        if let Some(link) = process.sessions.remove(&stream)
            && let Some(node) = process.fleet.get_mut(&link.node)
        {
            node.link.take_if(|of| *of == stream);
        }
    }

    pub(crate) fn hear(&mut self, stream: StreamId, message: FromNode, now: Micros) -> Vec<Effect> {
        let Some(process) = &mut self.process else { return Vec::new() };
        let Some(link) = process.sessions.get_mut(&stream) else { return Vec::new() };
        let acts = link.engine.hear(message, &process.history, moment(now));
        let mut effects = Vec::new();
        for act in acts {
            let Some(link) = process.sessions.get_mut(&stream) else { return effects };
            match act {
                Act::Send(message) => effects.push(Effect::Say(stream, message)),
                Act::Registered(hello) => {
                    let name = link.node.clone();
                    let Some(registered) = self.database.nodes.get_mut(&name) else {
                        let refusal = Refusal::new(Reason::UnknownNode, "it was removed");
                        process.sessions.remove(&stream);
                        effects.push(Effect::Say(stream, FromControl::Refused(refusal)));
                        effects.push(Effect::HangUp(stream));
                        return effects;
                    };
                    registered.incarnation = hello.incarnation.get();
                    registered.peers = hello.addresses.peers;
                    registered.backends_mib.clone_from(&hello.backends_mib);
                    let node = process.fleet.entry(name).or_default();
                    node.hello = Some(hello);
                    node.refusing_since = None;
                    if let Some(old) = node.link.replace(stream) {
                        process.sessions.remove(&old);
                        effects.push(Effect::HangUp(old));
                    }
                }
                Act::Prepared { epoch, digest, connected } => {
                    link.prepared = Some((epoch, digest, connected));
                }
                Act::Committed { epoch, digest } => link.committed = Some((epoch, digest)),
                Act::Close(refusal) => {
                    effects.push(Effect::Say(stream, FromControl::Refused(refusal)));
                    effects.push(Effect::HangUp(stream));
                    self.lost(stream);
                    return effects;
                }
                Act::Used(report) => process.quota.hear(&link.node, &report),
                Act::Acknowledged(_)
                | Act::Reported(_)
                | Act::Answered { .. }
                | Act::Renew { .. }
                | Act::Alarm(_) => (),
            }
        }
        effects.extend(self.drive(now));
        effects
    }

    /// Notes which nodes' machines say that nobody listens there.
    pub(crate) fn note_refusing(&mut self, refusing: &BTreeSet<NodeName>, now: Micros) {
        let Some(process) = &mut self.process else { return };
        for (name, node) in &mut process.fleet {
            if node.link.is_none() && refusing.contains(name) {
                node.refusing_since.get_or_insert(now);
            } else {
                node.refusing_since = None;
            }
        }
    }

    /// What time alone makes due.
    pub(crate) fn look(&mut self, now: Micros) -> Vec<Effect> {
        let mut effects = Vec::new();
        let Some(process) = &mut self.process else { return effects };
        let streams: Vec<StreamId> = process.sessions.keys().copied().collect();
        for stream in streams {
            let Some(link) = process.sessions.get_mut(&stream) else { continue };
            let acts = link.engine.look(moment(now));
            if acts.iter().any(|act| matches!(act, Act::Close(_))) {
                effects.push(Effect::HangUp(stream));
                let node = link.node.clone();
                process.sessions.remove(&stream);
                if let Some(node) = process.fleet.get_mut(&node) {
                    node.link.take_if(|of| *of == stream);
                }
                continue;
            }
            let is_due = link.beaten_at.is_none_or(|at| moment(at) + HEARTBEAT <= moment(now));
            if link.engine.is_open() && is_due {
                link.beaten_at = Some(now);
                effects.push(Effect::Say(stream, beat(&process.history, &process.announced)));
            }
        }
        effects.extend(self.drive(now));
        effects.extend(self.divide(now));
        effects
    }

    /// Divides the caches' limits, as `control::push::quota` does once a second, and tells the nodes.
    fn divide(&mut self, now: Micros) -> Vec<Effect> {
        let mut effects = Vec::new();
        let Some(process) = &mut self.process else { return effects };
        let database = &self.database;
        let limit = |id| database.records.cache(id).map(|cache| cache.limits.memory_bytes);
        if process.divided_at + micros(DIVIDE_EVERY) <= now {
            process.divided_at = now;
            let committed = process.announced.committed.clone();
            let epoch = committed.as_ref().map_or(Epoch::new(0), |topology| topology.epoch());
            let before = process.divided_for.replace((database.revision, epoch));
            if let Some(topology) = committed
                && before.is_none_or(|(_, before)| before != epoch)
            {
                process.quota.follow(&topology);
            }
            if before.is_none_or(|(before, _)| before != database.revision) {
                process.quota.follow_limits(&limit);
            }
            while process.quota.divide(&limit) {}
        }
        for (&stream, link) in &process.sessions {
            if link.engine.is_open() && USAGE_VERSION <= link.engine.version() {
                let epoch = link.told.as_ref().and_then(Announced::epoch);
                let shares = process.quota.take(&link.node, epoch, SHARES_MAX);
                if !shares.is_empty() {
                    effects.push(Effect::Say(stream, FromControl::Shares(shares)));
                }
            }
        }
        effects
    }

    /// Decides and acts until there is nothing to do, and tells everyone.
    pub(crate) fn drive(&mut self, now: Micros) -> Vec<Effect> {
        let mut effects = Vec::new();
        while let Some(step) = self.step(now) {
            effects.extend(step);
        }
        effects.extend(self.tell(now));
        effects
    }

    fn step(&mut self, now: Micros) -> Option<Vec<Effect>> {
        let process = self.process.as_mut()?;
        let seen = process.look(now);
        let situation = Situation {
            preparing_for: moment(now - process.preparing_since),
            failover: Failover::default(),
            since_given_up: process.given_up_at.map(|at| moment(now - at)),
            wishes: &process.wishes,
        };
        let next = decide(&process.announced, &seen, situation);
        let mut effects = match next {
            Next::Nothing => Vec::new(),
            Next::Prepare(_) if now < process.held_until => Vec::new(),
            Next::Prepare(members) => {
                self.database.highest += 1;
                process.prepare(members, self.database.highest, now)
            }
            Next::Commit => {
                let effects = process.commit(now);
                self.database.keep(&process.announced);
                effects
            }
            Next::Abort => {
                if moment(process.preparing_since) + PREPARE_TIME_MAX <= moment(now) {
                    process.held_until = now + micros(RETRY_AFTER);
                }
                process.announced.prepared = None;
                vec![Effect::Aborted]
            }
            Next::Settle => {
                process.announced.settle();
                self.database.keep(&process.announced);
                vec![Effect::Settled(process.announced.settled)]
            }
        };
        effects.extend(self.fulfil());
        (!effects.is_empty()).then_some(effects)
    }

    /// Ends the wishes that the topology in force fulfils.
    fn fulfil(&mut self) -> Vec<Effect> {
        let Some(process) = &mut self.process else { return Vec::new() };
        let announced = &process.announced;
        let is_in = |name: &NodeName| {
            let topologies = [&announced.committed, &announced.prepared];
            topologies.into_iter().flatten().any(|topology| has_node(topology, name))
        };
        let gone: Vec<NodeName> =
            process.wishes.removing.iter().filter(|name| !is_in(name)).cloned().collect();
        let mut effects = Vec::new();
        for name in gone {
            self.database.nodes.remove(&name);
            if let Some(node) = process.fleet.remove(&name)
                && let Some(stream) = node.link
            {
                process.sessions.remove(&stream);
                effects.push(Effect::HangUp(stream));
            }
            process.wishes.removing.remove(&name);
            effects.push(Effect::Forgotten(name));
        }
        if let Some(committed) = &process.announced.committed {
            let has = |name: &MemberName, weight: Weight| {
                committed.members().iter().any(|it| it.name == *name && it.weight == weight)
            };
            process.wishes.weights.retain(|name, weight| !has(name, *weight));
        }
        effects
    }

    /// Tells every node what it does not know yet.
    fn tell(&mut self, now: Micros) -> Vec<Effect> {
        let mut effects = Vec::new();
        let Some(process) = &mut self.process else { return effects };
        for (&stream, link) in &mut process.sessions {
            if !link.engine.is_open() {
                continue;
            }
            let mut say = |message| effects.push(Effect::Say(stream, message));
            if link.told.as_ref() != Some(&process.announced) {
                let before = link.told.replace(process.announced.clone()).unwrap_or_default();
                announce(&before, &process.announced, &process.history, &mut say);
            }
            match link.engine.next_push(&process.history, moment(now)) {
                // Nodes of one version only are played.
                Push::Nothing | Push::Refused(_) => (),
                Push::Deltas { after, count } => {
                    let entries = process.history.after(after).into_iter().flatten();
                    let count = usize::try_from(count).expect("few");
                    for entry in entries.take(count) {
                        say(FromControl::Delta((*entry.delta).clone()));
                    }
                }
                Push::Snapshot { forced } => {
                    let (revision, digest) = process.history.head();
                    let records = &self.database.records;
                    let count = |count| u32::try_from(count).expect("few");
                    let caches = count(records.caches());
                    let credentials = count(records.credentials());
                    let head = SnapshotHead { revision, digest, caches, credentials, forced };
                    link.engine.snapshot_sent(revision);
                    say(FromControl::SnapshotBegin(head));
                    say(FromControl::SnapshotChunk(records.iter().collect()));
                    say(FromControl::SnapshotEnd);
                }
            }
        }
        effects
    }
}

impl ControlProcess {
    fn look(&self, now: Micros) -> BTreeMap<NodeName, Seen> {
        let seen = |(name, node): (&NodeName, &FleetNode)| {
            let members = node.hello.as_ref().map_or_else(Vec::new, |hello| {
                members_of(&RegisteredNode {
                    name: name.to_string(),
                    key_digest: [0; 32],
                    incarnation: hello.incarnation.get(),
                    peers: hello.addresses.peers,
                    backends_mib: hello.backends_mib.clone(),
                })
            });
            let link = node.link.and_then(|stream| self.sessions.get(&stream));
            let seen = Seen {
                members,
                is_connected: link.is_some(),
                prepared: link.and_then(|link| link.prepared),
                committed: link.and_then(|link| link.committed),
                dead_for: node.refusing_since.map(|since| moment(now - since)),
            };
            (name.clone(), seen)
        };
        self.fleet.iter().map(seen).collect()
    }

    fn prepare(&mut self, members: Vec<TopologyMember>, highest: u64, now: Micros) -> Vec<Effect> {
        let placement = Placement::Scheme(Scheme::Maglev);
        let Ok(topology) = Topology::new(Epoch::new(highest), SLOT_KEY, members, placement) else {
            self.held_until = now + micros(RETRY_AFTER);
            return Vec::new();
        };
        let before = self.announced.committed.as_ref().map_or(&[][..], |it| it.members());
        let mut dropped = before.iter().filter(|it| !has_node(&topology, &it.node));
        let forced = dropped.all(|it| self.wishes.removing.contains(&it.node));
        self.preparing_since = now;
        let topology = Arc::new(topology);
        self.announced.prepared = Some(Arc::clone(&topology));
        self.announced.forced = forced;
        vec![Effect::Prepared(topology)]
    }

    fn commit(&mut self, now: Micros) -> Vec<Effect> {
        let Some(prepared) = self.announced.prepared.clone() else { return Vec::new() };
        let before = self.announced.committed.clone();
        self.announced.put_in_force(Arc::clone(&prepared));
        let mut effects = Vec::new();
        let members = before.as_ref().map_or(&[][..], |it| it.members());
        let left_out = members
            .iter()
            .find(|it| !has_node(&prepared, &it.node) && !self.wishes.removing.contains(&it.node));
        if let Some(member) = left_out {
            self.given_up_at = Some(now);
            effects.push(Effect::GivenUp(member.node.clone()));
        }
        effects.push(Effect::Committed { before, now: prepared });
        effects
    }
}

/// What a connection is told of epochs, in the order of `control::push::server`.
fn announce(
    before: &Announced,
    now: &Announced,
    history: &History,
    say: &mut impl FnMut(FromControl),
) {
    if now.settled != before.settled {
        say(beat(history, now));
    }
    let prepare = |topology: &Arc<Topology>| FromControl::Prepare {
        topology: Arc::clone(topology),
        forced: now.forced,
    };
    if now.committed != before.committed
        && let Some(topology) = &now.committed
    {
        if before.prepared.as_ref() != Some(topology) {
            say(prepare(topology));
        }
        say(FromControl::Commit { epoch: topology.epoch(), digest: topology.digest() });
    }
    if now.prepared != before.prepared {
        if let Some(topology) = &now.prepared {
            say(prepare(topology));
        } else if let Some(given_up) = &before.prepared
            && now.committed.as_ref() != Some(given_up)
        {
            say(FromControl::Abort { epoch: given_up.epoch() });
        }
    }
}

fn beat(history: &History, announced: &Announced) -> FromControl {
    let (revision, digest) = history.head();
    FromControl::Heartbeat { revision, digest, settled: announced.settled }
}

fn has_node(topology: &Topology, node: &NodeName) -> bool {
    topology.members().iter().any(|member| member.node == *node)
}

fn moment(at: Micros) -> Duration {
    Duration::from_micros(at)
}
