//! Reading the change log of a cluster: what those who follow it ask.

use tenancy::id::CacheId;
use tenancy::secret::SecretHash;
use wire::control::record::{Delta, Record, Revision};

use super::Database;
use super::delta::{cache_record, credential_record, from_json};
use super::rows;
use crate::error::ControlError;
use crate::model::ClusterId;

/// What came after a revision.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Changes {
    /// The changes that follow it, without a gap; as many as were asked for at most. None when it is
    /// the newest revision.
    Following(Vec<Delta>),
    /// What follows is not in the log: it was trimmed, or this revision never was. Only a snapshot
    /// helps.
    TakeSnapshot,
}

impl Database {
    /// All records of a cluster at one revision. Caches come first, so that a credential never comes
    /// before its cache.
    pub(crate) fn record_snapshot(
        &mut self,
        cluster: ClusterId,
    ) -> Result<(Revision, Vec<Record>), ControlError> {
        self.on_snapshot(|sql| {
            let revision = rows::find_cluster(sql, cluster)?.revision;
            let mut records = Vec::new();
            let caches = format!("{} WHERE cluster_id = $1 ORDER BY id", rows::SELECT_CACHE);
            sql.for_each(&caches, &[cluster.0.into()], &mut |row| {
                records.push(cache_record(&rows::cache(&row)?));
                Ok(())
            })?;
            let credentials = "SELECT username, cache_id, password_hash, capabilities
                FROM credentials JOIN caches ON caches.id = cache_id WHERE cluster_id = $1";
            sql.for_each(credentials, &[cluster.0.into()], &mut |row| {
                let hash = SecretHash::from_bytes(row.array(2)?);
                let cache = CacheId::new(row.natural(1)?);
                let username = rows::username(row.text(0)?)?;
                let capabilities = rows::capabilities(&row, 3)?;
                records.push(credential_record(&username, cache, hash, capabilities));
                Ok(())
            })?;
            Ok((revision, records))
        })
    }

    /// The changes after a revision, `limit` at most.
    pub(crate) fn changes_since(
        &mut self,
        cluster: ClusterId,
        since: Revision,
        limit: usize,
    ) -> Result<Changes, ControlError> {
        self.on_snapshot(|sql| {
            let newest = rows::find_cluster(sql, cluster)?.revision;
            if since == newest {
                return Ok(Changes::Following(Vec::new()));
            }
            let select = "SELECT revision, delta FROM changes
                WHERE cluster_id = $1 AND revision > $2 ORDER BY revision LIMIT $3";
            let rows = sql.rows(select, &[cluster.0.into(), since.get().into(), limit.into()])?;
            let mut changes = Vec::with_capacity(rows.len());
            for row in rows {
                changes.push(from_json(Revision::new(row.natural(0)?), row.text(1)?)?);
            }
            let follows = changes.first().is_some_and(|first| first.revision == since.next());
            Ok(if follows { Changes::Following(changes) } else { Changes::TakeSnapshot })
        })
    }
}
