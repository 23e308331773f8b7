//! A pretend data plane, and a control plane around it, for this crate's tests.

use std::collections::BTreeMap;
use std::io;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex};

use tenancy::id::CacheId;
use tenancy::plan::Limits;

use crate::control::Control;
use crate::data_plane::{DataPlane, DataPlaneError};
use crate::environment::Environment;
use crate::error::OpenError;
use crate::model::UnixSeconds;

/// Remembers what it was told, and refuses when told to.
#[derive(Default)]
pub(crate) struct PretendDataPlane {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Default)]
struct State {
    caches: BTreeMap<CacheId, Limits>,
    flushes: BTreeMap<CacheId, u64>,
    refusal: Option<DataPlaneError>,
    /// While true, `statistics` does not return.
    held: bool,
    /// Calls of `statistics` that have begun.
    counted: u64,
}

impl PretendDataPlane {
    /// Limits and number of flushes by cache.
    pub(crate) fn seen(&self) -> BTreeMap<u64, (Limits, u64)> {
        let state = self.state();
        let flushes = |id: &CacheId| state.flushes.get(id).copied().unwrap_or(0);
        state.caches.iter().map(|(id, limits)| (id.get(), (*limits, flushes(id)))).collect()
    }

    pub(crate) fn refuse(&self, refusal: Option<DataPlaneError>) {
        self.state().refusal = refusal;
    }

    /// Makes every call of `statistics` wait, or lets them go on.
    pub(crate) fn hold(&self, held: bool) {
        self.state().held = held;
        self.changed.notify_all();
    }

    /// Returns when `calls` of `statistics` have begun.
    pub(crate) fn wait_for_statistics(&self, calls: u64) {
        let waited = self.changed.wait_while(self.state(), |state| state.counted < calls);
        drop(waited.expect("no test panics while it holds the lock"));
    }

    fn state(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().expect("no test panics while it holds the lock")
    }
}

impl DataPlane for PretendDataPlane {
    fn put_cache(&self, id: CacheId, limits: Limits) -> Result<(), DataPlaneError> {
        let mut state = self.state();
        state.refusal.clone().map_or(Ok(()), Err)?;
        state.caches.insert(id, limits);
        Ok(())
    }

    fn remove_cache(&self, id: CacheId) {
        self.state().caches.remove(&id);
    }

    fn flush_cache(&self, id: CacheId) -> Result<(), DataPlaneError> {
        let mut state = self.state();
        state.refusal.clone().map_or(Ok(()), Err)?;
        *state.flushes.entry(id).or_default() += 1;
        Ok(())
    }

    fn statistics(&self, id: CacheId) -> Result<Vec<(String, u64)>, DataPlaneError> {
        let mut state = self.state();
        state.counted += 1;
        self.changed.notify_all();
        let state = self.changed.wait_while(state, |state| state.held);
        let state = state.expect("no test panics while it holds the lock");
        state.refusal.clone().map_or(Ok(()), Err)?;
        let flushes = state.flushes.get(&id).copied().unwrap_or(0);
        Ok(vec![("cmd_flush".to_owned(), flushes), ("curr_items".to_owned(), 0)])
    }
}

/// The time by a test's clock.
pub(crate) const NOW: UnixSeconds = UnixSeconds(1_800_000_000);

/// A clock that stands, and chance that never repeats itself in this process.
pub(crate) fn environment() -> Environment {
    static DRAWN: AtomicU64 = AtomicU64::new(0);
    Environment::new(
        || NOW,
        |bytes| -> io::Result<()> {
            for byte in bytes {
                // SplitMix64 (Steele, Lea, Flood 2014): its output does not repeat for 2^64 draws.
                let drawn = DRAWN.fetch_add(1, Ordering::Relaxed).wrapping_add(1);
                let mixed = drawn.wrapping_mul(0x9e37_79b9_7f4a_7c15);
                let mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
                let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
                *byte = (mixed ^ (mixed >> 31)) as u8;
            }
            Ok(())
        },
    )
}

pub(crate) struct Installation {
    pub(crate) control: Arc<Control>,
    pub(crate) data_plane: Arc<PretendDataPlane>,
    /// Removed when the installation is dropped, unless a test takes it over to start again.
    pub(crate) dir: tempfile::TempDir,
}

impl Installation {
    pub(crate) fn new() -> Self {
        let dir = tempfile::tempdir().expect("a temporary directory");
        Installation::start(dir).expect("a new directory opens")
    }

    fn start(dir: tempfile::TempDir) -> Result<Self, OpenError> {
        let data_plane = Arc::new(PretendDataPlane::default());
        let control = open(dir.path(), &data_plane)?;
        Ok(Installation { control: Arc::new(control), data_plane, dir })
    }

    pub(crate) fn run_sql(&self, sql: &str) -> rusqlite::Result<()> {
        self.control.run_sql(sql)
    }

    /// Ends this process's hold of the directory and begins anew, with an empty data plane.
    pub(crate) fn restart(self) -> Self {
        let Installation { control, dir, .. } = self;
        assert_eq!(Arc::strong_count(&control), 1, "someone still uses the old one");
        drop(control);
        Installation::start(dir).expect("it opened before")
    }
}

pub(crate) fn open(dir: &Path, data_plane: &Arc<PretendDataPlane>) -> Result<Control, OpenError> {
    let data_plane = Arc::clone(data_plane) as Arc<dyn DataPlane>;
    Control::open(dir, environment(), data_plane)
}
