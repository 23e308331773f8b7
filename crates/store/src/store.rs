//! The whole store and its caches: what other crates hold.
//!
//! ```text
//!   Store ── create_cache, cache(id), resize_cache, remove_cache, maintain, stats
//!     └── Arc<Cache> ── locate(key) ─▶ Located ─▶ get, store, delete, arithmetic, touch, peek
//!            │       ├─ turn() ─▶ Turn, the same for a batch (turn.rs)
//!            │       └─ flush, stats, reset_stats, histograms, top_keys, working_set, scan, stream
//!            └── shards, each a slice behind its own lock
//! ```
//!
//! Any thread may call anything; each item operation takes one lock, of the shard its key is in.
//! Nobody ever holds two of them. Why there are locks at all:
//! `docs/decisions/0009-shards-of-a-cache-have-locks.md`.

use std::collections::BTreeMap;
use std::hash::BuildHasher;
use std::sync::{Arc, PoisonError, TryLockError};

use foldhash::quality::FixedState;
use tenancy::id::CacheId;

use crate::arbiter::Arbiter;
use crate::arena::{BLOCK_BYTES, Block};
use crate::item::{KEY_BYTES_MAX, VALUE_BYTES_MAX};
use crate::memory::Memory;
use crate::operation::{
    ArithmeticArgs, ArithmeticOutcome, DeleteArgs, DeleteOutcome, Expiry, GetArgs, Hit, Seconds,
    StoreArgs, StoreOutcome, TouchOutcome,
};
use crate::scan::Cursor;
use crate::slice::{Claim, Key, Quota, Slice};
use crate::stats::{CacheStats, Histograms, StoreStats};
use crate::stream::{Event, Followed, Stream};
use crate::sync::{
    AtomicU32, AtomicU64, AtomicUsize, Mutex, MutexGuard, Relaxed, RwLock, RwLockReadGuard,
    RwLockWriteGuard,
};
use crate::turn::Turn;
use crate::watch::{self, PrefixCounts, Top, Watch};
use crate::working_set::Curve;

/// Settings of the whole store.
#[derive(Debug, Clone, Copy)]
pub struct Settings {
    /// Memory for items and indexes, in bytes. Tables beside them take about 1 % more.
    pub memory_bytes: u64,
    /// The only source of chance: keys the hash of keys, so it should be drawn at random.
    pub seed: u64,
}

/// What one cache may hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CacheLimits {
    /// Guaranteed memory: key and value bytes. Overhead is the store's own business.
    pub memory_bytes: u64,
    /// Largest key plus value in bytes; at most 4 MiB are honoured.
    pub item_bytes_max: u32,
}

/// Memory set aside for a promise of key and value bytes, in percent of it. The rest is for item
/// heads, the index and half-filled blocks, for items of 150 bytes and more. A cache of smaller
/// ones is full at its limit too as long as memory is free, and evicts a little earlier when not.
const GUARANTEE_PERCENT: u64 = 120;
/// Blocks set aside beyond that for each shard: one that is being filled in each queue.
const OPEN_BLOCKS: u32 = 2;
/// Guarantee of one shard, about: small enough that threads seldom meet at one lock of a large
/// cache, large enough that keys spread over shards evenly.
const SHARD_BYTES: u64 = 64 << 20;
/// Most shards of one cache.
const SHARDS_MAX: u64 = 16;
/// Blocks evicted at once when a cache is made smaller: half a megabyte, some hundred microseconds.
const RESIZE_STEPS: u32 = 64;
/// Blocks of given-up contents freed at a time, so that the lock of all memory is soon let go.
const DIG_BLOCKS: u32 = 64;

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
    hasher: FixedState,
    /// Most a cache may hold, in percent of its guarantee.
    lending_percent: u64,
    /// Blocks promised to all caches; changed under the lock of `caches`.
    promised: AtomicU64,
    arbiter: Arc<Arbiter>,
    /// In the order of their numbers, as nothing here is left to chance.
    caches: RwLock<BTreeMap<CacheId, Arc<Cache>>>,
    round: Mutex<Round>,
}

/// How far maintenance has come.
#[derive(Default)]
struct Round {
    /// The next cache in the arbiter's list.
    next: usize,
    /// The second in which all caches were last seen through.
    finished: Option<Seconds>,
}

impl Store {
    /// An empty store, which lends nothing: see [`Store::lending`].
    ///
    /// # Panics
    /// When the system refuses that many addresses, which no request could be served without.
    pub fn new(settings: Settings) -> Self {
        let memory = Memory::new(settings.memory_bytes)
            .expect("the system grants the addresses for the memory it was set to use");
        Store {
            hasher: FixedState::with_seed(settings.seed),
            lending_percent: 100,
            promised: AtomicU64::new(0),
            arbiter: Arc::new(Arbiter::new(memory)),
            caches: RwLock::default(),
            round: Mutex::default(),
        }
    }

    /// Lets caches created from now on hold up to this many percent of their guarantee while memory
    /// is idle. What was lent is taken back the moment another cache claims its guarantee.
    #[must_use]
    pub fn lending(mut self, percent: u64) -> Self {
        self.lending_percent = percent.max(100);
        self
    }

    /// The CAS value before the first one that a cache gives.
    #[cfg(test)]
    pub(crate) fn cas_before(&self) -> u64 {
        crate::slice::cas_before(&self.hasher).into()
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
        let shards = (limits.memory_bytes / SHARD_BYTES).clamp(1, SHARDS_MAX);
        let shards = 1_u64 << shards.ilog2();
        let quota = self.quota(limits, shards);
        self.promise(0, quota, shards)?;
        let shard =
            || Shard::new(Slice::new(quota, Arc::clone(&self.arbiter.memory), self.hasher.clone()));
        let cache = Arc::new(Cache {
            id,
            hasher: self.hasher.clone(),
            arbiter: Arc::clone(&self.arbiter),
            number: AtomicUsize::new(0),
            shards: (0..shards).map(|_| shard()).collect(),
        });
        self.arbiter.register(&cache);
        caches.insert(id, Arc::clone(&cache));
        Ok(cache)
    }

    pub fn cache(&self, id: CacheId) -> Option<Arc<Cache>> {
        self.read().get(&id).cloned()
    }

    /// Gives a cache new limits at once; the number of its shards stays. A cache that shrinks begins
    /// to evict here, and is brought down to its new size by its own writes and by
    /// [`Store::maintain`].
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
        let shards = cache.shards.len() as u64;
        let quota = self.quota(limits, shards);
        self.promise(cache.promised(), quota, shards)?;
        for shard in &cache.shards {
            let mut slice = shard.lock();
            slice.quota = quota;
            slice.stats.first_eviction = None;
            shard.share.store(quota.blocks, Relaxed);
            let mut budget = RESIZE_STEPS;
            slice.tend(&mut budget, now);
            shard.publish(&slice);
        }
        Ok(())
    }

    /// Gives a cache its share of a limit that it has together with parts of it in other stores: key
    /// and value bytes that it may hold until the next call, which comes every second or so. An item
    /// as large as `item_bytes_max` always fits, however small the share is; it may exceed the share
    /// until all shares were weighed with it: at the second share from then, of which each counts that
    /// comes after [`Store::keep_shares`].
    ///
    /// # Errors
    /// [`LimitError::NotFound`], or [`LimitError::NoRoom`] when the promises would exceed the
    /// memory; the share stays as it was.
    pub fn share_cache(
        &self,
        id: CacheId,
        share_bytes: u64,
        item_bytes_max: u32,
        now: Seconds,
    ) -> Result<(), LimitError> {
        let caches = self.write();
        let cache = caches.get(&id).ok_or(LimitError::NotFound)?;
        let shards = cache.shards.len() as u64;
        // Memory stands by for the share, or for the largest item if that is more.
        let memory_bytes = share_bytes.max(u64::from(item_bytes_max) * shards);
        let promised = self.quota(CacheLimits { memory_bytes, item_bytes_max }, shards);
        let most = share_bytes / shards;
        let quota = Quota { most, credit: u64::from(promised.item_bytes_max), ..promised };
        self.promise(cache.promised(), quota, shards)?;
        for shard in &cache.shards {
            let mut slice = shard.lock();
            slice.quota = quota;
            slice.weighed();
            shard.share.store(quota.blocks, Relaxed);
            let mut budget = RESIZE_STEPS;
            slice.tend(&mut budget, now);
            shard.publish(&slice);
        }
        Ok(())
    }

    /// Says that somebody still weighs the shares that were given, although none has changed, and is told
    /// now what caches hold: without that, or a new share, large items soon have no credit any more.
    pub fn keep_shares(&self) {
        for cache in self.caches() {
            for shard in &cache.shards {
                let mut slice = shard.lock();
                if slice.quota.credit > 0 {
                    slice.kept();
                }
            }
        }
    }

    /// Forgets a cache, whatever its size, at once. Whoever still holds it finds it empty and
    /// without memory. False when there was none.
    pub fn remove_cache(&self, id: CacheId) -> bool {
        let Some(cache) = self.write().remove(&id) else { return false };
        self.promised.fetch_sub(u64::from(cache.promised()), Relaxed);
        self.arbiter.unregister(&cache);
        for shard in &cache.shards {
            let mut slice = shard.lock();
            slice.quota = Quota::default();
            slice.flush_now();
            shard.publish(&slice);
        }
        true
    }

    /// Every cache there is now, in the order of their numbers.
    pub fn caches(&self) -> Vec<Arc<Cache>> {
        self.read().values().cloned().collect()
    }

    /// Does work that no request should wait for: frees what was flushed, deleted or has expired,
    /// brings shrunk caches down to their size, gathers what is sparse. Called from idle event
    /// loops; if several threads call, one works. `budget` bounds the work in steps of about two
    /// microseconds. True when there is more to do in this second.
    pub fn maintain(&self, now: Seconds, mut budget: u32) -> bool {
        let mut round = match self.round.try_lock() {
            Ok(round) => round,
            Err(TryLockError::Poisoned(poisoned)) => poisoned.into_inner(),
            Err(TryLockError::WouldBlock) => return false,
        };
        // What was dug up may then go back to the system.
        let memory = &self.arbiter.memory;
        let buried = memory.dig(DIG_BLOCKS.min(budget)) || memory.trim();
        if round.finished == Some(now) {
            return buried;
        }
        while budget > 0 {
            if round.next >= self.arbiter.count() {
                *round = Round { next: 0, finished: Some(now) };
                return buried;
            }
            budget -= 1;
            // One that has just been removed leaves a gap that is filled by the last in the list.
            let more =
                self.arbiter.cache(round.next).is_some_and(|cache| cache.tend(&mut budget, now));
            if !more {
                round.next += 1;
            }
        }
        true
    }

    /// Has the system give memory that caches will take next. Who first writes to new memory waits for
    /// the system to clear it, on a virtual machine for milliseconds; so this is for a thread that
    /// serves nobody, and called some times a second it leaves no request to wait. True when there
    /// may be more to do.
    pub fn prepare(&self) -> bool {
        self.arbiter.memory.prepare()
    }

    pub fn stats(&self) -> StoreStats {
        let (blocks, free) = self.arbiter.memory.counts();
        let caches = self.read();
        StoreStats {
            caches: caches.len() as u64,
            memory_bytes: bytes_of(blocks),
            guaranteed_bytes: self.promised.load(Relaxed) * BLOCK_BYTES as u64,
            used_bytes: bytes_of(blocks - free),
        }
    }

    fn quota(&self, limits: CacheLimits, shards: u64) -> Quota {
        let guaranteed = limits.memory_bytes / shards;
        let backing = guaranteed.saturating_mul(GUARANTEE_PERCENT) / 100;
        let blocks = u32::try_from(backing.div_ceil(BLOCK_BYTES as u64)).unwrap_or(u32::MAX);
        Quota {
            guaranteed,
            most: guaranteed.saturating_mul(self.lending_percent) / 100,
            credit: 0,
            blocks: blocks.saturating_add(OPEN_BLOCKS),
            item_bytes_max: limits.item_bytes_max.min(VALUE_BYTES_MAX as u32),
        }
    }

    /// Promises a cache what the quota of each shard says, instead of `old` blocks. The lock of all
    /// caches must be held for writing.
    fn promise(&self, old: u32, quota: Quota, shards: u64) -> Result<(), LimitError> {
        let promised = self.promised.load(Relaxed) - u64::from(old);
        let free = u64::from(self.arbiter.memory.promisable()).saturating_sub(promised);
        let wanted = u64::from(quota.blocks) * shards;
        if wanted > free {
            let bytes = |blocks: u64| blocks * BLOCK_BYTES as u64;
            return Err(LimitError::NoRoom {
                wanted_bytes: bytes(wanted),
                free_bytes: bytes(free),
            });
        }
        self.promised.store(promised + wanted, Relaxed);
        Ok(())
    }

    fn read(&self) -> RwLockReadGuard<'_, BTreeMap<CacheId, Arc<Cache>>> {
        self.caches.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self) -> RwLockWriteGuard<'_, BTreeMap<CacheId, Arc<Cache>>> {
        self.caches.write().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Store {
    /// Caches that someone still holds stay as they are.
    fn drop(&mut self) {
        self.arbiter.clear();
    }
}

fn bytes_of(blocks: u32) -> u64 {
    u64::from(blocks) * BLOCK_BYTES as u64
}

/// A key whose place is known, so that it is hashed once per request.
#[derive(Debug, Clone, Copy)]
pub struct Located<'k> {
    key: &'k [u8],
    /// Keyed, so that a stranger cannot choose keys that collide.
    pub(crate) hash: u64,
}

impl<'k> Located<'k> {
    #[inline]
    pub fn key(&self) -> &'k [u8] {
        self.key
    }

    #[inline]
    pub(crate) fn parts(&self) -> Key<'k> {
        Key { bytes: self.key, hash: self.hash }
    }
}

/// One cache: its items and accounts.
pub struct Cache {
    id: CacheId,
    hasher: FixedState,
    pub(crate) arbiter: Arc<Arbiter>,
    /// Where it stands in the arbiter's list.
    pub(crate) number: AtomicUsize,
    /// INVARIANT: their number is a power of two.
    shards: Box<[Shard]>,
}

/// One slice behind its lock, with what the arbiter must know without taking the lock.
pub(crate) struct Shard {
    slice: Mutex<Slice>,
    /// Blocks held.
    pub(crate) held: AtomicU32,
    /// Blocks promised.
    pub(crate) share: AtomicU32,
    /// Ghost hits lately: how much the shard would like to have more.
    pub(crate) missed: AtomicU32,
    /// Blocks' worth of keys and values beyond the guarantee.
    pub(crate) unpaid: AtomicU32,
}

impl Cache {
    pub fn id(&self) -> CacheId {
        self.id
    }

    /// Hashes a key, once for all that follows.
    ///
    /// # Panics
    /// When the key is empty or longer than 255 bytes; every dialect's limit is 250.
    #[inline]
    pub fn locate<'k>(&self, key: &'k [u8]) -> Located<'k> {
        assert!((1..=KEY_BYTES_MAX).contains(&key.len()), "the decoder lets no such key through");
        Located { key, hash: self.hasher.hash_one(key) }
    }

    /// Operations of one thread that follow one another at once, with as few locks as may be.
    #[inline]
    pub fn turn(&self) -> Turn<'_> {
        Turn::new(self)
    }

    /// See [`Turn::warm`].
    pub fn warm(&self, batch: &[Located<'_>]) {
        self.turn().warm(batch);
    }

    /// See [`Turn::get`].
    #[inline]
    pub fn get<R>(
        &self,
        at: &Located<'_>,
        args: GetArgs,
        now: Seconds,
        visit: impl FnOnce(Option<Hit<'_>>) -> R,
    ) -> R {
        self.turn().get(at, args, now, visit)
    }

    /// See [`Turn::peek`].
    pub fn peek<R>(
        &self,
        at: &Located<'_>,
        now: Seconds,
        visit: impl FnOnce(Option<Hit<'_>>) -> R,
    ) -> R {
        self.turn().peek(at, now, visit)
    }

    pub fn store(&self, at: &Located<'_>, args: StoreArgs<'_>, now: Seconds) -> StoreOutcome {
        self.turn().store(at, args, now)
    }

    /// Removes an item that no client asked to be removed, and counts nothing.
    pub fn forget(&self, at: &Located<'_>) {
        self.turn().forget(at);
    }

    pub fn delete(&self, at: &Located<'_>, args: DeleteArgs, now: Seconds) -> DeleteOutcome {
        self.turn().delete(at, args, now)
    }

    pub fn arithmetic(
        &self,
        at: &Located<'_>,
        args: ArithmeticArgs,
        now: Seconds,
    ) -> ArithmeticOutcome {
        self.turn().arithmetic(at, args, now)
    }

    pub fn touch(&self, at: &Located<'_>, expiry: Expiry, now: Seconds) -> TouchOutcome {
        self.turn().touch(at, expiry, now)
    }

    /// Shows living items from oldest to newest, about `items` of them, without a trace; the cursor
    /// keeps the place. True when there is more. Each call holds one lock, so ask for little at a
    /// time. See [`crate::scan`] for what is promised while the cache changes.
    pub fn scan(
        &self,
        cursor: &mut Cursor,
        items: usize,
        now: Seconds,
        visit: impl FnMut(&[u8], Hit<'_>),
    ) -> bool {
        let Some(shard) = self.shards.get(cursor.shard) else { return false };
        let mut slice = shard.lock();
        slice.settle(now);
        if !slice.scan(cursor, items, now, visit) {
            cursor.next_shard();
        }
        cursor.shard < self.shards.len()
    }

    /// Begins to send this cache elsewhere: see [`crate::stream`]. `None` while another stream of it
    /// is under way. Deletions and changes in place cost a little more until
    /// [`Cache::end_stream`].
    pub fn stream(&self) -> Option<Stream> {
        for shard in &self.shards {
            let mut slice = shard.lock();
            // Shards are taken in order, so who gets the first gets all.
            if slice.journal.is_some() {
                return None;
            }
            slice.journal = Some(Box::default());
        }
        Some(Stream { cursors: vec![Cursor::default(); self.shards.len()] })
    }

    /// Tells what has changed since the last call, and about `items` more of each shard. True when
    /// there is more. False means caught up: if nothing was written meanwhile, all is told.
    pub fn follow(
        &self,
        stream: &mut Stream,
        items: usize,
        now: Seconds,
        mut visit: impl FnMut(Event<'_>),
    ) -> bool {
        let mut more = false;
        let mut lost = false;
        for (shard, cursor) in self.shards.iter().zip(&mut stream.cursors) {
            let mut slice = shard.lock();
            slice.settle(now);
            let followed = slice.follow(cursor, items, now, &mut visit);
            slice.return_spares();
            more |= followed == Followed::More;
            lost |= followed == Followed::Lost;
        }
        if lost {
            for (shard, cursor) in self.shards.iter().zip(&mut stream.cursors) {
                *cursor = Cursor::default();
                shard.lock().journal = Some(Box::default());
            }
            visit(Event::Restart);
        }
        more || lost
    }

    /// Ends a stream, whether it was told to the end or not.
    pub fn end_stream(&self, stream: Stream) {
        debug_assert_eq!(stream.cursors.len(), self.shards.len());
        self.shards.iter().for_each(|shard| shard.lock().journal = None);
    }

    /// Forgets every item stored before `at`, which may be `now` or later; a later call replaces
    /// a flush that is still to come. Takes the same few microseconds however much there is.
    /// Exact: what is stored after this call (or, for a delayed flush, in the second `at` or after)
    /// survives; memcached decides by whole seconds.
    pub fn flush(&self, at: Seconds, now: Seconds) {
        for (number, shard) in self.shards.iter().enumerate() {
            let mut slice = shard.lock();
            slice.flush(at, now);
            // The cache was flushed once, not each of its shards.
            slice.stats.cmd_flush += u64::from(number == 0);
            shard.publish(&slice);
        }
    }

    pub fn stats(&self) -> CacheStats {
        let mut sum = CacheStats::default();
        for shard in &self.shards {
            let slice = shard.lock();
            sum.add(&slice.stats);
            sum.limit_maxbytes += slice.quota.guaranteed.min(slice.quota.most);
            sum.held_bytes += bytes_of(slice.contents.blocks()) + slice.table_bytes();
        }
        sum
    }

    /// Sets the counters to zero (`stats reset`); what is held now stays counted.
    pub fn reset_stats(&self) {
        for shard in &self.shards {
            let mut slice = shard.lock();
            let CacheStats { items, bytes, .. } = slice.stats;
            slice.stats = CacheStats { items, bytes, ..Default::default() };
            slice.histograms = None;
        }
    }

    /// How large and how lasting what was written is, since the cache was created or
    /// [`Cache::reset_stats`].
    pub fn histograms(&self) -> Histograms {
        let mut sum = Histograms::default();
        for shard in &self.shards {
            shard.lock().histograms.iter().for_each(|more| sum.merge(more));
        }
        sum
    }

    /// Wants the cache watched, however quiet it is, or no longer. A busy one is watched by itself,
    /// within limits (see [`crate::watch`]). Costs about 8 KB for each shard and a nanosecond or two
    /// per request while it is on.
    pub fn watch(&self, on: bool) {
        let seed = self.hasher.hash_one(self.id.get());
        for shard in &self.shards {
            let mut slice = shard.lock();
            let limit_bytes = slice.quota.guaranteed.min(slice.quota.most);
            slice.watching.want(on, seed, limit_bytes);
        }
    }

    /// Has what is asked for under these prefixes counted until then, and under no others. Costs as a watch
    /// does, and nothing more for each request that is not sampled.
    pub fn watch_prefixes(&self, prefixes: &[Vec<u8>], until: Seconds) {
        let seed = self.hasher.hash_one(self.id.get());
        for shard in &self.shards {
            let mut slice = shard.lock();
            let limit_bytes = slice.quota.guaranteed.min(slice.quota.most);
            slice.watching.want_prefixes(prefixes, until, seed, limit_bytes);
        }
    }

    /// What was counted under each of these prefixes since [`Self::watch_prefixes`].
    pub fn prefix_counts(&self, prefixes: &[Vec<u8>]) -> Vec<PrefixCounts> {
        let mut sums = vec![PrefixCounts::default(); prefixes.len()];
        for shard in &self.shards {
            if let Some(watch) = shard.lock().watching.seen() {
                let counts = prefixes.iter().map(|prefix| watch.prefix(prefix));
                sums.iter_mut().zip(counts).for_each(|(sum, more)| sum.add(more));
            }
        }
        sums
    }

    /// What the cache would hit at other sizes; nothing known unless it is watched.
    pub fn working_set(&self) -> Curve {
        let mut sum = Curve::default();
        for shard in &self.shards {
            if let Some(watch) = shard.lock().watching.seen() {
                sum.add(&watch.curve());
            }
        }
        sum
    }

    /// The keys asked for most, the first the most; nothing unless the cache is watched.
    pub fn top_keys(&self) -> Vec<Top> {
        self.tops(|watch| watch.keys().collect())
    }

    /// The same by what stands before the first `:`, `/`, `.` or `_` of a key.
    pub fn top_prefixes(&self) -> Vec<Top> {
        self.tops(|watch| watch.prefixes().collect())
    }

    fn tops(&self, of: impl Fn(&Watch) -> Vec<Top>) -> Vec<Top> {
        let seen = |shard: &Shard| shard.lock().watching.seen().map(&of).unwrap_or_default();
        watch::merge(self.shards.iter().flat_map(seen))
    }

    pub(crate) fn shards(&self) -> &[Shard] {
        &self.shards
    }

    /// Gives what is claimed, as far as one shard holds more than it should.
    pub(crate) fn shed(&self, number: usize, claim: Claim, now: Seconds) -> Vec<Block> {
        let shard = &self.shards[number];
        let mut slice = shard.lock();
        let blocks = claim.blocks.min(slice.surplus(claim.right));
        let given = slice.shed(blocks as usize, now);
        slice.return_spares();
        shard.publish(&slice);
        given
    }

    /// Maintenance of one cache. True when there is more to do.
    fn tend(&self, budget: &mut u32, now: Seconds) -> bool {
        let mut more = false;
        for shard in &self.shards {
            let mut slice = shard.lock();
            slice.settle(now);
            more |= slice.tend(budget, now);
            shard.publish(&slice);
        }
        more
    }

    /// Blocks promised.
    fn promised(&self) -> u32 {
        self.shards.iter().map(|shard| shard.share.load(Relaxed)).sum()
    }

    #[inline]
    pub(crate) fn shard_number(&self, hash: u64) -> usize {
        // Bits that neither choose the range of the index much nor belong to its tag.
        (hash >> 36) as usize & (self.shards.len() - 1)
    }
}

impl Drop for Cache {
    fn drop(&mut self) {
        for shard in &mut self.shards {
            let slice = shard.slice.get_mut().unwrap_or_else(PoisonError::into_inner);
            self.arbiter.memory.bury(std::mem::take(&mut slice.contents));
        }
    }
}

impl Shard {
    fn new(slice: Slice) -> Self {
        Shard {
            held: AtomicU32::new(0),
            share: AtomicU32::new(slice.quota.blocks),
            missed: AtomicU32::new(0),
            unpaid: AtomicU32::new(0),
            slice: Mutex::new(slice),
        }
    }

    /// A panic of a visitor leaves the items whole, because visits come last, so the lock may be
    /// taken again.
    #[inline]
    pub(crate) fn lock(&self) -> MutexGuard<'_, Slice> {
        self.slice.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Publishes what the shard holds when nobody is changing it.
    pub(crate) fn look(&self) {
        self.publish(&self.lock());
    }

    #[inline]
    pub(crate) fn publish(&self, slice: &Slice) {
        self.held.store(slice.contents.blocks(), Relaxed);
        self.missed.store(slice.missed_lately(), Relaxed);
        self.unpaid.store(slice.unpaid_blocks(), Relaxed);
    }
}

#[cfg(test)]
impl Cache {
    #[track_caller]
    pub(crate) fn check(&self) {
        self.shards.iter().for_each(|shard| shard.lock().check());
    }
}

#[cfg(test)]
impl Shard {
    pub(crate) fn blocks(&self) -> u64 {
        u64::from(self.lock().contents.blocks())
    }
}
