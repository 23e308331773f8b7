//! Makes the data plane of this process serve by what the copy says.

use std::collections::BTreeSet;
use std::sync::Arc;

use tenancy::directory::Directory;
use tenancy::id::CacheId;
use tenancy::plan::Limits;
use wire::control::record::{CacheRecord, Record};
use wire::control::records::{Change, Records};
use wire::control::replica::sort_for_serving;
use wire::control::usage::{CacheReport, Share};

/// Makes room for caches and forgets. The program implements it over its backends.
///
/// Every method may be called twice with the same effect as once.
pub trait DataPlane: Send + Sync {
    /// Makes a cache, or gives the one there is these limits.
    ///
    /// # Errors
    /// There is no room for it; the text says how much there is. It stays as it was.
    fn put_cache(&self, id: CacheId, limits: Limits) -> Result<(), String>;

    /// Drops a cache and all its items.
    fn remove_cache(&self, id: CacheId);

    /// Forgets all items of a cache.
    fn flush_cache(&self, id: CacheId);

    /// What has changed in the use of caches since the last call; with `anew`, everything is told
    /// again, at once or with the next calls.
    fn usage(&self, anew: bool) -> UsageChanges;

    /// Lets backends hold so much of these caches. Those that are not known are passed over.
    fn share(&self, shares: &[Share]);

    /// Says, every [`crate::link::USAGE_EVERY`], that control still weighs shares, although it may
    /// have nothing new to say.
    fn keep_shares(&self);
}

/// What a data plane tells of the use of its caches.
#[derive(Debug, Default)]
pub struct UsageChanges {
    /// See [`wire::control::usage::UsageReport::run`].
    pub run: u64,
    pub caches: Vec<CacheReport>,
    /// Whether everything has been told, with this, since it was last to be told anew.
    pub is_all: bool,
}

/// The directory and the data plane, kept in step with the records.
pub struct Serving {
    directory: Arc<Directory>,
    data_plane: Arc<dyn DataPlane>,
    /// Caches that did not fit. Their clients are told that the backend does not know them.
    without_room: BTreeSet<CacheId>,
}

impl Serving {
    pub fn new(directory: Arc<Directory>, data_plane: Arc<dyn DataPlane>) -> Self {
        Serving { directory, data_plane, without_room: BTreeSet::new() }
    }

    /// Whether some cache did not fit.
    pub fn lacks_room(&self) -> bool {
        !self.without_room.is_empty()
    }

    /// Serves by the difference between two copies.
    pub fn replace(&mut self, before: &Records, after: &Records) {
        let mut changes = Vec::new();
        before.differences(after, |change| changes.push(change));
        sort_for_serving(&mut changes);
        self.apply(&changes);
    }

    /// Serves by these changes, in their order. Clients see them all at once: the data plane makes
    /// room before, and forgets after, nobody can come in any more.
    pub fn apply(&mut self, changes: &[Change]) {
        for cache in changes.iter().filter_map(new_limits) {
            match self.data_plane.put_cache(cache.id, cache.limits) {
                Ok(()) => drop(self.without_room.remove(&cache.id)),
                Err(why) => {
                    tracing::error!(cache = cache.id.get(), why, "no room for a cache");
                    self.without_room.insert(cache.id);
                }
            }
        }
        self.tell_directory(changes);
        for change in changes {
            match (change.before, change.after) {
                (Some(Record::Cache(old)), Some(Record::Cache(new)))
                    if old.flush_generation < new.flush_generation =>
                {
                    self.data_plane.flush_cache(new.id);
                }
                (Some(Record::Cache(old)), None) => {
                    self.without_room.remove(&old.id);
                    self.data_plane.remove_cache(old.id);
                }
                _ => (),
            }
        }
    }

    fn tell_directory(&self, changes: &[Change]) {
        let mut batch = self.directory.batch();
        for change in changes {
            match (change.before, change.after) {
                (_, Some(Record::Cache(it))) => batch.put_cache(it.id, it.limits, it.enabled),
                (_, Some(Record::Credential(it))) => {
                    let put = batch.put_credential(it.cache, it.username, it.hash, it.capabilities);
                    // The copy has no credential without its cache, and caches come first.
                    debug_assert!(put.is_ok());
                }
                (Some(Record::Cache(it)), None) => batch.remove_cache(it.id),
                (Some(Record::Credential(it)), None) => batch.remove_credential(&it.username),
                (None, None) => (),
            }
        }
    }
}

/// The cache of a change that makes it, or gives it other limits.
fn new_limits(change: &Change) -> Option<CacheRecord> {
    match (change.before, change.after) {
        (Some(Record::Cache(old)), Some(Record::Cache(new))) if old.limits == new.limits => None,
        (_, Some(Record::Cache(new))) => Some(new),
        _ => None,
    }
}
