//! The truth: caches, credentials, clusters and nodes as rows, and the logs of what changed them.
//!
//! ```text
//!  Change      one transaction of the domain: rows + audit row + change-log row, fenced
//!  log         the change log at one moment, for those who follow it; the audit log
//!     │
//!  rows        from columns to checked values
//!     │
//!  Sql         statements, rows, transactions
//!   ├──▶ Sqlite      compiled in; one process, one file
//!   └──▶ Postgres    several processes, one of which leads              (feature "postgres")
//! ```
//!
//! A [`Change`] is the only way to write. It ends in exactly one of two ways: [`Change::commit`],
//! or being dropped, which leaves nothing behind. What must never be stored is refused by the
//! database itself: see the constraints and triggers in `migrations/`.

mod alerts;
mod change;
mod dashboard;
mod delta;
#[cfg(test)]
pub(crate) mod faulty;
mod latency;
mod leadership;
mod log;
mod outbox;
#[cfg(feature = "postgres")]
mod postgres;
#[cfg(feature = "postgres")]
mod postgres_tls;
mod prefixes;
mod retention;
mod rows;
mod rules;
mod schema;
mod series;
mod sql;
mod sqlite;
mod topology;

use std::path::Path;

use tenancy::id::{CacheId, Username};
use tenancy::plan::Plan;

use crate::error::{ControlError, OpenError};
use crate::model::{Actor, By, Cache, CacheRef, Cluster, ClusterId, UnixSeconds};

pub(crate) use alerts::{StoredDelivery, StoredWay, delivery_context};
pub(crate) use change::{Change, Done, Kind, Made, NewCredential};
pub(crate) use dashboard::{DashboardNonce, SessionDigest};
pub(crate) use delta::{Effect, cache_record, credential_record};
pub(crate) use leadership::{Fence, Lease};
pub(crate) use log::AuditEntry;
pub use log::Changes;
pub(crate) use outbox::{Call, CallState, Claimed, OutboxEntry, Outcome, Receiver, Webhook};
#[cfg(feature = "postgres")]
pub use postgres::PostgresAccess;
pub use retention::Retention;
pub(crate) use rows::StoredCredential;
pub use schema::SchemaError;
pub(crate) use series::{SERIES_BATCH, SeriesRow, WHOLE};
use sql::{Mode, Sql, Value};
use sqlite::Sqlite;

/// Beyond this the directory in memory and the start-up would want another design.
pub(crate) const CACHES_MAX: usize = 250_000;
/// Far more than rotation and least privilege need, and few enough to list on one page.
pub(crate) const CREDENTIALS_PER_CACHE_MAX: usize = 100;
/// An installation has a handful; each has its own stream of changes to follow.
pub(crate) const CLUSTERS_MAX: usize = 100;

/// One connection to the database.
pub(crate) struct Database {
    sql: Box<dyn Sql>,
    /// What this process may write under, if it leads.
    fence: Option<Fence>,
}

impl Database {
    /// The database in this file, which nobody else writes: the caller holds the lock of its
    /// directory, and so leads at once.
    pub(crate) fn open_sqlite(path: &Path) -> Result<Self, OpenError> {
        let sql = Box::new(Sqlite::open(path)?);
        let mut database = Database { sql, fence: None };
        database.seize("the process that holds the directory")?;
        Ok(database)
    }

    /// A further connection to a file that is open already. It can only read.
    pub(crate) fn open_sqlite_reader(path: &Path) -> Result<Self, OpenError> {
        Ok(Database { sql: Box::new(Sqlite::open_reader(path)?), fence: None })
    }

    /// The database on a PostgreSQL server, as a follower: see [`Database::lead`].
    #[cfg(feature = "postgres")]
    pub(crate) fn open_postgres(server: &PostgresAccess) -> Result<Self, OpenError> {
        Ok(Database { sql: Box::new(postgres::Postgres::open(server)?), fence: None })
    }

    /// Refuses a master key that is not the one of the first start.
    pub(crate) fn check_key(&mut self, key_check: &[u8; 32]) -> Result<(), OpenError> {
        let insert = "INSERT INTO installation (id, key_check) VALUES (1, $1)
            ON CONFLICT (id) DO NOTHING";
        self.sql.execute(insert, &[key_check.as_slice().into()])?;
        let row = self.sql.row("SELECT key_check FROM installation WHERE id = 1", &[])?;
        let same = row.is_some_and(|row| row.bytes(0).is_ok_and(|found| found == key_check));
        if same { Ok(()) } else { Err(OpenError::WrongKey) }
    }

    /// Compares the authority of the clusters' nodes, by its SHA-256, with the one that the first
    /// control process to lead had. With `adopt` it becomes that one when there is none yet.
    pub(crate) fn check_authority(
        &mut self,
        authority: &[u8; 32],
        adopt: bool,
    ) -> Result<bool, ControlError> {
        if adopt {
            let update = "UPDATE installation SET authority = $1 WHERE authority IS NULL";
            self.sql.execute(update, &[authority.as_slice().into()])?;
        }
        let select = "SELECT authority FROM installation WHERE authority IS NOT NULL";
        match self.sql.row(select, &[])? {
            Some(row) => Ok(row.bytes(0)? == authority),
            None => Ok(true),
        }
    }

    /// Whether the database answers at all.
    pub(crate) fn is_ready(&mut self) -> bool {
        self.sql.number("SELECT count(*) FROM leadership", &[]).is_ok()
    }

    pub(crate) fn cache(&mut self, cache: &CacheRef) -> Result<Cache, ControlError> {
        rows::find_cache(&mut *self.sql, cache)?
            .ok_or_else(|| ControlError::UnknownCache(cache.clone()))
    }

    /// Caches by rising id, those after `after`.
    pub(crate) fn caches(
        &mut self,
        after: CacheId,
        limit: usize,
    ) -> Result<Vec<Cache>, ControlError> {
        let sql = format!("{} WHERE id > $1 ORDER BY id LIMIT $2", rows::SELECT_CACHE);
        let rows = self.sql.rows(&sql, &[after.get().into(), limit.into()])?;
        rows.iter().map(rows::cache).collect()
    }

    /// A cache's credentials in the order they were made.
    pub(crate) fn credentials(
        &mut self,
        cache: CacheId,
    ) -> Result<Vec<StoredCredential>, ControlError> {
        rows::credentials_of(&mut *self.sql, cache)
    }

    /// The cache that a credential belongs to.
    pub(crate) fn cache_of(&mut self, username: &Username) -> Result<Cache, ControlError> {
        let sql = "SELECT cache_id FROM credentials WHERE username = $1";
        let row = self.sql.row(sql, &[username.as_str().into()])?;
        let row = row.ok_or(ControlError::UnknownUsername(*username))?;
        self.cache(&CacheRef::Id(CacheId::new(row.natural(0)?)))
    }

    pub(crate) fn credential(
        &mut self,
        cache: &Cache,
        username: &Username,
    ) -> Result<StoredCredential, ControlError> {
        rows::find_credential(&mut *self.sql, cache, username)
    }

    /// Calls `each` with every credential of a cluster, without holding them all.
    pub(crate) fn for_each_credential(
        &mut self,
        cluster: ClusterId,
        mut each: impl FnMut(StoredCredential),
    ) -> Result<(), ControlError> {
        let sql = format!("{} WHERE cluster_id = $1", rows::SELECT_CREDENTIAL);
        self.sql.for_each(&sql, &[cluster.0.into()], &mut |row| {
            each(rows::credential(&row)?);
            Ok(())
        })
    }

    /// Notes when caches were used. No change: nobody but [`Database::unused`] looks at it.
    pub(crate) fn note_used(
        &mut self,
        used: &[(CacheId, UnixSeconds)],
        now: UnixSeconds,
    ) -> Result<(), ControlError> {
        let change = self.begin(Actor::Installation, now)?;
        for (cache, at) in used {
            let update = "UPDATE caches SET used_at = $1 WHERE id = $2 AND used_at < $1";
            change.sql.execute(update, &[at.0.into(), cache.get().into()])?;
        }
        change.commit()
    }

    /// Enabled caches of a cluster and a plan that nobody has used since `before`, those unused for
    /// longest first.
    pub(crate) fn unused(
        &mut self,
        cluster: ClusterId,
        plan: &Plan,
        before: UnixSeconds,
        limit: usize,
    ) -> Result<Vec<Cache>, ControlError> {
        let sql = format!(
            "{} WHERE cluster_id = $1 AND plan = $2 AND enabled AND used_at <= $3
                ORDER BY used_at, id LIMIT $4",
            rows::SELECT_CACHE
        );
        let rows = self
            .sql
            .rows(&sql, &[cluster.0.into(), plan.name.into(), before.0.into(), limit.into()])?;
        rows.iter().map(rows::cache).collect()
    }

    /// All clusters by rising id.
    pub(crate) fn clusters(&mut self) -> Result<Vec<Cluster>, ControlError> {
        rows::clusters(&mut *self.sql)
    }

    pub(crate) fn cluster(&mut self, id: ClusterId) -> Result<Cluster, ControlError> {
        rows::find_cluster(&mut *self.sql, id)
    }

    /// What this request did when it was carried out before. Asked right before [`Database::begin`],
    /// which refuses if anyone else may have written since.
    pub(crate) fn done_before(&mut self, by: &By) -> Result<Option<Done>, ControlError> {
        match &by.once {
            Some(once) => Done::find(&mut *self.sql, once),
            None => Ok(None),
        }
    }

    /// The same for a request that was about no cache.
    pub(crate) fn made_before(&mut self, by: &By) -> Result<Option<Made>, ControlError> {
        match &by.once {
            Some(once) => Made::find(&mut *self.sql, once),
            None => Ok(None),
        }
    }

    /// Begins a change. Nothing else can write until it has ended.
    pub(crate) fn begin(
        &mut self,
        by: impl Into<By>,
        now: UnixSeconds,
    ) -> Result<Change<'_>, ControlError> {
        let fence = self.fence.ok_or(ControlError::NotLeader)?;
        Change::begin(&mut *self.sql, fence, by.into(), now)
    }

    /// Runs `read` on one state of the database, whatever is committed meanwhile.
    fn on_snapshot<T>(
        &mut self,
        read: impl FnOnce(&mut dyn Sql) -> Result<T, ControlError>,
    ) -> Result<T, ControlError> {
        let begun = self.sql.begin(Mode::Snapshot);
        let answer = match begun {
            Ok(()) => read(&mut *self.sql),
            Err(error) => Err(error.into()),
        };
        self.sql.rollback();
        answer
    }

    /// For tests: to look at the rows, and to make SQLite fail.
    #[cfg(test)]
    pub(crate) fn sqlite(&self) -> &rusqlite::Connection {
        self.sql.sqlite().expect("this test is about SQLite")
    }

    #[cfg(test)]
    pub(crate) fn run_batch(&mut self, sql: &str) -> Result<(), crate::error::DatabaseError> {
        self.sql.run_batch(sql)
    }

    /// For tests: every row as one line of text.
    #[cfg(test)]
    pub(crate) fn lines(&mut self, select: &str) -> Vec<String> {
        let rows = self.sql.rows(select, &[]).expect("a good query");
        rows.iter().map(|row| format!("{row:?}")).collect()
    }

    /// For tests: makes statements fail as `faults` says.
    #[cfg(test)]
    pub(crate) fn make_faulty(&mut self, faults: &std::sync::Arc<faulty::Faults>) {
        let sql = std::mem::replace(&mut self.sql, Box::new(faulty::Nothing));
        self.sql = Box::new(faulty::Faulty::new(sql, std::sync::Arc::clone(faults)));
    }
}
