//! Reading the logs: the change log of a cluster, for those who follow it, and the audit log, for people.

use tenancy::id::CacheId;
use tenancy::secret::SecretHash;
use wire::control::record::{Delta, Record, Revision};

use super::Database;
use super::delta::{cache_record, credential_record, from_json};
use super::rows;
use super::rules::rules_of;
use super::sql::Row;
use crate::error::ControlError;
use crate::model::{ClusterId, UnixSeconds};

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

/// A line of the audit log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct AuditEntry {
    pub(crate) id: u64,
    pub(crate) at: UnixSeconds,
    pub(crate) actor: String,
    pub(crate) action: String,
    /// Absent where the whole installation was meant.
    pub(crate) cluster: Option<u64>,
    pub(crate) cache: Option<u64>,
    /// As it was then.
    pub(crate) cache_name: Option<String>,
    pub(crate) username: Option<String>,
    pub(crate) detail: String,
    /// The change it made, if it made one.
    pub(crate) revision: Option<u64>,
}

const SELECT_AUDIT: &str = "SELECT id, at, actor, action, cluster_id, cache_id, cache_name,
    username, detail, revision FROM audit";

fn audit_entry(row: &Row) -> Result<AuditEntry, ControlError> {
    let text = |at| Ok::<_, ControlError>(row.optional_text(at)?.map(str::to_owned));
    Ok(AuditEntry {
        id: row.natural(0)?,
        at: UnixSeconds(row.natural(1)?),
        actor: row.text(2)?.to_owned(),
        action: row.text(3)?.to_owned(),
        cluster: row.optional_natural(4)?,
        cache: row.optional_natural(5)?,
        cache_name: text(6)?,
        username: text(7)?,
        detail: row.text(8)?.to_owned(),
        revision: row.optional_natural(9)?,
    })
}

impl Database {
    /// Lines of the audit log after this one, `limit` at most, in the order in which they were
    /// written.
    pub(crate) fn audit(
        &mut self,
        after: u64,
        limit: usize,
    ) -> Result<Vec<AuditEntry>, ControlError> {
        let select = format!("{SELECT_AUDIT} WHERE id > $1 ORDER BY id LIMIT $2");
        self.sql.rows(&select, &[after.into(), limit.into()])?.iter().map(audit_entry).collect()
    }

    /// The newest lines of the audit log, in the order in which they were written.
    pub(crate) fn newest_audit(&mut self, limit: usize) -> Result<Vec<AuditEntry>, ControlError> {
        let select = format!("{SELECT_AUDIT} ORDER BY id DESC LIMIT $1");
        self.sql.rows(&select, &[limit.into()])?.iter().rev().map(audit_entry).collect()
    }

    /// Lines of the audit log before this one, `limit` at most, the newest first.
    pub(crate) fn audit_before(
        &mut self,
        before: u64,
        limit: usize,
    ) -> Result<Vec<AuditEntry>, ControlError> {
        let select = format!("{SELECT_AUDIT} WHERE id < $1 ORDER BY id DESC LIMIT $2");
        self.sql.rows(&select, &[before.into(), limit.into()])?.iter().map(audit_entry).collect()
    }

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
            records.extend(rules_of(sql, cluster)?.into_iter().map(Record::Rule));
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
