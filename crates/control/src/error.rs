//! Why the control plane did not do what it was asked.

use std::io;

use cluster::map::Epoch;
use tenancy::id::{CacheId, Username};
use tenancy::rules::{Network, RuleId};

use crate::data_dir::DataDirError;
use crate::data_plane::DataPlaneError;
pub use crate::database::SchemaError;
use crate::model::{CacheName, CacheRef, ClusterName, NodeName, OperatorName};
use crate::seal::BrokenSeal;

/// Why a change or a question was refused. Nothing of a refused change is left behind.
#[derive(Debug, thiserror::Error)]
pub enum ControlError {
    #[error("there is no cache {0}")]
    UnknownCache(CacheRef),
    #[error("cache {cache} has no credential {username}")]
    UnknownCredential { cache: CacheName, username: Username },
    #[error("there is no credential {0}")]
    UnknownUsername(Username),
    #[error("there is already a cache named {0}")]
    NameTaken(CacheName),
    #[error("{username} is the primary credential of cache {cache}; promote another one first")]
    PrimaryStays { cache: CacheName, username: Username },
    #[error("cache {cache} already has {max} credentials, the most a cache can have")]
    TooManyCredentials { cache: CacheName, max: usize },
    #[error("there are already {max} caches, the most an installation can have")]
    TooManyCaches { max: usize },
    #[error("the data plane refused")]
    DataPlane(#[from] DataPlaneError),
    #[error("there is no cluster {0}")]
    UnknownCluster(String),
    #[error("there is already a cluster named {0}")]
    ClusterNameTaken(ClusterName),
    #[error("there are already {max} clusters, the most an installation can have")]
    TooManyClusters { max: usize },
    #[error("the cluster has no node {0}")]
    UnknownNode(NodeName),
    #[error("there are already {max} nodes, the most a cluster can have")]
    TooManyNodes { max: usize },
    #[error("node {0} is a member of the epoch in force or of the one being prepared")]
    NodeInUse(NodeName),
    #[error("epoch {epoch} does not follow on {newest}, the newest there was")]
    OldEpoch { epoch: Epoch, newest: Epoch },
    #[error("epoch {0} is not being prepared")]
    NotPrepared(Epoch),
    #[error("epoch {0} is not in force")]
    NotCommitted(Epoch),
    #[error("{missing} members have not acknowledged epoch {epoch}")]
    NotAcknowledged { epoch: Epoch, missing: usize },
    #[error("there is no webhook {0}")]
    UnknownWebhook(u64),
    #[error("there are already {max} webhooks, the most an installation can have")]
    TooManyWebhooks { max: usize },
    #[error("there is no operator {0}")]
    UnknownOperator(OperatorName),
    #[error("there are already {max} operators, the most an installation can have")]
    TooManyOperators { max: usize },
    #[error("the dashboard's URL is not this cache's, or not any more")]
    WrongDashboardSecret,
    #[error("there is no rule {0}")]
    UnknownRule(RuleId),
    #[error("there are already {max} rules, the most there can be for these connections")]
    TooManyRules { max: usize },
    #[error(
        "to block {network} would lock out far more than any attack comes from, which needs to be \
         insisted on (force)"
    )]
    RuleTooWide { network: Network },
    #[error(
        "it would cut off {connections} open connections, of {caches} caches, which needs to be insisted \
         on (force)"
    )]
    RuleCuts { connections: u64, caches: usize },
    #[error("there is no call {0}, or none that was given up")]
    UnknownCall(u64),
    #[error("the idempotency key was used for another request")]
    KeyReused,
    #[error(
        "the request with this idempotency key was carried out, and what it made is gone again"
    )]
    Superseded,
    #[error("another control process leads")]
    NotLeader,
    #[error("the database failed")]
    Database(#[from] DatabaseError),
    #[error("the database holds a {what} that this program does not understand")]
    Corrupt { what: &'static str },
    #[error("the password of {username} could not be read")]
    Sealed { username: Username, source: BrokenSeal },
    #[error("the secret of webhook {webhook} could not be read")]
    SealedWebhook { webhook: u64, source: BrokenSeal },
    #[error("there is no alert {0} of this cache")]
    UnknownAlert(u64),
    #[error("there is no delivery {0} of this cache")]
    UnknownDelivery(u64),
    #[error("there is no watched prefix {0} of this cache")]
    UnknownPrefix(u64),
    #[error("an alert still uses delivery {0}")]
    DeliveryInUse(u64),
    #[error("the cache already has {max} of these, the most a cache can have")]
    TooManyAlerts { max: usize },
    #[error("the URL of delivery {delivery} could not be read")]
    SealedDelivery { delivery: u64, source: BrokenSeal },
    #[error("no random bytes could be had")]
    Random(#[from] io::Error),
}

/// Who can do something about a [`ControlError`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// The caller named something that is not there.
    Missing,
    /// The request contradicts what is there; the caller must ask for something else.
    Conflict,
    /// Not now; the same request may be repeated.
    Busy,
    /// Ours: logged, and not shown to the caller in detail.
    Ours,
}

impl ControlError {
    pub fn fault(&self) -> Fault {
        match self {
            ControlError::UnknownCache(_)
            | ControlError::UnknownCredential { .. }
            | ControlError::UnknownUsername(_)
            | ControlError::UnknownCluster(_)
            | ControlError::UnknownNode(_)
            | ControlError::UnknownWebhook(_)
            | ControlError::UnknownOperator(_)
            | ControlError::WrongDashboardSecret
            | ControlError::UnknownAlert(_)
            | ControlError::UnknownDelivery(_)
            | ControlError::UnknownPrefix(_)
            | ControlError::UnknownRule(_)
            | ControlError::UnknownCall(_) => Fault::Missing,
            ControlError::NameTaken(_)
            | ControlError::PrimaryStays { .. }
            | ControlError::TooManyCredentials { .. }
            | ControlError::TooManyCaches { .. }
            | ControlError::ClusterNameTaken(_)
            | ControlError::TooManyClusters { .. }
            | ControlError::TooManyNodes { .. }
            | ControlError::NodeInUse(_)
            | ControlError::OldEpoch { .. }
            | ControlError::NotPrepared(_)
            | ControlError::NotCommitted(_)
            | ControlError::NotAcknowledged { .. }
            | ControlError::TooManyWebhooks { .. }
            | ControlError::TooManyOperators { .. }
            | ControlError::DeliveryInUse(_)
            | ControlError::TooManyAlerts { .. }
            | ControlError::TooManyRules { .. }
            | ControlError::RuleTooWide { .. }
            | ControlError::RuleCuts { .. }
            | ControlError::KeyReused
            | ControlError::Superseded
            | ControlError::DataPlane(DataPlaneError::NoRoom { .. }) => Fault::Conflict,
            ControlError::DataPlane(DataPlaneError::Unavailable { .. })
            | ControlError::NotLeader
            | ControlError::Database(DatabaseError {
                fault: DatabaseFault::Unavailable | DatabaseFault::Full,
                ..
            }) => Fault::Busy,
            ControlError::Database(_)
            | ControlError::Corrupt { .. }
            | ControlError::Sealed { .. }
            | ControlError::SealedWebhook { .. }
            | ControlError::SealedDelivery { .. }
            | ControlError::Random(_) => Fault::Ours,
        }
    }

    /// Whether somebody has to do something about it who reads the log, and not the caller.
    pub(crate) fn is_for_operators(&self) -> bool {
        let is_full = matches!(self, ControlError::Database(it) if it.fault == DatabaseFault::Full);
        is_full || self.fault() == Fault::Ours
    }
}

/// What a database says when it does not do its part.
#[derive(Debug, thiserror::Error)]
#[error("{}", match fault {
    DatabaseFault::Unavailable => "it cannot be reached or is in use",
    DatabaseFault::Full => "its disk is full",
    DatabaseFault::Other => "it refused a statement",
})]
pub struct DatabaseError {
    pub fault: DatabaseFault,
    pub(crate) source: Box<dyn std::error::Error + Send + Sync>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DatabaseFault {
    /// No connection, or someone else held it for too long: the same may be tried again.
    Unavailable,
    /// Its disk has no room: nothing was changed, and the same may be tried when there is some.
    Full,
    /// A constraint, a mistake of ours.
    Other,
}

impl OpenError {
    /// Whether the same may succeed later without this program's doing: the database is away, or its disk
    /// is full.
    pub fn is_passing(&self) -> bool {
        let (OpenError::Database(error)
        | OpenError::Schema(SchemaError::Database(error))
        | OpenError::Load(ControlError::Database(error))) = self
        else {
            return false;
        };
        matches!(error.fault, DatabaseFault::Unavailable | DatabaseFault::Full)
    }
}

/// Why the control plane could not start. Each is the operator's to mend.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    #[error(transparent)]
    DataDir(#[from] DataDirError),
    #[error(transparent)]
    Schema(#[from] SchemaError),
    #[error("could not open the database")]
    Database(#[from] DatabaseError),
    #[error(
        "the database's passwords are sealed under another key than this data directory's; use the \
         key file that they were made with"
    )]
    WrongKey,
    #[error(
        "the nodes trust another authority than this data directory's; copy authority.key and \
         authority.pem from the control plane that has led before"
    )]
    WrongAuthority,
    #[error("the file of PostgreSQL's authority cannot be used")]
    PostgresAuthority(#[source] Box<dyn std::error::Error + Send + Sync>),
    #[error(
        "sslmode=require needs to know who signs the server's certificate: give --postgres-ca FILE"
    )]
    PostgresAuthorityMissing,
    #[error("could not load the caches")]
    Load(#[from] ControlError),
    #[error("cache {cache} could not be served again")]
    DataPlane { cache: CacheId, source: DataPlaneError },
}
