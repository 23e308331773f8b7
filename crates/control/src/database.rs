//! The rows: reading them, and changing them inside a transaction that also says who changed what.
//!
//! A [`Change`] is the only way to write. It ends in exactly one of two ways: [`Change::commit`],
//! which appends to the audit log and the change log in the same transaction, or being dropped,
//! which leaves nothing behind.

use std::cell::Cell;
use std::path::Path;
use std::time::Duration;

use rusqlite::{Connection, OptionalExtension, Row, params};
use tenancy::capability::Capabilities;
use tenancy::id::{CacheId, Username};
use tenancy::plan::Plan;
use tenancy::secret::SecretHash;

use crate::error::{ControlError, OpenError};
use crate::model::{Actor, Cache, CacheName, CacheRef, Credential, UnixSeconds};
use crate::schema::migrate;

/// Beyond this the directory in memory and the start-up would want another design.
pub(crate) const CACHES_MAX: usize = 250_000;
/// Far more than rotation and least privilege need, and few enough to list on one page.
pub(crate) const CREDENTIALS_PER_CACHE_MAX: usize = 100;
/// A backup program may hold the database for a moment; whoever waits for us waits as long.
const LOCKED_MAX: Duration = Duration::from_secs(2);

/// The one connection to the database.
pub(crate) struct Database {
    connection: Connection,
}

/// A credential's row with what only its keeper sees.
pub(crate) struct StoredCredential {
    pub(crate) credential: Credential,
    pub(crate) hash: SecretHash,
    pub(crate) sealed_password: Vec<u8>,
}

impl Database {
    pub(crate) fn open(path: &Path) -> Result<Self, OpenError> {
        let mut connection = Connection::open(path)?;
        connection.busy_timeout(LOCKED_MAX)?;
        connection.pragma_update(None, "journal_mode", "wal")?;
        // A password once shown must not be gone after a power cut, so every commit is synced.
        connection.pragma_update(None, "synchronous", "full")?;
        connection.pragma_update(None, "foreign_keys", true)?;
        // A deleted cache's passwords are overwritten and not only unlinked.
        connection.pragma_update(None, "secure_delete", true)?;
        migrate(&mut connection)?;
        Ok(Database { connection })
    }

    /// Whether the database answers at all.
    pub(crate) fn is_ready(&self) -> bool {
        self.connection.query_row("SELECT 1 FROM schema_version", [], |_| Ok(())).is_ok()
    }

    pub(crate) fn cache(&self, cache: &CacheRef) -> Result<Cache, ControlError> {
        find_cache(&self.connection, cache)?
            .ok_or_else(|| ControlError::UnknownCache(cache.clone()))
    }

    /// Caches by rising id, those after `after`.
    pub(crate) fn caches(&self, after: CacheId, limit: usize) -> Result<Vec<Cache>, ControlError> {
        let after = i64::try_from(after.get()).unwrap_or(i64::MAX);
        let mut statement = self
            .connection
            .prepare_cached(&format!("{SELECT_CACHE} WHERE id > ?1 ORDER BY id LIMIT ?2"))?;
        let rows = statement.query_map(params![after, limit], cache_row)?;
        rows.map(|row| row?.checked()).collect()
    }

    /// A cache's credentials in the order they were made.
    pub(crate) fn credentials(
        &self,
        cache: CacheId,
    ) -> Result<Vec<StoredCredential>, ControlError> {
        let mut statement = self.connection.prepare_cached(&format!(
            "{SELECT_CREDENTIAL} WHERE cache_id = ?1 ORDER BY credentials.created_at, username"
        ))?;
        let rows = statement.query_map([cache.get()], credential_row)?;
        rows.map(|row| row?.checked()).collect()
    }

    /// The cache that a credential belongs to.
    pub(crate) fn cache_of(&self, username: &Username) -> Result<Cache, ControlError> {
        let sql = "SELECT cache_id FROM credentials WHERE username = ?1";
        let id: Option<u64> =
            self.connection.query_row(sql, [username.as_str()], |row| row.get(0)).optional()?;
        let id = id.ok_or(ControlError::UnknownUsername(*username))?;
        self.cache(&CacheRef::Id(CacheId::new(id)))
    }

    pub(crate) fn credential(
        &self,
        cache: &Cache,
        username: &Username,
    ) -> Result<StoredCredential, ControlError> {
        find_credential(&self.connection, cache, username)
    }

    /// Calls `each` with every credential of the installation, without holding them all.
    pub(crate) fn for_each_credential(
        &self,
        mut each: impl FnMut(StoredCredential),
    ) -> Result<(), ControlError> {
        let mut statement = self.connection.prepare(SELECT_CREDENTIAL)?;
        for row in statement.query_map([], credential_row)? {
            each(row?.checked()?);
        }
        Ok(())
    }

    /// For tests: to look at the rows, and to make SQLite fail.
    #[cfg(test)]
    pub(crate) fn connection(&self) -> &Connection {
        &self.connection
    }

    /// Begins a change. Nothing else can write until it has ended.
    pub(crate) fn begin(
        &mut self,
        actor: Actor,
        now: UnixSeconds,
    ) -> Result<Change<'_>, ControlError> {
        // Made first, so that it also ends a BEGIN that failed after it had begun.
        let change = Change { connection: &self.connection, actor, now, audit_id: Cell::new(None) };
        change.connection.execute_batch("BEGIN IMMEDIATE")?;
        Ok(change)
    }
}

/// A change that is being made. Dropped, it leaves nothing behind.
pub(crate) struct Change<'a> {
    connection: &'a Connection,
    actor: Actor,
    now: UnixSeconds,
    /// Its row in the audit log, once it has one.
    audit_id: Cell<Option<i64>>,
}

impl Drop for Change<'_> {
    fn drop(&mut self) {
        if self.connection.is_autocommit() {
            return;
        }
        if let Err(error) = self.connection.execute_batch("ROLLBACK") {
            tracing::error!(error = &error as &dyn std::error::Error, "change not rolled back");
        }
    }
}

/// What a change did: the words of the change log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    CacheCreated,
    CacheDeleted,
    PlanChanged,
    CacheEnabled,
    CacheDisabled,
    CredentialAdded,
    CredentialRemoved,
    CredentialPromoted,
    CapabilitiesChanged,
    /// Changes no row, so it is in the audit log only.
    CacheFlushed,
}

impl Kind {
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Kind::CacheCreated => "cache created",
            Kind::CacheDeleted => "cache deleted",
            Kind::PlanChanged => "plan changed",
            Kind::CacheEnabled => "cache enabled",
            Kind::CacheDisabled => "cache disabled",
            Kind::CredentialAdded => "credential added",
            Kind::CredentialRemoved => "credential removed",
            Kind::CredentialPromoted => "credential promoted",
            Kind::CapabilitiesChanged => "capabilities changed",
            Kind::CacheFlushed => "cache flushed",
        }
    }

    const fn changes_rows(self) -> bool {
        !matches!(self, Kind::CacheFlushed)
    }
}

/// A credential to be inserted.
pub(crate) struct NewCredential {
    pub(crate) username: Username,
    pub(crate) capabilities: Capabilities,
    pub(crate) hash: SecretHash,
    pub(crate) sealed_password: Vec<u8>,
}

impl Change<'_> {
    pub(crate) fn cache(&self, cache: &CacheRef) -> Result<Cache, ControlError> {
        find_cache(self.connection, cache)?.ok_or_else(|| ControlError::UnknownCache(cache.clone()))
    }

    pub(crate) fn credential(
        &self,
        cache: &Cache,
        username: &Username,
    ) -> Result<StoredCredential, ControlError> {
        find_credential(self.connection, cache, username)
    }

    /// A cache and the credential it begins with, which is its primary one.
    pub(crate) fn insert_cache(
        &self,
        name: CacheName,
        plan: &'static Plan,
        primary: &NewCredential,
    ) -> Result<(Cache, Credential), ControlError> {
        if find_cache(self.connection, &CacheRef::Name(name.clone()))?.is_some() {
            return Err(ControlError::NameTaken(name));
        }
        if self.count("SELECT count(*) FROM caches", [])? >= CACHES_MAX {
            return Err(ControlError::TooManyCaches { max: CACHES_MAX });
        }
        self.connection.execute(
            "INSERT INTO caches (name, plan, enabled, primary_username, created_at)
             VALUES (?1, ?2, 1, ?3, ?4)",
            params![name.as_str(), plan.name, primary.username.as_str(), self.now.0],
        )?;
        let id = u64::try_from(self.connection.last_insert_rowid())
            .map_err(|_| ControlError::Corrupt { what: "cache id" })?;
        let cache = Cache {
            id: CacheId::new(id),
            name,
            plan,
            enabled: true,
            primary: primary.username,
            created_at: self.now,
        };
        let credential = self.insert_credential(&cache, primary)?;
        Ok((cache, credential))
    }

    pub(crate) fn insert_credential(
        &self,
        cache: &Cache,
        new: &NewCredential,
    ) -> Result<Credential, ControlError> {
        let count = "SELECT count(*) FROM credentials WHERE cache_id = ?1";
        if self.count(count, [cache.id.get()])? >= CREDENTIALS_PER_CACHE_MAX {
            let max = CREDENTIALS_PER_CACHE_MAX;
            return Err(ControlError::TooManyCredentials { cache: cache.name.clone(), max });
        }
        self.connection.execute(
            "INSERT INTO credentials
                 (username, cache_id, capabilities, password_hash, sealed_password, created_at)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6)",
            params![
                new.username.as_str(),
                cache.id.get(),
                new.capabilities.bits(),
                new.hash.bytes(),
                new.sealed_password,
                self.now.0
            ],
        )?;
        Ok(Credential {
            username: new.username,
            cache: cache.id,
            capabilities: new.capabilities,
            primary: new.username == cache.primary,
            created_at: self.now,
        })
    }

    /// Deletes a cache with all its credentials.
    pub(crate) fn delete_cache(&self, cache: &Cache) -> Result<(), ControlError> {
        self.connection.execute("DELETE FROM caches WHERE id = ?1", [cache.id.get()])?;
        Ok(())
    }

    pub(crate) fn delete_credential(&self, username: &Username) -> Result<(), ControlError> {
        let sql = "DELETE FROM credentials WHERE username = ?1";
        self.connection.execute(sql, [username.as_str()])?;
        Ok(())
    }

    /// Writes a cache's plan, state and primary credential as they now are.
    pub(crate) fn update_cache(&self, cache: &Cache) -> Result<(), ControlError> {
        self.connection.execute(
            "UPDATE caches SET plan = ?2, enabled = ?3, primary_username = ?4 WHERE id = ?1",
            params![cache.id.get(), cache.plan.name, cache.enabled, cache.primary.as_str()],
        )?;
        Ok(())
    }

    pub(crate) fn update_capabilities(
        &self,
        username: &Username,
        capabilities: Capabilities,
    ) -> Result<(), ControlError> {
        self.connection.execute(
            "UPDATE credentials SET capabilities = ?2 WHERE username = ?1",
            params![username.as_str(), capabilities.bits()],
        )?;
        Ok(())
    }

    /// Appends to the change log and the audit log. Every change does this once, last.
    pub(crate) fn record(
        &self,
        kind: Kind,
        cache: &Cache,
        username: Option<&Username>,
        detail: &str,
    ) -> Result<(), ControlError> {
        let username = username.map(Username::as_str);
        let revision = if kind.changes_rows() {
            Some(self.connection.query_row(
                "INSERT INTO changes (revision, at, kind, cache_id, username)
                 SELECT coalesce(max(revision), 0) + 1, ?1, ?2, ?3, ?4 FROM changes
                 RETURNING revision",
                params![self.now.0, kind.name(), cache.id.get(), username],
                |row| row.get::<_, i64>(0),
            )?)
        } else {
            None
        };
        self.connection.execute(
            "INSERT INTO audit
                 (at, actor, action, cache_id, cache_name, username, detail, revision)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8)",
            params![
                self.now.0,
                self.actor.name(),
                kind.name(),
                cache.id.get(),
                cache.name.as_str(),
                username,
                detail,
                revision
            ],
        )?;
        self.audit_id.set(Some(self.connection.last_insert_rowid()));
        Ok(())
    }

    /// Makes the change true. After an error it is as if it had never begun.
    pub(crate) fn commit(self) -> Result<(), ControlError> {
        let committed = self.connection.execute_batch("COMMIT");
        // An error does not say which way it went: SQLite may give up on a COMMIT that has already
        // taken effect. Where it still holds the transaction it did not; else the rows tell.
        if committed.is_err() && self.connection.is_autocommit() && self.is_in_audit_log()? {
            return Ok(());
        }
        Ok(committed?)
    }

    fn is_in_audit_log(&self) -> Result<bool, ControlError> {
        Ok(self.count("SELECT count(*) FROM audit WHERE id = ?1", [self.audit_id.get()])? == 1)
    }

    fn count(&self, sql: &str, params: impl rusqlite::Params) -> Result<usize, ControlError> {
        Ok(self.connection.query_row(sql, params, |row| row.get(0))?)
    }
}

const SELECT_CACHE: &str =
    "SELECT id, name, plan, enabled, primary_username, created_at FROM caches";

const SELECT_CREDENTIAL: &str = "SELECT username, cache_id, capabilities, password_hash,
    sealed_password, credentials.created_at, username = primary_username
    FROM credentials JOIN caches ON caches.id = cache_id";

fn find_cache(connection: &Connection, cache: &CacheRef) -> Result<Option<Cache>, ControlError> {
    let found = match cache {
        CacheRef::Id(id) => {
            // SQLite's integers end where no id of ours ever gets to.
            let Ok(id) = i64::try_from(id.get()) else { return Ok(None) };
            connection
                .prepare_cached(&format!("{SELECT_CACHE} WHERE id = ?1"))?
                .query_row([id], cache_row)
        }
        CacheRef::Name(name) => connection
            .prepare_cached(&format!("{SELECT_CACHE} WHERE name = ?1"))?
            .query_row([name.as_str()], cache_row),
    };
    found.optional()?.map(CacheRow::checked).transpose()
}

fn find_credential(
    connection: &Connection,
    cache: &Cache,
    username: &Username,
) -> Result<StoredCredential, ControlError> {
    connection
        .prepare_cached(&format!("{SELECT_CREDENTIAL} WHERE cache_id = ?1 AND username = ?2"))?
        .query_row(params![cache.id.get(), username.as_str()], credential_row)
        .optional()?
        .ok_or_else(|| ControlError::UnknownCredential {
            cache: cache.name.clone(),
            username: *username,
        })?
        .checked()
}

/// A row of `caches` as SQLite gives it.
struct CacheRow {
    id: u64,
    name: String,
    plan: String,
    enabled: bool,
    primary: String,
    created_at: u64,
}

fn cache_row(row: &Row<'_>) -> rusqlite::Result<CacheRow> {
    Ok(CacheRow {
        id: row.get(0)?,
        name: row.get(1)?,
        plan: row.get(2)?,
        enabled: row.get(3)?,
        primary: row.get(4)?,
        created_at: row.get(5)?,
    })
}

impl CacheRow {
    fn checked(self) -> Result<Cache, ControlError> {
        let corrupt = |what| ControlError::Corrupt { what };
        Ok(Cache {
            id: CacheId::new(self.id),
            name: CacheName::parse(&self.name).map_err(|_| corrupt("cache name"))?,
            plan: Plan::named(&self.plan).ok_or(corrupt("plan"))?,
            enabled: self.enabled,
            primary: Username::parse(&self.primary).map_err(|_| corrupt("username"))?,
            created_at: UnixSeconds(self.created_at),
        })
    }
}

/// A row of `credentials` as SQLite gives it.
struct CredentialRow {
    username: String,
    cache: u64,
    capabilities: u8,
    hash: [u8; 32],
    sealed_password: Vec<u8>,
    created_at: u64,
    primary: bool,
}

fn credential_row(row: &Row<'_>) -> rusqlite::Result<CredentialRow> {
    Ok(CredentialRow {
        username: row.get(0)?,
        cache: row.get(1)?,
        capabilities: row.get(2)?,
        hash: row.get(3)?,
        sealed_password: row.get(4)?,
        created_at: row.get(5)?,
        primary: row.get(6)?,
    })
}

impl CredentialRow {
    fn checked(self) -> Result<StoredCredential, ControlError> {
        let corrupt = |what| ControlError::Corrupt { what };
        let credential = Credential {
            username: Username::parse(&self.username).map_err(|_| corrupt("username"))?,
            cache: CacheId::new(self.cache),
            capabilities: Capabilities::from_bits(self.capabilities)
                .ok_or(corrupt("set of capabilities"))?,
            primary: self.primary,
            created_at: UnixSeconds(self.created_at),
        };
        let hash = SecretHash::from_bytes(self.hash);
        Ok(StoredCredential { credential, hash, sealed_password: self.sealed_password })
    }
}
