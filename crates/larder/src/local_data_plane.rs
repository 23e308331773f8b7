//! What the control plane can do to the backend and the proxy of the same process.

use std::sync::Arc;

use backend::Backend;
use backend::statistics::counted;
use control::data_plane::{DataPlane, DataPlaneError, KeyFigures, Popular, Popularity};
use daemon::clock::Clock;
use protocol::operation::{Exptime, Hit};
use proxy::usage::ProxyUsage;
use store::store::LimitError;
use store::watch::Top;
use store::working_set::SIZES_PERCENT;
use tenancy::id::CacheId;
use tenancy::plan::Limits;
use tenancy::rules::Open;
use wire::control::usage::Figures;

pub(crate) struct LocalDataPlane {
    pub(crate) backend: Arc<Backend>,
    pub(crate) usage: Arc<ProxyUsage>,
    pub(crate) clock: Clock,
}

impl DataPlane for LocalDataPlane {
    fn put_cache(&self, id: CacheId, limits: Limits) -> Result<(), DataPlaneError> {
        let put = match self.backend.create_cache(id, limits) {
            Err(LimitError::Exists) => self.backend.resize_cache(id, limits, self.clock.now()),
            other => other,
        };
        put.map_err(|error| match error {
            LimitError::NoRoom { free_bytes, .. } => {
                DataPlaneError::NoRoom { available_bytes: free_bytes }
            }
            LimitError::Exists | LimitError::NotFound => {
                DataPlaneError::Unavailable { reason: error.to_string() }
            }
        })
    }

    fn remove_cache(&self, id: CacheId) {
        self.backend.remove_cache(id);
        self.usage.forget(id);
    }

    fn flush_cache(&self, id: CacheId) -> Result<(), DataPlaneError> {
        let cache = self.backend.cache(id).ok_or_else(|| missing(id))?;
        backend::flush(&cache, Exptime(0), self.clock.now());
        Ok(())
    }

    fn statistics(&self, id: CacheId) -> Result<Figures, DataPlaneError> {
        let cache = self.backend.cache(id).ok_or_else(|| missing(id))?;
        let of_proxy = self.usage.known(id).map(|usage| usage.figures()).into_iter().flatten();
        let mut figures = Figures::default();
        for (figure, count) in of_proxy.chain(counted(&cache.stats())) {
            figures.set(figure, count);
        }
        Ok(figures)
    }

    fn popular(&self, id: CacheId) -> Result<Popular, DataPlaneError> {
        let cache = self.backend.cache(id).ok_or_else(|| missing(id))?;
        cache.watch(true);
        let curve = cache.working_set();
        let hits_percent = match curve.requests {
            0 => Vec::new(),
            _ => SIZES_PERCENT.into_iter().zip(curve.hits_percent()).collect(),
        };
        let keys = cache.top_keys().into_iter().map(popularity).collect();
        let prefixes = cache.top_prefixes().into_iter().map(popularity).collect();
        Ok(Popular { keys, prefixes, hits_percent })
    }

    fn key(&self, id: CacheId, key: &[u8]) -> Result<KeyFigures, DataPlaneError> {
        let cache = self.backend.cache(id).ok_or_else(|| missing(id))?;
        let at = cache.locate(key);
        let bytes = |hit: Option<Hit<'_>>| hit.map(|hit| hit.value.len() as u64);
        // In one statement: whoever has a turn must not ask the cache anything else.
        let value_bytes = backend::peek(&mut cache.turn(), &at, self.clock.now(), bytes);
        let counted = cache.top_keys().into_iter().find(|top| top.text == key).map(popularity);
        Ok(KeyFigures { value_bytes, counted })
    }

    fn reset_statistics(&self, id: CacheId) -> Result<(), DataPlaneError> {
        self.backend.cache(id).ok_or_else(|| missing(id))?.reset_stats();
        self.usage.cache(id).reset();
        Ok(())
    }

    fn open(&self) -> Vec<Open> {
        self.usage.open()
    }
}

fn popularity(top: Top) -> Popularity {
    let misses = top.requests.saturating_sub(top.hits + top.writes);
    Popularity { hits: top.hits, misses, writes: top.writes, text: top.text }
}

fn missing(id: CacheId) -> DataPlaneError {
    DataPlaneError::Unavailable { reason: format!("the backend does not know cache {id}") }
}
