//! The tables, and how a file gets from one set of them to the next.

use super::Error;
use rusqlite::{Connection, ErrorCode, TransactionBehavior};
use std::path::Path;

/// Marks the file as ours (`PRAGMA application_id`): "CuTv".
const APPLICATION_ID: i64 = 0x4375_5476;

/// Element `n` leads from schema `n` to `n + 1`. Only ever appended to.
const MIGRATIONS: &[&str] = &["
    CREATE TABLE entry (
        seq          INTEGER PRIMARY KEY,
        service      TEXT    NOT NULL,
        run          TEXT,
        wall_ms      INTEGER NOT NULL,
        boot_id      TEXT    NOT NULL,
        boot_ms      INTEGER NOT NULL CHECK (boot_ms >= 0),
        event        TEXT    NOT NULL CHECK (json_valid(event)),
        step_version INTEGER NOT NULL CHECK (step_version BETWEEN 0 AND 4294967295),
        state_hash   TEXT    NOT NULL
    ) STRICT;
    CREATE INDEX entry_by_service ON entry (service, seq);
    CREATE INDEX entry_by_run ON entry (run, seq) WHERE run IS NOT NULL;
    CREATE TABLE checkpoint (
        service      TEXT    PRIMARY KEY,
        seq          INTEGER NOT NULL REFERENCES entry (seq),
        state        TEXT    NOT NULL CHECK (json_valid(state)),
        step_version INTEGER NOT NULL CHECK (step_version BETWEEN 0 AND 4294967295),
        state_hash   TEXT    NOT NULL
    ) STRICT;
"];

/// What a file turned out to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Found {
    /// No tables yet.
    Blank,
    /// A journal that can be read here.
    Journal,
}

/// Looks at a file without changing it.
pub(super) fn check(conn: &Connection, path: &Path) -> Result<Found, Error> {
    let not_ours = |source| Error::NotAJournal { path: path.to_owned(), source };
    let look_error = |source: rusqlite::Error| match source.sqlite_error_code() {
        Some(ErrorCode::NotADatabase | ErrorCode::DatabaseCorrupt) => not_ours(Some(source)),
        _ => Error::Open { path: path.to_owned(), source },
    };
    let tables: i64 =
        conn.query_row("SELECT count(*) FROM sqlite_schema", [], |row| row.get(0)).map_err(look_error)?;
    let id: i64 = conn.pragma_query_value(None, "application_id", |row| row.get(0)).map_err(look_error)?;
    let found: i64 = conn.pragma_query_value(None, "user_version", |row| row.get(0)).map_err(look_error)?;
    match (id, found, tables) {
        (0, 0, 0) => Ok(Found::Blank),
        (APPLICATION_ID, ..) if found > newest() => {
            Err(Error::Newer { path: path.to_owned(), found, known: newest() })
        }
        (APPLICATION_ID, ..) if found > 0 => Ok(Found::Journal),
        _ => Err(not_ours(None)),
    }
}

/// Brings a checked file to the newest schema, in one transaction.
pub(super) fn migrate(conn: &mut Connection, path: &Path) -> Result<(), Error> {
    migrate_with(conn, MIGRATIONS).map_err(|source| Error::Migrate {
        path: path.to_owned(),
        to: newest(),
        source,
    })
}

fn migrate_with(conn: &mut Connection, migrations: &[&str]) -> rusqlite::Result<()> {
    let tx = conn.transaction_with_behavior(TransactionBehavior::Immediate)?;
    let from: i64 = tx.pragma_query_value(None, "user_version", |row| row.get(0))?;
    for (version, sql) in (1_i64..).zip(migrations).filter(|(version, _)| *version > from) {
        tx.execute_batch(sql)?;
        tx.pragma_update(None, "user_version", version)?;
        tx.pragma_update(None, "application_id", APPLICATION_ID)?;
    }
    tx.commit()
}

fn newest() -> i64 {
    i64::try_from(MIGRATIONS.len()).expect("an array of SQL texts is shorter than 2^63")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_migration_that_fails_leaves_the_old_schema_whole() {
        let mut conn = Connection::open_in_memory().unwrap();
        migrate_with(&mut conn, &["CREATE TABLE a (x)"]).unwrap();
        migrate_with(&mut conn, &["CREATE TABLE a (x)", "CREATE TABLE b (x); CREATE TABLE a (y)"])
            .unwrap_err();
        let tables: i64 = conn.query_row("SELECT count(*) FROM sqlite_schema", [], |row| row.get(0)).unwrap();
        let version: i64 = conn.pragma_query_value(None, "user_version", |row| row.get(0)).unwrap();
        assert_eq!((tables, version), (1, 1));
    }

    #[test]
    fn only_the_missing_migrations_run() {
        let mut conn = Connection::open_in_memory().unwrap();
        migrate_with(&mut conn, &["CREATE TABLE a (x)"]).unwrap();
        migrate_with(&mut conn, &["CREATE TABLE a (x)", "CREATE TABLE b (x)"]).unwrap();
        let version: i64 = conn.pragma_query_value(None, "user_version", |row| row.get(0)).unwrap();
        assert_eq!(version, 2);
    }
}
