//! One cluster, as those who bring it to its nodes see it: the change log to follow, and the registry
//! of nodes and topologies.

use std::sync::Arc;

use cluster::map::Epoch;
use tokio::sync::watch;
use wire::control::record::{Record, Revision};

use crate::control::Control;
use crate::database::Changes;
use crate::error::ControlError;
use crate::model::{Actor, ClusterId, EpochRecord, EpochState, Node, NodeName};

/// A cluster of a control plane. Cheap to clone; every method but [`Feed::watch`] blocks.
#[derive(Clone)]
pub struct Feed {
    control: Arc<Control>,
    cluster: ClusterId,
}

impl Feed {
    pub fn new(control: Arc<Control>, cluster: ClusterId) -> Self {
        Feed { control, cluster }
    }

    /// All records at one revision; caches come before credentials.
    pub fn snapshot(&self) -> Result<(Revision, Vec<Record>), ControlError> {
        self.control.lock_reader().record_snapshot(self.cluster)
    }

    /// The changes after a revision, `limit` at most.
    pub fn changes_since(&self, after: Revision, limit: usize) -> Result<Changes, ControlError> {
        self.control.lock_reader().changes_since(self.cluster, after, limit)
    }

    /// The newest revision that this process knows of, and a wake-up whenever there is a newer one.
    pub fn watch(&self) -> watch::Receiver<Revision> {
        self.control.watch(self.cluster)
    }

    /// Remembers a node, or what has changed about it. Nothing happens when nothing has.
    pub fn register_node(&self, node: &Node) -> Result<(), ControlError> {
        self.control.change(ACTOR, |change| change.put_node(self.cluster, node)).map(drop)
    }

    /// Forgets a node. Returns whether there was one.
    pub fn remove_node(&self, name: &NodeName) -> Result<bool, ControlError> {
        self.control.change(ACTOR, |change| change.delete_node(self.cluster, name))
    }

    /// By name.
    pub fn nodes(&self) -> Result<Vec<Node>, ControlError> {
        self.control.lock().nodes(self.cluster)
    }

    /// The secret under which the cluster hashes keys to slots; never changes.
    pub fn slot_key(&self) -> Result<[u8; 16], ControlError> {
        Ok(self.control.cluster(self.cluster)?.slot_key)
    }

    /// The topology in this state, where there can only be one: `Prepared` or `Committed`.
    pub fn epoch(&self, state: EpochState) -> Result<Option<EpochRecord>, ControlError> {
        self.control.lock().epoch(self.cluster, state)
    }

    /// The newest epoch that is settled (0 when none is), and the topologies that were in force since, in
    /// order: that one first, the one in force last.
    pub fn since_settled(&self) -> Result<(Epoch, Vec<Vec<u8>>), ControlError> {
        self.control.lock().since_settled(self.cluster)
    }

    /// The highest epoch that was ever begun; 0 when none was.
    pub fn newest_epoch(&self) -> Result<Epoch, ControlError> {
        self.control.lock().newest_epoch(self.cluster)
    }

    /// Begins an epoch, which must be newer than any before it; one that is still being prepared is
    /// given up for it. `nodes` must acknowledge it before it can be committed.
    pub fn prepare_epoch(
        &self,
        epoch: Epoch,
        topology: &[u8],
        digest: &[u8; 32],
        nodes: &[NodeName],
    ) -> Result<(), ControlError> {
        self.control.change(ACTOR, |change| {
            change.prepare_epoch(self.cluster, epoch, topology, digest, nodes)
        })
    }

    /// Notes that a node has links to all members of the epoch.
    pub fn acknowledge_epoch(&self, epoch: Epoch, node: &NodeName) -> Result<(), ControlError> {
        self.control.change(ACTOR, |change| change.acknowledge_epoch(self.cluster, epoch, node))
    }

    /// Puts a prepared epoch in force, when every node has acknowledged it.
    pub fn commit_epoch(&self, epoch: Epoch) -> Result<(), ControlError> {
        self.control.change(ACTOR, |change| change.commit_epoch(self.cluster, epoch))
    }

    pub fn abort_epoch(&self, epoch: Epoch, why: &str) -> Result<(), ControlError> {
        self.control.change(ACTOR, |change| change.abort_epoch(self.cluster, epoch, why))
    }

    /// Marks the epoch in force as settled: nobody serves by an older one any more.
    pub fn settle_epoch(&self, epoch: Epoch) -> Result<(), ControlError> {
        self.control.change(ACTOR, |change| change.settle_epoch(self.cluster, epoch))
    }
}

/// Nodes come and go by themselves; an operator who removes one does so through the program.
const ACTOR: Actor = Actor::Installation;
