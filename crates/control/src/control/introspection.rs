//! What a cache is asked for, as its backends sample it; and prefixes that its owner watches.

use super::{Control, Local};
use crate::data_plane::{DataPlaneError, KeyFigures, Popular};
use crate::error::ControlError;
use crate::model::{Actor, CacheRef};

impl Control {
    /// The keys and prefixes that a cache is asked for most, and what it would hit at other sizes. A
    /// quiet cache is watched from the first question on, so the first answer is empty.
    pub fn popular(&self, cache: &CacheRef) -> Result<Popular, ControlError> {
        let cache = self.cache(cache)?;
        let Some(Local { data_plane, .. }) = self.local(cache.cluster) else {
            return Ok(Popular::default());
        };
        Ok(data_plane.popular(cache.id)?)
    }

    /// What is known of one key; asking does not count as a use of it.
    pub fn key(&self, cache: &CacheRef, key: &[u8]) -> Result<KeyFigures, ControlError> {
        let cache = self.cache(cache)?;
        let local = self.local(cache.cluster).ok_or_else(|| DataPlaneError::Unavailable {
            reason: "the nodes' keys are not looked at from here".to_owned(),
        })?;
        Ok(local.data_plane.key(cache.id, key)?)
    }

    /// Watched prefixes with their numbers.
    pub fn prefixes(&self, cache: &CacheRef) -> Result<Vec<(u64, String)>, ControlError> {
        self.about(cache, |database, cache| database.prefixes(cache.id))
    }

    /// Returns its number; the same for a prefix that is watched already.
    pub fn watch_prefix(
        &self,
        actor: Actor,
        cache: &CacheRef,
        name: &str,
    ) -> Result<u64, ControlError> {
        let now = self.environment.now();
        self.about(cache, |database, cache| database.watch_prefix(actor, now, cache, name))
    }

    pub fn unwatch_prefix(
        &self,
        actor: Actor,
        cache: &CacheRef,
        id: u64,
    ) -> Result<(), ControlError> {
        let now = self.environment.now();
        self.about(cache, |database, cache| database.unwatch_prefix(actor, now, cache, id))
    }
}
