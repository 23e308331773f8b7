//! Leads the cluster from one topology to the next: PREPARE, wait for every link, COMMIT, wait until
//! all route by it.
//!
//! ```text
//!             members differ               all have all links
//!   settled e ──────────────▶ preparing e+1 ─────────────────▶ committed e+1 ──▶ settled e+1
//!                               │ members changed again,            (every node has said
//!                               ▼ or it took too long                COMMITTED)
//!                             aborted; looked at anew
//! ```
//!
//! It looks at what nodes there are, what they said and what operators wish, decides purely
//! ([`decide`]), does one step, and looks again; so it can be stopped and started anywhere. No epoch is
//! begun before the one in force is settled, unless the new one leaves out who has not acknowledged, or
//! a member has come back as another run of its process and the old run's items are gone anyway. A new
//! weight for whoever has not acknowledged waits: it would move slots that he still serves, and until he
//! hears of it nobody else could.
//!
//! A node that is away keeps its slots: an empty cache hurts more than one that is down for a moment.
//! They are given to the others when its process is known to have ended ([`Failover`]) or an operator
//! says so ([`Wishes`]); `docs/decisions/0023-who-may-be-given-up.md` has the reasons.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use cluster::digest::Digest;
use cluster::map::Epoch;
use cluster::member::{Incarnation, MemberName, Weight};
use cluster::mistake::{Mistake, is_made};
use cluster::scheme::Scheme;
use daemon::networks::Networks;
use tokio::net::TcpStream;
use tokio::sync::watch;
use tokio::task::{JoinSet, spawn_blocking};
use tokio::time::timeout;
use wire::codec::Reader;
use wire::control::name::NodeName;
use wire::control::topology::{MemberSet, Placement, Topology, TopologyMember};

use super::chain::Chain;
use super::fleet::Fleet;
use super::source::{KeptEpochs, RegisteredNode, Registry, SourceError};

/// How long nodes may take to make their links. A link takes milliseconds; one that takes longer than
/// this will not be made before someone mends the network.
pub const PREPARE_TIME_MAX: Duration = Duration::from_secs(10);
/// After an attempt that failed, so that a broken link does not make a new epoch every moment. Each
/// attempt takes [`PREPARE_TIME_MAX`] already.
pub const RETRY_AFTER: Duration = Duration::from_secs(1);
/// How often to look when nothing happens: for what only time changes.
const LOOK_EVERY: Duration = Duration::from_millis(500);
/// For a machine to say whether anyone listens there.
const PROBE_TIME_MAX: Duration = Duration::from_millis(250);
/// When more nodes than this are away, it is rather this control plane that is: nobody is probed, and
/// nobody is taken for dead.
const PROBED_MAX: usize = 16;

/// When the slots of a node whose process has ended are given to the others without asking anyone.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Failover {
    /// For so long nobody has listened at the node's addresses. A process that is only restarted is
    /// back before, and its slots need not move twice.
    pub hold_down: Duration,
    /// Between two nodes that are given up. Whatever ends one process after another shall not empty a
    /// cluster faster than people can look.
    pub cold_interval: Duration,
}

impl Default for Failover {
    fn default() -> Self {
        Failover { hold_down: Duration::from_secs(10), cold_interval: Duration::from_secs(10 * 60) }
    }
}

/// What a cluster's owner has decided about it.
#[derive(Debug, Clone)]
pub struct ClusterRules {
    pub failover: Failover,
    /// Where nodes may be.
    pub networks: Networks,
}

impl Default for ClusterRules {
    fn default() -> Self {
        ClusterRules { failover: Failover::default(), networks: Networks::private() }
    }
}

/// What operators want of the members. Kept until the topology in force says it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Wishes {
    pub weights: BTreeMap<MemberName, Weight>,
    /// Nodes that shall be forgotten: their processes have ended, or serve nothing any more.
    pub removing: BTreeSet<NodeName>,
    /// Make a newer epoch than this one even if its members are the same, so that every node makes
    /// sure of every link.
    pub refresh_after: Option<Epoch>,
}

/// What besides nodes and topologies a decision depends on.
#[derive(Debug, Clone, Copy)]
pub struct Situation<'a> {
    /// How long the epoch that is being prepared has been.
    pub preparing_for: Duration,
    pub failover: Failover,
    /// Since a node was last given up without asking anyone; `None` when none was.
    pub since_given_up: Option<Duration>,
    pub wishes: &'a Wishes,
}

/// What nodes are told of topologies, and which of them may come back with which.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Announced {
    pub committed: Option<Arc<Topology>>,
    pub prepared: Option<Arc<Topology>>,
    pub settled: Epoch,
    /// What was in force before `committed` and was not settled since.
    pub chain: Chain,
    /// A person has confirmed that members are dropped.
    pub forced: bool,
}

impl Default for Announced {
    /// Before the first epoch.
    fn default() -> Self {
        Announced {
            committed: None,
            prepared: None,
            settled: Epoch::new(0),
            chain: Chain::default(),
            forced: false,
        }
    }
}

impl Announced {
    /// What is in force.
    pub fn epoch(&self) -> Option<Epoch> {
        self.committed.as_ref().map(|topology| topology.epoch())
    }

    /// As control goes on with after a restart.
    fn kept(kept: &KeptEpochs) -> Result<Self, SourceError> {
        let mut announced = Announced { settled: Epoch::new(kept.settled), ..Announced::default() };
        for topology in &kept.topologies {
            announced.put_in_force(Arc::new(decode(topology)?));
        }
        Ok(announced)
    }

    /// A topology has been committed.
    pub fn put_in_force(&mut self, topology: Arc<Topology>) {
        if let Some(superseded) = self.committed.replace(topology) {
            self.chain.add(&superseded);
        }
        self.prepared = None;
    }

    /// All nodes of the topology in force have it on their disks.
    pub fn settle(&mut self) {
        if let Some(committed) = &self.committed {
            self.settled = committed.epoch();
            self.chain = Chain::default();
        }
    }
}

/// One node as the decision sees it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Seen {
    pub members: Vec<TopologyMember>,
    pub is_connected: bool,
    pub prepared: Option<(Epoch, Digest, MemberSet)>,
    pub committed: Option<(Epoch, Digest)>,
    /// For how long it has been away while its machine said that nobody listens at its addresses.
    pub dead_for: Option<Duration>,
}

/// What to do next.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Next {
    Nothing,
    Prepare(Vec<TopologyMember>),
    Commit,
    Abort,
    Settle,
}

/// Decides what to do with these nodes.
pub fn decide(
    announced: &Announced,
    nodes: &BTreeMap<NodeName, Seen>,
    situation: Situation<'_>,
) -> Next {
    let wanted = wanted(announced, nodes, situation);
    if let Some(prepared) = &announced.prepared {
        let is_over = PREPARE_TIME_MAX <= situation.preparing_for;
        return if wanted != prepared.members() || is_over {
            Next::Abort
        } else if is_ready(prepared, nodes, situation.wishes) {
            Next::Commit
        } else {
            Next::Nothing
        };
    }
    let Some(committed) = &announced.committed else {
        return if wanted.is_empty() { Next::Nothing } else { Next::Prepare(wanted) };
    };
    let state = Some((committed.epoch(), committed.digest()));
    let mut of_committed = nodes.iter().filter(|(name, _)| has_node(committed, name));
    let is_settled = announced.settled == committed.epoch();
    let mut all_have = of_committed.all(|(_, seen)| seen.is_connected && seen.committed == state);
    all_have |= is_made(Mistake::SettlesEarly);
    if !is_settled && all_have {
        return Next::Settle;
    }
    let is_refreshed = situation.wishes.refresh_after.is_none_or(|it| it < committed.epoch());
    if wanted.is_empty() || (wanted == committed.members() && is_refreshed) {
        return Next::Nothing;
    }
    // Who holds the epoch up: members that have not said that they route by it.
    let leaves_out_the_silent = || {
        nodes.iter().all(|(name, seen)| {
            let stays = |member: &TopologyMember| wanted.iter().any(|it| is_same_run(it, member));
            let mut members = committed.members().iter().filter(|member| member.node == *name);
            !members.any(stays) || seen.committed == state
        })
    };
    if is_settled || leaves_out_the_silent() { Next::Prepare(wanted) } else { Next::Nothing }
}

fn is_same_run(one: &TopologyMember, other: &TopologyMember) -> bool {
    (&one.name, one.incarnation) == (&other.name, other.incarnation)
}

fn has_node(topology: &Topology, node: &NodeName) -> bool {
    topology.members().iter().any(|member| member.node == *node)
}

/// Whether every node that is there has links to every member that is there. Those that are away
/// cannot be reached, and shall not keep the others from going on.
fn is_ready(prepared: &Topology, nodes: &BTreeMap<NodeName, Seen>, wishes: &Wishes) -> bool {
    let mut asked = asked(prepared, nodes, wishes).peekable();
    let needed: Vec<usize> = prepared
        .members()
        .iter()
        .enumerate()
        .filter(|(_, member)| nodes.get(&member.node).is_some_and(|seen| seen.is_connected))
        .map(|(index, _)| index)
        .collect();
    asked.peek().is_some()
        && asked.all(|(_, seen)| {
            seen.prepared.is_some_and(|(epoch, digest, connected)| {
                (epoch, digest) == (prepared.epoch(), prepared.digest())
                    && needed.iter().all(|&member| connected.contains(member))
            })
        })
}

/// The nodes that must be ready before an epoch is committed: those that are there, without those that
/// a person removes by it.
fn asked<'a>(
    topology: &'a Topology,
    nodes: &'a BTreeMap<NodeName, Seen>,
    wishes: &'a Wishes,
) -> impl Iterator<Item = (&'a NodeName, &'a Seen)> {
    let is_removed =
        move |name: &NodeName| wishes.removing.contains(name) && !has_node(topology, name);
    nodes.iter().filter(move |(name, seen)| seen.is_connected && !is_removed(name))
}

/// The members that there should be: those of every registered node that has told its address, with
/// the weights they have or that operators wish. One that is away stays what it was, until it is given
/// up.
fn wanted(
    announced: &Announced,
    nodes: &BTreeMap<NodeName, Seen>,
    situation: Situation<'_>,
) -> Vec<TopologyMember> {
    let before = announced.committed.as_ref().map_or(&[][..], |it| it.members());
    let given_up = given_up(announced, nodes, situation);
    let mut members: Vec<TopologyMember> = Vec::new();
    for (name, seen) in nodes {
        // A member that a person removes stays while another is given up.
        let stays = given_up.is_some() && before.iter().any(|it| it.node == *name);
        let is_removed = situation.wishes.removing.contains(name) && !stays;
        if is_removed || given_up.as_ref() == Some(name) {
            continue;
        }
        // Also one that has just been started again, and does not listen yet.
        if seen.is_connected && !seen.members.is_empty() {
            members.extend(seen.members.iter().cloned());
        } else {
            members.extend(before.iter().filter(|it| it.node == *name).cloned());
        }
    }
    for member in &mut members {
        if let Some(had) = before.iter().find(|it| it.name == member.name) {
            member.weight = had.weight;
        }
    }
    weigh(&mut members, &situation.wishes.weights);
    members.sort_by(|a, b| a.name.cmp(&b.name));
    members
}

/// Gives members the weights that operators wish, unless all of these together would leave nobody to serve:
/// then they wait, and every member stays what it is. Who wished one of them could not know that another
/// node would be given up, or would have to be removed.
pub(super) fn weigh(members: &mut [TopologyMember], wished: &BTreeMap<MemberName, Weight>) {
    let weight =
        |member: &TopologyMember| wished.get(&member.name).copied().unwrap_or(member.weight);
    if members.iter().all(|member| weight(member) == Weight::NOTHING) {
        return;
    }
    for member in members {
        member.weight = weight(member);
    }
}

/// The node whose slots are to be given away although nobody asked for it: its process is known to
/// have ended, others are there to take them, and it is the only one in a long time.
fn given_up(
    announced: &Announced,
    nodes: &BTreeMap<NodeName, Seen>,
    situation: Situation<'_>,
) -> Option<NodeName> {
    let committed = announced.committed.as_ref()?;
    let is_removed = |name: &NodeName| situation.wishes.removing.contains(name);
    let of_committed: Vec<_> = nodes.iter().filter(|(name, _)| has_node(committed, name)).collect();
    // A node that comes back asks as many others whether they have heard of an epoch without it that one
    // of these must be among them (`cluster::comeback`). So this holds until the commit.
    let hearing = asked(committed, nodes, situation.wishes).map(|(name, _)| name).collect();
    let is_heard = |name: &NodeName| announced.chain.is_heard_by_half(name, committed, &hearing);
    let dead: Vec<_> = of_committed
        .iter()
        .filter(|(name, seen)| {
            let is_dead = situation.failover.hold_down <= seen.dead_for.unwrap_or_default()
                || is_made(Mistake::GivesUpTheSilent) && !seen.is_connected;
            is_dead && !is_removed(name) && is_heard(name)
        })
        .collect();
    // Whom a person removes goes first: nodes take the one from their callers, and not the other. But
    // while the epoch in force is not settled, a removal would wait for the dead to acknowledge it.
    let is_settled = announced.settled == committed.epoch();
    if is_settled && of_committed.iter().any(|(name, _)| is_removed(name)) {
        return None;
    }
    // The choice stays while the epoch without it is being prepared.
    if let Some(prepared) = &announced.prepared {
        let left_out = dead.iter().find(|(name, _)| !has_node(prepared, name));
        return left_out.map(|(name, _)| (*name).clone());
    }
    let is_too_soon =
        situation.since_given_up.is_some_and(|it| it < situation.failover.cold_interval);
    if is_too_soon {
        return None;
    }
    let longest = dead.iter().max_by_key(|(_, seen)| seen.dead_for)?;
    Some(longest.0.clone())
}

/// The backends of a node as members.
pub fn members_of(node: &RegisteredNode) -> Vec<TopologyMember> {
    let (Ok(name), Some(address)) = (NodeName::parse(&node.name), node.peers) else {
        return Vec::new();
    };
    let member = |(number, &mib): (usize, &u32)| {
        let name_text = format!("{name}.b{number}");
        Some(TopologyMember {
            name: MemberName::parse(&name_text).ok()?,
            node: name.clone(),
            incarnation: Incarnation::new(node.incarnation),
            address,
            weight: Weight::new(mib),
        })
    };
    node.backends_mib.iter().enumerate().filter_map(member).collect()
}

/// Carries the decisions out.
pub struct Driver {
    registry: Arc<dyn Registry>,
    fleet: Arc<Fleet>,
    announced: watch::Sender<Announced>,
    slot_key: [u8; 16],
    highest: u64,
    preparing_since: Instant,
    /// Whom the registry waits for before it puts in force what is prepared.
    asked: Vec<String>,
    held_until: Option<Instant>,
    failover: Failover,
    given_up_at: Option<Instant>,
    wishes: Arc<watch::Sender<Wishes>>,
}

impl Driver {
    /// Reads what is in force, and makes every registered node known to the fleet. Blocks.
    pub fn open(registry: Arc<dyn Registry>, fleet: Arc<Fleet>) -> Result<Self, SourceError> {
        let slot_key = registry.slot_key()?;
        let kept = registry.epochs()?;
        let announced = Announced::kept(&kept)?;
        for node in registry.nodes()? {
            if let Ok(name) = NodeName::parse(&node.name) {
                fleet.add(&name);
            }
        }
        Ok(Driver {
            registry,
            fleet,
            announced: watch::Sender::new(announced),
            slot_key,
            highest: kept.highest,
            preparing_since: Instant::now(),
            asked: Vec::new(),
            held_until: None,
            failover: Failover::default(),
            given_up_at: None,
            wishes: Arc::new(watch::Sender::new(Wishes::default())),
        })
    }

    /// From when on nodes are given up.
    pub fn set_failover(&mut self, failover: Failover) {
        self.failover = failover;
    }

    /// Where operators' wishes are put.
    pub fn wishes(&self) -> Arc<watch::Sender<Wishes>> {
        Arc::clone(&self.wishes)
    }

    /// What sessions tell their nodes.
    pub fn subscribe(&self) -> watch::Receiver<Announced> {
        self.announced.subscribe()
    }

    /// Drives until the task is dropped.
    pub async fn run(mut self) {
        let mut changed = self.fleet.subscribe();
        let mut wished = self.wishes.subscribe();
        let mut look = tokio::time::interval(LOOK_EVERY);
        look.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                told = changed.changed() => if told.is_err() { return },
                told = wished.changed() => if told.is_err() { return },
                _ = look.tick() => self.probe().await,
            }
            let seen = self.look();
            let announced = self.announced.borrow().clone();
            let wishes = self.wishes.borrow().clone();
            let situation = Situation {
                preparing_for: self.preparing_since.elapsed(),
                failover: self.failover,
                since_given_up: self.given_up_at.map(|at| at.elapsed()),
                wishes: &wishes,
            };
            let next = decide(&announced, &seen, situation);
            let mut done = self.carry_out(next, announced, &seen).await;
            if done.is_ok() {
                done = self.fulfil(wishes).await;
            }
            if let Err(error) = done {
                tracing::error!(error = &error as &dyn std::error::Error, "epoch not moved on");
                self.held_until = Some(Instant::now() + RETRY_AFTER);
            }
        }
    }

    /// Asks the machines of nodes that are away whether anyone listens at the nodes' addresses. A
    /// process listens for as long as it serves anybody, so "nobody" says that it has ended; silence
    /// says nothing.
    async fn probe(&self) {
        let committed = self.announced.borrow().committed.clone();
        let Some(committed) = committed else { return };
        let nodes = self.fleet.nodes();
        let away: Vec<_> = nodes
            .iter()
            .filter(|(name, node)| node.link.is_none() && has_node(&committed, name))
            .collect();
        let mut probes = JoinSet::new();
        for (name, node) in away.iter().filter(|_| away.len() <= PROBED_MAX) {
            let members = committed.members().iter().filter(|member| member.node == **name);
            let mut addresses: BTreeSet<SocketAddr> = members.map(|it| it.address).collect();
            addresses.extend(node.addresses().clients);
            let name = (*name).clone();
            probes.spawn(async move {
                for address in addresses {
                    if !refuses(address).await {
                        return (name, false);
                    }
                }
                (name, true)
            });
        }
        let answers = probes.join_all().await;
        self.fleet
            .note_refusing(answers.into_iter().filter(|(_, refuses)| *refuses).map(|it| it.0));
    }

    /// Ends the wishes that the topology in force fulfils, and forgets nodes that are in none any more.
    async fn fulfil(&self, wishes: Wishes) -> Result<(), SourceError> {
        let announced = self.announced.borrow().clone();
        let is_in = |name: &NodeName| {
            let topologies = [&announced.committed, &announced.prepared];
            topologies.into_iter().flatten().any(|topology| has_node(topology, name))
        };
        for name in wishes.removing.into_iter().filter(|name| !is_in(name)) {
            let text = name.to_string();
            self.ask(move |registry| registry.remove_node(&text)).await?;
            tracing::info!(node = %name, "node forgotten");
            self.fleet.remove(&name);
            self.wishes.send_if_modified(|wishes| wishes.removing.remove(&name));
        }
        let Some(committed) = &announced.committed else { return Ok(()) };
        let has = |name: &MemberName, weight: Weight| {
            committed.members().iter().any(|it| it.name == *name && it.weight == weight)
        };
        let fulfilled = |wishes: &Wishes| {
            wishes.weights.iter().any(|(name, &weight)| has(name, weight))
                || wishes.refresh_after.is_some_and(|epoch| epoch < committed.epoch())
        };
        if fulfilled(&self.wishes.borrow()) {
            self.wishes.send_modify(|wishes| {
                wishes.weights.retain(|name, weight| !has(name, *weight));
                wishes.refresh_after.take_if(|epoch| *epoch < committed.epoch());
            });
        }
        Ok(())
    }

    fn look(&self) -> BTreeMap<NodeName, Seen> {
        let seen = |(name, node): (NodeName, super::fleet::FleetNode)| {
            let members = node.hello.as_ref().map_or_else(Vec::new, |hello| {
                members_of(&RegisteredNode {
                    name: name.to_string(),
                    key_digest: [0; 32],
                    incarnation: hello.incarnation.get(),
                    peers: hello.addresses.peers,
                    backends_mib: hello.backends_mib.clone(),
                })
            });
            // A connection counts once its node has introduced itself.
            let link = node.session().filter(|_| node.hello.is_some());
            let seen = Seen {
                members,
                is_connected: link.is_some(),
                prepared: link.and_then(|link| link.prepared),
                committed: link.and_then(|link| link.committed),
                dead_for: node.refusing_since.map(|since| since.elapsed()),
            };
            (name, seen)
        };
        self.fleet.nodes().into_iter().map(seen).collect()
    }

    async fn carry_out(
        &mut self,
        next: Next,
        announced: Announced,
        seen: &BTreeMap<NodeName, Seen>,
    ) -> Result<(), SourceError> {
        match next {
            Next::Nothing => Ok(()),
            Next::Prepare(_) if self.held_until.is_some_and(|until| Instant::now() < until) => {
                Ok(())
            }
            Next::Prepare(members) => self.prepare(members, announced, seen).await,
            Next::Commit => self.commit(announced, seen).await,
            Next::Abort => {
                // Members that have changed are told at once; links that are not made need time.
                if PREPARE_TIME_MAX <= self.preparing_since.elapsed() {
                    self.held_until = Some(Instant::now() + RETRY_AFTER);
                }
                self.abort(announced, "members changed, or links were not made in time").await
            }
            Next::Settle => {
                let Some(committed) = &announced.committed else { return Ok(()) };
                let settled = committed.epoch();
                self.ask(move |registry| registry.settle_epoch(settled.get())).await?;
                tracing::info!(epoch = settled.get(), "epoch settled");
                self.announced.send_modify(Announced::settle);
                Ok(())
            }
        }
    }

    async fn prepare(
        &mut self,
        members: Vec<TopologyMember>,
        announced: Announced,
        seen: &BTreeMap<NodeName, Seen>,
    ) -> Result<(), SourceError> {
        self.highest += 1;
        let epoch = Epoch::new(self.highest);
        let placement = Placement::Scheme(Scheme::Maglev);
        let topology = Topology::new(epoch, self.slot_key, members, placement)
            .map_err(|error| SourceError::Broken(error.to_string()))?;
        let mut bytes = Vec::new();
        topology.encode(&mut bytes);
        let digest = *topology.digest().as_bytes();
        let nodes = self.asked(&topology, seen);
        // Whoever removes nodes by name has confirmed it.
        let before = announced.committed.as_ref().map_or(&[][..], |it| it.members());
        let mut dropped = before.iter().filter(|it| !has_node(&topology, &it.node));
        let forced = dropped.all(|it| self.wishes.borrow().removing.contains(&it.node));
        tracing::info!(epoch = epoch.get(), members = topology.members().len(), "epoch prepared");
        self.asked.clone_from(&nodes);
        self.ask(move |registry| registry.prepare_epoch(epoch.get(), &bytes, digest, &nodes))
            .await?;
        self.preparing_since = Instant::now();
        let prepared = Some(Arc::new(topology));
        self.announced.send_replace(Announced { prepared, forced, ..announced });
        Ok(())
    }

    fn asked(&self, topology: &Topology, seen: &BTreeMap<NodeName, Seen>) -> Vec<String> {
        let wishes = self.wishes.borrow();
        asked(topology, seen, &wishes).map(|(name, _)| name.to_string()).collect()
    }

    async fn commit(
        &mut self,
        announced: Announced,
        seen: &BTreeMap<NodeName, Seen>,
    ) -> Result<(), SourceError> {
        let Some(prepared) = announced.prepared.clone() else { return Ok(()) };
        let epoch = prepared.epoch();
        let nodes = self.asked(&prepared, seen);
        // The registry goes by those it was told of: it would wait for one that has gone, until the
        // preparation takes too long.
        if nodes != self.asked {
            return self.abort(announced, "nodes came or went").await;
        }
        self.ask(move |registry| {
            for node in &nodes {
                registry.acknowledge_epoch(epoch.get(), node)?;
            }
            registry.commit_epoch(epoch.get())
        })
        .await?;
        tracing::info!(epoch = epoch.get(), digest = %prepared.digest(), "epoch committed");
        let before = announced.committed.as_ref().map_or(&[][..], |it| it.members());
        let left_out = before.iter().find(|it| {
            !has_node(&prepared, &it.node) && !self.wishes.borrow().removing.contains(&it.node)
        });
        if let Some(member) = left_out {
            tracing::error!(node = %member.node, "given up: its slots begin empty with the others");
            self.given_up_at = Some(Instant::now());
        }
        self.announced.send_modify(|announced| announced.put_in_force(prepared));
        Ok(())
    }

    async fn abort(&mut self, announced: Announced, why: &'static str) -> Result<(), SourceError> {
        let Some(prepared) = &announced.prepared else { return Ok(()) };
        let epoch = prepared.epoch().get();
        tracing::warn!(epoch, why, "epoch aborted");
        self.ask(move |registry| registry.abort_epoch(epoch, why)).await?;
        self.announced.send_replace(Announced { prepared: None, ..announced });
        Ok(())
    }

    async fn ask<R: Send + 'static>(
        &self,
        ask: impl FnOnce(&dyn Registry) -> Result<R, SourceError> + Send + 'static,
    ) -> Result<R, SourceError> {
        let registry = Arc::clone(&self.registry);
        match spawn_blocking(move || ask(&*registry)).await {
            Ok(answer) => answer,
            Err(panicked) => Err(SourceError::Read(panicked.into())),
        }
    }
}

/// Whether the machine at this address says that nobody listens there.
async fn refuses(address: SocketAddr) -> bool {
    let connecting = timeout(PROBE_TIME_MAX, TcpStream::connect(address)).await;
    let refused = |error: io::Error| error.kind() == io::ErrorKind::ConnectionRefused;
    connecting.is_ok_and(|connected| connected.err().is_some_and(refused))
}

fn decode(bytes: &[u8]) -> Result<Topology, SourceError> {
    let mut reader = Reader::new(bytes);
    let topology = Topology::decode(&mut reader);
    let ended = topology.and_then(|topology| reader.end().map(|()| topology));
    ended.map_err(|error| SourceError::Broken(format!("a topology that was in force: {error}")))
}

#[cfg(test)]
mod tests {
    use std::sync::{Mutex, MutexGuard};

    use super::*;

    #[test]
    fn nodes_are_led_from_nothing_to_a_settled_epoch() {
        let mut nodes = BTreeMap::from([node("a", 1), node("b", 1)]);
        let mut announced = Announced::default();
        let Next::Prepare(members) = check(&announced, &nodes) else { panic!("it begins") };
        assert_eq!(members.len(), 2);
        let first = topology(1, &nodes);
        announced.prepared = Some(Arc::clone(&first));
        assert_eq!(check(&announced, &nodes), Next::Nothing);
        say_prepared(&mut nodes, "a", &first, MemberSet::first(2));
        say_prepared(&mut nodes, "b", &first, MemberSet::first(1));
        assert_eq!(check(&announced, &nodes), Next::Nothing);
        say_prepared(&mut nodes, "b", &first, MemberSet::first(2));
        assert_eq!(check(&announced, &nodes), Next::Commit);
        announced = Announced { committed: Some(Arc::clone(&first)), ..Announced::default() };
        assert_eq!(check(&announced, &nodes), Next::Nothing);
        say_committed(&mut nodes, &first);
        assert_eq!(check(&announced, &nodes), Next::Settle);
        announced.settled = first.epoch();
        assert_eq!(check(&announced, &nodes), Next::Nothing);
    }

    #[test]
    fn a_preparation_that_takes_too_long_or_is_overtaken_is_aborted() {
        let mut nodes = BTreeMap::from([node("a", 1), node("b", 1)]);
        let prepared = Some(topology(1, &nodes));
        let announced = Announced { prepared, ..Announced::default() };
        let none = Wishes::default();
        assert_eq!(
            decide(
                &announced,
                &nodes,
                Situation { preparing_for: PREPARE_TIME_MAX, ..quiet(&none) }
            ),
            Next::Abort
        );
        nodes.extend([node("c", 1)]);
        assert_eq!(check(&announced, &nodes), Next::Abort);
    }

    #[tokio::test]
    async fn an_epoch_is_begun_anew_when_one_that_was_asked_goes_away_before_the_commit() {
        let registry = Arc::new(Strict::default());
        let mut driver = Driver::open(registry, Arc::default()).expect("nothing is kept yet");
        let mut nodes: BTreeMap<_, _> = ["a", "b", "c"].map(|name| node(name, 1)).into();
        let first = step(&mut driver, &nodes).await.prepared.expect("it begins");
        for who in ["a", "b", "c"] {
            say_prepared(&mut nodes, who, &first, MemberSet::first(3));
        }
        assert_eq!(step(&mut driver, &nodes).await.committed, Some(Arc::clone(&first)));
        say_committed(&mut nodes, &first);
        assert_eq!(step(&mut driver, &nodes).await.settled, first.epoch());

        nodes.extend([node("b", 2)]);
        let second = step(&mut driver, &nodes).await.prepared.expect("b is another run");
        for who in ["a", "b"] {
            say_prepared(&mut nodes, who, &second, MemberSet::first(3));
        }
        nodes.insert(name("c"), away());
        assert_eq!(step(&mut driver, &nodes).await.prepared, None);
        let third = step(&mut driver, &nodes).await.prepared.expect("without asking c");
        for who in ["a", "b"] {
            say_prepared(&mut nodes, who, &third, MemberSet::first(2));
        }
        assert_eq!(step(&mut driver, &nodes).await.committed, Some(third));
    }

    async fn step(driver: &mut Driver, nodes: &BTreeMap<NodeName, Seen>) -> Announced {
        let announced = driver.announced.borrow().clone();
        let next = check(&announced, nodes);
        driver.carry_out(next, announced, nodes).await.expect("the registry takes it");
        driver.announced.borrow().clone()
    }

    /// Puts an epoch in force when those have acknowledged it whom it was told of, as the database does.
    #[derive(Default)]
    struct Strict {
        missing: Mutex<BTreeSet<String>>,
    }

    impl Strict {
        fn missing(&self) -> MutexGuard<'_, BTreeSet<String>> {
            self.missing.lock().expect("no thread has panicked")
        }
    }

    impl Registry for Strict {
        fn register_node(&self, _: &RegisteredNode) -> Result<(), SourceError> {
            Ok(())
        }

        fn remove_node(&self, _: &str) -> Result<bool, SourceError> {
            Ok(true)
        }

        fn nodes(&self) -> Result<Vec<RegisteredNode>, SourceError> {
            Ok(Vec::new())
        }

        fn slot_key(&self) -> Result<[u8; 16], SourceError> {
            Ok([1; 16])
        }

        fn epochs(&self) -> Result<KeptEpochs, SourceError> {
            Ok(KeptEpochs::default())
        }

        fn prepare_epoch(
            &self,
            _: u64,
            _: &[u8],
            _: [u8; 32],
            nodes: &[String],
        ) -> Result<(), SourceError> {
            *self.missing() = nodes.iter().cloned().collect();
            Ok(())
        }

        fn acknowledge_epoch(&self, _: u64, node: &str) -> Result<(), SourceError> {
            self.missing().remove(node);
            Ok(())
        }

        fn commit_epoch(&self, _: u64) -> Result<(), SourceError> {
            let missing = self.missing().len();
            let error = || SourceError::Broken(format!("{missing} have not acknowledged"));
            if missing == 0 { Ok(()) } else { Err(error()) }
        }

        fn abort_epoch(&self, _: u64, _: &str) -> Result<(), SourceError> {
            self.missing().clear();
            Ok(())
        }

        fn settle_epoch(&self, _: u64) -> Result<(), SourceError> {
            Ok(())
        }
    }

    #[test]
    fn a_node_that_is_away_stays_a_member() {
        let (mut nodes, announced) = settled(&["a", "b"]);
        nodes.insert(name("b"), Seen { is_connected: false, ..node("b", 1).1 });
        assert_eq!(check(&announced, &nodes), Next::Nothing);
        nodes.remove(&name("b"));
        assert!(matches!(check(&announced, &nodes), Next::Prepare(left) if left.len() == 1));
    }

    #[test]
    fn a_node_that_came_back_as_another_run_gets_a_new_epoch() {
        let (mut nodes, announced) = settled(&["a", "b"]);
        nodes.extend([node("b", 2)]);
        let Next::Prepare(members) = check(&announced, &nodes) else { panic!("it differs") };
        assert_eq!(members[1].incarnation, Incarnation::new(2));
    }

    #[test]
    fn no_epoch_begins_while_a_member_has_not_acknowledged_the_one_in_force() {
        let (mut nodes, mut announced) = settled(&["a", "b"]);
        announced.settled = Epoch::new(0);
        nodes.get_mut(&name("b")).expect("it is there").committed = None;
        nodes.extend([node("c", 1)]);
        assert_eq!(check(&announced, &nodes), Next::Nothing);
        // Unless the next one leaves it out, or it is another run of it.
        let mut left_out = nodes.clone();
        left_out.remove(&name("b"));
        assert_ne!(check(&announced, &left_out), Next::Nothing);
        nodes.extend([node("b", 2)]);
        assert_eq!(prepared_nodes(&check(&announced, &nodes)), ["a", "b", "c"]);
    }

    #[test]
    fn a_weight_waits_while_its_member_has_not_acknowledged_the_epoch_in_force() {
        let (mut nodes, mut announced) = settled(&["a", "b"]);
        announced.settled = Epoch::new(0);
        nodes.get_mut(&name("b")).expect("it is there").committed = None;
        let member = MemberName::parse("b.b0").expect("a good name");
        let weights = BTreeMap::from([(member, Weight::NOTHING)]);
        let wishes = Wishes { weights, ..Wishes::default() };
        assert_eq!(decide(&announced, &nodes, quiet(&wishes)), Next::Nothing);
        // It is removed: others may take its slots.
        let wishes = Wishes { removing: [name("b")].into(), ..wishes };
        assert_eq!(prepared_nodes(&decide(&announced, &nodes, quiet(&wishes))), ["a"]);
    }

    #[test]
    fn only_a_node_that_is_known_dead_for_long_enough_is_given_up() {
        let (mut nodes, announced) = settled(&["a", "b", "c"]);
        let hold_down = Failover::default().hold_down;
        let short = hold_down - Duration::from_millis(1);
        for (dead_for, is_given_up) in
            [(None, false), (Some(short), false), (Some(hold_down), true)]
        {
            nodes.insert(name("b"), Seen { dead_for, ..away() });
            let expected = if is_given_up { vec!["a", "c"] } else { Vec::new() };
            assert_eq!(prepared_nodes(&check(&announced, &nodes)), expected, "{dead_for:?}");
        }
    }

    #[test]
    fn the_second_dead_node_waits_for_an_operator_or_for_the_interval() {
        let (mut nodes, announced) = settled(&["a", "b", "c"]);
        nodes.insert(name("b"), Seen { dead_for: Some(LONG), ..away() });
        let mut wishes = Wishes::default();
        let interval = Failover::default().cold_interval;
        let soon = |wishes: &Wishes| {
            let since = interval - Duration::from_secs(1);
            decide(&announced, &nodes, Situation { since_given_up: Some(since), ..quiet(wishes) })
        };
        assert_eq!(soon(&wishes), Next::Nothing);
        wishes.removing.insert(name("b"));
        assert_eq!(prepared_nodes(&soon(&wishes)), ["a", "c"]);
        let none = Wishes::default();
        let later = Situation { since_given_up: Some(interval), ..quiet(&none) };
        assert_eq!(prepared_nodes(&decide(&announced, &nodes, later)), ["a", "c"]);
    }

    #[test]
    fn of_two_dead_nodes_one_is_given_up_and_the_choice_stays() {
        let (mut nodes, mut announced) = settled(&["a", "b", "c", "d"]);
        nodes.insert(name("b"), Seen { dead_for: Some(LONG), ..away() });
        nodes.insert(name("c"), Seen { dead_for: Some(LONG / 2), ..away() });
        let Next::Prepare(members) = check(&announced, &nodes) else { panic!("b is given up") };
        assert!(members.iter().all(|it| it.node != name("b")));
        let placement = Placement::Scheme(Scheme::Maglev);
        let next = Topology::new(Epoch::new(2), [1; 16], members, placement).expect("good");
        announced.prepared = Some(Arc::new(next.clone()));
        // The other is dead for as long by now.
        nodes.insert(name("c"), Seen { dead_for: Some(2 * LONG), ..away() });
        assert_eq!(check(&announced, &nodes), Next::Nothing);
        for who in ["a", "d"] {
            // Nobody waits for a link to the one that is dead and still a member.
            let mut links = MemberSet::NONE;
            links.insert(0);
            links.insert(2);
            say_prepared(&mut nodes, who, &next, links);
        }
        assert_eq!(check(&announced, &nodes), Next::Commit);
        // Once it answers again, it is not given up.
        nodes.extend([node("b", 1)]);
        assert_eq!(check(&announced, &nodes), Next::Abort);
    }

    #[test]
    fn nobody_is_given_up_by_a_control_plane_that_sees_less_than_half() {
        let (mut nodes, announced) = settled(&["a", "b", "c"]);
        nodes.insert(name("a"), Seen { dead_for: Some(LONG), ..away() });
        nodes.insert(name("b"), away());
        assert_eq!(check(&announced, &nodes), Next::Nothing);

        // Nor by one that does not see them any more when it comes to the commit.
        let (mut nodes, mut announced) = settled(&["a", "b", "c"]);
        nodes.insert(name("a"), Seen { dead_for: Some(LONG), ..away() });
        let Next::Prepare(members) = check(&announced, &nodes) else { panic!("a is given up") };
        let placement = Placement::Scheme(Scheme::Maglev);
        let next = Topology::new(Epoch::new(2), [1; 16], members, placement).expect("good");
        announced.prepared = Some(Arc::new(next.clone()));
        say_prepared(&mut nodes, "c", &next, MemberSet::first(2));
        let mut with_both = nodes.clone();
        say_prepared(&mut with_both, "b", &next, MemberSet::first(2));
        assert_eq!(check(&announced, &with_both), Next::Commit);
        nodes.insert(name("b"), away());
        assert_eq!(check(&announced, &nodes), Next::Abort);
    }

    /// Given up by c alone, a would come back with the epoch of all three and ask one of the others: b,
    /// which was given up before and has come back the same way. It knows of no epoch without a.
    #[test]
    fn nobody_is_given_up_before_half_of_those_whom_it_would_ask_can_hear() {
        let (mut nodes, mut announced) = settled(&["a", "b", "c"]);
        nodes.insert(name("b"), Seen { dead_for: Some(LONG), ..away() });
        let Next::Prepare(members) = check(&announced, &nodes) else { panic!("b is given up") };
        let without_b = in_force(&mut announced, 2, members);
        say_committed(&mut nodes, &without_b);
        // Before it has acknowledged that, a has ended. Of the two that are left one is half.
        nodes.insert(name("a"), Seen { dead_for: Some(LONG), ..away() });
        nodes.insert(name("b"), away());
        let newest_only = Announced { chain: Chain::default(), ..announced.clone() };
        assert_eq!(prepared_nodes(&check(&newest_only, &nodes)), ["c"]);
        assert_eq!(check(&announced, &nodes), Next::Nothing);
        // Once one more of the three hears, a can be given up.
        nodes.extend([node("b", 2)]);
        let Next::Prepare(members) = check(&announced, &nodes) else { panic!("a is given up") };
        assert_eq!(prepared_nodes(&Next::Prepare(members.clone())), ["b", "c"]);
        // It must hear until the commit.
        let placement = Placement::Scheme(Scheme::Maglev);
        let next = Topology::new(Epoch::new(3), [1; 16], members, placement).expect("good");
        announced.prepared = Some(Arc::new(next.clone()));
        for who in ["b", "c"] {
            say_prepared(&mut nodes, who, &next, MemberSet::first(2));
        }
        assert_eq!(check(&announced, &nodes), Next::Commit);
        nodes.insert(name("b"), away());
        assert_eq!(check(&announced, &nodes), Next::Abort);
    }

    /// The other would come back with the epoch in which it is alone, and ask nobody.
    #[test]
    fn who_was_given_up_and_is_back_alone_does_not_give_up_the_other() {
        let (mut nodes, mut announced) = settled(&["b"]);
        nodes.insert(name("b"), away());
        nodes.extend([node("a", 1)]);
        let Next::Prepare(members) = check(&announced, &nodes) else { panic!("a is taken in") };
        assert_eq!(prepared_nodes(&Next::Prepare(members.clone())), ["a", "b"]);
        let both = in_force(&mut announced, 2, members);
        let (state, b) = ((both.epoch(), both.digest()), name("b"));
        nodes.get_mut(&name("a")).expect("it is there").committed = Some(state);
        nodes.insert(b.clone(), Seen { dead_for: Some(LONG), ..away() });
        assert_eq!(check(&announced, &nodes), Next::Nothing);
        // A person who says that it has ended is believed.
        let wishes = Wishes { removing: [b].into(), ..Wishes::default() };
        assert_eq!(prepared_nodes(&decide(&announced, &nodes, quiet(&wishes))), ["a"]);
    }

    /// It may be running still, and vouch for the other.
    #[test]
    fn a_node_that_was_removed_counts_as_one_that_has_not_heard() {
        let (mut nodes, mut announced) = settled(&["a", "b", "c"]);
        let wishes = Wishes { removing: [name("b")].into(), ..Wishes::default() };
        let Next::Prepare(members) = decide(&announced, &nodes, quiet(&wishes)) else {
            panic!("b is removed")
        };
        let without_b = in_force(&mut announced, 2, members);
        say_committed(&mut nodes, &without_b);
        nodes.remove(&name("b"));
        nodes.insert(name("a"), Seen { dead_for: Some(LONG), ..away() });
        assert_eq!(check(&announced, &nodes), Next::Nothing);
        // Unless all have acknowledged the epoch without it.
        announced.settle();
        assert_eq!(prepared_nodes(&check(&announced, &nodes)), ["c"]);
    }

    #[test]
    fn whom_a_person_removes_goes_before_whom_nobody_asked_for() {
        let (mut nodes, announced) = settled(&["a", "b", "c", "d"]);
        nodes.insert(name("a"), Seen { dead_for: Some(LONG), ..away() });
        let wishes = Wishes { removing: [name("b")].into(), ..Wishes::default() };
        let next = decide(&announced, &nodes, quiet(&wishes));
        assert_eq!(prepared_nodes(&next), ["a", "c", "d"]);
        assert_eq!(prepared_nodes(&check(&announced, &nodes)), ["b", "c", "d"]);
    }

    /// Each would wait for the other: the removal until the dead one has acknowledged the epoch in force.
    #[test]
    fn a_dead_node_goes_before_whom_a_person_removes_while_the_epoch_in_force_is_not_settled() {
        let (mut nodes, mut announced) = settled(&["a", "b", "c", "d"]);
        announced.settled = Epoch::new(0);
        nodes.insert(name("a"), Seen { dead_for: Some(LONG), ..away() });
        let wishes = Wishes { removing: [name("b")].into(), ..Wishes::default() };
        let Next::Prepare(members) = decide(&announced, &nodes, quiet(&wishes)) else {
            panic!("a is given up")
        };
        assert_eq!(prepared_nodes(&Next::Prepare(members.clone())), ["b", "c", "d"]);
        // The one that stays is asked like the others.
        let placement = Placement::Scheme(Scheme::Maglev);
        let next = Topology::new(Epoch::new(2), [1; 16], members, placement).expect("good");
        announced.prepared = Some(Arc::new(next.clone()));
        for who in ["c", "d"] {
            say_prepared(&mut nodes, who, &next, MemberSet::first(3));
        }
        assert_eq!(decide(&announced, &nodes, quiet(&wishes)), Next::Nothing);
        say_prepared(&mut nodes, "b", &next, MemberSet::first(3));
        assert_eq!(decide(&announced, &nodes, quiet(&wishes)), Next::Commit);
        // A person may remove both, and then at once.
        let both = Wishes { removing: [name("a"), name("b")].into(), ..Wishes::default() };
        assert_eq!(decide(&announced, &nodes, quiet(&both)), Next::Abort);
        let unprepared = Announced { prepared: None, ..announced.clone() };
        assert_eq!(prepared_nodes(&decide(&unprepared, &nodes, quiet(&both))), ["c", "d"]);
        // Its turn comes next.
        say_committed(&mut nodes, &next);
        let committed = Some(Arc::new(next));
        let announced = Announced { committed, settled: Epoch::new(2), ..Announced::default() };
        let then = decide(&announced, &nodes, quiet(&wishes));
        assert_eq!(prepared_nodes(&then), ["c", "d"]);
    }

    #[test]
    fn a_node_that_was_given_up_and_comes_back_is_taken_in_again() {
        let (mut nodes, announced) = settled(&["a", "b"]);
        nodes.insert(name("c"), Seen { dead_for: Some(LONG), ..away() });
        assert_eq!(check(&announced, &nodes), Next::Nothing);
        nodes.extend([node("c", 2)]);
        assert_eq!(prepared_nodes(&check(&announced, &nodes)), ["a", "b", "c"]);
    }

    #[test]
    fn a_node_that_is_started_again_stays_until_it_says_where_it_listens() {
        let (mut nodes, announced) = settled(&["a", "b"]);
        nodes.insert(name("b"), Seen { is_connected: true, ..away() });
        assert_eq!(check(&announced, &nodes), Next::Nothing);
    }

    #[test]
    fn a_weight_that_was_wished_stays_when_the_wish_is_fulfilled() {
        let (mut nodes, mut announced) = settled(&["a", "b"]);
        let member = MemberName::parse("a.b0").expect("a good name");
        let wishes =
            Wishes { weights: BTreeMap::from([(member, Weight::NOTHING)]), ..Wishes::default() };
        let Next::Prepare(members) = decide(&announced, &nodes, quiet(&wishes)) else {
            panic!("a weight differs")
        };
        assert_eq!(members[0].weight, Weight::NOTHING);
        let placement = Placement::Scheme(Scheme::Maglev);
        let next = Topology::new(Epoch::new(2), [1; 16], members, placement).expect("good");
        announced.committed = Some(Arc::new(next));
        announced.settled = Epoch::new(2);
        nodes.extend([node("a", 2)]);
        let Next::Prepare(members) = check(&announced, &nodes) else { panic!("another run") };
        assert_eq!(members[0].weight, Weight::NOTHING);
    }

    #[test]
    fn weights_that_would_leave_nobody_to_serve_wait_until_somebody_else_does() {
        let (mut nodes, mut announced) = settled(&["a", "b", "c"]);
        let member = |name: &str| MemberName::parse(&format!("{name}.b0")).expect("a good name");
        let drained = ["a", "b"].map(|name| (member(name), Weight::NOTHING));
        let mut wishes = Wishes { weights: drained.into(), ..Wishes::default() };
        // Before both are drained, the one that was to serve has ended, and is removed.
        announced.settled = Epoch::new(0);
        nodes.insert(name("c"), away());
        assert_eq!(decide(&announced, &nodes, quiet(&wishes)), Next::Nothing);
        wishes.removing.insert(name("c"));
        let Next::Prepare(members) = decide(&announced, &nodes, quiet(&wishes)) else {
            panic!("the others take its slots")
        };
        assert_eq!(weights(&members), [("a", 64), ("b", 64)]);
        // And they are what there is until another node comes.
        let placement = Placement::Scheme(Scheme::Maglev);
        let next = Topology::new(Epoch::new(2), [1; 16], members, placement).expect("good");
        say_committed(&mut nodes, &next);
        nodes.remove(&name("c"));
        announced.committed = Some(Arc::new(next));
        announced.settled = Epoch::new(2);
        assert_eq!(decide(&announced, &nodes, quiet(&wishes)), Next::Nothing);
        nodes.extend([node("d", 1)]);
        let Next::Prepare(members) = decide(&announced, &nodes, quiet(&wishes)) else {
            panic!("there is somebody now")
        };
        assert_eq!(weights(&members), [("a", 0), ("b", 0), ("d", 64)]);
    }

    fn weights(members: &[TopologyMember]) -> Vec<(&str, u32)> {
        members.iter().map(|it| (it.node.as_str(), it.weight.get())).collect()
    }

    #[test]
    fn a_refresh_makes_one_epoch_of_the_same_members() {
        let (nodes, announced) = settled(&["a", "b"]);
        let refresh =
            |after| Wishes { refresh_after: Some(Epoch::new(after)), ..Wishes::default() };
        assert_eq!(decide(&announced, &nodes, quiet(&refresh(0))), Next::Nothing);
        let again = decide(&announced, &nodes, quiet(&refresh(1)));
        assert_eq!(prepared_nodes(&again), ["a", "b"]);
    }

    const LONG: Duration = Duration::from_secs(60);

    fn quiet(wishes: &Wishes) -> Situation<'_> {
        Situation {
            preparing_for: Duration::ZERO,
            failover: Failover::default(),
            since_given_up: None,
            wishes,
        }
    }

    fn check(announced: &Announced, nodes: &BTreeMap<NodeName, Seen>) -> Next {
        decide(announced, nodes, quiet(&Wishes::default()))
    }

    /// The nodes of the epoch that is begun; none when none is.
    fn prepared_nodes(next: &Next) -> Vec<&str> {
        let Next::Prepare(members) = next else { return Vec::new() };
        members.iter().map(|member| member.node.as_str()).collect()
    }

    fn away() -> Seen {
        Seen {
            members: Vec::new(),
            is_connected: false,
            prepared: None,
            committed: None,
            dead_for: None,
        }
    }

    fn name(name: &str) -> NodeName {
        NodeName::parse(name).expect("a good name")
    }

    fn node(text: &str, incarnation: u64) -> (NodeName, Seen) {
        let registered = RegisteredNode {
            name: text.to_owned(),
            key_digest: [0; 32],
            incarnation,
            peers: Some(SocketAddr::from(([10, 0, 0, 1], 1))),
            backends_mib: vec![64],
        };
        let members = members_of(&registered);
        (name(text), Seen { members, is_connected: true, ..away() })
    }

    fn topology(epoch: u64, nodes: &BTreeMap<NodeName, Seen>) -> Arc<Topology> {
        let members = wanted(&Announced::default(), nodes, quiet(&Wishes::default()));
        let placement = Placement::Scheme(Scheme::Maglev);
        Arc::new(Topology::new(Epoch::new(epoch), [1; 16], members, placement).expect("good"))
    }

    fn settled(names: &[&str]) -> (BTreeMap<NodeName, Seen>, Announced) {
        let mut nodes: BTreeMap<_, _> = names.iter().map(|name| node(name, 1)).collect();
        let first = topology(1, &nodes);
        say_committed(&mut nodes, &first);
        let (settled, committed) = (first.epoch(), Some(first));
        (nodes, Announced { committed, settled, ..Announced::default() })
    }

    fn in_force(
        announced: &mut Announced,
        epoch: u64,
        members: Vec<TopologyMember>,
    ) -> Arc<Topology> {
        let placement = Placement::Scheme(Scheme::Maglev);
        let next = Topology::new(Epoch::new(epoch), [1; 16], members, placement).expect("good");
        let next = Arc::new(next);
        announced.put_in_force(Arc::clone(&next));
        next
    }

    fn say_prepared(
        nodes: &mut BTreeMap<NodeName, Seen>,
        who: &str,
        topology: &Topology,
        links: MemberSet,
    ) {
        nodes.get_mut(&name(who)).expect("it is there").prepared =
            Some((topology.epoch(), topology.digest(), links));
    }

    fn say_committed(nodes: &mut BTreeMap<NodeName, Seen>, topology: &Topology) {
        for seen in nodes.values_mut() {
            seen.committed = Some((topology.epoch(), topology.digest()));
        }
    }
}
