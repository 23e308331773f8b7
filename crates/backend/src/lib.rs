//! Holds items for proxies: maps what clients ask for onto the store, for the slots it owns.
//!
//! ```text
//!   a proxy of this process ── enter, check, get … ──┐
//!                                                    ▼
//!   a proxy of another ── frames ─▶ peer ─▶ Backend: is the slot ours? ([`slots`])
//!                                              │ yes: execute             │ no: MOVED, NOT_YET, UNKNOWN
//!                                              ▼                          ▼
//!                                            store                     nothing happened
//! ```
//!
//! Two more things happen here and nowhere else: a client's idea of time becomes the store's
//! ([`expiry`]), and the protocol's operations become the store's. Both crates stay free of each
//! other.

mod callers;
mod expiry;
pub mod parts;
pub mod peer;
pub mod readiness;
pub mod slots;
pub mod statistics;
mod sweep;

use std::sync::Arc;

use cluster::mistake::{Mistake, is_made};
use cluster::ownership::Run;

use daemon::clock::Now;
use protocol::operation as ask;
use store::operation as act;
use store::stats::StoreStats;
use store::store::{Cache, CacheLimits, LimitError, Located, Settings, Store};
use store::turn::Turn;
use tenancy::id::CacheId;
use tenancy::plan::Limits;
use wire::control::name::NodeName;

use crate::callers::Callers;
use crate::expiry::{expiry, flush_moment, moment_after, seconds};
use crate::slots::Slots;

/// Steps of housekeeping between two looks at the sockets; well under a millisecond.
const MAINTENANCE_STEPS: u32 = 64;

/// Most a cache may hold while memory is idle, in percent of what is guaranteed. More would help
/// few, and whoever lives on four times what is paid for has a long way back when the owners come.
const LENDING_PERCENT: u64 = 400;

/// One backend: its caches, and which slots of them it may serve.
///
/// A process may have several, each with memory and slots of its own.
pub struct Backend {
    pub(crate) store: Store,
    pub(crate) slots: Slots,
    pub(crate) callers: Arc<Callers>,
}

impl Backend {
    /// A backend that is alone, so that every slot is its own, with this much memory for items and
    /// overhead, in bytes. The seed keys the hash of keys, so it must not be guessable.
    pub fn new(memory_bytes: u64, seed: u64) -> Self {
        Backend {
            store: lending_store(memory_bytes, seed),
            slots: Slots::alone(),
            callers: Arc::default(),
        }
    }

    /// A member of a cluster, which serves nothing before it is told of a topology that names this
    /// run of it. Memory and seed as in [`Backend::new`].
    pub fn member(memory_bytes: u64, seed: u64, run: Run) -> Self {
        Backend {
            store: lending_store(memory_bytes, seed),
            slots: Slots::of(run),
            callers: Arc::default(),
        }
    }

    /// Whether a proxy of this node has a link to this backend now.
    pub fn is_called_by(&self, node: &NodeName) -> bool {
        self.callers.has(node)
    }

    /// # Errors
    /// The cache is there already, or its memory cannot be guaranteed.
    pub fn create_cache(&self, id: CacheId, limits: Limits) -> Result<(), LimitError> {
        self.store.create_cache(id, cache_limits(limits)).map(drop)
    }

    /// # Errors
    /// There is no such cache, or its memory cannot be guaranteed.
    pub fn resize_cache(&self, id: CacheId, limits: Limits, now: Now) -> Result<(), LimitError> {
        self.store.resize_cache(id, cache_limits(limits), seconds(now))
    }

    /// Creates the part of a cache that has other parts in other backends. `share_bytes` is its share
    /// until [`Backend::share_cache`] gives it another: [`cluster::shares::first_share`] of the
    /// cache's limit. The largest item always fits, however small the share is.
    ///
    /// # Errors
    /// The part is there already, or its memory cannot be guaranteed.
    pub fn create_part(
        &self,
        id: CacheId,
        share_bytes: u64,
        item_bytes_max: u32,
        now: Now,
    ) -> Result<(), LimitError> {
        let memory_bytes = share_bytes.max(item_bytes_max.into());
        self.store.create_cache(id, CacheLimits { memory_bytes, item_bytes_max })?;
        self.share_cache(id, share_bytes, item_bytes_max, now)
    }

    /// Gives the part of a cache its new share.
    ///
    /// # Errors
    /// There is no such part, or its memory cannot be guaranteed; then its share stays.
    pub fn share_cache(
        &self,
        id: CacheId,
        share_bytes: u64,
        item_bytes_max: u32,
        now: Now,
    ) -> Result<(), LimitError> {
        let times = if is_made(Mistake::IgnoresLimits) { 3 } else { 1 };
        self.store.share_cache(id, times * share_bytes, item_bytes_max, seconds(now))
    }

    /// Says that somebody still weighs all shares, although they have not changed, and is told now what
    /// is held. To be called before each report, and more often than every ten seconds; else large items
    /// have no credit beyond their share any more.
    pub fn keep_shares(&self) {
        self.store.keep_shares();
    }

    /// Every cache there is a part of, in no order.
    pub fn caches(&self) -> Vec<Arc<Cache>> {
        self.store.caches()
    }

    /// How the memory of all caches together stands.
    pub fn store_stats(&self) -> StoreStats {
        self.store.stats()
    }

    /// `false` when there was none.
    pub fn remove_cache(&self, id: CacheId) -> bool {
        self.store.remove_cache(id)
    }

    pub fn cache(&self, id: CacheId) -> Option<Arc<Cache>> {
        self.store.cache(id)
    }

    /// Does a bounded piece of housekeeping. `true` when there is more.
    pub fn maintain(&self, now: Now) -> bool {
        let sweeping = self.slots.sweep(&self.store, seconds(now));
        self.store.maintain(seconds(now), MAINTENANCE_STEPS) || sweeping
    }

    /// Which slots may be served; hold it for as long as requests on them are executed.
    pub fn slots(&self) -> &Slots {
        &self.slots
    }
}

#[inline]
pub fn get<R>(
    turn: &mut Turn<'_>,
    at: &Located<'_>,
    get: &ask::Get<'_>,
    now: Now,
    visit: impl FnOnce(ask::GetOutcome<'_>) -> R,
) -> R {
    // Nearly all are, and need nothing translated.
    if get.is_plain() {
        let args = act::GetArgs { leases: get.leases, ..act::GetArgs::default() };
        return turn.get(at, args, seconds(now), |hit| visit(hit.map(told)));
    }
    let args = act::GetArgs {
        touch: get.touch.map(|exptime| expiry(exptime, now)),
        vivify: get.vivify.map(|exptime| expiry(exptime, now)),
        recache_before: get.recache_below_seconds.map(|seconds| moment_after(seconds, now)),
        new_cas: get.new_cas,
        leases: get.leases,
        unseen: get.unseen,
    };
    turn.get(at, args, seconds(now), |hit| visit(hit.map(told)))
}

pub fn peek<R>(
    turn: &mut Turn<'_>,
    at: &Located<'_>,
    now: Now,
    visit: impl FnOnce(Option<ask::Hit<'_>>) -> R,
) -> R {
    turn.peek(at, seconds(now), |hit| visit(hit.map(told)))
}

#[inline]
pub fn store(
    turn: &mut Turn<'_>,
    at: &Located<'_>,
    store: &ask::Store<'_>,
    now: Now,
) -> ask::StoreOutcome {
    let args = act::StoreArgs {
        value: store.value,
        flags: store.flags,
        expiry: expiry(store.exptime, now),
        mode: match store.mode {
            ask::StoreMode::Set => act::StoreMode::Set,
            ask::StoreMode::Add => act::StoreMode::Add,
            ask::StoreMode::Replace => act::StoreMode::Replace,
            ask::StoreMode::Append => act::StoreMode::Append,
            ask::StoreMode::Prepend => act::StoreMode::Prepend,
        },
        compare_cas: store.compare_cas,
        new_cas: store.new_cas,
        invalidate: store.invalidate,
        vivify: store.vivify.map(|exptime| expiry(exptime, now)),
    };
    match turn.store(at, args, seconds(now)) {
        act::StoreOutcome::Stored { cas, value_bytes } => {
            ask::StoreOutcome::Stored { cas, value_bytes }
        }
        act::StoreOutcome::NotStored => ask::StoreOutcome::NotStored,
        act::StoreOutcome::Exists => ask::StoreOutcome::Exists,
        act::StoreOutcome::NotFound => ask::StoreOutcome::NotFound,
        act::StoreOutcome::TooLarge => ask::StoreOutcome::TooLarge,
        act::StoreOutcome::OutOfMemory => ask::StoreOutcome::OutOfMemory,
    }
}

pub fn delete(
    turn: &mut Turn<'_>,
    at: &Located<'_>,
    delete: &ask::Delete<'_>,
    now: Now,
) -> ask::DeleteOutcome {
    let args = act::DeleteArgs {
        compare_cas: delete.compare_cas,
        new_cas: delete.new_cas,
        invalidate: delete.invalidate,
        touch: delete.touch.map(|exptime| expiry(exptime, now)),
        remove_value: delete.remove_value,
    };
    match turn.delete(at, args, seconds(now)) {
        act::DeleteOutcome::Deleted => ask::DeleteOutcome::Deleted,
        act::DeleteOutcome::NotFound => ask::DeleteOutcome::NotFound,
        act::DeleteOutcome::Exists => ask::DeleteOutcome::Exists,
    }
}

pub fn arithmetic(
    turn: &mut Turn<'_>,
    at: &Located<'_>,
    arithmetic: &ask::Arithmetic<'_>,
    now: Now,
) -> ask::ArithmeticOutcome {
    let args = act::ArithmeticArgs {
        direction: match arithmetic.direction {
            ask::Direction::Increment => act::Direction::Increment,
            ask::Direction::Decrement => act::Direction::Decrement,
        },
        delta: arithmetic.delta,
        initial: arithmetic.initial.map(|initial| act::Initial {
            number: initial.number,
            expiry: expiry(initial.exptime, now),
        }),
        compare_cas: arithmetic.compare_cas,
        new_cas: arithmetic.new_cas,
        touch: arithmetic.touch.map(|exptime| expiry(exptime, now)),
    };
    match turn.arithmetic(at, args, seconds(now)) {
        act::ArithmeticOutcome::Counted { number, cas, ttl_seconds } => {
            ask::ArithmeticOutcome::Counted { number, cas, ttl_seconds }
        }
        act::ArithmeticOutcome::NotFound => ask::ArithmeticOutcome::NotFound,
        act::ArithmeticOutcome::NotNumeric => ask::ArithmeticOutcome::NotNumeric,
        act::ArithmeticOutcome::Exists => ask::ArithmeticOutcome::Exists,
        act::ArithmeticOutcome::OutOfMemory => ask::ArithmeticOutcome::OutOfMemory,
    }
}

pub fn touch(
    turn: &mut Turn<'_>,
    at: &Located<'_>,
    touch: &ask::Touch<'_>,
    now: Now,
) -> ask::TouchOutcome {
    match turn.touch(at, expiry(touch.exptime, now), seconds(now)) {
        act::TouchOutcome::Touched { cas, flags } => ask::TouchOutcome::Touched { cas, flags },
        act::TouchOutcome::NotFound => ask::TouchOutcome::NotFound,
    }
}

pub fn flush(cache: &Cache, delay: ask::Exptime, now: Now) {
    cache.flush(flush_moment(delay, now), seconds(now));
}

/// The cache's figures under memcached's names.
pub fn figures(cache: &Cache) -> Vec<(&'static str, u64)> {
    statistics::figures(&cache.stats())
}

fn lending_store(memory_bytes: u64, seed: u64) -> Store {
    Store::new(Settings { memory_bytes, seed }).lending(LENDING_PERCENT)
}

fn cache_limits(limits: Limits) -> CacheLimits {
    CacheLimits { memory_bytes: limits.memory_bytes, item_bytes_max: limits.item_bytes_max }
}

#[inline]
fn told(hit: act::Hit<'_>) -> ask::Hit<'_> {
    ask::Hit {
        value: hit.value,
        flags: hit.flags,
        cas: hit.cas,
        ttl_seconds: hit.ttl_seconds,
        read_before: hit.read_before,
        idle_seconds: hit.idle_seconds,
        lease: ask::Lease { won: hit.lease.won, stale: hit.lease.stale, taken: hit.lease.taken },
    }
}
