//! What the control plane needs of the data plane of its process.

use tenancy::id::CacheId;
use tenancy::plan::Limits;
use tenancy::rules::Open;
use wire::control::usage::Figures;

/// Makes room for caches, forgets and counts. The program implements it over its backends; tests
/// have a pretend one.
///
/// Called from threads that may block, one change at a time; `statistics` may run beside a change.
/// Every method may be called twice with the same effect as once.
pub trait DataPlane: Send + Sync {
    /// Makes a cache, or gives the one there is these limits. A cache that shrinks evicts its own
    /// items. Refusing leaves everything as it was.
    fn put_cache(&self, id: CacheId, limits: Limits) -> Result<(), DataPlaneError>;

    /// Drops a cache and all its items. No client can reach it any more when this is called.
    fn remove_cache(&self, id: CacheId);

    /// Forgets all items of a cache. No read that begins after this returns sees one of them.
    fn flush_cache(&self, id: CacheId) -> Result<(), DataPlaneError>;

    /// Everything that is counted of the cache, and how it stands now.
    fn statistics(&self, id: CacheId) -> Result<Figures, DataPlaneError>;

    /// What the cache is asked for most, and what it would hit at other sizes, about. Has a quiet cache
    /// watched from now on; nothing is known of one that was not watched before.
    fn popular(&self, _: CacheId) -> Result<Popular, DataPlaneError> {
        Ok(Popular::default())
    }

    /// What is known of one key. Does not count as a use of it.
    fn key(&self, _: CacheId, _key: &[u8]) -> Result<KeyFigures, DataPlaneError> {
        Ok(KeyFigures::default())
    }

    /// The connections of clients that are open, by cache and address.
    fn open(&self) -> Vec<Open> {
        Vec::new()
    }

    /// Sets the cache's counters to zero, as `stats reset` does; its gauges stay.
    fn reset_statistics(&self, id: CacheId) -> Result<(), DataPlaneError>;
}

/// What a cache is asked for, from a sample, older requests counting less.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Popular {
    pub keys: Vec<Popularity>,
    pub prefixes: Vec<Popularity>,
    /// Size in percent of the limit, and the hits in percent that the cache would have at it.
    pub hits_percent: Vec<(u32, f64)>,
}

/// How a key or prefix is asked for, about.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Popularity {
    pub text: Vec<u8>,
    pub hits: u64,
    pub misses: u64,
    pub writes: u64,
}

/// What is known of one key.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct KeyFigures {
    /// Length of its value in bytes; absent when it is not in the cache.
    pub value_bytes: Option<u64>,
    /// Where it is among those asked for most.
    pub counted: Option<Popularity>,
}

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DataPlaneError {
    /// The plan's memory is not to be had here. A smaller plan may fit; a retry will not help.
    #[error("not enough memory: {available_bytes} bytes are left")]
    NoRoom { available_bytes: u64 },
    /// It did not answer, or not in time. A retry is safe.
    #[error("the data plane did not answer: {reason}")]
    Unavailable { reason: String },
}
