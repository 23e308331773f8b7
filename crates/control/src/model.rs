//! What the control plane keeps: caches and credentials as values, already checked.

use std::borrow::Cow;
use std::fmt;
use std::net::SocketAddr;

use cluster::map::Epoch;
use tenancy::capability::{Capabilities, Capability};
use tenancy::id::{CacheId, Username};
use tenancy::plan::{Limits, Plan, Rates};
use tenancy::secret::Secret;
use wire::control::record::Revision;

/// Seconds since 1970-01-01 UTC.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct UnixSeconds(pub u64);

/// Longest name of a cache in bytes: what still fits a table on a terminal.
pub const CACHE_NAME_BYTES_MAX: usize = 64;

/// What people call a cache; unique in the installation.
///
/// Letters, digits, `-`, `_`, `.`, beginning with a letter: a name is never mistaken for an id, for
/// an option of the command line or for a part of a URL.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct CacheName(String);

impl CacheName {
    pub fn parse(name: &str) -> Result<Self, InvalidCacheName> {
        let plain = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.');
        let fits = name.len() <= CACHE_NAME_BYTES_MAX
            && name.starts_with(|c: char| c.is_ascii_alphabetic())
            && name.bytes().all(plain);
        if fits { Ok(CacheName(name.to_owned())) } else { Err(InvalidCacheName) }
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for CacheName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error(
    "a cache's name is a letter and then up to {} letters, digits, '-', '_' or '.'",
    CACHE_NAME_BYTES_MAX - 1
)]
pub struct InvalidCacheName;

/// Which cluster. Numbers are never given twice.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ClusterId(pub u64);

impl ClusterId {
    /// The cluster that every installation begins with, and the one that `larder up` serves.
    pub const DEFAULT: ClusterId = ClusterId(1);
}

impl fmt::Display for ClusterId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// What people call a cluster; unique in the installation, formed like the name of a cache.
pub type ClusterName = CacheName;

/// What a node is called; unique in its cluster, formed like the name of a cache. It stays when the
/// machine behind it is replaced.
pub type NodeName = CacheName;

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cluster {
    pub id: ClusterId,
    pub name: ClusterName,
    /// Keys the hash from a cache's key to its slot.
    pub slot_key: [u8; 16],
    /// Of its newest change.
    pub revision: Revision,
    pub created_at: UnixSeconds,
}

/// A data-plane node as it registered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Node {
    pub name: NodeName,
    /// SHA-256 of the public key it joined with.
    pub key_digest: [u8; 32],
    /// Drawn by the process at its start.
    pub incarnation: u64,
    /// Where other nodes reach its backends; `None` before it has connected once.
    pub peers: Option<SocketAddr>,
    /// Memory of each of its backends in MiB.
    pub backends_mib: Vec<u32>,
}

/// One topology of a cluster, and how far it has come.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EpochRecord {
    /// They are numbered as they are prepared, aborted ones too.
    pub epoch: Epoch,
    pub state: EpochState,
    /// As the caller encoded it; the database does not look inside.
    pub topology: Vec<u8>,
    pub digest: [u8; 32],
    /// Whether it is sure that nobody serves by an older one.
    pub settled: bool,
    /// Who must acknowledge it before it is committed, and who has.
    pub members: Vec<(NodeName, bool)>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EpochState {
    Prepared,
    Committed,
    /// Was in force until another one was committed.
    Superseded,
    Aborted,
}

impl EpochState {
    const ALL: [EpochState; 4] =
        [EpochState::Prepared, EpochState::Committed, EpochState::Superseded, EpochState::Aborted];

    pub const fn name(self) -> &'static str {
        match self {
            EpochState::Prepared => "prepared",
            EpochState::Committed => "committed",
            EpochState::Superseded => "superseded",
            EpochState::Aborted => "aborted",
        }
    }

    pub(crate) fn named(name: &str) -> Option<Self> {
        EpochState::ALL.into_iter().find(|state| state.name() == name)
    }
}

/// What a change left behind, and where in its cluster's change log it stands. A change that found
/// nothing to do has the revision that was in force.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Committed<T> {
    pub value: T,
    pub cluster: ClusterId,
    pub revision: Revision,
}

impl<T> Committed<T> {
    pub fn map<U>(self, map: impl FnOnce(T) -> U) -> Committed<U> {
        Committed { value: map(self.value), cluster: self.cluster, revision: self.revision }
    }
}

/// How a caller says which cache it means: by id or by name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum CacheRef {
    Id(CacheId),
    Name(CacheName),
}

impl CacheRef {
    /// Digits are an id, everything else is a name.
    pub fn parse(text: &str) -> Result<Self, InvalidCacheName> {
        match text.parse::<u64>() {
            Ok(number) if text.bytes().all(|b| b.is_ascii_digit()) => {
                Ok(CacheRef::Id(CacheId::new(number)))
            }
            _ => CacheName::parse(text).map(CacheRef::Name),
        }
    }
}

impl fmt::Display for CacheRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            CacheRef::Id(id) => id.fmt(f),
            CacheRef::Name(name) => name.fmt(f),
        }
    }
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cache {
    pub id: CacheId,
    pub cluster: ClusterId,
    pub name: CacheName,
    pub plan: &'static Plan,
    /// How fast it may be used, whatever its plan.
    pub rates: Rates,
    /// A disabled cache keeps its items and refuses every client.
    pub enabled: bool,
    /// The credential that applications are configured with.
    pub primary: Username,
    /// Grows with each flush.
    pub flush_generation: u64,
    pub created_at: UnixSeconds,
    /// When a client last used it, as far as is known.
    pub used_at: UnixSeconds,
}

impl Cache {
    /// Whether its owner may add and remove credentials and change what they may do. Development
    /// caches keep the one they were made with, as the service that Larder is modelled on has it.
    pub fn may_manage_credentials(&self) -> bool {
        self.plan != Plan::DEVELOPMENT
    }
}

impl Cache {
    /// What its plan gives it, and how fast it may be used.
    pub fn limits(&self) -> Limits {
        Limits { rates: self.rates, ..self.plan.limits }
    }
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Credential {
    /// Its number, which some of the API names it by; never given twice.
    pub id: u64,
    pub username: Username,
    pub cache: CacheId,
    pub capabilities: Capabilities,
    pub primary: bool,
    pub created_at: UnixSeconds,
}

/// A credential together with its password, on the way to its owner.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Issued {
    pub credential: Credential,
    pub secret: Secret,
}

/// Which capabilities to give and which to take away; the others stay.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct CapabilityChange {
    pub allow: Capabilities,
    pub deny: Capabilities,
}

impl CapabilityChange {
    /// Makes a set out of the one there is. What is both allowed and denied ends denied.
    pub fn apply(self, to: Capabilities) -> Capabilities {
        Capability::ALL
            .into_iter()
            .filter(|one| (to.has(*one) || self.allow.has(*one)) && !self.deny.has(*one))
            .collect()
    }
}

/// Longest idempotency key in bytes: far longer than the UUIDs that clients use.
pub const IDEMPOTENCY_KEY_BYTES_MAX: usize = 255;

/// By what a repeated request is known.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Once {
    /// 1 to [`IDEMPOTENCY_KEY_BYTES_MAX`] characters, chosen by the client.
    pub key: String,
    /// SHA-256 of all that the request says.
    pub request_digest: [u8; 32],
}

/// On whose behalf a change is made, and whether it may be a repetition.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct By {
    pub actor: Actor,
    /// Without one a repetition is another change.
    pub once: Option<Once>,
}

impl From<Actor> for By {
    fn from(actor: Actor) -> Self {
        By { actor, once: None }
    }
}

/// On whose behalf a change is made; goes into the audit log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Actor {
    /// Someone with the installation's token.
    Operator,
    /// An operator who has logged in by name.
    Named(OperatorName),
    /// Someone with the URL of the cache's dashboard, or with a credential of the cache that has the `api`
    /// capability.
    Owner,
    /// This program by itself, at its start.
    Installation,
}

impl Actor {
    pub(crate) fn name(self) -> Cow<'static, str> {
        match self {
            Actor::Operator => "operator".into(),
            Actor::Named(name) => format!("operator {name}").into(),
            Actor::Owner => "owner".into(),
            Actor::Installation => "installation".into(),
        }
    }
}

/// What an operator logs in as; formed like the username of a credential.
pub type OperatorName = Username;

/// Someone who may see and change everything, by name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Operator {
    pub name: OperatorName,
    pub created_at: UnixSeconds,
}

/// A browser that was let into the dashboard. It has a cache, an operator, or both: an operator who
/// looks at a cache as its owner does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Session {
    pub(crate) cache: Option<CacheId>,
    pub(crate) operator: Option<OperatorName>,
}

/// Whose session is to begin.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum SessionOf {
    /// Of whoever has the URL of this cache's dashboard.
    Owner(CacheId),
    Operator(OperatorName),
    /// Of an operator who looks at this cache as its owner does.
    Visit(OperatorName, CacheId),
}

impl SessionOf {
    pub(crate) fn cache(self) -> Option<CacheId> {
        match self {
            SessionOf::Owner(cache) | SessionOf::Visit(_, cache) => Some(cache),
            SessionOf::Operator(_) => None,
        }
    }

    pub(crate) fn operator(self) -> Option<OperatorName> {
        match self {
            SessionOf::Operator(name) | SessionOf::Visit(name, _) => Some(name),
            SessionOf::Owner(_) => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_never_mistaken_for_something_else() {
        let long = "x".repeat(CACHE_NAME_BYTES_MAX + 1);
        for bad in ["", "1", "1a", "-x", ".", "..", "a/b", "a b", "ä", "a?", &long] {
            assert_eq!(CacheName::parse(bad), Err(InvalidCacheName), "{bad:?}");
        }
        for good in ["a", "shop", "shop-2.eu_west", &"x".repeat(CACHE_NAME_BYTES_MAX)] {
            assert!(CacheName::parse(good).is_ok(), "{good:?}");
        }
    }

    #[test]
    fn digits_are_an_id_and_all_else_is_a_name() {
        assert_eq!(CacheRef::parse("17"), Ok(CacheRef::Id(CacheId::new(17))));
        assert_eq!(CacheRef::parse("shop").map(|cache| cache.to_string()), Ok("shop".to_owned()));
        for bad in ["+17", "99999999999999999999999", ""] {
            assert_eq!(CacheRef::parse(bad), Err(InvalidCacheName), "{bad:?}");
        }
    }

    #[test]
    fn capabilities_not_named_stay() {
        let before = Capabilities::NONE.with(Capability::Write).with(Capability::Api);
        let change = CapabilityChange {
            allow: Capabilities::NONE.with(Capability::Flush),
            deny: Capabilities::NONE.with(Capability::Write),
        };
        assert_eq!(change.apply(before).to_string(), "flush,api");
        let both = CapabilityChange { allow: Capabilities::ALL, deny: Capabilities::ALL };
        assert_eq!(both.apply(before), Capabilities::NONE);
    }
}
