//! What the control plane can do to the backend and the proxy of the same process.

use std::sync::Arc;

use backend::Backend;
use backend::statistics::counted;
use control::data_plane::{DataPlane, DataPlaneError};
use daemon::clock::Clock;
use larder::introspection::Introspection;
use protocol::operation::Exptime;
use proxy::usage::ProxyUsage;
use store::store::LimitError;
use tenancy::id::CacheId;
use tenancy::plan::Limits;
use tenancy::rules::Open;
use wire::control::inquiry::{Answer, Question};
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
        let usage = self.usage.known(id);
        if usage.as_ref().is_some_and(|usage| usage.recent.lapses(self.clock.now())) {
            cache.watch(false);
        }
        let of_proxy = usage.map(|usage| usage.figures()).into_iter().flatten();
        let mut figures = Figures::default();
        for (figure, count) in of_proxy.chain(counted(&cache.stats())) {
            figures.set(figure, count);
        }
        Ok(figures)
    }

    fn reset_statistics(&self, id: CacheId) -> Result<(), DataPlaneError> {
        self.backend.cache(id).ok_or_else(|| missing(id))?.reset_stats();
        self.usage.cache(id).reset();
        Ok(())
    }

    fn open(&self) -> Vec<Open> {
        self.usage.open()
    }

    fn answer(&self, question: &Question) -> Answer {
        let backends = std::slice::from_ref(&self.backend);
        Introspection { backends, proxy: &self.usage, clock: self.clock }.answer(question)
    }
}

fn missing(id: CacheId) -> DataPlaneError {
    DataPlaneError::Unavailable { reason: format!("the backend does not know cache {id}") }
}
