//! The link between a proxy and the backends in the same process: a direct call.

use std::sync::Arc;

use arrayvec::ArrayVec;
use backend::Backend;
use backend::slots::Entered;
use cluster::ownership::{Elsewhere, Token};
use cluster::slot::Slot;
use daemon::clock::Now;
use protocol::operation::{
    Arithmetic, ArithmeticOutcome, Delete, DeleteOutcome, Exptime, Get, GetOutcome, Hit, Key,
    Store, StoreOutcome, Touch, TouchOutcome,
};
use proxy::link::{BackendLink, NotHere};
use store::store::{Cache, Located};
use store::turn::Turn;
use tenancy::id::CacheId;
use wire::control::message::NODE_BACKENDS_MAX;

/// The backends of this process, by number.
pub struct LocalLink(pub Vec<Arc<Backend>>);

/// Requests of one cache that follow one another at once. Holds at most one lock, of a shard of the
/// backend that was asked last.
pub struct Batch<'b> {
    /// The cache's part in each backend.
    parts: &'b [Arc<Cache>],
    backend: usize,
    turn: Turn<'b>,
}

impl<'b> Batch<'b> {
    #[inline]
    fn turn(&mut self, backend: usize) -> &mut Turn<'b> {
        if self.backend != backend {
            // The new turn holds no lock yet, and the old one's goes here: nobody holds two.
            self.turn = self.parts[backend].turn();
            self.backend = backend;
        }
        &mut self.turn
    }
}

/// A key's place in one of them.
#[derive(Clone, Copy)]
pub struct Place<'k> {
    backend: usize,
    at: Located<'k>,
}

/// Keys that are warmed in one backend at once; the batches of a session are no larger.
const WARM_KEYS_MAX: usize = 32;

impl BackendLink for LocalLink {
    /// The cache's part in each backend.
    type Cache = Box<[Arc<Cache>]>;
    type Located<'k> = Place<'k>;
    type Batch<'b> = Batch<'b>;
    type Guard<'g> = ArrayVec<Entered<'g>, NODE_BACKENDS_MAX>;

    /// Always in the same order, so that two threads and two maps on their way cannot wait for one
    /// another in a ring.
    #[inline]
    fn enter(&self) -> Self::Guard<'_> {
        self.0.iter().map(|backend| backend.slots().enter()).collect()
    }

    #[inline]
    fn check(&self, guard: &Self::Guard<'_>, backend: usize, slot: Slot) -> Result<(), NotHere> {
        guard[backend].check(slot).map_err(not_here)
    }

    fn accept(&self, backend: usize, slot: Slot, token: Token) {
        self.0[backend].slots().accept(slot, token);
    }

    fn open(&self, cache: CacheId) -> Option<Self::Cache> {
        self.0.iter().map(|backend| backend.cache(cache)).collect()
    }

    #[inline]
    fn locate<'k>(&self, cache: &Self::Cache, backend: usize, key: Key<'k>) -> Place<'k> {
        Place { backend, at: cache[backend].locate(key.bytes()) }
    }

    #[inline]
    fn warm(&self, batch: &mut Batch<'_>, places: &[Place<'_>]) {
        for backend in 0..batch.parts.len() {
            for some in places.chunks(WARM_KEYS_MAX) {
                let mine: ArrayVec<Located<'_>, WARM_KEYS_MAX> = some
                    .iter()
                    .filter(|place| place.backend == backend)
                    .map(|place| place.at)
                    .collect();
                if !mine.is_empty() {
                    batch.turn(backend).warm(&mine);
                }
            }
        }
    }

    #[inline]
    fn begin<'b>(&self, cache: &'b Self::Cache) -> Batch<'b> {
        Batch { parts: cache, backend: 0, turn: cache[0].turn() }
    }

    #[inline]
    fn get<R>(
        &self,
        batch: &mut Batch<'_>,
        place: Place<'_>,
        get: &Get<'_>,
        now: Now,
        visit: impl FnOnce(GetOutcome<'_>) -> R,
    ) -> R {
        backend::get(batch.turn(place.backend), &place.at, get, now, visit)
    }

    fn peek<R>(
        &self,
        batch: &mut Batch<'_>,
        place: Place<'_>,
        now: Now,
        visit: impl FnOnce(Option<Hit<'_>>) -> R,
    ) -> R {
        backend::peek(batch.turn(place.backend), &place.at, now, visit)
    }

    #[inline]
    fn store(
        &self,
        batch: &mut Batch<'_>,
        place: Place<'_>,
        store: &Store<'_>,
        now: Now,
    ) -> StoreOutcome {
        backend::store(batch.turn(place.backend), &place.at, store, now)
    }

    fn delete(
        &self,
        batch: &mut Batch<'_>,
        place: Place<'_>,
        delete: &Delete<'_>,
        now: Now,
    ) -> DeleteOutcome {
        backend::delete(batch.turn(place.backend), &place.at, delete, now)
    }

    fn arithmetic(
        &self,
        batch: &mut Batch<'_>,
        place: Place<'_>,
        arithmetic: &Arithmetic<'_>,
        now: Now,
    ) -> ArithmeticOutcome {
        backend::arithmetic(batch.turn(place.backend), &place.at, arithmetic, now)
    }

    fn touch(
        &self,
        batch: &mut Batch<'_>,
        place: Place<'_>,
        touch: &Touch<'_>,
        now: Now,
    ) -> TouchOutcome {
        backend::touch(batch.turn(place.backend), &place.at, touch, now)
    }

    fn flush(&self, cache: &Self::Cache, delay: Exptime, now: Now) {
        for part in cache {
            backend::flush(part, delay, now);
        }
    }

    /// Summed over the backends, which all tell the same names in the same order.
    fn figures(&self, cache: &Self::Cache) -> Vec<(&'static str, u64)> {
        let mut parts = cache.iter().map(|part| backend::figures(part));
        let mut sum = parts.next().unwrap_or_default();
        for part in parts {
            for ((name, total), (other, figure)) in sum.iter_mut().zip(part) {
                debug_assert_eq!(*name, other);
                *total += figure;
            }
        }
        sum
    }

    fn reset_stats(&self, cache: &Self::Cache) {
        cache.iter().for_each(|part| part.reset_stats());
    }

    fn maintain(&self, now: Now) -> bool {
        // All of them, whatever the first one says.
        self.0.iter().map(|backend| backend.maintain(now)).fold(false, |more, one| more | one)
    }
}

fn not_here(elsewhere: Elsewhere<'_>) -> NotHere {
    match elsewhere {
        Elsewhere::Moved { to, token } => NotHere::Moved { to: to.clone(), token },
        Elsewhere::NotYet { ask } => NotHere::NotYet { ask: ask.cloned() },
        Elsewhere::Frozen => NotHere::Frozen,
        Elsewhere::Unknown { epoch } => NotHere::Unknown { epoch },
    }
}
