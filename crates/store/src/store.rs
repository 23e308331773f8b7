//! The whole store and its caches: what other crates hold.
//!
//! ```text
//!   Store ── create_cache, cache(id), resize_cache, remove_cache, maintain, stats
//!     └── Arc<Cache> ── locate(key) ─▶ Located ─▶ get, store, delete, arithmetic, touch, peek
//!                    └─ flush, stats, reset_stats
//! ```
//!
//! Any thread may call anything; each item operation takes one lock of its cache.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use foldhash::quality::FixedState;
use std::hash::BuildHasher;
use tenancy::id::CacheId;

use crate::model::Model;
use crate::operation::{
    ArithmeticArgs, ArithmeticOutcome, DeleteArgs, DeleteOutcome, Expiry, GetArgs, Hit, Seconds,
    StoreArgs, StoreOutcome, TouchOutcome,
};
use crate::stats::{CacheStats, StoreStats};

/// Settings of the whole store.
#[derive(Debug, Clone, Copy)]
pub struct Settings {
    /// Memory for items, indexes and all other overhead, in bytes.
    pub memory_bytes: u64,
    /// The only source of chance: keys the hash of keys, so it should be drawn at random.
    pub seed: u64,
}

/// What one cache may hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CacheLimits {
    /// Guaranteed memory: key and value bytes. Overhead is the store's own business.
    pub memory_bytes: u64,
    /// Largest key plus value in bytes.
    pub item_bytes_max: u32,
}

/// Memory set aside for a promise of key and value bytes, in percent of it. The rest is for item
/// headers, the index and half-filled blocks, for items of 150 bytes and more.
const GUARANTEE_PERCENT: u64 = 120;

/// Why a cache's limits were not accepted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum LimitError {
    #[error("the cache exists already")]
    Exists,
    #[error("there is no such cache")]
    NotFound,
    /// The operator must free or add memory.
    #[error("{wanted_bytes} bytes cannot be guaranteed, {free_bytes} bytes are not yet promised")]
    NoRoom { wanted_bytes: u64, free_bytes: u64 },
}

/// All caches of one process.
pub struct Store {
    settings: Settings,
    caches: RwLock<HashMap<CacheId, Arc<Cache>>>,
}

impl Store {
    pub fn new(settings: Settings) -> Self {
        Store { settings, caches: RwLock::default() }
    }

    /// Creates an empty cache and promises it its memory.
    ///
    /// # Errors
    /// [`LimitError::Exists`], or [`LimitError::NoRoom`] when the promises would exceed the memory.
    pub fn create_cache(&self, id: CacheId, limits: CacheLimits) -> Result<Arc<Cache>, LimitError> {
        let mut caches = self.write();
        if caches.contains_key(&id) {
            return Err(LimitError::Exists);
        }
        self.check_room(guaranteed(&caches), limits)?;
        let cache = Arc::new(Cache {
            id,
            hasher: FixedState::with_seed(self.settings.seed),
            model: Mutex::new(Model::new(limits)),
        });
        caches.insert(id, Arc::clone(&cache));
        Ok(cache)
    }

    pub fn cache(&self, id: CacheId) -> Option<Arc<Cache>> {
        self.read().get(&id).cloned()
    }

    /// Gives a cache new limits at once. A cache that shrinks is evicted down to its new size by
    /// its own writes and by [`Store::maintain`].
    ///
    /// # Errors
    /// [`LimitError::NotFound`], or [`LimitError::NoRoom`] when the promises would exceed the
    /// memory.
    pub fn resize_cache(
        &self,
        id: CacheId,
        limits: CacheLimits,
        now: Seconds,
    ) -> Result<(), LimitError> {
        let caches = self.write();
        let cache = caches.get(&id).ok_or(LimitError::NotFound)?;
        let old = backing(cache.stats().limit_maxbytes);
        self.check_room(guaranteed(&caches) - old, limits)?;
        cache.lock().resize(limits, now);
        Ok(())
    }

    /// Forgets a cache. Whoever still holds it reads and writes a cache that nobody else sees.
    /// False when there was none.
    pub fn remove_cache(&self, id: CacheId) -> bool {
        self.write().remove(&id).is_some()
    }

    /// Does work that no request should wait for: frees what was flushed, deleted or has expired.
    /// Called from idle event loops. `budget` bounds the work in steps of a microsecond or so.
    /// True when there is more to do.
    pub fn maintain(&self, _now: Seconds, _budget: u32) -> bool {
        false
    }

    pub fn stats(&self) -> StoreStats {
        let caches = self.read();
        StoreStats {
            caches: caches.len() as u64,
            memory_bytes: self.settings.memory_bytes,
            guaranteed_bytes: guaranteed(&caches),
            used_bytes: caches.values().map(|cache| cache.stats().held_bytes).sum(),
        }
    }

    fn check_room(&self, promised: u64, limits: CacheLimits) -> Result<(), LimitError> {
        let wanted_bytes = backing(limits.memory_bytes);
        let free_bytes = self.settings.memory_bytes.saturating_sub(promised);
        if wanted_bytes > free_bytes {
            return Err(LimitError::NoRoom { wanted_bytes, free_bytes });
        }
        Ok(())
    }

    fn read(&self) -> RwLockReadGuard<'_, HashMap<CacheId, Arc<Cache>>> {
        self.caches.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self) -> RwLockWriteGuard<'_, HashMap<CacheId, Arc<Cache>>> {
        self.caches.write().unwrap_or_else(PoisonError::into_inner)
    }
}

fn guaranteed(caches: &HashMap<CacheId, Arc<Cache>>) -> u64 {
    caches.values().map(|cache| backing(cache.stats().limit_maxbytes)).sum()
}

/// Memory that must exist for a promise of so many key and value bytes.
fn backing(memory_bytes: u64) -> u64 {
    memory_bytes.saturating_mul(GUARANTEE_PERCENT) / 100
}

/// A key whose place is known, so that it is hashed once per request.
#[derive(Debug, Clone, Copy)]
pub struct Located<'k> {
    key: &'k [u8],
    /// Keyed, so that a stranger cannot choose keys that collide.
    #[expect(dead_code, reason = "the map below hashes by itself; the engine will use this")]
    hash: u64,
}

impl<'k> Located<'k> {
    #[inline]
    pub fn key(&self) -> &'k [u8] {
        self.key
    }
}

/// One cache: its items and accounts.
pub struct Cache {
    id: CacheId,
    hasher: FixedState,
    model: Mutex<Model>,
}

impl Cache {
    pub fn id(&self) -> CacheId {
        self.id
    }

    /// Hashes a key of 1 to 255 bytes and begins to fetch its place from memory. In a batch, locate
    /// every key first: the fetches then overlap, and what would be a wait for each is one for all.
    #[inline]
    pub fn locate<'k>(&self, key: &'k [u8]) -> Located<'k> {
        Located { key, hash: self.hasher.hash_one(key) }
    }

    /// Reads an item. `visit` sees it under the cache's lock, so it should copy and return.
    pub fn get<R>(
        &self,
        at: &Located<'_>,
        args: GetArgs,
        now: Seconds,
        visit: impl FnOnce(Option<Hit<'_>>) -> R,
    ) -> R {
        self.lock().get(at.key, args, now, visit)
    }

    /// Looks at an item without leaving a trace (meta `me`): neither counted nor marked as read.
    pub fn peek<R>(
        &self,
        at: &Located<'_>,
        now: Seconds,
        visit: impl FnOnce(Option<Hit<'_>>) -> R,
    ) -> R {
        self.lock().peek(at.key, now, visit)
    }

    pub fn store(&self, at: &Located<'_>, args: StoreArgs<'_>, now: Seconds) -> StoreOutcome {
        self.lock().store(at.key, args, now)
    }

    pub fn delete(&self, at: &Located<'_>, args: DeleteArgs, now: Seconds) -> DeleteOutcome {
        self.lock().delete(at.key, args, now)
    }

    pub fn arithmetic(
        &self,
        at: &Located<'_>,
        args: ArithmeticArgs,
        now: Seconds,
    ) -> ArithmeticOutcome {
        self.lock().arithmetic(at.key, args, now)
    }

    pub fn touch(&self, at: &Located<'_>, expiry: Expiry, now: Seconds) -> TouchOutcome {
        self.lock().touch(at.key, expiry, now)
    }

    /// Forgets every item stored before `at`, which may be `now` or later; a later call replaces
    /// a flush that is still to come. Exact: what is stored after this call (or, for a delayed
    /// flush, in the second `at` or after) survives; memcached decides by whole seconds.
    pub fn flush(&self, at: Seconds, now: Seconds) {
        self.lock().flush(at, now);
    }

    pub fn stats(&self) -> CacheStats {
        self.lock().stats()
    }

    /// Sets the counters to zero (`stats reset`); what is held now stays counted.
    pub fn reset_stats(&self) {
        self.lock().reset_stats();
    }

    /// A panic of a visitor leaves the items whole, because visits come last, so the lock may be
    /// taken again.
    fn lock(&self) -> MutexGuard<'_, Model> {
        self.model.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
