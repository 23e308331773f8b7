//! The dashboard's rows: what a cache's secret is derived from, operators, and sessions.

use tenancy::id::{CacheId, Username};

use super::change::Change;
use super::rows::{self, corrupt};
use super::{Database, Value};
use crate::error::ControlError;
use crate::model::{Cache, Operator, OperatorName, Session, SessionOf, UnixSeconds};

/// Browsers that may be at one cache, or that one operator may have, at a time: the oldest go first.
const SESSIONS_MAX: usize = 50;
/// A team and its scripts; few enough to list on one page.
const OPERATORS_MAX: usize = 200;
/// Ended sessions that are forgotten with each new one, so that the table does not grow.
const ENDED_AT_ONCE: usize = 100;

/// What a cookie is known by.
pub(crate) type SessionDigest = [u8; 32];
/// What a cache's secret is derived from.
pub(crate) type DashboardNonce = [u8; 16];

/// An operator and what his password is checked against.
pub(crate) struct StoredOperator {
    pub(crate) operator: Operator,
    pub(crate) password_hash: String,
}

const SELECT_OPERATOR: &str = "SELECT name, password_hash, created_at FROM operators";

fn operator(row: &super::sql::Row) -> Result<StoredOperator, ControlError> {
    let name = rows::username(row.text(0)?)?;
    let operator = Operator { name, created_at: UnixSeconds(row.natural(2)?) };
    Ok(StoredOperator { operator, password_hash: row.text(1)?.to_owned() })
}

impl Database {
    pub(crate) fn dashboard_nonce(
        &mut self,
        cache: CacheId,
    ) -> Result<Option<DashboardNonce>, ControlError> {
        let select = "SELECT nonce FROM dashboard_secrets WHERE cache_id = $1";
        let row = self.sql.row(select, &[cache.get().into()])?;
        row.map(|row| row.array(0)).transpose()
    }

    /// By name.
    pub(crate) fn operators(&mut self) -> Result<Vec<Operator>, ControlError> {
        let rows = self.sql.rows(&format!("{SELECT_OPERATOR} ORDER BY name"), &[])?;
        rows.iter().map(|row| Ok(operator(row)?.operator)).collect()
    }

    pub(crate) fn operator(
        &mut self,
        name: &OperatorName,
    ) -> Result<Option<StoredOperator>, ControlError> {
        let select = format!("{SELECT_OPERATOR} WHERE name = $1");
        let row = self.sql.row(&select, &[name.as_str().into()])?;
        row.as_ref().map(operator).transpose()
    }

    /// A session that has not ended.
    pub(crate) fn session(
        &mut self,
        digest: &SessionDigest,
        now: UnixSeconds,
    ) -> Result<Option<Session>, ControlError> {
        let select = "SELECT cache_id, operators.name FROM sessions
            LEFT JOIN operators ON operators.id = operator_id
            WHERE id_digest = $1 AND expires_at > $2";
        let row = self.sql.row(select, &[digest.as_slice().into(), now.0.into()])?;
        let Some(row) = row else { return Ok(None) };
        let cache = row.optional_natural(0)?.map(CacheId::new);
        let operator = row.optional_text(1)?.map(rows::username).transpose()?;
        Ok(Some(Session { cache, operator }))
    }

    /// At most `limit` caches by rising id, those after `after` whose name has `part` in it, whatever the
    /// case of its letters.
    pub(crate) fn caches_named_like(
        &mut self,
        part: &str,
        after: CacheId,
        limit: usize,
    ) -> Result<Vec<Cache>, ControlError> {
        // The databases have no function in common that looks for a text in a text, but this one.
        let select = format!(
            "{} WHERE id > $1 AND replace(lower(name), $2, '') <> lower(name) ORDER BY id LIMIT $3",
            rows::SELECT_CACHE
        );
        let part = part.to_ascii_lowercase();
        let values = [after.get().into(), part.as_str().into(), limit.into()];
        self.sql.rows(&select, &values)?.iter().map(rows::cache).collect()
    }

    pub(crate) fn count_caches(&mut self) -> Result<u64, ControlError> {
        let count = self.sql.number("SELECT count(*) FROM caches", &[])?;
        u64::try_from(count).map_err(|_| corrupt("count"))
    }
}

impl Change<'_> {
    pub(crate) fn put_dashboard_nonce(
        &mut self,
        cache: CacheId,
        nonce: &DashboardNonce,
    ) -> Result<(), ControlError> {
        let put = "INSERT INTO dashboard_secrets (cache_id, nonce) VALUES ($1, $2)
            ON CONFLICT (cache_id) DO UPDATE SET nonce = excluded.nonce";
        self.sql.execute(put, &[cache.get().into(), nonce.as_slice().into()])?;
        Ok(())
    }

    pub(crate) fn end_sessions_of(&mut self, cache: CacheId) -> Result<(), ControlError> {
        self.sql.execute("DELETE FROM sessions WHERE cache_id = $1", &[cache.get().into()])?;
        Ok(())
    }

    pub(crate) fn end_session(&mut self, digest: &SessionDigest) -> Result<(), ControlError> {
        self.sql
            .execute("DELETE FROM sessions WHERE id_digest = $1", &[digest.as_slice().into()])?;
        Ok(())
    }

    /// Forgets some of the sessions that have ended, and of this owner's or operator's the oldest ones
    /// beyond [`SESSIONS_MAX`].
    pub(crate) fn insert_session(
        &mut self,
        digest: &SessionDigest,
        of: &SessionOf,
        expires_at: UnixSeconds,
    ) -> Result<(), ControlError> {
        let forget = "DELETE FROM sessions WHERE id_digest IN
            (SELECT id_digest FROM sessions WHERE expires_at <= $1 LIMIT $2)";
        self.sql.execute(forget, &[self.now.0.into(), ENDED_AT_ONCE.into()])?;
        let operator_id = match of.operator() {
            Some(name) => Some(self.operator_id(&name)?),
            None => None,
        };
        let (column, id) = match of.cache() {
            Some(cache) => ("cache_id = $1", Value::from(cache.get())),
            None => ("cache_id IS NULL AND operator_id = $1", Value::from(operator_id)),
        };
        let forget = format!(
            "DELETE FROM sessions WHERE {column} AND id_digest NOT IN
                 (SELECT id_digest FROM sessions WHERE {column} ORDER BY created_at DESC LIMIT $2)"
        );
        self.sql.execute(&forget, &[id, (SESSIONS_MAX - 1).into()])?;
        self.sql.execute(
            "INSERT INTO sessions (id_digest, cache_id, operator_id, created_at, expires_at)
             VALUES ($1, $2, $3, $4, $5)",
            &[
                digest.as_slice().into(),
                of.cache().map(CacheId::get).into(),
                operator_id.into(),
                self.now.0.into(),
                expires_at.0.into(),
            ],
        )?;
        Ok(())
    }

    /// Adds an operator, or gives the one there is another password and ends his sessions.
    pub(crate) fn put_operator(
        &mut self,
        name: &OperatorName,
        password_hash: &str,
    ) -> Result<Operator, ControlError> {
        if self.count("SELECT count(*) FROM operators", &[])? >= OPERATORS_MAX {
            return Err(ControlError::TooManyOperators { max: OPERATORS_MAX });
        }
        let put = "INSERT INTO operators (name, password_hash, created_at) VALUES ($1, $2, $3)
            ON CONFLICT (name) DO UPDATE SET password_hash = excluded.password_hash
            RETURNING id";
        let values = [name.as_str().into(), password_hash.into(), self.now.0.into()];
        let id = self.sql.number(put, &values)?;
        self.sql.execute("DELETE FROM sessions WHERE operator_id = $1", &[id.into()])?;
        self.audit("operator added", None, name.as_str())?;
        Ok(Operator { name: *name, created_at: self.now })
    }

    /// Removes an operator with his sessions.
    pub(crate) fn delete_operator(&mut self, name: &OperatorName) -> Result<(), ControlError> {
        let delete = "DELETE FROM operators WHERE name = $1";
        if self.sql.execute(delete, &[name.as_str().into()])? == 0 {
            return Err(ControlError::UnknownOperator(*name));
        }
        self.audit("operator removed", None, name.as_str())
    }

    fn operator_id(&mut self, name: &Username) -> Result<i64, ControlError> {
        let select = "SELECT id FROM operators WHERE name = $1";
        let row = self.sql.row(select, &[name.as_str().into()])?;
        row.ok_or(ControlError::UnknownOperator(*name))?.int(0)
    }
}
