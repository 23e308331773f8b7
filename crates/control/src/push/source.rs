//! Where what is pushed comes from: the database of the installation, or for tests a pretend one.

use std::io;

use tokio::sync::watch;
use wire::control::record::{Delta, Record, Revision};

/// The records of one cluster and how they change.
///
/// Calls block and are made on threads that may. All answers are of committed state only.
pub trait ChangeSource: Send + Sync + 'static {
    /// Everything there is, as of one revision.
    fn snapshot(&self) -> Result<(Revision, Vec<Record>), SourceError>;

    /// The transactions that follow on `after`, in order and without a gap, at most `limit`; empty
    /// when there is none.
    fn changes_since(&self, after: Revision, limit: usize) -> Result<Changes, SourceError>;

    /// Says that there may be something newer. Holds the newest revision that this process knows to
    /// be committed; a source that several processes write to may also look now and then.
    fn watch(&self) -> watch::Receiver<Revision>;
}

/// What follows on a revision.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Changes {
    Deltas(Vec<Delta>),
    /// The change log does not reach back so far, or one transaction is too large for a delta: take
    /// a snapshot.
    TooOld,
}

/// The source could not answer. A retry is safe.
#[derive(Debug, thiserror::Error)]
pub enum SourceError {
    #[error("the control state could not be read")]
    Read(#[source] Box<dyn std::error::Error + Send + Sync>),
    #[error("the control state contradicts itself: {0}")]
    Broken(String),
}

impl From<io::Error> for SourceError {
    fn from(error: io::Error) -> Self {
        SourceError::Read(error.into())
    }
}

/// What the control plane keeps of its nodes and topologies.
///
/// Everything here is rare: a node that joins or comes back, an epoch. A topology is kept as its
/// encoded bytes.
pub trait Registry: Send + Sync + 'static {
    /// Remembers a node, or what has changed about it. Nothing happens when nothing has.
    fn register_node(&self, node: &RegisteredNode) -> Result<(), SourceError>;

    /// Forgets a node; its certificate is refused from now on. `false` when there was none.
    fn remove_node(&self, name: &str) -> Result<bool, SourceError>;

    fn nodes(&self) -> Result<Vec<RegisteredNode>, SourceError>;

    /// The secret under which the cluster hashes keys to slots; never changes.
    fn slot_key(&self) -> Result<[u8; 16], SourceError>;

    /// What is needed to go on from where another process of control has ended.
    fn epochs(&self) -> Result<KeptEpochs, SourceError>;

    /// Begins an epoch, which must be higher than any before. It is given up when another begins.
    fn prepare_epoch(
        &self,
        epoch: u64,
        topology: &[u8],
        digest: [u8; 32],
        nodes: &[String],
    ) -> Result<(), SourceError>;

    /// A node has links to all members of the epoch.
    fn acknowledge_epoch(&self, epoch: u64, node: &str) -> Result<(), SourceError>;

    /// Puts a prepared epoch in force.
    fn commit_epoch(&self, epoch: u64) -> Result<(), SourceError>;

    /// Gives a prepared epoch up.
    fn abort_epoch(&self, epoch: u64, why: &str) -> Result<(), SourceError>;

    /// Nobody serves by an epoch older than this one, which is in force.
    fn settle_epoch(&self, epoch: u64) -> Result<(), SourceError>;
}

/// What is kept of a cluster's epochs.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct KeptEpochs {
    /// The topologies that were in force since the last that is settled (since the first, when none is), in
    /// order: the settled one first, the one in force last. Encoded.
    pub topologies: Vec<Vec<u8>>,
    /// The newest epoch that is settled; 0 when none is.
    pub settled: u64,
    /// The highest epoch that was ever begun; 0 when none was.
    pub highest: u64,
}

/// A node as it is remembered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RegisteredNode {
    /// A `wire::control::name::NodeName`.
    pub name: String,
    /// SHA-256 of the public key it joined with: whoever comes under this name must have it.
    pub key_digest: [u8; 32],
    pub incarnation: u64,
    /// Where the proxies of other nodes reach its backends; `None` before it has connected once.
    pub peers: Option<core::net::SocketAddr>,
    /// Memory of each of its backends in MiB.
    pub backends_mib: Vec<u32>,
}
