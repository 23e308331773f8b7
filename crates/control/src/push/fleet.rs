//! What the control plane knows of its nodes at this moment: who is connected, who has what, and what
//! is wrong with whom.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use cluster::digest::Digest;
use cluster::map::Epoch;
use cluster::member::Incarnation;
use tokio::sync::{Notify, mpsc, watch};
use wire::control::inquiry::{Answer, Question};
use wire::control::message::{Hello, NodeAddresses, Refusal, Report};
use wire::control::name::NodeName;
use wire::control::record::Revision;
use wire::control::topology::MemberSet;

use super::session::Trouble;

/// Every node that is registered. Cheap to look at; sessions write to it.
#[derive(Debug)]
pub struct Fleet {
    nodes: Mutex<BTreeMap<NodeName, FleetNode>>,
    changed: watch::Sender<u64>,
}

/// One node, connected or not.
#[derive(Debug, Clone, Default)]
pub struct FleetNode {
    /// As it said last, in this run of the control plane.
    pub hello: Option<Hello>,
    pub link: Option<Link>,
    /// The newest revision it is known to have on disk.
    pub acknowledged: Revision,
    pub report: Option<Report>,
    /// When it was heard last.
    pub heard_at: Option<Instant>,
    /// Since when it has been away while its machine says that nobody listens at its addresses.
    pub refusing_since: Option<Instant>,
    /// Why its program cannot be spoken with: it has no version in common with this one. `None` once it has
    /// been greeted.
    pub other_version: Option<Refusal>,
}

/// A connection of a node.
#[derive(Debug, Clone)]
pub struct Link {
    /// Of connections of one node the newer one counts.
    number: u64,
    pub troubles: Vec<Trouble>,
    pub prepared: Option<(Epoch, Digest, MemberSet)>,
    pub committed: Option<(Epoch, Digest)>,
    /// Wakes the session to send a snapshot that a person has confirmed.
    force: Arc<Notify>,
    /// Wakes the session to end.
    end: Arc<Notify>,
    /// Takes questions to the session.
    asks: mpsc::Sender<Ask>,
}

/// A question on its way to a node. Whoever asked hears it when this is dropped without an answer.
#[derive(Debug)]
pub(crate) struct Ask {
    pub(crate) question: Question,
    pub(crate) answer: Sender<(NodeName, Answer)>,
}

/// Questions that wait for one session: people ask them, so there are few.
const ASKS_MAX: usize = 64;

/// How many of the missing are named.
const MISSING_MAX: usize = 10;

/// How far a revision has come.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Applied {
    /// Registered nodes.
    pub nodes: usize,
    /// Those that have it on disk and serve by it.
    pub applied: usize,
    /// From the question to the last of them, or to the end of the wait.
    pub after: Duration,
    /// Some of those that do not have it.
    pub missing: Vec<NodeName>,
}

/// What nodes have answered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answers {
    pub answers: BTreeMap<NodeName, Answer>,
    /// Nodes that were asked and did not answer.
    pub missing: usize,
}

/// Everything that comes until the time is over, or until nobody is left to answer.
fn receive(
    receiver: &Receiver<(NodeName, Answer)>,
    time_max: Duration,
) -> BTreeMap<NodeName, Answer> {
    let until = Instant::now() + time_max;
    let mut answers = BTreeMap::new();
    while let Ok((name, answer)) =
        receiver.recv_timeout(until.saturating_duration_since(Instant::now()))
    {
        answers.insert(name, answer);
    }
    answers
}

impl Default for Fleet {
    fn default() -> Self {
        Fleet { nodes: Mutex::default(), changed: watch::Sender::new(0) }
    }
}

impl Fleet {
    /// Makes a node known, as one that has not connected.
    pub fn add(&self, name: &NodeName) {
        self.lock().entry(name.clone()).or_default();
        self.tell();
    }

    /// Forgets a node and ends its connection. `false` when there is none.
    pub fn remove(&self, name: &NodeName) -> bool {
        let removed = self.lock().remove(name);
        if let Some(FleetNode { link: Some(link), .. }) = &removed {
            link.end.notify_one();
        }
        self.tell();
        removed.is_some()
    }

    pub fn nodes(&self) -> BTreeMap<NodeName, FleetNode> {
        self.lock().clone()
    }

    /// Every node, also one that is away.
    pub(crate) fn names(&self) -> Vec<NodeName> {
        self.lock().keys().cloned().collect()
    }

    /// `host:port` of every proxy that is connected, as clients reach it.
    pub fn servers(&self) -> Vec<String> {
        let nodes = self.lock();
        let connected = nodes.values().filter(|node| node.link.is_some());
        let addresses = connected.filter_map(|node| node.addresses().clients);
        addresses.map(|address| address.to_string()).collect()
    }

    /// `host:port` of a node's proxy, as clients reach it.
    pub fn server(&self, node: &str) -> Option<String> {
        let nodes = self.lock();
        let (_, found) = nodes.iter().find(|(name, _)| name.as_str() == node)?;
        found.addresses().clients.map(|address| address.to_string())
    }

    /// Notes which nodes are away and their machines say that nobody listens at their addresses. All
    /// others are not known to have ended.
    pub(super) fn note_refusing(&self, refusing: impl Iterator<Item = NodeName>) {
        let refusing: BTreeSet<NodeName> = refusing.collect();
        for (name, node) in &mut *self.lock() {
            if node.link.is_none() && refusing.contains(name) {
                node.refusing_since.get_or_insert_with(Instant::now);
            } else {
                node.refusing_since = None;
            }
        }
    }

    /// Wakes when anything about any node changes.
    pub fn subscribe(&self) -> watch::Receiver<u64> {
        self.changed.subscribe()
    }

    /// Has every connected node (or one) take a snapshot that a person has confirmed. Says how many.
    pub fn force(&self, only: Option<&NodeName>) -> usize {
        let nodes = self.lock();
        let chosen = nodes.iter().filter(|(name, _)| only.is_none_or(|only| *name == only));
        let links = chosen.filter_map(|(_, node)| node.link.as_ref());
        links.inspect(|link| link.force.notify_one()).count()
    }

    /// Asks every node that is connected, or those of these names, and returns the answers that came in
    /// time, and how many did not. Blocks.
    pub fn ask(&self, only: Option<&NodeName>, question: &Question, time_max: Duration) -> Answers {
        let (sender, receiver) = channel();
        let mut asked = 0;
        {
            let nodes = self.lock();
            let chosen = nodes.iter().filter(|(name, _)| only.is_none_or(|only| *name == only));
            for link in chosen.filter_map(|(_, node)| node.link.as_ref()) {
                asked += 1;
                let ask = Ask { question: question.clone(), answer: sender.clone() };
                // One that takes no more is one that does not answer.
                drop(link.asks.try_send(ask));
            }
        }
        drop(sender);
        let answers = receive(&receiver, time_max);
        Answers { missing: asked - answers.len(), answers }
    }

    /// Waits until every registered node has this revision, or the time is over.
    pub async fn wait_applied(&self, revision: Revision, time_max: Duration) -> Applied {
        let asked = Instant::now();
        let mut changed = self.subscribe();
        let end = tokio::time::sleep(time_max);
        tokio::pin!(end);
        loop {
            let so_far = {
                let nodes = self.lock();
                let lacks = |(_, node): &(&NodeName, &FleetNode)| {
                    node.acknowledged < revision || node.link.is_none()
                };
                let mut missing: Vec<NodeName> =
                    nodes.iter().filter(lacks).map(|(name, _)| name.clone()).collect();
                let applied = nodes.len() - missing.len();
                missing.truncate(MISSING_MAX);
                Applied { nodes: nodes.len(), applied, after: asked.elapsed(), missing }
            };
            if so_far.missing.is_empty() {
                return so_far;
            }
            tokio::select! {
                told = changed.changed() => if told.is_err() { return so_far },
                () = &mut end => return Applied { after: asked.elapsed(), ..so_far },
            }
        }
    }

    pub(crate) fn connect(self: &Arc<Self>, name: &NodeName, number: u64) -> Connected {
        let (force, end) = (Arc::<Notify>::default(), Arc::<Notify>::default());
        let (asks, asked) = mpsc::channel(ASKS_MAX);
        let link = Link {
            number,
            troubles: Vec::new(),
            prepared: None,
            committed: None,
            force: Arc::clone(&force),
            end: Arc::clone(&end),
            asks,
        };
        {
            let mut nodes = self.lock();
            let node = nodes.entry(name.clone()).or_default();
            // A node that connects again has given the older connection up.
            if let Some(old) = node.link.replace(link) {
                old.end.notify_one();
            }
            node.refusing_since = None;
        }
        self.tell();
        Connected { fleet: Arc::clone(self), name: name.clone(), number, force, end, asked }
    }

    fn tell(&self) {
        self.changed.send_modify(|count| *count = count.wrapping_add(1));
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<NodeName, FleetNode>> {
        self.nodes.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A session's place in the fleet; given back when it is dropped.
pub(crate) struct Connected {
    fleet: Arc<Fleet>,
    name: NodeName,
    number: u64,
    pub(super) force: Arc<Notify>,
    pub(super) end: Arc<Notify>,
    /// What its node is to be asked.
    pub(crate) asked: mpsc::Receiver<Ask>,
}

impl Connected {
    pub(super) fn hello(&self, hello: Hello) {
        self.change(|node, _| {
            node.hello = Some(hello);
            node.other_version = None;
        });
    }

    /// It is turned away, and will come again and be turned away again.
    pub(super) fn has_other_version(&self, refusal: &Refusal) {
        self.change(|node, _| node.other_version = Some(refusal.clone()));
    }

    pub(super) fn acknowledged(&self, revision: Revision) {
        self.change(|node, _| node.acknowledged = revision);
    }

    pub(super) fn reported(&self, report: Report) {
        self.change(|node, _| node.report = Some(report));
    }

    pub(super) fn prepared(&self, epoch: Epoch, digest: Digest, connected: MemberSet) {
        self.change(|_, link| link.prepared = Some((epoch, digest, connected)));
    }

    pub(super) fn committed(&self, epoch: Epoch, digest: Digest) {
        self.change(|_, link| link.committed = Some((epoch, digest)));
    }

    pub(super) fn troubles(&self, troubles: Vec<Trouble>) {
        let mut nodes = self.fleet.lock();
        let Some(link) = nodes.get_mut(&self.name).and_then(|node| node.link.as_mut()) else {
            return;
        };
        if link.number == self.number && link.troubles != troubles {
            link.troubles = troubles;
            drop(nodes);
            self.fleet.tell();
        }
    }

    fn change(&self, change: impl FnOnce(&mut FleetNode, &mut Link)) {
        {
            let mut nodes = self.fleet.lock();
            let Some(node) = nodes.get_mut(&self.name) else { return };
            let Some(mut link) = node.link.take_if(|link| link.number == self.number) else {
                return;
            };
            node.heard_at = Some(Instant::now());
            change(node, &mut link);
            node.link = Some(link);
        }
        self.fleet.tell();
    }
}

impl Drop for Connected {
    fn drop(&mut self) {
        if let Some(node) = self.fleet.lock().get_mut(&self.name) {
            node.link.take_if(|link| link.number == self.number);
        }
        self.fleet.tell();
    }
}

impl FleetNode {
    /// The connection of a node that was not turned away.
    pub fn session(&self) -> Option<&Link> {
        self.link.as_ref().filter(|_| self.other_version.is_none())
    }

    /// Where others reach its backends, when it has said so.
    pub fn addresses(&self) -> NodeAddresses {
        self.hello.as_ref().map(|hello| hello.addresses).unwrap_or_default()
    }

    pub fn incarnation(&self) -> Option<Incarnation> {
        self.hello.as_ref().map(|hello| hello.incarnation)
    }
}
