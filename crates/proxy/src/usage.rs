//! What the proxy itself counts: connections and bytes, for the process and for each cache.
//!
//! What comes of requests is counted where the items are; a proxy cannot know it.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, PoisonError, RwLock};

use tenancy::id::CacheId;
use wire::control::usage::Figure;

/// Counts of one proxy process, shared by its event loops.
#[derive(Debug, Default)]
pub struct ProxyUsage {
    /// Connections open now.
    connections: AtomicUsize,
    /// Connections accepted since the start.
    pub connections_total: AtomicU64,
    /// Connections refused because the process had too many.
    pub connections_refused_total: AtomicU64,
    /// Attempts to authenticate with an unknown username or a wrong password.
    pub authentication_failures_total: AtomicU64,
    caches: RwLock<HashMap<CacheId, Arc<CacheUsage>>>,
}

/// Counts of one cache at this proxy.
#[derive(Debug, Default)]
pub struct CacheUsage {
    /// Connections that have authenticated for this cache since the start.
    pub connections_total: AtomicU64,
    /// Attempts to authenticate with a username of this cache and a wrong password.
    pub authentication_failures_total: AtomicU64,
    /// Bytes read from clients in authenticated sessions.
    pub bytes_read_total: AtomicU64,
    /// Bytes written to clients in authenticated sessions.
    pub bytes_written_total: AtomicU64,
}

impl ProxyUsage {
    pub fn connections(&self) -> usize {
        self.connections.load(Relaxed)
    }

    /// The counts of a cache, made on first use.
    pub fn cache(&self, id: CacheId) -> Arc<CacheUsage> {
        if let Some(usage) = self.caches.read().unwrap_or_else(PoisonError::into_inner).get(&id) {
            return Arc::clone(usage);
        }
        let mut caches = self.caches.write().unwrap_or_else(PoisonError::into_inner);
        Arc::clone(caches.entry(id).or_default())
    }

    /// The counts of a cache, if it was ever used here.
    pub fn known(&self, id: CacheId) -> Option<Arc<CacheUsage>> {
        self.caches.read().unwrap_or_else(PoisonError::into_inner).get(&id).map(Arc::clone)
    }

    /// Forgets the counts of a deleted cache; sessions still open keep theirs until they close.
    pub fn forget(&self, id: CacheId) {
        self.caches.write().unwrap_or_else(PoisonError::into_inner).remove(&id);
    }

    /// A place for one more connection, unless `max` are open.
    pub(crate) fn enter(self: &Arc<Self>, max: usize) -> Option<ConnectionPermit> {
        self.connections_total.fetch_add(1, Relaxed);
        if max <= self.connections.fetch_add(1, Relaxed) {
            self.connections.fetch_sub(1, Relaxed);
            self.connections_refused_total.fetch_add(1, Relaxed);
            return None;
        }
        Some(ConnectionPermit(Arc::clone(self)))
    }
}

impl CacheUsage {
    /// Every count.
    pub fn figures(&self) -> [(Figure, u64); 4] {
        [
            (Figure::TotalConnections, self.connections_total.load(Relaxed)),
            (Figure::AuthErrors, self.authentication_failures_total.load(Relaxed)),
            (Figure::BytesRead, self.bytes_read_total.load(Relaxed)),
            (Figure::BytesWritten, self.bytes_written_total.load(Relaxed)),
        ]
    }

    /// Sets the counts to zero (`stats reset`).
    pub fn reset(&self) {
        for counter in [
            &self.connections_total,
            &self.authentication_failures_total,
            &self.bytes_read_total,
            &self.bytes_written_total,
        ] {
            counter.store(0, Relaxed);
        }
    }
}

/// Counts one open connection of the process for as long as it lives.
#[derive(Debug)]
pub(crate) struct ConnectionPermit(Arc<ProxyUsage>);

impl Drop for ConnectionPermit {
    fn drop(&mut self) {
        self.0.connections.fetch_sub(1, Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_permit_gives_its_place_back() {
        let usage = Arc::new(ProxyUsage::default());
        let first = usage.enter(1);
        assert!(first.is_some());
        assert!(usage.enter(1).is_none(), "there was one place");
        drop(first);
        assert_eq!(usage.connections(), 0);
        assert!(usage.enter(1).is_some());
        assert_eq!(usage.connections_refused_total.load(Relaxed), 1);
    }
}
