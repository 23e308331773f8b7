//! How far the nodes have come with what was committed: what `?wait=applied` asks.

use std::future::Future;
use std::pin::Pin;
use std::time::Duration;

use wire::control::record::Revision;

use crate::model::ClusterId;

/// Knows which nodes have which revision. The program implements it over its connections to nodes.
pub trait Applied: Send + Sync {
    /// Waits until every node of the cluster that takes part has this revision or a later one, or
    /// until `timeout` has passed, and says which it was.
    fn wait(&self, cluster: ClusterId, revision: Revision, timeout: Duration) -> Waiting<'_>;
}

pub type Waiting<'a> = Pin<Box<dyn Future<Output = Progress> + Send + 'a>>;

/// How many nodes have a revision.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Progress {
    /// Nodes that take part in the cluster.
    pub nodes: usize,
    /// Of these, how many have it.
    pub applied: usize,
    /// From the question until this was so.
    pub after: Duration,
    /// The names of those that do not have it; the first few.
    pub missing: Vec<String>,
}

/// For an installation whose only node is this process: it has every change when the commit returns,
/// before anyone can ask.
#[derive(Debug, Clone, Copy, Default)]
pub struct AppliedHere;

impl Applied for AppliedHere {
    fn wait(&self, _: ClusterId, _: Revision, _: Duration) -> Waiting<'_> {
        let all = Progress { nodes: 1, applied: 1, after: Duration::ZERO, missing: Vec::new() };
        Box::pin(std::future::ready(all))
    }
}
