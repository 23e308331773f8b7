//! What the control plane needs of the data plane of its process.

use tenancy::id::CacheId;
use tenancy::plan::Limits;
use tenancy::rules::Open;
use wire::control::inquiry::{Answer, KeyFigures, Popular, PrefixFigures, Question};
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

    /// The connections of clients that are open, by cache and address.
    fn open(&self) -> Vec<Open> {
        Vec::new()
    }

    /// Sets the cache's counters to zero, as `stats reset` does; its gauges stay.
    fn reset_statistics(&self, id: CacheId) -> Result<(), DataPlaneError>;

    /// Answers what a person wants to know. Here: one that samples nothing.
    fn answer(&self, question: &Question) -> Answer {
        match question {
            Question::Popular(_) => Answer::Popular(Popular::default()),
            Question::Key { .. } => Answer::Key(KeyFigures::default()),
            Question::Recent(_) => Answer::Recent(Vec::new()),
            Question::ResetStatistics(cache) => match self.reset_statistics(*cache) {
                Ok(()) => Answer::Done,
                Err(_) => Answer::NoCache,
            },
            Question::Prefixes { prefixes, .. } => {
                Answer::Prefixes(vec![PrefixFigures::default(); prefixes.len()])
            }
            Question::Latency => Answer::Latency(Box::default()),
            // Asked of whoever has the rules.
            Question::Cut(_) => Answer::NoCache,
        }
    }
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
