//! The database as the source of what is pushed, and as the registry of nodes.

use cluster::map::Epoch;
use tokio::sync::watch;
use wire::control::record::{Record, Revision};

use super::fleet::Fleet;
use super::source::{ChangeSource, Changes, KeptEpochs, RegisteredNode, Registry, SourceError};
use crate::applied::{Applied, Progress, Waiting};
use crate::database::Changes as Logged;
use crate::error::ControlError;
use crate::feed::Feed;
use crate::model::{ClusterId, Node, NodeName};

impl ChangeSource for Feed {
    fn snapshot(&self) -> Result<(Revision, Vec<Record>), SourceError> {
        Feed::snapshot(self).map_err(read)
    }

    fn changes_since(&self, after: Revision, limit: usize) -> Result<Changes, SourceError> {
        match Feed::changes_since(self, after, limit).map_err(read)? {
            Logged::Following(deltas) if deltas.iter().any(|delta| delta.is_too_large()) => {
                Ok(Changes::TooOld)
            }
            Logged::Following(deltas) => Ok(Changes::Deltas(deltas)),
            Logged::TakeSnapshot => Ok(Changes::TooOld),
        }
    }

    fn watch(&self) -> watch::Receiver<Revision> {
        Feed::watch(self)
    }
}

impl Registry for Feed {
    fn register_node(&self, node: &RegisteredNode) -> Result<(), SourceError> {
        let RegisteredNode { name, key_digest, incarnation, peers, backends_mib } = node.clone();
        let name = node_name(&name)?;
        Feed::register_node(self, &Node { name, key_digest, incarnation, peers, backends_mib })
            .map_err(read)
    }

    fn remove_node(&self, name: &str) -> Result<bool, SourceError> {
        Feed::remove_node(self, &node_name(name)?).map_err(read)
    }

    fn nodes(&self) -> Result<Vec<RegisteredNode>, SourceError> {
        let nodes = Feed::nodes(self).map_err(read)?;
        let registered = |node: Node| RegisteredNode {
            name: node.name.to_string(),
            key_digest: node.key_digest,
            incarnation: node.incarnation,
            peers: node.peers,
            backends_mib: node.backends_mib,
        };
        Ok(nodes.into_iter().map(registered).collect())
    }

    fn slot_key(&self) -> Result<[u8; 16], SourceError> {
        Feed::slot_key(self).map_err(read)
    }

    fn epochs(&self) -> Result<KeptEpochs, SourceError> {
        let (settled, topologies) = self.since_settled().map_err(read)?;
        let highest = self.newest_epoch().map_err(read)?.get();
        Ok(KeptEpochs { topologies, settled: settled.get(), highest })
    }

    fn prepare_epoch(
        &self,
        epoch: u64,
        topology: &[u8],
        digest: [u8; 32],
        nodes: &[String],
    ) -> Result<(), SourceError> {
        let nodes: Vec<NodeName> =
            nodes.iter().map(|name| node_name(name)).collect::<Result<_, _>>()?;
        Feed::prepare_epoch(self, Epoch::new(epoch), topology, &digest, &nodes).map_err(read)
    }

    fn acknowledge_epoch(&self, epoch: u64, node: &str) -> Result<(), SourceError> {
        Feed::acknowledge_epoch(self, Epoch::new(epoch), &node_name(node)?).map_err(read)
    }

    fn commit_epoch(&self, epoch: u64) -> Result<(), SourceError> {
        Feed::commit_epoch(self, Epoch::new(epoch)).map_err(read)
    }

    fn abort_epoch(&self, epoch: u64, why: &str) -> Result<(), SourceError> {
        Feed::abort_epoch(self, Epoch::new(epoch), why).map_err(read)
    }

    fn settle_epoch(&self, epoch: u64) -> Result<(), SourceError> {
        Feed::settle_epoch(self, Epoch::new(epoch)).map_err(read)
    }
}

fn node_name(name: &str) -> Result<NodeName, SourceError> {
    NodeName::parse(name).map_err(|_| {
        // A node's name may begin with a digit where a cache's may not.
        SourceError::Broken(format!("{name:?} cannot be kept as a node's name"))
    })
}

fn read(error: ControlError) -> SourceError {
    SourceError::Read(error.into())
}

impl Applied for Fleet {
    fn wait(&self, _: ClusterId, revision: Revision, timeout: std::time::Duration) -> Waiting<'_> {
        Box::pin(async move {
            let applied = self.wait_applied(revision, timeout).await;
            Progress {
                nodes: applied.nodes,
                applied: applied.applied,
                after: applied.after,
                missing: applied.missing.iter().map(ToString::to_string).collect(),
            }
        })
    }
}
