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
//! It looks at what nodes there are and what they said, decides purely ([`decide`]), does one step, and
//! looks again; so it can be stopped and started anywhere. No epoch is begun before the one in force is
//! settled, unless the new one leaves out who has not acknowledged, or a member has come back as
//! another run of its process and the old run's items are gone anyway.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use cluster::digest::Digest;
use cluster::map::Epoch;
use cluster::member::{Incarnation, MemberName, Weight};
use cluster::scheme::Scheme;
use tokio::sync::watch;
use tokio::task::spawn_blocking;
use wire::codec::Reader;
use wire::control::name::NodeName;
use wire::control::topology::{MemberSet, Placement, Topology, TopologyMember};

use super::fleet::Fleet;
use super::source::{RegisteredNode, Registry, SourceError};

/// How long nodes may take to make their links. A link takes milliseconds; one that takes longer than
/// this will not be made before someone mends the network.
pub const PREPARE_TIME_MAX: Duration = Duration::from_secs(10);
/// After an attempt that failed, so that a broken link does not make a new epoch every moment.
const RETRY_AFTER: Duration = Duration::from_secs(5);
/// How often to look when nothing happens: for what only time changes.
const LOOK_EVERY: Duration = Duration::from_millis(500);

/// What nodes are told of topologies.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Announced {
    pub committed: Option<Arc<Topology>>,
    pub prepared: Option<Arc<Topology>>,
    pub settled: Epoch,
    /// A person has confirmed that members are dropped.
    pub forced: bool,
}

impl Default for Announced {
    /// Before the first epoch.
    fn default() -> Self {
        Announced { committed: None, prepared: None, settled: Epoch::new(0), forced: false }
    }
}

/// One node as the decision sees it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Seen {
    pub members: Vec<TopologyMember>,
    pub is_connected: bool,
    pub prepared: Option<(Epoch, Digest, MemberSet)>,
    pub committed: Option<(Epoch, Digest)>,
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

/// Decides what to do with these nodes, when the preparation has lasted so long.
pub fn decide(
    announced: &Announced,
    nodes: &BTreeMap<NodeName, Seen>,
    preparing_for: Duration,
) -> Next {
    let wanted = wanted(announced, nodes);
    if let Some(prepared) = &announced.prepared {
        let all = MemberSet::first(prepared.members().len());
        let is_ready =
            |seen: &Seen| seen.prepared == Some((prepared.epoch(), prepared.digest(), all));
        return if wanted != prepared.members() || PREPARE_TIME_MAX <= preparing_for {
            Next::Abort
        } else if nodes.values().any(is_ready)
            && nodes.values().filter(|seen| seen.is_connected).all(is_ready)
        {
            Next::Commit
        } else {
            Next::Nothing
        };
    }
    let Some(committed) = &announced.committed else {
        return if wanted.is_empty() { Next::Nothing } else { Next::Prepare(wanted) };
    };
    let state = Some((committed.epoch(), committed.digest()));
    let mut of_committed = nodes
        .iter()
        .filter(|(name, _)| committed.members().iter().any(|member| member.node == **name));
    let is_settled = announced.settled == committed.epoch();
    if !is_settled && of_committed.all(|(_, seen)| seen.is_connected && seen.committed == state) {
        return Next::Settle;
    }
    if wanted.is_empty() || wanted == committed.members() {
        return Next::Nothing;
    }
    // Who holds the epoch up: members that have not said that they route by it.
    let leaves_out_the_silent = || {
        nodes.iter().all(|(name, seen)| {
            let is_same_run = committed
                .members()
                .iter()
                .any(|member| member.node == *name && wanted.contains(member));
            !is_same_run || seen.committed == state
        })
    };
    if is_settled || leaves_out_the_silent() { Next::Prepare(wanted) } else { Next::Nothing }
}

/// The members that there should be: those of every registered node that has told its address. One
/// that is away stays what it was.
fn wanted(announced: &Announced, nodes: &BTreeMap<NodeName, Seen>) -> Vec<TopologyMember> {
    let before = announced.committed.as_ref();
    let mut members = Vec::new();
    for (name, seen) in nodes {
        if seen.is_connected {
            members.extend(seen.members.iter().cloned());
        } else if let Some(before) = before {
            members.extend(before.members().iter().filter(|it| it.node == *name).cloned());
        }
    }
    members.sort_by(|a, b| a.name.cmp(&b.name));
    members
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
    held_until: Option<Instant>,
}

impl Driver {
    /// Reads what is in force, and makes every registered node known to the fleet. Blocks.
    pub fn open(registry: Arc<dyn Registry>, fleet: Arc<Fleet>) -> Result<Self, SourceError> {
        let slot_key = registry.slot_key()?;
        let (bytes, highest) = registry.topology()?;
        let committed = bytes.map(|bytes| decode(&bytes)).transpose()?.map(Arc::new);
        for node in registry.nodes()? {
            if let Ok(name) = NodeName::parse(&node.name) {
                fleet.add(&name);
            }
        }
        let announced = Announced { committed, ..Announced::default() };
        Ok(Driver {
            registry,
            fleet,
            announced: watch::Sender::new(announced),
            slot_key,
            highest,
            preparing_since: Instant::now(),
            held_until: None,
        })
    }

    /// What sessions tell their nodes.
    pub fn subscribe(&self) -> watch::Receiver<Announced> {
        self.announced.subscribe()
    }

    /// Drives until the task is dropped.
    pub async fn run(mut self) {
        let mut changed = self.fleet.subscribe();
        let mut look = tokio::time::interval(LOOK_EVERY);
        look.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                told = changed.changed() => if told.is_err() { return },
                _ = look.tick() => (),
            }
            let seen = self.look();
            let announced = self.announced.borrow().clone();
            let next = decide(&announced, &seen, self.preparing_since.elapsed());
            if let Err(error) = self.carry_out(next, announced, &seen).await {
                tracing::error!(error = &error as &dyn std::error::Error, "epoch not moved on");
                self.held_until = Some(Instant::now() + RETRY_AFTER);
            }
        }
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
            let link = node.link.as_ref().filter(|_| node.hello.is_some());
            let seen = Seen {
                members,
                is_connected: link.is_some(),
                prepared: link.and_then(|link| link.prepared),
                committed: link.and_then(|link| link.committed),
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
                let Some(prepared) = &announced.prepared else { return Ok(()) };
                let epoch = prepared.epoch();
                tracing::warn!(epoch = epoch.get(), "epoch aborted");
                // Members that have changed are told at once; links that are not made need time.
                if PREPARE_TIME_MAX <= self.preparing_since.elapsed() {
                    self.held_until = Some(Instant::now() + RETRY_AFTER);
                }
                self.ask(move |registry| {
                    registry
                        .abort_epoch(epoch.get(), "members changed, or links were not made in time")
                })
                .await?;
                self.announced.send_replace(Announced { prepared: None, ..announced });
                Ok(())
            }
            Next::Settle => {
                let Some(committed) = &announced.committed else { return Ok(()) };
                let settled = committed.epoch();
                self.ask(move |registry| registry.settle_epoch(settled.get())).await?;
                tracing::info!(epoch = settled.get(), "epoch settled");
                self.announced.send_replace(Announced { settled, ..announced });
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
        let nodes = seen.iter().filter(|(_, seen)| seen.is_connected);
        let nodes: Vec<String> = nodes.map(|(name, _)| name.to_string()).collect();
        tracing::info!(epoch = epoch.get(), members = topology.members().len(), "epoch prepared");
        self.ask(move |registry| registry.prepare_epoch(epoch.get(), &bytes, digest, &nodes))
            .await?;
        self.preparing_since = Instant::now();
        let prepared = Some(Arc::new(topology));
        self.announced.send_replace(Announced { prepared, ..announced });
        Ok(())
    }

    async fn commit(
        &mut self,
        announced: Announced,
        seen: &BTreeMap<NodeName, Seen>,
    ) -> Result<(), SourceError> {
        let Some(prepared) = announced.prepared.clone() else { return Ok(()) };
        let epoch = prepared.epoch();
        let nodes = seen.iter().filter(|(_, seen)| seen.is_connected);
        let nodes: Vec<String> = nodes.map(|(name, _)| name.to_string()).collect();
        self.ask(move |registry| {
            for node in &nodes {
                registry.acknowledge_epoch(epoch.get(), node)?;
            }
            registry.commit_epoch(epoch.get())
        })
        .await?;
        tracing::info!(epoch = epoch.get(), digest = %prepared.digest(), "epoch committed");
        let committed = Some(prepared);
        self.announced.send_replace(Announced { committed, prepared: None, ..announced });
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

fn decode(bytes: &[u8]) -> Result<Topology, SourceError> {
    let mut reader = Reader::new(bytes);
    let topology = Topology::decode(&mut reader);
    let ended = topology.and_then(|topology| reader.end().map(|()| topology));
    ended.map_err(|error| SourceError::Broken(format!("the topology in force: {error}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nodes_are_led_from_nothing_to_a_settled_epoch() {
        let mut nodes = BTreeMap::from([node("a", 1), node("b", 1)]);
        let mut announced = Announced::default();
        let Next::Prepare(members) = decide(&announced, &nodes, NOW) else { panic!("it begins") };
        assert_eq!(members.len(), 2);
        let first = topology(1, &nodes);
        announced.prepared = Some(Arc::clone(&first));
        assert_eq!(decide(&announced, &nodes, NOW), Next::Nothing);
        say_prepared(&mut nodes, "a", &first, MemberSet::first(2));
        say_prepared(&mut nodes, "b", &first, MemberSet::first(1));
        assert_eq!(decide(&announced, &nodes, NOW), Next::Nothing);
        say_prepared(&mut nodes, "b", &first, MemberSet::first(2));
        assert_eq!(decide(&announced, &nodes, NOW), Next::Commit);
        announced = Announced { committed: Some(Arc::clone(&first)), ..Announced::default() };
        assert_eq!(decide(&announced, &nodes, NOW), Next::Nothing);
        say_committed(&mut nodes, &first);
        assert_eq!(decide(&announced, &nodes, NOW), Next::Settle);
        announced.settled = first.epoch();
        assert_eq!(decide(&announced, &nodes, NOW), Next::Nothing);
    }

    #[test]
    fn a_preparation_that_takes_too_long_or_is_overtaken_is_aborted() {
        let mut nodes = BTreeMap::from([node("a", 1), node("b", 1)]);
        let prepared = Some(topology(1, &nodes));
        let announced = Announced { prepared, ..Announced::default() };
        assert_eq!(decide(&announced, &nodes, PREPARE_TIME_MAX), Next::Abort);
        nodes.extend([node("c", 1)]);
        assert_eq!(decide(&announced, &nodes, NOW), Next::Abort);
    }

    #[test]
    fn a_node_that_is_away_stays_a_member() {
        let (mut nodes, announced) = settled(&["a", "b"]);
        nodes.insert(name("b"), Seen { is_connected: false, ..node("b", 1).1 });
        assert_eq!(decide(&announced, &nodes, NOW), Next::Nothing);
        nodes.remove(&name("b"));
        assert!(matches!(decide(&announced, &nodes, NOW), Next::Prepare(left) if left.len() == 1));
    }

    #[test]
    fn a_node_that_came_back_as_another_run_gets_a_new_epoch() {
        let (mut nodes, announced) = settled(&["a", "b"]);
        nodes.extend([node("b", 2)]);
        let Next::Prepare(members) = decide(&announced, &nodes, NOW) else { panic!("it differs") };
        assert_eq!(members[1].incarnation, Incarnation::new(2));
    }

    #[test]
    fn no_epoch_begins_while_a_member_has_not_acknowledged_the_one_in_force() {
        let (mut nodes, mut announced) = settled(&["a", "b"]);
        announced.settled = Epoch::new(0);
        nodes.get_mut(&name("b")).expect("it is there").committed = None;
        nodes.extend([node("c", 1)]);
        assert_eq!(decide(&announced, &nodes, NOW), Next::Nothing);
        // Unless the next one leaves it out.
        nodes.remove(&name("b"));
        assert_ne!(decide(&announced, &nodes, NOW), Next::Nothing);
    }

    const NOW: Duration = Duration::ZERO;

    fn name(name: &str) -> NodeName {
        NodeName::parse(name).expect("a good name")
    }

    fn node(text: &str, incarnation: u64) -> (NodeName, Seen) {
        let registered = RegisteredNode {
            name: text.to_owned(),
            key_digest: [0; 32],
            incarnation,
            peers: Some(core::net::SocketAddr::from(([10, 0, 0, 1], 1))),
            backends_mib: vec![64],
        };
        let members = members_of(&registered);
        (name(text), Seen { members, is_connected: true, prepared: None, committed: None })
    }

    fn topology(epoch: u64, nodes: &BTreeMap<NodeName, Seen>) -> Arc<Topology> {
        let members = wanted(&Announced::default(), nodes);
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
