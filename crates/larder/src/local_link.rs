//! The link between a proxy and a backend in the same process: a direct call.

use std::sync::Arc;

use backend::Backend;
use cluster::ownership::Token;
use cluster::slot::Slot;
use daemon::clock::Now;
use protocol::operation::{
    Arithmetic, ArithmeticOutcome, Delete, DeleteOutcome, Exptime, Get, GetOutcome, Hit, Key,
    Store, StoreOutcome, Touch, TouchOutcome,
};
use proxy::link::{BackendLink, NotHere};
use store::store::{Cache, Located};
use tenancy::id::CacheId;

pub(crate) struct LocalLink(pub(crate) Arc<Backend>);

impl BackendLink for LocalLink {
    type Cache = Arc<Cache>;
    type Located<'k> = Located<'k>;
    type Guard<'g> = ();

    fn enter(&self) {}

    /// The one backend there is owns every slot.
    fn check(
        &self,
        (): &(),
        _backend: usize,
        _slot: Slot,
        _token: Option<&Token>,
    ) -> Result<(), NotHere> {
        Ok(())
    }

    fn open(&self, cache: CacheId) -> Option<Self::Cache> {
        self.0.cache(cache)
    }

    #[inline]
    fn locate<'k>(&self, cache: &Self::Cache, _backend: usize, key: Key<'k>) -> Located<'k> {
        cache.locate(key.bytes())
    }

    #[inline]
    fn warm(&self, cache: &Self::Cache, batch: &[Located<'_>]) {
        cache.warm(batch);
    }

    #[inline]
    fn get<R>(
        &self,
        cache: &Self::Cache,
        at: Located<'_>,
        get: &Get<'_>,
        now: Now,
        visit: impl FnOnce(GetOutcome<'_>) -> R,
    ) -> R {
        backend::get(cache, &at, get, now, visit)
    }

    fn peek<R>(
        &self,
        cache: &Self::Cache,
        at: Located<'_>,
        now: Now,
        visit: impl FnOnce(Option<Hit<'_>>) -> R,
    ) -> R {
        backend::peek(cache, &at, now, visit)
    }

    #[inline]
    fn store(
        &self,
        cache: &Self::Cache,
        at: Located<'_>,
        store: &Store<'_>,
        now: Now,
    ) -> StoreOutcome {
        backend::store(cache, &at, store, now)
    }

    fn delete(
        &self,
        cache: &Self::Cache,
        at: Located<'_>,
        delete: &Delete<'_>,
        now: Now,
    ) -> DeleteOutcome {
        backend::delete(cache, &at, delete, now)
    }

    fn arithmetic(
        &self,
        cache: &Self::Cache,
        at: Located<'_>,
        arithmetic: &Arithmetic<'_>,
        now: Now,
    ) -> ArithmeticOutcome {
        backend::arithmetic(cache, &at, arithmetic, now)
    }

    fn touch(
        &self,
        cache: &Self::Cache,
        at: Located<'_>,
        touch: &Touch<'_>,
        now: Now,
    ) -> TouchOutcome {
        backend::touch(cache, &at, touch, now)
    }

    fn flush(&self, cache: &Self::Cache, delay: Exptime, now: Now) {
        backend::flush(cache, delay, now);
    }

    fn figures(&self, cache: &Self::Cache) -> Vec<(&'static str, u64)> {
        backend::figures(cache)
    }

    fn reset_stats(&self, cache: &Self::Cache) {
        cache.reset_stats();
    }

    fn maintain(&self, now: Now) -> bool {
        self.0.maintain(now)
    }
}
