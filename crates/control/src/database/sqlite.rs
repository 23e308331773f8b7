//! SQLite, compiled in: the database of an installation with one control process.

use std::path::Path;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rusqlite::types::{ToSqlOutput, ValueRef};
use rusqlite::{Connection, ErrorCode, ToSql, params_from_iter};

use super::schema::migrate;
use super::sql::{Column, EachRow, Mode, Row, Sql, Value};
use crate::error::{ControlError, DatabaseError, DatabaseFault, OpenError};

/// A backup program may hold the database for a moment; whoever waits for us waits as long.
const LOCKED_MAX: Duration = Duration::from_secs(2);
/// There are some 60 different statements in this crate; all of them stay prepared.
const STATEMENTS_MAX: usize = 128;

pub(super) struct Sqlite {
    connection: Connection,
}

impl Sqlite {
    /// The connection that writes; brings the schema up to date.
    pub(super) fn open(path: &Path) -> Result<Self, OpenError> {
        let mut sqlite = Sqlite::connect(path)?;
        sqlite.set_up()?;
        Ok(sqlite)
    }

    /// A further connection to a database that has been opened, for reading beside the writer.
    pub(super) fn open_reader(path: &Path) -> Result<Self, OpenError> {
        let sqlite = Sqlite::connect(path)?;
        sqlite.connection.pragma_update(None, "query_only", true).map_err(DatabaseError::from)?;
        Ok(sqlite)
    }

    fn connect(path: &Path) -> Result<Self, DatabaseError> {
        let connection = Connection::open(path)?;
        connection.busy_timeout(LOCKED_MAX)?;
        connection.set_prepared_statement_cache_capacity(STATEMENTS_MAX);
        Ok(Sqlite { connection })
    }

    fn set_up(&mut self) -> Result<(), OpenError> {
        let set = |name, value: &dyn ToSql| {
            self.connection.pragma_update(None, name, value).map_err(DatabaseError::from)
        };
        set("journal_mode", &"wal")?;
        // A password once shown must not be gone after a power cut, so every commit is synced.
        set("synchronous", &"full")?;
        // A deleted cache's passwords are overwritten and not only unlinked.
        set("secure_delete", &true)?;
        // A step may rebuild a table that others refer to; it is checked as a whole afterwards.
        set("foreign_keys", &false)?;
        migrate(&mut self.connection)?;
        let set = |name, value: &dyn ToSql| {
            self.connection.pragma_update(None, name, value).map_err(DatabaseError::from)
        };
        Ok(set("foreign_keys", &true)?)
    }
}

impl Sql for Sqlite {
    fn begin(&mut self, mode: Mode) -> Result<(), DatabaseError> {
        let begin = match mode {
            Mode::Write => "BEGIN IMMEDIATE",
            Mode::Snapshot => "BEGIN",
        };
        Ok(self.connection.execute_batch(begin)?)
    }

    fn commit(&mut self) -> Result<(), DatabaseError> {
        Ok(self.connection.execute_batch("COMMIT")?)
    }

    fn rollback(&mut self) {
        if self.connection.is_autocommit() {
            return;
        }
        if let Err(error) = self.connection.execute_batch("ROLLBACK") {
            tracing::error!(error = &error as &dyn std::error::Error, "change not rolled back");
        }
    }

    fn is_in_transaction(&self) -> bool {
        !self.connection.is_autocommit()
    }

    fn execute(&mut self, sql: &str, values: &[Value<'_>]) -> Result<u64, DatabaseError> {
        let mut statement = self.connection.prepare_cached(&in_sqlite(sql))?;
        Ok(statement.execute(params_from_iter(values))? as u64)
    }

    fn for_each(
        &mut self,
        sql: &str,
        values: &[Value<'_>],
        each: &mut EachRow<'_>,
    ) -> Result<(), ControlError> {
        let mut statement =
            self.connection.prepare_cached(&in_sqlite(sql)).map_err(DatabaseError::from)?;
        let columns = statement.column_count();
        let mut rows = statement.query(params_from_iter(values)).map_err(DatabaseError::from)?;
        while let Some(row) = rows.next().map_err(DatabaseError::from)? {
            let values = (0..columns).map(|at| row.get_ref(at).map(column));
            each(Row(values.collect::<Result<_, _>>().map_err(DatabaseError::from)?))?;
        }
        Ok(())
    }

    fn now_ms(&mut self) -> Result<i64, ControlError> {
        // SQLite has no clock of its own, and only one process writes.
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Ok(i64::try_from(since.as_millis()).unwrap_or(i64::MAX))
    }

    #[cfg(test)]
    fn sqlite(&self) -> Option<&Connection> {
        Some(&self.connection)
    }

    #[cfg(test)]
    fn run_batch(&mut self, sql: &str) -> Result<(), DatabaseError> {
        Ok(self.connection.execute_batch(sql)?)
    }
}

/// From the shared dialect: parameters have another sign, and there are no locks on rows.
fn in_sqlite(sql: &str) -> String {
    sql.replace('$', "?").replace(" FOR UPDATE", "").replace(" FOR SHARE", "")
}

impl ToSql for Value<'_> {
    fn to_sql(&self) -> rusqlite::Result<ToSqlOutput<'_>> {
        let value = match *self {
            Value::Null => ValueRef::Null,
            Value::Int(int) => ValueRef::Integer(int),
            Value::Bool(is) => ValueRef::Integer(i64::from(is)),
            Value::Text(text) => ValueRef::Text(text.as_bytes()),
            Value::Bytes(bytes) => ValueRef::Blob(bytes),
        };
        Ok(ToSqlOutput::Borrowed(value))
    }
}

/// No column of ours holds a floating-point number, so one would be read as what it is not.
fn column(value: ValueRef<'_>) -> Column {
    match value {
        ValueRef::Null | ValueRef::Real(_) => Column::Null,
        ValueRef::Integer(int) => Column::Int(int),
        ValueRef::Text(text) => Column::Text(String::from_utf8_lossy(text).into_owned()),
        ValueRef::Blob(bytes) => Column::Bytes(bytes.to_vec()),
    }
}

impl From<rusqlite::Error> for DatabaseError {
    fn from(error: rusqlite::Error) -> Self {
        let fault = match error.sqlite_error_code() {
            Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked) => DatabaseFault::Unavailable,
            Some(ErrorCode::DiskFull) => DatabaseFault::Full,
            _ => DatabaseFault::Other,
        };
        DatabaseError { fault, source: error.into() }
    }
}

#[cfg(test)]
mod tests {
    use rusqlite::Connection;

    use crate::error::{DatabaseError, DatabaseFault};

    #[test]
    fn a_file_without_room_is_told_apart_from_a_mistake() {
        let file = Connection::open_in_memory().expect("memory");
        file.execute_batch("CREATE TABLE t (x); PRAGMA max_page_count = 4").expect("there is room");
        let check = |sql: &str, expected| {
            let error = DatabaseError::from(file.execute(sql, []).expect_err("it cannot be done"));
            assert_eq!(error.fault, expected, "{sql}");
        };
        check("INSERT INTO t VALUES (zeroblob(100000))", DatabaseFault::Full);
        check("INSERT INTO nowhere VALUES (1)", DatabaseFault::Other);
    }
}
