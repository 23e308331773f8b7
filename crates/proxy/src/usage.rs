//! What the proxy itself counts: connections and bytes, for the process and for each cache.
//!
//! What comes of requests is counted where the items are; a proxy cannot know it.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, PoisonError, RwLock};

use tenancy::id::CacheId;
use tenancy::rules::Open;
use wire::control::usage::Figure;

use crate::latency::Latency;
use crate::origins::{Origin, Origins};
use crate::recent::Recent;

/// Counts of one proxy process, shared by its event loops.
#[derive(Debug, Default)]
pub struct ProxyUsage {
    /// Connections open now.
    connections: AtomicUsize,
    /// Connections accepted since the start.
    pub connections_total: AtomicU64,
    /// Connections refused because the process had too many.
    pub connections_refused_total: AtomicU64,
    /// Connections refused or closed because a rule blocks their address.
    pub connections_blocked_total: AtomicU64,
    /// Attempts to authenticate with an unknown username or a wrong password.
    pub authentication_failures_total: AtomicU64,
    origins: Origins,
    /// How long requests took, all caches together.
    pub latency: Latency,
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
    /// The last commands, while someone wants to know them.
    pub recent: Recent,
}

impl ProxyUsage {
    pub fn connections(&self) -> usize {
        self.connections.load(Relaxed)
    }

    /// The connections that are open now, by cache and address.
    pub fn open(&self) -> Vec<Open> {
        self.origins.open()
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

    /// A place for one more connection, unless `max` are open. Where it comes from is not known in a
    /// simulation.
    pub(crate) fn enter(
        self: &Arc<Self>,
        max: usize,
        from: Option<IpAddr>,
    ) -> Option<ConnectionPermit> {
        self.connections_total.fetch_add(1, Relaxed);
        if max <= self.connections.fetch_add(1, Relaxed) {
            self.connections.fetch_sub(1, Relaxed);
            self.connections_refused_total.fetch_add(1, Relaxed);
            return None;
        }
        let origin = from.map(|address| Origin { cache: None, address: address.to_canonical() });
        if let Some(origin) = origin {
            self.origins.enter(origin);
        }
        Some(ConnectionPermit { usage: Arc::clone(self), origin })
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
pub(crate) struct ConnectionPermit {
    usage: Arc<ProxyUsage>,
    origin: Option<Origin>,
}

impl ConnectionPermit {
    pub(crate) fn origin(&self) -> Option<Origin> {
        self.origin
    }

    /// Counts the connection among those of this cache from now on.
    #[inline]
    pub(crate) fn belong_to(&mut self, cache: CacheId) {
        if let Some(origin) = self.origin
            && origin.cache != Some(cache)
        {
            self.usage.origins.leave(origin);
            let origin = Origin { cache: Some(cache), ..origin };
            self.usage.origins.enter(origin);
            self.origin = Some(origin);
        }
    }
}

impl Drop for ConnectionPermit {
    fn drop(&mut self) {
        self.usage.connections.fetch_sub(1, Relaxed);
        if let Some(origin) = self.origin {
            self.usage.origins.leave(origin);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_permit_gives_its_place_back() {
        let usage = Arc::new(ProxyUsage::default());
        let first = usage.enter(1, None);
        assert!(first.is_some());
        assert!(usage.enter(1, None).is_none(), "there was one place");
        drop(first);
        assert_eq!(usage.connections(), 0);
        assert!(usage.enter(1, None).is_some());
        assert_eq!(usage.connections_refused_total.load(Relaxed), 1);
    }

    #[test]
    fn open_connections_are_known_by_cache_and_address() {
        let usage = Arc::new(ProxyUsage::default());
        let (one, two) = (IpAddr::from([192, 0, 2, 1]), IpAddr::from([192, 0, 2, 65]));
        let enter = |from| usage.enter(9, Some(from)).expect("there is room");
        let (mut first, second, third) = (enter(one), enter(one), enter(two));
        let open = || {
            let mut open: Vec<_> =
                usage.open().iter().map(|it| (it.address, it.cache, it.connections)).collect();
            open.sort();
            open
        };
        assert_eq!(open(), [(one, None, 2), (two, None, 1)]);
        let cache = CacheId::new(7);
        for _ in 0..2 {
            first.belong_to(cache);
            assert_eq!(open(), [(one, None, 1), (one, Some(cache), 1), (two, None, 1)]);
        }
        drop((first, second, third));
        assert_eq!(open(), []);
    }
}
