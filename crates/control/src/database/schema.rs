//! Brings an SQLite database to the schema this program knows, step by step.

use rusqlite::Connection;

use crate::error::DatabaseError;

/// Every step since the first release, oldest first. A step that was released is never changed.
const MIGRATIONS: &[&str] = &[
    include_str!("../../migrations/sqlite/0001-caches-and-credentials.sql"),
    include_str!("../../migrations/sqlite/0002-clusters.sql"),
    include_str!("../../migrations/sqlite/0003-credentials-have-numbers.sql"),
    include_str!("../../migrations/sqlite/0004-series.sql"),
    include_str!("../../migrations/sqlite/0005-authority.sql"),
    include_str!("../../migrations/sqlite/0006-requests-of-the-installation.sql"),
    include_str!("../../migrations/sqlite/0007-dashboard.sql"),
    include_str!("../../migrations/sqlite/0008-alerts.sql"),
    include_str!("../../migrations/sqlite/0009-prefixes.sql"),
    include_str!("../../migrations/sqlite/0010-rules.sql"),
    include_str!("../../migrations/sqlite/0011-latency.sql"),
    include_str!("../../migrations/sqlite/0012-rates.sql"),
];

/// Applies the steps that are missing. Each is one transaction with its own number, so a crash in
/// between leaves a database that the next start finishes. Foreign keys are off meanwhile.
pub(crate) fn migrate(connection: &mut Connection) -> Result<(), SchemaError> {
    migrate_with(connection, MIGRATIONS)
}

fn migrate_with(connection: &mut Connection, migrations: &[&str]) -> Result<(), SchemaError> {
    connection.execute_batch(
        "CREATE TABLE IF NOT EXISTS schema_version (version INTEGER PRIMARY KEY) STRICT",
    )?;
    let found: usize = connection.query_row(
        "SELECT coalesce(max(version), 0) FROM schema_version",
        [],
        |row| row.get(0),
    )?;
    let known = migrations.len();
    if found > known {
        return Err(SchemaError::Newer { found, known });
    }
    for (version, sql) in (1usize..).zip(migrations).skip(found) {
        let transaction = connection.transaction()?;
        transaction.execute_batch(sql)?;
        transaction.execute("INSERT INTO schema_version (version) VALUES (?1)", [version])?;
        if transaction.prepare("PRAGMA foreign_key_check")?.exists([])? {
            return Err(SchemaError::Dangling { version });
        }
        transaction.commit()?;
    }
    Ok(())
}

#[derive(Debug, thiserror::Error)]
pub enum SchemaError {
    #[error(
        "the database has schema {found}, but this program knows only {known}; use a newer one"
    )]
    Newer { found: usize, known: usize },
    #[error("bringing the database to schema {version} would leave rows that refer to nothing")]
    Dangling { version: usize },
    #[error("the database's schema could not be brought up to date")]
    Database(#[source] DatabaseError),
}

impl From<rusqlite::Error> for SchemaError {
    fn from(error: rusqlite::Error) -> Self {
        SchemaError::Database(error.into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn versions(connection: &Connection) -> Vec<usize> {
        let mut statement = connection
            .prepare("SELECT version FROM schema_version ORDER BY version")
            .expect("the table is there");
        let rows = statement.query_map([], |row| row.get(0)).expect("readable");
        rows.map(|row| row.expect("a number")).collect()
    }

    #[test]
    fn an_empty_database_gets_every_step_once() {
        let mut connection = Connection::open_in_memory().expect("memory");
        for _ in 0..2 {
            migrate(&mut connection).expect("migrated");
            assert_eq!(versions(&connection), (1..=MIGRATIONS.len()).collect::<Vec<_>>());
        }
    }

    #[test]
    fn only_the_missing_steps_are_applied() {
        let mut connection = Connection::open_in_memory().expect("memory");
        let steps = ["CREATE TABLE a (x)", "CREATE TABLE b (x)"];
        migrate_with(&mut connection, &steps[..1]).expect("the first");
        migrate_with(&mut connection, &steps).expect("the second, and not the first again");
        assert_eq!(versions(&connection), [1, 2]);
    }

    #[test]
    fn a_step_that_fails_leaves_the_steps_before_it() {
        let mut connection = Connection::open_in_memory().expect("memory");
        let steps = ["CREATE TABLE a (x)", "CREATE TABLE b (x); CREATE TABLE a (y)"];
        assert!(migrate_with(&mut connection, &steps).is_err());
        assert_eq!(versions(&connection), [1]);
        let has_b = connection.prepare("SELECT * FROM b").is_ok();
        assert!(!has_b, "half a step stayed");
    }

    #[test]
    fn a_database_of_a_newer_program_is_left_alone() {
        let mut connection = Connection::open_in_memory().expect("memory");
        migrate_with(&mut connection, &["", "", ""]).expect("migrated");
        let error = migrate_with(&mut connection, &[""]).expect_err("refused");
        assert!(matches!(error, SchemaError::Newer { found: 3, known: 1 }), "{error}");
    }

    /// A database of the first release, with a deleted cache and one that is there.
    #[test]
    fn a_database_of_the_first_release_keeps_what_it_has() {
        let mut connection = Connection::open_in_memory().expect("memory");
        migrate_with(&mut connection, &MIGRATIONS[..1]).expect("migrated");
        connection
            .execute_batch(
                "BEGIN;
                 INSERT INTO caches VALUES (7, 'shop', 'dev', 1, 'ANN', 5);
                 INSERT INTO caches VALUES (9, 'gone', 'dev', 1, 'BOB', 5);
                 INSERT INTO credentials VALUES ('ANN', 7, 7, randomblob(32), randomblob(60), 5);
                 INSERT INTO credentials VALUES ('BOB', 9, 7, randomblob(32), randomblob(60), 5);
                 DELETE FROM caches WHERE id = 9;
                 INSERT INTO changes VALUES (1, 5, 'cache created', 7, 'ANN');
                 INSERT INTO audit VALUES (1, 5, 'operator', 'cache created', 7, 'shop', 'ANN', '', 1);
                 COMMIT;",
            )
            .expect("good rows");
        connection.pragma_update(None, "foreign_keys", false).expect("a pragma");
        migrate(&mut connection).expect("migrated");
        connection.pragma_update(None, "foreign_keys", true).expect("a pragma");
        let one = |sql: &str| -> String {
            connection.query_row(sql, [], |row| row.get(0)).expect("one row")
        };
        let cache =
            "SELECT format('%d %d %s %s', id, cluster_id, name, primary_username) FROM caches";
        assert_eq!(one(cache), "7 1 shop ANN");
        assert_eq!(one("SELECT format('%d %d', id, revision) FROM clusters"), "1 1");
        assert_eq!(
            one("SELECT format('%d %d %s', id, revision, actor) FROM audit"),
            "1 1 operator"
        );
        // The foreign keys of both tables still hold, and the deleted cache's id stays its own.
        assert!(connection.execute("DELETE FROM credentials", []).is_err());
        connection
            .execute_batch(
                "BEGIN;
                 INSERT INTO caches (cluster_id, name, plan, enabled, primary_username, created_at,
                     used_at) VALUES (1, 'new', 'dev', 1, 'CAT', 6, 6);
                 INSERT INTO credentials VALUES (3, 'CAT', 10, 7, randomblob(32), randomblob(60), 6);
                 COMMIT;",
            )
            .expect("the next id is 10");
    }
}
