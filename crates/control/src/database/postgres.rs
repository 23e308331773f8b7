//! PostgreSQL: the database of an installation with several control processes, one of which leads.
//!
//! A connection that broke is made again by the next statement outside a transaction; what was under
//! way is lost as a whole. Everything that could wait for ever has a limit at the server, too: a
//! process that stands still in the middle of a change must not hold up the one that takes over.

use std::collections::HashMap;
use std::error::Error;
use std::net::IpAddr;
use std::time::Duration;

use postgres::config::{Host, SslMode};
use postgres::error::SqlState;
use postgres::fallible_iterator::FallibleIterator;
use postgres::types::private::BytesMut;
use postgres::types::{IsNull, ToSql, Type, to_sql_checked};
use postgres::{Client, Config, NoTls, Statement};

use super::postgres_tls::Tls;
use super::schema::SchemaError;
use super::sql::{Column, EachRow, Mode, Row, Sql, Value};
use crate::error::{ControlError, DatabaseError, DatabaseFault, OpenError};

/// A server on the same network answers within milliseconds; one that does not within this long is
/// gone, and whoever waits for a change has waited long enough.
const CONNECT_MAX: Duration = Duration::from_secs(3);
/// Limits at the server, in milliseconds. No statement but a snapshot of everything takes longer than
/// a few of them; a change does nothing between its statements, so one that stands still is dead.
const SESSION_OPTIONS: &str = "-c statement_timeout=60000 -c lock_timeout=5000 \
    -c idle_in_transaction_session_timeout=5000 -c synchronous_commit=on";

const MIGRATIONS: &[&str] = &[
    include_str!("../../migrations/postgres/0001-all.sql"),
    include_str!("../../migrations/postgres/0002-credentials-have-numbers.sql"),
    include_str!("../../migrations/postgres/0003-series.sql"),
    include_str!("../../migrations/postgres/0004-authority.sql"),
    include_str!("../../migrations/postgres/0005-requests-of-the-installation.sql"),
    include_str!("../../migrations/postgres/0006-dashboard.sql"),
    include_str!("../../migrations/postgres/0007-alerts.sql"),
    include_str!("../../migrations/postgres/0008-prefixes.sql"),
    include_str!("../../migrations/postgres/0009-rules.sql"),
    include_str!("../../migrations/postgres/0010-latency.sql"),
    include_str!("../../migrations/postgres/0011-rates.sql"),
];
/// Under which control processes that start at the same time agree who migrates ("larder" in ASCII).
const MIGRATION_LOCK: i64 = 0x6c61_7264_6572;

/// Where a server is, and how it proves who it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PostgresAccess {
    /// As libpq takes it.
    pub url: String,
    /// In PEM, who signs the server's certificate; then the connection is encrypted, or there is none.
    pub authority: Option<Vec<u8>>,
}

pub(super) struct Postgres {
    config: Config,
    /// How connections are encrypted, if they are.
    tls: Option<Tls>,
    session: Option<Session>,
    in_transaction: bool,
}

/// One connection and what was prepared on it; there are some 70 different statements.
struct Session {
    client: Client,
    statements: HashMap<String, Statement>,
}

impl Postgres {
    /// Connects, and brings the schema up to date.
    pub(super) fn open(server: &PostgresAccess) -> Result<Self, OpenError> {
        let mut config: Config = server.url.parse().map_err(DatabaseError::from)?;
        let tls = match &server.authority {
            Some(authority) => {
                config.ssl_mode(SslMode::Require);
                let tls = Tls::trusting(authority);
                Some(tls.map_err(|error| OpenError::PostgresAuthority(error.into()))?)
            }
            None if config.get_ssl_mode() == SslMode::Require => {
                return Err(OpenError::PostgresAuthorityMissing);
            }
            None => None,
        };
        if tls.is_none() && config.get_hosts().iter().any(is_elsewhere) {
            tracing::warn!("the connection to PostgreSQL is not encrypted");
        }
        config
            .application_name("larder control")
            .connect_timeout(CONNECT_MAX)
            .tcp_user_timeout(2 * CONNECT_MAX);
        let options = config.get_options().map_or_else(String::new, |given| format!("{given} "));
        config.options(&format!("{options}{SESSION_OPTIONS}"));
        let mut postgres = Postgres { config, tls, session: None, in_transaction: false };
        let session = postgres.session()?;
        migrate(&mut session.client, MIGRATIONS)?;
        Ok(postgres)
    }

    fn session(&mut self) -> Result<&mut Session, DatabaseError> {
        if self.session.as_ref().is_none_or(|session| session.client.is_closed()) {
            if self.in_transaction {
                return Err(lost());
            }
            self.session = None;
            let client = match &self.tls {
                Some(tls) => self.config.connect(tls.clone())?,
                None => self.config.connect(NoTls)?,
            };
            self.session = Some(Session { client, statements: HashMap::new() });
        }
        self.session.as_mut().ok_or_else(lost)
    }

    fn batch(&mut self, sql: &str) -> Result<(), DatabaseError> {
        Ok(self.session()?.client.batch_execute(sql)?)
    }
}

impl Session {
    fn prepared(&mut self, sql: &str) -> Result<Statement, DatabaseError> {
        if let Some(statement) = self.statements.get(sql) {
            return Ok(statement.clone());
        }
        let statement = self.client.prepare(sql)?;
        self.statements.insert(sql.to_owned(), statement.clone());
        Ok(statement)
    }
}

impl Sql for Postgres {
    fn begin(&mut self, mode: Mode) -> Result<(), DatabaseError> {
        let begin = match mode {
            // Said, because the fence relies on it: a server's default may be another one.
            Mode::Write => "BEGIN ISOLATION LEVEL READ COMMITTED",
            Mode::Snapshot => "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY",
        };
        self.batch(begin)?;
        self.in_transaction = true;
        Ok(())
    }

    fn commit(&mut self) -> Result<(), DatabaseError> {
        let committed = self.batch("COMMIT");
        // Also after an error: a refused commit has rolled back, and a lost connection has, too, or
        // has not. Either way there is no transaction any more.
        self.in_transaction = false;
        committed
    }

    fn rollback(&mut self) {
        if !self.in_transaction {
            return;
        }
        self.in_transaction = false;
        let Some(session) = &mut self.session else { return };
        // What cannot be rolled back is given up with its connection.
        if session.client.batch_execute("ROLLBACK").is_err() {
            self.session = None;
        }
    }

    fn is_in_transaction(&self) -> bool {
        self.in_transaction
    }

    fn execute(&mut self, sql: &str, values: &[Value<'_>]) -> Result<u64, DatabaseError> {
        let session = self.session()?;
        let statement = session.prepared(sql)?;
        let values: Vec<&(dyn ToSql + Sync)> =
            values.iter().map(|value| value as &(dyn ToSql + Sync)).collect();
        Ok(session.client.execute(&statement, &values)?)
    }

    fn for_each(
        &mut self,
        sql: &str,
        values: &[Value<'_>],
        each: &mut EachRow<'_>,
    ) -> Result<(), ControlError> {
        let session = self.session()?;
        let statement = session.prepared(sql)?;
        let mut rows = session.client.query_raw(&statement, values).map_err(DatabaseError::from)?;
        while let Some(row) = rows.next().map_err(DatabaseError::from)? {
            let columns = (0..row.len()).map(|at| column(&row, at));
            each(Row(columns.collect::<Result<_, _>>().map_err(DatabaseError::from)?))?;
        }
        Ok(())
    }

    fn now_ms(&mut self) -> Result<i64, ControlError> {
        let now = "SELECT CAST(extract(epoch FROM clock_timestamp()) * 1000 AS BIGINT)";
        (self as &mut dyn Sql).number(now, &[])
    }

    #[cfg(test)]
    fn run_batch(&mut self, sql: &str) -> Result<(), DatabaseError> {
        self.batch(sql)
    }
}

/// Whether others could listen on the way.
fn is_elsewhere(host: &Host) -> bool {
    match host {
        Host::Tcp(name) => {
            name != "localhost" && !name.parse().is_ok_and(|ip: IpAddr| ip.is_loopback())
        }
        Host::Unix(_) => false,
    }
}

fn migrate(client: &mut Client, migrations: &[&str]) -> Result<(), SchemaError> {
    let failed = |error: postgres::Error| SchemaError::Database(error.into());
    let mut transaction = client.transaction().map_err(failed)?;
    transaction.execute("SELECT pg_advisory_xact_lock($1)", &[&MIGRATION_LOCK]).map_err(failed)?;
    transaction
        .batch_execute("CREATE TABLE IF NOT EXISTS schema_version (version BIGINT PRIMARY KEY)")
        .map_err(failed)?;
    let found: i64 = transaction
        .query_one("SELECT coalesce(max(version), 0) FROM schema_version", &[])
        .and_then(|row| row.try_get(0))
        .map_err(failed)?;
    let (found, known) = (usize::try_from(found).unwrap_or(usize::MAX), migrations.len());
    if found > known {
        return Err(SchemaError::Newer { found, known });
    }
    for (version, sql) in (1_i64..).zip(migrations).skip(found) {
        transaction.batch_execute(sql).map_err(failed)?;
        let insert = "INSERT INTO schema_version (version) VALUES ($1)";
        transaction.execute(insert, &[&version]).map_err(failed)?;
    }
    transaction.commit().map_err(failed)
}

fn column(row: &postgres::Row, at: usize) -> Result<Column, postgres::Error> {
    let kind = row.columns()[at].type_();
    let value = if *kind == Type::BOOL {
        row.try_get::<_, Option<bool>>(at)?.map(|is| Column::Int(i64::from(is)))
    } else if *kind == Type::BYTEA {
        row.try_get::<_, Option<Vec<u8>>>(at)?.map(Column::Bytes)
    } else if *kind == Type::INT8 {
        row.try_get::<_, Option<i64>>(at)?.map(Column::Int)
    } else {
        row.try_get::<_, Option<String>>(at)?.map(Column::Text)
    };
    Ok(value.unwrap_or(Column::Null))
}

impl ToSql for Value<'_> {
    fn to_sql(
        &self,
        kind: &Type,
        out: &mut BytesMut,
    ) -> Result<IsNull, Box<dyn Error + Sync + Send>> {
        match self {
            Value::Null => Ok(IsNull::Yes),
            Value::Int(int) => int.to_sql_checked(kind, out),
            Value::Bool(is) => is.to_sql_checked(kind, out),
            Value::Text(text) => text.to_sql_checked(kind, out),
            Value::Bytes(bytes) => bytes.to_sql_checked(kind, out),
        }
    }

    /// Whether it fits is seen when the value is known.
    fn accepts(_: &Type) -> bool {
        true
    }

    to_sql_checked!();
}

fn lost() -> DatabaseError {
    let source = "the connection was lost in the middle of a transaction".into();
    DatabaseError { fault: DatabaseFault::Unavailable, source }
}

impl From<postgres::Error> for DatabaseError {
    fn from(error: postgres::Error) -> Self {
        if error.code() == Some(&SqlState::DISK_FULL) {
            return DatabaseError { fault: DatabaseFault::Full, source: error.into() };
        }
        let passing = error.code().is_none_or(|code| {
            // Class 08 is connections, 57 an operator who stops the server, 53 one that has no room.
            let class = code.code().get(..2).unwrap_or_default();
            matches!(class, "08" | "57" | "53")
                || *code == SqlState::LOCK_NOT_AVAILABLE
                || *code == SqlState::IDLE_IN_TRANSACTION_SESSION_TIMEOUT
                || *code == SqlState::T_R_SERIALIZATION_FAILURE
                || *code == SqlState::T_R_DEADLOCK_DETECTED
        });
        let fault = if passing { DatabaseFault::Unavailable } else { DatabaseFault::Other };
        DatabaseError { fault, source: error.into() }
    }
}
