//! Prefixes of keys that owners watch.

use tenancy::id::CacheId;
use wire::control::inquiry::PREFIXES_MAX;

use super::Database;
use super::change::{Belonging, natural};
use super::sql::Row;
use crate::error::ControlError;
use crate::model::{Actor, Cache, UnixSeconds};

/// As many as people compare.
const PREFIXES_PER_CACHE_MAX: usize = 50;
const _: () = assert!(PREFIXES_PER_CACHE_MAX <= PREFIXES_MAX, "asked of in one question");

const PREFIX: Belonging = Belonging {
    table: "watched_prefixes",
    removed: "prefix left",
    unknown: ControlError::UnknownPrefix,
};

impl Database {
    pub(crate) fn prefixes(&mut self, cache: CacheId) -> Result<Vec<(u64, String)>, ControlError> {
        let select = "SELECT id, name FROM watched_prefixes WHERE cache_id = $1 ORDER BY id";
        let prefix = |row: &Row| Ok((row.natural(0)?, row.text(1)?.to_owned()));
        self.sql.rows(select, &[cache.get().into()])?.iter().map(prefix).collect()
    }

    /// Those of all caches: the cache, number and prefix.
    pub(crate) fn all_prefixes(&mut self) -> Result<Vec<(CacheId, u64, String)>, ControlError> {
        let select = "SELECT cache_id, id, name FROM watched_prefixes ORDER BY cache_id, id";
        let rows = self.sql.rows(select, &[])?;
        let prefix = |row: &Row| {
            Ok((CacheId::new(row.natural(0)?), row.natural(1)?, row.text(2)?.to_owned()))
        };
        rows.iter().map(prefix).collect()
    }

    pub(crate) fn watch_prefix(
        &mut self,
        actor: Actor,
        now: UnixSeconds,
        cache: &Cache,
        name: &str,
    ) -> Result<u64, ControlError> {
        let mut change = self.begin(actor, now)?;
        let of = cache.id.get();
        let select = "SELECT id FROM watched_prefixes WHERE cache_id = $1 AND name = $2";
        if let Some(row) = change.sql.row(select, &[of.into(), name.into()])? {
            return row.natural(0);
        }
        let count = "SELECT count(*) FROM watched_prefixes WHERE cache_id = $1";
        if change.count(count, &[of.into()])? >= PREFIXES_PER_CACHE_MAX {
            return Err(ControlError::TooManyAlerts { max: PREFIXES_PER_CACHE_MAX });
        }
        let insert = "INSERT INTO watched_prefixes (cache_id, name) VALUES ($1, $2) RETURNING id";
        let id = natural(change.sql.number(insert, &[of.into(), name.into()])?)?;
        change.audit("prefix watched", Some(cache.cluster), &format!("of {}", cache.name))?;
        change.commit()?;
        Ok(id)
    }

    pub(crate) fn unwatch_prefix(
        &mut self,
        actor: Actor,
        now: UnixSeconds,
        cache: &Cache,
        id: u64,
    ) -> Result<(), ControlError> {
        self.begin(actor, now)?.remove(&PREFIX, cache, id)
    }
}
